//! iptables with ipset and connection tracking, in the shape in which kube-router writes it.
//!
//! Rules on the pod's address lead to its chain, where what belongs to a known connection is
//! accepted. What is left walks through the chains of the policies that select the pod, each of
//! which asks for the source in its ipset and for the port. Where kube-router marks what a policy
//! allows, goes on, and accepts it at the end, here the policy's rule accepts it: that is less
//! work.

use std::{fmt::Write as _, process::Command};

use anyhow::{Context as _, Result};
use bulkhead::lab::Lab;

use super::{
    SERVER,
    allowance::Allowance,
    enforcer::{Enforcer, Tally, run},
};

/// Rules that go with their node.
pub(super) struct Iptables {
    node: String,
}

impl Iptables {
    pub(super) fn start(lab: &Lab, policies: &[Allowance]) -> Result<Self> {
        let enforcer = Self { node: lab.node().name().to_owned() };
        let sets = enforcer.inside("ipset", &["restore"]);
        run(sets, &ipsets(policies)).context("make the sets")?;
        let rules = enforcer.inside("iptables-restore", &[]);
        run(rules, &ruleset(policies)).context("load the rules")?;
        Ok(enforcer)
    }

    fn inside(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.node, program]).args(arguments);
        command
    }
}

impl Enforcer for Iptables {
    fn tally(&self) -> Result<Tally> {
        let saved = run(self.inside("iptables-save", &["--counters", "--table", "filter"]), "")?;
        let mut tally = Tally::default();
        for line in saved.lines() {
            // [PACKETS:BYTES] -A CHAIN ...
            let Some((packets, rule)) = line.strip_prefix('[').and_then(|l| l.split_once(':'))
            else {
                continue;
            };
            let packets: u64 = packets.parse().with_context(|| line.to_owned())?;
            if rule.contains("-A POLICY-") {
                tally.by_rule += packets;
            } else if rule.contains("ESTABLISHED") {
                tally.by_flow += packets;
            } else if rule.contains("-A POD-SERVER -j DROP") {
                tally.denied += packets;
            }
        }
        Ok(tally)
    }
}

fn ipsets(policies: &[Allowance]) -> String {
    policies.iter().enumerate().fold(String::new(), |mut sets, (at, Allowance { peer, .. })| {
        let _infallible = write!(sets, "create source-{at} hash:ip\nadd source-{at} {peer}\n");
        sets
    })
}

fn ruleset(policies: &[Allowance]) -> String {
    let mut chains = String::new();
    let mut jumps = String::new();
    let mut rules = String::new();
    for (at, Allowance { port, .. }) in policies.iter().enumerate() {
        let _infallible = writeln!(chains, ":POLICY-{at} - [0:0]");
        let _infallible = writeln!(jumps, "-A POD-SERVER -d {SERVER} -j POLICY-{at}");
        for protocol in ["tcp", "udp"] {
            let _infallible = writeln!(
                rules,
                "-A POLICY-{at} -p {protocol} -m set --match-set source-{at} src -m {protocol} \
                 --dport {port} -j ACCEPT"
            );
        }
    }
    format!(
        "*filter\n:FORWARD ACCEPT [0:0]\n:PODS - [0:0]\n:POD-SERVER - [0:0]\n{chains}\
         -A FORWARD -j PODS\n\
         -A PODS -d {SERVER} -j POD-SERVER\n\
         -A PODS -s {SERVER} -j POD-SERVER\n\
         -A POD-SERVER -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
         -A POD-SERVER -m conntrack --ctstate INVALID -j DROP\n\
         {jumps}-A POD-SERVER -j DROP\n{rules}COMMIT\n"
    )
}
