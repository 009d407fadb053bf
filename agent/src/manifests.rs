//! The manifest directory: a source of the cluster's state that needs no cluster.
//!
//! Owns the files, what they said when they could last be read, and what was passed on of it.
//! Does not own what objects mean ([`crate::convert`]) or what becomes of them ([`crate::policy`]).
//!
//! Invariant: a file or directory that can't be read changes nothing. What it said before stays
//! live; only a file that is there and whole, or a file that is gone while others are there, takes
//! anything away. Before every file could be read once there is no such "before", and a policy may
//! be missing, so the source calls itself incomplete and every pod is closed.
//!
//! `docs/manifests.md` says for each kind of bad input what it does.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
};

use tracing::debug;

use crate::{
    convert::{Defect, FieldPath},
    policy::model::Change,
};

use file::Contents;
use state::State;

pub use document::Place;
pub use problem::{ManifestError, Problem, ProblemKind};
pub use watch::watch;

mod document;
mod file;
mod problem;
mod state;
mod watch;

#[cfg(test)]
mod tests;

/// Reads a directory of manifests, and tells what changed.
#[derive(Debug)]
pub struct ManifestDirectory {
    path: PathBuf,
    files: BTreeMap<PathBuf, ManifestFile>,
    /// Entries that were named in the log as skipped.
    skipped: BTreeSet<PathBuf>,
    /// What the changes so far add up to.
    passed_on: State,
    completeness: Completeness,
}

/// What one look at the directory found.
#[derive(Clone, Debug, PartialEq)]
pub struct Scan {
    /// What is different from the scan before. To be applied as a whole, in this order, before
    /// anything is compiled from it.
    pub changes: Vec<Change>,
    /// Everything that is wrong at the moment, in a fixed order.
    pub problems: Vec<Problem>,
    /// Whether the directory could be read. If not, the state is as it was.
    pub available: bool,
    /// Whether every file could be read at least once. Once it is true it stays true.
    pub complete: bool,
}

/// One file of the directory.
#[derive(Debug, Default)]
struct ManifestFile {
    /// What the file holds by now, so that only files that changed are parsed.
    bytes: Option<Vec<u8>>,
    /// What it said when it could last be read as a whole.
    contents: Option<Contents>,
    /// Why it can't be read now.
    problems: Vec<Problem>,
}

/// What was said of [`Change::SourceComplete`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Completeness {
    Unsaid,
    Incomplete,
    Complete,
}

impl ManifestDirectory {
    /// A source that has not looked yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            files: BTreeMap::new(),
            skipped: BTreeSet::new(),
            passed_on: State::default(),
            completeness: Completeness::Unsaid,
        }
    }

    /// Looks at every file of the directory.
    ///
    /// Costs one read of every file; only files whose bytes changed are parsed.
    pub fn scan(&mut self) -> Scan {
        let mut problems = Vec::new();
        let available = match self.list() {
            Ok(paths) if paths.is_empty() && !self.passed_on.is_empty() => {
                let what = "no manifest is left in it, as if it had been unmounted; what they \
                            said stays live: put them back, or leave one without objects to \
                            remove every object";
                problems.push(self.problem(what.to_owned()));
                false
            }
            Ok(paths) => {
                if paths.is_empty() {
                    let what = "no *.yaml, *.yml or *.json file in it; put manifests there";
                    problems.push(self.problem(what.to_owned()));
                }
                self.files.retain(|path, _| paths.contains(path));
                for path in paths {
                    self.refresh(path);
                }
                true
            }
            Err(error) => {
                let what = format!(
                    "the directory can't be read: {error}; what was known stays live: mend the \
                     directory or its permissions"
                );
                problems.push(self.problem(what));
                false
            }
        };

        let whole = self.files.iter().filter_map(|(path, file)| {
            file.contents.as_ref().map(|contents| (path.as_path(), &*contents.definitions))
        });
        let (state, duplicates) = State::merge(whole);
        for file in self.files.values() {
            problems.extend(file.problems.iter().cloned());
            problems.extend(file.contents.iter().flat_map(|c| c.problems.iter().cloned()));
        }
        problems.extend(duplicates);

        let mut changes = self.passed_on.changes_to(&state);
        self.passed_on = state;
        self.say_completeness(available, &mut changes);
        let complete = self.completeness == Completeness::Complete;
        Scan { changes, problems, available, complete }
    }

    /// "Incomplete" goes before all other changes, "complete" behind them.
    fn say_completeness(&mut self, available: bool, changes: &mut Vec<Change>) {
        let whole = available && self.files.values().all(|file| file.contents.is_some());
        match (self.completeness, whole) {
            (Completeness::Unsaid | Completeness::Incomplete, true) => {
                changes.push(Change::SourceComplete(true));
                self.completeness = Completeness::Complete;
            }
            (Completeness::Unsaid, false) => {
                changes.insert(0, Change::SourceComplete(false));
                self.completeness = Completeness::Incomplete;
            }
            (Completeness::Incomplete, false) | (Completeness::Complete, _) => {}
        }
    }

    /// The manifest files, by name: links and what they lead to, too.
    fn list(&mut self) -> io::Result<BTreeSet<PathBuf>> {
        let mut manifests = BTreeSet::new();
        for entry in fs::read_dir(&self.path)? {
            let path = entry?.path();
            if is_manifest(&path) {
                manifests.insert(path);
            } else if self.skipped.insert(path.clone()) {
                debug!(file = %path.display(), "skipped: not a *.yaml, *.yml or *.json file");
            }
        }
        Ok(manifests)
    }

    /// Reads a file again.
    fn refresh(&mut self, path: PathBuf) {
        let bytes = match file::read(&path) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => {
                self.files.remove(&path);
                if self.skipped.insert(path.clone()) {
                    debug!(file = %path.display(), "skipped: a directory");
                }
                return;
            }
            Err(error) => {
                // It was removed since it was listed.
                if fs::symlink_metadata(&path).is_err_and(|e| e.kind() == io::ErrorKind::NotFound) {
                    self.files.remove(&path);
                    return;
                }
                let file = self.files.entry(path.clone()).or_default();
                file.bytes = None;
                file.problems = vec![unreadable(&path, &error)];
                return;
            }
        };
        let file = self.files.entry(path.clone()).or_default();
        if file.bytes.as_ref() == Some(&bytes) {
            return;
        }
        match file::parse(&path, &bytes) {
            Ok(contents) => {
                file.contents = Some(contents);
                file.problems = Vec::new();
            }
            Err(problems) => file.problems = problems,
        }
        file.bytes = Some(bytes);
    }

    fn problem(&self, message: String) -> Problem {
        let subject = self.path.display().to_string();
        Problem { kind: ProblemKind::Directory, subject, message }
    }
}

/// By its name. A hidden file is somebody's swap file, or the inner works of a mounted ConfigMap.
fn is_manifest(path: &Path) -> bool {
    let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    let extension = path.extension().and_then(OsStr::to_str);
    !hidden && matches!(extension, Some("yaml" | "yml" | "json"))
}

fn unreadable(path: &Path, error: &io::Error) -> Problem {
    let problem = format!("the file can't be read: {error}; mend or remove it");
    let defect = Defect::new(FieldPath::default(), problem);
    let error = ManifestError { file: path.to_owned(), place: None, document: None, defect };
    let subject = path.display().to_string();
    Problem { kind: ProblemKind::File, subject, message: error.to_string() }
}
