//! From the cluster's state to what the kernel's maps hold.
//!
//! Owns the numbering of policy sets and identities. Does no I/O and keeps nothing of the state:
//! what it makes depends on the index it is given, up to numbering. Invariant: a number means the
//! same for as long as the compiler lives (see [`super::compiled`]).
//!
//! 1. Each endpoint's policies add up to a policy set for each direction. Pods whose policies
//!    come to the same share one.
//! 2. The peers named in these policy sets, and no others, are the relevant atoms. An address
//!    gets the set of relevant atoms that match its pod as its identity, so the size of what is
//!    made follows the number of distinct identities, not addresses times ports.
//! 3. Policy set and identity make a rule: the union of what the set allows with the identity's
//!    atoms.
//!
//! A pod that must not be trusted to its policies (see [`Closed`]) is isolated in both directions
//! by a policy set that allows nothing, and no policy that selects only such pods is relevant.

mod interner;
mod peer_atom;
mod policy_set;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use bulkhead_common::{
    key::RuleKey,
    value::{IDENTITY_FIRST, IDENTITY_NODE},
    verdict::{DenyAction, Direction},
};

use self::{interner::Interner, peer_atom::PeerAtom, policy_set::PolicySet};
use super::{
    compiled::{Closed, Compiled, EndpointPolicy, PortSet, SidePolicy},
    index::Index,
    model::{Pod, Policy},
};

/// The first number of a policy set; zero stands in endpoints that have none.
const POLICY_SET_FIRST: u32 = 1;

/// Compiles one state after the other.
#[derive(Clone, Debug)]
pub struct Compiler {
    deny_action: DenyAction,
    atoms: Interner<PeerAtom>,
    /// By the numbers of the atoms that match.
    identities: Interner<BTreeSet<u32>>,
    policy_sets: Interner<PolicySet<u32>>,
}

impl Compiler {
    /// `deny_action` is for pods of namespaces that ask for none.
    pub fn new(deny_action: DenyAction) -> Self {
        Self {
            deny_action,
            atoms: Interner::starting_at(0),
            identities: Interner::starting_at(IDENTITY_FIRST),
            policy_sets: Interner::starting_at(POLICY_SET_FIRST),
        }
    }

    /// Compiles a state whole.
    pub fn compile(&mut self, index: &Index) -> Compiled {
        self.atoms.begin_generation();
        self.identities.begin_generation();
        self.policy_sets.begin_generation();
        let endpoints =
            index.endpoints().map(|pod| (pod.key.clone(), self.endpoint(index, pod))).collect();
        Compiled { endpoints, peers: self.peers(index), rules: self.rules() }
    }

    fn endpoint(&mut self, index: &Index, pod: &Pod) -> EndpointPolicy {
        let closed = closed(index, pod);
        let policies: Vec<_> = index
            .policies_in(&pod.key.namespace)
            .filter(|policy| policy.pod_selector.matches(&pod.labels))
            .collect();
        let mut side = |direction| match closed {
            Some(reason) => Some(self.closed_side(reason)),
            None => self.side(&policies, direction),
        };
        EndpointPolicy {
            uid: pod.uid.clone(),
            addresses: pod.addresses.iter().copied().collect(),
            ingress: side(Direction::Ingress),
            egress: side(Direction::Egress),
            deny_action: index
                .namespaces()
                .get(&*pod.key.namespace)
                .and_then(|namespace| namespace.deny_action)
                .unwrap_or(self.deny_action),
        }
    }

    fn closed_side(&mut self, reason: Closed) -> SidePolicy {
        SidePolicy {
            policy_set: self.policy_sets.number(PolicySet::NOTHING),
            any_peer: PortSet::NOTHING,
            policies: BTreeSet::new(),
            closed: Some(reason),
        }
    }

    /// `policies` are those that select the pod; `None` if none of them isolates it.
    fn side(&mut self, policies: &[&Policy], direction: Direction) -> Option<SidePolicy> {
        let isolating: Vec<_> =
            policies.iter().filter_map(|policy| Some((policy, policy.rules(direction)?))).collect();
        if isolating.is_empty() {
            return None;
        }
        let rules = isolating
            .iter()
            .flat_map(|(policy, rules)| rules.iter().map(|rule| (&*policy.key.namespace, rule)));
        let content = PolicySet::new(rules).numbered(|atom| self.atoms.number(atom));
        Some(SidePolicy {
            any_peer: content.any_peer.clone(),
            policy_set: self.policy_sets.number(content),
            policies: isolating.iter().map(|(policy, _)| policy.key.clone()).collect(),
            closed: None,
        })
    }

    fn peers(&mut self, index: &Index) -> BTreeMap<IpAddr, u32> {
        let mut peers: BTreeMap<_, _> =
            index.node_addresses().iter().map(|address| (*address, IDENTITY_NODE)).collect();
        let mut by_namespace: BTreeMap<&str, Vec<(&PeerAtom, u32)>> = BTreeMap::new();
        for (address, pod) in index.pod_addresses() {
            let name = &*pod.key.namespace;
            let candidates = by_namespace.entry(name).or_insert_with(|| {
                let labels = index.namespace_labels(name);
                self.atoms
                    .in_use()
                    .filter(|(atom, _)| atom.matches_namespace(name, &labels))
                    .collect()
            });
            let matching: BTreeSet<_> = candidates
                .iter()
                .filter(|(atom, _)| atom.matches_pod(&pod.labels))
                .map(|(_, number)| *number)
                .collect();
            if !matching.is_empty() {
                peers.insert(address, self.identities.number(matching));
            }
        }
        peers
    }

    fn rules(&self) -> BTreeMap<RuleKey, PortSet> {
        let mut identities_of: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for (atoms, identity) in self.identities.in_use() {
            for atom in atoms {
                identities_of.entry(*atom).or_default().push(identity);
            }
        }
        let mut rules = BTreeMap::new();
        for (content, policy_set) in self.policy_sets.in_use() {
            for (atom, ports) in &content.by_atom {
                for identity in identities_of.get(atom).into_iter().flatten() {
                    let sum = rules
                        .entry(RuleKey { policy_set, identity: *identity })
                        .or_insert(PortSet::NOTHING);
                    *sum = sum.union(ports);
                }
            }
        }
        rules
    }
}

fn closed(index: &Index, pod: &Pod) -> Option<Closed> {
    if !index.is_complete() {
        Some(Closed::SourceIncomplete)
    } else if index.is_in_conflict(pod) {
        Some(Closed::AddressConflict)
    } else {
        None
    }
}

#[cfg(test)]
mod tests;
