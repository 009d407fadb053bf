//! Datagrams that come in fragments, and paths that are narrower than a pod's interface, in the
//! kernel's own stacks. Needs root.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{IpAddr, UdpSocket},
    thread,
};

use bulkhead_tests::{
    cluster::{Cluster, DEADLINE, Member, NAMESPACE, policy},
    probe::{connect, expect_nothing_received, listen, ping_of, refused_as, send, udp},
    scrape::Page,
};

const POD: Member = Member::bridged("pod", 10);
const FAR_POD: Member = Member::routed("far", 10);
const PEER: Member = Member::routed("peer", 12);

const ASKED: u16 = 5353;
const UNASKED: u16 = 5354;
const OWN: u16 = 40000;
/// More than the interfaces take, in three fragments.
const LARGE: usize = 4000;

/// Both pods in both directions: datagrams with the peer to and from one port, and pings.
fn isolate() -> String {
    policy(
        "isolate",
        "{podSelector: {matchExpressions: [{key: app, operator: In, values: [pod, far]}]}, \
         policyTypes: [Ingress, Egress], ingress: [{from: [{podSelector: {matchLabels: {app: \
         peer}}}], ports: [{protocol: UDP, port: 5353}]}], egress: [{to: [{podSelector: \
         {matchLabels: {app: peer}}}], ports: [{protocol: UDP, port: 5353}]}]}",
    )
}

/// All that the peer says, pings too.
fn trust() -> String {
    policy(
        "trust",
        "{podSelector: {matchExpressions: [{key: app, operator: In, values: [pod, far]}]}, \
         policyTypes: [Ingress, Egress], ingress: [{from: [{podSelector: {matchLabels: {app: \
         peer}}}]}]}",
    )
}

/// How many packets of a pod passed for this reason.
fn passed(page: &Page, pod: &str, direction: &str, reason: &str) -> f64 {
    let labels = [
        ("namespace", NAMESPACE),
        ("pod", pod),
        ("direction", direction),
        ("verdict", "allow"),
        ("reason", reason),
    ];
    page.value("bulkhead_packets_total", &labels).unwrap_or_default()
}

#[test]
fn large_datagrams_and_their_large_answers_arrive_whole() {
    let mut cluster = Cluster::start(&[POD, FAR_POD, PEER]);
    cluster.apply(&isolate());
    let words: Vec<u8> = (0..LARGE).map(|at| (at % 251) as u8).collect();
    for pod in [POD, FAR_POD] {
        for (pod_at, peer_at) in pod.addresses().into_iter().zip(PEER.addresses()) {
            let before = cluster.metrics();
            // Each asks the other at the port that is allowed, from one that is not.
            for (server, client) in
                [((pod.name, pod_at), ("peer", peer_at)), (("peer", peer_at), (pod.name, pod_at))]
            {
                let server = udp(cluster.inside(server.0), server.1, ASKED);
                let client = udp(cluster.inside(client.0), client.1, OWN);
                send(&client, &server, &words);
                assert_eq!(received(&server), words, "to {pod_at}");
                send(&server, &client, &words);
                assert_eq!(received(&client), words, "the answer");
            }
            cluster.expect_denied(&before, &[]);

            // Three fragments of which each is denied.
            let client = udp(cluster.inside("peer"), peer_at, OWN);
            let other = udp(cluster.inside(pod.name), pod_at, UNASKED);
            send(&client, &other, &words);
            cluster.expect_denied(
                &before,
                &[
                    (pod.name, "ingress", "not_allowed", 1..=1),
                    (pod.name, "ingress", "fragment_without_first", 2..=2),
                ],
            );
            expect_nothing_received(&other);
        }
    }
}

fn received(socket: &UdpSocket) -> Vec<u8> {
    let mut bytes = vec![0; 2 * LARGE];
    let (len, _) = socket.recv_from(&mut bytes).unwrap_or_else(|error| panic!("lost: {error}"));
    bytes.truncate(len);
    bytes
}

#[test]
fn large_pings_and_pongs_pass_where_pings_do() {
    let mut cluster = Cluster::start(&[POD, FAR_POD, PEER]);
    cluster.apply(&isolate());
    for pod in [POD, FAR_POD] {
        for pod_at in pod.addresses() {
            let said = ping_of(cluster.inside("peer"), pod_at, LARGE);
            assert!(!said.answered, "ports alone are allowed: {}", said.output);
        }
    }
    cluster.apply(&(isolate() + &trust()));
    for pod in [POD, FAR_POD] {
        for pod_at in pod.addresses() {
            let said = ping_of(cluster.inside("peer"), pod_at, LARGE);
            assert!(said.answered, "{}", said.output);
        }
    }
}

#[test]
fn who_asks_a_closed_port_is_told_by_either_pod() {
    let mut cluster = Cluster::start(&[POD, FAR_POD, PEER]);
    cluster.apply(&isolate());
    for pod in [POD, FAR_POD] {
        for (pod_at, peer_at) in pod.addresses().into_iter().zip(PEER.addresses()) {
            let before = cluster.metrics();
            // Allowed, and nobody is there: the host itself says so, and its error is related.
            refused_as(cluster.inside("peer"), peer_at, (pod_at, ASKED));
            refused_as(cluster.inside(pod.name), pod_at, (peer_at, ASKED));
            let after = cluster.metrics();
            for direction in ["egress", "ingress"] {
                let related = |page: &Page| passed(page, pod.name, direction, "related");
                assert_eq!(related(&after) - related(&before), 1.0, "{direction} of {}", pod.name);
            }
            cluster.expect_denied(&before, &[]);
        }
    }
}

