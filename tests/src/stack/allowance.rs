//! Which peers the policies of a site allow: the same for whatever enforces them.

use std::net::Ipv4Addr;

use super::{CLIENT, PORT};

/// A peer of the server, and the port that it may reach, by TCP and UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// The peer.
    pub peer: Ipv4Addr,
    /// The port.
    pub port: u16,
}

/// That many, no two alike. The client's stands half way, where one at a random place stands on
/// average; the others are of pods that never send.
pub fn allowances(number: u16) -> Vec<Allowance> {
    let clients = number / 2;
    let other = |at: u16| {
        let [high, low] = at.to_be_bytes();
        Allowance { peer: Ipv4Addr::new(10, 2, high, low), port: 10_000 + at }
    };
    let client = Allowance { peer: CLIENT, port: PORT };
    (0..number).map(|at| if at == clients { client } else { other(at) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clients_allowance_stands_half_way_among_others() {
        assert_eq!(allowances(1), [Allowance { peer: CLIENT, port: PORT }]);
        let many = allowances(10_000);
        assert_eq!(many.len(), 10_000);
        assert_eq!(many[5_000].peer, CLIENT);
        assert_eq!(many[9_999], Allowance { peer: Ipv4Addr::new(10, 2, 39, 15), port: 19_999 });
    }
}
