//! Headers of a frame: Ethernet, ARP, IPv4, IPv6 with extension headers, TCP, UDP, SCTP, ICMP.
//!
//! Owns what the bytes say, not what becomes of them. Invariant: a port, an ICMP type or an address
//! is reported only where the receiving host's stack would find it too: header lengths, total
//! lengths and fragment offsets are honoured, and what contradicts itself is an error, never a
//! guess.

mod destination;
mod extensions;
mod plain;
mod quoted;
mod transport;

use crate::{
    key::{Address, Ipv4, Ipv6},
    verdict::DropReason,
};

pub(crate) use destination::{destination_ipv4, destination_ipv6};
pub use extensions::{Last, follow};
use extensions::{fragment_at, is_extension_header};
pub(crate) use plain::is_ipv4;
pub use plain::{Plain, plain_ipv4, plain_ipv6};
pub use quoted::{Quoted, quoted_ipv4, quoted_ipv6};
pub use transport::{Ending, Role, Transport};

/// Read access to a frame, from the Ethernet header on.
pub trait Bytes {
    /// The `T` at `offset`, or `None` where the frame ends before it does.
    fn read<T: Header>(&self, offset: usize) -> Option<T>;

    /// Length of the frame in bytes; for a GSO packet, of the whole unsegmented one.
    fn len(&self) -> usize;

    /// Follows the extension headers from the one of number `first` on, which stands at
    /// [`EXTENSIONS`], of a packet that ends at `end`.
    #[inline(always)]
    fn last_header(&self, first: u8, end: usize) -> Last {
        follow(self, first, end)
    }

