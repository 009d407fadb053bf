//! What an isolated pod gets although no rule lets it in: answers to what it asked, and its own
//! node. Needs root.

use std::net::IpAddr;

use bulkhead::lab::{Listener, NODE_IPV4, NODE_IPV6};
use bulkhead_tests::{
    cluster::{Cluster, DEADLINE, Member, policy},
    probe::{PINGS, any, connect, expect_nothing_received, expect_received, ping, send, udp},
};

const POD: Member = Member::bridged("pod", 10);
const FAR_POD: Member = Member::routed("far", 10);
const PEER: Member = Member::routed("peer", 12);
const NODE: [IpAddr; 2] = [IpAddr::V4(NODE_IPV4), IpAddr::V6(NODE_IPV6)];

/// The port that the pod asks at, and one that it does not.
const ASKED: u16 = 5353;
const UNASKED: u16 = 5354;
/// Where the pod asks from.
const OWN: u16 = 40000;

/// Both pods, in these directions, with these rules.
fn isolate(directions: &str, rules: &str) -> String {
    policy(
        "isolate",
        &format!(
            "{{podSelector: {{matchExpressions: [{{key: app, operator: In, values: [pod, \
             far]}}]}}, policyTypes: [{directions}]{rules}}}"
        ),
    )
}

/// Out to the peer, one port for datagrams.
const ASK_PEER: &str = ", egress: [{to: [{podSelector: {matchLabels: {app: peer}}}], ports: \
                        [{protocol: UDP, port: 5353}]}]";

#[test]
fn datagrams_come_back_only_from_where_the_pod_asked() {
    let mut cluster = Cluster::start(&[POD, PEER]);
    for isolated in [isolate("Ingress", ""), isolate("Ingress, Egress", ASK_PEER)] {
        cluster.apply(&isolated);
        for (pod_at, peer_at) in POD.addresses().into_iter().zip(PEER.addresses()) {
            let pod = udp(cluster.inside("pod"), pod_at, OWN);
            let asked = udp(cluster.inside("peer"), peer_at, ASKED);
            let other = udp(cluster.inside("peer"), peer_at, UNASKED);

            let before = cluster.metrics();
            send(&pod, &asked, b"question");
            expect_received(&asked, b"question");
            for _ in 0..3 {
                send(&asked, &pod, b"answer");
                expect_received(&pod, b"answer");
            }
            cluster.expect_denied(&before, &[]);

            send(&other, &pod, b"unasked");
            cluster.expect_denied(&before, &[("pod", "ingress", "not_allowed", 1..=1)]);
            // From where it asked, but to where it did not.
            let elsewhere = udp(cluster.inside("pod"), pod_at, OWN + 1);
            send(&asked, &elsewhere, b"unasked");
            cluster.expect_denied(&before, &[("pod", "ingress", "not_allowed", 2..=2)]);
            expect_nothing_received(&pod);
            expect_nothing_received(&elsewhere);
            // The answers go on.
            send(&asked, &pod, b"late answer");
            expect_received(&pod, b"late answer");
        }
    }
}

#[test]
fn a_question_is_not_answered_before_it_is_asked() {
    let mut cluster = Cluster::start(&[POD, PEER]);
    cluster.apply(&isolate("Ingress", ""));
    for (pod_at, peer_at) in POD.addresses().into_iter().zip(PEER.addresses()) {
        let pod = udp(cluster.inside("pod"), pod_at, OWN);
        let peer = udp(cluster.inside("peer"), peer_at, ASKED);
        let before = cluster.metrics();
        send(&peer, &pod, b"early");
        cluster.expect_denied(&before, &[("pod", "ingress", "not_allowed", 1..=1)]);
        expect_nothing_received(&pod);
    }
}

#[test]
fn an_isolated_pod_can_ping_and_cannot_be_pinged() {
    let mut cluster = Cluster::start(&[POD, PEER]);
    cluster.apply(&isolate("Ingress", ""));
    for (pod, peer) in POD.addresses().into_iter().zip(PEER.addresses()) {
        let before = cluster.metrics();
        let pinged = ping(cluster.inside("pod"), peer);
        assert!(pinged.answered, "{}", pinged.output);
        cluster.expect_denied(&before, &[]);
        let pinged = ping(cluster.inside("peer"), pod);
        assert!(!pinged.answered, "{}", pinged.output);
        cluster.expect_denied(&before, &[("pod", "ingress", "not_allowed", PINGS..=PINGS)]);
    }
}

#[test]
fn the_own_node_and_an_isolated_pod_reach_each_other() {
    let mut cluster = Cluster::start(&[POD, FAR_POD, PEER]);
    let _listeners = [cluster.node(), cluster.inside("pod"), cluster.inside("far")]
        .map(|inside| Listener::start(inside, "somebody", &[3306]).expect("a listener"));
    cluster.apply(&isolate("Ingress, Egress", ""));
    let before = cluster.metrics();
    for member in [POD, FAR_POD] {
        let inside = cluster.inside(member.name);
        for (pod, node) in member.addresses().into_iter().zip(NODE) {
            for (from, to) in [(cluster.node(), pod), (inside, node)] {
                let pinged = ping(from, to);
                assert!(pinged.answered, "{}", pinged.output);
                connect(from, to, 3306, DEADLINE)
                    .unwrap_or_else(|error| panic!("{} to {to}: {error}", from.name()));
            }
        }
    }
    cluster.expect_denied(&before, &[]);

    // The same pods are closed to everybody else.
    for to in POD.addresses().into_iter().chain(FAR_POD.addresses()) {
        let server = udp(cluster.node(), any(to), 0);
        let port = server.local_addr().expect("it is bound").port();
        let client = udp(cluster.inside("peer"), any(to), 0);
        client.send_to(b"denied", (to, port)).expect("the kernel takes it");
    }
    let twice = |pod| (pod, "ingress", "not_allowed", 2..=2);
    cluster.expect_denied(&before, &[twice("pod"), twice("far")]);
}
