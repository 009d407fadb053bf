//! What all files together say, and the changes from one such state to the next.
//!
//! Invariant: the state depends on the files alone, not on the order in which they came. Where two
//! documents disagree about a policy, it is refused for every pod that either can have meant.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use tracing::debug;

use crate::policy::{
    model::{Change, Namespace, ObjectKey, Pod, Policy},
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
        self.namespaces.is_empty() && self.pods.is_empty() && self.policies.is_empty()
    }

    /// What turns this state into `next`.
    ///
    /// What a policy needs in order to hold comes before it, and policies come before pods and go
    /// after them, so that no pod stands there without a policy that both states have for it.
    pub(super) fn changes_to(&self, next: &Self) -> Vec<Change> {
        let mut changes = Vec::new();
        let namespaces = applied(&self.namespaces, &next.namespaces);
        changes.extend(namespaces.cloned().map(Change::NamespaceApplied));
        for policy in applied(&self.policies, &next.policies) {
            log_open_rules(policy);
            changes.push(Change::PolicyApplied(policy.clone()));
        }
        changes.extend(applied(&self.pods, &next.pods).cloned().map(Change::PodApplied));
        changes.extend(deleted(&self.pods, &next.pods).map(Change::PodDeleted));
        changes.extend(deleted(&self.policies, &next.policies).map(Change::PolicyDeleted));
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
        }
    }
}

/// Of two definitions of one object: the first, except that policies which differ are refused.
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
        (first, _) => first,
    }
}

fn duplicate(definers: &[(&Path, &Definition)]) -> String {
    let places: BTreeSet<String> = definers
        .iter()
        .map(|(file, definition)| format!("{} (document {})", file.display(), definition.document))
        .collect();
    let places = places.into_iter().collect::<Vec<_>>().join(" and in ");
    let is_policy = definers.iter().any(|(_, d)| matches!(d.object, Object::Policy(_)));
    let consequence = if is_policy {
        "where they differ, the policy is refused and its pods are closed"
    } else {
        "the first one counts"
    };
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

/// A rule that restricts nothing is legal, and easily written by mistake.
fn log_open_rules(policy: &Policy) {
    let directions = [("ingress", &policy.ingress), ("egress", &policy.egress)];
    for (direction, rules) in directions {
        for (index, rule) in rules.iter().flatten().enumerate() {
            if rule.peers.is_none() && rule.ports.is_none() {
                debug!(policy = %policy.key, "{direction}[{index}] names neither peers nor ports: it allows everything");
            }
        }
    }
}
