//! Namespaces and pods.

use std::{collections::BTreeMap, sync::Arc};

use bulkhead_common::verdict::DenyAction;
use serde_json::{Value, json};

use super::super::*;
use crate::policy::model::{NamedPort, Pod};

#[test]
fn a_namespace_has_its_name_as_a_label() {
    let object = json!({"metadata": {
        "name": "shop",
        "labels": {"team": "a", "kubernetes.io/metadata.name": "forged"},
        "annotations": {"bulkhead.io/deny-action": "reject", "other": {"not": "read"}},
    }});
    let labels = [("kubernetes.io/metadata.name", "shop"), ("team", "a")];
    let labels: BTreeMap<_, _> = labels.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    assert_eq!(
        namespace(&object),
        Ok(Converted {
            object: Namespace {
                name: "shop".to_owned(),
                labels,
                deny_action: Some(DenyAction::Reject)
            },
            defects: vec![],
        })
    );
}

#[test]
fn an_unknown_deny_action_is_told_and_counts_as_absent() {
    let action = |value: Value| {
        let annotations = json!({"bulkhead.io/deny-action": value});
        let object = json!({"metadata": {"name": "shop", "annotations": annotations}});
        let Converted { object, defects } = namespace(&object).unwrap();
        (object.deny_action, defects.into_iter().map(|d| d.to_string()).collect::<Vec<_>>())
    };
    assert_eq!(action(json!("drop")), (Some(DenyAction::Drop), vec![]));
    let (none, defects) = action(json!("Reject"));
    assert_eq!(none, None);
    assert_eq!(
        defects,
        [
            "metadata.annotations.bulkhead.io/deny-action: unknown action \"Reject\"; write `drop` or \
          `reject` (the agent's default counts until then)"
        ]
    );
    assert_eq!(action(json!(true)).0, None);
}

#[test]
fn a_pod_is_read() {
    let object = json!({
        "metadata": {"name": "db", "namespace": "shop", "uid": "1-2", "labels": {"app": "db"}},
        "spec": {"nodeName": "n1", "hostNetwork": true, "containers": [{"any": "thing"}]},
        "status": {
            "phase": "Running",
            "podIP": "10.0.0.10",
            "podIPs": [{"ip": "10.0.0.10"}, {"ip": "FD00:10:0::10"}],
        },
    });
    assert_eq!(
        pod(&object),
        Ok(Converted {
            object: Pod {
                key: ObjectKey::new("shop", "db"),
                uid: "1-2".to_owned(),
                labels: Arc::new([("app".to_owned(), "db".to_owned())].into()),
                ports: Arc::new([]),
                addresses: vec!["10.0.0.10".parse().unwrap(), "fd00:10::10".parse().unwrap()],
                node: Some("n1".into()),
                host_network: true,
                ended: false,
            },
            defects: vec![],
        })
    );
}

fn addresses(status: Value) -> (Vec<String>, Vec<String>) {
    let object = json!({"metadata": {"name": "db"}, "status": status});
    let Converted { object, defects } = pod(&object).unwrap();
    let addresses = object.addresses.iter().map(ToString::to_string).collect();
    (addresses, defects.iter().map(ToString::to_string).collect())
}

#[test]
fn addresses_come_from_pod_ips_and_else_from_pod_ip() {
    let one = (vec!["10.0.0.10".to_owned()], vec![]);
    assert_eq!(addresses(json!({"podIP": "10.0.0.10"})), one);
    assert_eq!(addresses(json!({"podIP": "10.0.0.10", "podIPs": []})), one);
    assert_eq!(addresses(json!({"podIP": "10.0.0.9", "podIPs": [{"ip": "10.0.0.10"}]})), one);
    assert_eq!(addresses(json!({"podIPs": [{"ip": "::ffff:10.0.0.10"}]})), one);
    assert_eq!(
        addresses(json!({"podIPs": [{"ip": "010.0.0.010"}]})),
        one,
        "as old servers read it"
    );
    let twice = json!({"podIPs": [{"ip": "10.0.0.10"}, {"ip": "10.0.0.10"}]});
    assert_eq!(addresses(twice), one);
}

#[test]
fn a_pod_without_address_is_a_pod() {
    for status in [json!(null), json!({}), json!({"podIP": "", "podIPs": null})] {
        assert_eq!(addresses(status), (vec![], vec![]));
    }
}

#[test]
fn an_address_that_is_none_is_told_and_the_others_count() {
    let status = json!({"podIPs": [{"ip": "10.0.0.l0"}, {"ip": "fd00::1"}]});
    let problem = "status.podIPs[0].ip: `10.0.0.l0` is not an IP address; write one such as \
                   10.0.0.10 or fd00:10::10";
    assert_eq!(addresses(status), (vec!["fd00::1".to_owned()], vec![problem.to_owned()]));

    let status = json!({"podIPs": [{"ip": "10.0.0.2"}, {"ip": "10.0.0.1"}]});
    let problem = "status.podIPs[1].ip: 10.0.0.1 is a second address of the same family; a pod \
                   has at most one IPv4 and one IPv6 address: remove it (the first one counts)";
    assert_eq!(addresses(status), (vec!["10.0.0.2".to_owned()], vec![problem.to_owned()]));

    for address in ["0.0.0.0", "::", "127.0.0.1", "::1", "224.0.0.1", "ff02::1"] {
        let problem = format!(
            "status.podIPs[0].ip: {address} is not an address that a pod can have; write the pod's \
             own"
        );
        let status = json!({"podIPs": [{"ip": address}, {"ip": "fd00::1"}]});
        assert_eq!(addresses(status), (vec!["fd00::1".to_owned()], vec![problem]));
    }
}

