//! The path of a field in an object, such as `spec.ingress[0].from`.

use std::fmt;

/// Where in an object something is. The empty path is the object itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldPath(Vec<Segment>);

/// One step of a [`FieldPath`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment {
    /// The field or key of this name.
    Field(String),
    /// The element of a list, counted from zero.
    Element(usize),
}

impl FieldPath {
    /// From the names of nested fields: `FieldPath::of(&["spec", "podSelector"])`.
    pub fn of(fields: &[&str]) -> Self {
        Self(fields.iter().map(|field| Segment::Field((*field).to_owned())).collect())
    }

    /// The path of a field of what this path names.
    pub fn field(&self, name: &str) -> Self {
        self.with(Segment::Field(name.to_owned()))
    }

    /// The path of an element of the list that this path names.
    pub fn element(&self, index: usize) -> Self {
        self.with(Segment::Element(index))
    }

    /// `inner`, a path that starts where this one ends.
    pub fn join(&self, inner: &Self) -> Self {
        Self(self.0.iter().chain(&inner.0).cloned().collect())
    }

    /// The steps from the object to the field.
    pub fn segments(&self) -> &[Segment] {
        &self.0
    }

    /// Whether this is the object itself.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn with(&self, segment: Segment) -> Self {
        Self(self.0.iter().cloned().chain([segment]).collect())
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, segment) in self.0.iter().enumerate() {
            match segment {
                Segment::Field(name) if position == 0 => f.write_str(name)?,
                Segment::Field(name) => write!(f, ".{name}")?,
                Segment::Element(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// As far as the path is known: a key that could not be read ends it.
impl From<&serde_path_to_error::Path> for FieldPath {
    fn from(path: &serde_path_to_error::Path) -> Self {
        use serde_path_to_error::Segment as Step;
        Self(
            path.iter()
                .map_while(|step| match step {
                    Step::Seq { index } => Some(Segment::Element(*index)),
                    Step::Map { key } | Step::Enum { variant: key } => {
                        Some(Segment::Field(key.clone()))
                    }
                    Step::Unknown => None,
                })
                .collect(),
        )
    }
}
