//! Between whom a packet goes, read as plainly as can be, and by no code of the product.
//!
//! Knows packets without IPv6 extension headers only: the senders here make no others.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bulkhead_common::packet::protocol::{ICMP, ICMPV6, SCTP, TCP, UDP};

/// Between whom a packet goes. An echo has its identifier on the side that asks, and 0 on the
/// other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Headers {
    /// Its number in the IP header.
    pub protocol: u8,
    /// Address and port.
    pub from: SocketAddr,
    /// Address and port.
    pub to: SocketAddr,
}

impl Headers {
    /// Reads a packet, from the IP header on. `None`: it is of no kind that is known here.
    pub fn read(packet: &[u8]) -> Option<Self> {
        let (protocol, source, destination, transport) = match packet.first()? >> 4 {
            4 => {
                let address = |at| Some(IpAddr::V4(Ipv4Addr::from(bytes::<4>(packet, at)?)));
                let len = usize::from(packet.first()? & 0xf) * 4;
                (*packet.get(9)?, address(12)?, address(16)?, packet.get(len..)?)
            }
            6 => {
                let address = |at| Some(IpAddr::V6(Ipv6Addr::from(bytes::<16>(packet, at)?)));
                (*packet.get(6)?, address(8)?, address(24)?, packet.get(40..)?)
            }
            _ => return None,
        };
        let number = |at| Some(u16::from_be_bytes(bytes(transport, at)?));
        let (from, to) = match (protocol, transport.first()?) {
            (TCP | UDP | SCTP, _) => (number(0)?, number(2)?),
            (ICMP, 8) | (ICMPV6, 128) => (number(4)?, 0),
            (ICMP, 0) | (ICMPV6, 129) => (0, number(4)?),
            _ => return None,
        };
        let (from, to) = (SocketAddr::new(source, from), SocketAddr::new(destination, to));
        Some(Self { protocol, from, to })
    }

    /// The way back.
    pub const fn answer(self) -> Self {
        Self { from: self.to, to: self.from, ..self }
    }
}

fn bytes<const N: usize>(packet: &[u8], at: usize) -> Option<[u8; N]> {
    packet.get(at..at + N)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use bulkhead_common::frames::Frame;

    use super::*;

    #[test]
    fn what_is_built_is_read_again() {
        for (from, to) in [("10.0.0.1:1", "10.0.0.2:2"), ("[fd00::1]:1", "[fd00::2]:2")] {
            let (from, to): (SocketAddr, SocketAddr) =
                (from.parse().expect("an address"), to.parse().expect("an address"));
            for (protocol, frame) in [
                (TCP, Frame::tcp(from, to, 2)),
                (UDP, Frame::udp(from, to)),
                (SCTP, Frame::sctp(from, to)),
            ] {
                let read = Headers::read(&frame.bytes()[14..]);
                assert_eq!(read, Some(Headers { protocol, from, to }));
            }
            let protocol = if from.is_ipv4() { ICMP } else { ICMPV6 };
            let asked = Headers { protocol, from, to: SocketAddr::new(to.ip(), 0) };
            let request = Frame::echo_request(from.ip(), to.ip(), 1).bytes();
            assert_eq!(Headers::read(&request[14..]), Some(asked));
            let reply = Frame::echo_reply(to.ip(), from.ip(), 1).bytes();
            assert_eq!(Headers::read(&reply[14..]), Some(asked.answer()));
        }
    }
}
