//! Random small clusters, for property tests.
//!
//! Names, labels, addresses and ports come from small sets, so that selectors match, addresses
//! are claimed twice and port ranges overlap often. Ended, host network, remote and
//! address-less pods, unknown namespaces and policies without any rule all occur.

use std::{collections::BTreeSet, net::IpAddr};

use bulkhead_common::verdict::DenyAction;
use proptest::{collection, option, prelude::*, sample};

use ipnet::IpNet;

use super::{
    builders::{ip, key, namespace},
    model::{
        Change, EndpointSlice, IpBlock, Labels, NamedPort, Namespace, ObjectKey, Peer, Pod, Policy,
        PortMatch, Ports, Protocol, Rule, Service, ServicePort, SlicePort,
    },
    selector::{Expression, Selector},
};

const NAMESPACES: [&str; 3] = ["a", "b", "c"];
const NAMES: [&str; 5] = ["p", "q", "r", "s", "t"];
const LABEL_KEYS: [&str; 2] = ["x", "y"];
const LABEL_VALUES: [&str; 3] = ["", "1", "2"];
const ADDRESSES_V4: u8 = 16;
const ADDRESSES_V6: u8 = 6;
const NODE_ADDRESSES: [&str; 3] = ["10.0.0.1", "10.1.0.1", "fd00:1::1"];
const OUTSIDE: [&str; 2] = ["192.0.2.1", "2001:db8::1"];
const PORTS: [u16; 5] = [0, 79, 80, 81, u16::MAX];
const PORT_NAMES: [&str; 2] = ["web", "db"];
const SERVICE_ADDRESSES: [&str; 3] = ["10.96.0.1", "10.96.0.2", "fd00:96::1"];
const PROTOCOLS: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];

/// The name of the node whose pods [`pod`] makes local, more often than not.
pub const NODE: &str = "here";

/// Every address that can occur in a cluster, and some that no cluster has.
pub fn every_address() -> BTreeSet<IpAddr> {
    let fixed = NODE_ADDRESSES.iter().chain(&OUTSIDE).map(|text| ip(text));
    let services = SERVICE_ADDRESSES.iter().map(|text| ip(text));
    fixed.chain(services).chain(pod_addresses()).collect()
}

fn pod_addresses() -> Vec<IpAddr> {
    [addresses_v4(), addresses_v6()].concat()
}

fn addresses_v4() -> Vec<IpAddr> {
    (1..=ADDRESSES_V4).map(|last| ip(&format!("10.0.0.{last}"))).collect()
}

fn addresses_v6() -> Vec<IpAddr> {
    (1..=ADDRESSES_V6).map(|last| ip(&format!("fd00::{last}"))).collect()
}

/// The ports at which port ranges begin and end.
pub fn every_port() -> BTreeSet<u16> {
    PORTS.into()
}

/// One change of a cluster's state; the source is complete, more often than not.
pub fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => any_namespace().prop_map(Change::NamespaceApplied),
        1 => namespace_name().prop_map(Change::NamespaceDeleted),
        9 => pod().prop_map(Change::PodApplied),
        1 => object_key().prop_map(Change::PodDeleted),
        9 => policy().prop_map(Change::PolicyApplied),
        2 => object_key().prop_map(Change::PolicyDeleted),
        4 => service().prop_map(Change::ServiceApplied),
        1 => service_key().prop_map(Change::ServiceDeleted),
        5 => endpoint_slice().prop_map(Change::EndpointSliceApplied),
        1 => object_key().prop_map(Change::EndpointSliceDeleted),
        1 => prop::bool::weighted(0.9).prop_map(Change::SourceComplete),
    ]
}

/// Changes that make a cluster out of nothing, nearly always a complete one.
pub fn cluster() -> impl Strategy<Value = Vec<Change>> {
    let complete = prop::bool::weighted(0.9).prop_map(Change::SourceComplete);
    (collection::vec(change(), 8..90), complete).prop_map(|(mut changes, complete)| {
        changes.push(complete);
        changes
    })
}

