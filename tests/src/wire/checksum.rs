//! The checksums of a packet, looked at as plainly as RFC 1071 says, and by no code of the product.
//!
//! Knows IPv4 and IPv6 without extension headers, with TCP, UDP, ICMP or ICMPv6.

use bulkhead_common::packet::protocol::{ICMP, ICMPV6, TCP, UDP};

/// What is wrong with the checksums of a packet, from the IP header on; `None`: nothing is.
pub fn wrong(packet: &[u8]) -> Option<&'static str> {
    let Some(Parts { header, protocol, addresses, transport }) = parts(packet) else {
        return Some("it is cut short, or of no kind that is known here");
    };
    if packet[0] >> 4 == 4 && sum(&[header]) != 0xffff {
        return Some("the IP header's checksum is wrong");
    }
    let length = (transport.len() as u32).to_be_bytes();
    let pseudo: &[&[u8]] = &[addresses, &length, &[0, protocol], transport];
    let sum = match protocol {
        TCP | UDP | ICMPV6 => sum(pseudo),
        ICMP => sum(&[transport]),
        _ => return Some("a protocol that is not known here"),
    };
    (sum != 0xffff).then_some("the transport's checksum is wrong")
}

/// Of an IP packet.
struct Parts<'a> {
    header: &'a [u8],
    protocol: u8,
    /// Both, one behind the other.
    addresses: &'a [u8],
    /// What follows the header, up to where the header says that it ends.
    transport: &'a [u8],
}

fn parts(packet: &[u8]) -> Option<Parts<'_>> {
    let number = |at| Some(u16::from_be_bytes([*packet.get(at)?, *packet.get(at + 1)?]).into());
    match packet.first()? >> 4 {
        4 => {
            let len = usize::from(packet.first()? & 0xf) * 4;
            Some(Parts {
                header: packet.get(..len)?,
                protocol: *packet.get(9)?,
                addresses: packet.get(12..20)?,
                transport: packet.get(len..number(2)?)?,
            })
        }
        6 => Some(Parts {
            header: packet.get(..40)?,
            protocol: *packet.get(6)?,
            addresses: packet.get(8..40)?,
            transport: packet.get(40..40 + number(4)?)?,
        }),
        _ => None,
    }
}

/// In ones' complement, over parts of even length but the last.
fn sum(parts: &[&[u8]]) -> u32 {
    let bytes = parts.concat();
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
    let mut sum: u32 = bytes.chunks(2).map(word).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two pings and an RST, as Linux sent them.
    const SENT: [&str; 3] = [
        "4500002487e140004001b4f57f0000017f0000010800c24529a90001000102030405\
         0607",
        "60096a3900103a4000000000000000000000000000000001000000000000000000000\
         00000000001800049f829aa00010001020304050607",
        "45000028000040004006\
         3cce7f0000017f00000100098c0e000000003595cad25014\
         0000254f0000",
    ];

    #[test]
    fn what_linux_sent_is_right_and_with_any_bit_flipped_it_is_not() {
        for packet in SENT {
            let byte = |at| u8::from_str_radix(&packet[at..at + 2], 16).expect("hex");
            let packet: Vec<u8> = (0..packet.len()).step_by(2).map(byte).collect();
            assert_eq!(wrong(&packet), None, "{packet:02x?}");
            // No checksum covers the beginning of an IPv6 header, nor its hop limit.
            let covered = if packet[0] >> 4 == 4 { 0..packet.len() } else { 8..packet.len() };
            for (at, bit) in covered.flat_map(|at| (0..8).map(move |bit| (at, bit))) {
                let mut flipped = packet.clone();
                flipped[at] ^= 1 << bit;
                assert!(wrong(&flipped).is_some(), "byte {at}, bit {bit}: {flipped:02x?}");
            }
        }
    }

    #[test]
    fn what_is_cut_short_or_unknown_is_not_right() {
        assert!(wrong(&[]).is_some());
        assert!(wrong(&[0x45, 0, 0, 20]).is_some());
        assert!(wrong(&[0x60; 40]).is_some());
    }
}
