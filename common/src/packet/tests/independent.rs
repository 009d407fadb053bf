//! The parser against an independent one, on random and on mutated frames.
//!
//! Where both read a packet whole they must agree. They may disagree on what is not whole:
//!
//! - etherparse takes no notice of the UDP length beyond the datagram's own end, of hop limits, of
//!   routing types, and of how many extension headers there are;
//! - it follows an authentication header in IPv4, too: that is a protocol without ports here;
//! - it reads the ICMP of either family in both;
//! - it stops at an IPv6 extension header that is repeated: then it reports a protocol, no ports;
//! - it reads no transport header of a first fragment.

use std::vec::Vec;

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use proptest::prelude::*;

use super::*;

/// What either reader says of a packet that it read whole.
#[derive(Debug, PartialEq)]
struct Reading {
    source: Vec<u8>,
    destination: Vec<u8>,
    protocol: u8,
    ports: (u16, u16),
}

fn ours(bytes: &[u8]) -> Option<(Reading, Role)> {
    fn reading<const N: usize>(packet: &Packet<N>) -> Option<(Reading, Role)> {
        let Transport { source_port, destination_port, role, .. } = packet.transport;
        let reading = Reading {
            source: packet.source.0.to_vec(),
            destination: packet.destination.0.to_vec(),
            protocol: packet.protocol,
            ports: (source_port.number(), destination_port.number()),
        };
        packet.problem().is_none().then_some((reading, role))
    }
    let frame = Linear(bytes);
    match network(&frame) {
        Ok(Network::Ipv4) => reading(&parse_ipv4(&frame)),
        Ok(Network::Ipv6) => reading(&parse_ipv6(&frame)),
        Ok(Network::Arp) | Err(_) => None,
    }
}

/// `None` as well where etherparse is known to read otherwise.
fn theirs(bytes: &[u8]) -> Option<Reading> {
    let sliced = SlicedPacket::from_ethernet(bytes).ok()?;
    let (source, destination, payload) = match sliced.net.as_ref()? {
        NetSlice::Ipv4(ip) if ip.extensions().is_empty() => {
            let header = ip.header();
            (header.source().to_vec(), header.destination().to_vec(), ip.payload())
        }
        NetSlice::Ipv6(ip) => {
            let header = ip.header();
            (header.source().to_vec(), header.destination().to_vec(), ip.payload())
        }
        NetSlice::Ipv4(_) | NetSlice::Arp(_) => return None,
    };
    if payload.fragmented {
        return None;
    }
    let echo = |kind: u8, code, [high, low]: [u8; 2], request, reply| match (kind, code) {
        (kind, 0) if kind == request => (u16::from_be_bytes([high, low]), 0),
        (kind, 0) if kind == reply => (0, u16::from_be_bytes([high, low])),
        _ => (0, 0),
    };
    let ports = match &sliced.transport {
        Some(TransportSlice::Tcp(tcp)) => (tcp.source_port(), tcp.destination_port()),
        Some(TransportSlice::Udp(udp)) => (udp.source_port(), udp.destination_port()),
        Some(TransportSlice::Icmpv4(icmp)) if source.len() == 4 => {
            let [high, low, ..] = icmp.bytes5to8();
            echo(icmp.type_u8(), icmp.code_u8(), [high, low], 8, 0)
        }
        Some(TransportSlice::Icmpv6(icmp)) if source.len() == 16 => {
            let [high, low, ..] = icmp.bytes5to8();
            echo(icmp.type_u8(), icmp.code_u8(), [high, low], 128, 129)
        }
        Some(TransportSlice::Icmpv4(_) | TransportSlice::Icmpv6(_) | TransportSlice::Igmp(_))
        | None => (0, 0),
    };
    Some(Reading { source, destination, protocol: payload.ip_number.0, ports })
}

fn assert_readings_agree(bytes: &[u8]) -> bool {
    let (Some((ours, role)), Some(theirs)) = (ours(bytes), theirs(bytes)) else {
        return false;
    };
    let is_extension = [
        protocol::HOP_BY_HOP,
        protocol::ROUTING,
        protocol::FRAGMENT,
        protocol::AH,
        protocol::DESTINATION_OPTIONS,
    ]
    .contains(&theirs.protocol);
    let ports_known = ours.protocol != protocol::SCTP && !(ours.source.len() == 16 && is_extension);
    if ports_known {
        assert_eq!(ours, theirs, "{role:?} in {bytes:02x?}");
    } else {
        assert_eq!((&ours.source, &ours.destination), (&theirs.source, &theirs.destination));
    }
    true
}

