//! Packet counters and event budgets, per CPU in the kernel.
//!
//! Shared: the agent's loop says whose each block is, the metrics page reads at any time.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use anyhow::Context as _;
use aya::{
    maps::{MapData, PerCpuArray, PerCpuValues},
    util::nr_cpus,
};
use bulkhead_common::{
    abi::{self, COUNTER_BLOCK_UNKNOWN, counter_index},
    value::Counter,
    verdict::{AllowReason, Direction, DropReason, Verdict},
};

/// Counters of every endpoint.
pub struct Counters(Mutex<Inner>);

struct Inner {
    counters: PerCpuArray<MapData, Counter>,
    budgets: PerCpuArray<MapData, u32>,
    suppressed: PerCpuArray<MapData, u64>,
}

/// A count of one block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// The way the packets went.
    pub direction: Direction,
    /// What became of them.
    pub verdict: Verdict,
    /// How many, and how long.
    pub counter: Counter,
}

impl Counters {
    pub(super) fn new(
        counters: PerCpuArray<MapData, Counter>,
        budgets: PerCpuArray<MapData, u32>,
        suppressed: PerCpuArray<MapData, u64>,
    ) -> Self {
        Self(Mutex::new(Inner { counters, budgets, suppressed }))
    }

    /// Every count of a block, in the order of directions and verdicts; zeros, too.
    ///
    /// # Errors
    ///
    /// What the kernel said of the map.
    pub fn read(&self, block: u32) -> anyhow::Result<Vec<Count>> {
        let inner = self.lock();
        let mut counts = Vec::new();
        for direction in Direction::ALL {
            for verdict in every_verdict() {
                let counter = inner.counter(block, direction, verdict)?;
                counts.push(Count { direction, verdict, counter });
            }
        }
        Ok(counts)
    }

    /// One count of a block.
    ///
    /// # Errors
    ///
    /// What the kernel said of the map.
    pub fn read_one(
        &self,
        block: u32,
        direction: Direction,
        verdict: Verdict,
    ) -> anyhow::Result<Counter> {
        self.lock().counter(block, direction, verdict)
    }

    /// How many events of a block the programs did not write, for want of budget or room.
    ///
    /// # Errors
    ///
    /// What the kernel said of the map.
    pub fn suppressed(&self, block: u32) -> anyhow::Result<u64> {
        let values =
            self.lock().suppressed.get(&block, 0).context("cannot read EVENTS_SUPPRESSED")?;
        Ok(values.iter().fold(0, |sum, value| sum.wrapping_add(*value)))
    }

    /// Lets the programs write that many events of a block from now on, on each CPU.
    ///
    /// # Errors
    ///
    /// What the kernel said of the map.
    pub fn grant_events(&self, block: u32, events: u32) -> anyhow::Result<()> {
        let values = each_cpu(events)?;
        self.lock().budgets.set(block, values, 0).context("cannot write EVENT_BUDGETS")
    }

    pub(super) fn clear(&self, block: u32) -> anyhow::Result<()> {
        debug_assert_ne!(block, COUNTER_BLOCK_UNKNOWN, "that block is nobody's");
        let mut inner = self.lock();
        for index in abi::counter_block(block) {
            let zero = each_cpu(Counter::default())?;
            inner.counters.set(index, zero, 0).context("cannot write COUNTERS")?;
        }
        inner.suppressed.set(block, each_cpu(0)?, 0).context("cannot write EVENTS_SUPPRESSED")
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing in here is left half done by a panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn counter(
        &self,
        block: u32,
        direction: Direction,
        verdict: Verdict,
    ) -> anyhow::Result<Counter> {
        let index = counter_index(block, direction, verdict);
        let values = self.counters.get(&index, 0).context("cannot read COUNTERS")?;
        Ok(super::kernel::sum(&values))
    }
}

/// Every verdict, in the order of its counter column.
pub fn every_verdict() -> impl Iterator<Item = Verdict> {
    let allow = AllowReason::ALL.iter().map(|reason| Verdict::Allow(*reason));
    allow.chain(DropReason::ALL.iter().map(|reason| Verdict::Deny(*reason)))
}

fn each_cpu<V: aya::Pod>(value: V) -> anyhow::Result<PerCpuValues<V>> {
    let cpus = nr_cpus().map_err(|(file, error)| anyhow::Error::new(error).context(file))?;
    PerCpuValues::try_from(vec![value; cpus]).context("one value for each CPU")
}

/// Whose each block of counters is.
pub type Blocks = BTreeMap<u32, crate::policy::model::ObjectKey>;
