//! Services, endpoint slices and nodes.

use std::{collections::BTreeSet, net::IpAddr};

use serde_json::{Value, json};

use super::*;
use crate::policy::model::{EndpointSlice, Node, Service, ServicePort, SlicePort};

fn addresses<const N: usize>(written: [&str; N]) -> BTreeSet<IpAddr> {
    written.iter().map(|address| address.parse().unwrap()).collect()
}

fn strings(defects: &[Defect]) -> Vec<String> {
    defects.iter().map(ToString::to_string).collect()
}

fn service_of(spec: Value, status: Value) -> (Service, Vec<String>) {
    let object =
        json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": spec, "status": status});
    let Converted { object, defects } = service(&object).unwrap();
    (object, strings(&defects))
}

#[test]
fn every_address_of_a_service_and_its_ports_are_read() {
    let spec = json!({
        "type": "LoadBalancer",
        "clusterIP": "10.96.0.1",
        "clusterIPs": ["10.96.0.1", "FD00:96::1"],
        "externalIPs": ["192.0.2.1"],
        "ports": [
            {"name": "dns", "protocol": "UDP", "port": 53, "targetPort": 5353},
            {"name": "dns-tcp", "port": 53},
        ],
    });
    let ingress = json!([{"ip": "192.0.2.2"}, {"hostname": "lb.example"}, {"ip": ""}]);
    let status = json!({"loadBalancer": {"ingress": ingress}});
    let port = |name: &str, protocol| ServicePort { name: name.to_owned(), protocol, port: 53 };
    let service = Service {
        key: ObjectKey::new("shop", "web"),
        addresses: addresses(["10.96.0.1", "fd00:96::1", "192.0.2.1", "192.0.2.2"]),
        ports: vec![port("dns-tcp", Protocol::Tcp), port("dns", Protocol::Udp)],
    };
    assert_eq!(service_of(spec, status), (service, vec![]));
}

#[test]
fn a_service_without_cluster_address_has_no_address() {
    for spec in [
        json!(null),
        json!({}),
        json!({"clusterIP": "", "externalIPs": ["192.0.2.1"]}),
        json!({"clusterIP": "None", "externalIPs": ["192.0.2.1"]}),
        json!({"clusterIP": "None", "clusterIPs": ["None"], "externalIPs": ["192.0.2.1"]}),
        json!({"type": "ExternalName", "clusterIP": "10.96.0.1", "externalIPs": ["192.0.2.1"]}),
    ] {
        let (service, defects) = service_of(spec.clone(), json!({}));
        assert_eq!((service.addresses, defects), (addresses([]), vec![]), "{spec}");
    }
    let (service, _) = service_of(json!({"clusterIP": "10.96.0.1"}), json!(null));
    assert_eq!(service.addresses, addresses(["10.96.0.1"]), "clusterIP counts without clusterIPs");
}

#[test]
fn what_can_not_be_read_of_a_service_is_told_and_left_out() {
    let spec = json!({
        "clusterIPs": ["10.96.0.1", "10.96.0.0l"],
        "externalIPs": ["127.0.0.1"],
        "ports": [
            {"port": 0}, {"port": 65536}, {"port": 1, "protocol": "tcp"}, {"name": "no"},
            {"name": "ok", "port": 2}, {"name": "a", "port": 3}, {"name": "b", "port": 3},
            {"name": "c", "port": 3}, {"name": "d", "port": 3, "protocol": "UDP"},
        ],
    });
    let status = json!({"loadBalancer": {"ingress": [{"ip": "x"}]}});
    let (service, defects) = service_of(spec, status);
    let address = "is not an IP address; write one such as 10.0.0.10 or fd00:10::10";
    let port = "is not a port; write a number from 1 to 65535";
    let twice = "another port of the service is TCP 3, too; remove one of them (neither counts \
                 until then)";
    assert_eq!(
        defects,
        [
            format!("spec.clusterIPs[1]: `10.96.0.0l` {address}"),
            "spec.externalIPs[0]: 127.0.0.1 is not an address that a service can have; write the \
             service's own"
                .to_owned(),
            format!("status.loadBalancer.ingress[0].ip: `x` {address}"),
            format!("spec.ports[0].port: 0 {port}"),
            format!("spec.ports[1].port: 65536 {port}"),
            "spec.ports[2].protocol: unknown protocol `tcp`; write TCP, UDP or SCTP".to_owned(),
            format!("spec.ports[3].port: 0 {port}"),
            format!("spec.ports[6].port: {twice}"),
            format!("spec.ports[7].port: {twice}"),
        ]
    );
    assert_eq!(service.addresses, addresses(["10.96.0.1"]));
    let ports: Vec<_> = service.ports.iter().map(|port| &*port.name).collect();
    assert_eq!(ports, ["ok", "d"]);
}

