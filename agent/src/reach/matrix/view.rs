//! What a pod's own policy lets pass, read off what its node's agent compiles.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use anyhow::{Context as _, Result};
use bulkhead_common::{
    key::RuleKey,
    value::{IDENTITY_NODE, IDENTITY_NONE},
    verdict::{DenyAction, Direction},
};

use super::Allowed;
use crate::{
    policy::{compile::Compiler, model::Pod},
    reach::cluster::{Cluster, NodeName},
};

/// Every node's view, as far as it was asked for.
#[derive(Default)]
pub(super) struct Views {
    of: BTreeMap<NodeName, View>,
}

struct View {
    compiler: Compiler,
    free_addresses: BTreeSet<IpAddr>,
}

impl Views {
    /// Compiles what the nodes of these pods see.
    pub(super) fn new(cluster: &mut Cluster, nodes: BTreeSet<NodeName>) -> Self {
        let view = |node: NodeName| {
            let index = cluster.node(&node);
            let mut compiler = Compiler::new(DenyAction::Drop);
            compiler.compile(index);
            let free_addresses = if index.denies_egress_to_node() {
                BTreeSet::new()
            } else {
                index.node_addresses().clone()
            };
            (node, View { compiler, free_addresses })
        };
        Self { of: nodes.into_iter().map(view).collect() }
    }

    /// Whether an address is a node's own, whoever else may have it, and its pods always reach it.
    pub(super) fn is_free_to(&self, node: &NodeName, address: IpAddr) -> bool {
        self.of.get(node).is_some_and(|view| view.free_addresses.contains(&address))
    }

    /// What a pod's policy lets it send to an address, or receive from one. That it always reaches
    /// its own node, and its own node it, is not in here.
    pub(super) fn allowed(
        &self,
        node: &NodeName,
        pod: &Pod,
        direction: Direction,
        peer: IpAddr,
    ) -> Result<Allowed> {
        let compiled =
            self.of.get(node).context("a node that was not compiled")?.compiler.compiled();
        if pod.addresses.contains(&peer) {
            return Ok(Allowed::everything());
        }
        let policy = compiled
            .endpoints
            .get(&pod.key)
            .with_context(|| format!("the pod {} has no policy", pod.key))?;
        let side = match direction {
            Direction::Ingress => &policy.ingress,
            Direction::Egress => &policy.egress,
        };
        let Some(side) = side else { return Ok(Allowed::everything()) };
        let of_any_peer = Allowed::from(&*side.any_peer);
        let of_block = || compiled.cidrs.longest(peer).map(|(_, identity)| identity);
        let of_address = compiled.peers.get(&peer).filter(|identity| **identity != IDENTITY_NONE);
        let Some(identity) = of_address.or_else(of_block) else {
            return Ok(of_any_peer);
        };
        let key = RuleKey { policy_set: side.policy_set, identity: identity & !IDENTITY_NODE };
        Ok(match compiled.rules.get(&key) {
            Some(ports) => of_any_peer.join(&Allowed::from(&**ports)),
            None => of_any_peer,
        })
    }
}
