//! What runs in and around the machines: the agent, tests, the tools they call, busybox, and qemu.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::archive::{self, Archive, output};
use crate::{step, toolchain};

/// The agent, built for the tests.
const AGENT: &str = "bulkhead-under-test";

/// What runs on every kernel; `init.sh` says in which order.
const TESTS: [&str; 3] = ["datapath_load", "netns_attach", "netns_attach_filters"];

/// This machine's own. busybox has lesser ones of the same names.
const TOOLS: [&str; 5] = ["sh", "ip", "tc", "ping", "curl"];

/// Where all of it lies.
pub(super) struct Programs {
    /// Name and file.
    pub(super) inside: Vec<(String, PathBuf)>,
    pub(super) busybox: PathBuf,
    emulator: PathBuf,
    /// Where the emulator was unpacked, if it was.
    unpacked: Option<PathBuf>,
}

impl Programs {
    /// Builds and fetches what is missing.
    pub(super) fn gather(archive: &Archive) -> Result<Self> {
        let mut inside = build()?;
        for tool in TOOLS {
            let path = toolchain::on_path(tool).with_context(|| format!("no {tool} here"))?;
            inside.push((tool.to_owned(), fs::canonicalize(path)?));
        }
        let root = archive::directory().join("tools");
        let busybox = root.join("bin/busybox");
        let installed = toolchain::on_path(EMULATOR);
        let unpacked = installed.is_none().then(|| root.clone());
        let emulator = installed.unwrap_or_else(|| root.join("usr/bin").join(EMULATOR));
        if !busybox.exists() || !emulator.exists() {
            fs::create_dir_all(&root)?;
            let codename = codename()?;
            let security = format!("{codename}-security");
            let suites = archive.suites("tools", &[&codename, &security])?;
            suites.unpack(&["busybox-static".to_owned()], &root)?;
            if unpacked.is_some() {
                suites.unpack_with_dependencies("qemu-system-x86", "qemu-", &root)?;
            }
        }
        Ok(Self { inside, busybox, emulator, unpacked })
    }

    /// The emulator, ready to be given a machine.
    pub(super) fn emulator(&self) -> Command {
        let mut emulator = Command::new(&self.emulator);
        if let Some(root) = &self.unpacked {
            let libraries = LIBRARIES.map(|path| root.join(path).display().to_string());
            emulator.env("LD_LIBRARY_PATH", libraries.join(":"));
            for firmware in ["usr/share/qemu", "usr/share/seabios"] {
                emulator.arg("-L").arg(root.join(firmware));
            }
        }
        emulator
    }
}

const EMULATOR: &str = "qemu-system-x86_64";
const LIBRARIES: [&str; 2] = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"];

/// The agent and the tests, without what only a debugger wants of them.
fn build() -> Result<Vec<(String, PathBuf)>> {
    let mut cargo = step::cargo(["test", "--no-run", "--package", "bulkhead-tests"]);
    // With the tests of its package, cargo builds the agent.
    for test in TESTS {
        cargo.args(["--test", test]);
    }
    cargo.arg("--message-format=json-render-diagnostics").stderr(Stdio::inherit());
    step::say("building the agent and the tests that run in virtual machines");
    let messages = cargo.output().context("cargo does not start")?;
    ensure!(messages.status.success(), "cargo ended with {}", messages.status);
    let messages = String::from_utf8(messages.stdout)?;
    let directory = archive::directory().join("built");
    fs::create_dir_all(&directory)?;
    let mut built = Vec::new();
    for line in messages.lines() {
        let Ok(message) = serde_json::from_str::<Value>(line) else { continue };
        let (Some(name), Some(file)) =
            (message["target"]["name"].as_str(), message["executable"].as_str())
        else {
            continue;
        };
        if name == AGENT || TESTS.contains(&name) {
            let small = directory.join(name);
            output(Command::new("strip").arg("-o").arg(&small).arg(file))?;
            built.push((name.to_owned(), small));
        }
    }
    ensure!(built.len() == 1 + TESTS.len(), "cargo built {} of {AGENT}, {TESTS:?}", built.len());
    Ok(built)
}

/// The name of this machine's Debian.
fn codename() -> Result<String> {
    let release = fs::read_to_string("/etc/os-release").context("/etc/os-release")?;
    let name = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    name.map(str::to_owned).context("/etc/os-release has no VERSION_CODENAME")
}

/// The files that a program is linked with, as the loader finds them.
pub(super) fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let printed = output(Command::new("ldd").arg(program))?;
    let words = printed.split_whitespace().filter(|word| word.starts_with('/'));
    Ok(words.map(PathBuf::from).collect())
}
