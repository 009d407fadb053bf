//! What all files together say, and the changes from one such state to the next.
//!
//! Invariant: the state depends on the files alone, not on the order in which they came. Where two
//! documents disagree about a policy, it is refused for every pod that either can have meant.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use tracing::{debug, warn};

use crate::policy::{
    model::{Change, EndpointSlice, Namespace, Node, ObjectKey, Pod, Policy, Rule, Service},
    selector::Selector,
};

use super::{
    file::{Definition, Object},
    problem::Problem,
};

/// Every object that the directory defines, once.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct State {
    namespaces: BTreeMap<String, Namespace>,
    pods: BTreeMap<ObjectKey, Pod>,
    policies: BTreeMap<ObjectKey, Policy>,
    services: BTreeMap<ObjectKey, Service>,
    endpoint_slices: BTreeMap<ObjectKey, EndpointSlice>,
    nodes: BTreeMap<String, Node>,
}

impl State {
    /// Brings together the definitions of all files, which come in the order of their names.
    pub(super) fn merge<'a>(
        files: impl Iterator<Item = (&'a Path, &'a [Definition])>,
    ) -> (Self, Vec<Problem>) {
        let mut by_subject: BTreeMap<String, Vec<(&Path, &Definition)>> = BTreeMap::new();
        for (file, definitions) in files {
            for definition in definitions {
                let definers = by_subject.entry(definition.object.subject()).or_default();
                definers.push((file, definition));
            }
        }
        let mut state = Self::default();
        let mut problems = Vec::new();
        for (subject, definers) in by_subject {
            let Some(((_, first), others)) = definers.split_first() else { continue };
            let mut object = first.object.clone();
            if !others.is_empty() {
                let message = duplicate(&definers);
                for (_, other) in others {
                    object = reconcile(object, &other.object, &message);
                }
                problems.push(Problem { kind: object.kind(), subject, message });
            }
            state.insert(object);
        }
        (state, problems)
    }

    /// Whether no object is known.
    pub(super) fn is_empty(&self) -> bool {
        let Self { namespaces, pods, policies, services, endpoint_slices, nodes } = self;
        namespaces.is_empty()
            && pods.is_empty()
            && policies.is_empty()
            && services.is_empty()
            && endpoint_slices.is_empty()
            && nodes.is_empty()
    }

    /// What turns this state into `next`.
    ///
    /// What a policy needs in order to hold comes before it, and policies come before pods and go
    /// after them, so that no pod stands there without a policy that both states have for it. A
    /// service has its backends for as long as it is there: with fewer it could be open.
    pub(super) fn changes_to(&self, next: &Self) -> Vec<Change> {
        let mut changes = Vec::new();
        let namespaces = applied(&self.namespaces, &next.namespaces);
        changes.extend(namespaces.cloned().map(Change::NamespaceApplied));
        changes.extend(applied(&self.nodes, &next.nodes).cloned().map(Change::NodeApplied));
        for policy in applied(&self.policies, &next.policies) {
            log_open_rules(policy);
            changes.push(Change::PolicyApplied(policy.clone()));
        }
        let slices = applied(&self.endpoint_slices, &next.endpoint_slices);
        changes.extend(slices.cloned().map(Change::EndpointSliceApplied));
        changes.extend(applied(&self.pods, &next.pods).cloned().map(Change::PodApplied));
        let services = applied(&self.services, &next.services);
        changes.extend(services.cloned().map(Change::ServiceApplied));
        changes.extend(deleted(&self.services, &next.services).map(Change::ServiceDeleted));
        let slices = deleted(&self.endpoint_slices, &next.endpoint_slices);
        changes.extend(slices.map(Change::EndpointSliceDeleted));
        changes.extend(deleted(&self.pods, &next.pods).map(Change::PodDeleted));
        changes.extend(deleted(&self.policies, &next.policies).map(Change::PolicyDeleted));
        changes.extend(deleted(&self.nodes, &next.nodes).map(Change::NodeDeleted));
        changes.extend(deleted(&self.namespaces, &next.namespaces).map(Change::NamespaceDeleted));
        changes
    }

    fn insert(&mut self, object: Object) {
        match object {
            Object::Namespace(namespace) => {
                self.namespaces.insert(namespace.name.clone(), namespace);
            }
            Object::Pod(pod) => {
                self.pods.insert(pod.key.clone(), pod);
            }
            Object::Policy(policy) => {
                self.policies.insert(policy.key.clone(), policy);
            }
            Object::Service(service) => {
                self.services.insert(service.key.clone(), service);
            }
            Object::EndpointSlice(slice) => {
                self.endpoint_slices.insert(slice.key.clone(), slice);
            }
            Object::Node(node) => {
                self.nodes.insert(node.name.clone(), node);
            }
        }
    }
}

