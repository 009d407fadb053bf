//! A node in memory: what is compiled goes through the plan into maps, and packets meet the
//! verdict function that the kernel programs run.

use std::{collections::BTreeMap, net::IpAddr};

use bulkhead_common::{
    decide::{Hook, decide},
    packet::{Bytes, Header, protocol},
    verdict::{Direction, Verdict},
};

use crate::{
    dataplane::{
        fake::FakeKernel,
        op::Execute as _,
        plan::{Desired, DesiredEndpoint, Programmed},
    },
    policy::{
        compiled::Compiled,
        evaluate::{Flow, Traffic},
        model::ObjectKey,
    },
};

/// The maps, and which interface is whose.
pub(super) struct Node {
    programmed: Programmed,
    kernel: FakeKernel,
    links: BTreeMap<ObjectKey, u32>,
}

impl Node {
    pub(super) fn new() -> Self {
        let check_source = true;
        Self {
            programmed: Programmed::new(check_source),
            kernel: FakeKernel::default(),
            links: BTreeMap::new(),
        }
    }

    /// Makes the maps hold what was compiled.
    pub(super) fn program(&mut self, compiled: &Compiled) {
        for pod in compiled.endpoints.keys() {
            let next = u32::try_from(self.links.len()).unwrap() + 1;
            self.links.entry(pod.clone()).or_insert(next);
        }
        let endpoints = compiled
            .endpoints
            .iter()
            .map(|(pod, policy)| (self.links[pod], DesiredEndpoint::Pod(policy)))
            .collect();
        let desired =
            Desired { endpoints, peers: Some(&compiled.peers), rules: Some(&compiled.rules) };
        for op in self.programmed.plan(&desired).unwrap() {
            self.kernel.execute(&op).unwrap();
            self.programmed.executed(&op);
        }
    }

    /// The verdict on the first packet of a flow, which the pod has at its address `own`.
    pub(super) fn verdict(&self, pod: &ObjectKey, own: IpAddr, flow: &Flow) -> Verdict {
        self.kernel.flows_v4.borrow_mut().clear();
        self.kernel.flows_v6.borrow_mut().clear();
        let ifindex = self.links[pod];
        let hook = Hook {
            direction: flow.direction,
            ifindex,
            from_own_node: flow.from_own_node,
            vlan_tagged: false,
        };
        let (source, destination) = match flow.direction {
            Direction::Ingress => (flow.peer, own),
            Direction::Egress => (own, flow.peer),
        };
        let frame = Frame::new(source, destination, flow.traffic);
        decide(&hook, &self.kernel.endpoints[&ifindex], &frame, &self.kernel)
    }
}

/// An Ethernet frame that opens a flow.
struct Frame(Vec<u8>);

const TRANSPORT_LEN: u8 = 20;

impl Frame {
    fn new(source: IpAddr, destination: IpAddr, traffic: Traffic) -> Self {
        let number = match traffic {
            Traffic::Port(protocol, _) => protocol.number(),
            Traffic::Other(number) => number,
        };
        let mut bytes = vec![0; 12];
        match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                bytes.extend([0x08, 0x00, 0x45, 0, 0, 20 + TRANSPORT_LEN, 0, 0, 0, 0, 64]);
                bytes.extend([number, 0, 0]);
                bytes.extend(source.octets().into_iter().chain(destination.octets()));
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                bytes.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, TRANSPORT_LEN, number, 64]);
                bytes.extend(source.octets().into_iter().chain(destination.octets()));
            }
            (_, _) => panic!("{source} and {destination} are of different families"),
        }
        bytes.extend(transport(number, traffic));
        Self(bytes)
    }
}

/// A TCP SYN, an echo request, or whatever these bytes are in another protocol.
fn transport(number: u8, traffic: Traffic) -> [u8; TRANSPORT_LEN as usize] {
    let mut bytes = [0; TRANSPORT_LEN as usize];
    match traffic {
        Traffic::Port(_, port) => {
            bytes[..2].copy_from_slice(&40_000_u16.to_be_bytes());
            bytes[2..4].copy_from_slice(&port.to_be_bytes());
        }
        Traffic::Other(_) => bytes[0] = if number == protocol::ICMPV6 { 128 } else { 8 },
    }
    match number {
        protocol::TCP => bytes[12..14].copy_from_slice(&[0x50, 0x02]),
        protocol::UDP => bytes[5] = TRANSPORT_LEN,
        _ => {}
    }
    bytes
}

impl Bytes for Frame {
    #[expect(unsafe_code, reason = "reads plain data out of a buffer")]
    fn read<T: Header>(&self, offset: usize) -> Option<T> {
        let bytes = self.0.get(offset..)?.get(..size_of::<T>())?;
        // SAFETY: the slice is as long as `T`, and `Header` vouches for every bit pattern.
        Some(unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
    }

    fn len(&self) -> usize {
        self.0.len()
    }
}
