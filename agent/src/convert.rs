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
//! what it knew before; as long as there is no such before, it isn't complete.

use std::fmt;

use bulkhead_common::verdict::DenyAction;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{
    api,
    policy::{
        index::NAMESPACE_NAME_LABEL,
        model::{Labels, Namespace, ObjectKey},
    },
};

pub use field::{FieldPath, Segment};
pub use node::node;
pub use pod::pod;
pub use policy::policy;
pub use service::service;
pub use slice::endpoint_slice;

mod address;
mod block;
mod field;
mod label;
mod node;
mod pod;
mod policy;
mod port;
mod rule;
mod service;
mod slice;

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
