//! What a running agent does with input that it cannot read or understand: nothing that was closed
//! is ever opened by it, and it says what is wrong. `docs/manifests.md` has the rules. Needs root.

use std::{fs, net::IpAddr, path::PathBuf, thread, time::Instant};

use bulkhead_tests::{
    cluster::{Cluster, DEADLINE, LOOK_EVERY, Member, endpoints, pod, policy},
    probe::{expect_nothing_received, expect_received, send, udp},
    scrape::Page,
};

const SERVER: Member = Member::bridged("server", 10);
const FRIEND: Member = Member::bridged("friend", 11);
const STRANGER: Member = Member::bridged("stranger", 12);
const MEMBERS: [Member; 3] = [SERVER, FRIEND, STRANGER];
const PORT: u16 = 5353;

const PODS: &str = "pods.yaml";
const POLICY: &str = "policy.yaml";
const BROKEN: &str = "---\nkind: [NetworkPolicy\nmetadata: {\n";
/// No object in it.
const COMMENT: &str = "# nothing\n";

fn pods() -> String {
    MEMBERS.map(Member::manifest).concat()
}

/// The friend may send datagrams to the server.
fn allow_friend() -> String {
    policy(
        "server",
        "{podSelector: {matchLabels: {app: server}}, policyTypes: [Ingress], ingress: [{from: \
         [{podSelector: {matchLabels: {app: friend}}}], ports: [{protocol: UDP, port: 5353}]}]}",
    )
}

/// The same with a field that Kubernetes does not know: taken away, it would allow more.
fn misspelt() -> String {
    allow_friend().replace("{protocol: UDP, port: 5353}", "{protocol: UDP, prot: 5353}")
}

/// A running agent that has the pods and the policy, in a file each.
fn start() -> Cluster {
    let cluster = Cluster::start_with(&MEMBERS, &[(PODS, &pods()), (POLICY, &allow_friend())]);
    cluster.wait_for("all pods are attached", |page| endpoints(page, "attached") == Some(3.0));
    expect_policy_live(&cluster);
    cluster
}

/// Every address of the server, with the one of the other pod that it hears from.
fn pairs(other: Member) -> impl Iterator<Item = (IpAddr, IpAddr)> {
    other.addresses().into_iter().zip(SERVER.addresses())
}

fn expect_reached(cluster: &Cluster, from: Member) {
    for (from_at, to_at) in pairs(from) {
        let client = udp(cluster.inside(from.name), from_at, 0);
        let server = udp(cluster.inside("server"), to_at, PORT);
        send(&client, &server, b"allowed");
        expect_received(&server, b"allowed");
    }
}

/// What this pod sends to the server is denied here, and nothing else is: pod and direction.
fn expect_denied_at(cluster: &Cluster, from: Member, (pod, direction): (&str, &str)) {
    let before = cluster.metrics();
    for (sent, (from_at, to_at)) in (1..).zip(pairs(from)) {
        let client = udp(cluster.inside(from.name), from_at, 0);
        let server = udp(cluster.inside("server"), to_at, PORT);
        send(&client, &server, b"denied");
        cluster.expect_denied(&before, &[(pod, direction, "not_allowed", sent..=sent)]);
        expect_nothing_received(&server);
    }
}

fn expect_closed(cluster: &Cluster, from: Member) {
    expect_denied_at(cluster, from, ("server", "ingress"));
}

fn expect_policy_live(cluster: &Cluster) {
    expect_reached(cluster, FRIEND);
    expect_closed(cluster, STRANGER);
}

fn expect_all_closed(cluster: &Cluster) {
    expect_closed(cluster, FRIEND);
    expect_closed(cluster, STRANGER);
}

fn rejected(page: &Page, kind: &str) -> Option<f64> {
    page.value("bulkhead_rejected_objects", &[("kind", kind)])
}

fn wait_for_rejected(cluster: &Cluster, kind: &str, count: f64) {
    cluster.wait_for(&format!("{count} of {kind} rejected"), |page| {
        rejected(page, kind) == Some(count)
    });
}

/// Whether the agent calls itself ready, or why not.
fn expect_ready(cluster: &Cluster, expected: Result<(), &str>) {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let answer = cluster.get("/readyz");
        let fits = match expected {
            Ok(()) => answer.status == 200 && answer.body == "ok\n",
            Err(why) => answer.status == 503 && answer.body.contains(why),
        };
        if fits {
            return;
        }
        assert!(Instant::now() < deadline, "{answer:?}, expected: {expected:?}");
        thread::sleep(LOOK_EVERY);
    }
}

#[test]
fn a_file_that_breaks_leaves_what_it_said_in_force() {
    let cluster = start();
    cluster.write(POLICY, BROKEN);
    wait_for_rejected(&cluster, "File", 1.0);
    expect_policy_live(&cluster);
    // What is known is enforced.
    expect_ready(&cluster, Ok(()));

    cluster.write(PODS, BROKEN);
    wait_for_rejected(&cluster, "File", 2.0);
    expect_policy_live(&cluster);

    cluster.write(PODS, &pods());
    cluster.write(POLICY, &allow_friend());
    wait_for_rejected(&cluster, "File", 0.0);
    expect_policy_live(&cluster);
}

