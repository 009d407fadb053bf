//! What the parser reads, against frames that another crate wrote or took apart.

use std::{
    net::{IpAddr, SocketAddr},
    vec,
    vec::Vec,
};

use super::{
    DropReason::{
        FragmentWithoutFirst, Malformed, RoutingHeader, TooManyExtensionHeaders, Truncated,
        UnknownEthertype, VlanTagged,
    },
    *,
};
use crate::{
    frames::{Extension, Frame, Linear, SERVICE_VLAN, VLAN, tcp},
    key::Port,
};

mod independent;

const IPV4: usize = ETHERNET_LEN;
const IPV6: usize = ETHERNET_LEN;
const IPV6_LEN: usize = 40;

fn v4() -> (IpAddr, IpAddr) {
    (IpAddr::from([10, 0, 0, 11]), IpAddr::from([10, 0, 0, 10]))
}

fn v6() -> (IpAddr, IpAddr) {
    let from = [0xfd00, 0x10, 0, 0, 0, 0, 0, 0xb];
    let to = [0xfd00, 0x10, 0, 0, 0, 0, 0, 0xa];
    (IpAddr::from(from), IpAddr::from(to))
}

/// The ends that most frames here have: ports 40000 and 3306.
fn ends((from, to): (IpAddr, IpAddr)) -> (SocketAddr, SocketAddr) {
    (SocketAddr::new(from, 40000), SocketAddr::new(to, 3306))
}

fn tcp_of(family: fn() -> (IpAddr, IpAddr), flags: u8) -> Frame {
    let (from, to) = ends(family());
    Frame::tcp(from, to, flags)
}

fn udp_of(family: fn() -> (IpAddr, IpAddr)) -> Frame {
    let (from, to) = ends(family());
    Frame::udp(from, to)
}

/// What the parser makes of the transport header, whichever family the frame says it is of.
fn transport(bytes: &[u8]) -> Result<(u8, Transport), DropReason> {
    let frame = Linear(bytes);
    let (protocol, problem, transport) = match network(&frame)? {
        Network::Ipv4 => {
            let packet = parse_ipv4(&frame);
            (packet.protocol, packet.problem(), packet.transport)
        }
        Network::Ipv6 => {
            let packet = parse_ipv6(&frame);
            (packet.protocol, packet.problem(), packet.transport)
        }
        Network::Arp => panic!("not an IP packet"),
    };
    problem.map_or(Ok((protocol, transport)), Err)
}

#[track_caller]
fn assert_ports(bytes: &[u8], number: u8, role: Role) {
    let (protocol, found) = transport(bytes).expect("it can be read");
    let Transport { source_port, destination_port, role: found, .. } = found;
    let ports = (source_port.number(), destination_port.number());
    assert_eq!((protocol, ports, found), (number, (40000, 3306), role));
}

#[track_caller]
fn assert_problem(bytes: &[u8], reason: DropReason) {
    assert_eq!(transport(bytes), Err(reason));
}

#[test]
fn ethertypes_are_told_apart() {
    let of = |ethertype: u16| {
        let mut frame = vec![0; ETHERNET_LEN];
        frame[12..].copy_from_slice(&ethertype.to_be_bytes());
        network(&Linear(&frame))
    };
    assert_eq!(of(0x0800), Ok(Network::Ipv4));
    assert_eq!(of(0x86dd), Ok(Network::Ipv6));
    assert_eq!(of(0x0806), Ok(Network::Arp));
    assert_eq!(of(0x8100), Err(VlanTagged));
    assert_eq!(of(0x88a8), Err(VlanTagged));
    for other in [0x0000, 0x0026, 0x8035, 0x8847, 0x88e5, 0x9100, 0xffff] {
        assert_eq!(of(other), Err(UnknownEthertype), "{other:#06x}");
    }
    assert_eq!(network(&Linear(&[0; ETHERNET_LEN - 1])), Err(Truncated));
    assert_eq!(network(&Linear(&[])), Err(Truncated));
}

#[test]
fn tags_hide_whatever_they_wrap() {
    let frame = tcp_of(v4, tcp::SYN);
    assert_problem(&frame.clone().tag(VLAN).bytes(), VlanTagged);
    assert_problem(&frame.clone().tag(SERVICE_VLAN).bytes(), VlanTagged);
    assert_problem(&frame.tag(SERVICE_VLAN).tag(VLAN).bytes(), VlanTagged);
}

