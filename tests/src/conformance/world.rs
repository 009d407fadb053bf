//! A cluster that a case changes: Kubernetes objects in, the model's changes out.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
    mem,
    sync::atomic::{AtomicU64, Ordering},
};

use bulkhead::{
    convert::{self, Converted, Defect},
    policy::model::{Change, ObjectKey},
};
use serde_json::{Value, json};

use super::{Action, Model, NamespaceModel, NodeModel, PodDefaults, PodModel};

/// Tells pods apart that have a name one after the other.
static UIDS: AtomicU64 = AtomicU64::new(0);

/// What exists, and what of it was not told yet.
pub(super) struct World {
    changes: Vec<Change>,
    /// What could not be converted as it stands.
    pub(super) problems: Vec<String>,
    pod_defaults: PodDefaults,
    pods: BTreeMap<ObjectKey, LivePod>,
    policies: BTreeSet<ObjectKey>,
}

/// A pod from its creation on.
struct LivePod {
    model: PodModel,
    uid: String,
}

impl World {
    pub(super) fn new(model: &Model) -> Self {
        let mut world = Self {
            changes: Vec::new(),
            problems: Vec::new(),
            pod_defaults: model.pod_defaults.clone(),
            pods: BTreeMap::new(),
            policies: BTreeSet::new(),
        };
        for node in &model.nodes {
            world.apply(convert::node(&node_object(node)), Change::NodeApplied);
        }
        for namespace in &model.namespaces {
            world.set_namespace(namespace);
        }
        for pod in &model.pods {
            world.create_pod(pod.clone());
        }
        world.changes.push(Change::SourceComplete(true));
        world
    }

    pub(super) fn act(&mut self, action: Action) {
        match action {
            Action::Apply { object } => {
                let converted = convert::policy(&object);
                if let Ok(converted) = &converted {
                    self.policies.insert(converted.object.key.clone());
                }
                self.apply(converted, Change::PolicyApplied);
            }
            Action::Delete { kind, namespace, name } => {
                assert_eq!(kind, "NetworkPolicy");
                let key = ObjectKey::new(namespace, name);
                assert!(self.policies.remove(&key), "{key} is there to be deleted");
                self.changes.push(Change::PolicyDeleted(key));
            }
            Action::CreateNamespace { namespace: name, labels }
            | Action::SetNamespaceLabels { namespace: name, labels } => {
                self.set_namespace(&NamespaceModel { name, labels });
            }
            Action::DeleteNamespace { namespace } => {
                let inside = |key: &&ObjectKey| *key.namespace == *namespace;
                let pods: Vec<_> = self.pods.keys().filter(inside).cloned().collect();
                let policies: Vec<_> = self.policies.iter().filter(inside).cloned().collect();
                for pod in pods {
                    self.pods.remove(&pod);
                    self.changes.push(Change::PodDeleted(pod));
                }
                for policy in policies {
                    self.policies.remove(&policy);
                    self.changes.push(Change::PolicyDeleted(policy));
                }
                self.changes.push(Change::NamespaceDeleted(namespace));
            }
            Action::CreatePod { pod } => self.create_pod(pod),
            Action::SetPodLabels { namespace, pod, labels } => {
                let key = ObjectKey::new(namespace, pod);
                let mut pod = self.pods.remove(&key).expect("it is there to be changed");
                pod.model.labels = labels;
                self.set_pod(pod);
            }
            Action::DeletePod { namespace, pod } => {
                let key = ObjectKey::new(namespace, pod);
                self.pods.remove(&key).expect("it is there to be deleted");
                self.changes.push(Change::PodDeleted(key));
            }
        }
    }

    fn set_namespace(&mut self, namespace: &NamespaceModel) {
        let object = json!({
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": { "name": namespace.name, "labels": namespace.labels },
        });
        self.apply(convert::namespace(&object), Change::NamespaceApplied);
    }

    /// A pod that there is now.
    pub(super) fn pod(&self, key: &ObjectKey) -> Option<&PodModel> {
        self.pods.get(key).map(|pod| &pod.model)
    }

    /// The pods that there are now, but for those on their node's network.
    pub(super) fn pods(&self) -> impl Iterator<Item = &PodModel> {
        self.pods.values().map(|pod| &pod.model).filter(|pod| !pod.host_network)
    }

    /// What is to be told to somebody who was told everything before.
    pub(super) fn take_changes(&mut self) -> Vec<Change> {
        mem::take(&mut self.changes)
    }

    fn create_pod(&mut self, model: PodModel) {
        let uid = format!("uid-{}", UIDS.fetch_add(1, Ordering::Relaxed));
        self.set_pod(LivePod { model, uid });
    }

    fn set_pod(&mut self, pod: LivePod) {
        let ports = pod.model.ports.as_ref().unwrap_or(&self.pod_defaults.ports);
        let object = pod_object(&pod, ports);
        self.pods.insert(ObjectKey::new(&*pod.model.namespace, &*pod.model.name), pod);
        self.apply(convert::pod(&object), Change::PodApplied);
    }

    fn apply<T>(
        &mut self,
        converted: Result<Converted<T>, Defect>,
        change: impl FnOnce(T) -> Change,
    ) {
        let said = |defect: &dyn Display| format!("an object is refused: {defect}");
        match converted {
            Ok(Converted { object, defects }) => {
                self.problems.extend(defects.iter().map(|defect| said(defect)));
                self.changes.push(change(object));
            }
            Err(defect) => self.problems.push(said(&defect)),
        }
    }
}

fn node_object(node: &NodeModel) -> Value {
    let address = |ip| json!({ "type": "InternalIP", "address": ip });
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": { "name": node.name, "labels": node.labels },
        "status": { "addresses": node.ips.iter().map(address).collect::<Vec<_>>() },
    })
}

fn pod_object(LivePod { model: pod, uid }: &LivePod, ports: &Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": pod.name,
            "namespace": pod.namespace,
            "uid": uid,
            "labels": pod.labels,
        },
        "spec": {
            "nodeName": pod.node,
            "hostNetwork": pod.host_network,
            "containers": [{ "name": "serve", "image": "serve", "ports": ports }],
        },
        "status": {
            "phase": "Running",
            "podIPs": pod.ips.iter().map(|ip| json!({ "ip": ip })).collect::<Vec<_>>(),
        },
    })
}
