//! Recorded cases, with real packets between network namespaces.
//!
//! One lab for a cluster: each pod and each client outside is a namespace with the addresses that
//! the cluster gives it. The agent's own state, compiler and data plane are told of each step as an
//! agent is, and read the lab's links themselves. Invariant: what a case leaves behind is taken
//! away before the next one, by telling of it.
//!
//! Every pod is enforced here, those of other nodes too. So nodes are the one thing that is not as
//! in the cluster: the lab's node has the address of the first one, and only that one's pods are
//! asked about nodes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    sync::Arc,
    thread,
};

use bulkhead::{
    dataplane::kernel::{self, Kernel},
    enforcer::{Enforcer, Options},
    lab::{Lab, Wiring},
    links::{LinkState, Passes, Watch},
    policy::model::{Change, ObjectKey},
    reach::flow::{End, Family, FlowProtocol},
};
use bulkhead_common::verdict::{DenyAction, Verdict};
use tokio::{runtime, sync::mpsc};

use super::{Case, Model, Step, Suite, end, family, protocol_and_port, world::World};
use crate::{
    burst::{Probe, Stations},
    station::Station,
};

/// Each failure waits for what does not come: after so many of them, the rest is not tried out.
const TOO_MANY: usize = 20;

/// What came of it.
#[derive(Debug, Default)]
pub struct Sent {
    /// Cases that were tried out.
    pub cases: usize,
    /// Their steps.
    pub steps: usize,
    /// Flows that were to pass, and flows that were to be denied.
    pub flows: BTreeMap<(FlowProtocol, Family), [usize; 2]>,
    /// Flows that were left out, by why.
    pub skipped: BTreeMap<&'static str, usize>,
    /// What was otherwise than it should be.
    pub failures: Vec<String>,
}

/// A lab and the agent's parts on it. Fields are dropped from the top.
pub struct Wired<'a> {
    model: &'a Model,
    enforcer: Enforcer<Kernel>,
    stations: Stations,
    lab: Arc<Lab>,
    /// Namespaces that were made.
    made: usize,
}

impl Suite {
    /// The cases that start from a cluster of which the name begins like this, by cluster.
    pub fn cases_of(&self, cluster: &str) -> BTreeMap<&str, Vec<&Case>> {
        let mut cases = BTreeMap::<&str, Vec<&Case>>::new();
        for case in self.cases.iter().filter(|case| case.cluster.starts_with(cluster)) {
            cases.entry(&case.cluster).or_default().push(case);
        }
        cases
    }

    /// Tries out cases that start from a cluster: first that everything passes without policies,
    /// then the cases one after the other. Denials are silent for every other case, and answered
    /// for the rest.
    ///
    /// # Panics
    /// Without root, or when something can't be set up.
    pub fn send(&self, cluster: &str, cases: &[&Case]) -> Sent {
        let model = &self.clusters[cluster];
        let lab = Arc::new(Lab::new().expect("a lab"));
        for ip in addresses(&model.home().ips) {
            let host = format!("{ip}/{}", if ip.is_ipv4() { 32 } else { 128 });
            lab.node().add_address(&host, "lo").expect("the node's address");
        }
        let inside = || {
            let mut wired = Wired::new(model, Arc::clone(&lab));
            let mut sent = Sent::default();
            wired.without_policies(&mut sent);
            let actions = [DenyAction::Drop, DenyAction::Reject];
            for (first, deny_action) in actions.into_iter().enumerate() {
                wired.enforcer = enforcer(deny_action);
                wired.enforcer.set_links(links());
                for case in cases.iter().skip(first).step_by(actions.len()) {
                    wired.run(case, &mut sent);
                    if sent.failures.len() >= TOO_MANY {
                        return sent;
                    }
                }
            }
            sent
        };
        // Programs are attached, and links are read, in the calling thread's namespace.
        lab.node().enter(inside).expect("the node's namespace")
    }
}

impl Model {
    /// The node that the lab is.
    fn home(&self) -> &super::NodeModel {
        self.nodes.first().expect("there is a node")
    }
}

impl<'a> Wired<'a> {
    fn new(model: &'a Model, lab: Arc<Lab>) -> Self {
        let mut stations = Stations::default();
        let own = addresses(&model.home().ips);
        stations.add(Station::of_node(Arc::clone(&lab), own));
        let enforcer = enforcer(DenyAction::Drop);
        let mut wired = Self { model, enforcer, stations, lab, made: 0 };
        let externals = model.externals.iter().map(|external| external.ips.clone());
        let nodes = model.nodes.iter().skip(1).map(|node| addresses(&node.ips));
        wired.make_room_for(&externals.chain(nodes).collect::<Vec<_>>());
        wired
    }

