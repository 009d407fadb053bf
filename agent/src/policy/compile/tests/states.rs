//! Walks through lists of states: what is compiled depends on the state alone, not on the way.

use Direction::{Egress, Ingress};

use bulkhead_common::value::IDENTITY_NODE;
use proptest::{collection, prelude::*};

use super::*;
use crate::policy::{
    arbitrary::{NODE, change, cluster, node_addresses},
    tests::{cases, index_of, objects_of, shuffle},
};

/// What a pod may do, without the numbers.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Meaning {
    endpoints: BTreeMap<ObjectKey, EndpointPolicy>,
    /// With each address, and with each block where no longer one is.
    allowed: BTreeMap<(ObjectKey, Direction, IpNet), Arc<PortSet>>,
    mixed: BTreeSet<MixedService>,
}

impl Meaning {
    pub(super) fn of(compiled: &Compiled) -> Self {
        let mut meaning = Self {
            endpoints: compiled.endpoints.clone(),
            allowed: BTreeMap::new(),
            mixed: compiled.mixed_services.clone(),
        };
        let of_peers = compiled.peers.iter().map(|(a, i)| (IpNet::from(*a), i & !IDENTITY_NODE));
        let of_cidrs = compiled.cidrs.iter().map(|(net, identity)| (*net, *identity));
        let identities: Vec<_> = of_peers.chain(of_cidrs).collect();
        for (name, endpoint) in &mut meaning.endpoints {
            let sides = [(Ingress, &mut endpoint.ingress), (Egress, &mut endpoint.egress)];
            for (direction, side) in sides {
                let Some(side) = side else { continue };
                for (net, identity) in &identities {
                    let key = RuleKey { policy_set: side.policy_set, identity: *identity };
                    if let Some(ports) = compiled.rules.get(&key) {
                        meaning.allowed.insert((name.clone(), direction, *net), ports.clone());
                    }
                }
                side.policy_set = 0;
            }
        }
        meaning
    }
}

/// A state: pods, policies, namespaces and whether the source is complete.
type State = Vec<Change>;

/// What of the old state has to go, then what the new one has.
fn transition(from: &State, to: &State) -> Vec<Change> {
    let deletion = |change: &Change| match change {
        Change::NamespaceApplied(namespace) => Change::NamespaceDeleted(namespace.name.clone()),
        Change::PodApplied(pod) => Change::PodDeleted(pod.key.clone()),
        Change::PolicyApplied(policy) => Change::PolicyDeleted(policy.key.clone()),
        Change::ServiceApplied(service) => Change::ServiceDeleted(service.key.clone()),
        Change::EndpointSliceApplied(slice) => Change::EndpointSliceDeleted(slice.key.clone()),
        Change::NodeApplied(node) => Change::NodeDeleted(node.name.clone()),
        Change::SourceComplete(_) => Change::SourceComplete(false),
        Change::NamespaceDeleted(_)
        | Change::PodDeleted(_)
        | Change::PolicyDeleted(_)
        | Change::ServiceDeleted(_)
        | Change::EndpointSliceDeleted(_)
        | Change::NodeDeleted(_) => panic!("a state names what is there"),
    };
    let stays: Vec<_> = to.iter().map(deletion).collect();
    let goes = from.iter().map(deletion).filter(|deletion| !stays.contains(deletion));
    goes.chain(to.iter().cloned()).collect()
}

/// The states of the reference scenario's life, each with traps for what a compiler might keep.
fn states() -> Vec<State> {
    let db = pod("a/db", "app=db", &["10.0.0.1", "fd00::1"]);
    let web = pod("a/web", "app=web", &["10.0.0.2"]);
    let from_web = ingress("a/from-web", "app=db", &[rule(&[pods("app=web")], &[tcp(3306)])]);
    let from_red =
        ingress("a/from-red", "", &[rule(&[namespaces("team=red")], &[]), rule(&[], &[udp(53)])]);
    let deny_all =
        Policy { ingress: Some(vec![]), egress: Some(vec![]), ..policy("a/deny-all", "") };
    let pod_ = |pod: &Pod| Change::PodApplied(pod.clone());
    let policy_ = |policy: &Policy| Change::PolicyApplied(policy.clone());
    let done = Change::SourceComplete(true);
    let base = vec![pod_(&db), pod_(&web), policy_(&from_web), done.clone()];
    let with = |more: &[Change]| base.iter().chain(more).cloned().collect::<Vec<_>>();
    vec![
        vec![],
        vec![pod_(&db), pod_(&web), policy_(&from_web)],
        vec![pod_(&db), pod_(&web), done.clone()],
        base.clone(),
        with(&[policy_(&deny_all)]),
        // The web pod's label goes, then its address passes to another pod.
        vec![pod_(&db), pod_(&pod("a/web", "", &["10.0.0.2"])), policy_(&from_web), done.clone()],
        vec![
            pod_(&db),
            pod_(&Pod { ended: true, ..web.clone() }),
            pod_(&remote(pod("b/thief", "app=web", &["10.0.0.2"]))),
            policy_(&from_web),
            policy_(&from_red),
            done.clone(),
        ],
        // The namespace of the new owner turns red.
        with(&[
            pod_(&remote(pod("b/p", "", &["10.0.0.3", "fd00::3"]))),
            policy_(&from_red),
            Change::NamespaceApplied(namespace("b", "team=red")),
        ]),
        with(&[
            pod_(&remote(pod("b/p", "", &["10.0.0.3", "fd00::3"]))),
            policy_(&from_red),
            Change::NamespaceApplied(namespace("b", "team=blue")),
        ]),
        // Two pods claim the database's address.
        with(&[pod_(&remote(pod("b/p", "app=web", &["10.0.0.1"]))), policy_(&from_red)]),
        // The policy keeps its name and gets other rules.
        vec![
            pod_(&db),
            pod_(&web),
            policy_(&Policy { key: from_web.key.clone(), ..from_red }),
            done,
        ],
    ]
}

