//! A small node made of network namespaces: a bridge, veths, and a namespace for each pod.
//!
//! The demo and the tests run on it. It owns the namespaces it creates and nothing else; no policy,
//! no program, no map. It is no part of the agent's operation: that never calls a program nor enters
//! a namespace, while a lab is built by calling `ip` (iproute2), so that a reader can follow by hand.
//!
//! Invariant: what a lab made goes away with it, also when it is only half built or a test panics.
//! Only SIGKILL leaves namespaces behind; [`remove_all_of`] takes those away.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    process,
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context, Result, bail, ensure};
use nix::{net::if_::if_nametoindex, unistd::geteuid};

mod listener;
mod namespace;

pub use listener::Listener;
pub use namespace::{Namespace, remove_all_of};

/// The node's IPv4 address: on the bridge, and the gateway of the pods there (10.0.0.0/24).
pub const NODE_IPV4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
/// The node's IPv6 address: on the bridge, and the gateway of the pods there (fd00:10::/64).
pub const NODE_IPV6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x10, 0, 0, 0, 0, 0, 1);

const BRIDGE: &str = "cni0";
/// Next hop of routed pods: on every routed veth of the node, with link scope.
const ROUTED_GATEWAY_IPV4: &str = "169.254.1.1";
const ROUTED_GATEWAY_IPV6: &str = "fe80::1";

/// Tells the labs of one process apart.
static LABS: AtomicU32 = AtomicU32::new(0);

/// How a pod's veth is connected to the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wiring {
    /// A port of the node's bridge, as by the CNI plugin `bridge`. Addresses from 10.0.0.0/24 and
    /// fd00:10::/64.
    Bridge,
    /// A host route to the veth, as by the CNI plugin `ptp`. Addresses from anywhere else.
    Routed,
}

/// A node.
#[derive(Debug)]
pub struct Lab {
    prefix: String,
    node: Namespace,
}

impl Lab {
    /// Builds a node without pods: loopback, a bridge with [`NODE_IPV4`] and [`NODE_IPV6`], and
    /// forwarding of both families.
    ///
    /// # Errors
    /// Without root, and where `ip` is missing; the message says how to get it.
    pub fn new() -> Result<Self> {
        require_root()?;
        let lab = LABS.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("{}{lab}", namespace::prefix_of(process::id()));
        let node = Namespace::create(format!("{prefix}-node"))?;

        node.set_sysctl("net/ipv4/ip_forward", "1")?;
        node.set_sysctl("net/ipv6/conf/all/forwarding", "1")?;
        node.ip(["link", "add", BRIDGE, "type", "bridge"])?;
        node.add_address(&format!("{NODE_IPV4}/24"), BRIDGE)?;
        node.add_address(&format!("{NODE_IPV6}/64"), BRIDGE)?;
        node.ip(["link", "set", BRIDGE, "up"])?;
        Ok(Self { prefix, node })
    }

    /// The node's own namespace.
    pub fn node(&self) -> &Namespace {
        &self.node
    }

    /// Adds a pod: a namespace with a veth to the node (`eth0` inside, `veth-NAME` outside), the
    /// addresses, and a default route for each family that it has an address of.
    ///
    /// # Errors
    /// If the name is longer than ten characters or taken, or an address does not fit the wiring.
    pub fn pod(&self, name: &str, addresses: &[IpAddr], wiring: Wiring) -> Result<Pod> {
        let interface = format!("veth-{name}");
        ensure!(
            interface.len() <= 15,
            "pod name {name:?}: at most ten characters, for {interface}"
        );
        for address in addresses {
            ensure!(
                on_bridge(*address) == (wiring == Wiring::Bridge),
                "pod {name}: address {address} does not fit {wiring:?}: 10.0.0.0/24 and \
                 fd00:10::/64 are the bridge's, all others are routed"
            );
        }

        let namespace = Namespace::create(format!("{}-{name}", self.prefix))?;
        let peer = ["peer", "name", "eth0", "netns", namespace.name()];
        self.node.ip(["link", "add", &interface, "type", "veth"].into_iter().chain(peer))?;
        let ifindex = self
            .node
            .enter(|| if_nametoindex(interface.as_str()))?
            .with_context(|| format!("ifindex of {interface}"))?;
        // From here on dropping the pod removes what was made of it.
        let pod = Pod {
            name: name.to_owned(),
            addresses: addresses.to_vec(),
            interface,
            ifindex,
            namespace,
            node: self.node.name().to_owned(),
        };
        match wiring {
            Wiring::Bridge => self.wire_to_bridge(&pod)?,
            Wiring::Routed => self.wire_by_route(&pod)?,
        }
        Ok(pod)
    }

