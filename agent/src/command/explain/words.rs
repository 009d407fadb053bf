//! Rules and peers in words.

use std::net::IpAddr;

use bulkhead_common::{packet::protocol, verdict::Direction};

use crate::policy::{
    closest::{Closest, Lacks},
    evaluate::{Flow, Traffic, only_pod_at},
    index::Index,
    model::{IpBlock, Labels, Peer, Pod, PortMatch, Ports, Rule},
    selector::Selector,
};

/// More of a list helps nobody.
const NAMED: usize = 8;

/// `ingress[0]`
pub(super) fn place(direction: Direction, number: usize) -> String {
    format!("{}[{number}]", direction_word(direction))
}

/// `ingress`
pub(super) const fn direction_word(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "ingress",
        Direction::Egress => "egress",
    }
}

/// `TCP 80`, `ICMP`
pub(super) fn traffic(traffic: Traffic) -> String {
    match traffic {
        Traffic::Port(protocol, port) => format!("{protocol} {port}"),
        Traffic::Other(protocol::ICMP | protocol::ICMPV6) => "ICMP".to_owned(),
        Traffic::Other(number) => format!("IP protocol {number}"),
    }
}

/// Who has an address: `shop/web`, `the service shop/db`, `the node n1`, or the address.
pub(super) fn whose(objects: &Index, address: IpAddr) -> String {
    if let Some(node) = objects.nodes().values().find(|node| node.addresses.contains(&address)) {
        return format!("the node {}", node.name);
    }
    if let Some(pod) = objects.pod_at(address) {
        return pod.key.to_string();
    }
    let mut on_host = objects.pods().values().filter(|pod| pod.host_network && !pod.ended);
    if let Some(pod) = on_host.find(|pod| pod.addresses.contains(&address)) {
        return format!("{} on its node's network", pod.key);
    }
    if let Some(conflict) = objects.conflicts().find(|conflict| conflict.address == address) {
        let claimants: Vec<String> = conflict.claimants.iter().map(ToString::to_string).collect();
        return format!("an address shared by {}", claimants.join(", "));
    }
    match objects.services().values().find(|service| service.addresses.contains(&address)) {
        Some(service) => format!("the service {}", service.key),
        None => address.to_string(),
    }
}

/// What the closest rule lacks: `allows TCP 3306, but only from pods app=web of shop; shop/x has
/// app=x`.
pub(super) fn lacks(index: &Index, pod: &Pod, flow: &Flow, closest: &Closest<'_>) -> String {
    let namespace = &closest.name.policy.namespace;
    let preposition = match flow.direction {
        Direction::Ingress => "from",
        Direction::Egress => "to",
    };
    let asked = traffic(flow.traffic);
    let destination = match flow.direction {
        Direction::Ingress => Some(pod),
        Direction::Egress => only_pod_at(index, flow.peer),
    };
    let ports = ports(closest.rule, destination);
    let peers = peers(closest.rule, namespace);
    let who = || who(index, closest, flow.peer);
    match closest.lacks {
        Lacks::Port => format!("allows this peer, but only {ports}{}", no_icmp(flow.traffic)),
        Lacks::Peer => format!("allows {asked}, but only {preposition} {peers}; {}", who()),
        Lacks::Both => format!(
            "allows only {ports}, and only {preposition} {peers}; {}{}",
            who(),
            no_icmp(flow.traffic)
        ),
    }
}

fn no_icmp(traffic: Traffic) -> &'static str {
    match traffic {
        Traffic::Port(_, _) => "",
        Traffic::Other(_) => "; only a rule without ports allows ICMP",
    }
}

fn ports(rule: &Rule, destination: Option<&Pod>) -> String {
    match &rule.ports {
        None => "every port".to_owned(),
        Some(ports) => list(ports.iter().map(|port| port_words(port, destination))),
    }
}

fn port_words(port: &PortMatch, destination: Option<&Pod>) -> String {
    let protocol = port.protocol;
    match &port.ports {
        Ports::All => format!("every {protocol} port"),
        Ports::Range(range) if range.start() == range.end() => {
            format!("{protocol} {}", range.start())
        }
        Ports::Range(range) => format!("{protocol} {} to {}", range.start(), range.end()),
        Ports::Named(name) => match destination {
            None => format!("the {protocol} port named {name} (the destination is no pod)"),
            Some(pod) => match pod.port(protocol, name) {
                Some(number) => format!("{protocol} {number} (named {name} by {})", pod.key),
                None => format!("the {protocol} port named {name} ({} has none)", pod.key),
            },
        },
    }
}

fn peers(rule: &Rule, namespace: &str) -> String {
    match &rule.peers {
        None => "everybody".to_owned(),
        Some(peers) => list(peers.iter().map(|peer| peer_words(peer, namespace))),
    }
}

fn peer_words(peer: &Peer, namespace: &str) -> String {
    let (namespaces, pods) = match peer {
        Peer::Block(block) => return block_words(block),
        Peer::Pods { namespaces, pods } => (namespaces, pods),
    };
    let of = match namespaces {
        None => format!("namespace {namespace}"),
        Some(selector) if *selector == Selector::everything() => "every namespace".to_owned(),
        Some(selector) => format!("namespaces {selector}"),
    };
    if *pods == Selector::everything() {
        return format!("any pod of {of}");
    }
    format!("pods {pods} of {of}")
}

fn block_words(block: &IpBlock) -> String {
    if block.except.is_empty() {
        return block.cidr.to_string();
    }
    format!("{} except {}", block.cidr, list(block.except.iter().map(ToString::to_string)))
}

/// What a peer is that a rule does not name: as much of it as the rule asks about.
fn who(index: &Index, closest: &Closest<'_>, address: IpAddr) -> String {
    let peers = closest.rule.peers.iter().flatten();
    let mut asks_own_namespace = false;
    let (mut asks_pods, mut asks_namespaces, mut asks_address) = (false, false, false);
    for peer in peers {
        match peer {
            Peer::Block(_) => asks_address = true,
            Peer::Pods { namespaces, pods } => {
                asks_pods |= *pods != Selector::everything();
                asks_own_namespace |= namespaces.is_none();
                asks_namespaces |=
                    namespaces.as_ref().is_some_and(|n| *n != Selector::everything());
            }
        }
    }
    let Some(pod) = only_pod_at(index, address) else {
        return match whose(index, address) {
            name if name == address.to_string() => format!("{address} is no pod"),
            name => format!("{address} is {name}, and no pod"),
        };
    };
    let mut has = Vec::new();
    if asks_pods || !asks_address {
        has.push(format!("has {}", labels(&pod.labels)));
    }
    let namespace = &pod.key.namespace;
    if asks_namespaces {
        let of_namespace = index.namespace_labels(namespace);
        has.push(format!("is in namespace {namespace} with {}", labels(&of_namespace)));
    } else if asks_own_namespace && *namespace != closest.name.policy.namespace {
        has.push(format!("is in namespace {namespace}"));
    }
    if asks_address {
        has.push(format!("has the address {address}"));
    }
    format!("{} {}", pod.key, has.join(" and "))
}

fn labels(labels: &Labels) -> String {
    if labels.is_empty() {
        return "no labels".to_owned();
    }
    let pairs: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    pairs.join(",")
}

/// `a, b or c`
fn list(words: impl Iterator<Item = String>) -> String {
    let mut words: Vec<String> = words.collect();
    let rest = words.len().saturating_sub(NAMED);
    if rest > 0 {
        words.truncate(NAMED);
        words.push(format!("{rest} more"));
    }
    match words.split_last() {
        None => String::new(),
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
    }
}
