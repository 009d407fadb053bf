//! Transport headers: ports, and what part a packet can play in a flow.

use super::{Bytes, HEADERS_LEN, Header, header, protocol};
use crate::{key::Port, verdict::DropReason};

header! {
    /// The first eight bytes of TCP, UDP, SCTP or ICMP.
    FirstBytes, 4 {
        /// TCP, UDP, SCTP: the source port. ICMP: type and code.
        first: [u8; 2],
        /// TCP, UDP, SCTP: the destination port. ICMP: the checksum.
        second: [u8; 2],
        /// UDP: the length. ICMP echo: the identifier.
        third: [u8; 2],
        fourth: [u8; 2],
    }
}
header! {
    /// RFC 9293, section 3.1, from the acknowledgment number on (offset 8).
    TcpRest, 4 {
        acknowledgment: [u8; 4],
        data_offset: [u8; 1],
        flags: [u8; 1],
        window: [u8; 2],
        checksum: [u8; 2],
        urgent: [u8; 2],
    }
}

const TCP_LEN: usize = size_of::<FirstBytes>() + size_of::<TcpRest>();
const SCTP_LEN: usize = 12;
const TCP_SYN: u8 = 0x02;
const TCP_ACK: u8 = 0x10;
const ICMP_ECHO_REPLY: u8 = 0;
const ICMP_ECHO: u8 = 8;
const ICMPV6_ECHO: u8 = 128;
const ICMPV6_ECHO_REPLY: u8 = 129;
const ICMPV6_NEIGHBOUR_DISCOVERY: core::ops::RangeInclusive<u8> = 133..=137;

/// What a transport header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transport {
    /// Source port. ICMP echo request: the identifier. Zero where there is none.
    pub source_port: Port,
    /// Destination port. ICMP echo reply: the identifier. Zero where there is none.
    pub destination_port: Port,
    /// What part the packet can play in a flow.
    pub role: Role,
}

/// What part a packet can play in a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It opens a flow, and is never a reply: TCP SYN, ICMP echo request.
    Opens,
    /// It continues a flow in either direction, and does not say who opened it: TCP but for SYN.
    Continues,
    /// It opens a flow where there is none, and is a reply where there is one: UDP, SCTP.
    Either,
    /// It is a reply and opens nothing: ICMP echo reply.
    Answers,
    /// It belongs to no flow: other ICMP, other protocols.
    Alone,
    /// ICMPv6 133 to 137 (RFC 4861).
    NeighbourDiscovery,
}

/// Reads the transport header at `offset`, of a packet that has `len` bytes from there on.
///
/// # Errors
///
/// The reason for which an isolated pod's packet is dropped.
#[inline(always)]
pub(super) fn parse<B: Bytes>(
    frame: &B,
    number: u8,
    offset: usize,
    len: usize,
) -> Result<Transport, DropReason> {
    let least = match number {
        protocol::TCP => TCP_LEN,
        protocol::UDP | protocol::ICMP | protocol::ICMPV6 => size_of::<FirstBytes>(),
        protocol::SCTP => SCTP_LEN,
        _ => return Ok(alone()),
    };
    if len < least {
        return Err(DropReason::Truncated);
    }
    if offset > HEADERS_LEN - TCP_LEN {
        return Err(DropReason::TooManyExtensionHeaders);
    }
    let first: FirstBytes = frame.read(offset).ok_or(DropReason::Truncated)?;
    let with_ports = |role| Transport {
        source_port: Port(first.first),
        destination_port: Port(first.second),
        role,
    };
    match number {
        protocol::TCP => {
            let rest: TcpRest = read_after(frame, offset)?;
            let [data_offset] = rest.data_offset;
            let header_len = usize::from(data_offset >> 4) * 4;
            if header_len < TCP_LEN {
                return Err(DropReason::Malformed);
            }
            if header_len > len {
                return Err(DropReason::Truncated);
            }
            let [flags] = rest.flags;
            let opens = flags & (TCP_SYN | TCP_ACK) == TCP_SYN;
            Ok(with_ports(if opens { Role::Opens } else { Role::Continues }))
        }
        protocol::UDP => {
            let length = usize::from(u16::from_be_bytes(first.third));
            // RFC 2675: zero in a jumbogram, and in a GSO packet over 64 KiB.
            let jumbo = length == 0 && len > usize::from(u16::MAX);
            if !jumbo && (length < size_of::<FirstBytes>() || length > len) {
                return Err(DropReason::Malformed);
            }
            Ok(with_ports(Role::Either))
        }
        protocol::SCTP => Ok(with_ports(Role::Either)),
        _ => Ok(icmp(number, &first)),
    }
}

#[inline(always)]
fn read_after<B: Bytes, T: Header>(frame: &B, offset: usize) -> Result<T, DropReason> {
    frame.read(offset + size_of::<FirstBytes>()).ok_or(DropReason::Truncated)
}

#[inline(always)]
fn icmp(number: u8, first: &FirstBytes) -> Transport {
    let [kind, code] = first.first;
    let identifier = Port(first.third);
    let none = Port([0; 2]);
    match (number, kind, code) {
        (protocol::ICMP, ICMP_ECHO, 0) | (protocol::ICMPV6, ICMPV6_ECHO, 0) => {
            Transport { source_port: identifier, destination_port: none, role: Role::Opens }
        }
        (protocol::ICMP, ICMP_ECHO_REPLY, 0) | (protocol::ICMPV6, ICMPV6_ECHO_REPLY, 0) => {
            Transport { source_port: none, destination_port: identifier, role: Role::Answers }
        }
        (protocol::ICMPV6, kind, 0) if ICMPV6_NEIGHBOUR_DISCOVERY.contains(&kind) => {
            Transport { role: Role::NeighbourDiscovery, ..alone() }
        }
        _ => alone(),
    }
}

#[inline(always)]
const fn alone() -> Transport {
    Transport { source_port: Port([0; 2]), destination_port: Port([0; 2]), role: Role::Alone }
}