    fn wire_to_bridge(&self, pod: &Pod) -> Result<()> {
        self.node.ip(["link", "set", &pod.interface, "master", BRIDGE, "up"])?;
        pod.namespace.ip(["link", "set", "eth0", "up"])?;
        for address in &pod.addresses {
            let (prefix_length, gateway) = match address {
                IpAddr::V4(_) => (24, IpAddr::V4(NODE_IPV4)),
                IpAddr::V6(_) => (64, IpAddr::V6(NODE_IPV6)),
            };
            pod.namespace.add_address(&format!("{address}/{prefix_length}"), "eth0")?;
            // Replace: a pod may have several addresses of a family.
            let gateway = gateway.to_string();
            pod.namespace.ip(["route", "replace", "default", "via", &gateway, "dev", "eth0"])?;
        }
        Ok(())
    }

    fn wire_by_route(&self, pod: &Pod) -> Result<()> {
        let interface = pod.interface.as_str();
        self.node.ip(["link", "set", interface, "up"])?;
        pod.namespace.ip(["link", "set", "eth0", "up"])?;
        // Link scope: no address of the node, and never the source of what the node sends.
        let gateway = format!("{ROUTED_GATEWAY_IPV4}/32");
        self.node.ip(["address", "add", &gateway, "dev", interface, "scope", "link"])?;
        self.node.add_address(&format!("{ROUTED_GATEWAY_IPV6}/64"), interface)?;
        for address in &pod.addresses {
            let (prefix_length, source, gateway) = match address {
                IpAddr::V4(_) => (32, IpAddr::V4(NODE_IPV4), ROUTED_GATEWAY_IPV4),
                IpAddr::V6(_) => (128, IpAddr::V6(NODE_IPV6), ROUTED_GATEWAY_IPV6),
            };
            let host = format!("{address}/{prefix_length}");
            let source = source.to_string();
            self.node.ip(["route", "add", &host, "dev", interface, "src", &source])?;
            pod.namespace.add_address(&host, "eth0")?;
            // On link: 169.254.1.1 is in no subnet of the pod.
            let route = ["route", "replace", "default", "via", gateway, "dev", "eth0", "onlink"];
            pod.namespace.ip(route)?;
        }
        Ok(())
    }
}

/// A pod of a [`Lab`]. Dropping it deletes it, its veth first.
#[derive(Debug)]
pub struct Pod {
    name: String,
    addresses: Vec<IpAddr>,
    interface: String,
    ifindex: u32,
    namespace: Namespace,
    node: String,
}

impl Pod {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The addresses that it was made with.
    pub fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// Name of its veth on the node.
    pub fn interface(&self) -> &str {
        &self.interface
    }

    /// Index of its veth on the node.
    pub fn ifindex(&self) -> u32 {
        self.ifindex
    }

    /// Its network namespace.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        // The kernel deletes the veth some time after the namespace, later yet if a socket of the
        // namespace is open. With the link deleted here, a dropped pod is gone. If the node went
        // first, so did the link.
        let arguments = ["-n", &self.node, "link", "delete", &self.interface];
        if let Err(error) = namespace::ip(arguments) {
            tracing::debug!("veth of pod {} was not deleted: {error:#}", self.name);
        }
    }
}

/// Whether the address is of the bridge's networks.
fn on_bridge(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.octets()[..3] == NODE_IPV4.octets()[..3],
        IpAddr::V6(address) => address.octets()[..8] == NODE_IPV6.octets()[..8],
    }
}

fn require_root() -> Result<()> {
    if geteuid().is_root() {
        return Ok(());
    }
    let command: Vec<_> = std::env::args().collect();
    bail!(
        "network namespaces need root (CAP_SYS_ADMIN and CAP_NET_ADMIN): sudo {}",
        command.join(" ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bridge_has_one_network_of_each_family() {
        for (address, expected) in [
            ("10.0.0.10", true),
            ("10.0.1.10", false),
            ("fd00:10::a", true),
            ("fd00:10:0:1::a", false),
        ] {
            let parsed = address.parse().unwrap();
            assert_eq!(on_bridge(parsed), expected, "{address}");
        }
    }
}
