//! Every outcome that a packet can have.
//!
//! The numbers are part of the ABI between kernel and agent (counter columns, events): they are
//! append-only.

/// A direction of traffic, seen from the pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Direction {
    /// Towards the pod.
    Ingress = 0,
    /// Away from the pod.
    Egress = 1,
}

impl Direction {
    /// Both directions, in the order of their numbers.
    pub const ALL: [Self; 2] = [Self::Ingress, Self::Egress];

    /// Of a number that a program hands on: anything but that of ingress is egress.
    #[inline(always)]
    pub const fn from_number(number: u32) -> Self {
        if number == Self::Ingress as u32 { Self::Ingress } else { Self::Egress }
    }

    /// The other direction.
    #[inline(always)]
    pub const fn opposite(self) -> Self {
        match self {
            Self::Ingress => Self::Egress,
            Self::Egress => Self::Ingress,
        }
    }

    /// The word that metrics, logs and output use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }
}

/// What becomes of a packet, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The packet goes on.
    Allow(AllowReason),
    /// The packet is dropped, or rejected where the endpoint says so.
    Deny(DropReason),
}

impl Verdict {
    /// The counter column of this verdict: allow reasons first, drop reasons from
    /// [`DROP_COLUMNS_START`] on.
    #[inline(always)]
    pub const fn column(self) -> u32 {
        match self {
            Self::Allow(reason) => reason as u32,
            Self::Deny(reason) => DROP_COLUMNS_START + reason as u32,
        }
    }

    /// The verdict of a counter column; `None` where the column has none.
    #[inline(always)]
    pub const fn from_column(column: u32) -> Option<Self> {
        if column < DROP_COLUMNS_START {
            match AllowReason::from_number(column as u8) {
                Some(reason) => Some(Self::Allow(reason)),
                None => None,
            }
        } else {
            match DropReason::from_number((column - DROP_COLUMNS_START) as u8) {
                Some(reason) => Some(Self::Deny(reason)),
                None => None,
            }
        }
    }

    /// Whether the packet goes on.
    pub const fn is_allow(self) -> bool {
        matches!(self, Self::Allow(_))
    }
}

/// The first counter column of drop reasons.
pub const DROP_COLUMNS_START: u32 = 8;
/// Counter columns for each direction of an endpoint.
pub const COLUMNS: u32 = 32;

macro_rules! reasons {
    ($(#[$meta:meta])* $name:ident { $($(#[doc = $doc:literal])+ $variant:ident = $number:literal => $text:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum $name { $($(#[doc = $doc])+ $variant = $number,)+ }

        impl $name {
            /// Every reason, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The word that metrics, logs and output use.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }

            /// One sentence for people.
            pub const fn explanation(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),+),)+ }
            }

            /// The reason of a number, if there is one.
            pub const fn from_number(number: u8) -> Option<Self> {
                match number { $($number => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

reasons! {
    /// Why a packet passed.
    AllowReason {
        /// No policy isolates the pod in this direction.
        NotIsolated = 0 => "not_isolated",
        /// A rule of a policy allows it.
        Rule = 1 => "rule",
        /// It belongs to a flow that was allowed in the other direction.
        Reply = 2 => "reply",
        /// It comes from, or goes to, the pod's own node.
        OwnNode = 3 => "own_node",
        /// ARP or IPv6 neighbour discovery.
        NeighbourDiscovery = 4 => "neighbour_discovery",
        /// The pod talks to itself.
        Itself = 5 => "itself",
        /// It is the answer to a packet that was rejected.
        OwnAnswer = 6 => "own_answer",
        /// It is an ICMP error about a packet of an allowed flow.
        Related = 7 => "related",
    }
}

reasons! {
    /// Why a packet was dropped.
    DropReason {
        /// The pod is isolated in this direction and no rule allows the packet.
        NotAllowed = 0 => "not_allowed",
        /// It belongs to a flow that rules allowed once and do not allow any more.
        FlowRevoked = 1 => "flow_revoked",
        /// The pod sent it from an address that is not the pod's.
        SpoofedSource = 2 => "spoofed_source",
        /// A header contradicts itself or the length of the packet.
        Malformed = 3 => "malformed",
        /// The packet ends before its headers do.
        Truncated = 4 => "truncated",
        /// It carries a VLAN tag.
        VlanTagged = 5 => "vlan_tagged",
        /// It is neither IPv4, IPv6 nor ARP.
        UnknownEthertype = 6 => "unknown_ethertype",
        /// It is a later fragment, and its first fragment was not seen.
        FragmentWithoutFirst = 7 => "fragment_without_first",
        /// More or longer IPv6 extension headers than are followed.
        TooManyExtensionHeaders = 8 => "too_many_extension_headers",
        /// An IPv6 routing header of the deprecated type 0 (RFC 5095).
        RoutingHeader = 9 => "routing_header",
        /// The agent's maps contradict each other or lack this endpoint.
        Internal = 10 => "internal",
    }
}

/// What a denied peer gets to see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DenyAction {
    /// Nothing.
    #[default]
    Drop,
    /// TCP RST; ICMP or ICMPv6 port unreachable for all else.
    Reject,
}

const _: () = assert!(AllowReason::ALL.len() as u32 <= DROP_COLUMNS_START);
const _: () = assert!(DropReason::ALL.len() as u32 <= COLUMNS - DROP_COLUMNS_START);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_numbered_in_order_and_named_once() {
        for (number, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, number);
            assert_eq!(DropReason::from_number(*reason as u8), Some(*reason));
            assert!(DropReason::ALL.iter().filter(|r| r.as_str() == reason.as_str()).count() == 1);
        }
        for (number, reason) in AllowReason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, number);
        }
        assert_eq!(DropReason::from_number(DropReason::ALL.len() as u8), None);
    }

    #[test]
    fn every_verdict_has_a_counter_column_of_its_own() {
        let allow = AllowReason::ALL.iter().map(|r| Verdict::Allow(*r).column());
        let deny = DropReason::ALL.iter().map(|r| Verdict::Deny(*r).column());
        let mut seen = [false; COLUMNS as usize];
        assert_eq!(Verdict::from_column(COLUMNS - 1), None);
        for column in allow.chain(deny) {
            assert!(!core::mem::replace(&mut seen[column as usize], true));
            assert_eq!(Verdict::from_column(column).map(Verdict::column), Some(column));
        }
    }
}
