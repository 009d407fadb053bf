use super::*;
use crate::policy::{
    builders::{block, named, service, slice, with_ports},
    model::{EndpointSlice, Service, SlicePort},
};

pub(super) const CLUSTER_IP: &str = "10.96.0.1";
pub(super) const TCP: Protocol = Protocol::Tcp;
pub(super) const UDP: Protocol = Protocol::Udp;
pub(super) const PORT_80: [(&str, Protocol, u16); 1] = [("http", TCP, 80)];
pub(super) const PORT_8080: [(&str, Protocol, u16); 1] = [("http", TCP, 8080)];

pub(super) fn with_services(
    policies: &[Policy],
    services: &[Service],
    slices: &[EndpointSlice],
) -> Index {
    let mut index = cluster(policies);
    for service in services {
        index.apply(Change::ServiceApplied(service.clone()));
    }
    for slice in slices {
        index.apply(Change::EndpointSliceApplied(slice.clone()));
    }
    index
}

/// `b/front`, port 80, towards these backends at 8080.
pub(super) fn front(policies: &[Policy], ready: &[&str]) -> Index {
    let services = [service("b/front", &[CLUSTER_IP], &PORT_80)];
    with_services(policies, &services, &[slice("b/front-1", "front", ready, &PORT_8080)])
}

pub(super) fn backend(address: &str, port: u16) -> Backend {
    Backend { address: ip(address), port: Some(port) }
}

pub(super) fn towards(allowed: &[Backend], denied: &[Backend]) -> ServiceBackends {
    ServiceBackends {
        services: BTreeSet::from([key("b/front")]),
        allowed: allowed.iter().copied().collect(),
        denied: denied.iter().copied().collect(),
    }
}

pub(super) fn allowed_by(numbers: &[usize], towards: ServiceBackends) -> Evaluation {
    let rule = |number: &usize| RuleName { policy: key("a/policy"), number: *number };
    Evaluation::AllowedService { rules: numbers.iter().map(rule).collect(), towards }
}

pub(super) fn service_denied(towards: ServiceBackends) -> Evaluation {
    Evaluation::DeniedService { policies: vec![key("a/policy")], towards }
}

#[test]
fn a_service_is_allowed_by_the_rules_that_allow_its_backends_at_the_target_port() {
    let to_target = rule(&[namespaces("team=red")], &[tcp(8080)]);
    let index = front(&[egress(std::slice::from_ref(&to_target))], &[OTHER_NAMESPACE]);
    let to_backend = towards(&[backend(OTHER_NAMESPACE, 8080)], &[]);
    let answer = ask(&index, Egress, CLUSTER_IP, HTTP);
    assert_eq!(answer, allowed_by(&[0], to_backend));
    assert!(answer.is_allowed());

    let to_service_port = rule(&[namespaces("team=red")], &[tcp(80)]);
    let index = front(&[egress(&[to_service_port])], &[OTHER_NAMESPACE]);
    let answer = ask(&index, Egress, CLUSTER_IP, HTTP);
    assert_eq!(answer, service_denied(towards(&[], &[backend(OTHER_NAMESPACE, 8080)])));
    assert!(!answer.is_allowed());
}

#[test]
fn a_service_that_mixes_allowed_and_denied_backends_is_denied_and_says_which() {
    let rules = [rule(&[namespaces("team=red")], &[])];
    let index = front(&[egress(&rules)], &[SAME_NAMESPACE, OTHER_NAMESPACE]);
    let mixed = towards(&[backend(OTHER_NAMESPACE, 8080)], &[backend(SAME_NAMESPACE, 8080)]);
    assert_eq!(ask(&index, Egress, CLUSTER_IP, HTTP), service_denied(mixed));
    let rules = [rules[0].clone(), rule(&[pods("app=web")], &[])];
    let index = front(&[egress(&rules)], &[SAME_NAMESPACE, OTHER_NAMESPACE]);
    let both = towards(&[backend(SAME_NAMESPACE, 8080), backend(OTHER_NAMESPACE, 8080)], &[]);
    assert_eq!(ask(&index, Egress, CLUSTER_IP, HTTP), allowed_by(&[0, 1], both));
}

