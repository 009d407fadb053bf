//! What the fuzzers call: every parser of what others write.
//!
//! `cargo xtask fuzz` lets libFuzzer look for bytes that make one of these panic, and `tests/fuzz`
//! keeps those that led furthest; a test replays them. None of it needs root.

use std::{cell::RefCell, fs, net::IpAddr, time::Duration};

use bulkhead::{
    dataplane::{fake::FakeKernel, op::Execute as _},
    drops::{Names, describe},
    manifests::{ManifestDirectory, ProblemKind},
    policy::{
        compile::Compiler,
        compiled::EndpointPolicy,
        index::Index,
        model::{Change, ObjectKey},
    },
    reach::flow,
};
use bulkhead_common::{
    answer,
    decide::{Family, Hook},
    event::Event,
    frames::Linear,
    key::Address,
    packet::{self, Network, Packet, Plain, Role},
    verdict::{DenyAction, Direction, DropReason, Verdict},
};
use tempfile::TempDir;

use crate::{
    choices::{Choices as _, Recorded},
    crafted::{self, Crafted, Crafter},
    model::{Model, State},
    pod,
    reading::{self, Fragment, Ip, Part, Reading},
    user_space,
};

/// A fuzz target: its name, and what it does with bytes. It panics where something is wrong.
type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: [Target; 5] = [
    ("parse", parse),
    ("decide", decide_in_turn),
    ("manifest", manifest),
    ("flows", flows),
    ("event", event),
];

/// One frame in eight as it stands; else one that the bytes are decisions about.
fn frame(choices: &mut Recorded<'_>, crafter: &mut Crafter) -> Crafted {
    let how = choices.byte();
    let packet = if how & 7 != 0 {
        crafter.next(choices)
    } else {
        let direction = Direction::ALL[usize::from(how >> 3 & 1)];
        let len = usize::from(choices.byte());
        Crafted::new(direction, choices.take(len).to_vec())
    };
    let comes_in = packet.direction == Direction::Ingress;
    Crafted {
        from_own_node: packet.from_own_node || (comes_in && how & 0xf0 == 0x10),
        from_itself: comes_in && how & 0xf0 == 0x20,
        vlan_tagged: how & 0xf0 == 0x30,
        ..packet
    }
}

/// The parser reads of each frame what the second reading does, or gives up for the same reason; at
/// a glance, too. An answer is a good packet from the denied destination to the denied source.
pub fn parse(data: &[u8]) {
    let (mut choices, mut crafter) = (Recorded(data), Crafter::default());
    while !choices.is_empty() {
        let bytes = frame(&mut choices, &mut crafter).bytes;
        let theirs = reading::read(&bytes);
        let linear = Linear(&bytes);
        match packet::network(&linear) {
            Ok(Network::Arp) => assert_eq!(theirs, Reading::Arp),
            Err(reason) => assert_eq!(theirs, Reading::Unaddressed(reason)),
            Ok(Network::Ipv4) => {
                let ours = packet::parse_ipv4(&linear);
                assert!(
                    packet::plain_ipv4(&linear).is_none_or(|plain| is_same(&plain, &ours)),
                    "{ours:?}"
                );
                assert_same(&ours, &theirs, bytes.len());
                assert_quoted(&linear, &ours, &theirs);
                assert_answer(&linear, &ours, &theirs);
            }
            Ok(Network::Ipv6) => {
                let ours = packet::parse_ipv6(&linear);
                assert!(
                    packet::plain_ipv6(&linear).is_none_or(|plain| is_same(&plain, &ours)),
                    "{ours:?}"
                );
                assert_same(&ours, &theirs, bytes.len());
                assert_quoted(&linear, &ours, &theirs);
                assert_answer(&linear, &ours, &theirs);
            }
        }
    }
}

/// Whether a packet was read at a glance as it was read in full.
fn is_same<const N: usize>(plain: &Plain<N>, packet: &Packet<N>) -> bool {
    let Plain { source, destination, protocol, transport } = *plain;
    let read = (packet.source, packet.destination, packet.protocol, packet.transport);
    packet.unaddressed.is_none() && read == (source, destination, protocol, transport)
}

fn assert_answer<const N: usize>(frame: &Linear<'_>, denied: &Packet<N>, theirs: &Reading) {
    let mut answer = [0; answer::MAX_LEN];
    let len = answer::write(frame, denied, &mut answer);
    if len == 0 {
        return;
    }
    let answer = &answer[..len];
    let (Reading::Ip(denied), Reading::Ip(ip)) = (theirs, reading::read(answer)) else {
        panic!("{answer:02x?}");
    };
    assert_eq!((ip.source, ip.destination), (denied.destination, denied.source));
    assert!(ip.transport.is_ok(), "{answer:02x?}");
}

