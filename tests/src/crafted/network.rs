//! Ethernet, IPv4 with options, IPv6 with extension headers.

use std::net::IpAddr;

use super::{Packet, Talk};
use crate::choices::Choices;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;

/// The whole frame.
pub(super) fn frame(packet: &Packet, choices: &mut impl Choices) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(256);
    bytes.extend([2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1]);
    if choices.chance(4) {
        for _ in 0..=choices.below(2) {
            let tag: u16 = choices.choose(&[0x8100, 0x88a8]);
            bytes.extend(tag.to_be_bytes());
            bytes.extend([0, 7]);
        }
    }
    let ethertype: u16 = match choices.byte() {
        0 => 0x0806,
        1 => choices.number(),
        // Another family's.
        2 if packet.talk.from.is_ipv4() => 0x86dd,
        2 => 0x0800,
        _ if packet.talk.from.is_ipv4() => 0x0800,
        _ => 0x86dd,
    };
    bytes.extend(ethertype.to_be_bytes());
    bytes.extend(self::packet(&packet.talk, &packet.payload, packet.fragment, choices));
    if choices.chance(10) {
        // What a short frame is filled up with.
        bytes.resize(bytes.len().max(60) + choices.below(4), 0);
    }
    bytes
}

/// From the IP header on.
pub(super) fn packet(
    talk: &Talk,
    payload: &[u8],
    fragment: Option<(u16, bool)>,
    choices: &mut impl Choices,
) -> Vec<u8> {
    match (talk.from, talk.to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let words = if choices.chance(24) { choices.below(11) } else { 0 };
            let (at, more) = fragment.unwrap_or_default();
            let total = (20 + words * 4 + payload.len()) as u16;
            let mut bytes = vec![0x45 + words as u8, 0];
            bytes.extend(total.to_be_bytes());
            bytes.extend(talk.id.to_be_bytes());
            bytes.extend((at | u16::from(more) << 13).to_be_bytes());
            bytes.extend([64, talk.protocol, 0, 0]);
            bytes.extend(from.octets());
            bytes.extend(to.octets());
            bytes.resize(bytes.len() + words * 4, 1);
            bytes.extend(payload);
            bytes
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let (first, chain) = extensions(talk, fragment, choices);
            let hop_limit = if talk.protocol == 58 && choices.chance(180) { 255 } else { 64 };
            let mut bytes = vec![0x60, 0, 0, 0];
            bytes.extend(((chain.len() + payload.len()) as u16).to_be_bytes());
            bytes.extend([first, hop_limit]);
            bytes.extend(from.octets());
            bytes.extend(to.octets());
            bytes.extend(chain);
            bytes.extend(payload);
            bytes
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {
            unreachable!("both ends are of one net")
        }
    }
}

/// The first one's number, and all of them up to the transport header.
fn extensions(
    talk: &Talk,
    fragment: Option<(u16, bool)>,
    choices: &mut impl Choices,
) -> (u8, Vec<u8>) {
    let mut chain = Vec::<(u8, Vec<u8>)>::new();
    if choices.chance(40) {
        for position in 0..=choices.below(7) {
            chain.push(extension(position, choices));
        }
    }
    if let Some((at, more)) = fragment {
        chain.push(fragment_header(at, more, talk.id, choices));
    }
    let mut next = talk.protocol;
    for (number, header) in chain.iter_mut().rev() {
        header[0] = next;
        next = *number;
    }
    (next, chain.into_iter().flat_map(|(_, header)| header).collect())
}

/// A number, and a header whose first byte is still to be written.
fn extension(position: usize, choices: &mut impl Choices) -> (u8, Vec<u8>) {
    let steps = if choices.chance(20) { choices.below(30) } else { choices.below(2) };
    let sized = |len: usize, third: u8| {
        let mut header = vec![1; len];
        header[1..4].copy_from_slice(&[(len / 8 - 1) as u8, third, 0]);
        header
    };
    match choices.below(8) {
        0 if position == 0 || choices.chance(30) => (HOP_BY_HOP, sized(8 + steps * 8, 1)),
        1 => (ROUTING, sized(8 + steps * 8, choices.choose(&[0, 2, 3, 4]))),
        2 => {
            let words = 1 + choices.below(5);
            let mut header = vec![0; 8 + words * 4];
            header[1] = words as u8;
            (AUTHENTICATION, header)
        }
        3 if choices.chance(60) => {
            let at = choices.choose(&[0, 0, 0, 1]);
            fragment_header(at, choices.chance(128), 1, choices)
        }
        _ => (DESTINATION_OPTIONS, sized(8 + steps * 8, 1)),
    }
}

fn fragment_header(at: u16, more: bool, id: u16, choices: &mut impl Choices) -> (u8, Vec<u8>) {
    let reserved = u8::from(choices.chance(16));
    let [high, low] = (at << 3 | u16::from(more)).to_be_bytes();
    let [id_high, id_low] = id.to_be_bytes();
    (FRAGMENT, vec![0, reserved, high, low, 0, 0, id_high, id_low])
}
