//! A cluster as each of its nodes sees it.
//!
//! Owns which pod runs where and which addresses are a node's own: what an agent finds out on its
//! node, and here follows from the objects. Invariant: it depends on what exists, never on the
//! order in which it was told.
//!
//! - A pod without `nodeName` runs on the one node, if the source names exactly one; else all such
//!   pods share a node without a name and without addresses, and that node sees every pod.
//! - A node's own addresses are those of its object, and those of pods on its network.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use crate::policy::{
    index::Index,
    model::{Change, Pod},
};

/// A node by its name; `None`: the node without a name.
pub type NodeName = Option<Arc<str>>;

/// The state of a cluster, and of it what each node sees.
#[derive(Clone, Debug)]
pub struct Cluster {
    whole: Index,
    /// Where pods without `nodeName` run.
    lone: NodeName,
    /// Of the nodes that were asked for.
    views: BTreeMap<NodeName, Index>,
}

impl Cluster {
    /// The same cluster; with `deny`, its agents let egress policies decide whether a pod reaches its
    /// own node.
    #[must_use]
    pub fn deny_egress_to_node(self, deny: bool) -> Self {
        Self { whole: self.whole.deny_egress_to_node(deny), views: BTreeMap::new(), ..self }
    }

    /// A cluster of which nothing is known.
    pub fn new() -> Self {
        Self { whole: Index::new(None), lone: None, views: BTreeMap::new() }
    }

    /// Takes in one change; says whether the state is different now.
    pub fn apply(&mut self, change: Change) -> bool {
        let of_nodes = self.is_of_nodes(&change);
        if !self.whole.apply(change.clone()) {
            return false;
        }
        let moved = self.find_lone_node();
        let change = at_home(change, &self.lone);
        for (node, view) in &mut self.views {
            view.apply(change.clone());
            if moved {
                for pod in self.whole.pods().values().filter(|pod| pod.node.is_none()) {
                    view.apply(at_home(Change::PodApplied(pod.clone()), &self.lone));
                }
            }
            if of_nodes || moved {
                view.set_node_addresses(addresses(&self.whole, &self.lone, node));
            }
        }
        true
    }

    /// The objects, of every node, as they were told.
    pub fn objects(&self) -> &Index {
        &self.whole
    }

    /// The node that a pod runs on.
    pub fn home(&self, pod: &Pod) -> NodeName {
        pod.node.clone().or_else(|| self.lone.clone())
    }

    /// The addresses of a node: those of its object, and those of pods on its network.
    pub fn addresses(&self, node: &NodeName) -> BTreeSet<IpAddr> {
        addresses(&self.whole, &self.lone, node)
    }

    /// The state as a node sees it.
    pub fn node(&mut self, node: &NodeName) -> &mut Index {
        let (whole, lone) = (&self.whole, &self.lone);
        self.views.entry(node.clone()).or_insert_with(|| view(whole, lone, node))
    }

    /// Whether a change may alter which addresses are a node's own.
    fn is_of_nodes(&self, change: &Change) -> bool {
        let known = |key| self.whole.pods().get(key).is_some_and(|pod| pod.host_network);
        match change {
            Change::NodeApplied(_) | Change::NodeDeleted(_) => true,
            Change::PodApplied(pod) => pod.host_network || known(&pod.key),
            Change::PodDeleted(key) => known(key),
            Change::NamespaceApplied(_)
            | Change::NamespaceDeleted(_)
            | Change::PolicyApplied(_)
            | Change::PolicyDeleted(_)
            | Change::ServiceApplied(_)
            | Change::ServiceDeleted(_)
            | Change::EndpointSliceApplied(_)
            | Change::EndpointSliceDeleted(_)
            | Change::SourceComplete(_) => false,
        }
    }

    /// Says whether pods without `nodeName` run somewhere else now.
    fn find_lone_node(&mut self) -> bool {
        let mut names = self.whole.nodes().keys();
        let lone = match (names.next(), names.next()) {
            (Some(name), None) => Some(Arc::from(name.as_str())),
            (_, _) => None,
        };
        let moved = self.lone != lone;
        self.lone = lone;
        moved
    }
}

impl Default for Cluster {
    fn default() -> Self {
        Self::new()
    }
}

impl FromIterator<Change> for Cluster {
    fn from_iter<T: IntoIterator<Item = Change>>(changes: T) -> Self {
        let mut cluster = Self::new();
        for change in changes {
            cluster.apply(change);
        }
        cluster
    }
}

impl Extend<Change> for Cluster {
    fn extend<T: IntoIterator<Item = Change>>(&mut self, changes: T) {
        for change in changes {
            self.apply(change);
        }
    }
}

fn view(whole: &Index, lone: &NodeName, node: &NodeName) -> Index {
    let mut view = Index::new(node.as_deref().map(str::to_owned))
        .deny_egress_to_node(whole.denies_egress_to_node());
    let changes = [Change::SourceComplete(whole.is_complete())]
        .into_iter()
        .chain(whole.nodes().values().cloned().map(Change::NodeApplied))
        .chain(whole.namespaces().values().cloned().map(Change::NamespaceApplied))
        .chain(whole.policies().values().cloned().map(Change::PolicyApplied))
        .chain(whole.pods().values().cloned().map(Change::PodApplied))
        .chain(whole.services().values().cloned().map(Change::ServiceApplied))
        .chain(whole.endpoint_slices().values().cloned().map(Change::EndpointSliceApplied));
    for change in changes {
        view.apply(at_home(change, lone));
    }
    view.set_node_addresses(addresses(whole, lone, node));
    view
}

fn at_home(change: Change, lone: &NodeName) -> Change {
    if let Change::PodApplied(pod) = &change
        && pod.node.is_none()
    {
        return Change::PodApplied(Pod { node: lone.clone(), ..pod.clone() });
    }
    change
}

fn addresses(whole: &Index, lone: &NodeName, node: &NodeName) -> BTreeSet<IpAddr> {
    let of_object = node
        .as_deref()
        .and_then(|name| whole.nodes().get(name))
        .into_iter()
        .flat_map(|node| node.addresses.iter().copied());
    let of_pods = whole
        .pods()
        .values()
        .filter(|pod| pod.host_network && !pod.ended)
        .filter(|pod| pod.node.as_ref().or(lone.as_ref()) == node.as_ref())
        .flat_map(|pod| pod.addresses.iter().copied());
    of_object.chain(of_pods).collect()
}

#[cfg(test)]
mod tests;
