//! Answers to what is denied, on the wire: each is whole and right, by the test's own account of
//! checksums and by `tcpdump`'s, and there are no more of them than there should be. Needs root.

use std::{
    io::ErrorKind,
    iter,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use bulkhead_common::frames::{Frame, SERVICE_VLAN, VLAN, tcp};
use bulkhead_tests::{
    cluster::{Cluster, DEADLINE, LOOK_EVERY, Member, policy, rejecting_namespace},
    dump::Dump,
    pod::at,
    probe::{Connection, PINGS, any, broken, connect, expect_heard, listen, ping, refused, say},
    stream::stay_on_one_cpu,
    wire::{Wire, checksum},
};

const SERVER: Member = Member::bridged("server", 10);
const FAR_SERVER: Member = Member::routed("far-server", 10);
const CLIENT: Member = Member::bridged("client", 11);
/// Behind a route.
const FAR: Member = Member::routed("far", 12);

const PORT: u16 = 3306;
const CLIENT_PORT: u16 = 40000;

/// Where the IP header starts.
const NETWORK: usize = 14;
/// The longest frame of an Ethernet of the usual kind.
const LONGEST_FRAME: usize = 1514;
/// More than one frame, less than one packet before it is cut.
const A_LOT: usize = 32_768;
/// In which a bucket of answers is filled by some.
const A_WHILE: Duration = Duration::from_millis(50);

/// Isolates pods in these directions, and has what is denied answered.
fn reject(apps: &str, directions: &str) -> String {
    let apps = format!("{{key: app, operator: In, values: [{apps}]}}");
    let spec =
        format!("{{podSelector: {{matchExpressions: [{apps}]}}, policyTypes: [{directions}]}}");
    rejecting_namespace() + &policy("closed", &spec)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Reset,
    Unreachable,
}

use Answer::{Reset, Unreachable};

/// The answer that a captured frame is, and from whom. Its checksums are right.
fn answer(frame: &[u8]) -> Option<(Answer, IpAddr)> {
    let packet = &frame[NETWORK..];
    let (protocol, source, transport): (u8, IpAddr, &[u8]) = match frame[12..NETWORK] {
        [0x08, 0x00] => {
            let source = <[u8; 4]>::try_from(&packet[12..16]).expect("an address");
            (packet[9], source.into(), &packet[20..])
        }
        [0x86, 0xdd] => {
            let source = <[u8; 16]>::try_from(&packet[8..24]).expect("an address");
            (packet[6], source.into(), &packet[40..])
        }
        _ => return None,
    };
    let answer = match (protocol, transport) {
        (6, segment) if segment[13] & tcp::RST != 0 => Reset,
        // Port unreachable.
        (1, [3, 3, ..]) | (58, [1, 4, ..]) => Unreachable,
        _ => return None,
    };
    assert_eq!(checksum::wrong(packet), None, "{answer:?}: {frame:02x?}");
    Some((answer, source))
}

/// What has come in at the interface so far, and what went out.
fn captured(wire: &Wire) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let frames = iter::from_fn(|| wire.next_frame());
    frames.partition(|frame| frame[6..12] != wire.mac())
}

/// The answers that have come in so far.
fn answers(wire: &Wire) -> Vec<(Answer, IpAddr)> {
    captured(wire).0.iter().filter_map(|frame| answer(frame)).collect()
}

/// That `tcpdump` has seen these answers from this address, and nothing wrong about them.
fn expect_right(dump: &Dump, from: IpAddr, expected: &[Answer]) {
    for (kind, words) in [(Reset, "Flags [R"), (Unreachable, "unreachable")] {
        let count = expected.iter().filter(|answer| **answer == kind).count();
        let said = dump.wait_for(count, |line| {
            let sender = [format!(" {from} > "), format!(" {from}.{PORT} > ")];
            line.contains(words) && sender.iter().any(|sender| line.contains(sender))
        });
        assert_eq!(said.len(), count, "{said:#?}");
        for line in &said {
            let right = match kind {
                Reset => line.contains("(correct)"),
                // Of IPv4, only that it is wrong is told.
                Unreachable => from.is_ipv4() || line.contains("icmp6 sum ok"),
            };
            let wrong = ["incorrect", "bad", "wrong"].iter().any(|word| line.contains(word));
            assert!(right && !wrong, "{line}");
        }
    }
}

/// How many packets were denied since, for whatever reason.
fn denied(cluster: &Cluster, before: &bulkhead_tests::scrape::Page) -> u64 {
    cluster.metrics().denied_since(before).values().sum()
}

