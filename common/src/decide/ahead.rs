//! What is denied before it gets to the pod: at the node's uplink, where packets look as others sent
//! them.
//!
//! Invariant: what is denied here, the hook of the pod denies with the same reason, whatever the node
//! does to packets on the way, as long as it leaves both addresses as they are. What may look
//! different by then is left to that hook: replies of flows that the node translates, fragments, and
//! what a device may have taken to pieces.

use super::{Asked, Maps, policy::by_rules, steps::Family};
use crate::{
    key::Address,
    packet::{Packet, Part, Role},
    value::{Endpoint, flags},
    verdict::{
        Direction,
        DropReason::{self, NotAllowed, Truncated},
    },
};

/// Whether anything for this address can be denied ahead of the pod's hook: the pod has it, is
/// isolated for ingress, and does not have denied peers answered.
#[inline(always)]
pub fn is_judged_ahead<const N: usize>(endpoint: &Endpoint, destination: &Address<N>) -> bool
where
    Address<N>: Family<N>,
{
    endpoint.is_isolated(Direction::Ingress)
        && endpoint.flags & flags::REJECT == 0
        && Address::own(endpoint) == destination
}

/// Why the hook of a pod that [`is_judged_ahead`] will deny a packet, as far as that can be told.
///
/// 1. Fragments, and what may be one, may be put together on the way. What is cut short may only not
///    have been read as a whole here.
/// 2. The pod reaches itself.
/// 3. What cannot be read is denied.
/// 4. What opens a flow is no reply to anything, so rules alone decide. All else may be one.
#[inline(always)]
pub fn ahead<const N: usize, M: Maps<N>>(
    endpoint: &Endpoint,
    packet: &Packet<N>,
    maps: &M,
) -> Option<DropReason> {
    let whole = matches!(packet.fragment.part, Part::Whole) && !packet.may_be_ipv6_fragment;
    if packet.unaddressed.is_some() || !whole {
        return None; // 1
    }
    if packet.source == packet.destination {
        return None; // 2
    }
    let transport = &packet.transport;
    match (transport.problem, transport.role) {
        (Some(Truncated), _) => None,      // 1
        (Some(reason), _) => Some(reason), // 3
        (None, Role::Opens) => {
            let (remote, protocol) = (&packet.source, packet.protocol);
            let asked = Asked { endpoint, remote, protocol, transport };
            let allowed =
                by_rules(&asked, Direction::Ingress, transport.destination_port, maps).is_some();
            if allowed { None } else { Some(NotAllowed) } // 4
        }
        (
            None,
            Role::Continues
            | Role::Either
            | Role::Answers
            | Role::Alone
            | Role::NeighbourDiscovery
            | Role::Reports,
        ) => None, // 4
    }
}
