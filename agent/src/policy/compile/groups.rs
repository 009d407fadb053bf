//! Pods that no policy can tell apart, and the selectors that match them.
//!
//! Pods of one namespace with the same labels and the same named ports are a group. A selector is
//! asked once for each group, however many pods there are in it. Invariant: a group has at least
//! one address, and knows exactly those selectors in use that match its pods.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;

use super::atom::PodAtom;
use crate::policy::{
    index::Index,
    model::{Labels, NamedPort, Pod},
};

type GroupKey = (Arc<Labels>, Arc<[NamedPort]>);

/// The groups of every namespace.
#[derive(Clone, Debug, Default)]
pub(super) struct Groups {
    namespaces: HashMap<Arc<str>, Namespace>,
    groups: HashMap<u32, Group>,
    of_address: BTreeMap<IpAddr, u32>,
    /// Selectors in use, by their numbers.
    atoms: BTreeMap<u32, PodAtom>,
    with_atom: HashMap<u32, BTreeSet<u32>>,
    next: u32,
}

#[derive(Clone, Debug, Default)]
struct Namespace {
    /// The selectors that can match pods of it.
    atoms: BTreeSet<u32>,
    groups: HashMap<GroupKey, u32>,
}

/// Pods that no policy can tell apart.
#[derive(Clone, Debug)]
pub(super) struct Group {
    namespace: Arc<str>,
    key: GroupKey,
    /// The selectors that match.
    pub(super) atoms: BTreeSet<u32>,
    addresses: BTreeSet<IpAddr>,
}

impl Group {
    /// The ports that its pods name.
    pub(super) fn ports(&self) -> &[NamedPort] {
        &self.key.1
    }
}

impl Groups {
    /// The group of the only live pod that has an address.
    pub(super) fn of(&self, address: IpAddr) -> Option<&Group> {
        self.groups.get(self.of_address.get(&address)?)
    }

