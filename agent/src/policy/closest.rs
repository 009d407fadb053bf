//! Of a denied flow: which rule was nearest to allowing it, and what it lacks.
//!
//! Pure, and about rules only; whether a flow is denied at all is [`super::evaluate`]'s to say.
//! Slow like it: every rule is looked at.

use std::net::IpAddr;

use super::{
    evaluate::{Flow, RuleName, Traffic, isolating, names_peer, names_port, only_pod_at},
    index::Index,
    model::{Peer, Pod, Policy, Rule},
};

/// A rule that does not allow a flow, but less would have been missing than with any other.
#[derive(Clone, Debug, PartialEq)]
pub struct Closest<'a> {
    /// The rule's name.
    pub name: RuleName,
    /// The rule.
    pub rule: &'a Rule,
    /// What it lacks.
    pub lacks: Lacks,
}

/// What of a flow a rule does not name. What comes first is nearer to allowing it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lacks {
    /// It names the peer, but not the port.
    Port,
    /// It names the port, but not the peer.
    Peer,
    /// It names neither.
    Both,
}

/// The rule of the policies that isolate `pod` which is nearest to allowing a flow; `None` if they
/// have no rules that don't.
///
/// The first of those that come first in this order:
/// 1. Rules that lack the port alone, then the peer alone, then both.
/// 2. Rules that are near to the peer: a block around it with an exception for it, the labels of
///    its namespace but not its own, its own but not those of its namespace.
/// 3. Rules that name another port of the same protocol.
pub fn closest<'a>(index: &'a Index, pod: &Pod, flow: &Flow) -> Option<Closest<'a>> {
    let mut nearest: Option<((Lacks, PeerGap, bool), Closest<'a>)> = None;
    for policy in isolating(index, pod, flow.direction) {
        for (number, rule) in policy.rules(flow.direction).into_iter().flatten().enumerate() {
            let peer = names_peer(index, policy, rule, flow.peer);
            let lacks = match (peer, names_port(index, pod, rule, flow)) {
                (true, true) => continue,
                (true, false) => Lacks::Port,
                (false, true) => Lacks::Peer,
                (false, false) => Lacks::Both,
            };
            let distance =
                (lacks, peer_gap(index, policy, rule, flow.peer), other_protocol(rule, flow));
            if nearest.as_ref().is_none_or(|(least, _)| distance < *least) {
                let name = RuleName { policy: policy.key.clone(), number };
                nearest = Some((distance, Closest { name, rule, lacks }));
            }
        }
    }
    nearest.map(|(_, closest)| closest)
}

/// How far a rule's peers are from an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum PeerGap {
    /// One of them names it.
    None,
    /// A block around it has an exception for it.
    Except,
    /// One names its namespace, but not its own labels.
    Labels,
    /// One names its own labels, but not its namespace.
    Namespace,
    /// All else.
    Far,
}

fn peer_gap(index: &Index, policy: &Policy, rule: &Rule, address: IpAddr) -> PeerGap {
    let Some(peers) = &rule.peers else { return PeerGap::None };
    let gaps = peers.iter().map(|peer| match peer {
        Peer::Block(block) if block.contains(address) => PeerGap::None,
        Peer::Block(block) if block.cidr.contains(&address) => PeerGap::Except,
        Peer::Block(_) => PeerGap::Far,
        Peer::Pods { namespaces, pods } => {
            let Some(pod) = only_pod_at(index, address) else { return PeerGap::Far };
            let namespace = match namespaces {
                None => pod.key.namespace == policy.key.namespace,
                Some(selector) => selector.matches(&index.namespace_labels(&pod.key.namespace)),
            };
            match (namespace, pods.matches(&pod.labels)) {
                (true, true) => PeerGap::None,
                (true, false) => PeerGap::Labels,
                (false, true) => PeerGap::Namespace,
                (false, false) => PeerGap::Far,
            }
        }
    });
    gaps.min().unwrap_or(PeerGap::Far)
}

fn other_protocol(rule: &Rule, flow: &Flow) -> bool {
    match (&rule.ports, flow.traffic) {
        (None, _) => false,
        (Some(_), Traffic::Other(_)) => true,
        (Some(ports), Traffic::Port(protocol, _)) => ports.iter().all(|p| p.protocol != protocol),
    }
}

#[cfg(test)]
mod tests;
