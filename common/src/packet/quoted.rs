//! The packet that an ICMP error is about.

use super::{
    Bytes, ExtensionHeader, HEADERS_LEN, Header, Ipv4Header, Ipv6Header, Packet, protocol,
    transport::{FirstBytes, Transport},
};
use crate::{key::Address, verdict::DropReason};

/// What an ICMP error quotes (RFC 792; RFC 4443, section 2.4): an IP header and at least eight bytes
/// more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quoted<const N: usize> {
    /// Source of the quoted packet.
    pub source: Address<N>,
    /// Destination of the quoted packet.
    pub destination: Address<N>,
    /// Its protocol.
    pub protocol: u8,
    /// Its ports. `problem` says why there are none.
    pub transport: Transport,
}

impl<const N: usize> Quoted<N> {
    const fn unreadable(reason: DropReason) -> Self {
        Self {
            source: Address::ZERO,
            destination: Address::ZERO,
            protocol: 0,
            transport: Transport::unreadable(reason),
        }
    }
}

/// Reads what the ICMP error `packet` quotes.
#[inline(always)]
pub fn quoted_ipv4<B: Bytes>(frame: &B, packet: &Packet<4>) -> Quoted<4> {
    let (at, end) = bounds(packet);
    let Some(header) = read::<Ipv4Header, _>(frame, at, end) else {
        return Quoted::unreadable(DropReason::Truncated);
    };
    let [version_ihl] = header.version_ihl;
    let header_len = usize::from(version_ihl & 0x0f) * 4;
    if version_ihl >> 4 != 4 || header_len < size_of::<Ipv4Header>() {
        return Quoted::unreadable(DropReason::Malformed);
    }
    let [number] = header.protocol;
    let transport = if u16::from_be_bytes(header.flags_offset) & 0x1fff == 0 {
        first_bytes(frame, protocol::ICMP, number, at + header_len, end)
    } else {
        Transport::unreadable(DropReason::FragmentWithoutFirst)
    };
    Quoted { source: header.source, destination: header.destination, protocol: number, transport }
}

/// Reads what the ICMPv6 error `packet` quotes. Of extension headers, that of a first fragment alone
/// is followed.
#[inline(always)]
pub fn quoted_ipv6<B: Bytes>(frame: &B, packet: &Packet<16>) -> Quoted<16> {
    let (at, end) = bounds(packet);
    let Some(header) = read::<Ipv6Header, _>(frame, at, end) else {
        return Quoted::unreadable(DropReason::Truncated);
    };
    let [version, ..] = header.version_class_flow;
    if version >> 4 != 6 {
        return Quoted::unreadable(DropReason::Malformed);
    }
    let [mut number] = header.next_header;
    let mut offset = at + size_of::<Ipv6Header>();
    let mut problem = None;
    if number == protocol::FRAGMENT {
        match read::<ExtensionHeader, _>(frame, offset, end) {
            Some(fragment) => {
                if u16::from_be_bytes(fragment.third_fourth) & 0xfff8 != 0 {
                    problem = Some(DropReason::FragmentWithoutFirst);
                }
                [number] = fragment.next_header;
                offset += size_of::<ExtensionHeader>();
            }
            None => problem = Some(DropReason::Truncated),
        }
    }
    let transport = match problem {
        Some(reason) => Transport::unreadable(reason),
        None if super::is_extension_header(number) => {
            Transport::unreadable(DropReason::TooManyExtensionHeaders)
        }
        None => first_bytes(frame, protocol::ICMPV6, number, offset, end),
    };
    Quoted { source: header.source, destination: header.destination, protocol: number, transport }
}

/// Where the quoted packet starts, and where it ends at the latest, in bytes from the start of the
/// frame: with the packet that quotes it, and with what is read of a frame.
#[inline(always)]
const fn bounds<const N: usize>(packet: &Packet<N>) -> (usize, usize) {
    // Of an offset that one function leaves to another, the verifier knows nothing but the mask.
    let start = packet.transport_offset & 0xfff;
    let at = start + size_of::<FirstBytes>();
    let end = start + packet.transport_len;
    (at, if end < HEADERS_LEN { end } else { HEADERS_LEN })
}

/// A header that lies whole before `end`.
#[inline(always)]
fn read<T: Header, B: Bytes>(frame: &B, at: usize, end: usize) -> Option<T> {
    if at + size_of::<T>() > end {
        return None;
    }
    frame.read(at)
}

#[inline(always)]
fn first_bytes<B: Bytes>(frame: &B, icmp: u8, number: u8, at: usize, end: usize) -> Transport {
    match read::<FirstBytes, _>(frame, at, end) {
        Some(first) => Transport::quoted(icmp, number, &first),
        None => Transport::unreadable(DropReason::Truncated),
    }
}