    /// Whether the frame has no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Plain bytes that can be read out of a frame.
///
/// # Safety
///
/// Every bit pattern of the type's size must be a value of it, its alignment must divide 4 and it
/// must have no padding.
#[expect(unsafe_code, reason = "vouches for types that are read from raw bytes")]
pub unsafe trait Header: Copy {}

macro_rules! header {
    ($(#[$meta:meta])* $name:ident, $align:literal { $($(#[$field_meta:meta])* $field:ident: $t:ty,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy)]
        #[repr(C, align($align))]
        pub(crate) struct $name { $($(#[$field_meta])* pub(crate) $field: $t,)+ }

        // SAFETY: `repr(C)` of byte arrays only; the assertion leaves no room for padding.
        #[expect(unsafe_code, reason = "a header of byte arrays")]
        unsafe impl $crate::packet::Header for $name {}

        const _: () = assert!(size_of::<$name>() == 0 $(+ size_of::<$t>())+);
    };
}
pub(crate) use header;

header! {
    /// The ethertype of an Ethernet II header (offset 12).
    Ethertype, 2 { value: [u8; 2], }
}
header! {
    /// RFC 791, section 3.1, without options.
    Ipv4Header, 4 {
        version_ihl: [u8; 1],
        tos: [u8; 1],
        total_length: [u8; 2],
        identification: [u8; 2],
        flags_offset: [u8; 2],
        ttl: [u8; 1],
        protocol: [u8; 1],
        checksum: [u8; 2],
        source: Ipv4,
        destination: Ipv4,
    }
}
header! {
    /// RFC 8200, section 3.
    Ipv6Header, 4 {
        version_class_flow: [u8; 4],
        payload_length: [u8; 2],
        next_header: [u8; 1],
        hop_limit: [u8; 1],
        source: Ipv6,
        destination: Ipv6,
    }
}
header! {
    /// The first eight bytes of an extension header (RFC 8200, section 4).
    ExtensionHeader, 4 {
        next_header: [u8; 1],
        length: [u8; 1],
        /// Routing: the routing type, then segments left. Fragment: offset and flags.
        third_fourth: [u8; 2],
        /// Fragment: the identification.
        rest: [u8; 4],
    }
}

/// Length of an Ethernet header.
pub const ETHERNET_LEN: usize = 14;
/// Where the first extension header of an IPv6 packet starts.
pub const EXTENSIONS: usize = ETHERNET_LEN + size_of::<Ipv6Header>();
/// How many bytes from the start of a frame are ever read: the programs make these linear.
///
/// Transport headers that start later are [`DropReason::TooManyExtensionHeaders`].
pub const HEADERS_LEN: usize = 256;
/// IPv6 extension headers that are followed in one packet.
pub const EXTENSION_HEADERS: usize = 6;

/// Numbers of IP protocols and IPv6 extension headers (IANA).
pub mod protocol {
    #![expect(missing_docs, reason = "the names are the field's own")]
    pub const HOP_BY_HOP: u8 = 0;
    pub const ICMP: u8 = 1;
    pub const TCP: u8 = 6;
    pub const UDP: u8 = 17;
    pub const ROUTING: u8 = 43;
    pub const FRAGMENT: u8 = 44;
    pub const AH: u8 = 51;
    pub const ICMPV6: u8 = 58;
    pub const NO_NEXT_HEADER: u8 = 59;
    pub const DESTINATION_OPTIONS: u8 = 60;
    pub const SCTP: u8 = 132;
}

const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];
const ETHERTYPE_VLAN: [u8; 2] = [0x81, 0x00];
const ETHERTYPE_QINQ: [u8; 2] = [0x88, 0xa8];

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// Address resolution, which passes whatever it says.
    Arp,
    /// An IPv4 packet: see [`parse_ipv4`].
    Ipv4,
    /// An IPv6 packet: see [`parse_ipv6`].
    Ipv6,
}

/// An IP packet.
///
/// Flat, and every field always has a value: the verifier does not follow values that are only
/// partly there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<const N: usize> {
    /// Why not even addresses can be told; every other field is zero then.
    pub unaddressed: Option<DropReason>,
    /// Source address.
    pub source: Address<N>,
    /// Destination address.
    pub destination: Address<N>,
    /// The protocol of the last header that was reached.
    pub protocol: u8,
    /// Where that header starts, in bytes from the start of the frame.
    pub transport_offset: usize,
    /// Length of the packet from there on, by the IP header.
    pub transport_len: usize,
    /// Which part of a datagram it is.
    pub fragment: Fragment,
    /// It is a fragment of IPv6, or its headers cannot be followed to where that would be said.
    pub may_be_ipv6_fragment: bool,
    /// What stands in the transport header.
    pub transport: Transport,
}

impl<const N: usize> Packet<N> {
    #[inline(always)]
    pub(crate) const fn unaddressed(reason: DropReason) -> Self {
        Self {
            unaddressed: Some(reason),
            source: Address::ZERO,
            destination: Address::ZERO,
            protocol: 0,
            transport_offset: 0,
            transport_len: 0,
            fragment: Fragment::NONE,
            may_be_ipv6_fragment: true,
            transport: Transport::unreadable(reason),
        }
    }

    /// Why an isolated pod's packet is dropped without a look at the rules, if it is.
    #[inline(always)]
    pub const fn problem(&self) -> Option<DropReason> {
        match self.unaddressed {
            Some(reason) => Some(reason),
            None => self.transport.problem,
        }
    }
}

/// Which part of a datagram a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    Whole,
    /// The first fragment, which has the transport header.
    First,
    /// A fragment behind the first.
    Later,
}

/// What a packet says of fragmentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Which part of the datagram it is.
    pub part: Part,
    /// The identification that all fragments of a datagram share; zero where it is whole.
    pub identification: u32,
    /// Where its bytes lie in the datagram's fragmentable part, in bytes.
    pub offset: u16,
    /// Where the fragmentable part starts in the frame, in bytes.
    pub start: u16,
}

impl Fragment {
    const NONE: Self = Self { part: Part::Whole, identification: 0, offset: 0, start: 0 };

    #[inline(always)]
    const fn new(offset: u16, more: bool, identification: u32, start: usize) -> Self {
        // Headers are followed within the first bytes of a frame.
        let start = start as u16;
        match (offset, more) {
            (0, false) => Self::NONE,
            (0, true) => Self { part: Part::First, identification, offset, start },
            (_, _) => Self { part: Part::Later, identification, offset, start },
        }
    }
}

/// What `frame` carries.
///
/// # Errors
///
/// The reason for which an isolated pod's packet is dropped.
#[inline(always)]
pub fn network<B: Bytes>(frame: &B) -> Result<Network, DropReason> {
    let ethertype: Ethertype = frame.read(12).ok_or(DropReason::Truncated)?;
    match ethertype.value {
        ETHERTYPE_IPV4 => Ok(Network::Ipv4),
        ETHERTYPE_IPV6 => Ok(Network::Ipv6),
        ETHERTYPE_ARP => Ok(Network::Arp),
        ETHERTYPE_VLAN | ETHERTYPE_QINQ => Err(DropReason::VlanTagged),
        _ => Err(DropReason::UnknownEthertype),
    }
}

