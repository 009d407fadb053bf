//! What the maps hold, what they should hold, and the operations in between.
//!
//! Pure: it knows the kernel only as the operations that were executed. Invariant: after any prefix
//! of a plan, every endpoint allows either what it allowed before or what it is to allow, whole.
//! That follows from the order:
//!
//! 1. what is new and read by nobody: port ranges, rules, and of each peer the identity that no
//!    endpoint reads;
//! 2. the endpoints, each by one replacement of one value; a new one before its programs;
//! 3. removal of what is read by nobody any more.
//!
//! A rule's key says all about its value for as long as one compiler lives, so rules of the old and
//! the new policy stand side by side. An agent that dies in between leaves a state from which both
//! parts still hold.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use anyhow::bail;
use bulkhead_common::{
    abi,
    key::{Address, RuleKey},
    value::{Endpoint, IDENTITY_NONE, Peer, PortRange, PortSet, Side, flags},
    verdict::DenyAction,
};

use super::{op::Op, port_ranges::PortRanges};
use crate::policy::{
    compiled,
    compiled::{EndpointPolicy, SidePolicy},
};

/// What the kernel should enforce.
#[derive(Clone, Debug)]
pub struct Desired<'a> {
    /// By host-side ifindex.
    pub endpoints: BTreeMap<u32, DesiredEndpoint<'a>>,
    /// Identity of each address.
    pub peers: &'a BTreeMap<IpAddr, u32>,
    /// What policy sets allow with identities.
    pub rules: &'a BTreeMap<RuleKey, compiled::PortSet>,
}

/// What one interface should enforce.
#[derive(Clone, Copy, Debug)]
pub enum DesiredEndpoint<'a> {
    /// The policy of the pod behind it.
    Pod(&'a EndpointPolicy),
    /// Nothing passes but what the own node sends or receives: the interface was a pod's, and
    /// which one it is now cannot be told.
    Closed,
}

/// What the kernel holds, by the operations that were executed.
#[derive(Clone, Debug)]
pub struct Programmed {
    endpoints: BTreeMap<u32, Endpoint>,
    attached: BTreeSet<u32>,
    peers: BTreeMap<IpAddr, Peer>,
    rules: BTreeMap<RuleKey, PortSet>,
    port_ranges: PortRanges,
    /// Planned, and not executed yet.
    unwritten: BTreeMap<u32, PortRange>,
    /// Which identity of a peer the endpoints read, once the last plan was executed.
    slot: usize,
    epoch: u32,
    check_source: bool,
}

/// How full a map is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fill {
    /// The map's name.
    pub map: &'static str,
    /// Entries in it.
    pub entries: u32,
    /// Entries that it can hold.
    pub capacity: u32,
}

impl Programmed {
    /// Of empty maps. With `check_source`, pods send from their own addresses only.
    pub fn new(check_source: bool) -> Self {
        Self {
            endpoints: BTreeMap::new(),
            attached: BTreeSet::new(),
            peers: BTreeMap::new(),
            rules: BTreeMap::new(),
            port_ranges: PortRanges::new(),
            unwritten: BTreeMap::new(),
            slot: 0,
            epoch: 0,
            check_source,
        }
    }

    /// The operations that lead from here to `desired`.
    ///
    /// # Errors
    ///
    /// A map that would have to hold more than it can, by name; nothing is changed then.
    pub fn plan(&mut self, desired: &Desired<'_>) -> anyhow::Result<Vec<Op>> {
        let peers = desired.peers;
        // A plan that was broken off may have placed what it did not come to write.
        let left =
            |(index, range): (&u32, &PortRange)| Op::SetPortRange { index: *index, range: *range };
        let mut ops: Vec<Op> = self.unwritten.iter().map(left).collect();
        let mut places = self.port_ranges.clone();
        let rules = desired
            .rules
            .iter()
            .map(|(key, set)| Ok((*key, places.place(set, &mut ops)?)))
            .collect::<anyhow::Result<BTreeMap<_, _>>>()?;
        ops.extend(
            rules
                .iter()
                .filter(|(key, ports)| self.rules.get(key) != Some(ports))
                .map(|(key, ports)| Op::SetRule { key: *key, ports: *ports }),
        );
        let slot = self.plan_peers(peers, &mut ops);
        let endpoints = self.plan_endpoints(desired, slot, &mut places, &mut ops)?;
        check_capacity(abi::name::RULES, abi::RULES, self.rules.keys().chain(rules.keys()))?;
        for v4 in [true, false] {
            let name = if v4 { abi::name::PEERS_V4 } else { abi::name::PEERS_V6 };
            let all = self.peers.keys().chain(peers.keys()).filter(|peer| peer.is_ipv4() == v4);
            check_capacity(name, abi::PEERS, all)?;
        }

        let gone = self.endpoints.keys().filter(|ifindex| !endpoints.contains_key(ifindex));
        ops.extend(gone.flat_map(|ifindex| {
            [Op::Detach { ifindex: *ifindex }, Op::RemoveEndpoint { ifindex: *ifindex }]
        }));
        ops.extend(
            self.rules
                .keys()
                .filter(|key| !rules.contains_key(key))
                .map(|key| Op::RemoveRule { key: *key }),
        );
        ops.extend(
            self.peers
                .keys()
                .filter(|address| !peers.contains_key(address))
                .map(|address| Op::RemovePeer { address: *address }),
        );

        let used = rules
            .values()
            .chain(endpoints.values().flat_map(|e| [&e.ingress.any_peer, &e.egress.any_peer]))
            .map(|set| (set.start, set.len))
            .collect();
        places.retain(&used);
        self.port_ranges = places;
        self.unwritten.extend(ops.iter().filter_map(|op| match *op {
            Op::SetPortRange { index, range } => Some((index, range)),
            Op::SetRule { .. }
            | Op::SetPeer { .. }
            | Op::ClearCounters { .. }
            | Op::SetEndpoint { .. }
            | Op::Attach { .. }
            | Op::Detach { .. }
            | Op::RemoveEndpoint { .. }
            | Op::RemoveRule { .. }
            | Op::RemovePeer { .. } => None,
        }));
        self.slot = slot;
        Ok(ops)
    }

