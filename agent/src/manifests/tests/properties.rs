//! Over random files: no panic, and a state that only the files decide.

use proptest::prelude::*;

use super::*;

/// Pieces of manifests, right and wrong ones.
const PIECES: &[&str] = &[
    POLICY,
    POD,
    NAMESPACE,
    SERVICE,
    SLICE,
    NODE,
    "---\n",
    "\n",
    "- ",
    "{",
    "}",
    "[",
    "]",
    "&a ",
    "*a",
    "<<: ",
    "!!str ",
    "|\n",
    "\t",
    "'",
    "\"",
    "  ",
    "null",
    "1e999",
    "kind: List\nitems:\n",
    "kind: NetworkPolicy\n",
    "apiVersion: networking.k8s.io/v1\n",
    "metadata: {name: a}\n",
    "spec:\n",
    "  ingress:\n",
    "\u{feff}",
    "\r\n",
    "# é\n",
];

/// One step of somebody who edits the directory.
#[derive(Clone, Debug)]
enum Edit {
    Write(&'static str, String),
    Remove(&'static str),
    Look,
}

fn soup() -> impl Strategy<Value = String> {
    proptest::collection::vec(proptest::sample::select(PIECES), 0..12).prop_map(|p| p.concat())
}

/// A sound manifest with one piece of it replaced.
fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let whole = format!("{NAMESPACE}---\n{POD}---\n{SLICE}---\n{POLICY}").into_bytes();
    let length = whole.len();
    (0..length, 0..12_usize, proptest::collection::vec(any::<u8>(), 0..4)).prop_map(
        move |(start, len, bytes)| {
            let mut mutated = whole.clone();
            mutated.splice(start..length.min(start + len), bytes);
            mutated
        },
    )
}

/// A manifest that may disagree with the other files'.
fn manifest() -> impl Strategy<Value = String> {
    let variants = vec!["app: web", "app: shop", "app: yes"];
    let text = proptest::sample::select(&[NAMESPACE, POD, POLICY, SERVICE, SLICE, NODE][..]);
    (text, proptest::sample::select(variants), any::<bool>()).prop_map(|(text, label, typo)| {
        let text = text.replace("port: 3306", if typo { "port: 3307" } else { "port: 3306" });
        let text = text.replace("app: web", label).replace("10.0.0.10", "10.0.0.11");
        if typo { text.replace("from:", "form:") } else { text }
    })
}

fn edit() -> impl Strategy<Value = Edit> {
    let name = || proptest::sample::select(&["a.yaml", "b.yaml", "c.yaml"][..]);
    prop_oneof![
        4 => (name(), manifest()).prop_map(|(name, text)| Edit::Write(name, text)),
        1 => name().prop_map(Edit::Remove),
        2 => Just(Edit::Look),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(file::parse(Path::new("f"), &bytes).map_or_else(|p| !p.is_empty(), |_| true));
    }

    #[test]
    fn no_soup_of_manifests_makes_the_reader_panic(text in soup()) {
        prop_assert!(
            file::parse(Path::new("f"), text.as_bytes()).map_or_else(|p| !p.is_empty(), |_| true)
        );
    }

    /// Bytes that went wrong never make a refused policy that lets something through.
    #[test]
    fn a_refused_policy_isolates_and_allows_nothing(bytes in mutated()) {
        if let Ok(contents) = file::parse(Path::new("f"), &bytes) {
            for definition in contents.definitions {
                if let file::Object::Policy(policy) = definition.object
                    && policy.refused.is_some()
                {
                    prop_assert!(policy.ingress.is_some() || policy.egress.is_some());
                    let rules = policy.ingress.into_iter().chain(policy.egress).flatten();
                    prop_assert_eq!(rules.count(), 0);
                }
            }
        }
    }

    /// In whatever order files come, and however many looks are taken in between: as long as they
    /// can all be read in the end, the end is the same as for somebody who starts with it.
    #[test]
    fn the_state_depends_on_the_files_alone(edits in proptest::collection::vec(edit(), 0..12)) {
        let mut fixture = Fixture::new(&[("keep.yaml", "# so that it is never empty\n")]);
        for edit in edits {
            match edit {
                Edit::Write(name, text) => fixture.write(name, text),
                Edit::Remove(name) if fixture.path().join(name).exists() => fixture.remove(name),
                Edit::Remove(_) => {}
                Edit::Look => drop(fixture.scan()),
            }
        }
        let scan = fixture.scan();
        let mut newcomer = ManifestDirectory::new(fixture.path());
        let mut index = Index::new(None);
        let first = newcomer.scan();
        for change in first.changes {
            index.apply(change);
        }
        prop_assert_eq!(&first.problems, &scan.problems);
        if first.complete {
            prop_assert_eq!(index, fixture.index);
        }
    }
}

#[test]
fn files_written_in_reverse_make_the_same_state() {
    let wide = POLICY.replace("app: web", "app: shop");
    let files = [("a.yaml", POD), ("b.yaml", POLICY), ("c.yaml", &*wide), ("d.yaml", NAMESPACE)];
    let state = |files: &mut dyn Iterator<Item = &(&str, &str)>| {
        let mut fixture = Fixture::new(&[("0.yaml", "# first\n")]);
        for (name, text) in files {
            fixture.write(name, text);
            fixture.scan();
        }
        let directory = fixture.path().display().to_string();
        format!("{:#?}", fixture.index).replace(&directory, "DIR")
    };
    let forward = state(&mut files.iter());
    assert!(forward.contains("defined more than once"));
    assert_eq!(forward, state(&mut files.iter().rev()));
}
