//! Each default of the API, and each way to get an object wrong.

use std::collections::BTreeMap;

use bulkhead_common::verdict::DenyAction;
use serde_json::{Value, json};

use super::*;
use crate::policy::{
    model::{Peer, Policy, PortMatch, Protocol, Rule},
    selector::Selector,
};

fn selects(key: &str, value: &str) -> Selector {
    Selector::new([(key.to_owned(), value.to_owned())], []).unwrap()
}

fn policy_of(spec: Value) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "p", "namespace": "shop", "labels": {"not": ["read"]}},
        "spec": spec,
    })
}

/// The policy, which has nothing wrong in it.
fn sound(spec: Value) -> Policy {
    let converted = policy(&policy_of(spec)).unwrap();
    assert_eq!(converted.defects, []);
    assert_eq!(converted.object.refused, None);
    converted.object
}

/// What is wrong with the policy, and what became of it.
fn broken(object: &Value) -> (String, Policy) {
    let Converted { object, defects } = policy(object).unwrap();
    let [defect] = &*defects else { panic!("{defects:?}") };
    assert_eq!(object.refused, Some(defect.to_string()));
    for rules in [&object.ingress, &object.egress].into_iter().flatten() {
        assert_eq!(*rules, [], "a refused policy has no rules");
    }
    (defect.to_string(), object)
}

fn problem(spec: Value) -> String {
    broken(&policy_of(spec)).0
}

#[test]
fn the_reference_policy_is_read() {
    let policy = sound(json!({
        "podSelector": {"matchLabels": {"app": "mysql"}},
        "policyTypes": ["Ingress"],
        "ingress": [{
            "from": [{"podSelector": {"matchLabels": {"app": "wordpress"}}}],
            "ports": [{"protocol": "TCP", "port": 3306}],
        }],
    }));
    let peer = Peer { namespaces: None, pods: Some(selects("app", "wordpress")) };
    let port = PortMatch { protocol: Protocol::Tcp, ports: Some(3306..=3306) };
    assert_eq!(
        policy,
        Policy {
            key: ObjectKey::new("shop", "p"),
            pod_selector: selects("app", "mysql"),
            ingress: Some(vec![Rule { peers: Some(vec![peer]), ports: Some(vec![port]) }]),
            egress: None,
            refused: None,
        }
    );
}

#[test]
fn without_policy_types_ingress_is_isolated_and_egress_only_if_it_has_rules() {
    for (spec, ingress, egress) in [
        (json!({}), true, false),
        (json!({"policyTypes": null}), true, false),
        (json!({"policyTypes": []}), true, false),
        (json!({"policyTypes": [], "egress": []}), true, false),
        (json!({"policyTypes": [], "egress": [{}]}), true, true),
        (json!({"egress": [{}]}), true, true),
        (json!({"ingress": [{}]}), true, false),
        (json!({"policyTypes": ["Egress"]}), false, true),
        (json!({"policyTypes": ["Egress"], "ingress": [{}]}), false, true),
        (json!({"policyTypes": ["Ingress"], "egress": [{}]}), true, false),
        (json!({"policyTypes": ["Egress", "Ingress", "Egress"]}), true, true),
    ] {
        let policy = sound(spec.clone());
        assert_eq!(
            (policy.ingress.is_some(), policy.egress.is_some()),
            (ingress, egress),
            "{spec}"
        );
    }
}

#[test]
fn an_absent_a_null_and_an_empty_list_of_rules_mean_the_same() {
    for spec in [json!({}), json!({"ingress": null}), json!({"ingress": []})] {
        assert_eq!(sound(spec).ingress, Some(vec![]));
    }
}

#[test]
fn an_absent_a_null_and_an_empty_list_in_a_rule_restrict_nothing() {
    for rule in [json!({}), json!({"from": null, "ports": null}), json!({"from": [], "ports": []})]
    {
        let policy = sound(json!({"ingress": [rule]}));
        assert_eq!(policy.ingress, Some(vec![Rule { peers: None, ports: None }]));
    }
}