#[test]
fn addresses_protocol_and_place_of_the_transport_header_are_read() {
    let bytes = tcp_of(v4, tcp::SYN).options(&[1; 8]).bytes();
    let packet = parse_ipv4(&Linear(&bytes));
    assert_eq!(packet.unaddressed, None);
    assert_eq!(packet.source, Address([10, 0, 0, 11]));
    assert_eq!(packet.destination, Address([10, 0, 0, 10]));
    assert_eq!((packet.protocol, packet.transport_offset, packet.transport_len), (6, 14 + 28, 28));

    let hop_by_hop = Extension::Sized(protocol::HOP_BY_HOP, vec![0; 6]);
    let bytes = tcp_of(v6, tcp::SYN).extension(hop_by_hop).bytes();
    let packet = parse_ipv6(&Linear(&bytes));
    assert_eq!(packet.unaddressed, None);
    assert_eq!(packet.source, Address([0xfd, 0, 0, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xb]));
    assert_eq!(
        packet.destination,
        Address([0xfd, 0, 0, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xa])
    );
    assert_eq!((packet.protocol, packet.transport_offset, packet.transport_len), (6, 14 + 48, 28));
}

#[test]
fn ports_are_read_from_tcp_udp_and_sctp() {
    for family in [v4, v6] {
        let (from, to) = ends(family());
        assert_ports(&tcp_of(family, tcp::SYN).bytes(), protocol::TCP, Role::Opens);
        assert_ports(&Frame::udp(from, to).bytes(), protocol::UDP, Role::Either);
        assert_ports(&Frame::sctp(from, to).bytes(), protocol::SCTP, Role::Opens);
    }
}

#[test]
fn only_a_syn_without_ack_opens_a_tcp_flow() {
    use tcp::{ACK, FIN, PSH, RST, SYN};
    for family in [v4, v6] {
        for flags in [SYN, SYN | FIN, SYN | RST, SYN | PSH] {
            assert_ports(&tcp_of(family, flags).bytes(), protocol::TCP, Role::Opens);
        }
        assert_ports(&tcp_of(family, SYN | ACK).bytes(), protocol::TCP, Role::Answers);
        for flags in [0, ACK, FIN | ACK, RST, RST | ACK, PSH | ACK] {
            assert_ports(&tcp_of(family, flags).bytes(), protocol::TCP, Role::Continues);
        }
    }
}

#[test]
fn the_identifier_of_a_ping_stands_on_the_side_that_asks() {
    for family in [v4, v6] {
        let (from, to) = family();
        let number = if from.is_ipv4() { protocol::ICMP } else { protocol::ICMPV6 };
        let request = Transport { source_port: Port::new(0x1234), role: Role::Opens, ..MESSAGE };
        let bytes = Frame::echo_request(from, to, 0x1234).bytes();
        assert_eq!(transport(&bytes), Ok((number, request)));
        let reply =
            Transport { destination_port: Port::new(0x1234), role: Role::Answers, ..MESSAGE };
        let bytes = Frame::echo_reply(from, to, 0x1234).bytes();
        assert_eq!(transport(&bytes), Ok((number, reply)));
    }
}

const ALONE: Transport = Transport {
    source_port: Port::new(0),
    destination_port: Port::new(0),
    role: Role::Alone,
    ending: Ending::None,
    header_len: 0,
    problem: None,
};
/// A message of ICMP.
const MESSAGE: Transport = Transport { header_len: 8, ..ALONE };

#[test]
fn other_icmp_belongs_to_no_flow() {
    let (from, to) = v4();
    // The echo types of the other family, and echoes with a code, are no echoes.
    for (kind, code) in [(4, 0), (5, 0), (8, 1), (0, 1), (13, 0), (128, 0), (135, 0)] {
        let bytes = Frame::icmp(from, to, kind, code, [1; 4]).hop_limit(255).bytes();
        assert_eq!(transport(&bytes), Ok((protocol::ICMP, MESSAGE)), "type {kind}");
    }
    let (from, to) = v6();
    for (kind, code) in [(5, 0), (8, 0), (128, 1), (129, 1), (132, 0), (138, 0), (143, 0)] {
        let bytes = Frame::icmp(from, to, kind, code, [1; 4]).hop_limit(255).bytes();
        assert_eq!(transport(&bytes), Ok((protocol::ICMPV6, MESSAGE)), "type {kind}");
    }
}