    /// Each end to each other, by one probe each.
    fn without_policies(&mut self, sent: &mut Sent) {
        let mut world = World::new(self.model);
        self.enforce(&mut world, sent, "without policies");
        let names: BTreeSet<String> = (world.pods())
            .map(|pod| format!("{}/{}", pod.namespace, pod.name))
            .chain(self.model.nodes.iter().map(|node| format!("node/{}", node.name)))
            .chain(self.model.externals.iter().map(|external| format!("ext/{}", external.name)))
            .collect();
        let mut focus = Vec::new();
        let mut probes = self.model.probes.iter().cycle();
        for from in &names {
            for to in names.iter().filter(|to| *to != from) {
                for number in [4, 6] {
                    let probe = probes.next().expect("there are probes").clone();
                    let ends = (from.clone(), to.clone());
                    focus.push(super::Focus(number, probe, ends.0, ends.1, "1".to_owned()));
                }
            }
        }
        let is_pod = |name: &str| !name.starts_with("node/") && !name.starts_with("ext/");
        focus.retain(|flow| is_pod(&flow.2) || is_pod(&flow.3));
        focus.retain(|super::Focus(number, _, from, to, _)| {
            let has = |name: &str| self.address_of(&world, name, family(*number)).is_some();
            has(from) && has(to)
        });
        for part in focus.chunks(96) {
            self.send(&world, part, "without policies", sent);
        }
        self.forget();
    }

    fn run(&mut self, case: &Case, sent: &mut Sent) {
        sent.cases += 1;
        let mut world = World::new(self.model);
        for (step, number) in case.steps.iter().zip(1..) {
            let Step { actions, focus, .. } = step;
            sent.steps += 1;
            let place = format!("{} step {number}", case.id);
            for action in actions {
                world.act(action.clone());
            }
            self.enforce(&mut world, sent, &place);
            self.send(&world, focus, &place, sent);
        }
        self.forget();
    }

    /// Tells of what changed, and waits for nothing: it is enforced when the call returns.
    fn enforce(&mut self, world: &mut World, sent: &mut Sent, place: &str) {
        let problems = world.problems.drain(..);
        sent.failures.extend(problems.map(|problem| format!("{place}: {problem}")));
        let lists: Vec<Vec<IpAddr>> = world.pods().map(|pod| addresses(&pod.ips)).collect();
        if self.make_room_for(&lists) {
            self.enforcer.set_links(links());
        }
        for change in world.take_changes() {
            self.enforcer.apply(change);
        }
        let complete = self.enforcer.reconcile();
        let unenforced = self.enforcer.unenforced();
        if !complete || !unenforced.is_empty() {
            let problems = self.enforcer.problems();
            sent.failures.push(format!("{place}: not enforced: {problems:?} {unenforced:?}"));
        }
    }

    /// A namespace with exactly these addresses is there afterwards for each list, and none else
    /// has one of them. Says whether there are new ones.
    fn make_room_for(&mut self, lists: &[Vec<IpAddr>]) -> bool {
        let is_there = |list: &Vec<IpAddr>| {
            list.is_empty() || self.stations.iter().any(|station| station.addresses() == *list)
        };
        let new: Vec<&Vec<IpAddr>> = lists.iter().filter(|list| !is_there(list)).collect();
        let taken = |ip: &IpAddr| new.iter().any(|list| list.contains(ip));
        self.stations.retain(|station| !station.addresses().iter().any(taken));
        let (first, lab) = (self.made, &self.lab);
        self.made += new.len();
        let make = |list: &[IpAddr], number: usize| {
            let pod = lab.pod(&format!("p{number}"), list, Wiring::Routed);
            Station::of_pod(pod.expect("a pod"))
        };
        // Most of it is waiting, for `ip` and in the kernel.
        let made: Vec<Station> = thread::scope(|scope| {
            let numbered = new.iter().zip(first..);
            let make = &make;
            let making = numbered.map(|(list, number)| scope.spawn(move || make(list, number)));
            let making: Vec<_> = making.collect();
            making.into_iter().map(|it| it.join().expect("a namespace")).collect()
        });
        made.into_iter().for_each(|station| self.stations.add(station));
        !new.is_empty()
    }

