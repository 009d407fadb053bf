//! What is behind the IP header.

use super::{SCTP, TCP, Talk, UDP, network};
use crate::choices::Choices;

/// A packet of a conversation, by its protocol.
pub(super) fn of(talk: &Talk, choices: &mut impl Choices) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(128);
    match talk.protocol {
        TCP => tcp(&mut bytes, talk, choices),
        UDP => udp(&mut bytes, talk, choices),
        SCTP => sctp(&mut bytes, talk, choices),
        1 | 58 => icmp(&mut bytes, talk, choices),
        _ => data(&mut bytes, choices),
    }
    if choices.chance(6) {
        bytes.truncate(choices.below(28));
    }
    bytes
}

/// A packet that says what became of another one.
pub(super) fn error(quoted: &Talk, choices: &mut impl Choices) -> Vec<u8> {
    let kind = if quoted.from.is_ipv4() {
        choices.choose(&[3, 3, 11, 12, 4, 5])
    } else {
        choices.choose(&[1, 2, 3, 4, 137, 5])
    };
    let code = choices.choose(&[0, 1, 3, 4]);
    let mut bytes = vec![kind, code, 0, 0, 0, 0, 5, 0];
    let mut header = of(quoted, choices);
    header.truncate(choices.choose(&[8, 8, 8, 20, 60, 4, 0]));
    let fragment = choices.chance(16).then(|| (choices.choose(&[0, 1]), true));
    bytes.extend(network::packet(quoted, &header, fragment, choices));
    if choices.chance(24) {
        let at = 8 + choices.below(bytes.len() - 8);
        bytes[at] = choices.byte();
    }
    if choices.chance(10) {
        bytes.truncate(8 + choices.below(64));
    }
    bytes
}

fn ports(bytes: &mut Vec<u8>, talk: &Talk) {
    bytes.extend(talk.source_port.to_be_bytes());
    bytes.extend(talk.destination_port.to_be_bytes());
}

fn data(bytes: &mut Vec<u8>, choices: &mut impl Choices) {
    let len = match choices.byte() {
        // More than a segment: the sender leaves cutting it up to the device.
        0 => 3000,
        1..=3 => 1448,
        4..=40 => 0,
        len => usize::from(len % 64),
    };
    bytes.resize(bytes.len() + len, choices.byte());
}

fn tcp(bytes: &mut Vec<u8>, talk: &Talk, choices: &mut impl Choices) {
    const FIN: u8 = 1;
    const SYN: u8 = 2;
    const RST: u8 = 4;
    const PSH: u8 = 8;
    const ACK: u8 = 16;
    let flags = match choices.byte() {
        0..=20 => choices.byte(),
        _ => choices.choose(&[SYN, SYN, SYN | ACK, SYN | ACK, ACK, ACK, PSH | ACK, FIN | ACK, RST]),
    };
    let words = if choices.chance(50) { choices.below(11) as u8 } else { 0 };
    ports(bytes, talk);
    bytes.extend(u32::from(choices.byte()).to_be_bytes());
    bytes.extend(u32::from(choices.byte()).to_be_bytes());
    bytes.extend([(5 + words) * 16, flags, 0xff, 0xff, 0, 0, 0, 0]);
    bytes.resize(bytes.len() + usize::from(words) * 4, 1);
    data(bytes, choices);
}

fn udp(bytes: &mut Vec<u8>, talk: &Talk, choices: &mut impl Choices) {
    ports(bytes, talk);
    bytes.extend([0; 4]);
    data(bytes, choices);
    let len = bytes.len() as u16;
    let len = if choices.chance(10) { choices.number() % 64 } else { len };
    bytes[4..6].copy_from_slice(&len.to_be_bytes());
}

fn sctp(bytes: &mut Vec<u8>, talk: &Talk, choices: &mut impl Choices) {
    const DATA: u8 = 0;
    const INIT: u8 = 1;
    const INIT_ACK: u8 = 2;
    const SHUTDOWN: u8 = 7;
    const SHUTDOWN_ACK: u8 = 8;
    const SHUTDOWN_COMPLETE: u8 = 14;
    ports(bytes, talk);
    bytes.extend([0, 0, 0, choices.byte() % 2, 0, 0, 0, 0]);
    if choices.chance(8) {
        return;
    }
    let kinds = [DATA, DATA, DATA, INIT, INIT, INIT_ACK, SHUTDOWN, SHUTDOWN_ACK, SHUTDOWN_COMPLETE];
    let kind = if choices.chance(64) { choices.byte() % 16 } else { choices.choose(&kinds) };
    let start = bytes.len();
    bytes.extend([kind, choices.byte() % 2, 0, 0]);
    data(bytes, choices);
    let len = (bytes.len() - start) as u16;
    let len = if choices.chance(10) { choices.number() % 64 } else { len };
    bytes[start + 2..start + 4].copy_from_slice(&len.to_be_bytes());
}

fn icmp(bytes: &mut Vec<u8>, talk: &Talk, choices: &mut impl Choices) {
    let (request, reply) = if talk.protocol == 1 { (8, 0) } else { (128, 129) };
    let kind = match choices.below(8) {
        0..=2 => request,
        3..=5 => reply,
        6 => choices.choose(&[3, 5, 11, 13, 17, 130, 133, 134, 135, 136, 137, 143]),
        _ => choices.byte(),
    };
    let code = if choices.chance(16) { 1 } else { 0 };
    // The identifier: one of few, so that replies find their requests.
    bytes.extend([kind, code, 0, 0, 0, talk.id as u8 % 4, 0, 1]);
    data(bytes, choices);
}
