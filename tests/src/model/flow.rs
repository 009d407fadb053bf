//! The life of a flow, as docs/datapath.md tells it; knows nothing of `bulkhead_common::flow`.

use std::time::Duration;

use bulkhead_common::verdict::Direction;

use super::{SCTP, TCP};
use crate::reading::Closes;

/// A packet that says nothing new is written down once in so long.
const REFRESH: Duration = Duration::from_secs(1);

/// What is known of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flow {
    /// The direction of its first packet.
    pub(super) opener: Direction,
    /// The policy that last judged it.
    pub(super) epoch: u32,
    answered: bool,
    /// Who has ended what it sends, by direction.
    ended: [bool; 2],
    aborted: bool,
    written: Duration,
}

impl Flow {
    pub(super) const fn opened(opener: Direction, epoch: u32, now: Duration) -> Self {
        Self { opener, epoch, answered: false, ended: [false; 2], aborted: false, written: now }
    }

    pub(super) fn is_over(&self) -> bool {
        self.aborted || self.ended == [true; 2]
    }

    pub(super) fn is_forgotten(&self, protocol: u8, now: Duration) -> bool {
        let ended = self.ended.iter().filter(|ended| **ended).count();
        let patience_secs = match (protocol, ended) {
            (TCP | SCTP, _) if self.aborted => 10,
            (TCP | SCTP, 2) => 60,
            (TCP | SCTP, 1) => 3600,
            _ if !self.answered => 70,
            (TCP, _) => 24 * 3600,
            (SCTP, _) => 3600,
            _ => 180,
        };
        now - self.written > Duration::from_secs(patience_secs)
    }

    /// The flow after a packet that goes in `direction`, and what it is judged by from then on.
    pub(super) fn after(
        self,
        direction: Direction,
        closes: Closes,
        epoch: u32,
        now: Duration,
    ) -> Self {
        let mut next = Self { epoch, ..self };
        if direction == self.opener {
            // Who goes on did not believe that it was over.
            next.aborted = false;
        } else {
            next.answered = true;
        }
        match closes {
            Closes::Nothing => {}
            Closes::Side => next.ended[direction as usize] = true,
            Closes::Flow => next.aborted = true,
        }
        if next == self && now - self.written <= REFRESH {
            return self;
        }
        Self { written: now, ..next }
    }
}