/// Whether `frame` is an IPv6 packet with a header between IP and transport.
#[inline(always)]
pub fn has_extension_header<B: Bytes>(frame: &B) -> bool {
    matches!(network(frame), Ok(Network::Ipv6))
        && frame.read::<Ipv6Header>(ETHERNET_LEN).is_some_and(|header| {
            let [next] = header.next_header;
            is_extension_header(next)
        })
}

/// Reads the headers of an IPv4 packet.
#[inline(always)]
pub fn parse_ipv4<B: Bytes>(frame: &B) -> Packet<4> {
    let Some(header) = frame.read::<Ipv4Header>(ETHERNET_LEN) else {
        return Packet::unaddressed(DropReason::Truncated);
    };
    let [version_ihl] = header.version_ihl;
    let header_len = usize::from(version_ihl & 0x0f) * 4;
    if version_ihl >> 4 != 4 || header_len < size_of::<Ipv4Header>() {
        return Packet::unaddressed(DropReason::Malformed);
    }
    let available = frame.len().saturating_sub(ETHERNET_LEN);
    let total_len = match u16::from_be_bytes(header.total_length) {
        // A GSO packet over 64 KiB ("BIG TCP") has no length that the field could hold.
        0 if available > usize::from(u16::MAX) => available,
        length => usize::from(length),
    };
    if total_len < header_len {
        return Packet::unaddressed(DropReason::Malformed);
    }
    if total_len > available {
        return Packet::unaddressed(DropReason::Truncated);
    }
    let [number] = header.protocol;
    let transport_offset = ETHERNET_LEN + header_len;
    let transport_len = total_len - header_len;
    let flags_offset = u16::from_be_bytes(header.flags_offset);
    let fragment = Fragment::new(
        (flags_offset & 0x1fff) << 3,
        flags_offset & 0x2000 != 0,
        u16::from_be_bytes(header.identification).into(),
        transport_offset,
    );
    let transport = match fragment.part {
        Part::Whole | Part::First => Transport::read(
            frame,
            protocol::ICMP,
            number,
            transport_offset,
            transport_len,
            fragment.part,
        ),
        Part::Later => Transport::unreadable(DropReason::FragmentWithoutFirst),
    };
    Packet {
        unaddressed: None,
        source: header.source,
        destination: header.destination,
        protocol: number,
        transport_offset,
        transport_len,
        fragment,
        may_be_ipv6_fragment: false,
        transport,
    }
}

/// Reads the headers of an IPv6 packet.
#[inline(always)]
pub fn parse_ipv6<B: Bytes>(frame: &B) -> Packet<16> {
    let Some(header) = frame.read::<Ipv6Header>(ETHERNET_LEN) else {
        return Packet::unaddressed(DropReason::Truncated);
    };
    let [version, ..] = header.version_class_flow;
    if version >> 4 != 6 {
        return Packet::unaddressed(DropReason::Malformed);
    }
    let start = EXTENSIONS;
    let available = frame.len().saturating_sub(start);
    let payload_len = match u16::from_be_bytes(header.payload_length) {
        // As for IPv4. Without GSO this is a jumbogram (RFC 2675), whose option is not read.
        0 if available > usize::from(u16::MAX) => available,
        length => usize::from(length),
    };
    if payload_len > available {
        return Packet::unaddressed(DropReason::Truncated);
    }
    let [first] = header.next_header;
    let [hop_limit] = header.hop_limit;
    let last = frame.last_header(first, start + payload_len);
    let fragmented = last.fragment_at != 0;
    let fragment = if fragmented { fragment_at(frame, last.fragment_at) } else { Fragment::NONE };
    let transport_len = (start + payload_len).saturating_sub(last.offset);
    let mut transport = match last.problem {
        None => Transport::read(
            frame,
            protocol::ICMPV6,
            last.protocol,
            last.offset,
            transport_len,
            fragment.part,
        ),
        Some(reason) => Transport::unreadable(reason),
    };
    // RFC 4861: neighbour discovery never crosses a router, so nobody from elsewhere can send it.
    // RFC 6980: nor does it come in fragments.
    let discovery = matches!(transport.role, Role::NeighbourDiscovery);
    if discovery && (hop_limit != 255 || fragmented) {
        transport = Transport::unreadable(DropReason::Malformed);
    }
    Packet {
        unaddressed: None,
        source: header.source,
        destination: header.destination,
        protocol: last.protocol,
        transport_offset: last.offset,
        transport_len,
        fragment,
        may_be_ipv6_fragment: fragmented || last.problem.is_some(),
        transport,
    }
}

#[cfg(test)]
mod tests;
