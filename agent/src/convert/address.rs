//! Single addresses.

use std::net::IpAddr;

/// An address that something (`pod`, `service`) can have. IPv4 written as IPv6 is IPv4.
pub(super) fn unicast(text: &str, whose: &str) -> Result<IpAddr, String> {
    let address: IpAddr = text.parse().map_err(|_| {
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
