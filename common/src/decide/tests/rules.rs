//! What rules decide.

use std::vec;

use proptest::prelude::*;

use super::*;
use crate::verdict::AllowReason::Rule;

const TCP: u8 = protocol::TCP;
const UDP: u8 = protocol::UDP;
const SCTP: u8 = protocol::SCTP;

/// An isolated pod; the friend has these ports in both directions.
fn node_with(ranges: &[(u8, u16, u16)]) -> Node {
    let mut node = Node::new(ISOLATED);
    node.know_friend();
    for direction in Direction::ALL {
        node.allow(direction, ranges);
    }
    node
}

#[test]
fn an_isolated_pod_without_rules_is_closed() {
    let node = Node::new(ISOLATED);
    for (net, direction) in every_way() {
        let (from, to) = between(net, Ends::of(net).friend, direction);
        for frame in [
            open((from, to), 80),
            Frame::udp((from, 1).into(), (to, 80).into()),
            Frame::echo_request(from, to, 7),
            Frame::ip(from, to, 47, &[]),
        ] {
            assert_eq!(node.meet(direction, &frame), Deny(NotAllowed));
        }
    }
}

#[test]
fn a_rule_allows_its_identity_and_no_other() {
    let node = node_with(&[(TCP, 3306, 3306)]);
    for (net, direction) in every_way() {
        let Ends { friend, stranger, .. } = Ends::of(net);
        let to_port = |peer, port| node.meet(direction, &open(between(net, peer, direction), port));
        assert_eq!(to_port(friend, 3306), Allow(Rule));
        assert_eq!(to_port(friend, 3307), Deny(NotAllowed));
        assert_eq!(to_port(stranger, 3306), Deny(NotAllowed));
    }
}

#[test]
fn a_rule_counts_for_its_direction_only() {
    for (net, direction) in every_way() {
        let mut node = Node::new(ISOLATED);
        node.know_friend();
        node.allow(direction, &[(TCP, 3306, 3306)]);
        let friend = Ends::of(net).friend;
        assert_eq!(node.meet(direction, &open(between(net, friend, direction), 3306)), Allow(Rule));
        let back = direction.opposite();
        assert_eq!(node.meet(back, &open(between(net, friend, back), 3306)), Deny(NotAllowed));
    }
}

#[test]
fn a_rule_of_another_policy_set_is_not_the_pods() {
    let mut node = node_with(&[(TCP, 3306, 3306)]);
    node.endpoint.ingress.policy_set += 10;
    node.endpoint.egress.policy_set += 10;
    for (net, direction) in every_way() {
        let frame = open(between(net, Ends::of(net).friend, direction), 3306);
        assert_eq!(node.meet(direction, &frame), Deny(NotAllowed));
    }
}

#[test]
fn a_rule_for_identity_none_would_allow_nobody() {
    let mut node = Node::new(ISOLATED);
    for policy_set in [INGRESS_SET, EGRESS_SET] {
        let key = RuleKey { policy_set, identity: IDENTITY_NONE };
        node.rules.insert(key, PortSet::EVERYTHING);
    }
    for (net, direction) in every_way() {
        let frame = open(between(net, Ends::of(net).stranger, direction), 3306);
        assert_eq!(node.meet(direction, &frame), Deny(NotAllowed));
    }
}

#[test]
fn what_every_peer_is_allowed_needs_no_identity() {
    let mut node = Node::new(ISOLATED);
    let open_port = node.port_set(&[(TCP, 80, 80)]);
    node.endpoint.ingress.any_peer = open_port;
    for net in Net::ALL {
        let stranger = between(net, Ends::of(net).stranger, Direction::Ingress);
        assert_eq!(node.meet(Direction::Ingress, &open(stranger, 80)), Allow(Rule));
        assert_eq!(node.meet(Direction::Ingress, &open(stranger, 81)), Deny(NotAllowed));
        let out = between(net, Ends::of(net).stranger, Direction::Egress);
        assert_eq!(node.meet(Direction::Egress, &open(out, 80)), Deny(NotAllowed));
    }
}

/// The first two bytes of an address.
fn block_of(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets()[..2].to_vec(),
        IpAddr::V6(address) => address.octets()[..2].to_vec(),
    }
}

#[test]
fn an_address_that_is_nobodys_has_the_identity_of_the_longest_block_where_a_policy_asks() {
    for (net, direction) in every_way() {
        let mut node = Node::new(ISOLATED);
        node.allow(direction, &[(TCP, 3306, 3306)]);
        let Ends { stranger, .. } = Ends::of(net);
        let frame = open(between(net, stranger, direction), 3306);
        let friendly = Peer { identities: [FRIEND; 2] };
        node.cidrs.push((block_of(stranger), friendly));
        assert_eq!(node.meet(direction, &frame), Deny(NotAllowed), "nobody asks");
        node.change_endpoint(|endpoint| endpoint.flags |= ASKS_CIDRS);
        assert_eq!(node.meet(direction, &frame), Allow(Rule));

        let longer = match stranger {
            IpAddr::V4(address) => address.octets()[..3].to_vec(),
            IpAddr::V6(address) => address.octets()[..15].to_vec(),
        };
        node.cidrs.push((longer, Peer { identities: [IDENTITY_NONE; 2] }));
        node.change_endpoint(|_| ());
        assert_eq!(node.meet(direction, &frame), Deny(NotAllowed), "an exception");
    }
}

