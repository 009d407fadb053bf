//! Verdicts of the loaded programs on single packets. Needs root.
//!
//! Each run also asserts the complete change of the counters and that `decide` says the same in
//! user space: see `bulkhead_tests::program`.

use bulkhead_common::{
    frames::{Frame, tcp},
    value::flags,
    verdict::{
        AllowReason::{Itself, NeighbourDiscovery, NotIsolated, OwnNode, Reply, Rule},
        Direction,
        DropReason::{FlowRevoked, Internal, NotAllowed, SpoofedSource},
        Verdict::{Allow, Deny},
    },
};
use bulkhead_tests::{
    pod::{
        ALLOWED, CLIENT, DENIED, EGRESS_ONLY, INGRESS_ONLY, IPV6, ISOLATED, NETS, Net, OPEN, at,
    },
    program::{self, Programs},
};

/// A packet of any kind, from the peer to the pod or from the pod to the peer.
fn ends(net: &Net, peer: std::net::IpAddr, direction: Direction) -> [std::net::IpAddr; 2] {
    match direction {
        Direction::Ingress => [peer, net.pod],
        Direction::Egress => [net.pod, peer],
    }
}

#[test]
fn a_pod_that_nothing_isolates_is_reached_by_and_reaches_everybody() {
    let mut programs = program::shared(flags::CHECK_SOURCE);
    for net in NETS {
        for direction in Direction::ALL {
            for peer in [net.friend, net.stranger, net.node] {
                let [from, to] = ends(&net, peer, direction);
                let (source, destination) = (at(from, CLIENT), at(to, DENIED));
                for frame in [
                    Frame::tcp(source, destination, tcp::SYN),
                    Frame::tcp(source, destination, tcp::ACK),
                    Frame::udp(source, destination),
                    Frame::sctp(source, destination),
                    Frame::echo_request(from, to, 7),
                    Frame::echo_reply(from, to, 7),
                    Frame::ip(from, to, 47, &[0; 8]),
                    Frame::udp(source, destination).fragment(3, false),
                ] {
                    assert_eq!(programs.meet(direction, &frame.bytes()), Allow(NotIsolated));
                }
            }
        }
    }
}

#[test]
fn an_isolated_pod_meets_its_rules() {
    let mut programs = program::shared(ISOLATED);
    for net in NETS {
        for direction in Direction::ALL {
            let ingress = direction == Direction::Ingress;
            let allow_if = |allowed| if allowed { Allow(Rule) } else { Deny(NotAllowed) };
            for (peer, port, verdict) in [
                (net.friend, ALLOWED, Allow(Rule)),
                (net.friend, INGRESS_ONLY, allow_if(ingress)),
                (net.friend, EGRESS_ONLY, allow_if(!ingress)),
                (net.friend, OPEN, allow_if(ingress)),
                (net.friend, DENIED, Deny(NotAllowed)),
                (net.stranger, OPEN, allow_if(ingress)),
                (net.stranger, ALLOWED, Deny(NotAllowed)),
                (net.trusted, DENIED, Allow(Rule)),
            ] {
                let [from, to] = ends(&net, peer, direction);
                let frame = Frame::tcp(at(from, CLIENT), at(to, port), tcp::SYN);
                let met = programs.meet(direction, &frame.bytes());
                assert_eq!(met, verdict, "{direction:?}: {peer}, port {port}");
            }
        }
    }
}

#[test]
fn udp_and_sctp_have_ports_of_their_own() {
    let mut programs = program::shared(ISOLATED);
    for net in NETS {
        for direction in Direction::ALL {
            let [from, to] = ends(&net, net.friend, direction);
            for (port, verdict) in [
                (ALLOWED, Allow(Rule)),
                (INGRESS_ONLY, Deny(NotAllowed)),
                (EGRESS_ONLY, Deny(NotAllowed)),
                (DENIED, Deny(NotAllowed)),
            ] {
                let (source, destination) = (at(from, CLIENT), at(to, port));
                let udp = Frame::udp(source, destination).bytes();
                assert_eq!(programs.meet(direction, &udp), verdict, "UDP {port}");
                let sctp = Frame::sctp(source, destination).bytes();
                assert_eq!(programs.meet(direction, &sctp), verdict, "SCTP {port}");
            }
        }
    }
}

