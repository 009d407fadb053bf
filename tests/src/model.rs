//! The verdict that a second reading of the headers leads to.
//!
//! The policy is that of [`pod`](crate::pod), and the memory that of docs/datapath.md, both said
//! again: slow, obvious, and without a look at what `bulkhead_common` does about them.

use std::{collections::HashMap, net::IpAddr, time::Duration};

use bulkhead_common::{
    value::flags,
    verdict::{
        AllowReason::{Itself, NeighbourDiscovery, NotIsolated, OwnNode, Related, Reply, Rule},
        Direction,
        DropReason::{
            self, FlowRevoked, Malformed, NotAllowed, SpoofedSource, UnknownEthertype, VlanTagged,
        },
        Verdict::{self, Allow, Deny},
    },
};

use self::{
    flow::Flow,
    rules::{Known, allow, known},
};
use crate::{
    crafted::Crafted,
    pod::NETS,
    reading::{self, Closes, Fragment, Ip, Part, Quoted, Reading, Transport},
};

mod flow;
mod rules;

const TCP: u8 = 6;
const UDP: u8 = 17;
const SCTP: u8 = 132;

/// The pod, as a packet finds it.
#[derive(Clone, Copy, Debug)]
pub struct State {
    /// See [`flags`].
    pub flags: u32,
    /// See [`bulkhead_common::value::Endpoint::epoch`].
    pub epoch: u32,
    /// By a clock that never goes back.
    pub now: Duration,
}

impl State {
    const fn has(self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    const fn is_isolated(self, direction: Direction) -> bool {
        match direction {
            Direction::Ingress => self.has(flags::ISOLATED_INGRESS),
            Direction::Egress => self.has(flags::ISOLATED_EGRESS),
        }
    }
}

/// A packet, as rules and flows see it.
#[derive(Clone, Copy, Debug)]
struct Asked<'a> {
    state: State,
    direction: Direction,
    remote: IpAddr,
    protocol: u8,
    says: &'a Transport,
}

/// A flow of the pod: the peer, the pod's port, the peer's port, the protocol.
type FlowKey = (IpAddr, u16, u16, u8);
/// A datagram: source, destination, identification, the way it goes; of IPv4, the protocol.
type Datagram = (IpAddr, IpAddr, u32, Direction, u8);

/// What a datagram's first fragment said.
#[derive(Clone, Debug)]
struct First {
    protocol: u8,
    says: Transport,
    /// Where in the datagram its transport header ended.
    headers_end: usize,
    met: Duration,
}

/// What the pod's packets left behind.
#[derive(Clone, Debug, Default)]
pub struct Model {
    flows: HashMap<FlowKey, Flow>,
    firsts: HashMap<Datagram, First>,
}

impl Model {
    /// The verdict on a packet that reads so.
    pub fn judge(&mut self, state: State, packet: &Crafted, reading: &Reading) -> Verdict {
        let direction = packet.direction;
        let unreadable =
            |reason| if state.is_isolated(direction) { Deny(reason) } else { Allow(NotIsolated) };
        let checked = direction == Direction::Egress && state.has(flags::CHECK_SOURCE);
        if packet.from_own_node && !reading::may_be_extended(&packet.bytes) {
            return Allow(OwnNode);
        }
        let tagged = Reading::Unaddressed(VlanTagged);
        let ip = match if packet.vlan_tagged { &tagged } else { reading } {
            Reading::Arp => return Allow(NeighbourDiscovery),
            Reading::Unaddressed(reason) if checked && *reason != UnknownEthertype => {
                return Deny(*reason);
            }
            Reading::Unaddressed(reason) => return unreadable(*reason),
            Reading::Ip(ip) => ip,
        };
        if packet.from_own_node
            && (ip.fragment == Fragment::Whole || known(state, ip.source) == Known::Node)
        {
            return Allow(OwnNode);
        }
        if ip.transport.as_ref().is_ok_and(|says| says.part == Part::NeighbourDiscovery) {
            return Allow(NeighbourDiscovery);
        }
        let (local, remote) = ends(direction, ip.source, ip.destination);
        if checked && !is_own_source(local, remote) {
            return Deny(SpoofedSource);
        }
        let (protocol, says) = match self.transport(state.now, direction, ip) {
            Err(reason) => return unreadable(reason),
            Ok(found) => found,
        };
        let itself = (local == remote && is_pod(local))
            || (packet.from_itself && (is_pod(remote) || known(state, remote) == Known::Node));
        let verdict = if itself {
            Allow(Itself)
        } else {
            self.by_policy(&Asked { state, direction, remote, protocol, says: &says })
        };
        if let Part::Error(quoted) = &says.part
            && !verdict.is_allow()
        {
            return match quoted {
                Err(reason) => Deny(*reason),
                Ok(quoted) if quoted.source == ip.destination => {
                    self.by_quotation(state, direction, quoted)
                }
                Ok(_) => verdict,
            };
        }
        if let Fragment::At { byte: 0, more: true, id } = ip.fragment
            && verdict.is_allow()
            && state.is_isolated(direction)
        {
            // What it ends is ended once.
            let says = Transport { closes: Closes::Nothing, ..says };
            let datagram = datagram(direction, ip, id);
            let before = self.firsts.get(&datagram).map_or(0, |first| first.headers_end);
            let headers_end = ip.headers_end.max(before);
            let first = First { protocol, says, headers_end, met: state.now };
            self.firsts.insert(datagram, first);
        }
        verdict
    }

