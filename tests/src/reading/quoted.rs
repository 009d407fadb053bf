//! The packet that an ICMP error quotes.

use std::net::IpAddr;

use bulkhead_common::verdict::DropReason::{
    self, FragmentWithoutFirst, Malformed, TooManyExtensionHeaders, Truncated,
};

use super::{
    FRAGMENT, ICMP, ICMPV6, Rest, is_extension,
    transport::{SCTP, TCP, UDP},
};

/// The ends of a quoted packet, as its sender wrote them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quoted {
    /// Who sent it.
    pub source: IpAddr,
    /// Whom it was for.
    pub destination: IpAddr,
    /// The protocol behind the IP header, and behind that of a first fragment.
    pub protocol: u8,
    /// Source port; the identifier of an echo request.
    pub source_port: u16,
    /// Destination port; the identifier of an echo reply.
    pub destination_port: u16,
}

impl Quoted {
    /// Reads a quotation: it may break off behind the eight bytes that every host quotes of what
    /// follows the IP header (RFC 792).
    ///
    /// # Errors
    ///
    /// Why it says nothing of a flow.
    pub(super) fn read(bytes: &[u8], icmp: u8) -> Result<Self, DropReason> {
        let mut rest = Rest(bytes);
        let (source, destination, protocol): (IpAddr, IpAddr, u8) = if icmp == ICMP {
            let header: [u8; 20] = rest.array().ok_or(Truncated)?;
            let [version, .., s1, s2, s3, s4, d1, d2, d3, d4] = header;
            let words = usize::from(version % 16);
            if version / 16 != 4 || words < 5 {
                return Err(Malformed);
            }
            // A later fragment shows no ports.
            if u16::from_be_bytes([header[6], header[7]]) & 0x1fff != 0 {
                return Err(FragmentWithoutFirst);
            }
            rest.take(words * 4 - 20).ok_or(Truncated)?;
            ([s1, s2, s3, s4].into(), [d1, d2, d3, d4].into(), header[9])
        } else {
            let header: [u8; 40] = rest.array().ok_or(Truncated)?;
            let [version, _, _, _, _, _, next_header, _, addresses @ ..] = header;
            let (source, destination) = addresses.split_at(16);
            let address = |bytes: &[u8]| <[u8; 16]>::try_from(bytes).expect("16 bytes").into();
            if version / 16 != 6 {
                return Err(Malformed);
            }
            let mut protocol = next_header;
            if protocol == FRAGMENT {
                let [next, _, o1, o2, ..]: [u8; 8] = rest.array().ok_or(Truncated)?;
                if u16::from_be_bytes([o1, o2]) / 8 != 0 {
                    return Err(FragmentWithoutFirst);
                }
                protocol = next;
            }
            if is_extension(protocol) {
                return Err(TooManyExtensionHeaders);
            }
            (address(source), address(destination), protocol)
        };
        let [b0, b1, b2, b3, b4, b5, _, _]: [u8; 8] = rest.array().ok_or(Truncated)?;
        let identifier = u16::from_be_bytes([b4, b5]);
        let (source_port, destination_port) = match (protocol, b0, b1) {
            (TCP | UDP | SCTP, ..) => (u16::from_be_bytes([b0, b1]), u16::from_be_bytes([b2, b3])),
            (ICMP, 8, 0) | (ICMPV6, 128, 0) if protocol == icmp => (identifier, 0),
            (ICMP, 0, 0) | (ICMPV6, 129, 0) if protocol == icmp => (0, identifier),
            _ => (0, 0),
        };
        Ok(Self { source, destination, protocol, source_port, destination_port })
    }
}
