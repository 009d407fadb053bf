//! Reads the links and addresses of one network namespace, and of the peers of its veths.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
};

use anyhow::{Context, Result};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
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

/// A veth whose peer is in another namespace.
#[derive(Debug, PartialEq, Eq)]
struct Pair {
    ifindex: u32,
    name: String,
    peer: Peer,
}

/// A link in another namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Peer {
    /// Its index there.
    ifindex: u32,
    /// This namespace's id for the other one.
    namespace: i32,
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
        let mut node_addresses = self.addresses(None).context("list this node's addresses")?;
        node_addresses.retain(|address| !address.is_loopback());

        let mut veths = BTreeMap::new();
        for Pair { ifindex, name, peer } in links.iter().filter_map(pair) {
            match self.addresses(Some(peer)) {
                Ok(peer_addresses) => {
                    self.denied.remove(&ifindex);
                    veths.insert(ifindex, Veth { ifindex, name, peer_addresses });
                }
                Err(error) => self.leave_out(ifindex, &name, &error),
            }
        }
        Ok(LinkState { veths, node_addresses })
    }

    /// The addresses of one link of another namespace; with `None`, of all links of this one.
    ///
    /// The families are asked for one by one: the list of all would have those of MCTP and the
    /// like, too.
    fn addresses(&mut self, link: Option<Peer>) -> io::Result<BTreeSet<IpAddr>> {
        let mut addresses = BTreeSet::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let answer = self.requests.dump(&addresses_of(family, link))?;
            addresses.extend(answer.iter().filter_map(usable_address));
        }
        Ok(addresses)
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

/// The question for the addresses of one link of another namespace, or of all links of this one.
fn addresses_of(family: AddressFamily, link: Option<Peer>) -> RouteNetlinkMessage {
    let mut message = AddressMessage::default();
    message.header.family = family;
    if let Some(Peer { ifindex, namespace }) = link {
        message.header.index = ifindex;
        message.attributes = vec![AddressAttribute::TargetNetNsId(namespace)];
    }
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
            // Zero, no peer, would ask for the addresses of every link over there.
            peer_ifindex = Some(*value).filter(|value| *value != 0);
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
        peer: Peer { ifindex: peer_ifindex?, namespace: peer_namespace? },
    })
}

/// The address that a message is about; `None` if it means something on its link only.
fn usable_address(message: &RouteNetlinkMessage) -> Option<IpAddr> {
    let RouteNetlinkMessage::NewAddress(message) = message else { return None };
    let on_link_only = matches!(message.header.scope, AddressScope::Link | AddressScope::Nowhere);
    if on_link_only { None } else { own_address(message) }
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
