//! What a node forwards is not what it sends, also where connection tracking puts fragments together
//! and Linux takes them apart again on the way, so that they look as if they came from nowhere.
//! Needs root.

use std::{
    net::{IpAddr, UdpSocket},
    ops::RangeInclusive,
};

use bulkhead::lab::{NODE_IPV4, NODE_IPV6, Wiring};
use bulkhead_tests::{
    cluster::{Cluster, Member, policy},
    probe::{any, udp},
    scrape::{Denial, Page},
    translation::track,
    wire::Wire,
};

const NEAR: Member = Member::bridged("near", 11);
const FAR: Member = Member::routed("far", 12);
const PORT: u16 = 5353;

/// Of whole packets, on links that take 1,500 bytes. The first was seen to get by when fragments
/// counted as the node's own for want of a device.
const LENGTHS: [usize; 3] = [1_505, 2_000, 4_000];

const CLOSED: &str = "{podSelector: {matchLabels: {app: server}}, policyTypes: [Ingress]}";

/// The data of a datagram that makes a packet of this length.
fn data(ip: IpAddr, length: usize) -> Vec<u8> {
    let headers = if ip.is_ipv4() { 20 + 8 } else { 40 + 8 };
    (0..length - headers).map(|at| at as u8).collect()
}

/// So many fragments a packet of this length becomes.
fn fragments(ip: IpAddr, length: usize) -> u64 {
    // What each holds is a multiple of 8 (RFC 791, RFC 8200).
    let (header, each) = if ip.is_ipv4() { (20, 1_480) } else { (40, 1_448) };
    (length - header).div_ceil(each) as u64
}

fn expect_whole(socket: &UdpSocket, data: &[u8]) {
    let mut bytes = vec![0; 65_536];
    let (len, _) = socket.recv_from(&mut bytes).expect("a datagram");
    assert!(bytes[..len] == *data, "it is changed");
}

/// Whether a frame is an IP packet from this address.
fn is_from(frame: &[u8], ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => frame[12..14] == [0x08, 0x00] && frame[26..30] == ip.octets(),
        IpAddr::V6(ip) => frame[12..14] == [0x86, 0xdd] && frame[22..38] == ip.octets(),
    }
}

fn fragments_are_denied_from_others_and_pass_from_the_node(wiring: Wiring) {
    let server = Member { name: "server", host: 10, wiring };
    let mut cluster = Cluster::start(&[server, NEAR, FAR]);
    // Where it can, the bridge tracks, too.
    cluster.filter_on_bridge(true);
    track(cluster.node());
    put_a_tunnel_on_the_bridge(&cluster);
    let nodes = [NODE_IPV4.into(), NODE_IPV6.into()];
    for closed in [false, true] {
        if closed {
            cluster.apply(&policy("closed", CLOSED));
        }
        let wire = Wire::open(cluster.pod("server"));
        wire.make_room();
        for (family, at) in server.addresses().into_iter().enumerate() {
            let hears = udp(cluster.inside("server"), at, PORT);
            let peers = [NEAR, FAR].map(|peer| (peer.name, peer.addresses()[family]));
            for (length, data) in LENGTHS.map(|length| (length, data(at, length))) {
                for (name, from) in peers {
                    let before = cluster.metrics();
                    let sender = udp(cluster.inside(name), from, 0);
                    sender.send_to(&data, (at, PORT)).expect("the kernel takes it");
                    if closed {
                        // Linux may give up the others, when it is told that one was dropped.
                        let some = 1..=fragments(at, length);
                        expect_denied_to_server(&cluster, &before, some);
                    } else {
                        expect_whole(&hears, &data);
                    }
                }
                let before = cluster.metrics();
                let sender = udp(cluster.node(), any(at), 0);
                sender.send_to(&data, (at, PORT)).expect("the kernel takes it");
                expect_whole(&hears, &data);
                let mut ping = cluster.node().command("ping");
                ping.args(["-n", "-c", "1", "-W", "5", "-s", "3000", &at.to_string()]);
                assert!(ping.output().expect("ip runs").status.success(), "no answer from {at}");
                cluster.expect_denied(&before, &[]);

                // Not even a part of what the others sent came before that.
                let arrived: Vec<_> = std::iter::from_fn(|| wire.next_frame()).collect();
                let came_from = |ip| arrived.iter().any(|frame| is_from(frame, ip));
                assert!(came_from(nodes[family]), "{length} bytes from the node");
                for (name, from) in peers {
                    assert_eq!(came_from(from), !closed, "{length} bytes from {name}, {from}");
                }
            }
        }
    }
}

/// Whatever leaves by the bridge needs room for the tunnel's headers then. Fragments of a routed pod
/// have none, so Linux can't send on the ones that came, and makes new ones
/// (`ip6_fragment`, net/ipv6/ip6_output.c: `slow_path`), of which it forgets where they came in.
fn put_a_tunnel_on_the_bridge(cluster: &Cluster) {
    let node = cluster.node();
    let ends = ["local", "127.0.0.1", "remote", "127.0.0.2", "dstport", "4789"];
    let add = ["link", "add", "tunnel", "type", "vxlan", "id", "7"];
    node.ip(add.into_iter().chain(ends)).expect("a tunnel");
    node.ip(["link", "set", "tunnel", "master", "cni0"]).expect("a bridge");
}

/// Something was denied, on its way to the server, and nothing else, whatever for.
fn expect_denied_to_server(cluster: &Cluster, before: &Page, packets: RangeInclusive<u64>) {
    cluster.wait_for("they are denied", |page| {
        let denied = page.denied_since(before);
        let to_server = |(pod, direction, _): &Denial| pod == "server" && direction == "ingress";
        packets.contains(&denied.values().sum()) && denied.keys().all(to_server)
    });
}

#[test]
fn on_a_bridge_fragments_are_denied_from_others_and_pass_from_the_node() {
    fragments_are_denied_from_others_and_pass_from_the_node(Wiring::Bridge);
}

#[test]
fn behind_a_route_fragments_are_denied_from_others_and_pass_from_the_node() {
    fragments_are_denied_from_others_and_pass_from_the_node(Wiring::Routed);
}
