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
        flows::{FlowCount, Flows},
        kernel::Kernel,
    },
    endpoint::Binding,
    enforcer::{Enforcer, Problems, Unenforced},
    health::Health,
    manifests::{ProblemKind, Scan},
    metrics::{CounterSource, DropEventOutcome, EndpointState, Map, Metrics, PacketCount},
    policy::{compiled::MixedService, model::ObjectKey},
};

/// The kernel's counters, with the names of pods; its flows.
pub(super) struct PodCounters {
    counters: Arc<Counters>,
    flows: Arc<Flows>,
    blocks: RwLock<Blocks>,
}

impl PodCounters {
    pub(super) fn new(counters: Arc<Counters>, flows: Arc<Flows>) -> Self {
        Self { counters, flows, blocks: RwLock::default() }
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

    fn flows(&self) -> anyhow::Result<[FlowCount; 2]> {
        self.flows.read()
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
    problems: BTreeSet<String>,
    conflicts: BTreeSet<String>,
    doubts: BTreeSet<String>,
    unenforced: BTreeSet<String>,
    mixed_services: BTreeSet<String>,
    reconcile: BTreeSet<String>,
}

impl Report {
    pub(super) fn new(
        metrics: Arc<Metrics>,
        health: Arc<Health>,
        counters: Arc<PodCounters>,
    ) -> Self {
        Self { metrics, health, counters, said: Said::default(), suppressed: BTreeMap::new() }
    }

    /// The loop is alive.
    pub(super) fn alive(&self, now: Instant) {
        self.health.beat(now);
    }

    /// The directory was looked at.
    pub(super) fn scan(&mut self, scan: &Scan) {
        for kind in ProblemKind::ALL {
            let count = scan.problems.iter().filter(|problem| problem.kind == *kind).count();
            self.metrics.set_rejected_objects(*kind, count);
        }
        self.metrics.set_source(scan.available, scan.complete);
        let unavailable = scan
            .problems
            .iter()
            .find(|problem| !scan.available && problem.kind == ProblemKind::Directory);
        self.health.update(|readiness| {
            readiness.source_complete = scan.complete;
            readiness.source_problem = unavailable.map(ToString::to_string);
        });
        let problems = scan.problems.iter().map(ToString::to_string).collect();
        say(&mut self.said.problems, problems, |line| tracing::error!("{line}"));
    }

    /// The data plane was brought up to date, or not.
    pub(super) fn reconciled(&mut self, enforcer: &mut Enforcer<Kernel>, took: Duration) {
        let problems = enforcer.problems().clone();
        let unenforced = enforcer.unenforced();
        self.tell_log(enforcer, &problems, &unenforced);
        self.tell_metrics(enforcer, &unenforced);
        self.metrics.count_reconcile(problems.reconcile.is_none(), took);
        self.counters.set_blocks(blocks(enforcer));
        // Where pods of every node are named, those of the others have no interface here.
        let one_node = enforcer.index().node().is_some();
        self.health.update(|readiness| {
            readiness.last_reconcile = Some(problems.reconcile.map_or(Ok(()), Err));
            readiness.unattached = unenforced
                .into_iter()
                .filter(|(_, why)| one_node || why.is_failure())
                .map(|(pod, why)| (pod, why.to_string()))
                .collect();
        });
        tracing::debug!("reconciled in {took:?}");
    }

    /// Fills up the event budget of every endpoint, and counts what the last one was too small for.
    pub(super) fn grant_events(&mut self, enforcer: &mut Enforcer<Kernel>, events: u32) {
        let blocks = counter_blocks(enforcer);
        self.suppressed.retain(|block, _| blocks.contains(block));
        self.grant(enforcer, blocks, events);
    }

    /// The same, of endpoints that had none yet: nobody waits for their first drops in vain.
    pub(super) fn grant_first_events(&mut self, enforcer: &mut Enforcer<Kernel>, events: u32) {
        let mut blocks = counter_blocks(enforcer);
        blocks.retain(|block| !self.suppressed.contains_key(block));
        self.grant(enforcer, blocks, events);
    }

    fn grant(&mut self, enforcer: &mut Enforcer<Kernel>, blocks: BTreeSet<u32>, events: u32) {
        let counters = Arc::clone(enforcer.kernel().counters());
        for block in blocks {
            let granted = counters.grant_events(block, events).and_then(|()| {
                let now = counters.suppressed(block)?;
                let before = self.suppressed.insert(block, now).unwrap_or(0);
                // A block that was cleared for another pod starts at zero again.
                let more = now.checked_sub(before).unwrap_or(now);
                self.metrics.count_drop_events(DropEventOutcome::SuppressedKernel, more);
                Ok(())
            });
            if let Err(error) = granted {
                tracing::warn!("drops of one pod stay out of the log for now: {error:#}");
            }
        }
    }

    fn tell_metrics(
        &self,
        enforcer: &Enforcer<Kernel>,
        unenforced: &BTreeMap<ObjectKey, Unenforced>,
    ) {
        let failed = unenforced.values().filter(|why| why.is_failure()).count();
        let bound = enforcer.bindings().iter();
        let pods = bound.filter(|(_, binding)| matches!(binding, Binding::Pod(_))).count();
        self.metrics.set_endpoints(EndpointState::Attached, pods.saturating_sub(failed));
        self.metrics.set_endpoints(EndpointState::Failed, failed);
        self.metrics.set_endpoints(EndpointState::Pending, unenforced.len() - failed);
        let closed = enforcer.bindings().iter().count() - pods;
        self.metrics.set_endpoints(EndpointState::Closed, closed);
        for direction in Direction::ALL {
            self.metrics.set_isolated_endpoints(direction, enforcer.isolated(direction));
        }
        self.metrics.set_mixed_services(enforcer.mixed_services().len());
        for fill in enforcer.programmed().fill() {
            let map = Map::ALL.iter().find(|map| fill.map.eq_ignore_ascii_case(map.as_str()));
            if let Some(map) = map {
                self.metrics.set_map(*map, u64::from(fill.entries), u64::from(fill.capacity));
            }
        }
    }

    fn tell_log(
        &mut self,
        enforcer: &Enforcer<Kernel>,
        problems: &Problems,
        unenforced: &BTreeMap<ObjectKey, Unenforced>,
    ) {
        let conflicts = enforcer.index().conflicts().map(|conflict| {
            let names: Vec<_> = conflict.claimants.iter().map(ToString::to_string).collect();
            let node = if conflict.is_node_address { " and the node itself" } else { "" };
            format!(
                "address {} belongs to {}{node}: no rule admits it, and these pods are closed until \
                 it is one's alone",
                conflict.address,
                names.join(", "),
            )
        });
        say(&mut self.said.conflicts, conflicts.collect(), |line| tracing::error!("{line}"));
        let mixed = enforcer.mixed_services().iter().map(|MixedService { service, protocol, port }| {
            format!(
                "service {service}, {protocol} {port}: egress policies of pods of this node allow \
                 a part of its backends only, so these pods may not reach it; allow all of its \
                 backends, or name its address by an ipBlock"
            )
        });
        say(&mut self.said.mixed_services, mixed.collect(), |line| tracing::warn!("{line}"));
        let doubts = enforcer.bindings().iter().filter_map(|(ifindex, binding)| match binding {
            Binding::Pod(_) => None,
            Binding::Closed(doubt) => Some(format!("interface {ifindex} is closed: {doubt}")),
        });
        say(&mut self.said.doubts, doubts.collect(), |line| tracing::warn!("{line}"));
        let one_node = enforcer.index().node().is_some();
        let waiting = unenforced
            .iter()
            .filter(|(_, why)| one_node || why.is_failure())
            .map(|(pod, why)| format!("pod {pod} is not enforced: {why}"));
        say(&mut self.said.unenforced, waiting.collect(), |line| tracing::warn!("{line}"));
        let failed = problems
            .reconcile
            .iter()
            .map(|why| format!("every pod keeps the policy it had; it is tried again: {why}"));
        say(&mut self.said.reconcile, failed.collect(), |line| tracing::error!("{line}"));
    }
}

/// Logs the lines that were not there the last time.
fn say(said: &mut BTreeSet<String>, lines: BTreeSet<String>, log: impl Fn(&str)) {
    for line in lines.difference(said) {
        // Names come from manifests: none of them makes a line of its own.
        log(&line.replace(['\n', '\r'], " "));
    }
    *said = lines;
}

/// The blocks of counters of all endpoints.
fn counter_blocks(enforcer: &Enforcer<Kernel>) -> BTreeSet<u32> {
    enforcer.programmed().endpoints().values().map(|endpoint| endpoint.counters).collect()
}

/// Whose each block of counters is.
fn blocks(enforcer: &Enforcer<Kernel>) -> Blocks {
    let endpoints = enforcer.programmed().endpoints();
    enforcer
        .bindings()
        .iter()
        .filter_map(|(ifindex, binding)| match binding {
            Binding::Pod(pod) => Some((endpoints.get(&ifindex)?.counters, pod.clone())),
            Binding::Closed(doubt) => {
                let pod = doubt.pod().cloned().unwrap_or_else(|| ObjectKey::new("", ""));
                Some((endpoints.get(&ifindex)?.counters, pod))
            }
        })
        .collect()
}
