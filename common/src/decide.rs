//! The verdict on one packet, by what the maps hold.
//!
//! The same functions run in the kernel and in user space; the maps are behind [`Maps`]. Owns the
//! order in which the reasons for a verdict are looked at; `policy` has what rules and flows say.
//! Invariants: for an isolated pod, nothing passes that was not read completely. No verdict is
//! remembered in the direction that rules decide: they are asked for every packet. Where [`quick`]
//! has an answer, [`decide`] has the same.

mod policy;

use self::policy::{by_policy, is_node};
use crate::{
    key::{Address, FlowKey, Port, RuleKey},
    packet::{self, Bytes, Network, Packet, Role},
    value::{Endpoint, Flow, Peer, PortSet, flags},
    verdict::{
        AllowReason::{Itself, NeighbourDiscovery, NotIsolated, OwnNode},
        Direction,
        DropReason::{self, SpoofedSource, VlanTagged},
        Verdict,
    },
};

pub use self::policy::{Asked, allows_in, identity_in, is_in_ranges, judge};

/// The maps, as one address family sees them.
pub trait Maps<const N: usize> {
    /// Of `peers_v4` or `peers_v6`.
    fn peer(&self, address: &Address<N>) -> Option<Peer>;
    /// Of `cidrs_v4` or `cidrs_v6`: the longest prefix that the address lies in.
    fn cidr(&self, address: &Address<N>) -> Option<Peer>;
    /// Of `rules`.
    fn rule(&self, key: &RuleKey) -> Option<PortSet>;
    /// Whether one of the set's `port_ranges` has the port: [`is_in_ranges`]. Asked only of a set
    /// whose ranges are there.
    fn is_in_ranges(&self, set: &PortSet, protocol: u8, port: Port) -> bool;
    /// The identity of an address that counts for an endpoint with these [`flags`]: its own, or that
    /// of the longest block around it.
    #[inline(always)]
    fn identity(&self, address: &Address<N>, flags: u32) -> u32 {
        identity_in(self, address, flags)
    }
    /// Whether a rule allows a port.
    #[inline(always)]
    fn allows(&self, key: &RuleKey, protocol: u8, port: Port) -> bool {
        allows_in(self, key, protocol, port)
    }
    /// The verdict of rules and flows: [`judge`].
    #[inline(always)]
    fn judge(&self, hook: &Hook, asked: &Asked<'_, N>) -> Verdict {
        judge(self, hook, asked)
    }
    /// Of `flows_v4` or `flows_v6`.
    fn flow(&self, key: &FlowKey<N>) -> Option<Flow>;
    /// Creates or replaces a flow entry. One that could not be written heals with its next packet.
    fn set_flow(&self, key: &FlowKey<N>, flow: &Flow);
    /// The monotonic clock, in nanoseconds.
    fn now_ns(&self) -> u64;
}

/// Where a packet was met, beside what stands in it.
#[derive(Clone, Copy, Debug)]
pub struct Hook {
    /// The way it goes, seen from the pod.
    pub direction: Direction,
    /// The host-side interface of the pod.
    pub ifindex: u32,
    /// It came in through no device: the node itself sent it. Always false for egress.
    pub from_own_node: bool,
    /// The pod itself sent it, whatever it was translated to on the way. Always false for egress.
    pub from_itself: bool,
    /// A VLAN tag was taken off the frame already.
    pub vlan_tagged: bool,
}

/// The verdict on a packet of the common kind ([`packet::plain_ipv4`]), if look-ups alone give it:
/// nothing is written. `None` leaves it to [`decide`].
#[inline(always)]
pub fn quick<B, M>(hook: &Hook, endpoint: &Endpoint, frame: &B, maps: &M) -> Option<Verdict>
where
    B: Bytes,
    M: Maps<4> + Maps<16>,
{
    if hook.vlan_tagged || hook.from_itself {
        return None;
    }
    if packet::is_ipv4(frame)? {
        quick_ip(hook, endpoint, &endpoint.ipv4, &packet::plain_ipv4(frame)?, maps)
    } else {
        quick_ip(hook, endpoint, &endpoint.ipv6, &packet::plain_ipv6(frame)?, maps)
    }
}

#[inline(always)]
fn quick_ip<const N: usize, M: Maps<N>>(
    hook: &Hook,
    endpoint: &Endpoint,
    own: &Address<N>,
    packet: &Packet<N>,
    maps: &M,
) -> Option<Verdict> {
    if hook.from_own_node {
        return Some(Verdict::Allow(OwnNode)); // 1
    }
    let (local, remote) = ends(hook, packet);
    let odd_source = matches!(hook.direction, Direction::Egress) && local != own;
    if odd_source || remote == own {
        return None;
    }
    let asked = Asked { endpoint, remote, protocol: packet.protocol, transport: &packet.transport };
    by_policy::<N, false, M>(hook, &asked, maps)
}

