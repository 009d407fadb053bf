//! Each mistake in a policy, from a file to what is left of the policy.

use std::{
    io,
    sync::{Arc, Mutex},
};

use super::*;
use crate::policy::{model::Policy, selector::Selector};

/// What is behind a message that comes from the shape of a field.
const API: &str = "correct it as the Kubernetes API describes this field";

/// The policy of the file `a.yaml` is overwritten by one with this `spec`, while the rest of the
/// directory changes as well.
fn written(spec: &str) -> (String, Policy) {
    let head = &POLICY[..POLICY.find("spec:").unwrap()];
    let mut fixture = Fixture::new(&[("a.yaml", POLICY), ("b.yaml", POD)]);
    fixture.scan();
    fixture.write("a.yaml", format!("{head}spec: {spec}\n"));
    fixture.write("c.yaml", POLICY.replace("name: lock", "name: other"));
    let scan = fixture.scan();
    let changes: Vec<_> = scan.changes.iter().map(brief).collect();
    assert_eq!(changes, ["+closed policy shop/lock", "+policy shop/other"], "{spec}");
    assert!(scan.available && scan.complete);
    let [problem] = &*scan.problems else { panic!("{spec}: {:?}", scan.problems) };
    assert_eq!(
        (problem.kind, &*problem.subject),
        (ProblemKind::NetworkPolicy, "NetworkPolicy shop/lock")
    );
    let message = fixture.messages(&scan).remove(0);
    let (place, message) = message.split_once(": document 1: ").unwrap();
    let line = 3 + spec.lines().count();
    assert!(place.starts_with(&format!("DIR/a.yaml:{line}:")), "{place} in {spec}");
    (message.to_owned(), fixture.index.policies()[&lock()].clone())
}

/// It is told so, and the pods of the policy are closed: `everything` of its namespace or those of
/// its selector, for ingress if `ingress`, for egress if `egress`.
fn closes(spec: &str, expected: &str, everything: bool, ingress: bool, egress: bool) {
    let (message, policy) = written(spec);
    assert_eq!(message, expected, "{spec}");
    assert!(message.contains("; ") || message.contains(": use"), "no remedy: {message}");
    let web = [("app".to_owned(), "db".to_owned())];
    let selector =
        if everything { Selector::everything() } else { Selector::new(web, []).unwrap() };
    assert_eq!(policy.pod_selector, selector, "{spec}");
    assert_eq!(policy.ingress, ingress.then(Vec::new), "{spec}");
    assert_eq!(policy.egress, egress.then(Vec::new), "{spec}");
    assert!(policy.refused.is_some(), "{spec}");
}

/// A mistake in a rule, for ingress and for egress alike.
fn rule_closes(rule: &str, expected: &str) {
    let pods = "podSelector: {matchLabels: {app: db}}";
    let spec = format!("{{{pods}, ingress: [{rule}]}}");
    closes(&spec, &format!("spec.ingress[0].{expected}"), false, true, false);
    let spec =
        format!("{{{pods}, policyTypes: [Egress], egress: [{}]}}", rule.replace("from:", "to:"));
    let expected = match expected.strip_prefix("from") {
        Some(rest) => format!("to{rest}"),
        None => expected.to_owned(),
    };
    closes(&spec, &format!("spec.egress[0].{expected}"), false, false, true);
    // Without policyTypes both directions may be meant as soon as there are egress rules.
    let spec = format!("{{{pods}, egress: [{{}}], ingress: [{rule}]}}");
    let (_, policy) = written(&spec);
    assert_eq!((policy.ingress, policy.egress), (Some(vec![]), Some(vec![])));
}

#[test]
fn a_bad_block_of_addresses_closes_the_policy() {
    let block = "is not a block of addresses; write one such as 10.0.0.0/8 or fd00::/8";
    for text in ["10.0.0.0/33", "10.0.0.1", "10.0.0/8", "fd00::/129", "not-a-cidr", "''"] {
        let rule = format!("{{from: [{{ipBlock: {{cidr: \"{}\"}}}}]}}", text.trim_matches('\''));
        let text = text.trim_matches('\'');
        rule_closes(&rule, &format!("from[0].ipBlock.cidr: `{text}` {block}"));
    }
    rule_closes(
        "{from: [{ipBlock: {except: [10.0.0.0/9]}}]}",
        &format!("from[0].ipBlock.cidr: `` {block}"),
    );
    rule_closes(
        "{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16, x]}}]}",
        &format!("from[0].ipBlock.except[1]: `x` {block}"),
    );
    rule_closes(
        "{from: [{ipBlock: {cidr: '::ffff:10.0.0.0/90'}}]}",
        "from[0].ipBlock.cidr: `::ffff:10.0.0.0/90` holds IPv4 addresses written as IPv6, and \
         others; write one block for each family",
    );
}

