//! A NetworkPolicy, read strictly; where that fails, refused in the form that closes.
//!
//! Invariant: every policy that can be attributed comes out as a policy that isolates at least the
//! pods, in at least the directions, that its author can have meant. A refused policy has no rules.

use serde_json::Value;

use crate::{
    api,
    policy::{
        model::{ObjectKey, Policy, Rule},
        selector::Selector,
    },
};

use super::{Converted, Defect, FieldPath, decode, label, object_key, rule};

/// The only version of NetworkPolicy there is.
const API_VERSION: &str = "networking.k8s.io/v1";
/// Fields of the object as a whole. `status` was part of it in Kubernetes 1.24 to 1.27.
const FIELDS: [&str; 5] = ["apiVersion", "kind", "metadata", "spec", "status"];
/// Fields of `spec`: any other one may be a misspelt one of these.
const SPEC_FIELDS: [&str; 4] = ["podSelector", "policyTypes", "ingress", "egress"];

/// The fields that hold a list: everything else that has a structure is a mapping.
const LIST_FIELDS: [&str; 9] = [
    "policyTypes",
    "ingress",
    "egress",
    "from",
    "to",
    "ports",
    "except",
    "matchExpressions",
    "values",
];

/// Which directions a policy isolates its pods for.
#[derive(Clone, Copy)]
struct Directions {
    ingress: bool,
    egress: bool,
}

/// A networking.k8s.io/v1 NetworkPolicy.
///
/// A policy with anything wrong in it is refused: it has [`Policy::refused`] and a defect.
///
/// # Errors
/// When name or namespace can't be read, so that nobody knows whose policy it is.
pub fn policy(object: &Value) -> Result<Converted<Policy>, Defect> {
    let metadata = FieldPath::of(&["metadata"]);
    let name: Option<api::Name> = decode(&object["metadata"], &metadata)?;
    let key = object_key(name.unwrap_or_default())?;
    Ok(match accepted(object, &key) {
        Ok(policy) => Converted { object: policy, defects: Vec::new() },
        Err(defect) => Converted { object: refused(object, key, &defect), defects: vec![defect] },
    })
}

/// The policy as it is written, if every bit of it is understood.
fn accepted(object: &Value, key: &ObjectKey) -> Result<Policy, Defect> {
    if object["apiVersion"] != API_VERSION {
        let problem = format!("not the version of a NetworkPolicy; write {API_VERSION}");
        return Err(Defect::new(FieldPath::of(&["apiVersion"]), problem));
    }
    if let Some(unknown) = unknown_field(object, &FIELDS) {
        let problem = format!("unknown field `{unknown}`; correct or remove it");
        return Err(Defect::new(FieldPath::of(&[unknown]), problem));
    }
    let at = FieldPath::of(&["spec"]);
    let Some(spec) = decode::<Option<api::NetworkPolicySpec>>(&object["spec"], &at)? else {
        let problem = "the policy has no spec; write one, `spec: {podSelector: {}}` at least";
        return Err(Defect::new(at, problem));
    };
    no_misplaced_list(&object["spec"], &at, false)?;

    let pod_selector = spec.pod_selector.unwrap_or_default();
    let pod_selector = label::selector(&pod_selector, &at.field("podSelector"))?;
    let egress_rules = spec.egress.unwrap_or_default();
    let types = spec.policy_types.unwrap_or_default();
    let directions = directions(&types, !egress_rules.is_empty(), &at.field("policyTypes"))?;

    // Rules of a direction that isn't isolated mean nothing, but are checked all the same.
    let ingress: Vec<Rule> = spec
        .ingress
        .iter()
        .flatten()
        .enumerate()
        .map(|(index, r)| {
            let at = at.field("ingress").element(index);
            rule::rule(r.from.as_deref(), r.ports.as_deref(), "from", &at)
        })
        .collect::<Result<_, _>>()?;
    let egress: Vec<Rule> = egress_rules
        .iter()
        .enumerate()
        .map(|(index, r)| {
            let at = at.field("egress").element(index);
            rule::rule(r.to.as_deref(), r.ports.as_deref(), "to", &at)
        })
        .collect::<Result<_, _>>()?;
    Ok(Policy {
        key: key.clone(),
        pod_selector,
        ingress: directions.ingress.then_some(ingress),
        egress: directions.egress.then_some(egress),
        refused: None,
    })
}

/// What `policyTypes` says; without a word in it, what the presence of egress rules says.
fn directions(types: &[String], has_egress: bool, at: &FieldPath) -> Result<Directions, Defect> {
    if types.is_empty() {
        return Ok(Directions { ingress: true, egress: has_egress });
    }
    if types.len() > 2 {
        let problem = "more than two policy types; write each of Ingress and Egress once at most";
        return Err(Defect::new(at.clone(), problem));
    }
    let mut directions = Directions { ingress: false, egress: false };
    for (index, word) in types.iter().enumerate() {
        match word.as_str() {
            "Ingress" => directions.ingress = true,
            "Egress" => directions.egress = true,
            other => {
                let problem = format!("unknown policy type `{other}`; write Ingress or Egress");
                return Err(Defect::new(at.element(index), problem));
            }
        }
    }
    Ok(directions)
}

/// What is left of a policy that isn't understood: no rules, for every pod and in every direction
/// that it can have meant.
fn refused(object: &Value, key: ObjectKey, defect: &Defect) -> Policy {
    let spec = &object["spec"];
    let nowhere = FieldPath::default();
    let pod_selector = decode::<Option<api::LabelSelector>>(&spec["podSelector"], &nowhere)
        .and_then(|written| label::selector(&written.unwrap_or_default(), &nowhere))
        .unwrap_or_else(|_| Selector::everything());

    let both = Directions { ingress: true, egress: true };
    let may_be_misspelt = !spec.is_object() || unknown_field(spec, &SPEC_FIELDS).is_some();
    let directions = if may_be_misspelt {
        both
    } else {
        decode::<Option<Vec<String>>>(&spec["policyTypes"], &nowhere)
            .and_then(|types| {
                directions(&types.unwrap_or_default(), !spec["egress"].is_null(), &nowhere)
            })
            .unwrap_or(both)
    };
    Policy {
        key,
        pod_selector,
        ingress: directions.ingress.then(Vec::new),
        egress: directions.egress.then(Vec::new),
        refused: Some(defect.to_string()),
    }
}

/// serde takes a list for a mapping whose fields come without names, so that the rule `[]` would be
/// one without `from`.
fn no_misplaced_list(value: &Value, at: &FieldPath, may_be_list: bool) -> Result<(), Defect> {
    match value {
        Value::Array(_) if !may_be_list => {
            let problem = "a list where a mapping or a single value belongs; correct the field";
            Err(Defect::new(at.clone(), problem))
        }
        Value::Array(elements) => elements
            .iter()
            .enumerate()
            .try_for_each(|(i, element)| no_misplaced_list(element, &at.element(i), false)),
        Value::Object(fields) => fields.iter().try_for_each(|(name, value)| {
            no_misplaced_list(value, &at.field(name), LIST_FIELDS.contains(&name.as_str()))
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(()),
    }
}

fn unknown_field<'a>(object: &'a Value, known: &[&str]) -> Option<&'a str> {
    object.as_object()?.keys().map(String::as_str).find(|field| !known.contains(field))
}
