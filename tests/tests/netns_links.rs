//! The agent's view of links, against a real kernel. Needs root.
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic, too")]

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use bulkhead::{
    lab::{Lab, NODE_IPV4, NODE_IPV6, Pod, Wiring},
    links::{LinkState, Veth, Watch},
};
use tokio::{runtime::Handle, sync::mpsc, task::JoinHandle, time::timeout};

const DEADLINE: Duration = Duration::from_secs(5);

/// Less than the watch takes for its first reads after a change: what is seen within it was told
/// by a notification.
const NO_STATE: Duration = Duration::from_millis(300);

/// A watch on the node of a lab.
struct Watched {
    states: mpsc::Receiver<LinkState>,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Watched {
    fn start(lab: &Lab) -> Self {
        let runtime = Handle::current();
        let open = || {
            let _entered = runtime.enter();
            Watch::open()
        };
        let watch = lab.node().enter(open).unwrap().unwrap();
        let (sender, states) = mpsc::channel(1);
        Self { states, task: tokio::spawn(watch.run(sender)) }
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
    let mut watched = Watched::start(&lab);
    let expected = BTreeMap::from([veth_of(&pod)]);
    watched.until("the pod", |state| state.veths == expected).await;

    // Wait until repeated reads are so far apart that they cannot be what finds the address.
    assert!(timeout(NO_STATE * 6, watched.states.recv()).await.is_err(), "nothing changed");
    let [added] = addresses(["10.0.0.11"]);
    pod.namespace().add_address(&format!("{added}/24"), "eth0").unwrap();
    let state = timeout(NO_STATE, watched.states.recv()).await.expect("told in time").unwrap();
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
