//! What a flood of denied SYNs from outside costs: denied at the pod alone, and dropped at the uplink
//! already, in both modes; and what the program at the uplink takes of every other packet. Needs root.
//!
//! Every variant has a node of its own, made of network namespaces, and all stand beside each other.
//! In each round each of them is flooded once, by one sender on one CPU, on which all of a packet's
//! way is walked. Every packet must be counted as denied, once, or the figures are not printed.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::Instant,
};

use aya::{TestRun as _, TestRunOptions};
use bulkhead::{agent::Uplink, dataplane::uplink::Mode, lab::Pod};
use bulkhead_common::{
    frames::{Frame, tcp},
    value::flags::ISOLATED_INGRESS,
    verdict::DropReason::NotAllowed,
};
use bulkhead_tests::{
    cluster::{Cluster, Member, policy},
    pod::{ALLOWED, CLIENT, DENIED, NETS, Net, at},
    program::{self, Programs},
    statistics::Summary,
    wire::Wire,
};
use clap::Parser;
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};
use serde_json::json;

const SERVER: Member = Member::routed("server", 10);
const OUTSIDE: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1));
/// The device of the node that leads outside.
const UPLINK: &str = "veth-outside";
/// A device that is not the node's, so that the kernel drops what is sent to it at once.
const NOBODY: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// Packets in one test run, and test runs of each case.
const TEST_PACKETS: u32 = 4_000;
const TEST_ROUNDS: usize = 100;

#[derive(Parser)]
#[command(about = "What a flood of denied SYNs costs, with and without the program at the uplink")]
struct Arguments {
    /// How often each variant is flooded.
    #[arg(long, default_value_t = 11, value_parser = clap::value_parser!(u16).range(1..=1000))]
    rounds: u16,

    /// SYNs in one flood.
    #[arg(long, default_value_t = 500_000)]
    packets: u32,

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

/// A node that is flooded.
struct Site {
    name: &'static str,
    cluster: Cluster,
    /// Only held: the sender's socket is there.
    _outside: Pod,
    wire: Wire,
    /// To whom the frames are sent, if not to the node.
    node: [u8; 6],
    is_denying: bool,
    seconds: Vec<f64>,
}

impl Site {
    fn start(name: &'static str, mode: Option<Mode>, node: Option<[u8; 6]>) -> Self {
        let cluster = Cluster::without_agent(&[SERVER], &[]);
        let outside = cluster.outsider("outside", &[OUTSIDE]);
        let uplink = mode.map(|mode| Uplink { device: UPLINK.to_owned(), modes: vec![mode] });
        let mut cluster = cluster.with_uplink(uplink);
        let spec = "{podSelector: {matchLabels: {app: server}}, policyTypes: [Ingress]}";
        cluster.apply(&policy("closed", spec));
        let wire = Wire::open(&outside);
        let is_denying = node.is_none();
        let node = node.unwrap_or_else(|| cluster.mac(UPLINK));
        Self { name, cluster, _outside: outside, wire, node, is_denying, seconds: Vec::new() }
    }

    fn flood(&mut self, packets: u32, counts: bool) {
        let [to, _] = SERVER.addresses();
        let mut frames: Vec<_> = (1..=u16::MAX)
            .map(|port| {
                let syn = Frame::tcp(at(OUTSIDE, port), at(to, DENIED), tcp::SYN).bytes();
                [&self.node[..], &self.wire.mac(), &syn[12..]].concat()
            })
            .collect();
        frames.truncate(packets as usize);
        let before = self.cluster.metrics();
        let start = Instant::now();
        for frame in frames.iter().cycle().take(packets as usize) {
            self.wire.send(frame);
        }
        let seconds = start.elapsed().as_secs_f64();
        let packets = u64::from(packets);
        let denied = [("server", "ingress", "not_allowed", packets..=packets)];
        self.cluster.expect_denied(&before, if self.is_denying { &denied } else { &[] });
        if counts {
            self.seconds.push(seconds);
        }
    }
}

/// A packet that the program at the uplink meets.
struct Case {
    name: &'static str,
    net: Net,
    is_dropped: bool,
    frame: Vec<u8>,
    rounds: Vec<f64>,
}

impl Case {
    fn all(net: Net) -> [Self; 4] {
        let to = |port| at(net.pod, port);
        let (friend, stranger) = (at(net.friend, CLIENT), at(net.stranger, CLIENT));
        let other = Frame::tcp(stranger, at(net.friend, DENIED), tcp::SYN);
        [
            ("for no pod of the node", false, other),
            ("no opening, for an isolated pod", false, Frame::tcp(friend, to(ALLOWED), tcp::ACK)),
            ("SYN that rules allow", false, Frame::tcp(friend, to(ALLOWED), tcp::SYN)),
            ("SYN that is denied", true, Frame::tcp(stranger, to(DENIED), tcp::SYN)),
        ]
        .map(|(name, is_dropped, frame)| Self {
            name,
            net,
            is_dropped,
            frame: frame.bytes(),
            rounds: Vec::new(),
        })
    }