#[test]
fn icmp_and_other_protocols_pass_only_where_everything_does() {
    let mut programs = program::shared(ISOLATED);
    for net in NETS {
        for direction in Direction::ALL {
            for (peer, verdict) in [
                (net.friend, Deny(NotAllowed)),
                (net.stranger, Deny(NotAllowed)),
                (net.trusted, Allow(Rule)),
            ] {
                let [from, to] = ends(&net, peer, direction);
                for frame in [
                    Frame::echo_request(from, to, 7),
                    Frame::echo_reply(from, to, 8),
                    Frame::icmp(from, to, 13, 0, [0; 4]),
                    Frame::ip(from, to, 47, &[0; 8]),
                    Frame::ip(from, to, 2, &[0; 8]),
                ] {
                    assert_eq!(programs.meet(direction, &frame.bytes()), verdict, "{frame:?}");
                }
            }
        }
    }
}

#[test]
fn isolation_of_one_direction_leaves_the_other_alone() {
    for (flag, isolated) in
        [(flags::ISOLATED_INGRESS, Direction::Ingress), (flags::ISOLATED_EGRESS, Direction::Egress)]
    {
        let mut programs = program::shared(flag);
        for net in NETS {
            let [from, to] = ends(&net, net.stranger, isolated);
            let frame = Frame::tcp(at(from, CLIENT), at(to, DENIED), tcp::SYN).bytes();
            assert_eq!(programs.meet(isolated, &frame), Deny(NotAllowed));
            let frame = Frame::tcp(at(to, CLIENT), at(from, DENIED), tcp::SYN).bytes();
            assert_eq!(programs.meet(isolated.opposite(), &frame), Allow(NotIsolated));
        }
    }
}

#[test]
fn what_the_own_node_sends_passes_whatever_it_is() {
    let mut programs = program::shared(ISOLATED | flags::CHECK_SOURCE);
    for net in NETS {
        // By the path, not by the address: the stranger's passes, too.
        for from in [net.node, net.stranger] {
            let frame = Frame::tcp(at(from, CLIENT), at(net.pod, DENIED), tcp::SYN);
            assert_eq!(programs.to_pod_from_own_node(&frame.bytes()), Allow(OwnNode));
            assert_eq!(programs.to_pod_from_own_node(&frame.cut(3).bytes()), Allow(OwnNode));
        }
        // And an address that somebody else took from the node is worth nothing.
        let forged = Frame::tcp(at(net.node, CLIENT), at(net.pod, DENIED), tcp::SYN);
        assert_eq!(programs.to_pod(&forged.bytes()), Deny(NotAllowed));
    }
}

#[test]
fn a_pod_that_reaches_its_own_node_by_rules_only_answers_it() {
    let mut programs = program::shared(ISOLATED | flags::CHECK_SOURCE | flags::DENY_EGRESS_TO_NODE);
    for net in NETS {
        let to_node = Frame::tcp(at(net.pod, CLIENT), at(net.node, DENIED), tcp::SYN).bytes();
        assert_eq!(programs.from_pod(&to_node), Deny(NotAllowed));
        let ping = Frame::echo_request(net.pod, net.node, 7).bytes();
        assert_eq!(programs.from_pod(&ping), Deny(NotAllowed));

        let (node, pod) = (at(net.node, CLIENT), at(net.pod, DENIED));
        let answer = Frame::tcp(pod, node, tcp::SYN | tcp::ACK).bytes();
        assert_eq!(programs.from_pod(&answer), Deny(NotAllowed), "nobody asked yet");
        for flags in [tcp::SYN, tcp::ACK, tcp::ACK] {
            let asks = Frame::tcp(node, pod, flags).bytes();
            assert_eq!(programs.to_pod_from_own_node(&asks), Allow(OwnNode));
            assert_eq!(programs.from_pod(&answer), Allow(Reply));
            assert_eq!(programs.to_pod(&asks), Deny(NotAllowed), "somebody else's");
        }
        let ping = Frame::echo_request(net.node, net.pod, 7).bytes();
        assert_eq!(programs.to_pod_from_own_node(&ping), Allow(OwnNode));
        let pong = Frame::echo_reply(net.pod, net.node, 7).bytes();
        assert_eq!(programs.from_pod(&pong), Allow(Reply));
        // Whatever else it is.
        let cut = Frame::tcp(node, pod, tcp::SYN).cut(3).bytes();
        assert_eq!(programs.to_pod_from_own_node(&cut), Allow(OwnNode));
    }
}

