//! Each kind of bad input: what it does, and in which words it is told.

use nix::{sys::stat::Mode, unistd::mkfifo};

use super::*;
use crate::policy::selector::Selector;

const NOTHING: [&str; 0] = [];

/// A pod, its policy, and a file in another state that is to be shown harmless.
fn live() -> Fixture {
    let mut fixture = Fixture::new(&[("a.yaml", POLICY), ("b.yaml", POD)]);
    assert_eq!(fixture.news().0, ["+policy shop/lock", "+pod shop/db", "complete"]);
    fixture
}

/// The policy file is overwritten: what it said stays live, other files go on, and this is told.
fn stays_live(bytes: impl AsRef<[u8]>, message: &str) {
    let mut fixture = live();
    fixture.write("a.yaml", bytes);
    fixture.write("c.yaml", NAMESPACE);
    let before = fixture.index.policies()[&lock()].clone();
    let scan = fixture.scan();
    assert_eq!(
        scan.changes.iter().map(brief).collect::<Vec<_>>(),
        ["+namespace shop"],
        "{message}"
    );
    assert_eq!(fixture.messages(&scan), [message]);
    assert_eq!(scan.problems[0].kind, ProblemKind::File);
    assert!(scan.available && scan.complete);
    assert_eq!(fixture.index.policies()[&lock()], before);

    fixture.write("a.yaml", POLICY);
    assert_eq!(fixture.news(), (vec![], vec![]), "mended");
}

#[test]
fn a_file_that_does_not_parse_leaves_what_it_said() {
    stays_live(
        "spec:\n  podSelector:\n    x: 1\n   y: 2\n",
        "DIR/a.yaml:4:4: document 1: spec: not YAML (while parsing a block mapping, did not find \
         expected key); correct it",
    );
    stays_live(
        format!("{POD}---\nspec: {{ingress: *rules}}\n"),
        "DIR/a.yaml:6:17: document 2: spec: not YAML (alias references unknown anchor); correct it",
    );
    stays_live(
        POLICY.replace("  ingress:", "  podSelector: {}\n  ingress:"),
        "DIR/a.yaml:6:3: document 1: spec: the key `podSelector` stands twice in one mapping; \
         remove one of them",
    );
    stays_live(
        b"kind: Pod\nname: \xc3\xa9\xff\n",
        "DIR/a.yaml:2:8: not UTF-8; save the file as UTF-8",
    );
}

#[test]
fn a_file_with_an_object_that_nobody_can_attribute_leaves_what_it_said() {
    stays_live(
        POLICY.replace("name: lock, ", ""),
        "DIR/a.yaml:3:1: document 1: metadata.name: the object has no name; give it one",
    );
    stays_live(
        "# no kind\nspec: {}\n",
        "DIR/a.yaml:2:1: document 1: kind: the object has no kind; write one, such as `kind: \
         NetworkPolicy`",
    );
    stays_live(
        POLICY.replace("kind: NetworkPolicy", "kind: NetworkPolcy"),
        "DIR/a.yaml:2:1: document 1: kind: unknown kind `NetworkPolcy`; write NetworkPolicy if it \
         is one",
    );
    stays_live(
        POD.replace("app: db", "app: yes"),
        "DIR/a.yaml:3:48: document 1: metadata.labels.app: invalid type: boolean `true`, expected \
         a string; correct it as the Kubernetes API describes this field",
    );
    stays_live(
        POD.replace("10.0.0.10", "10.0.0.l0"),
        "DIR/a.yaml:4:20: document 1: status.podIPs[0].ip: `10.0.0.l0` is not an IP address; write \
         one such as 10.0.0.10 or fd00:10::10",
    );
    stays_live(
        POD.replace("v1", "v2"),
        "DIR/a.yaml:1:1: document 1: apiVersion: not the version of a Pod; write v1",
    );
    stays_live(
        "kind: List\nitem: []\n",
        "DIR/a.yaml:1:1: document 1: items: the list has no items; write `items: []` if it is \
         meant to be empty",
    );
    stays_live(
        "kind: PodList\nitems: [{apiVersion: v1, metadata: {}}]\n",
        "DIR/a.yaml:2:26: document 1: items[0].metadata.name: the object has no name; give it one",
    );
    stays_live(
        "just text\n",
        "DIR/a.yaml:1:1: document 1: kind: the object has no kind; write one, such as `kind: \
         NetworkPolicy`",
    );
}