/// Own addresses of a node; one of them is in the pods' range.
pub fn node_addresses() -> impl Strategy<Value = BTreeSet<IpAddr>> {
    sample::subsequence(NODE_ADDRESSES.to_vec(), 0..=NODE_ADDRESSES.len())
        .prop_map(|addresses| addresses.into_iter().map(ip).collect())
}

/// A pod: mostly local and live, mostly with an address.
pub fn pod() -> impl Strategy<Value = Pod> {
    (
        object_key(),
        labels(),
        option::weighted(0.8, sample::select(addresses_v4())),
        option::weighted(0.3, sample::select(addresses_v6())),
        prop_oneof![6 => Just(Some(NODE)), 2 => Just(Some("there")), 1 => Just(None)],
        prop::bool::weighted(0.1),
        prop::bool::weighted(0.1),
        collection::vec(named_port(), 0..=2),
    )
        .prop_map(|(key, labels, v4, v6, node, host_network, ended, ports)| Pod {
            uid: key.to_string(),
            key,
            labels: labels.into(),
            ports: ports.into(),
            addresses: v4.into_iter().chain(v6).collect(),
            node: node.map(Into::into),
            host_network,
            ended,
        })
}

/// A policy of up to three rules a direction.
pub fn policy() -> impl Strategy<Value = Policy> {
    let rules = || option::weighted(0.7, collection::vec(rule(), 0..=3));
    (object_key(), selector(), rules(), rules()).prop_map(|(key, pod_selector, ingress, egress)| {
        Policy { key, pod_selector, ingress, egress, refused: None }
    })
}

/// A rule; each half may be absent.
pub fn rule() -> impl Strategy<Value = Rule> {
    let peers = option::weighted(0.9, collection::vec(peer(), 1..=3));
    let ports = option::weighted(0.7, collection::vec(port_match(), 1..=3));
    (peers, ports).prop_map(|(peers, ports)| Rule { peers, ports })
}

/// A peer: pods, or a block of addresses.
pub fn peer() -> impl Strategy<Value = Peer> {
    prop_oneof![3 => pod_peer(), 2 => ip_block().prop_map(Peer::Block)]
}

fn pod_peer() -> impl Strategy<Value = Peer> {
    let half = || option::weighted(0.6, selector());
    (half(), half())
        .prop_map(|(namespaces, pods)| Peer::Pods { namespaces, pods: pods.unwrap_or_default() })
}

/// A block that covers all, some or one of the addresses that occur, and up to three parts of it.
pub fn ip_block() -> impl Strategy<Value = IpBlock> {
    let all =
        pod_addresses().into_iter().chain(NODE_ADDRESSES.iter().chain(&OUTSIDE).map(|a| ip(a)));
    let all: Vec<IpAddr> = all.chain(SERVICE_ADDRESSES.iter().map(|a| ip(a))).collect();
    let nets = || {
        (sample::select(all.clone()), 0_u8..=6).prop_map(|(address, shorter)| {
            let longest = if address.is_ipv4() { 32 } else { 128 };
            let length = if shorter == 6 { 0 } else { longest - shorter };
            IpNet::new(address, length).expect("a length of that family").trunc()
        })
    };
    (nets(), collection::vec(nets(), 0..=3)).prop_map(|(cidr, except)| IpBlock {
        cidr,
        except: except.into_iter().filter(|e| cidr.contains(e) && *e != cidr).collect(),
    })
}

/// A service with up to two addresses, some of which are somebody else's.
pub fn service() -> impl Strategy<Value = Service> {
    let addresses = [&SERVICE_ADDRESSES[..], &["10.0.0.3", "10.1.0.1"]].concat();
    let port = (sample::select(&PORT_NAMES), service_protocol(), sample::select(&PORTS))
        .prop_map(|(name, protocol, port)| ServicePort { name: name.to_owned(), protocol, port });
    (service_key(), sample::subsequence(addresses, 0..=3), collection::vec(port, 1..=3)).prop_map(
        |(key, addresses, ports)| Service {
            key,
            addresses: addresses.into_iter().map(ip).collect(),
            ports,
        },
    )
}

