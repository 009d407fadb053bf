use clap::Parser;
use serde_json::{Value, json};

use super::*;

#[derive(Parser)]
struct CommandLine {
    #[command(flatten)]
    verify: Verify,
}

/// What a call comes to.
struct Told {
    status: Status,
    out: String,
    err: String,
}

fn wordpress() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples/wordpress-mysql")
}

fn told(manifests: &Path, arguments: &[&str]) -> Told {
    let manifests = ["verify", "--manifests", manifests.to_str().unwrap()];
    let line = CommandLine::try_parse_from(manifests.iter().chain(arguments)).unwrap();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let status = line.verify.tell(&mut out, &mut err);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Told { status, out: text(out), err: text(err) }
}

/// Flows of the wordpress example, written to a file. `[from, to, port, expect]`, each of the
/// pods by its name.
fn about_wordpress(option: &str, flows: &[[&str; 4]], arguments: &[&str]) -> Told {
    let file = tempfile::NamedTempFile::new().unwrap();
    let pod = |name: &str| json!({ "pod": format!("wordpress-mysql/{name}") });
    let line = |[from, to, port, expect]: &[&str; 4]| {
        let port: u16 = port.parse().unwrap();
        let flow = json!({
            "from": pod(from), "to": pod(to), "protocol": "TCP", "port": port, "expect": expect,
        });
        format!("{flow}\n")
    };
    fs::write(file.path(), flows.iter().map(line).collect::<String>()).unwrap();
    let list = [option, file.path().to_str().unwrap()];
    told(&wordpress(), &[&list[..], arguments].concat())
}

#[test]
fn a_list_without_a_flow_holds_nothing_and_says_so() {
    for option in ["--expect", "--flows"] {
        let Told { status, err, .. } = about_wordpress(option, &[], &[]);
        assert_eq!(status, Status::Unclear);
        assert!(err.contains("it holds no flow"), "{err}");
    }
}

const ALLOWED: [&str; 4] = ["wordpress", "mysql", "3306", "allow"];
const DENIED: [&str; 4] = ["intruder", "mysql", "3306", "deny"];

#[test]
fn the_flows_of_the_example_are_as_expected() {
    let flows = wordpress().join("flows.jsonl");
    for engine in ["compiled", "specification"] {
        let arguments = ["--expect", flows.to_str().unwrap(), "--engine", engine];
        let told = told(&wordpress(), &arguments);
        assert_eq!((told.status, told.err.as_str()), (Status::Holds, ""), "{}", told.out);
        assert_eq!(told.out, "10 flows are as expected\n");
    }
}

#[test]
fn flows_that_are_otherwise_stand_in_a_table() {
    let unlike = ["intruder", "mysql", "3306", "allow"];
    let told = about_wordpress("--expect", &[ALLOWED, unlike], &[]);
    assert_eq!((told.status, told.err.as_str()), (Status::Differs, ""));
    let expected = "\
FROM                          TO                         PROTOCOL/PORT  FAMILY  EXPECTED  GOT   REASON
pod wordpress-mysql/intruder  pod wordpress-mysql/mysql  TCP/3306       IPv4    allow     deny  not_allowed (ingress of wordpress-mysql/mysql)
pod wordpress-mysql/intruder  pod wordpress-mysql/mysql  TCP/3306       IPv6    allow     deny  not_allowed (ingress of wordpress-mysql/mysql)

1 of 2 flows not as expected
";
    assert_eq!(told.out, expected);
}

#[test]
fn each_line_is_written_again_with_verdict_and_reason() {
    let told = about_wordpress("--flows", &[DENIED, ALLOWED], &["--output", "json"]);
    assert_eq!((told.status, told.err.as_str()), (Status::Holds, ""));
    let lines: Vec<Value> =
        told.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let line = |from: &str, expect: &str, verdict: &str, reason: &str| {
        json!({
            "from": { "pod": format!("wordpress-mysql/{from}") },
            "to": { "pod": "wordpress-mysql/mysql" },
            "protocol": "TCP",
            "port": 3306,
            "expect": expect,
            "verdict": verdict,
            "reason": reason,
            "direction": "ingress",
            "pod": "wordpress-mysql/mysql",
        })
    };
    let expected = [
        line("intruder", "deny", "deny", "not_allowed"),
        line("wordpress", "allow", "allow", "rule"),
    ];
    assert_eq!(lines, expected);
}

