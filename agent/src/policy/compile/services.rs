//! Where the addresses of services lead to.
//!
//! Invariant: an address is a service's only while no live pod and not the node has it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;

use crate::policy::{
    index::Index,
    model::{ObjectKey, Protocol, Service, SlicePort},
};

/// A backend, and the port at it if that is known.
pub(super) type Backend = (IpAddr, Option<u16>);

/// Which services have which addresses and which backends.
#[derive(Clone, Debug, Default)]
pub(super) struct Services {
    known: BTreeMap<ObjectKey, Known>,
    at: BTreeMap<IpAddr, BTreeSet<ObjectKey>>,
    of_backend: BTreeMap<IpAddr, BTreeSet<ObjectKey>>,
}

#[derive(Clone, Debug, Default)]
struct Known {
    addresses: BTreeSet<IpAddr>,
    backends: BTreeSet<IpAddr>,
}

/// What a change of a service concerns.
#[derive(Clone, Debug, Default)]
pub(super) struct Concerned {
    /// Addresses that are, or were, a service's.
    pub(super) addresses: BTreeSet<IpAddr>,
    /// Addresses that are, or were, a backend's.
    pub(super) backends: BTreeSet<IpAddr>,
}

impl Services {
    /// Every service that is known.
    pub(super) fn keys(&self) -> impl Iterator<Item = &ObjectKey> {
        self.known.keys()
    }

    /// Looks at a service again.
    pub(super) fn update(&mut self, index: &Index, key: &ObjectKey, concerned: &mut Concerned) {
        let old = self.known.remove(key).unwrap_or_default();
        leave(&mut self.at, &old.addresses, key);
        leave(&mut self.of_backend, &old.backends, key);
        concerned.addresses.extend(old.addresses);
        concerned.backends.extend(old.backends);
        let Some(service) = index.services().get(key) else { return };
        let new = Known {
            addresses: service.addresses.clone(),
            backends: index.slices_of(key).flat_map(|slice| slice.ready.iter().copied()).collect(),
        };
        join(&mut self.at, &new.addresses, key);
        join(&mut self.of_backend, &new.backends, key);
        concerned.addresses.extend(&new.addresses);
        concerned.backends.extend(&new.backends);
        self.known.insert(key.clone(), new);
    }

    /// The services that have an address.
    pub(super) fn at(&self, address: IpAddr) -> impl Iterator<Item = &ObjectKey> {
        self.at.get(&address).into_iter().flatten()
    }

    /// Whether some service leads to an address.
    pub(super) fn has_backend(&self, address: IpAddr) -> bool {
        self.of_backend.contains_key(&address)
    }

    /// The backends in a block.
    pub(super) fn backends_in(&self, net: &IpNet) -> impl Iterator<Item = IpAddr> {
        self.of_backend.range(net.network()..=net.broadcast()).map(|(address, _)| *address)
    }

    /// The addresses of services in a block.
    pub(super) fn addresses_in(&self, net: &IpNet) -> impl Iterator<Item = IpAddr> {
        self.at.range(net.network()..=net.broadcast()).map(|(address, _)| *address)
    }

    /// The addresses of the services that lead to a backend.
    pub(super) fn leading_to(&self, backend: IpAddr) -> impl Iterator<Item = IpAddr> {
        let services = self.of_backend.get(&backend).into_iter().flatten();
        services.filter_map(|key| self.known.get(key)).flat_map(|k| k.addresses.iter().copied())
    }

    /// The addresses of every service.
    pub(super) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.at.keys().copied()
    }

    /// Where each port at an address leads to, over all services that have it.
    pub(super) fn ports_at(
        &self,
        index: &Index,
        address: IpAddr,
    ) -> BTreeMap<(Protocol, u16), BTreeSet<Backend>> {
        let mut ports: BTreeMap<_, BTreeSet<Backend>> = BTreeMap::new();
        for service in self.at(address).filter_map(|key| index.services().get(key)) {
            for port in &service.ports {
                let backends = ports.entry((port.protocol, port.port)).or_default();
                let serves = |p: &SlicePort| p.name == port.name && p.protocol == port.protocol;
                backends.extend(backends_of(index, service, address.is_ipv4(), serves));
            }
        }
        ports
    }
}

fn backends_of(
    index: &Index,
    service: &Service,
    ipv4: bool,
    serves: impl Fn(&SlicePort) -> bool,
) -> Vec<Backend> {
    let mut backends = Vec::new();
    for slice in index.slices_of(&service.key) {
        for port in slice.ports.iter().filter(|port| serves(port)) {
            let ready = slice.ready.iter().filter(|address| address.is_ipv4() == ipv4);
            backends.extend(ready.map(|address| (*address, port.port)));
        }
    }
    backends
}

type ByAddress = BTreeMap<IpAddr, BTreeSet<ObjectKey>>;

fn join(map: &mut ByAddress, addresses: &BTreeSet<IpAddr>, key: &ObjectKey) {
    for address in addresses {
        map.entry(*address).or_default().insert(key.clone());
    }
}

fn leave(map: &mut ByAddress, addresses: &BTreeSet<IpAddr>, key: &ObjectKey) {
    for address in addresses {
        if let Some(keys) = map.get_mut(address) {
            keys.remove(key);
            if keys.is_empty() {
                map.remove(address);
            }
        }
    }
}
