//! The loaded programs, run on single packets, beside `decide` in user space.
//!
//! Every run asserts what must hold of any packet: exactly one counter moved, by one packet of the
//! frame's length; the action fits it; an event was written or counted as suppressed for what was
//! denied, and for that alone; `decide` says the same over the same maps in memory.

use std::{num::Wrapping, time::Instant};

use aya::{TestRun as _, TestRunOptions};
use bulkhead::dataplane::{
    counters::Count,
    fake::FakeKernel,
    kernel::{Kernel, Options},
    op::{Execute as _, Op},
};
use bulkhead_common::{
    abi::{self, COUNTER_BLOCK_UNKNOWN},
    decide::{Hook, decide},
    frames::Linear,
    value::Counter,
    verdict::{Direction, DropReason, Verdict},
};

use crate::pod;

/// `TCX_NEXT`, the same as `TC_ACT_UNSPEC` (linux/pkt_cls.h): other programs still run.
const NEXT: u32 = u32::MAX;
/// `TC_ACT_SHOT`: the packet is dropped.
const SHOT: u32 = 2;
/// Some device that is not the pod's.
const ELSEWHERE: u32 = 7;

/// The programs in the kernel, and the same maps in memory.
pub struct Programs {
    /// What was loaded.
    pub kernel: Kernel,
    memory: FakeKernel,
    started: Instant,
    runs: u64,
}

/// What a run moved in one block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Moved {
    block: u32,
    count: Count,
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
        programs.set_pod(flags, 1);
        programs
    }

    /// Loads the programs; the maps are empty.
    ///
    /// # Panics
    ///
    /// It lacks the privileges: it says so.
    pub fn empty() -> Self {
        let kernel = Kernel::load(Options::default()).unwrap_or_else(|error| {
            panic!("this test loads eBPF programs, so it needs root: {error:#}")
        });
        Self { kernel, memory: FakeKernel::default(), started: Instant::now(), runs: 0 }
    }

    /// Changes the pod's flags and epoch.
    pub fn set_pod(&mut self, flags: u32, epoch: u32) {
        let endpoint = pod::endpoint(flags, epoch);
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

    /// How many events of the pod were not written.
    pub fn suppressed(&self) -> u64 {
        self.kernel.counters().suppressed(pod::COUNTERS).expect("reading a map")
    }

    fn run(&mut self, direction: Direction, ingress_ifindex: u32, frame: &[u8]) -> Verdict {
        let expected = self.in_memory(direction, ingress_ifindex, frame);
        let before = self.counts();
        let action = self.in_kernel(direction, ingress_ifindex, frame);
        let moved = difference(&before, &self.counts());
        self.runs += 1;

        let known = self.memory.endpoints.get(&pod::IFINDEX);
        let counter = Counter { packets: 1, bytes: frame.len() as u64 };
        let wanted = Moved {
            block: known.map_or(COUNTER_BLOCK_UNKNOWN, |endpoint| endpoint.counters),
            count: Count { direction, verdict: expected, counter },
        };
        assert_eq!(moved, [wanted], "left: the program, right: decide; {frame:02x?}");
        assert_eq!(action, if expected.is_allow() { NEXT } else { SHOT }, "{expected:?}");
        expected
    }

    fn in_kernel(&mut self, direction: Direction, ingress_ifindex: u32, frame: &[u8]) -> u32 {
        let context = context(ingress_ifindex);
        let options = TestRunOptions {
            data_in: Some(frame),
            ctx_in: Some(&context),
            ..TestRunOptions::default()
        };
        let program = self.kernel.program(name(direction)).expect("it was loaded");
        program
            .test_run(options)
            .unwrap_or_else(|error| panic!("{error}: {frame:02x?}"))
            .return_value
    }

    fn in_memory(&self, direction: Direction, ingress_ifindex: u32, frame: &[u8]) -> Verdict {
        let Some(endpoint) = self.memory.endpoints.get(&pod::IFINDEX) else {
            return Verdict::Deny(DropReason::Internal);
        };
        let hook = Hook {
            direction,
            ifindex: pod::IFINDEX,
            from_own_node: direction == Direction::Ingress && ingress_ifindex == 0,
            vlan_tagged: false,
        };
        self.memory.now_ns.set(self.started.elapsed().as_nanos() as u64 + 1);
        decide(&hook, endpoint, &Linear(frame), &self.memory)
    }

    /// Of the blocks that packets of these tests can meet.
    fn counts(&self) -> Vec<(u32, Vec<Count>)> {
        [COUNTER_BLOCK_UNKNOWN, pod::COUNTERS].map(|block| (block, self.counts_of(block))).into()
    }

    fn counts_of(&self, block: u32) -> Vec<Count> {
        self.kernel.counters().read(block).expect("reading a map")
    }
}

/// Asserts that no block of anybody else was touched.
impl Drop for Programs {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let all = (0..=abi::ENDPOINTS).flat_map(|block| self.counts_of(block));
        let packets: Wrapping<u64> = all.map(|count| Wrapping(count.counter.packets)).sum();
        assert_eq!(
            packets.0, self.runs,
            "every packet was counted once, and in a block of its own"
        );
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

fn difference(before: &[(u32, Vec<Count>)], after: &[(u32, Vec<Count>)]) -> Vec<Moved> {
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
