//! The compiler against the specification, over random clusters.

mod node;

use std::{collections::BTreeMap, net::IpAddr};

use bulkhead_common::{
    key::RuleKey,
    verdict::{DenyAction, Direction},
};
use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};

use self::node::{Node, frame};
use super::{
    arbitrary::{NODE, change, cluster, every_address, every_port, node_addresses},
    compile::Compiler,
    compiled::{Closed, Compiled},
    evaluate::{Evaluation, Flow, Traffic, evaluate},
    index::Index,
    model::{Change, ObjectKey, Protocol},
};

pub(super) fn index_of(changes: &[Change], node: Option<&str>) -> Index {
    let mut index = Index::new(node.map(str::to_owned));
    for change in changes {
        index.apply(change.clone());
    }
    index
}

fn every_flow() -> Vec<Flow> {
    let tcp = every_port().into_iter().map(|port| Traffic::Port(Protocol::Tcp, port));
    let others = [
        Traffic::Port(Protocol::Udp, 80),
        Traffic::Port(Protocol::Udp, 81),
        Traffic::Port(Protocol::Sctp, 80),
        Traffic::Other(1),
    ];
    let traffic: Vec<_> = tcp.chain(others).collect();
    let mut flows = Vec::new();
    for peer in every_address() {
        for direction in Direction::ALL {
            for traffic in &traffic {
                flows.push(Flow { direction, peer, traffic: *traffic, from_own_node: false });
            }
        }
        let (direction, traffic) = (Direction::Ingress, Traffic::Other(1));
        flows.push(Flow { direction, peer, traffic, from_own_node: true });
    }
    flows
}

/// Every flow that every pod could have, with a frame that opens it.
fn every_frame(index: &Index) -> Vec<(&ObjectKey, Flow, Vec<u8>)> {
    let mut frames = Vec::new();
    for (name, pod) in index.pods() {
        for flow in every_flow() {
            let of_family = |own: &&IpAddr| own.is_ipv4() == flow.peer.is_ipv4();
            if let Some(own) = pod.addresses.iter().find(of_family) {
                let frame = frame(*own, &flow);
                frames.push((name, flow, frame));
            }
        }
    }
    frames
}

