//! One record of the kernel, with names.
//!
//! Pure. A record is untrusted: a number without a meaning is shown as the number it is.

use std::{
    borrow::Cow,
    fmt::{self, Display},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use bulkhead_common::{
    event::Event,
    key::Port,
    verdict::{Direction, DropReason},
};
use serde::Serialize;

use crate::policy::{
    compiled::{Closed, EndpointPolicy, SidePolicy},
    model::ObjectKey,
};

/// What the agent knows about interfaces and addresses.
pub trait Names {
    /// The pod behind a host-side interface, and its policy.
    fn endpoint(&self, ifindex: u32) -> Option<(&ObjectKey, &EndpointPolicy)>;

    /// The pods that have an address: mostly none or one, two where they contradict each other.
    fn pods(&self, address: IpAddr) -> Vec<&ObjectKey>;
}

/// One dropped packet, in words. Displayed as one line; serialised for `--output json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DroppedPacket {
    /// The pod whose interface denied it, as `namespace/name`; `None` where the agent knows no pod
    /// behind the interface.
    pub pod: Option<String>,
    /// The pod's host-side interface.
    pub ifindex: u32,
    /// `ingress` or `egress`, seen from the pod.
    pub direction: Cow<'static, str>,
    /// The word of a [`DropReason`].
    pub reason: Cow<'static, str>,
    /// The name of the protocol, or its number; `None` where it was not read.
    pub protocol: Option<Cow<'static, str>>,
    /// `None` where no address was read.
    pub source: Option<End>,
    /// `None` where no address was read.
    pub destination: Option<End>,
    /// The identifier of an ICMP echo, where it is not zero.
    pub echo_id: Option<u16>,
    /// The number of an address family that is neither IPv4 nor IPv6.
    pub unknown_family: Option<u8>,
    /// Length of the frame in bytes.
    pub length: u32,
    /// The policies that isolate the pod in this direction, as `namespace/name`.
    pub policies: Vec<String>,
    /// Why the pod is closed although no policy says so.
    pub closed: Option<&'static str>,
}

/// One end of a packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct End {
    /// The address.
    pub address: IpAddr,
    /// The port, of a protocol that has ports.
    pub port: Option<u16>,
    /// The pods that have the address, as `namespace/name`.
    pub pods: Vec<String>,
}

impl End {
    /// `10.0.0.9`, `10.0.0.9:80` or `[fd00::9]:80`.
    pub fn socket(&self) -> String {
        match (self.port, self.address) {
            (None, address) => address.to_string(),
            (Some(port), IpAddr::V4(address)) => format!("{address}:{port}"),
            (Some(port), IpAddr::V6(address)) => format!("[{address}]:{port}"),
        }
    }
}

impl DroppedPacket {
    /// The end that is not the pod.
    pub fn peer(&self) -> Option<&End> {
        if self.direction == Direction::Ingress.as_str() {
            self.source.as_ref()
        } else if self.direction == Direction::Egress.as_str() {
            self.destination.as_ref()
        } else {
            None
        }
    }
}

