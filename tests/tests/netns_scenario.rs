//! The reference scenario, from manifests to what `ping` and sockets in pods see: both kinds of
//! wiring, both families, both deny actions, both directions. Needs root.
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic, too")]

use std::{io::ErrorKind, net::IpAddr};

use bulkhead::lab::{Listener, Wiring};
use bulkhead_tests::{
    cluster::{Cluster, DEADLINE, Member, policy, rejecting_namespace},
    probe::{
        PATIENCE, PINGS, any, connect, expect_nothing_received, expect_received, ping, refused,
        send, udp,
    },
};

const MYSQL: u16 = 3306;
const HTTP: u16 = 80;
/// Of nobody's interest but the test's.
const DATAGRAMS: u16 = 5353;

fn members(wiring: Wiring) -> [Member; 3] {
    [("mysql", 10), ("wordpress", 20), ("intruder", 66)].map(|(name, host)| Member {
        name,
        host,
        wiring,
    })
}

/// Into mysql from wordpress on 3306.
fn ingress_policy() -> String {
    policy(
        "mysql",
        "{podSelector: {matchLabels: {app: mysql}}, policyTypes: [Ingress], ingress: [{from: \
         [{podSelector: {matchLabels: {app: wordpress}}}], ports: [{protocol: TCP, port: 3306}]}]}",
    )
}

/// Out of wordpress to mysql on 3306.
fn egress_policy() -> String {
    policy(
        "wordpress",
        "{podSelector: {matchLabels: {app: wordpress}}, policyTypes: [Egress], egress: [{to: \
         [{podSelector: {matchLabels: {app: mysql}}}], ports: [{protocol: TCP, port: 3306}]}]}",
    )
}

struct Scenario {
    cluster: Cluster,
    mysql: [IpAddr; 2],
    _listener: Listener,
}

impl Scenario {
    fn start(wiring: Wiring) -> Self {
        Self::on(wiring, Cluster::start)
    }

    fn on(wiring: Wiring, start: fn(&[Member]) -> Cluster) -> Self {
        let members = members(wiring);
        let cluster = start(&members);
        let listener = Listener::start(cluster.inside("mysql"), "mysql", &[HTTP, MYSQL]).unwrap();
        Self { cluster, mysql: members[0].addresses(), _listener: listener }
    }

    /// Everything reaches mysql, in every way.
    fn expect_open(&self) {
        let before = self.cluster.metrics();
        for to in self.mysql {
            for from in ["wordpress", "intruder"] {
                for port in [HTTP, MYSQL] {
                    let connected = connect(self.cluster.inside(from), to, port, DEADLINE);
                    connected.unwrap_or_else(|error| panic!("{from} to {to}: {error}"));
                }
                let pinged = ping(self.cluster.inside(from), to);
                assert!(pinged.answered, "{}", pinged.output);
                self.exchange(from, to);
            }
        }
        self.cluster.expect_denied(&before, &[]);
    }

    /// A question and its answer, in datagrams.
    fn exchange(&self, from: &str, to: IpAddr) {
        let server = udp(self.cluster.inside("mysql"), to, DATAGRAMS);
        let client = udp(self.cluster.inside(from), any(to), 0);
        send(&client, &server, b"question");
        let (len, client_at) = server.recv_from(&mut [0; 64]).unwrap();
        assert_eq!(len, b"question".len());
        server.send_to(b"answer", client_at).unwrap();
        expect_received(&client, b"answer");
    }
}