#[test]
fn the_icmp_of_the_other_family_is_a_protocol_like_any_other() {
    for (family, number, kinds) in [
        (v4 as fn() -> _, protocol::ICMPV6, [128, 129, 133, 135, 136]),
        (v6, protocol::ICMP, [0, 8, 3, 5, 11]),
    ] {
        let (from, to) = family();
        for kind in kinds {
            let message = [kind, 0, 0, 0, 0, 7, 0, 1];
            let bytes = Frame::ip(from, to, number, &message).hop_limit(255).bytes();
            assert_eq!(transport(&bytes), Ok((number, ALONE)), "type {kind}");
        }
    }
}

#[test]
fn neighbour_discovery_has_a_hop_limit_of_255() {
    let (from, to) = v6();
    for kind in 133..=137 {
        let frame = Frame::icmp(from, to, kind, 0, [0; 4]);
        let (_, read) = transport(&frame.clone().hop_limit(255).bytes()).unwrap();
        assert_eq!(read.role, Role::NeighbourDiscovery, "type {kind}");
        for hops in [0, 1, 64, 254] {
            assert_problem(&frame.clone().hop_limit(hops).bytes(), Malformed);
        }
        // RFC 4861 knows these types with code 0 only.
        let other = Frame::icmp(from, to, kind, 1, [0; 4]).hop_limit(255);
        assert_eq!(transport(&other.bytes()), Ok((protocol::ICMPV6, MESSAGE)));
    }
}

#[test]
fn protocols_without_ports_are_told_by_number() {
    for family in [v4, v6] {
        let (from, to) = family();
        for number in [2, 4, 41, 47, 50, 59, 89, 99, 255] {
            let bytes = Frame::ip(from, to, number, b"40 bytes of nobody knows").bytes();
            assert_eq!(transport(&bytes), Ok((number, ALONE)));
            let bytes = Frame::ip(from, to, number, b"").bytes();
            assert_eq!(transport(&bytes), Ok((number, ALONE)));
        }
    }
    // What is an extension header in one family is a protocol in the other.
    let (from, to) = v4();
    for number in [protocol::HOP_BY_HOP, protocol::ROUTING, protocol::FRAGMENT, protocol::AH] {
        let bytes = Frame::ip(from, to, number, &[6; 40]).bytes();
        assert_eq!(transport(&bytes), Ok((number, ALONE)));
    }
}

#[test]
fn a_frame_that_ends_within_its_headers_is_truncated() {
    for frame in [tcp_of(v4, 0), tcp_of(v6, 0), udp_of(v4), udp_of(v6)] {
        let bytes = frame.bytes();
        for len in 12..bytes.len() {
            assert_problem(&bytes[..len], Truncated);
        }
    }
}

#[test]
fn bytes_behind_the_packet_are_padding() {
    for (family, number) in [(v4 as fn() -> _, protocol::TCP), (v6, protocol::TCP)] {
        let mut bytes = tcp_of(family, tcp::SYN).bytes();
        bytes.extend([0xff; 20]);
        assert_ports(&bytes, number, Role::Opens);
    }
}

#[test]
fn a_transport_header_that_does_not_fit_its_packet_is_truncated() {
    for family in [v4, v6] {
        let (from, to) = ends(family());
        for len in 0..20 {
            assert_problem(&tcp_of(family, tcp::SYN).cut(len).bytes(), Truncated);
        }
        for len in 0..16 {
            assert_problem(&Frame::sctp(from, to).cut(len).bytes(), Truncated);
        }
        for len in 0..8 {
            assert_problem(&Frame::udp(from, to).cut(len).bytes(), Truncated);
            let ping = Frame::echo_request(from.ip(), to.ip(), 1);
            assert_problem(&ping.cut(len).bytes(), Truncated);
        }
        // Padding does not complete it.
        let mut padded = tcp_of(family, tcp::SYN).cut(8).bytes();
        padded.extend([0; 40]);
        assert_problem(&padded, Truncated);
    }
}

#[test]
fn a_tcp_header_keeps_to_its_data_offset() {
    for family in [v4, v6] {
        let with = |data_offset: u8| {
            let mut frame = tcp_of(family, tcp::ACK);
            frame.transport[12] = data_offset << 4;
            transport(&frame.bytes()).map(|(_, transport)| transport.role)
        };
        for words in 0..5 {
            assert_eq!(with(words), Err(Malformed));
        }
        // There are 28 bytes.
        assert_eq!([5, 6, 7].map(with), [Ok(Role::Continues); 3]);
        for words in 8..16 {
            assert_eq!(with(words), Err(Truncated));
        }
    }
}

