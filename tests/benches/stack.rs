//! Throughput, latency and rates between two pods: without enforcement, with nftables, with iptables
//! and ipset, and with Bulkhead. Needs root and two CPUs.
//!
//! Every variant has a node of its own, made of network namespaces, and all stand beside each other.
//! In each round every workload is run once on each of them, in an order that is drawn anew. What is
//! measured is what the table says: a stranger was denied everywhere before, and afterwards every
//! enforcer has counted what must have passed it, and denied nothing more.

use std::{collections::BTreeMap, fs, process::Command, thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use bulkhead_tests::stack::{
    Site,
    enforcer::{Tally, Variant},
    report::{Report, Series},
    workload::{Measure, Passed, Workload},
};
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};

#[derive(Parser)]
#[command(about = "Throughput, latency and rates between network namespaces")]
struct Arguments {
    /// How often everything is measured. Less than six tell no interval.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=1000))]
    rounds: u16,

    /// How long one sample takes, in milliseconds.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(5..=60_000))]
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
    /// In all samples together, those that don't count, too.
    passed: Passed,
    samples: BTreeMap<Measure, Vec<f64>>,
}

impl Runner {
    fn start(variant: Variant) -> Result<Self> {
        let site = Site::start(variant).with_context(|| variant.title())?;
        let before = site.enforcer().tally()?;
        Ok(Self { variant, site, before, passed: Passed::default(), samples: BTreeMap::new() })
    }

    fn run(&mut self, workload: Workload, time: Duration, counts: bool) -> Result<()> {
        let sample = workload.run(&self.site, time).with_context(|| self.variant.title())?;
        self.passed += sample.passed;
        if counts {
            for (measure, value) in sample.values {
                self.samples.entry(measure).or_default().push(value);
            }
        }
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
        let checked = runner.site.check(runner.before, runner.passed);
        checked.with_context(|| runner.variant.title())?;
    }
    let report = Report { series: runners.iter().flat_map(series).collect() };
    match arguments.output {
        Output::Table => {
            print!("{}\n\n{}", conditions(rounds, arguments.sample)?, report.markdown());
        }
        Output::Json => println!("{:#}", report.json()),
    }
    Ok(())
}

/// Under which this was measured, in a sentence for docs/benchmarks.md.
fn conditions(rounds: usize, sample: u64) -> Result<String> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let numbers: Vec<_> = release.split('.').take(2).collect();
    let cpus = thread::available_parallelism()?;
    let mut tools = Vec::new();
    for tool in ["nft", "iptables", "ipset"] {
        let printed = Command::new(tool).arg("--version").output().context(tool)?;
        let printed = String::from_utf8(printed.stdout).context(tool)?;
        tools.push(printed.lines().next().unwrap_or_default().to_owned());
    }
    Ok(format!(
        "{rounds} rounds, {sample} ms for a sample; Linux {}, {cpus} CPUs; {}.",
        numbers.join("."),
        tools.join("; "),
    ))
}

fn series(runner: &Runner) -> impl Iterator<Item = Series> {
    runner.samples.iter().map(|(measure, samples)| Series {
        variant: runner.variant,
        measure: *measure,
        samples: samples.clone(),
    })
}
