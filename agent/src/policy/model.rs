//! The vocabulary of policy, with every default of the Kubernetes API already applied.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    ops::RangeInclusive,
    sync::Arc,
};

use bulkhead_common::verdict::{DenyAction, Direction};
use ipnet::IpNet;

use super::selector::Selector;

/// Labels of an object.
pub type Labels = BTreeMap<String, String>;

/// Namespace and name of an object. Displayed as `namespace/name`. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// The namespace.
    pub namespace: Arc<str>,
    /// The name.
    pub name: Arc<str>,
}

impl ObjectKey {
    /// From its two parts.
    pub fn new(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// One thing that happened to the state of the cluster.
///
/// Every source (manifest directory, API server) speaks in these. Applying the same change twice
/// is the same as applying it once.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// A namespace is new or different.
    NamespaceApplied(Namespace),
    /// A namespace is gone. Its pods and policies are not: each is deleted by a change of its own.
    NamespaceDeleted(String),
    /// A pod is new or different.
    PodApplied(Pod),
    /// A pod is gone.
    PodDeleted(ObjectKey),
    /// A policy is new or different.
    PolicyApplied(Policy),
    /// A policy is gone.
    PolicyDeleted(ObjectKey),
    /// A service is new or different.
    ServiceApplied(Service),
    /// A service is gone. Its endpoint slices are not.
    ServiceDeleted(ObjectKey),
    /// An endpoint slice is new or different.
    EndpointSliceApplied(EndpointSlice),
    /// An endpoint slice is gone.
    EndpointSliceDeleted(ObjectKey),
    /// A node is new or different.
    NodeApplied(Node),
    /// A node is gone.
    NodeDeleted(String),
    /// The source has (`true`) or has not (`false`) named everything it holds at least once.
    /// Until it has, a policy may be missing, so every pod is closed.
    SourceComplete(bool),
}

/// A namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// Its name.
    pub name: String,
    /// Its labels, `kubernetes.io/metadata.name` included.
    pub labels: Labels,
    /// What denied peers of its pods get to see; `None`: what the agent's flag says.
    pub deny_action: Option<DenyAction>,
}

/// A pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Namespace and name.
    pub key: ObjectKey,
    /// Tells a pod from a later one of the same name. May be empty in manifests.
    pub uid: String,
    /// Its labels. Pods of one workload share them.
    pub labels: Arc<Labels>,
    /// The ports that its containers name, in the order in which a name is looked up: the first
    /// that has the name and the protocol is meant. Pods of one workload share them.
    pub ports: Arc<[NamedPort]>,
    /// `status.podIPs`: none, one or two, of either family.
    pub addresses: Vec<IpAddr>,
    /// `spec.nodeName`, where it is set.
    pub node: Option<Arc<str>>,
    /// It shares the node's network, so policy treats it as the node.
    pub host_network: bool,
    /// It is Succeeded or Failed: its addresses may belong to somebody else already.
    pub ended: bool,
}

impl Pod {
    /// The number of a named port of the pod; `None`: it has none of that name and protocol.
    pub fn port(&self, protocol: Protocol, name: &str) -> Option<u16> {
        let found = self.ports.iter().find(|p| p.protocol == protocol && *p.name == *name);
        found.map(|port| port.number)
    }
}

/// A port of a container that has a name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamedPort {
    /// Its name.
    pub name: Arc<str>,
    /// Its protocol: a name can stand for one port of each.
    pub protocol: Protocol,
    /// `containerPort`.
    pub number: u16,
}

/// A Service, as far as its addresses lead to backends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Namespace and name.
    pub key: ObjectKey,
    /// `clusterIPs`, `externalIPs` and the addresses of its load balancer. None for a headless
    /// service.
    pub addresses: BTreeSet<IpAddr>,
    /// Its ports.
    pub ports: Vec<ServicePort>,
}

/// A port of a service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServicePort {
    /// What ports of endpoint slices refer to; may be empty.
    pub name: String,
    /// The protocol.
    pub protocol: Protocol,
    /// The port at the service's addresses.
    pub port: u16,
}

/// Backends of a service: an EndpointSlice of an address type that is IPv4 or IPv6.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSlice {
    /// Namespace and name of the slice.
    pub key: ObjectKey,
    /// The name of the service, in the same namespace.
    pub service: Arc<str>,
    /// At which ports each backend serves which of the service's ports.
    pub ports: Vec<SlicePort>,
    /// The addresses of the backends that are ready.
    pub ready: BTreeSet<IpAddr>,
}

/// A port of an endpoint slice.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SlicePort {
    /// The name of the service's port; may be empty.
    pub name: String,
    /// The protocol.
    pub protocol: Protocol,
    /// The port at the backends; `None`: it isn't said, so nothing is known to be allowed.
    pub port: Option<u16>,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its addresses (`InternalIP` and `ExternalIP`).
    pub addresses: BTreeSet<IpAddr>,
}

/// A NetworkPolicy.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Namespace and name.
    pub key: ObjectKey,
    /// Which pods of the namespace it isolates.
    pub pod_selector: Selector,
    /// Rules for traffic to the pods; `None`: the policy does not isolate them for ingress.
    pub ingress: Option<Vec<Rule>>,
    /// Rules for traffic from the pods; `None`: the policy does not isolate them for egress.
    pub egress: Option<Vec<Rule>>,
    /// Why the policy was refused. A refused policy isolates its pods in every direction that it
    /// could mean and has no rules: they are closed.
    pub refused: Option<String>,
}

impl Policy {
    /// The rules of a direction; `None`: the policy does not isolate its pods in it.
    pub fn rules(&self, direction: Direction) -> Option<&[Rule]> {
        match direction {
            Direction::Ingress => self.ingress.as_deref(),
            Direction::Egress => self.egress.as_deref(),
        }
    }
}

/// Traffic that a policy allows: with any of these peers, on any of these ports.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// `None`: every peer, inside the cluster and outside. Never empty.
    pub peers: Option<Vec<Peer>>,
    /// `None`: every port of every protocol, and protocols without ports. Never empty.
    pub ports: Option<Vec<PortMatch>>,
}

/// Who a rule names.
#[derive(Clone, Debug, PartialEq)]
pub enum Peer {
    /// Pods, wherever they run.
    Pods {
        /// Which namespaces; `None`: the policy's own.
        namespaces: Option<Selector>,
        /// Which pods of them.
        pods: Selector,
    },
    /// Addresses, whoever has them.
    Block(IpBlock),
}

/// Addresses in a block, less those in others.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IpBlock {
    /// The block, without host bits.
    pub cidr: IpNet,
    /// Blocks inside of it whose addresses don't count, without host bits.
    pub except: BTreeSet<IpNet>,
}

impl IpBlock {
    /// Whether an address counts.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.cidr.contains(&address) && !self.except.iter().any(|e| e.contains(&address))
    }
}

/// Ports that a rule names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortMatch {
    /// The transport protocol.
    pub protocol: Protocol,
    /// Which ports of it.
    pub ports: Ports,
}

/// Ports of one protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ports {
    /// Every port.
    All,
    /// From the first to the last, both included.
    Range(RangeInclusive<u16>),
    /// The port that the destination pod names so, by [`Pod::port`]. A destination that is no pod
    /// has none.
    Named(Arc<str>),
}

/// A transport protocol that policies can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP
    Tcp,
    /// UDP
    Udp,
    /// SCTP
    Sctp,
}

impl Protocol {
    /// The protocol number of IP (IANA "Assigned Internet Protocol Numbers").
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        })
    }
}
