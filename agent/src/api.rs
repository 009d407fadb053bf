//! The objects of the Kubernetes API, cut down to the fields that are used.
//!
//! Owns the shape of the objects as JSON has it, and nothing else: defaults and checks are applied
//! by [`crate::convert`]. Own types instead of the generated ones, because a cluster's pods must
//! fit in memory, and because the generated ones ignore fields that they don't know.
//!
//! Invariant: nothing in a policy's spec is ignored. A field that isn't declared here is an error,
//! since a misspelt `from` would otherwise be a rule without `from`, which allows every peer. Other
//! objects have hundreds of fields that don't matter here: theirs are ignored.
//!
//! `null` means the same as absent, except as an element of a list, where it is an error.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// `metadata` of an object whose labels matter.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Metadata {
    /// The name; empty: absent.
    pub name: String,
    /// The namespace, of objects that are in one.
    pub namespace: Option<String>,
    /// Tells an object from a later one of the same name.
    pub uid: Option<String>,
    /// The labels.
    pub labels: Option<BTreeMap<String, String>>,
    /// The annotations. Most belong to somebody else, so their values are left unread.
    pub annotations: Option<BTreeMap<String, Value>>,
}

/// What names an object: all that has to be readable of `metadata` where labels don't matter.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Name {
    /// The name; empty: absent.
    pub name: String,
    /// The namespace.
    pub namespace: Option<String>,
}

/// v1 Namespace.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Namespace {
    /// Name, labels and annotations.
    pub metadata: Option<Metadata>,
}

/// v1 Pod.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Pod {
    /// Name and labels.
    pub metadata: Option<Metadata>,
    /// What was asked for.
    pub spec: Option<PodSpec>,
    /// What became of it.
    pub status: Option<PodStatus>,
}

/// `spec` of a pod.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PodSpec {
    /// Where it runs.
    pub node_name: Option<String>,
    /// Whether it shares the node's network.
    pub host_network: Option<bool>,
}

/// `status` of a pod.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PodStatus {
    /// Pending, Running, Succeeded, Failed or Unknown.
    pub phase: Option<String>,
    /// The first address.
    #[serde(rename = "podIP")]
    pub pod_ip: Option<String>,
    /// Every address.
    #[serde(rename = "podIPs")]
    pub pod_ips: Option<Vec<PodIp>>,
}

/// An element of `status.podIPs`.
#[derive(Clone, Debug, Deserialize)]
pub struct PodIp {
    /// The address.
    pub ip: String,
}

/// An element of `ports` of a container. Containers are read one port at a time, so that one broken
/// port doesn't take the pod with it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ContainerPort {
    /// The name that policies and services can use.
    pub name: String,
    /// `TCP`, `UDP` or `SCTP`; absent: TCP.
    pub protocol: Option<String>,
    /// The number.
    pub container_port: i64,
}

/// v1 Service.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Service {
    /// Name and namespace.
    pub metadata: Option<Name>,
    /// What was asked for.
    pub spec: Option<ServiceSpec>,
    /// What became of it.
    pub status: Option<ServiceStatus>,
}

/// `spec` of a service.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ServiceSpec {
    /// `ClusterIP`, `NodePort`, `LoadBalancer` or `ExternalName`.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// The first cluster address, or `None` of a headless service.
    #[serde(rename = "clusterIP")]
    pub cluster_ip: Option<String>,
    /// Every cluster address.
    #[serde(rename = "clusterIPs")]
    pub cluster_ips: Option<Vec<String>>,
    /// Further addresses that lead to it.
    #[serde(rename = "externalIPs")]
    pub external_ips: Option<Vec<String>>,
    /// Its ports.
    pub ports: Option<Vec<ServicePort>>,
}

/// An element of `spec.ports` of a service.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ServicePort {
    /// Its name.
    pub name: Option<String>,
    /// `TCP`, `UDP` or `SCTP`; absent: TCP.
    pub protocol: Option<String>,
    /// The number at the service's addresses.
    pub port: i64,
}

/// `status` of a service.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ServiceStatus {
    /// Where its load balancer is.
    pub load_balancer: Option<LoadBalancer>,
}

/// `status.loadBalancer` of a service.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct LoadBalancer {
    /// Its addresses.
    pub ingress: Option<Vec<LoadBalancerIngress>>,
}

/// An element of `status.loadBalancer.ingress`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct LoadBalancerIngress {
    /// The address, of those that have no host name.
    pub ip: Option<String>,
}

/// discovery.k8s.io/v1 EndpointSlice.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct EndpointSlice {
    /// Name, and the label that names the service.
    pub metadata: Option<Metadata>,
    /// `IPv4`, `IPv6` or `FQDN`.
    pub address_type: Option<String>,
    /// The backends.
    pub endpoints: Option<Vec<Endpoint>>,
    /// The ports of each of them.
    pub ports: Option<Vec<EndpointPort>>,
}

