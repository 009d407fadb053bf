//! Datagrams that come in parts.

use super::*;

const UDP: u8 = protocol::UDP;

/// A pod whose friend has one port of UDP, and a first fragment for it.
fn dialogue(net: Net, direction: Direction) -> (Node, Frame) {
    let mut node = Node::new(ISOLATED);
    node.know_friend();
    node.allow(direction, &[(UDP, 53, 53)]);
    let (from, to) = between(net, Ends::of(net).friend, direction);
    (node, Frame::udp((from, 40000).into(), (to, 53).into()).fragment(0, true))
}

/// A fragment of the same datagram as `first`, with bytes that look like a denied header.
fn later(first: &Frame, offset: u16, more: bool) -> Frame {
    let whole = first.clone().without_fragment();
    whole.fragment(offset, more)
}

#[test]
fn later_fragments_follow_their_first() {
    for (net, direction) in every_way() {
        let (node, first) = dialogue(net, direction);
        assert_eq!(node.meet(direction, &later(&first, 2, true)), Deny(FragmentWithoutFirst));
        assert_eq!(node.meet(direction, &first), Allow(Rule));
        assert_eq!(node.meet(direction, &later(&first, 4, false)), Allow(Rule), "in any order");
        assert_eq!(node.meet(direction, &later(&first, 2, true)), Allow(Rule));
        for other in [
            later(&first, 2, true).identification(2),
            Frame::udp((Ends::of(net).stranger, 1).into(), (Ends::of(net).pod, 2).into())
                .fragment(2, true),
        ] {
            assert_eq!(node.meet(direction, &other), Deny(FragmentWithoutFirst));
        }
        let back = direction.opposite();
        assert_eq!(node.meet(back, &later(&first, 2, true)), Deny(FragmentWithoutFirst));
    }
}

#[test]
fn fragments_of_a_reply_follow_its_first() {
    for (net, direction) in every_way() {
        let (node, first) = dialogue(net, direction);
        let (from, to) = between(net, Ends::of(net).friend, direction);
        assert_eq!(node.meet(direction, &first), Allow(Rule));
        let answer = Frame::udp((to, 53).into(), (from, 40000).into()).fragment(0, true);
        let back = direction.opposite();
        assert_eq!(node.meet(back, &later(&answer, 3, false)), Deny(FragmentWithoutFirst));
        assert_eq!(node.meet(back, &answer), Allow(Reply));
        assert_eq!(node.meet(back, &later(&answer, 3, false)), Allow(Reply));
    }
}

#[test]
fn fragments_of_a_denied_first_are_denied() {
    for (net, direction) in every_way() {
        let (node, first) = dialogue(net, direction);
        let (from, to) = between(net, Ends::of(net).friend, direction);
        let denied = Frame::udp((from, 40000).into(), (to, 54).into()).fragment(0, true);
        assert_eq!(node.meet(direction, &denied), Deny(NotAllowed));
        assert_eq!(node.meet(direction, &later(&denied, 2, false)), Deny(FragmentWithoutFirst));
        // Of the same datagram, a second first fragment is judged by itself.
        assert_eq!(node.meet(direction, &first), Allow(Rule));
        assert_eq!(node.meet(direction, &denied), Deny(NotAllowed));
    }
}

#[test]
fn a_policy_change_stops_the_rest_of_a_datagram() {
    for (net, direction) in every_way() {
        let (mut node, first) = dialogue(net, direction);
        assert_eq!(node.meet(direction, &first), Allow(Rule));
        node.rules.clear();
        node.endpoint.epoch += 1;
        assert_eq!(node.meet(direction, &later(&first, 2, false)), Deny(NotAllowed));
    }
}

#[test]
fn a_fragment_that_lies_over_the_header_is_malformed() {
    for (net, direction) in every_way() {
        let (mut node, _) = dialogue(net, direction);
        node.allow(direction, &[(protocol::TCP, 53, 53)]);
        let (from, to) = between(net, Ends::of(net).friend, direction);
        let first = open((from, to), 53).fragment(0, true);
        assert_eq!(node.meet(direction, &first), Allow(Rule));
        for offset in [1, 2] {
            assert_eq!(node.meet(direction, &later(&first, offset, false)), Deny(Malformed));
        }
        assert_eq!(node.meet(direction, &later(&first, 3, false)), Allow(Rule));
        let tiny = open((from, to), 53).cut(16).fragment(0, true);
        assert_eq!(node.meet(direction, &tiny), Deny(Truncated), "the flags come later");
    }
}

#[test]
fn the_rest_of_a_datagram_is_waited_for_as_long_as_linux_does() {
    for (net, direction) in every_way() {
        let (node, first) = dialogue(net, direction);
        let seconds = if net == Net::V4 { 30 } else { 60 };
        assert_eq!(node.meet(direction, &first), Allow(Rule));
        node.pass_secs(seconds);
        assert_eq!(node.meet(direction, &later(&first, 2, true)), Allow(Rule));
        node.pass_secs(1);
        assert_eq!(node.meet(direction, &later(&first, 2, true)), Deny(FragmentWithoutFirst));
    }
}

#[test]
fn a_first_fragment_that_comes_again_shorter_uncovers_nothing() {
    for direction in Direction::ALL {
        let (mut node, _) = dialogue(Net::V6, direction);
        node.allow(direction, &[(protocol::TCP, 80, 80), (UDP, 53, 53)]);
        let (from, to) = between(Net::V6, Ends::of(Net::V6).friend, direction);
        let options = Extension::Sized(protocol::DESTINATION_OPTIONS, std::vec![0; 14]);
        let longer = open((from, to), 80).fragment(0, true).extension(options);
        let over = open((from, to), 80).fragment(2, false);
        assert_eq!(node.meet(direction, &longer), Allow(Rule));
        assert_eq!(node.meet(direction, &over), Deny(Malformed));
        let shorter = Frame::udp((from, 1).into(), (to, 53).into()).fragment(0, true);
        assert_eq!(node.meet(direction, &shorter), Allow(Rule));
        assert_eq!(node.meet(direction, &over), Deny(Malformed));
    }
}
