//! Replies: who opened a flow, and for how long that is known.

use super::*;

const TCP: u8 = protocol::TCP;
const UDP: u8 = protocol::UDP;

/// An isolated pod; in `direction`, the friend has port 3306 of TCP and UDP.
fn node_with(flags: u32, direction: Direction) -> Node {
    let mut node = Node::new(flags);
    node.know_friend();
    node.allow(direction, &[(TCP, 3306, 3306), (UDP, 3306, 3306)]);
    node
}

/// A flow between the friend and the pod, whose packets are seen in both directions.
#[derive(Clone, Copy)]
struct Dialogue {
    /// Where its first packet goes.
    direction: Direction,
    client: IpAddr,
    server: IpAddr,
}

impl Dialogue {
    fn new(net: Net, direction: Direction) -> Self {
        let (client, server) = between(net, Ends::of(net).friend, direction);
        Self { direction, client, server }
    }

    /// From the side that opened it.
    fn asks(&self, node: &Node, flags: u8) -> Verdict {
        let frame = Frame::tcp((self.client, 40000).into(), (self.server, 3306).into(), flags);
        node.meet(self.direction, &frame)
    }

    /// From the other side.
    fn answers(&self, node: &Node, flags: u8) -> Verdict {
        let frame = Frame::tcp((self.server, 3306).into(), (self.client, 40000).into(), flags);
        node.meet(self.direction.opposite(), &frame)
    }

    fn asks_udp(&self, node: &Node) -> Verdict {
        let frame = Frame::udp((self.client, 40000).into(), (self.server, 3306).into());
        node.meet(self.direction, &frame)
    }

    fn answers_udp(&self, node: &Node) -> Verdict {
        let frame = Frame::udp((self.server, 3306).into(), (self.client, 40000).into());
        node.meet(self.direction.opposite(), &frame)
    }
}

/// Each family, with an isolated pod whose friend opens flows to it, or the pod to its friend.
fn dialogues() -> impl Iterator<Item = (Node, Dialogue)> {
    every_way()
        .map(|(net, direction)| (node_with(ISOLATED, direction), Dialogue::new(net, direction)))
}

#[test]
fn replies_of_an_allowed_flow_pass() {
    use tcp::{ACK, FIN, RST, SYN};
    for (node, flow) in dialogues() {
        assert_eq!(flow.answers(&node, ACK), Deny(NotAllowed), "nobody asked yet");
        assert_eq!(flow.asks(&node, SYN), Allow(Rule));
        for flags in [SYN | ACK, ACK, FIN | ACK, RST] {
            assert_eq!(flow.answers(&node, flags), Allow(Reply));
            assert_eq!(flow.asks(&node, ACK), Allow(Rule), "rules are asked for every packet");
        }
        assert_eq!(flow.answers_udp(&node), Deny(NotAllowed), "the flow of another protocol");
        assert_eq!(flow.asks_udp(&node), Allow(Rule));
        assert_eq!(flow.answers_udp(&node), Allow(Reply));
    }
}

#[test]
fn a_syn_is_never_a_reply() {
    for (node, flow) in dialogues() {
        assert_eq!(flow.asks(&node, tcp::SYN), Allow(Rule));
        assert_eq!(flow.answers(&node, tcp::SYN), Deny(NotAllowed));
        assert_eq!(flow.answers(&node, tcp::SYN | tcp::PSH), Deny(NotAllowed));
        assert_eq!(flow.answers(&node, tcp::SYN | tcp::ACK), Allow(Reply));
    }
}

#[test]
fn a_reply_belongs_to_its_own_ports_and_peer() {
    for (node, flow) in dialogues() {
        assert_eq!(flow.asks(&node, tcp::SYN), Allow(Rule));
        let Dialogue { direction, client, server } = flow;
        let stranger = if client.is_ipv4() { Net::V4 } else { Net::V6 };
        let stranger = Ends::of(stranger).stranger;
        let (far_server, far_client) = match direction {
            Direction::Ingress => (server, stranger),
            Direction::Egress => (stranger, client),
        };
        for (from, to) in [
            ((server, 3307), (client, 40000)),
            ((server, 3306), (client, 40001)),
            ((server, 40000), (client, 3306)),
            ((far_server, 3306), (far_client, 40000)),
        ] {
            let frame = Frame::tcp(from.into(), to.into(), tcp::ACK);
            assert_eq!(
                node.meet(direction.opposite(), &frame),
                Deny(NotAllowed),
                "{from:?} {to:?}"
            );
        }
    }
}

