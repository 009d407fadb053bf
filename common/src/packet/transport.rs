//! Transport headers: ports, and what part a packet can play in a flow.

use super::{Bytes, HEADERS_LEN, Part, header, protocol};
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

header! {
    /// RFC 9260, section 3, from the verification tag on (offset 4), with the first chunk's header.
    SctpRest, 4 {
        verification_tag: [u8; 4],
        checksum: [u8; 4],
        chunk_type: [u8; 1],
        chunk_flags: [u8; 1],
        chunk_length: [u8; 2],
    }
}

pub(super) const FIRST_LEN: u16 = 8;
const TCP_LEN: usize = size_of::<FirstBytes>() + size_of::<TcpRest>();
/// The common header, and the header of the chunk that every packet has.
const SCTP_LEN: usize = 4 + size_of::<SctpRest>();
const SCTP_INIT: u8 = 1;
const SCTP_INIT_ACK: u8 = 2;
const SCTP_ABORT: u8 = 6;
const SCTP_SHUTDOWN: u8 = 7;
const SCTP_SHUTDOWN_ACK: u8 = 8;
const SCTP_SHUTDOWN_COMPLETE: u8 = 14;
const TCP_FIN: u8 = 0x01;
const TCP_SYN: u8 = 0x02;
const TCP_RST: u8 = 0x04;
const TCP_ACK: u8 = 0x10;
const ICMP_ECHO_REPLY: u8 = 0;
const ICMP_ECHO: u8 = 8;
const ICMPV6_ECHO: u8 = 128;
const ICMPV6_ECHO_REPLY: u8 = 129;
/// What a transport header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transport {
    /// Source port. ICMP echo request: the identifier. Zero where there is none.
    pub source_port: Port,
    /// Destination port. ICMP echo reply: the identifier. Zero where there is none.
    pub destination_port: Port,
    /// What part the packet can play in a flow.
    pub role: Role,
    /// What it does to the flow's life.
    pub ending: Ending,
    /// Length of the header in bytes; of protocols that are not read, zero.
    pub header_len: u16,
    /// Why nothing can be said of the header; every other field is empty then.
    pub problem: Option<DropReason>,
}

/// What part a packet can play in a flow. The numbers stand in [`crate::value::Fragment`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Role {
    /// It opens a flow, and is never a reply: TCP SYN, SCTP INIT, ICMP echo request.
    Opens = 0,
    /// It continues a flow in either direction, and does not say who opened it: other TCP and SCTP.
    Continues = 1,
    /// It opens a flow where there is none, and is a reply where there is one: UDP.
    Either = 2,
    /// It is a reply and opens nothing: TCP SYN with ACK, SCTP INIT ACK, ICMP echo reply.
    Answers = 3,
    /// It belongs to no flow: other ICMP, other protocols.
    Alone = 4,
    /// ICMPv6 133 to 137 (RFC 4861).
    NeighbourDiscovery = 5,
    /// An ICMP error, which quotes the packet that it is about: see [`super::quoted_ipv4`].
    Reports = 6,
}

impl Role {
    /// The role of a number that [`crate::value::Fragment`] holds.
    #[inline(always)]
    pub const fn from_number(number: u8) -> Self {
        match number {
            0 => Self::Opens,
            1 => Self::Continues,
            2 => Self::Either,
            3 => Self::Answers,
            6 => Self::Reports,
            // Neighbour discovery is not for policy to judge.
            _ => Self::Alone,
        }
    }
}

/// What a packet does to the life of its flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Ending {
    /// Nothing.
    None = 0,
    /// Its sender will send no more data: TCP FIN, SCTP SHUTDOWN.
    Finish = 1,
    /// The flow is over: TCP RST, SCTP ABORT and SHUTDOWN COMPLETE.
    Reset = 2,
}

impl Ending {
    /// From its number.
    #[inline(always)]
    pub const fn from_number(number: u8) -> Self {
        match number {
            1 => Self::Finish,
            2 => Self::Reset,
            _ => Self::None,
        }
    }
}

impl Transport {
    /// Of a protocol without ports.
    pub const ALONE: Self = Self {
        source_port: Port([0; 2]),
        destination_port: Port([0; 2]),
        role: Role::Alone,
        ending: Ending::None,
        header_len: 0,
        problem: None,
    };

    #[inline(always)]
    pub(crate) const fn unreadable(reason: DropReason) -> Self {
        Self { problem: Some(reason), ..Self::ALONE }
    }

    /// Reads the transport header at `offset`, of a packet that has `len` bytes from there on.
    ///
    /// `icmp` is the number of ICMP in the packet's family. The other family's is a protocol like
    /// any other: no host takes it for a ping, or for neighbour discovery. Of a first fragment, too,
    /// the whole header must be there: one that is split could be completed by anything.
    #[inline(always)]
    pub(super) fn read<B: Bytes>(
        frame: &B,
        icmp: u8,
        number: u8,
        offset: usize,
        len: usize,
        part: Part,
    ) -> Self {
        let least = match number {
            protocol::TCP => TCP_LEN,
            protocol::UDP => size_of::<FirstBytes>(),
            protocol::SCTP => SCTP_LEN,
            _ if number == icmp => size_of::<FirstBytes>(),
            _ => return Self::ALONE,
        };
        if len < least {
            return Self::unreadable(DropReason::Truncated);
        }
        if offset > HEADERS_LEN - TCP_LEN {
            return Self::unreadable(DropReason::TooManyExtensionHeaders);
        }
        let Some(first) = frame.read::<FirstBytes>(offset) else {
            return Self::unreadable(DropReason::Truncated);
        };
        match number {
            protocol::TCP => Self::tcp(frame, &first, offset, len),
            protocol::UDP => Self::udp(&first, len, part),
            protocol::SCTP => Self::sctp(frame, &first, offset),
            _ => Self::icmp(number, &first, part),
        }
    }

