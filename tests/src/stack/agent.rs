//! Bulkhead: the compiler, the plan, and the programs at each pod's veth, as in the agent.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::{Context as _, Result, ensure};
use bulkhead::{
    dataplane::{
        counters::Count,
        kernel::{self, Kernel},
    },
    enforcer::{self, Options},
    lab::{Lab, Pod},
    links::{LinkState, Veth},
    policy::{
        model::{self, Change, ObjectKey, Peer, Policy, PortMatch, Ports, Protocol, Rule},
        selector::Selector,
    },
};
use bulkhead_common::verdict::{
    AllowReason::{Reply, Rule as ByRule},
    DenyAction,
    Direction::{Egress, Ingress},
    Verdict,
};

use super::{
    CLIENT,
    allowance::Allowance,
    enforcer::{Enforcer, Tally},
};

const NODE: &str = "here";
const NAMESPACE: &str = "test";
/// The labels of every pod.
const APP: &str = "app";
const PEER: &str = "peer";

/// Attached to the pods until it is dropped.
pub(super) struct Bulkhead {
    enforcer: Mutex<enforcer::Enforcer<Kernel>>,
    /// The server's block of counters.
    block: u32,
}

impl Bulkhead {
    /// One policy isolates the server in both directions, and has a rule for each peer.
    pub(super) fn with_rules(lab: &Lab, pods: &[&Pod], peers: &[Allowance]) -> Result<Self> {
        let policy = isolating("policy", peers.iter().map(allowing).collect());
        Self::start(lab, pods, peers, vec![policy])
    }

    /// For each peer a policy that isolates the server in both directions, and has one rule.
    pub(super) fn with_policies(lab: &Lab, pods: &[&Pod], peers: &[Allowance]) -> Result<Self> {
        let named = |(at, peer)| isolating(&format!("policy-{at}"), vec![allowing(peer)]);
        Self::start(lab, pods, peers, peers.iter().enumerate().map(named).collect())
    }

    fn start(lab: &Lab, pods: &[&Pod], peers: &[Allowance], policies: Vec<Policy>) -> Result<Self> {
        let here = pods.iter().map(|pod| local(pod));
        let there = peers.iter().filter(|allowance| allowance.peer != CLIENT).map(remote);
        let mut changes: Vec<_> = here.chain(there).map(Change::PodApplied).collect();
        changes.extend(policies.into_iter().map(Change::PolicyApplied));
        changes.push(Change::SourceComplete(true));
        let veths = pods.iter().map(|pod| (pod.ifindex(), veth(pod))).collect();
        let links = LinkState { veths, ..LinkState::default() };

        let start = || {
            let options = Options {
                node: Some(NODE.to_owned()),
                deny_action: DenyAction::Drop,
                check_source: true,
                deny_egress_to_node: false,
            };
            let kernel = Kernel::load(kernel::Options::default())?;
            let mut enforcer = enforcer::Enforcer::new(&options, kernel);
            for change in changes {
                enforcer.apply(change);
            }
            enforcer.set_links(links);
            ensure!(enforcer.reconcile(), "not enforced: {:?}", enforcer.problems());
            anyhow::Ok(enforcer)
        };
        let enforcer = lab.node().enter(start)??;
        let server = pods.first().context("the server")?.ifindex();
        let endpoint = enforcer.programmed().endpoints().get(&server).context("its endpoint")?;
        Ok(Self { block: endpoint.counters, enforcer: Mutex::new(enforcer) })
    }

    fn lock(&self) -> MutexGuard<'_, enforcer::Enforcer<Kernel>> {
        // Nothing in here is left half done by a panic.
        self.enforcer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Enforcer for Bulkhead {
    fn tally(&self) -> Result<Tally> {
        let counts = self.lock().kernel().counters().read(self.block)?;
        let packets = |of: &dyn Fn(&Count) -> bool| {
            counts.iter().filter(|count| of(count)).map(|count| count.counter.packets).sum()
        };
        Ok(Tally {
            by_rule: packets(&|count| {
                count.direction == Ingress && count.verdict == Verdict::Allow(ByRule)
            }),
            by_flow: packets(&|count| {
                count.direction == Egress && count.verdict == Verdict::Allow(Reply)
            }),
            denied: packets(&|count| matches!(count.verdict, Verdict::Deny(_))),
        })
    }
}

/// A policy of the server: both directions are isolated, and nothing may leave.
fn isolating(name: &str, ingress: Vec<Rule>) -> Policy {
    Policy {
        key: ObjectKey::new(NAMESPACE, name),
        pod_selector: labelled(APP, "server"),
        ingress: Some(ingress),
        egress: Some(Vec::new()),
        refused: None,
    }
}

fn allowing(Allowance { peer, port }: &Allowance) -> Rule {
    let ports = |protocol| PortMatch { protocol, ports: Ports::Range(*port..=*port) };
    let peer = Peer::Pods { namespaces: None, pods: labelled(PEER, &peer.to_string()) };
    Rule { peers: Some(vec![peer]), ports: Some([Protocol::Tcp, Protocol::Udp].map(ports).into()) }
}

/// Pods with this label.
fn labelled(key: &str, value: &str) -> Selector {
    let labels = [(key.to_owned(), value.to_owned())];
    Selector::new(labels, []).expect("a label without requirements")
}

/// A pod of the lab.
fn local(pod: &Pod) -> model::Pod {
    object(pod.name(), NODE, pod.addresses().to_vec())
}

/// A pod of another node.
fn remote(Allowance { peer, .. }: &Allowance) -> model::Pod {
    object(&format!("pod-{peer}"), "there", vec![(*peer).into()])
}

/// Its labels are its name and its address.
fn object(name: &str, node: &str, addresses: Vec<IpAddr>) -> model::Pod {
    let peer = addresses.first().map(ToString::to_string).unwrap_or_default();
    let labels = [(APP.to_owned(), name.to_owned()), (PEER.to_owned(), peer)];
    model::Pod {
        key: ObjectKey::new(NAMESPACE, name),
        uid: format!("uid of {name}"),
        labels: Arc::new(labels.into_iter().collect()),
        ports: Arc::new([]),
        addresses,
        node: Some(node.into()),
        host_network: false,
        ended: false,
    }
}

/// As the agent finds it by netlink.
fn veth(pod: &Pod) -> Veth {
    Veth {
        ifindex: pod.ifindex(),
        name: pod.interface().to_owned(),
        peer_addresses: pod.addresses().iter().copied().collect(),
    }
}
