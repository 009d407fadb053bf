//! Orders of operations and what is left after a plan that was broken off. That no step lets
//! through what it should not is shown with random clusters in `policy::tests`.

use std::{net::Ipv4Addr, sync::Arc};

use anyhow::bail;
use bulkhead_common::value::{PortRange as Range, flags::SECOND_IDENTITY};

use super::*;
use crate::{
    dataplane::{fake::FakeKernel, op::Execute},
    policy::compiled,
};

const SET: u32 = 1;
const WEB: u32 = 2;
const BATCH: u32 = 3;

/// A compiled state of one pod, isolated for ingress.
#[derive(Clone)]
struct State {
    policy: EndpointPolicy,
    compiled: Compiled,
}

impl State {
    fn new() -> Self {
        let side = SidePolicy {
            policy_set: SET,
            any_peer: Arc::new(compiled::PortSet::NOTHING),
            names_blocks: false,
            policies: BTreeSet::new(),
            closed: None,
        };
        let policy = EndpointPolicy {
            uid: String::new(),
            addresses: BTreeSet::from([address(10)]),
            ingress: Some(side),
            egress: None,
            deny_action: DenyAction::Drop,
        };
        Self { policy, compiled: Compiled::default() }
    }

    fn peer(mut self, last: u8, identity: u32) -> Self {
        self.compiled.peers.insert(address(last), identity);
        self
    }

    fn rule(mut self, identity: u32, ports: impl IntoIterator<Item = u16>) -> Self {
        let ranges = ports.into_iter().map(|port| Range { protocol: 6, first: port, last: port });
        let key = RuleKey { policy_set: SET, identity };
        let ports = compiled::PortSet::from_ranges(ranges);
        self.compiled.rules.insert(key, Arc::new(ports));
        self
    }

    /// Every peer, on these ports.
    fn any_peer(mut self, ports: impl IntoIterator<Item = u16>) -> Self {
        let ranges = ports.into_iter().map(|port| Range { protocol: 6, first: port, last: port });
        let side = self.policy.ingress.as_mut().expect("it is isolated for ingress");
        side.any_peer = Arc::new(compiled::PortSet::from_ranges(ranges));
        self
    }

    /// On one interface.
    fn desired(&self) -> Desired<'_> {
        self.desired_on(&[7])
    }

    fn desired_on(&self, interfaces: &[u32]) -> Desired<'_> {
        let endpoint = |ifindex: &u32| (*ifindex, DesiredEndpoint::Pod(&self.policy));
        Desired {
            endpoints: interfaces.iter().map(endpoint).collect(),
            compiled: &self.compiled,
            touched: None,
        }
    }
}

fn address(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, last))
}

/// Plans and executes; what was executed.
fn run(programmed: &mut Programmed, desired: &Desired<'_>) -> Vec<Op> {
    let ops = programmed.plan(desired).unwrap();
    ops.iter().for_each(|op| programmed.executed(op));
    ops
}

/// What kind of thing each operation is.
fn kinds(ops: &[Op]) -> Vec<&'static str> {
    ops.iter()
        .map(|op| match op {
            Op::SetPortRange { .. } => "range",
            Op::SetRule { .. } => "rule",
            Op::SetPeer { .. } => "peer",
            Op::SetCidr { .. } => "cidr",
            Op::ClearCounters { .. } => "clear",
            Op::SetEndpoint { .. } => "endpoint",
            Op::Attach { .. } => "attach",
            Op::Detach { .. } => "detach",
            Op::RemoveEndpoint { .. } => "remove endpoint",
            Op::RemoveRule { .. } => "remove rule",
            Op::RemovePeer { .. } => "remove peer",
            Op::RemoveCidr { .. } => "remove cidr",
        })
        .collect()
}

#[test]
fn a_new_endpoint_is_attached_when_everything_it_reads_is_there() {
    let state = State::new().peer(20, WEB).rule(WEB, [3306, 3308]);
    let ops = run(&mut Programmed::new(true), &state.desired());
    assert_eq!(kinds(&ops), ["range", "range", "rule", "peer", "clear", "endpoint", "attach"]);
}

#[test]
fn what_is_programmed_already_is_not_written_again() {
    let state = State::new().peer(20, WEB).rule(WEB, [3306]);
    let mut programmed = Programmed::new(true);
    run(&mut programmed, &state.desired());
    assert_eq!(run(&mut programmed, &state.desired()), []);
}

