//! What each policy set allows with each identity.
//!
//! Invariant: there is a rule for each pair in use that allows more than the set does with every
//! peer, and for no other. Both halves of the key are fixed values, so a rule never changes: it
//! comes with the later of its halves and goes with the first.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    mem,
    sync::Arc,
};

use bulkhead_common::{key::RuleKey, verdict::Direction};

use super::{
    identity::Identity,
    interner::Interner,
    policy_set::{PolicySet, PortName},
};
use crate::policy::{compiled::PortSet, model::Protocol, shared::Shared};

type Compiled = BTreeMap<RuleKey, Arc<PortSet>>;
type Touched = BTreeSet<RuleKey>;

/// Which sets and identities have an atom in common.
#[derive(Clone, Debug, Default)]
pub(super) struct Rules {
    sets_with: HashMap<u32, BTreeSet<u32>>,
    identities_with: HashMap<u32, BTreeSet<u32>>,
    /// The ports that rules about an atom ask for by name, and how many sets do.
    names: HashMap<u32, BTreeMap<PortName, usize>>,
    /// Sets that the backends of a service may be allowed by: one without rules still allows the
    /// own node.
    asking_about_services: BTreeSet<u32>,
    service_identities: BTreeSet<u32>,
    /// The sets that have a rule for an identity.
    sets_of: HashMap<u32, BTreeSet<u32>>,
    mixed: BTreeMap<RuleKey, Vec<(Protocol, u16)>>,
    port_sets: Shared<PortSet>,
    new_sets: Vec<u32>,
    new_identities: Vec<u32>,
    renamed: BTreeSet<u32>,
    asked_about_services: bool,
}

impl Rules {
    /// The one copy of a port set.
    pub(super) fn share(&mut self, ports: PortSet) -> Arc<PortSet> {
        self.port_sets.share(ports)
    }

    /// Takes in a policy set. Its rules are made by [`Rules::fill`].
    pub(super) fn add_set(&mut self, number: u32, set: &PolicySet<u32>) {
        for (atom, ports) in &set.by_atom {
            self.sets_with.entry(*atom).or_default().insert(number);
            for name in &ports.names {
                let count = self.names.entry(*atom).or_default().entry(name.clone()).or_default();
                *count += 1;
                if *count == 1 {
                    self.renamed.insert(*atom);
                }
            }
        }
        if set.direction == Direction::Egress && !set.closed {
            self.asking_about_services.insert(number);
        }
        self.new_sets.push(number);
    }

    /// Takes a policy set away, with its rules.
    pub(super) fn remove_set(
        &mut self,
        number: u32,
        set: &PolicySet<u32>,
        compiled: &mut Compiled,
        touched: &mut Touched,
    ) {
        for (atom, ports) in &set.by_atom {
            leave(&mut self.sets_with, *atom, number);
            let Some(names) = self.names.get_mut(atom) else { continue };
            for name in &ports.names {
                let Some(count) = names.get_mut(name) else { continue };
                *count -= 1;
                if *count == 0 {
                    names.remove(name);
                    self.renamed.insert(*atom);
                }
            }
            if names.is_empty() {
                self.names.remove(atom);
            }
        }
        self.asking_about_services.remove(&number);
        let first = RuleKey { policy_set: number, identity: 0 };
        let last = RuleKey { policy_set: number, identity: u32::MAX };
        let gone: Vec<RuleKey> = compiled.range(first..=last).map(|(key, _)| *key).collect();
        for key in gone {
            compiled.remove(&key);
            touched.insert(key);
            leave(&mut self.sets_of, key.identity, number);
        }
        let gone: Vec<RuleKey> = self.mixed.range(first..=last).map(|(key, _)| *key).collect();
        for key in gone {
            self.mixed.remove(&key);
        }
    }

    /// Takes in an identity. Its rules are made by [`Rules::fill`].
    pub(super) fn add_identity(&mut self, number: u32, identity: &Identity) {
        for atom in &identity.atoms {
            self.identities_with.entry(*atom).or_default().insert(number);
        }
        if !identity.services.is_empty() {
            self.service_identities.insert(number);
        }
        self.new_identities.push(number);
    }

