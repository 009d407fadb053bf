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

/// For each of the clients' connections to the server, one after the other, so that what is counted
/// is this one's: opens it without a policy, and hands it to the test.
fn with_each_flow(test: impl Fn(&mut Cluster, &Connection)) {
    let mut cluster = Cluster::start(&[SERVER, CLIENT, FAR]);
    let listener = listen(cluster.inside("server"), PORT);
    for from in ["client", "far"] {
        for to in SERVER.addresses() {
            cluster.apply("");
            let connection = Connection::open(cluster.inside(from), &listener, to);
            test(&mut cluster, &connection);
            connection.abort();
        }
    }
}

/// The clients' connections to the server, over both families each, at a time.
struct Flows {
    connections: Vec<Connection>,
    _listener: TcpListener,
}

impl Flows {
    fn open(cluster: &Cluster) -> Self {
        let listener = listen(cluster.inside("server"), PORT);
        let open = |from: &str, to: IpAddr| Connection::open(cluster.inside(from), &listener, to);
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
    with_each_flow(|cluster, Connection { client, server }| {
        cluster.apply(&isolate("Ingress"));
        let before = cluster.metrics();
        say(client, b"cut");
        cluster.expect_denied(&before, &[("server", "ingress", "not_allowed", SOME)]);
        expect_nothing_heard(server);
        // Not isolated for egress, the server is free to send. That the client's acknowledgments
        // are denied, it can't know.
        say(server, b"free");
        expect_heard(client, b"free");
        expect_nothing_heard(server);
    });
}

#[test]
fn both_directions_stop_at_once_when_the_server_is_isolated_in_both() {
    with_each_flow(|cluster, Connection { client, server }| {
        cluster.apply(&isolate("Ingress, Egress"));
        // The server's bytes first, while nothing else moves: they were replies, and the flow that
        // they belong to is not allowed any more.
        let before = cluster.metrics();
        say(server, b"cut");
        let reply = ("server", "egress", "flow_revoked", SOME);
        cluster.expect_denied(&before, std::slice::from_ref(&reply));
        expect_nothing_heard(client);
        say(client, b"cut");
        let request = ("server", "ingress", "not_allowed", SOME);
        cluster.expect_denied(&before, &[request, reply]);
        expect_nothing_heard(server);
        expect_nothing_heard(client);
    });
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
    for connection in connections {
        let before = cluster.metrics();
        say(&connection.server, b"cut");
        cluster.expect_denied(&before, &[("server", "ingress", "flow_revoked", SOME)]);
        expect_nothing_heard(&connection.client);
        connection.abort();
        // The end of it is denied, too; by then it is over.
        cluster.apply(&isolate("Ingress, Egress"));
    }
}

#[test]
fn a_connection_resumes_when_the_policy_allows_it_again() {
    with_each_flow(|cluster, connection| {
        let Connection { client, server } = connection;
        cluster.apply(&allow_in(PORT));
        connection.expect_alive();

        cluster.apply(&allow_in(PORT + 1));
        let before = cluster.metrics();
        say(client, b"request");
        let request = ("server", "ingress", "not_allowed", SOME);
        cluster.expect_denied(&before, std::slice::from_ref(&request));
        say(server, b"answer");
        let answer = ("server", "egress", "flow_revoked", SOME);
        cluster.expect_denied(&before, &[answer, request]);
        expect_nothing_heard(server);
        expect_nothing_heard(client);

        // TCP sends again what was not acknowledged: nothing is lost.
        cluster.apply(&allow_in(PORT));
        expect_heard(server, b"request");
        expect_heard(client, b"answer");
        connection.expect_alive();
    });
}

#[test]
fn with_reject_a_cut_connection_breaks_for_the_client_that_sends() {
    with_each_flow(|cluster, Connection { client, server }| {
        cluster.apply(&format!("{}{}", rejecting_namespace(), isolate("Ingress")));
        let before = cluster.metrics();
        say(client, b"cut");
        assert_eq!(broken(client), ErrorKind::ConnectionReset);
        cluster.expect_denied(&before, &[("server", "ingress", "not_allowed", 1..=1)]);
        expect_nothing_heard(server);
    });
}

#[test]
fn with_reject_a_cut_connection_breaks_for_the_server_that_sends() {
    with_each_flow(|cluster, Connection { client, server }| {
        cluster.apply(&format!("{}{}", rejecting_namespace(), isolate("Ingress, Egress")));
        // Denied at the sender's own interface, and answered there.
        let before = cluster.metrics();
        say(server, b"cut");
        assert_eq!(broken(server), ErrorKind::ConnectionReset);
        cluster.expect_denied(&before, &[("server", "egress", "flow_revoked", 1..=1)]);
        expect_nothing_heard(client);
    });
}
