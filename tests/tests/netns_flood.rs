//! More new flows than the map of flows holds, beside a connection of an isolated pod whose replies
//! need an entry: it goes on. Needs root.

use std::net::IpAddr;

use bulkhead_common::{
    abi,
    frames::{Frame, tcp},
};
use bulkhead_tests::{
    cluster::{Cluster, Member, policy},
    pod::at,
    probe::{Connection, expect_heard, expect_nothing_heard, listen, say},
    scrape::Page,
    wire::Wire,
};

const SERVER: Member = Member::bridged("server", 10);
const CLIENT: Member = Member::bridged("client", 11);
/// Allowed as well as the client is, and hostile.
const FLOODER: Member = Member::bridged("flooder", 12);

const PORT: u16 = 3306;
/// Nobody listens there: the server answers each with a reset.
const FLOODED: std::ops::Range<u16> = 4000..4004;
/// Of each flooded port: 200,000 flows together. The map holds 131,072 (docs/limits.md, "Flows").
const FLOWS: u16 = 50_000;
const FIRST_PORT: u16 = 10_000;
/// Between two words of the connection that is slow.
const A_WHILE: usize = 10_000;

/// Isolates the server in both directions. It may send nothing of its own accord.
fn allow_in() -> String {
    policy(
        "server",
        "{podSelector: {matchLabels: {app: server}}, policyTypes: [Ingress, Egress], ingress: \
         [{from: [{podSelector: {}}], ports: [{port: 3306}, {port: 4000, endPort: 4003}]}]}",
    )
}

/// How many packets went in by rules.
fn let_in(cluster: &Cluster) -> f64 {
    let labels = [
        ("namespace", "test"),
        ("pod", "server"),
        ("direction", "ingress"),
        ("verdict", "allow"),
        ("reason", "rule"),
    ];
    cluster.metrics().value("bulkhead_packets_total", &labels).unwrap_or(0.0)
}

/// The page tells how many of these flows there was no room for, once it has counted.
fn expect_evictions(cluster: &Cluster, family: &str, flows: f64) {
    let page = cluster.metrics();
    let value = |page: &Page, name: &str| {
        page.value(name, &[("family", family)]).unwrap_or_else(|| panic!("no {name} of {family}"))
    };
    let capacity = value(&page, "bulkhead_flow_capacity");
    assert_eq!(capacity, f64::from(abi::FLOWS));
    let made = value(&page, "bulkhead_flows_made_total");
    assert!((flows..flows + 100.0).contains(&made), "{made} flows of {family} were made");
    cluster.wait_for("the flows to be counted", |page| {
        let entries = value(page, "bulkhead_flows");
        assert!(entries <= capacity, "{entries} flows of {family} are there");
        // The map keeps some places free on each CPU.
        let full = entries > 0.9 * capacity;
        full && value(page, "bulkhead_flows_evicted_total") >= made - capacity
    });
    let other = if family == "ipv4" { "ipv6" } else { "ipv4" };
    let evicted = page.value("bulkhead_flows_evicted_total", &[("family", other)]);
    assert_eq!(evicted, Some(0.0), "nothing floods the other map");
}

fn connections_go_on(from: IpAddr, to: IpAddr) {
    let mut cluster = Cluster::start(&[SERVER, CLIENT, FLOODER]);
    cluster.apply(&allow_in());
    let listener = listen(cluster.inside("server"), PORT);
    let open = || Connection::open(cluster.inside("client"), &listener, to);
    let (slow, silent) = (open(), open());
    let let_in_before = let_in(&cluster);

    let [server, flooder] = ["server", "flooder"].map(|name| Wire::open(cluster.pod(name)));
    let syns = FLOODED.flat_map(|port| {
        let syn = move |own| Frame::tcp(at(from, own), at(to, port), tcp::SYN).bytes();
        (FIRST_PORT..FIRST_PORT + FLOWS).map(syn)
    });
    let before = cluster.metrics();
    for (sent, syn) in syns.enumerate() {
        flooder.send(&flooder.address_to(&server, &syn));
        if sent % A_WHILE == 0 {
            // Whether its entry was there still or not.
            slow.expect_alive();
        }
    }
    let flows = f64::from(FLOWS) * FLOODED.len() as f64;
    assert!(let_in(&cluster) - let_in_before >= flows, "each of them was met, and allowed");
    // Each is one of the pod that opens it, too.
    expect_evictions(&cluster, if from.is_ipv4() { "ipv4" } else { "ipv6" }, 2.0 * flows);
    cluster.expect_denied(&before, &[]);
    slow.expect_alive();

    // The other's entry is gone: what the server says is no reply of anything that is remembered.
    let before = cluster.metrics();
    say(&silent.server, b"reply");
    cluster.expect_denied(&before, &[("server", "egress", "not_allowed", 1..=100)]);
    expect_nothing_heard(&silent.client);
    // The client's next packet makes a new one, and what was said is sent again.
    say(&silent.client, b"request");
    expect_heard(&silent.server, b"request");
    expect_heard(&silent.client, b"reply");
    silent.expect_alive();
}

#[test]
fn over_ipv4_a_connection_goes_on_beside_a_flood_of_new_flows() {
    let ([from, _], [to, _]) = (FLOODER.addresses(), SERVER.addresses());
    connections_go_on(from, to);
}

#[test]
fn over_ipv6_a_connection_goes_on_beside_a_flood_of_new_flows() {
    let ([_, from], [_, to]) = (FLOODER.addresses(), SERVER.addresses());
    connections_go_on(from, to);
}
