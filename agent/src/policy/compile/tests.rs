//! Whole outputs of small clusters. `compile/tests/states.rs` walks from state to state.

mod states;

use std::collections::BTreeMap;

use Protocol::{Tcp, Udp};
use bulkhead_common::{key::RuleKey, verdict::Direction};

use super::*;
use crate::policy::{
    builders::{
        all_ports, ip, key, namespace, namespaces, pod, pods, pods_of, policy, port_set, ports,
        rule, service, slice, tcp, udp,
    },
    compiled::{Closed, EndpointPolicy, PortSet, SidePolicy},
    model::{Change, Namespace, ObjectKey, Pod, Policy, Protocol, Rule},
};

fn complete(pods: &[Pod], policies: &[Policy]) -> Index {
    let mut index = Index::new(Some("here".to_owned()));
    for pod in pods {
        index.apply(Change::PodApplied(pod.clone()));
    }
    for policy in policies {
        index.apply(Change::PolicyApplied(policy.clone()));
    }
    index.apply(Change::SourceComplete(true));
    index
}

fn compile(index: &Index) -> Compiled {
    Compiler::new(DenyAction::Drop).compile(index).clone()
}

fn ingress(name: &str, pod_labels: &str, rules: &[Rule]) -> Policy {
    Policy { ingress: Some(rules.to_vec()), ..policy(name, pod_labels) }
}

fn remote(pod: Pod) -> Pod {
    Pod { node: Some("there".into()), ..pod }
}

fn open(pod: &Pod) -> EndpointPolicy {
    EndpointPolicy {
        uid: pod.uid.clone(),
        addresses: pod.addresses.iter().copied().collect(),
        ingress: None,
        egress: None,
        deny_action: DenyAction::Drop,
    }
}

fn isolated(policy_set: u32, any_peer: PortSet, policies: &[&str]) -> Option<SidePolicy> {
    let policies = policies.iter().map(|name| key(name)).collect();
    let any_peer = Arc::new(any_peer);
    Some(SidePolicy { policy_set, any_peer, names_blocks: false, policies, closed: None })
}

/// What a pod's ingress allows, without the numbers: with every peer, and with each address.
fn allowed(compiled: &Compiled, pod: &str) -> (PortSet, BTreeMap<IpAddr, PortSet>) {
    let side = compiled.endpoints[&key(pod)].ingress.as_ref().unwrap();
    let by_address = compiled.peers.iter().filter_map(|(address, identity)| {
        let key = RuleKey { policy_set: side.policy_set, identity: *identity };
        Some((*address, PortSet::clone(compiled.rules.get(&key)?)))
    });
    (PortSet::clone(&side.any_peer), by_address.collect())
}

#[test]
fn the_reference_policy_compiles_to_one_identity_and_one_rule() {
    let mysql = pod("wordpress-mysql/mysql", "app=mysql", &["10.0.0.10", "fd00::10"]);
    let wordpress = pod("wordpress-mysql/wordpress", "app=wordpress", &["10.0.0.11", "fd00::11"]);
    let intruder = pod("wordpress-mysql/intruder", "app=intruder", &["10.0.0.66"]);
    let policy = ingress(
        "wordpress-mysql/mysql",
        "app=mysql",
        &[rule(&[pods("app=wordpress")], &[tcp(3306)])],
    );
    let pods = [mysql.clone(), wordpress.clone(), intruder.clone()];
    let mut index = complete(&pods, &[policy]);
    index.set_node_addresses(BTreeSet::from([ip("10.0.0.1")]));

    let ingress = isolated(1, PortSet::NOTHING, &["wordpress-mysql/mysql"]);
    let expected = Compiled {
        endpoints: BTreeMap::from([
            (mysql.key.clone(), EndpointPolicy { ingress, ..open(&mysql) }),
            (wordpress.key.clone(), open(&wordpress)),
            (intruder.key.clone(), open(&intruder)),
        ]),
        peers: BTreeMap::from([
            (ip("10.0.0.1"), IDENTITY_NODE),
            (ip("10.0.0.11"), IDENTITY_FIRST),
            (ip("fd00::11"), IDENTITY_FIRST),
        ]),
        rules: BTreeMap::from([(
            RuleKey { policy_set: 1, identity: IDENTITY_FIRST },
            Arc::new(port_set(&[(Tcp, 3306, 3306)])),
        )]),
        ..Compiled::default()
    };
    assert_eq!(compile(&index), expected);
}

