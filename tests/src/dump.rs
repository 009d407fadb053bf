//! `tcpdump` at a pod's `eth0`: what a third party says of packets and their checksums.
//!
//! Owns no expectation. Invariant: a dump has every packet that came or went since it was started.

use std::{
    fs::{self, File},
    process::Child,
    thread,
    time::Instant,
};

use bulkhead::lab::Namespace;
use tempfile::TempDir;

use crate::cluster::{DEADLINE, LOOK_EVERY};

const PACKETS: &str = "packets";
const MESSAGES: &str = "messages";

/// A `tcpdump` that runs until it is dropped.
#[derive(Debug)]
pub struct Dump {
    child: Child,
    directory: TempDir,
}

impl Dump {
    /// Starts it; packets are seen from the return on.
    ///
    /// # Panics
    /// When `tcpdump` is not installed, or does not start.
    pub fn start(inside: &Namespace) -> Self {
        let directory = tempfile::Builder::new().prefix("bulkhead-dump-").tempdir();
        let directory = directory.expect("a temporary directory");
        let file = |name| File::create(directory.path().join(name)).expect("a file");
        // Twice verbose: it looks at checksums. Each line as soon as there is one.
        let mut command = inside.command("tcpdump");
        command.args(["-i", "eth0", "-nn", "-vv", "-l", "--immediate-mode"]);
        let child = command.stdout(file(PACKETS)).stderr(file(MESSAGES)).spawn();
        let dump = Self { child: child.expect("ip runs"), directory };
        dump.until(MESSAGES, |said| said.contains("listening on eth0").then_some(()));
        dump
    }

    /// What it says of packets for which the condition is true, one line each, as soon as it has
    /// said it of so many.
    ///
    /// # Panics
    /// When there are not so many in time.
    pub fn wait_for(&self, count: usize, condition: impl Fn(&str) -> bool) -> Vec<String> {
        self.until(PACKETS, |said| {
            // What belongs to the same packet stands on lines that are indented.
            let packets = said.replace("\n    ", " ").replace("\n\t", " ");
            let wanted = packets.lines().filter(|line| condition(line)).map(str::to_owned);
            Some(wanted.collect::<Vec<_>>()).filter(|wanted| wanted.len() >= count)
        })
    }

    fn until<T>(&self, name: &str, condition: impl Fn(&str) -> Option<T>) -> T {
        let read = |name| fs::read_to_string(self.directory.path().join(name)).expect("a file");
        let deadline = Instant::now() + DEADLINE;
        while Instant::now() < deadline {
            let said = read(name);
            // Whole lines only.
            let whole = said.rsplit_once('\n').map_or("", |(whole, _)| whole);
            if let Some(found) = condition(whole) {
                return found;
            }
            thread::sleep(LOOK_EVERY);
        }
        panic!("tcpdump, in vain; is it installed? {}{}", read(MESSAGES), read(PACKETS));
    }
}

impl Drop for Dump {
    fn drop(&mut self) {
        // Of one that has ended there is nothing to end.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
