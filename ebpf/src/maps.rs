//! The maps, and access to them.
#![expect(unsafe_code, reason = "map values are read through the kernel's pointers")]

use aya_ebpf::{
    bindings::BPF_ANY,
    btf_maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf, lpm_trie},
    helpers::{bpf_ktime_get_coarse_ns, bpf_ktime_get_ns},
    macros::btf_map,
};
use bulkhead_common::{
    abi,
    decide::{
        self, Maps,
        memo::{Memo, Question},
    },
    event::Event,
    key::{Address, FlowKey, FragmentKey, Ipv4, Ipv6, Port, RuleKey},
    packet::Packet,
    value::{AnswerBucket, Counter, Endpoint, Flow, Fragment, Peer, PortRange, PortSet},
    verdict::{Direction, Verdict},
};

use crate::globals;

const NO_PREALLOC: usize = aya_ebpf::bindings::BPF_F_NO_PREALLOC as usize;

#[btf_map]
static INTERFACES: Array<u32, { abi::INTERFACES as usize }> = Array::new();
#[btf_map]
static INTERFACES_ABOVE: HashMap<u32, u32, { abi::ENDPOINTS as usize }> = HashMap::new();
#[btf_map]
static ENDPOINTS: Array<Endpoint, { abi::ENDPOINT_PLACES as usize }> = Array::new();
#[btf_map]
static LOCALS_V4: HashMap<Ipv4, u32, { abi::LOCALS as usize }, NO_PREALLOC> = HashMap::new();
#[btf_map]
static LOCALS_V6: HashMap<Ipv6, u32, { abi::LOCALS as usize }, NO_PREALLOC> = HashMap::new();
#[btf_map]
static PEERS_V4: HashMap<Ipv4, Peer, { abi::PEERS as usize }, NO_PREALLOC> = HashMap::new();
#[btf_map]
static PEERS_V6: HashMap<Ipv6, Peer, { abi::PEERS as usize }, NO_PREALLOC> = HashMap::new();
#[btf_map]
static CIDRS_V4: LpmTrie<Ipv4, Peer, { abi::CIDRS as usize }> = LpmTrie::new();
#[btf_map]
static CIDRS_V6: LpmTrie<Ipv6, Peer, { abi::CIDRS as usize }> = LpmTrie::new();
#[btf_map]
static RULES: HashMap<RuleKey, PortSet, { abi::RULES as usize }, NO_PREALLOC> = HashMap::new();
#[btf_map]
static PORT_RANGES: Array<PortRange, { abi::PORT_RANGES as usize }> = Array::new();
#[btf_map]
static FLOWS_V4: LruHashMap<FlowKey<4>, Flow, { abi::FLOWS as usize }> = LruHashMap::new();
#[btf_map]
static FLOWS_V6: LruHashMap<FlowKey<16>, Flow, { abi::FLOWS as usize }> = LruHashMap::new();
#[btf_map]
static FRAGMENTS_V4: LruHashMap<FragmentKey<4>, Fragment, { abi::FRAGMENTS as usize }> =
    LruHashMap::new();
#[btf_map]
static FRAGMENTS_V6: LruHashMap<FragmentKey<16>, Fragment, { abi::FRAGMENTS as usize }> =
    LruHashMap::new();
#[btf_map]
static MEMOS_V4: PerCpuArray<Memo<4>, { abi::MEMOS as usize }> = PerCpuArray::new();
#[btf_map]
static MEMOS_V6: PerCpuArray<Memo<16>, { abi::MEMOS as usize }> = PerCpuArray::new();
#[btf_map]
static FLOWS_MADE: PerCpuArray<u64, 2> = PerCpuArray::new();
#[btf_map]
static PACKET: PerCpuArray<PacketBytes, 1> = PerCpuArray::new();
#[btf_map]
static COUNTERS: PerCpuArray<Counter, { abi::COUNTERS as usize }> = PerCpuArray::new();
#[btf_map]
static EVENTS: RingBuf<Event, { abi::EVENTS_BYTES as usize }> = RingBuf::new();
#[btf_map]
static EVENT_BUDGETS: PerCpuArray<u32, { abi::ENDPOINTS as usize + 1 }> = PerCpuArray::new();
#[btf_map]
static ANSWER_BUCKETS: PerCpuArray<AnswerBucket, { abi::ENDPOINTS as usize + 1 }> =
    PerCpuArray::new();
#[btf_map]
static EVENTS_SUPPRESSED: PerCpuArray<u64, { abi::ENDPOINTS as usize + 1 }> = PerCpuArray::new();

/// The endpoint of a host-side interface.
#[inline(always)]
pub(crate) fn endpoint(ifindex: u32) -> Option<&'static Endpoint> {
    let place = match INTERFACES.get(ifindex) {
        Some(place) => *place,
        // SAFETY: copied out at once; programs never write it.
        None => unsafe { INTERFACES_ABOVE.get(ifindex).copied() }?,
    };
    if place == 0 {
        return None;
    }
    // Programs only read endpoints. The agent may fill a place anew while a packet is still reading
    // it: see `epoch`.
    ENDPOINTS.get(place)
}