fn denied_packets_vanish(mut scenario: Scenario) {
    scenario.expect_open();
    scenario.cluster.apply(&ingress_policy());
    let cluster = &scenario.cluster;

    for to in scenario.mysql {
        let allowed = cluster.metrics();
        connect(cluster.inside("wordpress"), to, MYSQL, DEADLINE).unwrap();
        cluster.expect_denied(&allowed, &[]);

        for (from, port) in [("wordpress", HTTP), ("intruder", HTTP), ("intruder", MYSQL)] {
            let before = cluster.metrics();
            let error = connect(cluster.inside(from), to, port, PATIENCE).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::TimedOut, "{from} to {to} port {port}: {error}");
            // The kernel may have had the time to send its segment again.
            cluster.expect_denied(&before, &[("mysql", "ingress", "not_allowed", 1..=3)]);
        }

        let before = cluster.metrics();
        let pinged = ping(cluster.inside("wordpress"), to);
        assert!(!pinged.answered && pinged.output.contains("100% packet loss"), "{pinged:?}");
        cluster.expect_denied(&before, &[("mysql", "ingress", "not_allowed", PINGS..=PINGS)]);

        let before = cluster.metrics();
        let server = udp(cluster.inside("mysql"), to, DATAGRAMS);
        send(&udp(cluster.inside("intruder"), any(to), 0), &server, b"denied");
        cluster.expect_denied(&before, &[("mysql", "ingress", "not_allowed", 1..=1)]);
        expect_nothing_received(&server);
    }

    scenario.cluster.apply("");
    scenario.expect_open();
}

fn denied_packets_are_answered(mut scenario: Scenario) {
    for (policy, pod, direction) in
        [(ingress_policy(), "mysql", "ingress"), (egress_policy(), "wordpress", "egress")]
    {
        scenario.cluster.apply(&format!("{}{policy}", rejecting_namespace()));
        let cluster = &scenario.cluster;
        let from = cluster.inside("wordpress");
        for to in scenario.mysql {
            let before = cluster.metrics();
            connect(from, to, MYSQL, DEADLINE).unwrap();
            cluster.expect_denied(&before, &[]);

            // Within the deadline, and with one packet: not after one that was sent again.
            let error = connect(from, to, HTTP, DEADLINE).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}");
            cluster.expect_denied(&before, &[(pod, direction, "not_allowed", 1..=1)]);

            // On a connected socket: it is the denied address that says so.
            let error = refused(from, to, DATAGRAMS);
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}");
            cluster.expect_denied(&before, &[(pod, direction, "not_allowed", 2..=2)]);

            let pinged = ping(from, to);
            assert!(!pinged.answered, "{}", pinged.output);
            let says = format!("From {to}");
            let said = pinged.output.to_lowercase().contains("port unreachable");
            assert!(said && pinged.output.contains(&says), "{}", pinged.output);
            let all = 2 + PINGS;
            cluster.expect_denied(&before, &[(pod, direction, "not_allowed", all..=all)]);
        }
    }
    scenario.cluster.apply(&rejecting_namespace());
    scenario.expect_open();
}

#[test]
fn on_a_bridge_denied_packets_vanish() {
    denied_packets_vanish(Scenario::start(Wiring::Bridge));
}

#[test]
fn behind_routes_denied_packets_vanish() {
    denied_packets_vanish(Scenario::start(Wiring::Routed));
}

#[test]
fn on_a_bridge_denied_packets_are_answered() {
    denied_packets_are_answered(Scenario::start(Wiring::Bridge));
}

#[test]
fn behind_routes_denied_packets_are_answered() {
    denied_packets_are_answered(Scenario::start(Wiring::Routed));
}

#[test]
fn by_filters_denied_packets_vanish() {
    denied_packets_vanish(Scenario::on(Wiring::Bridge, Cluster::start_on_filters));
}

#[test]
fn by_filters_denied_packets_are_answered() {
    denied_packets_are_answered(Scenario::on(Wiring::Routed, Cluster::start_on_filters));
}

#[test]
fn what_a_pod_may_not_send_is_dropped_at_its_own_interface() {
    let mut scenario = Scenario::start(Wiring::Bridge);
    scenario.cluster.apply(&egress_policy());
    let cluster = &scenario.cluster;
    for to in scenario.mysql {
        let before = cluster.metrics();
        connect(cluster.inside("wordpress"), to, MYSQL, DEADLINE).unwrap();
        connect(cluster.inside("intruder"), to, HTTP, DEADLINE).unwrap();
        cluster.expect_denied(&before, &[]);
        let pinged = ping(cluster.inside("wordpress"), to);
        assert!(!pinged.answered, "{}", pinged.output);
        cluster.expect_denied(&before, &[("wordpress", "egress", "not_allowed", PINGS..=PINGS)]);
        let error = connect(cluster.inside("wordpress"), to, HTTP, PATIENCE).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
    }
}
