//! Keeps looking at a manifest directory, for as long as somebody listens.
//!
//! One thread owns the directory's state and does all reading. The kernel's notifications make it
//! quick, the periodic look makes it right: whatever notifications miss (links swapped elsewhere, a
//! directory deleted and made again, a full queue) is found by the next one.

use std::{
    io,
    path::PathBuf,
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    thread,
    time::{Duration, Instant},
};

use notify::{
    EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode},
};
use tokio::sync::mpsc;
use tracing::{debug, warn};

use super::{ManifestDirectory, Scan};

/// How long a directory has to be quiet before it is read: whoever writes several files, or one
/// file in several steps, is likely done by then.
const SETTLE: Duration = Duration::from_millis(50);
/// How long a directory that is never quiet is waited for.
const MAX_SETTLE: Duration = Duration::from_secs(1);
/// How often a quiet directory is read.
const PERIOD: Duration = Duration::from_secs(2);

/// Starts a thread that sends the first scan at once, and another one whenever changes, problems
/// or availability differ. It ends when the receiver is closed.
///
/// # Errors
/// When the thread can't be started.
pub fn watch(path: PathBuf, scans: mpsc::Sender<Scan>) -> io::Result<thread::JoinHandle<()>> {
    thread::Builder::new().name("manifests".to_owned()).spawn(move || run(path, &scans))
}

fn run(path: PathBuf, scans: &mpsc::Sender<Scan>) {
    let (wake, wakes) = sync_channel(1);
    let mut watcher = new_watcher(wake);
    let mut directory = ManifestDirectory::new(path.clone());
    let mut last: Option<Scan> = None;
    while !scans.is_closed() {
        // Before the scan, so that nothing is missed between them; every time, because the
        // directory may be another one by now. Where nothing changed, it is the same watch.
        if let Some(watcher) = &mut watcher
            && let Err(error) = watcher.watch(&path, RecursiveMode::NonRecursive)
        {
            debug!(directory = %path.display(), %error, "no notifications of this directory");
        }
        let scan = directory.scan();
        let is_news = last.as_ref().is_none_or(|last| {
            !scan.changes.is_empty()
                || (&scan.problems, scan.available, scan.complete)
                    != (&last.problems, last.available, last.complete)
        });
        if is_news && scans.blocking_send(scan.clone()).is_err() {
            return;
        }
        last = Some(Scan { changes: Vec::new(), ..scan });
        wait(&wakes);
    }
}

/// Returns when something happened and it is quiet again, and after a period anyway.
fn wait(wakes: &Receiver<()>) {
    match wakes.recv_timeout(PERIOD) {
        Err(RecvTimeoutError::Timeout) => return,
        Err(RecvTimeoutError::Disconnected) => return thread::sleep(PERIOD),
        Ok(()) => {}
    }
    let start = Instant::now();
    while start.elapsed() < MAX_SETTLE && wakes.recv_timeout(SETTLE).is_ok() {}
}

fn new_watcher(wake: SyncSender<()>) -> Option<RecommendedWatcher> {
    let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if event.is_ok_and(|event| !is_change(event.kind)) {
            return;
        }
        match wake.try_send(()) {
            // Full: it will look anyway. Disconnected: nobody is there to look.
            Ok(()) | Err(TrySendError::Full(()) | TrySendError::Disconnected(())) => {}
        }
    });
    watcher
        .inspect_err(|error| {
            warn!(%error, "no file notifications: manifests are read every {PERIOD:?} instead");
        })
        .ok()
}

/// Whether files may differ now. Reading them, as a scan does, is an event too.
fn is_change(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        EventKind::Any
        | EventKind::Create(_)
        | EventKind::Modify(_)
        | EventKind::Remove(_)
        | EventKind::Other => true,
    }
}
