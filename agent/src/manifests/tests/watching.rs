//! The thread that looks by itself. Waits for what it is told, never for a time.

use std::time::Duration;

use tokio::sync::mpsc::{Receiver, channel};

use super::*;

/// Far more than any of it takes, so that a failure ends.
const PATIENCE: Duration = Duration::from_secs(30);

/// The next scan's changes, and whether the directory is there.
async fn next(scans: &mut Receiver<Scan>) -> (Vec<String>, bool) {
    let scan = tokio::time::timeout(PATIENCE, scans.recv()).await.unwrap().unwrap();
    (scan.changes.iter().map(brief).collect(), scan.available)
}

fn said(changes: &[&str], available: bool) -> (Vec<String>, bool) {
    (changes.iter().map(ToString::to_string).collect(), available)
}

#[tokio::test]
async fn changes_are_sent_also_after_the_directory_was_replaced() {
    let fixture = Fixture::new(&[("b.yaml", POD)]);
    let (sender, mut scans) = channel(1);
    let thread = watch(fixture.path().to_owned(), sender).unwrap();
    assert_eq!(next(&mut scans).await, said(&["+pod shop/db", "complete"], true));

    fixture.write("a.yaml", POLICY);
    assert_eq!(next(&mut scans).await, said(&["+policy shop/lock"], true));

    let elsewhere = fixture.path().with_extension("old");
    fs::rename(fixture.path(), &elsewhere).unwrap();
    assert_eq!(next(&mut scans).await, said(&[], false));

    let new = fixture.path().with_extension("new");
    fs::create_dir(&new).unwrap();
    fs::write(new.join("b.yaml"), POD).unwrap();
    fs::rename(&new, fixture.path()).unwrap();
    assert_eq!(next(&mut scans).await, said(&["-policy shop/lock"], true));

    fixture.write("a.yaml", POLICY);
    assert_eq!(next(&mut scans).await, said(&["+policy shop/lock"], true));
    fixture.remove("a.yaml");
    assert_eq!(next(&mut scans).await, said(&["-policy shop/lock"], true));

    fs::remove_dir_all(elsewhere).unwrap();
    drop(scans);
    thread.join().unwrap();
}

#[tokio::test]
async fn a_problem_is_sent_when_it_comes_and_when_it_goes() {
    let fixture = Fixture::new(&[("a.yaml", POLICY)]);
    let (sender, mut scans) = channel(1);
    watch(fixture.path().to_owned(), sender).unwrap();
    next(&mut scans).await;
    for (text, problems) in [("a: [", 1), (POLICY, 0)] {
        fixture.write("a.yaml", text);
        let scan = tokio::time::timeout(PATIENCE, scans.recv()).await.unwrap().unwrap();
        assert_eq!((scan.changes.len(), scan.problems.len()), (0, problems));
    }
}
