mod blocks;
mod named_ports;
mod service_backends;
mod services;

use std::collections::BTreeSet;

use Direction::{Egress, Ingress};

use super::*;
use crate::policy::{
    builders::{
        all_ports, block, expression, ip, key, namespace, namespaces, pod, pods, pods_of, policy,
        ports, rule, selector, tcp, udp,
    },
    model::Change,
};

const SUBJECT: &str = "a/subject";
const SAME_NAMESPACE: &str = "10.0.0.2";
const OTHER_NAMESPACE: &str = "10.0.0.3";
const OTHER_V6: &str = "fd00::3";
const NODE: &str = "10.1.0.1";
const OUTSIDE: &str = "192.0.2.1";

/// `a/subject`, `a/web` (app=web), `b/web` (app=web) of a namespace with team=red, and the node.
fn cluster(policies: &[Policy]) -> Index {
    let mut index = Index::new(Some("here".to_owned()));
    index.set_node_addresses(BTreeSet::from([ip(NODE)]));
    for pod in [
        pod(SUBJECT, "app=db", &["10.0.0.1", "fd00::1"]),
        pod("a/web", "app=web", &[SAME_NAMESPACE]),
        Pod { node: Some("there".into()), ..pod("b/web", "app=web", &[OTHER_NAMESPACE, OTHER_V6]) },
        Pod { host_network: true, ..pod("b/on-host", "app=web", &[NODE]) },
    ] {
        index.apply(Change::PodApplied(pod));
    }
    index.apply(Change::NamespaceApplied(namespace("a", "")));
    index.apply(Change::NamespaceApplied(namespace("b", "team=red")));
    for policy in policies {
        index.apply(Change::PolicyApplied(policy.clone()));
    }
    index.apply(Change::SourceComplete(true));
    index
}

fn flow(direction: Direction, peer: &str, traffic: Traffic) -> Flow {
    Flow { direction, peer: ip(peer), traffic, from_own_node: false }
}

fn ask(index: &Index, direction: Direction, peer: &str, traffic: Traffic) -> Evaluation {
    evaluate(index, &key(SUBJECT), &flow(direction, peer, traffic)).unwrap()
}

const PING: Traffic = Traffic::Other(1);
const HTTP: Traffic = Traffic::Port(Protocol::Tcp, 80);

fn ingress(rules: &[Rule]) -> Policy {
    Policy { ingress: Some(rules.to_vec()), ..policy("a/policy", "app=db") }
}

fn egress(rules: &[Rule]) -> Policy {
    Policy { egress: Some(rules.to_vec()), ..policy("a/policy", "app=db") }
}

fn by_rule(number: usize) -> Evaluation {
    Evaluation::Allowed(vec![RuleName { policy: key("a/policy"), number }])
}

fn denied() -> Evaluation {
    Evaluation::Denied(vec![key("a/policy")])
}

#[test]
fn a_pod_is_isolated_only_by_policies_that_select_it_for_the_direction() {
    let isolating = ingress(&[]);
    let table = [
        (vec![], false, false),
        (vec![isolating.clone()], true, false),
        (vec![Policy { egress: Some(vec![]), ..isolating.clone() }], true, true),
        (vec![Policy { pod_selector: selector("app=web"), ..isolating.clone() }], false, false),
        (vec![Policy { key: key("b/policy"), ..isolating.clone() }], false, false),
        (vec![Policy { pod_selector: selector(""), ..isolating }], true, false),
    ];
    for (policies, for_ingress, for_egress) in table {
        let index = cluster(&policies);
        for (direction, isolated) in [(Ingress, for_ingress), (Egress, for_egress)] {
            let expected = if isolated { denied() } else { Evaluation::NotIsolated };
            for traffic in [HTTP, PING] {
                assert_eq!(ask(&index, direction, OUTSIDE, traffic), expected, "{policies:?}");
            }
        }
    }
}

#[test]
fn rules_of_all_policies_add_up_and_each_that_allows_is_named() {
    let web = rule(&[pods("app=web")], &[tcp(80)]);
    let other = Policy {
        ingress: Some(vec![rule(&[], &[tcp(443)]), rule(&[], &[ports(Protocol::Tcp, 1, 100)])]),
        ..policy("a/other", "")
    };
    let index = cluster(&[ingress(&[rule(&[], &[udp(80)]), web]), other]);
    let name = |policy, number| RuleName { policy: key(policy), number };
    assert_eq!(
        ask(&index, Ingress, SAME_NAMESPACE, HTTP),
        Evaluation::Allowed(vec![name("a/other", 1), name("a/policy", 1)])
    );
    assert_eq!(
        ask(&index, Ingress, OUTSIDE, Traffic::Port(Protocol::Tcp, 101)),
        Evaluation::Denied(vec![key("a/other"), key("a/policy")])
    );
}

