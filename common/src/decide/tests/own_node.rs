//! A pod that reaches its own node by rules only, and what the node opens to it.

use super::{node::hook, *};
use crate::verdict::AllowReason::Related;

const TCP: u8 = protocol::TCP;
const NODE_ONLY: u32 = ISOLATED | CHECK_SOURCE | DENY_EGRESS_TO_NODE;
const PORT: u16 = 10_250;

/// A pod whose own node has the friend's addresses, in a block that is the friend.
fn node_with(flags: u32) -> Node {
    let mut node = Node::new(flags);
    for net in Net::ALL {
        let identities = [IDENTITY_NODE | FRIEND, IDENTITY_NONE];
        node.peers.insert(Ends::of(net).friend, Peer { identities });
    }
    node
}

/// Packets between the node and the pod, of one kind.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Tcp,
    Udp,
    Sctp,
    Ping,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Tcp, Self::Udp, Self::Sctp, Self::Ping];

    /// Opens a flow from a port to [`PORT`].
    fn asks(self, (from, to): (IpAddr, IpAddr), port: u16) -> Frame {
        let (source, destination) = ((from, port).into(), (to, PORT).into());
        match self {
            Self::Tcp => Frame::tcp(source, destination, tcp::SYN),
            Self::Udp => Frame::udp(source, destination),
            Self::Sctp => Frame::sctp(source, destination),
            Self::Ping => Frame::echo_request(from, to, port),
        }
    }

    /// Answers it.
    fn answers(self, (from, to): (IpAddr, IpAddr), port: u16) -> Frame {
        let (source, destination) = ((from, PORT).into(), (to, port).into());
        match self {
            Self::Tcp => Frame::tcp(source, destination, tcp::SYN | tcp::ACK),
            Self::Udp => Frame::udp(source, destination),
            Self::Sctp => Frame::sctp_chunk(source, destination, 2),
            Self::Ping => Frame::echo_reply(from, to, port),
        }
    }
}

fn every_kind() -> impl Iterator<Item = (Net, Kind)> {
    Net::ALL.into_iter().flat_map(|net| Kind::ALL.map(|kind| (net, kind)))
}

/// Source and destination of what the node sends, and of what the pod does.
fn ways(net: Net) -> [(IpAddr, IpAddr); 2] {
    let Ends { pod, friend: address, .. } = Ends::of(net);
    [(address, pod), (pod, address)]
}

#[test]
fn the_own_node_is_reached_by_rules_only() {
    for (net, kind) in every_kind() {
        let [_, to_node] = ways(net);
        let asks = kind.asks(to_node, 40000);
        let node = node_with(ISOLATED | CHECK_SOURCE);
        assert_eq!(node.meet(Direction::Egress, &asks), Allow(OwnNode), "without the flag");
        let mut node = node_with(NODE_ONLY);
        assert_eq!(node.meet(Direction::Egress, &asks), Deny(NotAllowed), "{kind:?}");
        node.change_endpoint(|endpoint| endpoint.egress.any_peer = PortSet::EVERYTHING);
        assert_eq!(node.meet(Direction::Egress, &asks), Allow(Rule), "a rule without `to`");
        let node = node_with(DENY_EGRESS_TO_NODE | ISOLATED_INGRESS);
        assert_eq!(node.meet(Direction::Egress, &asks), Allow(NotIsolated));
    }
}

#[test]
fn a_block_around_the_node_allows_its_ports() {
    for net in Net::ALL {
        let mut node = node_with(NODE_ONLY);
        node.allow(Direction::Egress, &[(TCP, PORT, PORT)]);
        let [from_node, to_node] = ways(net);
        let asks = Kind::Tcp.asks(to_node, 40000);
        assert_eq!(node.meet(Direction::Egress, &asks), Allow(Rule));
        assert_eq!(node.meet_from_node(&Kind::Tcp.answers(from_node, 40000)), Allow(OwnNode));
        let other = Frame::tcp((to_node.0, 40000).into(), (to_node.1, 22).into(), tcp::SYN);
        assert_eq!(node.meet(Direction::Egress, &other), Deny(NotAllowed));
    }
}

#[test]
fn what_the_own_node_opens_is_answered_and_nothing_else() {
    for (net, kind) in every_kind() {
        let mut node = node_with(NODE_ONLY);
        let [from_node, to_node] = ways(net);
        let answer = kind.answers(to_node, 40000);
        assert_eq!(node.meet(Direction::Egress, &answer), Deny(NotAllowed), "nobody asked yet");
        assert_eq!(node.meet_from_node(&kind.asks(from_node, 40000)), Allow(OwnNode));
        assert_eq!(node.meet(Direction::Egress, &answer), Allow(Reply), "{net:?} {kind:?}");
        let other = kind.answers(to_node, 40001);
        assert_eq!(node.meet(Direction::Egress, &other), Deny(NotAllowed));
        let opens = kind.asks(to_node, 40000);
        assert_eq!(node.meet(Direction::Egress, &opens), Deny(NotAllowed), "a flow of its own");

        node.change_endpoint(|endpoint| endpoint.ingress.any_peer = PortSet::NOTHING);
        assert_eq!(node.meet(Direction::Egress, &answer), Allow(Reply), "no rule allows the node");
        node.pass_secs(2);
        assert_eq!(node.meet(Direction::Egress, &answer), Allow(Reply));
    }
}

