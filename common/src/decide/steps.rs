//! What is looked at for an IP packet, step by step.
//!
//! In the programs, each step is a function of its own: their stacks are small, and the verifier
//! goes through each of them once.

use super::{
    Asked, Hook, Maps, Met,
    policy::{self, is_node, is_node_denied, remember_node},
    unaddressed, unreadable,
};
use crate::{
    key::{Address, FragmentKey},
    packet::{self, Bytes, Packet, Part, Quoted, Role, Transport},
    value::{Endpoint, Fragment, flags},
    verdict::{
        AllowReason::{Itself, NeighbourDiscovery, OwnNode},
        Direction,
        DropReason::{self, Malformed, NotAllowed, SpoofedSource},
        Verdict,
    },
};

/// How long the rest of a datagram is waited for: as long as Linux does (net.ipv4.ipfrag_time,
/// net.ipv6.ip6frag_time).
const FRAGMENT_V4_NS: u64 = 30_000_000_000;
const FRAGMENT_V6_NS: u64 = 60_000_000_000;

/// The steps towards the verdict on an IP packet, which is kept between them. But for the first, each
/// returns a number, as the verifier asks: the counter column of the verdict, or what comes next.
pub trait Steps {
    /// [`Family::packet`].
    fn parse(&mut self) -> u32;
    /// [`look`].
    fn look(&mut self) -> u32;
    /// [`judge`].
    fn judge(&mut self) -> u32;
    /// [`remember`].
    fn remember(&mut self) -> u32;
    /// [`quote`].
    fn quote(&mut self) -> u32;
    /// [`judge_quoted`].
    fn judge_quoted(&mut self) -> u32;

    /// The verdict.
    #[inline(always)]
    fn verdict(&mut self) -> Verdict {
        self.parse();
        let next = self.look();
        if next & step::POLICY == 0 {
            return of_column(next);
        }
        let verdict = of_column(self.judge());
        match (verdict, next) {
            (Verdict::Allow(_), step::POLICY_AND_FRAGMENTS) => {
                self.remember();
                verdict
            }
            (Verdict::Deny(_), step::POLICY_OR_QUOTE) => match self.quote() {
                step::POLICY => of_column(self.judge_quoted()),
                column => of_column(column),
            },
            (Verdict::Allow(_) | Verdict::Deny(_), _) => verdict,
        }
    }
}

/// What a step returns that is no counter column.
mod step {
    /// Policy decides.
    pub(super) const POLICY: u32 = 1 << 8;
    /// Policy decides; where it denies, the packet that is quoted.
    pub(super) const POLICY_OR_QUOTE: u32 = POLICY | 1;
    /// Policy decides; where it allows, later fragments follow.
    pub(super) const POLICY_AND_FRAGMENTS: u32 = POLICY | 2;
}

#[inline(always)]
fn of_column(column: u32) -> Verdict {
    Verdict::from_column(column).unwrap_or(Verdict::Deny(DropReason::Internal))
}

/// All steps in one place.
pub(super) struct AtOnce<'a, const N: usize, B, M> {
    met: Met<'a, B, M>,
    packet: Packet<N>,
}

impl<'a, const N: usize, B, M> AtOnce<'a, N, B, M> {
    pub(super) const fn new(met: Met<'a, B, M>) -> Self {
        Self { met, packet: Packet::unaddressed(DropReason::Internal) }
    }
}

impl<const N: usize, B: Bytes, M: Maps<N>> Steps for AtOnce<'_, N, B, M>
where
    Address<N>: Family<N>,
{
    fn parse(&mut self) -> u32 {
        self.packet = Address::packet(self.met.frame);
        0
    }

    fn look(&mut self) -> u32 {
        look(&self.met, &mut self.packet)
    }

    fn judge(&mut self) -> u32 {
        judge(&self.met, &mut self.packet)
    }

    fn remember(&mut self) -> u32 {
        remember(&self.met, &mut self.packet)
    }

    fn quote(&mut self) -> u32 {
        quote(self.met.frame, &mut self.packet)
    }

    fn judge_quoted(&mut self) -> u32 {
        judge_quoted(&self.met, &mut self.packet)
    }
}

