//! A Pod: its labels, its addresses, and the ports that its containers name.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use serde_json::Value;

use crate::{
    api,
    policy::model::{NamedPort, Pod},
};

use super::{Converted, Defect, FieldPath, address, decode, object_key, port};

/// A v1 Pod.
///
/// An address that can't be read is a defect, and the pod has its other addresses: they lead to its
/// interface. A pod for which none is written is a pod that no traffic can match yet. A port of a
/// container that can't be read is a defect, and no rule that names it reaches the pod.
///
/// # Errors
/// When name, labels, `spec`, `status` or every address can't be read.
pub fn pod(object: &Value) -> Result<Converted<Pod>, Defect> {
    let api::Pod { metadata, spec, status } = decode(object, &FieldPath::default())?;
    let metadata = metadata.unwrap_or_default();
    let key = object_key(api::Name { name: metadata.name, namespace: metadata.namespace })?;
    let spec = spec.unwrap_or_default();
    let status = status.unwrap_or_default();
    let (addresses, mut defects) = pod_addresses(&status);
    if addresses.is_empty() && !defects.is_empty() {
        return Err(defects.remove(0));
    }
    let ports = container_ports(&object["spec"], &mut defects);
    let ended = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
    let pod = Pod {
        key,
        uid: metadata.uid.unwrap_or_default(),
        labels: Arc::new(metadata.labels.unwrap_or_default()),
        ports: ports.into(),
        addresses,
        node: spec.node_name.filter(|node| !node.is_empty()).map(Arc::from),
        host_network: spec.host_network.unwrap_or_default(),
        ended,
    };
    Ok(Converted { object: pod, defects })
}

/// At most one address of each family, as the API has it.
fn pod_addresses(status: &api::PodStatus) -> (Vec<IpAddr>, Vec<Defect>) {
    let field = FieldPath::of(&["status"]);
    let every = status.pod_ips.iter().flatten().enumerate();
    let mut written: Vec<(FieldPath, &str)> = every
        .map(|(i, address)| (field.field("podIPs").element(i).field("ip"), address.ip.as_str()))
        .collect();
    if written.is_empty() {
        written.extend(status.pod_ip.as_deref().map(|ip| (field.field("podIP"), ip)));
    }

    let mut addresses = BTreeSet::new();
    let mut defects = Vec::new();
    // The API server writes an empty podIP for a pod that has none yet.
    for (field, text) in written.into_iter().filter(|(_, text)| !text.is_empty()) {
        match address::unicast(text, "pod") {
            Err(problem) => defects.push(Defect::new(field, problem)),
            Ok(address) if addresses.contains(&address) => {}
            Ok(address) if addresses.iter().any(|a: &IpAddr| a.is_ipv4() == address.is_ipv4()) => {
                let problem = format!(
                    "{address} is a second address of the same family; a pod has at most one \
                     IPv4 and one IPv6 address: remove it (the first one counts)"
                );
                defects.push(Defect::new(field, problem));
            }
            Ok(address) => {
                addresses.insert(address);
            }
        }
    }
    (addresses.into_iter().collect(), defects)
}

/// The named ports of all containers that run while the pod does: those of `containers` first, then
/// those of `initContainers` that go on running.
///
/// A name stands for the first port that has it. So a broken port also hides the later ones of its
/// name: which port was meant isn't known.
fn container_ports(spec: &Value, defects: &mut Vec<Defect>) -> Vec<NamedPort> {
    let mut ports = Vec::new();
    let mut hidden = BTreeSet::new();
    for field in ["containers", "initContainers"] {
        let at = FieldPath::of(&["spec", field]);
        for (index, container) in elements(&spec[field], &at, defects) {
            if field == "initContainers" && container["restartPolicy"] != "Always" {
                continue;
            }
            let at = at.element(index).field("ports");
            for (index, written) in elements(&container["ports"], &at, defects) {
                let name = &written["name"];
                if name.is_null() || name == "" || hidden.contains(&name.as_str()) {
                    continue;
                }
                match container_port(written, &at.element(index)) {
                    Ok(port) => ports.push(port),
                    Err(defect) => {
                        defects.push(defect);
                        hidden.insert(name.as_str());
                    }
                }
            }
        }
    }
    ports
}

/// The elements of a list; none, and a defect, if it is something else.
fn elements<'a>(
    value: &'a Value,
    at: &FieldPath,
    defects: &mut Vec<Defect>,
) -> impl Iterator<Item = (usize, &'a Value)> + use<'a> {
    if !value.is_array() && !value.is_null() {
        let problem = "not a list; write one (until then no rule reaches the ports in it by name)";
        defects.push(Defect::new(at.clone(), problem));
    }
    value.as_array().into_iter().flatten().enumerate()
}

fn container_port(written: &Value, at: &FieldPath) -> Result<NamedPort, Defect> {
    let api::ContainerPort { name, protocol, container_port } = decode(written, at)?;
    let within = |field, problem| Defect::new(at.field(field), problem);
    port::check_name(&name).map_err(|problem| within("name", problem))?;
    let protocol = protocol.as_deref().filter(|protocol| !protocol.is_empty());
    Ok(NamedPort {
        name: name.into(),
        protocol: port::protocol(protocol).map_err(|problem| within("protocol", problem))?,
        number: port::number(container_port).map_err(|problem| within("containerPort", problem))?,
    })
}