#[test]
fn a_peer_matches_by_both_of_its_selectors() {
    let not_red =
        Peer::Pods { namespaces: Some(expression("team", "NotIn", &["red"])), pods: selector("") };
    // Columns: a/web, b/web, b/web by IPv6, the node's address, outside.
    let table = [
        (pods("app=web"), [true, false, false, false, false]),
        (pods(""), [true, false, false, false, false]),
        (pods("app=db"), [false, false, false, false, false]),
        (namespaces(""), [true, true, true, false, false]),
        (namespaces("team=red"), [false, true, true, false, false]),
        (namespaces("kubernetes.io/metadata.name=a"), [true, false, false, false, false]),
        (pods_of("team=red", "app=web"), [false, true, true, false, false]),
        (pods_of("team=red", "app=db"), [false, false, false, false, false]),
        (not_red, [true, false, false, false, false]),
    ];
    for (peer, expected) in table {
        let index = cluster(&[ingress(&[rule(std::slice::from_ref(&peer), &[])])]);
        let answers = [SAME_NAMESPACE, OTHER_NAMESPACE, OTHER_V6, NODE, OUTSIDE]
            .map(|address| ask(&index, Ingress, address, HTTP));
        assert_eq!(answers, expected.map(|y| if y { by_rule(0) } else { denied() }), "{peer:?}");
    }
}

#[test]
fn two_peers_of_a_rule_are_alternatives() {
    let index = cluster(&[ingress(&[rule(&[pods("app=web"), namespaces("team=red")], &[])])]);
    assert_eq!(ask(&index, Ingress, SAME_NAMESPACE, HTTP), by_rule(0));
    assert_eq!(ask(&index, Ingress, OTHER_NAMESPACE, HTTP), by_rule(0));
    assert_eq!(ask(&index, Ingress, OUTSIDE, HTTP), denied());
}

#[test]
fn ports_are_told_by_protocol_and_number_and_icmp_needs_a_rule_without_ports() {
    let port = Traffic::Port;
    let asked = [
        port(Protocol::Tcp, 80),
        port(Protocol::Tcp, 85),
        port(Protocol::Udp, 80),
        port(Protocol::Sctp, 80),
        PING,
    ];
    let table = [
        (vec![], [true, true, true, true, true]),
        (vec![tcp(80)], [true, false, false, false, false]),
        (vec![ports(Protocol::Tcp, 79, 85)], [true, true, false, false, false]),
        (vec![ports(Protocol::Tcp, 81, 84)], [false, false, false, false, false]),
        (vec![all_ports(Protocol::Tcp)], [true, true, false, false, false]),
        (vec![all_ports(Protocol::Sctp), udp(80)], [false, false, true, true, false]),
    ];
    for (ports, expected) in table {
        let index = cluster(&[ingress(&[rule(&[], &ports)])]);
        let answers = asked.map(|traffic| ask(&index, Ingress, OUTSIDE, traffic));
        assert_eq!(answers, expected.map(|y| if y { by_rule(0) } else { denied() }), "{ports:?}");
    }
}

#[test]
fn the_own_node_is_told_by_the_path_for_ingress_and_by_the_address_for_egress() {
    let index = cluster(&[Policy { egress: Some(vec![]), ..ingress(&[]) }]);
    let mut probe = flow(Ingress, OUTSIDE, HTTP);
    probe.from_own_node = true;
    assert_eq!(evaluate(&index, &key(SUBJECT), &probe), Some(Evaluation::OwnNode));
    assert_eq!(ask(&index, Ingress, NODE, HTTP), denied());
    assert_eq!(ask(&index, Egress, NODE, HTTP), Evaluation::OwnNode);
    assert_eq!(ask(&index, Egress, OUTSIDE, HTTP), denied());
}

