//! `cargo xtask ci`: all that a change must pass.
//!
//! The tests, which `.ci/run` runs alone, and what takes longer or shows more than it proves.

use anyhow::Result;

use crate::{build, demo, step, test};

pub(crate) fn run() -> Result<()> {
    test::run(false)?;
    step::run("running the demo", &mut demo::prepare(&[])?)?;
    build::run()
}
