//! What the demo needs of the machine: root, and three tools.
//!
//! Only looks, changes nothing. Invariant: all that is missing is named at once.

use std::{env, fmt::Write as _, iter, path::Path};

use anyhow::{Result, bail};
use nix::unistd::{AccessFlags, access, geteuid};

/// A program, and Debian's package that has it.
const TOOLS: [(&str, &str); 3] = [("ip", "iproute2"), ("ping", "iputils-ping"), ("curl", "curl")];

/// Fails with all that is missing, and how to get it.
pub(super) fn check() -> Result<()> {
    let path = env::var_os("PATH").unwrap_or_default();
    let found =
        |tool: &str| env::split_paths(&path).any(|directory| is_executable(&directory.join(tool)));
    let missing: Vec<_> = TOOLS.into_iter().filter(|(tool, _)| !found(tool)).collect();
    let command: Vec<_> = command_line().collect();
    match complaint(geteuid().is_root(), &missing, &command.join(" ")) {
        None => Ok(()),
        Some(complaint) => bail!(complaint),
    }
}

/// The command that was given, with the path of this very program.
fn command_line() -> impl Iterator<Item = String> {
    let program = env::current_exe()
        .map_or_else(|_| "bulkhead".to_owned(), |program| program.display().to_string());
    iter::once(program).chain(env::args().skip(1))
}

fn is_executable(path: &Path) -> bool {
    path.is_file() && access(path, AccessFlags::X_OK).is_ok()
}

fn complaint(root: bool, missing: &[(&str, &str)], command: &str) -> Option<String> {
    let mut text = String::new();
    if !missing.is_empty() {
        let (tools, packages): (Vec<_>, Vec<_>) = missing.iter().copied().unzip();
        text += "the demo calls programs that are not installed, or not on PATH:\n";
        for (tool, package) in missing {
            // Writing to a string does not fail.
            writeln!(text, "    {tool:<5} (Debian's package {package})").ok()?;
        }
        debug_assert_eq!(tools.len(), packages.len());
        let sudo = if root { "" } else { "sudo " };
        text += &format!("Install them:\n    {sudo}apt-get install {}", packages.join(" "));
    }
    if !root {
        if !text.is_empty() {
            text += "\nand ";
        }
        text += &format!(
            "the demo needs root: it makes network namespaces and loads eBPF programs. Run it by:\n\
             \x20   sudo {command}"
        );
    }
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_with_all_tools_may_go_on() {
        assert_eq!(complaint(true, &[], "bulkhead demo"), None);
    }

    #[test]
    fn without_root_the_command_is_offered() {
        let text = complaint(false, &[], "target/bulkhead demo").unwrap();
        assert!(text.ends_with("\n    sudo target/bulkhead demo"), "{text}");
    }

    #[test]
    fn missing_tools_are_named_with_their_packages() {
        let text = complaint(true, &TOOLS, "bulkhead demo").unwrap();
        assert!(text.contains("    ping  (Debian's package iputils-ping)\n"), "{text}");
        assert!(text.ends_with("\n    apt-get install iproute2 iputils-ping curl"), "{text}");
        assert!(!text.contains("sudo"), "{text}");
    }

    #[test]
    fn all_that_is_missing_is_named_at_once() {
        let text = complaint(false, &TOOLS[2..], "bulkhead demo").unwrap();
        assert!(text.contains("sudo apt-get install curl\n"), "{text}");
        assert!(text.contains("sudo bulkhead demo"), "{text}");
    }
}
