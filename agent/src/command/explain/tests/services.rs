use super::*;

fn shop() -> PathBuf {
    in_repository("src/command/explain/tests/shop")
}

const PRIMARY: &str = "egress[0] shop/web-out";
const OUTSIDE: &str = "egress[1] shop/web-out";
const DB_IN: &str = "ingress[0] shop/db-in";

#[test]
fn every_denial_in_the_shop_names_the_policy_and_what_its_rule_lacks() {
    let table: [(_, _, _, &[&str], _); 11] = [
        ("shop/web", "svc/shop/db", "5432", &[PRIMARY, DB_IN], "shop/db-1 has app=db,role=replica"),
        (
            "shop/web",
            "10.96.0.1",
            "5432",
            &[PRIMARY, DB_IN],
            "backend shop/db-1, port 5432: denied",
        ),
        ("ops/debug", "shop/primary", "5432", &[DB_IN], "has app=web and is in namespace ops"),
        (
            "ops/debug",
            "shop/db-0",
            "5432",
            &[DB_IN],
            "ops/debug has app=web and is in namespace ops",
        ),
        ("shop/web", "shop/db-0", "5433", &[PRIMARY, DB_IN], "TCP 5432 (named sql by shop/db-0)"),
        (
            "shop/web",
            "shop/db-1",
            "5432",
            &[PRIMARY, DB_IN],
            "only to pods role=primary of namespace",
        ),
        ("shop/web", "ops/debug", "5432", &[PRIMARY], "port named sql (ops/debug has none)"),
        ("shop/web", "192.0.2.1", "80", &[OUTSIDE], "allows this peer, but only TCP 443"),
        ("shop/web", "192.0.2.200", "443", &[OUTSIDE], "192.0.2.0/24 except 192.0.2.128/25"),
        ("shop/web", "node/n2", "443", &[OUTSIDE], "10.1.0.2 is the node n2, and no pod"),
        ("node/n1", "shop/db-0", "5432", &[DB_IN], "10.1.0.1 is the node n1, and no pod"),
    ];
    for (from, to, port, rules, says) in table {
        let arguments = format!("--from {from} --to {to} --port {port}");
        assert_explains(&shop(), &arguments, Status::Denied, rules, says);
    }
}

#[test]
fn every_allow_in_the_shop_names_its_rules() {
    let table: [(_, _, _, &[&str], _); 10] = [
        ("shop/web", "shop/primary", "5432", &[PRIMARY, DB_IN], "every ready backend is allowed"),
        ("shop/web", "svc/shop/primary", "5432/tcp", &[PRIMARY, DB_IN], "backend shop/db-0"),
        ("shop/web", "10.96.0.2", "5432", &[PRIMARY, DB_IN], "to the service shop/primary"),
        (
            "shop/web",
            "shop/db-0",
            "5432",
            &[PRIMARY, DB_IN],
            "allowed by egress[0] of shop/web-out",
        ),
        ("shop/web", "fd00::2:1", "5432", &[PRIMARY, DB_IN], "IPv6: allowed"),
        ("shop/web", "192.0.2.1", "443", &[OUTSIDE], "to 192.0.2.1, TCP 443: allowed"),
        ("shop/web", "node/n1", "icmp", &[], "a pod always reaches its own node"),
        ("node/n2", "shop/db-0", "22", &[], "the pod's own node always reaches it"),
        ("node/n1", "node/n2", "22", &[], "neither end is a pod that policies concern"),
        ("ops/debug", "pod/shop/db", "80", &[], "no policy isolates it for ingress"),
    ];
    for (from, to, port, rules, says) in table {
        let arguments = format!("--from {from} --to {to} --port {port}");
        assert_explains(&shop(), &arguments, Status::Allowed, rules, says);
    }
}

#[test]
fn the_own_node_is_explained_by_egress_rules_where_agents_ask_them() {
    let asked = "--from shop/web --to node/n1 --port icmp --deny-egress-to-node";
    let told = told(&shop(), asked);
    assert_eq!(told.status, Status::Denied, "{}{}", told.out, told.err);
    assert_says(&told, &["no rule allows it"]);
    let probe = "--from node/n2 --to shop/db-0 --port 22 --deny-egress-to-node";
    let says = "the pod's own node always reaches it";
    assert_explains(&shop(), probe, Status::Allowed, &[], says);
}

#[test]
fn a_service_is_told_by_its_egress_and_by_the_ingress_of_each_backend() {
    let json = json(&shop(), "--from shop/web --to svc/shop/db --port 5432");
    let steps = json["families"][0]["steps"].as_array().unwrap();
    let told: Vec<_> = steps
        .iter()
        .map(|step| ["direction", "pod", "verdict", "reason"].map(|f| step[f].as_str().unwrap()))
        .collect();
    assert_eq!(
        told,
        [
            ["egress", "shop/web", "deny", "service_backends"],
            ["ingress", "shop/db-0", "allow", "rule"],
            ["ingress", "shop/db-1", "allow", "rule"],
        ]
    );
    assert_eq!(steps[0]["services"], serde_json::json!(["shop/db"]));
    let backends = steps[0]["backends"].as_array().unwrap();
    let told: Vec<_> = backends
        .iter()
        .map(|b| (b["name"].as_str().unwrap(), b["verdict"].as_str().unwrap()))
        .collect();
    assert_eq!(told, [("shop/db-0", "allow"), ("shop/db-1", "deny")]);
    assert_eq!(steps[1]["node"], "n2");
}

#[test]
fn what_cannot_be_told_of_a_service_is_an_error() {
    let table = [
        ("svc/shop/empty", "5432", "no backend that is ready"),
        ("svc/shop/primary", "80", "has no port TCP 80"),
        ("svc/shop/unknown", "80", "no service shop/unknown is known"),
        ("svc/shop/primary", "icmp", "to ping, name one of its pods"),
    ];
    for (to, port, says) in table {
        let told = told(&shop(), &format!("--from shop/web --to {to} --port {port}"));
        assert_eq!((told.status.code(), told.out.as_str()), (2, ""));
        assert!(told.err.contains(says), "{}", told.err);
    }
}
