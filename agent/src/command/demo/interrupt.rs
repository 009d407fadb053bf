//! Ctrl-C and the signals like it: turned into a flag that whoever waits looks at.
//!
//! Owns the handlers. Invariant: from [`Interrupt::listen`] on no such signal ends the process, so
//! that what it made is taken away.

use std::{
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use thiserror::Error;
use tokio::{
    runtime,
    signal::unix::{SignalKind, signal},
};

/// Somebody wants the demo to end.
#[derive(Clone, Copy, Debug, Error)]
#[error("interrupted")]
pub(super) struct Interrupted;

/// Whether somebody wants the demo to end.
#[derive(Debug, Default)]
pub(super) struct Interrupt {
    flag: Arc<Flag>,
}

#[derive(Debug, Default)]
struct Flag {
    raised: Mutex<bool>,
    changed: Condvar,
}

impl Interrupt {
    /// Takes SIGINT, SIGTERM and SIGHUP from now on, for as long as the process lives.
    pub(super) fn listen() -> io::Result<Self> {
        let interrupt = Self::default();
        let flag = Arc::clone(&interrupt.flag);
        let runtime = runtime::Builder::new_current_thread().enable_io().build()?;
        let [mut sigint, mut sigterm, mut sighup] = {
            let _entered = runtime.enter();
            let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
            let [a, b, c] = kinds.map(signal);
            [a?, b?, c?]
        };
        thread::Builder::new().name("signals".to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = sigint.recv() => {}
                    _ = sigterm.recv() => {}
                    _ = sighup.recv() => {}
                }
            });
            *flag.lock() = true;
            flag.changed.notify_all();
        })?;
        Ok(interrupt)
    }

    /// Fails as soon as somebody wants the demo to end.
    pub(super) fn check(&self) -> Result<(), Interrupted> {
        if *self.flag.lock() { Err(Interrupted) } else { Ok(()) }
    }

    /// Waits; fails at once when somebody wants the demo to end.
    pub(super) fn pause(&self, time: Duration) -> Result<(), Interrupted> {
        let raised = self.flag.lock();
        drop(
            self.flag
                .changed
                .wait_timeout_while(raised, time, |raised| !*raised)
                .unwrap_or_else(PoisonError::into_inner),
        );
        self.check()
    }
}

impl Flag {
    /// A `bool` is whole whoever panicked while holding it.
    fn lock(&self) -> MutexGuard<'_, bool> {
        self.raised.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_pause_ends_with_its_time() {
        assert!(Interrupt::default().pause(Duration::from_millis(1)).is_ok());
    }

    #[test]
    fn a_pause_is_cut_short_by_the_wish_to_end() {
        let interrupt = Interrupt::default();
        let flag = Arc::clone(&interrupt.flag);
        let started = Instant::now();
        let wish = thread::spawn(move || {
            *flag.lock() = true;
            flag.changed.notify_all();
        });
        assert!(interrupt.pause(Duration::from_secs(60)).is_err());
        assert!(started.elapsed() < Duration::from_secs(30));
        assert!(interrupt.check().is_err());
        wish.join().unwrap();
    }
}
