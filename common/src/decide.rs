//! The verdict on one packet, by what the maps hold.
//!
//! The same function runs in the kernel and in user space; the maps are behind [`Maps`]. It owns
//! the order in which the reasons for a verdict are looked at. Invariant: for an isolated pod,
//! nothing passes that was not read completely, and no verdict is remembered in the direction that
//! rules decide: they are asked for every packet.

use crate::{
    key::{Address, FlowKey, Port, RuleKey},
    packet::{self, Bytes, Network, Packet, Role, Transport, protocol},
    value::{Endpoint, Flow, IDENTITY_NODE, IDENTITY_NONE, Peer, PortRange, PortSet, flags},
    verdict::{
        AllowReason::{self, Itself, NeighbourDiscovery, NotIsolated, OwnNode, Reply, Rule},
        Direction,
        DropReason::{self, FlowRevoked, NotAllowed, SpoofedSource, VlanTagged},
        Verdict,
    },
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
    /// that has some.
    fn is_in_ranges(&self, set: &PortSet, protocol: u8, port: Port) -> bool;
    /// Of `flows_v4` or `flows_v6`.
    fn flow(&self, key: &FlowKey<N>) -> Option<Flow>;
    /// Creates or replaces a flow. One that could not be written heals with its next packet.
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
    /// A VLAN tag was taken off the frame already.
    pub vlan_tagged: bool,
}

/// How long a flow without packets is remembered.
const IDLE_TCP_NS: u64 = 24 * 3600 * NS_PER_SEC;
const IDLE_OTHER_NS: u64 = 180 * NS_PER_SEC;
/// How often a flow that has packets is written again.
const REFRESH_NS: u64 = NS_PER_SEC;
const NS_PER_SEC: u64 = 1_000_000_000;
/// Halvings of the port ranges of one set: enough for every range that the map can hold.
const SEARCH_STEPS: u32 = crate::abi::PORT_RANGES.ilog2() + 1;

/// The verdict on `frame`, met at `hook` of `endpoint`.
///
/// 1. What the pod's own node sends passes: probes depend on nothing. A fragment of IPv6 must have
///    the node's address, too: when Linux fragments a packet that it forwards, it may forget where
///    the packet came in (`ip6_copy_metadata`, net/ipv6/ip6_output.c).
/// 2. What cannot be read, or carries a VLAN tag, is denied for an isolated pod.
/// 3. ARP and neighbour discovery pass.
/// 4. The pod sends from its own addresses only, and nothing whose source cannot be read.
/// 5. The pod reaches itself and its own node.
/// 6. Rules and flows decide: see [`by_policy`].
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
        Ok(Network::Ipv4) => {
            decide_ip(hook, endpoint, &endpoint.ipv4, &packet::parse_ipv4(frame), maps)
        }
        Ok(Network::Ipv6) => {
            decide_ip(hook, endpoint, &endpoint.ipv6, &packet::parse_ipv6(frame), maps)
        }
    }
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
        && (!packet.may_be_ipv6_fragment || is_node(identity(endpoint, &packet.source, maps)))
    {
        return Verdict::Allow(OwnNode); // 1
    }
    if matches!(packet.transport.role, Role::NeighbourDiscovery) {
        return Verdict::Allow(NeighbourDiscovery); // 3
    }
    let (local, remote) = match hook.direction {
        Direction::Ingress => (&packet.destination, &packet.source),
        Direction::Egress => (&packet.source, &packet.destination),
    };
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
    let asked = Asked { endpoint, remote, protocol: packet.protocol, transport: &packet.transport };
    by_policy(hook, &asked, maps)
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

/// A packet, as policy sees it.
struct Asked<'a, const N: usize> {
    endpoint: &'a Endpoint,
    remote: &'a Address<N>,
    protocol: u8,
    transport: &'a Transport,
}