#[test]
fn every_answer_is_right_for_its_receiver_and_for_tcpdump() {
    let mut cluster = Cluster::start(&[SERVER, FAR_SERVER, CLIENT, FAR]);
    for (closed, direction, from) in [
        ("server, far-server", "Ingress", "client"),
        ("server, far-server", "Ingress", "far"),
        ("client", "Egress", "client"),
        ("far", "Egress", "far"),
    ] {
        cluster.apply(&reject(closed, direction));
        let (wire, inside) = (Wire::open(cluster.pod(from)), cluster.inside(from));
        let dump = Dump::start(inside);
        for to in [SERVER, FAR_SERVER].into_iter().flat_map(Member::addresses) {
            let before = cluster.metrics();
            let error = connect(inside, to, PORT, DEADLINE).expect_err("it is denied");
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}");
            assert_eq!(refused(inside, to, PORT).kind(), ErrorKind::ConnectionRefused);
            assert!(!ping(inside, to).answered);
            // One packet each: at once, and nothing had to be sent again.
            assert_eq!(denied(&cluster, &before), 2 + PINGS);

            let mut expected = vec![Reset, Unreachable];
            expected.extend([Unreachable; PINGS as usize]);
            let from_it: Vec<_> = expected.iter().map(|answer| (*answer, to)).collect();
            assert_eq!(answers(&wire), from_it, "{from} to {to}");
            expect_right(&dump, to, &expected);
        }
    }
}

#[test]
fn a_client_that_nobody_may_reach_is_refused_all_the_same() {
    let mut cluster = Cluster::start(&[SERVER, FAR_SERVER, CLIENT, FAR]);
    cluster.apply(&reject("server, far-server, client, far", "Ingress"));
    for from in ["client", "far"] {
        for to in [SERVER, FAR_SERVER].into_iter().flat_map(Member::addresses) {
            let before = cluster.metrics();
            // The reset is a reply to what it opened.
            let error = connect(cluster.inside(from), to, PORT, DEADLINE).expect_err("denied");
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{from} to {to}: {error}");
            assert_eq!(denied(&cluster, &before), 1, "{from} to {to}");
        }
    }
}

/// Sends much at once through a connection that was cut; the answers that came for it.
fn resets_for_a_large_send(cluster: &Cluster, sender: &str, stream: &TcpStream, from: IpAddr) {
    let wire = Wire::open(cluster.pod(sender));
    let before = cluster.metrics();
    say(stream, &[1; A_LOT]);
    assert_eq!(broken(stream), ErrorKind::ConnectionReset);
    let (came, went) = captured(&wire);
    let longest = went.iter().map(Vec::len).max();
    assert!(longest > Some(LONGEST_FRAME), "nothing was left to be cut into segments: {longest:?}");
    let answers: Vec<_> = came.iter().filter_map(|frame| answer(frame)).collect();
    assert!(!answers.is_empty(), "no reset");
    assert!(answers.iter().all(|answer| *answer == (Reset, from)), "{answers:?}");
    assert_eq!(answers.len() as u64, denied(cluster, &before), "one for each packet");
}

#[test]
fn a_large_send_through_a_cut_connection_is_answered_by_a_reset() {
    let mut cluster = Cluster::start(&[SERVER, FAR_SERVER, CLIENT, FAR]);
    for (from, server) in [(CLIENT, SERVER), (FAR, SERVER), (FAR, FAR_SERVER)] {
        let listener = listen(cluster.inside(server.name), PORT);
        for (from_ip, to) in from.addresses().into_iter().zip(server.addresses()) {
            for directions in ["Ingress", "Ingress, Egress"] {
                cluster.apply("");
                let connection = Connection::open(cluster.inside(from.name), &listener, to);
                let Connection { client, server: other } = &connection;
                // So that the window is open, and what is sent next leaves in one piece.
                for (sender, receiver) in [(client, other), (other, client)] {
                    for _ in 0..20 {
                        say(sender, &[0; A_LOT]);
                        expect_heard(receiver, &[0; A_LOT]);
                    }
                }
                cluster.apply(&reject(server.name, directions));
                if directions == "Ingress" {
                    resets_for_a_large_send(&cluster, from.name, client, to);
                } else {
                    resets_for_a_large_send(&cluster, server.name, other, from_ip);
                }
                connection.abort();
            }
        }
    }
}

/// What is never answered: what it is, and the frame.
fn unanswerable(from: IpAddr, to: IpAddr) -> Vec<(&'static str, Frame)> {
    let udp = |from, to| Frame::udp(at(from, CLIENT_PORT), at(to, PORT));
    let tcp = |flags| Frame::tcp(at(from, CLIENT_PORT), at(to, PORT), flags);
    let icmp = |kind, code| Frame::icmp(from, to, kind, code, [0; 4]);
    let mut frames = vec![
        ("a reset", tcp(tcp::RST)),
        ("a reset that acknowledges", tcp(tcp::RST | tcp::ACK)),
        ("an answer to a ping", Frame::echo_reply(from, to, 1)),
        ("a later fragment", udp(from, to).fragment(2, false)),
        ("a VLAN tag", tcp(tcp::SYN).tag(VLAN)),
        ("a service tag", tcp(tcp::SYN).tag(SERVICE_VLAN)),
    ];
    let (errors, groups) = match from {
        IpAddr::V4(_) => {
            let groups = [Ipv4Addr::new(224, 0, 0, 251), Ipv4Addr::BROADCAST];
            ([(3, 1), (3, 4), (11, 0), (12, 0)], groups.map(IpAddr::V4))
        }
        IpAddr::V6(_) => {
            let [mdns, all] = [0xfb, 1].map(|id| Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, id));
            ([(1, 0), (2, 0), (3, 0), (4, 0)], [mdns, all].map(IpAddr::V6))
        }
    };
    frames.extend(errors.map(|(kind, code)| ("an ICMP error", icmp(kind, code))));
    frames.extend(groups.map(|group| ("a datagram to a group", udp(from, group))));
    frames.push(("a datagram from a group", udp(groups[0], to)));
    frames.push(("a datagram from nobody", udp(any(from), to)));
    frames
}

