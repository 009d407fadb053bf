//! What rules and flows say of a packet that was read.

use super::{Hook, Maps, memo::Question};
use crate::{
    abi, flow,
    key::{Address, FlowKey, Port, RuleKey},
    packet::{Role, Transport},
    value::{
        Endpoint, Flow, IDENTITY_NODE, IDENTITY_NONE, Peer, PortRange, PortSet,
        flags::{ASKS_CIDRS, DENY_EGRESS_TO_NODE, SECOND_IDENTITY},
    },
    verdict::{
        AllowReason::{self, NotIsolated, OwnNode, Related, Reply, Rule},
        Direction,
        DropReason::{self, FlowRevoked, NotAllowed},
        Verdict,
    },
};

/// Halvings of the port ranges of one set: enough for every range that the map can hold.
const SEARCH_STEPS: u32 = abi::PORT_RANGES.ilog2() + 1;

/// A packet, as policy sees it.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a, const N: usize> {
    /// Whose policy it is.
    pub endpoint: &'a Endpoint,
    /// The other end.
    pub remote: &'a Address<N>,
    /// The protocol of the transport header.
    pub protocol: u8,
    /// What that header says.
    pub transport: &'a Transport,
}

/// What rules and flows say.
///
/// Rules decide the direction that a packet goes in. A flow entry lets replies pass where the other
/// direction is isolated. It says who opened the flow, so that a packet which
/// rules deny passes only as a reply, and so that replies never look like a flow of their own: that
/// would keep a flow alive which a new policy cuts.
///
/// 0. Isolated in both directions, so that there is an entry in any case: passes by an entry of the
///    endpoint's epoch that was written within the last second.
/// 1. Allowed by rules, or not isolated: passes, and is remembered where a reply may need it.
/// 2. Denied by rules: passes as a reply, if the flow was opened in the opposite direction and the
///    rules of that direction still allow it.
///
/// Without `WRITES` no flow entry is touched; where one would have to be, the result is `None`.
#[inline(always)]
pub(super) fn by_policy<const N: usize, const WRITES: bool, M: Maps<N> + ?Sized>(
    hook: &Hook,
    asked: &Asked<'_, N>,
    maps: &M,
) -> Option<Verdict> {
    let direction = hook.direction;
    let role = asked.transport.role;
    let isolated = asked.endpoint.is_isolated(direction);
    let reply_isolated = asked.endpoint.is_isolated(direction.opposite());
    let key = asked.flow_key(hook);
    let mut looked_up = None;
    if isolated && reply_isolated && matches!(role, Role::Continues | Role::Either | Role::Answers)
    {
        let flow = maps.flow(&key);
        if let Some(reason) = flow.and_then(|flow| by_fresh_flow(&flow, direction, asked, maps)) {
            return Some(Verdict::Allow(reason)); // 0
        }
        looked_up = Some(flow);
    }
    let flow = || looked_up.unwrap_or_else(|| maps.flow(&key));
    match by_rules(asked, direction, asked.transport.destination_port, maps) {
        Some(reason) => {
            let wanted = match role {
                Role::Opens => {
                    reply_isolated || flow::is_remembered_from_the_start(asked.protocol, role)
                }
                Role::Continues | Role::Either => reply_isolated,
                Role::Answers | Role::Alone | Role::NeighbourDiscovery | Role::Reports => false,
            };
            if wanted {
                let new = Flow::opened(direction, asked.endpoint.epoch, maps.now_ns());
                remember::<N, WRITES, M>(hook, asked, &key, flow(), &new, maps)?;
            }
            Some(Verdict::Allow(reason)) // 1
        }
        None => match role {
            Role::Continues | Role::Either | Role::Answers => {
                by_flow::<N, WRITES, M>(hook, asked, &key, flow(), maps) // 2
            }
            Role::Opens | Role::Alone | Role::NeighbourDiscovery | Role::Reports => {
                Some(Verdict::Deny(NotAllowed))
            }
        },
    }
}

