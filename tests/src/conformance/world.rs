//! A cluster that a case changes: Kubernetes objects in, the model's changes out.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
};

use bulkhead::{
    convert::{self, Converted, Defect},
    policy::model::{Change, ObjectKey},
    reach::cluster::Cluster,
};
use serde_json::{Value, json};

use super::{Action, Model, NamespaceModel, NodeModel, PodDefaults, PodModel};

/// The state, and what it was made of.
pub(super) struct World {
    pub(super) cluster: Cluster,
    /// What could not be converted as it stands.
    pub(super) problems: Vec<String>,
    pod_defaults: PodDefaults,
    pods: BTreeMap<ObjectKey, PodModel>,
    policies: BTreeSet<ObjectKey>,
}

impl World {
    pub(super) fn new(model: &Model) -> Self {
        let mut world = Self {
            cluster: Cluster::new(),
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
            world.set_pod(pod.clone());
        }
        world.cluster.apply(Change::SourceComplete(true));
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
                self.cluster.apply(Change::PolicyDeleted(key));
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
                    self.cluster.apply(Change::PodDeleted(pod));
                }
                for policy in policies {
                    self.policies.remove(&policy);
                    self.cluster.apply(Change::PolicyDeleted(policy));
                }
                self.cluster.apply(Change::NamespaceDeleted(namespace));
            }
            Action::CreatePod { pod } => self.set_pod(pod),
            Action::SetPodLabels { namespace, pod, labels } => {
                let pod = self.pods[&ObjectKey::new(namespace, pod)].clone();
                self.set_pod(PodModel { labels, ..pod });
            }
            Action::DeletePod { namespace, pod } => {
                let key = ObjectKey::new(namespace, pod);
                self.pods.remove(&key).expect("it is there to be deleted");
                self.cluster.apply(Change::PodDeleted(key));
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

    fn set_pod(&mut self, pod: PodModel) {
        let ports = pod.ports.as_ref().unwrap_or(&self.pod_defaults.ports);
        let object = pod_object(&pod, ports);
        self.pods.insert(ObjectKey::new(&*pod.namespace, &*pod.name), pod);
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
                self.cluster.apply(change(object));
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

fn pod_object(pod: &PodModel, ports: &Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": pod.name, "namespace": pod.namespace, "labels": pod.labels },
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
