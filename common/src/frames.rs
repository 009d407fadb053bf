//! Frames, header by header: for tests, and to ask programs what they do.
//!
//! The headers are written by another crate, so that what a test expects of the parser does not
//! come from the parser. Invariant: what is built is well-formed, checksums included, up to what a
//! test changes in the transport's bytes or in the finished frame.
#![expect(unsafe_code, reason = "reads plain data out of bytes, as the programs do")]

use std::{
    net::{IpAddr, SocketAddr},
    vec::Vec,
};

use etherparse::{
    EtherType, Ethernet2Header, Icmpv4Header, Icmpv4Type, Icmpv6Header, Icmpv6Type, IpAuthHeader,
    IpFragOffset, IpNumber, Ipv4Header, Ipv6FragmentHeader, Ipv6Header, Ipv6RawExtHeader,
    SingleVlanHeader, TcpHeader, UdpHeader, VlanId,
};

use crate::packet::{Bytes, HEADERS_LEN, Header, protocol};

/// TCP flags, as they stand in the header.
pub mod tcp {
    #![expect(missing_docs, reason = "the names are the field's own")]
    pub const FIN: u8 = 0x01;
    pub const SYN: u8 = 0x02;
    pub const RST: u8 = 0x04;
    pub const PSH: u8 = 0x08;
    pub const ACK: u8 = 0x10;
}

/// What follows the transport header.
pub const DATA: &[u8; 8] = b"bulkhead";

/// The ethertype of a VLAN tag (802.1Q).
pub const VLAN: u16 = 0x8100;
/// The ethertype of a service tag (802.1ad).
pub const SERVICE_VLAN: u16 = 0x88a8;

/// Bytes as the programs read a frame.
#[derive(Clone, Copy, Debug)]
pub struct Linear<'a>(pub &'a [u8]);

impl Bytes for Linear<'_> {
    fn read<T: Header>(&self, offset: usize) -> Option<T> {
        // The programs have no more of a frame at hand.
        let end = offset.checked_add(size_of::<T>()).filter(|_| offset <= HEADERS_LEN)?;
        let bytes = self.0.get(offset..end)?;
        // SAFETY: `bytes` has the size of `T`, `Header` vouches for every bit pattern, and the read
        // does not ask for alignment.
        Some(unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
    }

    fn len(&self) -> usize {
        self.0.len()
    }
}

/// An IPv6 extension header.
#[derive(Clone, Debug)]
pub enum Extension {
    /// One that has a length field: its number, and what follows the field (6 bytes, or 8 more
    /// for each step).
    Sized(u8, Vec<u8>),
    /// Authentication, with an integrity check value of so many bytes (a multiple of 4).
    Authentication(usize),
    /// Fragment: offset in units of 8 bytes, and whether more follow.
    Fragment(u16, bool),
}

/// A frame, before it is bytes.
#[derive(Clone, Debug)]
pub struct Frame {
    source: IpAddr,
    destination: IpAddr,
    tags: Vec<u16>,
    hop_limit: u8,
    options: Vec<u8>,
    extensions: Vec<Extension>,
    fragment: (u16, bool),
    identification: u16,
    protocol: u8,
    /// The transport header and what follows it.
    pub transport: Vec<u8>,
}

impl Frame {
    /// An IP packet of any protocol.
    ///
    /// # Panics
    ///
    /// The addresses are of two families.
    pub fn ip(source: IpAddr, destination: IpAddr, protocol: u8, transport: &[u8]) -> Self {
        assert_eq!(source.is_ipv4(), destination.is_ipv4(), "one family");
        Self {
            source,
            destination,
            tags: Vec::new(),
            hop_limit: 64,
            options: Vec::new(),
            extensions: Vec::new(),
            fragment: (0, false),
            identification: 1,
            protocol,
            transport: transport.to_vec(),
        }
    }

    /// A TCP segment with the flags of [`tcp`].
    pub fn tcp(source: SocketAddr, destination: SocketAddr, flags: u8) -> Self {
        let mut header = TcpHeader::new(source.port(), destination.port(), 0x1000, 0xffff);
        header.fin = flags & tcp::FIN != 0;
        header.syn = flags & tcp::SYN != 0;
        header.rst = flags & tcp::RST != 0;
        header.psh = flags & tcp::PSH != 0;
        header.ack = flags & tcp::ACK != 0;
        header.checksum = match (source.ip(), destination.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                header.calc_checksum_ipv4_raw(from.octets(), to.octets(), DATA)
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                header.calc_checksum_ipv6_raw(from.octets(), to.octets(), DATA)
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => Ok(0),
        }
        .expect("a short segment");
        let transport = [&header.to_bytes()[..], DATA].concat();
        Self::ip(source.ip(), destination.ip(), protocol::TCP, &transport)
    }