/// What rules and flows say.
///
/// Rules decide the direction that a packet goes in, for every packet. A flow entry lets replies
/// pass where the other direction is isolated. It says who opened the flow, so that a packet which
/// rules deny passes only as a reply, and so that replies never look like a flow of their own: that
/// would keep a flow alive which a new policy cuts.
///
/// 1. Allowed by rules, or not isolated: passes, and is remembered where a reply may need it.
/// 2. Denied by rules: passes as a reply, if the flow was opened in the opposite direction and the
///    rules of that direction still allow it.
#[inline(always)]
fn by_policy<const N: usize, M: Maps<N>>(hook: &Hook, asked: &Asked<'_, N>, maps: &M) -> Verdict {
    let direction = hook.direction;
    match by_rules(asked, direction, asked.transport.destination_port, maps) {
        Some(reason) => {
            let reply_isolated = asked.endpoint.is_isolated(direction.opposite());
            let wanted = match asked.transport.role {
                // Known before any policy is: the one that comes later must tell who opened what.
                Role::Opens => reply_isolated || asked.protocol == protocol::TCP,
                Role::Continues | Role::Either => reply_isolated,
                Role::Answers | Role::Alone | Role::NeighbourDiscovery => false,
            };
            if wanted {
                remember(hook, asked, maps);
            }
            Verdict::Allow(reason) // 1
        }
        None => by_flow(hook, asked, maps), // 2
    }
}

/// Why the endpoint's rules allow traffic in `direction` with `port` at its destination, or `None`.
#[inline(always)]
fn by_rules<const N: usize, M: Maps<N>>(
    asked: &Asked<'_, N>,
    direction: Direction,
    port: Port,
    maps: &M,
) -> Option<AllowReason> {
    if !asked.endpoint.is_isolated(direction) {
        return Some(NotIsolated);
    }
    let side = asked.endpoint.side(direction);
    if contains(&side.any_peer, asked.protocol, port, maps) {
        return Some(Rule);
    }
    let identity = identity(asked.endpoint, asked.remote, maps);
    if is_node(identity) && matches!(direction, Direction::Egress) {
        return Some(OwnNode);
    }
    let identity = identity & !IDENTITY_NODE;
    if identity == IDENTITY_NONE {
        return None;
    }
    let ports = maps.rule(&RuleKey { policy_set: side.policy_set, identity })?;
    contains(&ports, asked.protocol, port, maps).then_some(Rule)
}

/// What the rules know of an address: its own identity, or that of the longest block around it.
#[inline(always)]
fn identity<const N: usize, M: Maps<N>>(
    endpoint: &Endpoint,
    address: &Address<N>,
    maps: &M,
) -> u32 {
    let of = |peer: Option<Peer>| match peer {
        None => IDENTITY_NONE,
        Some(Peer { identities: [first, second] }) => {
            if endpoint.flags & flags::SECOND_IDENTITY == 0 { first } else { second }
        }
    };
    match of(maps.peer(address)) {
        IDENTITY_NONE if endpoint.flags & flags::ASKS_CIDRS != 0 => of(maps.cidr(address)),
        identity => identity,
    }
}

#[inline(always)]
const fn is_node(identity: u32) -> bool {
    identity & IDENTITY_NODE != 0
}

#[inline(always)]
fn contains<const N: usize, M: Maps<N>>(set: &PortSet, protocol: u8, port: Port, maps: &M) -> bool {
    match set.len {
        0 => false,
        len if len == PortSet::EVERYTHING.len => true,
        _ => maps.is_in_ranges(set, protocol, port),
    }
}

/// Whether `port` of `protocol` is in one of the ranges of `set`: a binary search.
#[inline(always)]
pub fn is_in_ranges(
    set: &PortSet,
    protocol: u8,
    port: Port,
    range: impl Fn(u32) -> Option<PortRange>,
) -> bool {
    let wanted = (u32::from(protocol), port.number());
    let (mut low, mut high) = (set.start, set.start.saturating_add(set.len));
    for _ in 0..SEARCH_STEPS {
        if low >= high {
            return false;
        }
        let middle = low + (high - low) / 2;
        let Some(range) = range(middle) else {
            return false;
        };
        if wanted < (range.protocol, range.first) {
            high = middle;
        } else if wanted > (range.protocol, range.last) {
            low = middle + 1;
        } else {
            return true;
        }
    }
    false
}

