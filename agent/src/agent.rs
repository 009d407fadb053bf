//! The agent's loop: one enum of all that can wake it, and what each leads to.
//!
//! It owns order and time, and decides nothing about packets. Invariant: nothing is enforced
//! before both the source and the links were heard once, and nothing that is enforced is given up
//! because one of them falls silent.

mod report;

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use aya::maps::{MapData, RingBuf};
use tokio::{
    sync::mpsc,
    task::spawn_blocking,
    time::{MissedTickBehavior, interval, sleep_until},
};

use crate::{
    dataplane::{
        attach::Hooks,
        kernel::{self, Kernel},
        uplink::Mode,
    },
    drops::{DropLog, limit},
    enforcer::{Enforcer, Options},
    health::Health,
    http::Server,
    links::{self, LinkState, Passes},
    manifests::{self, Scan},
    metrics::Metrics,
};

use report::{PodCounters, Report};

/// How the agent runs.
#[derive(Clone, Debug)]
pub struct Config {
    /// The directory that pods and policies are read from.
    pub manifests: PathBuf,
    /// Where metrics and probes are served.
    pub metrics_address: SocketAddr,
    /// What to enforce.
    pub options: Options,
    /// The programs log packets.
    pub debug_packets: bool,
    /// How the programs are attached; `None`: the best that this kernel has.
    pub hooks: Option<Hooks>,
    /// The node's uplink, where to drop early; `None`: nowhere.
    pub uplink: Option<Uplink>,
}

/// A device, and how the program is attached there.
#[derive(Clone, Debug)]
pub struct Uplink {
    /// Its name.
    pub device: String,
    /// The modes that are tried, in this order.
    pub modes: Vec<Mode>,
}

/// Drop events of one pod that the programs may write in each interval, on each CPU.
const EVENTS: u32 = 10;
/// How often drop events are read, and half of the other periodic work is done.
const TICK: Duration = Duration::from_millis(200);
/// Event budgets are filled up every so many ticks.
const BUDGET_TICKS: u32 = 5;
/// Every so many ticks, it is looked whether the programs are still attached.
const ATTACHED_TICKS: u32 = 50;
/// Every so many ticks, flow entries are counted.
const FLOWS_TICKS: u32 = 75;
/// A loop that was not heard of for so long is stuck.
const STALE_AFTER: Duration = Duration::from_secs(10);
/// When a reconcile that failed is tried again: first, and at most.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LONGEST: Duration = Duration::from_secs(10);

/// All that can wake the agent.
enum Event {
    /// The source has something new.
    Scan(Scan),
    /// Links or addresses of this node are different.
    Links(LinkState),
    /// Time to read events.
    Tick,
    /// A reconcile that failed is to be tried again.
    RetryDue,
    /// The process is asked to end.
    Shutdown,
}

