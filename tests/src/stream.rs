//! Steady traffic of which no bit may be lost: numbered bytes both ways over TCP, numbered datagrams
//! and their echoes over UDP.
//!
//! Owns no policy. Invariant: a loss shows, also one that is made good. A datagram that does not come
//! is missed by its number, and the kernel of each end counts what TCP sends again ([`Tcp`]).

use std::{
    fs,
    io::{self, ErrorKind, Read as _, Write as _},
    net::{TcpStream, UdpSocket},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use bulkhead::lab::Namespace;
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};

use crate::probe::{Connection, send};

/// How often both ends write, and the client sends a datagram.
const EVERY: Duration = Duration::from_millis(1);
/// Numbers that are written at a time: 512 bytes.
const NUMBERS: u64 = 64;
/// Datagrams that may be on their way at a time.
const MOST: usize = 64;

/// A connection, and datagrams between the same pods: both ends in the hands of one thread.
#[derive(Debug)]
pub struct Stream {
    client: Numbers,
    server: Numbers,
    asks: UdpSocket,
    echoes: UdpSocket,
    /// Of each datagram that was sent, how often its echo came.
    echoed: Vec<u32>,
    /// Datagrams of which the echo has not come yet.
    on_their_way: usize,
}

/// What went through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passed {
    /// Datagrams that were sent.
    pub datagrams: usize,
    /// Datagrams that did not come back.
    pub lost: u64,
    /// Bytes of TCP, of both directions.
    pub bytes: u64,
}

impl Stream {
    /// The client asks, the server echoes.
    ///
    /// # Panics
    /// When a socket option can't be set.
    pub fn new(connection: Connection, client: UdpSocket, server: UdpSocket) -> Self {
        for socket in [&client, &server] {
            socket.set_nonblocking(true).expect("a socket option");
        }
        Self {
            client: Numbers::new(connection.client),
            server: Numbers::new(connection.server),
            asks: client,
            echoes: server,
            echoed: Vec::new(),
            on_their_way: 0,
        }
    }

    /// Goes on until it is told to stop, and everything has arrived, or `patience` has passed since.
    /// All of it happens on one CPU, so that no packet overtakes another one.
    ///
    /// # Panics
    /// When a number is lost or changed, or a datagram came twice.
    pub fn run(&mut self, stop: &AtomicBool, patience: Duration) -> Passed {
        stay_on_one_cpu();
        let started = Instant::now();
        while !stop.load(Ordering::Relaxed) {
            self.client.write();
            self.server.write();
            // One that is late sends more at once, but no more than a socket holds.
            while EVERY * (self.echoed.len() as u32) < started.elapsed() && self.on_their_way < MOST
            {
                self.on_their_way += 1;
                let number = self.echoed.len() as u64;
                self.echoed.push(0);
                send(&self.asks, &self.echoes, &number.to_be_bytes());
            }
            self.take_in();
            thread::sleep((EVERY * self.echoed.len() as u32).saturating_sub(started.elapsed()));
        }
        let deadline = Instant::now() + patience;
        while !self.is_whole() && Instant::now() < deadline {
            self.client.flush();
            self.server.flush();
            self.take_in();
            thread::sleep(EVERY);
        }
        assert_eq!(self.server.heard, self.client.written, "numbers for the server");
        assert_eq!(self.client.heard, self.server.written, "numbers for the client");
        assert!(self.echoed.iter().all(|times| *times <= 1), "a datagram came twice");
        let lost = self.echoed.iter().filter(|times| **times == 0).count() as u64;
        let bytes = (self.server.heard + self.client.heard) * size_of::<u64>() as u64;
        Passed { datagrams: self.echoed.len(), lost, bytes }
    }

    /// Ends the connection, so that nothing of it is sent from then on.
    ///
    /// # Panics
    /// When it can't.
    pub fn abort(self) {
        Connection { client: self.client.stream, server: self.server.stream }.abort();
    }

    fn take_in(&mut self) {
        let mut number = [0; 8];
        while let Some((8, from)) = ready(self.echoes.recv_from(&mut number)) {
            self.echoes.send_to(&number, from).expect("the kernel takes it");
        }
        while let Some((8, _)) = ready(self.asks.recv_from(&mut number)) {
            let sent = self.echoed.get_mut(u64::from_be_bytes(number) as usize);
            *sent.expect("it was sent") += 1;
            self.on_their_way = self.on_their_way.saturating_sub(1);
        }
        self.client.read();
        self.server.read();
    }

