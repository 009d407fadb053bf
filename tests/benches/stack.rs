//! Throughput, latency and rates between two pods: without enforcement, with nftables, with iptables
//! and ipset, and with Bulkhead. Needs root and two CPUs.
//!
//! Every variant has a node of its own, made of network namespaces, and all stand beside each other.
//! In each round every workload is run once on each of them, in an order that is drawn anew. What is
//! measured is what the table says: a stranger was denied everywhere before, and afterwards every
//! enforcer has counted what must have passed it, and denied nothing more.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result, ensure};
use bulkhead_tests::stack::{
    Site,
    enforcer::{Tally, Variant},
    report::{Report, Series},
    workload::{Measure, Sample, Workload},
};
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};

#[derive(Parser)]
#[command(about = "Throughput, latency and rates between network namespaces")]
struct Arguments {
    /// How often everything is measured. Less than six tell no interval.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1000))]
    rounds: u16,

    /// How long one sample takes, in milliseconds.
    #[arg(long, default_value_t = 250, value_parser = clap::value_parser!(u64).range(10..=60_000))]
    sample: u64,

    /// Only variants whose name begins so: none, nftables-1, nftables-1000, iptables-1,
    /// iptables-1000, bulkhead-1, bulkhead-100, bulkhead-10000, bulkhead-policies-1000. May be
    /// given several times.
    #[arg(long)]
    only: Vec<String>,

    /// How the figures are printed.
    #[arg(long, value_enum, default_value = "table")]
    output: Output,

    /// Given by cargo to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Output {
    Table,
    Json,
}

/// A variant at work.
struct Runner {
    variant: Variant,
    site: Site,
    before: Tally,
    /// All samples together, those that don't count, too.
    passed: Sample,
    samples: BTreeMap<Measure, Vec<f64>>,
}

impl Runner {
    fn start(variant: Variant) -> Result<Self> {
        let site = Site::start(variant).with_context(|| variant.title())?;
        let before = site.enforcer().tally()?;
        Ok(Self { variant, site, before, passed: Sample::default(), samples: BTreeMap::new() })
    }

    fn run(&mut self, workload: Workload, time: Duration, counts: bool) -> Result<()> {
        let sample = workload.run(&self.site, time).with_context(|| self.variant.title())?;
        self.passed.to_server += sample.to_server;
        self.passed.to_client += sample.to_client;
        self.passed.flows += sample.flows;
        if counts {
            for (measure, value) in sample.values {
                self.samples.entry(measure).or_default().push(value);
            }
        }
        Ok(())
    }

    /// That it was this enforcer that the packets met, and no other.
    fn check(&self) -> Result<()> {
        let after = self.site.enforcer().tally()?;
        let by_rule = after.by_rule - self.before.by_rule;
        let by_flow = after.by_flow - self.before.by_flow;
        let denied = after.denied - self.before.denied;
        let Sample { to_server, to_client, flows, .. } = self.passed;
        let (least_by_rule, least_by_flow) = match self.variant {
            Variant::None => (0, 0),
            // Connection tracking knows both ends after one packet each way.
            Variant::Nftables(_) | Variant::Iptables(_) => {
                (flows, (to_server + to_client).saturating_sub(flows))
            }
            Variant::BulkheadRules(_) | Variant::BulkheadPolicies(_) => (to_server, to_client),
        };
        ensure!(
            by_rule >= least_by_rule && by_flow >= least_by_flow,
            "of {to_server} packets to the server, {to_client} to the client and {flows} flows, \
             {by_rule} were counted by rules and {by_flow} by flows"
        );
        ensure!(denied == 0, "{denied} packets were denied");
        ensure!(
            (self.site.tracked()? > 0) == self.variant.is_tracking(),
            "connection tracking is not as the variant says"
        );
        Ok(())
    }
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let is_asked = |variant: &Variant| {
        let name = variant.name();
        arguments.only.is_empty() || arguments.only.iter().any(|only| name.starts_with(only))
    };
    let variants: Vec<_> = Variant::ALL.into_iter().filter(is_asked).collect();
    ensure!(!variants.is_empty(), "no variant has such a name: {:?}", arguments.only);

    let rounds = usize::from(arguments.rounds);
    let length = variants.len() + (rounds + 1) * variants.len() * Workload::ALL.len();
    let bar = ProgressBar::new(length as u64)
        .with_style(ProgressStyle::with_template("{msg:<24} {wide_bar} {pos}/{len}, {eta} left")?);
    bar.set_message("setting up");
    let mut runners = Vec::new();
    for variant in variants {
        runners.push(Runner::start(variant)?);
        bar.inc(1);
    }

    // The first round only warms up.
    let mut order = fastrand::Rng::with_seed(4);
    for round in 0..=rounds {
        bar.set_message(format!("round {round} of {rounds}"));
        for workload in Workload::ALL {
            let mut shuffled: Vec<_> = runners.iter_mut().collect();
            order.shuffle(&mut shuffled);
            for runner in shuffled {
                runner.run(workload, Duration::from_millis(arguments.sample), round > 0)?;
                bar.inc(1);
            }
        }
    }
    bar.finish_and_clear();

    for runner in &runners {
        runner.check().with_context(|| runner.variant.title())?;
    }
    let report = Report { series: runners.iter().flat_map(series).collect() };
    match arguments.output {
        Output::Table => print!("{}", report.markdown()),
        Output::Json => println!("{:#}", report.json()),
    }
    Ok(())
}

fn series(runner: &Runner) -> impl Iterator<Item = Series> {
    runner.samples.iter().map(|(measure, samples)| Series {
        variant: runner.variant,
        measure: *measure,
        samples: samples.clone(),
    })
}
