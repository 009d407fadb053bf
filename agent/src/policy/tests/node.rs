//! A node in memory: what is compiled goes through the plan into maps, and packets meet the
//! verdict function that the kernel programs run.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use bulkhead_common::{
    decide::{Hook, decide},
    frames::{Frame, Linear, tcp},
    packet::protocol,
    verdict::{Direction, Verdict},
};

use crate::{
    dataplane::{
        fake::FakeKernel,
        op::Execute as _,
        plan::{Desired, DesiredEndpoint, Programmed},
    },
    policy::{
        compile::Compiler,
        evaluate::{Flow, Traffic},
        model::{ObjectKey, Protocol},
    },
};

/// The maps, and which interface is whose.
pub(super) struct Node {
    programmed: Programmed,
    kernel: FakeKernel,
    links: BTreeMap<ObjectKey, u32>,
}

impl Node {
    pub(super) fn new(deny_egress_to_node: bool) -> Self {
        let check_source = true;
        Self {
            programmed: Programmed::new(check_source).deny_egress_to_node(deny_egress_to_node),
            kernel: FakeKernel::default(),
            links: BTreeMap::new(),
        }
    }

    /// Makes the maps hold what was compiled. `look` sees the maps after each operation.
    pub(super) fn program(&mut self, compiler: &mut Compiler, mut look: impl FnMut(&Self)) {
        let touched = compiler.take_touched();
        let compiled = compiler.compiled();
        for pod in compiled.endpoints.keys() {
            let next = u32::try_from(self.links.len()).unwrap() + 1;
            self.links.entry(pod.clone()).or_insert(next);
        }
        let endpoints = compiled
            .endpoints
            .iter()
            .map(|(pod, policy)| (self.links[pod], DesiredEndpoint::Pod(policy)))
            .collect();
        let desired = Desired { endpoints, compiled, touched: Some(&touched) };
        for op in self.programmed.plan(&desired).unwrap() {
            self.kernel.execute(&op).unwrap();
            self.programmed.executed(&op);
            look(self);
        }
    }

    /// The verdict on a frame that opens a flow of a pod; `None` if the pod has no programs.
    pub(super) fn verdict(&self, pod: &ObjectKey, flow: &Flow, frame: &[u8]) -> Option<Verdict> {
        self.kernel.flows_v4.borrow_mut().clear();
        self.kernel.flows_v6.borrow_mut().clear();
        let ifindex = *self.links.get(pod)?;
        let hook = Hook {
            direction: flow.direction,
            ifindex,
            from_own_node: flow.from_own_node,
            from_itself: false,
            vlan_tagged: false,
        };
        self.kernel.attached.get(&ifindex)?;
        let endpoint = self.kernel.endpoints.get(&ifindex)?;
        Some(decide(&hook, endpoint, &Linear(frame), &self.kernel))
    }
}

/// A frame that opens a flow of the pod with the address `own`.
pub(super) fn frame(own: IpAddr, flow: &Flow) -> Vec<u8> {
    let (source, destination) = match flow.direction {
        Direction::Ingress => (flow.peer, own),
        Direction::Egress => (own, flow.peer),
    };
    let frame = match flow.traffic {
        Traffic::Port(protocol, port) => {
            let from = SocketAddr::new(source, 40_000);
            let to = SocketAddr::new(destination, port);
            match protocol {
                Protocol::Tcp => Frame::tcp(from, to, tcp::SYN),
                Protocol::Udp => Frame::udp(from, to),
                Protocol::Sctp => Frame::sctp(from, to),
            }
        }
        Traffic::Other(protocol::ICMP) if source.is_ipv4() => {
            Frame::echo_request(source, destination, 7)
        }
        Traffic::Other(number) => Frame::ip(source, destination, number, &[0; 20]),
    };
    frame.bytes()
}