#[test]
fn a_service_without_ready_backends_is_denied_unless_its_address_is_named() {
    let to_pods = [rule(&[namespaces("")], &[])];
    let services = [service("b/front", &[CLUSTER_IP], &PORT_80)];
    for slices in [vec![], vec![slice("b/front-1", "front", &[], &PORT_8080)]] {
        let index = with_services(&[egress(&to_pods)], &services, &slices);
        assert_eq!(ask(&index, Egress, CLUSTER_IP, HTTP), service_denied(towards(&[], &[])));
        for named in [rule(&[block("10.96.0.0/12", &[])], &[]), rule(&[], &[tcp(80)])] {
            let index = with_services(&[egress(&[named])], &services, &slices);
            assert_eq!(ask(&index, Egress, CLUSTER_IP, HTTP), allowed_by(&[0], towards(&[], &[])));
        }
    }
}

#[test]
fn a_rule_names_a_services_address_by_block_or_by_having_no_peers_and_at_the_services_port() {
    let table = [
        (rule(&[block("10.96.0.1/32", &[])], &[]), true),
        (rule(&[block("10.96.0.0/12", &[])], &[tcp(80)]), true),
        (rule(&[block("10.96.0.0/12", &["10.96.0.1/32"])], &[]), false),
        (rule(&[block("10.96.0.0/12", &[])], &[tcp(8080)]), false),
        (rule(&[block("10.96.0.0/12", &[])], &[named(TCP, "http")]), false),
        (rule(&[], &[tcp(80)]), true),
        (rule(&[], &[all_ports(TCP)]), true),
        (rule(&[], &[udp(80)]), false),
        (rule(&[pods("")], &[]), false),
    ];
    for (rule, expected) in table {
        let answer = ask(
            &front(&[egress(std::slice::from_ref(&rule))], &[OTHER_NAMESPACE]),
            Egress,
            CLUSTER_IP,
            HTTP,
        );
        assert_eq!(answer.is_allowed(), expected, "{rule:?}");
    }
}

#[test]
fn a_rule_without_peers_at_the_target_port_allows_through_the_backends() {
    let index = front(&[egress(&[rule(&[], &[tcp(8080)])])], &[OTHER_NAMESPACE]);
    let to_backend = towards(&[backend(OTHER_NAMESPACE, 8080)], &[]);
    assert_eq!(ask(&index, Egress, CLUSTER_IP, HTTP), allowed_by(&[0], to_backend));
}

#[test]
fn a_named_address_is_enough_whatever_the_backends_and_every_rule_that_helps_is_named() {
    let rules = [
        rule(&[pods("app=db")], &[]),
        rule(&[block("10.96.0.0/12", &[])], &[tcp(80)]),
        rule(&[namespaces("team=red")], &[]),
    ];
    let index = front(&[egress(&rules)], &[SAME_NAMESPACE, OTHER_NAMESPACE]);
    let mixed = towards(&[backend(OTHER_NAMESPACE, 8080)], &[backend(SAME_NAMESPACE, 8080)]);
    assert_eq!(ask(&index, Egress, CLUSTER_IP, HTTP), allowed_by(&[1, 2], mixed));
}

#[test]
fn other_ports_protocols_and_icmp_of_a_services_address_are_judged_by_the_address() {
    let index = front(&[egress(&[rule(&[namespaces("")], &[])])], &[OTHER_NAMESPACE]);
    assert!(ask(&index, Egress, CLUSTER_IP, HTTP).is_allowed());
    for traffic in [Traffic::Port(TCP, 8080), Traffic::Port(UDP, 80), PING] {
        assert_eq!(ask(&index, Egress, CLUSTER_IP, traffic), denied());
    }
    let rules = [rule(&[block("10.96.0.1/32", &[])], &[tcp(1)]), rule(&[], &[])];
    let index = front(&[egress(&rules)], &[OTHER_NAMESPACE]);
    assert_eq!(ask(&index, Egress, CLUSTER_IP, PING), by_rule(1));
    assert_eq!(ask(&index, Egress, CLUSTER_IP, Traffic::Port(TCP, 81)), by_rule(1));
}

