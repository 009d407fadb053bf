//! From what is here to what is to be done: no I/O.
//!
//! Invariant: the plan for a machine that lacks nothing is empty, and no step is planned whose own
//! needs are not there or planned before it.

use anyhow::{Result, bail};

use crate::toolchain::{Found, LINKER_VERSION, Nightly};

/// The majors of LLVM that bpf-linker's release knows.
const LINKER_KNOWS_LLVM: std::ops::RangeInclusive<u32> = 21..=23;

/// Debian's compiler, and the source of its standard library.
const COMPILER_PACKAGES: [&str; 2] = ["rustc-web", "rust-web-src"];

/// How packages are installed: nothing beyond what is named, and nothing is removed for it.
pub(super) const INSTALL: [&str; 4] =
    ["install", "--yes", "--no-install-recommends", "--no-remove"];

/// What the machine has, as far as it is asked for.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    /// Is a compiler for the eBPF programs asked for?
    pub(super) object: bool,
    pub(super) found: Found,
    /// The libraries to link a linker with, of the LLVM of Debian's compiler.
    pub(super) llvm_libraries: bool,
    /// rustup was asked for nightly's rust-src, and could not have it.
    pub(super) source_refused: bool,
    /// Debian packages whose programs are missing.
    pub(super) packages: Vec<&'static str>,
    /// Components whose programs are missing.
    pub(super) components: Vec<&'static str>,
    pub(super) apt: bool,
    pub(super) rustup: bool,
    pub(super) root: bool,
    pub(super) sudo: bool,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Ask rustup for the source of nightly's standard library. May fail.
    AddSource,
    AddComponents {
        components: Vec<&'static str>,
    },
    Install {
        packages: Vec<String>,
        sudo: bool,
    },
    BuildLinker {
        llvm: u32,
    },
}

impl Step {
    /// What it does, and what for.
    pub(super) fn reason(&self) -> String {
        match self {
            Self::AddSource => {
                "adding rust-src to nightly: the BPF target's `core` is compiled from source".into()
            }
            Self::AddComponents { components } => {
                format!("adding {} to the toolchain: they check the sources", components.join(", "))
            }
            Self::Install { packages, .. } => {
                let reasons = packages.iter().map(|name| format!("\n      {name}: {}", why(name)));
                format!("installing Debian packages:{}", reasons.collect::<String>())
            }
            Self::BuildLinker { llvm } => format!(
                "building bpf-linker {LINKER_VERSION} for LLVM {llvm} into target/, \
                 to link the eBPF programs: about a minute"
            ),
        }
    }
}

fn why(package: &str) -> &'static str {
    match package {
        "rustc-web" => "a compiler for the eBPF programs that comes with its source",
        "rust-web-src" => "that source: the BPF target's `core` is compiled from it",
        "iproute2" => "`ip` makes network namespaces",
        "iputils-ping" => "`ping` shows whether a probe passes",
        "curl" => "shows whether a connection passes",
        "g++" => "libFuzzer is C++",
        "tcpdump" => "says what it thinks of packets, in the tests",
        "nftables" => "`nft` translates addresses, as a service proxy does, in the tests",
        "iptables" | "ipset" => "what the benchmark measures the data plane against",
        _ => "what bpf-linker links with",
    }
}

/// What is to be done next: all that can be said before it is done. Empty when nothing is missing.
///
/// # Errors
///
/// When something is missing that cannot be brought here: says what, and what to do by hand.
pub(super) fn plan(facts: &Facts) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    let mut packages: Vec<String> = facts.packages.iter().map(|&name| name.to_owned()).collect();

    if facts.object && facts.found.chain().is_none() {
        if can_add_source(facts) {
            // Nothing of the other way is planned before the answer is known.
            steps.push(Step::AddSource);
        } else {
            match facts.found.debian {
                None => packages.extend(COMPILER_PACKAGES.map(str::to_owned)),
                Some(compiler) => {
                    let llvm = compiler.llvm;
                    if !LINKER_KNOWS_LLVM.contains(&llvm) {
                        bail!(
                            "Debian's compiler is built with LLVM {llvm}, which bpf-linker \
                             {LINKER_VERSION} does not know: {BY_HAND}"
                        );
                    }
                    if !facts.llvm_libraries {
                        packages.push(format!("llvm-{llvm}-dev"));
                    }
                    steps.push(Step::BuildLinker { llvm });
                }
            }
        }
    }
    if !packages.is_empty() {
        steps.insert(0, install(facts, packages)?);
    }
    if !facts.components.is_empty() {
        if !facts.rustup {
            bail!("cargo lacks {}: install them as you did cargo", facts.components.join(", "));
        }
        steps.push(Step::AddComponents { components: facts.components.clone() });
    }
    Ok(steps)
}

/// The way to the eBPF programs that works on any distribution.
const BY_HAND: &str = "install rustup's nightly with rust-src (`rustup toolchain install nightly \
                       --component rust-src`) and put bpf-linker on PATH \
                       (https://github.com/aya-rs/bpf-linker#installation), then run this again";

/// Is rust-src all that nightly lacks? Without a linker on `PATH` it would not help.
fn can_add_source(facts: &Facts) -> bool {
    facts.found.nightly == Nightly::WithoutSource
        && facts.found.linker_on_path
        && !facts.source_refused
}

fn install(facts: &Facts, packages: Vec<String>) -> Result<Step> {
    if !facts.apt {
        let compiler = packages.iter().any(|name| COMPILER_PACKAGES.contains(&name.as_str()));
        let by_hand = if compiler { BY_HAND } else { "install them by this system's own means" };
        bail!("no apt-get here for the packages {}: {by_hand}", packages.join(", "));
    }
    if !facts.root && !facts.sudo {
        bail!(
            "installing packages needs root, and there is no sudo here. As root, run:\n    \
             apt-get update && apt-get {} {}\nand then this again",
            INSTALL.join(" "),
            packages.join(" ")
        );
    }
    Ok(Step::Install { packages, sudo: !facts.root })
}

#[cfg(test)]
mod tests;
