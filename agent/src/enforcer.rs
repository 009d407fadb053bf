//! From what was told to what is enforced: state, compiler, bindings and data plane in one place.
//!
//! Synchronous, and without a clock. Whatever tells it of the cluster and of links calls
//! [`Enforcer::apply`] and [`Enforcer::set_links`], then [`Enforcer::reconcile`]. Invariant: what
//! is enforced depends on the last state that it was told, not on the way there.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
};

use bulkhead_common::verdict::{DenyAction, Direction};

use crate::{
    dataplane::{
        op::{Execute, Op},
        plan::{Desired, DesiredEndpoint, Programmed},
    },
    drops::Names,
    endpoint::{Binding, Bindings},
    links::LinkState,
    policy::{
        compile::Compiler,
        compiled::{Compiled, EndpointPolicy, MixedService, SidePolicy},
        index::Index,
        model::{Change, ObjectKey},
    },
};

/// What to enforce, beyond what policies say.
#[derive(Clone, Debug)]
pub struct Options {
    /// The node whose pods are local; `None`: every pod is.
    pub node: Option<String>,
    /// For namespaces that ask for none.
    pub deny_action: DenyAction,
    /// Pods send from their own addresses only.
    pub check_source: bool,
    /// Pods reach their own node by rules only.
    pub deny_egress_to_node: bool,
}

/// The state, and the data plane `K` that it is enforced on.
pub struct Enforcer<K> {
    index: Index,
    compiler: Compiler,
    links: LinkState,
    bindings: Bindings,
    programmed: Programmed,
    kernel: K,
    problems: Problems,
}

/// What stands between the state and its enforcement.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems {
    /// Why the last reconcile was broken off: everything enforces what it did before.
    pub reconcile: Option<String>,
    /// Interfaces that the programs are not attached to, and why.
    pub unattached: BTreeMap<u32, String>,
}

/// Why a pod is not enforced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unenforced {
    /// No interface that leads to its addresses was found.
    NoInterface,
    /// The programs cannot be attached, for this reason.
    Unattached(String),
}

impl Unenforced {
    /// Whether something went wrong, rather than just not come yet.
    pub const fn is_failure(&self) -> bool {
        match self {
            Self::NoInterface => false,
            Self::Unattached(_) => true,
        }
    }
}

impl fmt::Display for Unenforced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoInterface => f.write_str("no interface of this node leads to its addresses"),
            Self::Unattached(why) => f.write_str(why),
        }
    }
}

impl<K: Execute> Enforcer<K> {
    /// Nothing is known, and nothing is enforced.
    pub fn new(options: &Options, kernel: K) -> Self {
        Self {
            index: Index::new(options.node.clone())
                .deny_egress_to_node(options.deny_egress_to_node),
            compiler: Compiler::new(options.deny_action),
            links: LinkState::default(),
            bindings: Bindings::default(),
            programmed: Programmed::new(options.check_source)
                .deny_egress_to_node(options.deny_egress_to_node),
            kernel,
            problems: Problems::default(),
        }
    }

    /// Takes in a change of the cluster; says whether the state is different now.
    pub fn apply(&mut self, change: Change) -> bool {
        self.index.apply(change)
    }

    /// Takes in what links there are; says whether the state is different now.
    pub fn set_links(&mut self, links: LinkState) -> bool {
        let addresses = self.index.set_node_addresses(links.node_addresses.clone());
        let changed = self.links != links;
        self.links = links;
        addresses || changed
    }

    /// Brings the data plane to the state. Says whether all of it is enforced; if not,
    /// [`Enforcer::problems`] has the rest, and another call tries it again.
    pub fn reconcile(&mut self) -> bool {
        self.compiler.update(&mut self.index);
        let touched = self.compiler.take_touched();
        let compiled = self.compiler.compiled();
        self.bindings.update(&self.links, compiled, |ifindex| self.kernel.exists(ifindex));
        self.problems = Problems::default();
        let endpoints = self
            .bindings
            .iter()
            .map(|(ifindex, binding)| (ifindex, desired(binding, compiled)))
            .collect();
        let desired = Desired { endpoints, compiled, touched: Some(&touched) };
        match self.programmed.plan(&desired) {
            Ok(ops) => self.execute(&ops),
            Err(error) => self.problems.reconcile = Some(format!("{error:#}")),
        }
        if self.problems.reconcile.is_some() {
            // What is new has no last good policy to keep.
            let new: Vec<u32> = self.bindings.iter().map(|(ifindex, _)| ifindex).collect();
            let ops = self.programmed.plan_closed(new);
            self.execute(&ops);
        }
        self.problems == Problems::default()
    }

