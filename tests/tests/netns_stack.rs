//! The sites of the benchmark `stack`: what is measured is what it says. Needs root and two CPUs.
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic, too")]

use std::time::Duration;

use bulkhead_tests::stack::{
    Site,
    enforcer::{Tally, Variant},
    workload::{Passed, Workload},
};

const SAMPLE: Duration = Duration::from_millis(10);

/// Runs every workload once; what was counted before, and what has passed since.
fn run(site: &Site) -> (Tally, Passed) {
    let before = site.enforcer().tally().unwrap();
    let mut passed = Passed::default();
    for workload in Workload::ALL {
        let sample = workload.run(site, SAMPLE).unwrap();
        assert!(sample.values.iter().all(|(_, value)| *value > 0.0), "{sample:?}");
        passed += sample.passed;
    }
    (before, passed)
}

#[test]
fn bulkhead_counts_every_workload_and_denies_the_stranger_alone() {
    for variant in [Variant::BulkheadRules(3), Variant::BulkheadPolicies(3)] {
        // Denying the stranger is a part of the start.
        let site = Site::start(variant).unwrap();
        let (before, passed) = run(&site);
        site.check(before, passed).unwrap();
        let more = Passed { to_client: passed.to_client * 100, ..passed };
        let error = site.check(before, more).unwrap_err().to_string();
        assert!(error.contains("only"), "{error}");
        // Of the denied there are the stranger's two.
        let error = site.check(Tally::default(), passed).unwrap_err().to_string();
        assert_eq!(error, "2 packets were denied");
    }
}

#[test]
fn without_enforcement_every_workload_runs_and_nothing_is_tracked() {
    let site = Site::start(Variant::None).unwrap();
    let (before, passed) = run(&site);
    site.check(before, passed).unwrap();
    assert_eq!(site.enforcer().tally().unwrap(), Tally::default());
}