    /// Takes note of an operation that was executed.
    pub fn executed(&mut self, op: &Op) {
        match *op {
            Op::SetPortRange { index, .. } => drop(self.unwritten.remove(&index)),
            Op::ClearCounters { .. } => {}
            Op::SetRule { key, ports } => drop(self.rules.insert(key, ports)),
            Op::SetPeer { address, peer } => drop(self.peers.insert(address, peer)),
            Op::SetEndpoint { ifindex, endpoint } => drop(self.endpoints.insert(ifindex, endpoint)),
            Op::Attach { ifindex } => drop(self.attached.insert(ifindex)),
            Op::Detach { ifindex } => drop(self.attached.remove(&ifindex)),
            Op::RemoveEndpoint { ifindex } => drop(self.endpoints.remove(&ifindex)),
            Op::RemoveRule { key } => drop(self.rules.remove(&key)),
            Op::RemovePeer { address } => drop(self.peers.remove(&address)),
        }
    }

    /// Takes note that an interface has lost its programs.
    pub fn detached(&mut self, ifindex: u32) {
        self.attached.remove(&ifindex);
    }

    /// The operations that close interfaces which are not attached yet, for when a plan cannot be
    /// made or carried out: what has no policy that holds is not to be open meanwhile.
    ///
    /// Where there is no room for an endpoint, the programs deny every packet of the interface.
    pub fn plan_closed(&mut self, interfaces: impl IntoIterator<Item = u32>) -> Vec<Op> {
        let mut blocks: BTreeSet<u32> = self.endpoints.values().map(|e| e.counters).collect();
        let mut ops = Vec::new();
        for ifindex in interfaces {
            if self.attached.contains(&ifindex) {
                continue;
            }
            let block = (1..=abi::ENDPOINTS).find(|block| !blocks.contains(block));
            if let (None, Some(block)) = (self.endpoints.get(&ifindex), block) {
                blocks.insert(block);
                self.epoch = self.epoch.wrapping_add(1);
                let endpoint =
                    Endpoint { counters: block, epoch: self.epoch, ..self.closed(self.slot) };
                ops.extend([Op::ClearCounters { block }, Op::SetEndpoint { ifindex, endpoint }]);
            }
            ops.push(Op::Attach { ifindex });
        }
        ops
    }

    /// Endpoints by host-side ifindex.
    pub fn endpoints(&self) -> &BTreeMap<u32, Endpoint> {
        &self.endpoints
    }

    /// Interfaces that the programs are attached to.
    pub fn attached(&self) -> &BTreeSet<u32> {
        &self.attached
    }

    /// How full the maps are that the agent fills.
    pub fn fill(&self) -> Vec<Fill> {
        let peers_v4 = self.peers.keys().filter(|peer| peer.is_ipv4()).count();
        let of = |map, entries: usize, capacity| Fill {
            map,
            entries: u32::try_from(entries).unwrap_or(u32::MAX),
            capacity,
        };
        vec![
            of(abi::name::ENDPOINTS, self.endpoints.len(), abi::ENDPOINTS),
            of(abi::name::PEERS_V4, peers_v4, abi::PEERS),
            of(abi::name::PEERS_V6, self.peers.len() - peers_v4, abi::PEERS),
            of(abi::name::RULES, self.rules.len(), abi::RULES),
            of(abi::name::PORT_RANGES, self.port_ranges.used() as usize, abi::PORT_RANGES),
        ]
    }

    /// Writes what differs into the identity that no endpoint reads; which one is to be read then.
    fn plan_peers(&self, desired: &BTreeMap<IpAddr, u32>, ops: &mut Vec<Op>) -> usize {
        let live = self.slot;
        let identity = |address| desired.get(address).copied().unwrap_or(IDENTITY_NONE);
        let all: BTreeSet<&IpAddr> = self.peers.keys().chain(desired.keys()).collect();
        let known = |address: &IpAddr| {
            self.peers.get(address).copied().unwrap_or(Peer { identities: [IDENTITY_NONE; 2] })
        };
        let read_by_all = self.endpoints.values().all(|endpoint| slot_of(endpoint) == live);
        let unchanged = all.iter().all(|a| known(a).identities.get(live) == Some(&identity(a)));
        if unchanged && read_by_all {
            return live;
        }
        let target = if read_by_all { 1 - live } else { live };
        for address in all {
            let old = known(address);
            let mut identities = old.identities;
            if let Some(slot) = identities.get_mut(target) {
                *slot = identity(address);
            }
            if identities != old.identities {
                ops.push(Op::SetPeer { address: *address, peer: Peer { identities } });
            }
        }
        target
    }

