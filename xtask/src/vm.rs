//! `cargo xtask vm`: Bulkhead on other kernels, each in a virtual machine of its own.
//!
//! Debian's kernels boot in software (no KVM, no root) with nothing but a small file system in
//! memory: the agent, tests and the few programs they call. Kernels, emulator and busybox are
//! Debian's packages, unpacked below `target/vm`; nothing is installed. A kernel passes if it says
//! so on its console in time.

mod archive;
mod image;
mod kernel;
mod machine;
mod programs;

use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use crate::{setup, step};
use archive::Archive;
use kernel::{KERNELS, Kernel};
use machine::Report;
use programs::Programs;

/// Runs on every kernel, or on the one of this name.
pub(crate) fn run(only: Option<&str>) -> Result<()> {
    let kernels: Vec<_> =
        KERNELS.iter().filter(|kernel| only.is_none_or(|name| name == kernel.name)).collect();
    if kernels.is_empty() {
        let names: Vec<_> = KERNELS.iter().map(|kernel| kernel.name).collect();
        bail!("no kernel of that name: there are {}", names.join(", "));
    }
    setup::ensure(&[setup::Need::Object, setup::Need::Traffic])?;
    let archive = Archive::find()?;
    let programs = Programs::gather(&archive)?;

    let mut lines = Vec::new();
    let mut failed = Vec::new();
    for kernel in kernels {
        let started = Instant::now();
        let outcome = try_one(kernel, &archive, &programs);
        let seconds = started.elapsed().as_secs();
        match outcome {
            Ok(report) if report.passed() => {
                lines.push(format!("{}: {report}, in {seconds} s", kernel.name));
            }
            Ok(report) => {
                failed.push(kernel.name);
                lines.push(format!("{}: FAILED: {report}, in {seconds} s", kernel.name));
            }
            Err(error) => {
                failed.push(kernel.name);
                lines.push(format!("{}: FAILED: {error:#}", kernel.name));
            }
        }
    }
    for line in lines {
        step::say(&line);
    }
    if !failed.is_empty() {
        bail!("not on Linux {}; consoles are in target/vm/KERNEL/console", failed.join(", "));
    }
    Ok(())
}

fn try_one(kernel: &Kernel, archive: &Archive, programs: &Programs) -> Result<Report> {
    let files = kernel.fetch(archive).with_context(|| format!("fetching {}", kernel.name))?;
    let image = image::build(kernel.name, &files, programs)?;
    machine::run(kernel.name, programs, &files.image, &image)
}
