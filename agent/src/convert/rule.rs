//! The rules of a policy: peers and ports.
//!
//! Whatever is wrong with a rule is an error of the whole policy: a rule that was left out, or taken
//! for a wider one, would be a policy nobody wrote.

use crate::{
    api,
    policy::model::{Peer, PortMatch, Ports, Rule},
};

use super::{Defect, FieldPath, block, label, port};

/// A rule that lies at `at`. `peers_field` is `from` or `to`.
pub(super) fn rule(
    peers: Option<&[api::Peer]>,
    ports: Option<&[api::Port]>,
    peers_field: &str,
    at: &FieldPath,
) -> Result<Rule, Defect> {
    Ok(Rule {
        peers: list(peers, &at.field(peers_field), peer)?,
        ports: list(ports, &at.field("ports"), port_match)?,
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
    let has_selector = pod_selector.is_some() || namespace_selector.is_some();
    if let Some(written) = ip_block {
        if has_selector {
            let problem = "the peer has both an ipBlock and a selector; write two peers, or remove \
                           one of them";
            return Err(Defect::new(at.clone(), problem));
        }
        return block::ip_block(written, &at.field("ipBlock")).map(Peer::Block);
    }
    if !has_selector {
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

fn port_match(written: &api::Port, at: &FieldPath) -> Result<PortMatch, Defect> {
    let within = |field, problem| Defect::new(at.field(field), problem);
    let protocol = port::protocol(written.protocol.as_deref())
        .map_err(|problem| within("protocol", problem))?;
    let end = written.end_port.map(port::number).transpose();
    let end = end.map_err(|problem| within("endPort", problem))?;
    let ports = match (&written.port, end) {
        (None, None) => Ports::All,
        (None, Some(_)) => {
            let problem = "a range without its first port; write that as `port`";
            return Err(within("endPort", problem.to_owned()));
        }
        (Some(api::NumberOrName::Name(name)), end) => {
            port::check_name(name).map_err(|problem| within("port", problem))?;
            if end.is_some() {
                let problem = "a range can't start at a name; write `port` as a number, or remove \
                               endPort";
                return Err(within("endPort", problem.to_owned()));
            }
            Ports::Named(name.as_str().into())
        }
        (Some(api::NumberOrName::Number(number)), end) => {
            let first = port::number(*number).map_err(|problem| within("port", problem))?;
            let last = end.unwrap_or(first);
            if last < first {
                let problem = format!(
                    "the range ends at {last}, before its first port {first}; write the larger \
                     number as endPort"
                );
                return Err(within("endPort", problem));
            }
            Ports::Range(first..=last)
        }
    };
    Ok(PortMatch { protocol, ports })
}