fn slice_object(changed: Value) -> Value {
    let mut object = json!({
        "apiVersion": "discovery.k8s.io/v1",
        "metadata": {
            "name": "web-x",
            "namespace": "shop",
            "labels": {"kubernetes.io/service-name": "web"},
        },
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.0.0.1"]}],
        "ports": [{"name": "http", "port": 8080}],
    });
    for (field, value) in changed.as_object().unwrap() {
        object[field] = value.clone();
    }
    object
}

/// The slice, of which nothing is wrong.
fn slice(changed: Value) -> Option<EndpointSlice> {
    let converted = endpoint_slice(&slice_object(changed)).unwrap();
    assert_eq!(converted.defects, []);
    converted.object
}

#[test]
fn a_slice_has_the_addresses_that_are_ready() {
    let endpoints = json!([
        {"addresses": ["10.0.0.1", "10.0.0.2"]},
        {"addresses": ["10.0.0.3"], "conditions": null},
        {"addresses": ["10.0.0.4"], "conditions": {"ready": null, "serving": false}},
        {"addresses": ["010.0.0.005"], "conditions": {"ready": true}},
        {"addresses": ["10.0.0.6"], "conditions": {"ready": false, "serving": true}},
        {"addresses": null},
    ]);
    let slice = slice(json!({"endpoints": endpoints})).unwrap();
    assert_eq!(
        slice,
        EndpointSlice {
            key: ObjectKey::new("shop", "web-x"),
            service: "web".into(),
            ports: vec![SlicePort {
                name: "http".to_owned(),
                protocol: Protocol::Tcp,
                port: Some(8080)
            }],
            ready: addresses(["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5"]),
        }
    );
}

#[test]
fn ports_of_a_slice_have_defaults() {
    let ports =
        json!([{}, {"name": null, "protocol": "SCTP", "port": null}, {"name": "", "port": 1}]);
    let port = |protocol, port| SlicePort { name: String::new(), protocol, port };
    assert_eq!(
        slice(json!({"ports": ports})).unwrap().ports,
        [port(Protocol::Tcp, None), port(Protocol::Sctp, None), port(Protocol::Tcp, Some(1))]
    );
    assert_eq!(slice(json!({"ports": null, "endpoints": null})).unwrap().ports, []);
}

#[test]
fn a_slice_of_no_service_or_of_names_is_none() {
    let metadata = |labels| json!({"metadata": {"name": "s", "labels": labels}});
    assert_eq!(slice(metadata(json!(null))), None);
    assert_eq!(slice(metadata(json!({"app": "web"}))), None);
    assert_eq!(slice(metadata(json!({"kubernetes.io/service-name": ""}))), None);
    let names = json!([{"addresses": ["db.example"]}]);
    assert_eq!(slice(json!({"addressType": "FQDN", "endpoints": names})), None);
}