/// To everybody on the link.
fn to_all(frame: &[u8]) -> Vec<u8> {
    [&[0xff; 6], &frame[6..]].concat()
}

/// The first answers, or none after a while.
fn first_answers(wire: &Wire) -> Vec<(Answer, IpAddr)> {
    let deadline = Instant::now() + A_WHILE;
    loop {
        let seen = answers(wire);
        if !seen.is_empty() || Instant::now() > deadline {
            return seen;
        }
        thread::sleep(LOOK_EVERY);
    }
}

#[test]
fn errors_resets_groups_fragments_and_tagged_frames_are_never_answered() {
    let mut cluster = Cluster::start_unchecked(&[SERVER, CLIENT]);
    cluster.apply(&reject("server", "Ingress, Egress"));
    let [server, client] = ["server", "client"].map(|name| Wire::open(cluster.pod(name)));
    // One packet after the other, their answers too.
    stay_on_one_cpu();
    let directions = [
        ("ingress", CLIENT, SERVER, &client, &server),
        ("egress", SERVER, CLIENT, &server, &client),
    ];
    for (direction, from, to, sender, receiver) in directions {
        for (from, to) in from.addresses().into_iter().zip(to.addresses()) {
            let answered = Frame::tcp(at(from, CLIENT_PORT), at(to, PORT), tcp::SYN).bytes();
            let answered = sender.address_to(receiver, &answered);
            let mut frames: Vec<(&str, Vec<u8>)> = unanswerable(from, to)
                .into_iter()
                .map(|(what, frame)| (what, sender.address_to(receiver, &frame.bytes())))
                .collect();
            frames.push(("a segment for one, but to everybody on the link", to_all(&answered)));
            for (what, frame) in frames {
                let before = cluster.metrics();
                // If there is an answer to the second one, the first was not the bucket's to refuse.
                let tries = (1..).find(|_| {
                    sender.send(&frame);
                    sender.send(&answered);
                    let seen = first_answers(sender);
                    assert!(
                        seen.is_empty() || seen == [(Reset, to)],
                        "{direction}: {what}: {seen:?}"
                    );
                    !seen.is_empty()
                });
                let sent = 2 * tries.expect("a bucket is filled");
                // All have met the same program.
                let denied = cluster.metrics().denied_since(&before);
                let of_server = |(pod, way, _): &(_, _, _)| pod == "server" && way == direction;
                assert_eq!(denied.values().sum::<u64>(), sent, "{direction}: {what}: {denied:?}");
                assert!(denied.keys().all(of_server), "{direction}: {what}: {denied:?}");
                let tagged = denied.keys().any(|(.., reason)| reason == "vlan_tagged");
                assert_eq!(tagged, what.ends_with("tag"), "{direction}: {what}: {denied:?}");
            }
        }
    }
}

#[test]
fn two_thousand_denied_packets_get_no_more_answers_than_the_bucket_holds() {
    const PACKETS: u64 = 2_000;
    /// For each pod and CPU (docs/semantics.md): at once, and in each second.
    const BURST: f64 = 50.0;
    const RATE: f64 = 100.0;
    // Each family has a bucket of its own, that of another pod.
    let servers = [SERVER, Member::bridged("second", 12)];
    let mut cluster = Cluster::start(&[servers[0], servers[1], CLIENT]);
    cluster.apply(&reject("server, second", "Ingress"));
    let client = Wire::open(cluster.pod("client"));
    client.make_room();
    // A veth hands on to the same CPU.
    stay_on_one_cpu();
    for (family, server) in servers.into_iter().enumerate() {
        let (from, to) = (CLIENT.addresses()[family], server.addresses()[family]);
        let wire = Wire::open(cluster.pod(server.name));
        let frame = Frame::udp(at(from, CLIENT_PORT), at(to, PORT)).bytes();
        let frame = client.address_to(&wire, &frame);
        let before = cluster.metrics();
        let started = Instant::now();
        (0..PACKETS).for_each(|_| client.send(&frame));
        let all = (server.name, "ingress", "not_allowed", PACKETS..=PACKETS);
        cluster.expect_denied(&before, &[all]);
        let most = BURST + RATE * started.elapsed().as_secs_f64() + 1.0;
        let answers = answers(&client);
        assert!(answers.iter().all(|answer| *answer == (Unreachable, to)), "{answers:?}");
        let answered = answers.len() as f64;
        assert!((BURST..=most).contains(&answered), "{answered} answers, {most} at most");
    }
}
