//! An EndpointSlice: the backends of a service.
//!
//! Invariant: no backend is lost. A service is let through where *all* of its backends are, so one
//! that is missing would open the service. That is why a slice of which a backend, the name of a port
//! or the state of an endpoint can't be read is an error as a whole, and not a slice without it.

use std::{collections::BTreeSet, net::IpAddr};

use serde_json::Value;

use crate::{
    api,
    policy::model::{EndpointSlice, SlicePort},
};

use super::{Converted, Defect, FieldPath, address, decode, object_key, port};

/// The only version of EndpointSlice that is read.
const API_VERSION: &str = "discovery.k8s.io/v1";
/// The label that says whose backends they are.
const SERVICE_LABEL: &str = "kubernetes.io/service-name";

/// A discovery.k8s.io/v1 EndpointSlice; `None` if it holds no addresses of any service.
///
/// A port whose number can't be read is a defect, and a port of which nothing is known to be allowed.
///
/// # Errors
/// When anything else of it can't be read.
pub fn endpoint_slice(object: &Value) -> Result<Converted<Option<EndpointSlice>>, Defect> {
    if object["apiVersion"] != API_VERSION {
        let problem = format!("not the version of an EndpointSlice; write {API_VERSION}");
        return Err(Defect::new(FieldPath::of(&["apiVersion"]), problem));
    }
    let slice: api::EndpointSlice = decode(object, &FieldPath::default())?;
    let metadata = slice.metadata.unwrap_or_default();
    let mut labels = metadata.labels.unwrap_or_default();
    let key = object_key(api::Name { name: metadata.name, namespace: metadata.namespace })?;
    let is_family = match slice.address_type.as_deref() {
        Some("IPv4") => IpAddr::is_ipv4,
        Some("IPv6") => IpAddr::is_ipv6,
        Some("FQDN") => return Ok(Converted { object: None, defects: Vec::new() }),
        other => {
            let written = other.map_or_else(|| "none".to_owned(), |other| format!("`{other}`"));
            let problem = format!("unknown address type ({written}); write IPv4 or IPv6");
            return Err(Defect::new(FieldPath::of(&["addressType"]), problem));
        }
    };
    let Some(service) = labels.remove(SERVICE_LABEL).filter(|service| !service.is_empty()) else {
        return Ok(Converted { object: None, defects: Vec::new() });
    };

    let mut defects = Vec::new();
    let mut ready = BTreeSet::new();
    for (index, endpoint) in slice.endpoints.iter().flatten().enumerate() {
        let at = FieldPath::of(&["endpoints"]).element(index).field("addresses");
        let is_ready = endpoint.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true);
        for (index, text) in endpoint.addresses.iter().flatten().enumerate() {
            let defect = |problem| Defect::new(at.element(index), problem);
            let address = address::unicast(text, "backend").map_err(defect)?;
            if !is_family(&address) {
                let problem = format!("{address} is not of the slice's addressType; correct one");
                return Err(defect(problem));
            }
            if is_ready {
                ready.insert(address);
            }
        }
    }
    let ports = slice.ports.iter().flatten().enumerate();
    let ports = ports
        .map(|(index, written)| {
            let at = FieldPath::of(&["ports"]).element(index);
            slice_port(written, &at, &mut defects)
        })
        .collect::<Result<_, _>>()?;
    let slice = EndpointSlice { key, service: service.into(), ports, ready };
    Ok(Converted { object: Some(slice), defects })
}

fn slice_port(
    written: &api::EndpointPort,
    at: &FieldPath,
    defects: &mut Vec<Defect>,
) -> Result<SlicePort, Defect> {
    let protocol = port::protocol(written.protocol.as_deref())
        .map_err(|problem| Defect::new(at.field("protocol"), problem))?;
    let number = written.port.map(port::number).transpose().unwrap_or_else(|problem| {
        defects.push(Defect::new(at.field("port"), problem));
        None
    });
    Ok(SlicePort { name: written.name.clone().unwrap_or_default(), protocol, port: number })
}