#[test]
fn an_empty_file_leaves_what_it_said() {
    let message = "DIR/a.yaml: the file is empty; write it whole, or remove it with its objects";
    stays_live("", message);
    stays_live(" \n\n", message);
}

#[test]
fn a_file_without_objects_deletes_what_it_said() {
    let mut fixture = live();
    fixture.write("a.yaml", "# nothing\n");
    assert_eq!(fixture.news(), (vec!["-policy shop/lock".to_owned()], vec![]));
}

#[test]
fn every_broken_document_of_a_file_is_told() {
    let mut fixture = live();
    fixture.write("a.yaml", "a: [\n---\nkind: 1\n---\n}\n");
    let (changes, problems) = fixture.news();
    assert_eq!(changes, NOTHING);
    assert_eq!(problems.len(), 3, "{problems:?}");
    assert!(problems[1].starts_with("DIR/a.yaml:3:1: document 2: kind: "), "{problems:?}");
}

#[test]
fn a_file_that_multiplies_nests_or_grows_without_end_leaves_what_it_said() {
    let mut laughs = String::from("a0: &a0 [ha, ha, ha, ha, ha, ha, ha, ha, ha]\n");
    for level in 1..10 {
        let nine = vec![format!("*a{}", level - 1); 9].join(", ");
        laughs.push_str(&format!("a{level}: &a{level} [{nine}]\n"));
    }
    let long = format!("a: &a {}\nb: [{}]\n", "x".repeat(1 << 20), "*a, ".repeat(1000));
    let too_large = vec![b'#'; file::MAX_FILE_BYTES as usize + 1];
    for bytes in [
        laughs.into(),
        long.into(),
        "[".repeat(100_000).into(),
        "- ".repeat(100_000).into(),
        too_large,
    ] {
        let mut fixture = live();
        fixture.write("a.yaml", bytes);
        let (changes, problems) = fixture.news();
        assert_eq!(changes, NOTHING);
        assert_eq!(problems.len(), 1);
        assert!(problems[0].len() < 1000, "{}", problems[0]);
    }
}

#[test]
fn a_file_that_is_none_leaves_what_it_said_and_does_not_block() {
    let mut fixture = live();
    fixture.remove("a.yaml");
    mkfifo(&fixture.path().join("a.yaml"), Mode::S_IRWXU).unwrap();
    let (changes, problems) = fixture.news();
    assert_eq!(changes, NOTHING);
    let expected =
        "DIR/a.yaml: the file can't be read: it is not a regular file; mend or remove it";
    assert_eq!(problems, [expected]);
}

#[test]
fn a_link_that_leads_nowhere_leaves_what_it_said() {
    let mut fixture = live();
    fixture.remove("a.yaml");
    std::os::unix::fs::symlink("..data/gone", fixture.path().join("a.yaml")).unwrap();
    let (changes, problems) = fixture.news();
    assert_eq!(changes, NOTHING);
    assert!(problems[0].starts_with("DIR/a.yaml: the file can't be read: No such file"));
    fixture.remove("a.yaml");
    assert_eq!(fixture.news(), (vec!["-policy shop/lock".to_owned()], vec![]));
}

#[test]
fn a_file_that_could_never_be_read_keeps_the_source_incomplete() {
    let broken = [("a.yaml", "a: ["), ("b.yaml", POD)];
    let mut fixture = Fixture::new(&broken);
    assert_eq!(fixture.news().0, ["incomplete", "+pod shop/db"]);
    let scan = fixture.scan();
    assert_eq!((scan.changes, scan.available, scan.complete), (vec![], true, false));
    fixture.write("a.yaml", POLICY);
    assert_eq!(fixture.news().0, ["+policy shop/lock", "complete"]);

    let mut fixture = Fixture::new(&broken);
    fixture.scan();
    fixture.remove("a.yaml");
    assert_eq!(fixture.news(), (vec!["complete".to_owned()], vec![]));
}

