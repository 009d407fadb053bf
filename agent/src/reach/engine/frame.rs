//! The frame that asks a question, and where it is met.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result};
use bulkhead_common::{frames::Frame, frames::tcp, packet::protocol, verdict::Direction};

use crate::{
    policy::{
        evaluate::{Flow, Traffic},
        index::Index,
        model::Protocol,
    },
    reach::course::Question,
};

/// The interface behind which the pod is that is asked. The kernel takes no number for a test run
/// that no interface has; this one is the loopback interface's everywhere.
pub(super) const IFINDEX: u32 = 1;

/// What opens the flow of a question.
///
/// # Errors
///
/// The pod has no address of the flow's family.
pub(super) fn opening(index: &Index, question: &Question) -> Result<Vec<u8>> {
    let Question { pod, flow, .. } = question;
    let own = index
        .pods()
        .get(pod)
        .and_then(|pod| pod.addresses.iter().find(|own| own.is_ipv4() == flow.peer.is_ipv4()))
        .with_context(|| format!("the pod {pod} has no address of the family of {}", flow.peer))?;
    Ok(frame(*own, flow))
}

fn frame(own: IpAddr, flow: &Flow) -> Vec<u8> {
    let (source, destination) = match flow.direction {
        Direction::Ingress => (flow.peer, own),
        Direction::Egress => (own, flow.peer),
    };
    let frame = match flow.traffic {
        Traffic::Port(protocol, port) => {
            let from = SocketAddr::new(source, source_port(port));
            let to = SocketAddr::new(destination, port);
            match protocol {
                Protocol::Tcp => Frame::tcp(from, to, tcp::SYN),
                Protocol::Udp => Frame::udp(from, to),
                Protocol::Sctp => Frame::sctp(from, to),
            }
        }
        Traffic::Other(protocol::ICMP | protocol::ICMPV6) => {
            Frame::echo_request(source, destination, 7)
        }
        Traffic::Other(number) => Frame::ip(source, destination, number, &[0; 20]),
    };
    frame.bytes()
}

/// Never the destination's: no question looks like the reply to another one.
const fn source_port(destination: u16) -> u16 {
    const SOURCE: u16 = 61_000;
    if destination == SOURCE { SOURCE + 1 } else { SOURCE }
}
