//! The state of the cluster, as the sources told it.
//!
//! Owns namespaces, pods, policies, and the two questions that everybody asks of them: which pods
//! are endpoints of this node, and whose is an address. Does not interpret policies. Invariant:
//! the state depends on what exists, never on the order in which it was told.
//!
//! A pod is *live* while it has not ended and is not on the host's network: ended pods may have
//! lost their address to somebody else, and host network pods are the node.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    mem,
    net::IpAddr,
    sync::Arc,
};

use super::{
    model::{
        Change, EndpointSlice, Labels, NamedPort, Namespace, Node, ObjectKey, Pod, Policy, Service,
    },
    shared::Shared,
};

/// The label that every namespace has, with its own name as the value.
pub const NAMESPACE_NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// The state of the cluster.
#[derive(Clone, Debug)]
pub struct Index {
    node: Option<String>,
    node_addresses: BTreeSet<IpAddr>,
    deny_egress_to_node: bool,
    complete: bool,
    namespaces: BTreeMap<String, Namespace>,
    pods: BTreeMap<ObjectKey, Pod>,
    policies: BTreeMap<ObjectKey, Policy>,
    services: BTreeMap<ObjectKey, Service>,
    endpoint_slices: BTreeMap<ObjectKey, EndpointSlice>,
    nodes: BTreeMap<String, Node>,
    /// Which live pods say that an address is theirs, in order; never an empty list.
    claims: BTreeMap<IpAddr, Vec<ObjectKey>>,
    /// The slices of each service, by the key that the service has or would have.
    slices_of: BTreeMap<ObjectKey, BTreeSet<ObjectKey>>,
    common: Common,
    dirty: Dirty,
}

/// What a compiler has to look at again: what changed since it was last asked for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Dirty {
    /// Whether the source is complete, or the node's own addresses: what concerns every pod.
    pub everything: bool,
    /// Addresses that were or are a changed pod's.
    pub addresses: BTreeSet<IpAddr>,
    /// Pods.
    pub pods: BTreeSet<ObjectKey>,
    /// Namespaces.
    pub namespaces: BTreeSet<Arc<str>>,
    /// Policies.
    pub policies: BTreeSet<ObjectKey>,
    /// Services whose addresses, ports or backends changed.
    pub services: BTreeSet<ObjectKey>,
}

/// What many pods have in common, each stored once.
#[derive(Clone, Debug, Default)]
struct Common {
    labels: Shared<Labels>,
    ports: Shared<[NamedPort]>,
    names: Shared<str>,
}

impl Common {
    fn share(&mut self, pod: &mut Pod) {
        pod.labels = self.labels.share(Arc::clone(&pod.labels));
        pod.ports = self.ports.share(Arc::clone(&pod.ports));
        pod.key.namespace = self.names.share(Arc::clone(&pod.key.namespace));
        pod.node = pod.node.take().map(|node| self.names.share(node));
    }
}

/// An address that belongs to more than one: it is no peer of any rule, and the pods of this node
/// that claim it are closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conflict<'a> {
    /// The address.
    pub address: IpAddr,
    /// The live pods that claim it, of any node.
    pub claimants: &'a [ObjectKey],
    /// It is the node's own address, too, and stays the node's.
    pub is_node_address: bool,
}

/// By what exists; not by what a compiler has to look at.
impl PartialEq for Index {
    fn eq(&self, other: &Self) -> bool {
        self.node == other.node
            && self.node_addresses == other.node_addresses
            && self.deny_egress_to_node == other.deny_egress_to_node
            && self.complete == other.complete
            && self.namespaces == other.namespaces
            && self.pods == other.pods
            && self.policies == other.policies
            && self.services == other.services
            && self.endpoint_slices == other.endpoint_slices
            && self.nodes == other.nodes
            && self.claims == other.claims
            && self.slices_of == other.slices_of
    }
}

impl Index {
    /// An empty state that is not complete.
    ///
    /// With the name of a node, the pods of that node are local; without one, every pod is.
    pub fn new(node: Option<String>) -> Self {
        Self {
            node,
            node_addresses: BTreeSet::new(),
            deny_egress_to_node: false,
            complete: false,
            namespaces: BTreeMap::new(),
            pods: BTreeMap::new(),
            policies: BTreeMap::new(),
            services: BTreeMap::new(),
            endpoint_slices: BTreeMap::new(),
            nodes: BTreeMap::new(),
            claims: BTreeMap::new(),
            slices_of: BTreeMap::new(),
            common: Common::default(),
            dirty: Dirty::default(),
        }
    }

    /// The same; with `deny`, egress policies decide whether a pod reaches its own node.
    #[must_use]
    pub fn deny_egress_to_node(self, deny: bool) -> Self {
        Self { deny_egress_to_node: deny, ..self }
    }

    /// Whether egress policies decide that a pod reaches its own node.
    pub fn denies_egress_to_node(&self) -> bool {
        self.deny_egress_to_node
    }

