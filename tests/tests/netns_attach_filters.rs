//! Programs as filters of a clsact qdisc, as kernels without TCX have them: attached once, again
//! where they were lost, and taken off with nothing but what was ours. `tc` says what is there.
//! Needs root.

use bulkhead::{
    dataplane::{
        attach::Hooks,
        kernel::{Kernel, Options},
        op::{Execute as _, Op},
    },
    lab::{Lab, Pod, Wiring},
};

/// A node, and its pod.
struct Node {
    lab: Lab,
    pod: Pod,
}

impl Node {
    fn new() -> Self {
        let lab = Lab::new().expect("a lab");
        let address = "10.0.0.10".parse().expect("an address");
        let pod = lab.pod("pod", &[address], Wiring::Bridge).expect("a pod");
        Self { lab, pod }
    }

    /// Runs in the node's namespace, with programs loaded.
    fn enter(&self, work: impl FnOnce(&mut Kernel) + Send) {
        let inside = || work(&mut load());
        self.lab.node().enter(inside).expect("the node's namespace");
    }

    /// What `tc` prints of the pod's interface.
    fn tc(&self, arguments: &[&str]) -> String {
        let [object, verb, rest @ ..] = arguments else { panic!("{arguments:?}") };
        let mut tc = self.lab.node().command("tc");
        tc.args([*object, *verb, "dev", self.pod.interface()]).args(rest);
        let output = tc.output().expect("tc, of iproute2");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "tc {arguments:?}: {errors}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Our programs at the hooks: egress, ingress.
    fn attached(&self) -> [usize; 2] {
        [("egress", "to_pod"), ("ingress", "from_pod")].map(|(hook, program)| {
            let filters = self.tc(&["filter", "show", hook]);
            // A priority has a line of its own, without a program.
            filters
                .lines()
                .filter(|line| line.contains(&format!(" {program} direct-action")))
                .count()
        })
    }

    fn has_clsact(&self) -> bool {
        self.tc(&["qdisc", "show"]).contains("qdisc clsact ")
    }

    fn attach(&self, kernel: &mut Kernel) {
        kernel.execute(&Op::Attach { ifindex: self.pod.ifindex() }).expect("attached");
    }

    fn detach(&self, kernel: &mut Kernel) {
        kernel.execute(&Op::Detach { ifindex: self.pod.ifindex() }).expect("detached");
    }

    /// Has whatever the pod sends an effect?
    fn pings(&self) -> bool {
        let mut ping = self.pod.namespace().command("ping");
        ping.args(["-c", "1", "-W", "1", "10.0.0.1"]);
        ping.output().expect("ping, of iputils-ping").status.success()
    }
}

fn load() -> Kernel {
    Kernel::load(Options { hooks: Some(Hooks::Clsact), ..Options::default() })
        .expect("the programs load")
}

#[test]
fn attaching_filters_twice_leaves_one_at_each_hook_and_detaching_leaves_nothing() {
    let node = Node::new();
    node.enter(|kernel| {
        assert!(!node.has_clsact());
        for _ in 0..2 {
            node.attach(kernel);
            assert_eq!(node.attached(), [1, 1]);
        }
        node.detach(kernel);
        assert!(!node.has_clsact());
    });
}

#[test]
fn filters_decide_and_no_longer_than_they_are_attached() {
    let node = Node::new();
    node.enter(|kernel| {
        assert!(node.pings());
        node.attach(kernel);
        assert!(!node.pings(), "an interface that has no endpoint is closed");
        node.detach(kernel);
        assert!(node.pings());
    });
}

#[test]
fn dropping_the_kernel_takes_its_filters_off() {
    let node = Node::new();
    node.enter(|kernel| node.attach(kernel));
    assert!(!node.has_clsact());
}

#[test]
fn a_filter_that_somebody_removed_is_attached_again() {
    let node = Node::new();
    node.enter(|kernel| {
        for (hook, left) in [("egress", [0, 1]), ("ingress", [1, 0])] {
            node.attach(kernel);
            node.tc(&["filter", "del", hook]);
            assert_eq!(node.attached(), left);
            node.attach(kernel);
            assert_eq!(node.attached(), [1, 1]);
        }
        node.tc(&["qdisc", "del", "clsact"]);
        assert!(!node.has_clsact());
        node.attach(kernel);
        assert_eq!(node.attached(), [1, 1]);
        node.detach(kernel);
        assert!(!node.has_clsact());
    });
}

#[test]
fn a_qdisc_that_was_there_before_stays() {
    let node = Node::new();
    node.tc(&["qdisc", "add", "clsact"]);
    node.enter(|kernel| {
        node.attach(kernel);
        assert_eq!(node.attached(), [1, 1]);
        node.detach(kernel);
        assert_eq!(node.attached(), [0, 0]);
        assert!(node.has_clsact());
    });
}

#[test]
fn a_filter_of_others_stays_with_the_qdisc_that_it_came_to() {
    let node = Node::new();
    node.enter(|kernel| {
        node.attach(kernel);
        // Classic BPF: matches every packet.
        let all = ["bpf", "bytecode", "1,6 0 0 4294967295,", "flowid", "1:1"];
        node.tc(&[&["filter", "add", "egress", "prio", "7"][..], &all].concat());
        node.detach(kernel);
        assert_eq!(node.attached(), [0, 0]);
        assert!(node.tc(&["filter", "show", "egress"]).contains("pref 7"));
    });
}

#[test]
fn filters_that_a_killed_agent_left_are_replaced() {
    let node = Node::new();
    node.enter(|kernel| {
        node.attach(kernel);
        let ids = |node: &Node| node.tc(&["filter", "show", "egress"]);
        let before = ids(&node);
        let mut next = load();
        node.attach(&mut next);
        assert_eq!(node.attached(), [1, 1]);
        assert_ne!(ids(&node), before, "another program, by its number");
        // What the first one would take off is not its own any more.
        node.detach(kernel);
        assert_eq!(node.attached(), [1, 1]);
        node.detach(&mut next);
        assert_eq!(node.attached(), [0, 0]);
    });
}

#[test]
fn an_ingress_qdisc_of_others_is_refused_and_left_alone() {
    let node = Node::new();
    node.tc(&["qdisc", "add", "ingress"]);
    node.enter(|kernel| {
        let error =
            kernel.execute(&Op::Attach { ifindex: node.pod.ifindex() }).expect_err("refused");
        assert!(format!("{error:#}").contains("ingress qdisc"), "{error:#}");
        assert!(node.tc(&["qdisc", "show"]).contains("qdisc ingress "));
        assert_eq!(node.tc(&["filter", "show", "ingress"]), "");
    });
}

#[test]
fn an_interface_that_was_made_anew_under_its_old_number_gets_filters_again() {
    let node = Node::new();
    node.enter(|kernel| {
        node.attach(kernel);
        let (name, index) = (node.pod.interface(), node.pod.ifindex().to_string());
        node.lab.node().ip(["link", "del", name]).expect("deleted");
        let attached = kernel.execute(&Op::Attach { ifindex: node.pod.ifindex() });
        assert!(attached.is_err(), "it is gone");
        let add = ["link", "add", "name", name, "index", &index, "type", "veth"];
        node.lab.node().ip(add).expect("made anew");
        // Somebody else's, whatever stood there before.
        node.tc(&["qdisc", "add", "clsact"]);
        node.attach(kernel);
        assert_eq!(node.attached(), [1, 1]);
        node.detach(kernel);
        assert_eq!(node.attached(), [0, 0]);
        assert!(node.has_clsact());
    });
}
