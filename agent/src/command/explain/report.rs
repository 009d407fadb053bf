//! The explanation of a flow, as `--output json` prints it.
//!
//! Owns what is found out. The field names and the words of `verdict` and `reason` are stable:
//! fields may be added, none changes its meaning. `docs/explain.md` describes them.

use std::net::IpAddr;

use anyhow::{Context as _, Result, bail};
use bulkhead_common::verdict::Direction;
use serde::Serialize;

use super::words;
use crate::{
    policy::{
        closest::{self, Lacks},
        compiled::Closed,
        evaluate::{
            Backend, Evaluation, Flow, RuleName, ServiceBackends, Traffic, evaluate, isolating,
        },
        index::Index,
        model::Pod,
    },
    reach::{
        cluster::Cluster,
        course::{Question, courses},
        flow::{End, Family, FlowSpec, Outcome},
    },
};

/// Why a flow passes or does not.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// What was asked.
    pub flow: FlowSpec,
    /// Whether it passes in every family.
    pub verdict: Outcome,
    /// The answer for each family that was asked about.
    pub families: Vec<FamilyReport>,
}

/// The answer for one address family.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FamilyReport {
    /// The family.
    pub family: Family,
    /// Whether every step is allowed.
    pub verdict: Outcome,
    /// What the policies of the pods at its ends say, in the order in which the flow meets them.
    pub steps: Vec<Step>,
    /// Why there is no step; only where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// What the policies of one pod say of the flow in one direction.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Step {
    /// `egress` or `ingress`, from the pod's side.
    pub direction: &'static str,
    /// The pod, `namespace/name`.
    pub pod: String,
    /// The node on which it runs; null if that isn't said.
    pub node: Option<String>,
    /// The address of the other end.
    pub peer_address: IpAddr,
    /// Who has it, in words; the address if nobody that is known does.
    pub peer: String,
    /// What is carried, at the pod's end: `TCP 3306`. Behind a service this is the backend's port.
    pub traffic: String,
    /// Whether it may pass.
    pub verdict: Outcome,
    /// Why, as a word.
    pub reason: Reason,
    /// Why, as a sentence.
    pub because: String,
    /// The policies that isolate the pod in this direction.
    pub isolated_by: Vec<IsolatingPolicy>,
    /// Every rule that allows the flow, or a backend of the service.
    pub allowed_by: Vec<RulePlace>,
    /// Of a denial: the rule that was nearest to allowing it; null if there is none.
    pub closest: Option<ClosestRule>,
    /// The services at the address; empty where it is none's.
    pub services: Vec<String>,
    /// Their ready backends.
    pub backends: Vec<BackendReport>,
}

/// Why a step is allowed or denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Between the pod and its own node.
    OwnNode,
    /// The pod talks to itself.
    Itself,
    /// No policy isolates the pod.
    NotIsolated,
    /// A rule allows it.
    Rule,
    /// Every ready backend of the service is allowed, or its address.
    Service,
    /// No rule allows it.
    NoRule,
    /// The service has no ready backend, or some or all of them are denied.
    ServiceBackends,
    /// Another has the pod's address, too, so the pod is closed.
    AddressConflict,
    /// Not everything is known yet, so the pod is closed.
    SourceIncomplete,
}

/// A policy that isolates a pod.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct IsolatingPolicy {
    /// `namespace/name`.
    pub policy: String,
    /// Why it was refused, so that it allows nothing; null if it was not.
    pub refused: Option<String>,
}

/// A rule by its place.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RulePlace {
    /// The policy, `namespace/name`.
    pub policy: String,
    /// `ingress[0]`: its place in the policy's list, from zero.
    pub rule: String,
}

/// The rule that was nearest to allowing something.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClosestRule {
    /// The policy, `namespace/name`.
    pub policy: String,
    /// `ingress[0]`: its place in the policy's list, from zero.
    pub rule: String,
    /// Whether it allows the peer.
    pub allows_peer: bool,
    /// Whether it allows the port.
    pub allows_port: bool,
    /// What it allows, and what is lacking.
    pub lacks: String,
}

/// A ready backend of a service, as the source's egress policies see it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BackendReport {
    /// Its address.
    pub address: IpAddr,
    /// The port at it; null if the slice doesn't say.
    pub port: Option<u16>,
    /// Who has the address, in words.
    pub name: String,
    /// Whether the source may reach it.
    pub verdict: Outcome,
    /// If not: the rule that was nearest to allowing it.
    pub closest: Option<ClosestRule>,
}

