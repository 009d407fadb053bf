//! Transport headers: TCP, UDP, SCTP, ICMP, and what an ICMP error quotes.

use bulkhead_common::verdict::DropReason::{self, Malformed, Truncated};

use super::{ICMP, ICMPV6, LOOKED_AT, Quoted, Rest};

pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
pub(super) const SCTP: u8 = 132;

/// What a transport header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transport {
    /// Source port; the identifier of an echo request.
    pub source_port: u16,
    /// Destination port; the identifier of an echo reply.
    pub destination_port: u16,
    /// What part the packet plays in a flow.
    pub part: Part,
    /// What of its flow it ends.
    pub closes: Closes,
    /// Length of the header, options included.
    pub header_len: usize,
}

/// What part a packet plays in a flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// It can only be a flow's first: SYN, INIT, echo request.
    First,
    /// It can only come second: SYN with ACK, INIT ACK, echo reply.
    Second,
    /// A packet of a flow that is there: TCP without SYN, other SCTP.
    Later,
    /// Any packet of a flow: UDP.
    Any,
    /// It says something of another packet.
    Error(Result<Quoted, DropReason>),
    /// ICMPv6 133 to 137.
    NeighbourDiscovery,
    /// It belongs to no flow.
    None,
}

/// What of its flow a packet ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closes {
    /// Nothing.
    Nothing,
    /// What its sender sends: FIN, SHUTDOWN.
    Side,
    /// All of it: RST, ABORT, SHUTDOWN COMPLETE.
    Flow,
}

/// How much of a header has to be there, of protocols that have one that is read.
pub(super) fn least(protocol: u8, icmp: u8) -> Option<usize> {
    match protocol {
        TCP => Some(20),
        UDP => Some(8),
        SCTP => Some(16),
        _ => (protocol == icmp).then_some(8),
    }
}

impl Transport {
    /// Reads the transport header at the start of `payload`, which begins `at` there in the frame
    /// and ends where the packet does;
    /// `partial`: what follows comes in other fragments.
    ///
    /// # Errors
    ///
    /// Why it can't be read.
    pub(super) fn read(
        payload: &[u8],
        at: usize,
        protocol: u8,
        icmp: u8,
        partial: bool,
    ) -> Result<Self, DropReason> {
        match protocol {
            TCP => tcp(payload),
            UDP => udp(payload, partial),
            SCTP => sctp(payload),
            _ if protocol == icmp => self::icmp(payload, at, icmp, partial),
            _ => Ok(Self::new(0, 0, Part::None, 0)),
        }
    }

    fn new(source_port: u16, destination_port: u16, part: Part, header_len: usize) -> Self {
        Self { source_port, destination_port, part, closes: Closes::Nothing, header_len }
    }
}

/// RFC 9293, section 3.1.
fn tcp(payload: &[u8]) -> Result<Transport, DropReason> {
    let header: [u8; 20] = Rest(payload).array().ok_or(Truncated)?;
    let [s1, s2, d1, d2, .., words, flags, _, _, _, _, _, _] = header;
    let header_len = usize::from(words / 16) * 4;
    if header_len < 20 {
        return Err(Malformed);
    }
    if payload.len() < header_len {
        return Err(Truncated);
    }
    let (fin, syn, rst, ack) = (flags & 1 != 0, flags & 2 != 0, flags & 4 != 0, flags & 16 != 0);
    let part = match (syn, ack) {
        (true, false) => Part::First,
        (true, true) => Part::Second,
        (false, _) => Part::Later,
    };
    let closes = match (fin, rst) {
        (_, true) => Closes::Flow,
        (true, false) => Closes::Side,
        (false, false) => Closes::Nothing,
    };
    let (source, destination) = (u16::from_be_bytes([s1, s2]), u16::from_be_bytes([d1, d2]));
    Ok(Transport { closes, ..Transport::new(source, destination, part, header_len) })
}

/// RFC 768.
fn udp(payload: &[u8], partial: bool) -> Result<Transport, DropReason> {
    let mut rest = Rest(payload);
    let mut next = || rest.number().ok_or(Truncated);
    let (source_port, destination_port, len, _checksum) = (next()?, next()?, next()?, next()?);
    if usize::from(len) < 8 || (usize::from(len) > payload.len() && !partial) {
        return Err(Malformed);
    }
    Ok(Transport::new(source_port, destination_port, Part::Any, 8))
}

/// RFC 9260, section 3. INIT, INIT ACK and SHUTDOWN COMPLETE are never bundled.
fn sctp(payload: &[u8]) -> Result<Transport, DropReason> {
    let mut rest = Rest(payload);
    let mut next = || rest.number().ok_or(Truncated);
    let (source_port, destination_port) = (next()?, next()?);
    rest.take(8).ok_or(Truncated)?;
    let [chunk, _, _, _]: [u8; 4] = rest.array().ok_or(Truncated)?;
    let part = match chunk {
        1 => Part::First,
        2 => Part::Second,
        _ => Part::Later,
    };
    let closes = match chunk {
        7 | 8 => Closes::Side,
        6 | 14 => Closes::Flow,
        _ => Closes::Nothing,
    };
    Ok(Transport { closes, ..Transport::new(source_port, destination_port, part, 16) })
}

/// RFC 792, RFC 4443, RFC 4861.
fn icmp(payload: &[u8], at: usize, icmp: u8, partial: bool) -> Result<Transport, DropReason> {
    let [kind, code, _, _, i1, i2, _, _]: [u8; 8] = Rest(payload).array().ok_or(Truncated)?;
    let identifier = u16::from_be_bytes([i1, i2]);
    // What is looked at of the frame ends in the quotation, if it is long.
    let seen = payload.len().min(LOOKED_AT.saturating_sub(at)).max(8);
    let quoted = || Quoted::read(&payload[8..seen], icmp);
    let (source_port, destination_port, part) = match (icmp, kind, code) {
        (ICMP, 8, 0) | (ICMPV6, 128, 0) => (identifier, 0, Part::First),
        (ICMP, 0, 0) | (ICMPV6, 129, 0) => (0, identifier, Part::Second),
        (ICMPV6, 133..=137, 0) => (0, 0, Part::NeighbourDiscovery),
        (ICMP, 3 | 11 | 12, _) | (ICMPV6, 1..=4, _) if !partial => (0, 0, Part::Error(quoted())),
        _ => (0, 0, Part::None),
    };
    Ok(Transport::new(source_port, destination_port, part, 8))
}
