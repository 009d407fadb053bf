//! The program at the uplink beside the one at the pod: what the first drops, the second denies, and
//! for the same reason. Needs root.

use std::{collections::BTreeMap, iter, net::IpAddr};

use bulkhead::dataplane::{kernel::next_event, op::Op};
use bulkhead_common::{
    frames::{Frame, VLAN, tcp},
    packet::ETHERNET_LEN,
    value::flags,
    verdict::{
        Direction,
        DropReason::{self, Malformed, NotAllowed},
        Verdict::Deny,
    },
};
use bulkhead_tests::{
    arbitrary,
    pod::{
        ALLOWED, CLIENT, COUNTERS, DENIED, IFINDEX, INGRESS_ONLY, ISOLATED, NETS, Net, OPEN, at,
        endpoint,
    },
    program::{self, Programs},
};
use fastrand::Rng;

/// Random packets. Some fifth of them open something.
const PACKETS: u32 = 8_000;

/// A row of the table: its name, the families, and the frame.
type Evasion = (&'static str, &'static [Net], fn(IpAddr, IpAddr) -> Vec<u8>);

macro_rules! evasions {
    ($group:ident; $($(#[doc = $would_see:literal])+ $name:ident: $nets:expr, |$from:ident, $to:ident| $frame:expr => $reason:ident;)+) => {
        pub(super) const $group: &[crate::Evasion] =
            &[$((stringify!($name), &$nets, |$from, $to| $frame)),+];
        // The reason is `datapath_evasions`' to look at.
        const _: &[bulkhead_common::verdict::DropReason] = &[$($reason),+];
    };
}

#[path = "evasions/rows.rs"]
mod rows;

const EVASIONS: [&[Evasion]; 7] = [
    rows::SEVEN,
    rows::TAGS,
    rows::IP_HEADERS,
    rows::FRAGMENTS,
    rows::CHAINS,
    rows::TRANSPORT_HEADERS,
    rows::REPLIES,
];

/// What the uplink drops, after it was seen that the pod's hook denies the same.
fn dropped(programs: &mut Programs, frame: &[u8]) -> Option<DropReason> {
    let reason = programs.at_uplink(frame)?;
    assert_eq!(programs.to_pod(frame), Deny(reason), "left: at the pod; {frame:02x?}");
    Some(reason)
}

#[test]
fn of_random_packets_the_uplink_drops_what_the_pod_would_deny() {
    let mut random = Rng::with_seed(0xb0c5);
    let mut programs = program::shared(ISOLATED);
    let mut reasons = BTreeMap::<DropReason, u32>::new();
    for number in 0..PACKETS {
        if number % 500 == 0 {
            // Only the other direction is isolated, once in a while.
            let isolated = if number % 4000 == 0 { flags::ISOLATED_EGRESS } else { ISOLATED };
            programs.set_pod(isolated);
        }
        if random.u8(..) < 100 {
            // The pod opens flows of its own: what comes back may be a reply.
            let sent = arbitrary::frame(&mut random, Direction::Egress);
            programs.from_pod(&sent);
        }
        let frame = arbitrary::frame(&mut random, Direction::Ingress);
        if let Some(reason) = dropped(&mut programs, &frame) {
            *reasons.entry(reason).or_default() += 1;
        }
    }
    println!("{reasons:?}");
    assert!(reasons.get(&NotAllowed).is_some_and(|packets| *packets > 300), "{reasons:?}");
    assert!(reasons.get(&Malformed).is_some_and(|packets| *packets > 5), "{reasons:?}");
    assert_eq!(reasons.len(), 2, "{reasons:?}");
}

#[test]
fn of_evasions_the_uplink_drops_what_the_pod_would_deny() {
    let mut programs = program::shared(ISOLATED);
    let mut names = Vec::new();
    for (name, nets, frame) in EVASIONS.into_iter().flatten() {
        for net in *nets {
            if dropped(&mut programs, &frame(net.friend, net.pod)).is_some() {
                names.push(*name);
            }
        }
    }
    // Fragments, tags, what is cut short and what may be a reply are the pod's hook to judge.
    println!("{names:?}");
    assert!(names.contains(&"ip_options_do_not_shift_a_denied_port_behind_an_allowed_one"));
    assert!(names.contains(&"ipv6_meets_the_policy_too"));
    for name in [
        "a_vlan_tag_hides_nothing",
        "a_tcp_header_cut_short_is_not_completed",
        "the_data_of_a_later_fragment_is_not_taken_for_ports",
    ] {
        assert!(!names.contains(&name), "{name}");
    }
}

#[test]
fn openings_that_rules_deny_are_dropped_and_nothing_else_is() {
    let mut programs = program::shared(ISOLATED);
    for net in NETS {
        let to = |port| at(net.pod, port);
        let [friend, trusted, stranger, node] =
            [net.friend, net.trusted, net.stranger, net.node].map(|from| at(from, CLIENT));
        for frame in [
            Frame::tcp(stranger, to(ALLOWED), tcp::SYN),
            Frame::tcp(friend, to(DENIED), tcp::SYN),
            // An address of the node counts for nothing here: the node does not send by its uplink.
            Frame::tcp(node, to(DENIED), tcp::SYN),
            Frame::sctp_chunk(stranger, to(ALLOWED), 1),
            Frame::echo_request(net.stranger, net.pod, 7),
            Frame::echo_request(net.friend, net.pod, 7),
        ] {
            assert_eq!(dropped(&mut programs, &frame.bytes()), Some(NotAllowed), "{frame:?}");
        }
        let unreadable = Frame::udp(stranger, to(DENIED)).bytes();
        // The length of the datagram, which is longer than the packet then.
        let length = ETHERNET_LEN + if net.pod.is_ipv4() { 20 } else { 40 } + 4;
        let unreadable = patched(unreadable, length, &[0xff, 0xff]);
        assert_eq!(dropped(&mut programs, &unreadable), Some(Malformed));

        let itself = at(net.pod, CLIENT);
        let syn = |from, port| Frame::tcp(from, to(port), tcp::SYN);
        for frame in [
            // Allowed.
            syn(friend, ALLOWED),
            syn(friend, INGRESS_ONLY),
            syn(trusted, DENIED),
            syn(stranger, OPEN),
            Frame::echo_request(net.trusted, net.pod, 7),
            // May be a reply to what the node has translated.
            Frame::tcp(stranger, to(DENIED), tcp::SYN | tcp::ACK),
            Frame::tcp(stranger, to(DENIED), tcp::ACK),
            Frame::tcp(stranger, to(DENIED), tcp::RST),
            Frame::udp(stranger, to(DENIED)),
            Frame::sctp_chunk(stranger, to(DENIED), 2),
            Frame::echo_reply(net.stranger, net.pod, 7),
            Frame::icmp_error(net.stranger, net.pod, 3, &syn(stranger, DENIED), 64),
            Frame::ip(net.stranger, net.pod, 47, &[0; 32]),
            // May be another packet by the time it is there.
            syn(stranger, DENIED).fragment(0, true),
            syn(stranger, DENIED).fragment(2, false),
            syn(stranger, DENIED).tag(VLAN),
            syn(stranger, DENIED).cut(12),
            // The pod reaches itself.
            syn(itself, DENIED),
            // For others.
            Frame::tcp(at(net.pod, CLIENT), at(net.stranger, DENIED), tcp::SYN),
            Frame::tcp(stranger, at(net.friend, DENIED), tcp::SYN),
        ] {
            assert_eq!(programs.at_uplink(&frame.bytes()), None, "{frame:?}");
        }
    }
}

#[test]
fn everything_passes_that_is_for_a_pod_open_or_answering_or_gone() {
    let mut programs = program::shared(0);
    let syns =
        NETS.map(|net| Frame::tcp(at(net.stranger, CLIENT), at(net.pod, DENIED), tcp::SYN).bytes());
    for flags in [0, flags::ISOLATED_EGRESS, ISOLATED | flags::REJECT] {
        programs.set_pod(flags);
        for syn in &syns {
            assert_eq!(programs.at_uplink(syn), None, "{flags:#b}");
        }
    }
    programs.set_pod(ISOLATED);
    for syn in &syns {
        assert_eq!(programs.at_uplink(syn), Some(NotAllowed));
    }
    programs.execute(&[Op::RemoveEndpoint { ifindex: IFINDEX }]);
    for syn in &syns {
        assert_eq!(programs.at_uplink(syn), None);
    }
}

/// While the agent is between two writes, an address may lead to a place that is another pod's.
#[test]
fn nothing_is_dropped_by_the_policy_of_another_pod() {
    let mut programs = program::shared(ISOLATED);
    let syns =
        NETS.map(|net| Frame::tcp(at(net.stranger, CLIENT), at(net.pod, DENIED), tcp::SYN).bytes());
    // The pod has other addresses now; and another one has these, which nothing isolates.
    let mut moved = endpoint(ISOLATED, 1_000);
    for (address, net) in [moved.ipv4.0.last_mut(), moved.ipv6.0.last_mut()].into_iter().zip(NETS) {
        *address.unwrap_or_else(|| panic!("{net:?}")) = 99;
    }
    programs.execute(&[Op::SetEndpoint { ifindex: IFINDEX, endpoint: moved }]);
    for syn in &syns {
        assert_eq!(programs.at_uplink(syn), None);
    }
    let other = endpoint(0, 1_001);
    programs.execute(&[Op::SetEndpoint { ifindex: IFINDEX + 1, endpoint: other }]);
    for syn in &syns {
        assert_eq!(programs.at_uplink(syn), None);
    }
    programs.execute(&[Op::RemoveEndpoint { ifindex: IFINDEX + 1 }]);
}

#[test]
fn a_drop_is_reported_as_the_pods_as_far_as_the_budget_goes() {
    let mut programs = Programs::with_pod(ISOLATED);
    let mut events = programs.kernel.take_events().expect("the first reader");
    for (net, family) in NETS.into_iter().zip([4, 6]) {
        let syn = Frame::tcp(at(net.stranger, CLIENT), at(net.pod, DENIED), tcp::SYN).bytes();
        let suppressed = programs.suppressed();
        assert_eq!(programs.at_uplink(&syn), Some(NotAllowed));
        assert_eq!(programs.suppressed(), suppressed + 1, "no budget yet");
        programs.kernel.counters().grant_events(COUNTERS, 1).expect("writing a map");
        assert_eq!(programs.at_uplink(&syn), Some(NotAllowed));
        assert_eq!(programs.suppressed(), suppressed + 1);
        programs.kernel.counters().grant_events(COUNTERS, 1).expect("writing a map");
        programs.to_pod(&syn);
        let events: Vec<_> = iter::from_fn(|| next_event(&mut events)).collect();
        let [at_uplink, at_pod] = &events[..] else { panic!("{events:?}") };
        assert_eq!(at_uplink, at_pod);
        assert_eq!((at_uplink.ifindex, at_uplink.family), (IFINDEX, family));
    }
}

fn patched(mut frame: Vec<u8>, offset: usize, bytes: &[u8]) -> Vec<u8> {
    frame[offset..offset + bytes.len()].copy_from_slice(bytes);
    frame
}
