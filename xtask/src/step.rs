//! One step of a task: said, then run.
//!
//! Owns how a task talks to the terminal, and how it starts other programs. What a program prints
//! goes to the terminal untouched.

use std::env;
use std::fs;
use std::io::{self, IsTerminal as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::toolchain;

/// The directory of the workspace's `Cargo.toml`.
pub(crate) fn workspace() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package)
}

/// Says what comes next.
pub(crate) fn say(what: &str) {
    line("==>", "32", what);
}

/// Says why the task ends here.
pub(crate) fn failed(error: &anyhow::Error) {
    line("==>", "31", &format!("failed: {error:#}"));
}

/// Says what is about to be done, shows the command, and runs it.
pub(crate) fn run(what: &str, command: &mut Command) -> Result<()> {
    say(what);
    line("   ", "2", &format!("$ {}", shown(command)));
    let status =
        command.status().with_context(|| format!("`{}` does not start", shown(command)))?;
    if !status.success() {
        bail!("`{}` ended with {status}", shown(command));
    }
    Ok(())
}

/// The cargo that runs this task, in the workspace.
pub(crate) fn cargo<const N: usize>(arguments: [&str; N]) -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(arguments).current_dir(workspace());
    // What cargo says of *this* package is not for the build of others: build scripts that watch
    // these variables would run again with each change from `cargo` to `cargo xtask`.
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(|name| {
            name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")
        }) {
            cargo.env_remove(name);
        }
    }
    cargo
}

/// Has this process the rights of root?
pub(crate) fn is_root() -> Result<bool> {
    let process = fs::metadata("/proc/self").context("/proc is not mounted")?;
    Ok(process.uid() == 0)
}

/// The arguments by which cargo starts what it has built as root: by sudo, if need be.
///
/// What is built stays the user's own.
pub(crate) fn as_root(what: &str) -> Result<Vec<&'static str>> {
    if is_root()? {
        return Ok(Vec::new());
    }
    if toolchain::on_path("sudo").is_none() {
        bail!("{what} needs root, and there is no sudo here: run it as root");
    }
    say(&format!("{what} needs root: sudo may ask for your password"));
    Ok(vec!["--config", r#"target."cfg(all())".runner = ["sudo", "-E"]"#])
}

/// The command as a person would type it.
pub(crate) fn shown(command: &Command) -> String {
    let variables = command
        .get_envs()
        .filter_map(|(name, value)| Some((name, value?)))
        .map(|(name, value)| format!("{}={}", name.display(), value.display()));
    let program = Path::new(command.get_program());
    let program = program.file_name().unwrap_or(command.get_program());
    let words = [program].into_iter().chain(command.get_args()).map(|word| {
        let word = word.to_string_lossy();
        if word.contains([' ', '"']) { format!("'{word}'") } else { word.into_owned() }
    });
    variables.chain(words).collect::<Vec<_>>().join(" ")
}

fn line(mark: &str, colour: &str, text: &str) {
    let mut out = io::stderr().lock();
    let written = if out.is_terminal() {
        writeln!(out, "\x1b[1;{colour}m{mark}\x1b[0m {text}")
    } else {
        writeln!(out, "{mark} {text}")
    };
    // A task whose reader went away goes on: its exit status still counts.
    drop(written);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_shown_as_it_would_be_typed() {
        let mut command = Command::new("/some/where/cargo");
        command.args(["run", "a b"]).env("PREFIX", "there").env_remove("GONE");
        assert_eq!(shown(&command), "PREFIX=there cargo run 'a b'");
    }
}
