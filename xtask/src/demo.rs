//! `cargo xtask demo`: builds the agent and runs `bulkhead demo`, as root.
//!
//! The development profile: it compiles in less than half the time, shares its work with the tests,
//! and the eBPF programs in it are the optimised ones all the same.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::{setup, step};

/// Becomes the demo: what the user presses reaches it, and its exit status is the task's.
pub(crate) fn run(arguments: &[OsString]) -> Result<()> {
    let mut demo = prepare(arguments)?;
    step::say("building and running the demo");
    Err(demo.exec()).context("cargo does not start")
}

/// The command that builds and runs the demo.
pub(crate) fn prepare(arguments: &[OsString]) -> Result<Command> {
    setup::ensure(&[setup::Need::Object, setup::Need::Traffic])?;
    let mut demo = step::cargo(["run"]);
    demo.args(step::as_root("the demo")?);
    demo.args(["--package", "bulkhead", "--bin", "bulkhead", "--", "demo"]).args(arguments);
    Ok(demo)
}
