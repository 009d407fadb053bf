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
//! the new policy stand side by side. A block that is new inherits, in the identity that is read,
//! what holds around it, and one that is to go is given that before it goes: so neither its coming
//! nor its going changes what an address meets. An agent that dies in between leaves a state from
//! which both parts still hold.
//!
//! A plan looks at what the compiler touched, and at nothing else; after one that was not carried
//! out to its end, the next looks at everything.

mod identities;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use anyhow::bail;
use bulkhead_common::{
    abi,
    key::{Address, RuleKey},
    value::{Endpoint, Peer, PortRange, PortSet, Side, flags},
    verdict::DenyAction,
};
use ipnet::IpNet;

use self::identities::Identities;
use super::{op::Op, port_ranges::PortRanges};
use crate::policy::{
    compiled::{Compiled, EndpointPolicy, SidePolicy, Touched},
    prefix_map::PrefixMap,
};

/// What the kernel should enforce.
#[derive(Clone, Debug)]
pub struct Desired<'a> {
    /// By host-side ifindex.
    pub endpoints: BTreeMap<u32, DesiredEndpoint<'a>>,
    /// Identities and rules.
    pub compiled: &'a Compiled,
    /// What of it may be different since the last plan; `None`: all of it.
    pub touched: Option<&'a Touched>,
}

/// What one interface should enforce.
#[derive(Clone, Copy, Debug)]
pub enum DesiredEndpoint<'a> {
    /// The policy of the pod behind it.
    Pod(&'a EndpointPolicy),
    /// Nothing passes but what the own node sends, or receives if pods are free to send to it: the
    /// interface was a pod's, and
    /// which one it is now cannot be told.
    Closed,
}

