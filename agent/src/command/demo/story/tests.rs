//! The manifests of the story, read as the agent reads them.

use std::fs;

use bulkhead_common::verdict::DenyAction;

use super::*;
use crate::{manifests::ManifestDirectory, policy::model::Change};

/// What the agent makes of some of the files.
fn read(files: &[&str]) -> Vec<Change> {
    let directory = tempfile::tempdir().unwrap();
    for file in files {
        let (_, text) = FILES.iter().find(|(name, _)| name == file).unwrap();
        let name = file.rsplit('/').next().unwrap();
        fs::write(directory.path().join(name), text).unwrap();
    }
    let scan = ManifestDirectory::new(directory.path()).scan();
    assert_eq!(scan.problems, []);
    scan.changes
}

fn deny_actions(changes: &[Change]) -> Vec<Option<DenyAction>> {
    let namespace = |change: &Change| match change {
        Change::NamespaceApplied(namespace) => Some(namespace.deny_action),
        Change::NamespaceDeleted(_)
        | Change::PodApplied(_)
        | Change::PodDeleted(_)
        | Change::PolicyApplied(_)
        | Change::PolicyDeleted(_)
        | Change::ServiceApplied(_)
        | Change::ServiceDeleted(_)
        | Change::EndpointSliceApplied(_)
        | Change::EndpointSliceDeleted(_)
        | Change::NodeApplied(_)
        | Change::NodeDeleted(_)
        | Change::SourceComplete(_) => None,
    };
    changes.iter().filter_map(namespace).collect()
}

#[test]
fn the_story_begins_with_three_pods_and_no_policy() {
    let changes = read(&["manifests/namespace.yaml", "manifests/pods.yaml"]);
    let pods = changes.iter().filter(|change| matches!(change, Change::PodApplied(_)));
    assert_eq!(pods.count(), 3);
    assert!(!changes.iter().any(|change| matches!(change, Change::PolicyApplied(_))));
    assert_eq!(deny_actions(&changes), [None]);
}

#[test]
fn the_other_namespace_rejects() {
    assert_eq!(deny_actions(&read(&["namespace-reject.yaml"])), [Some(DenyAction::Reject)]);
}

#[test]
fn whatever_a_chapter_changes_is_awaited_by_a_step() {
    for chapter in STORY {
        assert!(!chapter.steps.is_empty(), "{}", chapter.title);
    }
}
