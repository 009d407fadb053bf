//! `bulkhead verify --engine kernel`: the loaded programs on the flows of a list. Needs root.

use std::{
    fmt::Write as _,
    io::Write as _,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/examples/wordpress-mysql");

/// Standard output of a run that ends with 0.
fn verify(arguments: &[&str], list: &str) -> String {
    let mut verify = Command::new(env!("CARGO_BIN_EXE_bulkhead-under-test"))
        .args(["verify", "--manifests", EXAMPLE])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it is built");
    let mut input = verify.stdin.take().expect("a pipe");
    input.write_all(list.as_bytes()).expect("it reads");
    drop(input);
    let output = verify.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{arguments:?}: {:?}", output.status);
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn the_flows_of_the_example_are_as_expected_in_the_kernel() {
    let flows = format!("{EXAMPLE}/flows.jsonl");
    let told = verify(&["--expect", &flows, "--engine", "kernel"], "");
    assert_eq!(told, "10 flows are as expected\n");
}

#[test]
fn a_thousand_flows_get_the_same_answers_and_reasons_from_every_engine_in_no_time() {
    let mut list = String::new();
    for port in 1..=1000 {
        let from = ["wordpress", "intruder"][port % 2];
        let port = 3000 + port;
        writeln!(
            list,
            r#"{{"from":{{"pod":"wordpress-mysql/{from}"}},"to":{{"pod":"wordpress-mysql/mysql"}},"protocol":"TCP","port":{port}}}"#
        )
        .expect("a string");
    }
    let ask = |engine| {
        let started = Instant::now();
        let told = verify(&["--flows", "-", "--output", "json", "--engine", engine], &list);
        (told, started.elapsed())
    };
    let (specified, _) = ask("specification");
    assert_eq!(specified.lines().count(), 1000);
    for engine in ["compiled", "kernel"] {
        let (told, took) = ask(engine);
        assert_eq!(told, specified, "{engine}");
        // Loading the programs is most of it, on a machine that does much else.
        assert!(took < Duration::from_secs(10), "{engine} took {took:?}");
    }
}