#[test]
fn a_pod_none_of_whose_addresses_can_be_read_is_an_error() {
    let object = json!({"metadata": {"name": "db"}, "status": {"podIP": "10.0.0.l0"}});
    assert_eq!(
        pod(&object).unwrap_err().to_string(),
        "status.podIP: `10.0.0.l0` is not an IP address; write one such as 10.0.0.10 or fd00:10::10"
    );
}

#[test]
fn a_pod_has_ended_when_it_succeeded_or_failed() {
    for (phase, ended) in [
        (json!("Pending"), false),
        (json!("Running"), false),
        (json!("Unknown"), false),
        (json!(null), false),
        (json!("Succeeded"), true),
        (json!("Failed"), true),
    ] {
        let object = json!({"metadata": {"name": "db"}, "status": {"phase": phase}});
        assert_eq!(pod(&object).unwrap().object.ended, ended, "{phase}");
    }
}

#[test]
fn a_pod_whose_labels_can_not_be_read_is_an_error() {
    let object = json!({"metadata": {"name": "db", "labels": {"app": 1}}});
    assert_eq!(
        pod(&object).unwrap_err().to_string(),
        "metadata.labels.app: invalid type: integer `1`, expected a string; correct it as the \
         Kubernetes API describes this field"
    );
}

/// The named ports of a pod as `name/protocol=number`, and what is wrong with it.
fn ports(spec: Value) -> (Vec<String>, Vec<String>) {
    let object = json!({"metadata": {"name": "db"}, "spec": spec});
    let Converted { object, defects } = pod(&object).unwrap();
    let port = |port: &NamedPort| format!("{}/{}={}", port.name, port.protocol, port.number);
    let defects = defects.iter().map(ToString::to_string).collect();
    (object.ports.iter().map(port).collect(), defects)
}

#[test]
fn named_ports_are_those_of_containers_that_run_all_the_time() {
    let spec = json!({
        "initContainers": [
            {"ports": [{"name": "setup", "containerPort": 1}]},
            {"restartPolicy": "Always", "ports": [{"name": "proxy", "containerPort": 15001}]},
        ],
        "containers": [
            {"name": "none"},
            {"ports": [
                {"name": "http", "containerPort": 8080},
                {"containerPort": 9},
                {"name": "", "containerPort": 70000},
                {"name": "dns", "protocol": "UDP", "containerPort": 53},
                {"name": "dns", "protocol": "", "containerPort": 5353},
            ]},
            {"ports": [{"name": "http", "containerPort": 8081}]},
        ],
        "ephemeralContainers": [{"ports": [{"name": "debug", "containerPort": 2}]}],
    });
    let expected =
        ["http/TCP=8080", "dns/UDP=53", "dns/TCP=5353", "http/TCP=8081", "proxy/TCP=15001"];
    assert_eq!(ports(spec), (expected.map(str::to_owned).to_vec(), vec![]));
}

#[test]
fn a_port_of_a_container_that_is_none_is_told_and_hides_the_later_ones_of_its_name() {
    let spec = json!({"containers": [
        {"ports": [
            {"name": "web", "containerPort": 0},
            {"name": "web", "containerPort": 80},
            {"name": "dns", "protocol": "udp", "containerPort": 53},
            {"name": "Upper", "containerPort": 1},
            {"name": "text", "containerPort": "80"},
            {"name": "none"},
            {"name": "fine", "containerPort": 65535},
        ]},
        {"ports": {"name": "x"}},
        {"ports": [{"name": 5, "containerPort": 1}, {"name": "web", "containerPort": 81}]},
    ], "initContainers": "x"});
    let (ports, defects) = ports(spec);
    assert_eq!(ports, ["fine/TCP=65535"]);
    let at = "spec.containers[0].ports";
    let api = "correct it as the Kubernetes API describes this field";
    let list = "not a list; write one (until then no rule reaches the ports in it by name)";
    assert_eq!(
        defects,
        [
            format!("{at}[0].containerPort: 0 is not a port; write a number from 1 to 65535"),
            format!("{at}[2].protocol: unknown protocol `udp`; write TCP, UDP or SCTP"),
            format!(
                "{at}[3].name: `Upper` is not the name of a port; write at most 15 lower case \
                 letters, digits and single `-` between them, one letter at least, or a number \
                 without quotes"
            ),
            format!("{at}[4].containerPort: invalid type: string \"80\", expected i64; {api}"),
            format!("{at}[5].containerPort: 0 is not a port; write a number from 1 to 65535"),
            format!("spec.containers[1].ports: {list}"),
            format!(
                "spec.containers[2].ports[0].name: invalid type: integer `5`, expected a string; {api}"
            ),
            format!("spec.initContainers: {list}"),
        ]
    );
}
