//! How long the compiler takes, and how much memory: a part of `cargo xtask bench`.
//!
//! For each size of cluster a process of its own, so that its peak memory is its own. A cluster has
//! a namespace for a thousand pods, workloads of twenty pods with five labels and two addresses
//! each, and 110 pods on this node, spread evenly. Policies are spread over the namespaces; each
//! selects a workload and names peers by pod, by namespace and pod, or by block, and ports by
//! number, range and name. Times are medians; of a change, over 201 changes.

use std::{
    collections::BTreeMap,
    env, fs, hint,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use bulkhead::{
    dataplane::plan::{Desired, DesiredEndpoint, Programmed},
    policy::{
        compile::Compiler,
        index::{Index, NAMESPACE_NAME_LABEL},
        model::{
            Change, IpBlock, Labels, NamedPort, Namespace, ObjectKey, Peer, Pod, Policy, PortMatch,
            Ports, Protocol, Rule,
        },
        selector::Selector,
    },
};
use bulkhead_common::verdict::DenyAction;

const SIZES: [(usize, usize); 5] =
    [(100, 1_000), (1_000, 1_000), (1_000, 10_000), (10_000, 10_000), (10_000, 100_000)];
const LOCAL: usize = 110;
const PODS_OF_WORKLOAD: usize = 20;
const PODS_OF_NAMESPACE: usize = 1_000;
const CHANGES: usize = 201;
/// In the environment of the process that measures one size: policies and pods.
const SIZE: &str = "BULKHEAD_BENCH_SIZE";

fn main() -> Result<()> {
    if let Ok(size) = env::var(SIZE) {
        let (policies, pods) = size.split_once(' ').context("two numbers")?;
        return measure(policies.parse()?, pods.parse()?);
    }
    println!("compiling, {LOCAL} pods of this node; plan: the difference to what is programmed");
    println!(
        "{:>8} {:>7} | {:>9} {:>9} {:>9} | {:>8} {:>8} | {:>8} {:>8} | {:>8} {:>8} | {:>7}",
        "",
        "",
        "index",
        "compile",
        "plan",
        "pod",
        "plan",
        "pod of",
        "plan",
        "policy",
        "plan",
        "peak"
    );
    println!(
        "{:>8} {:>7} | {:>9} {:>9} {:>9} | {:>8} {:>8} | {:>8} {:>8} | {:>8} {:>8} | {:>7}",
        "policies", "pods", "ms", "ms", "ms", "µs", "µs", "node, µs", "µs", "µs", "µs", "MB"
    );
    for (policies, pods) in SIZES {
        let status = Command::new(env::current_exe()?)
            .env(SIZE, format!("{policies} {pods}"))
            .status()
            .context("starting a process for one size")?;
        ensure!(status.success(), "{policies} policies and {pods} pods: {status}");
    }
    Ok(())
}

fn measure(policies: usize, pods: usize) -> Result<()> {
    let started = Instant::now();
    let mut index = Index::new(Some("node-0".to_owned()));
    for number in 0..pods.div_ceil(PODS_OF_NAMESPACE) {
        index.apply(Change::NamespaceApplied(namespace(number)));
    }
    for number in 0..pods {
        index.apply(Change::PodApplied(pod(number, pods)));
    }
    for number in 0..policies {
        index.apply(Change::PolicyApplied(policy(number, 0, pods)));
    }
    index.apply(Change::SourceComplete(true));
    let filled = started.elapsed();

    let mut node = Node { index, compiler: Compiler::new(DenyAction::Drop), maps: None };
    let (compiled, planned) = node.bring_up_to_date()?;
    ensure!(node.compiler.compiled().endpoints.len() == LOCAL.min(pods), "pods of this node");

    // A pod elsewhere takes the labels of another workload, and its own again.
    let every = pods / LOCAL.min(pods);
    let remote = |n: usize| (n * every + 1) % pods;
    let pod_changes = node.changes(|n| {
        let mut pod = pod(remote(n / 2 * 2), pods);
        if n.is_multiple_of(2) {
            pod.labels = Arc::clone(&self::pod(PODS_OF_WORKLOAD + remote(n), pods).labels);
        }
        Change::PodApplied(pod)
    })?;
    let local_changes = node.changes(|n| {
        let local = (n / 2 * 2) % LOCAL * every;
        let mut pod = pod(local, pods);
        if n.is_multiple_of(2) {
            pod.labels = Arc::clone(&self::pod((local + PODS_OF_WORKLOAD) % pods, pods).labels);
        }
        Change::PodApplied(pod)
    })?;
    // Policies of this node's workloads get other peers, and their own again.
    let namespaces = pods.div_ceil(PODS_OF_NAMESPACE);
    let policy_changes = node.changes(|n| {
        let local = (n / 2) % LOCAL * every;
        let workload = local % PODS_OF_NAMESPACE / PODS_OF_WORKLOAD;
        let number = (workload * namespaces + local / PODS_OF_NAMESPACE) % policies;
        Change::PolicyApplied(policy(number, usize::from(n.is_multiple_of(2)), pods))
    })?;

    let ms = |time: Duration| format!("{:.1}", time.as_secs_f64() * 1e3);
    let us = |time: Duration| format!("{:.0}", time.as_secs_f64() * 1e6);
    println!(
        "{policies:>8} {pods:>7} | {:>9} {:>9} {:>9} | {:>8} {:>8} | {:>8} {:>8} | {:>8} {:>8} | {:>7.0}",
        ms(filled),
        ms(compiled),
        ms(planned),
        us(pod_changes.0),
        us(pod_changes.1),
        us(local_changes.0),
        us(local_changes.1),
        us(policy_changes.0),
        us(policy_changes.1),
        peak_megabytes()?,
    );
    hint::black_box(&node);
    Ok(())
}

/// An agent without a kernel.
struct Node {
    index: Index,
    compiler: Compiler,
    maps: Option<Programmed>,
}

impl Node {
    /// Compiles and plans; how long each took.
    fn bring_up_to_date(&mut self) -> Result<(Duration, Duration)> {
        let started = Instant::now();
        self.compiler.update(&mut self.index);
        let compiled = started.elapsed();

        let touched = self.compiler.take_touched();
        let compiled_state = self.compiler.compiled();
        let started = Instant::now();
        let endpoints: BTreeMap<_, _> = (1..)
            .zip(compiled_state.endpoints.values())
            .map(|(ifindex, policy)| (ifindex, DesiredEndpoint::Pod(policy)))
            .collect();
        let desired = Desired { endpoints, compiled: compiled_state, touched: Some(&touched) };
        let maps = self.maps.get_or_insert_with(|| Programmed::new(true));
        let ops = maps.plan(&desired)?;
        let planned = started.elapsed();
        ops.iter().for_each(|op| maps.executed(op));
        Ok((compiled, planned))
    }

    /// Medians over changes.
    fn changes(&mut self, change: impl Fn(usize) -> Change) -> Result<(Duration, Duration)> {
        let (mut compiled, mut planned) = (Vec::new(), Vec::new());
        for number in 0..CHANGES {
            let change = change(number);
            let started = Instant::now();
            self.index.apply(change);
            let applied = started.elapsed();
            let (compile, plan) = self.bring_up_to_date()?;
            compiled.push(applied + compile);
            planned.push(plan);
        }
        Ok((median(compiled), median(planned)))
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn peak_megabytes() -> Result<f64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("VmHWM")?;
    let kilobytes: f64 = peak.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kilobytes / 1e3)
}

fn labels(pairs: &[(&str, String)]) -> Labels {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect()
}

fn selector(pairs: &[(&str, String)]) -> Selector {
    Selector::new(labels(pairs), []).expect("a selector")
}

fn namespace(number: usize) -> Namespace {
    let name = format!("team-{number}");
    let labels = labels(&[
        (NAMESPACE_NAME_LABEL, name.clone()),
        ("team", format!("{}", number % 10)),
        ("env", if number.is_multiple_of(3) { "prod" } else { "test" }.to_owned()),
    ]);
    Namespace { name, labels, deny_action: None }
}

fn pod(number: usize, pods: usize) -> Pod {
    let every = pods / LOCAL.min(pods);
    let is_local = number.is_multiple_of(every) && number / every < LOCAL;
    let workload = number % PODS_OF_NAMESPACE / PODS_OF_WORKLOAD;
    let node = if is_local { 0 } else { 1 + number % 1_000 };
    let [.., high, middle, low] = u32::try_from(number).expect("a number of a pod").to_be_bytes();
    let v6 = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, high.into(), u16::from_be_bytes([middle, low]));
    Pod {
        key: ObjectKey::new(
            format!("team-{}", number / PODS_OF_NAMESPACE),
            format!("app-{workload}-6d4cf56db6-{number}"),
        ),
        uid: format!("00000000-0000-4000-8000-{number:012}"),
        labels: Arc::new(labels(&[
            ("app.kubernetes.io/name", format!("app-{workload}")),
            ("app.kubernetes.io/part-of", format!("system-{}", workload % 7)),
            ("app.kubernetes.io/version", "1.2.3".to_owned()),
            ("pod-template-hash", "6d4cf56db6".to_owned()),
            ("tier", ["front", "back", "data"][workload % 3].to_owned()),
        ])),
        ports: Arc::new([
            NamedPort {
                name: "http".into(),
                protocol: Protocol::Tcp,
                number: if workload.is_multiple_of(2) { 8080 } else { 80 },
            },
            NamedPort { name: "metrics".into(), protocol: Protocol::Tcp, number: 9090 },
        ]),
        addresses: vec![IpAddr::V4(Ipv4Addr::new(10, high, middle, low)), IpAddr::V6(v6)],
        node: Some(format!("node-{node}").into()),
        host_network: false,
        ended: false,
    }
}

