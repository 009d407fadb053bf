//! Which packet passes, clause by clause, over maps that the tests fill.
//!
//! `rules` has what rules decide, `flows` has replies; here is what comes before both.

use std::{net::IpAddr, vec::Vec};

use super::*;
use crate::{
    frames::{Extension, Frame, Linear, VLAN, tcp},
    key::{Ipv4, Ipv6},
    packet::protocol,
    value::{IDENTITY_FIRST, IDENTITY_NODE, IDENTITY_NONE, PortRange, Side, flags::*},
    verdict::{
        AllowReason::{Itself, Reply, Rule},
        DropReason::{
            FlowRevoked, FragmentWithoutFirst, Malformed, NotAllowed, RoutingHeader, SpoofedSource,
            TooManyExtensionHeaders, Truncated, UnknownEthertype,
        },
        Verdict::{Allow, Deny},
    },
};

mod errors;
mod flows;
mod fragments;
mod node;
mod own_node;
mod rules;

use self::node::Node;

const IFINDEX: u32 = 9;
const ISOLATED: u32 = ISOLATED_INGRESS | ISOLATED_EGRESS;
const FRIEND: u32 = IDENTITY_FIRST;
const INGRESS_SET: u32 = 71;
const EGRESS_SET: u32 = 72;

/// A family of addresses.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Net {
    V4,
    V6,
}

impl Net {
    const ALL: [Self; 2] = [Self::V4, Self::V6];
}

/// Who sends to whom.
#[derive(Clone, Copy)]
struct Ends {
    pod: IpAddr,
    friend: IpAddr,
    stranger: IpAddr,
}

impl Ends {
    fn of(net: Net) -> Self {
        let host = |host: u8| match net {
            Net::V4 => IpAddr::from([10, 0, 0, host]),
            Net::V6 => IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, u16::from(host)]),
        };
        Self { pod: host(10), friend: host(11), stranger: host(13) }
    }
}

/// Source and destination of what goes between the pod and a peer in a direction.
fn between(net: Net, peer: IpAddr, direction: Direction) -> (IpAddr, IpAddr) {
    let pod = Ends::of(net).pod;
    match direction {
        Direction::Ingress => (peer, pod),
        Direction::Egress => (pod, peer),
    }
}

/// A connection is opened from port 40000.
fn open((from, to): (IpAddr, IpAddr), port: u16) -> Frame {
    Frame::tcp((from, 40000).into(), (to, port).into(), tcp::SYN)
}

/// Each family in each direction.
fn every_way() -> impl Iterator<Item = (Net, Direction)> {
    Net::ALL.into_iter().flat_map(|net| Direction::ALL.map(|direction| (net, direction)))
}

/// TCP to `port` that cannot be read, with the reason.
fn unreadable_frames(ends: (IpAddr, IpAddr), port: u16) -> Vec<(Vec<u8>, DropReason)> {
    let whole = open(ends, port).bytes();
    let changed = |at: usize, byte: u8| {
        let mut bytes = whole.clone();
        bytes[at] = byte;
        bytes
    };
    std::vec![
        (open(ends, port).tag(VLAN).bytes(), VlanTagged),
        (changed(12, 0x77), UnknownEthertype),
        (changed(14, 0x00), Malformed),
        (whole[..20].to_vec(), Truncated),
        (open(ends, port).cut(3).bytes(), Truncated),
        (open(ends, port).fragment(3, true).bytes(), FragmentWithoutFirst),
    ]
}

#[test]
fn what_the_own_node_sends_passes_before_anything_is_read() {
    let hook = Hook {
        direction: Direction::Ingress,
        ifindex: IFINDEX,
        from_own_node: true,
        from_itself: false,
        vlan_tagged: true,
    };
    let flags = [ISOLATED | CHECK_SOURCE, ISOLATED | CHECK_SOURCE | DENY_EGRESS_TO_NODE];
    for (net, flags) in Net::ALL.into_iter().flat_map(|net| flags.map(|flags| (net, flags))) {
        let node = Node::new(flags);
        let ends = between(net, Ends::of(net).stranger, Direction::Ingress);
        let mut frames: Vec<_> =
            unreadable_frames(ends, 80).into_iter().map(|(frame, _)| frame).collect();
        // Of IPv6, a header of its own: see the next test.
        frames.retain(|frame| !packet::has_extension_header(&Linear(frame)));
        frames.push(open(ends, 80).bytes());
        frames.push(Vec::new());
        for frame in frames {
            for vlan_tagged in [true, false] {
                let hook = Hook { vlan_tagged, ..hook };
                let verdict = decide(&hook, &node.endpoint, &Linear(&frame), &node);
                assert_eq!(verdict, Allow(OwnNode));
            }
        }
    }
}