/// Of two definitions of one object: the first, except where the other could close more. Policies
/// that differ are refused, services that differ have no addresses, and slices have the ports and
/// backends of both.
fn reconcile(first: Object, other: &Object, reason: &str) -> Object {
    match (first, other) {
        (Object::Policy(first), Object::Policy(other)) if first != *other => {
            let same_pods = first.pod_selector == other.pod_selector;
            let isolated =
                |a: &Option<_>, b: &Option<_>| (a.is_some() || b.is_some()).then(Vec::new);
            Object::Policy(Policy {
                ingress: isolated(&first.ingress, &other.ingress),
                egress: isolated(&first.egress, &other.egress),
                pod_selector: if same_pods { first.pod_selector } else { Selector::everything() },
                refused: Some(reason.to_owned()),
                key: first.key,
            })
        }
        (Object::Service(first), Object::Service(other)) if first != *other => {
            Object::Service(Service { addresses: BTreeSet::new(), ..first })
        }
        (Object::EndpointSlice(mut first), Object::EndpointSlice(other))
            if first.service == other.service =>
        {
            first.ready.extend(&other.ready);
            let ports = BTreeSet::from_iter(first.ports.into_iter().chain(other.ports.clone()));
            first.ports = ports.into_iter().collect();
            Object::EndpointSlice(first)
        }
        (first, _) => first,
    }
}

fn duplicate(definers: &[(&Path, &Definition)]) -> String {
    let places: BTreeSet<String> = definers
        .iter()
        .map(|(file, definition)| format!("{} (document {})", file.display(), definition.document))
        .collect();
    let places = places.into_iter().collect::<Vec<_>>().join(" and in ");
    let consequence = definers.first().map(|(_, definition)| match definition.object {
        Object::Policy(_) => "where they differ, the policy is refused and its pods are closed",
        Object::Service(_) => "where they differ, no address leads to the service",
        Object::EndpointSlice(_) => "the backends of all of them count, if the service is the same",
        Object::Namespace(_) | Object::Pod(_) | Object::Node(_) => "the first one counts",
    });
    let consequence = consequence.unwrap_or_default();
    format!("defined more than once, in {places}; keep one of them ({consequence})")
}

/// Objects of `next` that are new or different.
fn applied<'a, K: Ord, T: PartialEq>(
    before: &'a BTreeMap<K, T>,
    next: &'a BTreeMap<K, T>,
) -> impl Iterator<Item = &'a T> {
    next.iter().filter(|(key, object)| before.get(key) != Some(object)).map(|(_, object)| object)
}

/// Keys that `next` has no more.
fn deleted<'a, K: Ord + Clone, T>(
    before: &'a BTreeMap<K, T>,
    next: &'a BTreeMap<K, T>,
) -> impl Iterator<Item = K> {
    before.keys().filter(|key| !next.contains_key(key)).cloned()
}

/// A rule that restricts nothing is legal, and easily written by mistake: a server drops a
/// misspelt `from` and keeps the rule. For egress it is the usual way to say "everything".
fn log_open_rules(policy: &Policy) {
    let open = |rules: &Option<Vec<Rule>>| {
        let rules = rules.iter().flatten().enumerate();
        let open = rules.filter(|(_, rule)| rule.peers.is_none() && rule.ports.is_none());
        open.map(|(index, _)| index).collect::<Vec<_>>()
    };
    let (ingress, egress) = (open(&policy.ingress), open(&policy.egress));
    if !ingress.is_empty() {
        warn!(
            "policy {}: rules {ingress:?} of ingress name neither peers nor ports, so they admit \
             everybody; if that is not meant, look for a misspelt `from` or `ports`",
            policy.key
        );
    }
    if !egress.is_empty() {
        debug!(policy = %policy.key, "rules {egress:?} of egress allow everything");
    }
}