#[test]
fn an_address_with_an_identity_of_its_own_is_not_asked_for_its_block() {
    for (net, direction) in every_way() {
        let mut node = Node::new(ISOLATED | ASKS_CIDRS);
        node.allow(direction, &[(TCP, 3306, 3306)]);
        let Ends { stranger, .. } = Ends::of(net);
        node.cidrs.push((block_of(stranger), Peer { identities: [FRIEND; 2] }));
        node.peers.insert(stranger, Peer { identities: [FRIEND + 1; 2] });
        let frame = open(between(net, stranger, direction), 3306);
        assert_eq!(node.meet(direction, &frame), Deny(NotAllowed));
        // One without an identity in the slot that counts is nobody, as if it were not there.
        node.peers.insert(stranger, Peer { identities: [IDENTITY_NONE, FRIEND + 1] });
        node.change_endpoint(|_| ());
        assert_eq!(node.meet(direction, &frame), Allow(Rule));
    }
}

#[test]
fn an_address_of_the_node_meets_the_rules_of_its_block_where_it_is_not_told_by_the_path() {
    for net in Net::ALL {
        let mut node = node_with(&[(TCP, 3306, 3306)]);
        let Ends { stranger, .. } = Ends::of(net);
        let frame = open(between(net, stranger, Direction::Ingress), 3306);
        node.peers.insert(stranger, Peer { identities: [IDENTITY_NODE; 2] });
        assert_eq!(node.meet(Direction::Ingress, &frame), Deny(NotAllowed));
        node.peers.insert(stranger, Peer { identities: [IDENTITY_NODE | FRIEND; 2] });
        node.change_endpoint(|_| ());
        assert_eq!(node.meet(Direction::Ingress, &frame), Allow(Rule));
    }
}

#[test]
fn the_second_identity_counts_where_the_endpoint_says_so() {
    let mut node = node_with(&[(TCP, 3306, 3306)]);
    for net in Net::ALL {
        let Ends { friend, stranger, .. } = Ends::of(net);
        node.peers.insert(friend, Peer { identities: [FRIEND, IDENTITY_NONE] });
        node.peers.insert(stranger, Peer { identities: [IDENTITY_NONE, FRIEND] });
    }
    for (flags, first, second) in [
        (ISOLATED, Allow(Rule), Deny(NotAllowed)),
        (ISOLATED | SECOND_IDENTITY, Deny(NotAllowed), Allow(Rule)),
    ] {
        node.change_endpoint(|endpoint| endpoint.flags = flags);
        for (net, direction) in every_way() {
            let Ends { friend, stranger, .. } = Ends::of(net);
            let to = |peer| node.meet(direction, &open(between(net, peer, direction), 3306));
            assert_eq!((to(friend), to(stranger)), (first, second));
        }
    }
}

#[test]
fn a_range_includes_both_of_its_ends() {
    let node = node_with(&[(TCP, 100, 200), (TCP, 300, 300), (TCP, 65_535, 65_535)]);
    for (net, direction) in every_way() {
        let ends = between(net, Ends::of(net).friend, direction);
        for (port, allowed) in [
            (0, false),
            (99, false),
            (100, true),
            (150, true),
            (200, true),
            (201, false),
            (299, false),
            (300, true),
            (301, false),
            (65_534, false),
            (65_535, true),
        ] {
            let verdict = if allowed { Allow(Rule) } else { Deny(NotAllowed) };
            assert_eq!(node.meet(direction, &open(ends, port)), verdict, "port {port}");
        }
    }
}

#[test]
fn a_port_counts_for_its_protocol_only() {
    // Ascending: TCP is 6, UDP is 17, SCTP is 132.
    let node = node_with(&[(TCP, 10, 10), (UDP, 20, 20), (SCTP, 30, 30)]);
    for (net, direction) in every_way() {
        let (from, to) = between(net, Ends::of(net).friend, direction);
        for port in [10, 20, 30] {
            let (source, destination) = ((from, 40000).into(), (to, port).into());
            for (frame, own) in [
                (Frame::tcp(source, destination, tcp::SYN), 10),
                (Frame::udp(source, destination), 20),
                (Frame::sctp(source, destination), 30),
            ] {
                let verdict = if port == own { Allow(Rule) } else { Deny(NotAllowed) };
                assert_eq!(node.meet(direction, &frame), verdict, "{frame:?}");
            }
        }
    }
}

#[test]
fn all_ports_of_a_protocol_are_a_range_like_any_other() {
    let node = node_with(&[(UDP, 0, 65_535)]);
    for (net, direction) in every_way() {
        let (from, to) = between(net, Ends::of(net).friend, direction);
        for port in [0, 1, 53, 65_535] {
            let frame = Frame::udp((from, 1).into(), (to, port).into());
            assert_eq!(node.meet(direction, &frame), Allow(Rule));
        }
        assert_eq!(node.meet(direction, &open((from, to), 53)), Deny(NotAllowed));
    }
}

