//! The smallest thing that a rule says about a peer.
//!
//! Two peers of different policies that mean the same pods are the same atom, so that an identity
//! is a set of few numbers.

use crate::policy::{
    model::{Labels, Peer},
    selector::Selector,
};

/// Pods of some namespaces.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct PeerAtom {
    namespaces: Namespaces,
    pods: Selector,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Namespaces {
    Named(String),
    Selected(Selector),
}

impl PeerAtom {
    /// From a peer of a policy in `policy_namespace`; `None` if the peer names nothing.
    pub(super) fn new(peer: &Peer, policy_namespace: &str) -> Option<Self> {
        let Peer::Pods { namespaces, pods } = peer else { return None };
        let namespaces = match namespaces {
            None => Namespaces::Named(policy_namespace.to_owned()),
            Some(selector) => Namespaces::Selected(selector.clone()),
        };
        Some(Self { namespaces, pods: pods.clone() })
    }

    /// Whether pods of a namespace can match at all.
    pub(super) fn matches_namespace(&self, name: &str, labels: &Labels) -> bool {
        match &self.namespaces {
            Namespaces::Named(own) => own == name,
            Namespaces::Selected(selector) => selector.matches(labels),
        }
    }

    /// Whether a pod matches that lives in a namespace which does.
    pub(super) fn matches_pod(&self, labels: &Labels) -> bool {
        self.pods.matches(labels)
    }
}