/// Why a packet passes whose flow says all that rules would, and is not to be written again.
///
/// Any change of what the rules say gives the endpoint another epoch, and they are asked again with
/// the first packet of every second in any case. That the node opened the flow says nothing of what
/// rules let others send in its name.
#[inline(always)]
fn by_fresh_flow<const N: usize, M: Maps<N> + ?Sized>(
    flow: &Flow,
    direction: Direction,
    asked: &Asked<'_, N>,
    maps: &M,
) -> Option<AllowReason> {
    let Transport { role, ending, .. } = *asked.transport;
    let by_opener = flow.opener() as u8 == direction as u8;
    if by_opener && (matches!(role, Role::Answers) || flow.is_by_node()) {
        return None;
    }
    let now = Flow { epoch: asked.endpoint.epoch, ..flow.after(direction, ending, maps.now_ns()) };
    match (flow.is_outdated_by(&now), by_opener) {
        (true, _) => None,
        (false, true) => Some(Rule),
        (false, false) => Some(Reply),
    }
}

/// Why the endpoint's rules allow traffic in `direction` with `port` at its destination, or `None`.
#[inline(always)]
pub(super) fn by_rules<const N: usize, M: Maps<N> + ?Sized>(
    asked: &Asked<'_, N>,
    direction: Direction,
    port: Port,
    maps: &M,
) -> Option<AllowReason> {
    if !asked.endpoint.is_isolated(direction) {
        return Some(NotIsolated);
    }
    let Asked { endpoint, remote, protocol, .. } = *asked;
    let question = Question::new(*remote, endpoint.epoch, direction, protocol, port);
    let known = maps.with_memo(&question, |memo| memo.recall(&question)).flatten();
    known.unwrap_or_else(|| {
        let answer = by_maps(asked, direction, port, maps);
        maps.with_memo(&question, |memo| memo.note(&question, answer));
        answer
    })
}

/// [`by_rules`] of a direction that is isolated, without a look at what they said last.
#[inline(always)]
fn by_maps<const N: usize, M: Maps<N> + ?Sized>(
    asked: &Asked<'_, N>,
    direction: Direction,
    port: Port,
    maps: &M,
) -> Option<AllowReason> {
    let side = asked.endpoint.side(direction);
    if contains(&side.any_peer, asked.protocol, port, maps) {
        return Some(Rule);
    }
    let identity = maps.identity(asked.remote, asked.endpoint.flags);
    if is_node(identity)
        && matches!(direction, Direction::Egress)
        && !is_node_denied(asked.endpoint)
    {
        return Some(OwnNode);
    }
    let identity = identity & !IDENTITY_NODE;
    let known = identity != IDENTITY_NONE;
    let key = RuleKey { policy_set: side.policy_set, identity };
    (known && maps.allows(&key, asked.protocol, port)).then_some(Rule)
}

/// [`Maps::allows`], by the maps that it is about.
#[inline(always)]
pub fn allows_in<const N: usize, M: Maps<N> + ?Sized>(
    maps: &M,
    key: &RuleKey,
    protocol: u8,
    port: Port,
) -> bool {
    maps.rule(key).is_some_and(|ports| contains(&ports, protocol, port, maps))
}

/// [`Maps::identity`], by the maps that it is about.
#[inline(always)]
pub fn identity_in<const N: usize, M: Maps<N> + ?Sized>(
    maps: &M,
    address: &Address<N>,
    flags: u32,
) -> u32 {
    let of = |peer: Option<Peer>| match peer {
        None => IDENTITY_NONE,
        Some(Peer { identities: [first, second] }) => {
            if flags & SECOND_IDENTITY == 0 {
                first
            } else {
                second
            }
        }
    };
    match of(maps.peer(address)) {
        IDENTITY_NONE if flags & ASKS_CIDRS != 0 => of(maps.cidr(address)),
        identity => identity,
    }
}

#[inline(always)]
pub(super) const fn is_node(identity: u32) -> bool {
    identity & IDENTITY_NODE != 0
}

