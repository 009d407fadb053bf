//! Drop events: what was dropped, and why, for the agent's log.
//!
//! Off the common path: headers are read once more, so that the verdict's own path keeps nothing
//! for it. Every drop is counted elsewhere, whether or not there is an event of it.

use aya_ebpf::programs::TcContext;
use bulkhead_common::{
    decide::Hook,
    event::Event,
    packet::{self, Bytes as _, Network, Packet},
    value::Endpoint,
    verdict::{Direction, DropReason},
};

use crate::{context::Frame, maps};

/// Whether [`report`] would report a drop; if not, it is counted that it did not.
#[inline(always)]
pub(crate) fn is_reported(endpoint: &Endpoint) -> bool {
    let reported = maps::has_event_budget(endpoint.counters);
    if !reported {
        maps::suppress_event(endpoint.counters);
    }
    reported
}

/// Reports a drop, as far as the endpoint's budget goes.
#[inline(always)]
pub(crate) fn report(hook: &Hook, endpoint: &Endpoint, reason: DropReason, frame: &Frame) {
    if !maps::take_event_budget(endpoint.counters) {
        maps::suppress_event(endpoint.counters);
        return;
    }
    let mut event = Event {
        ifindex: hook.ifindex,
        length: frame.len() as u32,
        direction: hook.direction as u8,
        reason: reason as u8,
        ..Event::EMPTY
    };
    event.family = match packet::network(frame) {
        Ok(Network::Ipv4) => read_ipv4(frame.context(), &mut event),
        Ok(Network::Ipv6) => read_ipv6(frame.context(), &mut event),
        Ok(Network::Arp) | Err(_) => 0,
    };
    if !maps::write_event(&event) {
        maps::suppress_event(endpoint.counters);
    }
}

// Functions of their own in the kernel, too. They return the family: the verifier asks for a number
// in every return.
#[inline(never)]
fn read_ipv4(ctx: &TcContext, event: &mut Event) -> u8 {
    fill(event, &packet::parse_ipv4(&Frame::again(ctx)), 4)
}

#[inline(never)]
fn read_ipv6(ctx: &TcContext, event: &mut Event) -> u8 {
    fill(event, &packet::parse_ipv6(&Frame::again(ctx)), 6)
}

/// Reports a packet that was dropped ahead of the pod's hook, as far as the endpoint's budget goes.
#[inline(always)]
pub(crate) fn report_ahead<const N: usize>(
    ifindex: u32,
    length: u32,
    endpoint: &Endpoint,
    reason: DropReason,
    packet: &Packet<N>,
) {
    if !maps::take_event_budget(endpoint.counters) {
        maps::suppress_event(endpoint.counters);
        return;
    }
    let mut event = Event {
        ifindex,
        length,
        direction: Direction::Ingress as u8,
        reason: reason as u8,
        ..Event::EMPTY
    };
    event.family = fill(&mut event, packet, if N == 4 { 4 } else { 6 });
    if !maps::write_event(&event) {
        maps::suppress_event(endpoint.counters);
    }
}

/// The family, or zero if there are no addresses to tell.
#[inline(always)]
fn fill<const N: usize>(event: &mut Event, packet: &Packet<N>, family: u8) -> u8 {
    if let Some(source) = event.source.first_chunk_mut::<N>() {
        *source = packet.source.0;
    }
    if let Some(destination) = event.destination.first_chunk_mut::<N>() {
        *destination = packet.destination.0;
    }
    event.protocol = packet.protocol;
    event.source_port = packet.transport.source_port;
    event.destination_port = packet.transport.destination_port;
    if packet.unaddressed.is_some() { 0 } else { family }
}
