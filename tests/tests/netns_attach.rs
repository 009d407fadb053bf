//! Programs at real interfaces: attached once, and again where they were lost. Needs root.

use aya::programs::{SchedClassifier, TcAttachType};
use bulkhead::{
    dataplane::{
        kernel::{Kernel, Options},
        op::{Execute as _, Op},
    },
    lab::{Lab, Pod, Wiring},
};

/// Programs at both hooks of an interface of the calling thread's namespace.
fn attached(interface: &str) -> [usize; 2] {
    [TcAttachType::Egress, TcAttachType::Ingress].map(|hook| {
        let (_, programs) = SchedClassifier::query_tcx(interface, hook).expect("a query");
        programs.len()
    })
}

/// Runs in the node's namespace, with programs loaded.
fn on_a_node(work: impl FnOnce(&Lab, &Pod, &mut Kernel) + Send) {
    let lab = Lab::new().expect("a lab");
    let address = "10.0.0.10".parse().expect("an address");
    let pod = lab.pod("pod", &[address], Wiring::Bridge).expect("a pod");
    let inside = || {
        let mut kernel = Kernel::load(Options::default()).expect("the programs load");
        work(&lab, &pod, &mut kernel);
    };
    lab.node().enter(inside).expect("the node's namespace");
}

#[test]
fn attaching_twice_leaves_one_program_at_each_hook() {
    on_a_node(|_, pod, kernel| {
        let ifindex = pod.ifindex();
        assert_eq!(attached(pod.interface()), [0, 0]);
        for _ in 0..2 {
            kernel.execute(&Op::Attach { ifindex }).expect("attached");
            assert_eq!(attached(pod.interface()), [1, 1]);
        }
        kernel.execute(&Op::Detach { ifindex }).expect("detached");
        assert_eq!(attached(pod.interface()), [0, 0]);
    });
}

#[test]
fn an_interface_that_was_made_anew_under_its_old_number_is_attached_to_again() {
    on_a_node(|lab, pod, kernel| {
        let (name, ifindex) = (pod.interface(), pod.ifindex());
        kernel.execute(&Op::Attach { ifindex }).expect("attached");
        lab.node().ip(["link", "del", name]).expect("deleted");
        assert!(kernel.execute(&Op::Attach { ifindex }).is_err(), "it is gone");
        let index = ifindex.to_string();
        let add = ["link", "add", "name", name, "index", &index, "type", "veth"];
        lab.node().ip(add).expect("made anew");
        assert_eq!(attached(name), [0, 0]);
        kernel.execute(&Op::Attach { ifindex }).expect("attached again");
        assert_eq!(attached(name), [1, 1]);
    });
}
