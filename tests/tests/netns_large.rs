//! Packets that are longer than a frame: what the sender leaves to the device to be cut (GSO), and
//! links that take jumbo frames. Isolated pods send and receive them as others do. Needs root.

use std::{
    iter,
    net::{IpAddr, TcpStream},
    thread,
};

use bulkhead::lab::Namespace;
use bulkhead_tests::{
    cluster::{Cluster, Member, policy},
    probe::{Connection, expect_heard, listen, say, udp},
    stream::{Tcp, without_tail_probes},
    wire::Wire,
};
use nix::sys::socket::{setsockopt, sockopt::UdpGsoSegment};

const SERVER: Member = Member::bridged("server", 10);
const NEAR: Member = Member::bridged("near", 11);
const FAR: Member = Member::routed("far", 12);

const PORT: u16 = 3306;
/// What the client writes at once.
const BURST: usize = 65_536;
/// The longest frame of an Ethernet of the usual kind.
const LONGEST_FRAME: usize = 1514;
const ETHERNET_LEN: usize = 14;

/// Isolates every pod in both directions, and allows one port between them.
fn allow_port() -> String {
    let rules = |way| {
        format!(
            "[{{{way}: [{{podSelector: {{}}}}], ports: [{{port: 3306}}, {{protocol: UDP, port: 3306}}]}}]"
        )
    };
    let spec = format!(
        "{{podSelector: {{}}, policyTypes: [Ingress, Egress], ingress: {}, egress: {}}}",
        rules("from"),
        rules("to")
    );
    policy("port", &spec)
}

/// The longest frame that was captured so far.
fn longest(wire: &Wire) -> usize {
    iter::from_fn(|| wire.next_frame()).map(|frame| frame.len()).max().unwrap_or(0)
}

/// Writes a burst, and hears it whole at the other end.
fn burst(from: &TcpStream, to: &TcpStream) {
    let words: Vec<u8> = (0..BURST).map(|at| (at / 7) as u8).collect();
    thread::scope(|scope| {
        scope.spawn(|| say(from, &words));
        expect_heard(to, &words);
    });
}

#[test]
fn a_burst_over_tcp_passes_isolated_pods_in_long_packets() {
    let mut cluster = Cluster::start(&[SERVER, NEAR, FAR]);
    cluster.apply(&allow_port());
    let pods = ["server", "near", "far"].map(|name| cluster.inside(name));
    pods.into_iter().for_each(without_tail_probes);
    let listener = listen(cluster.inside("server"), PORT);
    for peer in [NEAR, FAR] {
        for to in SERVER.addresses() {
            let connection = Connection::open(cluster.inside(peer.name), &listener, to);
            let Connection { client, server } = &connection;
            let wires = ["server", peer.name].map(|name| Wire::open(cluster.pod(name)));
            let before = cluster.metrics();
            for (from, to) in [(client, server), (server, client)] {
                // The first ones open the window.
                for _ in 0..10 {
                    burst(from, to);
                }
                for wire in &wires {
                    let longest = longest(wire);
                    assert!(longest > 10 * LONGEST_FRAME, "{longest} bytes, from {}", peer.name);
                }
            }
            cluster.expect_denied(&before, &[]);
            connection.abort();
        }
    }
    for Tcp { retransmitted, .. } in pods.map(Tcp::of) {
        assert_eq!(retransmitted, 0);
    }
}

#[test]
fn datagrams_that_are_sent_as_one_packet_pass_isolated_pods() {
    const EACH: usize = 1_200;
    const MANY: usize = 40;
    let mut cluster = Cluster::start(&[SERVER, NEAR, FAR]);
    cluster.apply(&allow_port());
    let before = cluster.metrics();
    for peer in [NEAR, FAR] {
        for (from, to) in peer.addresses().into_iter().zip(SERVER.addresses()) {
            let hears = udp(cluster.inside("server"), to, PORT);
            let sends = udp(cluster.inside(peer.name), from, 0);
            setsockopt(&sends, UdpGsoSegment, &(EACH as i32)).expect("a socket option");
            let wire = Wire::open(cluster.pod("server"));
            let words: Vec<u8> = (0..EACH * MANY).map(|at| (at / EACH) as u8).collect();
            sends.send_to(&words, (to, PORT)).expect("the kernel takes it");
            for each in words.chunks(EACH) {
                let mut bytes = [0; 2 * EACH];
                let (len, _) = hears.recv_from(&mut bytes).expect("a datagram");
                assert_eq!(bytes[..len], *each);
            }
            assert!(longest(&wire) > EACH * MANY, "it was one packet up to the pod");
        }
    }
    cluster.expect_denied(&before, &[]);
}

#[test]
fn jumbo_frames_pass_isolated_pods() {
    const MTU: usize = 9_000;
    let mut cluster = Cluster::start(&[SERVER, NEAR, FAR]);
    let grow = |namespace: &Namespace, link: &str| {
        namespace.ip(["link", "set", link, "mtu", &MTU.to_string()]).expect("an MTU");
    };
    for name in ["server", "near", "far"] {
        grow(cluster.node(), cluster.pod(name).interface());
        grow(cluster.inside(name), "eth0");
    }
    grow(cluster.node(), "cni0");
    cluster.apply(&allow_port());
    let before = cluster.metrics();
    for peer in [NEAR, FAR] {
        for (from, to) in peer.addresses().into_iter().zip(SERVER.addresses()) {
            let hears = udp(cluster.inside("server"), to, PORT);
            let sends = udp(cluster.inside(peer.name), from, PORT);
            let headers = if matches!(to, IpAddr::V4(_)) { 20 + 8 } else { 40 + 8 };
            let words: Vec<u8> = (0..MTU - headers).map(|at| at as u8).collect();
            let ends = [(&sends, peer.name, from), (&hears, "server", to)];
            // There, and back as a reply.
            for [(sends, ..), (hears, name, to)] in [ends, [ends[1], ends[0]]] {
                let wire = Wire::open(cluster.pod(name));
                sends.send_to(&words, (to, PORT)).expect("the kernel takes it");
                let mut bytes = vec![0; 2 * MTU];
                let (len, _) = hears.recv_from(&mut bytes).expect("a datagram");
                assert!(bytes[..len] == words, "it is changed");
                assert_eq!(longest(&wire), MTU + ETHERNET_LEN, "it is one frame");
            }
        }
    }
    cluster.expect_denied(&before, &[]);
}
