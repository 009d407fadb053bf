//! A second reading of a frame's headers, for the data plane's to be held against.
//!
//! Written from the RFCs, header by header off the front of what is left, and knows nothing of
//! `bulkhead_common::packet`. It says what a host that gets the frame would see, and where the
//! documented limits of the data plane (docs/limits.md) leave off earlier.

use std::net::IpAddr;

mod quoted;
mod transport;

pub use quoted::Quoted;
pub use transport::{Closes, Part, Transport};

use bulkhead_common::verdict::DropReason::{
    self, FragmentWithoutFirst, Malformed, RoutingHeader, TooManyExtensionHeaders, Truncated,
    UnknownEthertype, VlanTagged,
};

/// What a frame is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading {
    /// Address resolution.
    Arp,
    /// It shows no addresses.
    Unaddressed(DropReason),
    /// An IP packet.
    Ip(Ip),
}

/// An IP packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ip {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// How the packet is a part of a larger one.
    pub fragment: Fragment,
    /// The protocol behind all extension headers that could be followed.
    pub protocol: u8,
    /// What is behind them, or why it cannot be told.
    pub transport: Result<Transport, DropReason>,
    /// Where the transport header ends, counted as [`Fragment::At`] counts.
    pub headers_end: usize,
    /// Where in the frame the transport header ends.
    pub data: usize,
}

/// How a packet is a part of a larger one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragment {
    /// It is whole.
    Whole,
    /// Its headers break off before that could be said.
    Unknown,
    /// One part of it, beginning at this byte; zero: the first.
    At {
        /// Where in the larger packet.
        byte: usize,
        /// What all its parts have in common.
        id: u32,
        /// More parts follow.
        more: bool,
    },
}

/// What is left of a frame.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn number(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }
}

const HOP_BY_HOP: u8 = 0;
const ICMP: u8 = 1;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const ICMPV6: u8 = 58;
const DESTINATION_OPTIONS: u8 = 60;

/// Extension headers that are followed; the sixth may be the last.
const FOLLOWED: usize = 6;
/// How much of a frame the data plane looks at.
const LOOKED_AT: usize = 256;
/// Where in a frame the payload of an IPv6 packet begins.
const BEHIND_IPV6: usize = 14 + 40;

/// Reads a frame.
pub fn read(frame: &[u8]) -> Reading {
    let mut rest = Rest(frame);
    let reading = match rest.take(12).and_then(|_hardware| rest.number()) {
        None => Err(Truncated),
        Some(0x0806) => return Reading::Arp,
        Some(0x0800) => ipv4(rest),
        Some(0x86dd) => ipv6(rest),
        Some(0x8100 | 0x88a8) => Err(VlanTagged),
        Some(_) => Err(UnknownEthertype),
    };
    reading.map_or_else(Reading::Unaddressed, Reading::Ip)
}

/// RFC 791, section 3.1.
fn ipv4(mut packet: Rest<'_>) -> Result<Ip, DropReason> {
    let available = packet.0.len();
    let header: [u8; 20] = packet.array().ok_or(Truncated)?;
    let [version_and_words, _, l1, l2, i1, i2, f1, f2, _, protocol, _, _, addresses @ ..] = header;
    let [s1, s2, s3, s4, d1, d2, d3, d4] = addresses;
    let header_len = usize::from(version_and_words % 16) * 4;
    if version_and_words / 16 != 4 || header_len < 20 {
        return Err(Malformed);
    }
    let total = usize::from(u16::from_be_bytes([l1, l2]));
    if total < header_len {
        return Err(Malformed);
    }
    if total > available {
        return Err(Truncated);
    }
    let payload = &packet.0[header_len - 20..total - 20];
    let more = f1 & 0x20 != 0;
    let byte = usize::from(u16::from_be_bytes([f1, f2]) % (1 << 13)) * 8;
    let fragment = match (byte, more) {
        (0, false) => Fragment::Whole,
        (byte, more) => Fragment::At { byte, id: u16::from_be_bytes([i1, i2]).into(), more },
    };
    let transport = match fragment {
        Fragment::At { byte, .. } if byte > 0 => Err(FragmentWithoutFirst),
        Fragment::At { .. } | Fragment::Whole | Fragment::Unknown => {
            Transport::read(payload, 14 + header_len, protocol, ICMP, more)
        }
    };
    let headers_end = transport.as_ref().map_or(0, |transport| transport.header_len);
    let data = 14 + header_len + headers_end;
    Ok(Ip {
        source: [s1, s2, s3, s4].into(),
        destination: [d1, d2, d3, d4].into(),
        fragment,
        protocol,
        transport,
        headers_end,
        data,
    })
}

