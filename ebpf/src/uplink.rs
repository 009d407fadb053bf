//! The program at the node's uplink: drops early what `to_pod` would drop anyway.
//!
//! An addition, for floods: `to_pod` judges everything that passes here. Nothing is remembered, and
//! what is dropped is counted and reported as `to_pod` would. Invariant: where anything is in doubt,
//! the packet passes untouched.
#![expect(unsafe_code, reason = "reads the packet through the kernel's pointers")]

use aya_ebpf::{
    bindings::{xdp_action, xdp_md},
    macros::xdp,
    programs::XdpContext,
};
use bulkhead_common::{
    decide::{self, Family, Maps},
    key::Address,
    packet::{self, Bytes, HEADERS_LEN, Header, Last, Network},
    verdict::{Direction, Verdict},
};

use crate::{
    events,
    maps::{self, Tables},
};

/// Packets that come in at a device of the node.
#[xdp]
fn uplink(ctx: XdpContext) -> u32 {
    let seen = match packet::network(&Received::new(ctx.ctx)) {
        Ok(Network::Ipv4) => judge_v4(ctx.ctx),
        Ok(Network::Ipv6) => judge_v6(ctx.ctx),
        Ok(Network::Arp) | Err(_) => PASSES,
    };
    match seen {
        DROPS => xdp_action::XDP_DROP,
        _ => xdp_action::XDP_PASS,
    }
}

const PASSES: u32 = 0;
const DROPS: u32 = 1;

// Functions of their own in the kernel, too: a stack for each family.
#[inline(never)]
fn judge_v4(ctx: *mut xdp_md) -> u32 {
    judge::<4>(&Received::new(ctx), maps::local_v4)
}

#[inline(never)]
fn judge_v6(ctx: *mut xdp_md) -> u32 {
    judge::<16>(&Received::new(ctx), maps::local_v6)
}

#[inline(always)]
fn judge<const N: usize>(frame: &Received, local: impl FnOnce(&Address<N>) -> Option<u32>) -> u32
where
    Address<N>: Family<N>,
    Tables<true>: Maps<N>,
{
    let Some(destination) = Address::destination(frame) else {
        return PASSES;
    };
    let Some(ifindex) = local(&destination) else {
        return PASSES;
    };
    let Some(endpoint) = maps::endpoint(ifindex) else {
        return PASSES;
    };
    let epoch = maps::epoch(endpoint);
    // The address may lead to a place that is another pod's by now.
    if !decide::is_judged_ahead(endpoint, &destination) {
        return PASSES;
    }
    let packet = Address::packet(frame);
    let Some(reason) = decide::ahead(endpoint, &packet, &Tables::<true>) else {
        return PASSES;
    };
    // It came from one value of the endpoint, whole, and one whose rules were there.
    if maps::endpoint(ifindex).is_none_or(|endpoint| maps::epoch(endpoint) != epoch) {
        return PASSES;
    }
    let length = frame.len() as u32;
    let verdict = Verdict::Deny(reason);
    maps::count(endpoint.counters, Direction::Ingress, verdict, u64::from(length));
    events::report_ahead(ifindex, length, endpoint, reason, &packet);
    DROPS
}

/// A frame as a device hands it over. Its headers are in one piece; so is the rest, since the program
/// does not say that it could do with fragments of memory.
struct Received {
    ctx: *mut xdp_md,
    start: usize,
    end: usize,
}

impl Received {
    #[inline(always)]
    fn new(ctx: *mut xdp_md) -> Self {
        let context = XdpContext::new(ctx);
        Self { ctx, start: context.data(), end: context.data_end() }
    }
}

impl Bytes for Received {
    #[inline(always)]
    fn read<T: Header>(&self, offset: usize) -> Option<T> {
        if offset > HEADERS_LEN {
            return None;
        }
        let at = self.start + offset;
        if at + size_of::<T>() > self.end {
            return None;
        }
        // SAFETY: the comparison above keeps the read inside the packet, which the verifier proves
        // again; `Header` vouches for every bit pattern. Drivers align the network header where the
        // machine asks for it (NET_IP_ALIGN, include/linux/skbuff.h).
        Some(unsafe { *(at as *const T) })
    }

    #[inline(always)]
    fn last_header(&self, first: u8, end: usize) -> Last {
        Last::unpack(follow_received(self.ctx, first.into(), end as u64))
    }

    #[inline(always)]
    fn len(&self) -> usize {
        received_len(self.ctx) as usize
    }
}

/// A global function, so that the compiler cannot cut down the ends before it takes one from the
/// other: the verifier admits the difference of two pointers, and no other arithmetic with them.
// SAFETY: nothing else in the object has this name.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn received_len(ctx: *mut xdp_md) -> u64 {
    let Received { start, end, .. } = Received::new(ctx);
    (end - start) as u64
}

/// A global function, as `follow_extension_headers`, whose context this program has not.
// SAFETY: nothing else in the object has this name.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn follow_received(ctx: *mut xdp_md, first: u32, end: u64) -> u64 {
    packet::follow(&Received::new(ctx), first as u8, end as usize).pack()
}
