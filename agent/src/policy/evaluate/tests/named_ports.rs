use super::*;
use crate::policy::builders::{block, named, with_ports};

const TCP: Protocol = Protocol::Tcp;
const UDP: Protocol = Protocol::Udp;
const SCTP: Protocol = Protocol::Sctp;

/// Each pod names `serve` differently.
fn cluster_with_names(policies: &[Policy]) -> Index {
    let mut index = cluster(policies);
    for pod in [
        with_ports(
            pod(SUBJECT, "app=db", &["10.0.0.1", "fd00::1"]),
            &[("serve", TCP, 3306), ("serve", UDP, 53), ("tcp-only", TCP, 1)],
        ),
        with_ports(
            pod("a/web", "app=web", &[SAME_NAMESPACE]),
            &[("serve", TCP, 8080), ("serve", SCTP, 9), ("serve", TCP, 8081)],
        ),
        with_ports(
            pod("b/web", "app=web", &[OTHER_NAMESPACE, OTHER_V6]),
            &[("serve", TCP, 80), ("other", TCP, 8080)],
        ),
        pod("a/nameless", "app=web", &["10.0.0.4"]),
    ] {
        index.apply(Change::PodApplied(pod));
    }
    index
}

fn may(index: &Index, direction: Direction, peer: &str, protocol: Protocol, port: u16) -> bool {
    ask(index, direction, peer, Traffic::Port(protocol, port)).is_allowed()
}

#[test]
fn for_ingress_a_named_port_is_the_isolated_pods_own_whoever_the_peer_is() {
    let peers = [
        vec![],
        vec![pods("app=web"), namespaces("")],
        vec![block("0.0.0.0/0", &[]), block("::/0", &[])],
    ];
    for peers in peers {
        let index = cluster_with_names(&[ingress(&[rule(&peers, &[named(TCP, "serve")])])]);
        for peer in [SAME_NAMESPACE, OTHER_NAMESPACE, OTHER_V6, "10.0.0.4"] {
            assert!(may(&index, Ingress, peer, TCP, 3306), "{peer}");
            for number in [80, 8080, 53] {
                assert!(!may(&index, Ingress, peer, TCP, number), "{peer}");
            }
            assert!(!may(&index, Ingress, peer, UDP, 3306), "{peer}");
            assert_eq!(ask(&index, Ingress, peer, PING), denied());
        }
    }
}

#[test]
fn for_ingress_peers_outside_use_the_isolated_pods_name_too() {
    for peers in [vec![], vec![block("192.0.2.0/24", &[])]] {
        let index = cluster_with_names(&[ingress(&[rule(&peers, &[named(UDP, "serve")])])]);
        assert!(may(&index, Ingress, OUTSIDE, UDP, 53));
        assert!(!may(&index, Ingress, OUTSIDE, TCP, 3306));
    }
}

#[test]
fn for_egress_a_named_port_is_a_different_number_on_each_destination() {
    let everywhere = [block("0.0.0.0/0", &[]), block("::/0", &[])];
    for peers in [vec![], vec![namespaces("")], everywhere.to_vec()] {
        let index = cluster_with_names(&[egress(&[rule(&peers, &[named(TCP, "serve")])])]);
        let table = [
            (SAME_NAMESPACE, Some(8080)),
            (OTHER_NAMESPACE, Some(80)),
            (OTHER_V6, Some(80)),
            ("10.0.0.4", None),
            (OUTSIDE, None),
        ];
        for (peer, expected) in table {
            for number in [0, 80, 3306, 8080, 8081, u16::MAX] {
                let answer = may(&index, Egress, peer, TCP, number);
                assert_eq!(answer, expected == Some(number), "{peers:?}, {peer}, {number}");
            }
        }
    }
}

#[test]
fn a_name_stands_for_one_port_of_each_protocol() {
    let index = cluster_with_names(&[egress(&[rule(&[], &[named(SCTP, "serve")])])]);
    assert!(may(&index, Egress, SAME_NAMESPACE, SCTP, 9));
    assert!(!may(&index, Egress, SAME_NAMESPACE, TCP, 9));
    assert!(!may(&index, Egress, SAME_NAMESPACE, TCP, 8080));
    assert!(!may(&index, Egress, OTHER_NAMESPACE, SCTP, 80));
    let index = cluster_with_names(&[ingress(&[rule(&[], &[named(UDP, "tcp-only")])])]);
    assert!(!may(&index, Ingress, OUTSIDE, UDP, 1));
    assert!(!may(&index, Ingress, OUTSIDE, TCP, 1));
}

#[test]
fn a_name_that_is_missing_allows_nothing_and_takes_nothing_away() {
    let ports = [named(TCP, "missing"), tcp(80)];
    let index = cluster_with_names(&[Policy {
        ingress: Some(vec![rule(&[], &ports)]),
        ..egress(&[rule(&[], &ports)])
    }]);
    for direction in Direction::ALL {
        assert!(may(&index, direction, SAME_NAMESPACE, TCP, 80));
        assert!(!may(&index, direction, SAME_NAMESPACE, TCP, 0));
        assert!(!may(&index, direction, SAME_NAMESPACE, TCP, 8080));
    }
}

#[test]
fn an_address_of_two_pods_or_of_a_host_network_pod_has_no_names() {
    let mut index = cluster_with_names(&[egress(&[rule(&[], &[named(TCP, "serve")])])]);
    assert!(may(&index, Egress, SAME_NAMESPACE, TCP, 8080));
    let twin = with_ports(pod("a/twin", "", &[SAME_NAMESPACE]), &[("serve", TCP, 8080)]);
    index.apply(Change::PodApplied(twin));
    assert!(!may(&index, Egress, SAME_NAMESPACE, TCP, 8080));
    let on_host = with_ports(pod("a/on-host", "", &["10.1.0.2"]), &[("serve", TCP, 8080)]);
    index.apply(Change::PodApplied(Pod { host_network: true, ..on_host.clone() }));
    assert!(!may(&index, Egress, "10.1.0.2", TCP, 8080));
    index.apply(Change::PodApplied(Pod { ended: true, ..on_host }));
    assert!(!may(&index, Egress, "10.1.0.2", TCP, 8080));
}

#[test]
fn the_peer_and_the_named_port_are_both_needed() {
    let rules = [rule(&[pods("app=web")], &[named(TCP, "serve")])];
    let index = cluster_with_names(&[egress(&rules)]);
    assert!(may(&index, Egress, SAME_NAMESPACE, TCP, 8080));
    assert!(!may(&index, Egress, OTHER_NAMESPACE, TCP, 80));
}
