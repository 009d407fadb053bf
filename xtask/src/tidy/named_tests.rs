//! Tests that `docs/semantics.md` names: each has to be there.
//!
//! A name is written as `` `file.rs::test` ``, where the file is the end of one path of the workspace
//! and of no other.

use std::path::PathBuf;

/// A Rust file: its path in the workspace, and its text.
pub(super) type Source = (PathBuf, String);

/// What is wrong with the names in a text, each to be put behind the text's file name.
pub(super) fn problems(text: &str, sources: &[Source]) -> Vec<String> {
    let mut problems = Vec::new();
    for (index, line) in text.lines().enumerate() {
        // Every other piece stands between backquotes.
        for name in line.split('`').skip(1).step_by(2) {
            let Some((file, test)) = name.split_once("::").filter(|(f, _)| f.ends_with(".rs"))
            else {
                continue;
            };
            if let Some(problem) = problem(file, test, sources) {
                problems.push(format!(":{}: {name}: {problem}", index + 1));
            }
        }
    }
    problems
}

fn problem(file: &str, test: &str, sources: &[Source]) -> Option<&'static str> {
    let mut files = sources.iter().filter(|(path, _)| path.ends_with(file));
    match (files.next(), files.next()) {
        (None, _) => Some("there is no such file"),
        (Some(_), Some(_)) => Some("several files end so: write more of the path"),
        (Some((_, source)), None) if !has_test(source, test) => Some("the file has no such test"),
        (Some(_), None) => None,
    }
}

/// A function, or a row of a macro that makes tests: `name: what it takes`.
fn has_test(source: &str, test: &str) -> bool {
    source.lines().map(str::trim_start).any(|line| {
        let line = line.strip_prefix("async ").unwrap_or(line);
        let rest = line.strip_prefix("fn ").unwrap_or(line).strip_prefix(test);
        let follows = if line.starts_with("fn ") { '(' } else { ':' };
        rest.is_some_and(|rest| rest.starts_with(follows))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources() -> Vec<Source> {
        let source = "#[test]\nfn it_holds() {}\nrows! {\n    a_row_holds: NETS, |x| x;\n}\n";
        ["common/src/decide/tests.rs", "common/src/packet/tests.rs", "tests/tests/rows.rs"]
            .map(|path| (PathBuf::from(path), source.to_owned()))
            .into()
    }

    #[test]
    fn functions_and_rows_of_a_file_are_found_by_the_end_of_its_path() {
        let text = "`decide/tests.rs::it_holds`, `rows.rs::a_row_holds` and `Option::None`";
        assert_eq!(problems(text, &sources()), Vec::<String>::new());
    }

    #[test]
    fn what_is_not_there_is_told_with_its_line() {
        let text = "\n`rows.rs::it_hold` `row.rs::it_holds`\n`tests.rs::it_holds`";
        assert_eq!(
            problems(text, &sources()),
            [
                ":2: rows.rs::it_hold: the file has no such test",
                ":2: row.rs::it_holds: there is no such file",
                ":3: tests.rs::it_holds: several files end so: write more of the path",
            ]
        );
    }
}
