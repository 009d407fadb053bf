//! What the pods do while it is measured.
//!
//! The client and the server are two threads, each on a CPU of its own. Where a packet's time counts
//! they poll, so that waking an idle CPU, which takes longer than any enforcer and varies more, is
//! no part of it. All but the server's own work is done on the client's CPU: a veth hands a packet
//! on to the same CPU, up to the socket.

use std::{
    hint,
    io::{self, ErrorKind, Read as _, Write as _},
    net::{Ipv4Addr, Shutdown, TcpStream, UdpSocket},
    ops::AddAssign,
    panic::resume_unwind,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};

use super::{Connected, DEADLINE, PORT, SERVER, Site, seconds};
use crate::statistics::quantile;

/// Where the client runs.
pub const CLIENT_CPU: usize = 0;
/// Where the server runs.
pub const SERVER_CPU: usize = 1;

/// Written and read at once by the stream.
const CHUNK: usize = 128 * 1024;
/// The most that one packet of a stream holds, before it is cut into frames (GSO).
const LARGEST_PACKET: u64 = 65_536;
/// Of a datagram: with the headers of UDP, IPv4 and Ethernet, and its checksum, a frame of 64 bytes.
const DATAGRAM: usize = 18;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Measure {
    /// Bytes of one TCP connection.
    Stream,
    /// From a request of one byte to its answer, over an open TCP connection.
    Latency,
    /// The same: of a hundred, the slowest.
    LatencyTail,
    /// TCP connections, one after the other: opened, accepted, closed by the server, and then by
    /// the client.
    Connections,
    /// The smallest UDP datagrams that arrived, of one flow.
    Datagrams,
}

impl Measure {
    /// All, as they stand in the tables.
    pub const ALL: [Self; 5] =
        [Self::Stream, Self::Latency, Self::LatencyTail, Self::Connections, Self::Datagrams];

    /// In words.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Stream => "TCP stream",
            Self::Latency => "request and response, median",
            Self::LatencyTail => "request and response, 99th percentile",
            Self::Connections => "connections",
            Self::Datagrams => "64-byte packets",
        }
    }

    /// In one word, for JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stream => "stream",
            Self::Latency => "latency_median",
            Self::LatencyTail => "latency_p99",
            Self::Connections => "connections",
            Self::Datagrams => "datagrams",
        }
    }

    /// What its values count.
    pub const fn unit(self) -> &'static str {
        match self {
            Self::Stream => "Gbit/s",
            Self::Latency | Self::LatencyTail => "µs",
            Self::Connections => "thousand/s",
            Self::Datagrams => "million/s",
        }
    }

    /// Whether a greater value is the better one.
    pub const fn more_is_better(self) -> bool {
        match self {
            Self::Stream | Self::Connections | Self::Datagrams => true,
            Self::Latency | Self::LatencyTail => false,
        }
    }
}

/// What the pods may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workload {
    /// The client sends as much as it can over one connection.
    Stream,
    /// The client asks, the server answers, over and over.
    RequestResponse,
    /// The client connects, over and over.
    Connections,
    /// The client sends as many datagrams as it can.
    Datagrams,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Sample {
    /// What was measured.
    pub values: Vec<(Measure, f64)>,
    /// What must have been sent for that.
    pub passed: Passed,
}

/// Packets and flows that the enforcer must have met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passed {
    /// At least so many packets went to the server.
    pub to_server: u64,
    /// At least so many came back.
    pub to_client: u64,
    /// So many flows were opened.
    pub flows: u64,
}

impl AddAssign for Passed {
    fn add_assign(&mut self, more: Self) {
        self.to_server += more.to_server;
        self.to_client += more.to_client;
        self.flows += more.flows;
    }
}

impl Workload {
    /// All.
    pub const ALL: [Self; 4] =
        [Self::Stream, Self::RequestResponse, Self::Connections, Self::Datagrams];

