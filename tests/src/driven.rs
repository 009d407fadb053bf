//! The agent without its loop: the test itself says when a policy goes to the kernel.
//!
//! Manifests, compiler, plan and kernel are the agent's own ([`ManifestDirectory`], [`Enforcer`],
//! [`Kernel`]). What is left out is the watch of the directory, which waits for changes to settle,
//! so that no more than some tens of states a second come through it. Invariant: every operation
//! that the kernel executed is counted.

use std::collections::BTreeMap;

use bulkhead::{
    dataplane::{
        counters::Count,
        kernel::{self, Kernel},
        op::{Execute, Op},
    },
    enforcer::{Enforcer, Options},
    manifests::ManifestDirectory,
    policy::model::Change,
};
use bulkhead_common::{
    abi::COUNTER_BLOCK_UNKNOWN,
    verdict::{DenyAction, Verdict},
};

use crate::{cluster::Cluster, conformance::wired::links};

/// The file that [`Driven::read`] writes.
const MANIFEST: &str = "driven.yaml";

/// State and kernel, in the test's hands.
pub struct Driven {
    enforcer: Enforcer<Tallied>,
    source: ManifestDirectory,
}

/// What became of packets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judged {
    /// How many passed.
    pub passed: u64,
    /// How many did not, by reason.
    pub denied: BTreeMap<&'static str, u64>,
}

/// The kernel, and how often it executed which operation.
struct Tallied {
    kernel: Kernel,
    executed: BTreeMap<&'static str, u64>,
}

impl Driven {
    /// Loads the programs. Nothing is attached yet, and no manifest was read.
    ///
    /// # Panics
    /// Without root.
    pub fn start(cluster: &Cluster) -> Self {
        let kernel = Kernel::load(kernel::Options::default()).expect("the programs load");
        let kernel = Tallied { kernel, executed: BTreeMap::new() };
        let options = Options {
            node: None,
            deny_action: DenyAction::Drop,
            check_source: true,
            deny_egress_to_node: false,
        };
        let mut enforcer = Enforcer::new(&options, kernel);
        // Links are read in the calling thread's namespace.
        enforcer.set_links(cluster.node().enter(links).expect("the node's namespace"));
        Self { enforcer, source: ManifestDirectory::new(cluster.manifests()) }
    }

    /// What is different when all manifests are replaced by these. Applies nothing.
    ///
    /// # Panics
    /// When there is anything wrong with them.
    pub fn read(&mut self, cluster: &Cluster, manifests: &str) -> Vec<Change> {
        cluster.write(MANIFEST, manifests);
        let scan = self.source.scan();
        assert_eq!(scan.problems, []);
        scan.changes
    }

    /// Brings changes to the kernel, and says how many operations that took. Programs are attached
    /// in the calling thread's namespace: it has to be the node's.
    ///
    /// # Panics
    /// When not all of it could be enforced.
    pub fn enforce(&mut self, changes: impl IntoIterator<Item = Change>) -> u64 {
        let before = self.operations();
        for change in changes {
            self.enforcer.apply(change);
        }
        assert!(self.enforcer.reconcile(), "not enforced: {:?}", self.enforcer.problems());
        self.operations() - before
    }

    /// As [`Driven::read`] and [`Driven::enforce`], in the node's namespace.
    ///
    /// # Panics
    /// As these do.
    pub fn apply(&mut self, cluster: &Cluster, manifests: &str) -> u64 {
        let changes = self.read(cluster, manifests);
        cluster.node().enter(|| self.enforce(changes)).expect("the node's namespace")
    }

    /// Operations that the kernel executed so far, by kind.
    pub fn executed(&mut self) -> &BTreeMap<&'static str, u64> {
        &self.enforcer.kernel().executed
    }

    fn operations(&mut self) -> u64 {
        self.executed().values().sum()
    }

    /// How many packets were denied so far, at any interface, by reason; and how many passed.
    ///
    /// # Panics
    /// When the counters can't be read.
    pub fn judged(&mut self) -> Judged {
        let endpoints = self.enforcer.programmed().endpoints().values();
        let blocks: Vec<u32> = endpoints.map(|endpoint| endpoint.counters).collect();
        let counters = self.enforcer.kernel().kernel.counters();
        let mut judged = Judged::default();
        for block in blocks.into_iter().chain([COUNTER_BLOCK_UNKNOWN]) {
            for Count { verdict, counter, .. } in counters.read(block).expect("reading a map") {
                match verdict {
                    Verdict::Allow(_) => judged.passed += counter.packets,
                    Verdict::Deny(_) if counter.packets == 0 => {}
                    Verdict::Deny(reason) => {
                        *judged.denied.entry(reason.as_str()).or_default() += counter.packets;
                    }
                }
            }
        }
        judged
    }
}

impl Execute for Tallied {
    fn execute(&mut self, op: &Op) -> anyhow::Result<()> {
        self.kernel.execute(op)?;
        *self.executed.entry(kind(op)).or_default() += 1;
        Ok(())
    }

    fn exists(&self, ifindex: u32) -> bool {
        self.kernel.exists(ifindex)
    }
}

const fn kind(op: &Op) -> &'static str {
    match op {
        Op::SetPortRange { .. } => "set port range",
        Op::SetRule { .. } => "set rule",
        Op::SetPeer { .. } => "set peer",
        Op::SetCidr { .. } => "set cidr",
        Op::ClearCounters { .. } => "clear counters",
        Op::SetEndpoint { .. } => "set endpoint",
        Op::Attach { .. } => "attach",
        Op::Detach { .. } => "detach",
        Op::RemoveEndpoint { .. } => "remove endpoint",
        Op::RemoveRule { .. } => "remove rule",
        Op::RemovePeer { .. } => "remove peer",
        Op::RemoveCidr { .. } => "remove cidr",
    }
}