#[test]
fn a_new_identity_is_written_where_no_endpoint_reads_it_and_the_endpoint_switches() {
    let mut programmed = Programmed::new(true);
    run(&mut programmed, &State::new().peer(20, WEB).rule(WEB, [80]).desired());
    let before = programmed.endpoints()[&7];
    let ops = run(&mut programmed, &State::new().peer(20, BATCH).rule(WEB, [80]).desired());
    let after = programmed.endpoints()[&7];
    assert_eq!(kinds(&ops), ["peer", "endpoint"]);
    assert_ne!(before.flags & SECOND_IDENTITY, after.flags & SECOND_IDENTITY);
    let Op::SetPeer { peer, .. } = ops[0] else { panic!() };
    assert!(peer.identities.contains(&WEB) && peer.identities.contains(&BATCH));
    assert_ne!(before.epoch, after.epoch, "flows are judged again");
}

#[test]
fn what_nobody_reads_any_more_is_removed_last() {
    let mut programmed = Programmed::new(true);
    run(&mut programmed, &State::new().peer(20, WEB).rule(WEB, [80]).desired());
    let ops = run(&mut programmed, &State::new().desired());
    assert_eq!(kinds(&ops), ["endpoint", "remove rule", "remove peer"]);
}

#[test]
fn an_interface_that_is_gone_loses_its_programs_before_its_endpoint() {
    let mut programmed = Programmed::new(true);
    run(&mut programmed, &State::new().desired());
    let ops = run(&mut programmed, &State::new().desired_on(&[]));
    assert_eq!(kinds(&ops), ["detach", "remove endpoint"]);
    assert!(programmed.attached().is_empty());
}

#[test]
fn a_closed_interface_is_isolated_in_both_directions_and_allows_nothing() {
    let state = State::new();
    let mut desired = state.desired();
    desired.endpoints.insert(7, DesiredEndpoint::Closed);
    let mut programmed = Programmed::new(true);
    run(&mut programmed, &desired);
    let endpoint = programmed.endpoints()[&7];
    let isolated = flags::ISOLATED_INGRESS | flags::ISOLATED_EGRESS;
    assert_eq!(endpoint.flags & isolated, isolated);
    assert_eq!((endpoint.ingress, endpoint.egress), (Side::NOTHING, Side::NOTHING));
}

#[test]
fn counters_of_an_endpoint_stay_its_own_and_are_given_on_cleared() {
    let state = State::new();
    let mut programmed = Programmed::new(true);
    run(&mut programmed, &state.desired_on(&[7, 8]));
    let first = programmed.endpoints()[&7].counters;
    run(&mut programmed, &state.desired_on(&[8]));
    let ops = run(&mut programmed, &state.desired_on(&[8, 9]));
    assert_eq!(programmed.endpoints()[&9].counters, first);
    assert!(ops.contains(&Op::ClearCounters { block: first }));
}

/// A kernel that fails at its nth operation.
struct FailingAt {
    kernel: FakeKernel,
    left: usize,
}

impl Execute for FailingAt {
    fn execute(&mut self, op: &Op) -> anyhow::Result<()> {
        if self.left == 0 {
            bail!("no memory");
        }
        self.left -= 1;
        self.kernel.execute(op)
    }

    fn exists(&self, ifindex: u32) -> bool {
        self.kernel.exists(ifindex)
    }
}

/// Every range that a rule or an endpoint points to, as the kernel has it.
fn reachable(kernel: &FakeKernel, programmed: &Programmed) -> Vec<Option<Range>> {
    let sides =
        programmed.endpoints().values().flat_map(|e| [e.ingress.any_peer, e.egress.any_peer]);
    programmed
        .rules
        .values()
        .copied()
        .chain(sides)
        .filter(PortSet::is_placed)
        .flat_map(|set| set.start..set.start + set.len)
        .map(|index| kernel.range(index))
        .collect()
}