    /// Runs it for about that long.
    ///
    /// # Errors
    /// If a packet that should pass does not, within [`DEADLINE`].
    pub fn run(self, site: &Site, time: Duration) -> Result<Sample> {
        match self {
            Self::Stream => stream(site, time),
            Self::RequestResponse => request_response(site, time),
            Self::Connections => connections(site, time),
            Self::Datagrams => datagrams(site, time),
        }
        .with_context(|| format!("{self:?}"))
    }
}

fn stream(site: &Site, time: Duration) -> Result<Sample> {
    let Connected { mut client, mut server } = site.connect()?;
    for end in [&client, &server] {
        end.set_nonblocking(false)?;
        end.set_read_timeout(Some(DEADLINE))?;
        end.set_write_timeout(Some(DEADLINE))?;
    }
    let start = Instant::now();
    let send = || {
        let chunk = vec![0; CHUNK];
        while start.elapsed() < time {
            client.write_all(&chunk)?;
        }
        client.shutdown(Shutdown::Write)?;
        anyhow::Ok(())
    };
    let receive = || {
        let (mut chunk, mut bytes) = (vec![0; CHUNK], 0_u64);
        loop {
            match server.read(&mut chunk)? {
                0 => return anyhow::Ok((bytes, seconds(start))),
                read => bytes += read as u64,
            }
        }
    };
    let ((), (bytes, taken)) = both(send, receive)?;
    Ok(Sample {
        values: vec![(Measure::Stream, bytes as f64 * 8.0 / taken / 1e9)],
        passed: Passed { to_server: bytes / LARGEST_PACKET, to_client: 1, flows: 1 },
    })
}

fn request_response(site: &Site, time: Duration) -> Result<Sample> {
    let Connected { client, server } = site.connect()?;
    let ask = || {
        let (mut client, mut taken) = (client, Vec::with_capacity(1 << 16));
        let start = Instant::now();
        let mut asked = start;
        while asked.duration_since(start) < time {
            client.write_all(b"?")?;
            let read = poll(|| client.read(&mut [0]))?;
            ensure!(read == 1, "the connection was closed");
            let answered = Instant::now();
            taken.push(answered.duration_since(asked).as_secs_f64() * 1e6);
            asked = answered;
        }
        client.shutdown(Shutdown::Both)?;
        anyhow::Ok(taken)
    };
    let answer = || {
        let mut server = server;
        while poll(|| server.read(&mut [0]))? == 1 {
            server.write_all(b"!")?;
        }
        anyhow::Ok(())
    };
    let (mut taken, ()) = both(ask, answer)?;
    taken.sort_unstable_by(f64::total_cmp);
    let of = |part| quantile(&taken, part).context("nothing was answered");
    Ok(Sample {
        values: vec![(Measure::Latency, of(0.5)?), (Measure::LatencyTail, of(0.99)?)],
        passed: Passed { to_server: taken.len() as u64, to_client: taken.len() as u64, flows: 1 },
    })
}

fn connections(site: &Site, time: Duration) -> Result<Sample> {
    let over = AtomicBool::new(false);
    let connect = || {
        let (start, mut made) = (Instant::now(), 0_u64);
        while start.elapsed() < time {
            let mut client = TcpStream::connect((SERVER, PORT))?;
            client.set_nonblocking(true)?;
            let read = poll(|| client.read(&mut [0]))?;
            ensure!(read == 0, "the server said something");
            made += 1;
        }
        anyhow::Ok((made, seconds(start)))
    };
    let connect = || {
        let made = site.client.namespace().enter(|| pinned(CLIENT_CPU, connect));
        over.store(true, Ordering::Release);
        made?
    };
    let accept = || {
        while !over.load(Ordering::Acquire) {
            match site.listener.accept() {
                Ok((accepted, _)) => drop(accepted),
                Err(error) if error.kind() == ErrorKind::WouldBlock => hint::spin_loop(),
                Err(error) => return Err(error).context("accept"),
            }
        }
        anyhow::Ok(())
    };
    let ((made, taken), ()) = both(connect, accept)?;
    Ok(Sample {
        values: vec![(Measure::Connections, made as f64 / taken / 1e3)],
        // SYN, acknowledgment, FIN; SYN with acknowledgment, FIN.
        passed: Passed { to_server: 3 * made, to_client: 2 * made, flows: made },
    })
}