#[test]
fn an_absent_or_empty_pod_selector_selects_every_pod() {
    for spec in [json!({}), json!({"podSelector": null}), json!({"podSelector": {}})] {
        assert_eq!(sound(spec).pod_selector, Selector::everything());
    }
}

#[test]
fn peers_and_ports_of_egress_rules_are_read() {
    let policy = sound(json!({
        "policyTypes": ["Egress"],
        "egress": [{
            "to": [
                {"namespaceSelector": {}},
                {"namespaceSelector": {"matchLabels": {"a": ""}}, "podSelector": {"matchExpressions": [
                    {"key": "example.com/b", "operator": "In", "values": ["x"]},
                ]}},
            ],
            "ports": [{}, {"protocol": "UDP"}, {"protocol": "SCTP", "port": 65535}, {"port": 1}],
        }],
    }));
    let peers = vec![
        Peer { namespaces: Some(Selector::everything()), pods: None },
        Peer { namespaces: Some(selects("a", "")), pods: Some(selects("example.com/b", "x")) },
    ];
    let port = |protocol, ports| PortMatch { protocol, ports };
    let ports = vec![
        port(Protocol::Tcp, None),
        port(Protocol::Udp, None),
        port(Protocol::Sctp, Some(65535..=65535)),
        port(Protocol::Tcp, Some(1..=1)),
    ];
    assert_eq!(policy.egress, Some(vec![Rule { peers: Some(peers), ports: Some(ports) }]));
}