#[test]
fn a_fragment_of_ipv6_is_the_own_nodes_by_its_address_only() {
    for flags in [0, DENY_EGRESS_TO_NODE] {
        fragments_of_ipv6_are_the_own_nodes_by_its_address_only(flags);
    }
}

fn fragments_of_ipv6_are_the_own_nodes_by_its_address_only(flags: u32) {
    let mut node = Node::new(ISOLATED | CHECK_SOURCE | flags);
    let Ends { pod, stranger, friend, .. } = Ends::of(Net::V6);
    node.peers.insert(friend, Peer { identities: [IDENTITY_NODE, IDENTITY_NONE] });
    let hook = Hook {
        direction: Direction::Ingress,
        ifindex: IFINDEX,
        from_own_node: true,
        from_itself: false,
        vlan_tagged: false,
    };
    let options = || Extension::Sized(protocol::DESTINATION_OPTIONS, std::vec![0; 6]);
    for (from, verdicts) in [
        (stranger, [Deny(NotAllowed), Deny(FragmentWithoutFirst), Deny(NotAllowed)]),
        (friend, [Allow(OwnNode); 3]),
    ] {
        let syn = || open((from, pod), 80);
        let fragments = [
            syn().fragment(0, true),
            syn().fragment(3, false),
            syn().extension(options()).fragment(0, true),
        ];
        for (frame, verdict) in fragments.iter().zip(verdicts) {
            let bytes = frame.bytes();
            assert_eq!(decide(&hook, &node.endpoint, &Linear(&bytes), &node), verdict, "{from}");
        }
        // Multicast listener reports have options, and the node's link-local address.
        let whole = syn().extension(options()).bytes();
        assert_eq!(decide(&hook, &node.endpoint, &Linear(&whole), &node), Allow(OwnNode));
    }
}

#[test]
fn what_cannot_be_read_is_denied_for_an_isolated_pod() {
    let mut node = Node::new(ISOLATED);
    node.endpoint.ingress.any_peer = PortSet::EVERYTHING;
    node.endpoint.egress.any_peer = PortSet::EVERYTHING;
    for (net, direction) in every_way() {
        let ends = between(net, Ends::of(net).stranger, direction);
        for (frame, reason) in unreadable_frames(ends, 80) {
            assert_eq!(node.meet_bytes(direction, &frame), Deny(reason), "{net:?} {direction:?}");
        }
    }
}

#[test]
fn what_cannot_be_read_passes_where_the_pod_is_not_isolated() {
    for (net, direction) in every_way() {
        let other = match direction {
            Direction::Ingress => ISOLATED_EGRESS,
            Direction::Egress => ISOLATED_INGRESS,
        };
        let node = Node::new(other);
        let ends = between(net, Ends::of(net).stranger, direction);
        for (frame, reason) in unreadable_frames(ends, 80) {
            let verdict = node.meet_bytes(direction, &frame);
            assert_eq!(verdict, Allow(NotIsolated), "{net:?} {direction:?} {reason:?}");
        }
    }
}

#[test]
fn a_pod_that_is_not_isolated_sends_nothing_whose_source_cannot_be_read() {
    for net in Net::ALL {
        let node = Node::new(CHECK_SOURCE);
        let ends = between(net, Ends::of(net).stranger, Direction::Egress);
        let whole = open(ends, 80).bytes();
        let mut other_version = whole.clone();
        other_version[14] ^= 0x20;
        let frames = [
            (whole.clone(), Allow(NotIsolated)),
            (open(ends, 80).tag(VLAN).bytes(), Deny(VlanTagged)),
            (whole[..20].to_vec(), Deny(Truncated)),
            (other_version, Deny(Malformed)),
        ];
        for (frame, verdict) in frames {
            assert_eq!(node.meet_bytes(Direction::Egress, &frame), verdict, "{net:?}");
        }
    }
}

#[test]
fn a_tag_that_the_device_took_off_counts_as_well() {
    for (flags, verdict) in [(ISOLATED, Deny(VlanTagged)), (0, Allow(NotIsolated))] {
        let node = Node::new(flags);
        for (net, direction) in every_way() {
            let hook = Hook {
                direction,
                ifindex: IFINDEX,
                from_own_node: false,
                from_itself: false,
                vlan_tagged: true,
            };
            let frame = open(between(net, Ends::of(net).stranger, direction), 80).bytes();
            assert_eq!(decide(&hook, &node.endpoint, &Linear(&frame), &node), verdict);
        }
    }
}