    /// Of the first eight bytes of a header alone, as an ICMP error quotes them.
    #[inline(always)]
    pub(super) const fn quoted(icmp: u8, number: u8, first: &FirstBytes) -> Self {
        match number {
            protocol::TCP | protocol::UDP | protocol::SCTP => {
                Self::with_ports(first, Role::Either, FIRST_LEN)
            }
            _ if number == icmp => Self::icmp(number, first, Part::Whole),
            _ => Self::ALONE,
        }
    }

    #[inline(always)]
    fn tcp<B: Bytes>(frame: &B, first: &FirstBytes, offset: usize, len: usize) -> Self {
        let Some(rest) = frame.read::<TcpRest>(offset + size_of::<FirstBytes>()) else {
            return Self::unreadable(DropReason::Truncated);
        };
        let [data_offset] = rest.data_offset;
        let header_len = usize::from(data_offset >> 4) * 4;
        if header_len < TCP_LEN {
            return Self::unreadable(DropReason::Malformed);
        }
        if header_len > len {
            return Self::unreadable(DropReason::Truncated);
        }
        let [flags] = rest.flags;
        Self {
            ending: tcp_ending(flags),
            ..Self::with_ports(first, tcp_role(flags), header_len as u16)
        }
    }

    #[inline(always)]
    fn udp(first: &FirstBytes, len: usize, part: Part) -> Self {
        let length = usize::from(u16::from_be_bytes(first.third));
        // RFC 2675: zero in a jumbogram, and in a GSO packet over 64 KiB.
        let jumbo = length == 0 && len > usize::from(u16::MAX);
        // What is behind the end of a first fragment comes in the later ones.
        let too_long = length > len && !matches!(part, Part::First);
        if !jumbo && (length < size_of::<FirstBytes>() || too_long) {
            return Self::unreadable(DropReason::Malformed);
        }
        Self::with_ports(first, Role::Either, FIRST_LEN)
    }

    /// INIT, INIT ACK and SHUTDOWN COMPLETE are never bundled (RFC 9260, section 6.10), so that the
    /// first chunk tells.
    #[inline(always)]
    fn sctp<B: Bytes>(frame: &B, first: &FirstBytes, offset: usize) -> Self {
        let Some(rest) = frame.read::<SctpRest>(offset + 4) else {
            return Self::unreadable(DropReason::Truncated);
        };
        let [chunk] = rest.chunk_type;
        let role = match chunk {
            SCTP_INIT => Role::Opens,
            SCTP_INIT_ACK => Role::Answers,
            _ => Role::Continues,
        };
        let ending = match chunk {
            SCTP_SHUTDOWN | SCTP_SHUTDOWN_ACK => Ending::Finish,
            SCTP_ABORT | SCTP_SHUTDOWN_COMPLETE => Ending::Reset,
            _ => Ending::None,
        };
        Self { ending, ..Self::with_ports(first, role, SCTP_LEN as u16) }
    }

    #[inline(always)]
    const fn icmp(number: u8, first: &FirstBytes, part: Part) -> Self {
        let [kind, code] = first.first;
        let identifier = Port(first.third);
        let message = Self { header_len: FIRST_LEN, ..Self::ALONE };
        let whole = matches!(part, Part::Whole);
        match (number, kind, code) {
            (protocol::ICMP, ICMP_ECHO, 0) | (protocol::ICMPV6, ICMPV6_ECHO, 0) => {
                Self { source_port: identifier, role: Role::Opens, ..message }
            }
            (protocol::ICMP, ICMP_ECHO_REPLY, 0) | (protocol::ICMPV6, ICMPV6_ECHO_REPLY, 0) => {
                Self { destination_port: identifier, role: Role::Answers, ..message }
            }
            // RFC 4861.
            (protocol::ICMPV6, 133..=137, 0) => Self { role: Role::NeighbourDiscovery, ..message },
            // Destination unreachable, packet too big, time exceeded, parameter problem (RFC 792, RFC
            // 4443). Redirects and source quench are nobody's to send to a pod.
            (protocol::ICMP, 3 | 11 | 12, _) | (protocol::ICMPV6, 1..=4, _) if whole => {
                Self { role: Role::Reports, ..message }
            }
            _ => message,
        }
    }

    #[inline(always)]
    pub(super) const fn with_ports(first: &FirstBytes, role: Role, header_len: u16) -> Self {
        Self {
            source_port: Port(first.first),
            destination_port: Port(first.second),
            role,
            ending: Ending::None,
            header_len,
            problem: None,
        }
    }
}

/// The role of a segment with these flags.
#[inline(always)]
pub(super) const fn tcp_role(flags: u8) -> Role {
    match (flags & TCP_SYN != 0, flags & TCP_ACK != 0) {
        (true, false) => Role::Opens,
        (true, true) => Role::Answers,
        (false, _) => Role::Continues,
    }
}

#[inline(always)]
pub(super) const fn tcp_ending(flags: u8) -> Ending {
    if flags & TCP_RST != 0 {
        Ending::Reset
    } else if flags & TCP_FIN != 0 {
        Ending::Finish
    } else {
        Ending::None
    }
}
