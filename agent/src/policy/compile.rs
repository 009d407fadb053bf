//! From the cluster's state to what the kernel's maps hold.
//!
//! Owns the numbering of policy sets and identities. Does no I/O. What it makes depends on what
//! exists, not on the order in which it was told, up to numbering. Invariant: a number means the
//! same for as long as the compiler lives (see [`super::compiled`]).
//!
//! 1. Each endpoint's policies add up to a policy set for each direction. Pods whose policies come
//!    to the same share one.
//! 2. The peers named in these policy sets, and no others, are the atoms in use: selectors of pods
//!    ([`groups`]) and blocks ([`cells`]).
//! 3. An address gets what these can tell of it as its identity: the atoms that match, the ports
//!    that its pod names as far as rules ask for them, and, of a service, where its ports lead to
//!    ([`services`]). So the size of what is made follows the number of distinct identities.
//! 4. Policy set and identity make a rule: what the set allows with the atoms of the identity.
//!
//! It is incremental: each step hands on what it touched, and the next one looks at nothing else. A
//! change of a pod costs its own group; a change of a policy the pods that it selects, and the
//! addresses that its peers match.
//!
//! A pod that must not be trusted to its policies (see [`Closed`]) is isolated in both directions
//! by a policy set that allows nothing.

mod atom;
mod cells;
mod endpoints;
mod groups;
mod identity;
mod interner;
mod policy_set;
mod rules;
mod services;

use std::{collections::BTreeSet, mem, net::IpAddr, sync::Arc};

use bulkhead_common::{
    value::{IDENTITY_FIRST, IDENTITY_NODE, IDENTITY_NONE},
    verdict::DenyAction,
};
use ipnet::IpNet;

use self::{
    atom::Atom,
    cells::Cells,
    endpoints::Endpoints,
    groups::Groups,
    identity::{Identity, ServiceBackend, resolve},
    interner::Interner,
    policy_set::{PolicySet, PortName},
    rules::Rules,
    services::{Concerned, Services},
};
use super::{
    compiled::{Compiled, MixedService, Touched},
    index::{Dirty, Index},
    model::ObjectKey,
};

/// The first number of a policy set; zero stands in endpoints that have none.
const POLICY_SET_FIRST: u32 = 1;

/// Compiles one state after the other.
#[derive(Clone, Debug)]
pub struct Compiler {
    deny_action: DenyAction,
    /// Held by policy sets.
    atoms: Interner<Atom>,
    /// Held by addresses and cells.
    identities: Interner<Identity>,
    /// Held by endpoints.
    policy_sets: Interner<PolicySet<u32>>,
    endpoints: Endpoints,
    groups: Groups,
    cells: Cells,
    services: Services,
    rules: Rules,
    /// The node's addresses by the last update.
    node_addresses: BTreeSet<IpAddr>,
    compiled: Compiled,
    touched: Touched,
}

/// What the steps of one update hand on.
#[derive(Default)]
struct Work {
    /// Addresses whose identity may be another one.
    addresses: BTreeSet<IpAddr>,
    /// Cells whose blocks may be others.
    cells: BTreeSet<IpNet>,
    /// Blocks that came or went.
    blocks: Vec<IpNet>,
}

impl Compiler {
    /// `deny_action` is for pods of namespaces that ask for none.
    pub fn new(deny_action: DenyAction) -> Self {
        Self {
            deny_action,
            atoms: Interner::starting_at(0),
            identities: Interner::starting_at(IDENTITY_FIRST),
            policy_sets: Interner::starting_at(POLICY_SET_FIRST),
            endpoints: Endpoints::default(),
            groups: Groups::default(),
            cells: Cells::default(),
            services: Services::default(),
            rules: Rules::default(),
            node_addresses: BTreeSet::new(),
            compiled: Compiled::default(),
            touched: Touched::default(),
        }
    }

    /// Compiles what changed in a state since the last time that somebody asked it.
    pub fn update(&mut self, index: &mut Index) -> &Compiled {
        let dirty = index.take_dirty();
        self.update_dirty(index, dirty)
    }

    /// Compiles a state whole, whoever was told of its changes.
    pub fn compile(&mut self, index: &Index) -> &Compiled {
        self.update_dirty(index, Dirty { everything: true, ..Dirty::default() })
    }

    /// What the last update made.
    pub fn compiled(&self) -> &Compiled {
        &self.compiled
    }

    /// What every update since the last call touched.
    pub fn take_touched(&mut self) -> Touched {
        mem::take(&mut self.touched)
    }

    fn update_dirty(&mut self, index: &Index, mut dirty: Dirty) -> &Compiled {
        let mut concerned = Concerned::default();
        if dirty.everything {
            self.add_everything(index, &mut dirty);
        }
        for key in &dirty.services {
            self.services.update(index, key, &mut concerned);
        }
        let mut work = Work::default();
        self.update_endpoints(index, &dirty, &concerned);
        self.update_atoms(index, &mut work);
        for name in &dirty.namespaces {
            self.groups.namespace_changed(index, name, &mut work.addresses);
        }
        for address in &dirty.addresses {
            self.groups.assign(index, *address, index.pod_at(*address));
        }
        work.addresses.extend(&dirty.addresses);
        work.addresses.extend(&concerned.addresses);
        work.addresses.extend(self.update_node_addresses(index));
        self.update_identities(index, &work);
        self.update_rules();
        self.update_mixed(index);
        &self.compiled
    }

