//! Frames that are meant to be hard to judge, made of a source's decisions.
//!
//! Most are well-formed, between the ends that [`pod::rules`](crate::pod::rules) knows, and refer
//! to each other: replies, later fragments, errors that quote. Then some are damaged. Checksums are
//! left zero: the data plane does not look at them.

use std::{collections::VecDeque, net::IpAddr};

use bulkhead_common::{
    value::flags::{
        ASKS_CIDRS, CHECK_SOURCE, ISOLATED_EGRESS, ISOLATED_INGRESS, REJECT, SECOND_IDENTITY,
    },
    verdict::Direction,
};

use crate::{
    choices::Choices,
    pod::{ALLOWED, CLIENT, DENIED, EGRESS_ONLY, INGRESS_ONLY, NETS, OPEN, in_block},
};

mod network;
mod transport;

/// A frame, and where it is met.
#[derive(Clone, Debug)]
pub struct Crafted {
    /// The way it goes, seen from the pod.
    pub direction: Direction,
    /// It came in through no device.
    pub from_own_node: bool,
    /// The pod sent it, and it came back translated.
    pub from_itself: bool,
    /// The device took a VLAN tag off it.
    pub vlan_tagged: bool,
    /// What the kernel says of its segments; zero: it is one.
    pub gso_size: u32,
    /// From the Ethernet header on.
    pub bytes: Vec<u8>,
}

impl Crafted {
    /// A frame that came in through some device.
    pub const fn new(direction: Direction, bytes: Vec<u8>) -> Self {
        let (from_own_node, from_itself, vlan_tagged, gso_size) = (false, false, false, 0);
        Self { direction, from_own_node, from_itself, vlan_tagged, gso_size, bytes }
    }
}

/// What a packet belongs to.
#[derive(Clone, Copy, Debug)]
struct Talk {
    direction: Direction,
    from: IpAddr,
    to: IpAddr,
    protocol: u8,
    source_port: u16,
    destination_port: u16,
    /// Of the datagram, for its fragments.
    id: u16,
}

impl Talk {
    const fn reversed(self) -> Self {
        Self {
            direction: self.direction.opposite(),
            from: self.to,
            to: self.from,
            source_port: self.destination_port,
            destination_port: self.source_port,
            ..self
        }
    }
}

/// How many earlier packets later ones refer to.
const REMEMBERED: usize = 24;

const TCP: u8 = 6;
const UDP: u8 = 17;
const SCTP: u8 = 132;

/// Makes frames, one after the other.
#[derive(Debug, Default)]
pub struct Crafter {
    said: VecDeque<Talk>,
}

impl Crafter {
    /// The next frame.
    pub fn next(&mut self, choices: &mut impl Choices) -> Crafted {
        let packet = self.packet(choices);
        let (direction, gso_size) = (packet.talk.direction, packet.gso_size(choices));
        let mut bytes = network::frame(&packet, choices);
        damage(&mut bytes, choices);
        let from_own_node = direction == Direction::Ingress && choices.chance(8);
        Crafted { from_own_node, gso_size, ..Crafted::new(direction, bytes) }
    }

    fn packet(&mut self, choices: &mut impl Choices) -> Packet {
        let earlier = match self.said.len() {
            0 => None,
            len => choices.chance(130).then(|| self.said[choices.below(len)]),
        };
        let Some(earlier) = earlier else {
            let talk = fresh(choices);
            self.remember(talk);
            let payload = transport::of(&talk, choices);
            return Packet { talk, payload, fragment: fragment(choices) };
        };
        match choices.below(8) {
            // It goes on.
            0 | 1 => {
                let payload = transport::of(&earlier, choices);
                Packet { talk: earlier, payload, fragment: fragment(choices) }
            }
            // It is answered.
            2..=4 => {
                let talk = earlier.reversed();
                let payload = transport::of(&talk, choices);
                Packet { talk, payload, fragment: fragment(choices) }
            }
            // Another part of the same datagram; often one whose bytes could be a header.
            5 | 6 => {
                let payload = transport::of(&earlier, choices);
                let part = (choices.choose(&[0, 1, 1, 2, 2, 3, 185]), choices.chance(128));
                Packet { talk: earlier, payload, fragment: Some(part) }
            }
            _ => {
                let quoted = if choices.chance(220) { earlier } else { fresh(choices) };
                let talk = error_about(&quoted, choices);
                let payload = transport::error(&quoted, choices);
                Packet { talk, payload, fragment: None }
            }
        }
    }