#[test]
fn the_pod_reaches_its_own_node_and_itself() {
    let mut programs = program::shared(ISOLATED | flags::CHECK_SOURCE);
    for net in NETS {
        let to_node = Frame::udp(at(net.pod, CLIENT), at(net.node, DENIED)).bytes();
        assert_eq!(programs.from_pod(&to_node), Allow(OwnNode));
        let ping = Frame::echo_request(net.pod, net.node, 7).bytes();
        assert_eq!(programs.from_pod(&ping), Allow(OwnNode));
        let to_itself = Frame::tcp(at(net.pod, CLIENT), at(net.pod, DENIED), tcp::SYN).bytes();
        for direction in Direction::ALL {
            assert_eq!(programs.meet(direction, &to_itself), Allow(Itself));
        }
    }
}

#[test]
fn the_pod_sends_from_its_own_addresses_only() {
    for flags in [flags::CHECK_SOURCE, flags::CHECK_SOURCE | ISOLATED] {
        let mut programs = program::shared(flags);
        for net in NETS {
            for from in [net.friend, net.stranger, net.node] {
                for frame in [
                    Frame::tcp(at(from, CLIENT), at(net.trusted, ALLOWED), tcp::SYN),
                    Frame::echo_request(from, net.trusted, 7),
                    Frame::udp(at(from, CLIENT), at(net.trusted, 1)).fragment(3, false),
                ] {
                    assert_eq!(programs.from_pod(&frame.bytes()), Deny(SpoofedSource));
                }
            }
        }
    }
    let mut programs = program::shared(ISOLATED);
    for net in NETS {
        let frame = Frame::tcp(at(net.stranger, CLIENT), at(net.friend, ALLOWED), tcp::SYN).bytes();
        assert_eq!(programs.from_pod(&frame), Allow(Rule), "the check is switched off");
    }
}

#[test]
fn neighbours_are_discovered_whatever_policy_says() {
    let mut programs = program::shared(ISOLATED | flags::CHECK_SOURCE);
    let mut arp = vec![0xff; 42];
    arp[12..14].copy_from_slice(&[0x08, 0x06]);
    for direction in Direction::ALL {
        assert_eq!(programs.meet(direction, &arp), Allow(NeighbourDiscovery));
        for kind in 133..=137 {
            let [from, to] = ends(&IPV6, IPV6.stranger, direction);
            let near = Frame::icmp(from, to, kind, 0, [0; 4]).hop_limit(255).bytes();
            assert_eq!(programs.meet(direction, &near), Allow(NeighbourDiscovery));
        }
    }
    // Duplicate address detection has no source address yet.
    let unspecified = std::net::IpAddr::from([0_u16; 8]);
    let frame = Frame::icmp(unspecified, IPV6.stranger, 135, 0, [0; 4]).hop_limit(255).bytes();
    assert_eq!(programs.from_pod(&frame), Allow(NeighbourDiscovery));
}

