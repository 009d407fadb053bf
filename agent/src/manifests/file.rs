//! One manifest file: which objects it defines.
//!
//! Invariant: a file counts whole or not at all. If any of its documents can't be read, or holds an
//! object that can't be attributed, there is no telling what the file meant to say, so nothing of
//! it replaces what it said before. An object that is merely wrong closes by itself (see
//! [`crate::convert`]) and doesn't hold up its neighbours.

use std::{
    fs,
    io::{self, Read},
    path::Path,
};

use serde_json::Value;
use tracing::debug;

use crate::{
    convert::{self, Converted, Defect, FieldPath},
    policy::model::{EndpointSlice, Namespace, Node, Pod, Policy, Service},
};

use super::{
    document::{Document, Place, documents},
    problem::{ManifestError, Problem, ProblemKind},
};

/// The largest file that is read: some thousand pods as kubectl prints them.
pub(super) const MAX_FILE_BYTES: u64 = 32 << 20;

/// Kinds of networking.k8s.io that are not ours. Any other kind of that group is likely a
/// misspelt NetworkPolicy.
const OTHER_NETWORKING_KINDS: [&str; 4] = ["Ingress", "IngressClass", "IPAddress", "ServiceCIDR"];

/// Problems of one file that are told with line and column: finding those means reading the
/// document once more.
const MAX_PLACED_PROBLEMS: usize = 100;

/// An object, and which document of its file defines it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Definition {
    pub(super) document: usize,
    pub(super) object: Object,
}

/// An object of the model.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Object {
    Namespace(Namespace),
    Pod(Pod),
    Policy(Policy),
    Service(Service),
    EndpointSlice(EndpointSlice),
    Node(Node),
}

/// What a whole file says.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Contents {
    pub(super) definitions: Vec<Definition>,
    pub(super) problems: Vec<Problem>,
}

impl Object {
    /// What a problem with it affects.
    pub(super) const fn kind(&self) -> ProblemKind {
        match self {
            Self::Namespace(_) => ProblemKind::Namespace,
            Self::Pod(_) => ProblemKind::Pod,
            Self::Policy(_) => ProblemKind::NetworkPolicy,
            Self::Service(_) => ProblemKind::Service,
            Self::EndpointSlice(_) => ProblemKind::EndpointSlice,
            Self::Node(_) => ProblemKind::Node,
        }
    }

    /// Kind and name.
    pub(super) fn subject(&self) -> String {
        match self {
            Self::Namespace(namespace) => format!("Namespace {}", namespace.name),
            Self::Pod(pod) => format!("Pod {}", pod.key),
            Self::Policy(policy) => format!("NetworkPolicy {}", policy.key),
            Self::Service(service) => format!("Service {}", service.key),
            Self::EndpointSlice(slice) => format!("EndpointSlice {}", slice.key),
            Self::Node(node) => format!("Node {}", node.name),
        }
    }
}

/// The bytes of a file; `None` for a directory, whatever its name.
pub(super) fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let metadata = fs::metadata(path)?;
    if metadata.is_dir() {
        return Ok(None);
    }
    // Opening a pipe would wait for somebody to write into it.
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        let limit = MAX_FILE_BYTES >> 20;
        return Err(io::Error::other(format!("it is larger than {limit} MiB; split it")));
    }
    Ok(Some(bytes))
}

/// Reads all that a file says.
///
/// # Errors
/// Every reason why the file can't count as a whole.
pub(super) fn parse(path: &Path, bytes: &[u8]) -> Result<Contents, Vec<Problem>> {
    let broken = |place, document, defect| {
        let file = path.to_owned();
        let message = ManifestError { file, place, document, defect }.to_string();
        Problem { kind: ProblemKind::File, subject: path.display().to_string(), message }
    };
    let whole = |problem: &str| Defect::new(FieldPath::default(), problem);
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let before = &bytes[..error.valid_up_to()];
        let line = before.iter().filter(|byte| **byte == b'\n').count() as u64 + 1;
        let line_start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let characters = String::from_utf8_lossy(&before[line_start..]).chars().count();
        let place = Place { line, column: characters as u64 + 1 };
        vec![broken(Some(place), None, whole("not UTF-8; save the file as UTF-8"))]
    })?;
    if text.trim().is_empty() {
        // Somebody is about to write it, or was cut off: not a way to delete objects.
        let defect = whole("the file is empty; write it whole, or remove it with its objects");
        return Err(vec![broken(None, None, defect)]);
    }

    let mut contents = Contents::default();
    let mut reasons = Vec::new();
    for document in documents(text) {
        let number = Some(document.number);
        match document.read() {
            Err((place, defect)) => reasons.push(broken(place, number, defect)),
            Ok(tree) => {
                let mut reader =
                    DocumentReader { path, document: &document, contents: &mut contents };
                if let Err(defect) = reader.object(&tree, &FieldPath::default()) {
                    reasons.push(broken(document.locate(&defect.field), number, defect));
                }
            }
        }
    }
    if reasons.is_empty() { Ok(contents) } else { Err(reasons) }
}

