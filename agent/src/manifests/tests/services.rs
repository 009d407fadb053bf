//! Services, endpoint slices and nodes in the directory.

use std::collections::BTreeSet;

use super::*;
use crate::policy::model::EndpointSlice;

fn slice_key() -> ObjectKey {
    ObjectKey::new("shop", "db-1")
}

fn ready(slice: &EndpointSlice) -> Vec<String> {
    slice.ready.iter().map(ToString::to_string).collect()
}

/// The slices that the changes of a scan add up to.
#[derive(Default)]
struct Told(BTreeMap<ObjectKey, EndpointSlice>);

impl Told {
    fn take(&mut self, scan: Scan) {
        for change in scan.changes {
            if let Change::EndpointSliceApplied(slice) = change {
                self.0.insert(slice.key.clone(), slice);
            }
        }
    }
}

#[test]
fn backends_come_before_their_service_and_go_after_it() {
    let files = [("a.yaml", SERVICE), ("b.yaml", SLICE), ("c.yaml", POD), ("d.yaml", NODE)];
    let mut fixture = Fixture::new(&files);
    fixture.write("e.yaml", "# rest\n");
    assert_eq!(
        fixture.news().0,
        ["+node n1", "+endpointslice shop/db-1", "+pod shop/db", "+service shop/db", "complete"]
    );
    for (name, _) in files {
        fixture.remove(name);
    }
    let expected = ["-service shop/db", "-endpointslice shop/db-1", "-pod shop/db", "-node n1"];
    assert_eq!(fixture.news(), (expected.map(str::to_owned).to_vec(), vec![]));
}

#[test]
fn lists_of_services_slices_and_nodes_are_read() {
    let lists = r#"[
        {"kind": "ServiceList", "apiVersion": "v1", "items": [{"metadata": {"name": "s"}}]},
        {"kind": "NodeList", "apiVersion": "v1", "items": [{"metadata": {"name": "n"}}]},
        {"kind": "EndpointSliceList", "apiVersion": "discovery.k8s.io/v1", "items": [
            {"metadata": {"name": "e", "labels": {"kubernetes.io/service-name": "s"}}, "addressType": "IPv6"},
            {"metadata": {"name": "of-no-service"}, "addressType": "IPv6"}
        ]}
    ]"#;
    let list = format!(r#"{{"kind": "List", "apiVersion": "v1", "items": {lists}}}"#);
    let mut fixture = Fixture::new(&[("a.json", &list)]);
    let expected = ["+node n", "+endpointslice default/e", "+service default/s", "complete"];
    assert_eq!(fixture.news(), (expected.map(str::to_owned).to_vec(), vec![]));
}

/// A slice that has lost a backend would open its service, so it isn't read without it.
#[test]
fn a_slice_of_which_a_backend_can_not_be_read_keeps_its_backends() {
    for (from, to, message) in [
        (
            "10.0.0.10",
            "10.0.0.l0",
            "DIR/a.yaml:5:26: document 1: endpoints[0].addresses[0]: `10.0.0.l0` is not an IP \
             address; write one such as 10.0.0.10 or fd00:10::10",
        ),
        (
            "addressType: IPv4",
            "addressType: ipv4",
            "DIR/a.yaml:4:1: document 1: addressType: unknown address type (`ipv4`); write IPv4 or \
             IPv6",
        ),
        (
            "discovery.k8s.io/v1",
            "discovery.k8s.io/v1beta1",
            "DIR/a.yaml:1:1: document 1: apiVersion: not the version of an EndpointSlice; write \
             discovery.k8s.io/v1",
        ),
        (
            "kind: EndpointSlice",
            "kind: EndpointSlic",
            "DIR/a.yaml:2:1: document 1: kind: unknown kind `EndpointSlic`; write EndpointSlice if \
             it is one",
        ),
    ] {
        let mut fixture = Fixture::new(&[("a.yaml", SLICE)]);
        fixture.scan();
        fixture.write("a.yaml", SLICE.replace(from, to));
        fixture.write("b.yaml", SERVICE);
        let (changes, problems) = fixture.news();
        assert_eq!(changes, ["+service shop/db"], "{to}");
        assert_eq!(problems, [message]);

        let mut newcomer = ManifestDirectory::new(fixture.path());
        assert!(!newcomer.scan().complete, "{to}: who has no before closes every pod");
    }
}