/// Whether the pod reaches its own node by rules only.
#[inline(always)]
pub(super) const fn is_node_denied(endpoint: &Endpoint) -> bool {
    endpoint.flags & DENY_EGRESS_TO_NODE != 0
}

#[inline(always)]
fn contains<const N: usize, M: Maps<N> + ?Sized>(
    set: &PortSet,
    protocol: u8,
    port: Port,
    maps: &M,
) -> bool {
    if *set == PortSet::NOTHING || *set == PortSet::EVERYTHING {
        return *set == PortSet::EVERYTHING;
    }
    if set.is_placed() {
        return maps.is_in_ranges(set, protocol, port);
    }
    let range = set.range();
    range.protocol == u32::from(protocol)
        && range.first <= port.number()
        && port.number() <= range.last
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

/// Remembers who opened the flow of a packet that is allowed; where that was not known, it is `new`.
/// `None`: not without `WRITES`.
///
/// A packet that continues something unknown is taken for the opener's, so that a lost entry heals;
/// but not where its replies pass by rules anyway: then it may as well be a reply itself.
#[inline(always)]
fn remember<const N: usize, const WRITES: bool, M: Maps<N> + ?Sized>(
    hook: &Hook,
    asked: &Asked<'_, N>,
    key: &FlowKey<N>,
    known: Option<Flow>,
    new: &Flow,
    maps: &M,
) -> Option<()> {
    let direction = hook.direction;
    let opens = matches!(asked.transport.role, Role::Opens);
    let now_ns = new.seen_ns;
    let Some(live) = known.filter(|flow| flow.is_live(asked.protocol, now_ns)) else {
        if !opens && needs_no_flow(hook, asked, maps) {
            return Some(());
        }
        return put::<WRITES>(|| match known {
            None => maps.make_flow(key, new),
            Some(_) => maps.set_flow(key, new),
        });
    };
    let by_opener = live.opener() as u8 == direction as u8;
    let next = live.after(direction, asked.transport.ending, now_ns);
    let next = match (by_opener, opens) {
        (true, true) if live.is_over() => *new,
        (true, _) => next.judged_as(new),
        (false, true) => *new,
        (false, false) => next,
    };
    if live.is_outdated_by(&next) { put::<WRITES>(|| maps.set_flow(key, &next)) } else { Some(()) }
}

/// Whether the replies to a packet pass without a flow entry; those of the node always do.
#[inline(always)]
fn needs_no_flow<const N: usize, M: Maps<N> + ?Sized>(
    hook: &Hook,
    asked: &Asked<'_, N>,
    maps: &M,
) -> bool {
    let opposite = hook.direction.opposite();
    let replies = by_rules(asked, opposite, asked.transport.source_port, maps);
    if matches!(asked.transport.role, Role::Either) {
        // Behind an address of the node may be others, whose replies do not come from the node itself.
        return matches!(replies, Some(Rule | NotIsolated));
    }
    let to_node = maps.identity(asked.remote, asked.endpoint.flags);
    replies.is_some() || matches!(opposite, Direction::Ingress) && is_node(to_node)
}

/// Remembers what the own node opens to a pod that reaches it by rules only. `None`: not without
/// `WRITES`.
///
/// An answer of the node opens nothing, but shows that the flow which the pod opened is alive.
#[inline(always)]
pub(super) fn remember_node<const N: usize, const WRITES: bool, M: Maps<N> + ?Sized>(
    hook: &Hook,
    asked: &Asked<'_, N>,
    maps: &M,
) -> Option<()> {
    let role = asked.transport.role;
    let isolated = asked.endpoint.is_isolated(hook.direction.opposite());
    let is_wanted = match role {
        Role::Opens => isolated || flow::is_remembered_from_the_start(asked.protocol, role),
        Role::Continues | Role::Either | Role::Answers => isolated,
        Role::Alone | Role::NeighbourDiscovery | Role::Reports => false,
    };
    if !is_wanted {
        return Some(());
    }
    let key = asked.flow_key(hook);
    let known = maps.flow(&key);
    let new = Flow::opened_by_node(asked.endpoint.epoch, maps.now_ns());
    let is_live = known.is_some_and(|flow| flow.is_live(asked.protocol, new.seen_ns));
    if matches!(role, Role::Answers) && !is_live {
        return Some(());
    }
    remember::<N, WRITES, M>(hook, asked, &key, known, &new, maps)
}

/// The verdict on a packet that rules deny. `None`: none without `WRITES`.
#[inline(always)]
fn by_flow<const N: usize, const WRITES: bool, M: Maps<N> + ?Sized>(
    hook: &Hook,
    asked: &Asked<'_, N>,
    key: &FlowKey<N>,
    known: Option<Flow>,
    maps: &M,
) -> Option<Verdict> {
    let opposite = hook.direction.opposite();
    let Some(known) = known.filter(|flow| flow.opener() as u8 == opposite as u8) else {
        return Some(Verdict::Deny(NotAllowed));
    };
    let now_ns = maps.now_ns();
    if !known.is_live(asked.protocol, now_ns) {
        return Some(Verdict::Deny(NotAllowed));
    }
    let epoch = asked.endpoint.epoch;
    let next = Flow { epoch, ..known.after(hook.direction, asked.transport.ending, now_ns) };
    if known.is_outdated_by(&next) {
        if !WRITES {
            return None;
        }
        if !known.is_by_node()
            && by_rules(asked, opposite, asked.transport.source_port, maps).is_none()
        {
            return Some(Verdict::Deny(FlowRevoked));
        }
        maps.set_flow(key, &next);
    }
    Some(Verdict::Allow(Reply))
}

/// What rules and flows say of a packet; flow entries are written.
#[inline(always)]
pub(super) fn judge<const N: usize, M: Maps<N> + ?Sized>(
    maps: &M,
    hook: &Hook,
    asked: &Asked<'_, N>,
) -> Verdict {
    // With leave to write, there is always a verdict.
    by_policy::<N, true, M>(hook, asked, maps).unwrap_or(Verdict::Deny(DropReason::Internal))
}

/// What they say of an ICMP error about the packet `quoted`, whose sender is to get it.
///
/// 1. The flow of the quoted packet is known: the rules of whoever opened it decide, unless that was
///    the own node.
/// 2. It is not known: the packet may be a reply, which no entry is kept for where it passes anyway.
///    Then the rules decide that let its flow in.
#[inline(always)]
pub(super) fn judge_quoted<const N: usize, M: Maps<N> + ?Sized>(
    maps: &M,
    hook: &Hook,
    quoted: &Asked<'_, N>,
) -> Verdict {
    let direction = hook.direction;
    let key = quoted.flow_key(&Hook { direction: direction.opposite(), ..*hook });
    let known = maps.flow(&key).filter(|flow| flow.is_live(quoted.protocol, maps.now_ns()));
    let back = direction.opposite();
    if known.is_none()
        && quoted.endpoint.is_isolated(back)
        && by_rules(quoted, back, quoted.transport.destination_port, maps).is_none()
    {
        return Verdict::Deny(NotAllowed); // 2
    }
    let opener = known.map_or(direction, |flow| flow.opener()); // 1, 2
    let port = if opener as u8 == direction as u8 {
        quoted.transport.source_port
    } else {
        quoted.transport.destination_port
    };
    if known.is_some_and(|flow| flow.is_by_node()) {
        return Verdict::Allow(Related); // 1
    }
    match (by_rules(quoted, opener, port, maps), known) {
        (Some(_), _) => Verdict::Allow(Related),
        (None, Some(_)) => Verdict::Deny(FlowRevoked),
        (None, None) => Verdict::Deny(NotAllowed),
    }
}

#[inline(always)]
fn put<const WRITES: bool>(write: impl FnOnce()) -> Option<()> {
    WRITES.then(write)
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
}
