//! Connections between two pods of a node, through whatever enforces policies there: the parts of
//! the benchmark `stack`.
//!
//! - [`allowance`]: which peers the policies allow,
//! - [`enforcer`]: what enforces them, and what it counted; [`nftables`], [`iptables`],
//!   [`agent`],
//! - [`workload`]: what the pods do,
//! - [`report`]: tables and JSON.
//!
//! Every [`Site`] is a node of its own, so any number of them stand beside each other and nothing
//! is torn down between two samples. Invariant: a site that was made denies who is not allowed;
//! that was seen, and counted.

use std::{
    fs,
    io::{self, ErrorKind},
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket},
    os::fd::{AsRawFd as _, OwnedFd},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use bulkhead::lab::{Lab, Pod, Wiring};
use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, SockFlag, SockType, SockaddrIn, connect as start_connect, socket,
    },
};

pub mod agent;
pub mod allowance;
pub mod enforcer;
pub mod iptables;
pub mod nftables;
pub mod report;
pub mod workload;

use enforcer::{Enforcer, Tally, Variant};
use workload::Passed;

/// The pod that is isolated. Routed, so that what enforces at the forward hook of IP sees the
/// packets without a detour by the bridge.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 10);
/// The pod that may connect to it.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 11);
/// The pod that may not.
pub const STRANGER: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 12);
/// Where the server listens, by TCP and UDP.
pub const PORT: u16 = 5001;
/// How long anything that must happen may take.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// A node with three pods, and what enforces policies on it. Fields are dropped from the top.
pub struct Site {
    variant: Variant,
    enforcer: Box<dyn Enforcer>,
    listener: TcpListener,
    datagrams: UdpSocket,
    /// Only held: its sockets are there.
    _server: Pod,
    client: Pod,
    stranger: Pod,
    lab: Lab,
}

impl Site {
    /// Makes the node and its pods, has the variant enforce its policies, and sees that it does.
    ///
    /// # Errors
    /// Without root, where a program is missing, or when a stranger is not denied.
    pub fn start(variant: Variant) -> Result<Self> {
        let lab = Lab::new()?;
        let pod = |name, address: Ipv4Addr| lab.pod(name, &[address.into()], Wiring::Routed);
        let server = pod("server", SERVER)?;
        let client = pod("client", CLIENT)?;
        let stranger = pod("stranger", STRANGER)?;
        let (listener, datagrams) = server.namespace().enter(|| {
            let listener = TcpListener::bind((SERVER, PORT))?;
            let datagrams = UdpSocket::bind((SERVER, PORT))?;
            listener.set_nonblocking(true)?;
            datagrams.set_nonblocking(true)?;
            anyhow::Ok((listener, datagrams))
        })??;
        let enforcer = variant.enforce(&lab, &[&server, &client, &stranger])?;
        let site =
            Self { variant, enforcer, listener, datagrams, _server: server, client, stranger, lab };
        site.check_denial()?;
        Ok(site)
    }

    /// What enforces here.
    pub fn enforcer(&self) -> &dyn Enforcer {
        &*self.enforcer
    }

    /// That the enforcer of this site met what passed since `before`, denied nothing, and is the
    /// only one.
    ///
    /// # Errors
    /// With what it counted instead.
    pub fn check(&self, before: Tally, passed: Passed) -> Result<()> {
        let after = self.enforcer.tally()?;
        let by_rule = after.by_rule - before.by_rule;
        let by_flow = after.by_flow - before.by_flow;
        let denied = after.denied - before.denied;
        let Passed { to_server, to_client, flows } = passed;
        let (least_by_rule, least_by_flow) = match self.variant {
            Variant::None => (0, 0),
            // All but the first packet of a flow.
            Variant::Nftables(_) | Variant::Iptables(_) => {
                (flows, (to_server + to_client).saturating_sub(flows))
            }
            Variant::BulkheadRules(_) | Variant::BulkheadPolicies(_) => (to_server, to_client),
        };
        ensure!(
            by_rule >= least_by_rule && by_flow >= least_by_flow,
            "of {passed:?} only {by_rule} packets were counted by rules and {by_flow} by flows"
        );
        ensure!(denied == 0, "{denied} packets were denied");
        let tracked = self.tracked()?;
        ensure!(
            (tracked > 0) == self.variant.is_tracking(),
            "connection tracking has {tracked} entries"
        );
        Ok(())
    }