fn datagrams(site: &Site, time: Duration) -> Result<Sample> {
    let client =
        site.client.namespace().enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))??;
    client.connect((SERVER, PORT))?;
    client.set_nonblocking(true)?;
    // One each way: from then on, both ends of the flow were seen.
    let mut bytes = [0; 2 * DATAGRAM];
    client.send(b"?")?;
    let (_, from) = poll(|| site.datagrams.recv_from(&mut bytes))?;
    site.datagrams.send_to(b"!", from)?;
    poll(|| client.recv(&mut bytes))?;

    let over = AtomicBool::new(false);
    let send = || {
        let (start, mut sent) = (Instant::now(), 0_u64);
        let datagram = [0; DATAGRAM];
        while start.elapsed() < time {
            for _ in 0..16 {
                let length = client.send(&datagram)?;
                ensure!(length == DATAGRAM, "half a datagram");
                sent += 1;
            }
        }
        let taken = seconds(start);
        over.store(true, Ordering::Release);
        anyhow::Ok((sent, taken))
    };
    let receive = || {
        let (mut bytes, mut received) = ([0; 2 * DATAGRAM], 0_u64);
        loop {
            // Before it is looked, so that nothing is left when nothing is found.
            let is_last = over.load(Ordering::Acquire);
            match site.datagrams.recv(&mut bytes) {
                Ok(DATAGRAM) => received += 1,
                Ok(length) => bail!("a datagram of {length} bytes"),
                Err(error) if error.kind() == ErrorKind::WouldBlock && is_last => {
                    return Ok(received);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => hint::spin_loop(),
                Err(error) => return Err(error).context("receive"),
            }
        }
    };
    let ((sent, taken), received) = both(send, receive)?;
    ensure!(received > 0, "of {sent} datagrams none arrived");
    Ok(Sample {
        values: vec![(Measure::Datagrams, received as f64 / taken / 1e6)],
        passed: Passed { to_server: sent, to_client: 1, flows: 1 },
    })
}

/// Runs both ends at once, each on its CPU.
fn both<C: Send, S: Send>(
    client: impl FnOnce() -> Result<C> + Send,
    server: impl FnOnce() -> Result<S> + Send,
) -> Result<(C, S)> {
    thread::scope(|scope| {
        let server = scope.spawn(|| pinned(SERVER_CPU, server));
        let client = scope.spawn(|| pinned(CLIENT_CPU, client));
        let client = client.join().unwrap_or_else(|panic| resume_unwind(panic)).context("client");
        let server = server.join().unwrap_or_else(|panic| resume_unwind(panic)).context("server");
        Ok((client?, server?))
    })
}

/// Does something on this CPU, then goes back to where the thread was.
///
/// # Errors
/// If the CPU is not there to be used.
pub(super) fn pinned<T>(cpu: usize, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let this = Pid::from_raw(0);
    let before = sched_getaffinity(this)?;
    let mut only = CpuSet::new();
    only.set(cpu)?;
    sched_setaffinity(this, &only).with_context(|| format!("this needs the CPU {cpu}"))?;
    let done = work();
    sched_setaffinity(this, &before)?;
    done
}

/// Tries until there is something.
pub(super) fn poll<T>(mut attempt: impl FnMut() -> io::Result<T>) -> Result<T> {
    let start = Instant::now();
    loop {
        match attempt() {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                ensure!(start.elapsed() < DEADLINE, "nothing for {DEADLINE:?}");
                hint::spin_loop();
            }
            done => return Ok(done?),
        }
    }
}
