use super::{
    services::{
        CLUSTER_IP, PORT_80, PORT_8080, TCP, UDP, allowed_by, backend, front, service_denied,
        towards, with_services,
    },
    *,
};
use crate::policy::builders::{block, service, slice};

const CLUSTER_IP_V6: &str = "fd00:96::1";

#[test]
fn only_ready_backends_count() {
    let mut index = front(&[egress(&[rule(&[namespaces("team=red")], &[])])], &[SAME_NAMESPACE]);
    assert!(!ask(&index, Egress, CLUSTER_IP, HTTP).is_allowed());
    let ready = slice("b/front-1", "front", &[OTHER_NAMESPACE], &PORT_8080);
    index.apply(Change::EndpointSliceApplied(ready));
    let to_backend = towards(&[backend(OTHER_NAMESPACE, 8080)], &[]);
    assert_eq!(ask(&index, Egress, CLUSTER_IP, HTTP), allowed_by(&[0], to_backend));
    index.apply(Change::EndpointSliceDeleted(key("b/front-1")));
    assert_eq!(ask(&index, Egress, CLUSTER_IP, HTTP), service_denied(towards(&[], &[])));
}

#[test]
fn each_family_of_a_service_leads_to_the_backends_of_that_family() {
    let index = with_services(
        &[egress(&[rule(&[namespaces("team=red")], &[])])],
        &[service("b/front", &[CLUSTER_IP, CLUSTER_IP_V6], &PORT_80)],
        &[
            slice("b/front-v4", "front", &[OTHER_NAMESPACE, SAME_NAMESPACE], &PORT_8080),
            slice("b/front-v6", "front", &[OTHER_V6], &PORT_8080),
        ],
    );
    let (other, same) = (backend(OTHER_NAMESPACE, 8080), backend(SAME_NAMESPACE, 8080));
    assert_eq!(ask(&index, Egress, CLUSTER_IP, HTTP), service_denied(towards(&[other], &[same])));
    assert_eq!(
        ask(&index, Egress, CLUSTER_IP_V6, HTTP),
        allowed_by(&[0], towards(&[backend(OTHER_V6, 8080)], &[]))
    );
}

#[test]
fn slices_count_for_the_service_of_their_name_in_their_own_namespace() {
    let index = with_services(
        &[egress(&[rule(&[namespaces("team=red")], &[])])],
        &[
            service("b/front", &[CLUSTER_IP], &PORT_80),
            service("a/front", &["10.96.0.2"], &PORT_80),
        ],
        &[
            slice("b/front-1", "front", &[OTHER_NAMESPACE], &PORT_8080),
            slice("b/other-1", "other", &[SAME_NAMESPACE], &PORT_8080),
            slice("a/front-1", "front", &[SAME_NAMESPACE], &PORT_8080),
        ],
    );
    assert!(ask(&index, Egress, CLUSTER_IP, HTTP).is_allowed());
    assert!(!ask(&index, Egress, "10.96.0.2", HTTP).is_allowed());
}

#[test]
fn a_pod_reaches_itself_through_a_service() {
    let own = ["10.0.0.1"];
    let index = front(&[egress(&[])], &own);
    let to_itself = towards(&[backend("10.0.0.1", 8080)], &[]);
    assert_eq!(ask(&index, Egress, CLUSTER_IP, HTTP), allowed_by(&[], to_itself));

    let index = front(&[egress(&[])], &["10.0.0.1", SAME_NAMESPACE]);
    let mixed = towards(&[backend("10.0.0.1", 8080)], &[backend(SAME_NAMESPACE, 8080)]);
    assert_eq!(ask(&index, Egress, CLUSTER_IP, HTTP), service_denied(mixed));
}

#[test]
fn a_backend_on_the_own_node_is_always_allowed_and_one_on_another_by_address() {
    let index = front(&[egress(&[])], &[NODE]);
    let on_node = towards(&[backend(NODE, 8080)], &[]);
    assert_eq!(ask(&index, Egress, CLUSTER_IP, HTTP), allowed_by(&[], on_node));

    let other_node = "10.1.0.2";
    let index = front(&[egress(&[rule(&[namespaces("")], &[])])], &[NODE, other_node]);
    let mixed = towards(&[backend(NODE, 8080)], &[backend(other_node, 8080)]);
    assert_eq!(ask(&index, Egress, CLUSTER_IP, HTTP), service_denied(mixed));
    let index =
        front(&[egress(&[rule(&[block("10.1.0.0/24", &[])], &[tcp(8080)])])], &[NODE, other_node]);
    let both = towards(&[backend(NODE, 8080), backend(other_node, 8080)], &[]);
    assert_eq!(ask(&index, Egress, CLUSTER_IP, HTTP), allowed_by(&[0], both));
}

#[test]
fn a_backend_on_the_own_node_is_allowed_by_rules_only_where_these_decide() {
    let node_is = |policy, allowed: bool| {
        let index = front(&[policy], &[NODE]).deny_egress_to_node(true);
        assert_eq!(ask(&index, Egress, CLUSTER_IP, HTTP).is_allowed(), allowed);
    };
    node_is(egress(&[]), false);
    node_is(egress(&[rule(&[namespaces("")], &[])]), false);
    node_is(egress(&[rule(&[block("10.1.0.0/24", &[])], &[tcp(8080)])]), true);
    node_is(egress(&[rule(&[block("10.1.0.0/24", &[])], &[tcp(80)])]), false);
}