/// A slice of up to three backends: pods mostly, and addresses of the node and of nobody.
pub fn endpoint_slice() -> impl Strategy<Value = EndpointSlice> {
    let backends: Vec<IpAddr> = every_address().into_iter().collect();
    let backend = prop_oneof![3 => sample::select(pod_addresses()), 1 => sample::select(backends)];
    let number = option::weighted(0.95, sample::select(&PORTS));
    let port = (sample::select(&PORT_NAMES), service_protocol(), number)
        .prop_map(|(name, protocol, port)| SlicePort { name: name.to_owned(), protocol, port });
    (
        object_key(),
        service_key(),
        collection::vec(port, 1..=3),
        collection::btree_set(backend, 0..=3),
    )
        .prop_map(|(key, service, ports, ready)| EndpointSlice {
            key: ObjectKey { namespace: service.namespace, ..key },
            service: service.name,
            ports,
            ready,
        })
}

/// A selector of up to two requirements.
pub fn selector() -> impl Strategy<Value = Selector> {
    let values = || collection::vec(label_value(), 1..=2);
    let requirement = (label_key(), 0_u8..6, values()).prop_map(|(key, kind, values)| {
        let (operator, values) = match kind {
            0..=2 => ("In", values),
            3 => ("NotIn", values),
            4 => ("Exists", Vec::new()),
            5.. => ("DoesNotExist", Vec::new()),
        };
        Expression { key, operator: operator.to_owned(), values }
    });
    prop_oneof![
        1 => Just(Selector::everything()),
        2 => collection::vec(requirement, 1..=2)
            .prop_map(|all| Selector::new([], all).expect("operators fit their values")),
    ]
}

fn port_match() -> impl Strategy<Value = PortMatch> {
    let range = (sample::select(&PORTS), sample::select(&PORTS))
        .prop_map(|(one, other)| Ports::Range(one.min(other)..=one.max(other)));
    let ports = prop_oneof![
        2 => Just(Ports::All),
        5 => range,
        3 => sample::select(&PORT_NAMES).prop_map(|name| Ports::Named(name.into())),
    ];
    (protocol(), ports).prop_map(|(protocol, ports)| PortMatch { protocol, ports })
}

fn named_port() -> impl Strategy<Value = NamedPort> {
    (sample::select(&PORT_NAMES), protocol(), sample::select(&PORTS))
        .prop_map(|(name, protocol, number)| NamedPort { name: name.into(), protocol, number })
}

/// Of few services, so that slices belong to some.
fn service_key() -> impl Strategy<Value = ObjectKey> {
    sample::select(&["a/p", "a/q", "b/p"]).prop_map(key)
}

fn service_protocol() -> impl Strategy<Value = Protocol> {
    prop::bool::weighted(0.8).prop_map(|tcp| if tcp { Protocol::Tcp } else { Protocol::Udp })
}

fn protocol() -> impl Strategy<Value = Protocol> {
    prop_oneof![3 => Just(Protocol::Tcp), 1 => sample::select(&PROTOCOLS)]
}

fn any_namespace() -> impl Strategy<Value = Namespace> {
    let deny_action = option::of(sample::select(&[DenyAction::Drop, DenyAction::Reject]));
    (namespace_name(), labels(), deny_action).prop_map(|(name, labels, deny_action)| {
        let mut namespace = namespace(&name, "");
        namespace.labels.extend(labels);
        Namespace { deny_action, ..namespace }
    })
}

fn labels() -> impl Strategy<Value = Labels> {
    collection::btree_map(label_key(), label_value(), 0..=3)
}

fn object_key() -> impl Strategy<Value = ObjectKey> {
    (sample::select(&NAMESPACES), sample::select(&NAMES))
        .prop_map(|(namespace, name)| key(&format!("{namespace}/{name}")))
}

fn namespace_name() -> impl Strategy<Value = String> {
    sample::select(&NAMESPACES).prop_map(str::to_owned)
}

fn label_key() -> impl Strategy<Value = String> {
    sample::select(&LABEL_KEYS).prop_map(str::to_owned)
}

fn label_value() -> impl Strategy<Value = String> {
    sample::select(&LABEL_VALUES).prop_map(str::to_owned)
}
