//! The node's uplink: attaches the program there that drops early, and tells it where local pods are.
//!
//! An addition to what is attached to the pods. Invariants: the maps have an address only while one
//! single endpoint has it; what can't be written is left out, and its packets go on to the pod.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, anyhow};
use aya::{
    Ebpf,
    maps::{HashMap, MapData},
    programs::{Xdp, XdpMode},
};
use bulkhead_common::{
    abi::name,
    key::{Ipv4, Ipv6},
    value::Endpoint,
};
use nix::net::if_::if_nametoindex;

use super::{
    kernel::{absent_is_fine, take},
    op::MapAddress,
    refusal,
};

/// Where the program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// In the driver, before the kernel makes a packet of what came in.
    Native,
    /// In the kernel, for devices of any driver.
    Generic,
}

impl Mode {
    /// In the order in which they are tried.
    pub const ALL: [Self; 2] = [Self::Native, Self::Generic];

    /// In words.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }

    const fn of_aya(self) -> XdpMode {
        match self {
            Self::Native => XdpMode::Driver,
            Self::Generic => XdpMode::Skb,
        }
    }
}

/// The interfaces of local pods, by their addresses.
pub(super) struct Uplink {
    locals_v4: HashMap<MapData, Ipv4, u32>,
    locals_v6: HashMap<MapData, Ipv6, u32>,
    claims: Claims,
}

impl Uplink {
    /// Loads the program; attaches nothing.
    pub(super) fn load(ebpf: &mut Ebpf) -> anyhow::Result<Self> {
        program(ebpf)?.load().map_err(|error| refusal::of_program(name::UPLINK, error))?;
        Ok(Self {
            locals_v4: take(ebpf, name::LOCALS_V4)?,
            locals_v6: take(ebpf, name::LOCALS_V6)?,
            claims: Claims::default(),
        })
    }

    /// After an endpoint was written: its packets are led to it from here on.
    ///
    /// Until then the old entry leads to an endpoint that has another address, which the program sees.
    pub(super) fn set(&mut self, ifindex: u32, endpoint: &Endpoint) {
        let ipv4 = (!endpoint.ipv4.is_zero()).then_some(MapAddress::V4(endpoint.ipv4));
        let ipv6 = (!endpoint.ipv6.is_zero()).then_some(MapAddress::V6(endpoint.ipv6));
        self.write(ifindex, ipv4.into_iter().chain(ipv6).collect());
    }

    /// Before an endpoint is removed.
    pub(super) fn remove(&mut self, ifindex: u32) {
        self.write(ifindex, BTreeSet::new());
    }

    fn write(&mut self, ifindex: u32, addresses: BTreeSet<MapAddress>) {
        for (address, local) in self.claims.set(ifindex, addresses) {
            let written = match (address, local) {
                (MapAddress::V4(address), Some(local)) => self.locals_v4.insert(address, local, 0),
                (MapAddress::V6(address), Some(local)) => self.locals_v6.insert(address, local, 0),
                (MapAddress::V4(address), None) => absent_is_fine(self.locals_v4.remove(&address)),
                (MapAddress::V6(address), None) => absent_is_fine(self.locals_v6.remove(&address)),
            };
            if let Err(error) = written {
                tracing::warn!(
                    "nothing is dropped at the uplink for {address:?}, only at its pod: cannot \
                     write {} or {}: {error}",
                    name::LOCALS_V4,
                    name::LOCALS_V6,
                );
            }
        }
    }
}

/// Which interfaces have which addresses.
#[derive(Debug, Default)]
struct Claims {
    addresses: BTreeMap<u32, BTreeSet<MapAddress>>,
    interfaces: BTreeMap<MapAddress, BTreeSet<u32>>,
}

impl Claims {
    /// Sets what an interface has; of each address for which that may matter, the one interface that
    /// has it, if there is one.
    fn set(
        &mut self,
        ifindex: u32,
        addresses: BTreeSet<MapAddress>,
    ) -> Vec<(MapAddress, Option<u32>)> {
        let before = self.addresses.insert(ifindex, addresses.clone()).unwrap_or_default();
        if addresses.is_empty() {
            self.addresses.remove(&ifindex);
        }
        before
            .symmetric_difference(&addresses)
            .map(|address| {
                let interfaces = self.interfaces.entry(*address).or_default();
                if addresses.contains(address) {
                    interfaces.insert(ifindex);
                } else {
                    interfaces.remove(&ifindex);
                }
                let only = (interfaces.len() == 1).then(|| interfaces.first().copied()).flatten();
                if interfaces.is_empty() {
                    self.interfaces.remove(address);
                }
                (*address, only)
            })
            .collect()
    }
}

/// Attaches the program to a device, in the first of these modes that it takes. It leaves the device
/// with the object.
pub(super) fn attach(ebpf: &mut Ebpf, device: &str, modes: &[Mode]) -> anyhow::Result<Mode> {
    let ifindex = if_nametoindex(device).map_err(|error| {
        anyhow!("there is no device {device} here ({error}): `ip link` shows those that there are")
    })?;
    let program = program(ebpf)?;
    let mut refusals = Vec::new();
    for mode in modes {
        match program.attach_to_if_index(ifindex, mode.of_aya()) {
            Ok(_) => return Ok(*mode),
            Err(error) => {
                let why = anyhow::Error::new(error);
                refusals.push(format!("{} mode: {why:#}", mode.as_str()));
            }
        }
    }
    Err(anyhow!(
        "{device} takes no XDP program ({}): if it has one already (`ip link show dev {device}` \
         shows it), take that off, or do without",
        refusals.join("; ")
    ))
}

/// The program of the object.
pub(super) fn program(ebpf: &mut Ebpf) -> anyhow::Result<&mut Xdp> {
    let program = ebpf
        .program_mut(name::UPLINK)
        .with_context(|| format!("no program {} in the object", name::UPLINK))?;
    program.try_into().with_context(|| format!("the program {} is not of XDP", name::UPLINK))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(hosts: &[u8]) -> BTreeSet<MapAddress> {
        let address = |host: &u8| std::net::IpAddr::from([10, 0, 0, *host]).into();
        hosts.iter().map(address).collect()
    }

    fn one(host: u8) -> MapAddress {
        std::net::IpAddr::from([10, 0, 0, host]).into()
    }

    #[test]
    fn an_address_leads_to_the_one_interface_that_has_it() {
        let mut claims = Claims::default();
        assert_eq!(claims.set(7, addresses(&[1])), [(one(1), Some(7))]);
        assert_eq!(claims.set(7, addresses(&[1])), []);
        assert_eq!(claims.set(7, addresses(&[2])), [(one(1), None), (one(2), Some(7))]);
        assert_eq!(claims.set(7, addresses(&[])), [(one(2), None)]);
        assert!(claims.addresses.is_empty() && claims.interfaces.is_empty());
    }

    #[test]
    fn an_address_that_two_interfaces_have_leads_nowhere_until_one_has_it() {
        let mut claims = Claims::default();
        claims.set(7, addresses(&[1]));
        assert_eq!(claims.set(8, addresses(&[1])), [(one(1), None)]);
        assert_eq!(claims.set(7, addresses(&[])), [(one(1), Some(8))]);
    }
}