/// Runs until `shutdown` resolves. In this slice the programs leave their interfaces then.
///
/// # Errors
///
/// What cannot be done without: programs that do not load, an address that cannot be bound, links
/// that cannot be watched.
pub async fn run(config: Config, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
    let server = Server::bind(config.metrics_address).await?;
    let mut kernel = Kernel::load(kernel::Options {
        debug_log: config.debug_packets,
        hooks: config.hooks,
        uplink: config.uplink.is_some(),
    })?;
    if let Some(Uplink { device, modes }) = &config.uplink {
        let mode = kernel.attach_uplink(device, modes)?;
        tracing::info!(
            "denied packets are dropped at {device} already: XDP in {} mode",
            mode.as_str()
        );
    }
    let debug_log = config.debug_packets.then(|| aya_log::EbpfLogger::init(kernel.ebpf_mut()));
    let mut debug_log = debug_log.transpose().context("cannot read the programs' debug log")?;
    let mut events = kernel.take_events()?;

    let flows = Arc::new(kernel.take_flows()?);
    let counters = PodCounters::new(Arc::clone(kernel.counters()), Arc::clone(&flows));
    let counters = Arc::new(counters);
    let metrics = Arc::new(Metrics::new(Arc::clone(&counters)));
    let health = Arc::new(Health::new(Instant::now(), STALE_AFTER));
    let mut report = Report::new(Arc::clone(&metrics), Arc::clone(&health), counters);
    let limiter = limit::Limiter::new(limit::POD, limit::NODE, Instant::now());
    let mut drops = DropLog::new(limiter, Arc::clone(&metrics));

    let (scans_to, mut scans) = mpsc::channel(1);
    let (links_to, mut links) = mpsc::channel(1);
    manifests::watch(config.manifests.clone(), scans_to)
        .with_context(|| format!("cannot watch the directory {}", config.manifests.display()))?;
    let watch = links::Watch::open()?;
    let mut watching = tokio::spawn(watch.run(links_to, Passes::default()));
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    tracing::info!("metrics and probes at http://{}", server.address());
    let serving = tokio::spawn(server.run(metrics, health, async {
        // Never sent: it resolves when the loop drops its end.
        let _dropped: Result<(), _> = stopped.await;
    }));

    let mut enforcer = Enforcer::new(&config.options, kernel);
    let mut heard = Heard::default();
    let mut retry = Retry::default();
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut ticks = 0_u32;
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        // In no order: a source that always has something new must not silence the others.
        let event = tokio::select! {
            () = &mut shutdown => Event::Shutdown,
            ended = &mut watching => {
                ended.context("the watch of links broke off")??;
                anyhow::bail!("the watch of links ended by itself");
            }
            Some(state) = links.recv() => Event::Links(state),
            scan = scans.recv() => {
                Event::Scan(scan.context("the watch of the manifest directory ended by itself")?)
            }
            () = sleep_until(retry.due()), if retry.is_set() => Event::RetryDue,
            _ = tick.tick() => Event::Tick,
        };
        let changed = match event {
            Event::Scan(scan) => {
                heard.scan = true;
                report.scan(&scan);
                let mut changed = false;
                for change in scan.changes {
                    changed |= enforcer.apply(change);
                }
                changed
            }
            Event::Links(state) => {
                heard.links = true;
                let changed = enforcer.set_links(state);
                !enforcer.check_attached() || changed
            }
            Event::Tick => {
                read_events(&mut events, &enforcer, &mut drops);
                if let Some(log) = &mut debug_log {
                    log.flush();
                }
                if ticks.is_multiple_of(BUDGET_TICKS) {
                    report.grant_events(&mut enforcer, EVENTS);
                    drops.retain(|ifindex| enforcer.bindings().get(ifindex).is_some());
                }
                if ticks.is_multiple_of(FLOWS_TICKS) {
                    let flows = Arc::clone(&flows);
                    // Nobody waits for it.
                    drop(spawn_blocking(move || flows.count()));
                }
                ticks = ticks.wrapping_add(1);
                ticks.is_multiple_of(ATTACHED_TICKS) && !enforcer.check_attached()
            }
            Event::RetryDue => true,
            Event::Shutdown => break,
        };
        report.alive(Instant::now());
        if heard.both() && (changed || heard.take_first()) {
            let started = Instant::now();
            let complete = enforcer.reconcile();
            report.reconciled(&mut enforcer, started.elapsed());
            report.grant_first_events(&mut enforcer, EVENTS);
            retry.after(complete);
        }
    }
    tracing::warn!("the programs leave their interfaces: no policy is enforced from here on");
    drop(stop);
    drop(enforcer);
    serving.await.context("the metrics server broke off")
}

/// Logs what was dropped since the last time.
fn read_events(events: &mut RingBuf<MapData>, enforcer: &Enforcer<Kernel>, drops: &mut DropLog) {
    while let Some(event) = kernel::next_event(events) {
        drops.record(&event, enforcer, Instant::now());
    }
}

/// What was heard of so far.
#[derive(Default)]
struct Heard {
    scan: bool,
    links: bool,
    acted_upon: bool,
}

impl Heard {
    const fn both(&self) -> bool {
        self.scan && self.links
    }

    /// True once: what is heard first is acted upon even if it is empty.
    const fn take_first(&mut self) -> bool {
        !std::mem::replace(&mut self.acted_upon, true)
    }
}

/// When to try again.
#[derive(Default)]
struct Retry {
    due: Option<tokio::time::Instant>,
    pause: Duration,
}

impl Retry {
    const fn is_set(&self) -> bool {
        self.due.is_some()
    }

    fn due(&self) -> tokio::time::Instant {
        self.due.unwrap_or_else(tokio::time::Instant::now)
    }

    fn after(&mut self, complete: bool) {
        if complete {
            *self = Self::default();
        } else {
            self.pause = (self.pause * 2).clamp(RETRY_FIRST, RETRY_LONGEST);
            self.due = Some(tokio::time::Instant::now() + self.pause);
        }
    }
}
