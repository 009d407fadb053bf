//! The life of a flow: who opened it, how far it has come, how long it is remembered.
//!
//! Owns the bits of [`Flow::state`] and the time-outs. Sequence numbers are not looked at: an entry
//! lets nothing pass that rules do not allow the opener, and one that ended too early heals with the
//! opener's next packet.

use crate::{
    packet::{Ending, Role, protocol},
    value::Flow,
    verdict::Direction,
};

/// The pod opened it; otherwise the peer.
const OPENED_BY_POD: u32 = 1 << 0;
/// Both sides have sent.
const ANSWERED: u32 = 1 << 1;
/// Whoever opened it has ended its direction.
const OPENER_FINISHED: u32 = 1 << 2;
/// The other side has ended its direction.
const OTHER_FINISHED: u32 = 1 << 3;
/// One side has ended all of it.
const RESET: u32 = 1 << 4;
/// The peer that opened it is the pod's own node, which no rule has to allow that.
const OPENED_BY_NODE: u32 = 1 << 5;

const NS_PER_SEC: u64 = 1_000_000_000;
/// How often a flow that has packets is written again.
const REFRESH_NS: u64 = NS_PER_SEC;
/// Nobody has answered yet: as long as Linux waits between two SYNs, at most.
const IDLE_OPENING_NS: u64 = 70 * NS_PER_SEC;
const IDLE_TCP_NS: u64 = 24 * 3600 * NS_PER_SEC;
/// Heartbeats come every 30 seconds (RFC 9260, section 16).
const IDLE_SCTP_NS: u64 = 3600 * NS_PER_SEC;
/// One side has ended its direction and may be sent data for long yet.
const IDLE_HALF_CLOSED_NS: u64 = 3600 * NS_PER_SEC;
/// Both have: the last segments may have to be sent again (TIME-WAIT).
const IDLE_CLOSED_NS: u64 = 60 * NS_PER_SEC;
const IDLE_RESET_NS: u64 = 10 * NS_PER_SEC;
const IDLE_OTHER_NS: u64 = 180 * NS_PER_SEC;

impl Flow {
    /// A flow whose first packet goes in `direction`.
    #[inline(always)]
    pub const fn opened(direction: Direction, epoch: u32, seen_ns: u64) -> Self {
        let state = match direction {
            Direction::Ingress => 0,
            Direction::Egress => OPENED_BY_POD,
        };
        Self { seen_ns, epoch, state }
    }

    /// A flow whose first packet the pod's own node sends to the pod.
    #[inline(always)]
    pub const fn opened_by_node(epoch: u32, seen_ns: u64) -> Self {
        Self { seen_ns, epoch, state: OPENED_BY_NODE }
    }

    /// Whether the pod's own node opened it: that says nothing of the rules.
    #[inline(always)]
    pub const fn is_by_node(&self) -> bool {
        self.state & OPENED_BY_NODE != 0
    }

    /// The same flow after its opener, who would have made `new` of it, was judged.
    #[inline(always)]
    pub const fn judged_as(&self, new: &Self) -> Self {
        Self {
            seen_ns: self.seen_ns,
            epoch: new.epoch,
            state: self.state | new.state & OPENED_BY_NODE,
        }
    }

    /// The direction of its first packet.
    #[inline(always)]
    pub const fn opener(&self) -> Direction {
        if self.state & OPENED_BY_POD == 0 { Direction::Ingress } else { Direction::Egress }
    }

    /// The flow after a packet that goes in `direction`. Its epoch stays.
    ///
    /// A packet of the opener that ends nothing takes a reset back: who goes on did not believe it.
    #[inline(always)]
    pub const fn after(&self, direction: Direction, ending: Ending, seen_ns: u64) -> Self {
        let by_opener = direction as u8 == self.opener() as u8;
        let mut state = self.state;
        if by_opener {
            state &= !RESET;
        } else {
            state |= ANSWERED;
        }
        state |= match (ending, by_opener) {
            (Ending::None, _) => 0,
            (Ending::Finish, true) => OPENER_FINISHED,
            (Ending::Finish, false) => OTHER_FINISHED,
            (Ending::Reset, _) => RESET,
        };
        Self { seen_ns, epoch: self.epoch, state }
    }

    /// Whether a new flow may take its place: it was reset, or both sides have ended it.
    #[inline(always)]
    pub const fn is_over(&self) -> bool {
        let both = OPENER_FINISHED | OTHER_FINISHED;
        self.state & RESET != 0 || self.state & both == both
    }

    /// Whether it has not been idle for too long.
    #[inline(always)]
    pub const fn is_live(&self, number: u8, now_ns: u64) -> bool {
        now_ns.saturating_sub(self.seen_ns) <= self.idle_limit_ns(number)
    }

    #[inline(always)]
    const fn idle_limit_ns(&self, number: u8) -> u64 {
        let tcp = number == protocol::TCP;
        if !tcp && number != protocol::SCTP {
            return if self.state & ANSWERED == 0 { IDLE_OPENING_NS } else { IDLE_OTHER_NS };
        }
        if self.state & RESET != 0 {
            IDLE_RESET_NS
        } else if self.is_over() {
            IDLE_CLOSED_NS
        } else if self.state & (OPENER_FINISHED | OTHER_FINISHED) != 0 {
            IDLE_HALF_CLOSED_NS
        } else if self.state & ANSWERED == 0 {
            IDLE_OPENING_NS
        } else if tcp {
            IDLE_TCP_NS
        } else {
            IDLE_SCTP_NS
        }
    }

    /// Whether `next` says more of it than a fresh time.
    #[inline(always)]
    pub const fn is_outdated_by(&self, next: &Self) -> bool {
        self.state != next.state
            || self.epoch != next.epoch
            || next.seen_ns.saturating_sub(self.seen_ns) > REFRESH_NS
    }
}

/// Whether a flow is remembered from its first packet on, although nothing isolates the pod yet: the
/// policy that comes later must tell who opened what.
#[inline(always)]
pub const fn is_remembered_from_the_start(number: u8, role: Role) -> bool {
    matches!(role, Role::Opens) && matches!(number, protocol::TCP | protocol::SCTP)
}
