//! `cargo xtask test`: the checks of the sources, and every test.
//!
//! The package `bulkhead-tests` holds what needs root and a kernel; everything else runs as the
//! user. None of it is left out for want of root: then the task fails.

use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::Result;

use crate::{setup, step, tidy, vm};

/// Tests on the real kernel.
const KERNEL_TESTS: [&str; 2] = ["--package", "bulkhead-tests"];

/// All others. The eBPF programs are built for their own target by the agent's build script.
const UNIT_TESTS: [&str; 5] =
    ["--workspace", "--exclude", "bulkhead-tests", "--exclude", "bulkhead-ebpf"];

pub(crate) fn run(all: bool) -> Result<()> {
    let start = Instant::now();
    setup::ensure(&[setup::Need::Object, setup::Need::Traffic, setup::Need::Checks])?;
    tidy::run()?;
    step::run("checking the formatting", &mut step::cargo(["fmt", "--all", "--check"]))?;
    step::run(
        "checking with clippy",
        step::cargo(["clippy", "--workspace", "--all-targets"]).args(["--", "-D", "warnings"]),
    )?;

    let nextest = has_nextest();
    step::run("unit tests", runner(nextest).args(UNIT_TESTS))?;
    if nextest {
        // `cargo test` runs them by itself.
        step::run("tests in the documentation", step::cargo(["test", "--doc"]).args(UNIT_TESTS))?;
    }
    let as_root = step::as_root("loading programs into the kernel")?;
    step::run("tests on the kernel", runner(nextest).args(as_root).args(KERNEL_TESTS))?;
    if all {
        vm::run(None)?;
    }

    step::say(&format!("all tests passed, in {} s", start.elapsed().as_secs()));
    Ok(())
}

/// What runs tests here. All of them, also when one has failed.
fn runner(nextest: bool) -> Command {
    if nextest {
        step::cargo(["nextest", "run", "--no-fail-fast"])
    } else {
        step::cargo(["test", "--no-fail-fast"])
    }
}

fn has_nextest() -> bool {
    step::cargo(["nextest", "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
