//! The loaded programs, run on single packets, beside `decide` in user space.
//!
//! Every run asserts what must hold of any packet: exactly one counter moved, by one packet of the
//! frame's length; the action fits it; `decide` says the same over the same maps in memory.

use std::{
    collections::BTreeMap,
    ops::{Deref, DerefMut},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use aya::{Ebpf, Pod, TestRun as _, TestRunOptions, maps::HashMap};
use bulkhead::dataplane::{
    counters::Count,
    fake::FakeKernel,
    kernel::{Kernel, Options},
    op::{Execute as _, Op},
};
use bulkhead_common::{
    abi::{self, COUNTER_BLOCK_UNKNOWN},
    decide::{self, Family, Hook, Maps},
    frames::Linear,
    key::{Address, FlowKey, FragmentKey},
    packet::{self, Network},
    value::{Counter, Endpoint, Flow, Fragment},
    verdict::{Direction, DropReason, Verdict},
};

use crate::{
    pod,
    user_space::{self, Judged},
};

/// `TCX_NEXT`, the same as `TC_ACT_UNSPEC` (linux/pkt_cls.h): other programs still run.
pub const NEXT: u32 = u32::MAX;
/// `TC_ACT_SHOT`: the packet is dropped.
pub const SHOT: u32 = 2;
/// `TC_ACT_REDIRECT`: the packet goes elsewhere; here, back as an answer.
pub const REDIRECT: u32 = 7;
/// `XDP_DROP` and `XDP_PASS` (linux/bpf.h).
const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
/// Some device that is not the pod's.
pub const ELSEWHERE: u32 = 7;

/// The programs in the kernel, and the same maps in memory.
pub struct Programs {
    /// What was loaded.
    pub kernel: Kernel,
    memory: FakeKernel,
    epoch: u32,
    started: Instant,
    /// Of every block that was met, by the last look at the kernel.
    counts: BTreeMap<u32, Vec<Count>>,
}

/// What moved in a block of counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved {
    /// The block.
    pub block: u32,
    /// By how much.
    pub count: Count,
}

impl Programs {
    /// Loads the programs; one pod is known to them, with these flags and the rules of
    /// [`pod::rules`].
    ///
    /// # Panics
    ///
    /// It lacks the privileges: it says so.
    pub fn with_pod(flags: u32) -> Self {
        let mut programs = Self::empty();
        programs.execute(&pod::rules());
        programs.set_pod(flags);
        programs
    }

    /// Loads the programs; the maps are empty.
    ///
    /// # Panics
    ///
    /// It lacks the privileges: it says so.
    pub fn empty() -> Self {
        let kernel =
            Kernel::load(Options { uplink: true, ..Options::default() }).unwrap_or_else(|error| {
                panic!("this test loads eBPF programs, so it needs root: {error:#}")
            });
        let mut programs = Self {
            kernel,
            memory: FakeKernel::default(),
            epoch: 0,
            started: Instant::now(),
            counts: BTreeMap::new(),
        };
        // A block that the pod's may be mistaken for stands for all the others.
        let blocks = [COUNTER_BLOCK_UNKNOWN, pod::COUNTERS - 1, pod::COUNTERS, pod::COUNTERS + 1];
        programs.counts = blocks.map(|block| (block, programs.counts_of(block))).into();
        programs
    }

    /// Changes the pod's flags, and its epoch.
    pub fn set_pod(&mut self, flags: u32) {
        self.epoch += 1;
        let endpoint = pod::endpoint(flags, self.epoch);
        self.execute(&[Op::SetEndpoint { ifindex: pod::IFINDEX, endpoint }]);
    }

    /// Executes operations on the kernel's maps and on those in memory.
    pub fn execute(&mut self, ops: &[Op]) {
        for op in ops {
            self.kernel.execute(op).unwrap_or_else(|error| panic!("{op:?}: {error:#}"));
            self.memory.execute(op).unwrap_or_else(|error| panic!("{op:?}: {error:#}"));
        }
    }

    /// A packet for the pod that came in through some device.
    pub fn to_pod(&mut self, frame: &[u8]) -> Verdict {
        self.run(Direction::Ingress, ELSEWHERE, frame)
    }

    /// A packet for the pod that the node itself sent: it came in through no device.
    pub fn to_pod_from_own_node(&mut self, frame: &[u8]) -> Verdict {
        self.run(Direction::Ingress, 0, frame)
    }

    /// A packet that the pod sent.
    pub fn from_pod(&mut self, frame: &[u8]) -> Verdict {
        self.run(Direction::Egress, pod::IFINDEX, frame)
    }

