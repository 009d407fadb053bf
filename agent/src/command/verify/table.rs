//! Flows and what became of them, in aligned columns.

use super::{Judged, is_otherwise};
use crate::reach::{
    flow::{FlowSpec, Outcome},
    judgement::Judgement,
};

/// The flows that are not as expected, and how many there are.
pub(super) fn differences(judged: &[Judged]) -> String {
    let mut rows = Vec::new();
    let mut different = 0;
    for judged in judged {
        let flow = &judged.line.flow;
        let of_flow = judged.result.iter().flatten().filter(|j| is_otherwise(flow, j));
        let before = rows.len();
        rows.extend(of_flow.map(|judgement| row(flow, judgement, true)));
        different += usize::from(rows.len() > before);
    }
    let told = judged.iter().filter(|judged| judged.result.is_ok()).count();
    let flows = if told == 1 { "flow is" } else { "flows are" };
    if rows.is_empty() {
        return format!("{told} {flows} as expected\n");
    }
    let header =
        ["FROM", "TO", "PROTOCOL/PORT", "FAMILY", "EXPECTED", "GOT", "REASON"].map(str::to_owned);
    let table = aligned(&header, &rows);
    format!("{table}\n{different} of {told} flows not as expected\n")
}

/// Every flow that could be judged.
pub(super) fn verdicts(judged: &[Judged]) -> String {
    let rows: Vec<_> = judged
        .iter()
        .flat_map(|judged| {
            let flow = &judged.line.flow;
            judged.result.iter().flatten().map(|judgement| row(flow, judgement, false))
        })
        .collect();
    let header = ["FROM", "TO", "PROTOCOL/PORT", "FAMILY", "VERDICT", "REASON"].map(str::to_owned);
    aligned(&header, &rows)
}

fn row(flow: &FlowSpec, judgement: &Judgement, with_expected: bool) -> Vec<String> {
    let port = flow.port.map_or_else(String::new, |port| format!("/{port}"));
    let mut row = vec![
        flow.from.to_string(),
        flow.to.to_string(),
        format!("{}{port}", flow.protocol),
        judgement.family.to_string(),
    ];
    if with_expected {
        row.push(flow.expect.as_ref().map_or_else(String::new, Outcome::to_string));
    }
    row.push(judgement.outcome.to_string());
    row.push(match &judgement.by {
        Some((pod, direction)) => {
            format!("{} ({} of {pod})", judgement.reason, direction.as_str())
        }
        None => judgement.reason.to_owned(),
    });
    row
}

fn aligned(header: &[String], rows: &[Vec<String>]) -> String {
    let all = || [header].into_iter().chain(rows.iter().map(Vec::as_slice));
    let width = |column: usize| {
        all().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let mut text = String::new();
    for row in all() {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line += &format!("{cell:width$}  ");
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}
