//! A Service: which addresses and ports lead to its backends.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::{
    api,
    policy::model::{Service, ServicePort},
};

use super::{Converted, Defect, FieldPath, address, decode, object_key, port};

/// A v1 Service.
///
/// The service is let through where its backends are, so what isn't known of it opens nothing: an
/// address or port that can't be read is a defect, and the service is without it.
///
/// # Errors
/// When name, `spec` or `status` can't be read.
pub fn service(object: &Value) -> Result<Converted<Service>, Defect> {
    let api::Service { metadata, spec, status } = decode(object, &FieldPath::default())?;
    let key = object_key(metadata.unwrap_or_default())?;
    let spec = spec.unwrap_or_default();
    let mut defects = Vec::new();
    let addresses = written_addresses(&spec, &status.unwrap_or_default())
        .into_iter()
        .filter_map(|(field, text)| {
            let address = address::unicast(text, "service");
            address.map_err(|problem| defects.push(Defect::new(field, problem))).ok()
        })
        .collect();
    let ports = ports(spec.ports.as_deref().unwrap_or_default(), &mut defects);
    Ok(Converted { object: Service { key, addresses, ports }, defects })
}

/// None for a service without cluster address: proxies leave it alone, whatever else it has.
fn written_addresses<'a>(
    spec: &'a api::ServiceSpec,
    status: &'a api::ServiceStatus,
) -> Vec<(FieldPath, &'a str)> {
    let at = FieldPath::of(&["spec"]);
    let list = |addresses: &'a Option<Vec<String>>, field| {
        let at = at.field(field);
        let addresses = addresses.iter().flatten().enumerate();
        addresses.map(move |(index, address)| (at.element(index), address.as_str()))
    };
    let mut cluster: Vec<_> = list(&spec.cluster_ips, "clusterIPs").collect();
    if cluster.is_empty() {
        cluster.extend(spec.cluster_ip.as_deref().map(|ip| (at.field("clusterIP"), ip)));
    }
    // `None` says that there is none on purpose.
    cluster.retain(|(_, address)| !matches!(*address, "" | "None"));
    if cluster.is_empty() || spec.kind.as_deref() == Some("ExternalName") {
        return Vec::new();
    }

    cluster.extend(list(&spec.external_ips, "externalIPs"));
    let at = FieldPath::of(&["status", "loadBalancer", "ingress"]);
    let balancer = status.load_balancer.iter().flat_map(|b| b.ingress.iter().flatten());
    cluster.extend(balancer.enumerate().filter_map(|(index, ingress)| {
        let ip = ingress.ip.as_deref().filter(|ip| !ip.is_empty())?;
        Some((at.element(index).field("ip"), ip))
    }));
    cluster
}

/// Of two ports with one number neither counts: they may lead to different ports of the backends.
fn ports(written: &[api::ServicePort], defects: &mut Vec<Defect>) -> Vec<ServicePort> {
    let mut ports = BTreeMap::new();
    let mut ambiguous = BTreeSet::new();
    for (index, written) in written.iter().enumerate() {
        let at = FieldPath::of(&["spec", "ports"]).element(index);
        match service_port(written, &at) {
            Err(defect) => defects.push(defect),
            Ok(port) => {
                let number = (port.protocol, port.port);
                if ports.insert(number, port).is_some() {
                    let problem = format!(
                        "another port of the service is {} {}, too; remove one of them (neither \
                         counts until then)",
                        number.0, number.1
                    );
                    defects.push(Defect::new(at.field("port"), problem));
                    ambiguous.insert(number);
                }
            }
        }
    }
    ports.retain(|number, _| !ambiguous.contains(number));
    ports.into_values().collect()
}

fn service_port(written: &api::ServicePort, at: &FieldPath) -> Result<ServicePort, Defect> {
    let within = |field, problem| Defect::new(at.field(field), problem);
    let protocol = written.protocol.as_deref().filter(|protocol| !protocol.is_empty());
    Ok(ServicePort {
        name: written.name.clone().unwrap_or_default(),
        protocol: port::protocol(protocol).map_err(|problem| within("protocol", problem))?,
        port: port::number(written.port).map_err(|problem| within("port", problem))?,
    })
}