/// Remembers who opened the flow of a packet that rules allow.
///
/// A packet that continues something unknown is taken for the opener's, so that a lost entry heals;
/// but not where its replies pass by rules anyway: then it may as well be a reply itself.
#[inline(always)]
fn remember<const N: usize, M: Maps<N>>(hook: &Hook, asked: &Asked<'_, N>, maps: &M) {
    let key = asked.flow_key(hook);
    let opens = matches!(asked.transport.role, Role::Opens);
    let now =
        Flow { seen_ns: maps.now_ns(), epoch: asked.endpoint.epoch, opened: hook.direction as u32 };
    match maps.flow(&key).filter(|flow| asked.is_live(flow, now.seen_ns)) {
        Some(flow) if flow.opened == now.opened => {
            if flow.epoch != now.epoch || is_stale(&flow, &now) {
                maps.set_flow(&key, &now);
            }
        }
        Some(flow) if !opens => {
            if is_stale(&flow, &now) {
                maps.set_flow(&key, &Flow { seen_ns: now.seen_ns, ..flow });
            }
        }
        Some(_) => maps.set_flow(&key, &now),
        None => {
            let opposite = hook.direction.opposite();
            let unneeded = !opens
                && (by_rules(asked, opposite, asked.transport.source_port, maps).is_some()
                    || is_node(identity(asked.endpoint, asked.remote, maps)));
            if !unneeded {
                maps.set_flow(&key, &now);
            }
        }
    }
}

/// The verdict on a packet that rules deny.
#[inline(always)]
fn by_flow<const N: usize, M: Maps<N>>(hook: &Hook, asked: &Asked<'_, N>, maps: &M) -> Verdict {
    match asked.transport.role {
        Role::Continues | Role::Either | Role::Answers => {}
        Role::Opens | Role::Alone | Role::NeighbourDiscovery => return Verdict::Deny(NotAllowed),
    }
    let key = asked.flow_key(hook);
    let opposite = hook.direction.opposite();
    let Some(flow) = maps.flow(&key).filter(|flow| flow.opened == opposite as u32) else {
        return Verdict::Deny(NotAllowed);
    };
    let now = Flow { seen_ns: maps.now_ns(), epoch: asked.endpoint.epoch, ..flow };
    if !asked.is_live(&flow, now.seen_ns) {
        return Verdict::Deny(NotAllowed);
    }
    if flow.epoch != now.epoch {
        if by_rules(asked, opposite, asked.transport.source_port, maps).is_none() {
            return Verdict::Deny(FlowRevoked);
        }
        maps.set_flow(&key, &now);
    } else if is_stale(&flow, &now) {
        maps.set_flow(&key, &now);
    }
    Verdict::Allow(Reply)
}

#[inline(always)]
const fn is_stale(flow: &Flow, now: &Flow) -> bool {
    now.seen_ns.saturating_sub(flow.seen_ns) > REFRESH_NS
}

impl<const N: usize> Asked<'_, N> {
    #[inline(always)]
    fn flow_key(&self, hook: &Hook) -> FlowKey<N> {
        let (pod_port, peer_port) = match hook.direction {
            Direction::Ingress => (self.transport.destination_port, self.transport.source_port),
            Direction::Egress => (self.transport.source_port, self.transport.destination_port),
        };
        FlowKey {
            peer: *self.remote,
            ifindex: hook.ifindex,
            pod_port,
            peer_port,
            protocol: u32::from(self.protocol),
        }
    }

    /// Whether a flow has not been idle for too long.
    #[inline(always)]
    fn is_live(&self, flow: &Flow, now_ns: u64) -> bool {
        let limit = if self.protocol == protocol::TCP { IDLE_TCP_NS } else { IDLE_OTHER_NS };
        now_ns.saturating_sub(flow.seen_ns) <= limit
    }
}

#[cfg(test)]
mod tests;
