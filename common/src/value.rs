//! Values of the maps, byte for byte.
//!
//! No value has padding, `bool`, `char` or `Option` in it (sizes are asserted below): each may be
//! read from memory that the other side wrote.

use crate::{
    key::{Ipv4, Ipv6, Port},
    verdict::Direction,
};

/// One pod's host-side interface, as the programs know it. Value of `endpoints`.
///
/// Each endpoint has two places ([`crate::abi::endpoint_place`]): the agent fills the one that no
/// packet is led to, then writes its number into `interfaces`. So a packet meets either the old or
/// the new value: switching an endpoint is how a policy goes live. The epoch comes first, so that a
/// packet which still reads a place while it is filled anew finds another epoch at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Endpoint {
    /// Raised with every change of this value; a flow entry of an older epoch is judged again.
    pub epoch: u32,
    /// The pod's IPv6 address, or zero.
    pub ipv6: Ipv6,
    /// The pod's IPv4 address, or zero.
    pub ipv4: Ipv4,
    /// What is admitted to the pod. Means nothing unless [`flags::ISOLATED_INGRESS`] is set.
    pub ingress: Side,
    /// What the pod may send. Means nothing unless [`flags::ISOLATED_EGRESS`] is set.
    pub egress: Side,
    /// The block of counters: see [`crate::abi::counter_index`].
    pub counters: u32,
    /// See [`flags`].
    pub flags: u32,
}

/// Bits of [`Endpoint::flags`].
pub mod flags {
    /// A policy isolates the pod for ingress.
    pub const ISOLATED_INGRESS: u32 = 1 << 0;
    /// A policy isolates the pod for egress.
    pub const ISOLATED_EGRESS: u32 = 1 << 1;
    /// A denied peer gets an answer.
    pub const REJECT: u32 = 1 << 2;
    /// The pod may send from its own addresses only.
    pub const CHECK_SOURCE: u32 = 1 << 3;
    /// Of the two identities of a [`super::Peer`], the second counts.
    pub const SECOND_IDENTITY: u32 = 1 << 4;
    /// A policy of the pod names blocks of addresses: an address that is no known peer's is looked
    /// up among them.
    pub const ASKS_CIDRS: u32 = 1 << 5;
    /// What the pod sends to its own node is judged as what it sends to others. What the node opens
    /// to the pod is remembered, for the replies.
    pub const DENY_EGRESS_TO_NODE: u32 = 1 << 6;
}

impl Endpoint {
    /// Whether a policy isolates the pod in `direction`.
    #[inline(always)]
    pub const fn is_isolated(&self, direction: Direction) -> bool {
        let flag = match direction {
            Direction::Ingress => flags::ISOLATED_INGRESS,
            Direction::Egress => flags::ISOLATED_EGRESS,
        };
        self.flags & flag != 0
    }

    /// The compiled policy of `direction`.
    #[inline(always)]
    pub const fn side(&self, direction: Direction) -> &Side {
        match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }
}

/// What a pod's policies add up to in one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Side {
    /// The first half of the key of `rules`.
    pub policy_set: u32,
    /// What is allowed with every peer, known or not.
    pub any_peer: PortSet,
}

impl Side {
    /// Allows nothing.
    pub const NOTHING: Self = Self { policy_set: 0, any_peer: PortSet::NOTHING };
}

/// Ports of any protocol: a run of `port_ranges`, or everything. Value of `rules`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct PortSet {
    /// The first index in `port_ranges`.
    pub start: u32,
    /// How many ranges, in ascending order; [`PortSet::EVERYTHING`] has a number of its own.
    pub len: u32,
}

impl PortSet {
    /// No port of no protocol.
    pub const NOTHING: Self = Self { start: 0, len: 0 };
    /// Every port of every protocol, and protocols without ports.
    pub const EVERYTHING: Self = Self { start: 0, len: u32::MAX };
    /// In `len`: the set is one range, of the protocol in the lowest byte, whose first and last
    /// port are the halves of `start`. It takes no place in `port_ranges`.
    const ONE: u32 = 1 << 31;

    /// A single range, which stands in the set itself.
    pub const fn one(range: PortRange) -> Self {
        Self {
            start: (range.first as u32) << 16 | range.last as u32,
            len: Self::ONE | (range.protocol & 0xff),
        }
    }

    /// Whether the set's ranges stand in `port_ranges`: it is neither empty, nor one range, nor
    /// everything.
    #[inline(always)]
    pub const fn is_placed(&self) -> bool {
        self.len != Self::NOTHING.len && self.len & Self::ONE == 0
    }

    /// The range of a set that [`PortSet::one`] has made; of others, nonsense.
    #[inline(always)]
    pub const fn range(&self) -> PortRange {
        PortRange {
            protocol: self.len & 0xff,
            first: (self.start >> 16) as u16,
            last: self.start as u16,
        }
    }
}

