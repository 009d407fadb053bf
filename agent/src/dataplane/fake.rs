//! The maps in memory: operations are executed on them, and verdicts come out of them.
//!
//! For what can be shown without a kernel. It attaches nothing.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet, HashMap},
};

use bulkhead_common::{
    decide::{
        Maps, is_in_ranges,
        memo::{Memo, Question},
    },
    key::{Address, FlowKey, FragmentKey, Ipv4, Ipv6, Port, RuleKey},
    value::{Endpoint, Flow, Fragment, Peer, PortRange, PortSet},
};

use super::op::{Execute, MapAddress, Op};
use crate::policy::prefix_map::PrefixMap;

/// The maps, as plain maps.
#[derive(Clone, Debug, Default)]
pub struct FakeKernel {
    /// By host-side ifindex.
    pub endpoints: BTreeMap<u32, Endpoint>,
    /// Interfaces that have the programs attached.
    pub attached: BTreeSet<u32>,
    /// The clock, in nanoseconds.
    pub now_ns: Cell<u64>,
    /// IPv4 flows.
    pub flows_v4: RefCell<HashMap<FlowKey<4>, Flow>>,
    /// IPv6 flows.
    pub flows_v6: RefCell<HashMap<FlowKey<16>, Flow>>,
    /// Fragments of IPv4.
    pub fragments_v4: RefCell<HashMap<FragmentKey<4>, Fragment>>,
    /// Fragments of IPv6.
    pub fragments_v6: RefCell<HashMap<FragmentKey<16>, Fragment>>,
    /// What rules said of IPv4. Nothing is ever forgotten, unlike in the kernel: an answer that a
    /// change does not reach is found.
    memos_v4: RefCell<HashMap<Question<4>, Memo<4>>>,
    /// What rules said of IPv6.
    memos_v6: RefCell<HashMap<Question<16>, Memo<16>>>,
    peers_v4: HashMap<Ipv4, Peer>,
    peers_v6: HashMap<Ipv6, Peer>,
    cidrs: PrefixMap<Peer>,
    rules: HashMap<RuleKey, PortSet>,
    port_ranges: HashMap<u32, PortRange>,
}

impl Execute for FakeKernel {
    fn exists(&self, ifindex: u32) -> bool {
        self.attached.contains(&ifindex)
    }

    fn execute(&mut self, op: &Op) -> anyhow::Result<()> {
        match *op {
            Op::SetPortRange { index, range } => drop(self.port_ranges.insert(index, range)),
            Op::SetRule { key, ports } => drop(self.rules.insert(key, ports)),
            Op::SetPeer { address, peer } => match address.into() {
                MapAddress::V4(address) => drop(self.peers_v4.insert(address, peer)),
                MapAddress::V6(address) => drop(self.peers_v6.insert(address, peer)),
            },
            Op::SetCidr { net, peer } => self.cidrs.insert(net, peer),
            Op::RemoveCidr { net } => drop(self.cidrs.remove(&net)),
            Op::ClearCounters { .. } => {}
            Op::SetEndpoint { ifindex, endpoint } => drop(self.endpoints.insert(ifindex, endpoint)),
            Op::Attach { ifindex } => drop(self.attached.insert(ifindex)),
            Op::Detach { ifindex } => drop(self.attached.remove(&ifindex)),
            Op::RemoveEndpoint { ifindex } => drop(self.endpoints.remove(&ifindex)),
            Op::RemoveRule { key } => drop(self.rules.remove(&key)),
            Op::RemovePeer { address } => match address.into() {
                MapAddress::V4(address) => drop(self.peers_v4.remove(&address)),
                MapAddress::V6(address) => drop(self.peers_v6.remove(&address)),
            },
        }
        Ok(())
    }
}

impl FakeKernel {
    /// Forgets what rules said: the answers of epochs that are over are never asked for.
    pub fn forget_answers(&self) {
        self.memos_v4.borrow_mut().clear();
        self.memos_v6.borrow_mut().clear();
    }

    /// Of `port_ranges`.
    pub fn range(&self, index: u32) -> Option<PortRange> {
        self.port_ranges.get(&index).copied()
    }
}

macro_rules! maps {
    ($n:literal, $peers:ident, $memos:ident, $flows:ident, $fragments:ident) => {
        impl Maps<$n> for FakeKernel {
            fn peer(&self, address: &Address<$n>) -> Option<Peer> {
                self.$peers.get(address).copied()
            }

            fn cidr(&self, address: &Address<$n>) -> Option<Peer> {
                self.cidrs.longest(address.0.into()).map(|(_, peer)| *peer)
            }

            fn rule(&self, key: &RuleKey) -> Option<PortSet> {
                self.rules.get(key).copied()
            }

            fn is_in_ranges(&self, set: &PortSet, protocol: u8, port: Port) -> bool {
                let range = |index| self.range(index);
                is_in_ranges(set, protocol, port, range)
            }

            fn with_memo<R>(
                &self,
                question: &Question<$n>,
                call: impl FnOnce(&mut Memo<$n>) -> R,
            ) -> Option<R> {
                let mut memos = self.$memos.borrow_mut();
                Some(call(memos.entry(*question).or_insert(Memo::EMPTY)))
            }

            fn flow(&self, key: &FlowKey<$n>) -> Option<Flow> {
                self.$flows.borrow().get(key).copied()
            }

            fn make_flow(&self, key: &FlowKey<$n>, flow: &Flow) {
                self.set_flow(key, flow);
            }

            fn set_flow(&self, key: &FlowKey<$n>, flow: &Flow) {
                self.$flows.borrow_mut().insert(*key, *flow);
            }

            fn fragment(&self, key: &FragmentKey<$n>) -> Option<Fragment> {
                self.$fragments.borrow().get(key).copied()
            }

            fn set_fragment(&self, key: &FragmentKey<$n>, fragment: &Fragment) {
                self.$fragments.borrow_mut().insert(*key, *fragment);
            }

            fn now_ns(&self) -> u64 {
                self.now_ns.get()
            }
        }
    };
}
maps!(4, peers_v4, memos_v4, flows_v4, fragments_v4);
maps!(16, peers_v6, memos_v6, flows_v6, fragments_v6);