#[test]
fn without_policies_no_pod_is_isolated_and_nothing_is_asked_about_any_address() {
    let pod = pod("a/p", "", &["10.0.0.1"]);
    let expected = Compiled {
        endpoints: BTreeMap::from([(pod.key.clone(), open(&pod))]),
        ..Compiled::default()
    };
    assert_eq!(compile(&complete(&[pod], &[])), expected);
    assert_eq!(compile(&complete(&[], &[])), Compiled::default());
}

#[test]
fn a_policy_isolates_in_the_directions_that_it_has_rules_for() {
    let pods = [pod("a/p", "", &["10.0.0.1"])];
    for (with_ingress, with_egress) in [(true, false), (false, true), (true, true)] {
        let rules = |with: bool| with.then(Vec::new);
        let policy = Policy {
            ingress: rules(with_ingress),
            egress: rules(with_egress),
            ..policy("a/policy", "")
        };
        let endpoint = compile(&complete(&pods, &[policy])).endpoints[&key("a/p")].clone();
        let side = |set| isolated(set, PortSet::NOTHING, &["a/policy"]);
        let egress_set = if with_ingress { 2 } else { 1 };
        assert_eq!(endpoint.ingress, side(1).filter(|_| with_ingress));
        assert_eq!(endpoint.egress, side(egress_set).filter(|_| with_egress));
    }
}

#[test]
fn what_every_peer_may_do_needs_no_identity() {
    let table = [
        (rule(&[], &[]), PortSet::Everything),
        (rule(&[], &[tcp(80), tcp(81), udp(53)]), port_set(&[(Tcp, 80, 81), (Udp, 53, 53)])),
        (rule(&[], &[all_ports(Udp)]), port_set(&[(Udp, 0, 65535)])),
        (Rule { peers: None, ports: Some(vec![]) }, PortSet::NOTHING),
    ];
    let pods = [pod("a/p", "", &["10.0.0.1"]), pod("a/q", "", &["10.0.0.2"])];
    for (rule, expected) in table {
        let compiled = compile(&complete(&pods, &[ingress("a/policy", "", &[rule])]));
        assert_eq!(allowed(&compiled, "a/p"), (expected, BTreeMap::new()));
        assert_eq!((compiled.peers, compiled.rules), (BTreeMap::new(), BTreeMap::new()));
    }
}

#[test]
fn peers_that_get_no_more_than_every_peer_need_no_identity() {
    let pods_ = [pod("a/p", "app=db", &["10.0.0.1"]), pod("a/q", "app=web", &["10.0.0.2"])];
    let rules = [rule(&[pods("app=web")], &[tcp(85)]), rule(&[], &[ports(Tcp, 80, 90)])];
    let compiled = compile(&complete(&pods_, &[ingress("a/policy", "app=db", &rules)]));
    assert_eq!((compiled.peers, compiled.rules), (BTreeMap::new(), BTreeMap::new()));
}

#[test]
fn ports_of_all_atoms_that_match_an_address_add_up() {
    let pods_ = [
        pod("a/p", "app=db", &["10.0.0.1"]),
        pod("a/web", "app=web", &["10.0.0.2"]),
        pod("a/front", "app=web,tier=front", &["10.0.0.3"]),
        remote(pod("b/front", "tier=front", &["10.0.0.4"])),
    ];
    let rules = [
        rule(&[pods("app=web")], &[tcp(80), udp(53)]),
        rule(&[pods_of("", "tier=front")], &[tcp(81)]),
        rule(&[pods("app=nobody")], &[]),
    ];
    let compiled = compile(&complete(&pods_, &[ingress("a/policy", "app=db", &rules)]));
    let expected = BTreeMap::from([
        (ip("10.0.0.2"), port_set(&[(Tcp, 80, 80), (Udp, 53, 53)])),
        (ip("10.0.0.3"), port_set(&[(Tcp, 80, 81), (Udp, 53, 53)])),
        (ip("10.0.0.4"), port_set(&[(Tcp, 81, 81)])),
    ]);
    assert_eq!(allowed(&compiled, "a/p"), (PortSet::NOTHING, expected));
}

