//! Drop events of the loaded programs. Needs root.

use std::net::IpAddr;

use bulkhead::dataplane::kernel::next_event;
use bulkhead_common::{
    event::Event,
    frames::{Frame, VLAN, tcp},
    key::Port,
    verdict::{Direction, DropReason},
};
use bulkhead_tests::{
    pod::{ALLOWED, CLIENT, COUNTERS, DENIED, IFINDEX, ISOLATED, NETS, Net, at},
    program::Programs,
};

fn grant(programs: &Programs, events: u32) {
    programs.kernel.counters().grant_events(COUNTERS, events).expect("writing a map");
}

/// An address as an event has it.
fn octets(address: IpAddr) -> [u8; 16] {
    let mut octets = [0; 16];
    match address {
        IpAddr::V4(address) => octets[..4].copy_from_slice(&address.octets()),
        IpAddr::V6(address) => octets = address.octets(),
    }
    octets
}

/// What an event should say of a frame between these ends.
fn event(net: &Net, direction: Direction, frame: &[u8]) -> Event {
    let (source, destination) = match direction {
        Direction::Ingress => (net.stranger, net.pod),
        Direction::Egress => (net.pod, net.stranger),
    };
    Event {
        source: octets(source),
        destination: octets(destination),
        ifindex: IFINDEX,
        length: frame.len() as u32,
        source_port: Port::new(CLIENT),
        destination_port: Port::new(DENIED),
        direction: direction as u8,
        reason: DropReason::NotAllowed as u8,
        family: if net.pod.is_ipv4() { 4 } else { 6 },
        protocol: 6,
    }
}

#[test]
fn a_denied_packet_is_reported_whole() {
    let mut programs = Programs::with_pod(ISOLATED);
    let mut events = programs.kernel.take_events().expect("the first reader");
    grant(&programs, 100);
    for net in NETS {
        for (direction, from, to) in [
            (Direction::Ingress, net.stranger, net.pod),
            (Direction::Egress, net.pod, net.stranger),
        ] {
            let (source, destination) = (at(from, CLIENT), at(to, DENIED));
            let syn = Frame::tcp(source, destination, tcp::SYN);
            let reason = |reason: DropReason| reason as u8;

            let frame = syn.bytes();
            programs.meet(direction, &frame);
            let whole = event(&net, direction, &frame);
            assert_eq!(next_event(&mut events), Some(whole));

            let frame = Frame::udp(source, destination).bytes();
            programs.meet(direction, &frame);
            let udp = Event { protocol: 17, ..event(&net, direction, &frame) };
            assert_eq!(next_event(&mut events), Some(udp));

            let none = Port::default();
            let frame = Frame::echo_request(from, to, 7).bytes();
            programs.meet(direction, &frame);
            let ping = Event {
                protocol: if from.is_ipv4() { 1 } else { 58 },
                source_port: Port::new(7),
                destination_port: none,
                ..event(&net, direction, &frame)
            };
            assert_eq!(next_event(&mut events), Some(ping));

            let frame = syn.clone().cut(3).bytes();
            programs.meet(direction, &frame);
            let cut = Event {
                reason: reason(DropReason::Truncated),
                source_port: none,
                destination_port: none,
                ..event(&net, direction, &frame)
            };
            assert_eq!(next_event(&mut events), Some(cut), "addresses, but no ports");

            let frame = syn.tag(VLAN).bytes();
            programs.meet(direction, &frame);
            let tagged = Event {
                ifindex: IFINDEX,
                length: frame.len() as u32,
                direction: direction as u8,
                reason: reason(DropReason::VlanTagged),
                ..Event::EMPTY
            };
            assert_eq!(next_event(&mut events), Some(tagged), "no addresses");
        }
    }
    assert_eq!(next_event(&mut events), None);
    assert_eq!(programs.suppressed(), 0);
}

#[test]
fn a_packet_that_passes_is_no_event() {
    let mut programs = Programs::with_pod(ISOLATED);
    let mut events = programs.kernel.take_events().expect("the first reader");
    grant(&programs, 100);
    for net in NETS {
        let frame = Frame::tcp(at(net.friend, CLIENT), at(net.pod, ALLOWED), tcp::SYN).bytes();
        assert!(programs.to_pod(&frame).is_allow());
        assert!(programs.to_pod_from_own_node(&frame).is_allow());
    }
    assert_eq!(next_event(&mut events), None);
    assert_eq!(programs.suppressed(), 0);
}

#[test]
fn without_budget_events_are_counted_instead() {
    let mut programs = Programs::with_pod(ISOLATED);
    let mut events = programs.kernel.take_events().expect("the first reader");
    let net = NETS[0];
    let frame = Frame::tcp(at(net.stranger, CLIENT), at(net.pod, DENIED), tcp::SYN).bytes();
    for suppressed in 1..=3 {
        programs.to_pod(&frame);
        assert_eq!(next_event(&mut events), None);
        assert_eq!(programs.suppressed(), suppressed);
    }
}

#[test]
fn a_budget_is_what_one_cpu_may_write() {
    const BUDGET: u32 = 5;
    const PACKETS: u64 = 100;
    let mut programs = Programs::with_pod(ISOLATED);
    let mut events = programs.kernel.take_events().expect("the first reader");
    let net = NETS[1];
    let frame = Frame::tcp(at(net.stranger, CLIENT), at(net.pod, DENIED), tcp::SYN).bytes();
    grant(&programs, BUDGET);
    for _ in 0..PACKETS {
        programs.to_pod(&frame);
    }
    let written = std::iter::from_fn(|| next_event(&mut events)).count() as u64;
    // This thread may have moved from one CPU to another.
    let cpus = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    assert!((u64::from(BUDGET)..=u64::from(BUDGET) * cpus).contains(&written), "{written}");
    assert_eq!(programs.suppressed(), PACKETS - written);
}

#[test]
fn events_that_find_the_buffer_full_are_counted() {
    const PACKETS: u64 = 6000;
    let mut programs = Programs::with_pod(ISOLATED);
    let mut events = programs.kernel.take_events().expect("the first reader");
    let net = NETS[0];
    let frame = Frame::tcp(at(net.stranger, CLIENT), at(net.pod, DENIED), tcp::SYN).bytes();
    grant(&programs, u32::MAX);
    for _ in 0..PACKETS {
        programs.compare(Direction::Ingress, 7, &frame);
    }
    let written = std::iter::from_fn(|| next_event(&mut events)).count() as u64;
    // A record of the ring buffer is the event and a header of eight bytes.
    assert_eq!(written, u64::from(bulkhead_common::abi::EVENTS_BYTES) / (48 + 8));
    assert_eq!(programs.suppressed(), PACKETS - written);
}
