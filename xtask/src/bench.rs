//! `cargo xtask bench`: nanoseconds a packet, by test runs of the loaded programs.

use std::ffi::OsString;

use anyhow::Result;

use crate::{setup, step};

pub(crate) fn run(arguments: &[OsString]) -> Result<()> {
    setup::ensure(&[setup::Need::Object])?;
    let mut bench = step::cargo(["bench"]);
    bench.args(step::as_root("loading the programs")?);
    bench.args(["--package", "bulkhead-tests", "--bench", "packets", "--"]).args(arguments);
    step::run("measuring the programs", &mut bench)
}