    fn send(&mut self, world: &World, focus: &[super::Focus], place: &str, sent: &mut Sent) {
        let mut probes = Vec::with_capacity(focus.len());
        let mut ports = BTreeSet::new();
        for super::Focus(number, probe, source, destination, expected) in focus {
            let family = family(*number);
            let (protocol, port) = protocol_and_port(probe);
            if let Some(why) = self.skipped(world, protocol, source, destination) {
                *sent.skipped.entry(why).or_default() += 1;
                continue;
            }
            let address = |name: &str| {
                self.address_of(world, name, family)
                    .unwrap_or_else(|| panic!("{place}: {name} has no address of {family}"))
            };
            let (from, to) = (address(source), address(destination));
            let passes = match expected.as_str() {
                "1" => true,
                "0" => false,
                other => panic!("{place}: a cell {other}"),
            };
            sent.flows.entry((protocol, family)).or_default()[usize::from(!passes)] += 1;
            ports.extend(port.map(|port| (protocol, port)));
            probes.push(Probe {
                what: format!("{place}: {family} {probe} {source} -> {destination}"),
                protocol,
                from,
                to: (to, port.unwrap_or(0)).into(),
                passes,
            });
        }
        self.stations.listen(&ports.into_iter().collect::<Vec<_>>());
        let counters = Arc::clone(self.enforcer.kernel().counters());
        let endpoints = self.enforcer.programmed().endpoints().values();
        let blocks: BTreeSet<u32> = endpoints.map(|endpoint| endpoint.counters).collect();
        let denied = || {
            let counts = |block: &u32| counters.read(*block).expect("the counters");
            let denied = blocks.iter().flat_map(counts).filter(|count| match count.verdict {
                Verdict::Allow(_) => false,
                Verdict::Deny(_) => true,
            });
            denied.map(|count| count.counter.packets).sum()
        };
        sent.failures.extend(self.stations.send(&probes, denied).into_iter().map(|failure| {
            if failure.starts_with(place) { failure } else { format!("{place}: {failure}") }
        }));
    }

    /// Why a flow can't be tried out here.
    fn skipped(
        &self,
        world: &World,
        protocol: FlowProtocol,
        source: &str,
        destination: &str,
    ) -> Option<&'static str> {
        let home = self.model.home().name.as_str();
        let mut nodes = [source, destination].into_iter().filter(|end| end.starts_with("node/"));
        nodes.next()?;
        let of_home = |name: &str| {
            let key = name.split_once('/').map(|(space, name)| ObjectKey::new(space, name));
            key.and_then(|key| world.pod(&key)).is_none_or(|pod| pod.node == home)
        };
        if !of_home(source) || !of_home(destination) {
            return Some("a node and a pod of the second one");
        }
        let to_home = destination.strip_prefix("node/").is_some_and(|name| name == home);
        (to_home && protocol == FlowProtocol::Sctp).then_some("SCTP to the lab's own node")
    }

    fn address_of(&self, world: &World, name: &str, family: Family) -> Option<IpAddr> {
        let of = |ips: &[String]| addresses(ips).into_iter().find(|ip| Family::of(*ip) == family);
        match end(self.model, name, family)? {
            End::Ip(ip) => Some(ip),
            End::Node(name) => of(&self.model.nodes.iter().find(|node| node.name == name)?.ips),
            End::Pod(key) => of(&world.pod(&key)?.ips),
            End::Service(_) => None,
        }
    }

    /// Nothing exists any more.
    fn forget(&mut self) {
        let index = self.enforcer.index();
        let policies = index.policies().keys().cloned().map(Change::PolicyDeleted);
        let pods = index.pods().keys().cloned().map(Change::PodDeleted);
        let namespaces = index.namespaces().keys().cloned().map(Change::NamespaceDeleted);
        for change in policies.chain(pods).chain(namespaces).collect::<Vec<_>>() {
            self.enforcer.apply(change);
        }
    }
}

/// Nothing is enforced yet, and nothing is attached.
fn enforcer(deny_action: DenyAction) -> Enforcer<Kernel> {
    let kernel = Kernel::load(kernel::Options::default()).expect("the programs load");
    Enforcer::new(
        &Options { node: None, deny_action, check_source: true, deny_egress_to_node: false },
        kernel,
    )
}

/// The links of the calling thread's namespace, as the agent reads them.
pub(crate) fn links() -> LinkState {
    let runtime = runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let (sender, mut receiver) = mpsc::channel(1);
        let watch = Watch::open().expect("a watch").run(sender, Passes::default());
        tokio::select! {
            ended = watch => panic!("the watch ended: {ended:?}"),
            state = receiver.recv() => state.expect("a state"),
        }
    })
}

fn addresses(texts: &[String]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().expect("an address")).collect()
}

impl std::ops::AddAssign for Sent {
    fn add_assign(&mut self, other: Self) {
        self.cases += other.cases;
        self.steps += other.steps;
        for (key, [passed, denied]) in other.flows {
            let flows = self.flows.entry(key).or_default();
            flows[0] += passed;
            flows[1] += denied;
        }
        for (why, flows) in other.skipped {
            *self.skipped.entry(why).or_default() += flows;
        }
        self.failures.extend(other.failures);
    }
}

/// In one line: how much, by what, and what was left out.
impl fmt::Display for Sent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: usize = self.flows.values().flatten().sum();
        write!(
            f,
            "{} cases, {} steps, {all} real flows (passed + denied):",
            self.cases, self.steps
        )?;
        for ((protocol, family), [passed, denied]) in &self.flows {
            write!(f, " {protocol} {family} {passed} + {denied},")?;
        }
        write!(f, " left out:")?;
        for (why, flows) in &self.skipped {
            write!(f, " {flows} ({why})")?;
        }
        if self.skipped.is_empty() {
            write!(f, " none")?;
        }
        Ok(())
    }
}