    fn run(&mut self, programs: &mut Programs) {
        let expected = self.is_dropped.then_some(NotAllowed);
        assert_eq!(programs.at_uplink(&self.frame), expected, "{}", self.name);
        let options = TestRunOptions {
            data_in: Some(&self.frame),
            repeat: TEST_PACKETS,
            ..TestRunOptions::default()
        };
        let program = programs.kernel.uplink().expect("it was loaded");
        let result = program.test_run(options).expect("a test run");
        self.rounds.push(result.duration.as_nanos() as f64);
        // Counted, and not of interest.
        programs.moved();
    }

    fn family(&self) -> &'static str {
        if self.net.pod.is_ipv4() { "IPv4" } else { "IPv6" }
    }
}

fn main() {
    let arguments = Arguments::parse();
    let Arguments { rounds, packets, .. } = arguments;
    let mut sites = [
        Site::start("sent to nobody", None, Some(NOBODY)),
        Site::start("denied at the pod", None, None),
        Site::start("dropped at the uplink, generic mode", Some(Mode::Generic), None),
        Site::start("dropped at the uplink, native mode", Some(Mode::Native), None),
    ];
    let mut cases: Vec<_> = NETS.into_iter().flat_map(Case::all).collect();
    // The agents have the other ones.
    let mut cpus = CpuSet::new();
    cpus.set(0).expect("there is a first CPU");
    sched_setaffinity(Pid::from_raw(0), &cpus).expect("the first CPU is ours to use");

    // The first round only warms up.
    let mut order = fastrand::Rng::with_seed(4);
    for round in 0..=rounds {
        let mut shuffled: Vec<_> = sites.iter_mut().collect();
        order.shuffle(&mut shuffled);
        for site in shuffled {
            site.flood(packets, round > 0);
        }
    }
    let mut programs = program::shared(ISOLATED_INGRESS);
    for _ in 0..TEST_ROUNDS {
        for case in &mut cases {
            case.run(&mut programs);
        }
    }
    match arguments.output {
        Output::Table => print_tables(&sites, &cases, packets),
        Output::Json => println!("{:#}", as_json(&sites, &cases, packets)),
    }
}

fn summary(samples: &[f64]) -> Summary {
    Summary::of(samples).expect("some samples")
}

fn print_tables(sites: &[Site], cases: &[Case], packets: u32) {
    let rounds = sites.first().map_or(0, |site| site.seconds.len());
    println!("{packets} SYNs from outside, median of {rounds} rounds\n");
    println!("| | ms | ns a SYN | quartiles, ms |\n| --- | ---: | ---: | ---: |");
    for site in sites {
        let Summary { median, quartiles: (low, high), .. } = summary(&site.seconds);
        println!(
            "| {} | {:.0} | {:.0} | {:.0}-{:.0} |",
            site.name,
            median * 1e3,
            median * 1e9 / f64::from(packets),
            low * 1e3,
            high * 1e3
        );
    }
    println!("\nns a packet in test runs, median of {TEST_ROUNDS} runs of {TEST_PACKETS}\n");
    println!("| program at the uplink | | ns |\n| --- | --- | ---: |");
    for case in cases {
        println!("| {} | {} | {:.0} |", case.name, case.family(), summary(&case.rounds).median);
    }
}

fn as_json(sites: &[Site], cases: &[Case], packets: u32) -> serde_json::Value {
    let floods = sites.iter().map(|site| {
        json!({
            "variant": site.name,
            "packets": packets,
            "seconds": site.seconds,
            "median_seconds": summary(&site.seconds).median,
        })
    });
    let cases = cases.iter().map(|case| {
        json!({
            "case": case.name,
            "family": case.family(),
            "ns": summary(&case.rounds).median,
            "rounds": TEST_ROUNDS,
            "packets_per_round": TEST_PACKETS,
        })
    });
    json!({ "floods": Vec::from_iter(floods), "packets": Vec::from_iter(cases) })
}
