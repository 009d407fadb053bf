//! Where egress policies decide whether a pod reaches its own node: it does not, but for what a block
//! around the node allows, and it answers what the node asks it. Needs root.

use std::{io::ErrorKind, net::IpAddr};

use bulkhead::lab::{NODE_IPV4, NODE_IPV6};
use bulkhead_tests::{
    cluster::{Cluster, DEADLINE, Member, policy},
    probe::{
        Connection, PATIENCE, PINGS, connect, expect_heard, expect_nothing_heard,
        expect_nothing_received, expect_received, listen, ping, say, send, udp,
    },
};

const POD: Member = Member::bridged("pod", 10);
const FAR_POD: Member = Member::routed("far", 10);
const NODE: [IpAddr; 2] = [IpAddr::V4(NODE_IPV4), IpAddr::V6(NODE_IPV6)];

/// Where the pods listen.
const PROBED: u16 = 8080;
/// Where the node listens: one port that a rule may allow, and another.
const ALLOWED: u16 = 10_250;
const OTHER: u16 = 10_251;

/// Both pods, in both directions, with these rules.
fn isolate(rules: &str) -> String {
    let spec = format!("{{podSelector: {{}}, policyTypes: [Ingress, Egress]{rules}}}");
    policy("isolate", &spec)
}

/// One port of the node.
fn allow_port() -> String {
    isolate(&format!(
        ", egress: [{{to: [{{ipBlock: {{cidr: {NODE_IPV4}/32}}}}, {{ipBlock: {{cidr: \
         \"{NODE_IPV6}/128\"}}}}], ports: [{{port: {ALLOWED}}}]}}]"
    ))
}

/// A pod's address, and the node's of its family.
fn ends(member: Member) -> impl Iterator<Item = (IpAddr, IpAddr)> {
    member.addresses().into_iter().zip(NODE)
}

/// The node's pings, datagrams and new connections, and an answer to each.
fn expect_node_answered(cluster: &Cluster, member: Member) {
    let inside = cluster.inside(member.name);
    let listener = listen(inside, PROBED);
    for (pod, node) in ends(member) {
        let pinged = ping(cluster.node(), pod);
        assert!(pinged.answered, "{}", pinged.output);
        Connection::open(cluster.node(), &listener, pod).expect_alive();
        let [asks, hears] =
            [(cluster.node(), node), (inside, pod)].map(|(namespace, at)| udp(namespace, at, 5353));
        send(&asks, &hears, b"question");
        expect_received(&hears, b"question");
        send(&hears, &asks, b"answer");
        expect_received(&asks, b"answer");
    }
}

/// A connection from the pod to a port of the node, which nobody answers.
fn expect_node_denied(cluster: &Cluster, member: Member, port: u16) {
    for (_, node) in ends(member) {
        let before = cluster.metrics();
        let error = connect(cluster.inside(member.name), node, port, PATIENCE).expect_err("denied");
        assert_eq!(error.kind(), ErrorKind::TimedOut, "{} to {node}: {error}", member.name);
        cluster.expect_denied(&before, &[(member.name, "egress", "not_allowed", 1..=3)]);
    }
}

#[test]
fn a_pod_answers_its_own_node_and_reaches_it_by_rules_only() {
    let mut cluster = Cluster::start_denying_egress_to_node(&[POD, FAR_POD]);
    let [allowed, _other] = [ALLOWED, OTHER].map(|port| listen(cluster.node(), port));
    let at_pods = [POD, FAR_POD].map(|member| (member, listen(cluster.inside(member.name), 3306)));
    // From before any policy.
    let probes: Vec<_> = at_pods
        .iter()
        .flat_map(|(member, listener)| member.addresses().map(|pod| (pod, listener)))
        .map(|(pod, listener)| Connection::open(cluster.node(), listener, pod))
        .collect();

    for rules in [isolate(""), allow_port()] {
        cluster.apply(&rules);
        let before = cluster.metrics();
        for member in [POD, FAR_POD] {
            expect_node_answered(&cluster, member);
        }
        // What the last policy did not cut lives under this one.
        probes.iter().for_each(Connection::expect_alive);
        cluster.expect_denied(&before, &[]);
        for member in [POD, FAR_POD] {
            expect_node_denied(&cluster, member, OTHER);
        }
    }
    let opened: Vec<_> = [POD, FAR_POD]
        .into_iter()
        .flat_map(|member| NODE.map(|node| (member, node)))
        .map(|(member, node)| Connection::open(cluster.inside(member.name), &allowed, node))
        .collect();
    opened.iter().for_each(Connection::expect_alive);

    cluster.apply(&isolate(""));
    for member in [POD, FAR_POD] {
        expect_node_denied(&cluster, member, ALLOWED);
        let before = cluster.metrics();
        let pings = ends(member).map(|(_, node)| ping(cluster.inside(member.name), node));
        assert!(pings.into_iter().all(|pinged| !pinged.answered));
        let both = 2 * PINGS..=2 * PINGS;
        cluster.expect_denied(&before, &[(member.name, "egress", "not_allowed", both)]);
        for (pod, node) in ends(member) {
            let asks = udp(cluster.inside(member.name), pod, 0);
            let hears = udp(cluster.node(), node, 5454);
            let before = cluster.metrics();
            send(&asks, &hears, b"question");
            cluster.expect_denied(&before, &[(member.name, "egress", "not_allowed", 1..=1)]);
            expect_nothing_received(&hears);
        }
    }
    // Neither their own words nor the node's reopen what the pods had opened.
    for connection in &opened {
        say(&connection.client, b"question");
        say(&connection.server, b"anybody there?");
        expect_heard(&connection.client, b"anybody there?");
    }
    probes.iter().for_each(Connection::expect_alive);
    opened.iter().for_each(|connection| expect_nothing_heard(&connection.server));
}

#[test]
fn a_pod_that_nothing_isolates_for_egress_reaches_its_node() {
    let mut cluster = Cluster::start_denying_egress_to_node(&[POD]);
    cluster.apply(&policy("isolate", "{podSelector: {}, policyTypes: [Ingress]}"));
    let _listener = listen(cluster.node(), OTHER);
    let before = cluster.metrics();
    for node in NODE {
        connect(cluster.inside("pod"), node, OTHER, DEADLINE).expect("the pod is free to send");
        let pinged = ping(cluster.inside("pod"), node);
        assert!(pinged.answered, "{}", pinged.output);
    }
    cluster.expect_denied(&before, &[]);
}
