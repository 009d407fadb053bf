//! The kernel's packet counters, as two metric families.
//!
//! Owns which rows become series. Invariant: a series that was shown once is shown for as long as
//! its pod lives (the kernel's counters only grow), and the series of ordinary denials is there,
//! at zero, before the first packet: `rate()` and `increase()` see every denial, the first too.

use std::{collections::BTreeMap, fmt};

use bulkhead_common::verdict::{Direction, DropReason, Verdict};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter},
};

use crate::{dataplane::flows::FlowCount, policy::model::ObjectKey};

/// One counter of the kernel, summed over the CPUs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PacketCount {
    /// The pod; namespace and name are empty for packets at an interface that the programs found
    /// in no map ([`bulkhead_common::abi::COUNTER_BLOCK_UNKNOWN`]).
    pub pod: ObjectKey,
    /// Seen from the pod.
    pub direction: Direction,
    /// What became of the packets, and why.
    pub verdict: Verdict,
    /// Packets; a segmented (GSO) packet counts once.
    pub packets: u64,
    /// Bytes of whole frames.
    pub bytes: u64,
}

/// Where the counters come from.
pub trait CounterSource: Send + Sync + 'static {
    /// Every counter of every pod of this node, zeros included. Rows that differ in the numbers
    /// only (a pod with two interfaces) are added up.
    ///
    /// # Errors
    ///
    /// Where the kernel's map cannot be read. A source never answers with less than all.
    fn read(&self) -> anyhow::Result<Vec<PacketCount>>;

    /// The flows of IPv4 and of IPv6.
    ///
    /// # Errors
    ///
    /// The same.
    fn flows(&self) -> anyhow::Result<[FlowCount; 2]>;
}

const PACKETS_HELP: &str = "Packets that Bulkhead judged at the pod's interface. \
    direction is seen from the pod, verdict is allow or deny, reason says why. A denied packet \
    that was answered (reject) counts as deny. Counted in the kernel; starts at zero with the agent \
    and with the pod. Empty namespace and pod: an interface without a known pod.";
const BYTES_HELP: &str = "Bytes of the packets in bulkhead_packets_total: whole frames, from the \
    Ethernet header on. Same labels.";

/// The rows of one scrape.
pub(super) struct Packets(BTreeMap<Labels, (u64, u64)>);

/// namespace, pod, direction, verdict, reason.
type Labels = (String, String, &'static str, &'static str, &'static str);

impl Packets {
    /// Keeps the rows that are shown, and adds up those that have the same labels.
    pub(super) fn new(counts: Vec<PacketCount>) -> Self {
        let mut rows = BTreeMap::<Labels, (u64, u64)>::new();
        for count in counts.into_iter().filter(is_shown) {
            let (verdict, reason) = match count.verdict {
                Verdict::Allow(reason) => ("allow", reason.as_str()),
                Verdict::Deny(reason) => ("deny", reason.as_str()),
            };
            let ObjectKey { namespace, name } = count.pod;
            let labels = (
                namespace.to_string(),
                name.to_string(),
                count.direction.as_str(),
                verdict,
                reason,
            );
            let (packets, bytes) = rows.entry(labels).or_default();
            *packets = packets.saturating_add(count.packets);
            *bytes = bytes.saturating_add(count.bytes);
        }
        Self(rows)
    }

    fn encode_family(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        name: &str,
        help: &str,
        value: impl Fn(&(u64, u64)) -> u64,
    ) -> fmt::Result {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for ((namespace, pod, direction, verdict, reason), numbers) in &self.0 {
            let labels = [
                ("namespace", namespace.as_str()),
                ("pod", pod),
                ("direction", direction),
                ("verdict", verdict),
                ("reason", reason),
            ];
            ConstCounter::new(value(numbers)).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

fn is_shown(count: &PacketCount) -> bool {
    let is_pod = !count.pod.name.is_empty();
    count.packets > 0 || is_pod && count.verdict == Verdict::Deny(DropReason::NotAllowed)
}

impl Collector for Packets {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.encode_family(&mut encoder, "bulkhead_packets", PACKETS_HELP, |(packets, _)| {
            *packets
        })?;
        self.encode_family(&mut encoder, "bulkhead_bytes", BYTES_HELP, |(_, bytes)| *bytes)
    }
}

impl fmt::Debug for Packets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Packets").field(&self.0.len()).finish()
    }
}
