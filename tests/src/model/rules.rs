//! The rules of [`pod`](crate::pod), said again as conditions.

use std::net::IpAddr;

use bulkhead_common::{
    value::flags,
    verdict::{
        AllowReason::{self, NotIsolated, OwnNode, Rule},
        Direction,
    },
};

use super::{SCTP, State, TCP, UDP};
use crate::pod::{ALLOWED, EGRESS_ONLY, NETS, OPEN};

/// What rules know of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    Nobody,
    Friend,
    Trusted,
    Node,
}

pub(super) fn known(state: State, address: IpAddr) -> Known {
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

/// Why rules allow traffic in `direction` with `port` at its destination.
pub(super) fn allow(
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
