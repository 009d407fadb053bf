//! Answers to denied packets, where the endpoint asks for them.
//!
//! The denied packet is rewritten into its answer (`bulkhead_common::answer`) and sent back through
//! the interface that it was met at. It is marked, so that the program at the other hook lets it
//! pass. The kernel clears marks where a packet changes network namespaces: no pod can forge one.
//!
//! Off the common path: headers are read once more.
#![expect(unsafe_code, reason = "asks the kernel to change and redirect the packet")]

use aya_ebpf::{
    bindings::{__sk_buff, BPF_F_INGRESS, TC_ACT_REDIRECT, TC_ACT_SHOT},
    helpers::{bpf_redirect, bpf_skb_change_tail},
    programs::TcContext,
};
use bulkhead_common::{
    abi::ANSWER_MARK,
    answer::{self, MAX_LEN},
    decide::Hook,
    packet::{self, Network},
    value::{Endpoint, flags},
    verdict::{Direction, DropReason},
};

use crate::{context::Frame, maps};

/// Whether the endpoint asks for answers.
#[inline(always)]
pub(crate) const fn is_wanted(endpoint: &Endpoint) -> bool {
    endpoint.flags & flags::REJECT != 0
}

/// Answers a denied packet, or does not; what is to become of it.
#[inline(always)]
pub(crate) fn answer(hook: &Hook, endpoint: &Endpoint, reason: DropReason, ctx: &TcContext) -> i32 {
    let wanted = is_wanted(endpoint)
        && matches!(reason, DropReason::NotAllowed | DropReason::FlowRevoked)
        && maps::take_answer(endpoint.counters);
    if !wanted {
        return TC_ACT_SHOT;
    }
    let written = match packet::network(&Frame::again(ctx)) {
        Ok(Network::Ipv4) => write_ipv4(ctx),
        Ok(Network::Ipv6) => write_ipv6(ctx),
        Ok(Network::Arp) | Err(_) => NOT_WRITTEN,
    };
    if written == NOT_WRITTEN {
        return TC_ACT_SHOT;
    }
    let flags = match hook.direction {
        Direction::Ingress => u64::from(BPF_F_INGRESS),
        Direction::Egress => 0,
    };
    // SAFETY: the mark is the program's to write; the redirect is carried out by the kernel after
    // the program has returned what the helper says.
    let action = unsafe {
        (*ctx.skb.skb).mark = ANSWER_MARK;
        bpf_redirect(hook.ifindex, flags)
    };
    if action == i64::from(TC_ACT_REDIRECT) { TC_ACT_REDIRECT } else { TC_ACT_SHOT }
}

/// Whether this packet has the mark of an answer.
#[inline(always)]
pub(crate) fn is_marked(ctx: &TcContext) -> bool {
    // SAFETY: the mark is the program's to read.
    unsafe { (*ctx.skb.skb).mark == ANSWER_MARK }
}

/// Whether this packet is an answer that was sent back; the mark is taken off it.
#[inline(always)]
pub(crate) fn is_own_answer(ctx: &TcContext) -> bool {
    let own = is_marked(ctx);
    if own {
        clear_mark(ctx.skb.skb);
    }
    own
}

/// A function of its own, so that the compiler does not read and write through one computed
/// pointer: the verifier admits fields of the context at constant offsets alone.
// SAFETY: nothing else in the object has this name.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn clear_mark(skb: *mut __sk_buff) -> u32 {
    // SAFETY: the mark is the program's to write.
    unsafe { (*skb).mark = 0 };
    0
}

const NOT_WRITTEN: u32 = 0;
const WRITTEN: u32 = 1;

#[inline(never)]
fn write_ipv4(ctx: &TcContext) -> u32 {
    let frame = Frame::again(ctx);
    let mut bytes = [0; MAX_LEN];
    let len = answer::write(&frame, &packet::parse_ipv4(&frame), &mut bytes);
    replace(ctx, &bytes, len)
}

#[inline(never)]
fn write_ipv6(ctx: &TcContext) -> u32 {
    let frame = Frame::again(ctx);
    let mut bytes = [0; MAX_LEN];
    let len = answer::write(&frame, &packet::parse_ipv6(&frame), &mut bytes);
    replace(ctx, &bytes, len)
}

/// Makes the packet the first `len` of `bytes`.
#[inline(always)]
fn replace(ctx: &TcContext, bytes: &[u8; MAX_LEN], len: usize) -> u32 {
    if len == 0 || len > MAX_LEN {
        return NOT_WRITTEN;
    }
    // SAFETY: a live context; pointers into the packet that were taken before are not used again.
    if unsafe { bpf_skb_change_tail(ctx.skb.skb, len as u32, 0) } != 0 {
        return NOT_WRITTEN;
    }
    // SAFETY: `bytes` has at least `len` bytes, by the comparison above.
    let stored = unsafe {
        aya_ebpf::helpers::bpf_skb_store_bytes(
            ctx.skb.skb.cast(),
            0,
            bytes.as_ptr().cast(),
            len as u32,
            0,
        )
    };
    if stored == 0 { WRITTEN } else { NOT_WRITTEN }
}