#[test]
fn without_the_flag_nothing_is_remembered_of_what_the_node_sends() {
    for (net, kind) in every_kind() {
        let node = node_with(ISOLATED | CHECK_SOURCE);
        let [from_node, _] = ways(net);
        assert_eq!(node.meet_from_node(&kind.asks(from_node, 40000)), Allow(OwnNode));
        assert!(node.flows.borrow().is_empty());
    }
}

#[test]
fn what_the_node_sends_is_seen_at_a_glance_but_once_a_second() {
    for net in Net::ALL {
        let node = node_with(NODE_ONLY);
        let [from_node, _] = ways(net);
        let segment =
            Frame::tcp((from_node.0, 40000).into(), (from_node.1, PORT).into(), tcp::ACK).bytes();
        let hook = Hook { from_own_node: true, ..hook(Direction::Ingress) };
        for _ in 0..2 {
            assert_eq!(node.glance(&hook, &segment), None, "the entry is to be written");
            assert_eq!(node.meet_at(&hook, &segment), Allow(OwnNode));
            assert_eq!(node.glance(&hook, &segment), Some(Allow(OwnNode)));
            node.pass_secs(2);
        }
    }
}

#[test]
fn nobody_else_sends_in_a_flow_of_the_nodes() {
    use tcp::{ACK, SYN};
    for net in Net::ALL {
        let node = node_with(NODE_ONLY);
        let [from_node, to_node] = ways(net);
        assert_eq!(node.meet_from_node(&Kind::Tcp.asks(from_node, 40000)), Allow(OwnNode));
        let answer = Kind::Tcp.answers(to_node, 40000);
        assert_eq!(node.meet(Direction::Egress, &answer), Allow(Reply));
        for flags in [SYN, SYN | ACK, ACK, tcp::RST] {
            let (from, to) = ((from_node.0, 40000).into(), (from_node.1, PORT).into());
            let forged = Frame::tcp(from, to, flags);
            assert_eq!(node.meet(Direction::Ingress, &forged), Deny(NotAllowed), "{flags:#x}");
        }
        assert_eq!(node.meet(Direction::Egress, &answer), Allow(Reply), "it goes on");
    }
}

#[test]
fn the_node_takes_over_an_entry_that_somebody_else_made_in_its_name() {
    for net in Net::ALL {
        let mut node = node_with(NODE_ONLY);
        node.allow(Direction::Ingress, &[(TCP, PORT, PORT)]);
        let [from_node, to_node] = ways(net);
        let asks = Kind::Tcp.asks(from_node, 40000);
        assert_eq!(node.meet(Direction::Ingress, &asks), Allow(Rule), "by way of another device");
        let answer = Kind::Tcp.answers(to_node, 40000);
        assert_eq!(node.meet(Direction::Egress, &answer), Allow(Reply));
        node.rules.clear();
        node.change_endpoint(|_| {});
        assert_eq!(node.meet(Direction::Egress, &answer), Deny(FlowRevoked), "not the node's");
        assert_eq!(node.meet_from_node(&asks), Allow(OwnNode));
        node.change_endpoint(|_| {});
        assert_eq!(node.meet(Direction::Egress, &answer), Allow(Reply));
    }
}

#[test]
fn an_answer_of_the_node_opens_nothing() {
    for (net, kind) in every_kind() {
        if matches!(kind, Kind::Udp) {
            // Nothing tells an answer from a question.
            continue;
        }
        let node = node_with(NODE_ONLY);
        let [from_node, to_node] = ways(net);
        assert_eq!(node.meet_from_node(&kind.answers(from_node, 40000)), Allow(OwnNode));
        let segment = Frame::tcp((to_node.0, 40000).into(), (to_node.1, PORT).into(), tcp::ACK);
        assert_eq!(node.meet(Direction::Egress, &segment), Deny(NotAllowed));
        assert!(node.flows.borrow().is_empty());
    }
}

#[test]
fn an_answer_of_the_node_keeps_the_flow_one_of_the_pods() {
    for net in Net::ALL {
        let mut node = node_with(NODE_ONLY);
        node.allow(Direction::Egress, &[(TCP, PORT, PORT)]);
        let [from_node, to_node] = ways(net);
        assert_eq!(node.meet(Direction::Egress, &Kind::Tcp.asks(to_node, 40000)), Allow(Rule));
        assert_eq!(node.meet_from_node(&Kind::Tcp.answers(from_node, 40000)), Allow(OwnNode));
        // Longer than a flow is remembered that nobody has answered.
        node.pass_secs(80);
        node.rules.clear();
        node.change_endpoint(|_| {});
        let segment = |(from, to), ports: [u16; 2]| {
            Frame::tcp((from, ports[0]).into(), (to, ports[1]).into(), tcp::ACK)
        };
        let late = segment(from_node, [PORT, 40000]);
        assert_eq!(node.meet_from_node(&late), Allow(OwnNode));
        let asks = segment(to_node, [40000, PORT]);
        assert_eq!(node.meet(Direction::Egress, &asks), Deny(NotAllowed));
    }
}

