//! Many flows at once, each opened by a real packet.
//!
//! Nothing sleeps to be right: a burst is over when what was to arrive has arrived, and as many
//! packets were counted as denied as were to be denied. Only a burst that goes wrong waits for its
//! limit. Invariant: each flow has a source port (an echo: an identifier) of its own, and leaves
//! nothing open.

use std::{
    fmt,
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use bulkhead::reach::flow::FlowProtocol;
use bulkhead_common::{
    frames::Frame,
    packet::protocol::{ICMP, ICMPV6, SCTP, TCP, UDP},
};

use crate::{
    station::{Arrivals, Station, abort, begin_connection, datagrams},
    wire::headers::Headers,
};

/// How long a burst may take, on a machine that is busy with other tests.
const LIMIT: Duration = Duration::from_secs(10);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(1);
/// When what was to arrive, and has not, is sent again.
const SEND_AGAIN_EVERY: Duration = Duration::from_millis(500);
/// Length of an Ethernet header.
const ETHERNET_LEN: usize = 14;
/// Source ports: none that the kernel gives by itself before, none that anybody listens on.
const PORTS: std::ops::Range<u16> = 40_000..65_000;

/// A flow to be tried out.
pub struct Probe {
    /// For people.
    pub what: String,
    /// What it carries.
    pub protocol: FlowProtocol,
    /// Who opens it.
    pub from: IpAddr,
    /// To whom; the port is 0 for an echo.
    pub to: SocketAddr,
    /// What is expected of it.
    pub passes: bool,
}

/// The namespaces that flows go between.
#[derive(Default)]
pub struct Stations {
    stations: Vec<Station>,
    next_port: u16,
}

/// A flow under way.
struct Flight<'a> {
    probe: &'a Probe,
    headers: Headers,
    client: Client,
    /// The destination's interface is watched.
    to_watched: bool,
    /// The source's interface is watched.
    from_watched: bool,
    answered: bool,
}

enum Client {
    Tcp(Option<TcpStream>),
    Udp(UdpSocket),
    /// From the IP header on.
    Packet(Vec<u8>),
}

impl Stations {
    /// Adds one.
    pub fn add(&mut self, station: Station) {
        self.stations.push(station);
    }

    /// Removes those for which it is false.
    pub fn retain(&mut self, mut keep: impl FnMut(&Station) -> bool) {
        let (kept, removed) = self.stations.drain(..).partition(|station| keep(station));
        self.stations = kept;
        remove(removed);
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Station> {
        self.stations.iter()
    }

    /// Listens everywhere.
    pub fn listen(&mut self, ports: &[(FlowProtocol, u16)]) {
        self.stations.iter_mut().for_each(|station| station.listen(ports));
    }

    /// Whose address it is.
    pub fn at(&self, address: IpAddr) -> Option<&Station> {
        self.stations.iter().find(|station| station.addresses().contains(&address))
    }

    /// Tries out flows, and says what was otherwise than expected. `denied` counts denied packets.
    ///
    /// # Panics
    /// When an address is nobody's, or a socket can't be opened.
    pub fn send(&mut self, probes: &[Probe], denied: impl Fn() -> u64) -> Vec<String> {
        let mut arrivals = Arrivals::new();
        self.take_in(&mut arrivals);
        arrivals.clear();
        let (before, to_deny) = (denied(), probes.iter().filter(|probe| !probe.passes).count());
        let to_deny = u64::try_from(to_deny).unwrap_or(u64::MAX);
        let mut flights = self.take_off(probes, &mut arrivals);
        let started = Instant::now();
        let mut send_again = started + SEND_AGAIN_EVERY;
        let failures = loop {
            self.take_in(&mut arrivals);
            flights.iter_mut().for_each(|flight| flight.look(&arrivals));
            let over = started.elapsed() > LIMIT;
            let landed = |flight: &Flight<'_>| !flight.probe.passes || flight.passed(&arrivals);
            let counted = || denied().saturating_sub(before);
            if over || (flights.iter().all(landed) && counted() >= to_deny) {
                // Whatever was on its way has come: veths hand on at once.
                self.take_in(&mut arrivals);
                flights.iter_mut().for_each(|flight| flight.look(&arrivals));
                break failures(&flights, &arrivals, counted(), to_deny);
            }
            if Instant::now() >= send_again {
                send_again += SEND_AGAIN_EVERY;
                for flight in flights.iter().filter(|flight| !landed(flight)) {
                    self.stations[self.place_of(flight.probe.from)].resend(flight);
                }
            }
            thread::sleep(LOOK_EVERY);
        };
        flights.into_iter().for_each(Flight::end);
        self.stations.iter_mut().for_each(Station::hang_up);
        failures
    }

    fn take_in(&mut self, arrivals: &mut Arrivals) {
        self.stations.iter_mut().for_each(|station| station.take_in(arrivals));
    }

    fn place_of(&self, address: IpAddr) -> usize {
        let has = |station: &Station| station.addresses().contains(&address);
        let place = self.stations.iter().position(has);
        place.unwrap_or_else(|| panic!("{address} is nobody's"))
    }

    /// Sends the first packet of each.
    fn take_off<'a>(&mut self, probes: &'a [Probe], arrivals: &mut Arrivals) -> Vec<Flight<'a>> {
        let mut plans: Vec<Vec<(&Probe, SocketAddr, bool)>> = Vec::new();
        plans.resize_with(self.stations.len(), Vec::new);
        for probe in probes {
            let to = &self.stations[self.place_of(probe.to.ip())];
            let to_watched = to.is_watched();
            let from = SocketAddr::new(probe.from, self.port());
            plans[self.place_of(probe.from)].push((probe, from, to_watched));
        }
        let mut flights = Vec::with_capacity(probes.len());
        for (place, plan) in plans.into_iter().enumerate() {
            let station = &self.stations[place];
            let from_watched = station.is_watched();
            if plan.is_empty() {
                continue;
            }
            let open = |(probe, from, to_watched)| {
                Flight::open(station, probe, from, to_watched, from_watched)
            };
            flights.extend(station.enter(|| plan.into_iter().map(open).collect::<Vec<_>>()));
            self.take_in(arrivals);
        }
        flights
    }

    /// One that was long not used.
    fn port(&mut self) -> u16 {
        self.next_port = self.next_port.checked_add(1).unwrap_or(PORTS.start);
        if !PORTS.contains(&self.next_port) {
            self.next_port = PORTS.start;
        }
        self.next_port
    }
}