#[test]
fn each_port_of_a_service_leads_to_the_slice_ports_of_its_name_and_protocol() {
    let service_ports = [("http", TCP, 80), ("dns", UDP, 53), ("dns", TCP, 53)];
    let targets = [("http", TCP, 8080), ("dns", UDP, 5353), ("dns", TCP, 5354), ("else", TCP, 1)];
    let index = with_services(
        &[egress(&[rule(&[namespaces("")], &[tcp(8080), udp(5353), tcp(5354), tcp(1)])])],
        &[service("b/front", &[CLUSTER_IP], &service_ports)],
        &[slice("b/front-1", "front", &[OTHER_NAMESPACE], &targets)],
    );
    for (traffic, target) in
        [(HTTP, 8080), (Traffic::Port(UDP, 53), 5353), (Traffic::Port(TCP, 53), 5354)]
    {
        let to_backend = towards(&[backend(OTHER_NAMESPACE, target)], &[]);
        assert_eq!(ask(&index, Egress, CLUSTER_IP, traffic), allowed_by(&[0], to_backend));
    }
    assert_eq!(ask(&index, Egress, CLUSTER_IP, Traffic::Port(UDP, 80)), denied());
}

#[test]
fn a_slice_without_the_port_has_no_backends_of_it() {
    let index = with_services(
        &[egress(&[rule(&[namespaces("")], &[])])],
        &[service("b/front", &[CLUSTER_IP], &PORT_80)],
        &[slice("b/front-1", "front", &[OTHER_NAMESPACE], &[("web", TCP, 80), ("http", UDP, 80)])],
    );
    assert_eq!(ask(&index, Egress, CLUSTER_IP, HTTP), service_denied(towards(&[], &[])));
}

#[test]
fn target_ports_may_differ_from_slice_to_slice() {
    let slices = [
        slice("b/front-1", "front", &[OTHER_NAMESPACE], &PORT_8080),
        slice("b/front-2", "front", &[SAME_NAMESPACE], &[("http", TCP, 9090)]),
    ];
    let services = [service("b/front", &[CLUSTER_IP], &PORT_80)];
    let (first, second) = (backend(OTHER_NAMESPACE, 8080), backend(SAME_NAMESPACE, 9090));
    let table = [
        (vec![tcp(8080)], service_denied(towards(&[first], &[second]))),
        (vec![tcp(9090)], service_denied(towards(&[second], &[first]))),
        (vec![tcp(8080), tcp(9090)], allowed_by(&[0], towards(&[first, second], &[]))),
    ];
    for (ports, expected) in table {
        let policy = egress(&[rule(&[namespaces("")], &ports)]);
        let index = with_services(&[policy], &services, &slices);
        assert_eq!(ask(&index, Egress, CLUSTER_IP, HTTP), expected);
    }
}

#[test]
fn a_named_port_of_a_rule_is_each_backends_own() {
    let mut index = front(
        &[egress(&[rule(&[namespaces("")], &[named(TCP, "serve")])])],
        &[SAME_NAMESPACE, OTHER_NAMESPACE],
    );
    let web = |number| {
        let web = pod("b/web", "app=web", &[OTHER_NAMESPACE]);
        Change::PodApplied(with_ports(web, &[("serve", TCP, number)]))
    };
    let serving = with_ports(pod("a/web", "", &[SAME_NAMESPACE]), &[("serve", TCP, 8080)]);
    index.apply(Change::PodApplied(serving));
    index.apply(web(80));
    let (same, other) = (backend(SAME_NAMESPACE, 8080), backend(OTHER_NAMESPACE, 8080));
    assert_eq!(ask(&index, Egress, CLUSTER_IP, HTTP), service_denied(towards(&[same], &[other])));
    index.apply(web(8080));
    assert_eq!(
        ask(&index, Egress, CLUSTER_IP, HTTP),
        allowed_by(&[0], towards(&[same, other], &[]))
    );
}

#[test]
fn a_backend_whose_port_is_not_said_is_denied() {
    let mut unsaid = slice("b/front-1", "front", &[OTHER_NAMESPACE], &[]);
    unsaid.ports = vec![SlicePort { name: "http".to_owned(), protocol: TCP, port: None }];
    let index = with_services(
        &[egress(&[rule(&[namespaces("")], &[])])],
        &[service("b/front", &[CLUSTER_IP], &PORT_80)],
        &[unsaid],
    );
    let unknown = Backend { address: ip(OTHER_NAMESPACE), port: None };
    assert_eq!(ask(&index, Egress, CLUSTER_IP, HTTP), service_denied(towards(&[], &[unknown])));
}
