//! The explanation of a flow, for people.
//!
//! Owns the looks; says nothing that is not in the report. Invariant: without colour nothing is
//! lost.

use std::fmt::{self, Display, Formatter};

use anstyle::{AnsiColor, Style};

use super::report::{BackendReport, ClosestRule, FamilyReport, Report, Step};
use crate::reach::flow::Outcome;

const ALLOWED: Style = AnsiColor::Green.on_default();
const DENIED: Style = AnsiColor::Red.on_default().bold();

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let flow = &self.flow;
        write!(f, "{}: {} to {}, {}", verdict(self.verdict), flow.from, flow.to, flow.protocol)?;
        if let Some(port) = flow.port {
            write!(f, " {port}")?;
        }
        writeln!(f)?;
        // Families are mostly alike: then they are told once.
        let mut told: Vec<(Vec<&FamilyReport>, String)> = Vec::new();
        for family in &self.families {
            let steps = steps(family);
            match told.iter_mut().find(|(_, other)| *other == steps) {
                Some((families, _)) => families.push(family),
                None => told.push((vec![family], steps)),
            }
        }
        for (families, steps) in told {
            let names: Vec<String> = families.iter().map(|f| f.family.to_string()).collect();
            let outcome = families.first().map_or(self.verdict, |family| family.verdict);
            write!(f, "\n{}: {}\n{steps}", names.join(" and "), verdict(outcome))?;
        }
        Ok(())
    }
}

fn verdict(outcome: Outcome) -> String {
    match outcome {
        Outcome::Allow => format!("{ALLOWED}allowed{ALLOWED:#}"),
        Outcome::Deny => format!("{DENIED}denied{DENIED:#}"),
    }
}

fn steps(family: &FamilyReport) -> String {
    let note = family.note.iter().map(|note| format!("  {note}\n"));
    family.steps.iter().map(ToString::to_string).chain(note).collect()
}

impl Display for Step {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { direction, pod, peer, traffic, because, .. } = self;
        let towards = if *direction == "ingress" { "from" } else { "to" };
        writeln!(
            f,
            "  {direction} of {pod} {towards} {peer}, {traffic}: {}",
            verdict(self.verdict)
        )?;
        writeln!(f, "    {because}")?;
        for policy in &self.isolated_by {
            write!(f, "    isolated by {}", policy.policy)?;
            match &policy.refused {
                Some(why) => writeln!(f, ", which was refused and allows nothing: {why}")?,
                None => writeln!(f)?,
            }
        }
        for rule in &self.allowed_by {
            writeln!(f, "    allowed by {} of {}", rule.rule, rule.policy)?;
        }
        if let Some(closest) = &self.closest {
            writeln!(f, "    closest: {closest}")?;
        }
        for backend in &self.backends {
            writeln!(f, "    backend {backend}")?;
        }
        Ok(())
    }
}

impl Display for ClosestRule {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} {}", self.rule, self.policy, self.lacks)
    }
}

impl Display for BackendReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.name)?;
        match self.port {
            Some(port) => write!(f, ", port {port}: {}", verdict(self.verdict))?,
            None => write!(f, ", whose port no EndpointSlice says: {}", verdict(self.verdict))?,
        }
        match &self.closest {
            Some(closest) => write!(f, "; closest: {closest}"),
            None => Ok(()),
        }
    }
}