#[test]
fn each_kind_of_peer_matches_the_pods_that_it_names() {
    // Columns: a/web, b/web, b/db.
    let table = [
        (pods(""), [true, false, false]),
        (pods("app=web"), [true, false, false]),
        (namespaces(""), [true, true, true]),
        (namespaces("team=red"), [false, true, true]),
        (pods_of("team=red", "app=web"), [false, true, false]),
        (pods_of("kubernetes.io/metadata.name=c", ""), [false, false, false]),
    ];
    let pods_ = [
        pod("a/p", "", &["10.0.0.1"]),
        remote(pod("a/web", "app=web", &["10.0.0.2"])),
        remote(pod("b/web", "app=web", &["10.0.0.3"])),
        remote(pod("b/db", "app=db", &["10.0.0.4"])),
    ];
    for (peer, expected) in table {
        let rules = [rule(std::slice::from_ref(&peer), &[])];
        let mut index = complete(&pods_, &[ingress("a/policy", "", &rules)]);
        index.apply(Change::NamespaceApplied(namespace("b", "team=red")));
        let (_, by_address) = allowed(&compile(&index), "a/p");
        let matched = ["10.0.0.2", "10.0.0.3", "10.0.0.4"]
            .map(|address| by_address.get(&ip(address)) == Some(&PortSet::Everything));
        assert_eq!(matched, expected, "{peer:?}");
    }
}

#[test]
fn pods_whose_policies_come_to_the_same_share_a_policy_set() {
    let web = |ports: &[_]| rule(&[pods("app=web")], ports);
    let policies = [
        ingress("a/one", "app=one", &[web(&[tcp(80)]), web(&[tcp(81)])]),
        ingress("a/two", "app=two", &[web(&[ports(Tcp, 80, 81)])]),
        ingress("a/three", "app=three", &[web(&[tcp(80)])]),
    ];
    let pods = [
        pod("a/one", "app=one", &["10.0.0.1"]),
        pod("a/two", "app=two", &["10.0.0.2"]),
        pod("a/three", "app=three", &["10.0.0.3"]),
        pod("a/web", "app=web", &["10.0.0.4"]),
    ];
    let compiled = compile(&complete(&pods, &policies));
    let [one, two, three] =
        ["a/one", "a/two", "a/three"].map(|name| compiled.endpoints[&key(name)].ingress.clone());
    let [one, two, three] = [one.unwrap(), two.unwrap(), three.unwrap()];
    assert_eq!(one.policy_set, two.policy_set);
    assert_ne!(one.policy_set, three.policy_set);
    assert_eq!(one.policies, BTreeSet::from([key("a/one")]));
    assert_eq!(compiled.rules.len(), 2);
}

#[test]
fn addresses_that_the_same_atoms_match_share_an_identity() {
    let mut pods_ = vec![pod("a/p", "app=db", &["10.0.0.1"])];
    for number in 0..200 {
        let (name, address) = (format!("a/web-{number}"), format!("10.1.0.{number}"));
        pods_.push(remote(pod(&name, &format!("app=web,pod={number}"), &[&address])));
    }
    let rules = [rule(&[pods("app=web")], &[tcp(80)])];
    let compiled = compile(&complete(&pods_, &[ingress("a/policy", "app=db", &rules)]));
    assert_eq!(compiled.peers.len(), 200);
    assert_eq!(compiled.peers.values().collect::<BTreeSet<_>>().len(), 1);
    assert_eq!(compiled.rules.len(), 1);
}

#[test]
fn peers_of_policies_that_select_no_pod_of_this_node_are_not_asked_about() {
    let pods_ = [
        pod("a/p", "app=web", &["10.0.0.1"]),
        remote(pod("a/q", "app=db", &["10.0.0.2"])),
        Pod { ended: true, ..pod("a/ended", "app=db", &["10.0.0.3"]) },
    ];
    let rules = [rule(&[pods("app=web")], &[])];
    let compiled = compile(&complete(&pods_, &[ingress("a/policy", "app=db", &rules)]));
    assert_eq!(compiled.endpoints, BTreeMap::from([(key("a/p"), open(&pods_[0]))]));
    assert_eq!((compiled.peers, compiled.rules), (BTreeMap::new(), BTreeMap::new()));
}

#[test]
fn host_network_and_ended_pods_are_neither_endpoints_nor_peers() {
    let pods_ = [
        pod("a/p", "app=db", &["10.0.0.1"]),
        Pod { host_network: true, ..pod("a/on-host", "app=web", &["10.0.0.2"]) },
        Pod { ended: true, ..pod("a/ended", "app=web", &["10.0.0.3"]) },
    ];
    let rules = [rule(&[pods("")], &[tcp(80)])];
    let compiled = compile(&complete(&pods_, &[ingress("a/policy", "", &rules)]));
    assert_eq!(compiled.endpoints.keys().collect::<Vec<_>>(), [&key("a/p")]);
    assert_eq!(compiled.peers.keys().collect::<Vec<_>>(), [&ip("10.0.0.1")]);
}

