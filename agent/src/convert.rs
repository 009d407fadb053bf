//! Kubernetes objects to the vocabulary of policy: the only place that knows the API's defaults.
//!
//! Owns defaults, the checks that the API server would have made, and what becomes of an object
//! that fails them. Does not own where objects come from: the manifest directory and the API
//! server's watchers both call it. Everything in here is pure.
//!
//! Invariant: no object opens more than it says. What is wrong with an object is a [`Defect`] that
//! names the field. Where the object can still be attributed, it is converted in a form that
//! closes rather than opens, and the defects come with it; where it can't (a policy without a
//! name, a pod whose labels are unreadable), there is only the defect, and the source has to keep
//! what it knew before.

use std::{collections::BTreeSet, fmt, net::IpAddr, sync::Arc};

use bulkhead_common::verdict::DenyAction;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{
    api,
    policy::{
        index::NAMESPACE_NAME_LABEL,
        model::{Labels, Namespace, ObjectKey, Pod},
    },
};

pub use field::{FieldPath, Segment};
pub use policy::policy;

mod field;
mod label;
mod policy;
mod rule;

#[cfg(test)]
mod tests;

/// The namespace of objects that name none.
const DEFAULT_NAMESPACE: &str = "default";
/// The annotation of a namespace that says what denied peers of its pods get to see.
pub const DENY_ACTION_ANNOTATION: &str = "bulkhead.io/deny-action";

/// What is wrong with an object, and what to do about it. Displayed as `FIELD: problem`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Defect {
    /// The field; empty where it is the object as a whole.
    pub field: FieldPath,
    /// What is wrong with it; what to do about it.
    pub problem: String,
}

impl Defect {
    /// A defect of `field`.
    pub fn new(field: FieldPath, problem: impl Into<String>) -> Self {
        Self { field, problem: problem.into() }
    }
}

impl fmt::Display for Defect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.field.is_empty() {
            return f.write_str(&self.problem);
        }
        write!(f, "{}: {}", self.field, self.problem)
    }
}

/// An object of the model.
#[derive(Clone, Debug, PartialEq)]
pub struct Converted<T> {
    /// The object. Where there are defects, in a form that opens nothing.
    pub object: T,
    /// What was wrong with it.
    pub defects: Vec<Defect>,
}

/// A v1 Namespace.
///
/// # Errors
/// When name, labels or annotations can't be read.
pub fn namespace(object: &Value) -> Result<Converted<Namespace>, Defect> {
    let metadata = decode::<api::Namespace>(object, &FieldPath::default())?.metadata;
    let metadata = metadata.unwrap_or_default();
    let name = required_name(metadata.name)?;
    let mut labels: Labels = metadata.labels.unwrap_or_default();
    labels.insert(NAMESPACE_NAME_LABEL.to_owned(), name.clone());

    let written = metadata.annotations.unwrap_or_default().remove(DENY_ACTION_ANNOTATION);
    let (deny_action, defects) = match written.as_ref().map(|value| (value, value.as_str())) {
        None => (None, Vec::new()),
        Some((_, Some("drop"))) => (Some(DenyAction::Drop), Vec::new()),
        Some((_, Some("reject"))) => (Some(DenyAction::Reject), Vec::new()),
        Some((value, _)) => {
            let field = FieldPath::of(&["metadata", "annotations", DENY_ACTION_ANNOTATION]);
            let problem = format!(
                "unknown action {value}; write `drop` or `reject` (the agent's default counts \
                 until then)"
            );
            (None, vec![Defect::new(field, problem)])
        }
    };
    Ok(Converted { object: Namespace { name, labels, deny_action }, defects })
}

