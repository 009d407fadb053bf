//! Random frames for the pod of [`crate::pod`], and from it.

use std::net::IpAddr;

use bulkhead_common::{
    frames::{Extension, Frame, SERVICE_VLAN, VLAN},
    packet::protocol,
    verdict::Direction,
};
use fastrand::Rng;

use crate::pod::{ALLOWED, CLIENT, DENIED, EGRESS_ONLY, INGRESS_ONLY, NETS, Net, OPEN, at};

/// A frame of few ends, so that rules and flows are met; now and then one that is damaged.
///
/// # Panics
/// Never.
pub fn frame(random: &mut Rng, direction: Direction) -> Vec<u8> {
    let net = random.choice(NETS).expect("not empty");
    let mut frame = random_packet(random, &net, direction);
    if random.u8(..) < 30 {
        frame = with_options(random, frame, net.pod.is_ipv4());
    }
    if random.u8(..) < 12 {
        frame = frame.fragment(random.u16(0..3), random.bool());
    }
    if random.u8(..) < 6 {
        frame = frame.cut(random.usize(0..24));
    }
    if random.u8(..) < 4 {
        frame = frame.tag(if random.bool() { VLAN } else { SERVICE_VLAN });
    }
    let mut bytes = frame.bytes();
    if random.u8(..) < 40 {
        for _ in 0..random.u8(1..4) {
            // In the headers, behind the hardware addresses.
            let at = random.usize(12..bytes.len().min(90));
            bytes[at] = random.u8(..);
        }
    }
    if random.u8(..) < 10 {
        // A test run asks for a whole IP header; shorter frames are the parser's unit tests'.
        bytes.resize(random.usize(14 + 40..120), 0);
    }
    bytes
}

fn random_packet(random: &mut Rng, net: &Net, direction: Direction) -> Frame {
    let peers = [net.friend, net.friend, net.trusted, net.stranger, net.node, net.pod];
    let peer = random.choice(peers).expect("not empty");
    let pod = if random.u8(..) < 8 { net.stranger } else { net.pod };
    let (from, to) = match direction {
        Direction::Ingress => (peer, pod),
        Direction::Egress => (pod, peer),
    };
    let ports = [ALLOWED, ALLOWED, INGRESS_ONLY, EGRESS_ONLY, OPEN, DENIED, CLIENT, CLIENT + 1];
    let mut port = || random.choice(ports).expect("not empty");
    let (source, destination) = (at(from, port()), at(to, port()));
    match random.u8(0..16) {
        0..8 => Frame::tcp(source, destination, random.u8(0..32)),
        8..11 => Frame::udp(source, destination),
        11 => Frame::sctp(source, destination),
        12 => Frame::echo_request(from, to, random.u16(0..4)),
        13 => Frame::echo_reply(from, to, random.u16(0..4)),
        14 => random_icmp(random, from, to),
        _ => Frame::ip(from, to, random.u8(..), &[random.u8(..); 32]),
    }
}

fn random_icmp(random: &mut Rng, from: IpAddr, to: IpAddr) -> Frame {
    // Errors, neighbour discovery and everything between.
    let kind = if random.bool() { random.u8(0..20) } else { random.u8(126..140) };
    let frame = Frame::icmp(from, to, kind, random.u8(0..2), [0, 7, 0, 1]);
    if random.bool() { frame.hop_limit(255) } else { frame }
}

fn with_options(random: &mut Rng, frame: Frame, is_ipv4: bool) -> Frame {
    if is_ipv4 {
        return frame.options(&vec![1; 4 * random.usize(0..=10)]);
    }
    (0..random.u8(1..9)).fold(frame, |frame, _| {
        let number = random
            .choice([protocol::HOP_BY_HOP, protocol::ROUTING, protocol::DESTINATION_OPTIONS])
            .expect("not empty");
        let steps = if random.u8(..) < 20 { random.usize(0..40) } else { 0 };
        frame.extension(match random.u8(0..8) {
            0 => Extension::Authentication(4 * random.usize(0..4)),
            1 => Extension::Fragment(random.u16(0..2), random.bool()),
            _ => Extension::Sized(number, vec![random.u8(0..3); 6 + 8 * steps]),
        })
    })
}
