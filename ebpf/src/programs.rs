//! Hook to verdict to action.

use aya_ebpf::{
    bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC},
    macros::classifier,
    programs::TcContext,
};
use aya_log_ebpf::debug;
use bulkhead_common::{
    abi,
    decide,
    verdict::{Direction, DropReason, Verdict},
};

use crate::{
    context::Frame,
    events,
    maps::{self, Tables},
};

/// Packets to the pod: the egress hook of the host-side veth.
#[classifier]
pub(crate) fn to_pod(ctx: TcContext) -> i32 {
    judge(&ctx, Direction::Ingress)
}

/// Packets from the pod: the ingress hook of the host-side veth.
#[classifier]
pub(crate) fn from_pod(ctx: TcContext) -> i32 {
    judge(&ctx, Direction::Egress)
}

#[inline(always)]
fn judge(ctx: &TcContext, direction: Direction) -> i32 {
    let frame = Frame::new(ctx);
    let hook = frame.hook(direction);
    let Some(endpoint) = maps::endpoint(hook.ifindex) else {
        let verdict = Verdict::Deny(DropReason::Internal);
        maps::count(abi::COUNTER_BLOCK_UNKNOWN, direction, verdict, frame.wire_len());
        return TC_ACT_SHOT;
    };
    let verdict = decide::decide(&hook, endpoint, &frame, &Tables);
    maps::count(endpoint.counters, direction, verdict, frame.wire_len());
    // Switched off, the verifier removes this.
    debug!(
        ctx,
        "interface {}, direction {}: verdict {}, {} bytes",
        hook.ifindex,
        direction as u8,
        verdict.column(),
        frame.wire_len()
    );
    match verdict {
        // Other programs at this hook still run.
        Verdict::Allow(_) => TC_ACT_UNSPEC,
        Verdict::Deny(reason) => {
            events::report(&hook, endpoint, reason, &frame);
            TC_ACT_SHOT
        }
    }
}
