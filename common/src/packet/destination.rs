//! Where a packet goes, and nothing else of it: enough to tell that it is of no concern.

use super::{Bytes, ETHERNET_LEN, Ipv4Header, Ipv6Header};
use crate::key::{Ipv4, Ipv6};

/// Where an IPv4 packet goes, as far as its header is there.
#[inline(always)]
pub(crate) fn destination_ipv4<B: Bytes>(frame: &B) -> Option<Ipv4> {
    Some(frame.read::<Ipv4Header>(ETHERNET_LEN)?.destination)
}

/// Where an IPv6 packet goes, as far as its header is there.
#[inline(always)]
pub(crate) fn destination_ipv6<B: Bytes>(frame: &B) -> Option<Ipv6> {
    Some(frame.read::<Ipv6Header>(ETHERNET_LEN)?.destination)
}
