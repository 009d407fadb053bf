//! The specification of policy, read slowly.
//!
//! Answers one question at a time from the plain objects: every policy, rule and peer is looked at
//! in turn, nothing is prepared, nothing is shared with the compiler. It is written from the
//! semantics that NetworkPolicy promises and says which objects made the answer; the compiler is
//! tested against it. Replies of allowed flows, and packets that policy does not judge
//! (neighbour discovery, malformed ones), are the data plane's.

use std::{collections::BTreeSet, net::IpAddr};

use bulkhead_common::verdict::Direction;

pub use self::service::{Backend, ServiceBackends};
use super::{
    compiled::Closed,
    index::Index,
    model::{ObjectKey, Peer, Pod, Policy, PortMatch, Ports, Protocol, Rule},
};

mod service;

/// The first packet of a flow, seen from the pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Towards the pod or away from it.
    pub direction: Direction,
    /// The address of the other end.
    pub peer: IpAddr,
    /// What it carries.
    pub traffic: Traffic,
    /// It came into being on the pod's own node: told by its path, not by its source address.
    /// Means nothing for egress.
    pub from_own_node: bool,
}

/// What a flow carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// A protocol with ports, and the *destination* port.
    Port(Protocol, u16),
    /// Any other IP protocol, by its number: ICMP is 1, ICMPv6 is 58.
    Other(u8),
}

/// What becomes of a flow, and who says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Evaluation {
    /// Allowed: between the pod and its own node.
    OwnNode,
    /// Allowed: the pod talks to itself.
    Itself,
    /// Denied: the pod is closed although no policy says so.
    Closed(Closed),
    /// Allowed: no policy isolates the pod in this direction.
    NotIsolated,
    /// Allowed by these rules.
    Allowed(Vec<RuleName>),
    /// Denied: these policies isolate the pod, and no rule of theirs allows the flow.
    Denied(Vec<ObjectKey>),
    /// Allowed: towards a service, by rules that allow all of its ready backends or name its
    /// address.
    AllowedService {
        /// The rules that allow at least one of the backends, and those that name the address.
        /// Empty where the pod itself and its own node are the only backends.
        rules: Vec<RuleName>,
        /// What the service leads to. Some may be denied where a rule names the address.
        towards: ServiceBackends,
    },
    /// Denied: towards a service that has a denied backend or none that is ready, and whose
    /// address no rule names.
    DeniedService {
        /// The policies that isolate the pod.
        policies: Vec<ObjectKey>,
        /// What the service leads to; mixed where both lists have members.
        towards: ServiceBackends,
    },
}

/// A rule, by its place in its policy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RuleName {
    /// The policy.
    pub policy: ObjectKey,
    /// The place in the policy's list of this direction, from zero.
    pub number: usize,
}

impl Evaluation {
    /// Whether the flow may pass.
    pub fn is_allowed(&self) -> bool {
        match self {
            Self::OwnNode
            | Self::Itself
            | Self::NotIsolated
            | Self::Allowed(_)
            | Self::AllowedService { .. } => true,
            Self::Closed(_) | Self::Denied(_) | Self::DeniedService { .. } => false,
        }
    }
}

/// What becomes of a flow of `pod`; `None` if policy of this node does not concern the pod.
///
/// The first that applies:
/// 1. Policy concerns pods of this node that have an address, have not ended and are not the node.
/// 2. The pod's own node may always reach it, and it may always reach its own node, unless that is
///    put under egress policy.
/// 3. A pod always reaches itself.
/// 4. A pod is closed while the state is not complete, or while another has its address, too.
/// 5. A pod that no policy selects for this direction is not isolated.
/// 6. Towards a service's address and port: allowed if there are ready backends and each of them
///    is allowed, or if a rule names the address itself. An address of a live pod or of the own
///    node is no service's.
/// 7. One rule of these policies is enough.
/// 8. All else is denied.
pub fn evaluate(index: &Index, pod: &ObjectKey, flow: &Flow) -> Option<Evaluation> {
    let pod = index.pods().get(pod)?;
    let is_local = match index.node() {
        Some(node) => pod.node.as_deref() == Some(node),
        None => true,
    };
    if !is_local || !is_live(pod) || pod.addresses.is_empty() {
        return None; // 1
    }
    let is_own_node = match flow.direction {
        Direction::Ingress => flow.from_own_node,
        Direction::Egress => is_free_to(index, flow.peer),
    };
    if is_own_node {
        return Some(Evaluation::OwnNode); // 2
    }
    if pod.addresses.contains(&flow.peer) {
        return Some(Evaluation::Itself); // 3
    }
    if !index.is_complete() {
        return Some(Evaluation::Closed(Closed::SourceIncomplete)); // 4
    }
    if pod.addresses.iter().any(|address| only_pod_at(index, *address) != Some(pod)) {
        return Some(Evaluation::Closed(Closed::AddressConflict)); // 4
    }
    let isolating = isolating(index, pod, flow.direction);
    if isolating.is_empty() {
        return Some(Evaluation::NotIsolated); // 5
    }
    let rules = allowing(index, pod, &isolating, flow);
    let policies = || isolating.iter().map(|policy| policy.key.clone()).collect();
    Some(if let Some(found) = service::behind(index, flow) {
        service::judge(index, pod, &isolating, flow, found, rules) // 6
    } else if rules.is_empty() {
        Evaluation::Denied(policies()) // 8
    } else {
        Evaluation::Allowed(rules.into_iter().collect()) // 7
    })
}