#[test]
fn a_refused_policy_closes_its_pods_and_no_others() {
    let refused = Policy {
        ingress: Some(vec![]),
        egress: Some(vec![]),
        refused: Some("spec.ingress[0]: not understood".to_owned()),
        ..policy("a/refused", "app=db")
    };
    let pods = [pod("a/p", "app=db", &["10.0.0.1"]), pod("a/q", "app=web", &["10.0.0.2"])];
    let compiled = compile(&complete(&pods, &[refused]));
    let side = |set| isolated(set, PortSet::NOTHING, &["a/refused"]);
    let closed = EndpointPolicy { ingress: side(1), egress: side(2), ..open(&pods[0]) };
    assert_eq!(
        compiled.endpoints,
        BTreeMap::from([(key("a/p"), closed), (key("a/q"), open(&pods[1]))])
    );
}

fn closed_by(reason: Closed, pod: &Pod) -> EndpointPolicy {
    let side = |policy_set| {
        Some(SidePolicy {
            policy_set,
            any_peer: Arc::new(PortSet::NOTHING),
            names_blocks: false,
            policies: BTreeSet::new(),
            closed: Some(reason),
        })
    };
    let (ingress, egress) = (side(POLICY_SET_FIRST), side(POLICY_SET_FIRST + 1));
    EndpointPolicy { ingress, egress, ..open(pod) }
}

#[test]
fn every_pod_is_closed_until_the_source_is_complete() {
    let pod = pod("a/p", "", &["10.0.0.1"]);
    let mut index =
        complete(std::slice::from_ref(&pod), &[ingress("a/policy", "", &[rule(&[], &[])])]);
    index.apply(Change::SourceComplete(false));
    index.set_node_addresses(BTreeSet::from([ip("10.1.0.1")]));
    let expected = Compiled {
        endpoints: BTreeMap::from([(key("a/p"), closed_by(Closed::SourceIncomplete, &pod))]),
        peers: BTreeMap::from([(ip("10.1.0.1"), IDENTITY_NODE)]),
        ..Compiled::default()
    };
    assert_eq!(compile(&index), expected);
}

#[test]
fn a_pod_that_may_send_nothing_still_reaches_its_own_node_through_a_service_unless_it_is_closed() {
    let pod = pod("a/p", "", &["10.0.0.1"]);
    let deny = Policy { egress: Some(vec![]), ..policy("a/deny", "") };
    let mut index = complete(std::slice::from_ref(&pod), &[deny]);
    index.set_node_addresses(BTreeSet::from([ip("10.1.0.1")]));
    index.apply(Change::ServiceApplied(service("a/node", &["10.96.0.1"], &[("", Tcp, 80)])));
    let backends = slice("a/node-1", "node", &["10.1.0.1"], &[("", Tcp, 9100)]);
    index.apply(Change::EndpointSliceApplied(backends));
    let compiled = compile(&index);
    let identity = compiled.peers[&ip("10.96.0.1")];
    let key = |compiled: &Compiled| {
        let egress = compiled.endpoints[&key("a/p")].egress.clone().unwrap();
        RuleKey { policy_set: egress.policy_set, identity }
    };
    assert_eq!(*compiled.rules[&key(&compiled)], port_set(&[(Tcp, 80, 80)]));

    index.apply(Change::SourceComplete(false));
    assert_eq!(compile(&index).rules, BTreeMap::new());
}

#[test]
fn pods_that_share_an_address_are_closed_keep_it_and_are_nobodys_peer() {
    let pods_ = [
        pod("a/p", "app=db", &["10.0.0.1"]),
        pod("a/twin", "app=web", &["10.0.0.2", "fd00::2"]),
        remote(pod("b/twin", "app=web", &["10.0.0.2"])),
    ];
    let rules = [rule(&[namespaces("")], &[tcp(80)])];
    let compiled = compile(&complete(&pods_, &[ingress("a/policy", "app=db", &rules)]));
    let twin = &compiled.endpoints[&key("a/twin")];
    let reason = |side: &Option<SidePolicy>| side.as_ref().and_then(|side| side.closed);
    assert_eq!(reason(&twin.ingress), Some(Closed::AddressConflict));
    assert_eq!(reason(&twin.egress), Some(Closed::AddressConflict));
    assert_eq!(twin.addresses, BTreeSet::from([ip("10.0.0.2"), ip("fd00::2")]));
    let expected = BTreeMap::from([
        (ip("10.0.0.1"), port_set(&[(Tcp, 80, 80)])),
        (ip("fd00::2"), port_set(&[(Tcp, 80, 80)])),
    ]);
    assert_eq!(allowed(&compiled, "a/p").1, expected);
    assert_eq!(compiled.peers.get(&ip("10.0.0.2")).copied().unwrap_or(IDENTITY_NONE), 0);
}

