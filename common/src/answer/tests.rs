//! Answers, read back by another crate's parser, whose checksums are its own.

use std::{
    net::{IpAddr, SocketAddr},
    vec::Vec,
};

use etherparse::{NetSlice, SlicedPacket, TransportSlice};

use super::*;
use crate::{
    frames::{Frame, Linear, tcp},
    packet::{Network, network, parse_ipv4, parse_ipv6},
};

const FAMILIES: [fn() -> (SocketAddr, SocketAddr); 2] = [v4, v6];

fn v4() -> (SocketAddr, SocketAddr) {
    ends(IpAddr::from([10, 0, 0, 66]), IpAddr::from([10, 0, 0, 10]))
}

fn v6() -> (SocketAddr, SocketAddr) {
    let address = |last| IpAddr::from([0xfd00, 0x10, 0, 0, 0, 0, 0, last]);
    ends(address(0x66), address(0x10))
}

fn ends(from: IpAddr, to: IpAddr) -> (SocketAddr, SocketAddr) {
    (SocketAddr::new(from, 40000), SocketAddr::new(to, 3306))
}

/// The answer to a denied frame; empty if there is none.
fn answer(denied: &[u8]) -> Vec<u8> {
    let frame = Linear(denied);
    let mut bytes = [0; MAX_LEN];
    let len = match network(&frame).unwrap() {
        Network::Ipv4 => write(&frame, &parse_ipv4(&frame), &mut bytes),
        Network::Ipv6 => write(&frame, &parse_ipv6(&frame), &mut bytes),
        Network::Arp => 0,
    };
    bytes[..len].to_vec()
}

/// The sum of big-endian words (RFC 1071), written anew.
fn ones_complement(bytes: &[u8]) -> u16 {
    let mut sum: u64 = 0;
    for pair in bytes.chunks(2) {
        sum += u64::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u64::from(*low));
    }
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

fn transport_start(frame: &[u8]) -> usize {
    if frame[12..14] == [0x08, 0x00] { 34 } else { 54 }
}

/// What a network card makes of a frame that is in the state `CHECKSUM_PARTIAL`: sums up from the
/// transport header on, and stores the complement.
fn complete(frame: &[u8], checksum_offset: usize) -> Vec<u8> {
    let start = transport_start(frame);
    let mut completed = frame.to_vec();
    let at = start + checksum_offset;
    completed[at..at + 2].copy_from_slice(&(!ones_complement(&frame[start..])).to_be_bytes());
    completed
}

/// A frame of headers that fit each other and are addressed the other way round; what is behind
/// the IP header.
fn assert_goes_back(frame: &[u8], (from, to): (SocketAddr, SocketAddr)) -> TransportSlice<'_> {
    let sliced = SlicedPacket::from_ethernet(frame).unwrap();
    let transport = &frame[transport_start(frame)..];
    let len = u8::try_from(transport.len()).unwrap();
    let pseudo = match sliced.net.unwrap() {
        NetSlice::Ipv4(ip) => {
            let header = ip.header().to_header();
            assert_eq!(IpAddr::from(header.source), to.ip());
            assert_eq!(IpAddr::from(header.destination), from.ip());
            assert_eq!(header.header_checksum, header.calc_header_checksum());
            assert_eq!(usize::from(header.total_len), frame.len() - ETHERNET_LEN);
            match header.protocol.0 {
                protocol::ICMP => Vec::new(),
                number => [&header.source[..], &header.destination, &[0, number, 0, len]].concat(),
            }
        }
        NetSlice::Ipv6(ip) => {
            let header = ip.header().to_header();
            assert_eq!(IpAddr::from(header.source), to.ip());
            assert_eq!(IpAddr::from(header.destination), from.ip());
            assert_eq!(usize::from(header.payload_length), transport.len());
            let rest = [0, header.next_header.0, 0, len];
            [&header.source[..], &header.destination, &rest].concat()
        }
        other @ NetSlice::Arp(_) => panic!("{other:?}"),
    };
    assert_eq!(ones_complement(&[&pseudo, transport].concat()), 0xffff, "a valid checksum");
    sliced.transport.unwrap()
}

#[test]
fn a_syn_is_answered_by_a_reset_that_acknowledges_it_and_its_data() {
    for family in FAMILIES {
        let (from, to) = family();
        let answer = answer(&Frame::tcp(from, to, tcp::SYN).bytes());
        let TransportSlice::Tcp(reset) = assert_goes_back(&answer, (from, to)) else { panic!() };
        assert!(reset.rst() && reset.ack() && !reset.syn());
        assert_eq!((reset.source_port(), reset.destination_port()), (to.port(), from.port()));
        // The frames' sequence number, the SYN, and eight bytes of data.
        assert_eq!((reset.sequence_number(), reset.acknowledgment_number()), (0, 0x1000 + 1 + 8));
    }
}

