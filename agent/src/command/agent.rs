//! `bulkhead agent`: enforce, until asked to stop.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result};
use bulkhead_common::verdict::DenyAction;
use clap::{Args, ValueEnum};
use tokio::{
    runtime,
    signal::unix::{SignalKind, signal},
};

use crate::{
    agent::{self, Config, Uplink},
    dataplane::uplink::Mode,
    enforcer::Options,
};

/// Enforce NetworkPolicies on this node's pods, until SIGTERM or SIGINT
///
/// Reads Namespaces, Pods and NetworkPolicies, finds each pod's veth by its addresses, and attaches
/// eBPF programs there that deny every packet no rule allows. Needs root, or the capabilities
/// CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON; with CAP_NET_BROADCAST it hears at once of an address
/// that is added inside a pod. When it ends, its programs leave and every pod is open.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  bulkhead agent --manifests deploy/examples/wordpress-mysql
  bulkhead agent --manifests /etc/bulkhead --node worker-1 --deny-action reject
  curl http://127.0.0.1:9180/readyz")]
pub struct Agent {
    /// Directory of Kubernetes manifests (*.yaml, *.yml, *.json), watched for changes
    #[arg(long, value_name = "DIR")]
    manifests: PathBuf,
    /// Enforce for the pods of this node only (spec.nodeName); without it, for every pod whose
    /// interface is here
    #[arg(long, value_name = "NAME", env = "BULKHEAD_NODE")]
    node: Option<String>,
    /// Where to serve /metrics, /healthz and /readyz
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:9180")]
    metrics_address: SocketAddr,
    /// What denied peers get to see; the annotation bulkhead.io/deny-action of a Namespace decides
    /// for its pods
    #[arg(long, value_enum, default_value = "drop")]
    deny_action: Action,
    /// Let pods send from addresses that are not theirs
    #[arg(long)]
    allow_spoofed_sources: bool,
    /// Let egress policies decide whether a pod reaches its own node, too. For nodes where the kubelet
    /// or a proxy for cloud credentials listens. Without it every pod reaches every address of its
    /// node; with it a pod that is isolated for egress needs a rule with an ipBlock around the node's
    /// address, also for what it uses there unnoticed: node-local DNS, host ports, NodePorts. What the
    /// node asks of the pod (probes) is answered in any case
    #[arg(long)]
    deny_egress_to_node: bool,
    /// Drop what is denied at this device already, by XDP: for floods from outside
    ///
    /// DEV is the node's uplink (eth0, for example), where packets for pods arrive with the pods'
    /// addresses. It is an addition: TCP SYNs, SCTP INITs and pings that a pod's rules deny, and
    /// packets for an isolated pod that make no sense, are dropped there before the kernel spends
    /// more on them; all else goes on to the pod's interface, where every packet is judged with or
    /// without this. Drops count as the pod's, whichever place they happen at. Native mode, in the
    /// device's driver, is tried first, then generic mode, which every device takes and which
    /// gains less; the log says which it is.
    #[arg(long, value_name = "DEV")]
    xdp: Option<String>,
    /// Have the kernel log every verdict, at level debug (`--log info,bulkhead_ebpf=debug`); slow
    #[arg(long)]
    debug_packets: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Action {
    /// Nothing: connections time out
    Drop,
    /// An answer: TCP is reset, all else gets "port unreachable"
    Reject,
}

impl Agent {
    /// Runs the agent.
    ///
    /// # Errors
    ///
    /// See [`agent::run`].
    pub fn run(self) -> Result<ExitCode> {
        let config = Config {
            manifests: self.manifests,
            metrics_address: self.metrics_address,
            options: Options {
                node: self.node,
                deny_action: match self.deny_action {
                    Action::Drop => DenyAction::Drop,
                    Action::Reject => DenyAction::Reject,
                },
                check_source: !self.allow_spoofed_sources,
                deny_egress_to_node: self.deny_egress_to_node,
            },
            debug_packets: self.debug_packets,
            hooks: None,
            uplink: self.xdp.map(|device| Uplink { device, modes: Mode::ALL.to_vec() }),
        };
        // The loop is one task; beside it there is little but the metrics page.
        let runtime = runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .context("cannot start the runtime")?;
        runtime.block_on(async {
            let mut terminate = signal(SignalKind::terminate()).context("cannot await SIGTERM")?;
            let mut interrupt = signal(SignalKind::interrupt()).context("cannot await SIGINT")?;
            let shutdown = async move {
                tokio::select! {
                    _ = terminate.recv() => tracing::info!("SIGTERM: ending"),
                    _ = interrupt.recv() => tracing::info!("SIGINT: ending"),
                }
            };
            agent::run(config, shutdown).await
        })?;
        Ok(ExitCode::SUCCESS)
    }
}