#[test]
fn an_address_of_the_node_stays_the_nodes_and_closes_the_pod_that_claims_it() {
    let pod = pod("a/p", "", &["10.1.0.1"]);
    let rules = [rule(&[pods("")], &[])];
    let mut index = complete(std::slice::from_ref(&pod), &[ingress("a/policy", "", &rules)]);
    index.set_node_addresses(BTreeSet::from([ip("10.1.0.1")]));
    let expected = Compiled {
        endpoints: BTreeMap::from([(key("a/p"), closed_by(Closed::AddressConflict, &pod))]),
        peers: BTreeMap::from([(ip("10.1.0.1"), IDENTITY_NODE)]),
        ..Compiled::default()
    };
    assert_eq!(compile(&index), expected);
}

#[test]
fn the_namespace_says_what_denied_peers_see_and_the_agent_where_it_does_not() {
    let pods = [("a/p", "10.0.0.1"), ("b/p", "10.0.0.2"), ("c/p", "10.0.0.3")]
        .map(|(name, address)| pod(name, "", &[address]));
    let mut index = complete(&pods, &[]);
    for (name, deny_action) in [("a", None), ("b", Some(DenyAction::Drop))] {
        let namespace = Namespace { deny_action, ..namespace(name, "") };
        index.apply(Change::NamespaceApplied(namespace));
    }
    let compiled = Compiler::new(DenyAction::Reject).compile(&index).clone();
    let actions: Vec<_> = compiled.endpoints.values().map(|e| e.deny_action).collect();
    assert_eq!(actions, [DenyAction::Reject, DenyAction::Drop, DenyAction::Reject]);
}

#[test]
fn both_directions_are_compiled_from_their_own_rules() {
    let pods_ = [pod("a/p", "app=db", &["10.0.0.1"]), pod("a/web", "app=web", &["10.0.0.2"])];
    let policy = Policy {
        ingress: Some(vec![rule(&[pods("app=web")], &[tcp(80)])]),
        egress: Some(vec![rule(&[pods("app=web")], &[udp(53)])]),
        ..policy("a/policy", "app=db")
    };
    let compiled = compile(&complete(&pods_, &[policy]));
    let identity = compiled.peers[&ip("10.0.0.2")];
    let endpoint = &compiled.endpoints[&key("a/p")];
    let ports = |side: &Option<SidePolicy>| {
        let policy_set = side.as_ref().unwrap().policy_set;
        PortSet::clone(&compiled.rules[&RuleKey { policy_set, identity }])
    };
    assert_eq!(ports(&endpoint.ingress), port_set(&[(Tcp, 80, 80)]));
    assert_eq!(ports(&endpoint.egress), port_set(&[(Udp, 53, 53)]));
}

#[test]
fn what_did_not_change_keeps_its_numbers() {
    let pods_ = [pod("b/p", "app=db", &["10.0.0.1"]), pod("b/web", "app=web", &["10.0.0.2"])];
    let rules = [rule(&[pods("app=web")], &[tcp(80)])];
    let mut index = complete(&pods_, &[ingress("b/policy", "app=db", &rules)]);
    let mut compiler = Compiler::new(DenyAction::Drop);
    let first = compiler.compile(&index).clone();

    index.apply(Change::PodApplied(pod("a/p", "", &["10.0.0.3"])));
    index.apply(Change::PolicyApplied(ingress("a/policy", "", &[rule(&[pods("")], &[udp(53)])])));
    let second = compiler.compile(&index).clone();
    assert_eq!(second.endpoints[&key("b/p")], first.endpoints[&key("b/p")]);
    assert_eq!(second.peers[&ip("10.0.0.2")], first.peers[&ip("10.0.0.2")]);
    assert!(first.rules.iter().all(|(key, ports)| second.rules.get(key) == Some(ports)));
    assert_eq!(second.rules.len(), 2);

    index.apply(Change::PolicyDeleted(ObjectKey::new("a", "policy")));
    index.apply(Change::PodDeleted(ObjectKey::new("a", "p")));
    assert_eq!(*compiler.compile(&index), first);
}