#[test]
fn backends_outside_the_cluster_and_contested_ones_are_allowed_by_blocks_only() {
    for (peers, expected) in [
        (vec![namespaces("")], false),
        (vec![block("192.0.2.0/24", &[]), block("10.0.0.2/32", &[])], true),
    ] {
        let policy = egress(&[rule(&peers, &[tcp(8080)])]);
        let mut index = front(&[policy], &[OUTSIDE, SAME_NAMESPACE]);
        index.apply(Change::PodApplied(pod("a/twin", "app=web", &[SAME_NAMESPACE])));
        assert_eq!(ask(&index, Egress, CLUSTER_IP, HTTP).is_allowed(), expected, "{peers:?}");
    }
}

#[test]
fn a_backend_is_not_looked_up_as_a_service_again() {
    let second = "10.96.0.2";
    let index = with_services(
        &[egress(&[rule(&[namespaces("team=red")], &[])])],
        &[service("b/front", &[CLUSTER_IP], &PORT_80), service("b/back", &[second], &PORT_8080)],
        &[
            slice("b/front-1", "front", &[second], &PORT_8080),
            slice("b/back-1", "back", &[OTHER_NAMESPACE], &PORT_8080),
        ],
    );
    assert!(ask(&index, Egress, second, Traffic::Port(TCP, 8080)).is_allowed());
    let to_second = towards(&[], &[backend(second, 8080)]);
    assert_eq!(ask(&index, Egress, CLUSTER_IP, HTTP), service_denied(to_second));
}

#[test]
fn every_address_of_a_service_is_the_service() {
    let (external, balancer) = ("198.51.100.7", "203.0.113.9");
    let index = with_services(
        &[egress(&[rule(&[namespaces("team=red")], &[])])],
        &[service("b/front", &[CLUSTER_IP, external, balancer], &PORT_80)],
        &[slice("b/front-1", "front", &[OTHER_NAMESPACE], &PORT_8080)],
    );
    let to_backend = towards(&[backend(OTHER_NAMESPACE, 8080)], &[]);
    for address in [CLUSTER_IP, external, balancer] {
        assert_eq!(ask(&index, Egress, address, HTTP), allowed_by(&[0], to_backend.clone()));
    }
    assert_eq!(ask(&index, Egress, "198.51.100.8", HTTP), denied());
}

#[test]
fn the_backends_of_all_services_at_one_address_and_port_count_together() {
    let index = with_services(
        &[egress(&[rule(&[namespaces("team=red")], &[])])],
        &[
            service("a/first", &[CLUSTER_IP], &[("http", TCP, 80), ("own", TCP, 81)]),
            service("b/second", &[CLUSTER_IP], &[("", TCP, 80), ("dns", UDP, 53)]),
        ],
        &[
            slice("a/first-1", "first", &[SAME_NAMESPACE], &[("http", TCP, 1), ("own", TCP, 2)]),
            slice("b/second-1", "second", &[OTHER_NAMESPACE], &[("", TCP, 3), ("dns", UDP, 4)]),
        ],
    );
    let of = |services: &[&str], allowed: &[Backend], denied: &[Backend]| ServiceBackends {
        services: services.iter().map(|name| key(name)).collect(),
        ..towards(allowed, denied)
    };
    assert_eq!(
        ask(&index, Egress, CLUSTER_IP, HTTP),
        service_denied(of(
            &["a/first", "b/second"],
            &[backend(OTHER_NAMESPACE, 3)],
            &[backend(SAME_NAMESPACE, 1)]
        ))
    );
    assert_eq!(
        ask(&index, Egress, CLUSTER_IP, Traffic::Port(UDP, 53)),
        allowed_by(&[0], of(&["b/second"], &[backend(OTHER_NAMESPACE, 4)], &[]))
    );
    assert_eq!(
        ask(&index, Egress, CLUSTER_IP, Traffic::Port(TCP, 81)),
        service_denied(of(&["a/first"], &[], &[backend(SAME_NAMESPACE, 2)]))
    );
}

#[test]
fn an_address_of_a_live_pod_or_of_the_own_node_is_no_services() {
    let rules = [rule(&[namespaces("team=red")], &[])];
    for address in [SAME_NAMESPACE, OTHER_NAMESPACE, NODE] {
        let services = [service("b/front", &[address], &PORT_80)];
        let slices = [slice("b/front-1", "front", &[OTHER_NAMESPACE], &PORT_8080)];
        let index = with_services(&[egress(&rules)], &services, &slices);
        let expected = match address {
            NODE => Evaluation::OwnNode,
            OTHER_NAMESPACE => by_rule(0),
            _ => denied(),
        };
        assert_eq!(ask(&index, Egress, address, HTTP), expected);
    }
    let mut index = front(&[egress(&rules)], &[OTHER_NAMESPACE]);
    for twin in ["a/first", "a/second"] {
        index.apply(Change::PodApplied(pod(twin, "", &[CLUSTER_IP])));
        assert_eq!(ask(&index, Egress, CLUSTER_IP, HTTP), denied());
    }
    for twin in ["a/first", "a/second"] {
        let ended = Pod { ended: true, ..pod(twin, "", &[CLUSTER_IP]) };
        index.apply(Change::PodApplied(ended));
    }
    assert!(ask(&index, Egress, CLUSTER_IP, HTTP).is_allowed());
}

#[test]
fn services_mean_nothing_to_pods_that_are_not_isolated_or_closed() {
    let mut index = front(&[ingress(&[])], &[SAME_NAMESPACE]);
    assert_eq!(ask(&index, Egress, CLUSTER_IP, HTTP), Evaluation::NotIsolated);
    index.apply(Change::SourceComplete(false));
    assert_eq!(ask(&index, Egress, CLUSTER_IP, HTTP), Evaluation::Closed(Closed::SourceIncomplete));
}