    /// In order. An interface that the programs cannot be attached to holds up no other; after any
    /// other error, what follows may not be done.
    fn execute(&mut self, ops: &[Op]) {
        for op in ops {
            match (self.kernel.execute(op), op) {
                (Ok(()), op) => self.programmed.executed(op),
                (Err(error), Op::Attach { ifindex }) => {
                    self.problems.unattached.insert(*ifindex, format!("{error:#}"));
                }
                (Err(error), _) => {
                    self.problems.reconcile.get_or_insert_with(|| format!("{error:#}"));
                    return;
                }
            }
        }
    }

    /// Attaches again wherever the programs were taken off, or an interface was made anew under the
    /// same number. Says whether all that should be attached is; if not, reconcile.
    pub fn check_attached(&mut self) -> bool {
        let mut all = true;
        for ifindex in self.programmed.attached().clone() {
            if self.kernel.execute(&Op::Attach { ifindex }).is_err() {
                self.programmed.detached(ifindex);
                all = false;
            }
        }
        all
    }

    /// What stood in the way of the last [`Enforcer::reconcile`].
    pub fn problems(&self) -> &Problems {
        &self.problems
    }

    /// Known pods of this node that are not enforced, and why.
    pub fn unenforced(&self) -> BTreeMap<ObjectKey, Unenforced> {
        let mut found = BTreeSet::new();
        let mut unenforced = BTreeMap::new();
        for (ifindex, binding) in self.bindings.iter() {
            let Binding::Pod(pod) = binding else { continue };
            found.insert(pod);
            if let Some(why) = self.problems.unattached.get(&ifindex) {
                unenforced.insert(pod.clone(), Unenforced::Unattached(why.clone()));
            }
        }
        for pod in self.compiler.compiled().endpoints.keys().filter(|pod| !found.contains(pod)) {
            unenforced.insert(pod.clone(), Unenforced::NoInterface);
        }
        unenforced
    }

    /// How many pods are isolated in a direction, by policy or because they are closed.
    pub fn isolated(&self, direction: Direction) -> usize {
        self.compiler
            .compiled()
            .endpoints
            .values()
            .filter(|pod| side(pod, direction).is_some())
            .count()
    }

    /// Ports of services that pods of this node may not reach although they may reach a part of
    /// the backends.
    pub fn mixed_services(&self) -> &BTreeSet<MixedService> {
        &self.compiler.compiled().mixed_services
    }

    /// What is behind which interface.
    pub fn bindings(&self) -> &Bindings {
        &self.bindings
    }

    /// The state of the cluster.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// What the data plane holds.
    pub fn programmed(&self) -> &Programmed {
        &self.programmed
    }

    /// The data plane.
    pub fn kernel(&mut self) -> &mut K {
        &mut self.kernel
    }
}

impl<K> Names for Enforcer<K> {
    fn endpoint(&self, ifindex: u32) -> Option<(&ObjectKey, &EndpointPolicy)> {
        match self.bindings.get(ifindex)? {
            Binding::Pod(pod) => self.compiler.compiled().endpoints.get_key_value(pod),
            Binding::Closed(_) => None,
        }
    }

    fn pods(&self, address: IpAddr) -> Vec<&ObjectKey> {
        self.index.pod_at(address).map(|pod| &pod.key).into_iter().collect()
    }
}

fn desired<'a>(binding: &Binding, compiled: &'a Compiled) -> DesiredEndpoint<'a> {
    match binding {
        Binding::Pod(pod) => {
            compiled.endpoints.get(pod).map_or(DesiredEndpoint::Closed, DesiredEndpoint::Pod)
        }
        Binding::Closed(_) => DesiredEndpoint::Closed,
    }
}

const fn side(pod: &EndpointPolicy, direction: Direction) -> Option<&SidePolicy> {
    match direction {
        Direction::Ingress => pod.ingress.as_ref(),
        Direction::Egress => pod.egress.as_ref(),
    }
}

#[cfg(test)]
mod tests;