/// An element of `endpoints` of an endpoint slice.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Endpoint {
    /// Its addresses: they are as good as each other.
    pub addresses: Option<Vec<String>>,
    /// Its state.
    pub conditions: Option<EndpointConditions>,
}

/// `conditions` of an endpoint.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct EndpointConditions {
    /// Whether it takes traffic; absent: it does.
    pub ready: Option<bool>,
}

/// An element of `ports` of an endpoint slice.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct EndpointPort {
    /// The name of the service's port.
    pub name: Option<String>,
    /// `TCP`, `UDP` or `SCTP`; absent: TCP.
    pub protocol: Option<String>,
    /// The number at the backends.
    pub port: Option<i64>,
}

/// v1 Node.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Node {
    /// Its name.
    pub metadata: Option<Name>,
    /// What is known of it.
    pub status: Option<NodeStatus>,
}

/// `status` of a node.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct NodeStatus {
    /// Its names and addresses.
    pub addresses: Option<Vec<NodeAddress>>,
}

/// An element of `status.addresses` of a node.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct NodeAddress {
    /// `InternalIP` and `ExternalIP` are addresses; others are names.
    #[serde(rename = "type")]
    pub kind: String,
    /// The address.
    pub address: String,
}

/// `spec` of a networking.k8s.io/v1 NetworkPolicy.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields, expecting = "a mapping")]
pub struct NetworkPolicySpec {
    /// Which pods of the namespace; absent: all.
    pub pod_selector: Option<LabelSelector>,
    /// `Ingress`, `Egress` or both.
    pub policy_types: Option<Vec<String>>,
    /// Traffic to the pods that is allowed.
    pub ingress: Option<Vec<IngressRule>>,
    /// Traffic from the pods that is allowed.
    pub egress: Option<Vec<EgressRule>>,
}

/// An element of `spec.ingress`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a mapping with `from` and `ports`")]
pub struct IngressRule {
    /// Who may send.
    pub from: Option<Vec<Peer>>,
    /// To which ports.
    pub ports: Option<Vec<Port>>,
}

/// An element of `spec.egress`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a mapping with `to` and `ports`")]
pub struct EgressRule {
    /// Who may be sent to.
    pub to: Option<Vec<Peer>>,
    /// On which ports.
    pub ports: Option<Vec<Port>>,
}

/// An element of `from` or `to`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(
    default,
    rename_all = "camelCase",
    deny_unknown_fields,
    expecting = "a mapping with a selector"
)]
pub struct Peer {
    /// Which pods.
    pub pod_selector: Option<LabelSelector>,
    /// Pods of which namespaces.
    pub namespace_selector: Option<LabelSelector>,
    /// A block of addresses.
    pub ip_block: Option<IpBlock>,
}

/// `ipBlock` of a peer.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a mapping with `cidr`")]
pub struct IpBlock {
    /// The block.
    pub cidr: String,
    /// Blocks inside of it that don't count.
    pub except: Option<Vec<String>>,
}

/// An element of `ports`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(
    default,
    rename_all = "camelCase",
    deny_unknown_fields,
    expecting = "a mapping with `protocol` and `port`"
)]
pub struct Port {
    /// `TCP`, `UDP` or `SCTP`; absent: TCP.
    pub protocol: Option<String>,
    /// Absent: every port of the protocol.
    pub port: Option<NumberOrName>,
    /// The last port of a range that starts at `port`.
    pub end_port: Option<i64>,
}

/// A port, by its number or by the name that the destination pod gives it.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "expected a port number or the name of a port")]
pub enum NumberOrName {
    /// A number, of which nothing is known yet.
    Number(i64),
    /// A name.
    Name(String),
}

/// A label selector: all of its requirements must hold.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(
    default,
    rename_all = "camelCase",
    deny_unknown_fields,
    expecting = "a mapping with `matchLabels` or `matchExpressions`"
)]
pub struct LabelSelector {
    /// Labels that must be there with exactly these values.
    pub match_labels: Option<BTreeMap<String, String>>,
    /// Further requirements.
    pub match_expressions: Option<Vec<LabelRequirement>>,
}

/// An element of `matchExpressions`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping with `key` and `operator`")]
pub struct LabelRequirement {
    /// Which label.
    pub key: String,
    /// `In`, `NotIn`, `Exists` or `DoesNotExist`.
    pub operator: String,
    /// What the label's value is compared with.
    #[serde(default)]
    pub values: Option<Vec<String>>,
}