#[test]
fn an_except_outside_of_its_block_closes_the_policy() {
    for (cidr, except) in [
        ("10.0.0.0/8", "192.168.0.0/16"),
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("10.1.0.0/16", "10.0.0.0/8"),
        ("0.0.0.0/0", "fd00::/8"),
        ("::/0", "10.0.0.0/8"),
    ] {
        let rule = format!("{{from: [{{ipBlock: {{cidr: '{cidr}', except: ['{except}']}}}}]}}");
        let expected = format!(
            "from[0].ipBlock.except[0]: {except} is not a smaller block inside of {cidr}; correct \
             or remove it (an except takes away from its own block only)"
        );
        rule_closes(&rule, &expected);
    }
}

#[test]
fn a_peer_that_names_nobody_or_two_things_at_once_closes_the_policy() {
    let nobody = "from[1]: the peer names nobody; write `podSelector: {}` for every pod of the \
                  namespace, `namespaceSelector: {}` for every pod, or remove the peer";
    rule_closes("{from: [{podSelector: {}}, {}]}", nobody);
    rule_closes("{from: [{podSelector: {}}, {ipBlock: null}]}", nobody);
    let both = "from[0]: the peer has both an ipBlock and a selector; write two peers, or remove \
                one of them";
    rule_closes("{from: [{ipBlock: {cidr: 10.0.0.0/8}, podSelector: {}}]}", both);
    rule_closes("{from: [{ipBlock: {cidr: 10.0.0.0/8}, namespaceSelector: {}}]}", both);
}

#[test]
fn a_bad_port_closes_the_policy() {
    let number = "is not a port; write a number from 1 to 65535";
    let name = "is not the name of a port; write at most 15 lower case letters, digits and single \
                `-` between them, one letter at least, or a number without quotes";
    for (port, expected) in [
        ("port: 0", format!("port: 0 {number}")),
        ("port: 65536", format!("port: 65536 {number}")),
        ("port: -1", format!("port: -1 {number}")),
        ("port: 80.5", format!("port: expected a port number or the name of a port; {API}")),
        ("port: true", format!("port: expected a port number or the name of a port; {API}")),
        ("port: [80]", format!("port: expected a port number or the name of a port; {API}")),
        ("port: '80'", format!("port: `80` {name}")),
        ("port: 080", format!("port: `080` {name}")),
        ("port: a-port-name-over-fifteen", format!("port: `a-port-name-over-fifteen` {name}")),
        ("port: HTTP", format!("port: `HTTP` {name}")),
        ("port: a--b", format!("port: `a--b` {name}")),
        ("protocol: tcp", "protocol: unknown protocol `tcp`; write TCP, UDP or SCTP".to_owned()),
        ("protocol: ICMP", "protocol: unknown protocol `ICMP`; write TCP, UDP or SCTP".to_owned()),
        ("protocol: 6", format!("protocol: invalid type: integer `6`, expected a string; {API}")),
        ("port: 90, endPort: 0", format!("endPort: 0 {number}")),
        ("port: 90, endPort: 70000", format!("endPort: 70000 {number}")),
        (
            "port: 90, endPort: 80",
            "endPort: the range ends at 80, before its first port 90; write the larger number as \
             endPort"
                .to_owned(),
        ),
        (
            "port: http, endPort: 90",
            "endPort: a range can't start at a name; write `port` as a number, or remove endPort"
                .to_owned(),
        ),
        ("endPort: 90", "endPort: a range without its first port; write that as `port`".to_owned()),
    ] {
        rule_closes(&format!("{{ports: [{{{port}}}]}}"), &format!("ports[0].{expected}"));
    }
}

