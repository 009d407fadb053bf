//! A Node: its addresses.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::{api, policy::model::Node};

use super::{Converted, Defect, FieldPath, address, decode, required_name};

/// A v1 Node.
///
/// An address that can't be read is a defect, and the node has its other ones.
///
/// # Errors
/// When name or `status` can't be read.
pub fn node(object: &Value) -> Result<Converted<Node>, Defect> {
    let api::Node { metadata, status } = decode(object, &FieldPath::default())?;
    let name = required_name(metadata.unwrap_or_default().name)?;
    let at = FieldPath::of(&["status", "addresses"]);
    let mut addresses = BTreeSet::new();
    let mut defects = Vec::new();
    let written = status.unwrap_or_default().addresses.unwrap_or_default();
    for (index, api::NodeAddress { kind, address }) in written.iter().enumerate() {
        if !matches!(kind.as_str(), "InternalIP" | "ExternalIP") {
            continue;
        }
        match address::unicast(address, "node") {
            Ok(address) => drop(addresses.insert(address)),
            Err(problem) => {
                defects.push(Defect::new(at.element(index).field("address"), problem));
            }
        }
    }
    Ok(Converted { object: Node { name, addresses }, defects })
}
