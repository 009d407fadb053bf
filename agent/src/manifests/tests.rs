//! The directory source over real directories. Paths in messages are shown as `DIR/...`.

use std::{fs, path::Path};

use tempfile::TempDir;

use super::*;
use crate::policy::{index::Index, model::ObjectKey};

mod bad_input;
mod bad_policies;
mod properties;
mod reading;
mod services;
mod watching;

const NAMESPACE: &str = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n";
const POD: &str = "apiVersion: v1
kind: Pod
metadata: {name: db, namespace: shop, labels: {app: db}}
status: {podIPs: [{ip: 10.0.0.10}]}
";
const POLICY: &str = "apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: lock, namespace: shop}
spec:
  podSelector: {matchLabels: {app: db}}
  ingress:
    - from:
        - podSelector: {matchLabels: {app: web}}
";
const SERVICE: &str = "apiVersion: v1
kind: Service
metadata: {name: db, namespace: shop}
spec:
  clusterIP: 10.96.0.10
  ports: [{name: sql, port: 3306}]
";
const SLICE: &str = "apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: db-1, namespace: shop, labels: {kubernetes.io/service-name: db}}
addressType: IPv4
endpoints: [{addresses: [10.0.0.10]}]
ports: [{name: sql, port: 3306}]
";
const NODE: &str = "apiVersion: v1
kind: Node
metadata: {name: n1}
status: {addresses: [{type: InternalIP, address: 192.168.0.1}]}
";

/// A directory, the source that looks at it, and what became of everything that the source said.
struct Fixture {
    directory: TempDir,
    source: ManifestDirectory,
    index: Index,
}

impl Fixture {
    /// Has not looked yet.
    fn new(files: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let source = ManifestDirectory::new(directory.path());
        let fixture = Self { directory, source, index: Index::new(None) };
        for (name, text) in files {
            fixture.write(name, text);
        }
        fixture
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn write(&self, name: &str, contents: impl AsRef<[u8]>) {
        fs::write(self.path().join(name), contents).unwrap();
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.path().join(name)).unwrap();
    }

    fn scan(&mut self) -> Scan {
        let scan = self.source.scan();
        for change in &scan.changes {
            self.index.apply(change.clone());
        }
        scan
    }

    /// Scans; says what changed and what is wrong.
    fn news(&mut self) -> (Vec<String>, Vec<String>) {
        let scan = self.scan();
        (scan.changes.iter().map(brief).collect(), self.messages(&scan))
    }

    fn messages(&self, scan: &Scan) -> Vec<String> {
        let directory = self.path().display().to_string();
        let message = |problem: &Problem| problem.message.replace(&directory, "DIR");
        scan.problems.iter().map(message).collect()
    }
}

/// `+` for applied, `-` for deleted.
fn brief(change: &Change) -> String {
    match change {
        Change::NamespaceApplied(namespace) => format!("+namespace {}", namespace.name),
        Change::NamespaceDeleted(name) => format!("-namespace {name}"),
        Change::PodApplied(pod) => format!("+pod {}", pod.key),
        Change::PodDeleted(key) => format!("-pod {key}"),
        Change::PolicyApplied(policy) if policy.refused.is_some() => {
            format!("+closed policy {}", policy.key)
        }
        Change::PolicyApplied(policy) => format!("+policy {}", policy.key),
        Change::PolicyDeleted(key) => format!("-policy {key}"),
        Change::ServiceApplied(service) => format!("+service {}", service.key),
        Change::ServiceDeleted(key) => format!("-service {key}"),
        Change::EndpointSliceApplied(slice) => format!("+endpointslice {}", slice.key),
        Change::EndpointSliceDeleted(key) => format!("-endpointslice {key}"),
        Change::NodeApplied(node) => format!("+node {}", node.name),
        Change::NodeDeleted(name) => format!("-node {name}"),
        Change::SourceComplete(true) => "complete".to_owned(),
        Change::SourceComplete(false) => "incomplete".to_owned(),
    }
}

fn lock() -> ObjectKey {
    ObjectKey::new("shop", "lock")
}