#[test]
fn a_bad_selector_of_a_peer_closes_the_policy() {
    let key = "is not a label's key; write a name of at most 63 letters, digits, `-`, `_` and `.`, \
               if need be behind a DNS name and a slash";
    let value = "is not a label's value; write at most 63 letters, digits, `-`, `_` and `.`, a \
                 letter or digit first and last";
    for (selector, expected) in [
        ("matchLabels: {-bad-/x: a}", format!("matchLabels.-bad-/x: `-bad-/x` {key}")),
        ("matchLabels: {app: not valid!}", format!("matchLabels.app: `not valid!` {value}")),
        (
            "matchLabels: {app: 1}",
            format!("matchLabels.app: invalid type: integer `1`, expected a string; {API}"),
        ),
        (
            "matchExpressions: [{key: a, operator: Like, values: [x]}]",
            "matchExpressions[0]: matchExpressions on key \"a\": unknown operator \"Like\": use In, \
             NotIn, Exists or DoesNotExist"
                .to_owned(),
        ),
        (
            "matchExpressions: [{key: a, operator: In, values: []}]",
            "matchExpressions[0]: matchExpressions on key \"a\": In needs at least one entry in \
             values: add one, or use Exists or DoesNotExist"
                .to_owned(),
        ),
        (
            "matchExpressions: [{key: a, operator: Exists, values: [x]}]",
            "matchExpressions[0]: matchExpressions on key \"a\": Exists takes no values: remove \
             them, or use In or NotIn"
                .to_owned(),
        ),
        (
            "matchExpressions: [{operator: Exists}]",
            format!("matchExpressions[0]: missing field `key`; {API}"),
        ),
    ] {
        for field in ["podSelector", "namespaceSelector"] {
            let rule = format!("{{from: [{{{field}: {{{selector}}}}}]}}");
            let expected = format!("from[0].{field}.{expected}");
            let (message, policy) = written(&format!(
                "{{podSelector: {{matchLabels: {{app: db}}}}, ingress: [{rule}]}}"
            ));
            assert_eq!(message, format!("spec.ingress[0].{expected}"));
            assert_eq!((policy.ingress, policy.egress), (Some(vec![]), None), "{message}");
        }
        // The same in the policy's own selector: nobody knows which pods were meant.
        let (message, policy) = written(&format!("{{podSelector: {{{selector}}}, ingress: []}}"));
        assert_eq!(message, format!("spec.podSelector.{expected}"));
        assert_eq!(policy.pod_selector, Selector::everything());
        assert_eq!((policy.ingress, policy.egress), (Some(vec![]), None), "{message}");
    }
}

#[test]
fn an_unknown_field_closes_the_policy_wherever_it_stands() {
    for (rule, place, field, known) in [
        ("{form: []}", "", "form", "`from` or `ports`"),
        ("{from: [{podselector: {}}]}", "from[0].", "podselector", PEER_FIELDS),
        ("{from: [{ipblock: {}}]}", "from[0].", "ipblock", PEER_FIELDS),
        (
            "{from: [{ipBlock: {cidr: 10.0.0.0/8, excepts: []}}]}",
            "from[0].ipBlock.",
            "excepts",
            "`cidr` or `except`",
        ),
        ("{ports: [{endport: 1}]}", "ports[0].", "endport", "one of `protocol`, `port`, `endPort`"),
        (
            "{from: [{podSelector: {matchLabel: {a: b}}}]}",
            "from[0].podSelector.",
            "matchLabel",
            "`matchLabels` or `matchExpressions`",
        ),
        (
            "{from: [{podSelector: {matchExpressions: [{key: a, operator: In, value: [b]}]}}]}",
            "from[0].podSelector.matchExpressions[0].",
            "value",
            "one of `key`, `operator`, `values`",
        ),
    ] {
        let spec = format!("{{podSelector: {{matchLabels: {{app: db}}}}, ingress: [{rule}]}}");
        let expected = format!(
            "spec.ingress[0].{place}{field}: unknown field `{field}`, expected {known}; {API}"
        );
        closes(&spec, &expected, false, true, false);
    }
    let known = "expected one of `podSelector`, `policyTypes`, `ingress`, `egress`";
    closes(
        "{podSelector: {matchLabels: {app: db}}, policyType: [Ingress]}",
        &format!("spec.policyType: unknown field `policyType`, {known}; {API}"),
        false,
        true,
        true,
    );
    closes(
        "{podSelector: {matchLabels: {app: db}}, policyTypes: [Ingress]}\nsepc: {}",
        "sepc: unknown field `sepc`; correct or remove it",
        false,
        true,
        false,
    );
}