/// Whether an address is the own node's, which pods reach whatever their policies say.
fn is_free_to(index: &Index, address: IpAddr) -> bool {
    !index.denies_egress_to_node() && index.node_addresses().contains(&address)
}

/// The policies that isolate a pod in a direction, in order.
pub fn isolating<'a>(index: &'a Index, pod: &Pod, direction: Direction) -> Vec<&'a Policy> {
    let policies = index.policies().values();
    policies
        .filter(|policy| {
            policy.key.namespace == pod.key.namespace
                && policy.pod_selector.matches(&pod.labels)
                && policy.rules(direction).is_some()
        })
        .collect()
}

/// The rules that allow a flow with exactly this address, whatever services have it.
fn allowing(index: &Index, pod: &Pod, policies: &[&Policy], flow: &Flow) -> BTreeSet<RuleName> {
    let mut allowing = BTreeSet::new();
    for policy in policies {
        for (number, rule) in policy.rules(flow.direction).into_iter().flatten().enumerate() {
            if names_peer(index, policy, rule, flow.peer) && names_port(index, pod, rule, flow) {
                allowing.insert(RuleName { policy: policy.key.clone(), number });
            }
        }
    }
    allowing
}

/// Whether a rule names the peer that has an address.
pub fn names_peer(index: &Index, policy: &Policy, rule: &Rule, address: IpAddr) -> bool {
    match &rule.peers {
        None => true,
        Some(peers) => peers.iter().any(|peer| peer_matches(index, policy, peer, address)),
    }
}

fn peer_matches(index: &Index, policy: &Policy, peer: &Peer, address: IpAddr) -> bool {
    match peer {
        Peer::Block(block) => block.contains(address),
        Peer::Pods { namespaces, pods } => {
            let Some(pod) = only_pod_at(index, address) else { return false };
            let namespace_matches = match namespaces {
                None => pod.key.namespace == policy.key.namespace,
                Some(selector) => selector.matches(&index.namespace_labels(&pod.key.namespace)),
            };
            namespace_matches && pods.matches(&pod.labels)
        }
    }
}

/// Whether a rule of a policy of `pod` names what a flow carries.
pub fn names_port(index: &Index, pod: &Pod, rule: &Rule, flow: &Flow) -> bool {
    let destination = match flow.direction {
        Direction::Ingress => Some(pod),
        Direction::Egress => only_pod_at(index, flow.peer),
    };
    match &rule.ports {
        None => true,
        Some(ports) => ports.iter().any(|port| port_matches(port, flow.traffic, destination)),
    }
}

fn port_matches(port: &PortMatch, traffic: Traffic, destination: Option<&Pod>) -> bool {
    match traffic {
        Traffic::Other(_) => false,
        Traffic::Port(protocol, number) => {
            protocol == port.protocol
                && match &port.ports {
                    Ports::All => true,
                    Ports::Range(range) => range.contains(&number),
                    Ports::Named(name) => {
                        destination.and_then(|pod| pod.port(protocol, name)) == Some(number)
                    }
                }
        }
    }
}

/// The pod that an address says for sure: the only live one that has it, unless the node does.
pub fn only_pod_at(index: &Index, address: IpAddr) -> Option<&Pod> {
    if index.node_addresses().contains(&address) {
        return None;
    }
    let mut pods =
        index.pods().values().filter(|pod| is_live(pod) && pod.addresses.contains(&address));
    match (pods.next(), pods.next()) {
        (Some(pod), None) => Some(pod),
        (_, _) => None,
    }
}

fn is_live(pod: &Pod) -> bool {
    !pod.ended && !pod.host_network
}

#[cfg(test)]
mod tests;
