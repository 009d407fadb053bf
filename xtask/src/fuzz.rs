//! `cargo xtask fuzz`: libFuzzer on everything that reads what others write, and the differential
//! run of the programs.
//!
//! The targets are `bulkhead_tests::fuzz`, built by `tests/fuzz`. What is found lies in
//! `target/fuzz`; `--keep` takes what reaches new code into `tests/fuzz/corpus`, which the tests
//! replay.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};

use crate::{setup, step};

/// cargo-fuzz, as it is built into `target/`.
const CARGO_FUZZ_VERSION: &str = "0.13.1";

#[derive(Args)]
pub(crate) struct Arguments {
    /// What to run; each fuzz target in turn, if it is left out.
    #[arg(value_enum)]
    target: Option<Target>,
    /// For how long each target is fuzzed.
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Takes inputs that reach new code into tests/fuzz/corpus.
    #[arg(long)]
    keep: bool,
    /// Of the differential run: how many packets, such as 50M.
    #[arg(long, default_value = "1M", value_parser = count)]
    packets: u64,
    /// Of the differential run: what makes them.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Of the differential run: the first block, to run one again.
    #[arg(long, default_value_t = 0)]
    block: u64,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Target {
    /// The packet parser, against a second one.
    Parse,
    /// Frames in turn through `decide`, over maps in memory.
    Decide,
    /// Manifest files.
    Manifest,
    /// Lists of flows, as `bulkhead verify` reads them.
    Flows,
    /// The kernel's records of dropped packets.
    Event,
    /// Random packets through the loaded programs, `decide` and a second reading. Needs root.
    Differential,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let every = Target::value_variants().iter().copied();
    let targets: Vec<Target> = match arguments.target {
        Some(Target::Differential) => return differential(arguments),
        Some(target) => vec![target],
        None => every.filter(|target| *target != Target::Differential).collect(),
    };
    setup::ensure(&[setup::Need::Object, setup::Need::Fuzzer])?;
    targets.into_iter().try_for_each(|target| fuzz(target, arguments))
}

fn differential(arguments: &Arguments) -> Result<()> {
    setup::ensure(&[setup::Need::Object])?;
    let mut test = step::cargo(["test", "--release", "--package", "bulkhead-tests"]);
    test.args(step::as_root("loading programs into the kernel")?)
        .args(["--test", "datapath_differential", "--", "--nocapture"])
        .env("BULKHEAD_DIFFERENTIAL_PACKETS", arguments.packets.to_string())
        .env("BULKHEAD_DIFFERENTIAL_SEED", arguments.seed.to_string())
        .env("BULKHEAD_DIFFERENTIAL_BLOCK", arguments.block.to_string());
    step::run("holding the programs against `decide` and a second reading", &mut test)
}

fn fuzz(target: Target, arguments: &Arguments) -> Result<()> {
    let value = target.to_possible_value().context("a target without a name")?;
    let name = value.get_name();
    let kept = format!("tests/fuzz/corpus/{name}");
    let found = format!("target/fuzz/corpus/{name}");
    for directory in [&kept, &found] {
        fs::create_dir_all(step::workspace().join(directory))
            .with_context(|| format!("creating {directory}"))?;
    }
    // libFuzzer writes into the first one, and reads both.
    let mut run = cargo_fuzz(name)?;
    run.args([&found, &kept, "--", "-max_len=4096", "-len_control=0", "-timeout=10"]);
    run.args(["-verbosity=0", "-print_final_stats=1"]);
    run.arg(format!("-max_total_time={}", arguments.seconds));
    if target == Target::Manifest {
        run.arg("-dict=tests/fuzz/manifest.dict");
    }
    step::run(&format!("fuzzing {name} for {} s", arguments.seconds), &mut run)?;
    if arguments.keep {
        let mut merge = cargo_fuzz(name)?;
        merge.args([&kept, &found, "--", "-merge=1", "-use_counters=0", "-verbosity=0"]);
        step::run(&format!("keeping what of {name} reaches new code"), &mut merge)?;
    }
    Ok(())
}

/// `cargo fuzz run TARGET`, built without sanitizers: there is next to no unsafe code to watch.
fn cargo_fuzz(target: &str) -> Result<Command> {
    let workspace = step::workspace();
    let mut fuzz = Command::new(installed()?);
    fuzz.args(["fuzz", "run", "--sanitizer", "none", "--fuzz-dir", "tests/fuzz"])
        .args(["--target-dir", "target/fuzz", target])
        .current_dir(workspace);
    Ok(fuzz)
}

/// cargo-fuzz, which is built if it is not there.
fn installed() -> Result<PathBuf> {
    let root = step::workspace()
        .join("target/bulkhead-toolchain")
        .join(format!("cargo-fuzz-{CARGO_FUZZ_VERSION}"));
    let program = root.join("bin/cargo-fuzz");
    if program.is_file() {
        return Ok(program);
    }
    let scratch = root.with_file_name("build");
    let mut install = step::cargo(["install", "cargo-fuzz", "--locked", "--quiet"]);
    install
        .args(["--version", CARGO_FUZZ_VERSION, "--root"])
        .arg(&root)
        .arg("--target-dir")
        .arg(&scratch)
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0")
        .env_remove("RUSTFLAGS");
    step::run("building cargo-fuzz into target/: it runs libFuzzer", &mut install)?;
    fs::remove_dir_all(&scratch).with_context(|| format!("removing {}", scratch.display()))?;
    Ok(program)
}

/// A number, in thousands with a `k` and in millions with an `M` behind it.
fn count(text: &str) -> Result<u64, String> {
    let (digits, unit) = match text.strip_suffix('M') {
        Some(digits) => (digits, 1_000_000),
        None => text.strip_suffix('k').map_or((text, 1), |digits| (digits, 1000)),
    };
    let number: u64 = digits.parse().map_err(|_| "not a number such as 200k or 50M".to_owned())?;
    number.checked_mul(unit).ok_or_else(|| "too many".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_may_be_given_in_thousands_and_millions() {
        assert_eq!(["7", "200k", "50M"].map(count), [Ok(7), Ok(200_000), Ok(50_000_000)]);
        assert!(
            ["", "M", "50m", "1.5M", "-1", "99999999999999999999M"]
                .into_iter()
                .all(|text| count(text).is_err())
        );
    }
}
