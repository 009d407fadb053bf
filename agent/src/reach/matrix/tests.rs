mod random;

use super::*;
use crate::policy::{
    builders::{
        block, ip, key, named, namespace, pod, pods, policy, ports, rule, service, tcp, udp,
        with_ports,
    },
    model::{Change, Node, Pod, Policy, Protocol},
};

fn pod_change(pod: Pod) -> Change {
    Change::PodApplied(pod)
}

fn ingress(name: &str, of: &str, rules: Vec<crate::policy::model::Rule>) -> Change {
    Change::PolicyApplied(Policy { ingress: Some(rules), ..policy(name, of) })
}

fn egress(name: &str, of: &str, rules: Vec<crate::policy::model::Rule>) -> Change {
    Change::PolicyApplied(Policy { egress: Some(rules), ..policy(name, of) })
}

fn node(name: &str, addresses: &[&str]) -> Change {
    let addresses = addresses.iter().map(|address| ip(address)).collect();
    Change::NodeApplied(Node { name: name.to_owned(), addresses })
}

/// A matrix of a complete state.
fn matrix(changes: Vec<Change>, request: &Request) -> Matrix {
    let changes = [Change::SourceComplete(true)].into_iter().chain(changes);
    Matrix::new(&mut changes.collect(), request).unwrap()
}

fn place(matrix: &Matrix, name: &str) -> usize {
    let names: Vec<&str> = matrix.ends.iter().map(|end| &*end.name).collect();
    names.iter().position(|other| *other == name).unwrap_or_else(|| panic!("{name}: {names:?}"))
}

/// What a cell says, each family by itself where they differ.
fn says(matrix: &Matrix, from: &str, to: &str) -> String {
    let cell = matrix.cell(place(matrix, from), place(matrix, to));
    match (cell, cell.alike()) {
        (Cell::Families(_), Some(allowed)) => allowed.to_string(),
        (Cell::OwnNode(_), Some(allowed)) => format!("{allowed}, own node"),
        (Cell::Families(families) | Cell::OwnNode(families), None) => {
            let one = |(family, allowed): &(Family, Allowed)| format!("{family}: {allowed}");
            families.iter().map(one).collect::<Vec<_>>().join("; ")
        }
        (Cell::Itself, _) => "itself".to_owned(),
        (Cell::NoPolicy, _) => "no policy".to_owned(),
        (Cell::NoFamily, _) => "no family".to_owned(),
    }
}

fn web_and_db() -> Vec<Change> {
    vec![
        pod_change(pod("shop/web", "app=web", &["10.0.0.1", "fd00::1"])),
        pod_change(pod("shop/db", "app=db", &["10.0.0.2", "fd00::2"])),
    ]
}

#[test]
fn ranges_of_several_rules_are_joined_and_both_directions_have_to_allow_them() {
    let mut changes = web_and_db();
    changes.push(ingress(
        "shop/in",
        "app=db",
        vec![
            rule(&[pods("app=web")], &[ports(Protocol::Tcp, 80, 90), udp(53)]),
            rule(&[], &[ports(Protocol::Tcp, 91, 100), tcp(443)]),
        ],
    ));
    let one = matrix(changes.clone(), &Request::default());
    assert_eq!(says(&one, "shop/web", "shop/db"), "TCP 80-100, TCP 443, UDP 53");
    assert_eq!(says(&one, "outside", "shop/db"), "TCP 91-100, TCP 443");
    assert_eq!(says(&one, "shop/db", "shop/web"), "everything");
    assert_eq!(says(&one, "shop/db", "shop/db"), "itself");
    assert_eq!(says(&one, "outside", "outside"), "no policy");

    changes.push(egress("shop/out", "app=web", vec![rule(&[], &[ports(Protocol::Tcp, 95, 443)])]));
    let both = matrix(changes, &Request::default());
    assert_eq!(says(&both, "shop/web", "shop/db"), "TCP 95-100, TCP 443");
    assert_eq!(says(&both, "shop/web", "outside"), "TCP 95-443");
}

#[test]
fn a_rule_for_every_port_of_the_protocols_that_have_some_does_not_allow_pings() {
    let mut changes = web_and_db();
    let all = |protocol| crate::policy::builders::all_ports(protocol);
    changes.push(ingress("shop/in", "app=db", vec![rule(&[], &PROTOCOLS.map(all))]));
    let matrix = matrix(changes, &Request::default());
    assert_eq!(says(&matrix, "shop/web", "shop/db"), "all TCP, all UDP, all SCTP");
}

