//! The verdict in user space, over the maps in memory.

use bulkhead::dataplane::fake::FakeKernel;
use bulkhead_common::{
    decide::{Hook, Met, decide, quick},
    frames::Linear,
    value::Endpoint,
    verdict::Verdict,
};

/// A verdict, and how it was come by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judged {
    /// What `decide` says.
    pub verdict: Verdict,
    /// `quick` says the same; otherwise it says nothing.
    pub at_a_glance: bool,
}

/// The verdict on a frame.
///
/// # Panics
///
/// `quick` has another one.
pub fn judge(hook: &Hook, endpoint: &Endpoint, frame: &[u8], maps: &FakeKernel) -> Judged {
    let linear = Linear(frame);
    let seen = quick::<false, _, _>(&Met { hook, endpoint, frame: &linear, maps });
    let verdict = decide(hook, endpoint, &linear, maps);
    assert!(
        seen.is_none_or(|seen| seen == verdict),
        "at a glance {seen:?}, but decide says {verdict:?}: {hook:?}, {frame:02x?}"
    );
    Judged { verdict, at_a_glance: seen.is_some() }
}
