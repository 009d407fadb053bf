use crate::policy::{
    builders::{ip, key, namespace, pod, policy},
    model::Node,
};

use super::*;

fn node(name: &str, addresses: &[&str]) -> Change {
    let addresses = addresses.iter().map(|address| ip(address)).collect();
    Change::NodeApplied(Node { name: name.to_owned(), addresses })
}

fn pod_on(node: Option<&str>, name: &str, addresses: &[&str]) -> Pod {
    Pod { node: node.map(Arc::from), ..pod(name, "", addresses) }
}

fn on_host(pod: Pod) -> Pod {
    Pod { host_network: true, ..pod }
}

fn changes() -> Vec<Change> {
    vec![
        node("n1", &["172.18.0.1"]),
        Change::NamespaceApplied(namespace("a", "")),
        Change::PolicyApplied(policy("a/all", "")),
        Change::PodApplied(pod_on(None, "a/homeless", &["10.0.0.1"])),
        Change::PodApplied(on_host(pod_on(Some("n1"), "a/host", &["172.18.0.9"]))),
        Change::PodApplied(pod_on(Some("n2"), "a/elsewhere", &["10.0.0.2"])),
        Change::SourceComplete(true),
    ]
}

fn endpoints(cluster: &mut Cluster, node: Option<&str>) -> Vec<String> {
    cluster.node(&node.map(Arc::from)).endpoints().map(|pod| pod.key.to_string()).collect()
}

#[test]
fn pods_without_node_run_on_the_only_one() {
    let mut cluster: Cluster = changes().into_iter().collect();
    assert_eq!(endpoints(&mut cluster, Some("n1")), ["a/homeless"]);
    assert_eq!(endpoints(&mut cluster, Some("n2")), ["a/elsewhere"]);
}

#[test]
fn pods_without_node_share_one_without_a_name_where_there_are_several() {
    let mut cluster: Cluster = changes().into_iter().collect();
    assert_eq!(endpoints(&mut cluster, Some("n1")), ["a/homeless"]);
    cluster.apply(node("n2", &["172.18.0.2"]));
    let homeless = cluster.objects().pods()[&key("a/homeless")].clone();
    assert_eq!(cluster.home(&homeless), None);
    assert!(endpoints(&mut cluster, Some("n1")).is_empty());
    assert!(endpoints(&mut cluster, None).contains(&"a/homeless".to_owned()));
    cluster.apply(Change::NodeDeleted("n2".to_owned()));
    assert_eq!(endpoints(&mut cluster, Some("n1")), ["a/homeless"]);
}

#[test]
fn the_addresses_of_a_node_are_its_own_and_those_of_pods_on_its_network() {
    let mut cluster: Cluster = changes().into_iter().collect();
    let own = |cluster: &mut Cluster| cluster.node(&Some("n1".into())).node_addresses().clone();
    assert_eq!(own(&mut cluster), BTreeSet::from([ip("172.18.0.1"), ip("172.18.0.9")]));
    cluster.apply(Change::PodDeleted(key("a/host")));
    assert_eq!(own(&mut cluster), BTreeSet::from([ip("172.18.0.1")]));
    cluster.apply(node("n1", &["172.18.0.3"]));
    assert_eq!(own(&mut cluster), BTreeSet::from([ip("172.18.0.3")]));
}

/// What nodes see must not depend on when they were asked first.
#[test]
fn a_node_that_was_asked_early_sees_what_one_sees_that_is_asked_late() {
    let nodes = [None, Some("n1".into()), Some("n2".into())];
    let more = [
        node("n2", &["172.18.0.2"]),
        Change::PodApplied(on_host(pod_on(None, "a/homeless", &["172.18.0.7"]))),
        Change::NodeDeleted("n1".to_owned()),
        Change::PodDeleted(key("a/elsewhere")),
        Change::PolicyDeleted(key("a/all")),
        Change::SourceComplete(false),
    ];
    let all: Vec<Change> = changes().into_iter().chain(more).collect();
    let mut early = Cluster::new();
    for length in 0..=all.len() {
        let mut late: Cluster = all[..length].iter().cloned().collect();
        for node in &nodes {
            assert_eq!(early.node(node), late.node(node), "after {length} changes, at {node:?}");
        }
        if let Some(change) = all.get(length) {
            early.apply(change.clone());
        }
    }
}
