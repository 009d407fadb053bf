//! What the policies of one pod add up to in one direction.
//!
//! Rules only ever allow, so adding up is union: neither the order of policies and rules nor
//! their repetition leaves a trace.

use std::collections::BTreeMap;

use bulkhead_common::value::PortRange;

use super::peer_atom::PeerAtom;
use crate::policy::{
    compiled::PortSet,
    model::{PortMatch, Ports, Rule},
};

/// The sum of rules, with atoms of type `A`: [`PeerAtom`]s, or their numbers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PolicySet<A: Ord> {
    /// What is allowed with every peer.
    pub(super) any_peer: PortSet,
    /// What is allowed with the pods of an atom. Only atoms for which that is more than with
    /// every peer.
    pub(super) by_atom: BTreeMap<A, PortSet>,
}

impl<A: Ord> PolicySet<A> {
    /// Allows nothing.
    pub(super) const NOTHING: Self = Self { any_peer: PortSet::NOTHING, by_atom: BTreeMap::new() };
}

impl PolicySet<PeerAtom> {
    /// From rules, each with the namespace of its policy.
    pub(super) fn new<'a>(rules: impl IntoIterator<Item = (&'a str, &'a Rule)>) -> Self {
        let mut set = Self::NOTHING;
        for (namespace, rule) in rules {
            let ports = port_set(rule.ports.as_deref());
            let Some(peers) = &rule.peers else {
                set.any_peer = set.any_peer.union(&ports);
                continue;
            };
            for atom in peers.iter().filter_map(|peer| PeerAtom::new(peer, namespace)) {
                let sum = set.by_atom.entry(atom).or_insert(PortSet::NOTHING);
                *sum = sum.union(&ports);
            }
        }
        let Self { any_peer, by_atom } = &mut set;
        by_atom.retain(|_, ports| !ports.is_subset(any_peer));
        set
    }

    /// The same with the atoms replaced by their numbers.
    pub(super) fn numbered(self, mut number: impl FnMut(PeerAtom) -> u32) -> PolicySet<u32> {
        let by_atom = self.by_atom.into_iter().map(|(atom, ports)| (number(atom), ports));
        PolicySet { any_peer: self.any_peer, by_atom: by_atom.collect() }
    }
}

fn port_set(ports: Option<&[PortMatch]>) -> PortSet {
    let Some(ports) = ports else { return PortSet::Everything };
    PortSet::from_ranges(ports.iter().map(|port| {
        let (first, last) = match &port.ports {
            Ports::All => (0, u16::MAX),
            Ports::Range(range) => (*range.start(), *range.end()),
            Ports::Named(_) => (1, 0),
        };
        PortRange { protocol: u32::from(port.protocol.number()), first, last }
    }))
}
