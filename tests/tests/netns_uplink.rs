//! Packets from outside of the node, through an uplink where denied ones are dropped already, in the
//! device's driver and by the kernel. Needs root.

use std::{
    fs::{self, File},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Instant,
};

use bulkhead::{
    agent::Uplink,
    dataplane::uplink::Mode,
    lab::{Pod, Wiring},
};
use bulkhead_common::frames::{Frame, tcp};
use bulkhead_tests::{
    cluster::{Cluster, DEADLINE, LOOK_EVERY, Member, policy},
    pod::at,
    probe::{Connection, PATIENCE, connect, expect_heard, listen, ping, say},
    translation::{Masquerade, Service, translate},
    wire::Wire,
};

const SERVER: Member = Member::bridged("server", 10);
const FAR: Member = Member { name: "far", host: 12, wiring: Wiring::Routed };
/// Nothing isolates it.
const OPEN: Member = Member::bridged("open", 11);
const PORT: u16 = 3306;
const CLIENT_PORT: u16 = 40_000;
const UPLINK: &str = "veth-outside";
/// The first is allowed, the second is not.
const OUTSIDE: [[IpAddr; 2]; 2] = [outside(1), outside(2)];

const fn outside(host: u8) -> [IpAddr; 2] {
    [
        IpAddr::V4(Ipv4Addr::new(198, 51, 100, host)),
        IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, host as u16)),
    ]
}

fn policies() -> String {
    ["server", "far"]
        .map(|name| {
            policy(
                name,
                &format!(
                    "{{podSelector: {{matchLabels: {{app: {name}}}}}, policyTypes: [Ingress, \
                     Egress], ingress: [{{from: [{{ipBlock: {{cidr: 198.51.100.1/32}}}}, {{ipBlock: \
                     {{cidr: \"2001:db8::1/128\"}}}}], ports: [{{port: {PORT}}}]}}], egress: [{{}}]}}"
                ),
            )
        })
        .concat()
}

struct Node {
    cluster: Cluster,
    friend: Pod,
    stranger: Pod,
}

impl Node {
    /// Behind the uplink is one host that has all addresses of [`OUTSIDE`]; behind another device is a
    /// stranger.
    fn start(mode: Option<Mode>) -> Self {
        let cluster = Cluster::without_agent(&[SERVER, OPEN, FAR], &[]);
        let both: Vec<IpAddr> = OUTSIDE.concat();
        let friend = cluster.outsider("outside", &both);
        let stranger = cluster.outsider("elsewhere", &outside(3));
        let uplink = mode.map(|mode| Uplink { device: UPLINK.to_owned(), modes: vec![mode] });
        let mut cluster = cluster.with_uplink(uplink);
        cluster.apply(&policies());
        Self { cluster, friend, stranger }
    }

    /// Whether the device has a program in this mode, as `ip` says.
    fn has_program(&self, mode: Mode) -> bool {
        let mut ip = self.cluster.node().command("ip");
        let shown = ip.args(["link", "show", "dev", UPLINK]).output().expect("ip runs");
        let shown = String::from_utf8(shown.stdout).expect("text");
        let word = match mode {
            Mode::Native => " xdp ",
            Mode::Generic => " xdpgeneric ",
        };
        shown.contains(word)
    }
}

/// From the host outside, by an address of its own.
fn connect_from(node: &Node, from: IpAddr, to: IpAddr, port: u16) -> std::io::Result<()> {
    let set = |from: IpAddr| {
        // The source is what routes say: the two addresses are told apart by it.
        let (host, gateway) = if to.is_ipv4() {
            (format!("{to}/32"), "169.254.1.1")
        } else {
            (format!("{to}/128"), "fe80::1")
        };
        let source = from.to_string();
        let route =
            ["route", "replace", &host, "via", gateway, "dev", "eth0", "onlink", "src", &source];
        node.friend.namespace().ip(route).expect("a route");
    };
    set(from);
    let connected = connect(node.friend.namespace(), to, port, PATIENCE);
    connected.map(drop)
}