/// Collects the objects of one document.
struct DocumentReader<'a> {
    path: &'a Path,
    document: &'a Document<'a>,
    contents: &'a mut Contents,
}

impl DocumentReader<'_> {
    /// Adds the object at `at`, or all objects of the list there.
    fn object(&mut self, object: &Value, at: &FieldPath) -> Result<(), Defect> {
        let Some(kind) = object["kind"].as_str() else {
            let problem = "the object has no kind; write one, such as `kind: NetworkPolicy`";
            return Err(Defect::new(at.field("kind"), problem));
        };
        let api_version = object["apiVersion"].as_str().unwrap_or_default();
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        match (group, kind) {
            ("", "List" | "NamespaceList" | "NodeList" | "PodList" | "ServiceList")
            | ("discovery.k8s.io", "EndpointSliceList")
            | ("" | "networking.k8s.io" | "extensions", "NetworkPolicyList") => {
                self.list(object, kind.trim_end_matches("List"), api_version, at)
            }
            ("", "Namespace" | "Node" | "Pod" | "Service") if api_version != "v1" => {
                let problem = format!("not the version of a {kind}; write v1");
                Err(Defect::new(at.field("apiVersion"), problem))
            }
            ("", "Namespace") => self.add(convert::namespace(object), Object::Namespace, at),
            ("", "Pod") => self.add(convert::pod(object), Object::Pod, at),
            ("" | "networking.k8s.io" | "extensions", "NetworkPolicy") => {
                self.add(convert::policy(object), Object::Policy, at)
            }
            ("", "Service") => self.add(convert::service(object), Object::Service, at),
            ("", "Node") => self.add(convert::node(object), Object::Node, at),
            ("" | "discovery.k8s.io", "EndpointSlice") => self.endpoint_slice(object, at),
            ("discovery.k8s.io", other) => {
                let problem = format!("unknown kind `{other}`; write EndpointSlice if it is one");
                Err(Defect::new(at.field("kind"), problem))
            }
            ("networking.k8s.io", other)
                if !OTHER_NETWORKING_KINDS.contains(&other.trim_end_matches("List")) =>
            {
                let problem = format!("unknown kind `{other}`; write NetworkPolicy if it is one");
                Err(Defect::new(at.field("kind"), problem))
            }
            (_, other) => {
                let (file, document) = (self.path.display(), self.document.number);
                debug!(%file, document, api_version, kind = other, "skipped: not a kind that is used");
                Ok(())
            }
        }
    }

    /// The items of a list. Those of a typed list may leave kind and version to the list.
    fn list(
        &mut self,
        list: &Value,
        kind: &str,
        api_version: &str,
        at: &FieldPath,
    ) -> Result<(), Defect> {
        let at = at.field("items");
        let Some(items) = list["items"].as_array() else {
            let problem = "the list has no items; write `items: []` if it is meant to be empty";
            return Err(Defect::new(at, problem));
        };
        for (index, item) in items.iter().enumerate() {
            let at = at.element(index);
            if let Value::Object(fields) = item
                && !kind.is_empty()
                && !fields.contains_key("kind")
            {
                let mut fields = fields.clone();
                fields.insert("kind".to_owned(), kind.into());
                fields.entry("apiVersion").or_insert_with(|| api_version.into());
                self.object(&Value::Object(fields), &at)?;
            } else {
                self.object(item, &at)?;
            }
        }
        Ok(())
    }

    fn endpoint_slice(&mut self, object: &Value, at: &FieldPath) -> Result<(), Defect> {
        let converted = match convert::endpoint_slice(object) {
            Ok(Converted { object: Some(object), defects }) => Ok(Converted { object, defects }),
            Ok(Converted { object: None, .. }) => {
                let (file, document) = (self.path.display(), self.document.number);
                debug!(%file, document, "skipped: an endpoint slice without service or addresses");
                return Ok(());
            }
            Err(defect) => Err(defect),
        };
        self.add(converted, Object::EndpointSlice, at)
    }

    fn add<T>(
        &mut self,
        converted: Result<Converted<T>, Defect>,
        wrap: fn(T) -> Object,
        at: &FieldPath,
    ) -> Result<(), Defect> {
        let within = |defect: Defect| Defect { field: at.join(&defect.field), ..defect };
        let Converted { object, defects } = converted.map_err(within)?;
        let object = wrap(object);
        for defect in defects.into_iter().map(within) {
            let error = ManifestError {
                file: self.path.to_owned(),
                place: (self.contents.problems.len() < MAX_PLACED_PROBLEMS)
                    .then(|| self.document.locate(&defect.field))
                    .flatten(),
                document: Some(self.document.number),
                defect,
            };
            let (kind, subject) = (object.kind(), object.subject());
            self.contents.problems.push(Problem { kind, subject, message: error.to_string() });
        }
        self.contents.definitions.push(Definition { document: self.document.number, object });
        Ok(())
    }
}
