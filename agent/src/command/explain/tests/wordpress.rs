use super::*;

const RULE: &str = "ingress[0] wordpress-mysql/mysql-from-wordpress";

fn example() -> PathBuf {
    in_repository("../deploy/examples/wordpress-mysql")
}

fn arguments(from: &str, to: &str, port: &str) -> String {
    let end = |text: &str| match text.parse::<std::net::IpAddr>() {
        Ok(_) => text.to_owned(),
        Err(_) => format!("wordpress-mysql/{text}"),
    };
    format!("--from {} --to {} --port {port}", end(from), end(to))
}

#[test]
fn every_denial_of_the_reference_scenario_names_the_policy_and_what_its_rule_lacks() {
    let only_wordpress = "but only from pods app=wordpress of namespace wordpress-mysql";
    let only_3306 = "allows this peer, but only TCP 3306";
    let neither = "allows only TCP 3306, and only from pods app=wordpress";
    let table = [
        ("intruder", "mysql", "3306", "wordpress-mysql/intruder has app=intruder"),
        ("10.0.0.66", "mysql", "3306/tcp", only_wordpress),
        ("intruder", "fd00:10::10", "3306", only_wordpress),
        ("192.0.2.1", "mysql", "3306", "192.0.2.1 is no pod"),
        ("2001:db8::1", "mysql", "3306", "2001:db8::1 is no pod"),
        ("wordpress", "mysql", "3307", only_3306),
        ("wordpress", "mysql", "3306/udp", only_3306),
        ("wordpress", "mysql", "3306/sctp", only_3306),
        ("wordpress", "mysql", "icmp", "only a rule without ports allows ICMP"),
        ("intruder", "mysql", "22", neither),
        ("intruder", "mysql", "icmp", neither),
    ];
    for (from, to, port, says) in table {
        let arguments = arguments(from, to, port);
        assert_explains(&example(), &arguments, Status::Denied, &[RULE], says);
        let ingress = json(&example(), &arguments)["families"][0]["steps"]
            .as_array()
            .and_then(|steps| steps.last().cloned())
            .unwrap();
        assert_eq!(ingress["reason"], "no_rule");
        assert_eq!(ingress["isolated_by"][0]["policy"], "wordpress-mysql/mysql-from-wordpress");
    }
}

#[test]
fn every_allow_of_the_reference_scenario_names_the_rule_or_says_that_nothing_isolates() {
    let by_rule = "allowed by ingress[0] of wordpress-mysql/mysql-from-wordpress";
    let table: [(_, _, _, &[&str], _); 11] = [
        ("wordpress", "mysql", "3306", &[RULE], by_rule),
        ("10.0.0.20", "mysql", "3306", &[RULE], by_rule),
        ("wordpress", "10.0.0.10", "3306", &[RULE], by_rule),
        ("fd00:10::20", "fd00:10::10", "3306/TCP", &[RULE], by_rule),
        ("mysql", "wordpress", "80", &[], "no policy isolates it for ingress"),
        ("mysql", "intruder", "icmp", &[], "no policy isolates it for egress"),
        ("intruder", "wordpress", "53/udp", &[], "no policy isolates it for ingress"),
        ("192.0.2.1", "wordpress", "443", &[], "no policy isolates it for ingress"),
        ("mysql", "192.0.2.1", "443", &[], "no policy isolates it for egress"),
        ("mysql", "mysql", "1", &[], "a pod always reaches itself"),
        ("10.0.0.10", "mysql", "icmp", &[], "a pod always reaches itself"),
    ];
    for (from, to, port, rules, says) in table {
        let arguments = arguments(from, to, port);
        assert_explains(&example(), &arguments, Status::Allowed, rules, says);
    }
}

#[test]
fn each_direction_is_told_by_itself_and_families_that_are_alike_once() {
    let told = told(&example(), &arguments("intruder", "mysql", "3306"));
    let expected = "\
denied: pod wordpress-mysql/intruder to pod wordpress-mysql/mysql, TCP 3306

IPv4 and IPv6: denied
  egress of wordpress-mysql/intruder to wordpress-mysql/mysql, TCP 3306: allowed
    no policy isolates it for egress
  ingress of wordpress-mysql/mysql from wordpress-mysql/intruder, TCP 3306: denied
    no rule allows it
    isolated by wordpress-mysql/mysql-from-wordpress
    closest: ingress[0] of wordpress-mysql/mysql-from-wordpress allows TCP 3306, but only from \
                    pods app=wordpress of namespace wordpress-mysql; wordpress-mysql/intruder has \
                    app=intruder
";
    assert_eq!(told.out, expected);
    assert_eq!((told.status.code(), told.err.as_str()), (1, ""));
}

#[test]
fn one_family_can_be_asked_for() {
    let arguments = arguments("wordpress", "mysql", "3306");
    for (family, name) in [("ipv4", "IPv4"), ("ipv6", "IPv6")] {
        let json = json(&example(), &format!("{arguments} --family {family}"));
        assert_eq!(json["families"].as_array().unwrap().len(), 1);
        assert_eq!(json["families"][0]["family"], name);
    }
}

#[test]
fn the_fields_of_the_object_are_these() {
    let expected = serde_json::json!({
        "flow": {
            "from": {"pod": "wordpress-mysql/intruder"},
            "to": {"pod": "wordpress-mysql/mysql"},
            "protocol": "TCP", "port": 3306, "family": "IPv4"
        },
        "verdict": "deny",
        "families": [{
            "family": "IPv4",
            "verdict": "deny",
            "steps": [{
                "direction": "egress", "pod": "wordpress-mysql/intruder", "node": null,
                "peer_address": "10.0.0.10", "peer": "wordpress-mysql/mysql",
                "traffic": "TCP 3306", "verdict": "allow", "reason": "not_isolated",
                "because": "no policy isolates it for egress",
                "isolated_by": [], "allowed_by": [], "closest": null,
                "services": [], "backends": []
            }, {
                "direction": "ingress", "pod": "wordpress-mysql/mysql", "node": null,
                "peer_address": "10.0.0.66", "peer": "wordpress-mysql/intruder",
                "traffic": "TCP 3306", "verdict": "deny", "reason": "no_rule",
                "because": "no rule allows it",
                "isolated_by": [
                    {"policy": "wordpress-mysql/mysql-from-wordpress", "refused": null}
                ],
                "allowed_by": [],
                "closest": {
                    "policy": "wordpress-mysql/mysql-from-wordpress", "rule": "ingress[0]",
                    "allows_peer": false, "allows_port": true,
                    "lacks": "allows TCP 3306, but only from pods app=wordpress of namespace \
                              wordpress-mysql; wordpress-mysql/intruder has app=intruder"
                },
                "services": [], "backends": []
            }]
        }]
    });
    let arguments = arguments("intruder", "mysql", "3306") + " --family ipv4";
    assert_eq!(json(&example(), &arguments), expected);
}