    /// A packet that is met in this direction; not one that the node itself sent.
    pub fn meet(&mut self, direction: Direction, frame: &[u8]) -> Verdict {
        match direction {
            Direction::Ingress => self.to_pod(frame),
            Direction::Egress => self.from_pod(frame),
        }
    }

    /// A packet that comes in at the node's uplink: why it is dropped there, if it is. It is counted
    /// then, and not otherwise, and passes as it is; `ahead` says the same over the maps in memory.
    ///
    /// # Panics
    ///
    /// When the program does something else.
    pub fn at_uplink(&mut self, frame: &[u8]) -> Option<DropReason> {
        let expected = self.ahead_in_memory(frame);
        let mut out = vec![0; frame.len()];
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            ..TestRunOptions::default()
        };
        let program = self.kernel.uplink().expect("it is in the object");
        let result =
            program.test_run(options).unwrap_or_else(|error| panic!("{error}: {frame:02x?}"));
        let wanted = if expected.is_some() { XDP_DROP } else { XDP_PASS };
        assert_eq!(result.return_value, wanted, "`ahead` says {expected:?}; {frame:02x?}");
        assert_eq!(out, frame, "it is changed");
        let counter = Counter { packets: 1, bytes: frame.len() as u64 };
        let counted = expected.map(|reason| {
            let (direction, verdict) = (Direction::Ingress, Verdict::Deny(reason));
            Moved { block: pod::COUNTERS, count: Count { direction, verdict, counter } }
        });
        assert_eq!(self.moved(), Vec::from_iter(counted), "{frame:02x?}");
        expected
    }

    fn ahead_in_memory(&self, frame: &[u8]) -> Option<DropReason> {
        let endpoint = self.memory.endpoints.get(&pod::IFINDEX)?;
        match packet::network(&Linear(frame)).ok()? {
            Network::Arp => None,
            Network::Ipv4 => self.ahead::<4>(endpoint, frame),
            Network::Ipv6 => self.ahead::<16>(endpoint, frame),
        }
    }

    fn ahead<const N: usize>(&self, endpoint: &Endpoint, frame: &[u8]) -> Option<DropReason>
    where
        Address<N>: Family<N>,
        FakeKernel: Maps<N>,
    {
        let destination = Address::destination(&Linear(frame))?;
        if !decide::is_judged_ahead(endpoint, &destination) {
            return None;
        }
        decide::ahead(endpoint, &Address::packet(&Linear(frame)), &self.memory)
    }

    /// How many events of the pod were not written.
    pub fn suppressed(&self) -> u64 {
        self.kernel.counters().suppressed(pod::COUNTERS).expect("reading a map")
    }

    /// Every counter that moved since the last look.
    pub fn moved(&mut self) -> Vec<Moved> {
        let blocks: Vec<u32> = self.counts.keys().copied().collect();
        let after = blocks.into_iter().map(|block| (block, self.counts_of(block))).collect();
        let before = std::mem::replace(&mut self.counts, after);
        difference(&before, &self.counts)
    }

    /// Empties what the programs remember, in the kernel and in memory.
    pub fn forget_flows(&mut self) {
        self.memory.flows_v4.borrow_mut().clear();
        self.memory.flows_v6.borrow_mut().clear();
        self.memory.fragments_v4.borrow_mut().clear();
        self.memory.fragments_v6.borrow_mut().clear();
        self.memory.forget_answers();
        let ebpf = self.kernel.ebpf_mut();
        clear::<FlowKey<4>, Flow>(ebpf, abi::name::FLOWS_V4);
        clear::<FlowKey<16>, Flow>(ebpf, abi::name::FLOWS_V6);
        clear::<FragmentKey<4>, Fragment>(ebpf, abi::name::FRAGMENTS_V4);
        clear::<FragmentKey<16>, Fragment>(ebpf, abi::name::FRAGMENTS_V6);
    }

    fn run(&mut self, direction: Direction, ingress_ifindex: u32, frame: &[u8]) -> Verdict {
        let expected = self.compare(direction, ingress_ifindex, frame);
        let known = self.memory.endpoints.get(&pod::IFINDEX);
        let block = known.map_or(COUNTER_BLOCK_UNKNOWN, |endpoint| endpoint.counters);
        let counter = Counter { packets: 1, bytes: frame.len() as u64 };
        let wanted = Moved { block, count: Count { direction, verdict: expected, counter } };
        assert_eq!(self.moved(), [wanted], "left: the program, right: decide; {frame:02x?}");
        expected
    }

    /// The verdict of `decide`, when the program acts accordingly. Looks at no counters.
    pub fn compare(&mut self, direction: Direction, ingress_ifindex: u32, frame: &[u8]) -> Verdict {
        let expected = self.in_memory(direction, ingress_ifindex, frame).verdict;
        let action = self.in_kernel(direction, &context(ingress_ifindex), frame);
        let wanted = if expected.is_allow() { NEXT } else { SHOT };
        assert_eq!(action, wanted, "decide says {expected:?}; {frame:02x?}");
        expected
    }

    /// What the program returns for a frame with this `__sk_buff`.
    ///
    /// # Panics
    ///
    /// The kernel refuses to run it.
    pub fn in_kernel(&mut self, direction: Direction, context: &[u8], frame: &[u8]) -> u32 {
        let options = TestRunOptions {
            data_in: Some(frame),
            ctx_in: Some(context),
            ..TestRunOptions::default()
        };
        let program = self.kernel.program(name(direction)).expect("it was loaded");
        program
            .test_run(options)
            .unwrap_or_else(|error| panic!("{error}: {frame:02x?}"))
            .return_value
    }

    /// What is said in user space of a frame, over the maps in memory.
    pub fn in_memory(&self, direction: Direction, ingress_ifindex: u32, frame: &[u8]) -> Judged {
        let Some(endpoint) = self.memory.endpoints.get(&pod::IFINDEX) else {
            return Judged { verdict: Verdict::Deny(DropReason::Internal), at_a_glance: false };
        };
        let hook = Hook {
            direction,
            ifindex: pod::IFINDEX,
            from_own_node: direction == Direction::Ingress && ingress_ifindex == 0,
            from_itself: false,
            vlan_tagged: false,
        };
        self.memory.now_ns.set(self.started.elapsed().as_nanos() as u64 + 1);
        user_space::judge(&hook, endpoint, frame, &self.memory)
    }

    /// The time at which the last frame was judged in user space.
    pub fn clock(&self) -> Duration {
        Duration::from_nanos(self.memory.now_ns.get())
    }

    fn counts_of(&self, block: u32) -> Vec<Count> {
        self.kernel.counters().read(block).expect("reading a map")
    }
}

