//! One pod and its policy, as the maps hold them.
//!
//! The contents are written by hand: what the tests of the programs expect comes neither from the
//! compiler nor from the plan.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bulkhead::dataplane::op::Op;
use bulkhead_common::{
    key::{Address, RuleKey},
    packet::protocol::{SCTP, TCP, UDP},
    value::{Endpoint, IDENTITY_FIRST, IDENTITY_NODE, Peer, PortRange, PortSet, Side, flags},
};
use ipnet::IpNet;

/// The interface that stands for the host side of the pod's veth: a test run asks for one that
/// exists, and loopback does in every network namespace.
pub const IFINDEX: u32 = 1;
/// The pod's block of counters.
pub const COUNTERS: u32 = 5;

/// Isolated in both directions.
pub const ISOLATED: u32 = flags::ISOLATED_INGRESS | flags::ISOLATED_EGRESS;

/// The addresses of one family.
#[derive(Clone, Copy, Debug)]
pub struct Net {
    /// The pod's.
    pub pod: IpAddr,
    /// The rules allow some ports with it: see [`rules`].
    pub friend: IpAddr,
    /// The rules allow everything with it.
    pub trusted: IpAddr,
    /// No rule names it.
    pub stranger: IpAddr,
    /// The node's own.
    pub node: IpAddr,
}

/// Both families.
pub const NETS: [Net; 2] = [IPV4, IPV6];
/// IPv4.
pub const IPV4: Net =
    Net { pod: v4(10), friend: v4(11), trusted: v4(12), stranger: v4(13), node: v4(1) };
/// IPv6.
pub const IPV6: Net =
    Net { pod: v6(10), friend: v6(11), trusted: v6(12), stranger: v6(13), node: v6(1) };

/// A port that the rules allow with the friend, in both directions.
pub const ALLOWED: u16 = 3306;
/// A port that the rules allow with the friend for ingress only.
pub const INGRESS_ONLY: u16 = 8085;
/// A port that the rules allow with the friend for egress only.
pub const EGRESS_ONLY: u16 = 443;
/// A port that the rules allow with every peer, for ingress only.
pub const OPEN: u16 = 80;
/// A port that no rule allows.
pub const DENIED: u16 = 22;
/// The port of whoever opens a flow.
pub const CLIENT: u16 = 40000;

const fn v4(host: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, host))
}

const fn v6(host: u16) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0x10, 0, 0, 0, 0, 0, host))
}

/// Some address in the block that is the friend's as far as rules go, for a pod with
/// [`flags::ASKS_CIDRS`].
pub const fn in_block(net: &Net) -> IpAddr {
    match net.pod {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::new(10, 9, 1, 77)),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::new(0xfd00, 0x90, 0, 0, 0, 0, 0, 0x77)),
    }
}

/// An end of a flow.
pub const fn at(address: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(address, port)
}

const INGRESS_SET: u32 = 71;
const EGRESS_SET: u32 = 72;
const FRIEND: u32 = IDENTITY_FIRST;
const TRUSTED: u32 = IDENTITY_FIRST + 1;
/// In `port_ranges`: the ingress set's, and the egress set's.
const RANGES: [(u8, u16, u16); 8] = [
    (TCP, ALLOWED, ALLOWED),
    (TCP, 8080, 8090),
    (UDP, ALLOWED, ALLOWED),
    (SCTP, ALLOWED, ALLOWED),
    (TCP, EGRESS_ONLY, EGRESS_ONLY),
    (TCP, ALLOWED, ALLOWED),
    (UDP, ALLOWED, ALLOWED),
    (SCTP, ALLOWED, ALLOWED),
];
const INGRESS_PORTS: PortSet = PortSet { start: 0, len: 4 };
const EGRESS_PORTS: PortSet = PortSet { start: 4, len: 4 };
const OPEN_PORTS: PortSet =
    PortSet::one(PortRange { protocol: TCP as u32, first: OPEN, last: OPEN });

/// Everything but the endpoint: both peers' identities, and what the rules allow with them.
pub fn rules() -> Vec<Op> {
    let ranges = (0_u32..).zip(RANGES).map(|(index, (protocol, first, last))| Op::SetPortRange {
        index,
        range: PortRange { protocol: protocol.into(), first, last },
    });
    let rules = [
        (INGRESS_SET, FRIEND, INGRESS_PORTS),
        (EGRESS_SET, FRIEND, EGRESS_PORTS),
        (INGRESS_SET, TRUSTED, PortSet::EVERYTHING),
        (EGRESS_SET, TRUSTED, PortSet::EVERYTHING),
    ]
    .map(|(policy_set, identity, ports)| Op::SetRule {
        key: RuleKey { policy_set, identity },
        ports,
    });
    let peers = NETS.into_iter().flat_map(|net| {
        [(net.friend, FRIEND), (net.trusted, TRUSTED), (net.node, IDENTITY_NODE)].map(
            |(address, identity)| Op::SetPeer { address, peer: Peer { identities: [identity, 0] } },
        )
    });
    ranges.chain(rules).chain(peers).collect()
}

/// Rules of the same policies for so many others, of each family, who have one port each.
pub fn rules_of_others(count: u16) -> Vec<Op> {
    let other = |number: u16| {
        let identity = TRUSTED + 1 + u32::from(number);
        let [high, low] = number.to_be_bytes();
        let addresses =
            [IpAddr::from([10, 1, high, low]), IpAddr::from([0xfd00, 0x11, 0, 0, 0, 0, 0, number])];
        let peers = addresses
            .map(|address| Op::SetPeer { address, peer: Peer { identities: [identity, 0] } });
        let ports = PortSet::one(PortRange { protocol: TCP.into(), first: number, last: number });
        let rules = [INGRESS_SET, EGRESS_SET]
            .map(|policy_set| Op::SetRule { key: RuleKey { policy_set, identity }, ports });
        peers.into_iter().chain(rules)
    };
    (0..count).flat_map(other).collect()
}

/// Blocks around [`in_block`]: the outer one allows everything, the inner one what the friend may.
pub fn blocks() -> Vec<Op> {
    NETS.iter()
        .flat_map(|net| {
            let lens = if net.pod.is_ipv4() { [16, 24] } else { [32, 64] };
            lens.into_iter().zip([TRUSTED, FRIEND]).map(|(len, identity)| {
                let net = IpNet::new_assert(in_block(net), len).trunc();
                Op::SetCidr { net, peer: Peer { identities: [identity, 0] } }
            })
        })
        .collect()
}

/// The endpoint, with these of its [`flags`], in this epoch.
pub fn endpoint(flags: u32, epoch: u32) -> Endpoint {
    let mut endpoint = Endpoint {
        ipv6: Address::ZERO,
        ipv4: Address::ZERO,
        ingress: Side { policy_set: INGRESS_SET, any_peer: OPEN_PORTS },
        egress: Side { policy_set: EGRESS_SET, any_peer: PortSet::NOTHING },
        epoch,
        counters: COUNTERS,
        flags,
    };
    for net in NETS {
        match net.pod {
            IpAddr::V4(address) => endpoint.ipv4 = Address(address.octets()),
            IpAddr::V6(address) => endpoint.ipv6 = Address(address.octets()),
        }
    }
    endpoint
}
