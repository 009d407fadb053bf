use crate::{
    policy::{
        builders::{ip, pod, service, slice},
        model::{Change, Node, Protocol},
    },
    reach::flow,
};

use super::*;

const DUAL: [&str; 2] = ["10.0.0.1", "fd00::1"];

fn cluster() -> Cluster {
    let on = |node: &str, pod: Pod| Pod { node: Some(node.into()), ..pod };
    let host = Pod { host_network: true, ..pod("a/host", "", &["172.18.0.1"]) };
    let web = ("web", Protocol::Tcp, 80);
    let node = |name: &str, address| {
        let addresses = BTreeSet::from([ip(address)]);
        Change::NodeApplied(Node { name: name.to_owned(), addresses })
    };
    let changes = [
        node("n1", "172.18.0.1"),
        node("n2", "172.18.0.2"),
        Change::PodApplied(on("n1", pod("a/x", "", &DUAL))),
        Change::PodApplied(on("n2", pod("a/y", "", &["10.0.0.2", "fd00::2"]))),
        Change::PodApplied(on("n2", pod("a/four", "", &["10.0.0.4"]))),
        Change::PodApplied(on("n2", pod("a/six", "", &["fd00::6"]))),
        Change::PodApplied(on("n1", host)),
        Change::PodApplied(Pod { ended: true, ..pod("a/ended", "", &["10.0.0.9"]) }),
        Change::PodApplied(pod("a/new", "", &[])),
        Change::PodApplied(pod("a/twin", "", &["10.0.0.7"])),
        Change::PodApplied(pod("a/other-twin", "", &["10.0.0.7"])),
        Change::ServiceApplied(service("a/svc", &["10.96.0.1"], &[web])),
        Change::EndpointSliceApplied(slice(
            "a/svc-1",
            "svc",
            &["10.0.0.1", "10.0.0.2", "172.18.0.1"],
            &[("web", Protocol::Tcp, 8080)],
        )),
        Change::ServiceApplied(service("a/headless", &[], &[web])),
        Change::EndpointSliceApplied(slice("a/hl-1", "headless", &["fd00::2"], &[web])),
        Change::ServiceApplied(service("a/idle", &["10.96.0.2"], &[web])),
        Change::SourceComplete(true),
    ];
    changes.into_iter().collect()
}