#[test]
fn the_flow_of_one_pod_is_not_anothers() {
    for (node, flow) in dialogues() {
        assert_eq!(flow.asks(&node, tcp::SYN), Allow(Rule));
        let frame = Frame::tcp((flow.server, 3306).into(), (flow.client, 40000).into(), tcp::ACK);
        let hook = Hook {
            direction: flow.direction.opposite(),
            ifindex: IFINDEX + 1,
            from_own_node: false,
            from_itself: false,
            vlan_tagged: false,
        };
        let verdict = decide(&hook, &node.endpoint, &Linear(&frame.bytes()), &node);
        assert_eq!(verdict, Deny(NotAllowed));
    }
}

#[test]
fn a_ping_is_answered_with_its_own_identifier_and_type() {
    for (net, direction) in every_way() {
        let mut node = Node::new(ISOLATED);
        node.know_friend();
        let policy_set = node.endpoint.side(direction).policy_set;
        node.rules.insert(RuleKey { policy_set, identity: FRIEND }, PortSet::EVERYTHING);
        let (from, to) = between(net, Ends::of(net).friend, direction);
        let back = direction.opposite();
        assert_eq!(node.meet(back, &Frame::echo_reply(to, from, 7)), Deny(NotAllowed));
        assert_eq!(node.meet(direction, &Frame::echo_request(from, to, 7)), Allow(Rule));
        assert_eq!(node.meet(back, &Frame::echo_reply(to, from, 7)), Allow(Reply));
        assert_eq!(node.meet(back, &Frame::echo_reply(to, from, 8)), Deny(NotAllowed));
        assert_eq!(node.meet(back, &Frame::echo_request(to, from, 7)), Deny(NotAllowed));
        // Neither related nor answers, in either family.
        for kind in [5, 13, 14] {
            let other = Frame::icmp(to, from, kind, 0, [0, 7, 0, 1]);
            assert_eq!(node.meet(back, &other), Deny(NotAllowed), "type {kind}");
        }
        // A reply opens nothing in the direction that it goes in.
        assert_eq!(node.meet(direction, &Frame::echo_reply(from, to, 9)), Allow(Rule));
        assert_eq!(node.meet(back, &Frame::echo_request(to, from, 9)), Deny(NotAllowed));
        assert_eq!(node.meet(back, &Frame::echo_reply(to, from, 9)), Deny(NotAllowed));
    }
}

#[test]
fn where_the_other_direction_is_not_isolated_replies_need_no_flow() {
    for (net, direction) in every_way() {
        let isolated = match direction {
            Direction::Ingress => ISOLATED_INGRESS,
            Direction::Egress => ISOLATED_EGRESS,
        };
        let node = node_with(isolated, direction);
        let flow = Dialogue::new(net, direction);
        assert_eq!(flow.asks_udp(&node), Allow(Rule));
        assert_eq!(flow.answers_udp(&node), Allow(NotIsolated));
        assert!(node.flows.borrow().is_empty(), "nothing is kept that nobody asks for");
        assert_eq!(flow.answers(&node, tcp::ACK), Allow(NotIsolated), "whoever asked");
    }
}

#[test]
fn what_is_denied_leaves_no_flow() {
    for (net, direction) in every_way() {
        let node = Node::new(ISOLATED | CHECK_SOURCE);
        let flow = Dialogue::new(net, direction);
        assert_eq!(flow.asks(&node, tcp::SYN), Deny(NotAllowed));
        assert_eq!(flow.asks(&node, tcp::ACK), Deny(NotAllowed));
        assert_eq!(flow.asks_udp(&node), Deny(NotAllowed));
        assert!(node.flows.borrow().is_empty());
    }
}

