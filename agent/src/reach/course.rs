//! Which questions to which pods' policies make up a flow.
//!
//! A flow passes if it may leave its source and may enter its destination. Each pod that is an end
//! of it is asked on its own node; nodes, pods on a node's network and addresses outside have no
//! policy to be asked. Owns who an end is, and how a service is reached.

use std::{collections::BTreeSet, net::IpAddr};

use anyhow::{Context as _, Result, bail};
use bulkhead_common::{packet::protocol, verdict::Direction};

use super::{
    cluster::{Cluster, NodeName},
    flow::{End, Family, FlowProtocol, FlowSpec},
};
use crate::policy::{
    evaluate::{Flow, Traffic},
    model::{ObjectKey, Pod},
};

mod service;

/// The way of a flow in one address family. It passes if the answer to every question is yes, or
/// there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Course {
    /// The family.
    pub family: Family,
    /// In the order in which the flow meets them.
    pub questions: Vec<Question>,
}

/// Whether the policy of one pod lets a flow pass in one direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The node that the pod runs on.
    pub node: NodeName,
    /// The pod.
    pub pod: ObjectKey,
    /// The flow, seen from the pod.
    pub flow: Flow,
}

/// An end of flows, once it is known whose it is.
#[derive(Clone, Debug)]
struct Party<'a> {
    addresses: BTreeSet<IpAddr>,
    who: Who<'a>,
}

#[derive(Clone, Debug)]
enum Who<'a> {
    /// A pod that has a policy.
    Pod(&'a Pod),
    /// A node, or a pod on its network.
    Node(NodeName),
    /// Nobody that is known.
    Outside,
}

impl Party<'_> {
    fn of_family(&self, family: Family) -> impl Iterator<Item = IpAddr> {
        self.addresses.iter().copied().filter(move |address| Family::of(*address) == family)
    }
}

/// The ways of a flow: one for each family that is asked about.
///
/// # Errors
///
/// It cannot be told: an end is not known, lacks the family, or does not serve the port.
pub fn courses(cluster: &Cluster, spec: &FlowSpec) -> Result<Vec<Course>> {
    spec.check()?;
    let source = party(cluster, &spec.from).context("from")?;
    let service = match &spec.to {
        End::Service(key) => Some((key, None)),
        End::Ip(address) => service::with_address(cluster, address.to_canonical(), spec),
        End::Pod(_) | End::Node(_) => None,
    };
    if let Some((key, address)) = service {
        return service::courses(cluster, &source, key, address, spec);
    }
    let destination = party(cluster, &spec.to).context("to")?;
    let families =
        families(spec, (&spec.from, &source.addresses), (&spec.to, &destination.addresses))?;
    let course = |family| {
        let traffic = traffic(spec.protocol, spec.port, family)?;
        Ok(Course { family, questions: leg(cluster, &source, &destination, family, traffic) })
    };
    families.into_iter().map(course).collect()
}

fn party<'a>(cluster: &'a Cluster, end: &End) -> Result<Party<'a>> {
    let objects = cluster.objects();
    match end {
        End::Pod(key) => {
            let Some(pod) = objects.pods().get(key) else {
                let namespace =
                    objects.pods().keys().filter(|other| other.namespace == key.namespace);
                bail!("no pod {key} is known; {}", known("pods of its namespace", namespace));
            };
            if pod.ended {
                bail!("the pod {key} has ended, so nothing comes from it or gets to it");
            }
            if pod.addresses.is_empty() {
                bail!("the pod {key} has no address; give it one in status.podIPs");
            }
            Ok(pod_party(cluster, pod, pod.addresses.iter().copied().collect()))
        }
        End::Node(name) => {
            if !objects.nodes().contains_key(name) {
                bail!("no node {name} is known; {}", known("nodes", objects.nodes().keys()));
            }
            let node = Some(name.as_str().into());
            let addresses = cluster.addresses(&node);
            if addresses.is_empty() {
                bail!("the node {name} has no address; give it one in status.addresses");
            }
            Ok(Party { addresses, who: Who::Node(node) })
        }
        End::Ip(address) => at(cluster, *address),
        End::Service(service) => bail!("a service ({service}) opens no flows; name a pod"),
    }
}

/// Whoever has an address.
fn at(cluster: &Cluster, address: IpAddr) -> Result<Party<'_>> {
    let objects = cluster.objects();
    let address = address.to_canonical();
    let addresses = BTreeSet::from([address]);
    if let Some(node) = objects.nodes().values().find(|node| node.addresses.contains(&address)) {
        return Ok(Party { addresses, who: Who::Node(Some(node.name.as_str().into())) });
    }
    let mut on_nodes = objects.pods().values().filter(|pod| pod.host_network && !pod.ended);
    if let Some(pod) = on_nodes.find(|pod| pod.addresses.contains(&address)) {
        return Ok(pod_party(cluster, pod, addresses));
    }
    if let Some(conflict) = objects.conflicts().find(|conflict| conflict.address == address) {
        let claimants = known("they are", conflict.claimants);
        bail!("{address} is the address of more than one pod, so nobody's; {claimants}");
    }
    Ok(match objects.pod_at(address) {
        Some(pod) => Party { addresses, who: Who::Pod(pod) },
        None => Party { addresses, who: Who::Outside },
    })
}

