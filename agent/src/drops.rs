//! Dropped packets in people's words: from the kernel's records to log lines.
//!
//! Owns the words ([`describe()`]), how many lines a pod may fill ([`limit`]) and the line itself
//! ([`DropLog`]). Does not read the ring buffer, and counts no packets: the kernel does. Invariant:
//! a record is logged, or counted as not logged and mentioned with the pod's next line.

mod describe;
pub mod limit;
#[cfg(test)]
mod tests;

use std::{fmt::Display, sync::Arc, time::Instant};

use bulkhead_common::{event::Event, verdict::DropReason};

pub use self::describe::{DroppedPacket, End, Names, describe};
use self::limit::{Admission, Limiter};
use crate::metrics::{DropEventOutcome, Metrics};

/// Writes records to the log, under the target `bulkhead::drops`.
pub struct DropLog {
    limiter: Limiter,
    metrics: Arc<Metrics>,
}

impl DropLog {
    /// With no line spent yet.
    pub fn new(limiter: Limiter, metrics: Arc<Metrics>) -> Self {
        Self { limiter, metrics }
    }

    /// Logs one record, unless its pod or the whole log is over its rate at `now`.
    pub fn record(&mut self, event: &Event, names: &dyn Names, now: Instant) {
        let outcome = match self.limiter.admit(event.ifindex, now) {
            Admission::Log { suppressed } => {
                log(event, &describe(event, names), suppressed);
                DropEventOutcome::Logged
            }
            Admission::Suppress => DropEventOutcome::SuppressedLog,
        };
        self.metrics.count_drop_events(outcome, 1);
    }

    /// Forgets interfaces that are gone, so that memory follows the pods of the node.
    pub fn retain(&mut self, exists: impl FnMut(u32) -> bool) {
        self.limiter.retain(exists);
    }
}

/// What policy denies is ordinary work. All else hints at an attack or at a fault of Bulkhead's.
fn is_ordinary(event: &Event) -> bool {
    match DropReason::from_number(event.reason) {
        Some(DropReason::NotAllowed | DropReason::FlowRevoked) => true,
        Some(
            DropReason::SpoofedSource
            | DropReason::Malformed
            | DropReason::Truncated
            | DropReason::VlanTagged
            | DropReason::UnknownEthertype
            | DropReason::FragmentWithoutFirst
            | DropReason::TooManyExtensionHeaders
            | DropReason::RoutingHeader
            | DropReason::Internal,
        )
        | None => false,
    }
}

fn log(event: &Event, packet: &DroppedPacket, suppressed: u64) {
    // The level of a tracing event is a constant, hence two call sites.
    macro_rules! line {
        ($level:ident) => {
            tracing::$level!(
                target: "bulkhead::drops",
                pod = packet.pod,
                ifindex = packet.ifindex,
                direction = %packet.direction,
                reason = %packet.reason,
                protocol = packet.protocol.as_deref(),
                echo_id = packet.echo_id,
                source = packet.source.as_ref().map(End::socket),
                destination = packet.destination.as_ref().map(End::socket),
                unknown_family = packet.unknown_family,
                length = packet.length,
                peer = list(packet.peer().map_or(&[][..], |peer| &peer.pods)),
                policies = list(&packet.policies),
                closed = packet.closed,
                "packet denied{}", NotLogged(suppressed)
            )
        };
    }
    if is_ordinary(event) { line!(info) } else { line!(warn) }
}

/// Words with commas between; `None` leaves the field out.
fn list(words: &[String]) -> Option<String> {
    (!words.is_empty()).then(|| words.join(","))
}

/// The end of a message, where lines before it are missing.
struct NotLogged(u64);

impl Display for NotLogged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            0 => Ok(()),
            1 => f.write_str(" (1 drop not logged since the last line of this pod)"),
            n => write!(f, " ({n} drops not logged since the last line of this pod)"),
        }
    }
}