    /// Every address of a group.
    pub(super) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.of_address.keys().copied()
    }

    /// Every namespace that has a group.
    pub(super) fn namespace_names(&self) -> impl Iterator<Item = Arc<str>> {
        self.namespaces.keys().cloned()
    }

    /// The addresses of groups that lie in a block.
    pub(super) fn addresses_in(&self, net: &IpNet) -> impl Iterator<Item = IpAddr> {
        let last = net.broadcast();
        self.of_address.range(net.network()..=last).map(|(address, _)| *address)
    }

    /// The addresses whose pods a selector matches.
    pub(super) fn matched_by(&self, atom: u32) -> impl Iterator<Item = IpAddr> {
        let groups = self.with_atom.get(&atom).into_iter().flatten();
        groups.filter_map(|group| self.groups.get(group)).flat_map(|g| g.addresses.iter().copied())
    }

    /// Says whose an address is now.
    pub(super) fn assign(&mut self, index: &Index, address: IpAddr, pod: Option<&Pod>) {
        let old = self.of_address.get(&address).copied();
        let new = pod.map(|pod| self.group_for(index, pod));
        if old == new {
            return;
        }
        if let Some(group) = new {
            self.of_address.insert(address, group);
            if let Some(group) = self.groups.get_mut(&group) {
                group.addresses.insert(address);
            }
        } else {
            self.of_address.remove(&address);
        }
        if let Some(group) = old {
            self.leave(group, address);
        }
    }

    /// Takes in a selector; its addresses are [`Groups::matched_by`] it then.
    pub(super) fn add_atom(&mut self, index: &Index, number: u32, atom: &PodAtom) {
        for (name, namespace) in &mut self.namespaces {
            if !atom.matches_namespace(name, &index.namespace_labels(name)) {
                continue;
            }
            namespace.atoms.insert(number);
            for (key, id) in &namespace.groups {
                if atom.matches_pod(&key.0)
                    && let Some(group) = self.groups.get_mut(id)
                {
                    group.atoms.insert(number);
                    self.with_atom.entry(number).or_default().insert(*id);
                }
            }
        }
        self.atoms.insert(number, atom.clone());
    }

    /// Takes a selector away.
    pub(super) fn remove_atom(&mut self, number: u32) {
        self.atoms.remove(&number);
        for id in self.with_atom.remove(&number).into_iter().flatten() {
            if let Some(group) = self.groups.get_mut(&id) {
                group.atoms.remove(&number);
            }
        }
        self.namespaces.values_mut().for_each(|namespace| {
            namespace.atoms.remove(&number);
        });
    }

    /// Asks again which selectors match the pods of a namespace, whose labels are different now;
    /// adds the addresses of all its pods to `touched`.
    pub(super) fn namespace_changed(
        &mut self,
        index: &Index,
        name: &str,
        touched: &mut BTreeSet<IpAddr>,
    ) {
        let Some(namespace) = self.namespaces.get_mut(name) else { return };
        namespace.atoms = matching_namespace(index, &self.atoms, name);
        for id in namespace.groups.values() {
            let Some(group) = self.groups.get_mut(id) else { continue };
            touched.extend(&group.addresses);
            let atoms = matching_pod(&self.atoms, &namespace.atoms, &group.key.0);
            for gone in group.atoms.difference(&atoms) {
                if let Some(groups) = self.with_atom.get_mut(gone) {
                    groups.remove(id);
                }
            }
            for new in atoms.difference(&group.atoms) {
                self.with_atom.entry(*new).or_default().insert(*id);
            }
            group.atoms = atoms;
        }
    }

    fn group_for(&mut self, index: &Index, pod: &Pod) -> u32 {
        let name = &pod.key.namespace;
        let atoms = &self.atoms;
        let namespace = self.namespaces.entry(Arc::clone(name)).or_insert_with(|| Namespace {
            atoms: matching_namespace(index, atoms, name),
            groups: HashMap::new(),
        });
        let key = (Arc::clone(&pod.labels), Arc::clone(&pod.ports));
        if let Some(id) = namespace.groups.get(&key) {
            return *id;
        }
        // A number may come round: one that is in use is passed over.
        while self.groups.contains_key(&self.next) {
            self.next = self.next.wrapping_add(1);
        }
        let id = self.next;
        self.next = self.next.wrapping_add(1);
        namespace.groups.insert(key.clone(), id);
        let atoms = matching_pod(&self.atoms, &namespace.atoms, &key.0);
        for atom in &atoms {
            self.with_atom.entry(*atom).or_default().insert(id);
        }
        let addresses = BTreeSet::new();
        self.groups.insert(id, Group { namespace: Arc::clone(name), key, atoms, addresses });
        id
    }

    /// The last to leave takes the group with it, and the last group its namespace.
    fn leave(&mut self, id: u32, address: IpAddr) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        group.addresses.remove(&address);
        if !group.addresses.is_empty() {
            return;
        }
        let Some(Group { namespace: name, key, atoms, .. }) = self.groups.remove(&id) else {
            return;
        };
        for atom in atoms {
            if let Some(groups) = self.with_atom.get_mut(&atom) {
                groups.remove(&id);
            }
        }
        if let Some(namespace) = self.namespaces.get_mut(&name) {
            namespace.groups.remove(&key);
            if namespace.groups.is_empty() {
                self.namespaces.remove(&name);
            }
        }
    }
}

fn matching_namespace(index: &Index, atoms: &BTreeMap<u32, PodAtom>, name: &str) -> BTreeSet<u32> {
    let labels = index.namespace_labels(name);
    let matching = atoms.iter().filter(|(_, atom)| atom.matches_namespace(name, &labels));
    matching.map(|(number, _)| *number).collect()
}

fn matching_pod(
    atoms: &BTreeMap<u32, PodAtom>,
    candidates: &BTreeSet<u32>,
    labels: &Labels,
) -> BTreeSet<u32> {
    let matches = |number: &&u32| atoms.get(number).is_some_and(|atom| atom.matches_pod(labels));
    candidates.iter().filter(matches).copied().collect()
}