/// Behind the router: what the pods talk to.
const BEHIND: [&str; 2] = ["192.0.2.2", "2001:db8::2"];
const ROUTER_BEHIND: [&str; 2] = ["192.0.2.1", "2001:db8::1"];
const PORT: u16 = 8080;
/// What the router's link takes; that of IPv6 cannot be less than 1,280.
const NARROW: &str = "1300";

/// Both pods in both directions: TCP with what is behind the router, to and from one port.
fn isolate_behind() -> String {
    policy(
        "isolate",
        "{podSelector: {matchExpressions: [{key: app, operator: In, values: [pod, far]}]}, \
         policyTypes: [Ingress, Egress], ingress: [{from: [{ipBlock: {cidr: 192.0.2.0/24}}, \
         {ipBlock: {cidr: \"2001:db8::/64\"}}], ports: [{protocol: TCP, port: 8080}]}], egress: \
         [{to: [{ipBlock: {cidr: 192.0.2.0/24}}, {ipBlock: {cidr: \"2001:db8::/64\"}}], ports: \
         [{protocol: TCP, port: 8080}]}]}",
    )
}

#[test]
fn an_isolated_pod_learns_that_a_path_is_narrow() {
    let router = Member::routed("router", 20);
    // The router sends on what is not its own.
    let behind = Member::routed("behind", 21);
    let mut cluster = Cluster::start_unchecked(&[POD, FAR_POD, router, behind]);
    narrow(&cluster, router);
    cluster.apply(&isolate_behind());
    for pod in [POD, FAR_POD] {
        for (pod_at, behind_at) in pod.addresses().into_iter().zip(BEHIND.map(parse)) {
            let before = cluster.metrics();
            // The pod sends, as a client and as a server.
            let server = listen(cluster.inside("behind"), PORT);
            let client = connect(cluster.inside(pod.name), behind_at, PORT, DEADLINE)
                .expect("it is allowed");
            let (there, _) = server.accept().expect("it is connected");
            assert!(transfer(&client, &there), "{pod_at} to {behind_at}");
            forget_paths(&cluster, pod);

            let server = listen(cluster.inside(pod.name), PORT);
            let client =
                connect(cluster.inside("behind"), pod_at, PORT, DEADLINE).expect("it is allowed");
            let (there, _) = server.accept().expect("it is connected");
            assert!(transfer(&there, &client), "{behind_at} from {pod_at}");
            forget_paths(&cluster, pod);

            let after = cluster.metrics();
            let related = |page: &Page| passed(page, pod.name, "ingress", "related");
            assert!(related(&after) - related(&before) >= 2.0, "the router said nothing");
            cluster.expect_denied(&before, &[]);
        }
    }
}

/// Links `behind` to the router by a link that takes less than others in the router's direction out,
/// and away from the node.
fn narrow(cluster: &Cluster, router: Member) {
    let (inside, behind) = (cluster.inside("router"), cluster.inside("behind"));
    let ip = |namespace: &bulkhead::lab::Namespace, words: &str| {
        namespace.ip(words.split(' ')).expect("iproute2");
    };
    ip(
        inside,
        &format!(
            "link add narrow mtu {NARROW} type veth peer name wide mtu 1500 netns {}",
            behind.name()
        ),
    );
    ip(inside, "link set narrow up");
    ip(behind, "link set wide up");
    let forward = || {
        fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
        fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1")
    };
    inside.enter(forward).expect("its namespace").expect("root may");
    for (at, behind_at, length, router_at) in [
        (ROUTER_BEHIND[0], BEHIND[0], 24, router.addresses()[0]),
        (ROUTER_BEHIND[1], BEHIND[1], 64, router.addresses()[1]),
    ] {
        ip(inside, &format!("address add {at}/{length} dev narrow"));
        ip(behind, &format!("address add {behind_at}/{length} dev wide"));
        ip(behind, &format!("route replace default via {at} dev wide"));
        // The router's own address is a host route of the node's; so is what is behind it.
        let interface = "veth-router";
        ip(
            cluster.node(),
            &format!("route add {behind_at} via {router_at} dev {interface} onlink"),
        );
    }
}

/// 256 KiB arrive.
fn transfer(mut from: &std::net::TcpStream, mut to: &std::net::TcpStream) -> bool {
    const LEN: usize = 256 << 10;
    to.set_read_timeout(Some(DEADLINE)).expect("a socket option");
    thread::scope(|scope| {
        scope.spawn(move || from.write_all(&vec![7; LEN]).expect("the kernel takes it"));
        let mut bytes = vec![0; LEN];
        to.read_exact(&mut bytes).is_ok() && bytes.iter().all(|byte| *byte == 7)
    })
}

/// So that the next connection has to learn it anew.
fn forget_paths(cluster: &Cluster, pod: Member) {
    let inside = cluster.inside(pod.name);
    inside.ip(["route", "flush", "cache"]).expect("iproute2");
    inside.ip(["-6", "route", "flush", "cache"]).expect("iproute2");
}

fn parse(address: &str) -> IpAddr {
    address.parse().expect("an address")
}
