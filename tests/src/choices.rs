//! Where a generator's decisions come from: a random number generator, or the bytes that a fuzzer
//! found worth keeping. So random runs and fuzzers make the same frames.

use fastrand::Rng;

/// A source of decisions. It never ends.
pub trait Choices {
    /// Any byte.
    fn byte(&mut self) -> u8;

    /// Any number of 16 bits.
    fn number(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    /// One of `0..limit`; `limit` is not zero.
    fn below(&mut self, limit: usize) -> usize {
        let wide = if limit <= 256 { self.byte().into() } else { usize::from(self.number()) };
        wide % limit
    }

    /// Yes, so many times of 256.
    fn chance(&mut self, of_256: u8) -> bool {
        self.byte() < of_256
    }

    /// One of these; there is one.
    fn choose<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

impl Choices for Rng {
    fn byte(&mut self) -> u8 {
        self.u8(..)
    }
}

/// Decisions out of bytes; at their end, always zero.
pub struct Recorded<'a>(pub &'a [u8]);

impl<'a> Recorded<'a> {
    /// Whether nothing is left.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next bytes as they stand, as far as there are so many.
    pub fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }
}

impl Choices for Recorded<'_> {
    fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or_default()
    }
}