#[test]
fn a_broken_file_that_turns_up_later_changes_nothing() {
    let mut fixture = live();
    fixture.write("draft.yaml", "a: [");
    let scan = fixture.scan();
    assert_eq!((scan.changes, scan.problems.len(), scan.complete), (vec![], 1, true));
}

#[test]
fn an_empty_directory_is_legal_at_the_start_and_told() {
    let mut fixture = Fixture::new(&[]);
    let scan = fixture.scan();
    assert_eq!(scan.changes, [Change::SourceComplete(true)]);
    assert_eq!(
        fixture.messages(&scan),
        ["no *.yaml, *.yml or *.json file in it; put manifests there"]
    );
    assert!(scan.available && scan.complete);
}

#[test]
fn a_directory_that_becomes_empty_leaves_what_was_known() {
    let mut fixture = live();
    fixture.remove("a.yaml");
    fixture.remove("b.yaml");
    let scan = fixture.scan();
    assert_eq!((&*scan.changes, scan.available), (&[][..], false));
    assert_eq!(
        fixture.messages(&scan),
        ["no manifest is left in it, as if it had been unmounted; what they said stays live: put \
          them back, or leave one without objects to remove every object"]
    );
    fixture.write("empty.yaml", "# nothing, on purpose\n");
    assert_eq!(fixture.news().0, ["-pod shop/db", "-policy shop/lock"]);
}

#[test]
fn a_directory_that_vanishes_leaves_what_was_known() {
    let mut fixture = live();
    let elsewhere = fixture.path().with_extension("elsewhere");
    fs::rename(fixture.path(), &elsewhere).unwrap();
    let scan = fixture.scan();
    assert_eq!((&*scan.changes, scan.available, scan.complete), (&[][..], false, true));
    assert_eq!(scan.problems[0].kind, ProblemKind::Directory);
    assert_eq!(
        scan.problems[0].message,
        "the directory can't be read: No such file or directory (os error 2); what was known \
         stays live: mend the directory or its permissions"
    );
    fs::rename(elsewhere, fixture.path()).unwrap();
    let scan = fixture.scan();
    assert_eq!((scan.changes, scan.problems, scan.available), (vec![], vec![], true));
}

#[test]
fn a_directory_that_was_never_there_is_incomplete() {
    let mut fixture = Fixture::new(&[]);
    fs::remove_dir(fixture.path()).unwrap();
    let scan = fixture.scan();
    assert_eq!(scan.changes, [Change::SourceComplete(false)]);
    assert!(!scan.available && !scan.complete);
    fs::create_dir(fixture.path()).unwrap();
    fixture.write("a.yaml", POLICY);
    assert_eq!(fixture.news().0, ["+policy shop/lock", "complete"]);
}

#[test]
fn a_policy_with_an_unknown_field_closes_its_pods_and_is_told_by_place() {
    let mut fixture = live();
    fixture.write("a.yaml", format!("{NAMESPACE}---\n{}", POLICY.replace("from:", "form:")));
    let scan = fixture.scan();
    let changes: Vec<_> = scan.changes.iter().map(brief).collect();
    assert_eq!(changes, ["+namespace shop", "+closed policy shop/lock"]);
    assert_eq!(
        fixture.messages(&scan),
        [
            "DIR/a.yaml:11:7: document 2: spec.ingress[0].form: unknown field `form`, expected `from` \
          or `ports`; correct it as the Kubernetes API describes this field"
        ]
    );
    let problem = &scan.problems[0];
    assert_eq!(
        (problem.kind, &*problem.subject),
        (ProblemKind::NetworkPolicy, "NetworkPolicy shop/lock")
    );
    let policy = &fixture.index.policies()[&lock()];
    assert_eq!((&policy.ingress, &policy.egress), (&Some(vec![]), &None));
}

