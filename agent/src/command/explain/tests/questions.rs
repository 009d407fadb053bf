use std::fs;

use super::*;

fn shop() -> PathBuf {
    in_repository("src/command/explain/tests/shop")
}

#[test]
fn a_port_is_a_number_with_a_protocol_or_a_ping() {
    let table = [
        ("443", Some((FlowProtocol::Tcp, Some(443)))),
        ("3306/tcp", Some((FlowProtocol::Tcp, Some(3306)))),
        ("53/udp", Some((FlowProtocol::Udp, Some(53)))),
        ("1/SCTP", Some((FlowProtocol::Sctp, Some(1)))),
        ("65535", Some((FlowProtocol::Tcp, Some(65535)))),
        ("icmp", Some((FlowProtocol::Icmp, None))),
        ("ICMP", Some((FlowProtocol::Icmp, None))),
        ("0", None),
        ("65536", None),
        ("99999999999999999999", None),
        ("-1", None),
        ("+80", None),
        ("", None),
        ("/tcp", None),
        ("http", None),
        ("80/", None),
        ("80/http", None),
        ("tcp/80", None),
        ("8/icmp", None),
        ("80-90", None),
    ];
    for (text, expected) in table {
        assert_eq!(question::port(text).ok(), expected, "{text}");
    }
}

#[test]
fn what_is_no_port_says_what_to_write() {
    for (text, says) in [
        ("0", "there is no port 0; write a number from 1 to 65535"),
        ("70000", "there is no port 70000"),
        ("http", "`http` is not the number of a port"),
        ("80/quic", "unknown protocol `quic`; write a number from 1 to 65535, with /tcp, /udp"),
        ("8/icmp", "ICMP has no ports; write icmp alone"),
    ] {
        let error = question::port(text).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
}

#[test]
fn a_question_that_has_no_answer_says_why_and_exits_with_2() {
    let table = [
        ("shop/web", "shop/db", "write pod/shop/db or svc/shop/db to say which is meant"),
        ("shop/wep", "shop/db-0", "no pod shop/wep is known; pods of its namespace: shop/db"),
        ("shop/web", "shop/nobody", "no pod shop/nobody is known"),
        ("shop/primary", "shop/web", "shop/primary is a service, and a service opens no flows"),
        ("svc/shop/db", "shop/web", "a service (shop/db) opens no flows"),
        ("web", "shop/db-0", "`web` names nobody; write NAMESPACE/POD"),
        ("shop/web", "shop/", "`shop/` names nobody"),
        ("shop/web", "a/b/c", "`a/b/c` names nobody"),
        ("shop/web", "node/n3", "no node n3 is known; nodes: n1, n2"),
        ("198.51.100.1", "198.51.100.2", "neither 198.51.100.1 nor 198.51.100.2 is an address"),
        ("ops/debug", "fd00::2:1", "no address family in common"),
    ];
    for (from, to, says) in table {
        let told = told(&shop(), &format!("--from {from} --to {to} --port 1"));
        assert_eq!((told.status, told.out.as_str()), (Status::Unknown, ""), "{from}, {to}");
        assert!(told.err.starts_with("error: ") && told.err.contains(says), "{}", told.err);
    }
}

#[test]
fn manifests_that_cannot_be_read_as_a_whole_give_no_answer() {
    let question = "--from shop/web --to shop/db-0 --port 5432";
    let missing = told(Path::new("/nonexistent"), question);
    assert_eq!(missing.status, Status::Unknown);
    assert!(missing.err.contains("/nonexistent: the directory can't be read"), "{}", missing.err);

    let directory = tempfile::tempdir().unwrap();
    for file in ["cluster.yaml", "policies.yaml"] {
        fs::copy(shop().join(file), directory.path().join(file)).unwrap();
    }
    assert_eq!(told(directory.path(), question).status, Status::Allowed);
    fs::write(directory.path().join("broken.yaml"), "kind: [").unwrap();
    let broken = told(directory.path(), question);
    assert_eq!((broken.status, broken.out.as_str()), (Status::Unknown, ""));
    assert!(broken.err.contains("broken.yaml"), "{}", broken.err);
    assert!(broken.err.contains("what is missing may decide"), "{}", broken.err);
}

#[test]
fn a_refused_policy_is_named_with_the_reason() {
    let directory = tempfile::tempdir().unwrap();
    fs::copy(shop().join("cluster.yaml"), directory.path().join("cluster.yaml")).unwrap();
    let policy = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n\
                  metadata: {name: tool, namespace: shop}\n\
                  spec: {podSelector: {}, ingress: [{ports: [{port: 70000}]}]}\n";
    fs::write(directory.path().join("policy.yaml"), policy).unwrap();
    let question = "--from ops/debug --to shop/db-0 --port 80";
    let told = told(directory.path(), question);
    assert_eq!(told.status, Status::Denied);
    let says = "isolated by shop/tool, which was refused and allows nothing: ";
    assert_says(&told, &[says, "70000 is not a port", "the policies have no rules"]);
    assert!(told.err.starts_with("warning: NetworkPolicy shop/tool: "), "{}", told.err);
    let ingress = &json(directory.path(), question)["families"][0]["steps"][1];
    assert!(ingress["isolated_by"][0]["refused"].as_str().unwrap().contains("70000"));
    assert_eq!(ingress["closest"], Value::Null);
}

#[test]
fn a_pod_whose_address_another_has_is_told_to_be_closed_for_it() {
    let directory = tempfile::tempdir().unwrap();
    for file in ["cluster.yaml", "policies.yaml"] {
        fs::copy(shop().join(file), directory.path().join(file)).unwrap();
    }
    let twin = "apiVersion: v1\nkind: Pod\nmetadata: {name: twin, namespace: ops}\n\
                status: {phase: Running, podIPs: [{ip: 10.0.2.1}]}\n";
    fs::write(directory.path().join("twin.yaml"), twin).unwrap();
    let told = told(directory.path(), "--from shop/web --to shop/db-0 --port 5432 --family ipv4");
    assert_eq!(told.status, Status::Denied);
    let says = "the pod is closed: its address 10.0.2.1 is also that of ops/twin";
    assert_says(&told, &[says, "10.0.2.1 is an address shared by ops/twin, shop/db-0"]);
}
