//! Hook to verdict to action.

use aya_ebpf::{
    bindings::{__sk_buff, TC_ACT_SHOT, TC_ACT_UNSPEC},
    macros::classifier,
    programs::TcContext,
};
use aya_log_ebpf::debug;
use bulkhead_common::{
    abi,
    decide::{self, Met, Steps as _},
    verdict::{AllowReason, Direction, DropReason, Verdict},
};

use crate::{
    context::Frame,
    events, globals,
    maps::{self, Tables},
    reject,
    steps::Calls,
};

/// Packets to the pod: the egress hook of the host-side veth.
#[classifier]
fn to_pod(ctx: TcContext) -> i32 {
    act(&ctx, Direction::Ingress, glance::<TO_POD>(&ctx))
}

/// Packets from the pod: the ingress hook of the host-side veth.
#[classifier]
fn from_pod(ctx: TcContext) -> i32 {
    act(&ctx, Direction::Egress, glance::<FROM_POD>(&ctx))
}

/// What is to become of a packet, which [`glance`] has looked at.
#[inline(always)]
fn act(ctx: &TcContext, direction: Direction, seen: u32) -> i32 {
    let mut reason = seen;
    if reason == UNDECIDED {
        reason = judge(ctx.skb.skb, direction as u32, 0);
    }
    if reason == UNDECIDED {
        reason = judge(ctx.skb.skb, direction as u32, 1);
    }
    match reason {
        // Other programs at this hook still run.
        PASSES => TC_ACT_UNSPEC,
        DROPS => TC_ACT_SHOT,
        reason => deny(ctx.skb.skb, direction as u32, reason),
    }
}

const TO_POD: u32 = Direction::Ingress as u32;
const FROM_POD: u32 = Direction::Egress as u32;
/// What [`judge`] returns for a packet that passes: the number of no drop reason.
const PASSES: u32 = u8::MAX as u32;
/// What [`glance`] returns for a packet of which nobody is told: the number of no drop reason, too.
const DROPS: u32 = PASSES + 1;
/// What [`glance`] and [`judge`] return where they have no verdict.
const UNDECIDED: u32 = PASSES + 2;

/// Judges a packet of the common kind by look-ups, and counts it: its drop reason, [`PASSES`],
/// [`DROPS`], or [`UNDECIDED`] if that cannot be told at a glance.
#[inline(never)]
fn glance<const DIRECTION: u32>(ctx: &TcContext) -> u32 {
    let frame = &Frame::again(ctx);
    let direction = Direction::from_number(DIRECTION);
    let Some(endpoint) = maps::endpoint(frame.ifindex()) else {
        return UNDECIDED;
    };
    let hook = &frame.hook(direction, endpoint.counters);
    if matches!(direction, Direction::Egress) {
        frame.tag(endpoint.counters);
    }
    if reject::is_marked(ctx) || globals::judge_all() {
        return UNDECIDED;
    }
    let epoch = maps::epoch(endpoint);
    match decide::quick::<true, _, _>(&Met { hook, endpoint, frame, maps: &Tables::<false> }) {
        Some(verdict) if is_current(epoch, frame) => {
            maps::count(endpoint.counters, direction, verdict, frame.wire_len());
            match verdict {
                Verdict::Allow(_) => PASSES,
                Verdict::Deny(_)
                    if !reject::is_wanted(endpoint) && !events::is_reported(endpoint) =>
                {
                    DROPS
                }
                Verdict::Deny(reason) => reason as u32,
            }
        }
        Some(_) | None => UNDECIDED,
    }
}

/// Whether the interface's endpoint has this epoch.
///
/// If it has after a verdict, that came from one value, whole, whose rules were there.
#[inline(always)]
fn is_current(epoch: u32, frame: &Frame) -> bool {
    let now = maps::endpoint(frame.ifindex());
    now.is_some_and(|endpoint| maps::epoch(endpoint) == epoch && epoch != 0)
}

// Global functions: the verifier goes through each once and by itself, whatever leads to it. Their
// arguments are numbers and the context, which is all that Linux 5.10 lets such functions have.

/// Judges a packet and counts it; its drop reason, or [`PASSES`]. [`UNDECIDED`], if the endpoint got
/// another value meanwhile; but not if this is the `last` try.
#[expect(unsafe_code, reason = "the name makes it a global function")]
// SAFETY: nothing else in the object has this name.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn judge(skb: *mut __sk_buff, direction: u32, last: u32) -> u32 {
    let ctx = &TcContext::new(skb);
    let frame = Frame::new(ctx);
    let direction = Direction::from_number(direction);
    let Some(endpoint) = maps::endpoint(frame.ifindex()) else {
        let verdict = Verdict::Deny(DropReason::Internal);
        maps::count(abi::COUNTER_BLOCK_UNKNOWN, direction, verdict, frame.wire_len());
        return DropReason::Internal as u32;
    };
    let hook = frame.hook(direction, endpoint.counters);
    let verdict = if reject::is_own_answer(ctx) {
        Verdict::Allow(AllowReason::OwnAnswer)
    } else {
        let epoch = maps::epoch(endpoint);
        let verdict = decide::by_network(
            &hook,
            endpoint,
            &frame,
            || Calls::<4> { skb, direction: direction as u32 }.verdict(),
            || Calls::<16> { skb, direction: direction as u32 }.verdict(),
        );
        // Each step has looked the endpoint up anew.
        match verdict {
            verdict if is_current(epoch, &frame) => verdict,
            _ if last == 0 => return UNDECIDED,
            Verdict::Allow(_) => Verdict::Deny(DropReason::Internal),
            Verdict::Deny(reason) => Verdict::Deny(reason),
        }
    };
    maps::count(endpoint.counters, direction, verdict, frame.wire_len());
    if globals::judge_all() {
        log(skb, direction as u32, verdict.column());
    }
    match verdict {
        Verdict::Allow(_) => PASSES,
        Verdict::Deny(reason) => reason as u32,
    }
}

/// Logs a verdict by its counter column. Switched off, the verifier removes what is in it.
#[expect(unsafe_code, reason = "the name makes it a global function")]
// SAFETY: nothing else in the object has this name.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn log(skb: *mut __sk_buff, direction: u32, column: u32) -> u32 {
    let ctx = &TcContext::new(skb);
    let frame = Frame::again(ctx);
    debug!(
        ctx,
        "interface {}, direction {}: verdict {}, {} bytes",
        frame.ifindex(),
        direction,
        column,
        frame.wire_len()
    );
    0
}

/// Reports and answers a denied packet; what is to become of it.
#[expect(unsafe_code, reason = "the name makes it a global function")]
// SAFETY: nothing else in the object has this name.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn deny(skb: *mut __sk_buff, direction: u32, reason: u32) -> i32 {
    let ctx = &TcContext::new(skb);
    let frame = Frame::again(ctx);
    match (maps::endpoint(frame.ifindex()), DropReason::from_number(reason as u8)) {
        (Some(endpoint), Some(reason)) => {
            let hook = frame.hook(Direction::from_number(direction), endpoint.counters);
            events::report(&hook, endpoint, reason, &frame);
            reject::answer(&hook, endpoint, reason, ctx)
        }
        (None, _) | (_, None) => TC_ACT_SHOT,
    }
}
