//! A pod, its policy and the maps, in memory.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
};

use super::*;

const NS_PER_SEC: u64 = 1_000_000_000;

/// A flow key of either family.
type AnyFlowKey = (IpAddr, u32, Port, Port, u32);

/// A fragment's key of either family.
type AnyFragmentKey = (IpAddr, IpAddr, u32, u32, u32);

/// A pod, its policy and the maps, all of them in memory.
pub(super) struct Node {
    pub(super) endpoint: Endpoint,
    pub(super) ranges: Vec<PortRange>,
    pub(super) rules: BTreeMap<RuleKey, PortSet>,
    pub(super) peers: BTreeMap<IpAddr, Peer>,
    /// Leading bytes, and what holds where no longer ones match.
    pub(super) cidrs: Vec<(Vec<u8>, Peer)>,
    pub(super) flows: RefCell<BTreeMap<AnyFlowKey, Flow>>,
    fragments: RefCell<BTreeMap<AnyFragmentKey, Fragment>>,
    /// Two places of each family, which every question contends for.
    memos_v4: RefCell<[Memo<4>; 2]>,
    memos_v6: RefCell<[Memo<16>; 2]>,
    pub(super) now_ns: Cell<u64>,
}

impl Node {
    /// One pod with these flags; no rule allows anything.
    pub(super) fn new(flags: u32) -> Self {
        let side = |policy_set| Side { policy_set, any_peer: PortSet::NOTHING };
        let [v4, v6] = [Net::V4, Net::V6].map(|net| Ends::of(net).pod);
        let (IpAddr::V4(v4), IpAddr::V6(v6)) = (v4, v6) else { panic!("one of each family") };
        Self {
            endpoint: Endpoint {
                ipv6: Address(v6.octets()),
                ipv4: Address(v4.octets()),
                ingress: side(INGRESS_SET),
                egress: side(EGRESS_SET),
                epoch: 1,
                counters: 1,
                flags,
            },
            ranges: Vec::new(),
            rules: BTreeMap::new(),
            peers: BTreeMap::new(),
            cidrs: Vec::new(),
            flows: RefCell::default(),
            fragments: RefCell::default(),
            memos_v4: RefCell::new([Memo::EMPTY; 2]),
            memos_v6: RefCell::new([Memo::EMPTY; 2]),
            now_ns: Cell::new(1_000_000 * NS_PER_SEC),
        }
    }

    /// Ranges of ports as a set; they come in ascending order.
    pub(super) fn port_set(&mut self, ranges: &[(u8, u16, u16)]) -> PortSet {
        if let &[(protocol, first, last)] = ranges {
            return PortSet::one(PortRange { protocol: protocol.into(), first, last });
        }
        let start = self.ranges.len() as u32;
        self.ranges.extend(ranges.iter().map(|&(protocol, first, last)| PortRange {
            protocol: protocol.into(),
            first,
            last,
        }));
        PortSet { start, len: ranges.len() as u32 }
    }

    /// Allows these ports with [`FRIEND`] in a direction.
    pub(super) fn allow(&mut self, direction: Direction, ranges: &[(u8, u16, u16)]) {
        let ports = self.port_set(ranges);
        let policy_set = self.endpoint.side(direction).policy_set;
        self.rules.insert(RuleKey { policy_set, identity: FRIEND }, ports);
    }

    /// Gives the friend's addresses their identity.
    pub(super) fn know_friend(&mut self) {
        for net in Net::ALL {
            self.peers.insert(Ends::of(net).friend, Peer { identities: [FRIEND, IDENTITY_NONE] });
        }
    }

    /// Forgets what rules said.
    pub(super) fn forget_answers(&self) {
        self.memos_v4.replace([Memo::EMPTY; 2]);
        self.memos_v6.replace([Memo::EMPTY; 2]);
    }

    /// Changes the endpoint, or what it reads of the maps: that has another epoch.
    pub(super) fn change_endpoint(&mut self, change: impl FnOnce(&mut Endpoint)) {
        change(&mut self.endpoint);
        self.endpoint.epoch += 1;
    }

    pub(super) fn meet(&self, direction: Direction, frame: &Frame) -> Verdict {
        self.meet_bytes(direction, &frame.bytes())
    }

