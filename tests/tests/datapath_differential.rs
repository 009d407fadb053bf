//! The loaded programs against `decide` in user space, on many random packets. Needs root.
//!
//! The verifier, the compiler for the BPF target and the kernel's maps stand between the source
//! and what runs: here is what shows that they change nothing.

use std::collections::BTreeMap;

use bulkhead_common::{
    value::flags,
    verdict::{Direction, Verdict},
};
use bulkhead_tests::{
    arbitrary,
    pod::{COUNTERS, ISOLATED},
    program::Programs,
};
use fastrand::Rng;

/// Packets in one run.
const PACKETS: u32 = 100_000;
/// Packets between two looks at the counters. What a packet's action shows is compared at once.
const BATCH: u32 = 1000;

#[test]
fn programs_and_decide_agree_on_random_packets() {
    let mut random = Rng::with_seed(0xb01c);
    let mut programs = Programs::with_pod(ISOLATED | flags::CHECK_SOURCE);
    let mut verdicts_met = BTreeMap::<u32, (Verdict, u64)>::new();
    for batch in 0..PACKETS / BATCH {
        // Flows of the last policy meet the next one.
        programs.set_pod(random_flags(&mut random));
        let mut expected = BTreeMap::<(Direction, u32), (Verdict, u64, u64)>::new();
        for _ in 0..BATCH {
            let direction = random.choice(Direction::ALL).expect("not empty");
            let from_own_node = direction == Direction::Ingress && random.u8(..) < 8;
            let frame = arbitrary::frame(&mut random, direction);
            let verdict = programs.compare(direction, u32::from(!from_own_node) * 7, &frame);
            let of_verdict =
                expected.entry((direction, verdict.column())).or_insert((verdict, 0, 0));
            of_verdict.1 += 1;
            of_verdict.2 += frame.len() as u64;
        }
        let moved: Vec<_> = programs
            .moved()
            .into_iter()
            .map(|moved| {
                assert_eq!(moved.block, COUNTERS, "batch {batch}");
                let counter = moved.count.counter;
                (moved.count.direction, moved.count.verdict, counter.packets, counter.bytes)
            })
            .collect();
        let wanted: Vec<_> = expected
            .iter()
            .map(|((direction, _), (verdict, packets, bytes))| {
                (*direction, *verdict, *packets, *bytes)
            })
            .collect();
        assert_eq!(moved, wanted, "left: the programs, right: decide; batch {batch}");
        for (verdict, packets, _) in expected.into_values() {
            verdicts_met.entry(verdict.column()).or_insert((verdict, 0)).1 += packets;
        }
    }
    for (verdict, packets) in verdicts_met.values() {
        println!("{packets:>8}  {verdict:?}");
    }
    // All but "internal", and what a frame cannot show: every reason was met many times.
    assert_eq!(verdicts_met.len(), 6 + 10, "{verdicts_met:?}");
    assert!(verdicts_met.values().all(|(_, packets)| *packets > 20), "{verdicts_met:?}");
}

fn random_flags(random: &mut Rng) -> u32 {
    // Mostly isolated: an open pod has little to decide.
    let mut chosen = ISOLATED | flags::CHECK_SOURCE;
    for flag in [flags::ISOLATED_INGRESS, flags::ISOLATED_EGRESS, flags::CHECK_SOURCE] {
        if random.u8(..) < 50 {
            chosen &= !flag;
        }
    }
    chosen
}