    /// Entries of the node's connection tracking: none where the kernel has not loaded it.
    fn tracked(&self) -> Result<u64> {
        let path = "/proc/sys/net/netfilter/nf_conntrack_count";
        let text = match self.lab.node().enter(|| fs::read_to_string(path))? {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(0),
            text => text.context(path)?,
        };
        text.trim().parse().context(path)
    }

    /// First the stranger sends, then the client, by the same queue of the same CPU. The server
    /// hears both, in this order, or only the client where the stranger is denied.
    fn check_denial(&self) -> Result<()> {
        let before = self.enforcer.tally()?;
        let expected =
            if self.variant.is_enforcing() { vec![CLIENT] } else { vec![STRANGER, CLIENT] };
        workload::pinned(workload::CLIENT_CPU, || {
            let senders = [self.udp(&self.stranger)?, self.udp(&self.client)?];
            for sender in &senders {
                sender.send(b"?")?;
            }
            let heard = || self.datagrams.recv_from(&mut [0; 16]).map(|(_, from)| from);
            self.expect(&expected, heard).context("datagrams")?;

            let _stranger = self.stranger.namespace().enter(connecting)??;
            let _client = self.client.namespace().enter(connecting)??;
            let accepted = || self.listener.accept().map(|(_, from)| from);
            self.expect(&expected, accepted).context("connections")
        })?;
        let denied = self.enforcer.tally()?.denied - before.denied;
        // A datagram and a SYN.
        let expected = if self.variant.is_enforcing() { 2 } else { 0 };
        ensure!(
            denied == expected,
            "{denied} packets were denied, and {expected} should have been"
        );
        Ok(())
    }

    fn udp(&self, pod: &Pod) -> Result<UdpSocket> {
        let open = || {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            socket.connect((SERVER, PORT))?;
            anyhow::Ok(socket)
        };
        pod.namespace().enter(open)?
    }

    /// That these are the ones who are heard of, and nobody else.
    fn expect(
        &self,
        expected: &[Ipv4Addr],
        mut hear: impl FnMut() -> io::Result<SocketAddr>,
    ) -> Result<()> {
        for who in expected {
            let heard = workload::poll(&mut hear)?;
            ensure!(heard.ip() == *who, "{heard} was heard instead of {who}");
        }
        let more = hear().map_err(|error| error.kind());
        ensure!(more == Err(ErrorKind::WouldBlock), "{more:?} was heard, too");
        Ok(())
    }
}

/// A connection to the server, under way.
fn connecting() -> Result<OwnedFd> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Inet, SockType::Stream, flags, None)?;
    match start_connect(socket.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(SERVER, PORT))) {
        Ok(()) | Err(Errno::EINPROGRESS) => Ok(socket),
        Err(error) => Err(error).context("connect"),
    }
}

/// A client's connection that the server has accepted.
struct Connected {
    client: TcpStream,
    server: TcpStream,
}

impl Site {
    /// A connection of the client.
    fn connect(&self) -> Result<Connected> {
        let connect = || TcpStream::connect_timeout(&(SERVER, PORT).into(), DEADLINE);
        let client = self.client.namespace().enter(connect)??;
        let server = workload::poll(|| self.listener.accept())?.0;
        for stream in [&client, &server] {
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
        }
        Ok(Connected { client, server })
    }
}

/// Seconds since.
fn seconds(start: Instant) -> f64 {
    start.elapsed().as_secs_f64()
}
