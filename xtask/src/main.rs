//! Bulkhead's development tasks: `cargo xtask TASK`.
//!
//! One file for each task. Every task first asks [`setup`] for what it needs, so that each of them
//! works on a machine where nothing but Rust was installed.

mod bench;
mod build;
mod ci;
mod demo;
mod fuzz;
mod setup;
mod step;
mod test;
mod tidy;
mod toolchain;
mod vm;

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

/// Builds, tests and shows Bulkhead.
///
/// Every task installs what it misses first, as `setup` does, and says so before it does it.
#[derive(Parser)]
#[command(bin_name = "cargo xtask")]
enum Task {
    /// Finds or installs what the other tasks need. Repeats without harm.
    ///
    /// The eBPF programs need a compiler with the source of its standard library, and bpf-linker:
    /// rustup's nightly with rust-src and a bpf-linker on PATH are taken if they are here; else
    /// Debian's compiler is installed, and a linker is built into target/. The demo and the tests
    /// need ip, ping and curl; the tests need rustfmt and clippy.
    Setup,

    /// Builds the agent for use: target/release/bulkhead, with its eBPF programs inside.
    Build,

    /// Shows what Bulkhead does, with real pings and curls in network namespaces of its own.
    ///
    /// Needs root: a plain user is asked by sudo. Leaves nothing behind.
    Demo {
        /// Handed on to `bulkhead demo`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },

    /// Checks the sources, then runs every test.
    ///
    /// In order: rules on files (lengths, stray paths, tests that documents name), formatting,
    /// clippy, unit tests, and the tests on the real kernel. The last need root: a plain user is
    /// asked by sudo. cargo-nextest runs the tests if it is installed.
    Test {
        /// Also what takes a quarter of an hour: other kernels, as `vm` does.
        #[arg(long)]
        all: bool,
    },

    /// Boots other kernels in virtual machines, and runs the reference scenario on each.
    ///
    /// Debian's kernels 5.10, 6.1, 6.12 and the newest, by qemu, in software: two to six minutes
    /// each. Needs no KVM and no root, but Debian's apt, since kernels and qemu are its packages.
    /// They are unpacked into target/vm; nothing is installed.
    Vm {
        /// Only this one: 5.10, 6.1, 6.12 or newest.
        #[arg(long)]
        kernel: Option<String>,
    },

    /// All that a change must pass: the tests, the demo, and the release build.
    Ci,

    /// Measures: the programs in nanoseconds a packet, the policy compiler, and connections between
    /// network namespaces beside nftables and iptables with ipset.
    ///
    /// Without a name all three, one after the other: about ten minutes. The machine should have
    /// nothing else to do. Needs root: a plain user is asked by sudo.
    Bench {
        /// The one to run.
        only: Option<bench::Bench>,
        /// Handed on to that one: see `cargo xtask bench stack -- --help`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, requires = "only")]
        arguments: Vec<OsString>,
    },

    /// Looks for input that breaks something: by fuzzing, and by random packets.
    ///
    /// The parsers and `decide` are fuzzed as the user (libFuzzer, by a cargo-fuzz that is built
    /// into target/). `differential` runs random packets through the loaded programs and needs root:
    /// a plain user is asked by sudo.
    Fuzz(fuzz::Arguments),
}

fn main() -> ExitCode {
    match run(Task::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            step::failed(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<()> {
    match task {
        Task::Setup => setup::run(),
        Task::Build => build::run(),
        Task::Demo { arguments } => demo::run(&arguments),
        Task::Test { all } => test::run(all),
        Task::Vm { kernel } => vm::run(kernel.as_deref()),
        Task::Ci => ci::run(),
        Task::Bench { only, arguments } => bench::run(only, &arguments),
        Task::Fuzz(arguments) => fuzz::run(&arguments),
    }
}
