use bulkhead_common::verdict::Direction;

use super::*;
use crate::policy::{
    builders::{block, ip, key, namespace, namespaces, pod, pods, pods_of, policy, rule, tcp, udp},
    model::{Change, Protocol},
};

/// `a/db` with these ingress rules, `a/web` (app=web) and `b/web` (app=web).
fn index_with(rules: &[Rule]) -> Index {
    let mut index = Index::new(None);
    for pod in [
        pod("a/db", "app=db", &["10.0.0.1"]),
        pod("a/web", "app=web", &["10.0.0.2"]),
        pod("b/web", "app=web", &["10.0.0.3"]),
    ] {
        index.apply(Change::PodApplied(pod));
    }
    index.apply(Change::NamespaceApplied(namespace("b", "team=red")));
    let policy = Policy { ingress: Some(rules.to_vec()), ..policy("a/db", "app=db") };
    index.apply(Change::PolicyApplied(policy));
    index.apply(Change::SourceComplete(true));
    index
}

fn nearest(rules: &[Rule], peer: &str, traffic: Traffic) -> Option<(usize, Lacks)> {
    let index = index_with(rules);
    let flow =
        Flow { direction: Direction::Ingress, peer: ip(peer), traffic, from_own_node: false };
    let found = closest(&index, &index.pods()[&key("a/db")], &flow);
    found.map(|closest| (closest.name.number, closest.lacks))
}

const HTTP: Traffic = Traffic::Port(Protocol::Tcp, 80);

#[test]
fn a_rule_that_names_the_peer_is_nearer_than_one_that_names_the_port() {
    let neither = rule(&[pods("app=no")], &[tcp(1)]);
    let port = rule(&[pods("app=no")], &[tcp(80)]);
    let peer = rule(&[pods("app=web")], &[udp(80)]);
    let all = [neither.clone(), port.clone(), peer];
    assert_eq!(nearest(&all, "10.0.0.2", HTTP), Some((2, Lacks::Port)));
    assert_eq!(nearest(&[neither.clone(), port], "10.0.0.2", HTTP), Some((1, Lacks::Peer)));
    assert_eq!(nearest(&[neither], "10.0.0.2", HTTP), Some((0, Lacks::Both)));
    assert_eq!(nearest(&[], "10.0.0.2", HTTP), None);
}

#[test]
fn an_exception_is_nearer_than_other_labels_and_they_are_nearer_than_another_namespace() {
    let far = rule(&[block("192.0.2.0/24", &[])], &[]);
    let namespace = rule(&[pods_of("team=blue", "app=web")], &[]);
    let labels = rule(&[pods_of("team=red", "app=db")], &[]);
    let except = rule(&[block("10.0.0.0/8", &["10.0.0.3/32"])], &[]);
    for (rules, expected) in [
        (vec![far.clone(), namespace.clone(), labels.clone(), except], 3),
        (vec![far.clone(), namespace.clone(), labels], 2),
        (vec![far.clone(), namespace], 1),
        (vec![far], 0),
    ] {
        assert_eq!(nearest(&rules, "10.0.0.3", HTTP), Some((expected, Lacks::Peer)));
    }
}

#[test]
fn the_same_protocol_is_nearer_than_another_and_the_first_of_equals_counts() {
    let rules = [
        rule(&[], &[udp(80)]),
        rule(&[], &[udp(1), tcp(443)]),
        rule(&[namespaces("")], &[tcp(444)]),
    ];
    assert_eq!(nearest(&rules, "10.0.0.3", HTTP), Some((1, Lacks::Port)));
    assert_eq!(nearest(&rules, "10.0.0.3", Traffic::Other(1)), Some((0, Lacks::Port)));
}

#[test]
fn rules_that_allow_the_flow_are_not_looked_at() {
    assert_eq!(nearest(&[rule(&[], &[])], "10.0.0.3", HTTP), None);
}