#[test]
fn replies_do_not_open_a_flow_of_their_own() {
    for (mut node, flow) in dialogues() {
        // Now replies pass by rules, too: to the client's port.
        node.allow(flow.direction.opposite(), &[(TCP, 40000, 40000), (UDP, 40000, 40000)]);
        assert_eq!(flow.asks(&node, tcp::SYN), Allow(Rule));
        assert_eq!(flow.answers(&node, tcp::SYN | tcp::ACK), Allow(Rule));
        assert_eq!(flow.asks_udp(&node), Allow(Rule));
        assert_eq!(flow.answers_udp(&node), Allow(Rule));
        for opened in node.flows.borrow().values() {
            assert_eq!(opened.opener(), flow.direction);
        }
        // So that what the server sends does not let the client go on, once that is forbidden.
        node.rules.clear();
        node.allow(flow.direction.opposite(), &[(TCP, 40000, 40000), (UDP, 40000, 40000)]);
        node.endpoint.epoch += 1;
        assert_eq!(flow.answers(&node, tcp::ACK), Allow(Rule));
        assert_eq!(flow.asks(&node, tcp::ACK), Deny(NotAllowed));
        assert_eq!(flow.asks_udp(&node), Deny(NotAllowed));
    }
}

#[test]
fn whoever_sends_a_syn_has_opened_the_flow() {
    for (mut node, flow) in dialogues() {
        assert_eq!(flow.asks(&node, tcp::SYN), Allow(Rule));
        // The same ports, opened from the other side.
        node.allow(flow.direction.opposite(), &[(TCP, 40000, 40000)]);
        assert_eq!(flow.answers(&node, tcp::SYN), Allow(Rule));
        let opened: Vec<Direction> = node.flows.borrow().values().map(Flow::opener).collect();
        assert_eq!(opened, [flow.direction.opposite()]);
    }
}

#[test]
fn a_flow_that_rules_allow_no_more_is_revoked_in_both_directions() {
    for (mut node, flow) in dialogues() {
        assert_eq!(flow.asks(&node, tcp::SYN), Allow(Rule));
        assert_eq!(flow.answers(&node, tcp::ACK), Allow(Reply));
        node.rules.clear();
        node.endpoint.epoch += 1;
        assert_eq!(flow.answers(&node, tcp::ACK), Deny(FlowRevoked));
        assert_eq!(flow.asks(&node, tcp::ACK), Deny(NotAllowed));
        assert_eq!(flow.answers(&node, tcp::ACK), Deny(FlowRevoked), "and stays so");
    }
}

#[test]
fn a_policy_change_that_still_allows_a_flow_leaves_it_alone() {
    for (mut node, flow) in dialogues() {
        assert_eq!(flow.asks(&node, tcp::SYN), Allow(Rule));
        for _ in 0..3 {
            node.endpoint.epoch += 1;
            assert_eq!(flow.answers(&node, tcp::ACK), Allow(Reply));
            assert_eq!(flow.answers(&node, tcp::ACK), Allow(Reply));
        }
        node.endpoint.epoch += 1;
        assert_eq!(flow.asks(&node, tcp::ACK), Allow(Rule));
        assert_eq!(flow.answers(&node, tcp::ACK), Allow(Reply));
    }
}

#[test]
fn a_connection_from_before_any_policy_goes_on_where_it_is_allowed() {
    for (net, direction) in every_way() {
        let mut node = node_with(0, direction);
        let flow = Dialogue::new(net, direction);
        assert_eq!(flow.asks(&node, tcp::SYN), Allow(NotIsolated));
        node.endpoint.flags = ISOLATED;
        node.endpoint.epoch += 1;
        assert_eq!(flow.answers(&node, tcp::ACK), Allow(Reply), "before the client says a word");
    }
}

#[test]
fn a_flow_that_was_lost_heals_with_the_next_packet_of_the_opener() {
    for (node, flow) in dialogues() {
        assert_eq!(flow.asks(&node, tcp::SYN), Allow(Rule));
        node.flows.borrow_mut().clear();
        assert_eq!(flow.answers(&node, tcp::ACK), Deny(NotAllowed));
        assert_eq!(flow.asks(&node, tcp::ACK), Allow(Rule));
        assert_eq!(flow.answers(&node, tcp::ACK), Allow(Reply));
    }
}

#[test]
fn a_packet_in_midstream_opens_nothing_where_it_may_be_a_reply() {
    for (mut node, flow) in dialogues() {
        node.allow(flow.direction.opposite(), &[(TCP, 40000, 40000)]);
        assert_eq!(flow.answers(&node, tcp::ACK), Allow(Rule));
        assert_eq!(flow.asks(&node, tcp::ACK), Allow(Rule));
        assert!(node.flows.borrow().is_empty());
    }
}

