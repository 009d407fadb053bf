//! Short ways to write clusters down, for tests.
//!
//! What is not said is as the API has it when it is absent. Anything wrong in the text panics.

use std::{net::IpAddr, sync::Arc};

use bulkhead_common::value::PortRange;

use super::{
    compiled::PortSet,
    model::{
        EndpointSlice, IpBlock, Labels, NamedPort, Namespace, ObjectKey, Peer, Pod, Policy,
        PortMatch, Ports, Protocol, Rule, Service, ServicePort, SlicePort,
    },
    selector::{Expression, Selector},
};

/// `namespace/name`.
pub fn key(text: &str) -> ObjectKey {
    let (namespace, name) = text.split_once('/').expect("namespace/name");
    ObjectKey::new(namespace, name)
}

/// `10.0.0.1`, `fd00::1`.
pub fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// `app=web,tier=front`; the empty text for none.
pub fn labels(text: &str) -> Labels {
    let pairs = text.split(',').filter(|pair| !pair.is_empty());
    let pair = |pair: &str| pair.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned()));
    pairs.map(|text| pair(text).expect("key=value")).collect()
}

/// By [`labels`].
pub fn selector(text: &str) -> Selector {
    Selector::new(labels(text), []).expect("a selector")
}

/// A selector of one expression.
pub fn expression(key: &str, operator: &str, values: &[&str]) -> Selector {
    let values = values.iter().map(|value| (*value).to_owned()).collect();
    let expression = Expression { key: key.to_owned(), operator: operator.to_owned(), values };
    Selector::new([], [expression]).expect("a selector")
}

/// A namespace with its name's label and these.
pub fn namespace(name: &str, more_labels: &str) -> Namespace {
    let mut labels = labels(more_labels);
    labels.insert(super::index::NAMESPACE_NAME_LABEL.to_owned(), name.to_owned());
    Namespace { name: name.to_owned(), labels, deny_action: None }
}

/// A running pod of node `here`.
pub fn pod(name: &str, pod_labels: &str, addresses: &[&str]) -> Pod {
    Pod {
        key: key(name),
        uid: format!("uid of {name}"),
        labels: Arc::new(labels(pod_labels)),
        ports: Arc::new([]),
        addresses: addresses.iter().map(|address| ip(address)).collect(),
        node: Some("here".into()),
        host_network: false,
        ended: false,
    }
}

/// A policy that selects pods by labels and isolates them in no direction yet.
pub fn policy(name: &str, pod_labels: &str) -> Policy {
    Policy {
        key: key(name),
        pod_selector: selector(pod_labels),
        ingress: None,
        egress: None,
        refused: None,
    }
}

/// A rule with peers and ports; an empty list stands for an absent one.
pub fn rule(peers: &[Peer], ports: &[PortMatch]) -> Rule {
    Rule {
        peers: (!peers.is_empty()).then(|| peers.to_vec()),
        ports: (!ports.is_empty()).then(|| ports.to_vec()),
    }
}

/// Pods of the policy's own namespace.
pub fn pods(pod_labels: &str) -> Peer {
    Peer::Pods { namespaces: None, pods: selector(pod_labels) }
}

/// All pods of some namespaces.
pub fn namespaces(namespace_labels: &str) -> Peer {
    Peer::Pods { namespaces: Some(selector(namespace_labels)), pods: Selector::everything() }
}

/// Some pods of some namespaces.
pub fn pods_of(namespace_labels: &str, pod_labels: &str) -> Peer {
    Peer::Pods { namespaces: Some(selector(namespace_labels)), pods: selector(pod_labels) }
}

/// One TCP port.
pub fn tcp(port: u16) -> PortMatch {
    ports(Protocol::Tcp, port, port)
}

/// One UDP port.
pub fn udp(port: u16) -> PortMatch {
    ports(Protocol::Udp, port, port)
}

/// A range of ports.
pub fn ports(protocol: Protocol, first: u16, last: u16) -> PortMatch {
    PortMatch { protocol, ports: Ports::Range(first..=last) }
}

/// Every port of a protocol.
pub fn all_ports(protocol: Protocol) -> PortMatch {
    PortMatch { protocol, ports: Ports::All }
}

/// The port that the destination names so.
pub fn named(protocol: Protocol, name: &str) -> PortMatch {
    PortMatch { protocol, ports: Ports::Named(name.into()) }
}

/// Addresses in a block, less those in others: `block("10.0.0.0/8", &["10.1.0.0/16"])`.
pub fn block(cidr: &str, except: &[&str]) -> Peer {
    let net = |text: &str| text.parse::<ipnet::IpNet>().expect("a block").trunc();
    Peer::Block(IpBlock { cidr: net(cidr), except: except.iter().map(|e| net(e)).collect() })
}

/// Ports that the pod names: `(name, protocol, number)`.
pub fn with_ports(pod: Pod, ports: &[(&str, Protocol, u16)]) -> Pod {
    let port = |(name, protocol, number): &(&str, Protocol, u16)| NamedPort {
        name: (*name).into(),
        protocol: *protocol,
        number: *number,
    };
    Pod { ports: ports.iter().map(port).collect(), ..pod }
}

/// A service with addresses and ports: `(name, protocol, port)`.
pub fn service(name: &str, addresses: &[&str], ports: &[(&str, Protocol, u16)]) -> Service {
    let port = |(name, protocol, port): &(&str, Protocol, u16)| ServicePort {
        name: (*name).to_owned(),
        protocol: *protocol,
        port: *port,
    };
    Service {
        key: key(name),
        addresses: addresses.iter().map(|address| ip(address)).collect(),
        ports: ports.iter().map(port).collect(),
    }
}

/// A slice of a service in the same namespace, with the addresses of its ready backends and the
/// ports at them: `(name, protocol, port)`.
pub fn slice(
    name: &str,
    service: &str,
    ready: &[&str],
    ports: &[(&str, Protocol, u16)],
) -> EndpointSlice {
    let port = |(name, protocol, port): &(&str, Protocol, u16)| SlicePort {
        name: (*name).to_owned(),
        protocol: *protocol,
        port: Some(*port),
    };
    EndpointSlice {
        key: key(name),
        service: service.into(),
        ports: ports.iter().map(port).collect(),
        ready: ready.iter().map(|address| ip(address)).collect(),
    }
}

/// A set of ports as the compiler writes it.
pub fn port_set(ranges: &[(Protocol, u16, u16)]) -> PortSet {
    let range = |(protocol, first, last): &(Protocol, u16, u16)| PortRange {
        protocol: u32::from(protocol.number()),
        first: *first,
        last: *last,
    };
    PortSet::Ranges(ranges.iter().map(range).collect())
}