    /// The protocol and the transport header of a packet; of a later fragment, what its first one
    /// said.
    fn transport(
        &self,
        now: Duration,
        direction: Direction,
        ip: &Ip,
    ) -> Result<(u8, Transport), DropReason> {
        let first = match ip.fragment {
            Fragment::At { byte, id, .. } if byte > 0 => {
                self.firsts.get(&datagram(direction, ip, id)).map(|first| (byte, first))
            }
            Fragment::At { .. } | Fragment::Whole | Fragment::Unknown => None,
        };
        // As long as Linux waits (net.ipv4.ipfrag_time, net.ipv6.ip6frag_time).
        let patience = Duration::from_secs(if ip.source.is_ipv4() { 30 } else { 60 });
        match first.filter(|(_, first)| now - first.met <= patience) {
            None => ip.transport.clone().map(|says| (ip.protocol, says)),
            Some((byte, first)) if byte < first.headers_end => Err(Malformed),
            Some((_, first)) => Ok((first.protocol, first.says.clone())),
        }
    }

    /// What rules and flows say.
    fn by_policy(&mut self, asked: &Asked<'_>) -> Verdict {
        let Asked { state, direction, remote, protocol, says } = *asked;
        if let Some(verdict) = self.by_fresh_flow(asked) {
            return verdict;
        }
        let Some(reason) = allow(state, direction, remote, protocol, says.destination_port) else {
            return self.as_reply(asked);
        };
        let back = direction.opposite();
        let first = says.part == Part::First;
        let kept = match says.part {
            Part::First => state.is_isolated(back) || matches!(protocol, TCP | SCTP),
            Part::Later | Part::Any => state.is_isolated(back),
            Part::Second | Part::Error(_) | Part::NeighbourDiscovery | Part::None => false,
        };
        if !kept {
            return Allow(reason);
        }
        let replies = allow(state, back, remote, protocol, says.source_port);
        // Others may stand behind an address of the node.
        let replies_pass = if says.part == Part::Any {
            matches!(replies, Some(Rule | NotIsolated))
        } else {
            replies.is_some() || known(state, remote) == Known::Node
        };
        let flow = match self.live(asked.flow(), state.now) {
            None if replies_pass && !first => return Allow(reason),
            Some(flow) if !first || (flow.opener == direction && !flow.is_over()) => {
                let epoch = if flow.opener == direction { state.epoch } else { flow.epoch };
                flow.after(direction, says.closes, epoch, state.now)
            }
            None | Some(_) => Flow::opened(direction, state.epoch, state.now),
        };
        self.flows.insert(asked.flow(), flow);
        Allow(reason)
    }

