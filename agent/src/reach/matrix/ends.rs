//! Who the ends are.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use anyhow::{Result, bail};

use super::{Kind, LeftOut, Member, Request, outside};
use crate::{
    policy::{index::Index, model::Pod},
    reach::{
        cluster::{Cluster, NodeName},
        flow::Family,
    },
};

/// An end, before those that are alike are put together.
pub(super) struct Party {
    pub(super) kind: Kind,
    pub(super) member: Member,
    pub(super) who: Who,
}

pub(super) enum Who {
    /// A pod, and the node that it runs on.
    Pod(NodeName, Box<Pod>),
    Node(NodeName),
    Outside,
}

impl Party {
    /// The node that a pod runs on; `None`: it is no pod.
    pub(super) fn home(&self) -> Option<&NodeName> {
        match &self.who {
            Who::Pod(home, _) => Some(home),
            Who::Node(_) | Who::Outside => None,
        }
    }

    pub(super) fn pod(&self) -> Option<&Pod> {
        match &self.who {
            Who::Pod(_, pod) => Some(pod),
            Who::Node(_) | Who::Outside => None,
        }
    }

    pub(super) fn is_same_pod(&self, other: &Self) -> bool {
        self.pod().is_some_and(|pod| other.pod().is_some_and(|other| pod.key == other.key))
    }

    /// Whether one of them is a pod and the other the node that it runs on.
    pub(super) fn is_own_node_of(&self, other: &Self) -> bool {
        match (&self.who, &other.who) {
            (Who::Pod(home, _), Who::Node(node)) | (Who::Node(node), Who::Pod(home, _)) => {
                home == node
            }
            (Who::Pod(..) | Who::Node(_) | Who::Outside, _) => false,
        }
    }

    pub(super) fn of_family(&self, family: Family) -> impl Iterator<Item = IpAddr> {
        let addresses = self.member.addresses.iter().copied();
        addresses.filter(move |address| Family::of(*address) == family)
    }

    fn outside(kind: Kind, name: String, addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        let member = Member { name, addresses: addresses.into_iter().collect() };
        Self { kind, member, who: Who::Outside }
    }
}

/// Every end that is asked for: pods by namespace, then nodes, then addresses that are nobody's.
pub(super) fn parties(cluster: &Cluster, request: &Request) -> Result<(Vec<Party>, Vec<LeftOut>)> {
    let mut left_out = Vec::new();
    let mut parties = pods(cluster, request, &mut left_out)?;
    parties.extend(nodes(cluster, &mut left_out));
    parties.extend(blocks(cluster.objects()));
    parties.extend(external(cluster.objects(), request)?);
    Ok((parties, left_out))
}

fn pods(cluster: &Cluster, request: &Request, left_out: &mut Vec<LeftOut>) -> Result<Vec<Party>> {
    let pods = cluster.objects().pods();
    let has_pods = |name: &String| pods.keys().any(|key| *key.namespace == **name);
    if let Some(unknown) = request.namespaces.iter().find(|name| !has_pods(name)) {
        let known: BTreeSet<&str> = pods.keys().map(|key| &*key.namespace).collect();
        let known: Vec<&str> = known.into_iter().take(12).collect();
        bail!("no pod of a namespace {unknown} is known; there are pods in: {}", known.join(", "));
    }
    let mut parties = Vec::new();
    for pod in pods.values() {
        if !request.namespaces.is_empty() && !request.namespaces.contains(&*pod.key.namespace) {
            continue;
        }
        let home = cluster.home(pod);
        let why = if pod.ended {
            Some("it has ended".to_owned())
        } else if pod.host_network {
            Some(format!(
                "it is on the network of {}, and policy takes it for it",
                node_name(&home)
            ))
        } else if pod.addresses.is_empty() {
            Some("it has no address".to_owned())
        } else {
            None
        };
        let name = pod.key.to_string();
        match why {
            Some(why) => left_out.push(LeftOut { name, why }),
            None => {
                let addresses = pod.addresses.iter().copied().collect();
                let member = Member { name, addresses };
                let who = Who::Pod(home, Box::new(pod.clone()));
                parties.push(Party { kind: Kind::Pod, member, who });
            }
        }
    }
    Ok(parties)
}

fn nodes(cluster: &Cluster, left_out: &mut Vec<LeftOut>) -> Vec<Party> {
    let objects = cluster.objects();
    let mut nodes: BTreeMap<NodeName, BTreeSet<IpAddr>> = BTreeMap::new();
    for node in objects.nodes().values() {
        nodes.entry(Some(node.name.as_str().into())).or_default().extend(&node.addresses);
    }
    for pod in objects.pods().values().filter(|pod| !pod.ended) {
        let addresses = nodes.entry(cluster.home(pod)).or_default();
        if pod.host_network {
            addresses.extend(&pod.addresses);
        }
    }
    let mut parties = Vec::new();
    for (node, addresses) in nodes {
        let name = node_name(&node);
        if addresses.is_empty() {
            let why = "the manifests have no address of it; it always reaches the pods that run \
                       on it";
            left_out.push(LeftOut { name, why: why.to_owned() });
        } else {
            let member = Member { name, addresses };
            parties.push(Party { kind: Kind::Node, member, who: Who::Node(node) });
        }
    }
    parties
}

fn node_name(node: &NodeName) -> String {
    match node {
        Some(name) => format!("node {name}"),
        None => "the node without a name".to_owned(),
    }
}

fn blocks(objects: &Index) -> Vec<Party> {
    let (largest, named): (Vec<_>, Vec<_>) =
        outside::pieces(objects).into_iter().partition(|piece| piece.net.prefix_len() == 0);
    let outside = Party::outside(
        Kind::Outside,
        "outside".to_owned(),
        largest.into_iter().map(|piece| piece.address),
    );
    let block = |piece: outside::Piece| {
        let without: Vec<String> = piece.without.iter().map(ToString::to_string).collect();
        let name = if without.is_empty() {
            piece.net.to_string()
        } else {
            format!("{} without {}", piece.net, without.join(", "))
        };
        Party::outside(Kind::Block, name, [piece.address])
    };
    let outside = (!outside.member.addresses.is_empty()).then_some(outside);
    outside.into_iter().chain(named.into_iter().map(block)).collect()
}

fn external(objects: &Index, request: &Request) -> Result<Vec<Party>> {
    let known = outside::known_addresses(objects);
    let mut parties = Vec::new();
    for address in &request.external {
        let address = address.to_canonical();
        if known.contains(&address) {
            bail!(
                "--external {address}: it is the address of a pod, a node or a service of the \
                 manifests; pods and nodes have their own rows, and `bulkhead explain` tells of \
                 services"
            );
        }
        parties.push(Party::outside(Kind::Address, address.to_string(), [address]));
    }
    Ok(parties)
}