    /// A UDP datagram.
    pub fn udp(source: SocketAddr, destination: SocketAddr) -> Self {
        let (from, to) = (source.port(), destination.port());
        let header = match (source.ip(), destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let ends = Ipv4Header {
                    source: source.octets(),
                    destination: destination.octets(),
                    ..Ipv4Header::default()
                };
                UdpHeader::with_ipv4_checksum(from, to, &ends, DATA)
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let ends = Ipv6Header {
                    source: source.octets(),
                    destination: destination.octets(),
                    ..Ipv6Header::default()
                };
                UdpHeader::with_ipv6_checksum(from, to, &ends, DATA)
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {
                UdpHeader::without_ipv4_checksum(from, to, DATA.len())
            }
        }
        .expect("a short datagram");
        let transport = [&header.to_bytes()[..], DATA].concat();
        Self::ip(source.ip(), destination.ip(), protocol::UDP, &transport)
    }

    /// An SCTP packet with an INIT chunk (RFC 9260, section 3.3.2).
    pub fn sctp(source: SocketAddr, destination: SocketAddr) -> Self {
        Self::sctp_chunk(source, destination, 1)
    }

    /// An SCTP packet (RFC 9260, section 3) with one chunk of this type, in the form of INIT; its
    /// checksum is zero.
    pub fn sctp_chunk(source: SocketAddr, destination: SocketAddr, kind: u8) -> Self {
        let ports = [source.port().to_be_bytes(), destination.port().to_be_bytes()].concat();
        let chunk = [
            kind, 0, 0, 20, // flags, length
            0, 0, 0, 1, // initiate tag
            0, 1, 0, 0, // receiver window
            0, 1, 0, 1, // streams out and in
            0, 0, 0, 1, // initial TSN
        ];
        let transport = [&ports[..], &[0; 8], &chunk].concat();
        Self::ip(source.ip(), destination.ip(), protocol::SCTP, &transport)
    }

    /// An ICMP or ICMPv6 error that quotes the IP header of a frame and what follows it, `len` bytes
    /// in all at most.
    ///
    /// # Panics
    ///
    /// The addresses are of two families.
    pub fn icmp_error(
        source: IpAddr,
        destination: IpAddr,
        kind: u8,
        of: &Self,
        len: usize,
    ) -> Self {
        let mut error = Self::icmp(source, destination, kind, 0, [0; 4]);
        error.transport.truncate(8);
        let quoted = of.bytes();
        error.transport.extend(quoted.iter().skip(14).take(len));
        error
    }

