//! Nanoseconds a packet, by test runs of the loaded programs. Needs root.
//!
//! Every case runs in turn, many times over, so that whatever else the machine does in the meantime
//! meets all of them; the median counts. The empty program, on the same packets in the same run, is
//! the floor: figures of two machines, or of two days, are to be compared by what lies above it.

use std::fmt::Write as _;

use aya::{
    TestRun as _, TestRunOptions,
    maps::{MapData, RingBuf},
    programs::SchedClassifier,
};
use bulkhead::dataplane::kernel::next_event;
use bulkhead_common::{
    abi,
    frames::{Frame, tcp},
    value::flags::{CHECK_SOURCE, ISOLATED_EGRESS, ISOLATED_INGRESS},
    verdict::{
        AllowReason::{NotIsolated, Reply, Rule},
        Direction,
        DropReason::NotAllowed,
        Verdict::{self, Allow, Deny},
    },
};
use bulkhead_tests::{
    pod::{ALLOWED, CLIENT, COUNTERS, DENIED, IPV4, IPV6, ISOLATED, Net, at},
    program::{self, Programs},
};
use clap::Parser;
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};
use serde_json::json;

/// Packets in one test run; fewer than the ring buffer has room for events.
const PACKETS: u32 = 4000;
/// Test runs of each case.
const ROUNDS: usize = 250;
/// Some device that is not the pod's.
const ELSEWHERE: u32 = 7;

#[derive(Parser)]
#[command(about = "Nanoseconds a packet, by test runs of the loaded programs")]
struct Arguments {
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

/// What becomes of the packets of a case.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// The program that does nothing.
    Empty,
    /// No policy isolates the pod.
    NotIsolated,
    /// Rules allow it; replies need no flow.
    Allowed,
    /// Rules allow it, and its flow is kept for replies.
    AllowedWithFlow,
    /// A flow allows it.
    Reply,
    /// Denied and counted.
    Denied,
    /// Denied, counted, and reported by an event.
    DeniedWithEvent,
}

impl Kind {
    const ALL: [Self; 7] = [
        Self::Empty,
        Self::NotIsolated,
        Self::Allowed,
        Self::AllowedWithFlow,
        Self::Reply,
        Self::Denied,
        Self::DeniedWithEvent,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "empty program",
            Self::NotIsolated => "not isolated",
            Self::Allowed => "allowed",
            Self::AllowedWithFlow => "allowed, flow kept",
            Self::Reply => "reply",
            Self::Denied => "denied",
            Self::DeniedWithEvent => "denied, event written",
        }
    }

    const fn verdict(self) -> Verdict {
        match self {
            Self::Empty | Self::NotIsolated => Allow(NotIsolated),
            Self::Allowed | Self::AllowedWithFlow => Allow(Rule),
            Self::Reply => Allow(Reply),
            Self::Denied | Self::DeniedWithEvent => Deny(NotAllowed),
        }
    }

    /// Of the pod whose packets go in `direction`.
    const fn flags(self, direction: Direction) -> u32 {
        let isolated = match direction {
            Direction::Ingress => ISOLATED_INGRESS,
            Direction::Egress => ISOLATED_EGRESS,
        };
        CHECK_SOURCE
            | match self {
                Self::Empty | Self::NotIsolated => 0,
                Self::Allowed => isolated,
                Self::AllowedWithFlow | Self::Reply | Self::Denied | Self::DeniedWithEvent => {
                    ISOLATED
                }
            }
    }
}

/// One row of the table.
struct Case {
    kind: Kind,
    direction: Direction,
    net: Net,
    /// Opens the flow that the frame belongs to, if it has one, in the opposite direction.
    opener: Option<Vec<u8>>,
    frame: Vec<u8>,
    /// Of each round, nanoseconds a packet.
    rounds: Vec<u64>,
}

impl Case {
    fn new(kind: Kind, direction: Direction, net: Net) -> Self {
        let peer = match kind {
            Kind::Denied | Kind::DeniedWithEvent => net.stranger,
            Kind::Empty
            | Kind::NotIsolated
            | Kind::Allowed
            | Kind::AllowedWithFlow
            | Kind::Reply => net.friend,
        };
        let (from, to) = match direction {
            Direction::Ingress => (peer, net.pod),
            Direction::Egress => (net.pod, peer),
        };
        let (source, destination) = match kind {
            Kind::Reply => (at(from, ALLOWED), at(to, CLIENT)),
            Kind::Denied | Kind::DeniedWithEvent => (at(from, CLIENT), at(to, DENIED)),
            Kind::Empty | Kind::NotIsolated | Kind::Allowed | Kind::AllowedWithFlow => {
                (at(from, CLIENT), at(to, ALLOWED))
            }
        };
        let opener = match kind {
            Kind::Reply => Some(Frame::tcp(destination, source, tcp::SYN).bytes()),
            Kind::Empty
            | Kind::NotIsolated
            | Kind::Allowed
            | Kind::AllowedWithFlow
            | Kind::Denied
            | Kind::DeniedWithEvent => None,
        };
        let frame = Frame::tcp(source, destination, tcp::ACK).bytes();
        Self { kind, direction, net, opener, frame, rounds: Vec::new() }
    }

