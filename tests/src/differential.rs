//! The loaded programs against `decide` in user space against a second reading, on random packets.
//!
//! The verifier, the compiler for the BPF target and the kernel's maps stand between the source and
//! what runs: that they change nothing is shown by the first comparison, the source's own errors by
//! the second ([`model`](crate::model)).
//!
//! Packets come in blocks. A block's number and the run's seed make its packets, and it begins with
//! nothing remembered: each can be run again by itself. Actions are compared packet by packet,
//! counters after each batch.

use std::{
    collections::BTreeMap,
    fmt,
    ops::Range,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

use bulkhead_common::{
    value::flags::REJECT,
    verdict::{
        Direction,
        DropReason::{FlowRevoked, NotAllowed},
        Verdict,
    },
};
use fastrand::Rng;

use crate::{
    crafted::{self, Crafted, Crafter},
    model::{Model, State},
    pod::{self, COUNTERS},
    program::{ELSEWHERE, NEXT, Programs, REDIRECT, SHOT},
    reading,
    user_space::Judged,
};

/// Packets between two looks at the counters.
pub const BATCH: u64 = 1000;
/// Packets of a block.
pub const BLOCK: u64 = 20 * BATCH;

/// What a run met.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// How many packets had each verdict, by its counter column.
    pub verdicts: BTreeMap<u32, (Verdict, u64)>,
    /// How many of them were judged at a glance.
    pub at_a_glance: u64,
    /// The kernel runs no frame that ends within the IP header: `decide` and the model alone.
    pub not_run: u64,
}

impl Figures {
    /// Packets that were compared.
    pub fn packets(&self) -> u64 {
        self.verdicts.values().map(|(_, packets)| packets).sum()
    }

    fn count(&mut self, judged: Judged, run: bool) {
        let Judged { verdict, at_a_glance } = judged;
        self.verdicts.entry(verdict.column()).or_insert((verdict, 0)).1 += 1;
        self.at_a_glance += u64::from(at_a_glance);
        self.not_run += u64::from(!run);
    }

    fn add(&mut self, other: &Self) {
        for (column, (verdict, packets)) in &other.verdicts {
            self.verdicts.entry(*column).or_insert((*verdict, 0)).1 += packets;
        }
        self.at_a_glance += other.at_a_glance;
        self.not_run += other.not_run;
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (verdict, packets) in self.verdicts.values() {
            writeln!(f, "{packets:>12}  {verdict:?}")?;
        }
        writeln!(f, "{:>12}  of them at a glance", self.at_a_glance)?;
        write!(f, "{:>12}  too short for the kernel: in user space alone", self.not_run)
    }
}

/// Two of the three said different things of a packet.
#[derive(Clone, Debug)]
pub struct Disagreement {
    /// The run's.
    pub seed: u64,
    /// In which block.
    pub block: u64,
    /// The packet's number in it.
    pub number: u64,
    /// Who said what.
    pub what: String,
    /// The packet, where it could be found.
    pub packet: Option<Crafted>,
}

impl fmt::Display for Disagreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, block, number, what, packet } = self;
        writeln!(f, "seed {seed}, block {block}, packet {number}: {what}")?;
        let Some(packet) = packet else {
            return write!(f, "no single packet shows it");
        };
        let Crafted { direction, from_own_node, gso_size, bytes, .. } = packet;
        writeln!(f, "{direction:?}, from own node: {from_own_node}, GSO size {gso_size}")?;
        bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Runs `blocks` of a seed, on every CPU, until one disagrees. `progress` hears of each block, with
