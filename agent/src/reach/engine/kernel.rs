//! Answers of the programs, run in the kernel on single frames.
//!
//! The maps are written as an agent would write them. A node's hundreds of interfaces are not
//! there, so one pod after the other is put behind the loopback interface's number; nothing is
//! attached to it, and no frame goes anywhere.

use anyhow::{Context as _, Result, bail};
use aya::{TestRun as _, TestRunOptions};
use bulkhead_common::{
    abi,
    value::Endpoint,
    verdict::{AllowReason, Direction, DropReason, Verdict},
};

use super::{
    Answer, Engine, frame, in_batches,
    node_maps::{NodeMaps, PODS},
};
use crate::{
    dataplane::{
        counters::{Count, every_verdict},
        kernel::{Kernel, Options},
        op::{Execute as _, Op},
    },
    policy::{index::Index, model::ObjectKey},
    reach::{
        cluster::{Cluster, NodeName},
        course::Question,
        flow::Outcome,
    },
};

/// `TCX_NEXT` (linux/pkt_cls.h): the frame goes on.
const NEXT: u32 = u32::MAX;
/// `TC_ACT_SHOT`: the frame is dropped.
const SHOT: u32 = 2;
/// Some device that is not the pod's.
const ELSEWHERE: u32 = 7;
/// The block of counters of whichever pod is asked: the last one, which [`PODS`] pods leave free.
const BLOCK: u32 = abi::ENDPOINTS;
const _: () = assert!(PODS < BLOCK as usize);

/// The programs and their maps in the kernel: one node's at a time.
pub struct KernelMaps {
    kernel: Kernel,
    node: Option<(NodeName, NodeMaps)>,
    asked: Option<ObjectKey>,
    /// Of the last endpoint.
    epoch: u32,
    /// Of [`BLOCK`], by the last look; `None`: reasons are not asked for.
    counts: Option<Vec<Count>>,
}

impl KernelMaps {
    /// Loads the programs, which takes some 100 ms.
    ///
    /// # Errors
    ///
    /// See [`Kernel::load`].
    pub fn load() -> Result<Self> {
        let kernel = Kernel::load(Options::default())?;
        let counts = Some(kernel.counters().read(BLOCK)?);
        Ok(Self { kernel, node: None, asked: None, epoch: 0, counts })
    }

    /// Loads the programs. Answers come faster, and say no more than `allowed` and `denied`.
    ///
    /// # Errors
    ///
    /// See [`Kernel::load`].
    pub fn load_without_reasons() -> Result<Self> {
        let kernel = Kernel::load(Options::default())?;
        Ok(Self { kernel, node: None, asked: None, epoch: 0, counts: None })
    }

    fn program(
        &mut self,
        node: &NodeName,
        index: &mut Index,
        questions: &[&Question],
    ) -> Result<()> {
        if self.node.as_ref().is_some_and(|(programmed, _)| programmed != node) {
            self.forget()?;
        }
        let (_, maps) = self.node.get_or_insert_with(|| (node.clone(), NodeMaps::new()));
        let ops = maps.plan(index, questions)?;
        maps.execute(&ops, &mut self.kernel)?;
        self.asked = None;
        Ok(())
    }

    fn answer(&mut self, index: &Index, question: &Question) -> Result<Answer> {
        if self.asked.as_ref() != Some(&question.pod) {
            let (_, maps) = self.node.as_ref().context("no node is in the maps")?;
            let endpoint = maps.endpoint(&question.pod)?;
            // Each plan begins with the same epochs, and the programs keep what was said in one.
            self.epoch += 1;
            let endpoint = Endpoint { counters: BLOCK, epoch: self.epoch, ..endpoint };
            self.kernel.execute(&Op::SetEndpoint { ifindex: frame::IFINDEX, endpoint })?;
            self.asked = Some(question.pod.clone());
        }
        let frame = frame::opening(index, question)?;
        let (program, ingress_ifindex) =
            match (question.flow.direction, question.flow.from_own_node) {
                (Direction::Ingress, true) => (abi::name::TO_POD, 0),
                (Direction::Ingress, false) => (abi::name::TO_POD, ELSEWHERE),
                (Direction::Egress, _) => (abi::name::FROM_POD, frame::IFINDEX),
            };
        let context = context(ingress_ifindex);
        let run = self.kernel.program(program)?.test_run(TestRunOptions {
            data_in: Some(&frame),
            ctx_in: Some(&context),
            ..TestRunOptions::default()
        });
        let action = run.context("the kernel does not run the program on a frame")?.return_value;
        let outcome = match action {
            NEXT => Outcome::Allow,
            SHOT => Outcome::Deny,
            other => bail!("the program {program} says {other}, which is no verdict"),
        };
        match self.verdict(question.flow.direction, outcome)? {
            Some(verdict) => Ok(Answer { outcome, ..Answer::of(verdict) }),
            None => Ok(Answer {
                outcome,
                reason: match outcome {
                    Outcome::Allow => "allowed",
                    Outcome::Deny => "denied",
                },
            }),
        }
    }

    /// The verdict whose counter moved since the last look; the likely ones are looked at first.
    fn verdict(&mut self, direction: Direction, outcome: Outcome) -> Result<Option<Verdict>> {
        let Some(counts) = &mut self.counts else { return Ok(None) };
        let likely = match outcome {
            Outcome::Allow => [AllowReason::Rule, AllowReason::NotIsolated].map(Verdict::Allow),
            Outcome::Deny => [DropReason::NotAllowed, DropReason::FlowRevoked].map(Verdict::Deny),
        };
        for verdict in likely.into_iter().chain(every_verdict()) {
            let before = counts
                .iter_mut()
                .find(|count| count.direction == direction && count.verdict == verdict)
                .context("a verdict that is not counted")?;
            let counter = self.kernel.counters().read_one(BLOCK, direction, verdict)?;
            if before.counter != counter {
                before.counter = counter;
                return Ok(Some(verdict));
            }
        }
        bail!("the programs gave a verdict, and no counter moved")
    }
}

impl Engine for KernelMaps {
    fn answers(&mut self, cluster: &mut Cluster, questions: &[Question]) -> Result<Vec<Answer>> {
        in_batches(cluster, questions, |node, index, questions| {
            self.program(node, index, questions)?;
            questions.iter().map(|question| self.answer(index, question)).collect()
        })
    }

    fn forget(&mut self) -> Result<()> {
        if let Some((_, mut maps)) = self.node.take() {
            let ops = maps.plan_empty()?;
            maps.execute(&ops, &mut self.kernel)?;
        }
        self.asked = None;
        Ok(())
    }
}

/// A `__sk_buff` (linux/bpf.h) up to `ifindex`; the kernel takes the rest for zero.
fn context(ingress_ifindex: u32) -> [u8; 44] {
    let mut context = [0; 44];
    let (_, ends) = context.split_at_mut(36);
    let (ingress, own) = ends.split_at_mut(4);
    ingress.copy_from_slice(&ingress_ifindex.to_ne_bytes());
    own.copy_from_slice(&frame::IFINDEX.to_ne_bytes());
    context
}