#[test]
fn what_is_asked_is_not_held_against_what_is_expected() {
    let told = about_wordpress("--flows", &[["intruder", "mysql", "3306", "allow"]], &[]);
    assert_eq!(told.status, Status::Holds);
    assert!(told.out.contains("IPv6    deny     not_allowed"), "{}", told.out);
}

#[test]
fn an_end_that_nobody_knows_cannot_be_told_and_stops_no_other_line() {
    let unknown = ["nobody", "mysql", "3306", "deny"];
    let told = about_wordpress("--flows", &[unknown, ALLOWED], &["--output", "json"]);
    assert_eq!(told.status, Status::Unclear);
    assert!(told.err.contains(":1: from: no pod wordpress-mysql/nobody is known"), "{}", told.err);
    let lines: Vec<Value> =
        told.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines[0]["error"].is_string() && lines[0]["verdict"].is_null());
    assert_eq!(lines[1]["verdict"], "allow");
}

#[test]
fn a_line_without_expectation_cannot_be_told_to_hold() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let line =
        r#"{"from":{"ip":"192.0.2.1"},"to":{"pod":"wordpress-mysql/mysql"},"protocol":"ICMP"}"#;
    fs::write(file.path(), line).unwrap();
    let told = told(&wordpress(), &["--expect", file.path().to_str().unwrap()]);
    assert_eq!(told.status, Status::Unclear);
    assert!(told.err.contains(":1: expect: nothing is expected of the flow"), "{}", told.err);
}

#[test]
fn manifests_that_cannot_be_read_as_a_whole_tell_nothing() {
    let manifests = tempfile::tempdir().unwrap();
    fs::write(manifests.path().join("broken.yaml"), "kind: [").unwrap();
    let flows = wordpress().join("flows.jsonl");
    for directory in [manifests.path().to_owned(), manifests.path().join("missing")] {
        let told = told(&directory, &["--expect", flows.to_str().unwrap()]);
        assert_eq!((told.status, told.out.as_str()), (Status::Unclear, ""));
        assert!(told.err.contains("what is missing may decide"), "{}", told.err);
    }
}

#[test]
fn families_that_differ_are_told_apart() {
    let manifests = tempfile::tempdir().unwrap();
    let objects = r#"
apiVersion: v1
kind: Pod
metadata: { name: web, namespace: a }
status: { podIPs: [{ ip: 10.0.0.1 }, { ip: "fd00::1" }] }
---
apiVersion: v1
kind: Pod
metadata: { name: client, namespace: a }
status: { podIPs: [{ ip: 10.0.0.2 }, { ip: "fd00::2" }] }
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { name: p, namespace: a }
spec: { podSelector: {}, ingress: [{ from: [{ ipBlock: { cidr: 10.0.0.0/8 } }] }] }
"#;
    fs::write(manifests.path().join("all.yaml"), objects).unwrap();
    let flows = manifests.path().join("flows.jsonl");
    let line = |expect| {
        json!({
            "from": { "pod": "a/client" }, "to": { "pod": "a/web" }, "protocol": "ICMP",
            "expect": expect,
        })
    };
    // Neither holds: one family passes, the other does not.
    fs::write(&flows, format!("{}\n{}\n", line("allow"), line("deny"))).unwrap();
    let flows = flows.to_str().unwrap();
    let held = told(manifests.path(), &["--expect", flows]);
    assert_eq!(held.status, Status::Differs);
    assert!(held.out.ends_with("2 of 2 flows not as expected\n"), "{}", held.out);
    let written = told(manifests.path(), &["--flows", flows, "--output", "json"]);
    let first: Value = serde_json::from_str(written.out.lines().next().unwrap()).unwrap();
    assert_eq!(first["verdict"], "deny");
    let of =
        |family, verdict, reason| json!({ "family": family, "verdict": verdict, "reason": reason });
    let families = json!([of("IPv4", "allow", "rule"), of("IPv6", "deny", "not_allowed")]);
    assert_eq!(first["families"], families);
}
