use Change::{NamespaceApplied, NamespaceDeleted, PodApplied, PodDeleted, PolicyApplied};

use super::*;
use crate::policy::builders::{ip, key, labels, namespace, pod, policy};

fn index(node: Option<&str>, pods: &[Pod]) -> Index {
    let mut index = Index::new(node.map(str::to_owned));
    for pod in pods {
        assert!(index.apply(PodApplied(pod.clone())));
    }
    index
}

fn endpoint_names(index: &Index) -> Vec<String> {
    index.endpoints().map(|pod| pod.key.to_string()).collect()
}

fn owners(index: &Index) -> Vec<(IpAddr, String)> {
    index.pod_addresses().map(|(address, pod)| (address, pod.key.to_string())).collect()
}

fn conflicts(index: &Index) -> Vec<(IpAddr, Vec<String>, bool)> {
    index
        .conflicts()
        .map(|conflict| {
            let claimants = conflict.claimants.iter().map(ToString::to_string).collect();
            (conflict.address, claimants, conflict.is_node_address)
        })
        .collect()
}

fn every_kind_of_pod() -> [Pod; 6] {
    [
        pod("a/local", "", &["10.0.0.1"]),
        Pod { node: Some("there".into()), ..pod("a/remote", "", &["10.0.0.2"]) },
        Pod { node: None, ..pod("a/unscheduled", "", &["10.0.0.3"]) },
        Pod { ended: true, ..pod("a/ended", "", &["10.0.0.4"]) },
        Pod { host_network: true, ..pod("a/on-host", "", &["10.0.0.5"]) },
        pod("a/without-address", "", &[]),
    ]
}

#[test]
fn endpoints_are_the_live_pods_of_the_node_that_have_an_address() {
    let index = index(Some("here"), &every_kind_of_pod());
    assert_eq!(endpoint_names(&index), ["a/local"]);
    assert_eq!(index.pods().len(), 6);
}

#[test]
fn without_a_node_name_the_pods_of_every_node_are_local() {
    let index = index(None, &every_kind_of_pod());
    assert_eq!(endpoint_names(&index), ["a/local", "a/remote", "a/unscheduled"]);
}

#[test]
fn addresses_belong_to_live_pods_of_any_node() {
    let index = index(Some("here"), &every_kind_of_pod());
    let expected = [
        (ip("10.0.0.1"), "a/local".to_owned()),
        (ip("10.0.0.2"), "a/remote".to_owned()),
        (ip("10.0.0.3"), "a/unscheduled".to_owned()),
    ];
    assert_eq!(owners(&index), expected);
    for (address, name) in expected {
        assert_eq!(index.pod_at(address).map(|pod| pod.key.to_string()), Some(name));
    }
    for nobody in ["10.0.0.4", "10.0.0.5", "192.0.2.1"] {
        assert_eq!(index.pod_at(ip(nobody)), None);
    }
}

#[test]
fn an_address_of_two_live_pods_is_nobodys_until_one_of_them_lets_go() {
    let first = pod("a/first", "", &["10.0.0.1", "fd00::1"]);
    let second = Pod { node: Some("there".into()), ..pod("b/second", "", &["10.0.0.1"]) };
    let contested = [(ip("10.0.0.1"), vec!["a/first".to_owned(), "b/second".to_owned()], false)];
    let letting_go = [
        PodDeleted(second.key.clone()),
        PodApplied(Pod { ended: true, ..second.clone() }),
        PodApplied(Pod { host_network: true, ..second.clone() }),
        PodApplied(Pod { addresses: vec![ip("10.0.0.2")], ..second.clone() }),
    ];
    for change in letting_go {
        let mut index = index(Some("here"), &[first.clone(), second.clone()]);
        assert_eq!(conflicts(&index), contested);
        assert_eq!(owners(&index), [(ip("fd00::1"), "a/first".to_owned())]);
        assert_eq!(index.pod_at(ip("10.0.0.1")), None);
        assert!(index.is_in_conflict(&first) && index.is_in_conflict(&second));

        assert!(index.apply(change.clone()));
        assert_eq!(conflicts(&index), [], "{change:?}");
        assert_eq!(index.pod_at(ip("10.0.0.1")), Some(&first));
        assert!(!index.is_in_conflict(&first));
    }
}

#[test]
fn a_pod_that_names_an_address_twice_is_not_in_conflict_with_itself() {
    let twice = pod("a/twice", "", &["10.0.0.1", "10.0.0.1"]);
    let mut index = index(None, std::slice::from_ref(&twice));
    assert_eq!(conflicts(&index), []);
    assert_eq!(index.pod_at(ip("10.0.0.1")), Some(&twice));
    assert!(index.apply(PodDeleted(twice.key)));
    assert_eq!(owners(&index), []);
}

#[test]
fn an_address_of_the_node_stays_the_nodes() {
    let claimant = pod("a/claimant", "", &["10.1.0.1"]);
    let on_host = Pod { host_network: true, ..pod("a/on-host", "", &["10.1.0.1"]) };
    let mut index = index(None, &[claimant.clone(), on_host]);
    assert_eq!(conflicts(&index), []);

    assert!(index.set_node_addresses(BTreeSet::from([ip("10.1.0.1")])));
    assert!(!index.set_node_addresses(BTreeSet::from([ip("10.1.0.1")])));
    assert_eq!(conflicts(&index), [(ip("10.1.0.1"), vec!["a/claimant".to_owned()], true)]);
    assert_eq!(index.pod_at(ip("10.1.0.1")), None);
    assert!(index.is_in_conflict(&claimant));

    assert!(index.set_node_addresses(BTreeSet::new()));
    assert_eq!(index.pod_at(ip("10.1.0.1")), Some(&claimant));
}

#[test]
fn a_namespace_that_is_not_known_has_only_the_label_of_its_name() {
    let mut index = Index::new(None);
    let unknown = labels("kubernetes.io/metadata.name=a");
    assert_eq!(*index.namespace_labels("a"), unknown);
    assert!(index.apply(NamespaceApplied(namespace("a", "team=red"))));
    assert_eq!(*index.namespace_labels("a"), labels("kubernetes.io/metadata.name=a,team=red"));
    assert!(index.apply(NamespaceDeleted("a".into())));
    assert_eq!(*index.namespace_labels("a"), unknown);
}

#[test]
fn policies_of_a_namespace_are_told_from_those_of_one_with_a_longer_name() {
    let mut index = Index::new(None);
    for name in ["a/2", "a/1", "ab/1", "a-b/1", "b/1"] {
        assert!(index.apply(PolicyApplied(policy(name, ""))));
    }
    let names: Vec<_> = index.policies_in("a").map(|policy| policy.key.clone()).collect();
    assert_eq!(names, [key("a/1"), key("a/2")]);
}

#[test]
fn the_state_is_not_complete_until_the_source_says_so() {
    let mut index = Index::new(None);
    assert!(!index.is_complete());
    assert!(!index.apply(Change::SourceComplete(false)));
    assert!(index.apply(Change::SourceComplete(true)));
    assert!(index.is_complete());
    assert!(!index.apply(Change::SourceComplete(true)));
    assert!(index.apply(Change::SourceComplete(false)));
    assert!(!index.is_complete());
}

#[test]
fn deleting_what_is_not_there_changes_nothing() {
    let mut index = index(None, &[pod("a/p", "", &["10.0.0.1"])]);
    let before = index.clone();
    assert!(!index.apply(NamespaceDeleted("b".into())));
    assert!(!index.apply(PodDeleted(key("a/q"))));
    assert!(!index.apply(Change::PolicyDeleted(key("a/p"))));
    assert_eq!(index, before);
}
