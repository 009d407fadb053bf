use std::net::IpAddr;

use bulkhead_common::{packet::protocol, verdict::Direction};
use proptest::prelude::*;

use super::*;
use crate::policy::{
    arbitrary::{change, cluster, every_address},
    builders::{ip, key, pod, policy, rule, tcp},
    evaluate::{Flow, Traffic},
    index::Index,
    model::{Change, Namespace, Node, Pod, Policy, Protocol},
};

/// Questions to every pod that has a policy, about every address.
fn every_question(cluster: &mut Cluster) -> Vec<Question> {
    let pods: Vec<Pod> = cluster.objects().pods().values().cloned().collect();
    let mut questions = Vec::new();
    for pod in pods {
        let node = cluster.home(&pod);
        if !is_endpoint(cluster.node(&node), &pod) {
            continue;
        }
        let has_family =
            |peer: &IpAddr| pod.addresses.iter().any(|a| a.is_ipv4() == peer.is_ipv4());
        for peer in every_address().into_iter().filter(has_family) {
            let icmp = if peer.is_ipv4() { protocol::ICMP } else { protocol::ICMPV6 };
            let traffic = [
                Traffic::Port(Protocol::Tcp, 80),
                Traffic::Port(Protocol::Udp, 81),
                Traffic::Port(Protocol::Udp, 61_000),
                Traffic::Other(icmp),
            ];
            let flows = traffic.into_iter().flat_map(|traffic| {
                [
                    (Direction::Ingress, false),
                    (Direction::Ingress, true),
                    (Direction::Egress, false),
                ]
                .map(|(direction, from_own_node)| Flow {
                    direction,
                    peer,
                    traffic,
                    from_own_node,
                })
            });
            let question = |flow| Question { node: node.clone(), pod: pod.key.clone(), flow };
            questions.extend(flows.map(question));
        }
    }
    questions
}

fn is_endpoint(index: &Index, pod: &Pod) -> bool {
    index.endpoints().any(|endpoint| endpoint.key == pod.key)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn the_compiled_maps_answer_as_the_specification_does_in_one_state_after_the_other(
        changes in cluster(),
        nodes in prop::collection::btree_set(prop::sample::select(vec!["here", "there"]), 0..3),
        deny_egress_to_node in any::<bool>(),
        more in prop::collection::vec(change(), 0..6),
    ) {
        let cluster: Cluster = changes.into_iter().collect();
        let mut cluster = cluster.deny_egress_to_node(deny_egress_to_node);
        let node = |name: &&str| Node { name: (*name).to_owned(), addresses: [].into() };
        cluster.extend(nodes.iter().map(|name| Change::NodeApplied(node(name))));
        let mut maps = CompiledMaps::default();
        for change in [None].into_iter().chain(more.into_iter().map(Some)) {
            cluster.extend(change);
            let questions = every_question(&mut cluster);
            let specified = Specification.answers(&mut cluster, &questions).unwrap();
            let compiled = maps.answers(&mut cluster, &questions).unwrap();
            for ((question, specified), compiled) in questions.iter().zip(specified).zip(compiled) {
                prop_assert_eq!(specified.outcome, compiled.outcome, "{:?}", question);
                // The programs ask last whose an address is.
                if specified.reason != AllowReason::OwnNode.as_str() {
                    prop_assert_eq!(specified.reason, compiled.reason, "{:?}", question);
                }
            }
        }
    }
}

fn question(direction: Direction, pod: &str, peer: &str, traffic: Traffic) -> Question {
    let flow = Flow { direction, peer: ip(peer), traffic, from_own_node: false };
    Question { node: None, pod: key(pod), flow }
}

/// A pod that may be asked on TCP 80, and one that no policy isolates.
fn two_pods() -> Cluster {
    let namespace = Namespace { name: "a".to_owned(), labels: [].into(), deny_action: None };
    let open = Policy { ingress: Some(vec![rule(&[], &[tcp(80)])]), ..policy("a/open", "app=web") };
    let changes = [
        Change::NamespaceApplied(namespace),
        Change::PolicyApplied(open),
        Change::PodApplied(pod("a/web", "app=web", &["10.0.0.1"])),
        Change::PodApplied(pod("a/client", "", &["10.0.0.2"])),
        Change::SourceComplete(true),
    ];
    changes.into_iter().collect()
}

#[test]
fn answers_stand_in_the_order_of_the_questions() {
    let web = |port| {
        let traffic = Traffic::Port(Protocol::Tcp, port);
        question(Direction::Ingress, "a/web", "10.0.0.2", traffic)
    };
    let client =
        question(Direction::Egress, "a/client", "10.0.0.1", Traffic::Port(Protocol::Tcp, 81));
    let questions = [web(81), client.clone(), web(80), client];
    let reasons = |engine: &mut dyn Engine| {
        let answers = engine.answers(&mut two_pods(), &questions).unwrap();
        answers.iter().map(|answer| answer.reason).collect::<Vec<_>>()
    };
    let expected = ["not_allowed", "not_isolated", "rule", "not_isolated"];
    assert_eq!(reasons(&mut Specification), expected);
    assert_eq!(reasons(&mut CompiledMaps::default()), expected);
}

#[test]
fn an_engine_that_forgets_answers_for_another_cluster() {
    let mut maps = CompiledMaps::default();
    let questions =
        [question(Direction::Ingress, "a/web", "10.0.0.2", Traffic::Port(Protocol::Tcp, 81))];
    let mut ask = |cluster: &mut Cluster| maps.answers(cluster, &questions).unwrap()[0].outcome;
    assert_eq!(ask(&mut two_pods()), Outcome::Deny);
    maps.forget().unwrap();
    let mut cluster = two_pods();
    cluster.apply(Change::PolicyDeleted(key("a/open")));
    let mut ask = |cluster: &mut Cluster| maps.answers(cluster, &questions).unwrap()[0].outcome;
    assert_eq!(ask(&mut cluster), Outcome::Allow);
}

#[test]
fn a_question_to_a_pod_without_a_policy_is_an_error() {
    let nobody = question(Direction::Ingress, "a/nobody", "10.0.0.2", Traffic::Other(1));
    let engines: [&mut dyn Engine; 2] = [&mut Specification, &mut CompiledMaps::default()];
    for engine in engines {
        let error = engine.answers(&mut two_pods(), std::slice::from_ref(&nobody)).unwrap_err();
        assert_eq!(error.to_string(), "the pod a/nobody has no policy");
    }
}