#[test]
fn a_segment_that_acknowledges_is_answered_by_a_reset_at_that_number() {
    for family in FAMILIES {
        let (from, to) = family();
        let mut denied = Frame::tcp(from, to, tcp::ACK).bytes();
        let at = transport_start(&denied) + 8;
        denied[at..at + 4].copy_from_slice(&0xdead_beef_u32.to_be_bytes());
        let answer = answer(&denied);
        let TransportSlice::Tcp(reset) = assert_goes_back(&answer, (from, to)) else { panic!() };
        assert!(reset.rst() && !reset.ack());
        assert_eq!(reset.sequence_number(), 0xdead_beef);
    }
}

#[test]
fn a_reset_is_never_answered() {
    for family in FAMILIES {
        let (from, to) = family();
        for flags in [tcp::RST, tcp::RST | tcp::ACK, tcp::RST | tcp::SYN] {
            assert_eq!(answer(&Frame::tcp(from, to, flags).bytes()), []);
        }
    }
}

#[test]
fn a_datagram_is_answered_by_port_unreachable_that_quotes_it() {
    for family in FAMILIES {
        let (from, to) = family();
        let denied = Frame::udp(from, to).bytes();
        let answer = answer(&denied);
        let quoted_len = transport_start(&denied) - ETHERNET_LEN + 8;
        let quoted = &denied[ETHERNET_LEN..ETHERNET_LEN + quoted_len];
        assert_eq!(&answer[answer.len() - quoted_len..], quoted);
        match assert_goes_back(&answer, (from, to)) {
            TransportSlice::Icmpv4(icmp) => {
                assert_eq!((icmp.type_u8(), icmp.code_u8()), (3, 3));
            }
            TransportSlice::Icmpv6(icmp) => {
                assert_eq!((icmp.type_u8(), icmp.code_u8()), (1, 4));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_ping_is_answered_and_no_other_icmp() {
    for family in FAMILIES {
        let (from, to) = family();
        let (request, reply) = if from.is_ipv4() { (8, 0) } else { (128, 129) };
        for kind in [0, 1, 2, 3, 4, 5, 8, 11, 12, 13, 128, 129, 130, 135] {
            let denied = Frame::icmp(from.ip(), to.ip(), kind, 0, [0; 4]).bytes();
            let answered = !answer(&denied).is_empty();
            assert_eq!(answered, kind == request, "type {kind}, which is not the reply {reply}");
        }
    }
}

#[test]
fn the_checksum_of_an_answer_survives_completion_of_a_partial_one() {
    for family in FAMILIES {
        let (from, to) = family();
        let reset = answer(&Frame::tcp(from, to, tcp::SYN).bytes());
        assert_goes_back(&complete(&reset, 16), (from, to));
        let unreachable = answer(&Frame::udp(from, to).bytes());
        assert_goes_back(&complete(&unreachable, 6), (from, to));
    }
}

#[test]
fn nothing_is_answered_that_concerns_a_group_of_hosts() {
    let (from, to) = v4();
    let at = |ip: [u8; 4]| SocketAddr::new(IpAddr::from(ip), 53);
    for group in [[224, 0, 0, 251], [255, 255, 255, 255], [0, 0, 0, 0], [127, 0, 0, 1]] {
        assert_eq!(answer(&Frame::udp(at(group), to).bytes()), [], "from {group:?}");
        assert_eq!(answer(&Frame::udp(from, at(group)).bytes()), [], "to {group:?}");
    }
    let (from, to) = v6();
    let group = SocketAddr::new(IpAddr::from([0xff02, 0, 0, 0, 0, 0, 0, 0xfb]), 53);
    assert_eq!(answer(&Frame::udp(group, to).bytes()), []);
    assert_eq!(answer(&Frame::udp(from, group).bytes()), []);
    let mut broadcast = Frame::udp(from, to).bytes();
    broadcast[..6].copy_from_slice(&[0xff; 6]);
    assert_eq!(answer(&broadcast), [], "an Ethernet broadcast");
}

#[test]
fn fragments_and_packets_with_options_are_not_answered() {
    let (from, to) = v4();
    assert_eq!(answer(&Frame::udp(from, to).fragment(8, false).bytes()), []);
    assert_eq!(answer(&Frame::tcp(from, to, tcp::SYN).options(&[1; 4]).bytes()), []);
}

#[test]
fn an_endpoint_answers_fifty_times_at_once_and_then_a_hundred_times_a_second() {
    use crate::value::AnswerBucket;
    let mut bucket = AnswerBucket::default();
    let start = 1_000_000_000;
    assert_eq!((0..1000).filter(|_| bucket.take(start)).count(), 50);
    let second = 1_000_000_000;
    let tries = (1..=1000).filter(|n| bucket.take(start + n * second / 1000));
    assert_eq!(tries.count(), 100);
}
