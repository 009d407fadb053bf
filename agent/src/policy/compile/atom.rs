//! The smallest thing that a rule says about a peer.
//!
//! Two peers of different policies that mean the same are the same atom, so that an identity is a
//! set of few numbers.

use std::{net::IpAddr, sync::Arc};

use crate::policy::{
    model::{IpBlock, Labels, Peer},
    selector::Selector,
};

/// What an address may match.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Atom {
    /// Pods of some namespaces.
    Pods(PodAtom),
    /// Addresses, whoever has them.
    Block(IpBlock),
    /// The pod's own address, as a backend of a service.
    Own(IpAddr),
}

/// Pods of some namespaces.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct PodAtom {
    namespaces: Namespaces,
    pods: Selector,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Namespaces {
    Named(Arc<str>),
    Selected(Selector),
}

impl Atom {
    /// From a peer of a policy in `policy_namespace`.
    pub(super) fn new(peer: &Peer, policy_namespace: &Arc<str>) -> Self {
        match peer {
            Peer::Block(block) => Self::Block(block.clone()),
            Peer::Pods { namespaces, pods } => {
                let namespaces = match namespaces {
                    None => Namespaces::Named(Arc::clone(policy_namespace)),
                    Some(selector) => Namespaces::Selected(selector.clone()),
                };
                Self::Pods(PodAtom { namespaces, pods: pods.clone() })
            }
        }
    }

    /// Every pod.
    pub(super) fn every_pod() -> Self {
        let everything = Selector::everything();
        let namespaces = Namespaces::Selected(everything.clone());
        Self::Pods(PodAtom { namespaces, pods: everything })
    }
}

impl PodAtom {
    /// Whether pods of a namespace can match at all.
    pub(super) fn matches_namespace(&self, name: &str, labels: &Labels) -> bool {
        match &self.namespaces {
            Namespaces::Named(own) => **own == *name,
            Namespaces::Selected(selector) => selector.matches(labels),
        }
    }

    /// Whether a pod matches that lives in a namespace which does.
    pub(super) fn matches_pod(&self, labels: &Labels) -> bool {
        self.pods.matches(labels)
    }
}