/// What differs between IPv4 and IPv6.
pub trait Family<const N: usize>: Sized {
    /// The pod's own address.
    fn own(endpoint: &Endpoint) -> &Address<N>;
    /// Where a frame goes, as far as its IP header is there.
    fn destination<B: Bytes>(frame: &B) -> Option<Self>;
    /// What the headers of a frame say.
    fn packet<B: Bytes>(frame: &B) -> Packet<N>;
    /// What the ICMP error `error` quotes.
    fn quoted<B: Bytes>(frame: &B, error: &Packet<N>) -> Quoted<N>;
}

macro_rules! family {
    ($n:literal, $own:ident, $destination:ident, $parse:ident, $quoted:ident) => {
        impl Family<$n> for Address<$n> {
            #[inline(always)]
            fn own(endpoint: &Endpoint) -> &Address<$n> {
                &endpoint.$own
            }

            #[inline(always)]
            fn destination<B: Bytes>(frame: &B) -> Option<Self> {
                packet::$destination(frame)
            }

            #[inline(always)]
            fn packet<B: Bytes>(frame: &B) -> Packet<$n> {
                packet::$parse(frame)
            }

            #[inline(always)]
            fn quoted<B: Bytes>(frame: &B, error: &Packet<$n>) -> Quoted<$n> {
                packet::$quoted(frame, error)
            }
        }
    };
}
family!(4, ipv4, destination_ipv4, parse_ipv4, quoted_ipv4);
family!(16, ipv6, destination_ipv6, parse_ipv6, quoted_ipv6);

/// The verdict on what headers say, or what policy is to be asked.
#[inline(always)]
pub fn look<const N: usize, B, M>(met: &Met<'_, B, M>, packet: &mut Packet<N>) -> u32
where
    Address<N>: Family<N>,
    M: Maps<N>,
{
    let Met { hook, endpoint, maps, .. } = *met;
    let own = Address::own(endpoint);
    if let Some(reason) = packet.unaddressed {
        return unaddressed(hook, endpoint, reason).column(); // 2, 4
    }
    if hook.from_own_node
        && (!packet.may_be_ipv6_fragment || is_node(maps.identity(&packet.source, endpoint.flags)))
    {
        if is_node_denied(endpoint) {
            remember_node::<N, true, M>(hook, &asked(met, packet), maps);
        }
        return Verdict::Allow(OwnNode).column(); // 1
    }
    if matches!(packet.transport.role, Role::NeighbourDiscovery) {
        return Verdict::Allow(NeighbourDiscovery).column(); // 3
    }
    let (local, remote) = hook.ends(&packet.source, &packet.destination);
    if matches!(hook.direction, Direction::Egress)
        && endpoint.flags & flags::CHECK_SOURCE != 0
        && local != own
        && !(is_link_local(local) && is_on_link(remote))
    {
        return Verdict::Deny(SpoofedSource).column(); // 4
    }
    // Who masquerades what a node sends back to the pod writes an address of the node into it.
    let itself = (!own.is_zero() && local == own && remote == own)
        || hook.from_itself && (remote == own || is_node(maps.identity(remote, endpoint.flags)));
    let is_translated = hook.from_itself && remote != own;
    if matches!(packet.fragment.part, Part::Later) {
        follow_first(hook, packet, maps);
    }
    if let Some(reason) = packet.transport.problem {
        return unreadable(hook, endpoint, reason).column(); // 2
    }
    let first = matches!(packet.fragment.part, Part::First) && endpoint.is_isolated(hook.direction);
    if itself {
        if first {
            remember(met, packet);
        }
        if is_translated && is_node_denied(endpoint) {
            // The reply goes to the node, which translates it back.
            remember_node::<N, true, M>(hook, &asked(met, packet), maps);
        }
        return Verdict::Allow(Itself).column(); // 5
    }
    // 6
    if matches!(packet.transport.role, Role::Reports) {
        step::POLICY_OR_QUOTE
    } else if first {
        step::POLICY_AND_FRAGMENTS
    } else {
        step::POLICY
    }
}

/// The verdict of policy.
#[inline(always)]
pub fn judge<const N: usize, B, M: Maps<N>>(met: &Met<'_, B, M>, packet: &mut Packet<N>) -> u32 {
    policy::judge(met.maps, met.hook, &asked(met, packet)).column()
}

/// Puts the packet that an ICMP error quotes in the error's place, with its ends the way the error
/// goes. The verdict, if it quotes none of whom it is for.
#[inline(always)]
pub fn quote<const N: usize, B: Bytes>(frame: &B, packet: &mut Packet<N>) -> u32
where
    Address<N>: Family<N>,
{
    let Quoted { source, destination, protocol, transport } = Address::quoted(frame, packet);
    if let Some(reason) = transport.problem {
        return Verdict::Deny(reason).column();
    }
    // An error goes to whom the quoted packet came from.
    if source != packet.destination {
        return Verdict::Deny(NotAllowed).column();
    }
    packet.source = destination;
    packet.protocol = protocol;
    packet.transport = transport;
    step::POLICY
}

/// The verdict of policy on an ICMP error, after [`quote`].
#[inline(always)]
pub fn judge_quoted<const N: usize, B, M>(met: &Met<'_, B, M>, packet: &mut Packet<N>) -> u32
where
    M: Maps<N>,
{
    policy::judge_quoted(met.maps, met.hook, &asked(met, packet)).column()
}

#[inline(always)]
const fn asked<'a, const N: usize, B, M>(
    met: &Met<'a, B, M>,
    packet: &'a Packet<N>,
) -> Asked<'a, N> {
    let (_, remote) = met.hook.ends(&packet.source, &packet.destination);
    let (protocol, transport) = (packet.protocol, &packet.transport);
    Asked { endpoint: met.endpoint, remote, protocol, transport }
}

