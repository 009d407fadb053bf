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
};

use super::model::{
    Change, EndpointSlice, Labels, Namespace, Node, ObjectKey, Pod, Policy, Service,
};

/// The label that every namespace has, with its own name as the value.
pub const NAMESPACE_NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// The state of the cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct Index {
    node: Option<String>,
    node_addresses: BTreeSet<IpAddr>,
    complete: bool,
    namespaces: BTreeMap<String, Namespace>,
    pods: BTreeMap<ObjectKey, Pod>,
    policies: BTreeMap<ObjectKey, Policy>,
    services: BTreeMap<ObjectKey, Service>,
    endpoint_slices: BTreeMap<ObjectKey, EndpointSlice>,
    nodes: BTreeMap<String, Node>,
    /// Which live pods say that an address is theirs; never an empty set.
    claims: BTreeMap<IpAddr, BTreeSet<ObjectKey>>,
}

/// An address that belongs to more than one: it is no peer of any rule, and the pods of this node
/// that claim it are closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conflict<'a> {
    /// The address.
    pub address: IpAddr,
    /// The live pods that claim it, of any node.
    pub claimants: &'a BTreeSet<ObjectKey>,
    /// It is the node's own address, too, and stays the node's.
    pub is_node_address: bool,
}

impl Index {
    /// An empty state that is not complete.
    ///
    /// With the name of a node, the pods of that node are local; without one, every pod is.
    pub fn new(node: Option<String>) -> Self {
        Self {
            node,
            node_addresses: BTreeSet::new(),
            complete: false,
            namespaces: BTreeMap::new(),
            pods: BTreeMap::new(),
            policies: BTreeMap::new(),
            services: BTreeMap::new(),
            endpoint_slices: BTreeMap::new(),
            nodes: BTreeMap::new(),
            claims: BTreeMap::new(),
        }
    }

    /// Takes in one change; says whether the state is different now.
    pub fn apply(&mut self, change: Change) -> bool {
        match change {
            Change::NamespaceApplied(namespace) => {
                insert(&mut self.namespaces, namespace.name.clone(), namespace)
            }
            Change::NamespaceDeleted(name) => self.namespaces.remove(&name).is_some(),
            Change::PodApplied(pod) => self.apply_pod(pod),
            Change::PodDeleted(key) => self.delete_pod(&key),
            Change::PolicyApplied(policy) => insert(&mut self.policies, policy.key.clone(), policy),
            Change::PolicyDeleted(key) => self.policies.remove(&key).is_some(),
            Change::ServiceApplied(service) => {
                insert(&mut self.services, service.key.clone(), service)
            }
            Change::ServiceDeleted(key) => self.services.remove(&key).is_some(),
            Change::EndpointSliceApplied(slice) => {
                insert(&mut self.endpoint_slices, slice.key.clone(), slice)
            }
            Change::EndpointSliceDeleted(key) => self.endpoint_slices.remove(&key).is_some(),
            Change::NodeApplied(node) => insert(&mut self.nodes, node.name.clone(), node),
            Change::NodeDeleted(name) => self.nodes.remove(&name).is_some(),
            Change::SourceComplete(complete) => {
                mem::replace(&mut self.complete, complete) != complete
            }
        }
    }

    /// Sets the node's own addresses; says whether they are different now.
    pub fn set_node_addresses(&mut self, addresses: BTreeSet<IpAddr>) -> bool {
        let changed = self.node_addresses != addresses;
        self.node_addresses = addresses;
        changed
    }

    fn apply_pod(&mut self, pod: Pod) -> bool {
        if self.pods.get(&pod.key) == Some(&pod) {
            return false;
        }
        self.delete_pod(&pod.key);
        if is_live(&pod) {
            for address in &pod.addresses {
                self.claims.entry(*address).or_default().insert(pod.key.clone());
            }
        }
        self.pods.insert(pod.key.clone(), pod);
        true
    }

    fn delete_pod(&mut self, key: &ObjectKey) -> bool {
        let Some(pod) = self.pods.remove(key) else { return false };
        for address in &pod.addresses {
            if let Some(claimants) = self.claims.get_mut(address) {
                claimants.remove(key);
                if claimants.is_empty() {
                    self.claims.remove(address);
                }
            }
        }
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
        self.pods
            .values()
            .filter(|pod| is_live(pod) && self.is_local(pod) && !pod.addresses.is_empty())
    }

    fn is_local(&self, pod: &Pod) -> bool {
        self.node.is_none() || pod.node.as_deref() == self.node()
    }

    /// The live pod that an address belongs to. There is none for the node's own addresses and
    /// for those in conflict.
    pub fn pod_at(&self, address: IpAddr) -> Option<&Pod> {
        self.owner(address, self.claims.get(&address)?)
    }

    /// Every address that belongs to exactly one live pod, and that pod, of any node.
    pub fn pod_addresses(&self) -> impl Iterator<Item = (IpAddr, &Pod)> {
        self.claims.iter().filter_map(|(address, claimants)| {
            self.owner(*address, claimants).map(|pod| (*address, pod))
        })
    }

    fn owner(&self, address: IpAddr, claimants: &BTreeSet<ObjectKey>) -> Option<&Pod> {
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

    fn is_contested(&self, address: IpAddr, claimants: &BTreeSet<ObjectKey>) -> bool {
        claimants.len() > 1 || self.node_addresses.contains(&address)
    }
}

fn is_live(pod: &Pod) -> bool {
    !pod.ended && !pod.host_network
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
