//! The loaded programs against `decide` against a second reading, on many random packets. Needs root.
//!
//! `cargo xtask fuzz differential` runs it for longer, by these variables of the environment.

use std::{env, io::Write as _, time::Instant};

use bulkhead_tests::differential::{self, BLOCK};

/// How many packets.
const PACKETS: &str = "BULKHEAD_DIFFERENTIAL_PACKETS";
/// What makes them.
const SEED: &str = "BULKHEAD_DIFFERENTIAL_SEED";
/// The first block: to run one again that disagreed.
const BLOCKS_FROM: &str = "BULKHEAD_DIFFERENTIAL_BLOCK";

fn number(name: &str, default: u64) -> u64 {
    env::var(name).map_or(default, |text| text.parse().expect(name))
}

#[test]
fn programs_decide_and_a_second_reading_agree_on_random_packets() {
    let (packets, seed, first) =
        (number(PACKETS, 200_000), number(SEED, 0xb01c), number(BLOCKS_FROM, 0));
    let blocks = packets.div_ceil(BLOCK);
    let started = Instant::now();
    let progress = |done: u64| {
        if done.is_multiple_of((blocks / 100).max(1)) {
            let seconds = started.elapsed().as_secs();
            writeln!(std::io::stderr(), "{:>12} packets, {seconds} s", done * BLOCK)
                .expect("standard error is there");
        }
    };
    let figures = differential::run(seed, first..first + blocks, progress)
        .unwrap_or_else(|found| panic!("{found}"));
    let seconds = started.elapsed().as_secs_f64();
    println!("{figures}\n{:>12}  packets, seed {seed}, {seconds:.1} s", figures.packets());
    assert_eq!(figures.packets(), blocks * BLOCK);
    // All but "internal" and what no frame shows: every reason was met many times.
    assert_eq!(figures.verdicts.len(), 7 + 10, "{:?}", figures.verdicts);
    assert!(figures.verdicts.values().all(|(_, packets)| *packets > 20), "{figures}");
    assert!(figures.at_a_glance * 10 > figures.packets(), "{figures}");
}