/// Puts what the first fragment said into a later one, if it is known.
///
/// One that would write over the header of its first fragment is malformed (RFC 1858, section 4;
/// RFC 5722).
#[inline(always)]
fn follow_first<const N: usize, M: Maps<N>>(hook: &Hook, packet: &mut Packet<N>, maps: &M) {
    let limit = if N == 4 { FRAGMENT_V4_NS } else { FRAGMENT_V6_NS };
    let Some(first) = maps.fragment(&fragment_key(hook, packet)) else {
        return;
    };
    if maps.now_ns().saturating_sub(first.seen_ns) > limit {
        return;
    }
    let Fragment { source_port, destination_port, covered, protocol, role, .. } = first;
    packet.protocol = protocol;
    packet.transport = if packet.fragment.offset < covered {
        Transport::unreadable(Malformed)
    } else {
        let role = Role::from_number(role);
        Transport { source_port, destination_port, role, ..Transport::ALONE }
    };
}

/// Remembers what later fragments of an allowed first one need.
#[inline(always)]
pub fn remember<const N: usize, B, M>(met: &Met<'_, B, M>, packet: &mut Packet<N>) -> u32
where
    M: Maps<N>,
{
    let transport = &packet.transport;
    // Headers are read within 256 bytes of a frame.
    let end = packet.transport_offset as u16 + transport.header_len;
    let key = fragment_key(met.hook, packet);
    // A first fragment that comes again takes nothing back.
    let covered = met.maps.fragment(&key).map_or(0, |first| first.covered);
    let fragment = Fragment {
        seen_ns: met.maps.now_ns(),
        source_port: transport.source_port,
        destination_port: transport.destination_port,
        covered: end.saturating_sub(packet.fragment.start).max(covered),
        protocol: packet.protocol,
        role: transport.role as u8,
    };
    met.maps.set_fragment(&key, &fragment);
    0
}

#[inline(always)]
const fn fragment_key<const N: usize>(hook: &Hook, packet: &Packet<N>) -> FragmentKey<N> {
    FragmentKey {
        source: packet.source,
        destination: packet.destination,
        hook: hook.ifindex << 1 | hook.direction as u32,
        identification: packet.fragment.identification,
        protocol: if N == 4 { packet.protocol as u32 } else { 0 },
    }
}

/// fe80::/10 and ff00::/8: where a pod may send from an address of its link. From elsewhere such a
/// source would be a way to have others answer in another pod's name.
#[inline(always)]
fn is_on_link<const N: usize>(address: &Address<N>) -> bool {
    is_link_local(address) || (N == 16 && matches!(address.0.first(), Some(0xff)))
}

/// fe80::/10.
#[inline(always)]
fn is_link_local<const N: usize>(address: &Address<N>) -> bool {
    N == 16 && matches!(address.0.first_chunk::<2>(), Some([0xfe, low]) if low & 0xc0 == 0x80)
}
