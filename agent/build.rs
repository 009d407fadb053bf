//! Compiles the eBPF programs into `OUT_DIR/bulkhead-ebpf`, which the agent embeds.
//!
//! With which compiler and linker is `toolchain`'s to say; installing them is the business of
//! `cargo xtask setup`.

use std::env;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use aya_build::{Package, Toolchain, build_ebpf};

#[path = "../xtask/src/toolchain.rs"]
mod toolchain;

use toolchain::{Chain, DEBIAN_COMPILER, Found};

/// What, beside `ebpf` itself, the object is made of. Relative to this package.
const SOURCES: [&str; 4] = ["build.rs", "../common", "../Cargo.toml", "../Cargo.lock"];

fn main() -> Result<()> {
    for source in SOURCES {
        println!("cargo::rerun-if-changed={source}");
    }
    println!("cargo::rerun-if-changed=../xtask/src/toolchain.rs");

    let package = env::var_os("CARGO_MANIFEST_DIR").context("cargo runs this script")?;
    let package = PathBuf::from(package);
    let workspace = package.parent().context("the agent's package has no parent directory")?;
    let chain = Found::look(workspace).chain().context(
        "nothing here can compile eBPF programs: neither rustup's nightly with rust-src and \
         bpf-linker on PATH, nor Debian's compiler with a linker built for it; \
         run `cargo xtask setup`, which finds or installs one of the two",
    )?;

    // aya-build shows whatever its cargo prints as warnings; progress is none.
    set_env("CARGO_TERM_QUIET", "true");
    let toolchain = match &chain {
        Chain::Nightly => "nightly".to_owned(),
        Chain::Debian { linker } => {
            println!("cargo::rerun-if-changed={}", linker.display());
            set_env("PATH", path_with(linker)?);
            // Building `core` from source asks a stable compiler for an unstable flag.
            set_env("RUSTC_BOOTSTRAP", "1");
            // The compiler is Debian's, the cargo that runs it is the one that runs this script.
            set_env("CARGO_BUILD_RUSTC", DEBIAN_COMPILER);
            env::var("RUSTUP_TOOLCHAIN").unwrap_or_else(|_| "stable".to_owned())
        }
    };

    let root_dir = workspace.join("ebpf");
    let root_dir = root_dir.to_str().context("the workspace's path is not UTF-8")?;
    build_ebpf(
        [Package { name: "bulkhead-ebpf", root_dir, ..Package::default() }],
        Toolchain::Custom(&toolchain),
    )
}

/// `PATH` with the linker in front.
fn path_with(linker: &Path) -> Result<OsString> {
    let directory = linker.parent().context("the linker lies in no directory")?.to_path_buf();
    let inherited = env::var_os("PATH").unwrap_or_default();
    let path = [directory].into_iter().chain(env::split_paths(&inherited));
    env::join_paths(path).context("the workspace's path holds a colon, which PATH can't")
}

#[expect(unsafe_code, reason = "aya-build hands this process's environment on, and takes no other")]
fn set_env(name: &str, value: impl AsRef<OsStr>) {
    // SAFETY: called from `main` alone, before anything here starts a thread.
    unsafe { env::set_var(name, value) }
}
