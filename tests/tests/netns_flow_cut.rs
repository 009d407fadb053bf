//! Established connections when policies change: what is not allowed any more stops at once, what
//! is allowed lives on. Needs root.
//!
//! In every case both ends are in the test's hands, and "nothing arrives" is looked at after the
//! counters said that it was denied.

use std::{
    io::ErrorKind,
    net::{IpAddr, TcpListener},
};

use bulkhead_tests::{
    cluster::{Cluster, Member, policy, rejecting_namespace},
    probe::{Connection, broken, expect_heard, expect_nothing_heard, listen, say},
};

const SERVER: Member = Member::bridged("server", 10);
const CLIENT: Member = Member::bridged("client", 11);
/// Behind a route.
const FAR: Member = Member::routed("far", 12);
const PORT: u16 = 3306;

/// Isolates the server in these directions, and allows nothing.
fn isolate(directions: &str) -> String {
    policy("isolate", &format!("{{podSelector: {SERVER_LABELS}, policyTypes: [{directions}]}}"))
}

/// Isolates the server in both directions, and allows the clients in to a port.
fn allow_in(port: u16) -> String {
    policy(
        "allow",
        &format!(
            "{{podSelector: {SERVER_LABELS}, policyTypes: [Ingress, Egress], ingress: [{{from: \
             [{{podSelector: {{matchExpressions: [{{key: app, operator: In, values: [client, \
             far]}}]}}}}], ports: [{{port: {port}}}]}}]}}"
        ),
    )
}

const SERVER_LABELS: &str = "{matchLabels: {app: server}}";

/// The clients' connections to the server, over both families each.
struct Flows {
    connections: Vec<Connection>,
    _listener: TcpListener,
}

impl Flows {
    fn open(cluster: &Cluster) -> Self {
        let listener = listen(cluster.inside("server"), PORT);
        let open = |from: &str, to: IpAddr| {
            Connection::open(cluster.inside(from), &listener, to)
        };
        let connections = ["client", "far"]
            .into_iter()
            .flat_map(|from| SERVER.addresses().map(|to| open(from, to)))
            .collect();
        Self { connections, _listener: listener }
    }
}

fn start() -> (Cluster, Flows) {
    let cluster = Cluster::start(&[SERVER, CLIENT, FAR]);
    let flows = Flows::open(&cluster);
    (cluster, flows)
}

/// What is written may be sent several times: TCP does not know why nobody answers.
const SOME: std::ops::RangeInclusive<u64> = 1..=1000;

#[test]
fn the_clients_bytes_stop_at_once_when_the_server_is_isolated_for_ingress() {
    let (mut cluster, flows) = start();
    cluster.apply(&isolate("Ingress"));
    for Connection { client, server } in &flows.connections {
        let before = cluster.metrics();
        say(client, b"cut");
        cluster.expect_denied(&before, &[("server", "ingress", "not_allowed", SOME)]);
        expect_nothing_heard(server);
        // Not isolated for egress, the server is free to send. That the client's acknowledgments
        // are denied, it can't know.
        say(server, b"free");
        expect_heard(client, b"free");
        expect_nothing_heard(server);
    }
}

#[test]
fn both_directions_stop_at_once_when_the_server_is_isolated_in_both() {
    let (mut cluster, flows) = start();
    cluster.apply(&isolate("Ingress, Egress"));
    // The server's bytes first, while nothing else moves: they were replies, and the flow that
    // they belong to is not allowed any more.
    let before = cluster.metrics();
    for Connection { server, .. } in &flows.connections {
        say(server, b"cut");
    }
    let flows_cut = flows.connections.len() as u64;
    let replies = ("server", "egress", "flow_revoked", flows_cut..=1000);
    cluster.expect_denied(&before, std::slice::from_ref(&replies));
    for Connection { client, .. } in &flows.connections {
        expect_nothing_heard(client);
        say(client, b"cut");
    }
    let requests = ("server", "ingress", "not_allowed", flows_cut..=1000);
    cluster.expect_denied(&before, &[requests, replies]);
    for Connection { client, server } in &flows.connections {
        expect_nothing_heard(server);
        expect_nothing_heard(client);
    }
}