    fn plan_endpoints(
        &mut self,
        desired: &Desired<'_>,
        slot: usize,
        places: &mut PortRanges,
        ops: &mut Vec<Op>,
    ) -> anyhow::Result<BTreeMap<u32, Endpoint>> {
        let mut blocks: BTreeSet<u32> = self.endpoints.values().map(|e| e.counters).collect();
        let mut all = BTreeMap::new();
        // Ranges are written before the endpoints that use them.
        let mut switches = Vec::new();
        for (&ifindex, wanted) in &desired.endpoints {
            let old = self.endpoints.get(&ifindex);
            let mut endpoint = self.value(wanted, slot, places, ops)?;
            endpoint.counters = match old {
                Some(old) => old.counters,
                None => {
                    let Some(block) = (1..=abi::ENDPOINTS).find(|block| !blocks.contains(block))
                    else {
                        bail!(
                            "map ENDPOINTS is full (capacity {}): a node cannot have more pods",
                            abi::ENDPOINTS
                        );
                    };
                    blocks.insert(block);
                    switches.push(Op::ClearCounters { block });
                    block
                }
            };
            let same = old.is_some_and(|old| Endpoint { epoch: 0, ..*old } == endpoint);
            if same {
                endpoint.epoch = old.map_or(0, |old| old.epoch);
            } else {
                self.epoch = self.epoch.wrapping_add(1);
                endpoint.epoch = self.epoch;
                switches.push(Op::SetEndpoint { ifindex, endpoint });
            }
            if !self.attached.contains(&ifindex) {
                switches.push(Op::Attach { ifindex });
            }
            all.insert(ifindex, endpoint);
        }
        ops.extend(switches);
        Ok(all)
    }

    /// An endpoint that nothing passes, but for its epoch and its counters.
    fn closed(&self, slot: usize) -> Endpoint {
        let slot = if slot == 0 { 0 } else { flags::SECOND_IDENTITY };
        Endpoint {
            ipv6: Address::ZERO,
            ipv4: Address::ZERO,
            ingress: Side::NOTHING,
            egress: Side::NOTHING,
            epoch: 0,
            counters: 0,
            flags: flags::ISOLATED_INGRESS | flags::ISOLATED_EGRESS | slot,
        }
    }

    /// The value of an endpoint, but for its epoch and its counters.
    fn value(
        &self,
        wanted: &DesiredEndpoint<'_>,
        slot: usize,
        places: &mut PortRanges,
        ops: &mut Vec<Op>,
    ) -> anyhow::Result<Endpoint> {
        let closed = self.closed(slot);
        let policy = match wanted {
            DesiredEndpoint::Pod(policy) => policy,
            DesiredEndpoint::Closed => return Ok(closed),
        };
        let isolated = flags::ISOLATED_INGRESS | flags::ISOLATED_EGRESS;
        let mut endpoint = Endpoint { flags: closed.flags & !isolated, ..closed };
        for address in &policy.addresses {
            match address {
                IpAddr::V4(address) => endpoint.ipv4 = Address(address.octets()),
                IpAddr::V6(address) => endpoint.ipv6 = Address(address.octets()),
            }
        }
        let mut side = |side: &Option<SidePolicy>, isolated| match side {
            None => Ok(Side::NOTHING),
            Some(side) => {
                endpoint.flags |= isolated;
                let any_peer = places.place(&side.any_peer, ops)?;
                anyhow::Ok(Side { policy_set: side.policy_set, any_peer })
            }
        };
        let ingress = side(&policy.ingress, flags::ISOLATED_INGRESS)?;
        let egress = side(&policy.egress, flags::ISOLATED_EGRESS)?;
        endpoint.ingress = ingress;
        endpoint.egress = egress;
        if policy.deny_action == DenyAction::Reject {
            endpoint.flags |= flags::REJECT;
        }
        if self.check_source {
            endpoint.flags |= flags::CHECK_SOURCE;
        }
        Ok(endpoint)
    }
}

const fn slot_of(endpoint: &Endpoint) -> usize {
    if endpoint.flags & flags::SECOND_IDENTITY == 0 { 0 } else { 1 }
}

fn check_capacity<'a, T: Ord + 'a>(
    map: &str,
    capacity: u32,
    keys: impl Iterator<Item = &'a T>,
) -> anyhow::Result<()> {
    let needed = keys.collect::<BTreeSet<_>>().len();
    if needed > capacity as usize {
        bail!("map {map} is full (capacity {capacity}): {needed} entries are needed");
    }
    Ok(())
}

#[cfg(test)]
mod tests;
