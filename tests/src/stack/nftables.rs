//! nftables with sets and connection tracking, as an agent for policies would write it.
//!
//! What belongs to a known connection is accepted at once. The first packet of one is led to its
//! pod's chain by a map, from there to the chain of each policy that selects the pod, and asks for
//! its source, protocol and port in that policy's set. A policy that allows it ends the walk.

use std::{fmt::Write as _, process::Command};

use anyhow::{Context as _, Result};
use bulkhead::lab::Lab;
use serde_json::Value;

use super::{
    SERVER,
    allowance::Allowance,
    enforcer::{Enforcer, Tally, run},
};

/// Rules that go with their node.
pub(super) struct Nftables {
    node: String,
}

impl Nftables {
    pub(super) fn start(lab: &Lab, policies: &[Allowance]) -> Result<Self> {
        let enforcer = Self { node: lab.node().name().to_owned() };
        run(enforcer.nft(&["-f", "-"]), &ruleset(policies)).context("load the rules")?;
        Ok(enforcer)
    }

    /// Run by `ip netns exec`, so that the rules are this node's.
    fn nft(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.node, "nft"]).args(arguments);
        command
    }
}

impl Enforcer for Nftables {
    fn tally(&self) -> Result<Tally> {
        let printed = run(self.nft(&["-j", "list", "counters", "table", "inet", "policies"]), "")?;
        let printed: Value = serde_json::from_str(&printed)?;
        let listed = printed["nftables"].as_array().context("a list")?;
        let packets = |name: &str| {
            let counters = listed.iter().map(|entry| &entry["counter"]);
            let found = counters.into_iter().find(|counter| counter["name"] == name);
            found.and_then(|counter| counter["packets"].as_u64()).context(name.to_owned())
        };
        Ok(Tally {
            by_rule: packets("allowed")?,
            by_flow: packets("established")?,
            denied: packets("denied")?,
        })
    }
}

fn ruleset(policies: &[Allowance]) -> String {
    let mut sets = String::new();
    let mut jumps = String::new();
    for (at, Allowance { peer, port }) in policies.iter().enumerate() {
        let _infallible = write!(
            sets,
            "set policy-{at} {{
                type ipv4_addr . inet_proto . inet_service
                elements = {{ {peer} . tcp . {port}, {peer} . udp . {port} }}
            }}
            chain policy-{at} {{
                ip saddr . meta l4proto . th dport @policy-{at} counter name allowed accept
            }}\n"
        );
        let _infallible = writeln!(jumps, "jump policy-{at}");
    }
    format!(
        "table inet policies {{
            counter allowed {{}}
            counter established {{}}
            counter denied {{}}
            {sets}
            chain pod-server-ingress {{
                {jumps}
                counter name denied drop
            }}
            chain pod-server-egress {{
                counter name denied drop
            }}
            map ingress {{
                type ipv4_addr : verdict
                elements = {{ {SERVER} : jump pod-server-ingress }}
            }}
            map egress {{
                type ipv4_addr : verdict
                elements = {{ {SERVER} : jump pod-server-egress }}
            }}
            chain forward {{
                type filter hook forward priority filter; policy accept;
                ct state established,related counter name established accept
                ct state invalid drop
                ip saddr vmap @egress
                ip daddr vmap @ingress
            }}
        }}\n"
    )
}