#[test]
fn an_idle_flow_is_forgotten_sooner_where_nobody_answered() {
    for (node, flow) in dialogues() {
        assert_eq!(flow.asks_udp(&node), Allow(Rule));
        node.pass_secs(71);
        assert_eq!(flow.answers_udp(&node), Deny(NotAllowed));
        assert_eq!(flow.asks_udp(&node), Allow(Rule));
        node.pass_secs(70);
        assert_eq!(flow.answers_udp(&node), Allow(Reply), "to the last second");
        node.pass_secs(180);
        assert_eq!(flow.answers_udp(&node), Allow(Reply), "to the last second");
        node.pass_secs(181);
        assert_eq!(flow.answers_udp(&node), Deny(NotAllowed));

        assert_eq!(flow.asks(&node, tcp::SYN), Allow(Rule));
        node.pass_secs(71);
        assert_eq!(flow.answers(&node, tcp::SYN | tcp::ACK), Deny(NotAllowed));
        assert_eq!(flow.asks(&node, tcp::SYN), Allow(Rule));
        assert_eq!(flow.answers(&node, tcp::SYN | tcp::ACK), Allow(Reply));
        node.pass_secs(24 * 3600);
        assert_eq!(flow.answers(&node, tcp::ACK), Allow(Reply), "TCP lives for a day");
        node.pass_secs(24 * 3600 + 1);
        assert_eq!(flow.answers(&node, tcp::ACK), Deny(NotAllowed));
    }
}

/// A connection that both sides have sent in.
fn established(node: &Node, flow: &Dialogue) {
    assert_eq!(flow.asks(node, tcp::SYN), Allow(Rule));
    assert_eq!(flow.answers(node, tcp::SYN | tcp::ACK), Allow(Reply));
    assert_eq!(flow.asks(node, tcp::ACK), Allow(Rule));
}

#[test]
fn a_half_closed_connection_lives_for_an_hour_and_a_closed_one_for_a_minute() {
    for (node, flow) in dialogues() {
        established(&node, &flow);
        assert_eq!(flow.asks(&node, tcp::FIN | tcp::ACK), Allow(Rule));
        node.pass_secs(3600);
        assert_eq!(flow.answers(&node, tcp::ACK), Allow(Reply), "the other side still sends");
        assert_eq!(flow.answers(&node, tcp::FIN | tcp::ACK), Allow(Reply));
        assert_eq!(flow.asks(&node, tcp::ACK), Allow(Rule));
        node.pass_secs(60);
        assert_eq!(flow.answers(&node, tcp::FIN | tcp::ACK), Allow(Reply), "sent once more");
        node.pass_secs(61);
        assert_eq!(flow.answers(&node, tcp::ACK), Deny(NotAllowed));
    }
}

#[test]
fn a_reset_ends_a_flow_in_ten_seconds_unless_the_opener_goes_on() {
    for (node, flow) in dialogues() {
        established(&node, &flow);
        assert_eq!(flow.answers(&node, tcp::RST), Allow(Reply));
        node.pass_secs(11);
        assert_eq!(flow.answers(&node, tcp::ACK), Deny(NotAllowed));
        established(&node, &flow);
        assert_eq!(flow.answers(&node, tcp::RST), Allow(Reply));
        assert_eq!(flow.asks(&node, tcp::ACK), Allow(Rule), "who goes on did not believe it");
        node.pass_secs(3600);
        assert_eq!(flow.answers(&node, tcp::ACK), Allow(Reply));
    }
}

#[test]
fn a_syn_opens_a_closed_flow_anew() {
    for (node, flow) in dialogues() {
        established(&node, &flow);
        assert_eq!(flow.asks(&node, tcp::FIN | tcp::ACK), Allow(Rule));
        assert_eq!(flow.answers(&node, tcp::FIN | tcp::ACK), Allow(Reply));
        established(&node, &flow);
        node.pass_secs(24 * 3600);
        assert_eq!(flow.answers(&node, tcp::ACK), Allow(Reply));
    }
}

