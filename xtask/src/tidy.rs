//! Rules on files that no compiler knows: no long files, no path of somebody's machine, no test in the
//! documents that is not there.

mod named_tests;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::step;

/// The most lines of a file that is written by hand.
const MOST_LINES: usize = 500;

/// Where people keep what is theirs.
const HOMES: [&str; 3] = ["home", "Users", "root"];

/// Not sources of ours.
const SKIPPED: [&str; 8] = [
    ".git",
    "target",
    "Cargo.lock",
    "LICENSE-APACHE",
    "LICENSE-GPL2",
    "LICENSE-MIT",
    "proptest-regressions",
    "corpus",
];

/// Says of each of its clauses which test shows it.
const SEMANTICS: &str = "docs/semantics.md";

pub(crate) fn run() -> Result<()> {
    step::say("checking files: lengths, paths of somebody's machine, tests that documents name");
    let mut files = Vec::new();
    collect(step::workspace(), &mut files)?;
    let mut findings = Vec::new();
    let mut sources = Vec::new();
    for file in files {
        let content = fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
        // What is no text has no lines.
        if let Ok(text) = String::from_utf8(content) {
            let name = file.strip_prefix(step::workspace()).unwrap_or(&file);
            findings.extend(
                problems(&text).into_iter().map(|found| format!("{}{found}", name.display())),
            );
            if name.extension().is_some_and(|extension| extension == "rs") {
                sources.push((name.to_owned(), text));
            }
        }
    }
    let semantics = fs::read_to_string(step::workspace().join(SEMANTICS))
        .with_context(|| format!("reading {SEMANTICS}"))?;
    let named = named_tests::problems(&semantics, &sources);
    findings.extend(named.into_iter().map(|found| format!("{SEMANTICS}{found}")));
    if !findings.is_empty() {
        bail!("files against the rules:\n    {}", findings.join("\n    "));
    }
    Ok(())
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let entries = fs::read_dir(directory).with_context(|| format!("{}", directory.display()))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("{}", directory.display()))?;
        if SKIPPED.iter().any(|skipped| entry.file_name() == *skipped) {
            continue;
        }
        let kind = entry.file_type().with_context(|| format!("{}", entry.path().display()))?;
        if kind.is_dir() {
            collect(&entry.path(), files)?;
        } else if kind.is_file() {
            files.push(entry.path());
        }
    }
    Ok(())
}

/// What is wrong with a file of this content, each to be put behind the file's name.
fn problems(text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let lines = text.lines().count();
    if lines > MOST_LINES {
        problems.push(format!(": {lines} lines, {MOST_LINES} at most: split it by topic"));
    }
    for (index, line) in text.lines().enumerate() {
        for home in HOMES {
            if has_path_under(line, home) {
                problems.push(format!(":{}: a path under /{home}", index + 1));
            }
        }
    }
    problems
}

/// Does an absolute path that begins with this directory stand in the line?
fn has_path_under(line: &str, directory: &str) -> bool {
    line.match_indices(&format!("/{directory}/")).any(|(at, _)| {
        // Else it is the middle of another path, or of an address.
        !line[..at].ends_with(|before: char| before.is_alphanumeric() || "._-}$*/".contains(before))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_500_lines_passes_and_one_more_does_not() {
        assert_eq!(problems(&"line\n".repeat(500)), Vec::<String>::new());
        assert_eq!(
            problems(&"line\n".repeat(501)),
            [": 501 lines, 500 at most: split it by topic"]
        );
    }

    #[test]
    fn a_path_of_somebodys_machine_is_found() {
        for home in HOMES {
            let text = format!("first\nlet path = \"/{home}/somebody/bulkhead\";\n");
            assert_eq!(problems(&text), [format!(":2: a path under /{home}")]);
        }
    }

    #[test]
    fn a_directory_of_that_name_inside_another_path_is_not_one() {
        assert_eq!(problems("https://example.org/home/index.html"), Vec::<String>::new());
        assert_eq!(problems("deploy/home/x, $HOME/home/x, /homeless"), Vec::<String>::new());
    }
}
