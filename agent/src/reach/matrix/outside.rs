//! Addresses that are nobody's, as far as policies tell them apart.
//!
//! The blocks of all policies, and the `except`s in them, cut the address space into pieces. Inside
//! a piece every address that is no pod's, node's or service's is alike, so that one stands for all.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::policy::{
    index::Index,
    model::{Peer, Policy},
};

/// A block without the smaller blocks that policies name inside of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// The block.
    pub(super) net: IpNet,
    /// The largest blocks inside of it that are pieces of their own.
    pub(super) without: Vec<IpNet>,
    /// An address in it that is nobody's.
    pub(super) address: IpAddr,
}

/// The pieces in which there is an address that is nobody's; those around all others first.
pub(super) fn pieces(index: &Index) -> Vec<Piece> {
    let taken = known_addresses(index);
    let mut nets: BTreeSet<IpNet> = index.policies().values().flat_map(blocks).collect();
    nets.extend([IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())]);
    let piece = |net: &IpNet| {
        let inside: Vec<IpNet> =
            nets.iter().filter(|inner| *inner != net && net.contains(*inner)).copied().collect();
        let address = address_in(net, &inside, &taken)?;
        let is_largest =
            |net: &&IpNet| !inside.iter().any(|other| other != *net && other.contains(*net));
        let without = inside.iter().filter(is_largest).copied().collect();
        Some(Piece { net: *net, without, address })
    };
    let mut pieces: Vec<Piece> = nets.iter().filter_map(piece).collect();
    pieces.sort_by_key(|piece| (piece.net.prefix_len() != 0, piece.net));
    pieces
}

/// The addresses of pods, nodes and services.
pub(super) fn known_addresses(index: &Index) -> BTreeSet<IpAddr> {
    let pods = index.pods().values().filter(|pod| !pod.ended);
    let nodes = index.nodes().values().flat_map(|node| &node.addresses);
    let services = index.services().values().flat_map(|service| &service.addresses);
    pods.flat_map(|pod| &pod.addresses).chain(nodes).chain(services).copied().collect()
}

fn blocks(policy: &Policy) -> Vec<IpNet> {
    let rules = policy.ingress.iter().chain(&policy.egress).flatten();
    let peers = rules.flat_map(|rule| rule.peers.iter().flatten());
    let of = |peer: &Peer| match peer {
        Peer::Block(block) => [block.cidr].into_iter().chain(block.except.clone()).collect(),
        Peer::Pods { .. } => Vec::new(),
    };
    peers.flat_map(of).collect()
}

/// An address of a block that is in none of the others and is nobody's.
fn address_in(net: &IpNet, inside: &[IpNet], taken: &BTreeSet<IpAddr>) -> Option<IpAddr> {
    /// Of documentation: RFC 5737 and RFC 3849.
    const PREFERRED: [IpAddr; 2] = [
        IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1)),
        IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
    ];
    let block_of = |address: &IpAddr| inside.iter().find(|block| block.contains(address));
    let is_free = |address: &IpAddr| {
        net.contains(address) && block_of(address).is_none() && !taken.contains(address)
    };
    let first = bits(net.network());
    let preferred = PREFERRED.into_iter().filter(|_| net.prefix_len() == 0);
    if let Some(address) = preferred.chain(of_bits(net, first.saturating_add(1))).find(is_free) {
        return Some(address);
    }
    let mut at = first;
    loop {
        let address = of_bits(net, at).filter(|address| net.contains(address))?;
        at = match block_of(&address) {
            Some(block) => bits(block.broadcast()).checked_add(1)?,
            None if taken.contains(&address) => at.checked_add(1)?,
            None => return Some(address),
        };
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// `None`: it would be no address of the block's family.
fn of_bits(net: &IpNet, bits: u128) -> Option<IpAddr> {
    match net {
        IpNet::V4(_) => u32::try_from(bits).ok().map(|bits| Ipv4Addr::from_bits(bits).into()),
        IpNet::V6(_) => Some(Ipv6Addr::from_bits(bits).into()),
    }
}