#[test]
fn a_connection_that_the_new_policy_allows_lives_on_without_loss() {
    let (mut cluster, flows) = start();
    let before = cluster.metrics();
    cluster.apply(&allow_in(PORT));
    flows.connections.iter().for_each(Connection::expect_alive);
    // Another policy that allows the same: every flow is judged anew.
    cluster.apply(&format!("{}{}", allow_in(PORT), isolate("Ingress, Egress")));
    flows.connections.iter().for_each(Connection::expect_alive);
    cluster.expect_denied(&before, &[]);
}

#[test]
fn a_connection_that_the_isolated_pod_opened_before_lives_on_without_loss() {
    let mut cluster = Cluster::start(&[SERVER, CLIENT, FAR]);
    let mut connections = Vec::new();
    let mut listeners = Vec::new();
    for peer in [CLIENT, FAR] {
        let listener = listen(cluster.inside(peer.name), PORT);
        let open = |to| Connection::open(cluster.inside("server"), &listener, to);
        connections.extend(peer.addresses().map(open));
        listeners.push(listener);
    }
    let before = cluster.metrics();
    cluster.apply(&isolate("Ingress"));
    for Connection { client, server } in &connections {
        // The peer speaks first: it is known who opened the flow without a packet since then.
        say(server, b"reply");
        expect_heard(client, b"reply");
    }
    connections.iter().for_each(Connection::expect_alive);
    cluster.expect_denied(&before, &[]);

    // Isolated for egress, too, the flow that it opened is allowed no more.
    cluster.apply(&isolate("Ingress, Egress"));
    for Connection { server, .. } in &connections {
        say(server, b"cut");
    }
    let cut = connections.len() as u64;
    cluster.expect_denied(&before, &[("server", "ingress", "flow_revoked", cut..=1000)]);
    connections.iter().for_each(|connection| expect_nothing_heard(&connection.client));
}

#[test]
fn a_connection_resumes_when_the_policy_allows_it_again() {
    let (mut cluster, flows) = start();
    cluster.apply(&allow_in(PORT));
    flows.connections.iter().for_each(Connection::expect_alive);

    cluster.apply(&allow_in(PORT + 1));
    let before = cluster.metrics();
    for Connection { client, server } in &flows.connections {
        say(client, b"request");
        say(server, b"answer");
    }
    let cut = flows.connections.len() as u64;
    cluster.expect_denied(
        &before,
        &[
            ("server", "egress", "flow_revoked", cut..=1000),
            ("server", "ingress", "not_allowed", cut..=1000),
        ],
    );
    for Connection { client, server } in &flows.connections {
        expect_nothing_heard(server);
        expect_nothing_heard(client);
    }

    // TCP sends again what was not acknowledged: nothing is lost.
    cluster.apply(&allow_in(PORT));
    for Connection { client, server } in &flows.connections {
        expect_heard(server, b"request");
        expect_heard(client, b"answer");
    }
    flows.connections.iter().for_each(Connection::expect_alive);
}

#[test]
fn with_reject_whoever_sends_in_a_cut_connection_is_told() {
    for (directions, reason) in [("Ingress", "not_allowed"), ("Ingress, Egress", "flow_revoked")] {
        let (mut cluster, flows) = start();
        cluster.apply(&format!("{}{}", rejecting_namespace(), isolate(directions)));
        for Connection { client, server } in &flows.connections {
            let before = cluster.metrics();
            if reason == "not_allowed" {
                say(client, b"cut");
                cluster.expect_denied(&before, &[("server", "ingress", reason, 1..=1)]);
                assert_eq!(broken(client), ErrorKind::ConnectionReset);
                expect_nothing_heard(server);
            } else {
                // Denied at the sender's own interface, and answered there.
                say(server, b"cut");
                cluster.expect_denied(&before, &[("server", "egress", reason, 1..=1)]);
                assert_eq!(broken(server), ErrorKind::ConnectionReset);
                expect_nothing_heard(client);
            }
        }
    }
}