fn drops_what_the_pod_would_deny(mode: Mode) {
    let node = Node::start(Some(mode));
    let Node { cluster, friend, stranger } = &node;
    assert!(node.has_program(mode));
    for (member, family) in [SERVER, FAR].into_iter().flat_map(|member| [(member, 0), (member, 1)])
    {
        let to = member.addresses()[family];
        let [allowed, denied] = OUTSIDE.map(|addresses| addresses[family]);
        let listener = listen(cluster.inside(member.name), PORT);

        // Allowed, and denied by whom it is from.
        let before = cluster.metrics();
        connect_from(&node, allowed, to, PORT).expect("it is allowed");
        listener.accept().expect("a connection");
        let connection = Connection::open(friend.namespace(), &listener, to);
        cluster.expect_denied(&before, &[]);
        let error = connect_from(&node, denied, to, PORT).expect_err("it is denied");
        assert_eq!(error.kind(), std::io::ErrorKind::TimedOut, "{error}");
        // As the kernel sends it again once, at most.
        cluster.expect_denied(&before, &[(member.name, "ingress", "not_allowed", 1..=2)]);
        connection.expect_alive();
        assert!(!ping(friend.namespace(), to).answered);
        assert!(ping(friend.namespace(), OPEN.addresses()[family]).answered);

        // A connection of the pod's own, whose replies come in at the uplink.
        let outside = listen(friend.namespace(), CLIENT_PORT);
        let before = cluster.metrics();
        let own = Connection::open(cluster.inside(member.name), &outside, denied);
        own.expect_alive();
        cluster.expect_denied(&before, &[]);

        // What comes in by another device is denied at the pod.
        let before = cluster.metrics();
        let elsewhere = connect(stranger.namespace(), to, PORT, PATIENCE);
        elsewhere.expect_err("it is denied");
        cluster.expect_denied(&before, &[(member.name, "ingress", "not_allowed", 1..=2)]);
    }
}

#[test]
fn in_native_mode_what_the_pod_would_deny_is_dropped() {
    drops_what_the_pod_would_deny(Mode::Native);
}

#[test]
fn in_generic_mode_what_the_pod_would_deny_is_dropped() {
    drops_what_the_pod_would_deny(Mode::Generic);
}

/// Each of so many packets is counted once, by the pod's name, wherever it is dropped.
fn each_is_counted_once(mode: Option<Mode>) {
    const SYNS: u16 = 2_000;
    let node = Node::start(mode);
    let outside = Wire::open(&node.friend);
    let before = node.cluster.metrics();
    let (to_node, own) = (node.cluster.mac(UPLINK), outside.mac());
    let (from, to) = (OUTSIDE[1][0], SERVER.addresses()[0]);
    for port in 0..SYNS {
        let syn = Frame::tcp(at(from, 1_000 + port), at(to, PORT), tcp::SYN).bytes();
        outside.send(&[&to_node[..], &own, &syn[12..]].concat());
    }
    let syns = u64::from(SYNS);
    node.cluster.expect_denied(&before, &[("server", "ingress", "not_allowed", syns..=syns)]);
    // What of it the pod's hook has seen: the node forwards a packet before.
    let forwarded = node.cluster.node().enter(forwarded).expect("the node's namespace");
    match mode {
        Some(_) => assert_eq!(forwarded, 0, "they were forwarded"),
        None => assert!(forwarded >= syns, "{forwarded} were forwarded"),
    }
}

#[test]
fn in_native_mode_each_is_counted_once() {
    each_is_counted_once(Some(Mode::Native));
}

#[test]
fn in_generic_mode_each_is_counted_once() {
    each_is_counted_once(Some(Mode::Generic));
}

#[test]
fn at_the_pod_alone_each_is_counted_once() {
    each_is_counted_once(None);
}

/// Packets that the calling thread's node forwarded (`ForwDatagrams`, RFC 1213).
fn forwarded() -> u64 {
    let text = fs::read_to_string("/proc/thread-self/net/snmp").expect("a file");
    let mut lines = text.lines().filter(|line| line.starts_with("Ip:"));
    let [names, values] = [lines.next(), lines.next()].map(|line| line.expect("a line of IP"));
    let place = names.split(' ').position(|name| name == "ForwDatagrams").expect("a counter");
    values.split(' ').nth(place).and_then(|value| value.parse().ok()).expect("a number")
}