/// The verdict on `frame`, met at `hook` of `endpoint`.
///
/// 1. What the pod's own node sends passes: probes depend on nothing. A fragment of IPv6 must have
///    the node's address, too: when Linux fragments a packet that it forwards, it may forget where
///    the packet came in (`ip6_copy_metadata`, net/ipv6/ip6_output.c).
/// 2. What cannot be read, or carries a VLAN tag, is denied for an isolated pod.
/// 3. ARP and neighbour discovery pass.
/// 4. The pod sends from its own addresses only, and nothing whose source cannot be read.
/// 5. The pod reaches itself, also by way of a translation on the node.
/// 6. Rules and flows decide: see [`judge`].
#[inline(always)]
pub fn decide<B, M>(hook: &Hook, endpoint: &Endpoint, frame: &B, maps: &M) -> Verdict
where
    B: Bytes,
    M: Maps<4> + Maps<16>,
{
    if hook.from_own_node && !packet::has_extension_header(frame) {
        return Verdict::Allow(OwnNode); // 1
    }
    if hook.vlan_tagged {
        return unaddressed(hook, endpoint, VlanTagged); // 2, 4
    }
    match packet::network(frame) {
        Err(reason) => unaddressed(hook, endpoint, reason), // 2, 4
        Ok(Network::Arp) => Verdict::Allow(NeighbourDiscovery), // 3
        Ok(Network::Ipv4) => of_column(decide_ipv4(hook, endpoint, frame, maps)),
        Ok(Network::Ipv6) => of_column(decide_ipv6(hook, endpoint, frame, maps)),
    }
}

// Functions of their own in the programs, too, whose stacks are small. They return the verdict's
// counter column: the verifier asks for a number in every return.

#[inline(never)]
fn decide_ipv4<B: Bytes, M: Maps<4>>(hook: &Hook, endpoint: &Endpoint, frame: &B, maps: &M) -> u32 {
    decide_ip(hook, endpoint, &endpoint.ipv4, &packet::parse_ipv4(frame), maps).column()
}

#[inline(never)]
fn decide_ipv6<B: Bytes, M: Maps<16>>(
    hook: &Hook,
    endpoint: &Endpoint,
    frame: &B,
    maps: &M,
) -> u32 {
    decide_ip(hook, endpoint, &endpoint.ipv6, &packet::parse_ipv6(frame), maps).column()
}

#[inline(always)]
fn of_column(column: u32) -> Verdict {
    Verdict::from_column(column).unwrap_or(Verdict::Deny(DropReason::Internal))
}

/// A packet without an address that could be read. A pod that is to send from its own addresses
/// cannot send one, isolated or not; only what is not IP at all has none to be wrong.
#[inline(always)]
const fn unaddressed(hook: &Hook, endpoint: &Endpoint, reason: DropReason) -> Verdict {
    let own_source = matches!(hook.direction, Direction::Ingress)
        || endpoint.flags & flags::CHECK_SOURCE == 0
        || matches!(reason, DropReason::UnknownEthertype);
    if own_source { unreadable(hook, endpoint, reason) } else { Verdict::Deny(reason) }
}

/// What cannot be read is denied for an isolated pod.
#[inline(always)]
const fn unreadable(hook: &Hook, endpoint: &Endpoint, reason: DropReason) -> Verdict {
    if endpoint.is_isolated(hook.direction) {
        Verdict::Deny(reason)
    } else {
        Verdict::Allow(NotIsolated)
    }
}

#[inline(always)]
fn decide_ip<const N: usize, M: Maps<N>>(
    hook: &Hook,
    endpoint: &Endpoint,
    own: &Address<N>,
    packet: &Packet<N>,
    maps: &M,
) -> Verdict {
    if let Some(reason) = packet.unaddressed {
        return unaddressed(hook, endpoint, reason); // 2, 4
    }
    if hook.from_own_node
        && (!packet.may_be_ipv6_fragment || is_node(maps.identity(&packet.source, endpoint.flags)))
    {
        return Verdict::Allow(OwnNode); // 1
    }
    if matches!(packet.transport.role, Role::NeighbourDiscovery) {
        return Verdict::Allow(NeighbourDiscovery); // 3
    }
    let (local, remote) = ends(hook, packet);
    if matches!(hook.direction, Direction::Egress)
        && endpoint.flags & flags::CHECK_SOURCE != 0
        && local != own
        && !(is_link_local(local) && is_on_link(remote))
    {
        return Verdict::Deny(SpoofedSource); // 4
    }
    if let Some(reason) = packet.transport.problem {
        return unreadable(hook, endpoint, reason); // 2
    }
    if !own.is_zero() && local == own && remote == own {
        return Verdict::Allow(Itself); // 5
    }
    // Who masquerades what a node sends back to the pod writes an address of the node into it.
    if hook.from_itself && (remote == own || is_node(maps.identity(remote, endpoint.flags))) {
        return Verdict::Allow(Itself); // 5
    }
    let (protocol, transport) = (packet.protocol, &packet.transport);
    maps.judge(hook, &Asked { endpoint, remote, protocol, transport }) // 6
}

/// The pod's end and the other one.
#[inline(always)]
const fn ends<'a, const N: usize>(
    hook: &Hook,
    packet: &'a Packet<N>,
) -> (&'a Address<N>, &'a Address<N>) {
    match hook.direction {
        Direction::Ingress => (&packet.destination, &packet.source),
        Direction::Egress => (&packet.source, &packet.destination),
    }
}

/// fe80::/10 and ff00::/8: where a pod may send from an address of its link. From elsewhere such a
/// source would be a way to have others answer in another pod's name.
#[inline(always)]
fn is_on_link<const N: usize>(address: &Address<N>) -> bool {
    is_link_local(address) || (N == 16 && matches!(address.0.first(), Some(0xff)))
}

/// fe80::/10.
#[inline(always)]
fn is_link_local<const N: usize>(address: &Address<N>) -> bool {
    N == 16 && matches!(address.0.first_chunk::<2>(), Some([0xfe, low]) if low & 0xc0 == 0x80)
}

#[cfg(test)]
mod tests;