#[test]
fn a_policy_with_a_peer_that_names_nobody_is_told_by_place() {
    let mut fixture = live();
    let peers = "from:\n        - {}\n        - namespaceSelector: null\n";
    fixture.write("a.yaml", POLICY.replace("from:\n", peers));
    let (changes, problems) = fixture.news();
    assert_eq!(changes, ["+closed policy shop/lock"]);
    assert!(
        problems[0].starts_with("DIR/a.yaml:8:11: document 1: spec.ingress[0].from[0]: the peer")
    );
}

#[test]
fn a_port_that_may_be_octal_is_no_number() {
    let mut fixture = live();
    fixture.write("a.yaml", format!("{POLICY}      ports: [{{port: 0755}}]\n"));
    let (changes, problems) = fixture.news();
    assert_eq!(changes, ["+closed policy shop/lock"]);
    let expected = "DIR/a.yaml:9:16: document 1: spec.ingress[0].ports[0].port: `0755` is not the \
                    name of a port";
    assert!(problems[0].starts_with(expected), "{}", problems[0]);
}

#[test]
fn a_pod_without_address_and_two_pods_with_one_are_passed_on_as_they_are() {
    let homeless = POD.replace("{podIPs: [{ip: 10.0.0.10}]}", "{}");
    let twin = POD.replace("name: db", "name: twin");
    let mut fixture = Fixture::new(&[("a.yaml", &homeless)]);
    assert_eq!(fixture.news(), (vec!["+pod shop/db".into(), "complete".into()], vec![]));
    fixture.write("a.yaml", format!("{POD}---\n{twin}"));
    assert_eq!(fixture.news(), (vec!["+pod shop/db".into(), "+pod shop/twin".into()], vec![]));
    assert_eq!(fixture.index.conflicts().count(), 1, "the index closes both");
}

#[test]
fn a_policy_that_two_files_define_differently_is_closed_for_what_either_means() {
    let open = POLICY.replace("    - from:", "    - {}\n    - from:");
    let mut fixture = live();
    fixture.write("c.yaml", &open);
    let message = "defined more than once, in DIR/a.yaml (document 1) and in DIR/c.yaml (document \
                   1); keep one of them (where they differ, the policy is refused and its pods are \
                   closed)";
    assert_eq!(fixture.news(), (vec!["+closed policy shop/lock".into()], vec![message.into()]));
    let closed = fixture.index.policies()[&lock()].clone();
    assert!(closed.pod_selector != Selector::everything());
    assert_eq!((closed.ingress, closed.egress), (Some(vec![]), None));

    let other = "spec: {podSelector: {}, policyTypes: [Egress]}";
    fixture.write("c.yaml", format!("{}{other}", &POLICY[..POLICY.find("spec:").unwrap()]));
    fixture.scan();
    let closed = fixture.index.policies()[&lock()].clone();
    assert_eq!(closed.pod_selector, Selector::everything());
    assert_eq!((closed.ingress, closed.egress), (Some(vec![]), Some(vec![])));

    fixture.remove("c.yaml");
    assert_eq!(fixture.news(), (vec!["+policy shop/lock".into()], vec![]));
}

#[test]
fn a_policy_that_two_files_define_alike_counts_once() {
    let mut fixture = live();
    fixture.write("c.yaml", POLICY);
    let (changes, problems) = fixture.news();
    assert_eq!((&*changes, problems.len()), (&[][..], 1));
}

#[test]
fn of_a_pod_that_two_files_define_the_first_counts_by_file_name() {
    let mut fixture = live();
    fixture.write("c.yaml", POD.replace("app: db", "app: other"));
    let message = "defined more than once, in DIR/b.yaml (document 1) and in DIR/c.yaml (document \
                   1); keep one of them (the first one counts)";
    assert_eq!(fixture.news(), (vec![], vec![message.into()]));
    fs::rename(fixture.path().join("c.yaml"), fixture.path().join("a2.yaml")).unwrap();
    assert_eq!(fixture.news().0, ["+pod shop/db"]);
}
