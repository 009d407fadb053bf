//! Flows towards the addresses of services.
//!
//! The packet is seen before its address is translated, so it may go to any ready backend: all of
//! them have to be allowed, or the service's own address.

use std::{collections::BTreeSet, net::IpAddr};

use bulkhead_common::verdict::Direction;

use super::{Evaluation, Flow, RuleName, Traffic, allowing, is_free_to, is_live};
use crate::policy::{
    index::Index,
    model::{ObjectKey, Pod, Policy, Protocol, ServicePort},
};

/// Where a service's address and port leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceBackends {
    /// The services: one, unless several share the address and the port.
    pub services: BTreeSet<ObjectKey>,
    /// The ready backends that the pod may reach.
    pub allowed: BTreeSet<Backend>,
    /// The ready backends that it may not.
    pub denied: BTreeSet<Backend>,
}

/// A ready backend of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Backend {
    /// Its address.
    pub address: IpAddr,
    /// The port at it; `None`: the slice doesn't say, so the backend is denied.
    pub port: Option<u16>,
}

/// The services that a flow is for, and all of their backends.
pub(super) struct Found {
    services: BTreeSet<ObjectKey>,
    protocol: Protocol,
    backends: BTreeSet<Backend>,
}

/// What a flow goes to if it goes to a port of a service.
pub(super) fn behind(index: &Index, flow: &Flow) -> Option<Found> {
    let is_egress = match flow.direction {
        Direction::Ingress => false,
        Direction::Egress => true,
    };
    let (protocol, number) = match flow.traffic {
        Traffic::Port(protocol, number) => (protocol, number),
        Traffic::Other(_) => return None,
    };
    if !is_egress || is_somebodys(index, flow.peer) {
        return None;
    }
    let mut found = Found { services: BTreeSet::new(), protocol, backends: BTreeSet::new() };
    for service in index.services().values().filter(|s| s.addresses.contains(&flow.peer)) {
        let meant = |port: &&ServicePort| port.protocol == protocol && port.port == number;
        for port in service.ports.iter().filter(meant) {
            found.services.insert(service.key.clone());
            found.backends.extend(backends(index, &service.key, port, flow.peer.is_ipv4()));
        }
    }
    (!found.services.is_empty()).then_some(found)
}

/// Whether an address is the own node's, or that of any live pod, even of several.
fn is_somebodys(index: &Index, address: IpAddr) -> bool {
    index.node_addresses().contains(&address)
        || index.pods().values().any(|pod| is_live(pod) && pod.addresses.contains(&address))
}

/// The ready backends of one family behind a port of a service.
fn backends(index: &Index, service: &ObjectKey, port: &ServicePort, v4: bool) -> Vec<Backend> {
    let mut backends = Vec::new();
    for slice in index.endpoint_slices().values() {
        if slice.key.namespace != service.namespace || slice.service != service.name {
            continue;
        }
        for target in &slice.ports {
            if target.name != port.name || target.protocol != port.protocol {
                continue;
            }
            let ready = slice.ready.iter().filter(|address| address.is_ipv4() == v4);
            backends.extend(ready.map(|address| Backend { address: *address, port: target.port }));
        }
    }
    backends
}

/// What becomes of a flow towards services, where `by_address` are the rules that allow it because
/// they name the address.
pub(super) fn judge(
    index: &Index,
    pod: &Pod,
    isolating: &[&Policy],
    flow: &Flow,
    found: Found,
    by_address: BTreeSet<RuleName>,
) -> Evaluation {
    let names_address = !by_address.is_empty();
    let mut rules = by_address;
    let (mut allowed, mut denied) = (BTreeSet::new(), BTreeSet::new());
    for backend in found.backends {
        let is_allowed = match backend.port {
            None => false,
            Some(port) => {
                let traffic = Traffic::Port(found.protocol, port);
                let to_backend = Flow { peer: backend.address, traffic, ..*flow };
                let of_backend = allowing(index, pod, isolating, &to_backend);
                let by_rule = !of_backend.is_empty();
                rules.extend(of_backend);
                by_rule
                    || pod.addresses.contains(&backend.address)
                    || is_free_to(index, backend.address)
            }
        };
        if is_allowed {
            allowed.insert(backend);
        } else {
            denied.insert(backend);
        }
    }
    let every_backend_is_allowed = denied.is_empty() && !allowed.is_empty();
    let towards = ServiceBackends { services: found.services, allowed, denied };
    if every_backend_is_allowed || names_address {
        return Evaluation::AllowedService { rules: rules.into_iter().collect(), towards };
    }
    let policies = isolating.iter().map(|policy| policy.key.clone()).collect();
    Evaluation::DeniedService { policies, towards }
}
