//! Addresses and blocks with their identities: what of them a plan writes, and which of the two
//! identities the endpoints are to read then.

use std::{collections::BTreeSet, net::IpAddr};

use bulkhead_common::{
    abi,
    value::{IDENTITY_NONE, Peer},
};
use ipnet::IpNet;

use super::{Programmed, check_capacity, slot_of};
use crate::{
    dataplane::op::Op,
    policy::compiled::{Compiled, Touched},
};

/// Addresses or blocks with their identities.
#[derive(Clone, Debug)]
pub(super) struct Identities<M, K> {
    pub(super) map: M,
    /// Those whose two identities differ: the next plan that switches has to look at them.
    pub(super) differing: BTreeSet<K>,
    /// How many there are of IPv4, and of IPv6.
    pub(super) count: [usize; 2],
}

impl Programmed {
    /// Writes what differs into the identities that no endpoint reads; which ones are to be read
    /// then.
    pub(super) fn plan_identities(
        &self,
        compiled: &Compiled,
        candidates: &Touched,
        ops: &mut Vec<Op>,
        removals: &mut Vec<Op>,
    ) -> anyhow::Result<usize> {
        let live = self.slot;
        let read = |peer: Peer| peer.identities.get(live).copied().unwrap_or(IDENTITY_NONE);
        let both = |identity| Peer { identities: [identity; 2] };
        // What is not there has the identity of what is around it: nothing, for an address.
        let peer = |address: &IpAddr| Row {
            known: self.peers.map.get(address).copied(),
            inherited: both(IDENTITY_NONE),
            is_wanted: compiled.peers.contains_key(address),
            wanted: compiled.peers.get(address).copied().unwrap_or(IDENTITY_NONE),
        };
        let cidr = |net: &IpNet| {
            let around = self.cidrs.map.around(net).map_or(IDENTITY_NONE, |(_, peer)| read(*peer));
            let wanted = compiled.cidrs.get(net).copied();
            let wanted_around = || compiled.cidrs.around(net).map(|(_, identity)| *identity);
            Row {
                known: self.cidrs.map.get(net).copied(),
                inherited: both(around),
                is_wanted: wanted.is_some(),
                wanted: wanted.or_else(wanted_around).unwrap_or(IDENTITY_NONE),
            }
        };
        let peers: Vec<_> = candidates.peers.iter().map(|key| (*key, peer(key))).collect();
        let cidrs: Vec<_> = candidates.cidrs.iter().map(|key| (*key, cidr(key))).collect();
        for (ipv4, peers_map, cidrs_map) in [
            (true, abi::name::PEERS_V4, abi::name::CIDRS_V4),
            (false, abi::name::PEERS_V6, abi::name::CIDRS_V6),
        ] {
            let new_peers = peers.iter().filter(|(a, row)| a.is_ipv4() == ipv4 && row.is_new());
            let new_cidrs =
                cidrs.iter().filter(|(n, row)| n.addr().is_ipv4() == ipv4 && row.is_new());
            let place = usize::from(!ipv4);
            check_capacity(peers_map, abi::PEERS, self.peers.count[place] + new_peers.count())?;
            check_capacity(cidrs_map, abi::CIDRS, self.cidrs.count[place] + new_cidrs.count())?;
        }

        let read_by_all = self.endpoints.values().all(|endpoint| slot_of(endpoint) == live);
        let rows = || peers.iter().map(|(_, row)| row).chain(cidrs.iter().map(|(_, row)| row));
        let unchanged = rows().all(|row| read(row.now()) == row.wanted);
        let target = if unchanged && read_by_all {
            None
        } else {
            Some(if read_by_all { 1 - live } else { live })
        };
        for (address, row) in peers {
            ops.extend(row.write(target).map(|peer| Op::SetPeer { address, peer }));
            removals.extend(row.is_to_go().then_some(Op::RemovePeer { address }));
        }
        for (net, row) in cidrs {
            ops.extend(row.write(target).map(|peer| Op::SetCidr { net, peer }));
            removals.extend(row.is_to_go().then_some(Op::RemoveCidr { net }));
        }
        Ok(target.unwrap_or(live))
    }
}

/// An address or a block: what is known of it, and what is wanted.
struct Row {
    known: Option<Peer>,
    inherited: Peer,
    is_wanted: bool,
    wanted: u32,
}

impl Row {
    const fn now(&self) -> Peer {
        match self.known {
            Some(peer) => peer,
            None => self.inherited,
        }
    }

    const fn is_new(&self) -> bool {
        self.is_wanted && self.known.is_none()
    }

    const fn is_to_go(&self) -> bool {
        !self.is_wanted && self.known.is_some()
    }

    /// What has to be written so that those who read `target` find what is wanted; without one,
    /// only what is new is written.
    fn write(&self, target: Option<usize>) -> Option<Peer> {
        if !self.is_wanted && self.known.is_none() {
            return None;
        }
        let mut peer = self.now();
        if let Some(identity) = target.and_then(|slot| peer.identities.get_mut(slot)) {
            *identity = self.wanted;
        }
        (self.known != Some(peer)).then_some(peer)
    }
}

impl<M: Default, K> Default for Identities<M, K> {
    fn default() -> Self {
        Self { map: M::default(), differing: BTreeSet::new(), count: [0; 2] }
    }
}

impl<M, K: Ord + Copy> Identities<M, K> {
    /// Takes note of what was replaced by what.
    pub(super) fn set(&mut self, key: K, is_ipv4: bool, old: Option<Peer>, new: Option<Peer>) {
        if let Some(count) = self.count.get_mut(usize::from(!is_ipv4)) {
            *count = *count + usize::from(new.is_some()) - usize::from(old.is_some());
        }
        match new {
            Some(Peer { identities: [first, second] }) if first != second => {
                self.differing.insert(key);
            }
            Some(_) | None => drop(self.differing.remove(&key)),
        }
    }
}