    /// Runs the program, after making sure that it does what the case says.
    fn run(&mut self, programs: &mut Programs, events: &mut RingBuf<MapData>) {
        programs.set_pod(self.kind.flags(self.direction));
        let counters = programs.kernel.counters();
        let budget = if self.kind == Kind::DeniedWithEvent { PACKETS + 1 } else { 0 };
        counters.grant_events(COUNTERS, budget).expect("writing a map");
        if let Some(opener) = &self.opener {
            let opened = programs.compare(self.direction.opposite(), ELSEWHERE, opener);
            assert_eq!(opened, Allow(Rule));
        }
        let verdict = programs.compare(self.direction, ELSEWHERE, &self.frame);
        assert_eq!(verdict, self.kind.verdict(), "{}", self.kind.as_str());

        let context = program::context(ELSEWHERE);
        let options = TestRunOptions {
            data_in: Some(&self.frame),
            ctx_in: Some(&context),
            repeat: PACKETS,
            ..TestRunOptions::default()
        };
        let name = match self.kind {
            Kind::Empty => abi::name::EMPTY,
            Kind::NotIsolated
            | Kind::Allowed
            | Kind::AllowedWithFlow
            | Kind::Reply
            | Kind::Denied
            | Kind::DeniedWithEvent => program::name(self.direction),
        };
        let program: &mut SchedClassifier = programs.kernel.program(name).expect("it was loaded");
        let result = program.test_run(options).expect("a test run");
        self.rounds.push(result.duration.as_nanos() as u64);

        let written = std::iter::from_fn(|| next_event(events)).count();
        assert_eq!(written, budget as usize, "{}", self.kind.as_str());
    }

    fn median(&self) -> u64 {
        let mut rounds = self.rounds.clone();
        rounds.sort_unstable();
        rounds.get(rounds.len() / 2).copied().unwrap_or_default()
    }

    fn program(&self) -> &'static str {
        program::name(self.direction)
    }

    fn family(&self) -> &'static str {
        if self.net.pod.is_ipv4() { "IPv4" } else { "IPv6" }
    }
}

fn main() {
    let arguments = Arguments::parse();
    // Budgets of events are for each CPU.
    let mut cpus = CpuSet::new();
    cpus.set(0).expect("there is a first CPU");
    sched_setaffinity(Pid::from_raw(0), &cpus).expect("the first CPU is ours to use");

    let mut programs = Programs::with_pod(0);
    let empty = programs.kernel.program(abi::name::EMPTY).expect("it is in the object");
    empty.load().expect("the kernel loads the empty program");
    let mut events = programs.kernel.take_events().expect("the first reader");
    let mut cases = Vec::new();
    for direction in Direction::ALL {
        for net in [IPV4, IPV6] {
            cases.extend(Kind::ALL.map(|kind| Case::new(kind, direction, net)));
        }
    }
    for _ in 0..ROUNDS {
        for case in &mut cases {
            case.run(&mut programs, &mut events);
        }
    }
    assert_counted(&mut programs, &cases);
    match arguments.output {
        Output::Table => print!("{}", table(&cases)),
        Output::Json => println!("{:#}", as_json(&cases)),
    }
}

/// That what was measured is what the cases say: the counters of the denied, for one.
fn assert_counted(programs: &mut Programs, cases: &[Case]) {
    let moved = programs.moved();
    for case in cases {
        let expected = cases
            .iter()
            .filter(|other| other.kind != Kind::Empty)
            .filter(|other| other.direction == case.direction)
            .filter(|other| other.kind.verdict() == case.kind.verdict())
            .count() as u64;
        let of_case = |moved: &&program::Moved| {
            moved.count.direction == case.direction && moved.count.verdict == case.kind.verdict()
        };
        let packets: u64 = moved.iter().filter(of_case).map(|m| m.count.counter.packets).sum();
        let measured = expected * ROUNDS as u64 * u64::from(PACKETS);
        assert!(packets >= measured, "{}: {packets} of {measured}", case.kind.as_str());
    }
}

/// Every case, with the median of the empty program that it is to be compared with.
fn with_floor(cases: &[Case]) -> impl Iterator<Item = (&Case, u64)> {
    cases.iter().map(|case| {
        let is_floor = |other: &&Case| {
            other.kind == Kind::Empty
                && other.direction == case.direction
                && other.net.pod == case.net.pod
        };
        (case, cases.iter().find(is_floor).map_or(1, Case::median))
    })
}

fn table(cases: &[Case]) -> String {
    let mut table = format!(
        "ns a packet, median of {ROUNDS} runs of {PACKETS} packets each, taken in turn\n\n\
         {:<9} {:<5} {:<22} {:>5} {:>12} {:>8}\n",
        "program", "", "", "ns", "above empty", "x empty"
    );
    for (case, floor) in with_floor(cases) {
        let ns = case.median();
        let _infallible = writeln!(
            table,
            "{:<9} {:<5} {:<22} {ns:>5} {:>12} {:>8.1}",
            case.program(),
            case.family(),
            case.kind.as_str(),
            ns.saturating_sub(floor),
            ns as f64 / floor as f64,
        );
    }
    table
}

fn as_json(cases: &[Case]) -> serde_json::Value {
    with_floor(cases)
        .map(|(case, floor)| {
            json!({
                "program": case.program(),
                "family": case.family(),
                "case": case.kind.as_str(),
                "ns": case.median(),
                "ns_empty": floor,
                "rounds": ROUNDS,
                "packets_per_round": PACKETS,
            })
        })
        .collect()
}
