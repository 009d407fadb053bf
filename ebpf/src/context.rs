//! Access to the packet at a TC hook.
#![expect(unsafe_code, reason = "reads the packet and its metadata through the kernel's pointers")]

use aya_ebpf::{bindings::__sk_buff, programs::TcContext};
use bulkhead_common::{
    decide::Hook,
    packet::{self, Bytes, HEADERS_LEN, Header, Last},
    verdict::Direction,
};

/// A frame whose first [`HEADERS_LEN`] bytes, as far as it has them, can be read directly.
pub(crate) struct Frame {
    /// By value: a reference would need another place on the stack to refer to.
    ctx: TcContext,
    start: usize,
    end: usize,
}

impl Frame {
    /// Makes the headers linear where they are not.
    ///
    /// Where the kernel has no memory for that, reads past the linear part find the frame too
    /// short, so that an isolated pod's packet is denied.
    #[inline(always)]
    pub(crate) fn new(ctx: &TcContext) -> Self {
        let wanted = (ctx.len() as usize).min(HEADERS_LEN);
        if ctx.data() + wanted > ctx.data_end() {
            // Said again by every read that needs the bytes.
            let _pulled: Result<(), _> = ctx.pull_data(wanted as u32);
        }
        Self::again(ctx)
    }

    /// The frame once more, after [`Frame::new`].
    #[inline(always)]
    pub(crate) fn again(ctx: &TcContext) -> Self {
        Self { ctx: TcContext::new(ctx.skb.skb), start: ctx.data(), end: ctx.data_end() }
    }

    /// The program's context.
    #[inline(always)]
    pub(crate) const fn context(&self) -> &TcContext {
        &self.ctx
    }

    /// The host-side interface.
    #[inline(always)]
    pub(crate) fn ifindex(&self) -> u32 {
        // SAFETY: the context that the kernel passed to the program; the verifier checks each field.
        unsafe { (*self.ctx.skb.skb).ifindex }
    }

    /// What the kernel knows of the packet beside its bytes, at the endpoint that has a block of
    /// counters.
    #[inline(always)]
    pub(crate) fn hook(&self, direction: Direction, block: u32) -> Hook {
        let skb = self.ctx.skb.skb;
        // SAFETY: the context that the kernel passed to the program; the verifier checks each field.
        let (ifindex, ingress_ifindex, tag, vlan_present) = unsafe {
            ((*skb).ifindex, (*skb).ingress_ifindex, (*skb).tc_index, (*skb).vlan_present)
        };
        let to_pod = matches!(direction, Direction::Ingress);
        Hook {
            direction,
            ifindex,
            from_own_node: to_pod && ingress_ifindex == 0,
            from_itself: to_pod && tag == block,
            vlan_tagged: vlan_present != 0,
        }
    }

    /// Writes the pod's block of counters, which is a number from 1 on, into a packet that it sends:
    /// should the packet come back, it is known. `tc_index` (linux/skbuff.h) stays with a packet on
    /// its way through one network namespace, whatever it is translated to.
    #[inline(always)]
    pub(crate) fn tag(&self, block: u32) {
        // SAFETY: the context that the kernel passed to the program; the verifier checks the field.
        unsafe { (*self.ctx.skb.skb).tc_index = block };
    }

    /// Length in bytes, headers included.
    #[inline(always)]
    pub(crate) fn wire_len(&self) -> u64 {
        u64::from(self.ctx.len())
    }
}

impl Bytes for Frame {
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
        // again; `Header` vouches for every bit pattern; the network header is 4-aligned behind the
        // Ethernet header (NET_IP_ALIGN, include/linux/skbuff.h), and `Header`s ask for no more.
        Some(unsafe { *(at as *const T) })
    }

    #[inline(always)]
    fn last_header(&self, first: u8, end: usize) -> Last {
        Last::unpack(follow_extension_headers(self.ctx.skb.skb, first.into(), end as u64))
    }

    #[inline(always)]
    fn len(&self) -> usize {
        self.ctx.len() as usize
    }
}

/// A global function: the verifier goes through the chain once, and not through all that comes
/// after it for each chain that it imagines.
// SAFETY: nothing else in the object has this name.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn follow_extension_headers(skb: *mut __sk_buff, first: u32, end: u64) -> u64 {
    let ctx = &TcContext::new(skb);
    packet::follow(&Frame::again(ctx), first as u8, end as usize).pack()
}