/// The host-side interface of the pod that has an address.
#[inline(always)]
pub(crate) fn local_v4(address: &Ipv4) -> Option<u32> {
    // SAFETY: copied out at once; programs never write it.
    unsafe { LOCALS_V4.get(address).copied() }
}

/// The host-side interface of the pod that has an address.
#[inline(always)]
pub(crate) fn local_v6(address: &Ipv6) -> Option<u32> {
    // SAFETY: copied out at once; programs never write it.
    unsafe { LOCALS_V6.get(address).copied() }
}

/// The epoch that stands in an endpoint now. No two values ever have the same, and while one is
/// written it is zero, so a verdict came from one value, whole, if it is another one, and the same
/// before and after.
#[inline(always)]
pub(crate) fn epoch(endpoint: &Endpoint) -> u32 {
    // SAFETY: reads through a reference; volatile, since the agent may write meanwhile.
    unsafe { core::ptr::read_volatile(&raw const endpoint.epoch) }
}

/// Counts one packet.
#[inline(always)]
pub(crate) fn count(block: u32, direction: Direction, verdict: Verdict, bytes: u64) {
    if let Some(counter) = COUNTERS.get_ptr_mut(abi::counter_index(block, direction, verdict)) {
        // SAFETY: this CPU's own slot, and a program is not interrupted by itself on one CPU.
        unsafe {
            (*counter).packets += 1;
            (*counter).bytes += bytes;
        }
    }
}

/// Whether there is something in a block's budget.
#[inline(always)]
pub(crate) fn has_event_budget(block: u32) -> bool {
    EVENT_BUDGETS.get(block).is_some_and(|budget| *budget > 0)
}

/// Takes one event out of a block's budget, which the agent fills up from time to time.
///
/// So that neither a flood of drops nor the agent's absence costs more than a counter.
#[inline(always)]
pub(crate) fn take_event_budget(block: u32) -> bool {
    let Some(budget) = EVENT_BUDGETS.get_ptr_mut(block) else {
        return false;
    };
    // SAFETY: this CPU's own slot. Where the agent fills it up meanwhile, one event more or less
    // is written.
    unsafe {
        let left = *budget;
        if left > 0 {
            *budget = left - 1;
        }
        left > 0
    }
}

/// Takes one answer out of an endpoint's token bucket.
#[inline(always)]
pub(crate) fn take_answer(block: u32) -> bool {
    let Some(bucket) = ANSWER_BUCKETS.get_ptr_mut(block) else {
        return false;
    };
    // SAFETY: this CPU's own slot, and a program is not interrupted by itself on one CPU; the
    // helper reads a clock.
    unsafe { (*bucket).take(bpf_ktime_get_ns()) }
}

/// Counts an event that was not written.
#[inline(always)]
pub(crate) fn suppress_event(block: u32) {
    if let Some(suppressed) = EVENTS_SUPPRESSED.get_ptr_mut(block) {
        // SAFETY: this CPU's own slot, and a program is not interrupted by itself on one CPU.
        unsafe { *suppressed += 1 };
    }
}

/// Writes an event; whether there was room for it.
#[inline(always)]
pub(crate) fn write_event(event: &Event) -> bool {
    EVENTS.output(event, 0).is_ok()
}

/// Counts a flow entry that was made, of IPv4 (0) or IPv6 (1).
#[inline(always)]
fn count_flow(family: u32) {
    if let Some(made) = FLOWS_MADE.get_ptr_mut(family) {
        // SAFETY: this CPU's own slot, and a program is not interrupted by itself on one CPU.
        unsafe { *made += 1 };
    }
}

/// Whether one of the ranges at `start` has the port; zero if not.
///
/// A global function: the verifier goes through the search once, and not for each packet that it
/// imagines.
// SAFETY: nothing else in the object has this name.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn search_ranges(start: u32, len: u32, protocol: u32, port: u32) -> u32 {
    let range = |index| PORT_RANGES.get(index).copied();
    let port = Port::new(port as u16);
    u32::from(decide::is_in_ranges(&PortSet { start, len }, protocol as u8, port, range))
}

// Global functions, as `search_ranges`: for where the verifier would otherwise imagine each
// outcome of each look-up together with all others.

// SAFETY: nothing else in the object has this name.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn identity_v4(address: u32, flags: u32) -> u32 {
    decide::identity_in(&Tables::<false>, &Ipv4::from_words(|_| address), flags)
}

// SAFETY: nothing else in the object has this name.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn identity_v6(a: u32, b: u32, c: u32, d: u32, flags: u32) -> u32 {
    let address = Ipv6::from_words(|index| match index {
        0 => a,
        1 => b,
        2 => c,
        _ => d,
    });
    decide::identity_in(&Tables::<false>, &address, flags)
}

/// Whether a rule allows a port; zero if not.
// SAFETY: nothing else in the object has this name.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn rule_allows(policy_set: u32, identity: u32, protocol: u32, port: u32) -> u32 {
    let key = RuleKey { policy_set, identity };
    let port = Port::new(port as u16);
    u32::from(decide::allows_in::<4, _>(&Tables::<false>, &key, protocol as u8, port))
}

