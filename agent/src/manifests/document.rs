//! The documents of a file: text to trees, and fields back to lines.
//!
//! Knows YAML and nothing of Kubernetes. JSON is read as the YAML that it is. A file is cut at its
//! `---` lines before it is parsed (a line that starts so ends a document wherever it stands), so
//! that every broken document of a file can be reported, not only the first.
//!
//! Invariant: no document makes the agent run out of memory or stack. Depth, nodes, events and
//! bytes are limited, those that aliases multiply included.

use std::cell::Cell;

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::Value;
use serde_saphyr::{Error, Spanned};
use tracing::trace;

use crate::convert::{Defect, FieldPath, Segment};

/// Nodes of one document: some ten thousand pods as kubectl prints them.
const MAX_NODES: usize = 2_000_000;

/// One document of a file.
#[derive(Debug)]
pub(super) struct Document<'a> {
    /// Counted from one; documents without content don't count.
    pub(super) number: usize,
    /// The line of the file that its text starts with, counted from one.
    first_line: u64,
    text: &'a str,
}

/// A place in a file, counted from one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The line.
    pub line: u64,
    /// The column, in characters.
    pub column: u64,
}

/// The documents of a file that have content.
pub(super) fn documents(text: &str) -> Vec<Document<'_>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut documents = Vec::new();
    let (mut start, mut first_line, mut has_content) = (0, 1, false);
    let mut offset = 0;
    let mut close = |start, end, first_line, has_content| {
        if has_content {
            let number = documents.len() + 1;
            documents.push(Document { number, first_line, text: &text[start..end] });
        }
    };
    for (line, number) in text.split_inclusive('\n').zip(1..) {
        let after_marker = line
            .strip_prefix("---")
            .filter(|rest| rest.is_empty() || rest.starts_with(|c: char| c.is_ascii_whitespace()));
        if after_marker.is_some() {
            close(start, offset, first_line, has_content);
            (start, first_line, has_content) = (offset, number, false);
        }
        let content = after_marker.unwrap_or(line).trim_start();
        has_content |= !content.is_empty() && !content.starts_with('#');
        offset += line.len();
    }
    close(start, offset, first_line, has_content);
    documents
}

impl Document<'_> {
    /// The document as a tree.
    pub(super) fn read(&self) -> Result<Value, (Option<Place>, Defect)> {
        let mut field = FieldPath::default();
        let tree = serde_saphyr::with_deserializer_from_str_with_options(
            self.text,
            options(),
            |deserializer| {
                let mut track = serde_path_to_error::Track::new();
                let deserializer = serde_path_to_error::Deserializer::new(deserializer, &mut track);
                let tree = Value::deserialize(deserializer);
                field = FieldPath::from(&track.path());
                tree
            },
        );
        tree.map_err(|error| {
            let place = error.location().map(|place| self.place(place));
            (place, Defect::new(field, explain(&error)))
        })
    }

    /// Where the field stands; where it is missing, what it is missing from.
    pub(super) fn locate(&self, field: &FieldPath) -> Option<Place> {
        let found = Cell::new(None);
        let search = Search { path: field.segments(), found: &found };
        // A field that isn't there ends the search with an error; what it came by is what counts.
        let searched =
            serde_saphyr::with_deserializer_from_str_with_options(self.text, options(), |d| {
                search.deserialize(d)
            });
        trace!(?searched, "looked for {field}");
        found.get().map(|place| self.place(place)).or_else(|| self.first_content())
    }

    fn place(&self, place: serde_saphyr::Location) -> Place {
        Place { line: self.first_line + place.line() - 1, column: place.column() }
    }

    fn first_content(&self) -> Option<Place> {
        let is_content = |line: &str| !line.is_empty() && !line.starts_with(['#', '-', '%']);
        let lines = self.text.lines().zip(self.first_line..);
        let (_, line) = lines.into_iter().find(|(text, _)| is_content(text.trim()))?;
        Some(Place { line, column: 1 })
    }
}

fn options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        with_snippet: false,
        emit_comments: false,
        // Octal for some readers of YAML, decimal for others: not a number for us.
        leading_zero_numbers_as_strings: true,
        budget: serde_saphyr::budget! {
            max_nodes: MAX_NODES,
            max_events: 2 * MAX_NODES,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: 100_000,
        },
    }
}

/// The parser's error in words for those who write manifests; the place is told apart from it.
fn explain(error: &Error) -> String {
    if let Error::DuplicateMappingKey { key, .. } = error.without_snippet() {
        let key = key.as_deref().map_or_else(String::new, |key| format!(" `{key}`"));
        return format!("the key{key} stands twice in one mapping; remove one of them");
    }
    let what = without_place(error);
    let is_limit = matches!(
        error.without_snippet(),
        Error::Budget { .. }
            | Error::AliasReplayLimitExceeded { .. }
            | Error::AliasReplayStackDepthExceeded { .. }
            | Error::AliasExpansionLimitExceeded { .. }
    );
    if is_limit {
        return format!("too large or too deeply nested ({what}); split it, write aliases out");
    }
    format!("not YAML ({what}); correct it")
}

fn without_place(error: &Error) -> String {
    let message = error.without_snippet().to_string();
    match message.rfind(" at line ") {
        Some(end) => message[..end].to_owned(),
        None => message,
    }
}

/// Walks down a path, and notes the place of everything that it finds on the way.
struct Search<'a> {
    path: &'a [Segment],
    found: &'a Cell<Option<serde_saphyr::Location>>,
}

impl<'de> DeserializeSeed<'de> for Search<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        match self.path {
            [] => IgnoredAny::deserialize(deserializer).map(drop),
            [Segment::Field(_), ..] => deserializer.deserialize_map(self),
            [Segment::Element(_), ..] => deserializer.deserialize_seq(self),
        }
    }
}

impl<'de> Visitor<'de> for Search<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a mapping or a sequence")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Some((Segment::Field(wanted), path)) = self.path.split_first() else { return Ok(()) };
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            if key.value == *wanted {
                self.found.set(Some(key.referenced));
                map.next_value_seed(Search { path, found: self.found })?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let Some((Segment::Element(wanted), path)) = self.path.split_first() else { return Ok(()) };
        for _ in 0..*wanted {
            list.next_element::<IgnoredAny>()?;
        }
        if path.is_empty() {
            let element = list.next_element::<Spanned<IgnoredAny>>()?;
            self.found.set(element.map(|element| element.referenced).or(self.found.get()));
        } else {
            list.next_element_seed(Search { path, found: self.found })?;
        }
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }
}
