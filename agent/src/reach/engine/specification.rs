//! Answers read off the policies.

use anyhow::{Context as _, Result};
use bulkhead_common::verdict::{AllowReason, DropReason};

use super::{Answer, Engine};
use crate::{
    policy::evaluate::{Evaluation, evaluate},
    reach::{cluster::Cluster, course::Question},
};

/// The specification, for every question anew.
#[derive(Clone, Copy, Debug, Default)]
pub struct Specification;

impl Engine for Specification {
    fn answers(&mut self, cluster: &mut Cluster, questions: &[Question]) -> Result<Vec<Answer>> {
        let answer = |question: &Question| {
            evaluate(cluster.node(&question.node), &question.pod, &question.flow)
                .map(|evaluation| answer(&evaluation))
                .with_context(|| format!("the pod {} has no policy", question.pod))
        };
        questions.iter().map(answer).collect()
    }

    fn forget(&mut self) -> Result<()> {
        Ok(())
    }
}

const fn answer(evaluation: &Evaluation) -> Answer {
    match evaluation {
        Evaluation::OwnNode => Answer::allow(AllowReason::OwnNode),
        Evaluation::Itself => Answer::allow(AllowReason::Itself),
        Evaluation::NotIsolated => Answer::allow(AllowReason::NotIsolated),
        Evaluation::Allowed(_) | Evaluation::AllowedService { .. } => {
            Answer::allow(AllowReason::Rule)
        }
        Evaluation::Closed(_) | Evaluation::Denied(_) | Evaluation::DeniedService { .. } => {
            Answer::deny(DropReason::NotAllowed)
        }
    }
}