#[test]
fn sctp_is_opened_by_init_and_ended_by_abort() {
    const SCTP: u8 = protocol::SCTP;
    let (init, init_ack, abort, data) = (1, 2, 6, 0);
    for (mut node, Dialogue { direction, client, server }) in dialogues() {
        node.allow(direction, &[(SCTP, 3306, 3306)]);
        let asks = |node: &Node, kind| {
            let frame = Frame::sctp_chunk((client, 40000).into(), (server, 3306).into(), kind);
            node.meet(direction, &frame)
        };
        let answers = |node: &Node, kind| {
            let frame = Frame::sctp_chunk((server, 3306).into(), (client, 40000).into(), kind);
            node.meet(direction.opposite(), &frame)
        };
        assert_eq!(answers(&node, init_ack), Deny(NotAllowed));
        assert_eq!(asks(&node, init), Allow(Rule));
        assert_eq!(answers(&node, init), Deny(NotAllowed), "never a reply");
        assert_eq!(answers(&node, init_ack), Allow(Reply));
        node.pass_secs(3600);
        assert_eq!(answers(&node, data), Allow(Reply));
        assert_eq!(answers(&node, abort), Allow(Reply));
        node.pass_secs(11);
        assert_eq!(answers(&node, data), Deny(NotAllowed));
    }
}

#[test]
fn packets_of_either_side_keep_a_flow_alive() {
    for (node, flow) in dialogues() {
        assert_eq!(flow.asks_udp(&node), Allow(Rule));
        assert_eq!(flow.answers_udp(&node), Allow(Reply));
        for _ in 0..5 {
            node.pass_secs(100);
            assert_eq!(flow.answers_udp(&node), Allow(Reply));
        }
        for _ in 0..5 {
            node.pass_secs(100);
            assert_eq!(flow.asks_udp(&node), Allow(Rule));
        }
        node.pass_secs(100);
        assert_eq!(flow.answers_udp(&node), Allow(Reply));
    }
}

#[test]
fn a_busy_flow_is_written_once_a_second() {
    for (node, flow) in dialogues() {
        let seen = |node: &Node| -> Vec<u64> {
            node.flows.borrow().values().map(|flow| flow.seen_ns).collect()
        };
        established(&node, &flow);
        let first = seen(&node);
        node.pass_secs(1);
        assert_eq!(flow.asks(&node, tcp::ACK), Allow(Rule));
        assert_eq!(flow.answers(&node, tcp::ACK), Allow(Reply));
        assert_eq!(seen(&node), first);
        node.now_ns.set(node.now_ns.get() + 1);
        assert_eq!(flow.answers(&node, tcp::ACK), Allow(Reply));
        assert_eq!(seen(&node), [node.now_ns.get()]);
    }
}

#[test]
fn datagrams_to_an_address_of_the_node_are_answered_by_whoever_is_behind_it() {
    for (net, flags) in
        Net::ALL.into_iter().flat_map(|net| [ISOLATED_INGRESS, ISOLATED].map(|flags| (net, flags)))
    {
        let mut node = Node::new(flags);
        let Ends { friend: address, pod, .. } = Ends::of(net);
        node.peers.insert(address, Peer { identities: [IDENTITY_NODE, IDENTITY_NONE] });
        let question = Frame::udp((pod, 40000).into(), (address, 53).into());
        let answer = Frame::udp((address, 53).into(), (pod, 40000).into());
        assert_eq!(node.meet(Direction::Ingress, &answer), Deny(NotAllowed));
        assert!(node.meet(Direction::Egress, &question).is_allow());
        assert_eq!(node.meet(Direction::Ingress, &answer), Allow(Reply), "it came by a device");
    }
}

#[test]
fn what_a_wrong_answer_of_the_rules_let_in_lives_for_a_second() {
    for (net, direction) in every_way() {
        let mut node = Node::new(ISOLATED);
        node.know_friend();
        node.allow(direction, &[(protocol::UDP, 53, 53)]);
        let (from, to) = between(net, Ends::of(net).friend, direction);
        let asked = Frame::udp((from, 40000).into(), (to, 53).into());
        let answered = Frame::udp((to, 53).into(), (from, 40000).into());
        assert_eq!(node.meet(direction, &asked), Allow(Rule));
        let back = direction.opposite();
        assert_eq!(node.meet(back, &answered), Allow(Reply));
        // As if no rule of this epoch had ever said so.
        node.rules.clear();
        node.forget_answers();
        assert_eq!(node.meet(back, &answered), Allow(Reply));
        node.pass_secs(2);
        assert_eq!(node.meet(back, &answered), Deny(FlowRevoked));
        assert_eq!(node.meet(direction, &asked), Deny(NotAllowed));
    }
}