/// RFC 8200, sections 3 and 4.
fn ipv6(mut packet: Rest<'_>) -> Result<Ip, DropReason> {
    let header: [u8; 8] = packet.array().ok_or(Truncated)?;
    let source: [u8; 16] = packet.array().ok_or(Truncated)?;
    let destination: [u8; 16] = packet.array().ok_or(Truncated)?;
    let [version_and_class, _, _, _, l1, l2, next_header, hop_limit] = header;
    if version_and_class / 16 != 6 {
        return Err(Malformed);
    }
    let payload = packet.take(u16::from_be_bytes([l1, l2]).into()).ok_or(Truncated)?;

    let end = BEHIND_IPV6 + payload.len();
    let mut chain = Chain {
        rest: Rest(payload),
        end,
        next_header,
        fragment: Fragment::Whole,
        fragmented_from: 0,
    };
    let followed = chain.follow();
    let transport = followed.and_then(|()| {
        let Chain { rest, next_header, fragment, .. } = &chain;
        let least = transport::least(*next_header, ICMPV6);
        // What is too short is that wherever it stands.
        if least.is_some_and(|least| rest.0.len() >= least) && chain.at() + 20 > LOOKED_AT {
            return Err(TooManyExtensionHeaders);
        }
        let more = matches!(fragment, Fragment::At { more: true, .. });
        let transport = Transport::read(rest.0, chain.at(), *next_header, ICMPV6, more)?;
        // RFC 4861, section 7.1: what crossed a router is no neighbour discovery. RFC 6980: nor is
        // what comes in fragments.
        let fragmented = *fragment != Fragment::Whole;
        if transport.part == Part::NeighbourDiscovery && (hop_limit != 255 || fragmented) {
            return Err(Malformed);
        }
        Ok(transport)
    });
    let header_len = transport.as_ref().map_or(0, |transport| transport.header_len);
    let data = chain.at() + header_len;
    let headers_end = data - chain.fragmented_from;
    if followed.is_err() && chain.fragment == Fragment::Whole {
        chain.fragment = Fragment::Unknown;
    }
    Ok(Ip {
        source: source.into(),
        destination: destination.into(),
        fragment: chain.fragment,
        protocol: chain.next_header,
        transport,
        headers_end,
        data,
    })
}

fn is_extension(number: u8) -> bool {
    [HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, DESTINATION_OPTIONS].contains(&number)
}

/// Extension headers, one behind the other.
struct Chain<'a> {
    rest: Rest<'a>,
    /// Where in the frame the packet ends.
    end: usize,
    next_header: u8,
    fragment: Fragment,
    /// Where in the frame the part begins that is cut into fragments.
    fragmented_from: usize,
}

impl Chain<'_> {
    /// Where in the frame the rest begins.
    const fn at(&self) -> usize {
        self.end - self.rest.0.len()
    }

    /// Up to the first header that is none.
    fn follow(&mut self) -> Result<(), DropReason> {
        let mut followed = 0;
        while is_extension(self.next_header) {
            if self.next_header == HOP_BY_HOP && followed > 0 {
                return Err(Malformed);
            }
            if followed == FOLLOWED || self.at() + 8 > LOOKED_AT {
                return Err(TooManyExtensionHeaders);
            }
            self.step()?;
            followed += 1;
        }
        Ok(())
    }

    fn step(&mut self) -> Result<(), DropReason> {
        let [next, len, third, fourth, id @ ..]: [u8; 8] = self.rest.array().ok_or(Truncated)?;
        let number = std::mem::replace(&mut self.next_header, next);
        let more = match number {
            // Hosts would put it together twice.
            FRAGMENT if self.fragment != Fragment::Whole => return Err(Malformed),
            FRAGMENT => {
                let byte = usize::from(u16::from_be_bytes([third, fourth]) & !7);
                let (id, more) = (u32::from_be_bytes(id), fourth & 1 != 0);
                self.fragment = Fragment::At { byte, id, more };
                self.fragmented_from = self.at();
                if byte > 0 {
                    return Err(FragmentWithoutFirst);
                }
                0
            }
            ROUTING if third == 0 => return Err(RoutingHeader),
            // RFC 4302, section 2.2: words of four bytes, minus two.
            AUTHENTICATION => usize::from(len) * 4,
            _ => usize::from(len) * 8,
        };
        self.rest.take(more).map(drop).ok_or(Truncated)
    }
}

/// Whether a frame says that it is IPv6 and shows an extension header behind a whole IPv6 header.
pub fn may_be_extended(frame: &[u8]) -> bool {
    frame.get(12..14) == Some(&[0x86, 0xdd])
        && frame.len() >= BEHIND_IPV6
        && is_extension(frame[20])
}