#[test]
fn a_plan_that_was_broken_off_anywhere_is_made_good_by_the_next() {
    let old = State::new().peer(20, WEB).rule(WEB, [80, 443]);
    let new = State::new().peer(20, BATCH).peer(21, WEB).rule(BATCH, [53, 99]).rule(WEB, [22, 24]);
    for fails_at in 0..14 {
        let mut kernel = FailingAt { kernel: FakeKernel::default(), left: usize::MAX };
        let mut programmed = Programmed::new(true);
        let mut execute = |programmed: &mut Programmed, state: &State, left| {
            kernel.left = left;
            for op in programmed.plan(&state.desired()).unwrap() {
                if kernel.execute(&op).is_err() {
                    break;
                }
                programmed.executed(&op);
            }
        };
        execute(&mut programmed, &old, usize::MAX);
        execute(&mut programmed, &new, fails_at);
        execute(&mut programmed, &new, usize::MAX);
        assert_eq!(programmed.endpoints, kernel.kernel.endpoints, "broken off at {fails_at}");
        let slot = slot_of(&programmed.endpoints()[&7]);
        let identity = |last| programmed.peers.map[&address(last)].identities[slot];
        assert_eq!((identity(20), identity(21)), (BATCH, WEB), "broken off at {fails_at}");
        let ranges = reachable(&kernel.kernel, &programmed);
        assert!(ranges.iter().all(Option::is_some), "broken off at {fails_at}: {ranges:?}");
        let ports: BTreeSet<u16> = ranges.into_iter().flatten().map(|range| range.first).collect();
        assert_eq!(ports, BTreeSet::from([22, 24, 53, 99]), "broken off at {fails_at}");
        assert_eq!(programmed.plan(&new.desired()).unwrap(), [], "broken off at {fails_at}");
    }
}

/// Plans and executes up to an operation that the kernel refuses.
fn run_until(
    programmed: &mut Programmed,
    kernel: &mut FakeKernel,
    desired: &Desired<'_>,
    refused: impl Fn(&Op) -> bool,
) {
    let ops = programmed.plan(desired).unwrap();
    for op in ops.iter().take_while(|op| !refused(op)) {
        kernel.execute(op).unwrap();
        programmed.executed(op);
    }
}

#[test]
fn however_often_plans_are_broken_off_no_place_is_used_again_that_is_read() {
    let (mut programmed, mut kernel) = (Programmed::new(true), FakeKernel::default());
    let old = State::new().any_peer([80, 443]);
    let new = State::new().any_peer([81, 444]).peer(20, WEB);
    let newer = new.clone().rule(WEB, [22, 5432]);
    run_until(&mut programmed, &mut kernel, &old.desired(), |_| false);
    for state in [&new, &new, &newer] {
        let no_memory = |op: &Op| matches!(op, Op::SetPeer { .. });
        run_until(&mut programmed, &mut kernel, &state.desired(), no_memory);
        let PortSet { start, len } = kernel.endpoints[&7].ingress.any_peer;
        let ports = (start..start + len).map(|index| kernel.range(index).unwrap().first);
        assert_eq!(ports.collect::<Vec<_>>(), [80, 443], "as it was before");
    }
    run_until(&mut programmed, &mut kernel, &newer.desired(), |_| false);
    for _ in 0..3 {
        assert_eq!(run(&mut programmed, &newer.desired()), []);
    }
    assert_eq!(programmed.port_ranges.used(), 4, "what rested is free again");
}

#[test]
fn after_a_plan_that_was_broken_off_among_the_switches_each_endpoint_is_another_one() {
    let (mut programmed, mut kernel) = (Programmed::new(true), FakeKernel::default());
    let state = State::new().rule(WEB, [80]).peer(21, BATCH);
    run_until(&mut programmed, &mut kernel, &state.desired_on(&[7, 8]), |_| false);
    let second = |op: &Op| matches!(op, Op::SetEndpoint { ifindex: 8, .. });
    let web = state.clone().peer(20, WEB);
    run_until(&mut programmed, &mut kernel, &web.desired_on(&[7, 8]), second);
    let epoch = kernel.endpoints[&7].epoch;
    // It reads the identity already that is written now.
    let batch = state.peer(20, BATCH);
    run_until(&mut programmed, &mut kernel, &batch.desired_on(&[7, 8]), |_| false);
    assert_ne!(kernel.endpoints[&7].epoch, epoch, "flows and memos are of the other one");
}

#[test]
fn more_endpoints_than_fit_are_an_error_that_names_the_map_and_changes_nothing() {
    let state = State::new();
    let mut programmed = Programmed::new(true);
    run(&mut programmed, &state.desired());
    let many: Vec<u32> = (1..=abi::ENDPOINTS + 1).collect();
    let error = programmed.plan(&state.desired_on(&many)).unwrap_err().to_string();
    assert!(error.contains("map ENDPOINTS is full (capacity 1024)"), "{error}");
    assert_eq!(run(&mut programmed, &state.desired()), []);
}
