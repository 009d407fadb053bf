//! Packets that are made to look like what a policy allows, sent for real: from a pod's packet
//! socket over the bridge. Needs root.
//!
//! Without a policy each of them arrives, so that what follows means something. With the policy it does
//! not, and the reason is counted.

use std::net::IpAddr;

use bulkhead_common::{
    frames::{Frame, tcp},
    verdict::DropReason::{self, VlanTagged},
};
use bulkhead_tests::{
    cluster::{Cluster, Member, policy},
    pod::{ALLOWED, CLIENT, Net, at},
    wire::{Wire, captured},
};

const SERVER: Member = Member::bridged("server", 10);
/// The rules allow it one port.
const FRIEND: Member = Member::bridged("friend", 11);
/// Somebody to be impersonated.
const OTHER: Member = Member::bridged("other", 12);

fn allow_friend() -> String {
    policy(
        "server",
        "{podSelector: {matchLabels: {app: server}}, policyTypes: [Ingress, Egress], ingress: \
         [{from: [{podSelector: {matchLabels: {app: friend}}}], ports: [{port: 3306}, {protocol: \
         UDP, port: 3306}, {protocol: SCTP, port: 3306}]}], egress: [{to: [{podSelector: \
         {matchLabels: {app: friend}}}], ports: [{port: 3306}, {protocol: UDP, port: 3306}, \
         {protocol: SCTP, port: 3306}]}]}",
    )
}

/// A row of the table.
struct Evasion {
    name: &'static str,
    /// What a program would see that reads past the disguise.
    would_see: &'static str,
    nets: &'static [Net],
    frame: fn(from: IpAddr, to: IpAddr) -> Vec<u8>,
    reason: DropReason,
}

macro_rules! evasions {
    ($group:ident; $($(#[doc = $would_see:literal])+ $name:ident: $nets:expr, |$from:ident, $to:ident| $frame:expr => $reason:ident;)+) => {
        pub(super) const $group: &[crate::Evasion] = &[$(crate::Evasion {
            name: stringify!($name),
            would_see: concat!($($would_see),+),
            nets: &$nets,
            frame: |$from, $to| $frame,
            reason: $reason,
        }),+];
    };
}

#[path = "evasions/rows.rs"]
mod rows;

const EVASIONS: [&[Evasion]; 7] = [
    rows::SEVEN,
    rows::TAGS,
    rows::IP_HEADERS,
    rows::FRAGMENTS,
    rows::CHAINS,
    rows::TRANSPORT_HEADERS,
    rows::REPLIES,
];

/// Each evasion of each family, from one member to another.
fn evasions(from: Member, to: Member) -> impl Iterator<Item = (&'static Evasion, Vec<u8>)> {
    EVASIONS.into_iter().flatten().flat_map(move |evasion| {
        evasion.nets.iter().map(move |net| {
            let family = usize::from(net.pod.is_ipv6());
            (evasion, (evasion.frame)(from.addresses()[family], to.addresses()[family]))
        })
    })
}

/// A packet that passes, with any policy of this test.
fn allowed((from, from_wire): (Member, &Wire), (to, to_wire): (Member, &Wire)) -> Vec<u8> {
    let ([source, _], [destination, _]) = (from.addresses(), to.addresses());
    // Of no connection: the server answers with a reset, and that is all.
    let frame = Frame::tcp(at(source, CLIENT), at(destination, ALLOWED), tcp::ACK);
    from_wire.address_to(to_wire, &frame.bytes())
}

#[test]
fn each_evasion_arrives_where_nothing_isolates() {
    let cluster = Cluster::start_unchecked(&[SERVER, FRIEND]);
    // Else some of them never get as far as a pod.
    cluster.filter_on_bridge(false);
    let [server, friend] = ["server", "friend"].map(|name| Wire::open(cluster.pod(name)));
    let before = cluster.metrics();
    for (evasion, frame) in evasions(FRIEND, SERVER) {
        let frame = friend.address_to(&server, &frame);
        friend.send(&frame);
        println!("{}: {}", evasion.name, evasion.would_see);
        server.until(&captured(&frame));
    }
    cluster.expect_denied(&before, &[]);
}

#[test]
fn no_evasion_reaches_an_isolated_pod() {
    expect_all_denied(FRIEND, SERVER, "ingress");
}

#[test]
fn no_evasion_leaves_an_isolated_pod() {
    expect_all_denied(SERVER, FRIEND, "egress");
}

fn expect_all_denied(from: Member, to: Member, direction: &str) {
    let mut cluster = Cluster::start_unchecked(&[SERVER, FRIEND]);
    cluster.filter_on_bridge(false);
    cluster.apply(&allow_friend());
    let [sender, receiver] = [from, to].map(|member| Wire::open(cluster.pod(member.name)));
    let sentinel = allowed((from, &sender), (to, &receiver));
    for (evasion, frame) in evasions(from, to) {
        let what = format!("{}: {}", evasion.name, evasion.would_see);
        println!("{what}");
        let frame = sender.address_to(&receiver, &frame);
        let before = cluster.metrics();
        let denied = &[("server", direction, evasion.reason.as_str(), 1..=1)];
        sender.send(&frame);
        // From then on it is known to have been dropped; and nothing else was.
        cluster.expect_denied(&before, denied);
        sender.send(&sentinel);
        let arrived = receiver.until(&sentinel);
        assert!(!arrived.contains(&captured(&frame)), "{what} arrived: {arrived:02x?}");
        cluster.expect_denied(&before, denied);
    }
}

#[test]
fn frames_without_a_readable_source_do_not_leave_a_pod() {
    let cluster = Cluster::start(&[SERVER, FRIEND]);
    // Else the last evasion never gets as far as a pod.
    cluster.filter_on_bridge(false);
    let [server, friend] = ["server", "friend"].map(|name| Wire::open(cluster.pod(name)));
    let sentinel = allowed((FRIEND, &friend), (SERVER, &server));
    for (evasion, frame) in evasions(FRIEND, SERVER) {
        // IPv6 is read as far as addresses, whatever follows.
        let broken = ["ip_version", "a_header_length"];
        let without_source = evasion.reason == VlanTagged
            || broken.iter().any(|beginning| evasion.name.starts_with(beginning));
        if !without_source {
            continue;
        }
        let (what, reason) = (evasion.name, evasion.reason.as_str());
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
    let sentinel = allowed((FRIEND, &friend), (SERVER, &server));
    // With the policy, the friend's address would open the port.
    for manifests in [String::new(), allow_friend()] {
        cluster.apply(&manifests);
        for (mine, to) in FRIEND.addresses().into_iter().zip(SERVER.addresses()) {
            let frame = other.address_to(&server, &rows::open(mine, to, ALLOWED).bytes());
            let before = cluster.metrics();
            other.send(&frame);
            cluster.expect_denied(&before, &[("other", "egress", "spoofed_source", 1..=1)]);
            friend.send(&sentinel);
            let arrived = server.until(&sentinel);
            assert!(!arrived.contains(&frame), "{arrived:02x?}");
        }
    }
}
