//! The pods of this node: which policies select each, and what these add up to.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bulkhead_common::verdict::Direction;

use super::{Compiler, atom::Atom, policy_set::PolicySet, services::Concerned};
use crate::policy::{
    compiled::{Closed, EndpointPolicy, SidePolicy},
    index::{Dirty, Index},
    model::{ObjectKey, Pod, Policy},
};

/// Which policies select which pod of this node.
#[derive(Clone, Debug, Default)]
pub(super) struct Endpoints {
    /// By namespace, then by pod.
    selected_by: BTreeMap<Arc<str>, BTreeMap<ObjectKey, BTreeSet<ObjectKey>>>,
}

impl Endpoints {
    fn contains(&self, pod: &ObjectKey) -> bool {
        self.selected_by.get(&pod.namespace).is_some_and(|pods| pods.contains_key(pod))
    }

    fn in_namespace(&self, name: &Arc<str>) -> impl Iterator<Item = &ObjectKey> {
        self.selected_by.get(name).into_iter().flat_map(BTreeMap::keys)
    }

    fn policies(&self, pod: &ObjectKey) -> impl Iterator<Item = &ObjectKey> {
        let pods = self.selected_by.get(&pod.namespace);
        pods.and_then(|pods| pods.get(pod)).into_iter().flatten()
    }

    /// Which policies select a pod; one that is no endpoint is forgotten.
    fn pod_changed(&mut self, index: &Index, key: &ObjectKey) {
        if let Some(pod) = index.endpoint(key) {
            let selecting = index
                .policies_in(&key.namespace)
                .filter(|policy| policy.pod_selector.matches(&pod.labels))
                .map(|policy| policy.key.clone())
                .collect();
            let pods = self.selected_by.entry(Arc::clone(&key.namespace)).or_default();
            pods.insert(key.clone(), selecting);
        } else if let Some(pods) = self.selected_by.get_mut(&key.namespace) {
            pods.remove(key);
            if pods.is_empty() {
                self.selected_by.remove(&key.namespace);
            }
        }
    }

    /// Adds the pods that a policy selects, or did, to `changed`.
    fn policy_changed(
        &mut self,
        index: &Index,
        key: &ObjectKey,
        changed: &mut BTreeSet<ObjectKey>,
    ) {
        let policy = index.policies().get(key);
        for (pod, selecting) in self.selected_by.get_mut(&key.namespace).into_iter().flatten() {
            let selects = policy.is_some_and(|policy| {
                let labels = index.pods().get(pod).map(|pod| &pod.labels);
                labels.is_some_and(|labels| policy.pod_selector.matches(labels))
            });
            let did = selecting.remove(key);
            if selects {
                selecting.insert(key.clone());
            }
            if selects || did {
                changed.insert(pod.clone());
            }
        }
    }
}

impl Compiler {
    pub(super) fn update_endpoints(&mut self, index: &Index, dirty: &Dirty, concerned: &Concerned) {
        let mut changed = BTreeSet::new();
        for key in &dirty.pods {
            self.endpoints.pod_changed(index, key);
            changed.insert(key.clone());
        }
        for key in &dirty.policies {
            self.endpoints.policy_changed(index, key, &mut changed);
        }
        for name in &dirty.namespaces {
            changed.extend(self.endpoints.in_namespace(name).cloned());
        }
        for address in dirty.addresses.iter().chain(&concerned.backends) {
            let claimants = index.claimants(*address).iter();
            changed.extend(claimants.filter(|pod| self.endpoints.contains(pod)).cloned());
        }
        for key in changed {
            self.update_endpoint(index, key);
        }
    }

    fn update_endpoint(&mut self, index: &Index, key: ObjectKey) {
        let new = index.endpoint(&key).map(|pod| self.endpoint_policy(index, pod));
        let sides = |policy: &EndpointPolicy| {
            let sides = [&policy.ingress, &policy.egress].into_iter().flatten();
            sides.map(|side| side.policy_set).collect::<Vec<_>>()
        };
        for set in new.as_ref().map(sides).into_iter().flatten() {
            self.policy_sets.hold(set);
        }
        let old = match new {
            Some(new) => self.compiled.endpoints.insert(key, new),
            None => self.compiled.endpoints.remove(&key),
        };
        for set in old.as_ref().map(sides).into_iter().flatten() {
            self.policy_sets.release(set);
        }
    }

    fn endpoint_policy(&mut self, index: &Index, pod: &Pod) -> EndpointPolicy {
        let closed = closed(index, pod);
        let keys: Vec<_> = self.endpoints.policies(&pod.key).cloned().collect();
        let policies: Vec<_> = keys.iter().filter_map(|key| index.policies().get(key)).collect();
        let mut side = |direction| match closed {
            Some(reason) => Some(self.closed_side(direction, reason)),
            None => self.side(pod, &policies, direction),
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

    fn closed_side(&mut self, direction: Direction, reason: Closed) -> SidePolicy {
        let set = PolicySet::closed(direction);
        SidePolicy {
            any_peer: self.rules.share(set.any_peer.clone()),
            names_blocks: false,
            policy_set: self.policy_sets.number(set),
            policies: BTreeSet::new(),
            closed: Some(reason),
        }
    }

    /// `policies` are those that select the pod; `None` if none of them isolates it.
    fn side(
        &mut self,
        pod: &Pod,
        policies: &[&Policy],
        direction: Direction,
    ) -> Option<SidePolicy> {
        let isolating: Vec<_> =
            policies.iter().filter_map(|policy| Some((policy, policy.rules(direction)?))).collect();
        if isolating.is_empty() {
            return None;
        }
        let rules = isolating
            .iter()
            .flat_map(|(policy, rules)| rules.iter().map(|rule| (&policy.key.namespace, rule)));
        let mut set = PolicySet::new(direction, pod, rules);
        if direction == Direction::Egress {
            // A pod reaches itself, through a service, too.
            let own = pod.addresses.iter().filter(|address| self.services.has_backend(**address));
            own.for_each(|address| set.allow_everything(Atom::Own(*address)));
        }
        let names_blocks = set.names_blocks();
        let any_peer = self.rules.share(set.any_peer.clone());
        let set = set.numbered(|atom| self.atoms.number(atom));
        Some(SidePolicy {
            any_peer,
            names_blocks,
            policy_set: self.policy_sets.number(set),
            policies: isolating.iter().map(|(policy, _)| policy.key.clone()).collect(),
            closed: None,
        })
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
