//! What an application in a pod sees: connections, datagrams, `ping`.
//!
//! Sockets belong to the namespace that they were opened in, so one thread can hold both ends.
//! Owns no expectation.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use bulkhead::lab::Namespace;
use nix::{
    libc::linger,
    sys::socket::{setsockopt, sockopt::Linger},
};

use crate::cluster::{DEADLINE, LOOK_EVERY};

/// How long something is waited for that is not to come.
pub const PATIENCE: Duration = Duration::from_millis(300);

/// Opens a TCP connection, or does not within `limit`.
///
/// # Errors
/// What the application is told.
pub fn connect(from: &Namespace, to: IpAddr, port: u16, limit: Duration) -> io::Result<TcpStream> {
    let connect = || TcpStream::connect_timeout(&SocketAddr::new(to, port), limit);
    let stream = from.enter(connect).map_err(io::Error::other)??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Listens for TCP of both families.
///
/// # Panics
/// When the port is taken.
pub fn listen(inside: &Namespace, port: u16) -> TcpListener {
    let bind = || TcpListener::bind((Ipv6Addr::UNSPECIFIED, port));
    inside.enter(bind).expect("its namespace").expect("the port is free")
}

/// Both ends of a TCP connection.
#[derive(Debug)]
pub struct Connection {
    /// The end that opened it.
    pub client: TcpStream,
    /// The end that listened.
    pub server: TcpStream,
}

impl Connection {
    /// Connects `from` with a listener at `to`, and passes a word in each direction.
    ///
    /// # Panics
    /// When it can't.
    pub fn open(from: &Namespace, listener: &TcpListener, to: IpAddr) -> Self {
        let port = listener.local_addr().expect("it is bound").port();
        let client = connect(from, to, port, DEADLINE)
            .unwrap_or_else(|error| panic!("{} to {to} port {port}: {error}", from.name()));
        let (server, _) = listener.accept().expect("a connection");
        server.set_nodelay(true).expect("a socket option");
        let connection = Self { client, server };
        connection.expect_alive();
        connection
    }

    /// Ends both ends without a farewell, so that nothing of it is sent from then on.
    ///
    /// # Panics
    /// When it can't.
    pub fn abort(self) {
        let now = linger { l_onoff: 1, l_linger: 0 };
        for end in [&self.client, &self.server] {
            setsockopt(end, Linger, &now).expect("a socket option");
        }
    }

    /// Passes a word in each direction.
    ///
    /// # Panics
    /// When one is lost or changed.
    pub fn expect_alive(&self) {
        for (from, to) in [(&self.client, &self.server), (&self.server, &self.client)] {
            say(from, b"alive");
            expect_heard(to, b"alive");
        }
    }
}

/// Writes to a connection.
///
/// # Panics
/// When it is broken.
pub fn say(mut stream: &TcpStream, words: &[u8]) {
    stream.write_all(words).expect("it goes into the send buffer");
}

/// These bytes are the next that arrive.
///
/// # Panics
/// When they don't arrive in time, or others do.
pub fn expect_heard(mut stream: &TcpStream, words: &[u8]) {
    let mut heard = vec![0; words.len()];
    stream.set_read_timeout(Some(DEADLINE)).expect("a socket option");
    stream.read_exact(&mut heard).unwrap_or_else(|error| panic!("{words:?} is lost: {error}"));
    assert_eq!(heard, words);
}

/// Nothing has arrived so far.
///
/// # Panics
/// When something has, or the connection is broken.
pub fn expect_nothing_heard(stream: &TcpStream) {
    stream.set_nonblocking(true).expect("a socket option");
    let heard = stream.peek(&mut [0]);
    stream.set_nonblocking(false).expect("a socket option");
    let error = heard.expect_err("something arrived");
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "{error}");
}

/// How the connection broke.
///
/// # Panics
/// When it does not in time.
pub fn broken(mut stream: &TcpStream) -> io::ErrorKind {
    stream.set_read_timeout(Some(DEADLINE)).expect("a socket option");
    stream.read(&mut [0]).expect_err("nothing is to be read").kind()
}

