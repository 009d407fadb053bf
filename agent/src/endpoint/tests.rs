use super::*;
use crate::{
    links::Veth,
    policy::{compiled::EndpointPolicy, model::ObjectKey},
};

fn key(name: &str) -> ObjectKey {
    ObjectKey::new("shop", name)
}

fn compiled(pods: &[(&str, &str, &[&str])]) -> Compiled {
    let endpoint = |uid: &str, addresses: &[&str]| EndpointPolicy {
        uid: uid.to_owned(),
        addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
        ingress: None,
        egress: None,
        deny_action: bulkhead_common::verdict::DenyAction::Drop,
    };
    let endpoints =
        pods.iter().map(|(name, uid, addresses)| (key(name), endpoint(uid, addresses))).collect();
    Compiled { endpoints, ..Compiled::default() }
}

fn links(veths: &[(u32, &[&str])]) -> LinkState {
    let veth = |ifindex, addresses: &[&str]| Veth {
        ifindex,
        name: format!("veth{ifindex}"),
        peer_addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
    };
    LinkState {
        veths: veths
            .iter()
            .map(|(ifindex, addresses)| (*ifindex, veth(*ifindex, addresses)))
            .collect(),
        ..LinkState::default()
    }
}

/// Updates one after the other, with no interface that exists unseen; the last bindings.
fn after(steps: &[(LinkState, Compiled)]) -> Vec<(u32, Binding)> {
    let mut bindings = Bindings::default();
    for (links, compiled) in steps {
        bindings.update(links, compiled, |_| false);
    }
    bindings.iter().map(|(ifindex, binding)| (ifindex, binding.clone())).collect()
}

fn pod(name: &str) -> Binding {
    Binding::Pod(key(name))
}

#[test]
fn an_interface_is_bound_to_the_pod_whose_address_is_behind_it() {
    let links = links(&[(3, &["10.0.0.1", "fd00::1"]), (4, &["10.0.0.2"])]);
    let compiled = compiled(&[("a", "", &["10.0.0.1", "fd00::1"]), ("b", "", &["10.0.0.2"])]);
    assert_eq!(after(&[(links, compiled)]), [(3, pod("a")), (4, pod("b"))]);
}

#[test]
fn an_interface_of_no_known_pod_is_left_alone() {
    let links = links(&[(3, &["10.0.0.9"]), (4, &[])]);
    assert_eq!(after(&[(links, compiled(&[("a", "", &["10.0.0.1"])]))]), []);
}

#[test]
fn a_pod_whose_addresses_vanish_for_a_moment_stays_bound() {
    let compiled = compiled(&[("a", "", &["10.0.0.1"])]);
    let steps = [(links(&[(3, &["10.0.0.1"])]), compiled.clone()), (links(&[(3, &[])]), compiled)];
    assert_eq!(after(&steps), [(3, pod("a"))]);
}

#[test]
fn a_pod_that_takes_the_address_of_another_beside_its_own_keeps_its_own_policy() {
    let compiled = compiled(&[("a", "", &["10.0.0.1"]), ("b", "", &["10.0.0.2"])]);
    let steps = [
        (links(&[(3, &["10.0.0.1"]), (4, &["10.0.0.2"])]), compiled.clone()),
        (links(&[(3, &["10.0.0.1", "10.0.0.2"]), (4, &["10.0.0.2"])]), compiled),
    ];
    assert_eq!(after(&steps), [(3, pod("a")), (4, pod("b"))]);
}

#[test]
fn a_pod_that_changes_its_address_for_that_of_another_is_closed() {
    let compiled = compiled(&[("a", "", &["10.0.0.1"]), ("b", "", &["10.0.0.2"])]);
    let steps = [
        (links(&[(3, &["10.0.0.1"]), (4, &["10.0.0.2"])]), compiled.clone()),
        (links(&[(3, &["10.0.0.2"]), (4, &["10.0.0.2"])]), compiled),
    ];
    let doubt = Doubt::OtherPod { was: key("a"), shows: BTreeSet::from([key("b")]) };
    assert_eq!(after(&steps), [(3, Binding::Closed(doubt)), (4, pod("b"))]);
}

#[test]
fn of_two_new_interfaces_with_one_pods_address_both_are_closed() {
    let links = links(&[(3, &["10.0.0.1"]), (4, &["10.0.0.1"])]);
    let closed = || Binding::Closed(Doubt::PodElsewhere(key("a")));
    let compiled = compiled(&[("a", "", &["10.0.0.1"])]);
    assert_eq!(after(&[(links, compiled)]), [(3, closed()), (4, closed())]);
}