    /// Takes an identity away, with its rules.
    pub(super) fn remove_identity(
        &mut self,
        number: u32,
        identity: &Identity,
        compiled: &mut Compiled,
        touched: &mut Touched,
    ) {
        for atom in &identity.atoms {
            leave(&mut self.identities_with, *atom, number);
        }
        if self.service_identities.remove(&number) {
            self.mixed.retain(|key, _| key.identity != number);
        }
        for policy_set in self.sets_of.remove(&number).into_iter().flatten() {
            let key = RuleKey { policy_set, identity: number };
            compiled.remove(&key);
            touched.insert(key);
        }
    }

    /// Makes the rules of what is new: first those that services are judged by.
    pub(super) fn fill(
        &mut self,
        sets: &Interner<PolicySet<u32>>,
        identities: &Interner<Identity>,
        compiled: &mut Compiled,
        touched: &mut Touched,
    ) {
        let (mut plain, mut of_services) = (BTreeSet::new(), BTreeSet::new());
        for policy_set in mem::take(&mut self.new_sets) {
            let Some(set) = sets.value(policy_set) else { continue };
            let matched = set.by_atom.keys().filter_map(|atom| self.identities_with.get(atom));
            let key = |identity: &u32| RuleKey { policy_set, identity: *identity };
            plain.extend(matched.flatten().map(key));
            if self.asking_about_services.contains(&policy_set) {
                of_services.extend(self.service_identities.iter().map(key));
            }
        }
        for identity in mem::take(&mut self.new_identities) {
            let Some(value) = identities.value(identity) else { continue };
            let asking = value.atoms.iter().filter_map(|atom| self.sets_with.get(atom));
            let key = |policy_set: &u32| RuleKey { policy_set: *policy_set, identity };
            plain.extend(asking.flatten().map(key));
            if self.service_identities.contains(&identity) {
                of_services.extend(self.asking_about_services.iter().map(key));
            }
        }
        of_services.extend(
            plain.iter().filter(|key| self.service_identities.contains(&key.identity)).copied(),
        );
        let of_pods = plain.into_iter().filter(|key| !of_services.contains(key));
        for key in of_pods.collect::<Vec<_>>().into_iter().chain(of_services.iter().copied()) {
            let (Some(set), Some(identity)) =
                (sets.value(key.policy_set), identities.value(key.identity))
            else {
                continue;
            };
            let with = |identity| {
                compiled
                    .get(&RuleKey { policy_set: key.policy_set, identity })
                    .map(|ports| &**ports)
            };
            let (by_service, mixed) = identity.service_ports(set, with);
            let ports = identity.ports(set).union(&PortSet::from_ranges(by_service));
            if !mixed.is_empty() {
                self.mixed.insert(key, mixed);
            }
            if !ports.is_subset(&set.any_peer) {
                compiled.insert(key, self.port_sets.share(ports));
                touched.insert(key);
                self.sets_of.entry(key.identity).or_default().insert(key.policy_set);
            }
        }
    }

    /// The ports that rules about an atom ask for by name.
    pub(super) fn names_asked(&self, atom: u32) -> impl Iterator<Item = &PortName> {
        self.names.get(&atom).into_iter().flat_map(BTreeMap::keys)
    }

    /// The atoms whose rules ask for other names since the last call.
    pub(super) fn take_renamed(&mut self) -> BTreeSet<u32> {
        mem::take(&mut self.renamed)
    }

    /// Whether any policy set can allow something by a service.
    pub(super) fn asks_about_services(&self) -> bool {
        !self.asking_about_services.is_empty()
    }

    /// Whether that is different since the last call.
    pub(super) fn take_services_asked_changed(&mut self) -> bool {
        let now = self.asks_about_services();
        mem::replace(&mut self.asked_about_services, now) != now
    }

    /// Ports of services that lead to allowed and to denied backends.
    pub(super) const fn mixed(&self) -> &BTreeMap<RuleKey, Vec<(Protocol, u16)>> {
        &self.mixed
    }

    /// The same of one identity, for any set.
    pub(super) fn mixed_of(&self, identity: u32) -> BTreeSet<(Protocol, u16)> {
        let of_it = self.mixed.iter().filter(|(key, _)| key.identity == identity);
        of_it.flat_map(|(_, ports)| ports.iter().copied()).collect()
    }
}

fn leave(map: &mut HashMap<u32, BTreeSet<u32>>, key: u32, number: u32) {
    if let Some(numbers) = map.get_mut(&key) {
        numbers.remove(&number);
        if numbers.is_empty() {
            map.remove(&key);
        }
    }
}
