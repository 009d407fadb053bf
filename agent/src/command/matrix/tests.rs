use std::{fs, path::Path};

use clap::Parser;
use serde_json::{Value, json};

use super::*;
use crate::manifests::ManifestDirectory;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    matrix: MatrixCommand,
}

fn told(manifests: &Path, arguments: &[&str]) -> (Status, String, String) {
    let manifests = ["matrix", "--manifests", manifests.to_str().unwrap()];
    let line = Line::try_parse_from(manifests.iter().chain(arguments)).unwrap();
    let (mut out, mut err) = (anstream::StripStream::new(Vec::new()), Vec::new());
    let status = line.matrix.tell(&mut out, &mut err);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status, text(out.into_inner()), text(err))
}

fn example() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples/wordpress-mysql")
}

#[test]
fn the_reference_scenario_is_this_table() {
    let (status, out, err) = told(&example(), &[]);
    let rows: Vec<Vec<&str>> = out
        .lines()
        .filter(|line| line.starts_with(" wordpress-mysql/") || line.starts_with(" outside"))
        .map(|line| line.split("  ").map(str::trim).filter(|text| !text.is_empty()).collect())
        .collect();
    let expected = [
        ["wordpress-mysql/intruder", "itself", "nothing", "everything", "everything"],
        ["wordpress-mysql/mysql", "everything", "itself", "everything", "everything"],
        ["wordpress-mysql/wordpress", "everything", "TCP 3306", "itself", "everything"],
        ["outside", "everything", "nothing", "everything", "no policy"],
    ];
    assert_eq!(rows, expected, "{out}");
    assert_eq!((status.code(), err.as_str()), (0, ""));
}

#[test]
fn the_fields_of_the_object_are_these() {
    let (_, out, _) = told(&example(), &["--output", "json"]);
    let object: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(object["only"], Value::Null);
    assert_eq!(
        object["ends"][1],
        json!({
            "name": "wordpress-mysql/mysql", "kind": "pod", "namespace": "wordpress-mysql",
            "members": [{
                "name": "wordpress-mysql/mysql", "addresses": ["10.0.0.10", "fd00:10::10"]
            }]
        })
    );
    let cells = object["cells"].as_array().unwrap();
    let port = json!({"ports": {"TCP": [[3306, 3306]]}, "icmp": false, "other_protocols": false});
    assert_eq!(cells.len(), 16);
    assert_eq!(
        cells[9],
        json!({
            "from": "wordpress-mysql/wordpress", "to": "wordpress-mysql/mysql", "reach": "some",
            "text": "TCP 3306", "families": {"IPv4": port, "IPv6": port}, "own_node": false
        })
    );
    assert_eq!(object["left_out"][0]["name"], "the node without a name");
}

#[test]
fn ports_that_are_asked_about_alone_are_told_alone() {
    let (_, out, _) = told(&example(), &["--port", "3306", "--port", "icmp", "--output", "json"]);
    let object: Value = serde_json::from_str(&out).unwrap();
    let texts: Vec<_> = object["cells"].as_array().unwrap().iter().map(|c| &c["text"]).collect();
    assert_eq!(texts[..3], ["itself", "nothing", "TCP 3306, ICMP"]);
    for wrong in ["0", "70000", "80/quic", "http"] {
        assert!(port(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn pairs_are_told_where_a_table_would_be_too_wide() {
    let mut cluster = ManifestDirectory::new(example()).scan().changes.into_iter().collect();
    let matrix = Matrix::new(&mut cluster, &Request::default()).unwrap();
    let text = anstream::adapter::strip_str(&table::text_within(&matrix, None, 60)).to_string();
    let line = text.lines().find(|line| line.contains("TCP 3306")).unwrap();
    let fields: Vec<&str> = line.split("  ").filter(|field| !field.trim().is_empty()).collect();
    assert_eq!(fields.len(), 2, "{text}");
    assert!(line.contains("wordpress-mysql/mysql"), "{text}");
}

#[test]
fn the_page_loads_nothing_and_names_every_end_and_cell() {
    let (status, page, _) = told(&example(), &["--output", "html"]);
    assert_eq!(status, Status::Told);
    for outside in ["http://", "https://", "src=", "url(", "@import", "<link", "fetch("] {
        assert!(!page.contains(outside), "{outside}");
    }
    assert_eq!(page.matches("<span data-text").count(), 16);
    assert_eq!(page.matches("scope=\"row\"").count(), 12);
    assert_eq!(page.matches("scope=\"col\" data-name").count(), 4);
    assert!(page.contains(">TCP\u{a0}3306</span>"));
}

#[test]
fn what_manifests_say_is_text_on_the_page_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let evil = "<script>alert(1)</script>";
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": format!("x\"'&{evil}"), "namespace": evil, "labels": {"app": "x"}},
        "status": {"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}]}
    });
    let node = json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": evil},
        "status": {"addresses": [{"type": "InternalIP", "address": "192.168.0.1"}]}
    });
    fs::write(directory.path().join("all.yaml"), format!("{pod}\n---\n{node}\n")).unwrap();
    let (_, page, err) = told(directory.path(), &["--output", "html"]);
    assert!(!page.contains("<script>alert"), "{err}");
    assert_eq!(page.matches("<script").count(), 1, "{err}");
    assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;"), "{page}{err}");
}

#[test]
fn what_could_not_be_read_as_a_whole_is_not_told() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("bad.yaml"), "kind: [").unwrap();
    let (status, out, err) = told(directory.path(), &[]);
    assert_eq!((status.code(), out.as_str()), (2, ""));
    assert!(err.contains("bad.yaml"), "{err}");
}
