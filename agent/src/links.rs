//! Which veth of this network namespace leads to which addresses, by netlink alone.
//!
//! A veth tells its peer's ifindex and network namespace id, and the kernel lists addresses of
//! another namespace by that id. So no namespace is entered, no container runtime is asked, and no
//! name means anything: a port of a bridge and a routed veth are found alike.
//!
//! It reports; it judges nothing. Which addresses are a pod's, and what follows when they leave, is
//! the receiver's business.
//!
//! Invariants: a state that was sent was read whole from the kernel, never patched together from
//! notifications, which only say *when* to read. What one veth's peer refuses to tell costs that
//! veth alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    time::Duration,
};

use anyhow::{Context, Result};
use futures::FutureExt;
use netlink_sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE};
use nix::libc;
use tokio::{sync::mpsc, task, time::sleep};

pub(crate) mod request;
mod state;

use state::Reader;

/// Groups of rtnetlink(7) whose notifications wake the watch.
const GROUPS: [u32; 3] = [libc::RTNLGRP_LINK, libc::RTNLGRP_IPV4_IFADDR, libc::RTNLGRP_IPV6_IFADDR];

/// How long notifications are gathered before the state is read: what sets up a pod sends dozens.
const GATHER: Duration = Duration::from_millis(5);

/// When the state is read without a notification, to find what none told.
#[derive(Clone, Copy, Debug)]
pub struct Passes {
    /// First this long after a notification or a change, then after twice that time, and so on:
    /// often where something is going on.
    pub first: Duration,
    /// The longest time between two reads.
    pub longest: Duration,
}

impl Default for Passes {
    fn default() -> Self {
        Self { first: Duration::from_millis(50), longest: Duration::from_secs(30) }
    }
}

/// What one network namespace has, as far as endpoints are concerned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkState {
    /// Every veth whose peer is in another network namespace, by its ifindex.
    pub veths: BTreeMap<u32, Veth>,
    /// The addresses of this namespace's own links, but those of link scope (fe80::/10, and
    /// 169.254.0.0/16 where it was added so) and the loopback's 127.0.0.0/8 and ::1.
    pub node_addresses: BTreeSet<IpAddr>,
}

/// A veth whose peer is in another network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Veth {
    /// Its index in this namespace: what programs are attached by.
    pub ifindex: u32,
    /// Its name in this namespace: only to be shown.
    pub name: String,
    /// The addresses on its peer, but those of link scope. Empty until something adds one.
    pub peer_addresses: BTreeSet<IpAddr>,
}

/// A watch on the network namespace of the thread that opened it.
pub struct Watch {
    notifications: TokioSocket,
    reader: Reader,
}

impl Watch {
    /// Opens the sockets, in the calling thread's network namespace; the watch stays there,
    /// whichever thread runs it.
    ///
    /// Takes CAP_NET_ADMIN for the addresses of other namespaces. With CAP_NET_BROADCAST, too, an
    /// address that is added inside a pod wakes the watch; without it, repeated reads find it.
    ///
    /// # Errors
    /// If the kernel refuses a socket or an option (strict checking needs Linux 4.20 or later).
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O.
    pub fn open() -> Result<Self> {
        let mut notifications = TokioSocket::new(NETLINK_ROUTE).context("open a netlink socket")?;
        let socket = notifications.socket_mut();
        socket.bind(&SocketAddr::new(0, 0)).context("bind a netlink socket")?;
        for group in GROUPS {
            socket
                .add_membership(group)
                .with_context(|| format!("join the rtnetlink group {group}"))?;
        }
        if let Err(error) = socket.set_listen_all_namespaces(true) {
            tracing::info!(
                "no notifications from pods' network namespaces ({error}; CAP_NET_BROADCAST would \
                 allow them): addresses added there are found by reading again"
            );
        }
        Ok(Self { notifications, reader: Reader::open()? })
    }

    /// Sends the state at the start, and again whenever it differs from what was last sent, until
    /// the receiver is closed.
    ///
    /// A read that fails as a whole is logged and repeated, and sends nothing: the last state
    /// stays. But a veth whose peer could not be asked is missing from the state, and so is an
    /// address that somebody took away to add it again: what is gone from one state may be back in
    /// the next.
    ///
    /// # Errors
    /// If the notification socket breaks: the state is not watched any more then.
    pub async fn run(self, sender: mpsc::Sender<LinkState>, passes: Passes) -> Result<()> {
        let Self { notifications, mut reader } = self;
        let mut sent = None;
        let mut failing = false;
        let mut pause = passes.first;
        loop {
            // The kernel answers at once, but not while somebody holds its link lock.
            let read = move || (reader.read(), reader);
            let state;
            (state, reader) = task::spawn_blocking(read).await.context("read the links")?;
            match state {
                Ok(state) => {
                    failing = false;
                    if sent.as_ref() != Some(&state) {
                        if sender.send(state.clone()).await.is_err() {
                            return Ok(());
                        }
                        sent = Some(state);
                        pause = passes.first;
                    }
                }
                Err(error) => {
                    if !failing {
                        pause = passes.first;
                    }
                    failing = true;
                    tracing::warn!("links stay as last read; next try in {pause:?}: {error:#}");
                }
            }
            tokio::select! {
                () = sender.closed() => return Ok(()),
                // While reads fail, notifications must not cut the pause short.
                heard = notified(&notifications), if !failing => {
                    heard.context("receive netlink notifications")?;
                    pause = passes.first;
                }
                () = sleep(pause) => pause = (pause * 2).min(passes.longest),
            }
        }
    }
}

/// Waits for a notification, and takes away all that come within [`GATHER`].
///
/// If the wait is given up half way, notifications may be lost: the caller reads the state then,
/// too.
async fn notified(socket: &TokioSocket) -> io::Result<()> {
    receive(socket).await?;
    sleep(GATHER).await;
    while let Some(received) = receive(socket).now_or_never() {
        received?;
    }
    Ok(())
}

/// Receives one notification. What it says does not matter.
async fn receive(socket: &TokioSocket) -> io::Result<()> {
    match socket.recv(&mut Vec::with_capacity(1)).await {
        Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
            tracing::debug!("netlink notifications overran; nothing is lost, all is read again");
            Ok(())
        }
        received => received,
    }
}
