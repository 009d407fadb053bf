//! Reads the links and addresses of one network namespace, and of the peers of its veths.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
};

use anyhow::{Context, Result};
use netlink_packet_route::{
    RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage, AddressScope},
    link::{InfoKind, LinkAttribute, LinkExtentMask, LinkInfo, LinkMessage},
};

use super::{LinkState, Veth, request::Requests};

/// Reads states.
#[derive(Debug)]
pub(super) struct Reader {
    requests: Requests,
    /// Veths whose peers we may not ask; said once for each.
    denied: BTreeSet<u32>,
}

/// A veth, and where its peer is.
#[derive(Debug, PartialEq, Eq)]
struct Pair {
    ifindex: u32,
    name: String,
    peer_ifindex: u32,
    /// This namespace's id for the peer's.
    peer_namespace: i32,
}

impl Reader {
    /// Reads the network namespace of the calling thread, from now on.
    pub(super) fn open() -> Result<Self> {
        let requests = Requests::open().context("open a netlink socket with strict checking")?;
        Ok(Self { requests, denied: BTreeSet::new() })
    }

    /// Reads the state. A veth whose peer cannot be asked is left out.
    ///
    /// The lists are read one after the other. If the pod behind a veth is replaced meanwhile, the
    /// kernel may have given its namespace id to the next one; the notification of that makes the
    /// state be read again.
    pub(super) fn read(&mut self) -> Result<LinkState> {
        let links = self.requests.dump(&all_veths()).context("list the veths")?;
        let own = self.requests.dump(&own_addresses()).context("list this node's addresses")?;

        let mut veths = BTreeMap::new();
        for Pair { ifindex, name, peer_ifindex, peer_namespace } in links.iter().filter_map(pair) {
            match self.requests.dump(&addresses_of(peer_ifindex, peer_namespace)) {
                Ok(answer) => {
                    self.denied.remove(&ifindex);
                    let peer_addresses = usable_addresses(&answer).collect();
                    veths.insert(ifindex, Veth { ifindex, name, peer_addresses });
                }
                Err(error) => self.leave_out(ifindex, &name, &error),
            }
        }
        let node_addresses =
            usable_addresses(&own).filter(|address| !address.is_loopback()).collect();
        Ok(LinkState { veths, node_addresses })
    }

    /// Says that a veth is left out: loudly, and once, if that will not pass by itself.
    fn leave_out(&mut self, ifindex: u32, name: &str, error: &io::Error) {
        if error.kind() == io::ErrorKind::PermissionDenied && self.denied.insert(ifindex) {
            tracing::warn!(
                "veth {name} is left out: its peer's addresses need CAP_NET_ADMIN in the user \
                 namespace of the peer: {error}"
            );
        } else {
            tracing::debug!("veth {name} is left out this time: {error}");
        }
    }
}

/// The question for every veth, without statistics.
fn all_veths() -> RouteNetlinkMessage {
    let mut message = LinkMessage::default();
    message.attributes = vec![
        LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Veth)]),
        LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]),
    ];
    RouteNetlinkMessage::GetLink(message)
}

/// The question for every address of this namespace.
fn own_addresses() -> RouteNetlinkMessage {
    RouteNetlinkMessage::GetAddress(AddressMessage::default())
}

/// The question for the addresses of one link in another namespace.
fn addresses_of(ifindex: u32, namespace: i32) -> RouteNetlinkMessage {
    let mut message = AddressMessage::default();
    message.header.index = ifindex;
    message.attributes = vec![AddressAttribute::TargetNetNsId(namespace)];
    RouteNetlinkMessage::GetAddress(message)
}

/// The veth that a message is about; `None` if its peer is not in another namespace. Without a
/// veth module the kernel does not know the kind, and ignores the filter of the question.
fn pair(message: &RouteNetlinkMessage) -> Option<Pair> {
    let RouteNetlinkMessage::NewLink(link) = message else { return None };
    let (mut is_veth, mut name, mut peer_ifindex, mut peer_namespace) = (false, None, None, None);
    for attribute in &link.attributes {
        if let LinkAttribute::LinkInfo(info) = attribute {
            is_veth = info.contains(&LinkInfo::Kind(InfoKind::Veth));
        } else if let LinkAttribute::IfName(value) = attribute {
            name = Some(value.clone());
        } else if let LinkAttribute::Link(value) = attribute {
            peer_ifindex = Some(*value);
        } else if let LinkAttribute::LinkNetNsId(value) = attribute {
            peer_namespace = Some(*value);
        }
    }
    if !is_veth {
        return None;
    }
    Some(Pair {
        ifindex: link.header.index,
        name: name?,
        peer_ifindex: peer_ifindex?,
        peer_namespace: peer_namespace?,
    })
}

/// The addresses of an answer, but those that mean something on their link only.
fn usable_addresses(answer: &[RouteNetlinkMessage]) -> impl Iterator<Item = IpAddr> {
    answer.iter().filter_map(|message| {
        let RouteNetlinkMessage::NewAddress(message) = message else { return None };
        let on_link_only =
            matches!(message.header.scope, AddressScope::Link | AddressScope::Nowhere);
        if on_link_only { None } else { own_address(message) }
    })
}

/// The link's own address: IFA_LOCAL; where that is missing (IPv6 without a point-to-point peer),
/// IFA_ADDRESS, which otherwise is the other end's.
fn own_address(message: &AddressMessage) -> Option<IpAddr> {
    let mut address = None;
    for attribute in &message.attributes {
        if let AddressAttribute::Local(value) = attribute {
            return Some(*value);
        } else if let AddressAttribute::Address(value) = attribute {
            address = Some(*value);
        }
    }
    address
}

#[cfg(test)]
mod tests;