/// Ports `first..=last` of one protocol, in host order. Value of `port_ranges`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct PortRange {
    /// The IP protocol number.
    pub protocol: u32,
    /// The first port.
    pub first: u16,
    /// The last port.
    pub last: u16,
}

/// The identities of an address, or of a block of addresses. Value of `peers_v4`, `peers_v6`,
/// `cidrs_v4` and `cidrs_v6`.
///
/// There are two, and each endpoint says which one counts for it
/// ([`flags::SECOND_IDENTITY`]): the agent prepares the one that no endpoint reads, then switches
/// endpoint by endpoint. So an endpoint never meets its old policy with new identities, nor its
/// new policy with old ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Peer {
    /// Identity zero: nothing that any policy asks about matches the address.
    pub identities: [u32; 2],
}

/// Identity of addresses that no rule names.
pub const IDENTITY_NONE: u32 = 0;
/// The first identity that stands for a set of selectors and blocks.
pub const IDENTITY_FIRST: u32 = 1;
/// This bit marks the node's own addresses. The rest is the identity that rules are asked for: the
/// blocks that the address lies in.
pub const IDENTITY_NODE: u32 = 1 << 31;

/// A flow of one endpoint. Value of `flows_v4` and `flows_v6`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Flow {
    /// When a packet of it last passed, in nanoseconds of the monotonic clock.
    pub seen_ns: u64,
    /// The epoch of the endpoint by which it was last judged.
    pub epoch: u32,
    /// Bits: who opened it and how far it has come. See [`crate::flow`].
    pub state: u32,
}

/// What the first fragment of a datagram said. Value of `fragments_v4` and `fragments_v6`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Fragment {
    /// When it passed, in nanoseconds of the monotonic clock.
    pub seen_ns: u64,
    /// Source port.
    pub source_port: Port,
    /// Destination port.
    pub destination_port: Port,
    /// How many bytes of the fragmentable part its headers take.
    pub covered: u16,
    /// The protocol of the transport header.
    pub protocol: u8,
    /// A [`crate::packet::Role`] as a number.
    pub role: u8,
}

/// Packets and bytes. Value of `counters`, for each CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Counter {
    /// Packets; a segmented (GSO) packet counts once.
    pub packets: u64,
    /// Bytes of whole frames, from the Ethernet header on.
    pub bytes: u64,
}

/// How many answers to rejected packets an endpoint may still give on one CPU: a token bucket.
/// Value of `answer_buckets`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct AnswerBucket {
    /// When it was last filled up, in nanoseconds of the monotonic clock; zero: never.
    pub filled_ns: u64,
    /// Answers left.
    pub left: u64,
}

impl AnswerBucket {
    /// Answers at once.
    pub const BURST: u64 = 50;
    /// Time for one more answer: a hundred in a second.
    pub const INTERVAL_NS: u64 = 10_000_000;

    /// Takes one answer out at `now_ns`; whether there was one.
    #[inline(always)]
    pub fn take(&mut self, now_ns: u64) -> bool {
        let due = now_ns.saturating_sub(self.filled_ns) / Self::INTERVAL_NS;
        if due > 0 {
            self.left = self.left.saturating_add(due).min(Self::BURST);
            self.filled_ns = now_ns;
        }
        let any = self.left > 0;
        self.left = self.left.saturating_sub(1);
        any
    }
}

const _: () = assert!(size_of::<AnswerBucket>() == 16);
const _: () = assert!(size_of::<Endpoint>() == 56);
const _: () = assert!(size_of::<Side>() == 12);
const _: () = assert!(size_of::<PortRange>() == 8);
const _: () = assert!(size_of::<Flow>() == 16);
const _: () = assert!(size_of::<Fragment>() == 16);

#[cfg(feature = "user")]
#[expect(unsafe_code, reason = "declares plain data for aya's maps")]
mod plain {
    use super::{Counter, Endpoint, Flow, Fragment, Peer, PortRange, PortSet};
    use crate::key::{Address, FlowKey, FragmentKey, RuleKey};

    macro_rules! plain {
        ($($t:ty),+ $(,)?) => { $(
            // SAFETY: `repr(C)` of integers and byte arrays; the sizes asserted in `key` and
            // `value` leave no room for padding.
            unsafe impl aya::Pod for $t {}
        )+ };
    }
    plain!(Address<4>, Address<16>, RuleKey, FlowKey<4>, FlowKey<16>);
    plain!(FragmentKey<4>, FragmentKey<16>, Fragment);
    plain!(Endpoint, PortSet, PortRange, Peer, Flow, Counter, crate::event::Event);
}