#[test]
fn a_slice_of_which_a_backend_could_be_lost_is_an_error() {
    let api = "correct it as the Kubernetes API describes this field";
    for (changed, expected) in [
        (
            json!({"endpoints": [{"addresses": ["10.0.0.l"]}]}),
            "endpoints[0].addresses[0]: `10.0.0.l` is not an IP address; write one such as \
             10.0.0.10 or fd00:10::10"
                .to_owned(),
        ),
        (
            json!({"endpoints": [{"addresses": ["127.0.0.1"]}]}),
            "endpoints[0].addresses[0]: 127.0.0.1 is not an address that a backend can have; write \
             the backend's own"
                .to_owned(),
        ),
        (
            json!({"endpoints": [{}, {"addresses": ["10.0.0.1", "fd00::1"]}]}),
            "endpoints[1].addresses[1]: fd00::1 is not of the slice's addressType; correct one"
                .to_owned(),
        ),
        (
            json!({"endpoints": [{"addresses": [], "conditions": {"ready": "no"}}]}),
            format!(
                "endpoints[0].conditions.ready: invalid type: string \"no\", expected a boolean; {api}"
            ),
        ),
        (
            json!({"ports": [{"protocol": "tcp"}]}),
            "ports[0].protocol: unknown protocol `tcp`; write TCP, UDP or SCTP".to_owned(),
        ),
        (
            json!({"ports": [{"name": 80}]}),
            format!("ports[0].name: invalid type: integer `80`, expected a string; {api}"),
        ),
        (
            json!({"addressType": "ipv4"}),
            "addressType: unknown address type (`ipv4`); write IPv4 or IPv6".to_owned(),
        ),
        (
            json!({"addressType": null}),
            "addressType: unknown address type (none); write IPv4 or IPv6".to_owned(),
        ),
        (
            json!({"apiVersion": "discovery.k8s.io/v1beta1"}),
            "apiVersion: not the version of an EndpointSlice; write discovery.k8s.io/v1".to_owned(),
        ),
        (
            json!({"metadata": {}}),
            "metadata.name: the object has no name; give it one".to_owned(),
        ),
    ] {
        assert_eq!(endpoint_slice(&slice_object(changed)).unwrap_err().to_string(), expected);
    }
}

#[test]
fn nothing_is_allowed_at_a_port_of_a_slice_that_is_none() {
    let ports = json!([{"name": "a", "port": 0}, {"name": "b", "port": 1}]);
    let Converted { object, defects } =
        endpoint_slice(&slice_object(json!({"ports": ports}))).unwrap();
    let ports: Vec<_> = object.unwrap().ports.into_iter().map(|p| (p.name, p.port)).collect();
    assert_eq!(ports, [("a".to_owned(), None), ("b".to_owned(), Some(1))]);
    let problem = "ports[0].port: 0 is not a port; write a number from 1 to 65535";
    assert_eq!(strings(&defects), [problem]);
}

#[test]
fn a_node_has_its_internal_and_external_addresses() {
    let object = json!({
        "metadata": {"name": "n1"},
        "status": {"addresses": [
            {"type": "InternalIP", "address": "192.168.0.1"},
            {"type": "InternalIP", "address": "fd00::1"},
            {"type": "ExternalIP", "address": "203.0.113.1"},
            {"type": "Hostname", "address": "n1"},
            {"type": "InternalDNS", "address": "n1.internal"},
            {"type": "InternalIP", "address": "n1"},
        ]},
    });
    let Converted { object, defects } = node(&object).unwrap();
    let problem = "status.addresses[5].address: `n1` is not an IP address; write one such as \
                   10.0.0.10 or fd00:10::10";
    assert_eq!(strings(&defects), [problem]);
    let addresses = addresses(["192.168.0.1", "fd00::1", "203.0.113.1"]);
    assert_eq!(object, Node { name: "n1".to_owned(), addresses });
    assert_eq!(
        node(&json!({"metadata": {"name": "n1"}})).unwrap().object.addresses,
        BTreeSet::new()
    );
    assert!(node(&json!({"metadata": {}})).is_err());
}
