//! Answers to denied packets: TCP RST, ICMP and ICMPv6 port unreachable.
//!
//! Owns which packets are answered, and the answer's bytes. Invariant: nothing is answered that
//! could start a storm: no ICMP but an echo request, no RST, nothing sent to or from a group of
//! hosts, no later fragment.
//!
//! # Checksums
//!
//! A packet that a pod on this node sent may be in the state `CHECKSUM_PARTIAL`: the kernel or the
//! network card will yet sum up everything from the old transport header on, and write the
//! complement of the sum to where the old transport checksum was. No program can see or end that
//! state. So answers are made such that it changes nothing: their checksum is right, and what would
//! be written stands there already. With `P` the sum of the pseudo header, and all sums in ones'
//! complement (RFC 1071), a valid transport sums up to `-P`, of which the complement is `P`. Hence:
//!
//! - RST: that place is its own checksum, so the checksum is to be `P`; the window, which nobody
//!   reads in an RST, makes it so.
//! - ICMP to UDP: that place is the second half of the unused word. ICMP has no pseudo header: zero
//!   is right.
//! - ICMPv6 to UDP: the same place, to hold `P`.

use crate::{
    key::Address,
    packet::{Bytes, ETHERNET_LEN, Packet, Role, header, protocol},
};

/// The longest answer: Ethernet, IPv6 and ICMPv6 headers, and a quoted IPv6 header with eight bytes.
pub const MAX_LEN: usize = ETHERNET_LEN + IPV6_LEN + ICMP_LEN + IPV6_LEN + QUOTED_TRANSPORT_LEN;

const IPV4_LEN: usize = 20;
const IPV6_LEN: usize = 40;
const TCP_LEN: usize = 20;
const ICMP_LEN: usize = 8;
const QUOTED_TRANSPORT_LEN: usize = 8;

const TCP_FIN: u8 = 0x01;
const TCP_SYN: u8 = 0x02;
const TCP_RST: u8 = 0x04;
const TCP_ACK: u8 = 0x10;

/// ICMP type and code of "port unreachable" (RFC 792; RFC 4443, section 3.1).
const ICMP_PORT_UNREACHABLE: [u8; 2] = [3, 3];
const ICMPV6_PORT_UNREACHABLE: [u8; 2] = [1, 4];

const TTL: u8 = 64;

header! {
    /// Both addresses of an Ethernet header.
    Macs, 2 { destination: [u8; 6], source: [u8; 6], }
}
header! {
    /// RFC 9293, section 3.1, as far as an RST depends on it.
    Tcp, 4 {
        ports: [u8; 4],
        sequence: [u8; 4],
        acknowledgment: [u8; 4],
        data_offset: [u8; 1],
        flags: [u8; 1],
        window: [u8; 2],
    }
}
header! {
    /// Part of a quoted packet.
    Quoted, 4 { bytes: [u8; 4], }
}

/// Writes the answer to a denied `packet` into `answer`, which is zero; its length, or zero if
/// there is to be none.
#[inline(always)]
pub fn write<const N: usize, B: Bytes>(
    frame: &B,
    packet: &Packet<N>,
    answer: &mut [u8; MAX_LEN],
) -> usize {
    let Some(macs) = frame.read::<Macs>(0) else {
        return 0;
    };
    if !is_answerable(packet, &macs) {
        return 0;
    }
    put(answer, 0, macs.source);
    put(answer, 6, macs.destination);
    put(answer, 12, if N == 4 { [0x08, 0x00] } else { [0x86, 0xdd] });
    if packet.protocol == protocol::TCP {
        write_reset(frame, packet, answer)
    } else {
        write_unreachable(frame, packet, answer)
    }
}

const fn ip_len<const N: usize>() -> usize {
    if N == 4 { IPV4_LEN } else { IPV6_LEN }
}

#[inline(always)]
fn is_answerable<const N: usize>(packet: &Packet<N>, macs: &Macs) -> bool {
    let echo = matches!(packet.transport.role, Role::Opens);
    let to_one_host = macs.destination[0] & 1 == 0;
    packet.problem().is_none()
        && to_one_host
        && (echo || !matches!(packet.protocol, protocol::ICMP | protocol::ICMPV6))
        && is_one_host(&packet.source)
        && is_one_host(&packet.destination)
        // IP options and extension headers would have to be quoted, too.
        && packet.transport_offset == ETHERNET_LEN + ip_len::<N>()
}

/// Neither multicast, broadcast, loopback nor unspecified (RFC 1122, section 3.2.2; RFC 4443,
/// section 2.4).
#[inline(always)]
fn is_one_host<const N: usize>(address: &Address<N>) -> bool {
    match address.0.first() {
        Some(first) if N == 4 => !matches!(first, 0 | 127 | 224..),
        // ::/64 has the unspecified address, the loopback, and IPv4 addresses in disguise.
        Some(first) => *first != 0xff && address.0.first_chunk() != Some(&[0; 8]),
        None => false,
    }
}