/// Walks from state to state with one compiler; in each, a fresh one that sees only this state
/// must agree.
fn walk(states: impl IntoIterator<Item = State>, repeats: usize) {
    let mut index = Index::new(Some("here".to_owned()));
    let mut compiler = Compiler::new(DenyAction::Drop);
    let mut before = State::new();
    for state in states {
        for change in transition(&before, &state) {
            for _ in 0..repeats {
                index.apply(change.clone());
            }
            if repeats > 1 {
                compiler.update(&mut index);
            }
        }
        let mut fresh = Index::new(Some("here".to_owned()));
        for change in state.iter().rev() {
            fresh.apply(change.clone());
        }
        assert_eq!(index, fresh, "{state:#?}");
        let expected = compile(&fresh);
        assert_eq!(compile(&index), expected, "fresh compilers number alike");
        let updated = compiler.update(&mut index);
        assert_eq!(Meaning::of(updated), Meaning::of(&expected), "{state:#?}");
        before = state;
    }
}

#[test]
fn states_in_order() {
    walk(states(), 1);
}

#[test]
fn states_in_reverse() {
    walk(states().into_iter().rev(), 1);
}

#[test]
fn states_with_nothing_between() {
    walk(states().into_iter().flat_map(|state| [state, vec![]]), 1);
}

#[test]
fn states_with_every_change_repeated_and_compiled() {
    walk(states(), 3);
}

#[test]
fn every_state_from_every_other_at_once() {
    for from in states() {
        for to in states() {
            walk([from.clone(), to], 1);
        }
    }
}

#[test]
fn every_state_differs_from_its_neighbour_in_what_it_compiles_to() {
    let compiled: Vec<_> = states()
        .into_iter()
        .map(|state| {
            let mut index = Index::new(Some("here".to_owned()));
            state.into_iter().for_each(|change| assert!(index.apply(change)));
            Meaning::of(&compile(&index))
        })
        .collect();
    assert!(compiled.windows(2).all(|pair| pair[0] != pair[1]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases(96)))]

    /// Changes come in batches of any size, each batch shuffled as far as its changes are of
    /// different objects, and some of them twice.
    #[test]
    fn what_an_incremental_compiler_makes_means_what_a_fresh_one_makes(
        changes in cluster(),
        node_addresses in node_addresses(),
        batches in collection::vec(collection::vec((change(), 1_usize..3), 1..10), 1..6),
        seed in any::<u64>(),
    ) {
        let mut index = index_of(&changes, Some(NODE));
        index.set_node_addresses(node_addresses.clone());
        let mut compiler = Compiler::new(DenyAction::Drop);
        compiler.update(&mut index);
        for batch in batches {
            for (change, times) in batch {
                for _ in 0..times {
                    index.apply(change.clone());
                }
            }
            compiler.update(&mut index);
            let mut objects = objects_of(&index);
            shuffle(&mut objects, seed);
            let mut fresh = index_of(&objects, Some(NODE));
            fresh.set_node_addresses(node_addresses.clone());
            let expected = Meaning::of(&compile(&fresh));
            prop_assert_eq!(&Meaning::of(compiler.compiled()), &expected);
            // And nothing is remembered that the state does not need.
            let sizes = |c: &Compiled| {
                (c.peers.len(), c.cidrs.iter().count(), c.rules.len())
            };
            prop_assert_eq!(sizes(compiler.compiled()), sizes(&compile(&fresh)));
        }
    }
}
