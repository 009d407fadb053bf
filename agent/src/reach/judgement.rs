//! What the answers to a flow's questions add up to.

use anyhow::{Result, anyhow};
use bulkhead_common::verdict::{AllowReason, Direction};

use super::{
    cluster::Cluster,
    course::{Course, Question, courses},
    engine::{Answer, Engine},
    flow::{Family, FlowSpec, Outcome},
};
use crate::policy::model::ObjectKey;

/// What becomes of a flow in one address family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// The family.
    pub family: Family,
    /// What becomes of the flow.
    pub outcome: Outcome,
    /// Why: the word of an answer, or [`NOBODY_ASKED`].
    pub reason: &'static str,
    /// Whose policy made the difference: the first that denies, or else the last whose rules
    /// allow, or else the last that was asked.
    pub by: Option<(ObjectKey, Direction)>,
}

/// The reason of flows that pass because no pod's policy is to be asked: from a pod to itself, or
/// between two ends of which neither is a pod.
pub const NOBODY_ASKED: &str = "no_policy_asked";

/// What becomes of flows, in their order, for each address family that is asked about; or why that
/// cannot be told.
///
/// # Errors
///
/// The engine cannot answer.
pub fn judge<'a>(
    cluster: &mut Cluster,
    engine: &mut dyn Engine,
    flows: impl IntoIterator<Item = &'a FlowSpec>,
) -> Result<Vec<Result<Vec<Judgement>>>> {
    let courses: Vec<Result<Vec<Course>>> =
        flows.into_iter().map(|flow| courses(cluster, flow)).collect();
    let questions: Vec<Question> = courses
        .iter()
        .flatten()
        .flatten()
        .flat_map(|course| course.questions.iter().cloned())
        .collect();
    let mut answers = engine.answers(cluster, &questions)?.into_iter();
    let judged = courses.into_iter().map(|courses| {
        courses?
            .into_iter()
            .map(|course| {
                let answers: Vec<Answer> = answers.by_ref().take(course.questions.len()).collect();
                if answers.len() != course.questions.len() {
                    return Err(anyhow!("the engine left a question without an answer"));
                }
                Ok(sum(&course, &answers))
            })
            .collect()
    });
    Ok(judged.collect())
}

fn sum(course: &Course, answers: &[Answer]) -> Judgement {
    let asked = || course.questions.iter().zip(answers);
    let rule = AllowReason::Rule.as_str();
    let decisive = asked()
        .find(|(_, answer)| answer.outcome == Outcome::Deny)
        .or_else(|| asked().rfind(|(_, answer)| answer.reason == rule))
        .or_else(|| asked().next_back());
    match decisive {
        Some((question, answer)) => Judgement {
            family: course.family,
            outcome: answer.outcome,
            reason: answer.reason,
            by: Some((question.pod.clone(), question.flow.direction)),
        },
        None => Judgement {
            family: course.family,
            outcome: Outcome::Allow,
            reason: NOBODY_ASKED,
            by: None,
        },
    }
}