#[test]
fn each_mistake_in_a_rule_is_told_by_field_and_remedy() {
    let api = "correct it as the Kubernetes API describes this field";
    let label = "is not a label's value; write at most 63 letters, digits, `-`, `_` and `.`, a \
                 letter or digit first and last";
    let key = "is not a label's key; write a name of at most 63 letters, digits, `-`, `_` and \
               `.`, if need be behind a DNS name and a slash";
    let list = "a list where a mapping or a single value belongs; correct the field";
    for (rule, expected) in [
        (
            json!({"form": []}),
            format!(".form: unknown field `form`, expected `from` or `ports`; {api}"),
        ),
        (
            json!(null),
            format!(": invalid type: null, expected a mapping with `from` and `ports`; {api}"),
        ),
        (json!([]), format!(": {list}")),
        (json!({"from": {}}), format!(".from: invalid type: map, expected a sequence; {api}")),
        (json!({"from": [[]]}), format!(".from[0]: {list}")),
        (json!({"from": [{"podSelector": []}]}), format!(".from[0].podSelector: {list}")),
        (
            json!({"from": [{"podSelector": {}}, {}]}),
            ".from[1]: the peer names nobody; write `podSelector: {}` for every pod of the \
             namespace, `namespaceSelector: {}` for every pod, or remove the peer"
                .to_owned(),
        ),
        (
            json!({"from": [{"podSelector": {"matchLabel": {"a": "b"}}}]}),
            format!(
                ".from[0].podSelector.matchLabel: unknown field `matchLabel`, expected \
                     `matchLabels` or `matchExpressions`; {api}"
            ),
        ),
        (
            json!({"from": [{"podSelector": {"matchLabels": {"app": 1}}}]}),
            format!(
                ".from[0].podSelector.matchLabels.app: invalid type: integer `1`, expected a \
                     string; {api}"
            ),
        ),
        (
            json!({"from": [{"podSelector": {"matchLabels": {"app": "a b"}}}]}),
            format!(".from[0].podSelector.matchLabels.app: `a b` {label}"),
        ),
        (
            json!({"from": [{"podSelector": {"matchLabels": {"A.b/": "a"}}}]}),
            format!(".from[0].podSelector.matchLabels.A.b/: `A.b/` {key}"),
        ),
        (
            json!({"from": [{"podSelector": {"matchExpressions": [{"key": "", "operator": "Exists"}]}}]}),
            format!(".from[0].podSelector.matchExpressions[0].key: `` {key}"),
        ),
        (
            json!({"from": [{"namespaceSelector": {"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["-"]}]}}]}),
            format!(".from[0].namespaceSelector.matchExpressions[0].values[0]: `-` {label}"),
        ),
        (
            json!({"from": [{"podSelector": {"matchExpressions": [{"key": "a", "operator": "in", "values": ["b"]}]}}]}),
            ".from[0].podSelector.matchExpressions[0]: matchExpressions on key \"a\": unknown \
             operator \"in\": use In, NotIn, Exists or DoesNotExist"
                .to_owned(),
        ),
        (
            json!({"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}),
            ".from[0].ipBlock: blocks of addresses are not supported yet; name the peers by \
             podSelector or namespaceSelector"
                .to_owned(),
        ),
        (
            json!({"ports": [{"port": "mysql"}]}),
            ".ports[0].port: `mysql` is the name of a port, which is not supported yet; write its \
             number without quotes"
                .to_owned(),
        ),
        (
            json!({"ports": [{"port": 1, "endPort": 2}]}),
            ".ports[0].endPort: ranges of ports are not supported yet; list the ports one by one"
                .to_owned(),
        ),
        (
            json!({"ports": [{"port": 0}]}),
            ".ports[0].port: 0 is not a port; write a number from 1 to 65535".to_owned(),
        ),
        (
            json!({"ports": [{"port": 65536}]}),
            ".ports[0].port: 65536 is not a port; write a number from 1 to 65535".to_owned(),
        ),
        (
            json!({"ports": [{"port": -1}]}),
            ".ports[0].port: -1 is not a port; write a number from 1 to 65535".to_owned(),
        ),
        (
            json!({"ports": [{"port": true}]}),
            format!(".ports[0].port: expected a port number or the name of a port; {api}"),
        ),
        (
            json!({"ports": [{"protocol": "tcp"}]}),
            ".ports[0].protocol: unknown protocol `tcp`; write TCP, UDP or SCTP".to_owned(),
        ),
        (
            json!({"ports": [3306]}),
            format!(
                ".ports[0]: invalid type: integer `3306`, expected a mapping with `protocol` and `port`; {api}"
            ),
        ),
    ] {
        let spec = json!({"podSelector": {"matchLabels": {"app": "db"}}, "ingress": [{}, rule]});
        let (problem, policy) = broken(&policy_of(spec));
        assert_eq!(problem, format!("spec.ingress[1]{expected}"));
        assert_eq!(policy.pod_selector, selects("app", "db"), "{problem}");
        assert_eq!((policy.ingress, policy.egress), (Some(vec![]), None), "{problem}");
    }
}

#[test]
fn a_refused_policy_closes_every_pod_and_direction_that_it_can_mean() {
    let bad_rule = json!([{"nonsense": 1}]);
    for (spec, everything, egress) in [
        // The selector or the spec itself can't be read.
        (json!({"podSelector": {"matchLabel": {"app": "db"}}}), true, false),
        (json!({"podSelector": {"matchLabels": {"app": 1}}}), true, false),
        (json!({"podSelector": "app=db"}), true, false),
        (json!(null), true, true),
        (json!([]), true, true),
        (json!("podSelector"), true, true),
        // An unknown field of the spec may be a misspelt policyTypes, egress or podSelector.
        (json!({"podSelector": {"matchLabels": {"app": "db"}}, "egres": []}), false, true),
        (json!({"podselector": {"matchLabels": {"app": "db"}}}), true, true),
        // policyTypes can't be read.
        (
            json!({"podSelector": {"matchLabels": {"app": "db"}}, "policyTypes": "Ingress"}),
            false,
            true,
        ),
        (
            json!({"podSelector": {"matchLabels": {"app": "db"}}, "policyTypes": ["ingress"]}),
            false,
            true,
        ),
        // It says Ingress alone, or nothing; a section is there, whatever it holds.
        (json!({"podSelector": {"matchLabels": {"app": "db"}}, "ingress": bad_rule}), false, false),
        (
            json!({"podSelector": {"matchLabels": {"app": "db"}}, "policyTypes": ["Ingress"], "egress": bad_rule}),
            false,
            false,
        ),
        (
            json!({"podSelector": {"matchLabels": {"app": "db"}}, "ingress": bad_rule, "egress": []}),
            false,
            true,
        ),
        (json!({"podSelector": {"matchLabels": {"app": "db"}}, "egress": "all"}), false, true),
    ] {
        let (problem, policy) = broken(&policy_of(spec));
        let expected = if everything { Selector::everything() } else { selects("app", "db") };
        assert_eq!(policy.pod_selector, expected, "{problem}");
        assert_eq!(policy.ingress, Some(vec![]), "{problem}");
        assert_eq!(policy.egress.is_some(), egress, "{problem}");
    }
    let spec = json!({"policyTypes": ["Egress"], "egress": [{"to": [{}]}]});
    let (_, policy) = broken(&policy_of(spec));
    assert_eq!((policy.ingress, policy.egress), (None, Some(vec![])));
}

#[test]
fn mistakes_outside_the_rules_are_told_by_field_and_remedy() {
    assert_eq!(
        problem(json!({"policyTypes": ["Ingres"]})),
        "spec.policyTypes[0]: unknown policy type `Ingres`; write Ingress or Egress"
    );
    assert_eq!(
        problem(json!({"policyType": ["Ingress"]})),
        "spec.policyType: unknown field `policyType`, expected one of `podSelector`, \
         `policyTypes`, `ingress`, `egress`; correct it as the Kubernetes API describes this field"
    );
    assert_eq!(
        problem(json!(null)),
        "spec: the policy has no spec; write one, `spec: {podSelector: {}}` at least"
    );
    let mut object = policy_of(json!({}));
    object["sepc"] = json!({});
    assert_eq!(broken(&object).0, "sepc: unknown field `sepc`; correct or remove it");
    let mut object = policy_of(json!({}));
    object["apiVersion"] = json!("networking.k8s.io/v1beta1");
    assert_eq!(
        broken(&object).0,
        "apiVersion: not the version of a NetworkPolicy; write networking.k8s.io/v1"
    );
}

#[test]
fn a_policy_that_nobody_can_attribute_is_an_error() {
    let attributed_to = |metadata: Value| {
        let mut object = policy_of(json!({}));
        object["metadata"] = metadata;
        policy(&object).map(|c| c.object.key.to_string()).map_err(|defect| defect.to_string())
    };
    assert_eq!(attributed_to(json!({"name": "p"})), Ok("default/p".to_owned()));
    assert_eq!(attributed_to(json!({"name": "p", "namespace": ""})), Ok("default/p".to_owned()));
    let no_name = Err("metadata.name: the object has no name; give it one".to_owned());
    assert_eq!(attributed_to(json!(null)), no_name);
    assert_eq!(attributed_to(json!({"generateName": "p-"})), no_name);
    assert_eq!(
        attributed_to(json!({"name": "p", "namespace": 1})),
        Err("metadata.namespace: invalid type: integer `1`, expected a string; correct it as the \
             Kubernetes API describes this field"
            .to_owned())
    );
}

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
                labels: [("app".to_owned(), "db".to_owned())].into(),
                addresses: vec!["10.0.0.10".parse().unwrap(), "fd00:10::10".parse().unwrap()],
                node: Some("n1".to_owned()),
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
    let status = json!({"podIPs": [{"ip": "10.0.0.010"}, {"ip": "fd00::1"}]});
    let problem = "status.podIPs[0].ip: `10.0.0.010` is not an IP address; write one such as \
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