const PEER_FIELDS: &str = "one of `podSelector`, `namespaceSelector`, `ipBlock`";

#[test]
fn what_is_of_the_wrong_type_closes_what_it_could_mean() {
    let pods = "podSelector: {matchLabels: {app: db}}";
    let list = "a list where a mapping or a single value belongs; correct the field";
    let types = "spec.policyTypes[0]: unknown policy type `Both`; write Ingress or Egress";
    closes(&format!("{{{pods}, policyTypes: [Both]}}"), types, false, true, true);
    closes(
        &format!("{{{pods}, policyTypes: [Ingress, Egress, Ingress]}}"),
        "spec.policyTypes: more than two policy types; write each of Ingress and Egress once at \
         most",
        false,
        true,
        true,
    );
    closes(
        &format!("{{{pods}, policyTypes: Ingress}}"),
        &format!("spec.policyTypes: invalid type: string \"Ingress\", expected a sequence; {API}"),
        false,
        true,
        true,
    );
    closes(
        &format!("{{{pods}, ingress: all}}"),
        &format!("spec.ingress: invalid type: string \"all\", expected a sequence; {API}"),
        false,
        true,
        false,
    );
    closes(
        &format!("{{{pods}, egress: {{}}}}"),
        &format!("spec.egress: invalid type: map, expected a sequence; {API}"),
        false,
        true,
        true,
    );
    closes(
        &format!("{{{pods}, ingress: [[]]}}"),
        &format!("spec.ingress[0]: {list}"),
        false,
        true,
        false,
    );
    closes("[]", &format!("spec: {list}"), true, true, true);
    closes(
        "null",
        "spec: the policy has no spec; write one, `spec: {podSelector: {}}` at least",
        true,
        true,
        true,
    );
    closes(
        "{podSelector: app=db}",
        &format!(
            "spec.podSelector: invalid type: string \"app=db\", expected a mapping with \
             `matchLabels` or `matchExpressions`; {API}"
        ),
        true,
        true,
        false,
    );
    rule_closes("{from: {}}", &format!("from: invalid type: map, expected a sequence; {API}"));
    rule_closes("{from: [{ipBlock: []}]}", &format!("from[0].ipBlock: {list}"));
    rule_closes(
        "{from: [{ipBlock: 10.0.0.0/8}]}",
        &format!(
            "from[0].ipBlock: invalid type: string \"10.0.0.0/8\", expected a mapping with `cidr`; \
             {API}"
        ),
    );
    rule_closes(
        "{from: [{ipBlock: {cidr: 10.0.0.0/8, except: 10.1.0.0/16}}]}",
        &format!(
            "from[0].ipBlock.except: invalid type: string \"10.1.0.0/16\", expected a sequence; {API}"
        ),
    );
    rule_closes(
        "{ports: [80]}",
        &format!(
            "ports[0]: invalid type: integer `80`, expected a mapping with `protocol` and `port`; \
             {API}"
        ),
    );
}

/// What is logged at `warn` while `look` looks.
fn warnings(look: impl FnOnce()) -> String {
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);
    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::WARN)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    tracing::subscriber::with_default(subscriber, look);
    String::from_utf8(log.0.lock().unwrap().clone()).unwrap()
}

#[test]
fn an_ingress_rule_that_admits_everybody_is_a_warning_once_for_each_change() {
    let open =
        POLICY.replace("    - from:", "    - {}\n    - {from: [], ports: null}\n    - from:");
    let mut fixture = Fixture::new(&[("a.yaml", &open)]);
    let logged = warnings(|| {
        fixture.scan();
        fixture.scan();
        fixture.write("b.yaml", POD);
        fixture.scan();
    });
    assert_eq!(logged.lines().count(), 1, "{logged}");
    let expected = "policy shop/lock: rules [0, 1] of ingress name neither peers nor ports, so they \
                    admit everybody; if that is not meant, look for a misspelt `from` or `ports`";
    assert!(logged.contains(expected), "{logged}");
    let sound = "  policyTypes: [Egress]\n  egress: [{}]\n";
    fixture.write("a.yaml", format!("{}{sound}", &POLICY[..POLICY.find("  ingress:").unwrap()]));
    assert_eq!(warnings(|| drop(fixture.scan())), "");
}
