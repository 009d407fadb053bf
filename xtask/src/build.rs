//! `cargo xtask build`: the agent, as it is deployed.

use anyhow::Result;

use crate::{setup, step};

pub(crate) fn run() -> Result<()> {
    setup::ensure(&[setup::Need::Object])?;
    step::run(
        "building the agent for use: target/release/bulkhead",
        &mut step::cargo(["build", "--release", "--package", "bulkhead"]),
    )
}