/// Programs that the tests of one process share: loading them takes a second.
pub struct Shared(MutexGuard<'static, Option<Programs>>);

/// Programs whose maps are as [`Programs::with_pod`] leaves them.
///
/// # Panics
///
/// It lacks the privileges: it says so.
pub fn shared(flags: u32) -> Shared {
    static PROGRAMS: Mutex<Option<Programs>> = Mutex::new(None);
    // What a test that failed left behind is taken away here.
    let mut guard = PROGRAMS.lock().unwrap_or_else(PoisonError::into_inner);
    let programs = guard.get_or_insert_with(|| Programs::with_pod(flags));
    programs.forget_flows();
    programs.set_pod(flags);
    programs.moved();
    Shared(guard)
}

impl Deref for Shared {
    type Target = Programs;

    fn deref(&self) -> &Programs {
        self.0.as_ref().expect("`shared` has loaded them")
    }
}

impl DerefMut for Shared {
    fn deref_mut(&mut self) -> &mut Programs {
        self.0.as_mut().expect("`shared` has loaded them")
    }
}

/// The program that meets packets of a direction.
pub const fn name(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => abi::name::TO_POD,
        Direction::Egress => abi::name::FROM_POD,
    }
}

/// A `__sk_buff` (linux/bpf.h) up to `ifindex`; the kernel takes the rest for zero.
pub fn context(ingress_ifindex: u32) -> [u8; 44] {
    let mut context = [0; 44];
    context[36..40].copy_from_slice(&ingress_ifindex.to_ne_bytes());
    context[40..44].copy_from_slice(&pod::IFINDEX.to_ne_bytes());
    context
}

fn clear<K: Pod, V: Pod>(ebpf: &mut Ebpf, name: &str) {
    let map = ebpf.map_mut(name).unwrap_or_else(|| panic!("no map {name}"));
    let mut map = HashMap::<_, K, V>::try_from(map).expect("a hash");
    let keys: Vec<K> = map.keys().collect::<Result<_, _>>().expect("reading a map");
    for key in keys {
        map.remove(&key).expect("nobody else removes entries");
    }
}

fn difference(before: &BTreeMap<u32, Vec<Count>>, after: &BTreeMap<u32, Vec<Count>>) -> Vec<Moved> {
    let pairs = before.iter().zip(after).flat_map(|((block, before), (_, after))| {
        before.iter().zip(after).map(|(before, after)| (*block, before.counter, *after))
    });
    pairs
        .filter(|(_, before, after)| *before != after.counter)
        .map(|(block, before, after)| {
            let counter = Counter {
                packets: after.counter.packets.wrapping_sub(before.packets),
                bytes: after.counter.bytes.wrapping_sub(before.bytes),
            };
            Moved { block, count: Count { counter, ..after } }
        })
        .collect()
}
