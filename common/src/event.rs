//! The record of one dropped packet, as the programs write it into the ring buffer.

#![expect(unsafe_code, reason = "a record is plain data")]

use crate::key::Port;

/// One dropped packet. Addresses of IPv4 packets fill the first four bytes.
///
/// What could not be read from the packet is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Event {
    /// Source address, network order.
    pub source: [u8; 16],
    /// Destination address, network order.
    pub destination: [u8; 16],
    /// The host-side interface of the pod.
    pub ifindex: u32,
    /// Length of the frame in bytes.
    pub length: u32,
    /// Source port, or the identifier of an ICMP echo.
    pub source_port: Port,
    /// Destination port.
    pub destination_port: Port,
    /// A [`crate::verdict::Direction`] as a number.
    pub direction: u8,
    /// A [`crate::verdict::DropReason`] as a number.
    pub reason: u8,
    /// 4, 6, or 0 where no address could be read.
    pub family: u8,
    /// The IP protocol number.
    pub protocol: u8,
}

impl Event {
    /// An event with nothing in it.
    pub const EMPTY: Self = Self {
        source: [0; 16],
        destination: [0; 16],
        ifindex: 0,
        length: 0,
        source_port: Port([0; 2]),
        destination_port: Port([0; 2]),
        direction: 0,
        reason: 0,
        family: 0,
        protocol: 0,
    };

    /// From a record of the ring buffer; `None` if it has another size.
    pub fn from_bytes(record: &[u8]) -> Option<Self> {
        let record: &[u8; size_of::<Self>()] = record.try_into().ok()?;
        // SAFETY: plain data of exactly this size, copied without regard to alignment.
        Some(unsafe { record.as_ptr().cast::<Self>().read_unaligned() })
    }
}

const _: () = assert!(size_of::<Event>() == 48);
