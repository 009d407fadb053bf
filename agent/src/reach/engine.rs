//! Who answers whether a pod's policy lets a flow pass.
//!
//! - [`Specification`]: reads the policies themselves, slowly and obviously,
//! - [`CompiledMaps`]: what an agent would write into its maps, in memory, and the verdict function
//!   that its programs run,
//! - [`KernelMaps`]: the same maps in the kernel, and the programs themselves. Needs root.
//!
//! All three answer every question alike; where they don't, one of them is wrong. Invariant: an
//! answer is about the first packet of a flow, whatever was asked before.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use bulkhead_common::verdict::{AllowReason, DropReason, Verdict};

use super::{
    cluster::{Cluster, NodeName},
    course::Question,
    flow::Outcome,
};
use crate::policy::index::Index;

pub use compiled::CompiledMaps;
pub use kernel::KernelMaps;
pub use specification::Specification;

mod compiled;
mod frame;
mod kernel;
mod node_maps;
mod specification;

/// Answers questions.
///
/// A cluster tells once what changed in it, so one engine alone may ask it.
pub trait Engine {
    /// The answers to questions about a cluster, in their order.
    ///
    /// # Errors
    ///
    /// A question that cannot be asked: its pod is none of its node's, or the maps are too small.
    fn answers(&mut self, cluster: &mut Cluster, questions: &[Question]) -> Result<Vec<Answer>>;

    /// What is asked from here on is about another cluster.
    fn forget(&mut self) -> Result<()>;
}

/// The answer to a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Whether the flow passes.
    pub outcome: Outcome,
    /// Why: the word of an [`AllowReason`] or a [`DropReason`].
    pub reason: &'static str,
}

impl Answer {
    const fn allow(reason: AllowReason) -> Self {
        Self { outcome: Outcome::Allow, reason: reason.as_str() }
    }

    const fn deny(reason: DropReason) -> Self {
        Self { outcome: Outcome::Deny, reason: reason.as_str() }
    }

    /// A flow that another question opened before, at another pod or under another policy, does
    /// not make this one an old one.
    const fn of(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Allow(reason) => Self::allow(reason),
            Verdict::Deny(DropReason::FlowRevoked) => Self::deny(DropReason::NotAllowed),
            Verdict::Deny(reason) => Self::deny(reason),
        }
    }
}

/// Asks questions in batches that the maps of a node can hold; their pods come one after the other.
fn in_batches(
    cluster: &mut Cluster,
    questions: &[Question],
    mut ask: impl FnMut(&NodeName, &mut Index, &[&Question]) -> Result<Vec<Answer>>,
) -> Result<Vec<Answer>> {
    let mut by_pod = BTreeMap::<_, Vec<usize>>::new();
    for (place, question) in questions.iter().enumerate() {
        by_pod.entry((&question.node, &question.pod)).or_default().push(place);
    }
    let by_pod: Vec<_> = by_pod.into_iter().collect();
    let mut answers = vec![None; questions.len()];
    for of_node in by_pod.chunk_by(|((a, _), _), ((b, _), _)| a == b) {
        for batch in of_node.chunks(node_maps::PODS) {
            let Some(((node, _), _)) = batch.first() else { continue };
            let places: Vec<usize> = batch.iter().flat_map(|(_, p)| p).copied().collect();
            let batch: Vec<&Question> = places.iter().filter_map(|p| questions.get(*p)).collect();
            for (place, answer) in places.into_iter().zip(ask(node, cluster.node(node), &batch)?) {
                if let Some(slot) = answers.get_mut(place) {
                    *slot = Some(answer);
                }
            }
        }
    }
    answers.into_iter().collect::<Option<_>>().context("a question was left without an answer")
}

#[cfg(test)]
mod tests;