    pub(super) fn meet_bytes(&self, direction: Direction, frame: &[u8]) -> Verdict {
        self.meet_at(&hook(direction), frame)
    }

    /// A packet to the pod that its own node sends.
    pub(super) fn meet_from_node(&self, frame: &Frame) -> Verdict {
        let hook = Hook { from_own_node: true, ..hook(Direction::Ingress) };
        self.meet_at(&hook, &frame.bytes())
    }

    pub(super) fn meet_at(&self, hook: &Hook, frame: &[u8]) -> Verdict {
        let at_a_glance = self.glance(hook, frame);
        let verdict = decide(hook, &self.endpoint, &Linear(frame), self);
        assert!(at_a_glance.is_none_or(|glance| glance == verdict), "{at_a_glance:?}, {verdict:?}");
        verdict
    }

    /// What is told of a packet at a glance.
    pub(super) fn glance(&self, hook: &Hook, frame: &[u8]) -> Option<Verdict> {
        quick::<false, _, _>(&Met {
            hook,
            endpoint: &self.endpoint,
            frame: &Linear(frame),
            maps: self,
        })
    }

    pub(super) fn pass_secs(&self, seconds: u64) {
        self.now_ns.set(self.now_ns.get() + seconds * NS_PER_SEC);
    }
}

/// Where a packet of somebody else, or of the pod, is met.
pub(super) fn hook(direction: Direction) -> Hook {
    Hook {
        direction,
        ifindex: IFINDEX,
        from_own_node: false,
        from_itself: false,
        vlan_tagged: false,
    }
}

macro_rules! maps {
    ($n:literal, $memos:ident) => {
        impl Maps<$n> for Node {
            fn peer(&self, address: &Address<$n>) -> Option<Peer> {
                self.peers.get(&IpAddr::from(address.0)).copied()
            }

            fn cidr(&self, address: &Address<$n>) -> Option<Peer> {
                let around = self.cidrs.iter().filter(|(bytes, _)| address.0.starts_with(bytes));
                around.max_by_key(|(bytes, _)| bytes.len()).map(|(_, peer)| *peer)
            }

            fn rule(&self, key: &RuleKey) -> Option<PortSet> {
                self.rules.get(key).copied()
            }

            fn is_in_ranges(&self, set: &PortSet, protocol: u8, port: Port) -> bool {
                let range = |index: u32| self.ranges.get(index as usize).copied();
                is_in_ranges(set, protocol, port, range)
            }

            fn with_memo<R>(
                &self,
                question: &Question<$n>,
                call: impl FnOnce(&mut Memo<$n>) -> R,
            ) -> Option<R> {
                self.$memos.borrow_mut().get_mut(question.place(2) as usize).map(call)
            }

            fn flow(&self, key: &FlowKey<$n>) -> Option<Flow> {
                let FlowKey { peer, ifindex, pod_port, peer_port, protocol } = *key;
                let key = (IpAddr::from(peer.0), ifindex, pod_port, peer_port, protocol);
                self.flows.borrow().get(&key).copied()
            }

            fn make_flow(&self, key: &FlowKey<$n>, flow: &Flow) {
                assert!(self.flow(key).is_none(), "an entry that is there is not made");
                self.set_flow(key, flow);
            }

            fn fragment(&self, key: &FragmentKey<$n>) -> Option<Fragment> {
                self.fragments.borrow().get(&any(key)).copied()
            }

            fn set_fragment(&self, key: &FragmentKey<$n>, fragment: &Fragment) {
                self.fragments.borrow_mut().insert(any(key), *fragment);
            }

            fn set_flow(&self, key: &FlowKey<$n>, flow: &Flow) {
                let FlowKey { peer, ifindex, pod_port, peer_port, protocol } = *key;
                let key = (IpAddr::from(peer.0), ifindex, pod_port, peer_port, protocol);
                self.flows.borrow_mut().insert(key, *flow);
            }

            fn now_ns(&self) -> u64 {
                self.now_ns.get()
            }
        }
    };
}
maps!(4, memos_v4);
maps!(16, memos_v6);

fn any<const N: usize>(key: &FragmentKey<N>) -> AnyFragmentKey
where
    IpAddr: From<[u8; N]>,
{
    let FragmentKey { source, destination, hook, identification, protocol } = *key;
    (source.0.into(), destination.0.into(), hook, identification, protocol)
}
