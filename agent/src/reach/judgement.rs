//! What the answers to a flow's questions add up to.

use std::ops::Range;

use anyhow::{Context as _, Result};
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
    let mut questions = Vec::new();
    let asked: Vec<Result<Vec<Asked>>> = flows
        .into_iter()
        .map(|flow| {
            let courses = courses(cluster, flow)?.into_iter();
            Ok(courses.map(|course| Asked::new(course, &mut questions)).collect())
        })
        .collect();
    let answers = engine.answers(cluster, &questions)?;
    let answered: Vec<(&Question, Answer)> = questions.iter().zip(answers).collect();
    let judgement = |asked: Asked| {
        let answered = answered.get(asked.places).context("a question has no answer")?;
        Ok(sum(asked.family, answered))
    };
    Ok(asked.into_iter().map(|asked| asked?.into_iter().map(judgement).collect()).collect())
}

/// Where the questions of a course stand among all.
struct Asked {
    family: Family,
    places: Range<usize>,
}

impl Asked {
    fn new(course: Course, questions: &mut Vec<Question>) -> Self {
        let start = questions.len();
        questions.extend(course.questions);
        Self { family: course.family, places: start..questions.len() }
    }
}

fn sum(family: Family, answered: &[(&Question, Answer)]) -> Judgement {
    let rule = AllowReason::Rule.as_str();
    let decisive = answered
        .iter()
        .find(|(_, answer)| answer.outcome == Outcome::Deny)
        .or_else(|| answered.iter().rfind(|(_, answer)| answer.reason == rule))
        .or_else(|| answered.last());
    match decisive {
        Some((question, answer)) => Judgement {
            family,
            outcome: answer.outcome,
            reason: answer.reason,
            by: Some((question.pod.clone(), question.flow.direction)),
        },
        None => Judgement { family, outcome: Outcome::Allow, reason: NOBODY_ASKED, by: None },
    }
}
