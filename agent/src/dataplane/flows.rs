//! How full the maps of flows are, and how often one flow made room for another.
//!
//! The programs count the entries that they make; nobody removes one, only the map itself does, when
//! it is full. The rest follows, once the entries that are there are counted. That takes a system
//! call for each, so it is done from time to time, off the path of whoever asks for the numbers.

use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, anyhow};
use aya::{
    Pod,
    maps::{HashMap, MapData, PerCpuArray},
};
use bulkhead_common::{
    abi::{self, name},
    key::FlowKey,
    value::Flow,
};

/// The flows of one address family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowCount {
    /// Entries in the map when they were last counted.
    pub entries: u64,
    /// Entries that the programs have made since they were loaded.
    pub made: u64,
    /// Those of them that had made room for others when entries were last counted.
    pub evicted: u64,
}

impl FlowCount {
    /// What a count of the entries says, of which there were `made` when it began. An entry that was
    /// made twice, by two CPUs at once, counts as evicted; one that was made during the count, not.
    #[must_use]
    const fn counted(self, made: u64, entries: u64) -> Self {
        let gone = made.saturating_sub(entries);
        // It is a counter: a count that met entries on the move takes nothing back.
        let evicted = if gone > self.evicted { gone } else { self.evicted };
        Self { entries, made, evicted }
    }
}

/// The maps of flows, to be read at any time from any thread.
pub struct Flows {
    maps: Maps,
    /// The last count of IPv4 and IPv6, or why there is none.
    counted: Mutex<Result<[FlowCount; 2], String>>,
    /// Held by who counts.
    counting: Mutex<()>,
}

/// Programs write them.
pub(super) struct Maps {
    pub(super) v4: HashMap<MapData, FlowKey<4>, Flow>,
    pub(super) v6: HashMap<MapData, FlowKey<16>, Flow>,
    pub(super) made: PerCpuArray<MapData, u64>,
}

impl Flows {
    /// Of programs that have just been loaded.
    pub(super) fn new(maps: Maps) -> Self {
        Self { maps, counted: Mutex::new(Ok(Default::default())), counting: Mutex::new(()) }
    }

    /// What there is of IPv4 and of IPv6.
    ///
    /// # Errors
    ///
    /// What the kernel said of a map, now or when entries were last counted.
    pub fn read(&self) -> anyhow::Result<[FlowCount; 2]> {
        let counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let [v4, v6] = counted.map_err(|why| anyhow!(why))?;
        let [made_v4, made_v6] = self.maps.made()?;
        Ok([FlowCount { made: made_v4, ..v4 }, FlowCount { made: made_v6, ..v6 }])
    }

    /// Counts the entries anew. Takes up to a second, and does nothing while another thread is at it.
    pub fn count(&self) {
        let Ok(_alone) = self.counting.try_lock() else {
            return;
        };
        let last = self.counted.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let counted = self.count_from(last.unwrap_or_default());
        *self.counted.lock().unwrap_or_else(PoisonError::into_inner) =
            counted.map_err(|error| format!("{error:#}"));
    }

    fn count_from(&self, [v4, v6]: [FlowCount; 2]) -> anyhow::Result<[FlowCount; 2]> {
        let [made_v4, made_v6] = self.maps.made()?;
        Ok([
            next(v4, made_v4, || entries(name::FLOWS_V4, &self.maps.v4))?,
            next(v6, made_v6, || entries(name::FLOWS_V6, &self.maps.v6))?,
        ])
    }
}

impl Maps {
    fn made(&self) -> anyhow::Result<[u64; 2]> {
        let of = |family| -> anyhow::Result<u64> {
            let values = self.made.get(&family, 0).context("cannot read FLOWS_MADE")?;
            Ok(values.iter().fold(0, |sum, value| sum.wrapping_add(*value)))
        };
        Ok([of(0)?, of(1)?])
    }
}

/// The next count, without a look at the map where that can say nothing new: nothing was made, or the
/// map was full long ago and stays so.
fn next(
    last: FlowCount,
    made: u64,
    entries: impl FnOnce() -> anyhow::Result<u64>,
) -> anyhow::Result<FlowCount> {
    if made == last.made {
        return Ok(last);
    }
    let entries = if last.evicted < u64::from(abi::FLOWS) { entries()? } else { last.entries };
    Ok(last.counted(made, entries))
}

/// How many keys a map has.
///
/// Where the key that was read last is evicted meanwhile, the kernel begins anew. Only a full map
/// evicts, so the number that is the bound of all this is the right one then.
fn entries<K: Pod>(name: &str, map: &HashMap<MapData, K, Flow>) -> anyhow::Result<u64> {
    let mut entries = 0;
    for key in map.keys().take(abi::FLOWS as usize) {
        let _key: K = key.with_context(|| format!("cannot read {name}"))?;
        entries += 1;
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_made_and_is_not_there_was_evicted() {
        let first = FlowCount::default().counted(10, 10);
        assert_eq!(first, FlowCount { entries: 10, made: 10, evicted: 0 });
        let second = first.counted(25, 16);
        assert_eq!(second, FlowCount { entries: 16, made: 25, evicted: 9 });
    }

    #[test]
    fn entries_that_were_made_during_the_count_evict_none() {
        let count = FlowCount::default().counted(10, 12);
        assert_eq!(count, FlowCount { entries: 12, made: 10, evicted: 0 });
    }

    #[test]
    fn a_count_that_met_entries_twice_takes_no_eviction_back() {
        let before = FlowCount { entries: 90, made: 100, evicted: 10 };
        assert_eq!(before.counted(101, 95), FlowCount { entries: 95, made: 101, evicted: 10 });
    }

    #[test]
    fn entries_are_counted_only_where_some_were_made() {
        let last = FlowCount { entries: 3, made: 5, evicted: 2 };
        assert_eq!(next(last, 5, || panic!("nothing is new")).unwrap(), last);
        let counted = FlowCount { entries: 4, made: 6, evicted: 2 };
        assert_eq!(next(last, 6, || Ok(4)).unwrap(), counted);
        assert!(next(last, 6, || Err(anyhow!("no such map"))).is_err());
    }

    #[test]
    fn a_map_that_has_evicted_as_many_as_it_holds_is_full_for_good() {
        let capacity = u64::from(abi::FLOWS);
        let (entries, made) = (capacity - 9, 2 * capacity - 9);
        let full = FlowCount { entries, made, evicted: capacity };
        let next = next(full, made + 5, || panic!("it is full")).unwrap();
        assert_eq!(next, FlowCount { entries, made: made + 5, evicted: capacity + 5 });
    }
}