#[test]
fn a_named_port_is_the_number_that_each_destination_gives_it() {
    let web = [("web", Protocol::Tcp, 8080)];
    let changes = vec![
        pod_change(pod("shop/client", "app=client", &["10.0.0.1"])),
        pod_change(with_ports(pod("shop/a", "app=a", &["10.0.0.2"]), &web)),
        pod_change(with_ports(
            pod("shop/b", "app=b", &["10.0.0.3"]),
            &[("web", Protocol::Tcp, 9090)],
        )),
        pod_change(pod("shop/c", "app=c", &["10.0.0.4"])),
        egress("shop/out", "app=client", vec![rule(&[], &[named(Protocol::Tcp, "web")])]),
    ];
    let matrix = matrix(changes, &Request::default());
    let to = |to| says(&matrix, "shop/client", to);
    assert_eq!(["shop/a", "shop/b", "shop/c"].map(to), ["TCP 8080", "TCP 9090", "nothing"]);
    assert_eq!(to("outside"), "nothing");
}

#[test]
fn each_block_that_policies_tell_apart_is_an_end() {
    let mut changes = web_and_db();
    changes.push(egress(
        "shop/out",
        "app=web",
        vec![
            rule(&[block("198.51.0.0/16", &["198.51.100.0/24"])], &[tcp(443)]),
            rule(&[block("2001:db8::/32", &[])], &[tcp(25)]),
        ],
    ));
    let request = Request { external: [ip("198.51.100.7")].into(), ..Request::default() };
    let matrix = matrix(changes, &request);
    let to = |to| says(&matrix, "shop/web", to);
    assert_eq!(to("198.51.0.0/16 without 198.51.100.0/24"), "TCP 443");
    assert_eq!(to("198.51.100.0/24"), "nothing");
    assert_eq!(to("198.51.100.7"), "nothing");
    assert_eq!(to("2001:db8::/32"), "TCP 25");
    assert_eq!(to("outside"), "nothing");
    let outside = &matrix.ends[place(&matrix, "outside")].members[0].addresses;
    assert_eq!(*outside, [ip("203.0.113.1"), ip("::1")].into());
}

#[test]
fn families_that_differ_are_told_apart_and_so_are_ends_without_a_common_one() {
    let mut changes = web_and_db();
    changes.push(pod_change(pod("shop/six", "app=six", &["fd00::6"])));
    changes.push(pod_change(pod("shop/four", "app=four", &["10.0.0.4"])));
    changes.push(ingress("shop/in", "app=db", vec![rule(&[block("10.0.0.0/8", &[])], &[tcp(80)])]));
    let matrix = matrix(changes, &Request::default());
    assert_eq!(says(&matrix, "shop/web", "shop/db"), "IPv4: TCP 80; IPv6: nothing");
    assert_eq!(says(&matrix, "shop/six", "shop/db"), "nothing");
    assert_eq!(says(&matrix, "shop/four", "shop/db"), "TCP 80");
    assert_eq!(says(&matrix, "shop/four", "shop/six"), "no family");
}

#[test]
fn pods_of_a_workload_share_a_row_unless_something_tells_them_apart() {
    let app = |name: &str, address| pod(name, "app=web", &[address]);
    let changes = vec![
        pod_change(app("shop/web-1", "10.0.0.1")),
        pod_change(app("shop/web-2", "10.0.0.2")),
        pod_change(app("shop/web-3", "10.0.0.3")),
        pod_change(pod("shop/db", "app=db", &["10.0.0.9"])),
        ingress("shop/in", "app=db", vec![rule(&[block("10.0.0.3/32", &[])], &[tcp(80)])]),
    ];
    let together = matrix(changes.clone(), &Request::default());
    assert_eq!(says(&together, "shop/web-* (×2)", "shop/db"), "nothing");
    assert_eq!(says(&together, "shop/web-* (×2)", "shop/web-* (×2)"), "everything");
    assert_eq!(says(&together, "shop/web-3", "shop/db"), "TCP 80");
    let apart = matrix(changes, &Request { ungrouped: true, ..Request::default() });
    assert_eq!(says(&apart, "shop/web-2", "shop/web-2"), "itself");
}

