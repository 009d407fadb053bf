//! Numbers for values, each for one value only.
//!
//! Invariant: a number never stands for two values in the life of an interner. A value is forgotten
//! when nobody holds it at a [`Interner::sweep`], and gets a new number if it comes back: memory is
//! in proportion to what is in use.

use std::{collections::HashMap, hash::Hash, mem, sync::Arc};

/// Gives numbers to values, and counts who holds them.
#[derive(Clone, Debug)]
pub(super) struct Interner<T> {
    numbers: HashMap<Arc<T>, u32>,
    entries: HashMap<u32, Entry<T>>,
    next: u32,
    born: Vec<u32>,
    unheld: Vec<u32>,
}

#[derive(Clone, Debug)]
struct Entry<T> {
    value: Arc<T>,
    holders: usize,
}

impl<T: Eq + Hash> Interner<T> {
    /// The first number to give.
    pub(super) fn starting_at(first: u32) -> Self {
        Self {
            numbers: HashMap::new(),
            entries: HashMap::new(),
            next: first,
            born: Vec::new(),
            unheld: Vec::new(),
        }
    }

    /// The number of a value. Somebody should hold it before the next sweep.
    ///
    /// # Panics
    /// When the numbers below [`bulkhead_common::value::IDENTITY_NODE`] are used up: two values of
    /// one number could open what is closed. A new compiler has all numbers again.
    pub(super) fn number(&mut self, value: T) -> u32 {
        if let Some(number) = self.numbers.get(&value) {
            return *number;
        }
        let number = self.next;
        assert!(number < bulkhead_common::value::IDENTITY_NODE, "2^31 values in one life");
        self.next += 1;
        let value = Arc::new(value);
        self.numbers.insert(Arc::clone(&value), number);
        self.entries.insert(number, Entry { value, holders: 0 });
        self.born.push(number);
        self.unheld.push(number);
        number
    }

    /// The number of a value that is in use.
    pub(super) fn find(&self, value: &T) -> Option<u32> {
        self.numbers.get(value).copied()
    }

    /// One more holds the value of a number.
    pub(super) fn hold(&mut self, number: u32) {
        if let Some(entry) = self.entries.get_mut(&number) {
            entry.holders += 1;
        }
    }

    /// One less holds the value of a number.
    pub(super) fn release(&mut self, number: u32) {
        if let Some(entry) = self.entries.get_mut(&number) {
            entry.holders -= 1;
            if entry.holders == 0 {
                self.unheld.push(number);
            }
        }
    }

    /// The value of a number that is in use.
    pub(super) fn value(&self, number: u32) -> Option<&Arc<T>> {
        self.entries.get(&number).map(|entry| &entry.value)
    }

    /// Forgets what nobody holds; what it was.
    pub(super) fn sweep(&mut self) -> Vec<(u32, Arc<T>)> {
        let mut swept = Vec::new();
        for number in mem::take(&mut self.unheld) {
            if self.entries.get(&number).is_some_and(|entry| entry.holders == 0)
                && let Some(entry) = self.entries.remove(&number)
            {
                self.numbers.remove(&entry.value);
                swept.push((number, entry.value));
            }
        }
        swept
    }

    /// What is new since the last call, and in use.
    pub(super) fn take_born(&mut self) -> Vec<(u32, Arc<T>)> {
        let born = mem::take(&mut self.born).into_iter();
        born.filter_map(|number| Some((number, Arc::clone(self.value(number)?)))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_kept_while_its_value_is_held_and_never_given_again() {
        let mut interner = Interner::starting_at(7);
        assert_eq!([interner.number("a"), interner.number("b"), interner.number("a")], [7, 8, 7]);
        interner.hold(7);
        interner.hold(8);
        assert_eq!(interner.sweep(), []);
        assert_eq!(interner.take_born(), [(7, Arc::new("a")), (8, Arc::new("b"))]);

        interner.release(7);
        assert_eq!(interner.number("a"), 7, "not swept yet");
        assert_eq!(interner.sweep(), [(7, Arc::new("a"))]);
        assert_eq!(interner.value(7), None);
        assert_eq!([interner.number("c"), interner.number("a"), interner.number("b")], [9, 10, 8]);
    }

    #[test]
    fn what_is_held_again_before_the_sweep_stays() {
        let mut interner = Interner::starting_at(0);
        let number = interner.number("a");
        interner.hold(number);
        interner.release(number);
        interner.hold(number);
        assert_eq!(interner.sweep(), []);
        assert_eq!(interner.number("a"), number);
    }
}
