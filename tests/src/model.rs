//! What a second reading of the headers and a slow, obvious policy expect of a packet.
//!
//! The policy is that of [`pod`](crate::pod), said again as conditions. Where neither flows nor
//! fragments have a say, the verdict is expected exactly, reason included. Where they do, the
//! memory in here gives bounds: a reply passes only after a packet of its flow was let through in
//! the other direction by the rules; and some replies have to pass.

use std::{collections::HashMap, net::IpAddr};

use bulkhead_common::{
    value::flags,
    verdict::{
        AllowReason::{self, Itself, NeighbourDiscovery, NotIsolated, OwnNode, Rule},
        Direction,
        DropReason::{FragmentWithoutFirst, NotAllowed, SpoofedSource, UnknownEthertype},
        Verdict::{self, Allow, Deny},
    },
};

use crate::{
    crafted::Crafted,
    pod::{ALLOWED, EGRESS_ONLY, NETS, OPEN},
    reading::{self, FOLLOWS, Fragment, Ip, Part, Quoted, Reading, Transport},
};

const TCP: u8 = 6;
const UDP: u8 = 17;
const SCTP: u8 = 132;

/// What is expected of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// This verdict.
    Exactly(Verdict),
    /// What was there before decides; these are the bounds.
    ByState {
        /// It may pass.
        may_pass: bool,
        /// It has to pass.
        must_pass: bool,
    },
}

impl Expected {
    /// Whether a verdict is as expected.
    pub fn admits(self, verdict: Verdict) -> bool {
        match self {
            Self::Exactly(expected) => verdict == expected,
            Self::ByState { may_pass, must_pass } => {
                if verdict.is_allow() {
                    may_pass
                } else {
                    !must_pass
                }
            }
        }
    }
}

/// The pod, as its packets find it: its flags, and a number that changes with them.
#[derive(Clone, Copy, Debug)]
pub struct State {
    /// See [`flags`].
    pub flags: u32,
    /// See [`bulkhead_common::value::Endpoint::epoch`].
    pub epoch: u32,
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

/// A flow of the pod: the peer, the pod's port, the peer's port, the protocol.
type Flow = (IpAddr, u16, u16, u8);
/// A datagram: source, destination, identification, the way it goes.
type Datagram = (IpAddr, IpAddr, u32, Direction);

/// What rules let through of a flow.
#[derive(Clone, Copy, Debug, Default)]
struct Passed {
    /// In which epoch last, for each direction.
    last: [Option<u32>; 2],
    /// The same, of those packets alone that can only be a flow's first.
    first: [Option<u32>; 2],
    /// A FIN or RST was met.
    closed: bool,
}

/// What was let through.
#[derive(Clone, Debug, Default)]
pub struct Model {
    flows: HashMap<Flow, Passed>,
    /// Where the transport header of the first fragment ended.
    firsts: HashMap<Datagram, usize>,
}

impl Model {
    /// What is expected of a packet, and what it says.
    pub fn expect(&self, state: State, packet: &Crafted) -> (Expected, Reading) {
        let reading = reading::read(&packet.bytes);
        (self.expected(state, packet, &reading), reading)
    }

    fn expected(&self, state: State, packet: &Crafted, reading: &Reading) -> Expected {
        let direction = packet.direction;
        let exactly = Expected::Exactly;
        let unreadable = |reason| {
            exactly(if state.is_isolated(direction) { Deny(reason) } else { Allow(NotIsolated) })
        };
        let checked = direction == Direction::Egress && state.has(flags::CHECK_SOURCE);
        if packet.from_own_node && !reading::may_be_extended(&packet.bytes) {
            return exactly(Allow(OwnNode));
        }
        let ip = match reading {
            Reading::Arp => return exactly(Allow(NeighbourDiscovery)),
            Reading::Unaddressed(reason) if checked && *reason != UnknownEthertype => {
                return exactly(Deny(*reason));
            }
            Reading::Unaddressed(reason) => return unreadable(*reason),
            Reading::Ip(ip) => ip,
        };
        if packet.from_own_node
            && (ip.fragment == Fragment::Whole || known(state, ip.source) == Known::Node)
        {
            return exactly(Allow(OwnNode));
        }
        if ip.transport.as_ref().is_ok_and(|says| says.part == Part::NeighbourDiscovery) {
            return exactly(Allow(NeighbourDiscovery));
        }
        let (local, remote) = ends(direction, ip.source, ip.destination);
        if checked && !is_own_source(local, remote) {
            return exactly(Deny(SpoofedSource));
        }
        let says = match &ip.transport {
            Err(FragmentWithoutFirst) if FOLLOWS && state.is_isolated(direction) => {
                return Expected::ByState {
                    may_pass: self.follows_a_first(direction, ip),
                    must_pass: false,
                };
            }
            Err(reason) => return unreadable(*reason),
            Ok(says) => says,
        };
        if local == remote && is_pod(local) {
            return exactly(Allow(Itself));
        }
        let port = says.destination_port;
        if let Some(reason) = by_rules(state, direction, remote, ip.protocol, port) {
            return exactly(Allow(reason));
        }
        match &says.part {
            Part::First | Part::None | Part::NeighbourDiscovery => exactly(Deny(NotAllowed)),
            Part::Error(_) if !FOLLOWS => exactly(Deny(NotAllowed)),
            Part::Error(quoted) => Expected::ByState {
                may_pass: quoted.as_ref().is_some_and(|quoted| {
                    quoted.source == ip.destination && self.is_about(state, direction, quoted)
                }),
                must_pass: false,
            },
            Part::Second | Part::Later | Part::Any => self.as_reply(state, direction, ip, says),
        }
    }