impl Drop for Stations {
    fn drop(&mut self) {
        remove(self.stations.drain(..).collect());
    }
}

/// All at once: most of it is waiting in the kernel.
fn remove(stations: Vec<Station>) {
    thread::scope(|scope| {
        for station in stations {
            scope.spawn(|| drop(station));
        }
    });
}

impl Station {
    fn resend(&self, flight: &Flight<'_>) {
        match &flight.client {
            // The kernel does.
            Client::Tcp(_) => {}
            Client::Udp(socket) => drop(socket.send(WORDS)),
            Client::Packet(packet) => self.send(packet, flight.probe.to.ip()),
        }
    }
}

/// What a datagram says.
const WORDS: &[u8] = b"probe";

impl<'a> Flight<'a> {
    /// In the source's namespace.
    fn open(
        station: &Station,
        probe: &'a Probe,
        from: SocketAddr,
        to_watched: bool,
        from_watched: bool,
    ) -> Self {
        let to = probe.to;
        let (protocol, client) = match probe.protocol {
            FlowProtocol::Tcp => (TCP, Client::Tcp(Some(begin_connection(from, to)))),
            FlowProtocol::Udp => {
                let socket = datagrams(from).expect("the port is free");
                socket.connect(to).expect("there is a way");
                (UDP, Client::Udp(socket))
            }
            FlowProtocol::Sctp => (SCTP, Client::Packet(init(from, to))),
            FlowProtocol::Icmp => {
                let protocol = if to.is_ipv4() { ICMP } else { ICMPV6 };
                let request = Frame::echo_request(from.ip(), to.ip(), from.port());
                (protocol, Client::Packet(request.bytes().split_off(ETHERNET_LEN)))
            }
        };
        let headers = Headers { protocol, from, to };
        let flight = Self { probe, headers, client, to_watched, from_watched, answered: false };
        station.resend(&flight);
        flight
    }

    /// Looks for an answer.
    fn look(&mut self, arrivals: &Arrivals) {
        self.answered |= match &self.client {
            Client::Tcp(stream) => stream.as_ref().is_some_and(|it| it.peer_addr().is_ok()),
            Client::Udp(socket) => socket.recv(&mut [0; 64]).is_ok(),
            Client::Packet(_) => arrivals.contains(&self.headers.answer()),
        };
    }

    fn arrived(&self, arrivals: &Arrivals) -> bool {
        arrivals.contains(&self.headers)
    }

    /// All of it has passed that can be seen.
    fn passed(&self, arrivals: &Arrivals) -> bool {
        let arrived = !self.to_watched || self.arrived(arrivals);
        let answered = match self.probe.protocol {
            FlowProtocol::Tcp | FlowProtocol::Udp => self.answered,
            FlowProtocol::Icmp => self.answered || !self.from_watched,
            // Nobody speaks it.
            FlowProtocol::Sctp => true,
        };
        arrived && answered
    }

    fn end(self) {
        match self.client {
            Client::Tcp(stream) => stream.into_iter().for_each(abort),
            Client::Udp(_) | Client::Packet(_) => {}
        }
    }
}

fn failures(
    flights: &[Flight<'_>],
    arrivals: &Arrivals,
    counted: u64,
    to_deny: u64,
) -> Vec<String> {
    let wrong = |flight: &&Flight<'_>| match flight.probe.passes {
        true => !flight.passed(arrivals),
        false => flight.answered || flight.arrived(arrivals),
    };
    let mut failures: Vec<String> = flights
        .iter()
        .filter(wrong)
        .map(|flight| {
            let (arrived, answered) = (flight.arrived(arrivals), flight.answered);
            format!("{}; it arrived: {arrived}, was answered: {answered}", flight.probe)
        })
        .collect();
    if counted < to_deny {
        failures.push(format!("{to_deny} packets are to be denied, {counted} were counted"));
    }
    if to_deny == 0 && counted > 0 {
        failures.push(format!("nothing is to be denied, but {counted} packets were counted"));
    }
    failures
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, from, to, .. } = self;
        let expected = if self.passes { "to pass" } else { "to be denied" };
        write!(f, "{what} ({from} to {to}), expected {expected}")
    }
}

/// An SCTP packet with an INIT chunk, from the IP header on. Nothing on the way looks at its
/// checksum.
fn init(from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    Frame::sctp(from, to).bytes().split_off(ETHERNET_LEN)
}