#[test]
fn every_reason_of_the_parser_reaches_the_verdict() {
    use crate::frames::Extension::Sized;
    let node = Node::new(ISOLATED);
    let frame = || open(between(Net::V6, Ends::of(Net::V6).stranger, Direction::Ingress), 80);
    let routing = Sized(protocol::ROUTING, std::vec![0; 22]);
    let long = Sized(protocol::DESTINATION_OPTIONS, std::vec![0; 6 + 8 * 40]);
    for (frame, reason) in [
        (frame().extension(routing), RoutingHeader),
        (frame().extension(long), TooManyExtensionHeaders),
    ] {
        assert_eq!(node.meet(Direction::Ingress, &frame), Deny(reason));
    }
}

#[test]
fn arp_and_neighbour_discovery_pass() {
    let node = Node::new(ISOLATED | CHECK_SOURCE);
    let mut arp = [0; 42];
    arp[12..14].copy_from_slice(&[0x08, 0x06]);
    for direction in Direction::ALL {
        assert_eq!(node.meet_bytes(direction, &arp), Allow(NeighbourDiscovery));
        let (from, to) = between(Net::V6, Ends::of(Net::V6).stranger, direction);
        let unspecified = IpAddr::from([0_u16; 8]);
        for kind in 133..=137 {
            for from in [from, unspecified] {
                let frame = Frame::icmp(from, to, kind, 0, [0; 4]);
                let near = node.meet(direction, &frame.clone().hop_limit(255));
                assert_eq!(near, Allow(NeighbourDiscovery), "type {kind}");
            }
            // Nobody from behind a router may claim to be a neighbour.
            let frame = Frame::icmp(from, to, kind, 0, [0; 4]);
            assert_eq!(node.meet(direction, &frame.hop_limit(254)), Deny(Malformed));
        }
    }
}

#[test]
fn a_pod_sends_from_its_own_addresses_only() {
    for net in Net::ALL {
        let Ends { friend, stranger, pod } = Ends::of(net);
        for flags in [CHECK_SOURCE, CHECK_SOURCE | ISOLATED] {
            let mut node = Node::new(flags);
            node.endpoint.egress.any_peer = PortSet::EVERYTHING;
            assert_eq!(
                node.meet(Direction::Egress, &open((friend, stranger), 80)),
                Deny(SpoofedSource)
            );
            let fragment = open((friend, stranger), 80).fragment(3, false);
            assert_eq!(node.meet(Direction::Egress, &fragment), Deny(SpoofedSource));
            assert!(node.meet(Direction::Egress, &open((pod, stranger), 80)).is_allow());
            // What others send to the pod is not the pod's own.
            assert!(
                node.meet(Direction::Ingress, &open((stranger, pod), 80)) != Deny(SpoofedSource)
            );
        }
        let unchecked = Node::new(0);
        let spoofed = open((friend, stranger), 80);
        assert_eq!(unchecked.meet(Direction::Egress, &spoofed), Allow(NotIsolated));
    }
}

#[test]
fn a_pod_without_an_address_of_a_family_sends_nothing_in_it() {
    let mut node = Node::new(CHECK_SOURCE);
    node.endpoint.ipv4 = Address::ZERO;
    let Ends { pod, friend, .. } = Ends::of(Net::V4);
    assert_eq!(node.meet(Direction::Egress, &open((pod, friend), 80)), Deny(SpoofedSource));
}

#[test]
fn link_local_addresses_are_no_forgery_on_the_link_but_meet_the_rules() {
    let neighbour = IpAddr::from([0xfe80, 0, 0, 0, 0, 0, 0, 9]);
    let group = IpAddr::from([0xff02, 0, 0, 0, 0, 0, 0, 0xfb]);
    let send = |flags, first, to| {
        let from = IpAddr::from([first, 0, 0, 0, 0, 0, 0, 7]);
        Node::new(flags | CHECK_SOURCE).meet(Direction::Egress, &open((from, to), 80))
    };
    for to in [neighbour, group] {
        // fe80::/10 ends at febf.
        for first in [0xfe80, 0xfebf] {
            assert_eq!(send(0, first, to), Allow(NotIsolated));
            assert_eq!(send(ISOLATED, first, to), Deny(NotAllowed));
        }
        for first in [0xfec0, 0xfe7f, 0xff80, 0xfd80] {
            assert_eq!(send(0, first, to), Deny(SpoofedSource), "{first:#x}");
        }
    }
    let elsewhere = Ends::of(Net::V6).friend;
    assert_eq!(send(0, 0xfe80, elsewhere), Deny(SpoofedSource));
}

