//! ICMP errors, which pass if the packet that they quote belongs to an allowed flow.

use super::*;
use crate::verdict::AllowReason::Related;

const UDP: u8 = protocol::UDP;

/// Types of errors that are related to a packet, and some that never are.
fn kinds(net: Net) -> (&'static [u8], &'static [u8]) {
    match net {
        // Source quench, redirect, timestamp.
        Net::V4 => (&[3, 11, 12], &[4, 5, 13]),
        // Unassigned, multicast listener report, and a redirect that has crossed a router.
        Net::V6 => (&[1, 2, 3, 4], &[5, 131]),
    }
}

struct Errors {
    net: Net,
    node: Node,
    /// What the friend or the pod sent to open the flow.
    asked: Frame,
    answered: Frame,
}

impl Errors {
    /// The friend, or the pod, has asked on UDP 53; the pod has these flags.
    fn new(net: Net, direction: Direction, flags: u32) -> Self {
        let mut node = Node::new(flags);
        node.know_friend();
        node.allow(direction, &[(UDP, 53, 53)]);
        let (from, to) = between(net, Ends::of(net).friend, direction);
        let asked = Frame::udp((from, 40000).into(), (to, 53).into());
        let answered = Frame::udp((to, 53).into(), (from, 40000).into());
        Self { net, node, asked, answered }
    }

    /// An error about a packet of `direction`, sent back by a router or by the pod itself.
    fn about(&self, direction: Direction, kind: u8, quoted: &Frame, len: usize) -> Verdict {
        let Ends { pod, friend, stranger } = Ends::of(self.net);
        let (from, to) = match direction {
            Direction::Ingress => (pod, friend),
            Direction::Egress => (stranger, pod),
        };
        let error = Frame::icmp_error(from, to, kind, quoted, len);
        self.node.meet(direction.opposite(), &error)
    }
}

#[test]
fn errors_about_packets_of_a_known_flow_pass() {
    for (net, direction) in every_way() {
        let errors = Errors::new(net, direction, ISOLATED);
        let (related, others) = kinds(net);
        for kind in related {
            let verdict = errors.about(direction, *kind, &errors.asked, 512);
            assert_eq!(verdict, Deny(NotAllowed), "nobody asked yet");
        }
        assert_eq!(errors.node.meet(direction, &errors.asked), Allow(Rule));
        for kind in related {
            let verdict = errors.about(direction, *kind, &errors.asked, 512);
            assert_eq!(verdict, Allow(Related), "type {kind}");
            let verdict = errors.about(direction.opposite(), *kind, &errors.answered, 512);
            assert_eq!(verdict, Allow(Related), "about a reply, type {kind}");
        }
        for kind in others {
            assert_eq!(errors.about(direction, *kind, &errors.asked, 512), Deny(NotAllowed));
        }
    }
}

#[test]
fn an_error_is_judged_by_ports_and_peer_of_what_it_quotes() {
    for (net, direction) in every_way() {
        let errors = Errors::new(net, direction, ISOLATED);
        assert_eq!(errors.node.meet(direction, &errors.asked), Allow(Rule));
        let kind = kinds(net).0[0];
        let (from, to) = between(net, Ends::of(net).friend, direction);
        let (far_from, far_to) = between(net, Ends::of(net).stranger, direction);
        for other in [
            Frame::udp((from, 40001).into(), (to, 53).into()),
            Frame::udp((from, 40000).into(), (to, 54).into()),
            Frame::tcp((from, 40000).into(), (to, 53).into(), tcp::ACK),
            Frame::udp((far_from, 40000).into(), (far_to, 53).into()),
            // Quoted as if the one who gets the error had not sent it.
            Frame::udp((to, 40000).into(), (from, 53).into()),
        ] {
            let verdict = errors.about(direction, kind, &other, 512);
            assert!(!verdict.is_allow(), "{other:?}: {verdict:?}");
        }
    }
}

#[test]
fn an_error_that_quotes_too_little_is_denied() {
    for (net, direction) in every_way() {
        let errors = Errors::new(net, direction, ISOLATED);
        assert_eq!(errors.node.meet(direction, &errors.asked), Allow(Rule));
        let kind = kinds(net).0[0];
        let header = if net == Net::V4 { 20 } else { 40 };
        for len in [0, header - 1, header, header + 7] {
            assert_eq!(errors.about(direction, kind, &errors.asked, len), Deny(Truncated), "{len}");
        }
        assert_eq!(errors.about(direction, kind, &errors.asked, header + 8), Allow(Related));
        let later = errors.asked.clone().fragment(3, false);
        assert_eq!(errors.about(direction, kind, &later, 512), Deny(FragmentWithoutFirst));
        let first = errors.asked.clone().fragment(0, true);
        assert_eq!(errors.about(direction, kind, &first, 512), Allow(Related));
    }
}

#[test]
fn errors_about_a_revoked_flow_are_denied() {
    for (net, direction) in every_way() {
        let mut errors = Errors::new(net, direction, ISOLATED);
        assert_eq!(errors.node.meet(direction, &errors.asked), Allow(Rule));
        errors.node.rules.clear();
        errors.node.endpoint.epoch += 1;
        let kind = kinds(net).0[0];
        assert_eq!(errors.about(direction, kind, &errors.asked, 512), Deny(FlowRevoked));
    }
}

#[test]
fn where_no_flow_is_kept_the_rules_that_let_it_in_decide() {
    for (net, direction) in every_way() {
        let isolated = match direction {
            Direction::Ingress => ISOLATED_INGRESS,
            Direction::Egress => ISOLATED_EGRESS,
        };
        // UDP leaves no entry here: the other direction is free.
        let errors = Errors::new(net, direction, isolated);
        assert_eq!(errors.node.meet(direction, &errors.asked), Allow(Rule));
        assert!(errors.node.flows.borrow().is_empty());
        let kind = kinds(net).0[0];
        let back = direction.opposite();
        assert_eq!(errors.about(back, kind, &errors.answered, 512), Allow(Related));
        let (from, to) = between(net, Ends::of(net).friend, direction);
        let other = Frame::udp((to, 54).into(), (from, 40000).into());
        assert_eq!(errors.about(back, kind, &other, 512), Deny(NotAllowed));
    }
}

#[test]
fn nothing_behind_the_end_of_an_error_is_taken_for_its_quotation() {
    for (net, direction) in every_way() {
        let errors = Errors::new(net, direction, ISOLATED);
        let (from, to) = between(net, Ends::of(net).friend, direction.opposite());
        let later = errors.asked.clone().fragment(3, false);
        let header = if net == Net::V4 { 20 } else { 40 + 8 };
        for len in 0..header {
            let whole = Frame::icmp_error(from, to, kinds(net).0[0], &later, 512).bytes();
            let mut bytes = Frame::icmp_error(from, to, kinds(net).0[0], &later, len).bytes();
            bytes.extend(&whole[bytes.len()..]);
            let verdict = errors.node.meet_bytes(direction.opposite(), &bytes);
            assert_eq!(verdict, Deny(Truncated), "{len}");
        }
    }
}

#[test]
fn an_error_about_what_was_never_sent_passes_nowhere_that_an_entry_would_be_kept() {
    for (net, direction) in every_way() {
        let errors = Errors::new(net, direction, ISOLATED);
        // As if 53 had answered the friend: nobody has asked, and no rule lets 53 open anything.
        let kind = kinds(net).0[0];
        let back = direction.opposite();
        assert_eq!(errors.about(back, kind, &errors.answered, 512), Deny(NotAllowed));
    }
}
