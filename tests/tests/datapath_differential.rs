//! The loaded programs against `decide` in user space, on many random packets. Needs root.
//!
//! The verifier, the compiler for the BPF target and the kernel's maps stand between the source
//! and what runs: here is what shows that they change nothing.

use std::{collections::BTreeMap, net::IpAddr};

use bulkhead_common::{
    frames::{Extension, Frame, SERVICE_VLAN, VLAN},
    packet::protocol,
    value::flags,
    verdict::{Direction, Verdict},
};
use bulkhead_tests::{
    pod::{
        ALLOWED, CLIENT, COUNTERS, DENIED, EGRESS_ONLY, INGRESS_ONLY, ISOLATED, NETS, Net, OPEN, at,
    },
    program::Programs,
};
use fastrand::Rng;

/// Packets in one run.
const PACKETS: u32 = 100_000;
/// Packets between two looks at the counters. What a packet's action shows is compared at once.
const BATCH: u32 = 1000;

#[test]
fn programs_and_decide_agree_on_random_packets() {
    let mut random = Rng::with_seed(0xb01c);
    let mut programs = Programs::with_pod(ISOLATED | flags::CHECK_SOURCE);
    let mut verdicts_met = BTreeMap::<u32, (Verdict, u64)>::new();
    for batch in 0..PACKETS / BATCH {
        // Flows of the last policy meet the next one.
        programs.set_pod(random_flags(&mut random));
        let mut expected = BTreeMap::<(Direction, u32), (Verdict, u64, u64)>::new();
        for _ in 0..BATCH {
            let direction = random.choice(Direction::ALL).expect("not empty");
            let from_own_node = direction == Direction::Ingress && random.u8(..) < 8;
            let frame = random_frame(&mut random, direction);
            let verdict = programs.compare(direction, u32::from(!from_own_node) * 7, &frame);
            let of_verdict =
                expected.entry((direction, verdict.column())).or_insert((verdict, 0, 0));
            of_verdict.1 += 1;
            of_verdict.2 += frame.len() as u64;
        }
        let moved: Vec<_> = programs
            .moved()
            .into_iter()
            .map(|moved| {
                assert_eq!(moved.block, COUNTERS, "batch {batch}");
                let counter = moved.count.counter;
                (moved.count.direction, moved.count.verdict, counter.packets, counter.bytes)
            })
            .collect();
        let wanted: Vec<_> = expected
            .iter()
            .map(|((direction, _), (verdict, packets, bytes))| {
                (*direction, *verdict, *packets, *bytes)
            })
            .collect();
        assert_eq!(moved, wanted, "left: the programs, right: decide; batch {batch}");
        for (verdict, packets, _) in expected.into_values() {
            verdicts_met.entry(verdict.column()).or_insert((verdict, 0)).1 += packets;
        }
    }
    for (verdict, packets) in verdicts_met.values() {
        println!("{packets:>8}  {verdict:?}");
    }
    // All but "internal", and what a frame cannot show: every reason was met many times.
    assert_eq!(verdicts_met.len(), 6 + 10, "{verdicts_met:?}");
    assert!(verdicts_met.values().all(|(_, packets)| *packets > 20), "{verdicts_met:?}");
}

fn random_flags(random: &mut Rng) -> u32 {
    // Mostly isolated: an open pod has little to decide.
    let mut chosen = ISOLATED | flags::CHECK_SOURCE;
    for flag in [flags::ISOLATED_INGRESS, flags::ISOLATED_EGRESS, flags::CHECK_SOURCE] {
        if random.u8(..) < 50 {
            chosen &= !flag;
        }
    }
    chosen
}

/// A frame of few ends, so that rules and flows are met; now and then one that is damaged.
fn random_frame(random: &mut Rng, direction: Direction) -> Vec<u8> {
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