#[test]
fn a_udp_length_that_contradicts_the_packet_is_malformed() {
    for family in [v4, v6] {
        let with = |length: u16| {
            let mut frame = udp_of(family);
            frame.transport[4..6].copy_from_slice(&length.to_be_bytes());
            transport(&frame.bytes()).map(|(_, transport)| transport.role)
        };
        // There are 16 bytes; a datagram may be shorter than its packet (RFC 768, as Linux reads it).
        for length in 8..=16 {
            assert_eq!(with(length), Ok(Role::Either));
        }
        for length in [0, 1, 7, 17, 0xffff] {
            assert_eq!(with(length), Err(Malformed), "length {length}");
        }
    }
}

#[test]
fn ipv4_header_lengths_are_honoured() {
    // 22 is the real port; what a fixed header length would find says 3306.
    let mut options = [0; 40];
    options[2..4].copy_from_slice(&3306_u16.to_be_bytes());
    let (from, to) = (SocketAddr::new(v4().0, 40000), SocketAddr::new(v4().1, 22));
    for len in (4..=40).step_by(4) {
        let bytes = Frame::tcp(from, to, tcp::SYN).options(&options[..len]).bytes();
        let (_, read) = transport(&bytes).unwrap();
        assert_eq!((read.source_port.number(), read.destination_port.number()), (40000, 22));
    }
    let mut bytes = tcp_of(v4, tcp::SYN).bytes();
    for words in 0..5 {
        bytes[IPV4] = 0x40 | words;
        assert_problem(&bytes, Malformed);
    }
}

#[test]
fn an_ip_version_that_is_not_the_ethertypes_is_malformed() {
    for version in (0..16).filter(|version| *version != 4) {
        let mut bytes = tcp_of(v4, tcp::SYN).bytes();
        bytes[IPV4] = version << 4 | 5;
        assert_problem(&bytes, Malformed);
    }
    for version in (0..16).filter(|version| *version != 6) {
        let mut bytes = tcp_of(v6, tcp::SYN).bytes();
        bytes[IPV6] = version << 4;
        assert_problem(&bytes, Malformed);
    }
}

#[test]
fn a_total_length_shorter_than_the_header_is_malformed() {
    let mut bytes = tcp_of(v4, tcp::SYN).options(&[1; 8]).bytes();
    for total_len in [0, 1, 20, 27] {
        bytes[IPV4 + 2..][..2].copy_from_slice(&u16::to_be_bytes(total_len));
        assert_problem(&bytes, Malformed);
    }
}

#[test]
fn a_gso_packet_over_64_kib_has_no_length_of_its_own() {
    let mut frames = [tcp_of(v4, tcp::ACK).bytes(), tcp_of(v6, tcp::ACK).bytes()];
    for (bytes, length_at) in frames.iter_mut().zip([IPV4 + 2, IPV6 + 4]) {
        bytes[length_at..][..2].copy_from_slice(&[0, 0]);
        let short = transport(bytes).unwrap_err();
        assert!([Malformed, Truncated].contains(&short), "{short:?}");
        bytes.resize(70_000, 0);
        assert_ports(bytes, protocol::TCP, Role::Continues);
    }
}

#[test]
fn the_first_fragment_shows_its_ports_and_later_ones_do_not() {
    for family in [v4, v6] {
        assert_ports(&tcp_of(family, tcp::SYN).fragment(0, true).bytes(), 6, Role::Opens);
        for (offset, more) in [(1, true), (1, false), (2, false), (0x1fff, false)] {
            let bytes = tcp_of(family, tcp::SYN).fragment(offset, more).bytes();
            assert_problem(&bytes, FragmentWithoutFirst);
        }
        // RFC 1858: so short that the flags are in the next one.
        assert_problem(&tcp_of(family, tcp::SYN).cut(8).fragment(0, true).bytes(), Truncated);
        assert_problem(&tcp_of(family, tcp::SYN).cut(16).fragment(0, true).bytes(), Truncated);
    }
}

#[test]
fn extension_headers_are_followed_to_the_transport_header() {
    let hop_by_hop = || Extension::Sized(protocol::HOP_BY_HOP, vec![0; 6]);
    let destination =
        |steps: usize| Extension::Sized(protocol::DESTINATION_OPTIONS, vec![0; 6 + 8 * steps]);
    let routing = || Extension::Sized(protocol::ROUTING, [&[2, 1][..], &[0; 20]].concat());
    let chains = [
        vec![],
        vec![hop_by_hop()],
        vec![destination(3)],
        vec![routing()],
        vec![Extension::Authentication(12)],
        vec![Extension::Authentication(0)],
        vec![Extension::Fragment(0, true)],
        vec![hop_by_hop(), destination(0), routing(), Extension::Fragment(0, false)],
        vec![hop_by_hop(), routing(), Extension::Authentication(4), destination(1)],
        vec![destination(0), destination(0), destination(0), destination(0), destination(0)],
    ];
    for chain in chains {
        let frame = chain.iter().cloned().fold(tcp_of(v6, tcp::SYN), Frame::extension);
        assert_ports(&frame.bytes(), protocol::TCP, Role::Opens);
    }
}