    /// Takes in one change; says whether the state is different now.
    pub fn apply(&mut self, change: Change) -> bool {
        match change {
            Change::NamespaceApplied(namespace) => {
                let name = namespace.name.clone();
                let changed = insert(&mut self.namespaces, name.clone(), namespace);
                self.namespace_changed(&name, changed)
            }
            Change::NamespaceDeleted(name) => {
                let changed = self.namespaces.remove(&name).is_some();
                self.namespace_changed(&name, changed)
            }
            Change::PodApplied(pod) => self.apply_pod(pod),
            Change::PodDeleted(key) => self.delete_pod(&key),
            Change::PolicyApplied(policy) => {
                let key = policy.key.clone();
                let changed = insert(&mut self.policies, key.clone(), policy);
                noted(&mut self.dirty.policies, key, changed)
            }
            Change::PolicyDeleted(key) => {
                let changed = self.policies.remove(&key).is_some();
                noted(&mut self.dirty.policies, key, changed)
            }
            Change::ServiceApplied(service) => {
                let key = service.key.clone();
                let changed = insert(&mut self.services, key.clone(), service);
                noted(&mut self.dirty.services, key, changed)
            }
            Change::ServiceDeleted(key) => {
                let changed = self.services.remove(&key).is_some();
                noted(&mut self.dirty.services, key, changed)
            }
            Change::EndpointSliceApplied(slice) => self.apply_slice(slice),
            Change::EndpointSliceDeleted(key) => self.delete_slice(&key),
            Change::NodeApplied(node) => insert(&mut self.nodes, node.name.clone(), node),
            Change::NodeDeleted(name) => self.nodes.remove(&name).is_some(),
            Change::SourceComplete(complete) => {
                let changed = mem::replace(&mut self.complete, complete) != complete;
                self.dirty.everything |= changed;
                changed
            }
        }
    }

    /// What changed since the last call.
    pub fn take_dirty(&mut self) -> Dirty {
        mem::take(&mut self.dirty)
    }

    fn namespace_changed(&mut self, name: &str, changed: bool) -> bool {
        noted(&mut self.dirty.namespaces, Arc::from(name), changed)
    }

    /// Sets the node's own addresses; says whether they are different now.
    pub fn set_node_addresses(&mut self, addresses: BTreeSet<IpAddr>) -> bool {
        let changed = self.node_addresses != addresses;
        self.node_addresses = addresses;
        self.dirty.everything |= changed;
        changed
    }

    fn apply_slice(&mut self, slice: EndpointSlice) -> bool {
        if self.endpoint_slices.get(&slice.key) == Some(&slice) {
            return false;
        }
        self.delete_slice(&slice.key);
        let service = service_of(&slice);
        self.slices_of.entry(service.clone()).or_default().insert(slice.key.clone());
        self.endpoint_slices.insert(slice.key.clone(), slice);
        noted(&mut self.dirty.services, service, true)
    }

    fn delete_slice(&mut self, key: &ObjectKey) -> bool {
        let Some(slice) = self.endpoint_slices.remove(key) else { return false };
        let service = service_of(&slice);
        if let Some(slices) = self.slices_of.get_mut(&service) {
            slices.remove(key);
            if slices.is_empty() {
                self.slices_of.remove(&service);
            }
        }
        noted(&mut self.dirty.services, service, true)
    }

    fn apply_pod(&mut self, mut pod: Pod) -> bool {
        if self.pods.get(&pod.key) == Some(&pod) {
            return false;
        }
        self.delete_pod(&pod.key);
        self.common.share(&mut pod);
        self.dirty.pods.insert(pod.key.clone());
        if is_live(&pod) {
            for address in &pod.addresses {
                // Nearly always there is one alone, and no room is kept for more.
                let claimants =
                    self.claims.entry(*address).or_insert_with(|| Vec::with_capacity(1));
                if let Err(place) = claimants.binary_search(&pod.key) {
                    claimants.insert(place, pod.key.clone());
                }
                self.dirty.addresses.insert(*address);
            }
        }
        self.pods.insert(pod.key.clone(), pod);
        true
    }

    fn delete_pod(&mut self, key: &ObjectKey) -> bool {
        let Some(pod) = self.pods.remove(key) else { return false };
        for address in &pod.addresses {
            if let Some(claimants) = self.claims.get_mut(address) {
                claimants.retain(|claimant| claimant != key);
                if claimants.is_empty() {
                    self.claims.remove(address);
                }
            }
            self.dirty.addresses.insert(*address);
        }
        self.dirty.pods.insert(key.clone());
        true
    }

    /// The node whose pods are local; `None`: every pod is.
    pub fn node(&self) -> Option<&str> {
        self.node.as_deref()
    }

    /// The node's own addresses.
    pub fn node_addresses(&self) -> &BTreeSet<IpAddr> {
        &self.node_addresses
    }

    /// Whether the source has named everything that it holds.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// Every namespace that is known.
    pub fn namespaces(&self) -> &BTreeMap<String, Namespace> {
        &self.namespaces
    }

    /// Every pod, live or not, of every node.
    pub fn pods(&self) -> &BTreeMap<ObjectKey, Pod> {
        &self.pods
    }