#[test]
fn icmp_and_other_protocols_pass_by_everything_alone() {
    let every_port = [(TCP, 0, 65_535), (UDP, 0, 65_535), (SCTP, 0, 65_535)];
    let with_ports = node_with(&every_port);
    let mut with_everything = node_with(&[]);
    for ports in with_everything.rules.values_mut() {
        *ports = PortSet::EVERYTHING;
    }
    for (net, direction) in every_way() {
        let (from, to) = between(net, Ends::of(net).friend, direction);
        for frame in [
            Frame::echo_request(from, to, 7),
            Frame::icmp(from, to, 13, 0, [0; 4]),
            Frame::ip(from, to, 2, &[0; 8]),
            Frame::ip(from, to, 47, &[]),
            Frame::ip(from, to, 255, &[]),
        ] {
            assert_eq!(with_ports.meet(direction, &frame), Deny(NotAllowed), "{frame:?}");
            assert_eq!(with_everything.meet(direction, &frame), Allow(Rule), "{frame:?}");
        }
        assert_eq!(with_everything.meet(direction, &open((from, to), 1)), Allow(Rule));
        let stranger = between(net, Ends::of(net).stranger, direction);
        assert_eq!(with_everything.meet(direction, &open(stranger, 1)), Deny(NotAllowed));
    }
}

#[test]
fn a_set_ends_where_its_neighbour_begins() {
    let mut node = Node::new(ISOLATED);
    node.know_friend();
    let others = [(TCP, 1, 10), (TCP, 20, 30)];
    node.port_set(&others);
    node.allow(Direction::Ingress, &[(TCP, 50, 50)]);
    node.port_set(&[(TCP, 60, 70)]);
    for net in Net::ALL {
        let ends = between(net, Ends::of(net).friend, Direction::Ingress);
        for (port, verdict) in [
            (5, Deny(NotAllowed)),
            (25, Deny(NotAllowed)),
            (50, Allow(Rule)),
            (65, Deny(NotAllowed)),
        ] {
            assert_eq!(node.meet(Direction::Ingress, &open(ends, port)), verdict, "port {port}");
        }
    }
}

#[test]
fn ranges_that_are_not_there_allow_nothing() {
    let mut node = Node::new(ISOLATED);
    node.endpoint.ingress.any_peer = PortSet { start: 4, len: 9 };
    node.endpoint.egress.any_peer = PortSet { start: u32::MAX - 1, len: u32::MAX - 1 };
    for (net, direction) in every_way() {
        let frame = open(between(net, Ends::of(net).stranger, direction), 80);
        assert_eq!(node.meet(direction, &frame), Deny(NotAllowed));
    }
}

/// Enough of them that a search which gives up early would miss some.
#[test]
fn every_range_of_a_full_map_is_found() {
    let mut node = Node::new(ISOLATED);
    // Every second port of two protocols: as many ranges as there are indices.
    let ranges: Vec<_> = [TCP, UDP]
        .iter()
        .flat_map(|p| (0..=u16::MAX).step_by(2).map(|port| (*p, port, port)))
        .collect();
    assert_eq!(ranges.len(), crate::abi::PORT_RANGES as usize);
    node.endpoint.ingress.any_peer = node.port_set(&ranges);
    let (from, to) = between(Net::V4, Ends::of(Net::V4).stranger, Direction::Ingress);
    for port in (0..=u16::MAX).step_by(97).chain([1, u16::MAX - 1, u16::MAX]) {
        let verdict = if port % 2 == 0 { Allow(Rule) } else { Deny(NotAllowed) };
        assert_eq!(node.meet(Direction::Ingress, &open((from, to), port)), verdict, "{port}");
        let udp = Frame::udp((from, 1).into(), (to, port).into());
        assert_eq!(node.meet(Direction::Ingress, &udp), verdict, "UDP {port}");
    }
}

proptest! {
    #[test]
    fn a_search_finds_what_a_walk_finds(
        ends in proptest::collection::btree_set(any::<u16>(), 0..60),
        port in any::<u16>(),
        before in 0_usize..4,
    ) {
        // Pairs of ascending numbers: ranges that do not overlap.
        let ends: Vec<u16> = ends.into_iter().collect();
        let ranges: Vec<_> = ends.chunks_exact(2).map(|pair| (TCP, pair[0], pair[1])).collect();
        let mut node = Node::new(ISOLATED);
        node.port_set(&vec![(TCP, 0, u16::MAX); before]);
        node.endpoint.ingress.any_peer = node.port_set(&ranges);
        node.port_set(&[(TCP, 0, u16::MAX)]);
        let walked = ranges.iter().any(|(_, first, last)| (*first..=*last).contains(&port));
        let frame = open(between(Net::V4, Ends::of(Net::V4).stranger, Direction::Ingress), port);
        prop_assert_eq!(node.meet(Direction::Ingress, &frame).is_allow(), walked);
    }
}
