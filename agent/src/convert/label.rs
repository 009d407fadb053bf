//! Label selectors: from the API's form to the model's, with the API server's checks.

use crate::{
    api,
    policy::selector::{Expression, Selector},
};

use super::{Defect, FieldPath};

/// The selector that lies at `at`.
pub(super) fn selector(written: &api::LabelSelector, at: &FieldPath) -> Result<Selector, Defect> {
    for (key, value) in written.match_labels.iter().flatten() {
        let field = at.field("matchLabels").field(key);
        check_key(key).and_then(|()| check_value(value)).map_err(|p| Defect::new(field, p))?;
    }
    let mut expressions = Vec::new();
    for (index, requirement) in written.match_expressions.iter().flatten().enumerate() {
        let field = at.field("matchExpressions").element(index);
        check_key(&requirement.key).map_err(|p| Defect::new(field.field("key"), p))?;
        for (number, value) in requirement.values.iter().flatten().enumerate() {
            check_value(value)
                .map_err(|p| Defect::new(field.field("values").element(number), p))?;
        }
        let expression = Expression {
            key: requirement.key.clone(),
            operator: requirement.operator.clone(),
            values: requirement.values.clone().unwrap_or_default(),
        };
        // Alone at first, so that the error can say which one it is.
        Selector::new([], [expression.clone()])
            .map_err(|error| Defect::new(field, error.to_string()))?;
        expressions.push(expression);
    }
    let labels = written.match_labels.clone().unwrap_or_default();
    Selector::new(labels, expressions).map_err(|error| Defect::new(at.clone(), error.to_string()))
}

/// `[prefix/]name`, the prefix a DNS name.
fn check_key(key: &str) -> Result<(), String> {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    let is_prefix = |prefix: &str| prefix.len() <= 253 && prefix.split('.').all(is_dns_label);
    if !name.is_empty() && is_label_name(name) && prefix.is_none_or(is_prefix) {
        return Ok(());
    }
    Err(format!(
        "`{key}` is not a label's key; write a name of at most 63 letters, digits, `-`, `_` and \
         `.`, if need be behind a DNS name and a slash"
    ))
}

fn check_value(value: &str) -> Result<(), String> {
    if is_label_name(value) {
        return Ok(());
    }
    Err(format!(
        "`{value}` is not a label's value; write at most 63 letters, digits, `-`, `_` and `.`, a \
         letter or digit first and last"
    ))
}

/// At most 63 characters, letters or digits at both ends. May be empty.
fn is_label_name(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() <= 63
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(b))
        && bytes.first().is_none_or(u8::is_ascii_alphanumeric)
        && bytes.last().is_none_or(u8::is_ascii_alphanumeric)
}

/// One part of a DNS name, in lower case.
fn is_dns_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    let is_plain = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    bytes.len() <= 63
        && bytes.iter().all(|b| is_plain(b) || *b == b'-')
        && bytes.first().is_some_and(is_plain)
        && bytes.last().is_some_and(is_plain)
}
