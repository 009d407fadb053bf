//! What policies can tell of an address, and what a policy set allows with it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bulkhead_common::{value::PortRange, verdict::Direction};

use super::policy_set::{PolicySet, PortName, single};
use crate::policy::{
    compiled::PortSet,
    model::{NamedPort, Protocol},
};

/// All that the policies of this node can tell of an address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Identity {
    /// The numbers of the atoms that match it.
    pub(super) atoms: BTreeSet<u32>,
    /// The ports that its pod names, as far as rules ask for them.
    pub(super) names: BTreeMap<PortName, u16>,
    /// Where the ports of a service lead to.
    pub(super) services: BTreeMap<(Protocol, u16), BTreeSet<ServiceBackend>>,
}

/// A backend of a service, as policies know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct ServiceBackend {
    /// Its identity.
    pub(super) identity: u32,
    /// It is an address of this node, which every pod reaches whatever its policies say.
    pub(super) is_free: bool,
    /// The port at the backend; `None`: nobody knows.
    pub(super) port: Option<u16>,
}

impl Identity {
    /// Whether nothing can be told.
    pub(super) fn is_empty(&self) -> bool {
        self.atoms.is_empty() && self.names.is_empty() && self.services.is_empty()
    }

    /// What a policy set allows with the atoms and the named ports.
    pub(super) fn ports(&self, set: &PolicySet<u32>) -> PortSet {
        let mut ranges: Vec<PortRange> = Vec::new();
        for atom in self.common_atoms(set) {
            let Some(ports) = set.by_atom.get(&atom) else { continue };
            match &ports.numbers {
                PortSet::Everything => return PortSet::Everything,
                PortSet::Ranges(numbers) => ranges.extend(numbers),
            }
            let named = ports.names.iter().filter_map(|name| Some((name.0, self.names.get(name)?)));
            ranges.extend(named.map(|(protocol, port)| single(protocol, *port)));
        }
        PortSet::from_ranges(ranges)
    }

    /// What a policy set allows by the backends of a service, and which ports lead to allowed and
    /// to denied ones. `with` is what the set allows with an identity, beyond every peer.
    pub(super) fn service_ports<'a>(
        &self,
        set: &PolicySet<u32>,
        with: impl Fn(u32) -> Option<&'a PortSet>,
    ) -> (Vec<PortRange>, Vec<(Protocol, u16)>) {
        let (mut allowed, mut mixed) = (Vec::new(), Vec::new());
        if set.direction == Direction::Ingress {
            return (allowed, mixed);
        }
        for ((protocol, port), backends) in &self.services {
            let is_allowed = |backend: &ServiceBackend| {
                let Some(port) = backend.port else { return false };
                let has = |ports: &PortSet| ports.contains(protocol.number(), Some(port));
                backend.is_free || has(&set.any_peer) || with(backend.identity).is_some_and(has)
            };
            match backends.iter().filter(|backend| is_allowed(backend)).count() {
                0 => {}
                count if count == backends.len() => allowed.push(single(*protocol, *port)),
                _ => mixed.push((*protocol, *port)),
            }
        }
        (allowed, mixed)
    }

    fn common_atoms(&self, set: &PolicySet<u32>) -> Vec<u32> {
        if self.atoms.len() < set.by_atom.len() {
            self.atoms.iter().filter(|atom| set.by_atom.contains_key(atom)).copied().collect()
        } else {
            set.by_atom.keys().filter(|atom| self.atoms.contains(atom)).copied().collect()
        }
    }
}

/// The numbers that a pod gives to these names, those that it has.
pub(super) fn resolve<'a>(
    names: impl Iterator<Item = &'a PortName>,
    ports: &[NamedPort],
) -> BTreeMap<PortName, u16> {
    let found = names.filter_map(|(protocol, name)| {
        let port = ports.iter().find(|p| p.protocol == *protocol && p.name == *name)?;
        Some(((*protocol, Arc::clone(name)), port.number))
    });
    found.collect()
}