/// A v1 Pod.
///
/// An address that can't be read is a defect, and the pod has its other addresses: they lead to its
/// interface. A pod for which none is written is a pod that no traffic can match yet.
///
/// # Errors
/// When name, labels, `spec`, `status` or every address can't be read.
pub fn pod(object: &Value) -> Result<Converted<Pod>, Defect> {
    let api::Pod { metadata, spec, status } = decode(object, &FieldPath::default())?;
    let metadata = metadata.unwrap_or_default();
    let key = object_key(api::Name { name: metadata.name, namespace: metadata.namespace })?;
    let spec = spec.unwrap_or_default();
    let status = status.unwrap_or_default();
    let (addresses, mut defects) = pod_addresses(&status);
    if addresses.is_empty() && !defects.is_empty() {
        return Err(defects.remove(0));
    }
    let ended = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
    let pod = Pod {
        key,
        uid: metadata.uid.unwrap_or_default(),
        labels: Arc::new(metadata.labels.unwrap_or_default()),
        ports: Arc::new([]),
        addresses,
        node: spec.node_name.filter(|node| !node.is_empty()).map(Arc::from),
        host_network: spec.host_network.unwrap_or_default(),
        ended,
    };
    Ok(Converted { object: pod, defects })
}

/// At most one address of each family, as the API has it.
fn pod_addresses(status: &api::PodStatus) -> (Vec<IpAddr>, Vec<Defect>) {
    let field = FieldPath::of(&["status"]);
    let every = status.pod_ips.iter().flatten().enumerate();
    let mut written: Vec<(FieldPath, &str)> = every
        .map(|(i, address)| (field.field("podIPs").element(i).field("ip"), address.ip.as_str()))
        .collect();
    if written.is_empty() {
        written.extend(status.pod_ip.as_deref().map(|ip| (field.field("podIP"), ip)));
    }

    let mut addresses = BTreeSet::new();
    let mut defects = Vec::new();
    // The API server writes an empty podIP for a pod that has none yet.
    for (field, text) in written.into_iter().filter(|(_, text)| !text.is_empty()) {
        match unicast(text) {
            Err(problem) => defects.push(Defect::new(field, problem)),
            Ok(address) if addresses.contains(&address) => {}
            Ok(address) if addresses.iter().any(|a: &IpAddr| a.is_ipv4() == address.is_ipv4()) => {
                let problem = format!(
                    "{address} is a second address of the same family; a pod has at most one \
                     IPv4 and one IPv6 address: remove it (the first one counts)"
                );
                defects.push(Defect::new(field, problem));
            }
            Ok(address) => {
                addresses.insert(address);
            }
        }
    }
    (addresses.into_iter().collect(), defects)
}

/// An address that a pod can have. IPv4 written as IPv6 is IPv4.
fn unicast(text: &str) -> Result<IpAddr, String> {
    let address: IpAddr = text.parse().map_err(|_| {
        format!("`{text}` is not an IP address; write one such as 10.0.0.10 or fd00:10::10")
    })?;
    let address = address.to_canonical();
    if address.is_unspecified() || address.is_loopback() || address.is_multicast() {
        return Err(format!(
            "{address} is not an address that a pod can have; write the pod's own"
        ));
    }
    Ok(address)
}

/// Reads an object strictly; `at` is where it lies in the whole.
fn decode<T: DeserializeOwned>(value: &Value, at: &FieldPath) -> Result<T, Defect> {
    let mut track = serde_path_to_error::Track::new();
    T::deserialize(serde_path_to_error::Deserializer::new(value, &mut track)).map_err(|error| {
        let problem = format!("{error}; correct it as the Kubernetes API describes this field");
        Defect::new(at.join(&FieldPath::from(&track.path())), problem)
    })
}

fn object_key(name: api::Name) -> Result<ObjectKey, Defect> {
    let namespace = name.namespace.filter(|namespace| !namespace.is_empty());
    let namespace = namespace.unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned());
    Ok(ObjectKey::new(namespace, required_name(name.name)?))
}

fn required_name(name: String) -> Result<String, Defect> {
    if name.is_empty() {
        let problem = "the object has no name; give it one";
        return Err(Defect::new(FieldPath::of(&["metadata", "name"]), problem));
    }
    Ok(name)
}
