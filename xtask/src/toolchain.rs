//! Which compiler and which linker build the eBPF object, as found on this machine.
//!
//! The BPF target has no prebuilt `core`, so it takes a compiler with the source of its own standard
//! library, and a `bpf-linker` whose LLVM is not older than the compiler's. Two ways lead there:
//!
//! 1. rustup's `nightly` with the component `rust-src`, and `bpf-linker` on `PATH`;
//! 2. Debian's compiler in `/usr` with its source, and a `bpf-linker` that `cargo xtask setup` built
//!    against Debian's LLVM of the same major number, inside the workspace's `target` directory.
//!
//! This file is part of two programs, `xtask` and the agent's build script, so that they can't
//! disagree; it looks and changes nothing, and needs nothing but `std`.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The linker's release that is built for way 2.
pub(crate) const LINKER_VERSION: &str = "0.13.0";

/// Debian's compiler. Never found by its name: rustup's compilers stand before it in `PATH`.
pub(crate) const DEBIAN_COMPILER: &str = "/usr/bin/rustc";

/// The first release of Debian's compiler that understands this workspace.
const OLDEST_RELEASE: (u32, u32) = (1, 95);

/// rustup's nightly toolchain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nightly {
    Absent,
    WithoutSource,
    WithSource,
}

/// Debian's compiler with the source of its standard library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DebianCompiler {
    /// The major number of the LLVM that it was built with.
    pub(crate) llvm: u32,
}

/// What is here of both ways.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) nightly: Nightly,
    pub(crate) linker_on_path: bool,
    pub(crate) debian: Option<DebianCompiler>,
    /// The linker built for `debian`.
    pub(crate) own_linker: Option<PathBuf>,
}

/// All that it takes to build the eBPF object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Chain {
    /// Way 1.
    Nightly,
    /// Way 2, with the linker to use.
    Debian { linker: PathBuf },
}

impl Found {
    /// Looks around. `workspace` is the directory of the workspace's `Cargo.toml`.
    pub(crate) fn look(workspace: &Path) -> Self {
        let debian = debian_compiler();
        Self {
            nightly: nightly(),
            linker_on_path: on_path("bpf-linker").is_some(),
            debian,
            own_linker: debian
                .map(|compiler| linker_root(workspace, compiler.llvm).join("bin/bpf-linker"))
                .filter(|linker| linker.is_file()),
        }
    }

    /// The way to take, if one is complete.
    pub(crate) fn chain(&self) -> Option<Chain> {
        if self.nightly == Nightly::WithSource && self.linker_on_path {
            return Some(Chain::Nightly);
        }
        self.own_linker.clone().map(|linker| Chain::Debian { linker })
    }
}

/// Where `cargo install` puts the linker for a compiler with this LLVM.
///
/// Both numbers that make a linker fit are in the name, so one that does not fit is never found.
/// `CARGO_TARGET_DIR` has no say in it: every build of this workspace finds the same one.
pub(crate) fn linker_root(workspace: &Path, llvm: u32) -> PathBuf {
    workspace.join(format!("target/bulkhead-toolchain/bpf-linker-{LINKER_VERSION}-llvm-{llvm}"))
}

/// The first executable of this name in `PATH` or, as `PATH` of a plain user lacks them, in the
/// directories of the system's own programs.
pub(crate) fn on_path(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|directory| directory.join(program))
        .find(|candidate| candidate.is_file())
}

fn nightly() -> Nightly {
    let rustc = Command::new("rustup")
        .args(["which", "--toolchain", "nightly", "rustc"])
        .env("RUSTUP_AUTO_INSTALL", "0")
        .output()
        .ok()
        .filter(|output| output.status.success())
        .and_then(|output| String::from_utf8(output.stdout).ok());
    let Some(rustc) = rustc else { return Nightly::Absent };
    match prefix_of(Path::new(rustc.trim())) {
        Some(prefix) if has_source(prefix) => Nightly::WithSource,
        Some(_) | None => Nightly::WithoutSource,
    }
}

fn debian_compiler() -> Option<DebianCompiler> {
    let output = Command::new(DEBIAN_COMPILER).arg("-vV").output().ok()?;
    if !output.status.success() || !has_source(prefix_of(Path::new(DEBIAN_COMPILER))?) {
        return None;
    }
    let version = parse_version(&String::from_utf8(output.stdout).ok()?)?;
    (version.release >= OLDEST_RELEASE).then_some(DebianCompiler { llvm: version.llvm })
}

/// `PREFIX` of `PREFIX/bin/rustc`.
fn prefix_of(rustc: &Path) -> Option<&Path> {
    rustc.parent()?.parent()
}

/// Is the source of the standard library here, where `-Z build-std` looks for it?
fn has_source(prefix: &Path) -> bool {
    prefix.join("lib/rustlib/src/rust/library/Cargo.lock").is_file()
}

/// What `rustc -vV` tells.
#[derive(Debug, PartialEq, Eq)]
struct Version {
    release: (u32, u32),
    llvm: u32,
}

fn parse_version(verbose: &str) -> Option<Version> {
    let field = |name: &str| verbose.lines().find_map(|line| line.strip_prefix(name));
    let mut release = field("release: ")?.split('.').map(str::parse);
    let llvm = field("LLVM version: ")?.split('.').next()?.parse().ok()?;
    Some(Version { release: (release.next()?.ok()?, release.next()?.ok()?), llvm })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEBIAN: &str = "rustc 1.96.0 (ac68faa20 2026-05-25) (built from a source tarball)\n\
        binary: rustc\nhost: x86_64-unknown-linux-gnu\nrelease: 1.96.0\nLLVM version: 22.1.8\n";

    fn nothing() -> Found {
        Found { nightly: Nightly::Absent, linker_on_path: false, debian: None, own_linker: None }
    }

    #[test]
    fn the_llvm_major_is_read_off_the_compiler() {
        assert_eq!(parse_version(DEBIAN), Some(Version { release: (1, 96), llvm: 22 }));
        assert_eq!(parse_version("release: 1.97.0-nightly\n"), None);
    }

    #[test]
    fn a_machine_with_nothing_has_no_chain() {
        assert_eq!(nothing().chain(), None);
    }

    #[test]
    fn nightly_with_source_and_a_linker_is_taken_first() {
        let found = Found {
            nightly: Nightly::WithSource,
            linker_on_path: true,
            debian: Some(DebianCompiler { llvm: 22 }),
            own_linker: Some("own".into()),
        };
        assert_eq!(found.chain(), Some(Chain::Nightly));
    }

    #[test]
    fn nightly_without_source_or_linker_falls_back_to_debian() {
        let own = Found {
            debian: Some(DebianCompiler { llvm: 22 }),
            own_linker: Some("own".into()),
            ..nothing()
        };
        let debian = Some(Chain::Debian { linker: "own".into() });
        let without_source =
            Found { nightly: Nightly::WithoutSource, linker_on_path: true, ..own.clone() };
        let without_linker = Found { nightly: Nightly::WithSource, ..own };
        assert_eq!(without_source.chain(), debian);
        assert_eq!(without_linker.chain(), debian);
    }

    #[test]
    fn a_linker_for_another_llvm_is_not_the_same_linker() {
        let workspace = Path::new("workspace");
        assert_ne!(linker_root(workspace, 22), linker_root(workspace, 23));
    }
}