#[test]
fn a_flow_that_the_pod_opened_is_cut_although_the_node_answers() {
    use tcp::ACK;
    for (net, flags) in
        Net::ALL.into_iter().flat_map(|net| [(net, ISOLATED), (net, ISOLATED_EGRESS)])
    {
        let mut node = node_with(flags | DENY_EGRESS_TO_NODE);
        node.allow(Direction::Egress, &[(TCP, PORT, PORT)]);
        let [from_node, to_node] = ways(net);
        let segment = |(from, to), ports: [u16; 2]| {
            Frame::tcp((from, ports[0]).into(), (to, ports[1]).into(), ACK)
        };
        let asks = segment(to_node, [40000, PORT]);
        let answers = segment(from_node, [PORT, 40000]);
        assert_eq!(node.meet(Direction::Egress, &Kind::Tcp.asks(to_node, 40000)), Allow(Rule));
        assert_eq!(node.meet_from_node(&Kind::Tcp.answers(from_node, 40000)), Allow(OwnNode));
        // Longer than nobody would have answered.
        for _ in 0..3 {
            node.pass_secs(60);
            assert_eq!(node.meet(Direction::Egress, &asks), Allow(Rule));
            assert_eq!(node.meet_from_node(&answers), Allow(OwnNode));
        }
        node.rules.clear();
        node.change_endpoint(|_| {});
        for _ in 0..3 {
            assert_eq!(node.meet(Direction::Egress, &asks), Deny(NotAllowed));
            assert_eq!(node.meet_from_node(&answers), Allow(OwnNode));
            node.pass_secs(2);
        }
    }
}

#[test]
fn a_connection_from_before_any_policy_goes_on_where_the_node_opened_it() {
    for net in Net::ALL {
        let mut node = node_with(DENY_EGRESS_TO_NODE);
        let [from_node, to_node] = ways(net);
        assert_eq!(node.meet_from_node(&Kind::Tcp.asks(from_node, 40000)), Allow(OwnNode));
        let answer = Kind::Tcp.answers(to_node, 40000);
        assert_eq!(node.meet(Direction::Egress, &answer), Allow(NotIsolated));
        node.change_endpoint(|endpoint| endpoint.flags |= ISOLATED);
        assert_eq!(node.meet(Direction::Egress, &answer), Allow(Reply));
    }
}

#[test]
fn replies_to_what_others_send_in_the_nodes_name_pass() {
    // A proxy writes the node's address into what it forwards.
    for net in Net::ALL {
        let mut node = node_with(NODE_ONLY);
        node.allow(Direction::Ingress, &[(TCP, PORT, PORT)]);
        let [from_node, to_node] = ways(net);
        let segment = |(from, to), ports: [u16; 2]| {
            Frame::tcp((from, ports[0]).into(), (to, ports[1]).into(), tcp::ACK)
        };
        // The entry was lost.
        let asks = segment(from_node, [40000, PORT]);
        assert_eq!(node.meet(Direction::Ingress, &asks), Allow(Rule));
        let answers = segment(to_node, [PORT, 40000]);
        assert_eq!(node.meet(Direction::Egress, &answers), Allow(Reply));
    }
}

#[test]
fn an_error_about_what_the_node_sent_passes() {
    for net in Net::ALL {
        let mut node = node_with(NODE_ONLY);
        let [from_node, to_node] = ways(net);
        let asks = Kind::Udp.asks(from_node, 40000);
        let unreachable = match net {
            Net::V4 => 3,
            Net::V6 => 1,
        };
        let (pod, address) = to_node;
        let error = Frame::icmp_error(pod, address, unreachable, &asks, 64);
        assert_eq!(node.meet(Direction::Egress, &error), Deny(NotAllowed), "it sent nothing");
        assert_eq!(node.meet_from_node(&asks), Allow(OwnNode));
        assert_eq!(node.meet(Direction::Egress, &error), Allow(Related));
        node.change_endpoint(|_| {});
        assert_eq!(node.meet(Direction::Egress, &error), Allow(Related));
    }
}

#[test]
fn a_pod_that_reaches_itself_by_translation_answers_itself() {
    for net in Net::ALL {
        let node = node_with(NODE_ONLY);
        let [from_node, to_node] = ways(net);
        let answer = Kind::Tcp.answers(to_node, 40000);
        assert_eq!(node.meet(Direction::Egress, &answer), Deny(NotAllowed));
        let hook = Hook { from_itself: true, ..hook(Direction::Ingress) };
        let asks = Kind::Tcp.asks(from_node, 40000).bytes();
        assert_eq!(node.meet_at(&hook, &asks), Allow(Itself));
        assert_eq!(node.meet(Direction::Egress, &answer), Allow(Reply));
    }
}