    /// All that exists, and all that is remembered.
    fn add_everything(&self, index: &Index, dirty: &mut Dirty) {
        dirty.pods.extend(self.compiled.endpoints.keys().cloned());
        dirty.pods.extend(index.endpoints().map(|pod| pod.key.clone()));
        dirty.addresses.extend(index.claimed_addresses());
        dirty.addresses.extend(self.groups.addresses());
        dirty.addresses.extend(self.compiled.peers.keys());
        let names = index.namespaces().keys().map(|name| Arc::from(name.as_str()));
        dirty.namespaces.extend(names);
        dirty.namespaces.extend(self.groups.namespace_names());
        dirty.services.extend(index.services().keys().cloned());
        dirty.services.extend(self.services.keys().cloned());
    }

    /// Selectors and blocks that came or went with the policy sets.
    fn update_atoms(&mut self, index: &Index, work: &mut Work) {
        let born = self.policy_sets.take_born();
        for (number, set) in &born {
            for atom in set.by_atom.keys() {
                self.atoms.hold(*atom);
            }
            self.rules.add_set(*number, set);
        }
        for (number, set) in self.policy_sets.sweep() {
            for atom in set.by_atom.keys() {
                self.atoms.release(*atom);
            }
            self.rules.remove_set(number, &set, &mut self.compiled.rules, &mut self.touched.rules);
        }
        for (number, atom) in self.atoms.sweep() {
            match &*atom {
                Atom::Pods(_) => {
                    work.addresses.extend(self.groups.matched_by(number));
                    self.groups.remove_atom(number);
                }
                Atom::Block(block) => {
                    work.addresses.extend(self.known_in(&block.cidr));
                    self.cells.remove(number, block, &mut work.cells);
                    work.blocks.push(block.cidr);
                }
                Atom::Own(address) => drop(work.addresses.insert(*address)),
            }
        }
        for (number, atom) in self.atoms.take_born() {
            match &*atom {
                Atom::Pods(pods) => {
                    self.groups.add_atom(index, number, pods);
                    work.addresses.extend(self.groups.matched_by(number));
                }
                Atom::Block(block) => {
                    self.cells.add(number, block, &mut work.cells);
                    work.addresses.extend(self.known_in(&block.cidr));
                    work.blocks.push(block.cidr);
                }
                Atom::Own(address) => drop(work.addresses.insert(*address)),
            }
        }
        // Rules that ask for other names now ask about the same addresses.
        for atom in self.rules.take_renamed() {
            match self.atoms.value(atom).map(|atom| &**atom) {
                Some(Atom::Pods(_)) => work.addresses.extend(self.groups.matched_by(atom)),
                Some(Atom::Block(block)) => work.addresses.extend(self.known_in(&block.cidr)),
                Some(Atom::Own(_)) | None => {}
            }
        }
        // Whether anybody asks about services at all.
        if self.rules.take_services_asked_changed() {
            work.addresses.extend(self.services.addresses());
        }
    }

    /// Addresses in a block whose identity says more than their cell, or may have to.
    fn known_in(&self, net: &IpNet) -> BTreeSet<IpAddr> {
        let peers = self.compiled.peers.range(net.network()..=net.broadcast());
        let mut known: BTreeSet<_> = peers.map(|(address, _)| *address).collect();
        known.extend(self.groups.addresses_in(net));
        known.extend(self.services.addresses_in(net));
        known
    }

    fn update_node_addresses(&mut self, index: &Index) -> BTreeSet<IpAddr> {
        let new = index.node_addresses();
        if self.node_addresses == *new {
            return BTreeSet::new();
        }
        let old = mem::replace(&mut self.node_addresses, new.clone());
        old.symmetric_difference(new).copied().collect()
    }

    /// Cells first, then pods, then the services that lead to them.
    fn update_identities(&mut self, index: &Index, work: &Work) {
        for net in &work.cells {
            self.update_cell(net);
        }
        let (services, others): (Vec<IpAddr>, Vec<IpAddr>) =
            work.addresses.iter().partition(|address| self.is_service(index, **address));
        let mut leading = BTreeSet::new();
        for address in services {
            leading.insert(address);
            leading.extend(self.services.leading_to(address));
        }
        for address in others {
            let identity = self.address_identity(index, address);
            if self.set_peer(address, identity, index.node_addresses().contains(&address)) {
                leading.extend(self.services.leading_to(address));
            }
        }
        for backend in work.blocks.iter().flat_map(|net| self.services.backends_in(net)) {
            leading.extend(self.services.leading_to(backend));
        }
        for address in leading {
            if self.is_service(index, address) {
                let identity = self.service_identity(index, address);
                self.set_peer(address, identity, false);
            }
        }
    }