#[test]
fn a_second_interface_with_a_pods_address_is_closed_and_the_first_is_not() {
    let compiled = compiled(&[("a", "", &["10.0.0.1"])]);
    let steps = [
        (links(&[(4, &["10.0.0.1"])]), compiled.clone()),
        (links(&[(3, &["10.0.0.1"]), (4, &["10.0.0.1"])]), compiled),
    ];
    let closed = Binding::Closed(Doubt::PodElsewhere(key("a")));
    assert_eq!(after(&steps), [(3, closed), (4, pod("a"))]);
}

#[test]
fn a_closed_interface_is_bound_once_the_pod_is_nobody_elses() {
    let compiled = compiled(&[("a", "", &["10.0.0.1"])]);
    let steps = [
        (links(&[(3, &["10.0.0.1"]), (4, &["10.0.0.1"])]), compiled.clone()),
        (links(&[(4, &["10.0.0.1"])]), compiled),
    ];
    assert_eq!(after(&steps), [(4, pod("a"))]);
}

#[test]
fn an_interface_with_addresses_of_several_pods_is_closed() {
    let compiled = compiled(&[("a", "", &["10.0.0.1"]), ("b", "", &["10.0.0.2"])]);
    let doubt = Doubt::SeveralPods(BTreeSet::from([key("a"), key("b")]));
    let links = links(&[(3, &["10.0.0.1", "10.0.0.2"])]);
    assert_eq!(after(&[(links, compiled)]), [(3, Binding::Closed(doubt))]);
}

#[test]
fn an_interface_whose_pod_is_gone_is_closed_until_it_is_gone_itself() {
    let there = links(&[(3, &["10.0.0.1"])]);
    let with = compiled(&[("a", "", &["10.0.0.1"])]);
    let without = compiled(&[]);
    let closed = Binding::Closed(Doubt::PodGone(key("a")));
    let steps = [(there.clone(), with.clone()), (there, without.clone())];
    assert_eq!(after(&steps), [(3, closed)]);
    let [first, second] = steps;
    assert_eq!(after(&[first, second, (links(&[]), without)]), []);
}

#[test]
fn a_pod_of_the_same_name_but_another_uid_is_another_pod() {
    let there = links(&[(3, &["10.0.0.1"])]);
    let steps = [
        (there.clone(), compiled(&[("a", "1", &["10.0.0.1"])])),
        (there, compiled(&[("a", "2", &["10.0.0.7"])])),
    ];
    assert_eq!(after(&steps), [(3, Binding::Closed(Doubt::PodGone(key("a"))))]);
}

#[test]
fn an_interface_passes_on_with_its_address_when_the_old_pod_is_gone() {
    let there = links(&[(3, &["10.0.0.1"])]);
    let steps = [
        (there.clone(), compiled(&[("a", "1", &["10.0.0.1"])])),
        (there, compiled(&[("b", "2", &["10.0.0.1"])])),
    ];
    assert_eq!(after(&steps), [(3, pod("b"))]);
}

#[test]
fn an_interface_that_exists_unseen_stays_bound() {
    let compiled = compiled(&[("a", "", &["10.0.0.1"])]);
    let mut bindings = Bindings::default();
    bindings.update(&links(&[(3, &["10.0.0.1"])]), &compiled, |_| true);
    bindings.update(&links(&[]), &compiled, |_| true);
    assert_eq!(bindings.get(3), Some(&pod("a")));
    bindings.update(&links(&[]), &compiled, |_| false);
    assert_eq!(bindings.get(3), None);
}

#[test]
fn the_interface_of_a_pod_that_is_gone_is_not_bound_to_a_pod_whose_address_it_takes() {
    let compiled_a = compiled(&[("a", "1", &["10.0.0.1"])]);
    let compiled_b = compiled(&[("b", "2", &["10.0.0.2"])]);
    let steps = [
        (links(&[(3, &["10.0.0.1"])]), compiled_a),
        (links(&[(3, &["10.0.0.1"])]), compiled_b.clone()),
        (links(&[(3, &["10.0.0.2"])]), compiled_b),
    ];
    assert_eq!(after(&steps), [(3, Binding::Closed(Doubt::PodGone(key("a"))))]);
}
