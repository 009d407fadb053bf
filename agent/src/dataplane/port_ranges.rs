//! Where port sets lie in the `port_ranges` map.
//!
//! A set is stored once, however many rules use it. Its place is never written again while
//! anything can still read it: a place that is given up rests for one plan before it is used anew.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, bail};
use bulkhead_common::{abi, value};

use super::op::Op;
use crate::policy::compiled::PortSet;

/// Places of port sets.
#[derive(Clone, Debug)]
pub(super) struct PortRanges {
    placed: BTreeMap<PortSet, value::PortSet>,
    /// Start and length of what may be used.
    free: BTreeMap<u32, u32>,
    /// Given up in the last plan.
    resting: Vec<value::PortSet>,
}

impl PortRanges {
    pub(super) fn new() -> Self {
        Self {
            placed: BTreeMap::new(),
            free: BTreeMap::from([(0, abi::PORT_RANGES)]),
            resting: Vec::new(),
        }
    }

    /// The place of a set; what has to be written for it is added to `ops`.
    pub(super) fn place(
        &mut self,
        set: &PortSet,
        ops: &mut Vec<Op>,
    ) -> anyhow::Result<value::PortSet> {
        let ranges = match set {
            PortSet::Everything => return Ok(value::PortSet::EVERYTHING),
            PortSet::Ranges(ranges) if ranges.is_empty() => return Ok(value::PortSet::NOTHING),
            PortSet::Ranges(ranges) => ranges,
        };
        if let Some(place) = self.placed.get(set) {
            return Ok(*place);
        }
        let len = u32::try_from(ranges.len()).context("a port set of more than 2^32 ranges")?;
        let Some((start, free)) =
            self.free.iter().map(|(start, free)| (*start, *free)).find(|(_, free)| *free >= len)
        else {
            bail!(
                "map PORT_RANGES is full (capacity {}): no room for a port set of {len} ranges; \
                 use fewer different port lists in the policies of this node's pods",
                abi::PORT_RANGES
            );
        };
        self.free.remove(&start);
        if free > len {
            self.free.insert(start + len, free - len);
        }
        ops.extend(
            (start..).zip(ranges).map(|(index, range)| Op::SetPortRange { index, range: *range }),
        );
        let place = value::PortSet { start, len };
        self.placed.insert(set.clone(), place);
        Ok(place)
    }

    /// Gives up every set that is not in `used`.
    pub(super) fn retain(&mut self, used: &BTreeSet<(u32, u32)>) {
        for place in std::mem::take(&mut self.resting) {
            self.release(place);
        }
        let mut resting = Vec::new();
        self.placed.retain(|_, place| {
            let keep = used.contains(&(place.start, place.len));
            if !keep {
                resting.push(*place);
            }
            keep
        });
        self.resting = resting;
    }

    /// Ranges in use, those that rest included.
    pub(super) fn used(&self) -> u32 {
        abi::PORT_RANGES - self.free.values().sum::<u32>()
    }

    fn release(&mut self, place: value::PortSet) {
        let (mut start, mut len) = (place.start, place.len);
        if let Some((before, free)) = self.free.range(..start).next_back().map(|(s, l)| (*s, *l))
            && before + free == start
        {
            self.free.remove(&before);
            start = before;
            len += free;
        }
        if let Some(free) = self.free.remove(&(start + len)) {
            len += free;
        }
        self.free.insert(start, len);
    }
}

#[cfg(test)]
mod tests {
    use bulkhead_common::value::PortRange;

    use super::*;

    fn set(ports: impl IntoIterator<Item = u16>) -> PortSet {
        PortSet::Ranges(
            ports.into_iter().map(|p| PortRange { protocol: 6, first: p, last: p }).collect(),
        )
    }

    #[test]
    fn equal_sets_share_a_place_and_are_written_once() {
        let mut places = PortRanges::new();
        let mut ops = Vec::new();
        let first = places.place(&set([80, 443]), &mut ops).unwrap();
        let second = places.place(&set([80, 443]), &mut ops).unwrap();
        assert_eq!(first, second);
        assert_eq!(ops.len(), 2);
        assert_eq!(places.used(), 2);
    }

    #[test]
    fn a_place_rests_for_one_plan_before_it_is_used_again() {
        let mut places = PortRanges::new();
        let mut ops = Vec::new();
        let first = places.place(&set([1]), &mut ops).unwrap();
        places.retain(&BTreeSet::new());
        let second = places.place(&set([2]), &mut ops).unwrap();
        assert_ne!(first.start, second.start);
        places.retain(&BTreeSet::from([(second.start, second.len)]));
        let third = places.place(&set([3]), &mut ops).unwrap();
        assert_eq!(third.start, first.start);
    }

    #[test]
    fn places_that_are_given_up_join_into_one() {
        let mut places = PortRanges::new();
        let mut ops = Vec::new();
        for port in 0..10 {
            places.place(&set([port, 1000 + port]), &mut ops).unwrap();
        }
        places.retain(&BTreeSet::new());
        places.retain(&BTreeSet::new());
        assert_eq!(places.used(), 0);
        assert_eq!(places.free, BTreeMap::from([(0, abi::PORT_RANGES)]));
    }

    #[test]
    fn a_set_that_finds_no_room_is_an_error_that_names_the_map() {
        let mut places = PortRanges::new();
        let mut ops = Vec::new();
        places.place(&set(0..=u16::MAX), &mut ops).unwrap();
        let error = places.place(&set([1]), &mut ops).unwrap_err().to_string();
        assert!(error.contains("PORT_RANGES is full (capacity 65536)"), "{error}");
    }
}
