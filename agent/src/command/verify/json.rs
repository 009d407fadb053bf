//! The list of flows again, with what became of each.

use anyhow::Result;
use serde::Serialize;

use super::{Judged, total};
use crate::reach::flow::{Family, FlowSpec, Outcome};

/// A line of the output.
#[derive(Serialize)]
struct Verdict<'a> {
    #[serde(flatten)]
    flow: &'a FlowSpec,
    #[serde(skip_serializing_if = "Option::is_none")]
    verdict: Option<Outcome>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    /// The direction and the pod whose policy made the difference.
    #[serde(skip_serializing_if = "Option::is_none")]
    direction: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod: Option<String>,
    /// Where the families differ, each of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    families: Vec<OfFamily>,
    /// Why it cannot be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Serialize)]
struct OfFamily {
    family: Family,
    verdict: Outcome,
    reason: &'static str,
}

/// A JSON object for each line of the list, in its order.
pub(super) fn lines(judged: &[Judged]) -> Result<String> {
    let mut text = String::new();
    for judged in judged {
        text += &serde_json::to_string(&verdict(judged))?;
        text.push('\n');
    }
    Ok(text)
}

fn verdict(judged: &Judged) -> Verdict<'_> {
    let (judgements, error) = match &judged.result {
        Ok(judgements) => (&judgements[..], None),
        Err(error) => (&[][..], Some(format!("{error:#}"))),
    };
    let total = total(judgements);
    let by = total.and_then(|total| total.by.as_ref());
    let differ = judgements.iter().any(|j| Some(j.outcome) != total.map(|total| total.outcome));
    let of_families = judgements.iter().filter(|_| differ);
    Verdict {
        flow: &judged.line.flow,
        verdict: total.map(|total| total.outcome),
        reason: total.map(|total| total.reason),
        direction: by.map(|(_, direction)| direction.as_str()),
        pod: by.map(|(pod, _)| pod.to_string()),
        families: of_families
            .map(|j| OfFamily { family: j.family, verdict: j.outcome, reason: j.reason })
            .collect(),
        error,
    }
}