/// An error, and nothing else, quotes what the second reading has it quote.
fn assert_quoted<const N: usize>(frame: &Linear<'_>, error: &Packet<N>, theirs: &Reading)
where
    Address<N>: Family<N>,
{
    let quoted = match theirs {
        Reading::Ip(Ip { transport: Ok(says), .. }) => match &says.part {
            Part::Error(quoted) => Some(quoted),
            Part::First
            | Part::Second
            | Part::Later
            | Part::Any
            | Part::NeighbourDiscovery
            | Part::None => None,
        },
        Reading::Ip(_) | Reading::Arp | Reading::Unaddressed(_) => None,
    };
    assert_eq!(error.transport.role == Role::Reports, quoted.is_some(), "{error:?}");
    let Some(theirs) = quoted else {
        return;
    };
    let ours = Address::quoted(frame, error);
    assert_eq!(ours.transport.problem, theirs.as_ref().err().copied(), "{ours:?} and {theirs:?}");
    let Ok(theirs) = theirs else {
        return;
    };
    assert_eq!(ours.source.0[..], octets(theirs.source));
    assert_eq!(ours.destination.0[..], octets(theirs.destination));
    assert_eq!(ours.protocol, theirs.protocol);
    let ports = (ours.transport.source_port, ours.transport.destination_port);
    let theirs = (theirs.source_port, theirs.destination_port);
    assert_eq!((ports.0.number(), ports.1.number()), theirs);
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn assert_same<const N: usize>(ours: &Packet<N>, theirs: &Reading, len: usize) {
    let ip = match (ours.unaddressed, theirs) {
        (Some(ours), theirs) => return assert_eq!(*theirs, Reading::Unaddressed(ours)),
        (None, Reading::Ip(ip)) => ip,
        (None, Reading::Arp | Reading::Unaddressed(_)) => panic!("{ours:?} and {theirs:?}"),
    };
    assert_eq!(ours.source.0[..], octets(ip.source));
    assert_eq!(ours.destination.0[..], octets(ip.destination));
    assert_eq!(ours.problem(), ip.transport.as_ref().err().copied(), "{ours:?} and {ip:?}");
    let part = match ip.fragment {
        Fragment::At { byte: 0, more: true, id } => (packet::Part::First, id, 0),
        Fragment::At { byte, id, .. } if byte > 0 => (packet::Part::Later, id, byte),
        Fragment::At { .. } | Fragment::Whole | Fragment::Unknown => (packet::Part::Whole, 0, 0),
    };
    let packet::Fragment { part: which, identification, offset, .. } = ours.fragment;
    assert_eq!((which, identification, usize::from(offset)), part, "{ours:?} and {ip:?}");
    let Ok(says) = &ip.transport else {
        return;
    };
    assert_eq!(ours.protocol, ip.protocol);
    let ports = (ours.transport.source_port, ours.transport.destination_port);
    assert_eq!((ports.0.number(), ports.1.number()), (says.source_port, says.destination_port));
    assert!(ours.transport_offset + ours.transport_len <= len, "{ours:?}");
}

/// Time that may go by between two packets, in seconds: up to, and past, every time-out.
const PAUSES_SECS: [u64; 16] =
    [1, 2, 10, 11, 30, 31, 60, 61, 70, 71, 180, 181, 3600, 3601, 86_400, 86_401];

/// Frames, one after the other, through `decide` over the maps in memory: each verdict is the
/// model's, and the same whatever stands behind the headers.
pub fn decide_in_turn(data: &[u8]) {
    let mut maps = FakeKernel::default();
    for op in pod::rules().iter().chain(&pod::blocks()) {
        maps.execute(op).expect("maps in memory");
    }
    let (mut choices, mut crafter) = (Recorded(data), Crafter::default());
    let mut model = Model::default();
    let mut state = State { flags: crafted::flags(&mut choices), epoch: 1, now: Duration::ZERO };
    while !choices.is_empty() {
        state.now += match choices.chance(8) {
            true => Duration::from_secs(choices.choose(&PAUSES_SECS)),
            false => Duration::from_micros(1),
        };
        if choices.chance(8) {
            state.flags = crafted::flags(&mut choices);
            state.epoch += 1;
        }
        let packet = frame(&mut choices, &mut crafter);
        let reading = reading::read(&packet.bytes);
        let elsewhere =
            other_data(&packet, &reading).map(|other| judge(state, &other, &maps.clone()));
        let verdict = judge(state, &packet, &maps);
        let expected = model.judge(state, &packet, &reading);
        assert_eq!(
            verdict, expected,
            "left: decide, right: the model; {state:?}, {packet:02x?}, {reading:x?}"
        );
        assert!(elsewhere.is_none_or(|other| other == verdict), "{packet:02x?}: {elsewhere:?}");
    }
}

fn judge(state: State, packet: &Crafted, maps: &FakeKernel) -> Verdict {
    let Crafted { direction, from_own_node, from_itself, vlan_tagged, .. } = *packet;
    let hook = Hook { direction, ifindex: pod::IFINDEX, from_own_node, from_itself, vlan_tagged };
    let endpoint = pod::endpoint(state.flags, state.epoch);
    maps.now_ns.set(state.now.as_nanos() as u64);
    user_space::judge(&hook, &endpoint, &packet.bytes, maps).verdict
}

/// The same packet with other data behind its headers, where there is some that says nothing.
fn other_data(packet: &Crafted, reading: &Reading) -> Option<Crafted> {
    let at = match reading {
        // An error's data is a packet.
        Reading::Ip(Ip { transport: Ok(says), .. }) if matches!(says.part, Part::Error(_)) => None,
        Reading::Ip(ip @ Ip { transport: Ok(_), .. }) => Some(ip.data),
        Reading::Ip(_) | Reading::Arp | Reading::Unaddressed(_) => None,
    }?;
    let mut other = packet.clone();
    other.bytes.get_mut(at..)?.iter_mut().for_each(|byte| *byte = !*byte);
    Some(other)
}

/// A manifest directory of this one file: whatever stands in it, it can be compiled; a file that
/// can't be read as a whole changes nothing; the same file again changes nothing.
pub fn manifest(data: &[u8]) {
    thread_local! {
        static DIRECTORY: RefCell<TempDir> =
            RefCell::new(TempDir::with_prefix("bulkhead-fuzz-").expect("a directory"));
    }
    DIRECTORY.with_borrow(|directory| {
        fs::write(directory.path().join("it.yaml"), data).expect("writing a file");
        let mut source = ManifestDirectory::new(directory.path());
        let scan = source.scan();
        assert!(scan.available, "{:?}", scan.problems);
        let broken = scan.problems.iter().any(|problem| problem.kind == ProblemKind::File);
        if broken {
            assert_eq!(scan.changes, [Change::SourceComplete(false)]);
        }
        assert_eq!(scan.complete, !broken);
        assert!(scan.problems.iter().all(|problem| !problem.message.is_empty()));
        let again = source.scan();
        assert!(again.changes.is_empty(), "{:?}", again.changes);
        assert_eq!(again.problems, scan.problems);

        let mut index = Index::new(None);
        for change in scan.changes {
            index.apply(change);
        }
        Compiler::new(DenyAction::Drop).update(&mut index);
    });
}

/// Lines of a list of flows: what was read is written and read again as the same; an error says
/// where it is.
pub fn flows(data: &[u8]) {
    for line in String::from_utf8_lossy(data).lines() {
        match flow::read("list", line) {
            Ok(flows) => {
                for flow in flows {
                    let written = serde_json::to_string(&flow.flow).expect("it can be written");
                    assert_eq!(flow::read("again", &written).expect("it is a flow"), [flow]);
                }
            }
            Err(error) => assert!(format!("{error:#}").starts_with("list:1: "), "{error:#}"),
        }
    }
}

/// A record of the kernel is told in words, whatever its numbers are.
pub fn event(data: &[u8]) {
    struct Nobody;
    impl Names for Nobody {
        fn endpoint(&self, _: u32) -> Option<(&ObjectKey, &EndpointPolicy)> {
            None
        }

        fn pods(&self, _: IpAddr) -> Vec<&ObjectKey> {
            Vec::new()
        }
    }
    let record = Event::from_bytes(data);
    assert_eq!(record.is_some(), data.len() == size_of::<Event>());
    let Some(record) = record else {
        return;
    };
    let words = describe(&record, &Nobody);
    assert_eq!(words.source.is_some(), matches!(record.family, 4 | 6));
    assert!(!words.to_string().is_empty());
    let known = DropReason::from_number(record.reason);
    assert!(known.is_none_or(|reason| words.reason == reason.as_str()), "{words:?}");
    let json = serde_json::to_string(&words).expect("it can be written");
    serde_json::from_str::<serde_json::Value>(&json).expect("it is JSON");
}
