//! How many lines of the log drops may fill: a token bucket for each interface, and one for all.
//!
//! Time is a parameter. Memory is bounded: interfaces beyond a fixed number share one bucket, and
//! those that are gone are forgotten by [`Limiter::retain`].

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use bulkhead_common::abi;

/// Interfaces with a bucket of their own: as many as there can be pods, and some that are going.
const MAX_INTERFACES: usize = 2 * abi::ENDPOINTS as usize;
/// Stands for all interfaces beyond [`MAX_INTERFACES`]; the kernel gives no interface this index.
const OVERFLOW: u32 = 0;

/// A rate: at once, and in the long run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Lines that may follow each other at once.
    pub burst: u32,
    /// The time after which one more line is due.
    pub interval: Duration,
}

/// For one pod: five lines at once, then one in ten seconds.
pub const POD: Rate = Rate { burst: 5, interval: Duration::from_secs(10) };
/// For all pods together: a hundred lines at once, then ten in a second.
pub const NODE: Rate = Rate { burst: 100, interval: Duration::from_millis(100) };

/// What becomes of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It is written.
    Log {
        /// Lines of the same interface that were not, since the last one that was.
        suppressed: u64,
    },
    /// It is not written.
    Suppress,
}

/// Decides line by line.
#[derive(Debug)]
pub struct Limiter {
    pod: Rate,
    all: Bucket,
    interfaces: HashMap<u32, Interface>,
}

#[derive(Debug)]
struct Interface {
    bucket: Bucket,
    suppressed: u64,
}

impl Limiter {
    /// Full at `now`. [`POD`] and [`NODE`] are what the agent uses.
    pub fn new(pod: Rate, node: Rate, now: Instant) -> Self {
        Self { pod, all: Bucket::full(node, now), interfaces: HashMap::new() }
    }

    /// Whether a line about the pod behind `ifindex` is written at `now`.
    pub fn admit(&mut self, ifindex: u32, now: Instant) -> Admission {
        let known = self.interfaces.contains_key(&ifindex);
        let key = if known || self.interfaces.len() < MAX_INTERFACES { ifindex } else { OVERFLOW };
        let interface = self
            .interfaces
            .entry(key)
            .or_insert_with(|| Interface { bucket: Bucket::full(self.pod, now), suppressed: 0 });
        // A pod that is over its own rate must not use up what the others share, nor lose its own
        // token where the others have used up everything.
        if interface.bucket.has_token(now) && self.all.has_token(now) {
            interface.bucket.tokens -= 1;
            self.all.tokens -= 1;
            Admission::Log { suppressed: std::mem::take(&mut interface.suppressed) }
        } else {
            interface.suppressed += 1;
            Admission::Suppress
        }
    }

    /// Forgets interfaces that do not exist any more.
    pub fn retain(&mut self, mut exists: impl FnMut(u32) -> bool) {
        self.interfaces.retain(|ifindex, _| exists(*ifindex));
    }
}

/// Tokens that come back one by one.
#[derive(Debug)]
struct Bucket {
    rate: Rate,
    tokens: u32,
    /// When the last token came back.
    refilled: Instant,
}

impl Bucket {
    fn full(rate: Rate, now: Instant) -> Self {
        Self { rate, tokens: rate.burst, refilled: now }
    }

    /// Refills, then looks. Whole intervals only: the rest of one counts towards the next token.
    fn has_token(&mut self, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.refilled).as_nanos();
        let due = elapsed / self.rate.interval.as_nanos().max(1);
        let missing = self.rate.burst - self.tokens;
        if due >= u128::from(missing) {
            self.tokens = self.rate.burst;
            self.refilled = self.refilled.max(now);
        } else {
            // Smaller than `missing`, so it fits.
            let due = u32::try_from(due).unwrap_or(missing);
            self.tokens += due;
            self.refilled += self.rate.interval * due;
        }
        self.tokens > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const TWO_THEN_ONE_A_SECOND: Rate = Rate { burst: 2, interval: SECOND };
    const PLENTY: Rate = Rate { burst: 1_000_000, interval: SECOND };
    const LOG: Admission = Admission::Log { suppressed: 0 };

    #[test]
    fn a_burst_passes_then_one_line_an_interval_which_tells_what_is_missing() {
        let start = Instant::now();
        let mut limiter = Limiter::new(TWO_THEN_ONE_A_SECOND, PLENTY, start);
        assert_eq!(limiter.admit(7, start), LOG);
        assert_eq!(limiter.admit(7, start), LOG);
        for _ in 0..3 {
            assert_eq!(limiter.admit(7, start), Admission::Suppress);
        }
        assert_eq!(limiter.admit(7, start + SECOND / 2), Admission::Suppress);
        assert_eq!(limiter.admit(7, start + SECOND), Admission::Log { suppressed: 4 });
        assert_eq!(limiter.admit(7, start + SECOND), Admission::Suppress);
        assert_eq!(limiter.admit(7, start + 2 * SECOND), Admission::Log { suppressed: 1 });
    }

    #[test]
    fn parts_of_an_interval_are_not_lost() {
        let start = Instant::now();
        let mut limiter = Limiter::new(Rate { burst: 1, interval: SECOND }, PLENTY, start);
        let logged = (0..=40)
            .filter(|tick| {
                matches!(limiter.admit(7, start + SECOND / 4 * *tick), Admission::Log { .. })
            })
            .count();
        assert_eq!(logged, 11, "one at the start and one in each of ten seconds");
    }

    #[test]
    fn a_long_silence_saves_no_more_than_a_burst() {
        let start = Instant::now();
        let mut limiter = Limiter::new(TWO_THEN_ONE_A_SECOND, PLENTY, start);
        let late = start + 3600 * SECOND;
        assert_eq!([(); 3].map(|()| limiter.admit(7, late)), [LOG, LOG, Admission::Suppress]);
    }

    #[test]
    fn a_noisy_pod_does_not_silence_the_others() {
        let start = Instant::now();
        let node = Rate { burst: 4, interval: SECOND };
        let mut limiter = Limiter::new(TWO_THEN_ONE_A_SECOND, node, start);
        for _ in 0..100 {
            limiter.admit(7, start);
        }
        assert_eq!(limiter.admit(8, start), LOG);
        assert_eq!(limiter.admit(9, start), LOG);
        assert_eq!(limiter.admit(10, start), Admission::Suppress, "the node's rate is used up");
        assert_eq!(limiter.admit(10, start + SECOND), Admission::Log { suppressed: 1 });
    }

    #[test]
    fn time_that_goes_back_gives_no_tokens() {
        let start = Instant::now();
        let mut limiter = Limiter::new(Rate { burst: 1, interval: SECOND }, PLENTY, start);
        let late = start + 10 * SECOND;
        assert_eq!(limiter.admit(7, late), LOG);
        assert_eq!(limiter.admit(7, start), Admission::Suppress);
        assert_eq!(limiter.admit(7, late), Admission::Suppress);
    }

    #[test]
    fn memory_follows_the_interfaces_that_exist_and_is_bounded_without() {
        let start = Instant::now();
        let mut limiter = Limiter::new(TWO_THEN_ONE_A_SECOND, PLENTY, start);
        for ifindex in 1..100_000 {
            limiter.admit(ifindex, start);
        }
        assert_eq!(limiter.interfaces.len(), MAX_INTERFACES + 1, "and the one that is shared");
        assert_eq!(limiter.admit(99_999, start), Admission::Suppress);
        limiter.retain(|ifindex| ifindex == 3);
        assert_eq!(limiter.interfaces.keys().collect::<Vec<_>>(), [&3]);
    }
}
