//! Equal values, stored once.

use std::{collections::HashSet, hash::Hash, sync::Arc};

/// Values that are handed out as references to one copy. What nobody else has any more makes room
/// before the set grows.
#[derive(Debug)]
pub(super) struct Shared<T: Eq + Hash + ?Sized>(HashSet<Arc<T>>);

impl<T: Eq + Hash + ?Sized> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Eq + Hash + ?Sized> Default for Shared<T> {
    fn default() -> Self {
        Self(HashSet::new())
    }
}

impl<T: Eq + Hash + ?Sized> Shared<T> {
    /// The one copy of a value.
    pub(super) fn share(&mut self, value: impl Into<Arc<T>>) -> Arc<T> {
        let value = value.into();
        if let Some(known) = self.0.get(&value) {
            return Arc::clone(known);
        }
        if self.0.len() == self.0.capacity() {
            self.0.retain(|value| Arc::strong_count(value) > 1);
        }
        self.0.insert(Arc::clone(&value));
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_are_one_copy_and_what_nobody_has_is_forgotten() {
        let mut shared = Shared::<str>::default();
        let kept = shared.share("kept");
        assert!(Arc::ptr_eq(&kept, &shared.share("kept")));
        for number in 0..10_000 {
            shared.share(number.to_string());
        }
        assert!(shared.0.len() < 100, "{}", shared.0.len());
        assert!(Arc::ptr_eq(&kept, &shared.share("kept")));
    }
}
