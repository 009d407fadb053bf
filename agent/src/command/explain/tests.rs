mod questions;
mod services;
mod wordpress;

use std::path::{Path, PathBuf};

use clap::Parser;
use serde_json::Value;

use super::*;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    explain: Explain,
}

/// What a call comes to.
struct Told {
    status: Status,
    out: String,
    err: String,
}

fn told(manifests: &Path, arguments: &str) -> Told {
    let manifests = ["explain", "--manifests", manifests.to_str().unwrap()];
    let line = Line::try_parse_from(manifests.into_iter().chain(arguments.split(' '))).unwrap();
    let (mut out, mut err) = (anstream::StripStream::new(Vec::new()), Vec::new());
    let status = line.explain.tell(&mut out, &mut err);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Told { status, out: text(out.into_inner()), err: text(err) }
}

/// The same as an object; the status is that of the words.
fn json(manifests: &Path, arguments: &str) -> Value {
    let told = told(manifests, &format!("{arguments} --output json"));
    serde_json::from_str(&told.out).unwrap()
}

fn in_repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// That people are told all of these lines or parts of lines.
fn assert_says(told: &Told, expected: &[&str]) {
    for part in expected {
        assert!(told.out.contains(part), "{part:?} is not in\n{}{}", told.out, told.err);
    }
}

/// Asks for words and for JSON, and compares verdict, status, and the rules that the steps name:
/// those that allow, and of a denial the closest one.
fn assert_explains(manifests: &Path, arguments: &str, status: Status, rules: &[&str], says: &str) {
    let words = told(manifests, arguments);
    assert_eq!(words.status, status, "{arguments}:\n{}{}", words.out, words.err);
    assert_says(&words, &[says]);
    assert!(!words.out.contains('\u{1b}'), "colour is left");

    let json = json(manifests, arguments);
    let (verdict, word) = match status {
        Status::Allowed => ("allow", "allowed: "),
        Status::Denied => ("deny", "denied: "),
        Status::Unknown => unreachable!("there is no report"),
    };
    assert!(words.out.starts_with(word), "{}", words.out);
    assert_eq!(json["verdict"], verdict, "{arguments}");
    let named = named_rules(&json);
    assert_eq!(named, rules, "{arguments}:\n{}", words.out);
    for rule in named {
        let (place, policy) = rule.split_once(' ').unwrap();
        assert_says(&words, &[&format!("{place} of {policy}")]);
    }
}

/// `ingress[0] shop/policy` of each step and backend of the first family, without repetition.
fn named_rules(report: &Value) -> Vec<String> {
    let mut rules = Vec::new();
    let mut add = |rule: &Value| {
        if let (Some(place), Some(policy)) = (rule["rule"].as_str(), rule["policy"].as_str()) {
            let rule = format!("{place} {policy}");
            if !rules.contains(&rule) {
                rules.push(rule);
            }
        }
    };
    for step in report["families"][0]["steps"].as_array().unwrap() {
        step["allowed_by"].as_array().unwrap().iter().for_each(&mut add);
        add(&step["closest"]);
        step["backends"].as_array().unwrap().iter().for_each(|backend| add(&backend["closest"]));
    }
    rules
}
