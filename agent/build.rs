//! Compiles the eBPF programs into `OUT_DIR/bulkhead-ebpf`, which the agent embeds.
//!
//! With which compiler and linker is `toolchain`'s to say; installing them is the business of
//! `cargo xtask setup`.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use aya_build::{Package, Toolchain, build_ebpf};

#[path = "../xtask/src/toolchain.rs"]
mod toolchain;

use toolchain::{Chain, Found};

/// What, beside `ebpf` itself, the object is made of. Relative to this package.
const SOURCES: [&str; 4] = ["build.rs", "../common", "../Cargo.toml", "../Cargo.lock"];

fn main() -> Result<()> {
    for source in SOURCES {
        println!("cargo::rerun-if-changed={source}");
    }
    println!("cargo::rerun-if-changed=../xtask/src/toolchain.rs");

    let package = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let workspace = package.parent().context("the agent's package has no parent directory")?;
    let chain = Found::look(workspace).chain().context(
        "nothing here can compile eBPF programs: neither rustup's nightly with rust-src and \
         bpf-linker on PATH, nor Debian's compiler with a linker built for it; \
         run `cargo xtask setup`, which finds or installs one of the two",
    )?;

    // aya-build shows what the compiler's run prints as warnings: progress is none.
    set_env("CARGO_TERM_QUIET", "true");
    if let Chain::Debian { linker } = &chain {
        println!("cargo::rerun-if-changed={}", linker.display());
        // Building `core` from source asks a stable compiler for an unstable flag.
        set_env("RUSTC_BOOTSTRAP", "1");
        set_env("PATH", path_with(linker, &chain)?);
    }

    let root_dir = workspace.join("ebpf");
    let root_dir = root_dir.to_str().context("the workspace's path is not UTF-8")?;
    build_ebpf(
        [Package { name: "bulkhead-ebpf", root_dir, ..Package::default() }],
        Toolchain::Custom(chain.rustup_name()),
    )
}

/// `PATH` with the linker in front, and Debian's programs next: without rustup, aya-build takes the
/// first compiler there is.
fn path_with(linker: &Path, chain: &Chain) -> Result<std::ffi::OsString> {
    let linker = linker.parent().context("the linker lies in no directory")?.to_path_buf();
    let compiler = Path::new(chain.rustup_name()).join("bin");
    let inherited = env::var_os("PATH").unwrap_or_default();
    let path = [linker, compiler].into_iter().chain(env::split_paths(&inherited));
    env::join_paths(path).context("PATH or the workspace's path holds a colon")
}

#[expect(unsafe_code, reason = "aya-build hands this process's environment on, and takes no other")]
fn set_env(name: &str, value: impl AsRef<OsStr>) {
    // SAFETY: called from `main` alone, before anything here starts a thread.
    unsafe { env::set_var(name, value) }
}