    /// A packet that rules deny, and that a flow may let through.
    fn as_reply(&self, state: State, direction: Direction, ip: &Ip, says: &Transport) -> Expected {
        let (_, remote) = ends(direction, ip.source, ip.destination);
        let passed = self.flows.get(&flow(direction, ip, says)).copied().unwrap_or_default();
        let opener = direction.opposite() as usize;
        let openers = match (ip.protocol, &says.part) {
            (UDP, _) => passed.last,
            (TCP, Part::Second) => passed.first,
            _ => [None; 2],
        };
        let must_pass = openers[opener] == Some(state.epoch)
            && passed.last[direction as usize].is_none()
            && !passed.closed
            && known(state, remote) != Known::Node;
        Expected::ByState { may_pass: passed.last[opener].is_some(), must_pass }
    }

    /// A later fragment that lies behind the headers of a first one that passed.
    fn follows_a_first(&self, direction: Direction, ip: &Ip) -> bool {
        let Fragment::At { byte, id } = ip.fragment else {
            return false;
        };
        let first = self.firsts.get(&(ip.source, ip.destination, id, direction));
        first.is_some_and(|headers_end| byte >= *headers_end)
    }

    /// Whether an error that goes in `direction` is about a packet that went, or may go, the other
    /// way: by the rules, or as a reply to what the rules let in.
    fn is_about(&self, state: State, direction: Direction, quoted: &Quoted) -> bool {
        let went = direction.opposite();
        let (_, remote) = ends(went, quoted.source, quoted.destination);
        let allowed =
            |direction, port| by_rules(state, direction, remote, quoted.protocol, port).is_some();
        allowed(went, quoted.destination_port) || allowed(direction, quoted.source_port)
    }

    /// What became of a packet.
    pub fn learn(&mut self, state: State, packet: &Crafted, reading: &Reading, verdict: Verdict) {
        let Reading::Ip(ip @ Ip { transport: Ok(says), .. }) = reading else {
            return;
        };
        let direction = packet.direction;
        if let Fragment::At { byte: 0, id } = ip.fragment
            && verdict.is_allow()
        {
            let datagram = (ip.source, ip.destination, id, direction);
            let end = self.firsts.entry(datagram).or_insert(ip.headers_end);
            *end = ip.headers_end.min(*end);
        }
        let opens = match says.part {
            Part::First | Part::Later | Part::Any => true,
            Part::Second | Part::Error(_) | Part::NeighbourDiscovery | Part::None => false,
        };
        // What the node itself sends asks no rule, and is not remembered.
        let by_rules = match verdict {
            Allow(Rule | NotIsolated) => true,
            // What the node itself sends asks no rule, and is not remembered.
            Allow(OwnNode) => direction == Direction::Egress,
            Allow(_) | Deny(_) => false,
        };
        if opens && by_rules {
            let passed = self.flows.entry(flow(direction, ip, says)).or_default();
            passed.last[direction as usize] = Some(state.epoch);
            if says.part == Part::First {
                passed.first[direction as usize] = Some(state.epoch);
            }
        }
        if says.closes
            && let Some(passed) = self.flows.get_mut(&flow(direction, ip, says))
        {
            passed.closed = true;
        }
    }
}

/// The pod's end, then the other one's, of something that goes in `direction`.
fn ends<T>(direction: Direction, source: T, destination: T) -> (T, T) {
    match direction {
        Direction::Ingress => (destination, source),
        Direction::Egress => (source, destination),
    }
}

fn flow(direction: Direction, ip: &Ip, says: &Transport) -> Flow {
    let (_, remote) = ends(direction, ip.source, ip.destination);
    let (pod_port, peer_port) = ends(direction, says.source_port, says.destination_port);
    (remote, pod_port, peer_port, ip.protocol)
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

/// What rules know of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    Nobody,
    Friend,
    Trusted,
    Node,
}

fn known(state: State, address: IpAddr) -> Known {
    if state.has(flags::SECOND_IDENTITY) {
        return Known::Nobody;
    }
    for net in NETS {
        let named =
            [(net.friend, Known::Friend), (net.trusted, Known::Trusted), (net.node, Known::Node)];
        if let Some((_, known)) = named.into_iter().find(|(peer, _)| *peer == address) {
            return known;
        }
    }
    if !state.has(flags::ASKS_CIDRS) {
        return Known::Nobody;
    }
    match address {
        IpAddr::V4(address) => match address.octets() {
            [10, 9, 1, _] => Known::Friend,
            [10, 9, _, _] => Known::Trusted,
            _ => Known::Nobody,
        },
        IpAddr::V6(address) => match address.segments() {
            [0xfd00, 0x90, 0, 0, ..] => Known::Friend,
            [0xfd00, 0x90, ..] => Known::Trusted,
            _ => Known::Nobody,
        },
    }
}

fn by_rules(
    state: State,
    direction: Direction,
    peer: IpAddr,
    protocol: u8,
    port: u16,
) -> Option<AllowReason> {
    if !state.is_isolated(direction) {
        return Some(NotIsolated);
    }
    let open = direction == Direction::Ingress && protocol == TCP && port == OPEN;
    let with_friend = match protocol {
        TCP if port == ALLOWED => true,
        TCP if direction == Direction::Ingress => (8080..=8090).contains(&port),
        TCP => port == EGRESS_ONLY,
        UDP | SCTP => port == ALLOWED,
        _ => false,
    };
    match known(state, peer) {
        _ if open => Some(Rule),
        Known::Node if direction == Direction::Egress => Some(OwnNode),
        Known::Trusted => Some(Rule),
        Known::Friend if with_friend => Some(Rule),
        Known::Nobody | Known::Friend | Known::Node => None,
    }
}
