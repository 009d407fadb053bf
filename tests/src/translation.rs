//! What others on the node do to packets, with nftables: services, as a proxy translates them (DNAT to
//! a pod, and a node's address as the source where a pod's answer would otherwise not come back), and
//! connection tracking.
//!
//! Owns no policy. The addresses of pods and of services are given; nothing is derived from the agent.

use std::net::{IpAddr, SocketAddr};

use bulkhead::lab::Namespace;

use crate::{
    cluster::{Member, NAMESPACE},
    stack::enforcer::run,
};

/// Who is translated to an address of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Masquerade {
    /// A pod on its way to itself: otherwise it would drop what comes from its own address.
    Hairpins,
    /// Everybody who goes to a service (kube-proxy's `--masquerade-all`).
    All,
}

/// A service with one backend.
#[derive(Clone, Copy, Debug)]
pub struct Service {
    /// Its name, and that of its slices.
    pub name: &'static str,
    /// The last byte of its addresses.
    pub host: u8,
    /// Its port: TCP and UDP.
    pub port: u16,
    /// The pod that is behind it.
    pub backend: Member,
    /// The port there.
    pub target_port: u16,
}

impl Service {
    /// Its addresses: IPv4, then IPv6.
    pub fn addresses(&self) -> [IpAddr; 2] {
        let host = u16::from(self.host);
        [[10, 96, 0, self.host].into(), [0xfd00, 0x96, 0, 0, 0, 0, 0, host].into()]
    }

    /// Itself and its slices.
    pub fn manifest(&self) -> String {
        let Self { name, port, target_port, .. } = self;
        let [ipv4, ipv6] = self.addresses();
        let mut manifest = format!(
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: \
             {NAMESPACE}}}\nspec: {{clusterIP: {ipv4}, clusterIPs: [\"{ipv4}\", \"{ipv6}\"], \
             ports: [{{name: tcp, port: {port}}}, {{name: udp, protocol: UDP, port: {port}}}]}}\n"
        );
        for (family, backend) in ["IPv4", "IPv6"].into_iter().zip(self.backend.addresses()) {
            manifest += &format!(
                "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: \
                 {name}-{lower}, namespace: {NAMESPACE}, labels: {{kubernetes.io/service-name: \
                 {name}}}}}\naddressType: {family}\nendpoints: [{{addresses: [\"{backend}\"], \
                 conditions: {{ready: true}}}}]\nports: [{{name: tcp, protocol: TCP, port: \
                 {target_port}}}, {{name: udp, protocol: UDP, port: {target_port}}}]\n",
                lower = family.to_lowercase(),
            );
        }
        manifest
    }
}

/// Has the node translate these services, and no others.
///
/// # Panics
/// When `nft` is not installed, or refuses.
pub fn translate(node: &Namespace, services: &[Service], masquerade: Masquerade) {
    let mut before = String::new();
    let mut after = String::new();
    for service in services {
        for (to, backend) in service.addresses().into_iter().zip(service.backend.addresses()) {
            let ip = if to.is_ipv4() { "ip" } else { "ip6" };
            let target = SocketAddr::new(backend, service.target_port);
            for protocol in ["tcp", "udp"] {
                let port = service.port;
                before +=
                    &format!("{ip} daddr {to} {protocol} dport {port} dnat {ip} to {target}\n");
            }
            after += &match masquerade {
                Masquerade::Hairpins => {
                    format!("{ip} saddr {backend} {ip} daddr {backend} masquerade\n")
                }
                Masquerade::All => format!("ct original {ip} daddr {to} masquerade\n"),
            };
        }
    }
    let rules = format!(
        "table inet proxy\ndelete table inet proxy\ntable inet proxy {{
            chain before {{
                type nat hook prerouting priority dstnat;
                {before}
            }}
            chain after {{
                type nat hook postrouting priority srcnat;
                {after}
            }}
        }}\n"
    );
    nft(node, &rules);
}

/// Has the node track connections. To do so it puts fragments together, and takes what it forwards
/// apart again.
///
/// # Panics
/// When `nft` is not installed, or refuses.
pub fn track(node: &Namespace) {
    let rules = "table inet tracked {
            chain before {
                type filter hook prerouting priority filter;
                ct state invalid drop
            }
        }\n";
    nft(node, rules);
}

fn nft(node: &Namespace, rules: &str) {
    let mut nft = node.command("nft");
    nft.args(["-f", "-"]);
    run(nft, rules).expect("nft, of nftables");
}
