//! Packets that are made to look like what a policy allows, sent for real: from a pod's packet
//! socket over the bridge to an isolated pod. Needs root.
//!
//! Each is sent three times. Without a policy it arrives, so that what follows means something.
//! With the policy it does not, and the reason is counted. `datapath_evasions` has many more, run
//! on the programs alone.

use std::net::IpAddr;

use bulkhead_common::frames::{Frame, SERVICE_VLAN, VLAN, tcp};
use bulkhead_tests::{
    cluster::{Cluster, Member, policy},
    pod::at,
    wire::{Wire, captured},
};

const ALLOWED: u16 = 3306;
const DENIED: u16 = 22;
const CLIENT: u16 = 40000;

const SERVER: Member = Member::bridged("server", 10);
/// The rules allow it one port.
const FRIEND: Member = Member::bridged("friend", 11);
/// Somebody to be impersonated.
const OTHER: Member = Member::bridged("other", 12);

/// Where the IP header starts.
const NETWORK: usize = 14;

fn allow_friend() -> String {
    policy(
        "server",
        "{podSelector: {matchLabels: {app: server}}, policyTypes: [Ingress], ingress: [{from: \
         [{podSelector: {matchLabels: {app: friend}}}], ports: [{port: 3306}]}]}",
    )
}

fn open(from: IpAddr, to: IpAddr, port: u16) -> Frame {
    Frame::tcp(at(from, CLIENT), at(to, port), tcp::SYN)
}

/// What it is, the frame, and the reason that it is denied for.
type Evasion = (&'static str, Vec<u8>, &'static str);

/// The seven that pass a program which takes headers to have fixed lengths and places.
fn evasions() -> Vec<Evasion> {
    let ([from, from_ipv6], [to, to_ipv6]) = (FRIEND.addresses(), SERVER.addresses());
    let ports = [&CLIENT.to_be_bytes()[..], &ALLOWED.to_be_bytes(), &[1; 16]].concat();
    let mut version_6 = open(from, to, ALLOWED).bytes();
    version_6[NETWORK] = 0x65;
    vec![
        (
            "IP options that put an allowed port where a header of 20 bytes would end",
            open(from, to, DENIED).options(&ports).bytes(),
            "not_allowed",
        ),
        ("a VLAN tag", open(from, to, DENIED).tag(VLAN).bytes(), "vlan_tagged"),
        ("a service tag", open(from, to, DENIED).tag(SERVICE_VLAN).bytes(), "vlan_tagged"),
        (
            "a later fragment whose data looks like an allowed port",
            open(from, to, ALLOWED).fragment(2, false).bytes(),
            "fragment_without_first",
        ),
        ("a TCP header cut short", open(from, to, ALLOWED).cut(12).bytes(), "truncated"),
        ("IPv6", open(from_ipv6, to_ipv6, DENIED).bytes(), "not_allowed"),
        ("IP version 6 under the ethertype of IPv4", version_6, "malformed"),
    ]
}

/// A packet that passes, with any policy of this test.
fn allowed(from: &Wire, to: &Wire) -> Vec<u8> {
    let ([source, _], [destination, _]) = (FRIEND.addresses(), SERVER.addresses());
    // Of no connection: the server answers with a reset, and that is all.
    let frame = Frame::tcp(at(source, CLIENT), at(destination, ALLOWED), tcp::ACK);
    from.address_to(to, &frame.bytes())
}

#[test]
fn none_of_the_seven_evasions_reaches_an_isolated_pod() {
    let mut cluster = Cluster::start_unchecked(&[SERVER, FRIEND]);
    // Else the last evasion never gets as far as a pod.
    cluster.filter_on_bridge(false);
    let [server, friend] = ["server", "friend"].map(|name| Wire::open(cluster.pod(name)));
    let evasions: Vec<Evasion> = evasions()
        .into_iter()
        .map(|(what, frame, reason)| (what, friend.address_to(&server, &frame), reason))
        .collect();
    assert_eq!(evasions.len(), 7);

    let before = cluster.metrics();
    for (_, frame, _) in &evasions {
        friend.send(frame);
        server.until(&captured(frame));
    }
    cluster.expect_denied(&before, &[]);

    cluster.apply(&allow_friend());
    let sentinel = allowed(&friend, &server);
    for (what, frame, reason) in &evasions {
        let before = cluster.metrics();
        friend.send(frame);
        // From then on it is known to have been dropped; and nothing else was.
        cluster.expect_denied(&before, &[("server", "ingress", reason, 1..=1)]);
        friend.send(&sentinel);
        let arrived = server.until(&sentinel);
        let of_friend: Vec<_> =
            arrived.iter().filter(|frame| frame[6..12] == friend.mac()).collect();
        assert!(!of_friend.contains(&&captured(frame)), "{what} arrived: {of_friend:02x?}");
        cluster.expect_denied(&before, &[("server", "ingress", reason, 1..=1)]);
    }
}

#[test]
fn frames_without_a_readable_source_do_not_leave_a_pod() {
    let cluster = Cluster::start(&[SERVER, FRIEND]);
    // Else the last evasion never gets as far as a pod.
    cluster.filter_on_bridge(false);
    let [server, friend] = ["server", "friend"].map(|name| Wire::open(cluster.pod(name)));
    let sentinel = allowed(&friend, &server);
    for (what, frame, reason) in evasions() {
        if !["vlan_tagged", "malformed"].contains(&reason) {
            continue;
        }
        let before = cluster.metrics();
        let frame = friend.address_to(&server, &frame);
        friend.send(&frame);
        cluster.expect_denied(&before, &[("friend", "egress", reason, 1..=1)]);
        friend.send(&sentinel);
        let arrived = server.until(&sentinel);
        assert!(!arrived.contains(&captured(&frame)), "{what} arrived: {arrived:02x?}");
    }
}

#[test]
fn a_pod_cannot_speak_with_an_address_of_another() {
    let mut cluster = Cluster::start(&[SERVER, FRIEND, OTHER]);
    let [server, friend, other] =
        ["server", "friend", "other"].map(|name| Wire::open(cluster.pod(name)));
    let sentinel = allowed(&friend, &server);
    // With the policy, the friend's address would open the port.
    for manifests in [String::new(), allow_friend()] {
        cluster.apply(&manifests);
        for (mine, to) in FRIEND.addresses().into_iter().zip(SERVER.addresses()) {
            let frame = other.address_to(&server, &open(mine, to, ALLOWED).bytes());
            let before = cluster.metrics();
            other.send(&frame);
            cluster.expect_denied(&before, &[("other", "egress", "spoofed_source", 1..=1)]);
            friend.send(&sentinel);
            let arrived = server.until(&sentinel);
            assert!(!arrived.contains(&frame), "{arrived:02x?}");
        }
    }
}