/// To bind to where no address is meant: zero, of the same family.
pub const fn any(family: IpAddr) -> IpAddr {
    match family {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    }
}

/// A UDP socket in a pod, at one of its addresses.
///
/// # Panics
/// When the port is taken.
pub fn udp(inside: &Namespace, at: IpAddr, port: u16) -> UdpSocket {
    let bind = || UdpSocket::bind((at, port));
    let socket = inside.enter(bind).expect("its namespace").expect("the port is free");
    socket.set_read_timeout(Some(DEADLINE)).expect("a socket option");
    socket
}

/// Sends a datagram to where the other socket is.
///
/// # Panics
/// When the kernel refuses it.
pub fn send(from: &UdpSocket, to: &UdpSocket, words: &[u8]) {
    from.send_to(words, to.local_addr().expect("it is bound")).expect("the kernel takes it");
}

/// This is the next datagram that arrives.
///
/// # Panics
/// When it does not in time, or another does.
pub fn expect_received(socket: &UdpSocket, words: &[u8]) {
    let mut bytes = [0; 64];
    let received = socket.recv_from(&mut bytes);
    let (len, _) = received.unwrap_or_else(|error| panic!("{words:?} is lost: {error}"));
    assert_eq!(&bytes[..len], words);
}

/// No datagram has arrived so far.
///
/// # Panics
/// When one has.
pub fn expect_nothing_received(socket: &UdpSocket) {
    socket.set_nonblocking(true).expect("a socket option");
    let received = socket.peek_from(&mut [0; 64]);
    socket.set_nonblocking(false).expect("a socket option");
    let error = received.expect_err("a datagram arrived");
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "{error}");
}

/// What an application is told that sends a datagram, when it is told anything.
///
/// # Panics
/// When it is told nothing in time.
pub fn refused(from: &Namespace, to: IpAddr, port: u16) -> io::Error {
    refused_as(from, any(to), (to, port))
}

/// As [`refused`], of a datagram from this address.
///
/// # Panics
/// When it is told nothing in time.
pub fn refused_as(from: &Namespace, at: IpAddr, to: (IpAddr, u16)) -> io::Error {
    let connect = || {
        let socket = UdpSocket::bind((at, 0))?;
        socket.connect(to)?;
        socket.set_nonblocking(true)?;
        socket.send(b"denied")?;
        Ok::<_, io::Error>(socket)
    };
    let socket = from.enter(connect).expect("its namespace").expect("the kernel takes it");
    let deadline = Instant::now() + DEADLINE;
    loop {
        let error = socket.recv(&mut [0; 64]).expect_err("nobody answers");
        if error.kind() != io::ErrorKind::WouldBlock {
            return error;
        }
        assert!(Instant::now() < deadline, "{to:?}: not refused");
        thread::sleep(LOOK_EVERY);
    }
}

/// What `ping` said, and whether somebody answered.
#[derive(Clone, Debug)]
pub struct Ping {
    /// Its exit status was zero.
    pub answered: bool,
    /// What it printed.
    pub output: String,
}

/// Echo requests that [`ping`] sends.
pub const PINGS: u64 = 2;

/// Sends [`PINGS`] echo requests.
///
/// # Panics
/// When `ping` is not installed.
pub fn ping(from: &Namespace, to: IpAddr) -> Ping {
    ping_of(from, to, 56)
}

/// Sends [`PINGS`] echo requests that carry so many bytes each.
///
/// # Panics
/// When `ping` is not installed.
pub fn ping_of(from: &Namespace, to: IpAddr, bytes: usize) -> Ping {
    let mut command = from.command("ping");
    let (count, bytes, to) = (PINGS.to_string(), bytes.to_string(), to.to_string());
    command.args(["-n", "-i", "0.2", "-W", "1", "-c", &count, "-s", &bytes, &to]);
    let output = command.env("LC_ALL", "C").output().expect("ip runs");
    let text = [output.stdout, output.stderr].concat();
    let output_text = String::from_utf8_lossy(&text).into_owned();
    assert!(output_text.contains("PING"), "install iputils-ping: {output_text}");
    Ping { answered: output.status.success(), output: output_text }
}
