//! Each default of the API, and each way to get an object wrong. Policies are here.

use serde_json::{Value, json};

use super::*;
use crate::policy::{
    model::{ObjectKey, Peer, Policy, PortMatch, Ports, Protocol, Rule},
    selector::Selector,
};

mod block_and_port;
mod namespace_and_pod;
mod recorded;
mod service_and_node;

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
    let peer = Peer::Pods { namespaces: None, pods: selects("app", "wordpress") };
    let port = PortMatch { protocol: Protocol::Tcp, ports: Ports::Range(3306..=3306) };
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
        (json!({"policyTypes": ["Egress", "Egress"]}), false, true),
        (json!({"policyTypes": ["Egress", "Ingress"]}), true, true),
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
        Peer::Pods { namespaces: Some(Selector::everything()), pods: Selector::everything() },
        Peer::Pods { namespaces: Some(selects("a", "")), pods: selects("example.com/b", "x") },
    ];
    let port = |protocol, ports| PortMatch { protocol, ports };
    let ports = vec![
        port(Protocol::Tcp, Ports::All),
        port(Protocol::Udp, Ports::All),
        port(Protocol::Sctp, Ports::Range(65535..=65535)),
        port(Protocol::Tcp, Ports::Range(1..=1)),
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
        problem(json!({"policyTypes": ["Ingress", "Egress", "Ingress"]})),
        "spec.policyTypes: more than two policy types; write each of Ingress and Egress once at most"
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
