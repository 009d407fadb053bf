//! What the compiler makes: the contents of the kernel's maps, as plain values.
//!
//! Policy sets and identities are numbers that mean the same thing for as long as one compiler
//! lives: a number is never used again for something else. So a rule's key says all about its
//! value, and maps of two generations can stand side by side.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;

use bulkhead_common::{key::RuleKey, value::PortRange, verdict::DenyAction};

use super::{
    model::{ObjectKey, Protocol},
    prefix_map::PrefixMap,
};

/// Everything that the data plane of one node has to know.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Compiled {
    /// Every pod of this node that has an address, has not ended and is not the node itself.
    pub endpoints: BTreeMap<ObjectKey, EndpointPolicy>,
    /// Identity of every address that some policy of this node asks about by more than blocks, and
    /// of the node's own. The others have that of the longest of `cidrs` around them.
    pub peers: BTreeMap<IpAddr, u32>,
    /// Identity of the addresses in a block that no longer block has: the blocks of this node's
    /// policies that all of them lie in. Empty blocks are there, too, where an `except` makes them.
    pub cidrs: PrefixMap<u32>,
    /// What a policy set allows with an identity. Only pairs that allow something which the
    /// policy set does not allow with every peer; to be read together with
    /// [`SidePolicy::any_peer`].
    pub rules: BTreeMap<RuleKey, Arc<PortSet>>,
    /// Ports of services that some pod of this node may not reach although it may reach a part of
    /// the backends.
    pub mixed_services: BTreeSet<MixedService>,
}

/// A port of a service whose backends are partly allowed and partly denied, so that it is denied.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MixedService {
    /// The service.
    pub service: ObjectKey,
    /// The protocol of its port.
    pub protocol: Protocol,
    /// The port at its addresses.
    pub port: u16,
}

/// Which parts of [`Compiled`] may be different from what they were.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Touched {
    /// Addresses of [`Compiled::peers`].
    pub peers: BTreeSet<IpAddr>,
    /// Blocks of [`Compiled::cidrs`].
    pub cidrs: BTreeSet<IpNet>,
    /// Keys of [`Compiled::rules`].
    pub rules: BTreeSet<RuleKey>,
}

/// The policy of one pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointPolicy {
    /// Tells a pod from a later one of the same name.
    pub uid: String,
    /// The addresses that the pod claims. Where it is closed for [`Closed::AddressConflict`] they
    /// are not the pod's alone, and stand here so that its interface is found, and closed.
    pub addresses: BTreeSet<IpAddr>,
    /// `None`: not isolated for ingress.
    pub ingress: Option<SidePolicy>,
    /// `None`: not isolated for egress.
    pub egress: Option<SidePolicy>,
    /// What denied peers get to see.
    pub deny_action: DenyAction,
}

/// What the policies of one pod add up to in one direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SidePolicy {
    /// The first half of the keys of [`Compiled::rules`]. Pods whose policies allow the same in
    /// this direction share it.
    pub policy_set: u32,
    /// What is allowed with every peer.
    pub any_peer: Arc<PortSet>,
    /// A rule names blocks of addresses, so [`Compiled::cidrs`] have to be asked.
    pub names_blocks: bool,
    /// The policies that isolate the pod, in order; empty where it is closed for another reason.
    pub policies: BTreeSet<ObjectKey>,
    /// Why the pod is closed although no policy says so; `None` for a healthy pod.
    pub closed: Option<Closed>,
}

/// Why a pod is closed although no policy says so. The first that applies is the one reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// A source has not named everything it holds yet: a policy may be missing.
    SourceIncomplete,
    /// Another pod, or the node, has one of its addresses, too.
    AddressConflict,
}

/// A set of ports: normalised, so that equal sets are equal values.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PortSet {
    /// Every port of every protocol, and protocols without ports.
    Everything,
    /// Ascending ranges that neither overlap nor touch; empty: nothing.
    Ranges(Vec<PortRange>),
}

impl PortSet {
    /// No port of no protocol.
    pub const NOTHING: Self = Self::Ranges(Vec::new());

    /// From ranges in any order, which may overlap. A range that ends before it starts is empty.
    pub fn from_ranges(ranges: impl IntoIterator<Item = PortRange>) -> Self {
        let mut ranges: Vec<_> = ranges.into_iter().filter(|r| r.first <= r.last).collect();
        ranges.sort_unstable();
        ranges.dedup_by(|next, range| {
            let joins =
                next.protocol == range.protocol && next.first <= range.last.saturating_add(1);
            if joins {
                range.last = range.last.max(next.last);
            }
            joins
        });
        Self::Ranges(ranges)
    }

    /// What is in either.
    pub fn union(&self, other: &Self) -> Self {
        match (self, other) {
            (Self::Everything, _) | (_, Self::Everything) => Self::Everything,
            (Self::Ranges(a), Self::Ranges(b)) => Self::from_ranges(a.iter().chain(b).copied()),
        }
    }

    /// Whether all of it is in `other`, too.
    pub fn is_subset(&self, other: &Self) -> bool {
        match (self, other) {
            (_, Self::Everything) => true,
            (Self::Everything, Self::Ranges(_)) => false,
            // Ranges of one set do not touch, so one that is covered lies in a single other one.
            (Self::Ranges(inner), Self::Ranges(outer)) => inner.iter().all(|i| {
                outer
                    .iter()
                    .any(|o| o.protocol == i.protocol && o.first <= i.first && i.last <= o.last)
            }),
        }
    }

    /// Whether traffic of an IP protocol is in it; `port` is `None` for protocols without ports.
    pub fn contains(&self, protocol: u8, port: Option<u16>) -> bool {
        match self {
            Self::Everything => true,
            Self::Ranges(ranges) => port.is_some_and(|port| {
                ranges.iter().any(|range| {
                    range.protocol == u32::from(protocol)
                        && (range.first..=range.last).contains(&port)
                })
            }),
        }
    }
}

#[cfg(test)]
mod tests;