/// Gives names to a record.
pub fn describe(event: &Event, names: &dyn Names) -> DroppedPacket {
    let direction = Direction::ALL.into_iter().find(|d| *d as u8 == event.direction);
    let endpoint = names.endpoint(event.ifindex);
    let side = match (endpoint, direction) {
        (Some((_, policy)), Some(Direction::Ingress)) => policy.ingress.as_ref(),
        (Some((_, policy)), Some(Direction::Egress)) => policy.egress.as_ref(),
        (None, _) | (_, None) => None,
    };
    let end = |address: &[u8; 16], port: Port| {
        let address = address_of(event.family, address)?;
        // What was not read is zero, and port 0 with a port at the other end does not pass for it.
        let ports_read = event.source_port.number() != 0 || event.destination_port.number() != 0;
        let port = (has_ports(event.protocol) && ports_read).then_some(port.number());
        Some(End { address, port, pods: names.pods(address).into_iter().map(words).collect() })
    };
    DroppedPacket {
        pod: endpoint.map(|(pod, _)| words(pod)),
        ifindex: event.ifindex,
        direction: direction
            .map_or_else(|| unknown(event.direction), |direction| direction.as_str().into()),
        reason: DropReason::from_number(event.reason)
            .map_or_else(|| unknown(event.reason), |reason| reason.as_str().into()),
        protocol: (event.family != 0 || event.protocol != 0).then(|| protocol(event.protocol)),
        source: end(&event.source, event.source_port),
        destination: end(&event.destination, event.destination_port),
        echo_id: Some(event.source_port.number()).filter(|id| is_icmp(event.protocol) && *id != 0),
        unknown_family: Some(event.family).filter(|family| !matches!(family, 0 | 4 | 6)),
        length: event.length,
        policies: side.map_or_else(Vec::new, |side| side.policies.iter().map(words).collect()),
        closed: side.and_then(closed),
    }
}

fn words(name: impl Display) -> String {
    name.to_string()
}

fn unknown(number: u8) -> Cow<'static, str> {
    format!("unknown({number})").into()
}

fn address_of(family: u8, bytes: &[u8; 16]) -> Option<IpAddr> {
    let [a, b, c, d, ..] = *bytes;
    match family {
        4 => Some(Ipv4Addr::new(a, b, c, d).into()),
        6 => Some(Ipv6Addr::from(*bytes).into()),
        _ => None,
    }
}

/// By IANA "Assigned Internet Protocol Numbers".
fn protocol(number: u8) -> Cow<'static, str> {
    match number {
        1 => "ICMP".into(),
        6 => "TCP".into(),
        17 => "UDP".into(),
        58 => "ICMPv6".into(),
        132 => "SCTP".into(),
        other => other.to_string().into(),
    }
}

fn has_ports(protocol: u8) -> bool {
    matches!(protocol, 6 | 17 | 132)
}

fn is_icmp(protocol: u8) -> bool {
    matches!(protocol, 1 | 58)
}

fn closed(side: &SidePolicy) -> Option<&'static str> {
    Some(match side.closed? {
        Closed::SourceIncomplete => "the source of policies has not named everything it holds",
        Closed::AddressConflict => "another pod, or the node, has one of its addresses",
    })
}

/// `ingress of shop/db denied (not_allowed): TCP 10.0.0.9:40000 (shop/web) -> 10.0.0.10:80
/// (shop/db), 74 bytes; isolated by shop/db-policy`
impl Display for DroppedPacket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of ", self.direction)?;
        match &self.pod {
            Some(pod) => f.write_str(pod)?,
            None => write!(f, "an unknown pod at interface {}", self.ifindex)?,
        }
        write!(f, " denied ({}): ", self.reason)?;
        match &self.protocol {
            None => {}
            Some(number) if number.starts_with(|c: char| c.is_ascii_digit()) => {
                write!(f, "protocol {number} ")?;
            }
            Some(name) => write!(f, "{name} ")?,
        }
        if let Some(id) = self.echo_id {
            write!(f, "id {id} ")?;
        }
        match (&self.source, &self.destination, self.unknown_family) {
            (Some(source), Some(destination), _) => write!(f, "{source} -> {destination}")?,
            (_, _, Some(family)) => write!(f, "addresses of unknown family {family}")?,
            (_, _, None) => f.write_str("no IP addresses read")?,
        }
        write!(f, ", {} bytes", self.length)?;
        if !self.policies.is_empty() {
            write!(f, "; isolated by {}", self.policies.join(", "))?;
        }
        if let Some(closed) = self.closed {
            write!(f, "; closed because {closed}")?;
        }
        Ok(())
    }
}

impl Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.socket())?;
        if !self.pods.is_empty() {
            write!(f, " ({})", self.pods.join(", "))?;
        }
        Ok(())
    }
}
