//! What the policies of one pod add up to in one direction.
//!
//! Rules only ever allow, so adding up is union: neither the order of policies and rules nor
//! their repetition leaves a trace.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bulkhead_common::{value::PortRange, verdict::Direction};

use super::atom::Atom;
use crate::policy::{
    compiled::PortSet,
    model::{Pod, PortMatch, Ports, Protocol, Rule},
};

/// A port by its name, which each destination resolves for itself.
pub(super) type PortName = (Protocol, Arc<str>);

/// The sum of rules, with atoms of type `A`: [`Atom`]s, or their numbers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct PolicySet<A: Ord> {
    /// Rules of the two directions never share a set: only egress asks about services and names.
    pub(super) direction: Direction,
    /// The pod is closed, whatever its policies say: even services of its own node are.
    pub(super) closed: bool,
    /// What is allowed with every peer.
    pub(super) any_peer: PortSet,
    /// What is allowed with an atom. Only atoms for which that is more than with every peer.
    pub(super) by_atom: BTreeMap<A, AtomPorts>,
}

/// What is allowed with an atom.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct AtomPorts {
    /// These ports.
    pub(super) numbers: PortSet,
    /// The ports that the destination names so.
    pub(super) names: BTreeSet<PortName>,
}

impl AtomPorts {
    const NOTHING: Self = Self { numbers: PortSet::NOTHING, names: BTreeSet::new() };
}

impl<A: Ord> PolicySet<A> {
    /// Of a pod that is closed, whatever its policies say.
    pub(super) fn closed(direction: Direction) -> Self {
        Self { closed: true, ..Self::without_rules(direction) }
    }

    const fn without_rules(direction: Direction) -> Self {
        Self { direction, closed: false, any_peer: PortSet::NOTHING, by_atom: BTreeMap::new() }
    }
}

impl PolicySet<Atom> {
    /// The rules of `pod`, each with the namespace of its policy. For ingress the pod is the
    /// destination, so the names of ports are its own.
    pub(super) fn new<'a>(
        direction: Direction,
        pod: &Pod,
        rules: impl IntoIterator<Item = (&'a Arc<str>, &'a Rule)>,
    ) -> Self {
        let mut set = Self::without_rules(direction);
        let resolve = match direction {
            Direction::Ingress => Some(pod),
            Direction::Egress => None,
        };
        for (namespace, rule) in rules {
            let ports = atom_ports(rule.ports.as_deref(), resolve);
            match &rule.peers {
                Some(peers) => {
                    peers.iter().for_each(|peer| set.add(Atom::new(peer, namespace), &ports));
                }
                None => {
                    set.any_peer = set.any_peer.union(&ports.numbers);
                    if !ports.names.is_empty() {
                        let named = AtomPorts { numbers: PortSet::NOTHING, names: ports.names };
                        set.add(Atom::every_pod(), &named);
                    }
                }
            }
        }
        let Self { any_peer, by_atom, .. } = &mut set;
        by_atom.retain(|_, ports| !ports.names.is_empty() || !ports.numbers.is_subset(any_peer));
        set
    }

    /// Allows everything with an atom.
    pub(super) fn allow_everything(&mut self, atom: Atom) {
        self.add(atom, &AtomPorts { numbers: PortSet::Everything, names: BTreeSet::new() });
    }

    /// Whether addresses are asked for the blocks that they lie in.
    pub(super) fn names_blocks(&self) -> bool {
        self.by_atom.keys().any(|atom| matches!(atom, Atom::Block(_)))
    }

    /// The same with the atoms replaced by their numbers.
    pub(super) fn numbered(self, mut number: impl FnMut(Atom) -> u32) -> PolicySet<u32> {
        let Self { direction, closed, any_peer, by_atom } = self;
        let by_atom = by_atom.into_iter().map(|(atom, ports)| (number(atom), ports)).collect();
        PolicySet { direction, closed, any_peer, by_atom }
    }

    fn add(&mut self, atom: Atom, ports: &AtomPorts) {
        let sum = self.by_atom.entry(atom).or_insert(AtomPorts::NOTHING);
        sum.numbers = sum.numbers.union(&ports.numbers);
        sum.names.extend(ports.names.iter().cloned());
    }
}

/// A single port.
pub(super) fn single(protocol: Protocol, port: u16) -> PortRange {
    PortRange { protocol: u32::from(protocol.number()), first: port, last: port }
}

/// Names are resolved where it is known whose they are.
fn atom_ports(ports: Option<&[PortMatch]>, destination: Option<&Pod>) -> AtomPorts {
    let Some(ports) = ports else {
        return AtomPorts { numbers: PortSet::Everything, names: BTreeSet::new() };
    };
    let mut numbers = Vec::new();
    let mut names = BTreeSet::new();
    for PortMatch { protocol, ports } in ports {
        let range = |first, last| PortRange { protocol: protocol.number().into(), first, last };
        match (ports, destination) {
            (Ports::All, _) => numbers.push(range(0, u16::MAX)),
            (Ports::Range(ports), _) => numbers.push(range(*ports.start(), *ports.end())),
            (Ports::Named(name), Some(pod)) => {
                numbers.extend(pod.port(*protocol, name).map(|port| single(*protocol, port)));
            }
            (Ports::Named(name), None) => drop(names.insert((*protocol, Arc::clone(name)))),
        }
    }
    AtomPorts { numbers: PortSet::from_ranges(numbers), names }
}
