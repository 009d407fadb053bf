//! Packets of the common kind: TCP and UDP, whole, without IP options and extension headers.
//!
//! What is read here is what [`super::parse_ipv4`] and [`super::parse_ipv6`] read of the same frame,
//! with fewer steps; a test holds them to it. Anything else is `None`, and for those two to say.

use super::{
    Bytes, ETHERNET_LEN, Ethertype, Ipv4Header, Ipv6Header, header, protocol,
    transport::{FIRST_LEN, FirstBytes, Role, TcpRest, Transport, tcp_ending, tcp_role},
};
use crate::key::Address;

header! {
    PlainIpv4, 4 { ip: Ipv4Header, first: FirstBytes, }
}
header! {
    PlainIpv6, 4 { ip: Ipv6Header, first: FirstBytes, }
}

/// A packet of the common kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plain<const N: usize> {
    /// Source address.
    pub source: Address<N>,
    /// Destination address.
    pub destination: Address<N>,
    /// TCP or UDP.
    pub protocol: u8,
    /// What stands in its header.
    pub transport: Transport,
}

/// An IPv4 packet of the common kind.
#[inline(always)]
pub fn plain_ipv4<B: Bytes>(frame: &B) -> Option<Plain<4>> {
    let PlainIpv4 { ip, first } = frame.read(ETHERNET_LEN)?;
    let offset = ETHERNET_LEN + size_of::<Ipv4Header>();
    let total_len = usize::from(u16::from_be_bytes(ip.total_length));
    let common = ip.version_ihl == [0x45]
        // Neither an offset, nor more fragments.
        && u16::from_be_bytes(ip.flags_offset) & 0x3fff == 0
        && ETHERNET_LEN + total_len <= frame.len();
    if !common {
        return None;
    }
    let [number] = ip.protocol;
    let transport_len = total_len.checked_sub(size_of::<Ipv4Header>())?;
    Some(Plain {
        source: ip.source,
        destination: ip.destination,
        protocol: number,
        transport: transport(frame, number, &first, offset, transport_len)?,
    })
}

/// An IPv6 packet of the common kind.
#[inline(always)]
pub fn plain_ipv6<B: Bytes>(frame: &B) -> Option<Plain<16>> {
    let PlainIpv6 { ip, first } = frame.read(ETHERNET_LEN)?;
    let offset = ETHERNET_LEN + size_of::<Ipv6Header>();
    let [version, ..] = ip.version_class_flow;
    let transport_len = usize::from(u16::from_be_bytes(ip.payload_length));
    if version >> 4 != 6 || offset + transport_len > frame.len() {
        return None;
    }
    let [number] = ip.next_header;
    Some(Plain {
        source: ip.source,
        destination: ip.destination,
        protocol: number,
        transport: transport(frame, number, &first, offset, transport_len)?,
    })
}

/// Whether `frame` says that it is IPv4 (`Some(true)`) or IPv6 (`Some(false)`).
#[inline(always)]
pub(crate) fn is_ipv4<B: Bytes>(frame: &B) -> Option<bool> {
    let ethertype: Ethertype = frame.read(12)?;
    match ethertype.value {
        super::ETHERTYPE_IPV4 => Some(true),
        super::ETHERTYPE_IPV6 => Some(false),
        _ => None,
    }
}

#[inline(always)]
fn transport<B: Bytes>(
    frame: &B,
    number: u8,
    first: &FirstBytes,
    offset: usize,
    len: usize,
) -> Option<Transport> {
    match number {
        protocol::TCP => {
            let rest: TcpRest = frame.read(offset + size_of::<FirstBytes>())?;
            let [data_offset] = rest.data_offset;
            let [flags] = rest.flags;
            let header_len = usize::from(data_offset >> 4) * 4;
            let least = size_of::<FirstBytes>() + size_of::<TcpRest>();
            (header_len >= least && header_len <= len).then(|| Transport {
                ending: tcp_ending(flags),
                ..Transport::with_ports(first, tcp_role(flags), header_len as u16)
            })
        }
        protocol::UDP => {
            let length = usize::from(u16::from_be_bytes(first.third));
            let least = size_of::<FirstBytes>();
            (length >= least && length <= len)
                .then(|| Transport::with_ports(first, Role::Either, FIRST_LEN))
        }
        _ => None,
    }
}
