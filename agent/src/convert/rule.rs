//! The rules of a policy: peers and ports.
//!
//! What can't be enforced yet is an error like any other, so that the policy is refused as a
//! whole: a rule that was left out, or taken for a wider one, would be a policy nobody wrote.

use std::ops::RangeInclusive;

use crate::{
    api,
    policy::model::{Peer, PortMatch, Ports, Protocol, Rule},
};

use super::{Defect, FieldPath, label};

/// A rule that lies at `at`. `peers_field` is `from` or `to`.
pub(super) fn rule(
    peers: Option<&[api::Peer]>,
    ports: Option<&[api::Port]>,
    peers_field: &str,
    at: &FieldPath,
) -> Result<Rule, Defect> {
    Ok(Rule {
        peers: list(peers, &at.field(peers_field), peer)?,
        ports: list(ports, &at.field("ports"), port)?,
    })
}

/// A list without elements is an absent one: it restricts nothing.
fn list<T, U>(
    written: Option<&[T]>,
    at: &FieldPath,
    convert: fn(&T, &FieldPath) -> Result<U, Defect>,
) -> Result<Option<Vec<U>>, Defect> {
    let Some(elements) = written.filter(|elements| !elements.is_empty()) else {
        return Ok(None);
    };
    let elements = elements.iter().enumerate();
    elements
        .map(|(index, element)| convert(element, &at.element(index)))
        .collect::<Result<_, _>>()
        .map(Some)
}

fn peer(written: &api::Peer, at: &FieldPath) -> Result<Peer, Defect> {
    let api::Peer { pod_selector, namespace_selector, ip_block } = written;
    if ip_block.is_some() {
        let problem = "blocks of addresses are not supported yet; name the peers by podSelector \
                       or namespaceSelector";
        return Err(Defect::new(at.field("ipBlock"), problem));
    }
    if pod_selector.is_none() && namespace_selector.is_none() {
        let problem = "the peer names nobody; write `podSelector: {}` for every pod of the \
                       namespace, `namespaceSelector: {}` for every pod, or remove the peer";
        return Err(Defect::new(at.clone(), problem));
    }
    let selector = |written: &Option<api::LabelSelector>, field| {
        written.as_ref().map(|s| label::selector(s, &at.field(field))).transpose()
    };
    Ok(Peer::Pods {
        namespaces: selector(namespace_selector, "namespaceSelector")?,
        pods: selector(pod_selector, "podSelector")?.unwrap_or_default(),
    })
}

fn port(written: &api::Port, at: &FieldPath) -> Result<PortMatch, Defect> {
    let protocol = match written.protocol.as_deref() {
        None | Some("TCP") => Protocol::Tcp,
        Some("UDP") => Protocol::Udp,
        Some("SCTP") => Protocol::Sctp,
        Some(other) => {
            let problem = format!("unknown protocol `{other}`; write TCP, UDP or SCTP");
            return Err(Defect::new(at.field("protocol"), problem));
        }
    };
    if written.end_port.is_some() {
        let problem = "ranges of ports are not supported yet; list the ports one by one";
        return Err(Defect::new(at.field("endPort"), problem));
    }
    let ports = match &written.port {
        None => Ports::All,
        Some(api::NumberOrName::Number(number)) => {
            Ports::Range(single(*number).map_err(|problem| Defect::new(at.field("port"), problem))?)
        }
        Some(api::NumberOrName::Name(name)) => {
            let problem = format!(
                "`{name}` is the name of a port, which is not supported yet; write its number \
                 without quotes"
            );
            return Err(Defect::new(at.field("port"), problem));
        }
    };
    Ok(PortMatch { protocol, ports })
}

fn single(number: i64) -> Result<RangeInclusive<u16>, String> {
    match u16::try_from(number) {
        Ok(port) if port != 0 => Ok(port..=port),
        _ => Err(format!("{number} is not a port; write a number from 1 to 65535")),
    }
}
