//! Numbers for values, each for one value only.
//!
//! Invariant: a number never stands for two values in the life of an interner. A value that a whole
//! generation did not ask for is forgotten, and gets a new number if it comes back: memory is in
//! proportion to what is in use.

use std::{collections::BTreeMap, mem};

/// Gives numbers to values.
#[derive(Clone, Debug)]
pub(super) struct Interner<T> {
    current: BTreeMap<T, u32>,
    previous: BTreeMap<T, u32>,
    next: u32,
}

impl<T: Ord> Interner<T> {
    /// The first number to give.
    pub(super) fn starting_at(first: u32) -> Self {
        Self { current: BTreeMap::new(), previous: BTreeMap::new(), next: first }
    }

    /// Starts a generation: nothing is in use until it is asked for again.
    pub(super) fn begin_generation(&mut self) {
        self.previous = mem::take(&mut self.current);
    }

    /// The number of a value, which is in use from now on.
    ///
    /// # Panics
    /// When 2^32 numbers are used up: two values of one number could open what is closed. A new
    /// compiler has all numbers again.
    pub(super) fn number(&mut self, value: T) -> u32 {
        if let Some(number) = self.current.get(&value) {
            return *number;
        }
        let number = self.previous.remove(&value).unwrap_or_else(|| {
            let number = self.next;
            self.next = number.checked_add(1).expect("fewer than 2^32 values in one life");
            number
        });
        self.current.insert(value, number);
        number
    }

    /// What is in use in this generation, in the order of the values.
    pub(super) fn in_use(&self) -> impl Iterator<Item = (&T, u32)> {
        self.current.iter().map(|(value, number)| (value, *number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_kept_while_its_value_is_in_use_and_never_given_again() {
        let mut interner = Interner::starting_at(7);
        assert_eq!([interner.number("a"), interner.number("b"), interner.number("a")], [7, 8, 7]);

        interner.begin_generation();
        assert_eq!([interner.number("c"), interner.number("b")], [9, 8]);
        assert_eq!(interner.in_use().collect::<Vec<_>>(), [(&"b", 8), (&"c", 9)]);

        interner.begin_generation();
        assert_eq!([interner.number("a"), interner.number("b")], [10, 8]);
    }
}