fn extension() -> impl Strategy<Value = Extension> {
    let number = prop_oneof![
        Just(protocol::HOP_BY_HOP),
        Just(protocol::ROUTING),
        Just(protocol::DESTINATION_OPTIONS),
    ];
    prop_oneof![
        4 => (number, 0_usize..4, any::<u8>())
            .prop_map(|(number, steps, byte)| Extension::Sized(number, vec![byte; 6 + 8 * steps])),
        1 => (0_usize..4).prop_map(|words| Extension::Authentication(words * 4)),
        1 => (0_u16..3, any::<bool>()).prop_map(|(at, more)| Extension::Fragment(at, more)),
    ]
}

/// Frames as a stack would send them, with and without options, tags and fragmentation.
fn well_formed() -> impl Strategy<Value = Frame> {
    let family = prop_oneof![Just(v4()), Just(v6())];
    let kind = 0_u8..6;
    let ports = (any::<u16>(), any::<u16>());
    let plain = (family, kind, ports, any::<u8>()).prop_map(|(family, kind, (a, b), byte)| {
        let (from, to) = family;
        let (source, destination) = (SocketAddr::new(from, a), SocketAddr::new(to, b));
        match kind {
            0 => Frame::tcp(source, destination, byte),
            1 => Frame::udp(source, destination),
            2 => Frame::sctp(source, destination),
            3 => Frame::echo_request(from, to, a),
            4 => Frame::icmp(from, to, byte, b as u8 & 1, [byte; 4]).hop_limit(255),
            _ => Frame::ip(from, to, byte, &[byte; 32]),
        }
    });
    let options = (0_usize..=10).prop_map(|words| vec![1; words * 4]);
    let extensions = proptest::collection::vec(extension(), 0..4);
    let fragment = prop_oneof![4 => Just(None), 1 => (0_u16..4, any::<bool>()).prop_map(Some)];
    (plain, options, extensions, fragment).prop_map(|(frame, options, extensions, fragment)| {
        let frame = frame.options(&options);
        let frame = extensions.into_iter().fold(frame, Frame::extension);
        fragment.into_iter().fold(frame, |frame, (at, more)| frame.fragment(at, more))
    })
}

/// What may happen to bytes on their way: some change, some are lost, some come behind them.
fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let changes = proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..6);
    let resized = prop_oneof![3 => Just(None), 1 => (0_usize..160).prop_map(Some)];
    (well_formed(), changes, resized).prop_map(|(frame, changes, resized)| {
        let mut bytes = frame.bytes();
        for (at, byte) in changes {
            // Mostly in the headers.
            let len = bytes.len().min(80);
            bytes[at.index(len)] = byte;
        }
        bytes.resize(resized.unwrap_or(bytes.len()), 0);
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn well_formed_frames_are_read_as_another_parser_reads_them(frame in well_formed()) {
        assert_readings_agree(&frame.bytes());
    }

    #[test]
    fn mutated_frames_are_read_as_another_parser_reads_them(bytes in mutated()) {
        assert_readings_agree(&bytes);
    }

    #[test]
    fn any_bytes_are_read_as_another_parser_reads_them(
        ethertype in prop_oneof![Just([0x08, 0x00]), Just([0x86, 0xdd]), any::<[u8; 2]>()],
        mut bytes in proptest::collection::vec(any::<u8>(), 0..400),
    ) {
        if let Some(at) = bytes.get_mut(12..14) {
            at.copy_from_slice(&ethertype);
        }
        assert_readings_agree(&bytes);
    }

    #[test]
    fn what_is_reported_lies_within_the_frame(bytes in mutated()) {
        let frame = Linear(&bytes);
        let (v4, v6) = (parse_ipv4(&frame), parse_ipv6(&frame));
        for (problem, offset, len) in [
            (v4.problem(), v4.transport_offset, v4.transport_len),
            (v6.problem(), v6.transport_offset, v6.transport_len),
        ] {
            prop_assert!(problem.is_some() || offset + len <= bytes.len());
        }
    }
}

/// That the properties above are not empty.
#[test]
fn both_parsers_read_what_a_stack_would_send() {
    for family in [v4, v6] {
        let (from, to) = ends(family());
        let frames = [
            Frame::tcp(from, to, tcp::SYN),
            Frame::udp(from, to),
            Frame::echo_request(from.ip(), to.ip(), 7),
            Frame::echo_reply(from.ip(), to.ip(), 7),
            Frame::ip(from.ip(), to.ip(), 47, &[0; 8]),
        ];
        for frame in frames {
            assert!(assert_readings_agree(&frame.bytes()), "{frame:?}");
        }
    }
}
