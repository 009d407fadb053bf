//! Hook to verdict to action.

use aya_ebpf::{
    bindings::{__sk_buff, TC_ACT_SHOT, TC_ACT_UNSPEC},
    macros::classifier,
    programs::TcContext,
};
use aya_log_ebpf::debug;
use bulkhead_common::{
    abi, decide,
    verdict::{AllowReason, Direction, DropReason, Verdict},
};

use crate::{
    context::Frame,
    events,
    maps::{self, Tables},
    reject,
};

/// Packets to the pod: the egress hook of the host-side veth.
#[classifier]
fn to_pod(ctx: TcContext) -> i32 {
    act(&ctx, Direction::Ingress)
}

/// Packets from the pod: the ingress hook of the host-side veth.
#[classifier]
fn from_pod(ctx: TcContext) -> i32 {
    act(&ctx, Direction::Egress)
}

#[inline(always)]
fn act(ctx: &TcContext, direction: Direction) -> i32 {
    match judge(ctx.skb.skb, direction as u32) {
        // Other programs at this hook still run.
        PASSES => TC_ACT_UNSPEC,
        reason => deny(ctx.skb.skb, direction as u32, reason),
    }
}

/// What [`judge`] returns for a packet that passes: the number of no drop reason.
const PASSES: u32 = u8::MAX as u32;

// Global functions: the verifier goes through each once and by itself, whatever leads to it. Their
// arguments are numbers and the context, which is all that Linux 5.10 lets such functions have.

/// Judges a packet and counts it; its drop reason, or [`PASSES`].
#[expect(unsafe_code, reason = "the name makes it a global function")]
// SAFETY: nothing else in the object has this name.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn judge(skb: *mut __sk_buff, direction: u32) -> u32 {
    let ctx = &TcContext::new(skb);
    let frame = Frame::new(ctx);
    let hook = frame.hook(direction_of(direction));
    let Some(endpoint) = maps::endpoint(hook.ifindex) else {
        let verdict = Verdict::Deny(DropReason::Internal);
        maps::count(abi::COUNTER_BLOCK_UNKNOWN, hook.direction, verdict, frame.wire_len());
        return DropReason::Internal as u32;
    };
    let verdict = if reject::is_own_answer(ctx) {
        Verdict::Allow(AllowReason::OwnAnswer)
    } else {
        let epoch = maps::epoch(endpoint);
        match decide::decide(&hook, endpoint, &frame, &Tables) {
            // The value was given to another endpoint while it was read.
            Verdict::Allow(_) if maps::epoch(endpoint) != epoch => {
                Verdict::Deny(DropReason::Internal)
            }
            verdict @ (Verdict::Allow(_) | Verdict::Deny(_)) => verdict,
        }
    };
    maps::count(endpoint.counters, hook.direction, verdict, frame.wire_len());
    // Switched off, the verifier removes this.
    debug!(
        ctx,
        "interface {}, direction {}: verdict {}, {} bytes",
        hook.ifindex,
        direction,
        verdict.column(),
        frame.wire_len()
    );
    match verdict {
        Verdict::Allow(_) => PASSES,
        Verdict::Deny(reason) => reason as u32,
    }
}

/// Reports and answers a denied packet; what is to become of it.
#[expect(unsafe_code, reason = "the name makes it a global function")]
// SAFETY: nothing else in the object has this name.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn deny(skb: *mut __sk_buff, direction: u32, reason: u32) -> i32 {
    let ctx = &TcContext::new(skb);
    let frame = Frame::again(ctx);
    let hook = frame.hook(direction_of(direction));
    match (maps::endpoint(hook.ifindex), DropReason::from_number(reason as u8)) {
        (Some(endpoint), Some(reason)) => {
            events::report(&hook, endpoint, reason, &frame);
            reject::answer(&hook, endpoint, reason, ctx)
        }
        (None, _) | (_, None) => TC_ACT_SHOT,
    }
}

#[inline(always)]
const fn direction_of(number: u32) -> Direction {
    if number == Direction::Ingress as u32 { Direction::Ingress } else { Direction::Egress }
}
