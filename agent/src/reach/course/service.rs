//! How a service is reached: out to its address, and in at each backend that is ready.

use std::{collections::BTreeSet, net::IpAddr};

use anyhow::{Context as _, Result, bail};

use super::{Course, Party, at, egress, families, into, known, leg, traffic};
use crate::{
    policy::{
        evaluate::Traffic,
        model::{ObjectKey, Protocol, Service},
    },
    reach::{
        cluster::Cluster,
        flow::{Family, FlowSpec},
    },
};

/// The service that an address leads to, and the address: of several, one that has the port.
pub(super) fn with_address<'a>(
    cluster: &'a Cluster,
    address: IpAddr,
    spec: &FlowSpec,
) -> Option<(&'a ObjectKey, Option<IpAddr>)> {
    if is_taken(cluster, address) {
        return None;
    }
    let services = cluster.objects().services().values();
    let at: Vec<&Service> = services.filter(|s| s.addresses.contains(&address)).collect();
    let serves = |service: &&&Service| {
        let mut ports = service.ports.iter();
        ports.any(|p| Some(p.protocol) == spec.protocol.transport() && Some(p.port) == spec.port)
    };
    let service = at.iter().find(serves).or(at.first())?;
    Some((&service.key, Some(address)))
}

/// Whether a live pod or a node has an address: it is no service's then.
fn is_taken(cluster: &Cluster, address: IpAddr) -> bool {
    let objects = cluster.objects();
    !objects.claimants(address).is_empty()
        || objects.nodes().values().any(|node| node.addresses.contains(&address))
}

/// A backend of one port of a service.
type Backend = (IpAddr, u16);

/// The ways to a service; `address`: through this one of its addresses only.
pub(super) fn courses(
    cluster: &Cluster,
    source: &Party<'_>,
    key: &ObjectKey,
    address: Option<IpAddr>,
    spec: &FlowSpec,
) -> Result<Vec<Course>> {
    let Some(service) = cluster.objects().services().get(key) else {
        let namespace =
            cluster.objects().services().keys().filter(|other| other.namespace == key.namespace);
        bail!("to: no service {key} is known; {}", known("services of its namespace", namespace));
    };
    let (Some(protocol), Some(port)) = (spec.protocol.transport(), spec.port) else {
        bail!("protocol: the service {key} serves TCP, UDP and SCTP, no {}", spec.protocol);
    };
    let backends = backends(cluster, service, protocol, port)?;
    let is_headless = service.addresses.is_empty();
    let addresses: BTreeSet<IpAddr> = match address {
        Some(address) => BTreeSet::from([address]),
        None if is_headless => backends.iter().map(|(address, _)| *address).collect(),
        None => service.addresses.iter().copied().filter(|a| !is_taken(cluster, *a)).collect(),
    };
    let families = families(spec, (&spec.from, &source.addresses), (&spec.to, &addresses))?;
    let mut courses = Vec::new();
    for family in families {
        let of_family = |address: &IpAddr| Family::of(*address) == family;
        let backends: Vec<&Backend> = backends.iter().filter(|(a, _)| of_family(a)).collect();
        if backends.is_empty() {
            bail!(
                "to: the service {key} has no backend that is ready for {protocol} {port} on \
                 {family}; EndpointSlices say which are"
            );
        }
        let mut questions = Vec::new();
        if !is_headless {
            let traffic = traffic(spec.protocol, spec.port, family)?;
            let through = addresses.iter().copied().filter(of_family);
            questions.extend(through.filter_map(|peer| egress(cluster, source, peer, traffic)));
        }
        for (address, port) in backends {
            let backend = at(cluster, *address).with_context(|| format!("to: service {key}"))?;
            let traffic = Traffic::Port(protocol, *port);
            questions.extend(if is_headless {
                leg(cluster, source, &backend, family, traffic)
            } else {
                into(cluster, source, &backend, family, traffic)
            });
        }
        courses.push(Course { family, questions });
    }
    Ok(courses)
}

/// The ready backends of a port, of both families.
fn backends(
    cluster: &Cluster,
    service: &Service,
    protocol: Protocol,
    port: u16,
) -> Result<BTreeSet<Backend>> {
    let key = &service.key;
    let Some(name) = service
        .ports
        .iter()
        .find(|served| served.protocol == protocol && served.port == port)
        .map(|served| &served.name)
    else {
        let ports =
            service.ports.iter().map(|served| format!("{} {}", served.protocol, served.port));
        bail!(
            "port: the service {key} has no port {protocol} {port}; {}",
            known("its ports", ports)
        );
    };
    let mut backends = BTreeSet::new();
    let slices = cluster.objects().endpoint_slices().values();
    for slice in slices.filter(|s| s.key.namespace == key.namespace && *s.service == *key.name) {
        for served in slice.ports.iter().filter(|p| p.name == *name && p.protocol == protocol) {
            let Some(port) = served.port else {
                bail!(
                    "to: the EndpointSlice {} does not say the number of port `{name}`",
                    slice.key
                );
            };
            backends.extend(slice.ready.iter().map(|address| (*address, port)));
        }
    }
    Ok(backends)
}
