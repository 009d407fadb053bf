//! Blocks of addresses to values, with the longest prefix found first.
//!
//! Invariant: blocks have no host bits, and are in the order of their addresses, a block before
//! those inside of it; so what lies inside a block is one run of the map.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    net::IpAddr,
};

use ipnet::IpNet;

/// A map whose keys are blocks of either family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrefixMap<V> {
    map: BTreeMap<IpNet, V>,
    /// How many blocks there are of each prefix length: first IPv4, then IPv6.
    lengths: [BTreeMap<u8, usize>; 2],
}

impl<V> Default for PrefixMap<V> {
    fn default() -> Self {
        Self { map: BTreeMap::new(), lengths: [BTreeMap::new(), BTreeMap::new()] }
    }
}

impl<V> PrefixMap<V> {
    /// The value of exactly this block.
    pub fn get(&self, net: &IpNet) -> Option<&V> {
        self.map.get(net)
    }

    /// The value of exactly this block, to be changed.
    pub fn get_mut(&mut self, net: &IpNet) -> Option<&mut V> {
        self.map.get_mut(net)
    }

    /// Sets the value of a block.
    pub fn insert(&mut self, net: IpNet, value: V) {
        match self.map.entry(net) {
            Entry::Occupied(mut entry) => drop(entry.insert(value)),
            Entry::Vacant(entry) => {
                entry.insert(value);
                *self.lengths[family(&net)].entry(net.prefix_len()).or_default() += 1;
            }
        }
    }

    /// Removes a block.
    pub fn remove(&mut self, net: &IpNet) -> Option<V> {
        let value = self.map.remove(net)?;
        let lengths = &mut self.lengths[family(net)];
        if let Entry::Occupied(mut count) = lengths.entry(net.prefix_len()) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
        Some(value)
    }

    /// The longest block that an address lies in.
    pub fn longest(&self, address: IpAddr) -> Option<(&IpNet, &V)> {
        self.longest_up_to(address, u8::MAX)
    }

    /// The longest block that a whole block lies in, and that is not this block itself.
    pub fn around(&self, net: &IpNet) -> Option<(&IpNet, &V)> {
        self.longest_up_to(net.addr(), net.prefix_len().checked_sub(1)?)
    }

    /// Blocks in a block, and this block itself, each before those inside of it.
    pub fn inside(&self, net: &IpNet) -> impl Iterator<Item = (&IpNet, &V)> {
        let outer = *net;
        self.map.range(outer..).take_while(move |(inner, _)| outer.contains(*inner))
    }

    /// Every block.
    pub fn iter(&self) -> impl Iterator<Item = (&IpNet, &V)> {
        self.map.iter()
    }

    /// How many blocks of IPv4, or of IPv6, there are.
    pub fn len_of_family(&self, ipv4: bool) -> usize {
        self.lengths[usize::from(!ipv4)].values().sum()
    }

    fn longest_up_to(&self, address: IpAddr, length: u8) -> Option<(&IpNet, &V)> {
        let lengths = &self.lengths[usize::from(address.is_ipv6())];
        lengths.range(..=length).rev().find_map(|(length, _)| {
            let net = IpNet::new(address, *length).ok()?.trunc();
            self.map.get_key_value(&net)
        })
    }
}

fn family(net: &IpNet) -> usize {
    match net {
        IpNet::V4(_) => 0,
        IpNet::V6(_) => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn map(nets: &[&str]) -> PrefixMap<()> {
        let mut map = PrefixMap::default();
        nets.iter().for_each(|text| map.insert(net(text), ()));
        map
    }

    #[test]
    fn the_longest_prefix_is_found_and_that_of_its_own_family() {
        let map = map(&["0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "::/0", "fd00::/8"]);
        let longest = |text: &str| map.longest(text.parse().unwrap()).map(|(net, ())| *net);
        assert_eq!(longest("10.1.2.3"), Some(net("10.1.0.0/16")));
        assert_eq!(longest("10.2.0.1"), Some(net("10.0.0.0/8")));
        assert_eq!(longest("192.0.2.1"), Some(net("0.0.0.0/0")));
        assert_eq!(longest("fd00::1"), Some(net("fd00::/8")));
        assert_eq!(longest("2001:db8::1"), Some(net("::/0")));
        assert_eq!(map.around(&net("10.1.0.0/16")).map(|(net, ())| *net), Some(net("10.0.0.0/8")));
        assert_eq!(map.around(&net("0.0.0.0/0")), None);
    }

    #[test]
    fn what_lies_inside_a_block_is_one_run() {
        let map = map(&["9.0.0.0/8", "10.0.0.0/8", "10.0.0.0/16", "10.255.0.0/16", "11.0.0.0/8"]);
        let inside: Vec<_> = map.inside(&net("10.0.0.0/8")).map(|(net, ())| *net).collect();
        assert_eq!(inside, [net("10.0.0.0/8"), net("10.0.0.0/16"), net("10.255.0.0/16")]);
    }

    #[test]
    fn what_was_removed_is_found_no_more() {
        let mut map = map(&["10.0.0.0/8", "10.1.0.0/16"]);
        assert_eq!(map.remove(&net("10.1.0.0/16")), Some(()));
        assert_eq!(map.remove(&net("10.1.0.0/16")), None);
        let longest = map.longest("10.1.2.3".parse().unwrap());
        assert_eq!(longest.map(|(net, ())| *net), Some(net("10.0.0.0/8")));
        assert_eq!([map.len_of_family(true), map.len_of_family(false)], [1, 0]);
    }
}
