//! What the fuzzers kept in `tests/fuzz/corpus`, run again; and random bytes.

use std::{fs, path::Path};

use bulkhead_tests::fuzz::{self, TARGETS};

/// Runs every file of a target; how many there were.
fn replay(target: &str) -> usize {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let (_, run) = TARGETS.into_iter().find(|(name, _)| *name == target).expect("a target");
    let files = fs::read_dir(&directory)
        .unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
        .map(|entry| entry.expect("an entry").path());
    // The name of the file is the last that is printed before a panic.
    files
        .inspect(|file| println!("{}", file.display()))
        .map(|file| fs::read(file).expect("a file"))
        .inspect(|bytes| run(bytes))
        .count()
}

#[test]
fn frames_that_the_fuzzer_found_are_read_as_the_second_reading_has_them() {
    assert!(replay("parse") > 50);
}

#[test]
fn frames_in_turn_that_the_fuzzer_found_are_judged_as_the_model_judges_them() {
    assert!(replay("decide") > 50);
}

#[test]
fn manifests_that_the_fuzzer_found_are_read_or_refused() {
    assert!(replay("manifest") > 40);
}

#[test]
fn lists_of_flows_that_the_fuzzer_found_are_read_or_refused() {
    assert!(replay("flows") > 10);
}

#[test]
fn records_that_the_fuzzer_found_are_told_in_words() {
    assert!(replay("event") > 5);
}

#[test]
fn frames_of_random_decisions_are_judged_as_the_model_judges_them_however_late_they_come() {
    let mut random = fastrand::Rng::with_seed(0xb01c);
    for _ in 0..200 {
        let mut decisions = vec![0; 40_000];
        random.fill(&mut decisions);
        fuzz::decide_in_turn(&decisions);
    }
}