#[test]
fn a_broken_part_of_a_service_slice_or_node_is_told_and_opens_nothing() {
    let mut fixture = Fixture::new(&[
        ("a.yaml", &SERVICE.replace("3306", "0")),
        ("b.yaml", &SLICE.replace("3306", "70000")),
        ("c.yaml", &NODE.replace("192.168.0.1", "n1")),
    ]);
    let scan = fixture.scan();
    let port = "is not a port; write a number from 1 to 65535";
    assert_eq!(
        fixture.messages(&scan),
        [
            format!("DIR/a.yaml:6:23: document 1: spec.ports[0].port: 0 {port}"),
            format!("DIR/b.yaml:6:21: document 1: ports[0].port: 70000 {port}"),
            "DIR/c.yaml:4:41: document 1: status.addresses[0].address: `n1` is not an IP address; \
             write one such as 10.0.0.10 or fd00:10::10"
                .to_owned(),
        ]
    );
    let kinds: Vec<_> = scan.problems.iter().map(|p| (p.kind, &*p.subject)).collect();
    assert_eq!(
        kinds,
        [
            (ProblemKind::Service, "Service shop/db"),
            (ProblemKind::EndpointSlice, "EndpointSlice shop/db-1"),
            (ProblemKind::Node, "Node n1"),
        ]
    );
    let mut told = Told::default();
    for change in &scan.changes {
        if let Change::ServiceApplied(service) = change {
            assert_eq!(service.ports, []);
        }
    }
    told.take(scan);
    assert_eq!(told.0[&slice_key()].ports[0].port, None);
}

#[test]
fn a_slice_that_two_files_define_has_the_backends_of_both() {
    let other = SLICE.replace("10.0.0.10", "10.0.0.11").replace("3306", "3307");
    let mut fixture = Fixture::new(&[("a.yaml", SLICE), ("b.yaml", &other)]);
    let scan = fixture.scan();
    assert_eq!(
        fixture.messages(&scan),
        [
            "defined more than once, in DIR/a.yaml (document 1) and in DIR/b.yaml (document 1); keep \
          one of them (the backends of all of them count, if the service is the same)"
        ]
    );
    let mut told = Told::default();
    told.take(scan);
    let slice = &told.0[&slice_key()];
    assert_eq!(ready(slice), ["10.0.0.10", "10.0.0.11"]);
    assert_eq!(slice.ports.iter().map(|p| p.port).collect::<Vec<_>>(), [Some(3306), Some(3307)]);
}

#[test]
fn a_service_that_two_files_define_differently_has_no_address() {
    let addresses = |other: &str| {
        let mut fixture = Fixture::new(&[("a.yaml", SERVICE), ("b.yaml", other)]);
        let scan = fixture.scan();
        assert_eq!(scan.problems.len(), 1);
        let Change::ServiceApplied(service) = &scan.changes[0] else { panic!("{scan:?}") };
        service.addresses.clone()
    };
    assert_eq!(addresses(&SERVICE.replace("3306", "3307")), BTreeSet::new());
    assert_eq!(addresses(SERVICE), BTreeSet::from(["10.96.0.10".parse().unwrap()]));
}

#[test]
fn a_directory_that_held_only_a_service_or_node_and_becomes_empty_leaves_it() {
    for object in [SERVICE, SLICE, NODE] {
        let mut fixture = Fixture::new(&[("a.yaml", object)]);
        fixture.scan();
        fixture.remove("a.yaml");
        let scan = fixture.scan();
        assert_eq!((scan.changes, scan.available), (vec![], false));
    }
}
