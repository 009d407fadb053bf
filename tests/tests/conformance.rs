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

use bulkhead::reach::engine::{CompiledMaps, Engine, KernelMaps, Specification};
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
