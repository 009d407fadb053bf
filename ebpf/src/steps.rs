//! The steps of `decide`, as global functions.
//!
//! The verifier goes through each once and by itself, whatever leads to it. Their arguments are
//! numbers and the context, which is all that Linux 5.10 lets such functions have.
#![expect(unsafe_code, reason = "the names make them global functions")]

use aya_ebpf::{bindings::__sk_buff, programs::TcContext};
use bulkhead_common::{
    decide::{self, Family as _, Met, Steps},
    key::Address,
    packet::Packet,
    verdict::{Direction, DropReason, Verdict},
};

use crate::{
    context::Frame,
    maps::{self, Tables},
};

/// The steps for a packet of IPv4 (4) or IPv6 (16).
pub(crate) struct Calls<const N: usize> {
    pub(crate) skb: *mut __sk_buff,
    pub(crate) direction: u32,
}

macro_rules! steps {
    ($n:literal, $parse:ident, $look:ident, $judge:ident, $remember:ident, $quote:ident, $judge_quoted:ident) => {
        impl Steps for Calls<$n> {
            #[inline(always)]
            fn parse(&mut self) -> u32 {
                $parse(self.skb)
            }

            #[inline(always)]
            fn look(&mut self) -> u32 {
                $look(self.skb, self.direction)
            }

            #[inline(always)]
            fn judge(&mut self) -> u32 {
                $judge(self.skb, self.direction)
            }

            #[inline(always)]
            fn remember(&mut self) -> u32 {
                $remember(self.skb, self.direction)
            }

            #[inline(always)]
            fn quote(&mut self) -> u32 {
                $quote(self.skb)
            }

            #[inline(always)]
            fn judge_quoted(&mut self) -> u32 {
                $judge_quoted(self.skb, self.direction)
            }
        }

        global! {
            fn $parse(skb: *mut __sk_buff) -> u32 {
                with_packet::<$n>(|packet| {
                    *packet = Address::packet(&Frame::again(&TcContext::new(skb)));
                    0
                })
            }

            fn $look(skb: *mut __sk_buff, direction: u32) -> u32 {
                step::<$n>(skb, direction, |met, packet| decide::look(&met, packet))
            }

            fn $judge(skb: *mut __sk_buff, direction: u32) -> u32 {
                step::<$n>(skb, direction, |met, packet| decide::judge(&met, packet))
            }

            fn $remember(skb: *mut __sk_buff, direction: u32) -> u32 {
                step::<$n>(skb, direction, |met, packet| decide::remember(&met, packet))
            }

            fn $quote(skb: *mut __sk_buff) -> u32 {
                with_packet::<$n>(|packet| {
                    decide::quote(&Frame::again(&TcContext::new(skb)), packet)
                })
            }

            fn $judge_quoted(skb: *mut __sk_buff, direction: u32) -> u32 {
                step::<$n>(skb, direction, |met, packet| decide::judge_quoted(&met, packet))
            }
        }
    };
}

macro_rules! global {
    ($(fn $name:ident($($argument:ident: $type:ty),+) -> u32 $body:block)+) => {
        $(
            // SAFETY: nothing else in the object has this name.
            #[unsafe(no_mangle)]
            #[inline(never)]
            extern "C" fn $name($($argument: $type),+) -> u32 $body
        )+
    };
}

steps!(4, parse_v4, look_v4, judge_v4, remember_v4, quote_v4, judge_quoted_v4);
steps!(16, parse_v6, look_v6, judge_v6, remember_v6, quote_v6, judge_quoted_v6);

#[inline(always)]
fn step<const N: usize>(
    skb: *mut __sk_buff,
    direction: u32,
    call: impl FnOnce(Met<'_, Frame, Tables<true>>, &mut Packet<N>) -> u32,
) -> u32 {
    let ctx = &TcContext::new(skb);
    let frame = &Frame::again(ctx);
    let Some(endpoint) = maps::endpoint(frame.ifindex()) else {
        return Verdict::Deny(DropReason::Internal).column();
    };
    let hook = &frame.hook(Direction::from_number(direction), endpoint.counters);
    with_packet(|packet| call(Met { hook, endpoint, frame, maps: &Tables }, packet))
}

#[inline(always)]
fn with_packet<const N: usize>(call: impl FnOnce(&mut Packet<N>) -> u32) -> u32 {
    maps::packet().map_or(Verdict::Deny(DropReason::Internal).column(), call)
}