    /// Of a pod that is isolated in both directions: a packet of a flow that this policy judged
    /// within the last second, and of which the packet says nothing new.
    fn by_fresh_flow(&self, asked: &Asked<'_>) -> Option<Verdict> {
        let Asked { state, direction, says, .. } = *asked;
        let isolated = Direction::ALL.into_iter().all(|way| state.is_isolated(way));
        let flow = self.flows.get(&asked.flow()).filter(|_| isolated)?;
        let by_opener = flow.opener == direction;
        let of_the_flow = match says.part {
            Part::Later | Part::Any => true,
            Part::Second => !by_opener,
            Part::First | Part::Error(_) | Part::NeighbourDiscovery | Part::None => false,
        };
        let as_it_was = *flow == flow.after(direction, says.closes, state.epoch, state.now);
        let reason = if by_opener { Rule } else { Reply };
        (of_the_flow && as_it_was).then_some(Allow(reason))
    }

    /// A packet that rules deny, and that a flow may let through.
    fn as_reply(&mut self, asked: &Asked<'_>) -> Verdict {
        let Asked { state, direction, remote, protocol, says } = *asked;
        if !matches!(says.part, Part::Second | Part::Later | Part::Any) {
            return Deny(NotAllowed);
        }
        let opener = direction.opposite();
        let Some(flow) = self.live(asked.flow(), state.now).filter(|flow| flow.opener == opener)
        else {
            return Deny(NotAllowed);
        };
        let next = flow.after(direction, says.closes, state.epoch, state.now);
        if next != flow && allow(state, opener, remote, protocol, says.source_port).is_none() {
            return Deny(FlowRevoked);
        }
        self.flows.insert(asked.flow(), next);
        Allow(Reply)
    }

    /// An error that goes in `direction`, about a packet that went the other way.
    fn by_quotation(&self, state: State, direction: Direction, quoted: &Quoted) -> Verdict {
        let Quoted { protocol, source_port, destination_port, .. } = *quoted;
        let went = direction.opposite();
        let (_, remote) = ends(went, quoted.source, quoted.destination);
        let (pod_port, peer_port) = ends(went, source_port, destination_port);
        let flow = self.live((remote, pod_port, peer_port, protocol), state.now);
        let sent = allow(state, went, remote, protocol, destination_port);
        if flow.is_none() && state.is_isolated(went) && sent.is_none() {
            return Deny(NotAllowed);
        }
        let opener = flow.map_or(direction, |flow| flow.opener);
        let port = if opener == went { destination_port } else { source_port };
        match (allow(state, opener, remote, protocol, port), flow) {
            (Some(_), _) => Allow(Related),
            (None, Some(_)) => Deny(FlowRevoked),
            (None, None) => Deny(NotAllowed),
        }
    }

    fn live(&self, key: FlowKey, now: Duration) -> Option<Flow> {
        let (.., protocol) = key;
        self.flows.get(&key).copied().filter(|flow| !flow.is_forgotten(protocol, now))
    }
}

impl Asked<'_> {
    fn flow(&self) -> FlowKey {
        let Self { direction, remote, protocol, says, .. } = *self;
        let (pod_port, peer_port) = ends(direction, says.source_port, says.destination_port);
        (remote, pod_port, peer_port, protocol)
    }
}

fn datagram(direction: Direction, ip: &Ip, id: u32) -> Datagram {
    let protocol = if ip.source.is_ipv4() { ip.protocol } else { 0 };
    (ip.source, ip.destination, id, direction, protocol)
}

/// The pod's end, then the other one's, of something that goes in `direction`.
fn ends<T>(direction: Direction, source: T, destination: T) -> (T, T) {
    match direction {
        Direction::Ingress => (destination, source),
        Direction::Egress => (source, destination),
    }
}

fn is_pod(address: IpAddr) -> bool {
    NETS.iter().any(|net| net.pod == address)
}

/// Its own address; or one of the link, to another one of the link or to a group.
fn is_own_source(source: IpAddr, destination: IpAddr) -> bool {
    let of_link = |address: IpAddr| match address {
        IpAddr::V4(_) => false,
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    let to_group = destination.is_ipv6() && destination.is_multicast();
    is_pod(source) || (of_link(source) && (of_link(destination) || to_group))
}
