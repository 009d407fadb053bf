//! Single addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An address that something (`pod`, `service`) can have. IPv4 written as IPv6 is IPv4.
pub(super) fn unicast(text: &str, whose: &str) -> Result<IpAddr, String> {
    let address = parse(text).ok_or_else(|| {
        format!("`{text}` is not an IP address; write one such as 10.0.0.10 or fd00:10::10")
    })?;
    let address = address.to_canonical();
    if address.is_unspecified() || address.is_loopback() || address.is_multicast() {
        return Err(format!(
            "{address} is not an address that a {whose} can have; write the {whose}'s own"
        ));
    }
    Ok(address)
}

/// An address as it is written. Leading zeros are decimal: so does the server read what older ones
/// stored (`ParseIPSloppy` of `k8s.io/utils/net`).
pub(super) fn parse(text: &str) -> Option<IpAddr> {
    let Some((head, tail)) = text.rsplit_once(':') else {
        return dotted(text).map(IpAddr::V4);
    };
    if tail.contains('.') {
        return format!("{head}:{}", dotted(tail)?).parse().ok().map(IpAddr::V6);
    }
    text.parse::<Ipv6Addr>().ok().map(IpAddr::V6)
}

/// An IPv4 address, each part of it decimal.
fn dotted(text: &str) -> Option<Ipv4Addr> {
    let parts: Vec<u8> = text.split('.').map(decimal).collect::<Option<_>>()?;
    <[u8; 4]>::try_from(parts).ok().map(Ipv4Addr::from)
}

/// Digits and nothing else, leading zeros too.
pub(super) fn decimal(text: &str) -> Option<u8> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}