/// Explains a flow.
///
/// # Errors
/// It cannot be told: an end is not known, lacks the family, or does not serve the port.
pub fn report(cluster: &mut Cluster, spec: &FlowSpec) -> Result<Report> {
    let courses = courses(cluster, spec)?;
    let mut families = Vec::new();
    for course in courses {
        let mut steps = Vec::new();
        for question in &course.questions {
            steps.push(step(cluster, question)?);
        }
        let note = if steps.is_empty() {
            Some(nobody_to_ask(cluster.objects(), spec)?.to_owned())
        } else {
            None
        };
        let verdict = Outcome::allowed(steps.iter().all(|step| step.verdict == Outcome::Allow));
        families.push(FamilyReport { family: course.family, verdict, steps, note });
    }
    let passes = families.iter().all(|family| family.verdict == Outcome::Allow);
    Ok(Report { flow: spec.clone(), verdict: Outcome::allowed(passes), families })
}

fn nobody_to_ask(objects: &Index, spec: &FlowSpec) -> Result<&'static str> {
    let name = |end: &End| match end {
        End::Pod(key) | End::Service(key) => key.to_string(),
        End::Node(name) => format!("the node {name}"),
        End::Ip(address) => words::whose(objects, address.to_canonical()),
    };
    let is_unknown =
        |end: &End| matches!(end, End::Ip(ip) if name(end) == ip.to_canonical().to_string());
    if is_unknown(&spec.from) && is_unknown(&spec.to) {
        bail!(
            "neither {} nor {} is an address of the manifests, so no policy speaks of the flow; \
             name a pod, or add it to the manifests",
            spec.from,
            spec.to
        );
    }
    let both = name(&spec.from);
    if both == name(&spec.to) && objects.pods().keys().any(|key| key.to_string() == both) {
        return Ok("a pod always reaches itself");
    }
    Ok("neither end is a pod that policies concern: nodes, pods on a node's network and addresses \
        outside have none")
}

fn step(cluster: &mut Cluster, question: &Question) -> Result<Step> {
    let Question { node, pod: key, flow } = question;
    let index = &*cluster.node(node);
    let pod = index.pods().get(key).with_context(|| format!("no pod {key} is known"))?;
    let evaluation = evaluate(index, key, flow)
        .with_context(|| format!("policies do not concern the pod {key}"))?;
    let mut step = Step {
        direction: words::direction_word(flow.direction),
        pod: key.to_string(),
        node: node.as_deref().map(str::to_owned),
        peer_address: flow.peer,
        peer: words::whose(index, flow.peer),
        traffic: words::traffic(flow.traffic),
        verdict: Outcome::allowed(evaluation.is_allowed()),
        reason: reason(&evaluation),
        because: String::new(),
        isolated_by: isolated_by(index, pod, flow),
        allowed_by: Vec::new(),
        closest: None,
        services: Vec::new(),
        backends: Vec::new(),
    };
    step.because = match evaluation {
        Evaluation::OwnNode => match flow.direction {
            Direction::Ingress => "the pod's own node always reaches it".to_owned(),
            Direction::Egress => "a pod always reaches its own node".to_owned(),
        },
        Evaluation::Itself => "a pod always reaches itself".to_owned(),
        Evaluation::Closed(Closed::SourceIncomplete) => {
            "a policy may be missing, so the pod is closed".to_owned()
        }
        Evaluation::Closed(Closed::AddressConflict) => {
            format!("the pod is closed: {}", claimants(index, pod))
        }
        Evaluation::NotIsolated => format!("no policy isolates it for {}", step.direction),
        Evaluation::Allowed(rules) => {
            step.allowed_by = places(flow.direction, &rules);
            "a rule allows it".to_owned()
        }
        Evaluation::Denied(_) => {
            step.closest = closest_rule(index, pod, flow);
            match &step.closest {
                Some(_) => "no rule allows it".to_owned(),
                None => format!("the policies have no rules, so {}", nothing(flow.direction)),
            }
        }
        Evaluation::AllowedService { rules, towards } => {
            step.allowed_by = places(flow.direction, &rules);
            step.add_service(index, pod, flow, &towards);
            if towards.denied.is_empty() && !towards.allowed.is_empty() {
                "every ready backend is allowed".to_owned()
            } else {
                "a rule names the service's address".to_owned()
            }
        }
        Evaluation::DeniedService { policies: _, towards } => {
            step.add_service(index, pod, flow, &towards);
            match (towards.allowed.is_empty(), towards.denied.is_empty()) {
                (true, true) => "the service has no ready backend, and no rule names its address",
                (false, _) => {
                    "only some of the service's backends are allowed, and no rule names its address"
                }
                (true, false) => "the service's backends are denied, and no rule names its address",
            }
            .to_owned()
        }
    };
    Ok(step)
}

