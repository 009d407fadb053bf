//! What is wrong with the manifests, in words that name the place and the remedy.

use std::{fmt, path::PathBuf};

use crate::convert::Defect;

use super::document::Place;

/// Something that is wrong at the moment. It is gone from the next scan that finds it mended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What is affected.
    pub kind: ProblemKind,
    /// The object (`NetworkPolicy shop/web`), the file or the directory.
    pub subject: String,
    /// Where it is, what it is, what to do about it.
    pub message: String,
}

/// What a [`Problem`] affects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProblemKind {
    /// The directory is missing, unreadable or empty. What was known before stays live.
    Directory,
    /// A file can't be read as a whole. What it said before stays live.
    File,
    /// A Namespace is not what the API allows, or is defined twice. It counts without its broken
    /// part.
    Namespace,
    /// A Pod is not what the API allows, or is defined twice. It counts without its broken part.
    Pod,
    /// A NetworkPolicy is not what the API allows, or defined twice. It closes its pods.
    NetworkPolicy,
    /// A Service is not what the API allows, or defined twice. It counts without its broken part.
    Service,
    /// An EndpointSlice is not what the API allows, or defined twice. Nothing is known to be
    /// allowed at its broken port.
    EndpointSlice,
    /// A Node is not what the API allows, or defined twice. It counts without its broken part.
    Node,
}

impl ProblemKind {
    /// Every kind.
    pub const ALL: &[Self] = &[
        Self::Directory,
        Self::File,
        Self::Namespace,
        Self::Pod,
        Self::NetworkPolicy,
        Self::Service,
        Self::EndpointSlice,
        Self::Node,
    ];

    /// The word that metrics, logs and output use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Directory => "Directory",
            Self::File => "File",
            Self::Namespace => "Namespace",
            Self::Pod => "Pod",
            Self::NetworkPolicy => "NetworkPolicy",
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::Node => "Node",
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.subject, self.message)
    }
}

/// A defect, and where in which file it is.
///
/// Displayed as `FILE:LINE:COLUMN: document N: FIELD: what is wrong; remedy`, without the parts
/// that aren't known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ManifestError {
    /// The file.
    pub file: PathBuf,
    /// The place in the file.
    pub place: Option<Place>,
    /// The document of the file, counted from one.
    pub document: Option<usize>,
    /// Field, problem and remedy.
    pub defect: Defect,
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(Place { line, column }) = self.place {
            write!(f, ":{line}:{column}")?;
        }
        if let Some(document) = self.document {
            write!(f, ": document {document}")?;
        }
        write!(f, ": {}", self.defect)
    }
}
