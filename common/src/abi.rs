//! Names and capacities of the maps: what the agent and the programs must agree on.

use crate::verdict::{COLUMNS, Direction, Verdict};

/// Names of programs and maps in the eBPF object.
pub mod name {
    /// Program at the egress hook of a host-side veth: packets to the pod.
    pub const TO_POD: &str = "to_pod";
    /// Program at the ingress hook of a host-side veth: packets from the pod.
    pub const FROM_POD: &str = "from_pod";
    /// Program at the node's uplink: packets from elsewhere. Attached only where the agent is told to.
    pub const UPLINK: &str = "uplink";
    /// Program that does nothing, for benchmarks to measure from. Never attached.
    pub const EMPTY: &str = "empty";
    /// ifindex (`u32`), below [`super::INTERFACES`] -> [`super::endpoint_place`] (`u32`), or zero.
    pub const INTERFACES: &str = "INTERFACES";
    /// The same for interfaces of a higher number.
    pub const INTERFACES_ABOVE: &str = "INTERFACES_ABOVE";
    /// [`super::endpoint_place`] -> [`crate::value::Endpoint`].
    pub const ENDPOINTS: &str = "ENDPOINTS";
    /// [`crate::key::Ipv4`] of a pod -> its host-side interface (`u32`).
    pub const LOCALS_V4: &str = "LOCALS_V4";
    /// [`crate::key::Ipv6`] of a pod -> its host-side interface (`u32`).
    pub const LOCALS_V6: &str = "LOCALS_V6";
    /// [`crate::key::Ipv4`] -> [`crate::value::Peer`].
    pub const PEERS_V4: &str = "PEERS_V4";
    /// [`crate::key::Ipv6`] -> [`crate::value::Peer`].
    pub const PEERS_V6: &str = "PEERS_V6";
    /// Longest prefix of [`crate::key::Ipv4`] -> [`crate::value::Peer`].
    pub const CIDRS_V4: &str = "CIDRS_V4";
    /// Longest prefix of [`crate::key::Ipv6`] -> [`crate::value::Peer`].
    pub const CIDRS_V6: &str = "CIDRS_V6";
    /// [`crate::key::RuleKey`] -> [`crate::value::PortSet`].
    pub const RULES: &str = "RULES";
    /// index -> [`crate::value::PortRange`].
    pub const PORT_RANGES: &str = "PORT_RANGES";
    /// [`crate::key::FlowKey<4>`] -> [`crate::value::Flow`].
    pub const FLOWS_V4: &str = "FLOWS_V4";
    /// [`crate::key::FlowKey<16>`] -> [`crate::value::Flow`].
    pub const FLOWS_V6: &str = "FLOWS_V6";
    /// [`crate::key::FragmentKey<4>`] -> [`crate::value::Fragment`].
    pub const FRAGMENTS_V4: &str = "FRAGMENTS_V4";
    /// [`crate::key::FragmentKey<16>`] -> [`crate::value::Fragment`].
    pub const FRAGMENTS_V6: &str = "FRAGMENTS_V6";
    /// [`crate::decide::memo::Question::place`] -> [`crate::decide::memo::Memo<4>`], for each CPU.
    pub const MEMOS_V4: &str = "MEMOS_V4";
    /// The same -> [`crate::decide::memo::Memo<16>`], for each CPU.
    pub const MEMOS_V6: &str = "MEMOS_V6";
    /// 0: IPv4, 1: IPv6 -> flow entries that were made (`u64`), for each CPU.
    pub const FLOWS_MADE: &str = "FLOWS_MADE";
    /// [`super::counter_index`] -> [`crate::value::Counter`], for each CPU.
    pub const COUNTERS: &str = "COUNTERS";
    /// Ring buffer of [`crate::event::Event`].
    pub const EVENTS: &str = "EVENTS";
    /// counter block -> events left in this interval (`u32`), for each CPU.
    pub const EVENT_BUDGETS: &str = "EVENT_BUDGETS";
    /// counter block -> events not written (`u64`), for each CPU.
    pub const EVENTS_SUPPRESSED: &str = "EVENTS_SUPPRESSED";
    /// counter block -> [`crate::value::AnswerBucket`], for each CPU.
    pub const ANSWER_BUCKETS: &str = "ANSWER_BUCKETS";
}

/// The mark on answers to rejected packets, between the program that makes one and the other one
/// of the same interface, which takes it off.
pub const ANSWER_MARK: u32 = 0xb41c_4ead;

/// Endpoints of one node. Kubernetes recommends at most 110 pods a node.
pub const ENDPOINTS: u32 = 1024;
/// Places of endpoints: two for each block of counters.
pub const ENDPOINT_PLACES: u32 = 2 * (ENDPOINTS + 1);
/// Addresses of each family that endpoints have: one each, and as many that old ones had.
pub const LOCALS: u32 = 2 * ENDPOINTS;
/// Interfaces that are found without hashing.
pub const INTERFACES: u32 = 65_536;
/// Addresses of each family that a policy of this node asks about.
pub const PEERS: u32 = 262_144;
/// Prefixes of each family at which what the policies of this node say about addresses changes.
pub const CIDRS: u32 = 262_144;
/// Pairs of policy set and identity.
pub const RULES: u32 = 262_144;
/// Ranges of ports, over all port sets.
pub const PORT_RANGES: u32 = 65_536;
/// Flows of each family; the least recently used make room.
pub const FLOWS: u32 = 131_072;
/// Datagrams of each family whose fragments are on their way; the least recently used make room.
pub const FRAGMENTS: u32 = 8192;
/// Answers of rules that each CPU keeps for each family: a power of two. New ones take the places of
/// old ones.
pub const MEMOS: u32 = 1024;
/// Bytes of the event ring buffer: a power of two, a multiple of the page size.
pub const EVENTS_BYTES: u32 = 262_144;
/// Counters: a block for each endpoint, and block 0 for packets at an unknown one.
pub const COUNTERS: u32 = (ENDPOINTS + 1) * COUNTERS_PER_BLOCK;
const COUNTERS_PER_BLOCK: u32 = 2 * COLUMNS;
/// The counter block of packets that meet a program whose endpoint is not in the map.
pub const COUNTER_BLOCK_UNKNOWN: u32 = 0;

/// The place in `ENDPOINTS` of the endpoint that has a block of counters: one of two.
#[inline(always)]
pub const fn endpoint_place(block: u32, second: bool) -> u32 {
    block * 2 + second as u32
}

/// The index in `COUNTERS` of a verdict of an endpoint in one direction.
#[inline(always)]
pub const fn counter_index(block: u32, direction: Direction, verdict: Verdict) -> u32 {
    block * COUNTERS_PER_BLOCK + direction as u32 * COLUMNS + verdict.column()
}

/// Every index in `COUNTERS` of one block.
pub const fn counter_block(block: u32) -> core::ops::Range<u32> {
    block * COUNTERS_PER_BLOCK..(block + 1) * COUNTERS_PER_BLOCK
}
