//! What may enforce the policies of a site.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use bulkhead::lab::{Lab, Pod};

use super::{agent::Bulkhead, allowance::allowances, iptables::Iptables, nftables::Nftables};

/// What an enforcer counted so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Packets that a rule of a policy allowed.
    pub by_rule: u64,
    /// Packets that passed because their flow was known.
    pub by_flow: u64,
    /// Packets that were denied.
    pub denied: u64,
}

/// Enforces until it is dropped, or its node is.
pub trait Enforcer: Send + Sync {
    /// What it counted; nothing, if nothing enforces.
    ///
    /// # Errors
    /// If the counters can't be read.
    fn tally(&self) -> Result<Tally>;
}

/// Nothing.
struct Nothing;

impl Enforcer for Nothing {
    fn tally(&self) -> Result<Tally> {
        Ok(Tally::default())
    }
}

/// Every enforcer that is measured, with its number of policies or rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// No enforcement.
    None,
    /// nftables with sets and conntrack, a chain for each policy.
    Nftables(u16),
    /// iptables with ipset and conntrack, a chain for each policy.
    Iptables(u16),
    /// Bulkhead with one policy of that many rules.
    BulkheadRules(u16),
    /// Bulkhead with that many policies of one rule.
    BulkheadPolicies(u16),
}

impl Variant {
    /// All, as they stand in the table.
    pub const ALL: [Self; 9] = [
        Self::None,
        Self::Nftables(1),
        Self::Iptables(1),
        Self::BulkheadRules(1),
        Self::BulkheadRules(100),
        Self::BulkheadRules(10_000),
        Self::Nftables(1_000),
        Self::Iptables(1_000),
        Self::BulkheadPolicies(1_000),
    ];

    /// In words.
    pub fn title(self) -> String {
        match self {
            Self::None => "no enforcement".to_owned(),
            Self::Nftables(number) => {
                format!("nftables, {}", counted(number, "policy", "policies"))
            }
            Self::Iptables(number) => {
                format!("iptables with ipset, {}", counted(number, "policy", "policies"))
            }
            Self::BulkheadRules(number) => {
                format!("Bulkhead, {}", counted(number, "rule", "rules"))
            }
            Self::BulkheadPolicies(number) => {
                format!("Bulkhead, {}", counted(number, "policy", "policies"))
            }
        }
    }

    /// In one word, for the command line and JSON.
    pub fn name(self) -> String {
        match self {
            Self::None => "none".to_owned(),
            Self::Nftables(number) => format!("nftables-{number}"),
            Self::Iptables(number) => format!("iptables-{number}"),
            Self::BulkheadRules(number) => format!("bulkhead-{number}"),
            Self::BulkheadPolicies(number) => format!("bulkhead-policies-{number}"),
        }
    }

    /// Whether anything is denied.
    pub fn is_enforcing(self) -> bool {
        self != Self::None
    }

    /// Whether it is the kernel's connection tracking that remembers flows.
    pub const fn is_tracking(self) -> bool {
        match self {
            Self::Nftables(_) | Self::Iptables(_) => true,
            Self::None | Self::BulkheadRules(_) | Self::BulkheadPolicies(_) => false,
        }
    }

    /// Sets it up on the node of these pods: the first is the server.
    pub(super) fn enforce(self, lab: &Lab, pods: &[&Pod]) -> Result<Box<dyn Enforcer>> {
        Ok(match self {
            Self::None => Box::new(Nothing),
            Self::Nftables(number) => Box::new(Nftables::start(lab, &allowances(number))?),
            Self::Iptables(number) => Box::new(Iptables::start(lab, &allowances(number))?),
            Self::BulkheadRules(number) => {
                Box::new(Bulkhead::with_rules(lab, pods, &allowances(number))?)
            }
            Self::BulkheadPolicies(number) => {
                Box::new(Bulkhead::with_policies(lab, pods, &allowances(number))?)
            }
        })
    }
}

/// `1,000 rules`.
fn counted(number: u16, one: &str, many: &str) -> String {
    let digits = match (number / 1_000, number % 1_000) {
        (0, rest) => rest.to_string(),
        (thousands, rest) => format!("{thousands},{rest:03}"),
    };
    format!("{digits} {}", if number == 1 { one } else { many })
}

/// Runs a program with this input, and returns what it prints.
pub(crate) fn run(mut command: Command, input: &str) -> Result<String> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("{command:?}"))?;
    // Written whole before anything is read: these programs print at the end.
    child.stdin.take().context("its input")?.write_all(input.as_bytes()).context("its input")?;
    let output = child.wait_with_output()?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}: {}", output.status, errors.trim());
    String::from_utf8(output.stdout).with_context(|| format!("{command:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_counted_in_words() {
        assert_eq!(Variant::BulkheadRules(1).title(), "Bulkhead, 1 rule");
        assert_eq!(Variant::BulkheadRules(10_000).title(), "Bulkhead, 10,000 rules");
        assert_eq!(Variant::Nftables(1_000).title(), "nftables, 1,000 policies");
    }
}
