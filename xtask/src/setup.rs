//! `cargo xtask setup`: finds or installs what the other tasks need.
//!
//! Looks at the machine ([`Facts`]), plans what is missing (`plan`, a pure function), does it, and
//! looks again, until nothing is missing. So a second run finds everything and does nothing, and
//! what a step brings is seen, never assumed. It writes only below `target/bulkhead-toolchain`,
//! through `apt-get`, and by adding components to rustup's toolchains.

mod plan;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::step;
use crate::toolchain::{self, Chain, Found};
use plan::{Facts, Step, plan};

/// What a task needs of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// A compiler and a linker for the eBPF programs.
    Object,
    /// What sends, watches and translates packets in the demo and the tests.
    Traffic,
    /// What checks the sources.
    Checks,
    /// What the benchmark measures the data plane against.
    Peers,
    /// What libFuzzer is compiled with.
    Fuzzer,
}

/// The programs that send, watch and translate packets, and the Debian packages they come in.
const TRAFFIC: [(&str, &str); 5] = [
    ("ip", "iproute2"),
    ("ping", "iputils-ping"),
    ("curl", "curl"),
    ("tcpdump", "tcpdump"),
    ("nft", "nftables"),
];

/// The programs that set up other ways to enforce policies, beside `nft`, and the Debian packages they
/// come in.
const PEERS: [(&str, &str); 2] = [("iptables-restore", "iptables"), ("ipset", "ipset")];

/// The compiler of libFuzzer, and the Debian package it comes in.
const FUZZER: [(&str, &str); 1] = [("c++", "g++")];

/// cargo's subcommands that check the sources, and the components they come in.
const CHECKS: [(&str, &str); 2] = [("fmt", "rustfmt"), ("clippy", "clippy")];

pub(crate) fn run() -> Result<()> {
    ensure(&[Need::Object, Need::Traffic, Need::Checks])?;
    let programs = match Found::look(step::workspace()).chain() {
        Some(Chain::Nightly) => "rustup's nightly and the bpf-linker on PATH",
        Some(Chain::Debian { .. }) => "Debian's rustc and the bpf-linker in target/",
        None => bail!("the compiler for the eBPF programs went away again"),
    };
    step::say(&format!("everything is here; {programs} build the eBPF programs"));
    Ok(())
}

/// Brings what is missing of these. Silent when nothing is.
pub(crate) fn ensure(needs: &[Need]) -> Result<()> {
    let mut done = Vec::new();
    let mut source_refused = false;
    loop {
        let facts = look(needs, source_refused)?;
        let steps = plan(&facts).context("setting up this machine")?;
        if steps.is_empty() {
            return Ok(());
        }
        for step in steps {
            if done.contains(&step) {
                bail!("what it was for is still missing after this step: {}", step.reason());
            }
            let first_install = !done.iter().any(|step| matches!(step, Step::Install { .. }));
            let result = perform(&step, first_install);
            if step == Step::AddSource {
                source_refused = result.is_err();
                if let Err(error) = result {
                    step::say(&format!("{error:#}; going on with Debian's compiler"));
                }
            } else {
                result?;
            }
            done.push(step);
        }
    }
}

fn look(needs: &[Need], source_refused: bool) -> Result<Facts> {
    let found = Found::look(step::workspace());
    let missing = |need: Need, of: &[(&str, &'static str)], is_here: fn(&str) -> bool| {
        let of = if needs.contains(&need) { of } else { &[] };
        of.iter().filter(|(name, _)| !is_here(name)).map(|(_, from)| *from).collect::<Vec<_>>()
    };
    let is_program = |name: &str| toolchain::on_path(name).is_some();
    let mut packages = missing(Need::Traffic, &TRAFFIC, is_program);
    packages.extend(missing(Need::Peers, &PEERS, is_program));
    packages.extend(missing(Need::Fuzzer, &FUZZER, is_program));
    Ok(Facts {
        object: needs.contains(&Need::Object),
        llvm_libraries: found.debian.is_some_and(|compiler| has_llvm_libraries(compiler.llvm)),
        found,
        source_refused,
        packages,
        components: missing(Need::Checks, &CHECKS, has_cargo_subcommand),
        apt: toolchain::on_path("apt-get").is_some(),
        rustup: toolchain::on_path("rustup").is_some(),
        root: step::is_root()?,
        sudo: toolchain::on_path("sudo").is_some(),
    })
}

fn has_cargo_subcommand(name: &str) -> bool {
    step::cargo([name, "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Where Debian puts LLVM of this major number.
fn llvm_prefix(llvm: u32) -> String {
    format!("/usr/lib/llvm-{llvm}")
}

fn has_llvm_libraries(llvm: u32) -> bool {
    Path::new(&llvm_prefix(llvm)).join("lib/libLLVM.so").exists()
}

fn perform(step: &Step, first_install: bool) -> Result<()> {
    let reason = step.reason();
    match step {
        Step::AddSource => {
            let mut add = Command::new("rustup");
            add.args(["component", "add", "rust-src", "--toolchain", "nightly"]);
            step::run(&reason, &mut add)
        }
        Step::AddComponents { components } => {
            let mut add = Command::new("rustup");
            add.args(["component", "add"]).args(components);
            step::run(&reason, &mut add)
        }
        Step::Install { packages, sudo } => {
            if first_install {
                step::run("fetching Debian's list of packages", &mut apt(*sudo, &["update"]))?;
            }
            let mut install = apt(*sudo, &plan::INSTALL);
            step::run(&reason, install.args(packages))
        }
        Step::BuildLinker { llvm } => build_linker(*llvm, &reason),
    }
}

/// `apt-get`, asking nothing.
fn apt(sudo: bool, arguments: &[&str]) -> Command {
    let mut command = Command::new(if sudo { "sudo" } else { "env" });
    if sudo {
        command.arg("env");
    }
    command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "--quiet"]).args(arguments);
    command
}

fn build_linker(llvm: u32, reason: &str) -> Result<()> {
    let root = toolchain::linker_root(step::workspace(), llvm);
    let scratch = root.with_file_name("build");
    let mut install = step::cargo(["install", "bpf-linker", "--locked", "--quiet"]);
    install
        .args(["--version", toolchain::LINKER_VERSION])
        .args(["--no-default-features", "--features", &format!("llvm-{llvm}")])
        .arg("--root")
        .arg(&root)
        .arg("--target-dir")
        .arg(&scratch)
        .env("LLVM_PREFIX", llvm_prefix(llvm))
        // The work is LLVM's, which is compiled already: optimising the rest only takes time.
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0")
        .env("CARGO_PROFILE_RELEASE_DEBUG", "false")
        // It is a program for this machine, whatever the workspace is being built for.
        .env_remove("RUSTFLAGS");
    step::run(reason, &mut install)?;
    fs::remove_dir_all(&scratch).with_context(|| format!("removing {}", scratch.display()))
}
