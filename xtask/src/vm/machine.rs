//! One machine: booted, listened to, and ended.

use std::fmt;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::{archive, programs::Programs};
use crate::step;

/// A kernel that refuses a program looks at a million instructions first, twice: minutes.
const TIME_LIMIT: Duration = Duration::from_secs(900);

/// What `init.sh` begins its lines with.
const MARK: &str = "bulkhead-vm: ";

/// How much of the console is shown where something failed.
const LAST_LINES: usize = 40;

/// What a machine said.
#[derive(Debug, Default)]
pub(super) struct Report {
    kernel: String,
    passed: Vec<String>,
    failed: Vec<String>,
    result: Option<bool>,
}

impl Report {
    /// Takes a line of the console; what of it is for the reader.
    fn take<'a>(&mut self, line: &'a str) -> Option<&'a str> {
        // Escape sequences of the firmware stand before the first one.
        let (_, said) = line.split_once(MARK)?;
        if let Some(what) = said.strip_prefix("passed: ") {
            self.passed.push(what.to_owned());
        } else if let Some(what) = said.strip_prefix("failed: ") {
            self.failed.push(what.to_owned());
        } else if let Some(result) = said.strip_prefix("result: ") {
            self.result = Some(result == "passed");
        } else if said.starts_with("Linux ") {
            self.kernel = said.to_owned();
        }
        Some(said)
    }

    /// Did it say that all went well? Silence is no success.
    pub(super) fn passed(&self) -> bool {
        self.result == Some(true) && self.failed.is_empty() && !self.passed.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kernel, passed, failed, result } = self;
        if kernel.is_empty() {
            return f.write_str("the kernel did not get as far as its first program");
        }
        let mut parts = Vec::new();
        if !passed.is_empty() {
            parts.push(format!("passed {}", passed.join(", ")));
        }
        if !failed.is_empty() {
            parts.push(format!("failed {}", failed.join(", ")));
        }
        if result.is_none() {
            parts.push("did not come to an end".to_owned());
        }
        write!(f, "{kernel}: {}", parts.join("; "))
    }
}

/// A running emulator. Dropping it ends the machine.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        // It may have ended by itself, as it should.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Boots a machine and listens to its console until it ends, or for so long.
pub(super) fn run(
    name: &str,
    programs: &Programs,
    kernel: &Path,
    initramfs: &Path,
) -> Result<Report> {
    step::say(&format!("booting Linux {name} in software"));
    let mut emulator = programs.emulator();
    emulator
        .args(["-accel", "tcg", "-cpu", "max", "-smp", "2", "-m", "1536"])
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
        .args(["-serial", "stdio", "-append", "console=ttyS0 quiet panic=-1"])
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(initramfs)
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let mut machine = Machine(emulator.spawn().context("the emulator does not start")?);
    let console = machine.0.stdout.take().context("the emulator has no output")?;
    let mut log = File::create(archive::directory().join(name).join("console"))?;

    let (lines_to, lines) = mpsc::channel();
    let reading = thread::spawn(move || {
        let mut console = BufReader::new(console);
        let mut line = Vec::new();
        while console.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            line.clear();
            if lines_to.send(text).is_err() {
                return;
            }
        }
    });
    let deadline = Instant::now() + TIME_LIMIT;
    let mut report = Report::default();
    let mut last = Vec::new();
    loop {
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                writeln!(log, "{line}")?;
                if let Some(said) = report.take(&line) {
                    step::say(&format!("    {name}: {said}"));
                }
                last.push(line);
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                step::say(&format!("    {name}: not heard of for long enough: it is ended"));
                break;
            }
        }
    }
    drop(machine);
    drop(reading.join());
    if !report.passed() {
        for line in &last[last.len().saturating_sub(LAST_LINES)..] {
            eprintln!("    {name} | {line}");
        }
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(lines: &[&str]) -> Report {
        let mut report = Report::default();
        for line in lines {
            report.take(line);
        }
        report
    }

    const BOOTED: &str = "\x1b[0mSeaBIOS\x1b[?7lbulkhead-vm: Linux 6.1.0";

    #[test]
    fn a_machine_that_says_so_has_passed() {
        let report = report(&[BOOTED, "bulkhead-vm: passed: demo", "bulkhead-vm: result: passed"]);
        assert!(report.passed());
        assert_eq!(report.to_string(), "Linux 6.1.0: passed demo");
    }

    #[test]
    fn a_machine_that_falls_silent_has_not_passed() {
        assert!(!report(&[]).passed());
        let silent = report(&[BOOTED, "bulkhead-vm: passed: demo"]);
        assert!(!silent.passed());
        assert_eq!(silent.to_string(), "Linux 6.1.0: passed demo; did not come to an end");
    }

    #[test]
    fn a_machine_that_tried_nothing_has_not_passed() {
        assert!(!report(&[BOOTED, "bulkhead-vm: result: passed"]).passed());
    }

    #[test]
    fn one_failure_is_a_failure() {
        let lines = [
            BOOTED,
            "bulkhead-vm: passed: a",
            "bulkhead-vm: failed: b",
            "bulkhead-vm: result: passed",
        ];
        let report = report(&lines);
        assert!(!report.passed());
        assert_eq!(report.to_string(), "Linux 6.1.0: passed a; failed b");
    }
}
