//! One named network namespace: made by `ip netns`, deleted when dropped.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io,
    os::unix::process::CommandExt,
    panic::resume_unwind,
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns};

/// Where `ip netns` keeps names: bind mounts of `/proc/PID/ns/net`.
const NAMES: &str = "/run/netns";

/// In milliseconds, and as much as the kernel takes: 24 days.
const NEVER: &str = "2147483647";

/// What the names of all namespaces of a process start with.
pub(super) fn prefix_of(pid: u32) -> String {
    format!("bh-{pid}-")
}

/// Deletes every namespace that labs of this process made, and says how many there were.
///
/// For leftovers of a process that was killed. While labs of the process are in use, it pulls
/// the ground from under them.
///
/// # Errors
/// If the names cannot be listed, or one cannot be deleted.
pub fn remove_all_of(pid: u32) -> Result<usize> {
    let names = match fs::read_dir(NAMES) {
        Ok(names) => names,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error).context(NAMES),
    };
    let prefix = prefix_of(pid);
    let mut removed = 0;
    for entry in names {
        let name = entry.context(NAMES)?.file_name();
        if name.to_str().is_some_and(|name| name.starts_with(&prefix)) {
            ip([OsStr::new("netns"), OsStr::new("delete"), &name])?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// A named network namespace. Dropping it deletes the name; the kernel deletes the rest as soon as
/// no process and no socket is left in it.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes a namespace with its loopback up. Addresses in it are usable at once: duplicate
    /// address detection, which takes a second or more, is off. Interfaces report their multicast
    /// groups when they come up and are then silent, so that what a test sends is all there is to
    /// count.
    pub(super) fn create(name: String) -> Result<Self> {
        ip(["netns", "add", &name])?;
        let namespace = Self { name };
        namespace.set_sysctl("net/ipv6/conf/all/accept_dad", "0")?;
        namespace.set_sysctl("net/ipv6/conf/default/accept_dad", "0")?;
        namespace.set_sysctl("net/ipv6/conf/default/mldv2_unsolicited_report_interval", NEVER)?;
        namespace.ip(["link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// The name that `ip netns list` shows.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A command that will run inside: `ip netns exec NAME program`.
    ///
    /// It sees a `/sys` of its own, without the file systems mounted below the machine's `/sys`:
    /// no `/sys/fs/bpf`.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    /// Runs `work` in a thread of its own that has entered the namespace, and waits for it.
    ///
    /// Sockets belong to the namespace in which they were opened: those that `work` opens and
    /// returns stay in it, whichever thread uses them. A panic of `work` goes on in the caller.
    ///
    /// # Errors
    /// If the namespace cannot be entered.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let inside = || {
            let path = self.path();
            let context = || format!("enter network namespace {}", path.display());
            let file = File::open(&path).with_context(context)?;
            setns(file, CloneFlags::CLONE_NEWNET).with_context(context)?;
            Ok(work())
        };
        thread::scope(|scope| scope.spawn(inside).join())
            .unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// Runs `ip` on this namespace.
    ///
    /// # Errors
    /// With the command and what it printed, if it failed.
    pub fn ip<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Result<()> {
        let mut command = Command::new("ip");
        command.args(["-n", &self.name]).args(arguments);
        run(command)
    }

    /// Adds an address (`ADDRESS/PREFIX_LENGTH`) to an interface.
    ///
    /// # Errors
    /// If `ip` refuses it.
    pub fn add_address(&self, address: &str, interface: &str) -> Result<()> {
        self.ip(["address", "add", address, "dev", interface])
    }

    /// Sets a value below `/proc/sys/net`, which shows each thread its own namespace's.
    pub(super) fn set_sysctl(&self, name: &str, value: &str) -> Result<()> {
        let path = Path::new("/proc/sys").join(name);
        self.enter(|| fs::write(&path, value))?
            .with_context(|| format!("write {value} to {} in {}", path.display(), self.name))
    }

    fn path(&self) -> PathBuf {
        Path::new(NAMES).join(&self.name)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(error) = ip(["netns", "delete", &self.name]) {
            tracing::warn!("network namespace {} is left behind: {error:#}", self.name);
        }
    }
}

/// Runs `ip`.
pub(super) fn ip<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Result<()> {
    let mut command = Command::new("ip");
    command.args(arguments);
    run(command)
}

fn run(mut command: Command) -> Result<()> {
    // Ctrl-C goes to a whole process group. It must not hit what takes the lab down.
    command.process_group(0);
    let output = command
        .output()
        .with_context(|| format!("{command:?}: install iproute2 (apt-get install iproute2)"))?;
    if !output.status.success() {
        bail!("{command:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