#[test]
fn replies_of_allowed_flows_pass_and_nothing_else_does() {
    let mut programs = program::shared(ISOLATED | flags::CHECK_SOURCE);
    for net in NETS {
        for direction in Direction::ALL {
            let [from, to] = ends(&net, net.friend, direction);
            let (source, destination) = (at(from, CLIENT), at(to, ALLOWED));
            let back = direction.opposite();

            let reply = Frame::tcp(destination, source, tcp::SYN | tcp::ACK).bytes();
            assert_eq!(programs.meet(back, &reply), Deny(NotAllowed), "nobody asked");
            let open = Frame::tcp(source, destination, tcp::SYN).bytes();
            assert_eq!(programs.meet(direction, &open), Allow(Rule));
            assert_eq!(programs.meet(back, &reply), Allow(Reply));
            let opens = Frame::tcp(destination, source, tcp::SYN).bytes();
            assert_eq!(programs.meet(back, &opens), Deny(NotAllowed), "a SYN is no reply");
            let other = Frame::tcp(destination, at(from, CLIENT + 1), tcp::ACK).bytes();
            assert_eq!(programs.meet(back, &other), Deny(NotAllowed), "another flow");

            let reply = Frame::udp(destination, source).bytes();
            assert_eq!(programs.meet(back, &reply), Deny(NotAllowed), "TCP is not UDP");
            let open = Frame::udp(source, destination).bytes();
            assert_eq!(programs.meet(direction, &open), Allow(Rule));
            assert_eq!(programs.meet(back, &reply), Allow(Reply));
        }
    }
}

#[test]
fn a_ping_is_answered_by_its_own_identifier() {
    let mut programs = program::shared(flags::ISOLATED_INGRESS | flags::CHECK_SOURCE);
    for net in NETS {
        let reply = |identifier| Frame::echo_reply(net.stranger, net.pod, identifier).bytes();
        assert_eq!(programs.to_pod(&reply(7)), Deny(NotAllowed));
        let ping = Frame::echo_request(net.pod, net.stranger, 7).bytes();
        assert_eq!(programs.from_pod(&ping), Allow(NotIsolated));
        assert_eq!(programs.to_pod(&reply(7)), Allow(Reply));
        assert_eq!(programs.to_pod(&reply(8)), Deny(NotAllowed));
        let asks = Frame::echo_request(net.stranger, net.pod, 7).bytes();
        assert_eq!(programs.to_pod(&asks), Deny(NotAllowed));
    }
}

#[test]
fn a_policy_change_cuts_established_flows_in_both_directions() {
    for net in NETS {
        let mut programs = program::shared(flags::ISOLATED_EGRESS | flags::CHECK_SOURCE);
        let (client, server) = (at(net.stranger, CLIENT), at(net.pod, DENIED));
        let open = Frame::tcp(client, server, tcp::SYN).bytes();
        let data = Frame::tcp(client, server, tcp::ACK).bytes();
        let reply = Frame::tcp(server, client, tcp::ACK).bytes();
        assert_eq!(programs.to_pod(&open), Allow(NotIsolated));
        assert_eq!(programs.from_pod(&reply), Allow(Reply));

        programs.set_pod(ISOLATED | flags::CHECK_SOURCE);
        assert_eq!(programs.from_pod(&reply), Deny(FlowRevoked));
        assert_eq!(programs.to_pod(&data), Deny(NotAllowed));

        programs.set_pod(flags::ISOLATED_EGRESS | flags::CHECK_SOURCE);
        assert_eq!(programs.to_pod(&data), Allow(NotIsolated));
        assert_eq!(programs.from_pod(&reply), Allow(Reply), "allowed again, it goes on");
    }
}

#[test]
fn an_interface_that_the_maps_do_not_know_is_closed() {
    let mut programs = Programs::empty();
    for net in NETS {
        let frame = Frame::udp(at(net.friend, CLIENT), at(net.pod, ALLOWED)).bytes();
        assert_eq!(programs.to_pod(&frame), Deny(Internal));
        assert_eq!(programs.to_pod_from_own_node(&frame), Deny(Internal));
        assert_eq!(programs.from_pod(&frame), Deny(Internal));
    }
}
