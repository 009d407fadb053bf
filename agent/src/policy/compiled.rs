//! What the compiler makes: the contents of the kernel's maps, as plain values.
//!
//! Policy sets and identities are numbers that mean the same thing for as long as one compiler
//! lives: a number is never used again for something else. So a rule's key says all about its
//! value, and maps of two generations can stand side by side.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use bulkhead_common::{key::RuleKey, value::PortRange, verdict::DenyAction};

use super::model::ObjectKey;

/// Everything that the data plane of one node has to know.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Compiled {
    /// Every pod of this node that has an address, has not ended and is not the node itself.
    pub endpoints: BTreeMap<ObjectKey, EndpointPolicy>,
    /// Identity of every address that some policy of this node asks about. The others have
    /// [`bulkhead_common::value::IDENTITY_NONE`].
    pub peers: BTreeMap<IpAddr, u32>,
    /// What a policy set allows with an identity, beyond what it allows with every peer. Only
    /// pairs that allow something.
    pub rules: BTreeMap<RuleKey, PortSet>,
}

/// The policy of one pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointPolicy {
    /// Tells a pod from a later one of the same name.
    pub uid: String,
    /// The pod's addresses, none of which another pod claims.
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
    pub any_peer: PortSet,
    /// The policies that isolate the pod, in order; empty where it is closed for another reason.
    pub policies: BTreeSet<ObjectKey>,
    /// Why the pod is closed although no policy says so; `None` for a healthy pod.
    pub closed: Option<Closed>,
}

/// Why a pod is closed although no policy says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// A source has not named everything it holds yet: a policy may be missing.
    SourceIncomplete,
    /// Another pod claims one of its addresses.
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
