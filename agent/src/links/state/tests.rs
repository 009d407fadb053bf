//! What the messages of the kernel mean, without a kernel.

use super::*;

fn link(ifindex: u32, attributes: Vec<LinkAttribute>) -> RouteNetlinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = ifindex;
    message.attributes = attributes;
    RouteNetlinkMessage::NewLink(message)
}

fn kind(kind: InfoKind) -> LinkAttribute {
    LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind)])
}

fn address(scope: AddressScope, attributes: Vec<AddressAttribute>) -> RouteNetlinkMessage {
    let mut message = AddressMessage::default();
    message.header.scope = scope;
    message.attributes = attributes;
    RouteNetlinkMessage::NewAddress(message)
}

fn ip(address: &str) -> IpAddr {
    address.parse().unwrap()
}

#[test]
fn a_veth_qualifies_by_the_namespace_of_its_peer() {
    let name = || LinkAttribute::IfName("veth0".to_owned());
    let peer = || LinkAttribute::Link(2);
    let namespace = || LinkAttribute::LinkNetNsId(0);

    let found = pair(&link(7, vec![name(), peer(), kind(InfoKind::Veth), namespace()]));
    let expected = Peer { ifindex: 2, namespace: 0 };
    let expected = Pair { ifindex: 7, name: "veth0".to_owned(), peer: expected };
    assert_eq!(found, Some(expected));

    let inside_the_node = link(7, vec![name(), peer(), kind(InfoKind::Veth)]);
    assert_eq!(pair(&inside_the_node), None);
    let macvlan = link(7, vec![name(), peer(), kind(InfoKind::MacVlan), namespace()]);
    assert_eq!(pair(&macvlan), None);
    let without_peer = vec![name(), LinkAttribute::Link(0), kind(InfoKind::Veth), namespace()];
    assert_eq!(pair(&link(7, without_peer)), None);
    let device = link(7, vec![name()]);
    assert_eq!(pair(&device), None);
}

#[test]
fn addresses_of_link_scope_are_nobodys() {
    let of = |scope, value| address(scope, vec![AddressAttribute::Address(ip(value))]);
    let answer = [
        of(AddressScope::Universe, "10.0.0.10"),
        of(AddressScope::Link, "fe80::1"),
        of(AddressScope::Link, "169.254.1.1"),
        of(AddressScope::Universe, "169.254.20.10"),
        of(AddressScope::Host, "10.96.0.10"),
        of(AddressScope::Nowhere, "10.0.0.11"),
        of(AddressScope::Site, "fec0::1"),
    ];
    let found: Vec<_> = answer.iter().filter_map(usable_address).collect();
    assert_eq!(found, ["10.0.0.10", "169.254.20.10", "10.96.0.10", "fec0::1"].map(ip));
}

#[test]
fn the_local_end_of_a_point_to_point_address_counts() {
    let (near, far) = (ip("10.0.0.10"), ip("10.0.0.11"));
    for attributes in [
        vec![AddressAttribute::Address(far), AddressAttribute::Local(near)],
        vec![AddressAttribute::Local(near), AddressAttribute::Address(far)],
    ] {
        let message = address(AddressScope::Universe, attributes);
        assert_eq!(usable_address(&message), Some(near));
    }
}
