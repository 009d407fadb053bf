//! Label selectors, with the semantics of the API server.
//!
//! Owns matching and validation. Knows nothing of pods, namespaces or policies. Invariant: a
//! selector is a set of requirements, so the order and repetition in which they were written leave
//! no trace, and equal selectors are equal values that can be interned.

use std::{collections::BTreeSet, fmt};

use super::model::Labels;

/// A conjunction of requirements on labels; without requirements it selects everything.
///
/// Displayed in kubectl's syntax: `app=web,tier in (a,b),!x`. The empty selector is displayed as
/// the empty string.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Selector {
    requirements: BTreeSet<Requirement>,
}

/// One entry of `matchExpressions`, as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expression {
    /// The label's key.
    pub key: String,
    /// `In`, `NotIn`, `Exists` or `DoesNotExist`.
    pub operator: String,
    /// The values that `In` and `NotIn` ask about.
    pub values: Vec<String>,
}

/// Why a selector is not one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// A requirement names no label.
    #[error("a requirement has an empty key: name the label that it is about")]
    EmptyKey,
    /// The operator is none of the API's.
    #[error(
        "matchExpressions on key {key:?}: unknown operator {operator:?}: \
         use In, NotIn, Exists or DoesNotExist"
    )]
    UnknownOperator {
        /// The label's key.
        key: String,
        /// The operator as it was written.
        operator: String,
    },
    /// An operator that compares has nothing to compare with.
    #[error(
        "matchExpressions on key {key:?}: {operator} needs at least one entry in values: \
         add one, or use Exists or DoesNotExist"
    )]
    ValuesMissing {
        /// The label's key.
        key: String,
        /// The operator.
        operator: String,
    },
    /// An operator that does not compare was given values.
    #[error(
        "matchExpressions on key {key:?}: {operator} takes no values: \
         remove them, or use In or NotIn"
    )]
    ValuesUnexpected {
        /// The label's key.
        key: String,
        /// The operator.
        operator: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Requirement {
    key: String,
    test: Test,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Test {
    In(BTreeSet<String>),
    NotIn(BTreeSet<String>),
    Exists,
    DoesNotExist,
}

impl Selector {
    /// The selector `{}`.
    pub fn everything() -> Self {
        Self::default()
    }

    /// From `matchLabels` and `matchExpressions`: all of both must hold.
    ///
    /// # Errors
    /// When the API server would refuse the selector for its keys, operators or number of values.
    pub fn new(
        match_labels: impl IntoIterator<Item = (String, String)>,
        match_expressions: impl IntoIterator<Item = Expression>,
    ) -> Result<Self, SelectorError> {
        let labels = match_labels.into_iter().map(|(key, value)| {
            let test = Test::In(BTreeSet::from([value]));
            if key.is_empty() {
                Err(SelectorError::EmptyKey)
            } else {
                Ok(Requirement { key, test })
            }
        });
        let expressions = match_expressions.into_iter().map(Requirement::new);
        Ok(Self { requirements: labels.chain(expressions).collect::<Result<_, _>>()? })
    }

    /// Whether every requirement holds.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.requirements.iter().all(|requirement| requirement.holds(labels))
    }
}

impl Requirement {
    fn new(expression: Expression) -> Result<Self, SelectorError> {
        let Expression { key, operator, values } = expression;
        if key.is_empty() {
            return Err(SelectorError::EmptyKey);
        }
        let values: BTreeSet<_> = values.into_iter().collect();
        let test = match (operator.as_str(), values.is_empty()) {
            ("In", false) => Test::In(values),
            ("NotIn", false) => Test::NotIn(values),
            ("Exists", true) => Test::Exists,
            ("DoesNotExist", true) => Test::DoesNotExist,
            ("In" | "NotIn", true) => return Err(SelectorError::ValuesMissing { key, operator }),
            ("Exists" | "DoesNotExist", false) => {
                return Err(SelectorError::ValuesUnexpected { key, operator });
            }
            (_, _) => return Err(SelectorError::UnknownOperator { key, operator }),
        };
        Ok(Self { key, test })
    }

    /// A missing key satisfies what asks for absence: `NotIn` and `DoesNotExist`.
    fn holds(&self, labels: &Labels) -> bool {
        let value = labels.get(&self.key);
        match &self.test {
            Test::In(values) => value.is_some_and(|value| values.contains(value)),
            Test::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
            Test::Exists => value.is_some(),
            Test::DoesNotExist => value.is_none(),
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, requirement) in self.requirements.iter().enumerate() {
            if number > 0 {
                f.write_str(",")?;
            }
            write!(f, "{requirement}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.key;
        let list = |values: &BTreeSet<String>| values.iter().cloned().collect::<Vec<_>>().join(",");
        match &self.test {
            Test::In(values) if values.len() == 1 => write!(f, "{key}={}", list(values)),
            Test::In(values) => write!(f, "{key} in ({})", list(values)),
            Test::NotIn(values) if values.len() == 1 => write!(f, "{key}!={}", list(values)),
            Test::NotIn(values) => write!(f, "{key} notin ({})", list(values)),
            Test::Exists => write!(f, "{key}"),
            Test::DoesNotExist => write!(f, "!{key}"),
        }
    }
}

#[cfg(test)]
mod tests;