fn pod_party<'a>(cluster: &Cluster, pod: &'a Pod, addresses: BTreeSet<IpAddr>) -> Party<'a> {
    let who = if pod.host_network { Who::Node(cluster.home(pod)) } else { Who::Pod(pod) };
    Party { addresses, who }
}

/// The families that are asked about, of those that both ends have.
fn families(
    spec: &FlowSpec,
    source: (&End, &BTreeSet<IpAddr>),
    destination: (&End, &BTreeSet<IpAddr>),
) -> Result<Vec<Family>> {
    let has = |(_, addresses): (&End, &BTreeSet<IpAddr>), family| {
        addresses.iter().any(|address| Family::of(*address) == family)
    };
    if let Some(family) = spec.family {
        for (field, end) in [("from", source), ("to", destination)] {
            if !has(end, family) {
                bail!("{field}: {} has no {family} address; leave `family` out", end.0);
            }
        }
        return Ok(vec![family]);
    }
    let mut families = Vec::from(Family::ALL);
    families.retain(|family| has(source, *family) && has(destination, *family));
    if families.is_empty() {
        bail!(
            "the ends have no address family in common: {} has {}, {} has {}",
            source.0,
            named(source.1),
            destination.0,
            named(destination.1)
        );
    }
    Ok(families)
}

/// Out of the source and into the destination, between all their addresses of a family.
fn leg(
    cluster: &Cluster,
    source: &Party<'_>,
    destination: &Party<'_>,
    family: Family,
    traffic: Traffic,
) -> Vec<Question> {
    if is_same_pod(source, destination) {
        return Vec::new();
    }
    let mut questions: Vec<Question> = destination
        .of_family(family)
        .filter_map(|address| egress(cluster, source, address, traffic))
        .collect();
    questions.extend(into(cluster, source, destination, family, traffic));
    questions
}

/// Into the destination, from all addresses of the source of a family.
fn into(
    cluster: &Cluster,
    source: &Party<'_>,
    destination: &Party<'_>,
    family: Family,
    traffic: Traffic,
) -> Vec<Question> {
    if is_same_pod(source, destination) {
        return Vec::new();
    }
    source
        .of_family(family)
        .filter_map(|address| ingress(cluster, source, address, destination, traffic))
        .collect()
}

fn is_same_pod(a: &Party<'_>, b: &Party<'_>) -> bool {
    matches!((&a.who, &b.who), (Who::Pod(a), Who::Pod(b)) if a.key == b.key)
}

fn egress(
    cluster: &Cluster,
    source: &Party<'_>,
    peer: IpAddr,
    traffic: Traffic,
) -> Option<Question> {
    let Who::Pod(pod) = source.who else { return None };
    let flow = Flow { direction: Direction::Egress, peer, traffic, from_own_node: false };
    Some(Question { node: cluster.home(pod), pod: pod.key.clone(), flow })
}

fn ingress(
    cluster: &Cluster,
    source: &Party<'_>,
    peer: IpAddr,
    destination: &Party<'_>,
    traffic: Traffic,
) -> Option<Question> {
    let Who::Pod(pod) = destination.who else { return None };
    let node = cluster.home(pod);
    let from_own_node = matches!(&source.who, Who::Node(other) if *other == node);
    let flow = Flow { direction: Direction::Ingress, peer, traffic, from_own_node };
    Some(Question { node, pod: pod.key.clone(), flow })
}

fn traffic(protocol: FlowProtocol, port: Option<u16>, family: Family) -> Result<Traffic> {
    match (protocol.transport(), family) {
        (Some(protocol), _) => {
            let port = port.context("port: none is given; add \"port\": 1 to 65535")?;
            Ok(Traffic::Port(protocol, port))
        }
        (None, Family::Ipv4) => Ok(Traffic::Other(protocol::ICMP)),
        (None, Family::Ipv6) => Ok(Traffic::Other(protocol::ICMPV6)),
    }
}

/// `what: a, b, c`, or that there are none.
fn known<T: ToString>(what: &str, names: impl IntoIterator<Item = T>) -> String {
    format!("{what}: {}", named(names))
}

fn named<T: ToString>(names: impl IntoIterator<Item = T>) -> String {
    /// More of them help nobody.
    const NAMED: usize = 12;
    let names: Vec<String> = names.into_iter().map(|name| name.to_string()).collect();
    let first = names.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
    match names.len() {
        0 => "none".to_owned(),
        1..=NAMED => first,
        all => format!("{first} and {} more", all - NAMED),
    }
}

#[cfg(test)]
mod tests;
