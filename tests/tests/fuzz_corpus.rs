//! What the fuzzers kept in `tests/fuzz/corpus`, run again.

use std::{fs, path::Path};

use bulkhead_tests::fuzz::TARGETS;

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
fn frames_in_turn_that_the_fuzzer_found_are_judged_as_the_model_expects() {
    assert!(replay("decide") > 50);
}

#[test]
fn manifests_that_the_fuzzer_found_are_read_or_refused() {
    assert!(replay("manifest") > 50);
}

#[test]
fn records_that_the_fuzzer_found_are_told_in_words() {
    assert!(replay("event") > 5);
}
