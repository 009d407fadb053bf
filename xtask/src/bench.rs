//! `cargo xtask bench`: how long the compiler takes, nanoseconds a packet by test runs of the loaded
//! programs, connections between network namespaces beside other ways to enforce policies, and floods
//! from outside.

use std::ffi::OsString;

use anyhow::Result;
use clap::ValueEnum;

use crate::{setup, step};

/// One of the benchmarks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Bench {
    /// Time and memory of the policy compiler.
    Compile,
    /// Nanoseconds a packet, by test runs of the loaded programs.
    Packets,
    /// Throughput, latency and rates between network namespaces: without enforcement, and with
    /// nftables, iptables and ipset, and Bulkhead.
    Stack,
    /// A flood of denied SYNs from outside: denied at the pod alone, and dropped at the uplink.
    Uplink,
}

impl Bench {
    /// In the order of how long they take.
    const ALL: [Self; 4] = [Self::Packets, Self::Uplink, Self::Compile, Self::Stack];

    const fn name(self) -> &'static str {
        match self {
            Self::Compile => "compile",
            Self::Packets => "packets",
            Self::Stack => "stack",
            Self::Uplink => "uplink",
        }
    }

    const fn what(self) -> &'static str {
        match self {
            Self::Compile => "measuring the policy compiler",
            Self::Packets => "measuring the programs",
            Self::Stack => "measuring connections between network namespaces",
            Self::Uplink => "measuring a flood at the uplink",
        }
    }

    const fn needs(self) -> &'static [setup::Need] {
        match self {
            Self::Compile | Self::Packets => &[setup::Need::Object],
            Self::Stack => &[setup::Need::Object, setup::Need::Traffic, setup::Need::Peers],
            Self::Uplink => &[setup::Need::Object, setup::Need::Traffic],
        }
    }

    /// Why it needs root, if it does.
    const fn as_root(self) -> Option<&'static str> {
        match self {
            Self::Compile => None,
            Self::Packets => Some("loading the programs"),
            Self::Stack | Self::Uplink => Some("making network namespaces"),
        }
    }

    fn run(self, arguments: &[OsString]) -> Result<()> {
        let mut bench = step::cargo(["bench"]);
        if let Some(why) = self.as_root() {
            bench.args(step::as_root(why)?);
        }
        bench.args(["--package", "bulkhead-tests", "--bench", self.name(), "--"]).args(arguments);
        step::run(self.what(), &mut bench)
    }
}

/// One benchmark with these arguments, or all of them without any.
pub(crate) fn run(only: Option<Bench>, arguments: &[OsString]) -> Result<()> {
    let benches = only.map_or(Bench::ALL.to_vec(), |only| vec![only]);
    for bench in &benches {
        setup::ensure(bench.needs())?;
    }
    benches.iter().try_for_each(|bench| bench.run(arguments))
}
