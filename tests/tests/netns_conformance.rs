//! Recorded cases of who reaches whom, with real packets between network namespaces. Needs root.
//!
//! All that come from Kubernetes' own tests and all about edges; of the others every third, and of
//! random clusters all cases of every fourth. `BULKHEAD_CASES=all` for all, `BULKHEAD_CASES=N` for
//! every Nth. Denials are silent for half of the cases, and answered for the other half.

use std::{
    cell::Cell,
    env,
    io::{Write as _, stderr},
    net::IpAddr,
    time::Instant,
};

use bulkhead::{
    lab::{Lab, Wiring},
    reach::flow::FlowProtocol,
};
use bulkhead_tests::{
    burst::{Probe, Stations},
    conformance::{Case, Suite, wired::Sent},
    station::Station,
};

#[test]
fn packets_reach_whom_they_may_over_ipv4() {
    hold("std-v4", 0, 3);
}

#[test]
fn packets_reach_whom_they_may_over_ipv6() {
    hold("std-v6", 1, 3);
}

#[test]
fn packets_reach_whom_they_may_over_both_families() {
    hold("std-dual", 2, 3);
}

#[test]
fn packets_reach_whom_they_may_at_the_edges() {
    hold("edge-dual", 0, 1);
}

#[test]
fn packets_reach_whom_they_may_in_random_clusters_that_change() {
    hold("rnd-", 2, 4);
}

#[test]
fn a_flow_that_passes_and_should_not_is_told() {
    let lab = Lab::new().expect("a lab");
    let addresses: [[IpAddr; 2]; 2] = [1, 2].map(|host| {
        [[10, 244, 0, host].into(), [0xfd00, 0, 0, 0, 0, 0, 1, u16::from(host)].into()]
    });
    let mut stations = Stations::default();
    for (name, addresses) in ["one", "two"].into_iter().zip(&addresses) {
        let pod = lab.pod(name, addresses, Wiring::Routed).expect("a pod");
        stations.add(Station::of_pod(pod));
    }
    stations.listen(&[(FlowProtocol::Tcp, 80), (FlowProtocol::Udp, 80)]);
    let protocols = [FlowProtocol::Tcp, FlowProtocol::Udp, FlowProtocol::Sctp, FlowProtocol::Icmp];
    let probes = |passes| {
        let of_family = |(from, to): (&IpAddr, &IpAddr)| (*from, *to);
        let ends = addresses[0].iter().zip(&addresses[1]).map(of_family);
        let probe = |(from, to)| {
            protocols.map(|protocol| {
                let port = if protocol == FlowProtocol::Icmp { 0 } else { 80 };
                let what = protocol.to_string();
                Probe { what, protocol, from, to: (to, port).into(), passes }
            })
        };
        ends.flat_map(probe).collect::<Vec<_>>()
    };
    assert_eq!(stations.send(&probes(true), || 0), [""; 0]);
    // Enough denials are counted, so the burst ends as soon as all of them are sent.
    let counted = Cell::new(0);
    let failures = stations.send(&probes(false), || counted.replace(8));
    assert_eq!(failures.len(), 8, "{failures:#?}");
    assert!(failures.iter().all(|failure| failure.contains("it arrived: true")), "{failures:#?}");
}

/// Tries out the cases of all clusters of which the name begins like this: of one cluster some of
/// its cases, of several clusters all cases of some. Tests that begin at different cases have the
/// whole of what they have in common.
fn hold(clusters: &str, first: usize, one_in: usize) {
    let started = Instant::now();
    let suite = Suite::read();
    let cases = suite.cases_of(clusters);
    let one_in = asked_for().unwrap_or(one_in);
    let (clusters_in, cases_in) = if cases.len() > 1 { (one_in, 1) } else { (1, one_in) };
    let mut all = Sent::default();
    for (cluster, cases) in cases.into_iter().skip(first % clusters_in).step_by(clusters_in) {
        let whole = |case: &Case| ["e2e/", "extra/"].iter().any(|of| case.id.starts_with(of));
        let numbered = cases.into_iter().enumerate();
        let chosen = numbered.filter(|(n, case)| whole(case) || n % cases_in == first % cases_in);
        let chosen: Vec<_> = chosen.map(|(_, case)| case).collect();
        all += suite.send(cluster, &chosen);
    }
    let seconds = started.elapsed().as_secs_f32();
    // Past the capture of the test harness: what was sent is worth a line of a run that is good.
    writeln!(stderr(), "conformance with packets, {clusters}: {all}; {seconds:.1} s")
        .expect("standard error");
    let shown: Vec<_> = all.failures.iter().take(20).collect();
    assert!(shown.is_empty(), "{} failures, the first: {shown:#?}", all.failures.len());
    assert!(all.cases > 0 && !all.flows.is_empty(), "there are cases");
}

/// One in how many.
fn asked_for() -> Option<usize> {
    match env::var("BULKHEAD_CASES").as_deref() {
        Err(_) => None,
        Ok("all") => Some(1),
        Ok(number) => {
            Some(number.parse().ok().filter(|n| *n > 0).expect("BULKHEAD_CASES: all, or N"))
        }
    }
}