/// What the kernel holds, by the operations that were executed.
#[derive(Clone, Debug)]
pub struct Programmed {
    endpoints: BTreeMap<u32, Endpoint>,
    attached: BTreeSet<u32>,
    peers: Identities<BTreeMap<IpAddr, Peer>, IpAddr>,
    cidrs: Identities<PrefixMap<Peer>, IpNet>,
    rules: BTreeMap<RuleKey, PortSet>,
    port_ranges: PortRanges,
    /// Planned, and not executed yet.
    unwritten: BTreeMap<u32, PortRange>,
    /// Which identity of a peer the endpoints read, once the last plan was executed.
    slot: usize,
    epoch: u32,
    check_source: bool,
    deny_egress_to_node: bool,
    /// How many operations of the last plan were not executed yet; `None`: there is no telling what
    /// is there.
    outstanding: Option<usize>,
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
            peers: Identities::default(),
            cidrs: Identities::default(),
            rules: BTreeMap::new(),
            port_ranges: PortRanges::new(),
            unwritten: BTreeMap::new(),
            slot: 0,
            epoch: 0,
            check_source,
            deny_egress_to_node: false,
            outstanding: None,
        }
    }

    /// The same; with `deny`, pods reach their own node by rules only.
    #[must_use]
    pub fn deny_egress_to_node(self, deny: bool) -> Self {
        Self { deny_egress_to_node: deny, ..self }
    }

    /// The operations that lead from here to `desired`.
    ///
    /// # Errors
    ///
    /// A map that would have to hold more than it can, by name; nothing is changed then.
    pub fn plan(&mut self, desired: &Desired<'_>) -> anyhow::Result<Vec<Op>> {
        let whole = desired.touched.is_none() || self.outstanding != Some(0);
        self.outstanding = None;
        let candidates = self.candidates(desired, whole);
        // A plan that was broken off may have placed what it did not come to write.
        let left =
            |(index, range): (&u32, &PortRange)| Op::SetPortRange { index: *index, range: *range };
        let mut ops: Vec<Op> = self.unwritten.iter().map(left).collect();
        let mut places = self.port_ranges.clone();
        if whole {
            places.forget_users();
        }
        let mut removals = Vec::new();
        self.plan_rules(desired, &candidates, whole, &mut places, &mut ops, &mut removals)?;
        let slot = self.plan_identities(desired.compiled, &candidates, &mut ops, &mut removals)?;
        let endpoints = self.plan_endpoints(desired, slot, &mut places, &mut ops)?;
        if !whole {
            for side in self.endpoints.values().flat_map(|e| [&e.ingress, &e.egress]) {
                places.give_up(side.any_peer);
            }
        }
        // A plan of all there is may follow on some that were broken off.
        let read = if whole { self.places_that_are_read() } else { BTreeSet::new() };
        places.end_plan(&read);

        let gone = self.endpoints.keys().filter(|ifindex| !endpoints.contains_key(ifindex));
        ops.extend(gone.flat_map(|ifindex| {
            [Op::Detach { ifindex: *ifindex }, Op::RemoveEndpoint { ifindex: *ifindex }]
        }));
        ops.extend(removals);

        self.port_ranges = places;
        self.unwritten.extend(ops.iter().filter_map(|op| match *op {
            Op::SetPortRange { index, range } => Some((index, range)),
            Op::SetRule { .. }
            | Op::SetPeer { .. }
            | Op::SetCidr { .. }
            | Op::ClearCounters { .. }
            | Op::SetEndpoint { .. }
            | Op::Attach { .. }
            | Op::Detach { .. }
            | Op::RemoveEndpoint { .. }
            | Op::RemoveRule { .. }
            | Op::RemovePeer { .. }
            | Op::RemoveCidr { .. } => None,
        }));
        self.slot = slot;
        self.outstanding = Some(ops.len());
        Ok(ops)
    }

    /// Takes note of an operation that was executed.
    pub fn executed(&mut self, op: &Op) {
        self.outstanding = self.outstanding.and_then(|count| count.checked_sub(1));
        match *op {
            Op::SetPortRange { index, .. } => drop(self.unwritten.remove(&index)),
            Op::ClearCounters { .. } => {}
            Op::SetRule { key, ports } => drop(self.rules.insert(key, ports)),
            Op::SetPeer { address, peer } => {
                let old = self.peers.map.insert(address, peer);
                self.peers.set(address, address.is_ipv4(), old, Some(peer));
            }
            Op::RemovePeer { address } => {
                let old = self.peers.map.remove(&address);
                self.peers.set(address, address.is_ipv4(), old, None);
            }
            Op::SetCidr { net, peer } => {
                let old = self.cidrs.map.get(&net).copied();
                self.cidrs.map.insert(net, peer);
                self.cidrs.set(net, net.addr().is_ipv4(), old, Some(peer));
            }
            Op::RemoveCidr { net } => {
                let old = self.cidrs.map.remove(&net);
                self.cidrs.set(net, net.addr().is_ipv4(), old, None);
            }
            Op::SetEndpoint { ifindex, endpoint } => drop(self.endpoints.insert(ifindex, endpoint)),
            Op::Attach { ifindex } => drop(self.attached.insert(ifindex)),
            Op::Detach { ifindex } => drop(self.attached.remove(&ifindex)),
            Op::RemoveEndpoint { ifindex } => drop(self.endpoints.remove(&ifindex)),
            Op::RemoveRule { key } => drop(self.rules.remove(&key)),
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
        self.outstanding = None;
        let mut blocks: BTreeSet<u32> = self.endpoints.values().map(|e| e.counters).collect();
        let mut ops = Vec::new();
        for ifindex in interfaces {
            if self.attached.contains(&ifindex) {
                continue;
            }
            let block = (1..=abi::ENDPOINTS).find(|block| !blocks.contains(block));
            if let (None, Some(block)) = (self.endpoints.get(&ifindex), block) {
                blocks.insert(block);
                self.epoch = self.epoch.wrapping_add(1).max(1);
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
        let [peers_v4, peers_v6] = self.peers.count;
        let [cidrs_v4, cidrs_v6] = self.cidrs.count;
        let of = |map, entries: usize, capacity| Fill {
            map,
            entries: u32::try_from(entries).unwrap_or(u32::MAX),
            capacity,
        };
        vec![
            of(abi::name::ENDPOINTS, self.endpoints.len(), abi::ENDPOINTS),
            of(abi::name::PEERS_V4, peers_v4, abi::PEERS),
            of(abi::name::PEERS_V6, peers_v6, abi::PEERS),
            of(abi::name::CIDRS_V4, cidrs_v4, abi::CIDRS),
            of(abi::name::CIDRS_V6, cidrs_v6, abi::CIDRS),
            of(abi::name::RULES, self.rules.len(), abi::RULES),
            of(abi::name::PORT_RANGES, self.port_ranges.used() as usize, abi::PORT_RANGES),
        ]
    }

    /// What a plan looks at.
    fn candidates(&self, desired: &Desired<'_>, whole: bool) -> Touched {
        let Compiled { peers, cidrs, rules, .. } = desired.compiled;
        match desired.touched {
            Some(touched) if !whole => Touched {
                peers: touched.peers.union(&self.peers.differing).copied().collect(),
                cidrs: touched.cidrs.union(&self.cidrs.differing).copied().collect(),
                rules: touched.rules.clone(),
            },
            Some(_) | None => Touched {
                peers: self.peers.map.keys().chain(peers.keys()).copied().collect(),
                cidrs: {
                    let known = self.cidrs.map.iter().map(|(net, _)| *net);
                    known.chain(cidrs.iter().map(|(net, _)| *net)).collect()
                },
                rules: self.rules.keys().chain(rules.keys()).copied().collect(),
            },
        }
    }

    fn plan_rules(
        &self,
        desired: &Desired<'_>,
        candidates: &Touched,
        whole: bool,
        places: &mut PortRanges,
        ops: &mut Vec<Op>,
        removals: &mut Vec<Op>,
    ) -> anyhow::Result<()> {
        let mut rules = Vec::new();
        let mut new = 0;
        for key in &candidates.rules {
            let old = self.rules.get(key);
            if let Some(ports) = desired.compiled.rules.get(key) {
                let ports = places.place(ports, ops)?;
                if old != Some(&ports) {
                    rules.push(Op::SetRule { key: *key, ports });
                }
                new += usize::from(old.is_none());
            } else if old.is_some() {
                removals.push(Op::RemoveRule { key: *key });
            }
            if let (Some(old), false) = (old, whole) {
                places.give_up(*old);
            }
        }
        ops.extend(rules);
        check_capacity(abi::name::RULES, abi::RULES, self.rules.len() + new)
    }

    fn plan_endpoints(
        &mut self,
        desired: &Desired<'_>,
        slot: usize,
        places: &mut PortRanges,
        ops: &mut Vec<Op>,
    ) -> anyhow::Result<BTreeMap<u32, Endpoint>> {
        let mut blocks: BTreeSet<u32> = self.endpoints.values().map(|e| e.counters).collect();
        // After a plan that was broken off among the switches, identities are written that some read.
        let read_by_none = self.endpoints.values().all(|endpoint| slot_of(endpoint) == self.slot);
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
            let same =
                read_by_none && old.is_some_and(|old| Endpoint { epoch: 0, ..*old } == endpoint);
            if same {
                endpoint.epoch = old.map_or(0, |old| old.epoch);
            } else {
                self.epoch = self.epoch.wrapping_add(1).max(1);
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

    /// Where the port ranges lie that rules and endpoints in the kernel may lead to.
    fn places_that_are_read(&self) -> BTreeSet<u32> {
        let any_peer =
            self.endpoints.values().flat_map(|e| [e.ingress.any_peer, e.egress.any_peer]);
        let sets = self.rules.values().copied().chain(any_peer);
        sets.filter(PortSet::is_placed).map(|set| set.start).collect()
    }

    /// An endpoint that nothing passes, but for its epoch and its counters.
    fn closed(&self, slot: usize) -> Endpoint {
        let slot = if slot == 0 { 0 } else { flags::SECOND_IDENTITY };
        let node = if self.deny_egress_to_node { flags::DENY_EGRESS_TO_NODE } else { 0 };
        Endpoint {
            ipv6: Address::ZERO,
            ipv4: Address::ZERO,
            ingress: Side::NOTHING,
            egress: Side::NOTHING,
            epoch: 0,
            counters: 0,
            flags: flags::ISOLATED_INGRESS | flags::ISOLATED_EGRESS | slot | node,
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
                if side.names_blocks {
                    endpoint.flags |= flags::ASKS_CIDRS;
                }
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

fn check_capacity(map: &str, capacity: u32, needed: usize) -> anyhow::Result<()> {
    if needed > capacity as usize {
        bail!("map {map} is full (capacity {capacity}): {needed} entries are needed");
    }
    Ok(())
}

#[cfg(test)]
mod tests;
