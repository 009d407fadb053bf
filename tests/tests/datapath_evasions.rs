//! Packets that are made to look like what a policy allows, against the loaded programs. Needs
//! root.
//!
//! A table: each row is a test that shows one evasion denied in both directions, with the reason in
//! the counters and nothing else moved. The policy allows [`ALLOWED`] between the pod and `friend`,
//! for TCP, UDP and SCTP, so that a program which reads past the disguise would let it pass: every
//! row says what that program would see.

use std::net::IpAddr;

use bulkhead_common::{
    frames::{Extension, Frame, SERVICE_VLAN, VLAN, tcp},
    packet::protocol,
    value::flags,
    verdict::{
        AllowReason::{Related, Rule},
        Direction,
        DropReason::{
            self, FragmentWithoutFirst, Malformed, NotAllowed, RoutingHeader, SpoofedSource,
            TooManyExtensionHeaders, Truncated, UnknownEthertype, VlanTagged,
        },
        Verdict::{Allow, Deny},
    },
};
use bulkhead_tests::{
    pod::{ALLOWED, CLIENT, DENIED, IPV4, IPV6, ISOLATED, NETS, Net, at},
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
    ($($(#[doc = $would_see:literal])+ $name:ident: $nets:expr, |$from:ident, $to:ident| $frame:expr => $reason:ident;)+) => {
        $($(#[doc = $would_see])+ #[test] fn $name() {
            assert_denied(&$nets, |$from, $to| $frame, $reason);
        })+
    };
}

// The seven that pass a program which takes headers to have fixed lengths and places.
evasions! {
    /// With the header's length taken for 20, an allowed port stands in the options.
    ip_options_do_not_shift_a_denied_port_behind_an_allowed_one: [IPV4], |from, to| {
        let options = [&CLIENT.to_be_bytes()[..], &ALLOWED.to_be_bytes(), &[1; 16]].concat();
        open(from, to, DENIED).options(&options).bytes()
    } => NotAllowed;

    /// A frame that is neither IPv4 nor IPv6, if tags are nothing to look behind.
    a_vlan_tag_hides_nothing: NETS, |from, to| open(from, to, DENIED).tag(VLAN).bytes() => VlanTagged;

    /// The same, with the tag of a provider bridge.
    a_service_tag_hides_nothing: NETS, |from, to| {
        open(from, to, DENIED).tag(SERVICE_VLAN).bytes()
    } => VlanTagged;

    /// A TCP header with an allowed port; it is data of another flow.
    the_data_of_a_later_fragment_is_not_taken_for_ports: NETS, |from, to| {
        open(from, to, ALLOWED).fragment(2, false).bytes()
    } => FragmentWithoutFirst;

    /// An allowed port, and flags that are taken from what the buffer held before.
    a_tcp_header_cut_short_is_not_completed: NETS, |from, to| {
        open(from, to, ALLOWED).cut(12).bytes()
    } => Truncated;

    /// Nothing, if the program knows IPv4 only: the pod's IPv4 rules would be all there is.
    ipv6_meets_the_policy_too: [IPV6], |from, to| open(from, to, DENIED).bytes() => NotAllowed;

    /// An IPv4 packet, by the ethertype: addresses and ports from wherever they would be.
    ip_version_6_does_not_pass_as_ipv4: [IPV4], |from, to| {
        patched(&open(from, to, ALLOWED), NETWORK, &[0x65])
    } => Malformed;
}

// Tags.
evasions! {
    /// Two tags, the inner of them where one would be looked for.
    stacked_tags_hide_nothing: NETS, |from, to| {
        open(from, to, ALLOWED).tag(SERVICE_VLAN).tag(VLAN).bytes()
    } => VlanTagged;

    /// An allowed packet: but VLANs are not the pod's.
    a_tag_is_denied_around_what_would_be_allowed: NETS, |from, to| {
        open(from, to, ALLOWED).tag(VLAN).bytes()
    } => VlanTagged;

    /// An allowed packet, behind an ethertype of stacked tags from before 802.1ad.
    an_unknown_ethertype_is_denied: NETS, |from, to| {
        patched(&open(from, to, ALLOWED), ETHERTYPE, &[0x91, 0x00])
    } => UnknownEthertype;

    /// An allowed packet, with a length where the ethertype was (802.3).
    a_length_is_no_ethertype: NETS, |from, to| {
        patched(&open(from, to, ALLOWED), ETHERTYPE, &[0x00, 0x30])
    } => UnknownEthertype;
}

// IP headers that lie.
evasions! {
    /// IPv6 by its ethertype.
    ip_version_4_does_not_pass_as_ipv6: [IPV6], |from, to| {
        patched(&open(from, to, ALLOWED), NETWORK, &[0x45])
    } => Malformed;

    /// An allowed port, at a header length of 20.
    a_header_length_below_20_is_not_rounded_up: [IPV4], |from, to| {
        patched(&open(from, to, ALLOWED), NETWORK, &[0x44])
    } => Malformed;

    /// An allowed port, where the header's length says that options are.
    a_header_length_of_60_is_believed: [IPV4], |from, to| {
        patched(&open(from, to, ALLOWED), NETWORK, &[0x4f])
    } => Malformed;

    /// An allowed packet, of which only the IP header is there by its own account.
    a_total_length_without_transport_is_believed: [IPV4], |from, to| {
        patched(&open(from, to, ALLOWED), NETWORK + 2, &20_u16.to_be_bytes())
    } => Truncated;

    /// An allowed packet, longer than the frame.
    a_total_length_beyond_the_frame_is_denied: [IPV4], |from, to| {
        patched(&open(from, to, ALLOWED), NETWORK + 2, &1500_u16.to_be_bytes())
    } => Truncated;

    /// An allowed packet, longer than the frame.
    a_payload_length_beyond_the_frame_is_denied: [IPV6], |from, to| {
        patched(&open(from, to, ALLOWED), NETWORK + 4, &1500_u16.to_be_bytes())
    } => Truncated;

    /// An allowed packet whose payload length is zero, for the jumbo option to replace.
    a_jumbo_option_does_not_replace_the_length: [IPV6], |from, to| {
        let jumbo = Extension::Sized(protocol::HOP_BY_HOP, vec![0xc2, 4, 0, 0, 0, 36]);
        patched(&open(from, to, ALLOWED).extension(jumbo), NETWORK + 4, &[0, 0])
    } => Truncated;

    /// In IPv4, ports where TCP would have them; protocol 0 is nobody's there.
    ip_protocol_0_has_no_ports_in_ipv4: [IPV4], |from, to| {
        Frame::ip(from, to, 0, &open(from, to, ALLOWED).transport).bytes()
    } => NotAllowed;

    /// The same with a protocol that would be an extension header of IPv6.
    extension_headers_are_not_followed_in_ipv4: [IPV4], |from, to| {
        let header = [&[protocol::TCP, 0, 0, 0, 0, 0, 0, 0], &open(from, to, ALLOWED).transport[..]];
        Frame::ip(from, to, protocol::DESTINATION_OPTIONS, &header.concat()).bytes()
    } => NotAllowed;

    /// Neighbour discovery, by a protocol number that means it in the other family only.
    icmpv6_in_ipv4_is_no_neighbour_discovery: [IPV4], |from, to| {
        Frame::ip(from, to, protocol::ICMPV6, &[135, 0, 0, 0, 0, 0, 0, 0]).hop_limit(255).bytes()
    } => NotAllowed;
}

// Fragments.
evasions! {
    /// RFC 1858: the ports are allowed, the flags come in the next fragment.
    a_tiny_first_fragment_is_denied: NETS, |from, to| {
        open(from, to, ALLOWED).cut(8).fragment(0, true).bytes()
    } => Truncated;

    /// RFC 3128: put over the first fragment, it would change the flags, or the ports.
    a_fragment_that_overlaps_the_header_is_denied: NETS, |from, to| {
        open(from, to, ALLOWED).fragment(1, false).bytes()
    } => FragmentWithoutFirst;

    /// The first fragment by its flags, with a denied port.
    a_first_fragment_meets_its_rules: NETS, |from, to| {
        open(from, to, DENIED).fragment(0, true).bytes()
    } => NotAllowed;

    /// An allowed packet by the inner header: but the outer one is a later fragment.
    a_chain_behind_a_later_fragment_is_not_followed: [IPV6], |from, to| {
        let options = Extension::Sized(protocol::DESTINATION_OPTIONS, vec![0; 6]);
        open(from, to, ALLOWED).fragment(1, true).extension(options).bytes()
    } => FragmentWithoutFirst;

    /// The first of two fragment headers says that this is a first fragment.
    the_second_of_two_fragment_headers_counts_too: [IPV6], |from, to| {
        open(from, to, ALLOWED).fragment(0, true).fragment(1, true).bytes()
    } => Malformed;
}

// Chains of extension headers.
evasions! {
    /// An allowed port, at the place where TCP is without extension headers.
    an_extension_header_does_not_stand_for_ports: [IPV6], |from, to| {
        let mut body = vec![0; 22];
        body[0..2].copy_from_slice(&ALLOWED.to_be_bytes());
        let options = Extension::Sized(protocol::DESTINATION_OPTIONS, body);
        open(from, to, DENIED).extension(options).bytes()
    } => NotAllowed;

    /// Protocol 60, if the chain is not followed to its end.
    a_long_chain_of_extension_headers_is_denied: [IPV6], |from, to| {
        let options = Extension::Sized(protocol::DESTINATION_OPTIONS, vec![0; 6]);
        (0..20).fold(open(from, to, ALLOWED), |frame, _| frame.extension(options.clone())).bytes()
    } => TooManyExtensionHeaders;

    /// A header so far behind that it is not looked at.
    options_that_push_the_ports_out_of_sight_are_denied: [IPV6], |from, to| {
        let options = Extension::Sized(protocol::DESTINATION_OPTIONS, vec![0; 6 + 8 * 80]);
        open(from, to, ALLOWED).extension(options).bytes()
    } => TooManyExtensionHeaders;

    /// An allowed port; RFC 8200 has such options in front only.
    hop_by_hop_options_in_the_middle_are_denied: [IPV6], |from, to| {
        let number = protocol::HOP_BY_HOP;
        let [first, again] = [0, 0].map(|byte| Extension::Sized(number, vec![byte; 6]));
        open(from, to, ALLOWED).extension(first).extension(again).bytes()
    } => Malformed;

    /// The friend's address: but the packet goes on to another one from there (RFC 5095).
    source_routes_are_denied: [IPV6], |from, to| {
        let route = Extension::Sized(protocol::ROUTING, [&[0, 1][..], &[0; 20]].concat());
        open(from, to, ALLOWED).extension(route).bytes()
    } => RoutingHeader;

    /// An extension header longer than its packet, so that padding holds the ports.
    a_chain_does_not_reach_behind_its_packet: [IPV6], |from, to| {
        let header = [protocol::TCP, 0, 0, 0, 0, 0, 0, 0];
        let packet = Frame::ip(from, to, protocol::DESTINATION_OPTIONS, &header).bytes();
        [packet, open(from, to, ALLOWED).transport].concat()
    } => Truncated;

    /// A neighbour's advertisement; but no neighbour sends with a hop limit below 255.
    neighbour_discovery_from_afar_is_denied: [IPV6], |from, to| {
        Frame::icmp(from, to, 136, 0, [0; 4]).hop_limit(254).bytes()
    } => Malformed;
}

// Transport headers that lie.
evasions! {
    /// An allowed port, and a header that ends before it begins.
    a_tcp_data_offset_below_20_is_denied: NETS, |from, to| {
        let mut frame = open(from, to, ALLOWED);
        frame.transport[12] = 4 << 4;
        frame.bytes()
    } => Malformed;

    /// An allowed port, and more options than there are bytes.
    tcp_options_beyond_the_packet_are_denied: NETS, |from, to| {
        let mut frame = open(from, to, ALLOWED);
        frame.transport[12] = 15 << 4;
        frame.bytes()
    } => Truncated;

    /// An allowed port, and a length that contradicts the packet's.
    a_udp_length_beyond_the_packet_is_denied: NETS, |from, to| {
        let mut frame = Frame::udp(at(from, CLIENT), at(to, ALLOWED));
        frame.transport[4..6].copy_from_slice(&1000_u16.to_be_bytes());
        frame.bytes()
    } => Malformed;

    /// An allowed port, and no chunk could follow.
    an_sctp_header_cut_short_is_denied: NETS, |from, to| {
        Frame::sctp(at(from, CLIENT), at(to, ALLOWED)).cut(8).bytes()
    } => Truncated;

    /// A protocol that TCP's ports were allowed for.
    an_allowed_port_counts_for_its_protocol_only: NETS, |from, to| {
        Frame::ip(from, to, 33, &open(from, to, ALLOWED).transport).bytes()
    } => NotAllowed;
}

// Pretended replies.
evasions! {
    /// The answer of an allowed server, to a question that nobody asked.
    a_reply_that_nobody_asked_for_is_denied: NETS, |from, to| {
        Frame::tcp(at(from, ALLOWED), at(to, CLIENT), tcp::SYN | tcp::ACK).bytes()
    } => NotAllowed;

    /// The end of a flow that never was.
    a_reset_that_nobody_asked_for_is_denied: NETS, |from, to| {
        Frame::tcp(at(from, ALLOWED), at(to, CLIENT), tcp::RST).bytes()
    } => NotAllowed;

    /// An answer to a ping that nobody sent.
    a_pong_that_nobody_asked_for_is_denied: NETS, |from, to| {
        Frame::echo_reply(from, to, 7).bytes()
    } => NotAllowed;
}

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

/// Where the ethertype stands.
const ETHERTYPE: usize = 12;
/// Where the IP header starts.
const NETWORK: usize = 14;

/// A TCP connection is opened to a port.
fn open(from: IpAddr, to: IpAddr, port: u16) -> Frame {
    Frame::tcp(at(from, CLIENT), at(to, port), tcp::SYN)
}

/// The frame, with other bytes at some place.
fn patched(frame: &Frame, offset: usize, bytes: &[u8]) -> Vec<u8> {
    let mut frame = frame.bytes();
    frame[offset..offset + bytes.len()].copy_from_slice(bytes);
    frame
}