#[test]
fn a_pod_reaches_itself() {
    let node = Node::new(ISOLATED | CHECK_SOURCE);
    for (net, direction) in every_way() {
        let pod = Ends::of(net).pod;
        assert_eq!(node.meet(direction, &open((pod, pod), 80)), Allow(Itself));
        assert_eq!(node.meet(direction, &Frame::echo_request(pod, pod, 7)), Allow(Itself));
    }
}

#[test]
fn the_unspecified_address_is_not_a_pod_without_addresses() {
    let mut node = Node::new(ISOLATED);
    node.endpoint.ipv4 = Ipv4::ZERO;
    node.endpoint.ipv6 = Ipv6::ZERO;
    for direction in Direction::ALL {
        for zero in [IpAddr::from([0; 4]), IpAddr::from([0_u16; 8])] {
            assert_eq!(node.meet(direction, &open((zero, zero), 80)), Deny(NotAllowed));
        }
    }
}

#[test]
fn the_pod_reaches_its_own_node_but_an_address_of_the_node_opens_nothing() {
    let mut node = Node::new(ISOLATED | CHECK_SOURCE);
    for net in Net::ALL {
        let Ends { friend: address, pod, .. } = Ends::of(net);
        node.peers.insert(address, Peer { identities: [IDENTITY_NODE, IDENTITY_NONE] });
        assert_eq!(node.meet(Direction::Egress, &open((pod, address), 80)), Allow(OwnNode));
        let ping = Frame::echo_request(pod, address, 7);
        assert_eq!(node.meet(Direction::Egress, &ping), Allow(OwnNode));
        assert_eq!(node.meet(Direction::Ingress, &open((address, pod), 80)), Deny(NotAllowed));
    }
}

#[test]
fn a_pod_that_is_not_isolated_passes_without_a_rule() {
    let node = Node::new(CHECK_SOURCE);
    for (net, direction) in every_way() {
        let (from, to) = between(net, Ends::of(net).stranger, direction);
        for frame in [
            open((from, to), 80),
            Frame::udp((from, 1).into(), (to, 2).into()),
            Frame::sctp((from, 1).into(), (to, 2).into()),
            Frame::echo_request(from, to, 7),
            Frame::ip(from, to, 89, &[]),
        ] {
            assert_eq!(node.meet(direction, &frame), Allow(NotIsolated));
        }
    }
}

#[test]
fn a_packet_of_its_own_that_comes_back_translated_passes() {
    for net in Net::ALL {
        let mut node = Node::new(ISOLATED);
        let Ends { pod, friend, stranger } = Ends::of(net);
        node.peers.insert(friend, Peer { identities: [IDENTITY_NODE, IDENTITY_NONE] });
        let meet = |from_itself, source: IpAddr| {
            let hook = Hook {
                direction: Direction::Ingress,
                ifindex: IFINDEX,
                from_own_node: false,
                from_itself,
                vlan_tagged: false,
            };
            let frame = open((source, pod), 80).bytes();
            let met =
                Met { hook: &hook, endpoint: &node.endpoint, frame: &Linear(&frame), maps: &node };
            assert_eq!(quick::<false, _, _>(&met).is_none(), from_itself);
            decide(&hook, &node.endpoint, &Linear(&frame), &node)
        };
        assert_eq!(meet(true, pod), Allow(Itself));
        assert_eq!(meet(true, friend), Allow(Itself), "masqueraded");
        assert_eq!(meet(true, stranger), Deny(NotAllowed), "nobody writes that on the way");
        assert_eq!(meet(false, friend), Deny(NotAllowed), "somebody else's packet");
        let hook = Hook {
            direction: Direction::Ingress,
            ifindex: IFINDEX,
            from_own_node: false,
            from_itself: true,
            vlan_tagged: false,
        };
        for (bytes, reason) in unreadable_frames((friend, pod), 80) {
            let verdict = decide(&hook, &node.endpoint, &Linear(&bytes), &node);
            assert_eq!(verdict, Deny(reason), "nothing passes that cannot be read");
        }
        let first = open((friend, pod), 80).fragment(0, true).bytes();
        let later = open((friend, pod), 80).fragment(3, false).bytes();
        let meet = |bytes: &[u8]| decide(&hook, &node.endpoint, &Linear(bytes), &node);
        assert_eq!(meet(&later), Deny(FragmentWithoutFirst));
        assert_eq!(meet(&first), Allow(Itself));
        assert_eq!(meet(&later), Allow(Itself), "it follows");
    }
}
