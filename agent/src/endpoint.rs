//! Which pod is behind which interface.
//!
//! Pure: it is told what links there are and what is compiled. A pod is found by its addresses on
//! the far side of a veth. Those are the pod's to change, so a binding is sticky: an interface that
//! was found to be one pod's stays that pod's for as long as the pod lives, whatever addresses it
//! shows. Invariant: an interface that was ever bound is enforced until it is gone; where it
//! cannot be told whose it is, it is closed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
};

use crate::{
    links::LinkState,
    policy::{compiled::Compiled, model::ObjectKey},
};

/// What stands behind an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Binding {
    /// A pod of this node.
    Pod(ObjectKey),
    /// It is, or was, a pod's, but not any one's for sure: nobody but the own node reaches it.
    Closed(Doubt),
}

/// Why an interface is nobody's for sure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// Its pod is gone, but it is still there.
    PodGone(ObjectKey),
    /// It shows addresses of more than one pod.
    SeveralPods(BTreeSet<ObjectKey>),
    /// Another interface is this pod's.
    PodElsewhere(ObjectKey),
    /// It was one pod's, and now it shows addresses of another only.
    OtherPod {
        /// Whose it was.
        was: ObjectKey,
        /// Whose addresses it shows.
        shows: BTreeSet<ObjectKey>,
    },
}

impl Doubt {
    /// The pod that the interface was, if it was one's.
    pub const fn pod(&self) -> Option<&ObjectKey> {
        match self {
            Self::PodGone(pod) | Self::OtherPod { was: pod, .. } => Some(pod),
            Self::SeveralPods(_) | Self::PodElsewhere(_) => None,
        }
    }
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |keys: &BTreeSet<ObjectKey>| {
            keys.iter().map(ObjectKey::to_string).collect::<Vec<_>>().join(", ")
        };
        match self {
            Self::PodGone(pod) => write!(f, "its pod {pod} is gone"),
            Self::SeveralPods(pods) => {
                write!(f, "it has addresses of several pods: {}", names(pods))
            }
            Self::PodElsewhere(pod) => {
                write!(f, "it has an address of pod {pod}, which is behind another interface, too")
            }
            Self::OtherPod { was, shows } => {
                write!(f, "it was pod {was}'s and now has addresses of {}", names(shows))
            }
        }
    }
}

/// Pods and interfaces, over time.
#[derive(Clone, Debug, Default)]
pub struct Bindings {
    bound: BTreeMap<u32, Bound>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Bound {
    pod: Option<BoundPod>,
    binding: Binding,
}

/// A pod, as it was when its interface was bound.
#[derive(Clone, Debug, PartialEq, Eq)]
struct BoundPod {
    key: ObjectKey,
    uid: String,
    addresses: BTreeSet<IpAddr>,
}

impl Bindings {
    /// Brings the bindings up to date. An interface that `links` lacks stays bound while it
    /// `exists`: its peer may just not have answered.
    pub fn update(&mut self, links: &LinkState, compiled: &Compiled, exists: impl Fn(u32) -> bool) {
        self.bound.retain(|ifindex, _| links.veths.contains_key(ifindex) || exists(*ifindex));
        let owners = owners(compiled);
        let mut next = BTreeMap::new();
        let nothing = BTreeSet::new();
        for &ifindex in links.veths.keys().chain(self.bound.keys()) {
            let addresses = links.veths.get(&ifindex).map_or(&nothing, |veth| &veth.peer_addresses);
            let shows: BTreeSet<&ObjectKey> = addresses
                .iter()
                .filter_map(|address| owners.get(address))
                .flatten()
                .copied()
                .collect();
            if let Some(bound) = bind(self.bound.get(&ifindex), &shows, compiled) {
                next.insert(ifindex, bound);
            }
        }
        close_contested(&mut next, &self.bound);
        self.bound = next;
    }

    /// Every interface that is enforced.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &Binding)> {
        self.bound.iter().map(|(ifindex, bound)| (*ifindex, &bound.binding))
    }

    /// What stands behind an interface.
    pub fn get(&self, ifindex: u32) -> Option<&Binding> {
        self.bound.get(&ifindex).map(|bound| &bound.binding)
    }
}

/// The pods of this node that claim each address.
fn owners(compiled: &Compiled) -> BTreeMap<IpAddr, Vec<&ObjectKey>> {
    let mut owners: BTreeMap<IpAddr, Vec<&ObjectKey>> = BTreeMap::new();
    for (key, endpoint) in &compiled.endpoints {
        for address in &endpoint.addresses {
            owners.entry(*address).or_default().push(key);
        }
    }
    owners
}

/// One interface by itself; `None`: it is nobody's, and is left alone.
fn bind(old: Option<&Bound>, shows: &BTreeSet<&ObjectKey>, compiled: &Compiled) -> Option<Bound> {
    let owned = || shows.iter().map(|key| (*key).clone()).collect::<BTreeSet<_>>();
    let before = old.and_then(|bound| bound.pod.as_ref());
    if let Some(pod) = before {
        let lives = compiled.endpoints.get(&pod.key).is_some_and(|now| now.uid == pod.uid);
        if lives {
            let binding = if shows.is_empty() || shows.contains(&pod.key) {
                Binding::Pod(pod.key.clone())
            } else {
                Binding::Closed(Doubt::OtherPod { was: pod.key.clone(), shows: owned() })
            };
            return Some(Bound { pod: Some(pod.clone()), binding });
        }
        // The address that the old pod had may have been given on, and the interface with it. An
        // address that it did not have, it has taken.
        let given_on = |key: &&&ObjectKey| {
            let now = compiled.endpoints.get(**key);
            now.is_some_and(|now| !now.addresses.is_disjoint(&pod.addresses))
        };
        if !shows.iter().any(|key| given_on(&key)) {
            let binding = Binding::Closed(Doubt::PodGone(pod.key.clone()));
            return Some(Bound { pod: Some(pod.clone()), binding });
        }
    }
    let mut candidates = shows.iter();
    match (candidates.next(), candidates.next()) {
        (None, _) => old.cloned(),
        (Some(key), None) => {
            let endpoint = compiled.endpoints.get(*key)?;
            let pod = BoundPod {
                key: (*key).clone(),
                uid: endpoint.uid.clone(),
                addresses: endpoint.addresses.clone(),
            };
            Some(Bound { pod: Some(pod), binding: Binding::Pod((*key).clone()) })
        }
        (Some(_), Some(_)) => {
            let binding = Binding::Closed(Doubt::SeveralPods(owned()));
            Some(Bound { pod: before.cloned(), binding })
        }
    }
}

/// A pod is behind one interface: the one that was its before keeps it, all others are closed.
fn close_contested(next: &mut BTreeMap<u32, Bound>, before: &BTreeMap<u32, Bound>) {
    let mut claims: BTreeMap<ObjectKey, Vec<u32>> = BTreeMap::new();
    for (ifindex, bound) in next.iter() {
        if let Binding::Pod(key) = &bound.binding {
            claims.entry(key.clone()).or_default().push(*ifindex);
        }
    }
    for (key, claimants) in claims {
        if claimants.len() < 2 {
            continue;
        }
        for ifindex in claimants {
            let was_its =
                before.get(&ifindex).is_some_and(|b| b.binding == Binding::Pod(key.clone()));
            if !was_its && let Some(bound) = next.get_mut(&ifindex) {
                bound.pod = None;
                bound.binding = Binding::Closed(Doubt::PodElsewhere(key.clone()));
            }
        }
    }
}

#[cfg(test)]
mod tests;