#[test]
fn replies_through_a_service_pass() {
    let node = Node::start(Some(Mode::Native));
    // The backend is outside, and is not allowed to open anything.
    let backend = Member { name: "backend", host: 0, wiring: Wiring::Routed };
    let service = Service { name: "service", host: 7, port: 80, backend, target_port: CLIENT_PORT };
    let Node { cluster, friend, .. } = &node;
    for (family, length) in [(0, "32"), (1, "128")] {
        // It has the addresses that the service leads to.
        let address = format!("{}/{length}", backend.addresses()[family]);
        friend.namespace().add_address(&address, "eth0").expect("an address");
        let route = ["route", "add", &address, "dev", UPLINK];
        cluster.node().ip(route).expect("a route");
    }
    translate(cluster.node(), &[service], Masquerade::Hairpins);
    let listener = listen(friend.namespace(), CLIENT_PORT);
    for to in service.addresses() {
        let before = cluster.metrics();
        let inside = cluster.inside("server");
        let client = connect(inside, to, service.port, DEADLINE).expect("it is allowed");
        let (server, _) = listener.accept().expect("a connection");
        say(&server, b"reply");
        expect_heard(&client, b"reply");
        cluster.expect_denied(&before, &[]);
    }
}

#[test]
fn native_mode_is_taken_where_the_device_has_it_and_generic_mode_elsewhere() {
    // Loopback's driver has none.
    for (device, word) in [(UPLINK, " xdp "), ("lo", " xdpgeneric ")] {
        let cluster = Cluster::without_agent(&[SERVER], &[]);
        let _outside = cluster.outsider("outside", &OUTSIDE[0]);
        let uplink = Uplink { device: device.to_owned(), modes: Mode::ALL.to_vec() };
        let cluster = cluster.with_uplink(Some(uplink));
        let mut ip = cluster.node().command("ip");
        let shown = ip.args(["link", "show", "dev", device]).output().expect("ip runs");
        let shown = String::from_utf8(shown.stdout).expect("text");
        assert!(shown.contains(word), "{shown}");
    }
}

#[test]
fn the_program_leaves_with_the_agent() {
    let node = Node::start(Some(Mode::Generic));
    assert!(node.has_program(Mode::Generic));
    let Node { mut cluster, friend, stranger } = node;
    cluster.stop();
    let node = Node { cluster, friend, stranger };
    assert!(!node.has_program(Mode::Generic) && !node.has_program(Mode::Native));
}

/// Given at the start, and wrong: the agent does not start, and says what to do.
#[test]
fn a_device_that_is_not_there_or_is_taken_is_an_error() {
    let node = Node::start(Some(Mode::Native));
    for (device, words) in
        [("absent0", "there is no device absent0"), (UPLINK, "takes no XDP program")]
    {
        let log = node.cluster.manifests().with_extension("log");
        let mut agent = node.cluster.node().command(env!("CARGO_BIN_EXE_bulkhead-under-test"));
        agent.args(["agent", "--metrics-address", "127.0.0.1:9199", "--xdp", device]);
        agent.arg("--manifests").arg(node.cluster.manifests());
        let file = File::create(&log).expect("a file");
        let mut agent = agent.stderr(file).spawn().expect("it runs");
        let deadline = Instant::now() + DEADLINE;
        let status = loop {
            if let Some(status) = agent.try_wait().expect("a child") {
                break status;
            }
            if Instant::now() > deadline {
                agent.kill().expect("a child");
                agent.wait().expect("a child");
                panic!("it runs with {device}");
            }
            std::thread::sleep(LOOK_EVERY);
        };
        let logged = fs::read_to_string(&log).expect("a file");
        assert!(!status.success() && logged.contains(words), "{device}: {logged}");
        println!("{logged}");
    }
    assert!(node.has_program(Mode::Native), "the other agent's");
}