    fn update_cell(&mut self, net: &IpNet) {
        let old = self.compiled.cidrs.get(net).copied();
        let new = self
            .cells
            .blocks_of(net)
            .cloned()
            .map(|atoms| self.hold_identity(Identity { atoms, ..Identity::default() }));
        if let Some(old) = old {
            self.identities.release(old);
        }
        if old == new {
            return;
        }
        match new {
            Some(new) => self.compiled.cidrs.insert(*net, new),
            None => drop(self.compiled.cidrs.remove(net)),
        }
        self.touched.cidrs.insert(*net);
    }

    /// What selectors and names tell of an address that is no service's; empty where its cell
    /// tells all that there is.
    fn address_identity(&self, index: &Index, address: IpAddr) -> Identity {
        let blocks = self.cells.blocks_at(address);
        if index.node_addresses().contains(&address) {
            let atoms = blocks.cloned().unwrap_or_default();
            return Identity { atoms, ..Identity::default() };
        }
        let Some(group) = self.groups.of(address) else { return Identity::default() };
        let own = self.atoms.find(&Atom::Own(address));
        let selectors = group.atoms.iter().copied().chain(own);
        let atoms: BTreeSet<u32> =
            selectors.clone().chain(blocks.into_iter().flatten().copied()).collect();
        let asked: BTreeSet<&PortName> =
            atoms.iter().flat_map(|atom| self.rules.names_asked(*atom)).collect();
        let names = resolve(asked.into_iter(), group.ports());
        if names.is_empty() && selectors.count() == 0 {
            return Identity::default();
        }
        Identity { atoms, names, ..Identity::default() }
    }

    fn is_service(&self, index: &Index, address: IpAddr) -> bool {
        self.services.at(address).next().is_some()
            && index.claimants(address).is_empty()
            && !index.node_addresses().contains(&address)
    }

    fn service_identity(&self, index: &Index, address: IpAddr) -> Identity {
        if !self.rules.asks_about_services() {
            return Identity::default();
        }
        let ports = self.services.ports_at(index, address);
        let services = ports.into_iter().map(|(port, backends)| {
            let backends = backends.into_iter().map(|(address, port)| {
                let peer = self.plain_identity(index, address);
                let is_free = peer & IDENTITY_NODE != 0 && !index.denies_egress_to_node();
                ServiceBackend { identity: peer & !IDENTITY_NODE, is_free, port }
            });
            (port, backends.collect())
        });
        let services = services.collect();
        let atoms = self.cells.blocks_at(address).cloned().unwrap_or_default();
        Identity { atoms, services, ..Identity::default() }
    }

    /// The identity of an address as a backend: never that of a service.
    fn plain_identity(&self, index: &Index, address: IpAddr) -> u32 {
        let peer = self.compiled.peers.get(&address).filter(|_| !self.is_service(index, address));
        let cell = || self.compiled.cidrs.longest(address).map(|(_, identity)| *identity);
        peer.copied().or_else(cell).unwrap_or(IDENTITY_NONE)
    }

    /// Sets the identity of an address; whether it is another one now.
    fn set_peer(&mut self, address: IpAddr, identity: Identity, is_node: bool) -> bool {
        let number = self.hold_identity(identity);
        let new = if is_node { number | IDENTITY_NODE } else { number };
        let old = match new {
            IDENTITY_NONE => self.compiled.peers.remove(&address),
            new => self.compiled.peers.insert(address, new),
        };
        if let Some(old) = old {
            self.identities.release(old & !IDENTITY_NODE);
        }
        let changed = old.unwrap_or(IDENTITY_NONE) != new;
        if changed {
            self.touched.peers.insert(address);
        }
        changed
    }

    fn hold_identity(&mut self, identity: Identity) -> u32 {
        if identity.is_empty() {
            return IDENTITY_NONE;
        }
        let number = self.identities.number(identity);
        self.identities.hold(number);
        number
    }

    fn update_rules(&mut self) {
        let (compiled, touched) = (&mut self.compiled.rules, &mut self.touched.rules);
        for (number, identity) in self.identities.take_born() {
            self.rules.add_identity(number, &identity);
        }
        for (number, identity) in self.identities.sweep() {
            self.rules.remove_identity(number, &identity, compiled, touched);
        }
        self.rules.fill(&self.policy_sets, &self.identities, compiled, touched);
    }

    fn update_mixed(&mut self, index: &Index) {
        self.compiled.mixed_services.clear();
        if self.rules.mixed().is_empty() {
            return;
        }
        for address in self.services.addresses() {
            let Some(identity) = self.compiled.peers.get(&address) else { continue };
            for (protocol, port) in self.rules.mixed_of(*identity) {
                let has_port = |key: &&ObjectKey| {
                    index.services().get(*key).is_some_and(|service| {
                        service.ports.iter().any(|p| p.protocol == protocol && p.port == port)
                    })
                };
                let services = self.services.at(address).filter(has_port).cloned();
                let mixed = services.map(|service| MixedService { service, protocol, port });
                self.compiled.mixed_services.extend(mixed);
            }
        }
    }
}

#[cfg(test)]
mod tests;
