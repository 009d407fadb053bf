//! The agent's view of links, against a real kernel. Needs root.
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic, too")]

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    net::IpAddr,
    process::{Command, Stdio},
    time::Duration,
};

use bulkhead::{
    lab::{Lab, NODE_IPV4, NODE_IPV6, Pod, Wiring},
    links::{LinkState, Passes, Veth, Watch},
};
use tokio::{runtime::Handle, sync::mpsc, task::JoinHandle, time::timeout};

const DEADLINE: Duration = Duration::from_secs(5);

/// A watch on the node of a lab.
struct Watched {
    states: mpsc::Receiver<LinkState>,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Watched {
    fn start(lab: &Lab) -> Self {
        Self::start_with(lab, Passes::default())
    }

    fn start_with(lab: &Lab, passes: Passes) -> Self {
        let runtime = Handle::current();
        let open = || {
            let _entered = runtime.enter();
            Watch::open()
        };
        let watch = lab.node().enter(open).unwrap().unwrap();
        let (sender, states) = mpsc::channel(1);
        Self { states, task: tokio::spawn(watch.run(sender, passes)) }
    }

    /// The next state that fulfils the condition.
    async fn until(&mut self, what: &str, condition: impl Fn(&LinkState) -> bool) -> LinkState {
        let mut last = None;
        let found = timeout(DEADLINE, async {
            loop {
                let state = self.states.recv().await.expect("the watch goes on");
                if condition(&state) {
                    return state;
                }
                last = Some(state);
            }
        });
        match found.await {
            Ok(state) => state,
            Err(_) => panic!("{what}: not within {DEADLINE:?}; last state: {last:#?}"),
        }
    }
}

fn addresses<const N: usize>(addresses: [&str; N]) -> [IpAddr; N] {
    addresses.map(|address| address.parse().unwrap())
}

/// The veth that the watch should report for a pod.
fn veth_of(pod: &Pod) -> (u32, Veth) {
    let veth = Veth {
        ifindex: pod.ifindex(),
        name: pod.interface().to_owned(),
        peer_addresses: pod.addresses().iter().copied().collect(),
    };
    (pod.ifindex(), veth)
}

#[tokio::test]
async fn pods_on_bridge_and_route_are_listed_with_both_families() {
    let lab = Lab::new().unwrap();
    let bridged = lab.pod("bridged", &addresses(["10.0.0.10", "fd00:10::a"]), Wiring::Bridge);
    let routed = lab.pod("routed", &addresses(["10.0.1.10", "fd00:11::a"]), Wiring::Routed);
    let (bridged, routed) = (bridged.unwrap(), routed.unwrap());
    let expected = LinkState {
        veths: BTreeMap::from([veth_of(&bridged), veth_of(&routed)]),
        node_addresses: BTreeSet::from([IpAddr::V4(NODE_IPV4), IpAddr::V6(NODE_IPV6)]),
    };

    let mut watched = Watched::start(&lab);
    assert_eq!(watched.until("first state", |_| true).await, expected);
}

#[tokio::test]
async fn a_pod_that_comes_and_goes_is_told() {
    let lab = Lab::new().unwrap();
    let mut watched = Watched::start(&lab);
    assert!(watched.until("first state", |_| true).await.veths.is_empty());

    let pod = lab.pod("mysql", &addresses(["10.0.0.10", "fd00:10::a"]), Wiring::Bridge).unwrap();
    let expected = BTreeMap::from([veth_of(&pod)]);
    watched.until("the pod", |state| state.veths == expected).await;

    drop(pod);
    watched.until("no pod", |state| state.veths.is_empty()).await;
}

#[tokio::test]
async fn an_address_added_inside_a_pod_is_told_by_notification() {
    let lab = Lab::new().unwrap();
    let pod = lab.pod("mysql", &addresses(["10.0.0.10"]), Wiring::Bridge).unwrap();
    let never = Duration::from_secs(3600);
    let mut watched = Watched::start_with(&lab, Passes { first: never, longest: never });
    let expected = BTreeMap::from([veth_of(&pod)]);
    watched.until("the pod", |state| state.veths == expected).await;

    // The kernel tells of links with a delay of up to a second (net/core/link_watch.c). What is
    // reported after that was told by the address itself.
    let quiet = timeout(Duration::from_millis(1500), watched.states.recv()).await;
    assert!(quiet.is_err(), "sent without a change: {quiet:#?}");
    let [added] = addresses(["10.0.0.11"]);
    pod.namespace().add_address(&format!("{added}/24"), "eth0").unwrap();
    let state = watched.until("the address", |_| true).await;
    let found = &state.veths[&pod.ifindex()].peer_addresses;
    assert!(found.contains(&added), "{found:?}");
}

#[tokio::test]
async fn a_pod_without_addresses_is_listed_with_none() {
    let lab = Lab::new().unwrap();
    let pod = lab.pod("empty", &[], Wiring::Bridge).unwrap();
    let mut watched = Watched::start(&lab);
    let expected = BTreeMap::from([veth_of(&pod)]);
    watched.until("the pod", |state| state.veths == expected).await;
}

#[tokio::test]
async fn after_a_burst_of_changes_the_state_is_the_last_one() {
    const LINKS: u32 = 20;
    let lab = Lab::new().unwrap();
    let pod = lab.pod("pod", &[], Wiring::Bridge).unwrap();
    let mut watched = Watched::start(&lab);
    watched.until("first state", |_| true).await;

    let name = |number| format!("burst-{number}");
    for number in 0..LINKS {
        let peer = ["peer", "name", &name(number), "netns", pod.namespace().name()];
        let add = ["link", "add", &name(number), "type", "veth"];
        lab.node().ip(add.into_iter().chain(peer)).unwrap();
        let address = format!("10.9.0.{number}/32");
        pod.namespace().add_address(&address, &name(number)).unwrap();
        if number % 2 == 0 {
            lab.node().ip(["link", "delete", &name(number)]).unwrap();
        }
    }
    let state = watched.until("all of them", |state| {
        let names: BTreeSet<_> = state.veths.values().map(|veth| veth.name.clone()).collect();
        let odd = (0..LINKS).filter(|number| number % 2 == 1).map(name);
        names == odd.chain([pod.interface().to_owned()]).collect()
            && state.veths.values().filter(|veth| !veth.peer_addresses.is_empty()).count() == 10
    });
    for veth in state.await.veths.into_values().filter(|veth| veth.ifindex != pod.ifindex()) {
        let number = veth.name.trim_start_matches("burst-");
        let [expected] = addresses([&format!("10.9.0.{number}")]);
        assert_eq!(veth.peer_addresses, BTreeSet::from([expected]), "{}", veth.name);
    }
}

#[tokio::test]
async fn more_notifications_than_the_socket_holds_do_no_harm() {
    let lab = Lab::new().unwrap();
    let mut watched = Watched::start(&lab);
    watched.until("first state", |_| true).await;

    let [last] = addresses(["10.9.0.2"]);
    let flap = "address add 10.9.0.1/32 dev lo\naddress delete 10.9.0.1/32 dev lo\n".repeat(1000);
    let mut batch = Command::new("ip");
    batch.args(["-n", lab.node().name(), "-batch", "-"]).stdin(Stdio::piped());
    let mut batch = batch.spawn().unwrap();
    writeln!(batch.stdin.take().unwrap(), "{flap}address add {last}/32 dev lo").unwrap();
    // Waits in the watch's own thread, so that nothing receives them meanwhile.
    assert!(batch.wait().unwrap().success());

    watched.until("the last address", |state| state.node_addresses.contains(&last)).await;
}

#[tokio::test]
async fn a_veth_within_the_node_is_not_listed() {
    let lab = Lab::new().unwrap();
    let node = lab.node();
    node.ip(["link", "add", "one", "type", "veth", "peer", "name", "other"]).unwrap();
    for (interface, address) in [("one", "10.9.0.1/24"), ("other", "10.9.0.2/24")] {
        node.add_address(address, interface).unwrap();
    }
    let mut watched = Watched::start(&lab);
    let state = watched.until("first state", |_| true).await;
    assert_eq!(state.veths, BTreeMap::new());
    let [one, other] = addresses(["10.9.0.1", "10.9.0.2"]);
    assert!(state.node_addresses.is_superset(&BTreeSet::from([one, other])), "{state:?}");
}

#[tokio::test]
async fn only_addresses_of_the_veths_own_peer_are_listed() {
    let lab = Lab::new().unwrap();
    let pod = lab.pod("mysql", &addresses(["10.0.0.10"]), Wiring::Bridge).unwrap();
    pod.namespace().ip(["link", "add", "other", "type", "bridge"]).unwrap();
    pod.namespace().add_address("10.9.0.1/24", "other").unwrap();
    let mut watched = Watched::start(&lab);
    let state = watched.until("first state", |_| true).await;
    assert_eq!(state.veths, BTreeMap::from([veth_of(&pod)]));
}

#[tokio::test]
async fn the_watch_ends_with_its_receiver() {
    let lab = Lab::new().unwrap();
    let mut watched = Watched::start(&lab);
    watched.until("first state", |_| true).await;
    let Watched { states, task } = watched;
    drop(states);
    timeout(DEADLINE, task).await.expect("ended in time").unwrap().unwrap();
}
