//! What is read, and what a look says of it.

use std::os::unix::fs::symlink;

use super::*;

#[test]
fn policies_come_before_pods_and_completeness_comes_last() {
    let mut fixture = Fixture::new(&[("a.yaml", POD), ("b.yml", POLICY), ("c.yaml", NAMESPACE)]);
    let scan = fixture.scan();
    let changes: Vec<_> = scan.changes.iter().map(brief).collect();
    assert_eq!(changes, ["+namespace shop", "+policy shop/lock", "+pod shop/db", "complete"]);
    assert_eq!((scan.problems, scan.available, scan.complete), (vec![], true, true));
    assert_eq!(fixture.news(), (vec![], vec![]), "a second look finds nothing new");
}

#[test]
fn policies_are_deleted_after_pods() {
    let files = [("a.yaml", POD), ("b.yaml", POLICY), ("c.yaml", NAMESPACE), ("d.yaml", "# rest")];
    let mut fixture = Fixture::new(&files);
    fixture.scan();
    for name in ["a.yaml", "b.yaml", "c.yaml"] {
        fixture.remove(name);
    }
    let (changes, problems) = fixture.news();
    assert_eq!(changes, ["-pod shop/db", "-policy shop/lock", "-namespace shop"]);
    assert_eq!(problems, Vec::<String>::new());
}

#[test]
fn documents_lists_and_json_are_read_and_the_rest_is_skipped() {
    let list = r#"{
	"kind": "List", "apiVersion": "v1", "items": [
		{"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": "in-list"}},
		{"kind": "PodList", "apiVersion": "v1", "items": [{"metadata": {"name": "in-pod-list"}}]}
	]
}"#;
    let documents = "# nothing yet
---
# nor here
--- # here it comes
kind: NetworkPolicyList
apiVersion: networking.k8s.io/v1
items: [{metadata: {name: in-policy-list}, spec: {}}]
---
kind: ConfigMap
apiVersion: v1
metadata: {name: skipped}
---
kind: Service
apiVersion: serving.knative.dev/v1
metadata: {name: skipped}
---
kind: NetworkPolicy
apiVersion: crd.projectcalico.org/v1
metadata: {name: skipped}
---
kind: Ingress
apiVersion: networking.k8s.io/v1
metadata: {name: skipped}
";
    let mut fixture = Fixture::new(&[
        ("a.json", list),
        ("b.yaml", documents),
        (".hidden.yaml", NAMESPACE),
        ("..data.yaml", NAMESPACE),
        ("README.md", "not: [yaml"),
        ("policy.yaml~", POLICY),
    ]);
    fs::create_dir(fixture.path().join("directory.yaml")).unwrap();
    let (changes, problems) = fixture.news();
    assert_eq!(problems, Vec::<String>::new());
    let policy = "+policy default/in-policy-list";
    assert_eq!(changes, ["+namespace in-list", policy, "+pod default/in-pod-list", "complete"]);
}

#[test]
fn a_mounted_config_map_is_followed_from_one_generation_to_the_next() {
    let mut fixture = Fixture::new(&[]);
    let generation = |name: &str, text: &str| {
        let directory = fixture.path().join(name);
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join("lock.yaml"), text).unwrap();
    };
    generation("..1", POLICY);
    generation("..2", &POLICY.replace("app: web", "app: shop"));
    symlink("..1", fixture.path().join("..data")).unwrap();
    symlink("..data/lock.yaml", fixture.path().join("lock.yaml")).unwrap();
    assert_eq!(fixture.news().0, ["+policy shop/lock", "complete"]);

    symlink("..2", fixture.path().join("..new")).unwrap();
    fs::rename(fixture.path().join("..new"), fixture.path().join("..data")).unwrap();
    assert_eq!(fixture.news(), (vec!["+policy shop/lock".to_owned()], vec![]));
}

#[test]
fn an_object_that_moves_to_another_file_does_not_change() {
    let mut fixture = Fixture::new(&[("a.yaml", POLICY), ("b.yaml", POD)]);
    fixture.scan();
    fs::rename(fixture.path().join("a.yaml"), fixture.path().join("z.yaml")).unwrap();
    assert_eq!(fixture.news(), (vec![], vec![]));
}

#[test]
fn a_change_of_comments_or_order_is_no_change() {
    let mut fixture = Fixture::new(&[("a.yaml", &format!("{POLICY}---\n{POD}"))]);
    fixture.scan();
    fixture.write("a.yaml", format!("# the pod\n{POD}---\n# the policy\n{POLICY}"));
    assert_eq!(fixture.news(), (vec![], vec![]));
}

#[test]
fn the_example_of_the_handbook_is_sound() {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/examples/wordpress-mysql");
    let scan = ManifestDirectory::new(example).scan();
    assert_eq!(scan.problems, []);
    let changes: Vec<_> = scan.changes.iter().map(brief).collect();
    assert_eq!(
        changes,
        [
            "+namespace wordpress-mysql",
            "+policy wordpress-mysql/mysql-from-wordpress",
            "+pod wordpress-mysql/intruder",
            "+pod wordpress-mysql/mysql",
            "+pod wordpress-mysql/wordpress",
            "complete",
        ]
    );
}