    fn remember(&mut self, talk: Talk) {
        if self.said.len() == REMEMBERED {
            self.said.pop_front();
        }
        self.said.push_back(talk);
    }
}

/// A packet, before it is bytes.
struct Packet {
    talk: Talk,
    /// The transport header and what follows it.
    payload: Vec<u8>,
    /// Offset in units of eight bytes, and whether more follow.
    fragment: Option<(u16, bool)>,
}

impl Packet {
    fn gso_size(&self, choices: &mut impl Choices) -> u32 {
        let segmented = self.payload.len() > 1400 && choices.chance(200);
        if segmented { 1000 } else { 0 }
    }
}

/// A packet that refers to no other.
fn fresh(choices: &mut impl Choices) -> Talk {
    let net = choices.choose(&NETS);
    let direction = choices.choose(&Direction::ALL);
    let block = in_block(&net);
    let (friend, stranger) = (net.friend, net.stranger);
    let known = [friend, friend, friend, friend, net.trusted, net.node, net.pod];
    let peers = [known.as_slice(), &[stranger, stranger, block, block]].concat();
    let peer = choices.choose(&peers);
    let pod = if choices.chance(8) { choices.choose(&peers) } else { net.pod };
    let (from, to) = match direction {
        Direction::Ingress => (peer, pod),
        Direction::Egress => (pod, peer),
    };
    let icmp = if from.is_ipv4() { 1 } else { 58 };
    let protocols = [TCP, TCP, TCP, TCP, UDP, UDP, UDP, SCTP, SCTP, icmp, icmp, 0];
    let protocol = match choices.choose(&protocols) {
        0 => choices.byte(),
        protocol => protocol,
    };
    let known = [ALLOWED, ALLOWED, INGRESS_ONLY, EGRESS_ONLY, OPEN, DENIED];
    let mut server = choices.choose(&known);
    let mut client = CLIENT + u16::from(choices.byte() % 4);
    if choices.chance(60) {
        std::mem::swap(&mut server, &mut client);
    }
    Talk {
        direction,
        from,
        to,
        protocol,
        source_port: client,
        destination_port: server,
        id: u16::from(choices.byte() % 8),
    }
}

/// Who tells the sender of a packet what became of it: its receiver, or somebody on the way.
fn error_about(quoted: &Talk, choices: &mut impl Choices) -> Talk {
    let reversed = quoted.reversed();
    let on_the_way = NETS.into_iter().find(|net| net.pod.is_ipv4() == quoted.from.is_ipv4());
    let from = match on_the_way {
        // A pod says it as itself.
        Some(net) if reversed.direction == Direction::Ingress && choices.chance(150) => {
            choices.choose(&[net.stranger, net.friend, net.node])
        }
        Some(_) | None => reversed.from,
    };
    let protocol = if quoted.from.is_ipv4() { 1 } else { 58 };
    Talk { from, protocol, ..reversed }
}

/// Flags of a pod.
pub fn flags(choices: &mut impl Choices) -> u32 {
    // Mostly isolated: an open pod has little to decide.
    let likely = [(ISOLATED_INGRESS, 220), (ISOLATED_EGRESS, 220), (CHECK_SOURCE, 200)];
    let others = [(REJECT, 80), (ASKS_CIDRS, 128), (SECOND_IDENTITY, 10)];
    let chosen = likely.into_iter().chain(others).filter(|(_, of_256)| choices.chance(*of_256));
    chosen.fold(0, |all, (flag, _)| all | flag)
}

fn fragment(choices: &mut impl Choices) -> Option<(u16, bool)> {
    // A first one, mostly.
    choices.chance(20).then(|| (choices.choose(&[0, 0, 0, 1, 2]), choices.chance(220)))
}

/// What may happen to bytes: some change, some are lost, some come behind them.
fn damage(bytes: &mut Vec<u8>, choices: &mut impl Choices) {
    if choices.chance(36) {
        for _ in 0..=choices.below(3) {
            // In the headers, behind the hardware addresses.
            let at = 12 + choices.below(bytes.len().min(120) - 12);
            bytes[at] = choices.byte();
        }
    }
    if choices.chance(8) {
        bytes.resize(14 + choices.below(140), choices.byte());
    }
}
