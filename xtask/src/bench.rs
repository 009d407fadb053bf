//! `cargo xtask bench`: how long the compiler takes, and nanoseconds a packet by test runs of the
//! loaded programs.

use std::ffi::OsString;

use anyhow::Result;

use crate::{setup, step};

pub(crate) fn run(arguments: &[OsString]) -> Result<()> {
    setup::ensure(&[setup::Need::Object])?;
    let mut compiler = step::cargo(["bench", "--package", "bulkhead-tests", "--bench", "compile"]);
    step::run("measuring the policy compiler", &mut compiler)?;
    let mut bench = step::cargo(["bench"]);
    bench.args(step::as_root("loading the programs")?);
    bench.args(["--package", "bulkhead-tests", "--bench", "packets", "--"]).args(arguments);
    step::run("measuring the programs", &mut bench)
}