/// the number of those that are done.
///
/// # Errors
///
/// The first disagreement that was found.
///
/// # Panics
///
/// It lacks the privileges to load programs.
pub fn run(
    seed: u64,
    blocks: Range<u64>,
    progress: impl Fn(u64) + Sync,
) -> Result<Figures, Disagreement> {
    let next = AtomicU64::new(blocks.start);
    let done = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    let sum = Mutex::new(Figures::default());
    let lane = || {
        let mut lane = Lane::new(seed);
        loop {
            let block = next.fetch_add(1, Ordering::Relaxed);
            if block >= blocks.end || stop.load(Ordering::Relaxed) {
                break;
            }
            lane.block(block).inspect_err(|_| stop.store(true, Ordering::Relaxed))?;
            progress(done.fetch_add(1, Ordering::Relaxed) + 1);
        }
        sum.lock().unwrap_or_else(PoisonError::into_inner).add(&lane.figures);
        Ok(())
    };
    let lanes = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..lanes).map(|_| scope.spawn(lane)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("a lane panicked"))
    })?;
    Ok(sum.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// When the counters are looked at.
#[derive(Clone, Copy, PartialEq)]
enum Look {
    EachBatch,
    EachPacket,
}

/// Packets and bytes, by direction and counter column.
type Sums = BTreeMap<(Direction, u32), (u64, u64)>;

/// One set of programs with its maps.
struct Lane {
    seed: u64,
    programs: Programs,
    epoch: u32,
    figures: Figures,
}

impl Lane {
    fn new(seed: u64) -> Self {
        let mut programs = Programs::with_pod(pod::ISOLATED);
        programs.execute(&pod::blocks());
        Self { seed, programs, epoch: 1, figures: Figures::default() }
    }

    fn block(&mut self, block: u64) -> Result<(), Disagreement> {
        let met = self.pass(block, Look::EachBatch).map_err(|found| {
            // The counters of a batch do not say which packet it was.
            let again = found.packet.is_none().then(|| self.pass(block, Look::EachPacket).err());
            again.flatten().unwrap_or(found)
        })?;
        self.figures.add(&met);
        Ok(())
    }

    fn pass(&mut self, block: u64, look: Look) -> Result<Figures, Disagreement> {
        let mut random = Rng::with_seed(self.seed.wrapping_add(block << 32));
        let (mut crafter, mut model) = (Crafter::default(), Model::default());
        let mut figures = Figures::default();
        let seed = self.seed;
        let fault = |number, what, packet| Disagreement { seed, block, number, what, packet };
        self.programs.forget_flows();
        self.programs.moved();
        for batch in 0..BLOCK / BATCH {
            // Flows of the last policy meet the next one.
            self.epoch += 1;
            let flags = crafted::flags(&mut random);
            self.programs.set_pod(flags);
            let mut sums = Sums::new();
            for number in batch * BATCH..(batch + 1) * BATCH {
                let packet = crafter.next(&mut random);
                let met = self.meet(flags, &mut model, &packet).and_then(|(judged, run)| {
                    figures.count(judged, run);
                    if run {
                        let key = (packet.direction, judged.verdict.column());
                        let (packets, bytes) = sums.entry(key).or_default();
                        (*packets, *bytes) = (*packets + 1, *bytes + packet.bytes.len() as u64);
                    }
                    match look {
                        Look::EachBatch => Ok(()),
                        Look::EachPacket => self.check_counters(&std::mem::take(&mut sums)),
                    }
                });
                met.map_err(|what| fault(number, what, Some(packet)))?;
            }
            self.check_counters(&sums).map_err(|what| fault(batch * BATCH, what, None))?;
        }
        Ok(figures)
    }

    /// Has all three judge a packet: the verdict, and whether the program ran.
    fn meet(
        &mut self,
        flags: u32,
        model: &mut Model,
        packet: &Crafted,
    ) -> Result<(Judged, bool), String> {
        let Crafted { direction, bytes, .. } = packet;
        let judged = self.programs.in_memory(*direction, ingress_ifindex(packet), bytes);
        let verdict = judged.verdict;
        let state = State { flags, epoch: self.epoch, now: self.programs.clock() };
        let reading = reading::read(bytes);
        let expected = model.judge(state, packet, &reading);
        if verdict != expected {
            return Err(format!(
                "the model says {expected:?}, decide {verdict:?}; {reading:x?}; {state:?}"
            ));
        }
        if !is_run(bytes) {
            return Ok((judged, false));
        }
        let action = self.programs.in_kernel(*direction, &context(packet), bytes);
        if fits(action, verdict, flags) {
            Ok((judged, true))
        } else {
            Err(format!("decide says {verdict:?}, the program returns {action}; {state:?}"))
        }
    }

    /// That the counters moved as the verdicts say.
    fn check_counters(&mut self, sums: &Sums) -> Result<(), String> {
        let moved = self.programs.moved();
        let counted: Sums = moved
            .iter()
            .filter(|moved| moved.block == COUNTERS)
            .map(|moved| {
                let count = moved.count;
                let key = (count.direction, count.verdict.column());
                (key, (count.counter.packets, count.counter.bytes))
            })
            .collect();
        if moved.len() == counted.len() && counted == *sums {
            Ok(())
        } else {
            Err(format!("the counters moved by {moved:?}, the verdicts of decide are {sums:?}"))
        }
    }
}

fn ingress_ifindex(packet: &Crafted) -> u32 {
    if packet.from_own_node { 0 } else { ELSEWHERE }
}

/// Whether an action is what a verdict leads to.
fn fits(action: u32, verdict: Verdict, flags: u32) -> bool {
    match verdict {
        Verdict::Allow(_) => action == NEXT,
        Verdict::Deny(NotAllowed | FlowRevoked) if flags & REJECT != 0 => {
            action == SHOT || action == REDIRECT
        }
        Verdict::Deny(_) => action == SHOT,
    }
}

/// A test run takes no frame that ends within the IP header that it announces
/// (`bpf_prog_test_run_skb`, net/bpf/test_run.c).
fn is_run(frame: &[u8]) -> bool {
    match frame.get(12..14) {
        Some([0x08, 0x00]) => frame.len() >= 14 + 20,
        Some([0x86, 0xdd]) => frame.len() >= 14 + 40,
        Some(_) => frame.len() > 14,
        None => false,
    }
}

/// A `__sk_buff` (linux/bpf.h).
fn context(packet: &Crafted) -> [u8; 184] {
    let mut context = [0; 184];
    context[36..40].copy_from_slice(&ingress_ifindex(packet).to_ne_bytes());
    context[40..44].copy_from_slice(&pod::IFINDEX.to_ne_bytes());
    context[176..180].copy_from_slice(&packet.gso_size.to_ne_bytes());
    context
}

#[cfg(test)]
mod tests {
    use bulkhead::dataplane::op::{Execute as _, Op};
    use bulkhead_common::value::{IDENTITY_FIRST, IDENTITY_NODE, Peer};

    use super::*;

    /// Of a run whose kernel knows another identity of this address than the memory.
    fn found(address: std::net::IpAddr, identity: u32) -> Disagreement {
        let mut lane = Lane::new(1);
        let op = Op::SetPeer { address, peer: Peer { identities: [identity, 0] } };
        lane.programs.kernel.execute(&op).expect("writing a map");
        lane.block(0).expect_err("kernel and memory differ")
    }

    #[test]
    fn a_packet_that_passes_in_the_kernel_alone_is_found_and_shown() {
        let stranger = pod::IPV4.stranger;
        let found = found(stranger, IDENTITY_FIRST + 1);
        assert!(found.what.contains("the program returns"), "{found}");
        let packet = found.packet.expect("its action shows it");
        let std::net::IpAddr::V4(address) = stranger else { unreachable!("IPv4") };
        assert!(packet.bytes.windows(4).any(|bytes| bytes == address.octets()));
    }

    #[test]
    fn a_packet_that_has_another_reason_in_the_kernel_is_found_by_the_counters() {
        // Egress to it passes as the own node's, and no more passes than before.
        let found = found(pod::IPV4.trusted, IDENTITY_NODE | (IDENTITY_FIRST + 1));
        assert!(found.what.contains("the counters moved"), "{found}");
        let packet = found.packet.expect("the block was run again, packet by packet");
        assert_eq!(packet.direction, Direction::Egress);
    }
}