    /// An ICMP or ICMPv6 message of any type, with the four bytes that follow its checksum.
    pub fn icmp(source: IpAddr, destination: IpAddr, kind: u8, code: u8, rest: [u8; 4]) -> Self {
        let (number, header) = match (source, destination) {
            (IpAddr::V4(_), IpAddr::V4(_)) => {
                let kind = Icmpv4Type::Unknown { type_u8: kind, code_u8: code, bytes5to8: rest };
                (protocol::ICMP, Icmpv4Header::with_checksum(kind, DATA).to_bytes())
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let kind = Icmpv6Type::Unknown { type_u8: kind, code_u8: code, bytes5to8: rest };
                let header =
                    Icmpv6Header::with_checksum(kind, source.octets(), destination.octets(), DATA)
                        .expect("a short message");
                (protocol::ICMPV6, header.to_bytes().iter().copied().collect())
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {
                panic!("two families")
            }
        };
        Self::ip(source, destination, number, &[&header[..], DATA].concat())
    }

    /// A ping.
    pub fn echo_request(source: IpAddr, destination: IpAddr, identifier: u16) -> Self {
        let kind = if source.is_ipv4() { 8 } else { 128 };
        Self::echo(source, destination, kind, identifier)
    }

    /// The answer to a ping.
    pub fn echo_reply(source: IpAddr, destination: IpAddr, identifier: u16) -> Self {
        let kind = if source.is_ipv4() { 0 } else { 129 };
        Self::echo(source, destination, kind, identifier)
    }

    fn echo(source: IpAddr, destination: IpAddr, kind: u8, identifier: u16) -> Self {
        let [high, low] = identifier.to_be_bytes();
        Self::icmp(source, destination, kind, 0, [high, low, 0, 1])
    }

    /// With a tag of this ethertype, behind those that are there.
    pub fn tag(mut self, ethertype: u16) -> Self {
        self.tags.push(ethertype);
        self
    }

    /// With another hop limit (IPv4: time to live) than 64.
    pub fn hop_limit(mut self, hops: u8) -> Self {
        self.hop_limit = hops;
        self
    }

    /// With IPv4 options: up to 40 bytes, a multiple of 4.
    pub fn options(mut self, options: &[u8]) -> Self {
        self.options = options.to_vec();
        self
    }

    /// With an IPv6 extension header behind those that are there.
    pub fn extension(mut self, extension: Extension) -> Self {
        self.extensions.push(extension);
        self
    }

    /// As a fragment: offset in units of 8 bytes, and whether more follow.
    pub fn fragment(mut self, offset: u16, more: bool) -> Self {
        if self.source.is_ipv4() {
            self.fragment = (offset, more);
            self
        } else {
            self.extension(Extension::Fragment(offset, more))
        }
    }

    /// Whole again.
    pub fn without_fragment(mut self) -> Self {
        self.fragment = (0, false);
        self.extensions.retain(|extension| !matches!(extension, Extension::Fragment(..)));
        self
    }

    /// With another identification of its datagram than 1.
    pub fn identification(mut self, identification: u16) -> Self {
        self.identification = identification;
        self
    }

    /// Of this frame, the transport header and what follows it cut to `len` bytes; the IP header
    /// tells the truth about that.
    pub fn cut(mut self, len: usize) -> Self {
        self.transport.truncate(len);
        self
    }

    /// The bytes, from the Ethernet header on.
    pub fn bytes(&self) -> Vec<u8> {
        let (network, packet) = match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                (EtherType::IPV4, self.ipv4(source.octets(), destination.octets()))
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                (EtherType::IPV6, self.ipv6(source.octets(), destination.octets()))
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {
                panic!("two families")
            }
        };
        let mut ethertypes = self.tags.iter().copied().map(EtherType).chain([network]);
        let ethernet = Ethernet2Header {
            source: [2, 0, 0, 0, 0, 1],
            destination: [2, 0, 0, 0, 0, 2],
            ether_type: ethertypes.next().unwrap_or(network),
        };
        let mut bytes = ethernet.to_bytes().to_vec();
        for ether_type in ethertypes {
            let vlan_id = VlanId::try_new(7).expect("a small number");
            let tag = SingleVlanHeader { vlan_id, ether_type, ..SingleVlanHeader::default() };
            bytes.extend(tag.to_bytes());
        }
        bytes.extend(packet);
        bytes
    }

    fn ipv4(&self, source: [u8; 4], destination: [u8; 4]) -> Vec<u8> {
        let (offset, more_fragments) = self.fragment;
        let mut header = Ipv4Header {
            time_to_live: self.hop_limit,
            protocol: IpNumber(self.protocol),
            identification: self.identification,
            more_fragments,
            fragment_offset: IpFragOffset::try_new(offset).expect("13 bits"),
            source,
            destination,
            options: self.options[..].try_into().expect("at most 40 bytes, in words"),
            ..Ipv4Header::default()
        };
        header.set_payload_len(self.transport.len()).expect("fits a packet");
        header.header_checksum = header.calc_header_checksum();
        [&header.to_bytes()[..], &self.transport].concat()
    }

    fn ipv6(&self, source: [u8; 16], destination: [u8; 16]) -> Vec<u8> {
        let mut next_header = IpNumber(self.protocol);
        let mut payload = self.transport.clone();
        for extension in self.extensions.iter().rev() {
            let (number, header) = extension.bytes(next_header, self.identification);
            next_header = IpNumber(number);
            payload.splice(0..0, header);
        }
        let header = Ipv6Header {
            payload_length: payload.len().try_into().expect("fits a packet"),
            next_header,
            hop_limit: self.hop_limit,
            source,
            destination,
            ..Ipv6Header::default()
        };
        [&header.to_bytes()[..], &payload].concat()
    }
}

impl Extension {
    /// Its number and its bytes.
    fn bytes(&self, next_header: IpNumber, identification: u16) -> (u8, Vec<u8>) {
        match self {
            Self::Sized(number, body) => {
                let header = Ipv6RawExtHeader::new_raw(next_header, body).expect("6 + 8 n bytes");
                (*number, header.to_bytes().to_vec())
            }
            Self::Authentication(len) => {
                let value = std::vec![0; *len];
                let header = IpAuthHeader::new(next_header, 1, 1, &value).expect("words");
                (protocol::AH, header.to_bytes().to_vec())
            }
            Self::Fragment(offset, more_fragments) => {
                let fragment_offset = IpFragOffset::try_new(*offset).expect("13 bits");
                let identification = identification.into();
                let header = Ipv6FragmentHeader::new(
                    next_header,
                    fragment_offset,
                    *more_fragments,
                    identification,
                );
                (protocol::FRAGMENT, header.to_bytes().to_vec())
            }
        }
    }
}
