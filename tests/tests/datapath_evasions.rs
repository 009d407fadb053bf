//! Packets that are made to look like what a policy allows, against the loaded programs. Needs
//! root.
//!
//! Each row of the table is a test that shows one evasion denied in both directions, with the reason in
//! the counters and nothing else moved. The policy allows [`ALLOWED`] between the pod and `friend`,
//! for TCP, UDP and SCTP, so that a program which reads past the disguise would let it pass.

use std::net::IpAddr;

use bulkhead_common::{
    frames::{Extension, Frame},
    packet::protocol,
    value::flags,
    verdict::{
        AllowReason::{Related, Rule},
        Direction,
        DropReason::{self, FragmentWithoutFirst, NotAllowed, SpoofedSource, Truncated},
        Verdict::{Allow, Deny},
    },
};
use bulkhead_tests::{
    pod::{ALLOWED, CLIENT, DENIED, ISOLATED, NETS, Net, at},
    program,
};

/// A way past a policy.
type Evasion = fn(from: IpAddr, to: IpAddr) -> Vec<u8>;

/// The friend's packet to the pod, and the pod's to the friend.
fn both_ways(net: Net) -> [(Direction, IpAddr, IpAddr); 2] {
    [(Direction::Ingress, net.friend, net.pod), (Direction::Egress, net.pod, net.friend)]
}

fn assert_denied(nets: &[Net], evasion: Evasion, reason: DropReason) {
    let mut programs = program::shared(ISOLATED | flags::CHECK_SOURCE);
    for (direction, from, to) in nets.iter().copied().flat_map(both_ways) {
        let met = programs.meet(direction, &evasion(from, to));
        assert_eq!(met, Deny(reason), "{direction:?} from {from}");
    }
}

macro_rules! evasions {
    ($group:ident; $($(#[doc = $would_see:literal])+ $name:ident: $nets:expr, |$from:ident, $to:ident| $frame:expr => $reason:ident;)+) => {
        $($(#[doc = $would_see])+ #[test] fn $name() {
            crate::assert_denied(&$nets, |$from, $to| $frame, $reason);
        })+
    };
}

#[path = "evasions/rows.rs"]
mod rows;

use rows::open;

#[test]
fn a_pong_of_another_identifier_or_type_is_no_reply() {
    let mut programs = program::shared(ISOLATED);
    for net in NETS {
        for (direction, from, to) in
            [(Direction::Egress, net.pod, net.trusted), (Direction::Ingress, net.trusted, net.pod)]
        {
            let ping = Frame::echo_request(from, to, 7).bytes();
            assert_eq!(programs.meet(direction, &ping), Allow(Rule));
        }
        // The trusted may send what it likes; whoever has heard of the flow may not.
        for frame in [
            Frame::echo_reply(net.stranger, net.pod, 7),
            Frame::icmp(net.friend, net.pod, 0, 0, [0, 7, 0, 1]),
            Frame::icmp(net.friend, net.pod, 129, 0, [0, 7, 0, 1]),
            Frame::icmp(net.friend, net.pod, 13, 0, [0, 7, 0, 1]),
        ] {
            assert_eq!(programs.to_pod(&frame.bytes()), Deny(NotAllowed), "{frame:?}");
        }
    }
}

#[test]
fn an_icmp_error_passes_by_the_packet_that_it_quotes_and_by_nothing_else() {
    let mut programs = program::shared(ISOLATED);
    for net in NETS {
        let kind = if net.pod.is_ipv4() { 3 } else { 1 };
        let sent = Frame::udp(at(net.pod, CLIENT), at(net.friend, ALLOWED));
        assert_eq!(programs.from_pod(&sent.bytes()), Allow(Rule));
        let about = |quoted: &Frame, len| {
            Frame::icmp_error(net.stranger, net.pod, kind, quoted, len).bytes()
        };
        assert_eq!(programs.to_pod(&about(&sent, 64)), Allow(Related), "a router on the way");
        for (quoted, len, reason) in [
            (Frame::udp(at(net.pod, CLIENT), at(net.friend, DENIED)), 64, NotAllowed),
            (Frame::udp(at(net.pod, CLIENT + 1), at(net.friend, ALLOWED)), 64, NotAllowed),
            (Frame::udp(at(net.pod, CLIENT), at(net.stranger, ALLOWED)), 64, NotAllowed),
            (Frame::udp(at(net.stranger, CLIENT), at(net.friend, ALLOWED)), 64, NotAllowed),
            (Frame::udp(at(net.friend, ALLOWED), at(net.pod, CLIENT)), 64, NotAllowed),
            (sent.clone().fragment(1, false), 64, FragmentWithoutFirst),
            (sent.clone(), 0, Truncated),
            (sent.clone(), 27, Truncated),
        ] {
            let bytes = about(&quoted, len);
            assert_eq!(programs.to_pod(&bytes), Deny(reason), "{quoted:?}, {len} bytes");
        }
        // A redirect is nobody's to send from afar, whatever it quotes.
        let kind = if net.pod.is_ipv4() { 5 } else { 137 };
        let redirect = Frame::icmp_error(net.stranger, net.pod, kind, &sent, 64).bytes();
        assert!(!programs.to_pod(&redirect).is_allow());
    }
}

#[test]
fn the_address_of_somebody_else_opens_nothing() {
    let mut programs = program::shared(ISOLATED | flags::CHECK_SOURCE);
    for net in NETS {
        // The pod speaks as its friend, as the node, as nobody; whole, and as a later fragment.
        let nobody =
            if net.pod.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0_u16; 8]) };
        for from in [net.friend, net.trusted, net.node, nobody] {
            for frame in [
                open(from, net.friend, ALLOWED),
                open(from, net.friend, ALLOWED).fragment(1, false),
            ] {
                assert_eq!(programs.from_pod(&frame.bytes()), Deny(SpoofedSource), "{frame:?}");
            }
        }
        // Somebody speaks to the pod as the node: but did not come from there.
        let forged = open(net.node, net.pod, ALLOWED).bytes();
        assert_eq!(programs.to_pod(&forged), Deny(NotAllowed));
    }
}

/// That the rows above are denied for their disguise, and not for what is in it.
#[test]
fn undisguised_each_of_them_is_allowed() {
    let mut programs = program::shared(ISOLATED | flags::CHECK_SOURCE);
    for (direction, from, to) in NETS.into_iter().flat_map(both_ways) {
        let (source, destination) = (at(from, CLIENT), at(to, ALLOWED));
        let mut frames = vec![
            open(from, to, ALLOWED),
            open(from, to, ALLOWED).fragment(0, true),
            Frame::udp(source, destination),
            Frame::sctp(source, destination),
        ];
        if from.is_ipv4() {
            frames.push(open(from, to, ALLOWED).options(&[1; 40]));
        } else {
            let options = Extension::Sized(protocol::DESTINATION_OPTIONS, vec![0; 22]);
            frames.push(open(from, to, ALLOWED).extension(options));
        }
        for frame in frames {
            assert_eq!(programs.meet(direction, &frame.bytes()), Allow(Rule), "{frame:?}");
        }
    }
}