fn policy(number: usize, variant: usize, pods: usize) -> Policy {
    let namespaces = pods.div_ceil(PODS_OF_NAMESPACE);
    let app = |workload: usize| {
        (
            "app.kubernetes.io/name",
            format!("app-{}", workload % (PODS_OF_NAMESPACE / PODS_OF_WORKLOAD)),
        )
    };
    let own = number / namespaces;
    let tcp =
        |first, last| PortMatch { protocol: Protocol::Tcp, ports: Ports::Range(first..=last) };
    let named = PortMatch { protocol: Protocol::Tcp, ports: Ports::Named("http".into()) };
    let dns = PortMatch { protocol: Protocol::Udp, ports: Ports::Range(53..=53) };
    let neighbours = Peer::Pods { namespaces: None, pods: selector(&[app(own + 1 + variant)]) };
    let elsewhere = Peer::Pods {
        namespaces: Some(selector(&[("team", format!("{}", number % 10))])),
        pods: selector(&[app(own + 3)]),
    };
    let third = u8::try_from(number % 250).expect("less than 250");
    let block = Peer::Block(IpBlock {
        cidr: format!("198.51.{third}.0/24").parse().expect("a block"),
        except: [format!("198.51.{third}.64/26").parse().expect("a block")].into(),
    });
    let peers = match number % 3 {
        0 => vec![neighbours.clone()],
        1 => vec![neighbours.clone(), elsewhere],
        _ => vec![neighbours.clone(), block],
    };
    let ingress = Rule { peers: Some(peers), ports: Some(vec![tcp(8000, 8099), tcp(9090, 9090)]) };
    let egress = vec![
        Rule { peers: None, ports: Some(vec![dns]) },
        Rule { peers: Some(vec![neighbours]), ports: Some(vec![named]) },
    ];
    Policy {
        key: ObjectKey::new(format!("team-{}", number % namespaces), format!("policy-{number}")),
        pod_selector: selector(&[app(own)]),
        ingress: Some(vec![ingress]),
        egress: number.is_multiple_of(2).then_some(egress),
        refused: None,
    }
}
