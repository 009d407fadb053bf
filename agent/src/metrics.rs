//! What Bulkhead counts and measures, and the page that shows it.
//!
//! Owns every metric's name, help and labels; `docs/metrics.md` describes each (a test compares).
//! Does not own what the kernel counts, packets and flows, which is read at each scrape through
//! [`CounterSource`], nor the HTTP server.
//!
//! Invariant: a page is whole or it is an error. Counters that cannot be read never turn into
//! zeros or into missing series.

mod flows;
mod labels;
mod packets;
#[cfg(test)]
mod tests;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use bulkhead_common::verdict::Direction;
use prometheus_client::{
    encoding::text,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram, info::Info},
    registry::{Registry, Unit},
};

use crate::manifests::ProblemKind;

pub use self::{
    labels::{DropEventOutcome, EndpointState, Map},
    packets::{CounterSource, PacketCount},
};

/// The media type of [`Metrics::page`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Upper bounds of the reconcile histogram: from "nothing to do" to "something hangs".
const RECONCILE_BUCKETS_SECONDS: [f64; 12] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// One label and its value, which is from a closed set.
type Label = [(&'static str, &'static str); 1];

/// Every metric of one agent. Shared between the loop, which writes, and the server, which reads.
pub struct Metrics {
    registry: Registry,
    counters: Arc<dyn CounterSource>,
    scrape_errors: Counter,
    scrape_failing: AtomicBool,
    rejected_objects: Family<Label, Gauge>,
    endpoints: Family<Label, Gauge>,
    isolated_endpoints: Family<Label, Gauge>,
    mixed_services: Gauge,
    map_entries: Family<Label, Gauge<u64, AtomicU64>>,
    map_capacity: Family<Label, Gauge<u64, AtomicU64>>,
    drop_events: Family<Label, Counter>,
    reconciles: Family<Label, Counter>,
    reconcile_duration: Histogram,
    source_available: Gauge,
    source_complete: Gauge,
}

impl Metrics {
    /// All at zero, and every series of a closed label set already there, so that `rate()` sees
    /// the first step. Only the map gauges appear when they are first set.
    pub fn new(counters: impl CounterSource) -> Self {
        let mut metrics = Self {
            registry: Registry::default(),
            counters: Arc::new(counters),
            scrape_errors: Counter::default(),
            scrape_failing: AtomicBool::new(false),
            rejected_objects: Family::default(),
            endpoints: Family::default(),
            isolated_endpoints: Family::default(),
            mixed_services: Gauge::default(),
            map_entries: Family::default(),
            map_capacity: Family::default(),
            drop_events: Family::default(),
            reconciles: Family::default(),
            reconcile_duration: Histogram::new(RECONCILE_BUCKETS_SECONDS),
            source_available: Gauge::default(),
            source_complete: Gauge::default(),
        };
        metrics.start_at_zero();
        metrics.register();
        metrics
    }