#[test]
fn where_it_is_put_under_egress_policy_the_own_node_is_reached_by_rules_only() {
    let rules = [
        rule(&[namespaces("")], &[]),
        rule(&[block("10.1.0.0/24", &[])], &[tcp(80)]),
        rule(&[], &[tcp(443)]),
    ];
    let policy = Policy { egress: Some(rules.to_vec()), ..ingress(&[]) };
    let index = cluster(&[policy]).deny_egress_to_node(true);
    let ask_node = |traffic| ask(&index, Egress, NODE, traffic);
    assert_eq!(ask_node(HTTP), by_rule(1));
    assert_eq!(ask_node(Traffic::Port(Protocol::Tcp, 443)), by_rule(2));
    assert_eq!(ask_node(PING), denied());
    let probe = Flow { from_own_node: true, ..flow(Ingress, NODE, HTTP) };
    assert_eq!(evaluate(&index, &key(SUBJECT), &probe), Some(Evaluation::OwnNode));

    let open = cluster(&[ingress(&[])]).deny_egress_to_node(true);
    assert_eq!(ask(&open, Egress, NODE, PING), Evaluation::NotIsolated);
    let mut incomplete = index;
    incomplete.apply(Change::SourceComplete(false));
    let closed = Evaluation::Closed(Closed::SourceIncomplete);
    assert_eq!(ask(&incomplete, Egress, NODE, HTTP), closed);
}

#[test]
fn a_pod_always_reaches_itself_by_each_of_its_addresses() {
    let index = cluster(&[Policy { egress: Some(vec![]), ..ingress(&[]) }]);
    for direction in Direction::ALL {
        for own in ["10.0.0.1", "fd00::1"] {
            assert_eq!(ask(&index, direction, own, PING), Evaluation::Itself);
        }
    }
}

#[test]
fn a_pod_is_closed_while_the_source_is_not_complete() {
    let mut index = cluster(&[ingress(&[rule(&[], &[])])]);
    index.apply(Change::SourceComplete(false));
    for direction in Direction::ALL {
        let answer = ask(&index, direction, OUTSIDE, HTTP);
        assert_eq!(answer, Evaluation::Closed(Closed::SourceIncomplete));
        assert!(!answer.is_allowed());
    }
    assert_eq!(ask(&index, Egress, NODE, HTTP), Evaluation::OwnNode);
}

#[test]
fn pods_with_one_address_are_closed_and_nobodys_peer() {
    let policies = [ingress(&[rule(&[pods("app=web")], &[])]), policy("a/web", "app=web")];
    let mut index = cluster(&policies);
    index.apply(Change::PodApplied(pod("a/twin", "app=web", &[SAME_NAMESPACE])));
    assert_eq!(ask(&index, Ingress, SAME_NAMESPACE, HTTP), denied());
    for claimant in ["a/web", "a/twin"] {
        assert_eq!(
            evaluate(&index, &key(claimant), &flow(Egress, OUTSIDE, HTTP)),
            Some(Evaluation::Closed(Closed::AddressConflict))
        );
    }

    index.apply(Change::PodApplied(pod("a/twin", "app=web", &[NODE])));
    assert_eq!(ask(&index, Ingress, SAME_NAMESPACE, HTTP), by_rule(0));
    assert_eq!(ask(&index, Ingress, NODE, HTTP), denied());
    assert_eq!(
        evaluate(&index, &key("a/twin"), &flow(Ingress, OUTSIDE, HTTP)),
        Some(Evaluation::Closed(Closed::AddressConflict))
    );
}

#[test]
fn a_refused_policy_closes_the_pods_that_it_selects() {
    let refused = Policy { refused: Some("ipBlock".to_owned()), ..ingress(&[]) };
    let index = cluster(&[Policy { egress: Some(vec![]), ..refused }]);
    assert_eq!(ask(&index, Ingress, SAME_NAMESPACE, HTTP), denied());
    assert_eq!(ask(&index, Egress, SAME_NAMESPACE, PING), denied());
}

#[test]
fn pods_that_policy_of_this_node_does_not_concern_have_no_evaluation() {
    let mut index = cluster(&[]);
    index.apply(Change::PodApplied(Pod { ended: true, ..pod("a/ended", "", &["10.0.0.9"]) }));
    index.apply(Change::PodApplied(pod("a/without-address", "", &[])));
    for name in ["a/unknown", "b/web", "b/on-host", "a/ended", "a/without-address"] {
        assert_eq!(evaluate(&index, &key(name), &flow(Ingress, OUTSIDE, HTTP)), None, "{name}");
    }
}