/// RFC 9293, section 3.5.2, group 1 and 3: what the denied segment's sender takes for an answer.
#[inline(always)]
fn write_reset<const N: usize, B: Bytes>(
    frame: &B,
    packet: &Packet<N>,
    answer: &mut [u8; MAX_LEN],
) -> usize {
    let at = ETHERNET_LEN + ip_len::<N>();
    let Some(tcp) = frame.read::<Tcp>(at) else {
        return 0;
    };
    let [flags] = tcp.flags;
    if flags & TCP_RST != 0 {
        return 0;
    }
    let [a, b, c, d] = tcp.ports;
    put(answer, at, [c, d, a, b]);
    if flags & TCP_ACK != 0 {
        put(answer, at + 4, tcp.acknowledgment);
        put(answer, at + 12, [5 << 4, TCP_RST]);
    } else {
        let header_len = usize::from(tcp.data_offset[0] >> 4) * 4;
        let data_len = packet.transport_len.saturating_sub(header_len) as u32;
        let flag = |bit| u32::from(flags & bit != 0);
        let acknowledgment = u32::from_be_bytes(tcp.sequence)
            .wrapping_add(data_len)
            .wrapping_add(flag(TCP_SYN) + flag(TCP_FIN));
        put(answer, at + 8, acknowledgment.to_be_bytes());
        put(answer, at + 12, [5 << 4, TCP_RST | TCP_ACK]);
    }
    let pseudo = write_ip(packet, protocol::TCP, TCP_LEN, answer);
    let others = sum(answer, at, TCP_LEN);
    put(answer, at + 14, (!fold(pseudo + pseudo + others)).to_be_bytes());
    put(answer, at + 16, fold(pseudo).to_be_bytes());
    at + TCP_LEN
}

/// RFC 792 and RFC 4443, section 3.1: the IP header and eight bytes more are quoted.
#[inline(always)]
fn write_unreachable<const N: usize, B: Bytes>(
    frame: &B,
    packet: &Packet<N>,
    answer: &mut [u8; MAX_LEN],
) -> usize {
    let at = ETHERNET_LEN + ip_len::<N>();
    let quoted_len = ip_len::<N>() + QUOTED_TRANSPORT_LEN;
    if packet.transport_len < QUOTED_TRANSPORT_LEN {
        return 0;
    }
    put(answer, at, if N == 4 { ICMP_PORT_UNREACHABLE } else { ICMPV6_PORT_UNREACHABLE });
    for offset in (0..quoted_len).step_by(4) {
        let Some(quoted) = frame.read::<Quoted>(ETHERNET_LEN + offset) else {
            return 0;
        };
        put(answer, at + ICMP_LEN + offset, quoted.bytes);
    }
    let number = if N == 4 { protocol::ICMP } else { protocol::ICMPV6 };
    let len = ICMP_LEN + quoted_len;
    let pseudo = write_ip(packet, number, len, answer);
    let pseudo = if N == 4 { 0 } else { pseudo };
    if packet.protocol == protocol::UDP {
        put(answer, at + 6, fold(pseudo).to_be_bytes());
    }
    let checksum = !fold(pseudo + sum(answer, at, len));
    put(answer, at + 2, checksum.to_be_bytes());
    at + len
}

/// Writes the IP header, from the denied destination to the denied source; the sum of the pseudo
/// header for `len` bytes of `number`.
#[inline(always)]
fn write_ip<const N: usize>(
    packet: &Packet<N>,
    number: u8,
    len: usize,
    answer: &mut [u8; MAX_LEN],
) -> u32 {
    let at = ETHERNET_LEN;
    let len_bytes = |len: usize| (len as u16).to_be_bytes();
    if N == 4 {
        put(answer, at, [0x45, 0]);
        put(answer, at + 2, len_bytes(IPV4_LEN + len));
        put(answer, at + 6, [0x40, 0]);
        put(answer, at + 8, [TTL, number]);
    } else {
        put(answer, at, [0x60, 0]);
        put(answer, at + 4, len_bytes(len));
        put(answer, at + 6, [number, TTL]);
    }
    let source = at + ip_len::<N>() - 2 * N;
    put(answer, source, packet.destination.0);
    put(answer, source + N, packet.source.0);
    if N == 4 {
        let checksum = !fold(sum(answer, at, IPV4_LEN));
        put(answer, at + 10, checksum.to_be_bytes());
    }
    sum(answer, source, 2 * N) + u32::from(number) + len as u32
}

#[inline(always)]
fn put<const K: usize>(answer: &mut [u8; MAX_LEN], at: usize, bytes: [u8; K]) {
    if let Some(place) = answer.get_mut(at..).and_then(|rest| rest.first_chunk_mut::<K>()) {
        *place = bytes;
    }
}

/// The sum of big-endian words, not yet folded.
#[inline(always)]
fn sum(answer: &[u8; MAX_LEN], at: usize, len: usize) -> u32 {
    let mut sum = 0;
    for offset in (at..at + len).step_by(2) {
        if let Some(word) = answer.get(offset..).and_then(|rest| rest.first_chunk::<2>()) {
            sum += u32::from(u16::from_be_bytes(*word));
        }
    }
    sum
}

#[inline(always)]
const fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

#[cfg(test)]
mod tests;