    fn start_at_zero(&self) {
        ProblemKind::ALL.iter().for_each(|kind| self.set_rejected_objects(*kind, 0));
        EndpointState::ALL.iter().for_each(|state| self.set_endpoints(*state, 0));
        Direction::ALL.iter().for_each(|direction| self.set_isolated_endpoints(*direction, 0));
        DropEventOutcome::ALL.iter().for_each(|outcome| self.count_drop_events(*outcome, 0));
        for result in ["ok", "error"] {
            self.reconciles.get_or_create(&[("result", result)]).inc_by(0);
        }
    }

    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register(
            "bulkhead_build",
            "The agent that answers. Always 1; the version is in the label",
            Info::new([("version", env!("CARGO_PKG_VERSION"))]),
        );
        registry.register(
            "bulkhead_source_available",
            "1 while the source of pods and policies can be read. At 0 the last whole policy \
             stays in force, and changes are not seen",
            self.source_available.clone(),
        );
        registry.register(
            "bulkhead_source_complete",
            "1 once the source has named everything it holds. At 0 a policy may be missing, so \
             no pod is opened",
            self.source_complete.clone(),
        );
        registry.register(
            "bulkhead_rejected_objects",
            "Objects and manifest files that are refused right now because they are not \
             understood. A refused NetworkPolicy closes the pods it selects. The log names each",
            self.rejected_objects.clone(),
        );
        registry.register(
            "bulkhead_endpoints",
            "Pods of this node that Bulkhead should enforce policy for. attached: enforced; \
             pending: the interface has not been found yet; failed: the programs could not be \
             attached, which is tried again; closed: interfaces that are nobody's for sure, so that \
             nothing passes but the own node's packets",
            self.endpoints.clone(),
        );
        registry.register(
            "bulkhead_isolated_endpoints",
            "Pods of this node that are isolated in this direction, by a policy or because they are \
             closed: what no rule allows is denied. All others are open in it",
            self.isolated_endpoints.clone(),
        );
        registry.register(
            "bulkhead_mixed_services",
            "Ports of services whose backends the egress policies of this node's pods allow in \
             part only, so that these pods may not reach the service at all. The log names each",
            self.mixed_services.clone(),
        );
        registry.register(
            "bulkhead_map_entries",
            "Entries in a map of the kernel. When a map is full, every pod keeps the policy it had, \
             new pods are closed, and the agent is not ready",
            self.map_entries.clone(),
        );
        registry.register(
            "bulkhead_map_capacity",
            "Entries that fit into a map of the kernel",
            self.map_capacity.clone(),
        );
        registry.register(
            "bulkhead_reconciles",
            "Times that the agent brought the kernel in line with the policies. After an error \
             the kernel keeps enforcing what it had, and the agent tries again",
            self.reconciles.clone(),
        );
        registry.register_with_unit(
            "bulkhead_reconcile_duration",
            "How long a reconcile took, from compiling the policies to the last write into the \
             kernel",
            Unit::Seconds,
            self.reconcile_duration.clone(),
        );
        registry.register(
            "bulkhead_drop_events",
            "Records of dropped packets, by what became of the record. Every drop is in \
             bulkhead_packets_total; only the log is a sample",
            self.drop_events.clone(),
        );
        registry.register(
            "bulkhead_scrape_errors",
            "Scrapes answered with status 500 because packet counters or flows could not be read \
             from the kernel",
            self.scrape_errors.clone(),
        );
    }

    /// The whole page, in the format of [`CONTENT_TYPE`].
    ///
    /// # Errors
    ///
    /// Where the kernel's counters cannot be read. The failure is counted; the log has a line when
    /// a run of failures begins and one when it ends.
    pub fn page(&self) -> anyhow::Result<String> {
        let read = self.counters.read().and_then(|counts| Ok((counts, self.counters.flows()?)));
        let (counts, flows) = match read {
            Ok(read) => read,
            Err(error) => {
                self.scrape_errors.inc();
                if !self.scrape_failing.swap(true, Ordering::Relaxed) {
                    tracing::error!(
                        "counters cannot be read, scrapes fail until they can: {error:#}"
                    );
                }
                return Err(error.context("counters cannot be read from the kernel"));
            }
        };
        if self.scrape_failing.swap(false, Ordering::Relaxed) {
            tracing::info!("counters can be read again");
        }

        let mut scrape = Registry::default();
        scrape.register_collector(Box::new(packets::Packets::new(counts)));
        scrape.register_collector(Box::new(flows::Flows::new(flows)));
        let mut page = String::new();
        text::encode_registry(&mut page, &self.registry)
            .and_then(|()| text::encode_registry(&mut page, &scrape))
            .and_then(|()| text::encode_eof(&mut page))
            .context("metrics page cannot be written")?;
        Ok(page)
    }

    /// How many objects or files of `kind` are refused right now.
    pub fn set_rejected_objects(&self, kind: ProblemKind, count: usize) {
        self.rejected_objects.get_or_create(&[("kind", kind.as_str())]).set(gauge(count));
    }

    /// How many pods of this node are in `state`.
    pub fn set_endpoints(&self, state: EndpointState, count: usize) {
        self.endpoints.get_or_create(&[("state", state.as_str())]).set(gauge(count));
    }

    /// How many pods of this node are isolated in `direction`.
    pub fn set_isolated_endpoints(&self, direction: Direction, count: usize) {
        self.isolated_endpoints
            .get_or_create(&[("direction", direction.as_str())])
            .set(gauge(count));
    }

    /// How many ports of services pods of this node may not reach for a part of the backends.
    pub fn set_mixed_services(&self, count: usize) {
        self.mixed_services.set(gauge(count));
    }

    /// How full a map is.
    pub fn set_map(&self, map: Map, entries: u64, capacity: u64) {
        let label = [("map", map.as_str())];
        self.map_entries.get_or_create(&label).set(entries);
        self.map_capacity.get_or_create(&label).set(capacity);
    }

    /// Adds `count` records of dropped packets that ended as `outcome`.
    pub fn count_drop_events(&self, outcome: DropEventOutcome, count: u64) {
        self.drop_events.get_or_create(&[("outcome", outcome.as_str())]).inc_by(count);
    }

    /// Counts one reconcile and how long it took.
    pub fn count_reconcile(&self, succeeded: bool, took: Duration) {
        let result = if succeeded { "ok" } else { "error" };
        self.reconciles.get_or_create(&[("result", result)]).inc();
        self.reconcile_duration.observe(took.as_secs_f64());
    }

    /// Whether the source can be read, and whether it has named everything it holds.
    pub fn set_source(&self, available: bool, complete: bool) {
        self.source_available.set(i64::from(available));
        self.source_complete.set(i64::from(complete));
    }
}

fn gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
