//! The operations that change the data plane.

use std::net::IpAddr;

use bulkhead_common::{
    key::{Ipv4, Ipv6, RuleKey},
    value::{Endpoint, Peer, PortRange, PortSet},
};
use ipnet::IpNet;

/// One change of one map, or of what is attached.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Op {
    /// Writes `port_ranges`.
    SetPortRange {
        /// Where.
        index: u32,
        /// What.
        range: PortRange,
    },
    /// Writes `rules`.
    SetRule {
        /// The pair of policy set and identity.
        key: RuleKey,
        /// What is allowed between them.
        ports: PortSet,
    },
    /// Writes `peers_v4` or `peers_v6`.
    SetPeer {
        /// The peer's address.
        address: IpAddr,
        /// Its identities.
        peer: Peer,
    },
    /// Writes `cidrs_v4` or `cidrs_v6`.
    SetCidr {
        /// The block, without host bits.
        net: IpNet,
        /// Its identities.
        peer: Peer,
    },
    /// Zeroes a block of counters.
    ClearCounters {
        /// Which.
        block: u32,
    },
    /// Writes `endpoints`: from here on the interface's packets meet this policy.
    SetEndpoint {
        /// The host-side interface.
        ifindex: u32,
        /// Its policy.
        endpoint: Endpoint,
    },
    /// Attaches both programs to an interface, as far as they are not attached already.
    Attach {
        /// The host-side interface.
        ifindex: u32,
    },
    /// Takes both programs off an interface; no error if the interface is gone.
    Detach {
        /// The host-side interface.
        ifindex: u32,
    },
    /// Removes from `endpoints`.
    RemoveEndpoint {
        /// The host-side interface.
        ifindex: u32,
    },
    /// Removes from `rules`.
    RemoveRule {
        /// The pair of policy set and identity.
        key: RuleKey,
    },
    /// Removes from `peers_v4` or `peers_v6`.
    RemovePeer {
        /// The peer's address.
        address: IpAddr,
    },
    /// Removes from `cidrs_v4` or `cidrs_v6`.
    RemoveCidr {
        /// The block.
        net: IpNet,
    },
}

/// What executes operations.
pub trait Execute {
    /// Executes one operation. Removing what is not there is no error.
    ///
    /// # Errors
    ///
    /// The map (with its capacity) or the interface, and what the kernel said.
    fn execute(&mut self, op: &Op) -> anyhow::Result<()>;

    /// Whether there is an interface of that index.
    fn exists(&self, ifindex: u32) -> bool;
}

/// An address as the maps have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MapAddress {
    /// Key of `peers_v4`.
    V4(Ipv4),
    /// Key of `peers_v6`.
    V6(Ipv6),
}

impl From<IpAddr> for MapAddress {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::V4(bulkhead_common::key::Address(address.octets())),
            IpAddr::V6(address) => Self::V6(bulkhead_common::key::Address(address.octets())),
        }
    }
}