/// Room for a [`Packet`] of either family, between the functions of one program.
type PacketBytes = [u64; 12];
const _: () = assert!(size_of::<Packet<16>>() <= size_of::<PacketBytes>());
const _: () = assert!(align_of::<Packet<16>>() <= align_of::<PacketBytes>());

/// This CPU's room for a packet.
#[inline(always)]
pub(crate) fn packet<const N: usize>() -> Option<&'static mut Packet<N>> {
    let packet = PACKET.get_ptr_mut(0)?.cast::<Packet<N>>();
    // SAFETY: this CPU's own slot, with room for it. No other packet is judged on this CPU until this
    // one is, each function of the program has it for itself, and the first one fills it.
    Some(unsafe { &mut *packet })
}

/// The maps as `decide` asks for them; with `CALLS`, by way of global functions where there are
/// some.
pub(crate) struct Tables<const CALLS: bool>;

macro_rules! maps {
    ($n:literal, $family:literal, $identity:ident($($word:literal),+), $peers:ident, $cidrs:ident, $memos:ident, $flows:ident, $fragments:ident) => {
        impl<const CALLS: bool> Maps<$n> for Tables<CALLS> {
            #[inline(always)]
            fn peer(&self, address: &Address<$n>) -> Option<Peer> {
                // SAFETY: copied out at once; programs never write it.
                unsafe { $peers.get(address).copied() }
            }

            #[inline(always)]
            fn cidr(&self, address: &Address<$n>) -> Option<Peer> {
                $cidrs.get(&lpm_trie::Key::new(8 * $n, *address)).copied()
            }

            #[inline(always)]
            fn rule(&self, key: &RuleKey) -> Option<PortSet> {
                // SAFETY: copied out at once; programs never write it.
                unsafe { RULES.get(key).copied() }
            }

            #[inline(always)]
            fn is_in_ranges(&self, set: &PortSet, protocol: u8, port: Port) -> bool {
                let port = u32::from(port.number());
                search_ranges(set.start, set.len, u32::from(protocol), port) != 0
            }

            #[inline(always)]
            fn identity(&self, address: &Address<$n>, flags: u32) -> u32 {
                if CALLS {
                    $identity($(address.word($word),)+ flags)
                } else {
                    decide::identity_in(self, address, flags)
                }
            }

            #[inline(always)]
            fn allows(&self, key: &RuleKey, protocol: u8, port: Port) -> bool {
                if CALLS {
                    let port = u32::from(port.number());
                    rule_allows(key.policy_set, key.identity, u32::from(protocol), port) != 0
                } else {
                    decide::allows_in::<$n, _>(self, key, protocol, port)
                }
            }

            #[inline(always)]
            fn with_memo<R>(
                &self,
                question: &Question<$n>,
                call: impl FnOnce(&mut Memo<$n>) -> R,
            ) -> Option<R> {
                if CALLS {
                    // Off the common path, it would only cost the verifier time.
                    return None;
                }
                let memo = $memos.get_ptr_mut(question.place(abi::MEMOS))?;
                // SAFETY: this CPU's own slot, and a program is not interrupted by itself on one CPU.
                Some(call(unsafe { &mut *memo }))
            }

            #[inline(always)]
            fn flow(&self, key: &FlowKey<$n>) -> Option<Flow> {
                // SAFETY: copied out at once. Another CPU may replace the flow meanwhile: each of
                // its fields is still one that was written for this key or a later one.
                unsafe { $flows.get(key).copied() }
            }

            #[inline(always)]
            fn make_flow(&self, key: &FlowKey<$n>, flow: &Flow) {
                count_flow($family);
                self.set_flow(key, flow);
            }

            #[inline(always)]
            fn set_flow(&self, key: &FlowKey<$n>, flow: &Flow) {
                // A flow that finds no room heals with its next packet.
                let _written: Result<(), i32> = $flows.insert(key, flow, u64::from(BPF_ANY));
            }

            #[inline(always)]
            fn fragment(&self, key: &FragmentKey<$n>) -> Option<Fragment> {
                // SAFETY: copied out at once. Another CPU may replace it meanwhile: each of its
                // fields is still one that was written for this key or a later one.
                unsafe { $fragments.get(key).copied() }
            }

            #[inline(always)]
            fn set_fragment(&self, key: &FragmentKey<$n>, fragment: &Fragment) {
                // Without it, the later fragments are denied.
                let _written: Result<(), i32> =
                    $fragments.insert(key, fragment, u64::from(BPF_ANY));
            }

            #[inline(always)]
            fn now_ns(&self) -> u64 {
                // SAFETY: reads a clock.
                unsafe {
                    if globals::coarse_clock() {
                        bpf_ktime_get_coarse_ns()
                    } else {
                        bpf_ktime_get_ns()
                    }
                }
            }
        }
    };
}
maps!(4, 0, identity_v4(0), PEERS_V4, CIDRS_V4, MEMOS_V4, FLOWS_V4, FRAGMENTS_V4);
maps!(16, 1, identity_v6(0, 1, 2, 3), PEERS_V6, CIDRS_V6, MEMOS_V6, FLOWS_V6, FRAGMENTS_V6);
