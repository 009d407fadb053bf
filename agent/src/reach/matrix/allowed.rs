//! What one end may send another: ports of each protocol, pings, and all else.
//!
//! Owns the arithmetic and the words. Invariant: equal sets are equal values.

use std::fmt;

use bulkhead_common::value::PortRange;

use crate::policy::{compiled::PortSet, model::Protocol};

/// The protocols whose ports policies can name, in the order of their numbers.
pub const PROTOCOLS: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];

/// Traffic that is allowed. Nothing listens on port zero, so it is in no set.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Allowed {
    /// Ascending ranges that neither overlap nor touch.
    ranges: Vec<PortRange>,
    icmp: bool,
    other_protocols: bool,
}

impl Allowed {
    /// Every port of every protocol, and protocols without ports.
    pub fn everything() -> Self {
        let every = |protocol: Protocol| PortRange {
            protocol: u32::from(protocol.number()),
            first: 1,
            last: u16::MAX,
        };
        Self { ranges: PROTOCOLS.map(every).to_vec(), icmp: true, other_protocols: true }
    }

    /// Pings, and nothing else.
    pub const fn icmp() -> Self {
        Self { ranges: Vec::new(), icmp: true, other_protocols: false }
    }

    /// One port, and nothing else.
    pub fn port(protocol: Protocol, port: u16) -> Self {
        let protocol = u32::from(protocol.number());
        Self::of_ranges([PortRange { protocol, first: port, last: port }])
    }

    fn of_ranges(ranges: impl IntoIterator<Item = PortRange>) -> Self {
        let listened = |range: PortRange| PortRange { first: range.first.max(1), ..range };
        match PortSet::from_ranges(ranges.into_iter().map(listened)) {
            PortSet::Ranges(ranges) => Self { ranges, icmp: false, other_protocols: false },
            PortSet::Everything => Self::everything(),
        }
    }

    /// What is in both.
    #[must_use]
    pub fn meet(&self, other: &Self) -> Self {
        let both = |a: &PortRange, b: &PortRange| PortRange {
            protocol: a.protocol,
            first: a.first.max(b.first),
            last: a.last.min(b.last),
        };
        let pairs = self.ranges.iter().flat_map(|a| {
            let same = other.ranges.iter().filter(|b| a.protocol == b.protocol);
            same.map(move |b| both(a, b))
        });
        Self {
            icmp: self.icmp && other.icmp,
            other_protocols: self.other_protocols && other.other_protocols,
            ..Self::of_ranges(pairs.collect::<Vec<_>>())
        }
    }

    /// What is in either.
    #[must_use]
    pub fn join(&self, other: &Self) -> Self {
        Self {
            icmp: self.icmp || other.icmp,
            other_protocols: self.other_protocols || other.other_protocols,
            ..Self::of_ranges(self.ranges.iter().chain(&other.ranges).copied())
        }
    }

    /// Whether all is in it.
    pub fn is_everything(&self) -> bool {
        *self == Self::everything()
    }

    /// Whether there is nothing in it.
    pub fn is_nothing(&self) -> bool {
        self.ranges.is_empty() && !self.icmp && !self.other_protocols
    }

    /// The ports, as first and last of each range.
    pub fn ranges(&self, protocol: Protocol) -> impl Iterator<Item = (u16, u16)> {
        let of = move |range: &&PortRange| range.protocol == u32::from(protocol.number());
        self.ranges.iter().filter(of).map(|range| (range.first, range.last))
    }

    /// Whether pings are in it.
    pub const fn allows_icmp(&self) -> bool {
        self.icmp
    }

    /// Whether protocols that are neither ICMP nor have ports are in it.
    pub const fn allows_other_protocols(&self) -> bool {
        self.other_protocols
    }
}

impl From<&PortSet> for Allowed {
    fn from(ports: &PortSet) -> Self {
        match ports {
            PortSet::Everything => Self::everything(),
            PortSet::Ranges(ranges) => Self::of_ranges(ranges.iter().copied()),
        }
    }
}

/// `everything`, `nothing`, or a list such as `TCP 80-90, TCP 443, UDP 53`.
impl fmt::Display for Allowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_everything() {
            return f.write_str("everything");
        }
        if self.is_nothing() {
            return f.write_str("nothing");
        }
        let ports = PROTOCOLS.into_iter().flat_map(|protocol| {
            self.ranges(protocol).map(move |(first, last)| match (first, last) {
                (1, u16::MAX) => format!("all {protocol}"),
                (first, last) if first == last => format!("{protocol} {first}"),
                (first, last) => format!("{protocol} {first}-{last}"),
            })
        });
        let icmp = self.icmp.then(|| "ICMP".to_owned());
        let others = self.other_protocols.then(|| "other protocols".to_owned());
        f.write_str(&ports.chain(icmp).chain(others).collect::<Vec<_>>().join(", "))
    }
}