#[test]
fn the_own_node_is_named_where_a_row_has_pods_of_several_nodes() {
    let on = |name: &str, address, node: &str| {
        pod_change(Pod { node: Some(node.into()), ..pod(name, "app=web", &[address]) })
    };
    let changes = vec![
        node("a", &["192.168.0.1"]),
        node("b", &["192.168.0.2"]),
        on("shop/web-1", "10.0.0.1", "a"),
        on("shop/web-2", "10.0.0.2", "b"),
        ingress("shop/in", "", vec![rule(&[block("192.168.0.0/16", &[])], &[tcp(80)])]),
    ];
    let together = matrix(changes.clone(), &Request::default());
    assert_eq!(says(&together, "node a and 1 more", "shop/web-* (×2)"), "TCP 80, own node");
    let apart = matrix(changes, &Request { ungrouped: true, ..Request::default() });
    assert_eq!(says(&apart, "node a", "shop/web-1"), "everything");
    assert_eq!(says(&apart, "node b", "shop/web-1"), "TCP 80");
}

#[test]
fn where_egress_rules_decide_a_row_says_what_they_let_pods_send_to_their_own_node() {
    let on_node = |name| Pod { node: Some("a".into()), ..pod(name, "app=web", &["10.0.0.1"]) };
    let changes = [
        Change::SourceComplete(true),
        node("a", &["192.168.0.1"]),
        pod_change(on_node("shop/web")),
        ingress("shop/in", "", vec![]),
        egress("shop/out", "", vec![rule(&[block("192.168.0.1/32", &[])], &[tcp(10250)])]),
    ];
    for (deny, to_node) in [(false, "everything"), (true, "TCP 10250")] {
        let mut cluster = changes.iter().cloned().collect::<Cluster>().deny_egress_to_node(deny);
        let matrix = Matrix::new(&mut cluster, &Request::default()).unwrap();
        assert_eq!(says(&matrix, "shop/web", "node a"), to_node);
        assert_eq!(says(&matrix, "node a", "shop/web"), "everything", "probes");
    }
}

#[test]
fn a_port_that_alone_is_asked_about_hides_all_others() {
    let mut changes = web_and_db();
    changes.push(ingress("shop/in", "app=db", vec![rule(&[], &[tcp(80), tcp(81)])]));
    let only = Allowed::port(Protocol::Tcp, 80).join(&Allowed::icmp());
    let matrix = matrix(changes, &Request { only: Some(only), ..Request::default() });
    assert_eq!(says(&matrix, "shop/web", "shop/db"), "TCP 80");
    assert_eq!(says(&matrix, "shop/db", "shop/web"), "TCP 80, ICMP");
}

#[test]
fn a_namespace_is_asked_for_by_name_and_what_is_no_end_is_named() {
    let mut changes = web_and_db();
    changes.push(Change::NamespaceApplied(namespace("auth", "")));
    changes.push(pod_change(pod("auth/oidc", "", &["10.0.0.8"])));
    changes.push(pod_change(pod("auth/new", "", &[])));
    changes.push(pod_change(Pod { host_network: true, ..pod("auth/proxy", "", &["192.168.0.1"]) }));
    let request = Request { namespaces: ["auth".to_owned()].into(), ..Request::default() };
    let matrix = matrix(changes.clone(), &request);
    let names: Vec<&str> = matrix.ends.iter().map(|end| &*end.name).collect();
    assert_eq!(names, ["auth/oidc", "node here", "outside"]);
    let left_out: Vec<&str> = matrix.left_out.iter().map(|left_out| &*left_out.name).collect();
    assert_eq!(left_out, ["auth/new", "auth/proxy"]);

    let request = Request { namespaces: ["autth".to_owned()].into(), ..Request::default() };
    let error = Matrix::new(&mut changes.into_iter().collect(), &request).unwrap_err();
    assert!(error.to_string().contains("there are pods in: auth, shop"), "{error}");
}

#[test]
fn an_address_of_the_cluster_is_not_external_and_too_many_ends_are_refused() {
    let mut changes = web_and_db();
    changes.push(Change::ServiceApplied(service("shop/db", &["10.96.0.1"], &[])));
    for address in ["10.0.0.1", "10.96.0.1", "::ffff:10.0.0.1"] {
        let request = Request { external: [ip(address)].into(), ..Request::default() };
        assert!(Matrix::new(&mut changes.clone().into_iter().collect(), &request).is_err());
    }
    let many = |number: usize| {
        let mut many = pod(&format!("shop/p-{number}"), "app=p", &["10.0.0.1"]);
        many.key = key(&format!("shop/p-{number}"));
        many.addresses = vec![std::net::Ipv4Addr::from_bits(0x0a01_0000 + number as u32).into()];
        pod_change(many)
    };
    let mut cluster = (0..MOST_ROWS + 1).map(many).collect();
    let request = Request { ungrouped: true, ..Request::default() };
    let error = Matrix::new(&mut cluster, &request).unwrap_err().to_string();
    assert!(error.contains("--namespace"), "{error}");
}
