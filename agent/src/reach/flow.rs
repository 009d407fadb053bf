//! The flows that are asked about, as people write them: JSON Lines.
//!
//! Owns the format and its errors. Knows nothing of the cluster.

use std::{fmt, net::IpAddr};

use anyhow::{Context as _, anyhow, bail};
use serde::{Deserialize, Serialize};

use crate::policy::model::{self, ObjectKey};

/// A flow that is asked about: who opens it, to whom, and what it carries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlowSpec {
    /// Who opens it.
    pub from: End,
    /// To whom.
    pub to: End,
    /// What it carries.
    pub protocol: FlowProtocol,
    /// The destination port; none for ICMP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The one address family that is meant; `None`: every one that both ends have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub family: Option<Family>,
    /// What is expected of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect: Option<Outcome>,
}

/// A flow, and where it stands in its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The number of the line, from one.
    pub number: usize,
    /// The flow.
    pub flow: FlowSpec,
}

/// One end of a flow.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum End {
    /// `{"pod": "namespace/name"}`
    Pod(#[serde(with = "key")] ObjectKey),
    /// `{"ip": "10.0.0.1"}`: whoever has the address, in the cluster or outside.
    Ip(IpAddr),
    /// `{"node": "name"}`
    Node(String),
    /// `{"service": "namespace/name"}`, as a destination.
    Service(#[serde(with = "key")] ObjectKey),
}

/// A protocol of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum FlowProtocol {
    /// TCP
    Tcp,
    /// UDP
    Udp,
    /// SCTP
    Sctp,
    /// An echo request of ICMP, or of ICMPv6 on IPv6: a ping. It has no port.
    Icmp,
}

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Family {
    /// IPv4
    #[serde(rename = "IPv4")]
    Ipv4,
    /// IPv6
    #[serde(rename = "IPv6")]
    Ipv6,
}

/// Whether a flow passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It passes.
    Allow,
    /// It does not.
    Deny,
}

impl FlowSpec {
    /// Whether the parts fit each other.
    ///
    /// # Errors
    ///
    /// They don't: which field, and what to write there.
    pub fn check(&self) -> anyhow::Result<()> {
        if let End::Service(service) = &self.from {
            bail!("from: a service ({service}) opens no flows; name one of its pods");
        }
        match (self.protocol, self.port) {
            (FlowProtocol::Icmp, Some(_)) => bail!("port: ICMP has no ports; leave it out"),
            (FlowProtocol::Icmp, None) => {
                if let End::Service(service) = &self.to {
                    bail!(
                        "protocol: a service ({service}) serves TCP, UDP and SCTP; to ping, name \
                         one of its pods"
                    );
                }
            }
            (FlowProtocol::Tcp | FlowProtocol::Udp | FlowProtocol::Sctp, None) => bail!(
                "port: {} goes to a port, and none is given; add \"port\": 1 to 65535",
                self.protocol
            ),
            (FlowProtocol::Tcp | FlowProtocol::Udp | FlowProtocol::Sctp, Some(0)) => {
                bail!("port: nothing listens on port 0; write 1 to 65535")
            }
            (FlowProtocol::Tcp | FlowProtocol::Udp | FlowProtocol::Sctp, Some(_)) => {}
        }
        for (field, end) in [("from", &self.from), ("to", &self.to)] {
            let (End::Ip(address), Some(family)) = (end, self.family) else { continue };
            if Family::of(*address) != family {
                bail!("family: {field} is {address}, which is not {family}; leave one of them out");
            }
        }
        Ok(())
    }
}

impl FlowProtocol {
    /// The transport protocol that policies can name; `None` for ICMP.
    pub const fn transport(self) -> Option<model::Protocol> {
        match self {
            Self::Tcp => Some(model::Protocol::Tcp),
            Self::Udp => Some(model::Protocol::Udp),
            Self::Sctp => Some(model::Protocol::Sctp),
            Self::Icmp => None,
        }
    }
}

impl Family {
    /// Both, in the order in which they are judged.
    pub const ALL: [Self; 2] = [Self::Ipv4, Self::Ipv6];

    /// The family of an address.
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::Ipv4,
            IpAddr::V6(_) => Self::Ipv6,
        }
    }
}

impl Outcome {
    /// From whether something is allowed.
    pub const fn allowed(is_allowed: bool) -> Self {
        if is_allowed { Self::Allow } else { Self::Deny }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod(pod) => write!(f, "pod {pod}"),
            Self::Ip(address) => write!(f, "{address}"),
            Self::Node(node) => write!(f, "node {node}"),
            Self::Service(service) => write!(f, "service {service}"),
        }
    }
}

impl fmt::Display for FlowProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.transport() {
            Some(protocol) => protocol.fmt(f),
            None => f.write_str("ICMP"),
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ipv4 => "IPv4",
            Self::Ipv6 => "IPv6",
        })
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        })
    }
}

/// Reads the flows of a file: one JSON object a line; empty lines are skipped. `name` is the
/// file's name, for errors.
///
/// # Errors
///
/// The first line that is not a flow: file, line, field, and what to write there.
pub fn read(name: &str, text: &str) -> anyhow::Result<Vec<Line>> {
    let lines = text.lines().zip(1..).filter(|(line, _)| !line.trim().is_empty());
    let line = |(line, number)| match read_line(line) {
        Ok(flow) => Ok(Line { number, flow }),
        Err(error) => bail!("{name}:{number}: {error:#}"),
    };
    lines.map(line).collect()
}

fn read_line(line: &str) -> anyhow::Result<FlowSpec> {
    let mut deserializer = serde_json::Deserializer::from_str(line);
    let flow: FlowSpec = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let field = match error.path().to_string() {
            path if path == "." => String::new(),
            path => format!("{path}: "),
        };
        anyhow!("{field}{}; a flow reads like {EXAMPLE}", error.inner())
    })?;
    deserializer.end().with_context(|| format!("one flow a line, such as {EXAMPLE}"))?;
    flow.check()?;
    Ok(flow)
}

/// What a line looks like.
const EXAMPLE: &str = r#"{"from":{"pod":"shop/web"},"to":{"pod":"shop/db"},"protocol":"TCP","port":5432,"expect":"allow"}"#;

/// `namespace/name`, as one text.
mod key {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    use crate::policy::model::ObjectKey;

    pub(super) fn serialize<S: Serializer>(key: &ObjectKey, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(key)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<ObjectKey, D::Error> {
        let text = String::deserialize(from)?;
        match text.split_once('/') {
            Some((namespace, name))
                if !namespace.is_empty() && !name.is_empty() && !name.contains('/') =>
            {
                Ok(ObjectKey::new(namespace, name))
            }
            _ => Err(D::Error::custom(format!("`{text}` is not of the form namespace/name"))),
        }
    }
}

#[cfg(test)]
mod tests;