#[test]
fn a_chain_is_followed_for_six_headers_within_256_bytes() {
    let chain = |headers: usize, body: usize| {
        let header = Extension::Sized(protocol::DESTINATION_OPTIONS, vec![0; body]);
        (0..headers).fold(tcp_of(v6, tcp::SYN), |frame, _| frame.extension(header.clone())).bytes()
    };
    assert_ports(&chain(6, 6), protocol::TCP, Role::Opens);
    assert_problem(&chain(7, 6), TooManyExtensionHeaders);
    assert_problem(&chain(50, 6), TooManyExtensionHeaders);
    // The TCP header ends at byte 14 + 40 + 8 k + 20, with k = 22 and k = 23.
    assert_ports(&chain(1, 6 + 21 * 8), protocol::TCP, Role::Opens);
    assert_problem(&chain(1, 6 + 22 * 8), TooManyExtensionHeaders);
    assert_problem(&chain(1, 6 + 255 * 8), TooManyExtensionHeaders);
    assert_problem(&chain(2, 6 + 30 * 8), TooManyExtensionHeaders);
}

#[test]
fn hop_by_hop_options_come_first_or_not_at_all() {
    let hop_by_hop = Extension::Sized(protocol::HOP_BY_HOP, vec![0; 6]);
    let destination = Extension::Sized(protocol::DESTINATION_OPTIONS, vec![0; 6]);
    for first in [hop_by_hop.clone(), destination] {
        let frame = tcp_of(v6, tcp::SYN).extension(first).extension(hop_by_hop.clone());
        assert_problem(&frame.bytes(), Malformed);
    }
}

#[test]
fn routing_headers_of_type_0_are_refused() {
    let routing = |kind: u8| {
        let body = [&[kind, 1][..], &[0; 20]].concat();
        tcp_of(v6, tcp::SYN).extension(Extension::Sized(protocol::ROUTING, body)).bytes()
    };
    assert_problem(&routing(0), RoutingHeader);
    for kind in [2, 3, 4, 255] {
        assert_ports(&routing(kind), protocol::TCP, Role::Opens);
    }
}

#[test]
fn extension_headers_that_reach_over_the_end_are_truncated() {
    let number = protocol::DESTINATION_OPTIONS;
    let mut bytes = tcp_of(v6, tcp::SYN).extension(Extension::Sized(number, vec![0; 6])).bytes();
    let length_at = IPV6 + IPV6_LEN + 1;
    for length in [3, 4, 5, 200, 255] {
        bytes[length_at] = length;
        // 36 bytes follow the IP header; a length of 3 leaves 4 for TCP.
        assert_problem(&bytes, Truncated);
    }
    let (from, to) = v6();
    for len in 0..8 {
        let cut = Frame::ip(from, to, number, &[6, 0, 0, 0, 0, 0, 0, 0][..len]).bytes();
        assert_problem(&cut, Truncated);
        // Nor does what stands behind the packet complete it.
        assert_problem(&[&cut[..], &[0; 64]].concat(), Truncated);
    }
}

#[test]
fn a_chain_that_ends_in_nothing_has_no_ports() {
    let (from, to) = v6();
    let frame = Frame::ip(from, to, protocol::NO_NEXT_HEADER, &[])
        .extension(Extension::Sized(protocol::DESTINATION_OPTIONS, vec![0; 6]));
    assert_eq!(transport(&frame.bytes()), Ok((protocol::NO_NEXT_HEADER, ALONE)));
}

/// The jumbo option lies in a hop-by-hop header; without GSO nobody can send such a packet here.
#[test]
fn a_jumbo_option_does_not_lengthen_a_packet() {
    let jumbo = Extension::Sized(protocol::HOP_BY_HOP, vec![0xc2, 4, 0, 1, 0, 0]);
    let mut bytes: Vec<u8> = tcp_of(v6, tcp::SYN).extension(jumbo).bytes();
    bytes[IPV6 + 4..][..2].copy_from_slice(&[0, 0]);
    assert_problem(&bytes, Truncated);
}