#[test]
fn a_file_that_was_never_read_closes_every_pod_until_it_is_mended() {
    let cluster = Cluster::start_with(&MEMBERS, &[(PODS, &pods()), (POLICY, BROKEN)]);
    cluster.wait_for("all pods are attached", |page| {
        endpoints(page, "attached") == Some(3.0) && rejected(page, "File") == Some(1.0)
    });
    expect_ready(&cluster, Err("has not named everything it holds"));
    // Closed in both directions: it ends at the sender.
    for from in [FRIEND, STRANGER] {
        expect_denied_at(&cluster, from, (from.name, "egress"));
    }

    cluster.write(POLICY, &allow_friend());
    wait_for_rejected(&cluster, "File", 0.0);
    expect_ready(&cluster, Ok(()));
    expect_policy_live(&cluster);
}

#[test]
fn a_policy_with_an_unknown_field_closes_its_pods() {
    let cluster = start();
    cluster.write(POLICY, &misspelt());
    wait_for_rejected(&cluster, "NetworkPolicy", 1.0);
    expect_all_closed(&cluster);

    cluster.write(POLICY, &allow_friend());
    wait_for_rejected(&cluster, "NetworkPolicy", 0.0);
    expect_policy_live(&cluster);
}

#[test]
fn a_pod_without_address_opens_nothing_and_stops_nothing() {
    let cluster = start();
    // A new one: nothing to enforce yet.
    cluster.write("more.yaml", &pod("new", &[]));
    cluster.write(POLICY, &misspelt());
    wait_for_rejected(&cluster, "NetworkPolicy", 1.0);
    expect_all_closed(&cluster);
    cluster.write(POLICY, &allow_friend());
    wait_for_rejected(&cluster, "NetworkPolicy", 0.0);
    expect_policy_live(&cluster);

    // One that had some: its interface is nobody's, and closed.
    let nowhere = [pod("server", &[]), FRIEND.manifest(), STRANGER.manifest()].concat();
    cluster.write(PODS, &nowhere);
    cluster.wait_for("the interface is closed", |page| endpoints(page, "closed") == Some(1.0));
    expect_all_closed(&cluster);

    cluster.write(PODS, &pods());
    cluster.wait_for("it is the pod's again", |page| endpoints(page, "closed") == Some(0.0));
    expect_policy_live(&cluster);
}

#[test]
fn two_pods_with_one_address_are_closed_until_it_is_one_s_alone() {
    let cluster = start();
    for contested in SERVER.addresses() {
        cluster.write("twin.yaml", &pod("twin", &[contested]));
        // In both directions, beside the server's ingress; the twin, too, which has no interface.
        cluster.wait_for("both are isolated", |page| isolated(page, "egress") == Some(2.0));
        expect_all_closed(&cluster);
        cluster.remove("twin.yaml");
        cluster.wait_for("the server is free", |page| isolated(page, "egress") == Some(0.0));
        expect_policy_live(&cluster);
    }
    // Its address is nobody's: no rule lets it in, and it gets nowhere.
    cluster.write("twin.yaml", &pod("twin", &FRIEND.addresses()));
    cluster.wait_for("both are isolated", |page| isolated(page, "egress") == Some(2.0));
    expect_denied_at(&cluster, FRIEND, ("friend", "egress"));
    expect_closed(&cluster, STRANGER);
}

fn isolated(page: &Page, direction: &str) -> Option<f64> {
    page.value("bulkhead_isolated_endpoints", &[("direction", direction)])
}

/// The directory, and two that it can change places with.
fn places(cluster: &Cluster) -> [PathBuf; 3] {
    let there = cluster.manifests();
    let [aside, empty] = ["aside", "empty"].map(|other| there.with_extension(other));
    [there, aside, empty]
}

#[test]
fn a_directory_that_is_emptied_leaves_everything_in_force() {
    let cluster = start();
    let [there, aside, empty] = places(&cluster);
    fs::create_dir(&empty).expect("a directory");
    fs::rename(&there, &aside).expect("it is moved");
    fs::rename(&empty, &there).expect("it is moved");
    cluster.wait_for("it is empty", |page| {
        rejected(page, "Directory") == Some(1.0)
            && page.value("bulkhead_source_available", &[]) == Some(0.0)
    });
    expect_ready(&cluster, Err("source of pods and policies is not available"));
    expect_policy_live(&cluster);

    fs::rename(&there, &empty).expect("it is moved");
    fs::rename(&aside, &there).expect("it is moved");
    cluster.wait_for("it is back", |page| rejected(page, "Directory") == Some(0.0));
    expect_ready(&cluster, Ok(()));

    // What empties it on purpose.
    cluster.write(POLICY, COMMENT);
    cluster.wait_for("no policy", |page| isolated(page, "ingress") == Some(0.0));
    expect_reached(&cluster, FRIEND);
    expect_reached(&cluster, STRANGER);
}

#[test]
fn a_directory_that_vanishes_leaves_everything_in_force_until_it_is_back() {
    let cluster = start();
    let [there, aside, _] = places(&cluster);
    fs::rename(&there, &aside).expect("it is moved");
    cluster.wait_for("it is gone", |page| {
        rejected(page, "Directory") == Some(1.0)
            && page.value("bulkhead_source_available", &[]) == Some(0.0)
    });
    expect_ready(&cluster, Err("source of pods and policies is not available"));
    expect_policy_live(&cluster);

    fs::write(aside.join(POLICY), misspelt()).expect("a file");
    fs::rename(&aside, &there).expect("it is moved");
    cluster.wait_for("it is back, and read", |page| {
        page.value("bulkhead_source_available", &[]) == Some(1.0)
            && rejected(page, "NetworkPolicy") == Some(1.0)
    });
    expect_all_closed(&cluster);
    expect_ready(&cluster, Ok(()));
}
