//! An isolated pod and itself through a service, which the node translates with nftables as
//! kube-proxy does: it reaches itself, and nobody else reaches it that way. Needs root.

use std::{io::ErrorKind, net::IpAddr};

use bulkhead::lab::{Listener, Wiring};
use bulkhead_tests::{
    cluster::{Cluster, DEADLINE, Member, policy},
    probe::{PATIENCE, any, connect, expect_nothing_received, expect_received, udp},
    translation::{
        Masquerade::{self, All, Hairpins},
        Service, translate,
    },
};

/// What the service is asked at, and where the pod hears it.
const PORT: u16 = 8053;
const TARGET: u16 = 5353;

/// Isolated in both directions, without a rule.
const CLOSED: &str = "{podSelector: {matchLabels: {app: server}}, policyTypes: [Ingress, Egress]}";

fn member(name: &'static str, host: u8, wiring: Wiring) -> Member {
    Member { name, host, wiring }
}

/// Datagrams to `to` that the pod hears at `own`, and answers.
fn exchange(cluster: &Cluster, own: IpAddr, to: IpAddr) {
    let hears = udp(cluster.inside("server"), own, TARGET);
    let asks = udp(cluster.inside("server"), own, 0);
    asks.send_to(b"question", (to, PORT)).expect("the kernel takes it");
    let mut bytes = [0; 64];
    let (len, from) = hears.recv_from(&mut bytes).expect("a question");
    assert_eq!(&bytes[..len], b"question");
    assert_ne!(from.ip(), own, "it was translated");
    hears.send_to(b"answer", from).expect("the kernel takes it");
    expect_received(&asks, b"answer");
}

/// With each of these kinds of translation.
fn only_the_pod_itself_gets_through(
    start: impl Fn(&[Member]) -> Cluster,
    wiring: Wiring,
    kinds: &[Masquerade],
    prepare: impl Fn(&Cluster),
) {
    let server = member("server", 10, wiring);
    let [near, far] = [("near", Wiring::Bridge), ("far", Wiring::Routed)]
        .map(|(name, wiring)| member(name, 20, wiring));
    let to_itself =
        Service { name: "own", host: 10, port: PORT, backend: server, target_port: TARGET };
    let to_another = Service { name: "far", host: 11, backend: far, ..to_itself };
    let services = [to_itself, to_another];
    let mut cluster = start(&[server, near, far]);
    prepare(&cluster);
    let _listeners = ["server", "far"]
        .map(|name| Listener::start(cluster.inside(name), name, &[TARGET]).expect("a listener"));

    for &masquerade in kinds {
        translate(cluster.node(), &services, masquerade);
        let manifests: String = services.iter().map(Service::manifest).collect();
        cluster.apply(&manifests);
        // Without a policy everybody gets through: the translation works.
        for (to, own) in to_itself.addresses().into_iter().zip(server.addresses()) {
            for from in ["server", "near", "far"] {
                connect(cluster.inside(from), to, PORT, DEADLINE)
                    .unwrap_or_else(|error| panic!("{from} to {to}: {error}, {masquerade:?}"));
            }
            exchange(&cluster, own, to);
        }

        cluster.apply(&(manifests + &policy("closed", CLOSED)));
        for family in 0..2 {
            let [to, own, other] =
                [to_itself.addresses(), server.addresses(), to_another.addresses()]
                    .map(|addresses| addresses[family]);
            let before = cluster.metrics();
            connect(cluster.inside("server"), to, PORT, DEADLINE)
                .unwrap_or_else(|error| panic!("to itself, by {to}: {error}, {masquerade:?}"));
            exchange(&cluster, own, to);
            cluster.expect_denied(&before, &[]);

            for from in ["near", "far"] {
                let before = cluster.metrics();
                let error = connect(cluster.inside(from), to, PORT, PATIENCE).expect_err("denied");
                assert_eq!(error.kind(), ErrorKind::TimedOut, "{from} to {to}: {error}");
                cluster.expect_denied(&before, &[("server", "ingress", "not_allowed", 1..=3)]);

                let before = cluster.metrics();
                let hears = udp(cluster.inside("server"), own, TARGET);
                let asks = udp(cluster.inside(from), any(to), 0);
                asks.send_to(b"question", (to, PORT)).expect("the kernel takes it");
                cluster.expect_denied(&before, &[("server", "ingress", "not_allowed", 1..=1)]);
                expect_nothing_received(&hears);
            }

            // A service of somebody else is not its own.
            let before = cluster.metrics();
            let error =
                connect(cluster.inside("server"), other, PORT, PATIENCE).expect_err("denied");
            assert_eq!(error.kind(), ErrorKind::TimedOut, "to {other}: {error}");
            cluster.expect_denied(&before, &[("server", "egress", "not_allowed", 1..=3)]);
        }
    }
}

#[test]
fn behind_a_route_an_isolated_pod_reaches_itself_alone_through_its_service() {
    only_the_pod_itself_gets_through(Cluster::start, Wiring::Routed, &[Hairpins, All], |_| ());
}

#[test]
fn where_egress_to_the_node_is_denied_an_isolated_pod_reaches_itself_alone_through_its_service() {
    // It answers to the node's address.
    let start = Cluster::start_denying_egress_to_node;
    only_the_pod_itself_gets_through(start, Wiring::Routed, &[Hairpins, All], |_| ());
}

#[test]
fn on_a_bridge_an_isolated_pod_reaches_itself_alone_through_its_service() {
    // With hairpins alone, a neighbour's answers would go straight to it, as nobody's that it asked.
    only_the_pod_itself_gets_through(Cluster::start, Wiring::Bridge, &[All], |cluster| {
        cluster.filter_on_bridge(false);
    });
}

#[test]
fn where_the_bridge_translates_an_isolated_pod_reaches_itself_alone_through_its_service() {
    only_the_pod_itself_gets_through(Cluster::start, Wiring::Bridge, &[Hairpins, All], |cluster| {
        assert!(cluster.filter_on_bridge(true), "this needs a kernel with br_netfilter");
        // What is translated on the bridge may go back to where it came from.
        let port = cluster.pod("server").interface();
        let hairpin = ["link", "set", port, "type", "bridge_slave", "hairpin", "on"];
        cluster.node().ip(hairpin).expect("a port of the bridge");
    });
}