    /// Every policy.
    pub fn policies(&self) -> &BTreeMap<ObjectKey, Policy> {
        &self.policies
    }

    /// Every service.
    pub fn services(&self) -> &BTreeMap<ObjectKey, Service> {
        &self.services
    }

    /// The endpoint slices of a service, whether or not it exists.
    pub fn slices_of(&self, service: &ObjectKey) -> impl Iterator<Item = &EndpointSlice> {
        let slices = self.slices_of.get(service).into_iter().flatten();
        slices.filter_map(|key| self.endpoint_slices.get(key))
    }

    /// Every endpoint slice.
    pub fn endpoint_slices(&self) -> &BTreeMap<ObjectKey, EndpointSlice> {
        &self.endpoint_slices
    }

    /// Every node that the source names. The own node's addresses, as policy knows them, are
    /// [`Index::node_addresses`].
    pub fn nodes(&self) -> &BTreeMap<String, Node> {
        &self.nodes
    }

    /// The policies of one namespace, in order of their names.
    pub fn policies_in<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a Policy> {
        self.policies
            .range(ObjectKey::new(namespace, "")..)
            .map(|(_, policy)| policy)
            .take_while(move |policy| *policy.key.namespace == *namespace)
    }

    /// The labels of a namespace. One that is not known has its name's label alone.
    pub fn namespace_labels(&self, name: &str) -> Cow<'_, Labels> {
        match self.namespaces.get(name) {
            Some(namespace) => Cow::Borrowed(&namespace.labels),
            None => Cow::Owned(Labels::from([(NAMESPACE_NAME_LABEL.to_owned(), name.to_owned())])),
        }
    }

    /// The pods that this node enforces policy for: live, local, and with an address.
    pub fn endpoints(&self) -> impl Iterator<Item = &Pod> {
        self.pods.values().filter(|pod| self.is_endpoint(pod))
    }

    /// A pod that this node enforces policy for.
    pub fn endpoint(&self, key: &ObjectKey) -> Option<&Pod> {
        self.pods.get(key).filter(|pod| self.is_endpoint(pod))
    }

    fn is_endpoint(&self, pod: &Pod) -> bool {
        is_live(pod) && self.is_local(pod) && !pod.addresses.is_empty()
    }

    fn is_local(&self, pod: &Pod) -> bool {
        self.node.is_none() || pod.node.as_deref() == self.node()
    }

    /// The live pod that an address belongs to. There is none for the node's own addresses and
    /// for those in conflict.
    pub fn pod_at(&self, address: IpAddr) -> Option<&Pod> {
        self.owner(address, self.claims.get(&address)?)
    }

    /// The live pods that claim an address, of any node.
    pub fn claimants(&self, address: IpAddr) -> &[ObjectKey] {
        self.claims.get(&address).map_or(&[], Vec::as_slice)
    }

    /// Every address that a live pod claims.
    pub fn claimed_addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.claims.keys().copied()
    }

    /// Every address that belongs to exactly one live pod, and that pod, of any node.
    pub fn pod_addresses(&self) -> impl Iterator<Item = (IpAddr, &Pod)> {
        self.claims.iter().filter_map(|(address, claimants)| {
            self.owner(*address, claimants).map(|pod| (*address, pod))
        })
    }

    fn owner(&self, address: IpAddr, claimants: &[ObjectKey]) -> Option<&Pod> {
        if self.is_contested(address, claimants) {
            return None;
        }
        claimants.first().and_then(|key| self.pods.get(key))
    }

    /// Every address that belongs to more than one.
    pub fn conflicts(&self) -> impl Iterator<Item = Conflict<'_>> {
        self.claims
            .iter()
            .filter(|(address, claimants)| self.is_contested(**address, claimants))
            .map(|(address, claimants)| Conflict {
                address: *address,
                claimants,
                is_node_address: self.node_addresses.contains(address),
            })
    }

    /// Whether one of a pod's addresses belongs to somebody else, too.
    pub fn is_in_conflict(&self, pod: &Pod) -> bool {
        pod.addresses.iter().any(|address| {
            self.claims.get(address).is_some_and(|claimants| self.is_contested(*address, claimants))
        })
    }

    fn is_contested(&self, address: IpAddr, claimants: &[ObjectKey]) -> bool {
        claimants.len() > 1 || self.node_addresses.contains(&address)
    }
}

fn is_live(pod: &Pod) -> bool {
    !pod.ended && !pod.host_network
}

/// The key that the service of a slice has, or would have.
fn service_of(slice: &EndpointSlice) -> ObjectKey {
    ObjectKey::new(Arc::clone(&slice.key.namespace), Arc::clone(&slice.service))
}

/// Notes the key of what changed; whether it did.
fn noted<K: Ord>(dirty: &mut BTreeSet<K>, key: K, changed: bool) -> bool {
    if changed {
        dirty.insert(key);
    }
    changed
}

fn insert<K: Ord, V: PartialEq>(map: &mut BTreeMap<K, V>, key: K, value: V) -> bool {
    if map.get(&key) == Some(&value) {
        return false;
    }
    map.insert(key, value);
    true
}

#[cfg(test)]
mod tests;
