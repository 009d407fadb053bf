use crate::policy::builders::{ip, key};

use super::*;

const FROM_TO: &str = r#""from":{"pod":"shop/web"},"to":{"pod":"shop/db"}"#;

fn error(line: &str) -> String {
    format!("{:#}", read("flows.jsonl", &format!("\n{line}\n")).unwrap_err())
}

#[test]
fn every_kind_of_end_is_read() {
    let text = r#"{"from":{"pod":"shop/web"},"to":{"service":"shop/db"},"protocol":"TCP","port":80}

{"from":{"node":"n1"},"to":{"ip":"fd00::1"},"protocol":"ICMP","family":"IPv6","expect":"deny"}"#;
    let lines = read("flows.jsonl", text).unwrap();
    let first = FlowSpec {
        from: End::Pod(key("shop/web")),
        to: End::Service(key("shop/db")),
        protocol: FlowProtocol::Tcp,
        port: Some(80),
        family: None,
        expect: None,
    };
    let second = FlowSpec {
        from: End::Node("n1".to_owned()),
        to: End::Ip(ip("fd00::1")),
        protocol: FlowProtocol::Icmp,
        port: None,
        family: Some(Family::Ipv6),
        expect: Some(Outcome::Deny),
    };
    assert_eq!(lines, [Line { number: 1, flow: first }, Line { number: 3, flow: second }]);
}

#[test]
fn a_flow_is_written_as_it_was_read() {
    let line = format!(r#"{{{FROM_TO},"protocol":"SCTP","port":9,"family":"IPv4"}}"#);
    let lines = read("flows.jsonl", &line).unwrap();
    assert_eq!(serde_json::to_string(&lines[0].flow).unwrap(), line);
}

#[test]
fn an_error_names_file_line_field_and_remedy() {
    let cases = [
        (format!(r#"{{{FROM_TO},"protocol":"TCP"}}"#), "port: TCP goes to a port"),
        (format!(r#"{{{FROM_TO},"protocol":"TCP","port":0}}"#), "write 1 to 65535"),
        (format!(r#"{{{FROM_TO},"protocol":"TCP","port":70000}}"#), "port: invalid value"),
        (format!(r#"{{{FROM_TO},"protocol":"ICMP","port":8}}"#), "port: ICMP has no ports"),
        (format!(r#"{{{FROM_TO},"protocol":"tcp","port":8}}"#), "protocol: unknown variant `tcp`"),
        (format!(r#"{{{FROM_TO},"protocol":"TCP","prot":8}}"#), "unknown field `prot`"),
        (format!(r#"{{{FROM_TO}}}"#), "missing field `protocol`"),
        (r#"{"from":{"pod":"web"}}"#.to_owned(), "from.pod: `web` is not of the form"),
        (r#"{"from":{"host":"a"}}"#.to_owned(), "from: unknown variant `host`"),
        (r#"{"from":{"ip":"10.0.0"}}"#.to_owned(), "from.ip: invalid IP address"),
        ("from a to b".to_owned(), "a flow reads like {"),
        (format!(r#"{{{FROM_TO},"protocol":"TCP","port":8}} {{}}"#), "one flow a line"),
        (
            r#"{"from":{"service":"a/b"},"to":{"pod":"a/c"},"protocol":"TCP","port":1}"#.to_owned(),
            "from: a service (a/b) opens no flows; name one of its pods",
        ),
        (
            r#"{"from":{"pod":"a/b"},"to":{"service":"a/c"},"protocol":"ICMP"}"#.to_owned(),
            "to ping, name one of its pods",
        ),
        (
            r#"{"from":{"ip":"::1"},"to":{"pod":"a/c"},"protocol":"ICMP","family":"IPv4"}"#
                .to_owned(),
            "family: from is ::1, which is not IPv4; leave one of them out",
        ),
    ];
    for (line, expected) in cases {
        let error = error(&line);
        assert!(error.starts_with("flows.jsonl:2: "), "{error}");
        assert!(error.contains(expected), "{error}\nlacks {expected}");
    }
}
