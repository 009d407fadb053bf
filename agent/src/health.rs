//! Whether the agent is alive, and whether it enforces all that it should.
//!
//! The loop writes, the HTTP server reads. Time is a parameter. Invariant: what was never reported
//! counts as missing, so an agent that has just begun is not ready.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::policy::model::ObjectKey;

#[cfg(test)]
mod tests;

/// What stands between the agent and "every known pod is enforced".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Readiness {
    /// The source of pods and policies has named everything it holds.
    pub source_complete: bool,
    /// Why the source cannot be read right now, if it cannot.
    pub source_problem: Option<String>,
    /// How the last reconcile ended; `None`: there was none yet.
    pub last_reconcile: Option<Result<(), String>>,
    /// Known pods of this node that are not enforced, and why.
    pub unattached: BTreeMap<ObjectKey, String>,
}

impl Readiness {
    /// What is missing, one line each, the cause before its effects; empty: the agent is ready.
    pub fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        if let Some(problem) = &self.source_problem {
            missing.push(format!("source of pods and policies is not available: {problem}"));
        }
        if !self.source_complete {
            missing.push(
                "source of pods and policies has not named everything it holds: \
                 pods stay closed until it has"
                    .to_owned(),
            );
        }
        match &self.last_reconcile {
            Some(Ok(())) => {}
            Some(Err(error)) => missing.push(format!("last reconcile failed: {error}")),
            None => missing.push("no reconcile yet".to_owned()),
        }
        for (pod, why) in &self.unattached {
            missing.push(format!("pod {pod} is not enforced: {why}"));
        }
        missing.into_iter().map(|line| line.replace(['\n', '\r'], " ")).collect()
    }
}

/// The answer to a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Whether the probe succeeds.
    pub ok: bool,
    /// Plain text for people; ends with a line break.
    pub text: String,
}

/// What the loop says about itself.
#[derive(Debug)]
pub struct Health {
    stale_after: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    heartbeat: Instant,
    readiness: Readiness,
}

impl Health {
    /// For a loop that begins at `now` and will say [`Health::beat`] more often than every
    /// `stale_after`.
    pub fn new(now: Instant, stale_after: Duration) -> Self {
        let state = State { heartbeat: now, readiness: Readiness::default() };
        Self { stale_after, state: Mutex::new(state) }
    }

    /// The loop went round.
    pub fn beat(&self, now: Instant) {
        self.lock().heartbeat = now;
    }

    /// Changes what readiness rests on. `change` is short: probes wait for it.
    pub fn update(&self, change: impl FnOnce(&mut Readiness)) {
        change(&mut self.lock().readiness);
    }

    /// Whether the loop still turns: the answer to `/healthz`.
    pub fn live(&self, now: Instant) -> Answer {
        match self.stalled(&self.lock(), now) {
            None => Answer { ok: true, text: "ok\n".to_owned() },
            Some(line) => Answer { ok: false, text: format!("{line}\n") },
        }
    }

    /// Whether every known pod is enforced by what the source says: the answer to `/readyz`.
    pub fn ready(&self, now: Instant) -> Answer {
        let state = self.lock();
        let mut missing = state.readiness.missing();
        // What a stalled loop reported last may not hold any more.
        missing.splice(0..0, self.stalled(&state, now));
        if missing.is_empty() {
            return Answer { ok: true, text: "ok\n".to_owned() };
        }
        Answer { ok: false, text: missing.join("\n") + "\n" }
    }

    fn stalled(&self, state: &State, now: Instant) -> Option<String> {
        let age = now.saturating_duration_since(state.heartbeat);
        (age > self.stale_after).then(|| {
            format!(
                "the agent's loop has not moved for {} s (limit {} s); the programs in the kernel \
                 keep enforcing the last policy",
                age.as_secs(),
                self.stale_after.as_secs()
            )
        })
    }

    /// Plain data behind the lock: a thread that panicked while it held it left nothing half done
    /// that would matter to a probe.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
