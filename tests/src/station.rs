//! One end of real flows: a network namespace that listens, sends and answers, and whose interface
//! is watched.
//!
//! Owns sockets and no expectation. Invariant: what [`Station::take_in`] notes has come through the
//! interface *into* this namespace, not merely left another one.

use std::{
    collections::{BTreeMap, HashSet},
    io,
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::{AsRawFd as _, OwnedFd},
    sync::Arc,
};

use bulkhead::{
    lab::{Lab, Namespace, Pod},
    reach::flow::FlowProtocol,
};
use nix::{
    errno::Errno,
    libc::linger,
    sys::socket::{
        AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, connect,
        sendto, setsockopt, socket, sockopt::Linger,
    },
};

use crate::wire::{Wire, headers::Headers};

/// Length of an Ethernet header.
const ETHERNET_LEN: usize = 14;

/// What has come in anywhere.
pub type Arrivals = HashSet<Headers>;

/// An end.
pub struct Station {
    place: Place,
    addresses: Vec<IpAddr>,
    wire: Option<Wire>,
    raw: [OwnedFd; 2],
    tcp: BTreeMap<u16, TcpListener>,
    udp: BTreeMap<SocketAddr, UdpSocket>,
    /// Held until the flows are over.
    accepted: Vec<TcpStream>,
}

enum Place {
    Pod(Pod),
    Node(Arc<Lab>),
}

impl Station {
    /// A namespace of its own behind a veth.
    ///
    /// # Panics
    /// When a socket can't be opened.
    pub fn of_pod(pod: Pod) -> Self {
        let (addresses, wire) = (pod.addresses().to_vec(), Wire::open(&pod));
        wire.make_room();
        Self::new(Place::Pod(pod), addresses, Some(wire))
    }

    /// The node itself, which has no one interface to be watched.
    ///
    /// # Panics
    /// When a socket can't be opened.
    pub fn of_node(lab: Arc<Lab>, addresses: Vec<IpAddr>) -> Self {
        Self::new(Place::Node(lab), addresses, None)
    }

    fn new(place: Place, addresses: Vec<IpAddr>, wire: Option<Wire>) -> Self {
        let raw = place.namespace().enter(|| [AddressFamily::Inet, AddressFamily::Inet6].map(raw));
        Self {
            raw: raw.expect("its namespace"),
            place,
            addresses,
            wire,
            tcp: BTreeMap::new(),
            udp: BTreeMap::new(),
            accepted: Vec::new(),
        }
    }

    /// Its addresses.
    pub fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// Whether what comes in is noted.
    pub fn is_watched(&self) -> bool {
        self.wire.is_some()
    }

    /// Runs `work` inside.
    ///
    /// # Panics
    /// When the namespace can't be entered.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.place.namespace().enter(work).expect("its namespace")
    }

    /// Listens on these ports from now on; where it does already, that is left alone.
    ///
    /// # Panics
    /// When a port is taken.
    pub fn listen(&mut self, ports: &[(FlowProtocol, u16)]) {
        let (mut tcp, mut udp) = (Vec::new(), Vec::new());
        for &(protocol, port) in ports {
            match protocol {
                FlowProtocol::Tcp if !self.tcp.contains_key(&port) => tcp.push(port),
                FlowProtocol::Udp => {
                    let at = self.addresses.iter().map(|ip| SocketAddr::new(*ip, port));
                    udp.extend(at.filter(|at| !self.udp.contains_key(at)));
                }
                FlowProtocol::Tcp | FlowProtocol::Sctp | FlowProtocol::Icmp => {}
            }
        }
        if tcp.is_empty() && udp.is_empty() {
            return;
        }
        let (tcp, udp) = self.enter(|| {
            let listener = |port| (port, listener(port).expect("the port is free"));
            let socket = |at| (at, datagrams(at).expect("the port is free"));
            let tcp: Vec<_> = tcp.into_iter().map(listener).collect();
            let udp: Vec<_> = udp.into_iter().map(socket).collect();
            (tcp, udp)
        });
        self.tcp.extend(tcp);
        self.udp.extend(udp);
    }

    /// Notes what has come in, accepts connections, and answers datagrams.
    ///
    /// # Panics
    /// When a socket breaks.
    pub fn take_in(&mut self, arrivals: &mut Arrivals) {
        while let Some(frame) = self.wire.as_ref().and_then(Wire::next_frame) {
            if let Some(headers) = Headers::read(&frame[ETHERNET_LEN.min(frame.len())..])
                && self.addresses.contains(&headers.to.ip())
            {
                arrivals.insert(headers);
            }
        }
        for listener in self.tcp.values() {
            while let Ok((stream, _)) = listener.accept() {
                self.accepted.push(stream);
            }
        }
        let mut words = [0; 64];
        for socket in self.udp.values() {
            while let Ok((len, from)) = socket.recv_from(&mut words) {
                // An answer that can't be sent is one that does not come.
                drop(socket.send_to(&words[..len], from));
            }
        }
    }

    /// Ends the connections that were accepted, without a farewell.
    pub fn hang_up(&mut self) {
        self.accepted.drain(..).for_each(abort);
    }

    /// Sends a packet: the kernel finds the way, everything from the IP header on is the caller's.
    ///
    /// # Panics
    /// When the kernel does not take it.
    pub fn send(&self, packet: &[u8], to: IpAddr) {
        let raw = &self.raw[usize::from(to.is_ipv6())];
        let at = SockaddrStorage::from(SocketAddr::new(to, 0));
        let sent = sendto(raw.as_raw_fd(), packet, &at, MsgFlags::empty());
        sent.unwrap_or_else(|error| panic!("a packet to {to}: {error}"));
    }
}

impl Place {
    fn namespace(&self) -> &Namespace {
        match self {
            Self::Pod(pod) => pod.namespace(),
            Self::Node(lab) => lab.node(),
        }
    }
}

/// Begins a TCP connection in the calling thread's namespace; it is there, or fails, later.
///
/// # Panics
/// When the kernel does not even begin.
pub fn begin_connection(from: SocketAddr, to: SocketAddr) -> TcpStream {
    let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let begin = || {
        let socket = socket(family, SockType::Stream, flags, None)?;
        bind(socket.as_raw_fd(), &SockaddrStorage::from(from))?;
        match connect(socket.as_raw_fd(), &SockaddrStorage::from(to)) {
            Ok(()) | Err(Errno::EINPROGRESS) => Ok(socket),
            Err(error) => Err(error),
        }
    };
    TcpStream::from(begin().unwrap_or_else(|error| panic!("{from} to {to}: {error}")))
}

/// A UDP socket in the calling thread's namespace that does not wait.
///
/// # Errors
/// When the port is taken.
pub fn datagrams(at: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(at)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Ends a connection without a farewell.
///
/// # Panics
/// When the kernel knows no such end.
pub fn abort(stream: TcpStream) {
    setsockopt(&stream, Linger, &linger { l_onoff: 1, l_linger: 0 }).expect("a socket option");
}

fn listener(port: u16) -> io::Result<TcpListener> {
    let listener = TcpListener::bind((std::net::Ipv6Addr::UNSPECIFIED, port))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// For packets with their header, of any protocol.
fn raw(family: AddressFamily) -> OwnedFd {
    let opened = socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Raw);
    opened.expect("a raw socket")
}