/// Every pod's every flow: the verdict function on what was programmed against the specification.
fn assert_programmed_is_as_evaluated(index: &Index, compiled: &Compiled, node: &Node) {
    for (name, flow, frame) in every_frame(index) {
        let Some(evaluation) = evaluate(index, name, &flow) else {
            assert!(!compiled.endpoints.contains_key(name), "{name} is no endpoint");
            continue;
        };
        let verdict = node.verdict(name, &flow, &frame).unwrap();
        assert_eq!(
            verdict.is_allow(),
            evaluation.is_allowed(),
            "{name}, {flow:?}: {evaluation:?}, but {verdict:?} by {compiled:#?}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases(48)))]

    #[test]
    fn what_is_programmed_allows_what_the_specification_allows_in_one_state_after_the_other(
        changes in cluster(),
        node_addresses in node_addresses(),
        node_name in prop::option::weighted(0.8, Just(NODE)),
        deny_egress_to_node in any::<bool>(),
        more in prop::collection::vec(change(), 0..8),
    ) {
        let mut index = index_of(&changes, node_name).deny_egress_to_node(deny_egress_to_node);
        index.set_node_addresses(node_addresses);
        let mut compiler = Compiler::new(DenyAction::Drop);
        let mut node = Node::new(deny_egress_to_node);
        for change in [None].into_iter().chain(more.into_iter().map(Some)) {
            change.map(|change| index.apply(change));
            compiler.update(&mut index);
            node.program(&mut compiler, |_| {});
            assert_programmed_is_as_evaluated(&index, compiler.compiled(), &node);
        }
    }

    #[test]
    fn after_every_operation_of_a_plan_a_pod_allows_what_it_did_before_or_what_it_is_to_allow(
        changes in cluster(),
        more in prop::collection::vec(prop::collection::vec(change(), 1..4), 1..4),
    ) {
        let mut index = index_of(&changes, Some(NODE));
        let mut compiler = Compiler::new(DenyAction::Drop);
        let mut node = Node::new(false);
        compiler.update(&mut index);
        node.program(&mut compiler, |_| {});
        for batch in more {
            let before = index.clone();
            for change in batch {
                index.apply(change);
            }
            compiler.update(&mut index);
            // Of the flows whose endpoints are there before and after; whether a pod's verdicts
            // are all old or all new is what `epoch` would tell, and allowing more is what counts.
            let frames: Vec<_> = every_frame(&index)
                .into_iter()
                .filter_map(|(pod, flow, frame)| {
                    let old = evaluate(&before, pod, &flow)?.is_allowed();
                    let new = evaluate(&index, pod, &flow)?.is_allowed();
                    let same_pod = before.pods().get(pod)?.addresses == index.pods().get(pod)?.addresses;
                    (same_pod && old == new).then_some((pod, flow, frame, new))
                })
                .collect();
            node.program(&mut compiler, |node| {
                for (pod, flow, frame, allowed) in &frames {
                    if let Some(verdict) = node.verdict(pod, flow, frame) {
                        assert_eq!(verdict.is_allow(), *allowed, "{pod}, {flow:?}: {verdict:?}");
                    }
                }
            });
        }
    }

    #[test]
    fn the_order_of_changes_to_different_objects_leaves_no_trace(
        changes in cluster(),
        seed in any::<u64>(),
    ) {
        let index = index_of(&changes, Some(NODE));
        let mut objects = objects_of(&index);
        shuffle(&mut objects, seed);
        let shuffled = index_of(&objects, Some(NODE));
        prop_assert_eq!(&shuffled, &index);
        let [one, other] =
            [index, shuffled].map(|index| Compiler::new(DenyAction::Drop).compile(&index).clone());
        prop_assert_eq!(one, other);
    }

    #[test]
    fn a_change_that_changes_nothing_says_so_and_does_nothing(changes in cluster()) {
        let mut index = index_of(&changes, Some(NODE));
        for change in objects_of(&index) {
            prop_assert!(!index.apply(change));
        }
        for change in &changes {
            let before = index.clone();
            let changed = index.apply(change.clone());
            prop_assert_eq!(changed, index != before);
            prop_assert!(!index.apply(change.clone()));
        }
    }

    #[test]
    fn numbers_mean_the_same_in_every_state_that_one_compiler_sees(
        changes in cluster(),
        more in prop::collection::vec(change(), 1..12),
    ) {
        let mut index = index_of(&changes, Some(NODE));
        let mut compiler = Compiler::new(DenyAction::Drop);
        let (mut any_peer, mut rules) = (BTreeMap::new(), BTreeMap::new());
        for change in more {
            index.apply(change);
            let compiled = compiler.update(&mut index);
            let sides: Vec<_> =
                compiled.endpoints.values().flat_map(|e| e.ingress.iter().chain(&e.egress)).collect();
            for side in &sides {
                let first = any_peer.entry(side.policy_set).or_insert_with(|| side.any_peer.clone());
                prop_assert_eq!(&side.any_peer, first);
            }
            for side in &sides {
                let of_cidrs = compiled.cidrs.iter().map(|(_, identity)| identity);
                for identity in compiled.peers.values().chain(of_cidrs) {
                    let key = RuleKey { policy_set: side.policy_set, identity: *identity };
                    let ports = compiled.rules.get(&key).cloned();
                    let first = rules.entry(key).or_insert_with(|| ports.clone());
                    prop_assert_eq!(&ports, first);
                }
            }
        }
    }
}

/// How many random cases: as many as the environment says, or these.
pub(super) fn cases(usual: u32) -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(usual)
}

/// A property that holds because nothing ever happens would be worth nothing.
#[test]
fn random_clusters_lead_to_every_kind_of_answer() {
    let mut runner = TestRunner::deterministic();
    let mut counts = BTreeMap::new();
    for _ in 0..64 {
        let changes = cluster().new_tree(&mut runner).unwrap().current();
        let mut index = index_of(&changes, Some(NODE));
        index.set_node_addresses(node_addresses().new_tree(&mut runner).unwrap().current());
        let compiled = Compiler::new(DenyAction::Drop).compile(&index).clone();
        *counts.entry("mixed services").or_insert(0) += compiled.mixed_services.len();
        *counts.entry("blocks").or_insert(0) += compiled.cidrs.iter().count();
        *counts.entry("rules of identities").or_insert(0) += compiled.rules.len();
        for pod in index.pods().keys() {
            for flow in every_flow() {
                let kind = match evaluate(&index, pod, &flow) {
                    None => "no endpoint",
                    Some(Evaluation::OwnNode) => "own node",
                    Some(Evaluation::Itself) => "itself",
                    Some(Evaluation::Closed(Closed::SourceIncomplete)) => "source incomplete",
                    Some(Evaluation::Closed(Closed::AddressConflict)) => "address conflict",
                    Some(Evaluation::NotIsolated) => "not isolated",
                    Some(Evaluation::Allowed(rules)) if rules.len() > 1 => "allowed by rules",
                    Some(Evaluation::Allowed(_)) => "allowed by one rule",
                    Some(Evaluation::Denied(_)) => "denied",
                    Some(Evaluation::AllowedService { .. }) => "service allowed",
                    Some(Evaluation::DeniedService { .. }) => "service denied",
                };
                *counts.entry(kind).or_insert(0) += 1;
            }
        }
    }
    assert_eq!(counts.len(), 14, "{counts:?}");
    assert!(counts.values().all(|count| *count >= 10), "{counts:?}");
}

/// The changes that make a state out of nothing, each object once.
pub(super) fn objects_of(index: &Index) -> Vec<Change> {
    let namespaces = index.namespaces().values().cloned().map(Change::NamespaceApplied);
    let pods = index.pods().values().cloned().map(Change::PodApplied);
    let policies = index.policies().values().cloned().map(Change::PolicyApplied);
    let complete = Change::SourceComplete(index.is_complete());
    let services = index.services().values().cloned().map(Change::ServiceApplied);
    let slices = index.endpoint_slices().values().cloned().map(Change::EndpointSliceApplied);
    let kinds = namespaces.chain(pods).chain(policies).chain(services).chain(slices);
    kinds.chain([complete]).collect()
}

/// Fisher-Yates, by a linear congruential generator.
pub(super) fn shuffle<T>(items: &mut [T], mut seed: u64) {
    for last in (1..items.len()).rev() {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        items.swap(last, (seed >> 33) as usize % (last + 1));
    }
}
