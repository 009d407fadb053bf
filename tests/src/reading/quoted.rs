//! The packet that an ICMP error quotes.

use std::net::IpAddr;

use super::{
    Chain, Fragment, ICMP, ICMPV6, Rest,
    transport::{SCTP, TCP, UDP},
};

/// The ends of a quoted packet, as its sender wrote them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quoted {
    /// Who sent it.
    pub source: IpAddr,
    /// Whom it was for.
    pub destination: IpAddr,
    /// The protocol behind all extension headers.
    pub protocol: u8,
    /// Source port; the identifier of an echo request.
    pub source_port: u16,
    /// Destination port; the identifier of an echo reply.
    pub destination_port: u16,
}

impl Quoted {
    /// Reads as much as a quotation shows: it may break off behind the ports.
    pub(super) fn read(bytes: &[u8], icmp: u8) -> Option<Self> {
        let mut rest = Rest(bytes);
        let (source, destination, protocol): (IpAddr, IpAddr, u8) = if icmp == ICMP {
            let header: [u8; 20] = rest.array()?;
            let [version, .., s1, s2, s3, s4, d1, d2, d3, d4] = header;
            rest.take((usize::from(version % 16) * 4).checked_sub(20)?)?;
            // A later fragment shows no ports.
            let later = u16::from_be_bytes([header[6], header[7]]) & 0x1fff != 0;
            if version / 16 != 4 || later {
                return None;
            }
            ([s1, s2, s3, s4].into(), [d1, d2, d3, d4].into(), header[9])
        } else {
            let [version, _, _, _, _, _, next_header, _]: [u8; 8] = rest.array()?;
            let (source, destination): ([u8; 16], [u8; 16]) = (rest.array()?, rest.array()?);
            let end = bytes.len();
            let mut chain =
                Chain { rest, end, next_header, fragment: Fragment::Whole, fragmented_from: 0 };
            chain.follow().ok()?;
            if version / 16 != 6 {
                return None;
            }
            rest = chain.rest;
            (source.into(), destination.into(), chain.next_header)
        };
        let (source_port, destination_port) = match protocol {
            _ if protocol == icmp => {
                let [kind, code, _, _, i1, i2]: [u8; 6] = rest.array()?;
                let identifier = u16::from_be_bytes([i1, i2]);
                match (icmp, kind, code) {
                    (ICMP, 8, 0) | (ICMPV6, 128, 0) => (identifier, 0),
                    (ICMP, 0, 0) | (ICMPV6, 129, 0) => (0, identifier),
                    _ => (0, 0),
                }
            }
            TCP | UDP | SCTP => (rest.number()?, rest.number()?),
            _ => (0, 0),
        };
        Some(Self { source, destination, protocol, source_port, destination_port })
    }
}