impl Step {
    fn add_service(&mut self, index: &Index, pod: &Pod, flow: &Flow, towards: &ServiceBackends) {
        self.services = towards.services.iter().map(ToString::to_string).collect();
        let report = |backend: &Backend, verdict| BackendReport {
            address: backend.address,
            port: backend.port,
            name: words::whose(index, backend.address),
            verdict,
            closest: match verdict {
                Outcome::Allow => None,
                Outcome::Deny => closest_to_backend(index, pod, flow, backend),
            },
        };
        let allowed = towards.allowed.iter().map(|backend| report(backend, Outcome::Allow));
        let denied = towards.denied.iter().map(|backend| report(backend, Outcome::Deny));
        self.backends = allowed.chain(denied).collect();
    }
}

fn reason(evaluation: &Evaluation) -> Reason {
    match evaluation {
        Evaluation::OwnNode => Reason::OwnNode,
        Evaluation::Itself => Reason::Itself,
        Evaluation::Closed(Closed::SourceIncomplete) => Reason::SourceIncomplete,
        Evaluation::Closed(Closed::AddressConflict) => Reason::AddressConflict,
        Evaluation::NotIsolated => Reason::NotIsolated,
        Evaluation::Allowed(_) => Reason::Rule,
        Evaluation::Denied(_) => Reason::NoRule,
        Evaluation::AllowedService { .. } => Reason::Service,
        Evaluation::DeniedService { .. } => Reason::ServiceBackends,
    }
}

fn isolated_by(index: &Index, pod: &Pod, flow: &Flow) -> Vec<IsolatingPolicy> {
    let policies = isolating(index, pod, flow.direction).into_iter();
    policies
        .map(|policy| IsolatingPolicy {
            policy: policy.key.to_string(),
            refused: policy.refused.clone(),
        })
        .collect()
}

fn places(direction: Direction, rules: &[RuleName]) -> Vec<RulePlace> {
    let place = |name: &RuleName| RulePlace {
        policy: name.policy.to_string(),
        rule: words::place(direction, name.number),
    };
    rules.iter().map(place).collect()
}

const fn nothing(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "nothing may enter",
        Direction::Egress => "nothing may leave",
    }
}

fn closest_rule(index: &Index, pod: &Pod, flow: &Flow) -> Option<ClosestRule> {
    let closest = closest::closest(index, pod, flow)?;
    Some(ClosestRule {
        policy: closest.name.policy.to_string(),
        rule: words::place(flow.direction, closest.name.number),
        allows_peer: closest.lacks == Lacks::Port,
        allows_port: closest.lacks == Lacks::Peer,
        lacks: words::lacks(index, pod, flow, &closest),
    })
}

fn closest_to_backend(
    index: &Index,
    pod: &Pod,
    flow: &Flow,
    backend: &Backend,
) -> Option<ClosestRule> {
    let traffic = match flow.traffic {
        Traffic::Port(protocol, _) => Traffic::Port(protocol, backend.port?),
        Traffic::Other(_) => return None,
    };
    closest_rule(index, pod, &Flow { peer: backend.address, traffic, ..*flow })
}

/// Who else has a pod's address.
fn claimants(index: &Index, pod: &Pod) -> String {
    let conflicts = index.conflicts().filter(|conflict| pod.addresses.contains(&conflict.address));
    let mut said = Vec::new();
    for conflict in conflicts {
        let others = conflict.claimants.iter().filter(|key| **key != pod.key);
        let mut others: Vec<String> = others.map(ToString::to_string).collect();
        if conflict.is_node_address {
            others.push("its node".to_owned());
        }
        said.push(format!(
            "its address {} is also that of {}",
            conflict.address,
            others.join(", ")
        ));
    }
    said.join("; ")
}
