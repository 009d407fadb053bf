//! The vocabulary of policy, with every default of the Kubernetes API already applied.

use std::{collections::BTreeMap, fmt, net::IpAddr, ops::RangeInclusive};

use bulkhead_common::verdict::{DenyAction, Direction};

use super::selector::Selector;

/// Labels of an object.
pub type Labels = BTreeMap<String, String>;

/// Namespace and name of an object. Displayed as `namespace/name`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl ObjectKey {
    /// From its two parts.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
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
    /// Its labels.
    pub labels: Labels,
    /// `status.podIPs`: none, one or two, of either family.
    pub addresses: Vec<IpAddr>,
    /// `spec.nodeName`, where it is set.
    pub node: Option<String>,
    /// It shares the node's network, so policy treats it as the node.
    pub host_network: bool,
    /// It is Succeeded or Failed: its addresses may belong to somebody else already.
    pub ended: bool,
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

/// Pods that a rule names.
#[derive(Clone, Debug, PartialEq)]
pub struct Peer {
    /// Which namespaces; `None`: the policy's own.
    pub namespaces: Option<Selector>,
    /// Which pods of them; `None`: all.
    pub pods: Option<Selector>,
}

/// Ports that a rule names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortMatch {
    /// The transport protocol.
    pub protocol: Protocol,
    /// `None`: every port of the protocol.
    pub ports: Option<RangeInclusive<u16>>,
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
