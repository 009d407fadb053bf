//! Programs that the demo runs: with nothing of the caller's environment, and never left behind.
//!
//! Invariant: a [`Process`] that is dropped has ended, and its children with it. Each is the leader
//! of a process group of its own: Ctrl-C, which goes to the whole group of a terminal's foreground,
//! reaches the demo alone, and the demo ends them in order.

use std::{
    env,
    fs::File,
    io::{self, Read, Seek},
    os::unix::process::CommandExt,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};

use super::{expectation::Outcome, interrupt::Interrupt};

const LOOK_EVERY: Duration = Duration::from_millis(5);
/// No command of the demo takes half as long.
const COMMAND_LIMIT: Duration = Duration::from_secs(20);
/// How long a process may take to end when it is asked to.
const GRACE: Duration = Duration::from_secs(2);

/// A running program and the process group that it leads.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
}

impl Process {
    /// Starts it, with standard output and standard error in one file.
    pub(super) fn start(mut command: Command, output: &File) -> Result<Self> {
        // Nothing of the caller's may change what the tools say or where they connect to: language,
        // proxies, the agent's own settings.
        command.env_clear().env("LC_ALL", "C").envs(env::var_os("PATH").map(|path| ("PATH", path)));
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output.try_clone()?);
        let child = command.process_group(0).spawn().with_context(|| format!("run {command:?}"))?;
        Ok(Self { child })
    }

    /// How it ended, if it did.
    pub(super) fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    fn signal(&self, signal: Signal) -> nix::Result<()> {
        let leader = i32::try_from(self.child.id()).map_err(|_| nix::errno::Errno::ESRCH)?;
        killpg(Pid::from_raw(leader), signal)
    }

    /// Asks, then forces.
    fn end(&mut self) -> Result<()> {
        // As long as it is not waited for, its number is nobody else's.
        if self.ended()?.is_some() {
            return Ok(());
        }
        self.signal(Signal::SIGTERM)?;
        let deadline = Instant::now() + GRACE;
        while Instant::now() < deadline {
            if self.ended()?.is_some() {
                return Ok(());
            }
            thread::sleep(LOOK_EVERY);
        }
        self.signal(Signal::SIGKILL)?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            tracing::warn!("process {} is left behind: {error:#}", self.child.id());
        }
    }
}

/// Runs a command to its end: all that it printed, in the order in which a terminal would show it.
pub(super) fn run(command: Command, interrupt: &Interrupt) -> Result<Outcome> {
    let mut output = tempfile::tempfile().context("cannot make a file for a command's output")?;
    let mut process = Process::start(command, &output)?;
    let deadline = Instant::now() + COMMAND_LIMIT;
    let status = loop {
        if let Some(status) = process.ended()? {
            break status.code();
        }
        if Instant::now() > deadline {
            break None;
        }
        interrupt.pause(LOOK_EVERY)?;
    };
    drop(process);
    let mut bytes = Vec::new();
    output.rewind()?;
    output.read_to_end(&mut bytes)?;
    Ok(Outcome { status, output: String::from_utf8_lossy(&bytes).into_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(line: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", line]);
        command
    }

    #[test]
    fn both_streams_are_kept_in_their_order() {
        let line = "echo one; echo two >&2; echo three; exit 3";
        let outcome = run(shell(line), &Interrupt::default()).unwrap();
        assert_eq!(outcome, Outcome { status: Some(3), output: "one\ntwo\nthree\n".to_owned() });
    }

    /// Starts a shell, and waits for the first line that it prints.
    fn start(line: &str) -> (Process, String) {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut process = Process::start(shell(line), file.as_file()).unwrap();
        let mut said = String::new();
        while !said.ends_with('\n') {
            assert!(process.ended().unwrap().is_none());
            said = std::fs::read_to_string(file.path()).unwrap();
        }
        (process, said)
    }

    #[test]
    fn a_dropped_process_ends_with_its_children() {
        let (process, child) = start("sleep 60 & echo $!; wait");
        let started = Instant::now();
        drop(process);
        assert!(started.elapsed() < GRACE, "the shell ended by itself when it was asked to");
        // It was sent a signal, which takes its time; then whoever inherited it is to wait for it.
        let ended = || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.trim()));
            stat.map_or(true, |stat| stat.contains(") Z ") || stat.contains(") X "))
        };
        while !ended() {
            assert!(started.elapsed() < Duration::from_secs(20), "the child lives on");
            thread::yield_now();
        }
    }

    #[test]
    fn a_process_that_will_not_end_is_forced() {
        let (process, pid) = start("trap '' TERM; echo $$; while :; do sleep 60; done");
        drop(process);
        assert!(!std::path::Path::new("/proc").join(pid.trim()).exists());
    }
}
