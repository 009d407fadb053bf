//! The verdict on one packet, by what the maps hold.
//!
//! The same functions run in the kernel and in user space; the maps are behind [`Maps`]. Owns the
//! order in which the reasons for a verdict are looked at; `steps` has what headers say,
//! `policy` what rules and flows do.
//! Invariants: for an isolated pod, nothing passes that was not read completely. What is remembered
//! of a verdict ([`memo`], flow entries) is of one epoch of the endpoint, and any change of what rules
//! say of its packets gives it another. Where [`quick`] has an answer, [`decide`] has the same.

mod ahead;
pub mod memo;
mod policy;
mod steps;

use self::{
    memo::{Memo, Question},
    policy::{by_policy, is_node_denied, remember_node},
    steps::AtOnce,
};
use crate::{
    key::{Address, FlowKey, FragmentKey, Port, RuleKey},
    packet::{self, Bytes, Network, Plain},
    value::{Endpoint, Flow, Fragment, Peer, PortSet, flags},
    verdict::{
        AllowReason::{NeighbourDiscovery, NotIsolated, OwnNode},
        Direction,
        DropReason::{self, VlanTagged},
        Verdict,
    },
};

pub use self::{
    ahead::{ahead, is_judged_ahead},
    policy::{Asked, allows_in, identity_in, is_in_ranges},
    steps::{Family, Steps, judge, judge_quoted, look, quote, remember},
};

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
    /// Calls a function with the place that keeps the answer to a question, if answers are kept.
    #[inline(always)]
    fn with_memo<R>(
        &self,
        question: &Question<N>,
        call: impl FnOnce(&mut Memo<N>) -> R,
    ) -> Option<R> {
        let _: (&Question<N>, _) = (question, call);
        None
    }
    /// Of `flows_v4` or `flows_v6`.
    fn flow(&self, key: &FlowKey<N>) -> Option<Flow>;
    /// Makes a flow entry. One that could not be written heals with its next packet.
    fn make_flow(&self, key: &FlowKey<N>, flow: &Flow);
    /// Replaces a flow entry.
    fn set_flow(&self, key: &FlowKey<N>, flow: &Flow);
    /// Of `fragments_v4` or `fragments_v6`.
    fn fragment(&self, key: &FragmentKey<N>) -> Option<Fragment>;
    /// Creates or replaces what a first fragment said. Where it could not be written, the others are
    /// denied.
    fn set_fragment(&self, key: &FragmentKey<N>, fragment: &Fragment);
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

/// A packet that was met.
#[derive(Debug)]
pub struct Met<'a, B, M> {
    /// Where.
    pub hook: &'a Hook,
    /// The pod.
    pub endpoint: &'a Endpoint,
    /// From the Ethernet header on.
    pub frame: &'a B,
    /// What is known of policy and flows.
    pub maps: &'a M,
}

impl<B, M> Clone for Met<'_, B, M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<B, M> Copy for Met<'_, B, M> {}

/// The verdict on a packet of the common kind ([`packet::plain_ipv4`]). `None` leaves it to [`decide`].
/// Without `WRITES` no flow entry is touched, and it is `None` where one would have to be.
#[inline(always)]
pub fn quick<const WRITES: bool, B, M>(met: &Met<'_, B, M>) -> Option<Verdict>
where
    B: Bytes,
    M: Maps<4> + Maps<16>,
{
    if packet::is_ipv4(met.frame)? {
        quick_ip::<4, WRITES, B, M>(met, &met.endpoint.ipv4, || packet::plain_ipv4(met.frame))
    } else {
        quick_ip::<16, WRITES, B, M>(met, &met.endpoint.ipv6, || packet::plain_ipv6(met.frame))
    }
}

#[inline(always)]
fn quick_ip<const N: usize, const WRITES: bool, B, M: Maps<N>>(
    met: &Met<'_, B, M>,
    own: &Address<N>,
    plain: impl FnOnce() -> Option<Plain<N>>,
) -> Option<Verdict> {
    let Met { hook, endpoint, maps, .. } = *met;
    if hook.vlan_tagged || hook.from_itself {
        return None;
    }
    let Plain { source, destination, protocol, transport } = &plain()?;
    let (local, remote) = hook.ends(source, destination);
    let asked = Asked { endpoint, remote, protocol: *protocol, transport };
    if hook.from_own_node {
        if is_node_denied(endpoint) {
            remember_node::<N, WRITES, M>(hook, &asked, maps)?;
        }
        return Some(Verdict::Allow(OwnNode)); // 1
    }
    let odd_source = matches!(hook.direction, Direction::Egress) && local != own;
    if odd_source || remote == own {
        return None;
    }
    by_policy::<N, WRITES, M>(hook, &asked, maps)
}

/// The verdict on `frame`, met at `hook` of `endpoint`.
///
/// 1. What the pod's own node sends passes: probes depend on nothing. Where the pod is not free to
///    send to the node, what the node opens is remembered for the replies. A fragment of IPv6 must have
///    the node's address, too: when Linux fragments a packet that it forwards, it may forget where
///    the packet came in (`ip6_copy_metadata`, net/ipv6/ip6_output.c).
/// 2. What cannot be read, or carries a VLAN tag, is denied for an isolated pod.
/// 3. ARP and neighbour discovery pass.
/// 4. The pod sends from its own addresses only, and nothing whose source cannot be read.
/// 5. The pod reaches itself, also by way of a translation on the node.
/// 6. Rules and flows decide: see `policy`. A later fragment is judged as the packet that its first
///    fragment was, an ICMP error by the packet that it quotes.
#[inline(always)]
pub fn decide<B, M>(hook: &Hook, endpoint: &Endpoint, frame: &B, maps: &M) -> Verdict
where
    B: Bytes,
    M: Maps<4> + Maps<16>,
{
    let met = Met { hook, endpoint, frame, maps };
    by_network(
        hook,
        endpoint,
        frame,
        || AtOnce::<4, _, _>::new(met).verdict(),
        || AtOnce::<16, _, _>::new(met).verdict(),
    )
}

/// The verdict on a packet, by functions that have it for one of IPv4 or IPv6: see [`Steps`].
#[inline(always)]
pub fn by_network<B: Bytes>(
    hook: &Hook,
    endpoint: &Endpoint,
    frame: &B,
    ipv4: impl FnOnce() -> Verdict,
    ipv6: impl FnOnce() -> Verdict,
) -> Verdict {
    let is_of_node = hook.from_own_node && !packet::has_extension_header(frame);
    if is_of_node && !is_node_denied(endpoint) {
        return Verdict::Allow(OwnNode); // 1
    }
    let verdict = if hook.vlan_tagged {
        unaddressed(hook, endpoint, VlanTagged) // 2, 4
    } else {
        match packet::network(frame) {
            Err(reason) => unaddressed(hook, endpoint, reason), // 2, 4
            Ok(Network::Arp) => Verdict::Allow(NeighbourDiscovery), // 3
            Ok(Network::Ipv4) => ipv4(),
            Ok(Network::Ipv6) => ipv6(),
        }
    };
    // It was looked at only to remember what the node opens.
    if is_of_node { Verdict::Allow(OwnNode) } else { verdict } // 1
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

impl Hook {
    /// The pod's end and the other one.
    #[inline(always)]
    const fn ends<'a, T>(&self, source: &'a T, destination: &'a T) -> (&'a T, &'a T) {
        match self.direction {
            Direction::Ingress => (destination, source),
            Direction::Egress => (source, destination),
        }
    }
}

#[cfg(test)]
mod tests;
