//! What the loop tells: metrics, readiness, and log lines when something changes.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};

use bulkhead_common::{abi::COUNTER_BLOCK_UNKNOWN, verdict::Direction};

use crate::{
    dataplane::{
        counters::{Blocks, Counters},
        kernel::Kernel,
    },
    endpoint::{Binding, Doubt},
    enforcer::{Enforcer, Problems},
    health::Health,
    manifests::Scan,
    metrics::{CounterSource, DropEventOutcome, EndpointState, Metrics, PacketCount},
    policy::model::ObjectKey,
};

/// The kernel's counters, with the names of pods.
pub(super) struct PodCounters {
    counters: Arc<Counters>,
    blocks: RwLock<Blocks>,
}

impl PodCounters {
    pub(super) fn new(counters: Arc<Counters>) -> Self {
        Self { counters, blocks: RwLock::default() }
    }

    fn set_blocks(&self, blocks: Blocks) {
        *self.blocks.write().unwrap_or_else(PoisonError::into_inner) = blocks;
    }

    fn blocks(&self) -> Blocks {
        self.blocks.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl CounterSource for Arc<PodCounters> {
    fn read(&self) -> anyhow::Result<Vec<PacketCount>> {
        let unknown = (COUNTER_BLOCK_UNKNOWN, ObjectKey::new("", ""));
        let mut counts = Vec::new();
        for (block, pod) in self.blocks().into_iter().chain([unknown]) {
            counts.extend(self.counters.read(block)?.into_iter().map(|count| PacketCount {
                pod: pod.clone(),
                direction: count.direction,
                verdict: count.verdict,
                packets: count.counter.packets,
                bytes: count.counter.bytes,
            }));
        }
        Ok(counts)
    }
}

/// Tells what the loop did.
pub(super) struct Report {
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    counters: Arc<PodCounters>,
    /// What was logged, so that it is logged once.
    said: Said,
    suppressed: BTreeMap<u32, u64>,
}

#[derive(Default)]
struct Said {
    source: BTreeSet<String>,
    doubts: BTreeMap<u32, Doubt>,
    problems: Problems,
    conflicts: BTreeSet<String>,
    refused: BTreeMap<ObjectKey, String>,
}

impl Report {
    pub(super) fn new(metrics: Arc<Metrics>, health: Arc<Health>, counters: Arc<PodCounters>) -> Self {
        Self { metrics, health, counters, said: Said::default(), suppressed: BTreeMap::new() }
    }

    pub(super) fn alive(&self, now: Instant) {
        self.health.beat(now);
    }
}