    fn is_whole(&self) -> bool {
        self.server.heard == self.client.written
            && self.client.heard == self.server.written
            && self.echoed.iter().all(|times| *times > 0)
    }
}

/// An end of a connection that says, and hears, one number after the other.
#[derive(Debug)]
struct Numbers {
    stream: TcpStream,
    written: u64,
    heard: u64,
    /// What the kernel has not taken yet.
    outgoing: Vec<u8>,
    /// The beginning of the next number.
    incoming: Vec<u8>,
}

impl Numbers {
    fn new(stream: TcpStream) -> Self {
        stream.set_nonblocking(true).expect("a socket option");
        Self { stream, written: 0, heard: 0, outgoing: Vec::new(), incoming: Vec::new() }
    }

    fn write(&mut self) {
        let numbers = self.written..self.written + NUMBERS;
        self.written = numbers.end;
        self.outgoing.extend(numbers.flat_map(u64::to_be_bytes));
        self.flush();
    }

    fn flush(&mut self) {
        if !self.outgoing.is_empty()
            && let Some(taken) = ready(self.stream.write(&self.outgoing))
        {
            self.outgoing.drain(..taken);
        }
    }

    fn read(&mut self) {
        let mut bytes = [0; 4096];
        while let Some(len) = ready(self.stream.read(&mut bytes)) {
            assert!(len > 0, "the other end closed");
            self.incoming.extend(&bytes[..len]);
            let (whole, rest) = self.incoming.as_chunks::<8>();
            for number in whole {
                assert_eq!(u64::from_be_bytes(*number), self.heard);
                self.heard += 1;
            }
            self.incoming = rest.to_vec();
        }
    }
}

/// `None`: it would have to wait.
fn ready<T>(result: io::Result<T>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        Err(error) => panic!("it broke: {error}"),
    }
}

/// What TCP had to do in a namespace, by its kernel's own account: over all connections, what each
/// one's `TCP_INFO` has as `tcpi_total_retrans`, and resets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tcp {
    /// Segments that were sent again.
    pub retransmitted: u64,
    /// Resets that were sent.
    pub resets_sent: u64,
    /// Connections that a reset ended.
    pub reset: u64,
}

impl Tcp {
    /// So far.
    ///
    /// # Panics
    /// When the kernel does not show it.
    pub fn of(inside: &Namespace) -> Self {
        // The thread's: the process is in another namespace.
        let read = || fs::read_to_string("/proc/thread-self/net/snmp");
        let text = inside.enter(read).expect("its namespace").expect("counters");
        let mut lines = text.lines().filter_map(|line| line.strip_prefix("Tcp: "));
        let (names, values) = (lines.next().expect("names"), lines.next().expect("values"));
        let value = |name: &str| {
            let mut both = names.split(' ').zip(values.split(' '));
            let (_, value) = both.find(|(found, _)| *found == name).expect("a counter");
            value.parse().expect("a number")
        };
        Self {
            retransmitted: value("RetransSegs"),
            resets_sent: value("OutRsts"),
            reset: value("EstabResets"),
        }
    }
}

/// From now on, TCP in there sends again only what it takes for lost. By default it also does when
/// an acknowledgment is late (tail loss probe), as on a machine that is busy.
///
/// # Panics
/// When the kernel has no such setting.
pub fn without_tail_probes(inside: &Namespace) {
    let write = || fs::write("/proc/sys/net/ipv4/tcp_early_retrans", "0");
    inside.enter(write).expect("its namespace").expect("a setting");
}

/// The first one that the thread may use.
pub fn stay_on_one_cpu() {
    let this = Pid::from_raw(0);
    let allowed = sched_getaffinity(this).expect("CPUs");
    let first = (0..CpuSet::count()).find(|cpu| allowed.is_set(*cpu) == Ok(true));
    let mut only = CpuSet::new();
    only.set(first.expect("a CPU")).expect("it is one");
    sched_setaffinity(this, &only).expect("it may");
}