fn spec(from: &str, to: &str, rest: &str) -> FlowSpec {
    let line = format!(r#"{{"from":{{{from}}},"to":{{{to}}},{rest}}}"#);
    flow::read("test", &line).unwrap().remove(0).flow
}

const TCP: &str = r#""protocol":"TCP","port":80"#;

/// Each question in words, after its family.
fn asked(from: &str, to: &str, rest: &str) -> Vec<String> {
    let courses = courses(&cluster(), &spec(from, to, rest)).unwrap();
    let question = |course: &Course, question: &Question| {
        let Question { node, pod, flow } = question;
        let preposition = match flow.direction {
            Direction::Ingress => "from",
            Direction::Egress => "to",
        };
        let own = if flow.from_own_node { " its node" } else { "" };
        let what = match flow.traffic {
            Traffic::Port(protocol, port) => format!("{protocol} {port}"),
            Traffic::Other(number) => number.to_string(),
        };
        let node = node.as_deref().unwrap_or("nameless");
        let (family, peer) = (course.family, flow.peer);
        format!("{family}: {pod} on {node} {preposition}{own} {peer}, {what}")
    };
    courses.iter().flat_map(|c| c.questions.iter().map(|q| question(c, q))).collect()
}

fn error(from: &str, to: &str, rest: &str) -> String {
    format!("{:#}", courses(&cluster(), &spec(from, to, rest)).unwrap_err())
}

#[test]
fn both_ends_are_asked_on_their_own_nodes_for_each_family() {
    let expected = [
        "IPv4: a/x on n1 to 10.0.0.2, TCP 80",
        "IPv4: a/y on n2 from 10.0.0.1, TCP 80",
        "IPv6: a/x on n1 to fd00::2, TCP 80",
        "IPv6: a/y on n2 from fd00::1, TCP 80",
    ];
    assert_eq!(asked(r#""pod":"a/x""#, r#""pod":"a/y""#, TCP), expected);
}

#[test]
fn one_family_alone_can_be_asked_about() {
    let expected = ["IPv6: a/x on n1 to fd00::2, 58", "IPv6: a/y on n2 from fd00::1, 58"];
    let rest = r#""protocol":"ICMP","family":"IPv6""#;
    assert_eq!(asked(r#""pod":"a/x""#, r#""pod":"a/y""#, rest), expected);
}

#[test]
fn an_address_is_whoever_has_it() {
    let names = asked(r#""node":"n1""#, r#""pod":"a/four""#, TCP);
    assert_eq!(names, ["IPv4: a/four on n2 from 172.18.0.1, TCP 80"]);
    assert_eq!(asked(r#""ip":"172.18.0.1""#, r#""ip":"10.0.0.4""#, TCP), names);
    assert_eq!(asked(r#""ip":"::ffff:172.18.0.1""#, r#""ip":"10.0.0.4""#, TCP), names);
}

#[test]
fn the_own_node_is_told_for_nodes_and_for_pods_on_their_network() {
    let expected = ["IPv4: a/x on n1 from its node 172.18.0.1, TCP 80"];
    for from in [r#""node":"n1""#, r#""pod":"a/host""#, r#""ip":"172.18.0.1""#] {
        assert_eq!(asked(from, r#""pod":"a/x""#, TCP), expected, "{from}");
    }
}

#[test]
fn a_node_has_the_addresses_of_pods_on_its_network_too() {
    let mut cluster = cluster();
    let other = Pod { host_network: true, ..pod("a/second", "", &["172.18.0.9"]) };
    cluster.apply(Change::PodApplied(Pod { node: Some("n1".into()), ..other }));
    let courses = courses(&cluster, &spec(r#""pod":"a/four""#, r#""node":"n1""#, TCP)).unwrap();
    let peers = courses[0].questions.iter().map(|question| question.flow.peer);
    assert_eq!(peers.collect::<Vec<_>>(), [ip("172.18.0.1"), ip("172.18.0.9")]);
}

#[test]
fn who_has_no_policy_is_not_asked() {
    let outside = asked(r#""ip":"192.0.2.1""#, r#""pod":"a/four""#, TCP);
    assert_eq!(outside, ["IPv4: a/four on n2 from 192.0.2.1, TCP 80"]);
    let to_node = asked(r#""pod":"a/four""#, r#""pod":"a/host""#, TCP);
    assert_eq!(to_node, ["IPv4: a/four on n2 to 172.18.0.1, TCP 80"]);
    assert!(asked(r#""pod":"a/x""#, r#""pod":"a/x""#, TCP).is_empty());
    assert!(asked(r#""pod":"a/x""#, r#""ip":"10.0.0.1""#, TCP).is_empty());
    assert!(asked(r#""node":"n2""#, r#""ip":"192.0.2.1""#, TCP).is_empty());
}

#[test]
fn a_service_is_asked_about_at_its_address_and_each_backend_at_its_own_port() {
    let expected = [
        "IPv4: a/x on n1 to 10.96.0.1, TCP 80",
        // The first backend is the source itself; the third is a node.
        "IPv4: a/y on n2 from 10.0.0.1, TCP 8080",
    ];
    assert_eq!(asked(r#""pod":"a/x""#, r#""service":"a/svc""#, TCP), expected);
    assert_eq!(asked(r#""pod":"a/x""#, r#""ip":"10.96.0.1""#, TCP), expected);
}

#[test]
fn an_address_of_a_pod_or_node_is_no_services_and_of_two_services_the_one_with_the_port_is_meant() {
    let mut cluster = cluster();
    let web = [("web", Protocol::Tcp, 80)];
    let tls = [("tls", Protocol::Tcp, 443)];
    let taken = ["10.0.0.4", "172.18.0.2", "10.96.0.1"];
    cluster.apply(Change::ServiceApplied(service("a/taker", &taken, &web)));
    cluster.apply(Change::ServiceApplied(service("a/tls", &["10.96.0.1"], &tls)));
    cluster.apply(Change::EndpointSliceApplied(slice("a/tls-1", "tls", &["10.0.0.2"], &tls)));
    let asked_of = |to: &str, rest: &str| -> Vec<Option<ObjectKey>> {
        let spec = spec(r#""pod":"a/x""#, to, rest);
        let courses = courses(&cluster, &spec).unwrap();
        let questions = courses.iter().flat_map(|course| &course.questions);
        questions.map(|question| Some(question.pod.clone())).collect()
    };
    let key = |name: &str| Some(ObjectKey::new("a", name));
    assert_eq!(asked_of(r#""ip":"10.0.0.4""#, TCP), [key("x"), key("four")]);
    assert_eq!(asked_of(r#""ip":"172.18.0.2""#, TCP), [key("x")]);
    let to_tls = asked_of(r#""ip":"10.96.0.1""#, r#""protocol":"TCP","port":443"#);
    assert_eq!(to_tls, [key("x"), key("y")]);
}

#[test]
fn backends_of_a_headless_service_are_destinations_by_themselves() {
    let expected = ["IPv6: a/x on n1 to fd00::2, TCP 80", "IPv6: a/y on n2 from fd00::1, TCP 80"];
    assert_eq!(asked(r#""pod":"a/x""#, r#""service":"a/headless""#, TCP), expected);
}

#[test]
fn what_cannot_be_told_names_who_and_what() {
    let x = r#""pod":"a/x""#;
    let cases = [
        (
            error(x, r#""pod":"a/z""#, TCP),
            "to: no pod a/z is known; pods of its namespace: a/ended",
        ),
        (error(x, r#""pod":"b/z""#, TCP), "pods of its namespace: none"),
        (error(r#""node":"n3""#, x, TCP), "from: no node n3 is known; nodes: n1, n2"),
        (error(x, r#""pod":"a/ended""#, TCP), "the pod a/ended has ended"),
        (error(x, r#""pod":"a/new""#, TCP), "the pod a/new has no address; give it one"),
        (error(x, r#""ip":"10.0.0.7""#, TCP), "more than one pod, so nobody's; they are"),
        (
            error(r#""pod":"a/four""#, r#""pod":"a/six""#, TCP),
            "no address family in common: pod a/four has 10.0.0.4, pod a/six has fd00::6",
        ),
        (
            error(r#""pod":"a/four""#, x, r#""protocol":"ICMP","family":"IPv6""#),
            "from: pod a/four has no IPv6 address",
        ),
        (error(x, r#""service":"a/none""#, TCP), "no service a/none is known"),
        (
            error(x, r#""service":"a/svc""#, r#""protocol":"UDP","port":80"#),
            "port: the service a/svc has no port UDP 80; its ports: TCP 80",
        ),
        (error(x, r#""service":"a/idle""#, TCP), "has no backend that is ready for TCP 80 on IPv4"),
    ];
    for (error, expected) in cases {
        assert!(error.contains(expected), "{error}\nlacks {expected}");
    }
}
