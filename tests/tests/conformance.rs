//! Every recorded case of who reaches whom, by each of the three engines.

use std::{
    io::{Write as _, stderr},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Instant,
};

use anyhow::Result;
use bulkhead::reach::{
    cluster::Cluster,
    course::Question,
    engine::{Answer, CompiledMaps, Engine, KernelMaps, Specification},
    flow::Outcome,
};
use bulkhead_tests::conformance::{Outcomes, Suite};

#[test]
fn every_case_holds_in_the_specification() {
    hold("the specification", || Specification);
}

#[test]
fn every_case_holds_in_the_compiled_maps() {
    hold("the compiled maps", CompiledMaps::default);
}

#[test]
fn every_case_holds_in_the_kernel() {
    hold("the kernel", || {
        KernelMaps::load_without_reasons().unwrap_or_else(|error| {
            panic!("this test loads eBPF programs, so it needs root: {error:#}")
        })
    });
}

/// Says yes to everything.
struct Open;

impl Engine for Open {
    fn answers(&mut self, _: &mut Cluster, questions: &[Question]) -> Result<Vec<Answer>> {
        Ok(vec![Answer { outcome: Outcome::Allow, reason: "open" }; questions.len()])
    }

    fn forget(&mut self) -> Result<()> {
        Ok(())
    }
}

/// What the other tests say is worth something only if they can fail.
#[test]
fn an_engine_that_allows_everything_is_found_out_by_name_of_case_and_cell() {
    let suite = Suite::read();
    let id = "e2e/01@v4";
    let case = suite.cases.iter().find(|case| case.id == id).expect("the case");
    let outcomes = suite.run(case, &mut Open);
    let told = outcomes.to_string();
    let first = format!("{id} step 1: IPv4 TCP/80 x/a -> x/b: expected deny, got Ok([Allow])");
    assert!(told.starts_with(&first), "{told}");
    // 9 pods, 8 others and 2 clients outside, 7 probes; only the namespace x is closed.
    assert_eq!(outcomes.failures.len(), 3 * 10 * 7);
    assert!(told.ends_with("210 failures in 1 of 1 cases"), "{told}");
}

/// Holds an engine against every case, on each CPU one, and says how much was asked.
fn hold<E: Engine>(name: &str, engine: impl Fn() -> E + Sync) {
    let started = Instant::now();
    let suite = Suite::read();
    let next = AtomicUsize::new(0);
    let all = Mutex::new(Outcomes::default());
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                let mut engine = engine();
                let next = || suite.cases.get(next.fetch_add(1, Ordering::Relaxed));
                while let Some(case) = next() {
                    let outcomes = suite.run(case, &mut engine);
                    *all.lock().expect("no other thread has failed") += outcomes;
                }
            });
        }
    });
    let all = all.into_inner().expect("no thread has failed");
    let seconds = started.elapsed().as_secs_f32();
    let (cases, probes, pings) = (all.cases, all.probes, all.pings);
    // Past the capture of the test harness: what was asked is worth a line of a run that is good.
    writeln!(
        stderr(),
        "conformance, {name}: {cases} cases, {probes} probes and {pings} pings in {seconds:.1} s"
    )
    .expect("standard error");
    assert!(all.failures.is_empty(), "{name}:\n{all}");
    assert!(cases > 1000 && probes > 2_000_000, "there are more than these");
}
