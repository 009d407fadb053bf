//! What the command line asks: words to a flow.

use std::net::IpAddr;

use anyhow::{Result, anyhow, bail};

use crate::{
    policy::{index::Index, model::ObjectKey},
    reach::flow::{End, FlowProtocol},
};

/// What may stand for an end.
const FORMS: &str = "write NAMESPACE/POD or an address, or pod/NAMESPACE/POD, svc/NAMESPACE/SERVICE \
                     or node/NODE";

/// Who opens the flow.
///
/// # Errors
/// The text is no end.
pub(super) fn source(objects: &Index, text: &str) -> Result<End> {
    match written(text)? {
        Written::Said(end) => Ok(end),
        Written::PodOrService(key)
            if objects.services().contains_key(&key) && !objects.pods().contains_key(&key) =>
        {
            bail!("{key} is a service, and a service opens no flows; name one of its pods")
        }
        Written::PodOrService(key) => Ok(End::Pod(key)),
    }
}

/// To whom it goes.
///
/// # Errors
/// The text is no end, or says both a pod and a service.
pub(super) fn destination(objects: &Index, text: &str) -> Result<End> {
    match written(text)? {
        Written::Said(end) => Ok(end),
        Written::PodOrService(key) => {
            let is_pod = objects.pods().contains_key(&key);
            let is_service = objects.services().contains_key(&key);
            match (is_pod, is_service) {
                (true, true) => bail!(
                    "{key} is a pod and a service; write pod/{key} or svc/{key} to say which is \
                     meant"
                ),
                (false, true) => Ok(End::Service(key)),
                (true | false, false) => Ok(End::Pod(key)),
            }
        }
    }
}

enum Written {
    /// It says what it is.
    Said(End),
    /// Only the cluster can tell.
    PodOrService(ObjectKey),
}

fn written(text: &str) -> Result<Written> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(Written::Said(End::Ip(address)));
    }
    let parts: Vec<&str> = text.split('/').collect();
    if parts.iter().any(|part| part.is_empty()) {
        bail!("`{text}` names nobody; {FORMS}");
    }
    match *parts {
        ["node", name] => Ok(Written::Said(End::Node(name.to_owned()))),
        [namespace, name] => Ok(Written::PodOrService(ObjectKey::new(namespace, name))),
        ["pod", namespace, name] => Ok(Written::Said(End::Pod(ObjectKey::new(namespace, name)))),
        ["svc" | "service", namespace, name] => {
            Ok(Written::Said(End::Service(ObjectKey::new(namespace, name))))
        }
        _ => bail!("`{text}` names nobody; {FORMS}"),
    }
}

/// The port, and of which protocol: `443`, `53/udp`, `icmp`. For the command line's parser.
pub(super) fn port(text: &str) -> Result<(FlowProtocol, Option<u16>)> {
    const FORMS: &str = "write a number from 1 to 65535, with /tcp, /udp or /sctp (443, 53/udp), \
                         or icmp for a ping";
    let (number, protocol) = match text.split_once('/') {
        Some((number, protocol)) => (number, protocol),
        None if text.eq_ignore_ascii_case("icmp") => return Ok((FlowProtocol::Icmp, None)),
        None => (text, "tcp"),
    };
    let protocol = match protocol.to_ascii_lowercase().as_str() {
        "tcp" => FlowProtocol::Tcp,
        "udp" => FlowProtocol::Udp,
        "sctp" => FlowProtocol::Sctp,
        "icmp" => bail!("ICMP has no ports; write icmp alone"),
        other => bail!("unknown protocol `{other}`; {FORMS}"),
    };
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        bail!("`{number}` is not the number of a port; {FORMS}");
    }
    match number.parse::<u16>() {
        Ok(port) if port != 0 => Ok((protocol, Some(port))),
        Ok(_) | Err(_) => Err(anyhow!("there is no port {number}; {FORMS}")),
    }
}
