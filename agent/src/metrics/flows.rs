//! The maps of flows, as four metric families.
//!
//! They have names of their own and are not among the maps whose fill is watched: a map of flows is
//! full sooner or later, and that alone is nothing to be told of.

use std::fmt;

use bulkhead_common::abi;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
};

use crate::dataplane::flows::FlowCount;

/// The words in the label `family`.
pub(super) const FAMILIES: [&str; 2] = ["ipv4", "ipv6"];

const ENTRIES_HELP: &str = "Flows in the kernel's map, ended ones included: they leave only where a \
    new one needs their place. Counted every fifteen seconds.";
const CAPACITY_HELP: &str = "Flows that fit into the kernel's map.";
const MADE_HELP: &str = "Flows that were remembered, since replies to their packets may need it.";
const EVICTED_HELP: &str = "Flows that made room for new ones, the least recently used first. A \
    connection that was evicted heals with the next packet of who opened it; until then replies may \
    be denied. Counted every fifteen seconds.";

/// The flows of one scrape, of IPv4 and of IPv6.
#[derive(Debug)]
pub(super) struct Flows([FlowCount; 2]);

impl Flows {
    pub(super) const fn new(counts: [FlowCount; 2]) -> Self {
        Self(counts)
    }

    fn encode_family<M: EncodeMetric>(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        (name, help, kind): (&str, &str, MetricType),
        metric: impl Fn(&FlowCount) -> M,
    ) -> fmt::Result {
        let mut family = encoder.encode_descriptor(name, help, None, kind)?;
        for (word, count) in FAMILIES.iter().zip(&self.0) {
            metric(count).encode(family.encode_family(&[("family", *word)])?)?;
        }
        Ok(())
    }
}

impl Collector for Flows {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let encoder = &mut encoder;
        let entries = ("bulkhead_flows", ENTRIES_HELP, MetricType::Gauge);
        self.encode_family(encoder, entries, |count| ConstGauge::new(count.entries))?;
        let capacity = ("bulkhead_flow_capacity", CAPACITY_HELP, MetricType::Gauge);
        self.encode_family(encoder, capacity, |_| ConstGauge::new(u64::from(abi::FLOWS)))?;
        let made = ("bulkhead_flows_made", MADE_HELP, MetricType::Counter);
        self.encode_family(encoder, made, |count| ConstCounter::new(count.made))?;
        let evicted = ("bulkhead_flows_evicted", EVICTED_HELP, MetricType::Counter);
        self.encode_family(encoder, evicted, |count| ConstCounter::new(count.evicted))
    }
}
