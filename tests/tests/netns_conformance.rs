//! Recorded cases of who reaches whom, with real packets between network namespaces. Needs root.
//!
//! All that come from Kubernetes' own tests and all about edges, and of the others every third;
//! `BULKHEAD_CASES=all` for all, or `BULKHEAD_CASES=N` for every Nth. Half of them with denials
//! that are silent, half with denials that are answered.

use std::{
    env,
    io::{Write as _, stderr},
    time::Instant,
};

use bulkhead_tests::conformance::{Case, Suite, wired::Sent};

/// Of the cases that are many, one in so many is tried out.
const ONE_IN: usize = 3;

#[test]
fn packets_reach_whom_they_may_over_ipv4() {
    hold("std-v4", 0);
}

#[test]
fn packets_reach_whom_they_may_over_ipv6() {
    hold("std-v6", 1);
}

#[test]
fn packets_reach_whom_they_may_over_both_families() {
    hold("std-dual", 2);
}

#[test]
fn packets_reach_whom_they_may_at_the_edges() {
    hold("edge-dual", 0);
}

#[test]
fn packets_reach_whom_they_may_in_random_clusters_that_change() {
    hold("rnd-0", 0);
}

#[test]
fn packets_reach_whom_they_may_in_more_random_clusters_that_change() {
    hold("rnd-1", 1);
}

/// Tries out the cases of all clusters of which the name begins like this. Tests that begin at
/// different cases have the whole of what they have in common.
fn hold(clusters: &str, first: usize) {
    let started = Instant::now();
    let suite = Suite::read();
    let one_in = one_in();
    let mut all = Sent::default();
    for (cluster, cases) in suite.cases_of(clusters) {
        let whole = |case: &Case| ["e2e/", "extra/"].iter().any(|of| case.id.starts_with(of));
        let numbered = cases.into_iter().enumerate();
        let chosen = numbered.filter(|(n, case)| whole(case) || n % one_in == first % one_in);
        let chosen: Vec<_> = chosen.map(|(_, case)| case).collect();
        if !chosen.is_empty() {
            all += suite.send(cluster, &chosen);
        }
    }
    let seconds = started.elapsed().as_secs_f32();
    // Past the capture of the test harness: what was sent is worth a line of a run that is good.
    writeln!(stderr(), "conformance with packets, {clusters}: {all}; {seconds:.1} s")
        .expect("standard error");
    let shown: Vec<_> = all.failures.iter().take(20).collect();
    assert!(shown.is_empty(), "{} failures, the first: {shown:#?}", all.failures.len());
    assert!(all.cases > 0 && !all.flows.is_empty(), "there are cases");
}

fn one_in() -> usize {
    match env::var("BULKHEAD_CASES").as_deref() {
        Err(_) => ONE_IN,
        Ok("all") => 1,
        Ok(number) => number.parse().ok().filter(|n| *n > 0).expect("BULKHEAD_CASES: all, or N"),
    }
}
