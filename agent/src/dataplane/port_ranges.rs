//! Where port sets lie in the `port_ranges` map.
//!
//! A single range stands in the set itself, and needs no place. Any other set is stored once,
//! however many rules use it. Its place is never written again while anything can still read it: a
//! place that is given up rests for one plan at least before it is used anew.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use anyhow::{Context as _, bail};
use bulkhead_common::{abi, value};

use super::op::Op;
use crate::policy::compiled::PortSet;

/// Places of port sets.
#[derive(Clone, Debug)]
pub(super) struct PortRanges {
    placed: BTreeMap<Arc<PortSet>, Placed>,
    /// The sets by where they start.
    by_start: BTreeMap<u32, Arc<PortSet>>,
    /// Sets without a user.
    unused: BTreeSet<Arc<PortSet>>,
    /// Start and length of what may be used.
    free: BTreeMap<u32, u32>,
    /// Given up in the last plan.
    resting: Vec<value::PortSet>,
}

#[derive(Clone, Copy, Debug)]
struct Placed {
    place: value::PortSet,
    users: usize,
}

impl PortRanges {
    pub(super) fn new() -> Self {
        Self {
            placed: BTreeMap::new(),
            by_start: BTreeMap::new(),
            unused: BTreeSet::new(),
            free: BTreeMap::from([(0, abi::PORT_RANGES)]),
            resting: Vec::new(),
        }
    }

    /// The place of a set, for one more user; what has to be written for it is added to `ops`.
    pub(super) fn place(
        &mut self,
        set: &Arc<PortSet>,
        ops: &mut Vec<Op>,
    ) -> anyhow::Result<value::PortSet> {
        let ranges = match &**set {
            PortSet::Everything => return Ok(value::PortSet::EVERYTHING),
            PortSet::Ranges(ranges) if ranges.is_empty() => return Ok(value::PortSet::NOTHING),
            PortSet::Ranges(ranges) => ranges,
        };
        if let [range] = ranges[..] {
            return Ok(value::PortSet::one(range));
        }
        if let Some(placed) = self.placed.get_mut(set) {
            placed.users += 1;
            return Ok(placed.place);
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
        self.placed.insert(Arc::clone(set), Placed { place, users: 1 });
        self.by_start.insert(start, Arc::clone(set));
        Ok(place)
    }

    /// One user less for the set that lies in a place.
    pub(super) fn give_up(&mut self, place: value::PortSet) {
        if !place.is_placed() {
            return;
        }
        let Some(set) = self.by_start.get(&place.start) else { return };
        if let Some(placed) = self.placed.get_mut(set) {
            placed.users = placed.users.saturating_sub(1);
            if placed.users == 0 {
                self.unused.insert(Arc::clone(set));
            }
        }
    }

    /// Forgets every user: a plan of all that there is names them anew.
    pub(super) fn forget_users(&mut self) {
        self.placed.values_mut().for_each(|placed| placed.users = 0);
        self.unused = self.placed.keys().cloned().collect();
    }

    /// Ends a plan: places without a user rest, those that rested may be used again, but for those
    /// that are still `read`, because the plan that gave them up was broken off.
    pub(super) fn end_plan(&mut self, read: &BTreeSet<u32>) {
        let (rest, free): (Vec<_>, Vec<_>) =
            self.resting.drain(..).partition(|place| read.contains(&place.start));
        self.resting = rest;
        for place in free {
            self.release(place);
        }
        for set in std::mem::take(&mut self.unused) {
            if self.placed.get(&set).is_some_and(|placed| placed.users == 0)
                && let Some(Placed { place, .. }) = self.placed.remove(&set)
            {
                self.by_start.remove(&place.start);
                self.resting.push(place);
            }
        }
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

    fn set(ports: impl IntoIterator<Item = u16>) -> Arc<PortSet> {
        let range = |p| PortRange { protocol: 6, first: p, last: p };
        Arc::new(PortSet::Ranges(ports.into_iter().map(range).collect()))
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
    fn a_single_range_takes_no_place() {
        let mut places = PortRanges::new();
        let mut ops = Vec::new();
        let place = places.place(&set([80]), &mut ops).unwrap();
        assert_eq!(place.range(), PortRange { protocol: 6, first: 80, last: 80 });
        assert!(!place.is_placed() && place != value::PortSet::NOTHING);
        places.give_up(place);
        places.end_plan(&BTreeSet::new());
        assert!(ops.is_empty() && places.used() == 0);
    }

    #[test]
    fn a_place_rests_for_one_plan_before_it_is_used_again() {
        let mut places = PortRanges::new();
        let mut ops = Vec::new();
        let first = places.place(&set([1, 10]), &mut ops).unwrap();
        places.give_up(first);
        places.end_plan(&BTreeSet::new());
        let second = places.place(&set([2, 10]), &mut ops).unwrap();
        assert_ne!(first.start, second.start);
        places.end_plan(&BTreeSet::new());
        let third = places.place(&set([3, 10]), &mut ops).unwrap();
        assert_eq!(third.start, first.start);
    }

    #[test]
    fn a_place_is_kept_while_it_has_a_user() {
        let mut places = PortRanges::new();
        let mut ops = Vec::new();
        let place = places.place(&set([1, 10]), &mut ops).unwrap();
        places.place(&set([1, 10]), &mut ops).unwrap();
        places.give_up(place);
        places.end_plan(&BTreeSet::new());
        assert_eq!(places.place(&set([1, 10]), &mut ops).unwrap(), place);
        assert_eq!(ops.len(), 2);
    }

    #[test]
    fn places_that_are_given_up_join_into_one() {
        let mut places = PortRanges::new();
        let mut ops = Vec::new();
        for port in 0..10 {
            places.place(&set([port, 1000 + port]), &mut ops).unwrap();
        }
        places.forget_users();
        places.end_plan(&BTreeSet::new());
        places.end_plan(&BTreeSet::new());
        assert_eq!(places.used(), 0);
        assert_eq!(places.free, BTreeMap::from([(0, abi::PORT_RANGES)]));
    }

    #[test]
    fn a_set_that_finds_no_room_is_an_error_that_names_the_map() {
        let mut places = PortRanges::new();
        let mut ops = Vec::new();
        places.place(&set(0..=u16::MAX), &mut ops).unwrap();
        let error = places.place(&set([1, 10]), &mut ops).unwrap_err().to_string();
        assert!(error.contains("PORT_RANGES is full (capacity 65536)"), "{error}");
    }
}
