//! What rules said last, so that the same question does not cost the same look-ups again.
//!
//! Invariant: an answer is the one that the maps give. The epoch, which is part of every question,
//! is another one after any change that could make a difference to the endpoint. An answer counts
//! once it was the same twice: a look-up that meets an entry in the moment in which it is removed may
//! be wrong, the next one is not.

use crate::{
    key::{Address, Port},
    verdict::{AllowReason, Direction},
};

/// What is asked of an endpoint's rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Question<const N: usize> {
    /// The other end.
    pub remote: Address<N>,
    /// Of the endpoint. No two endpoints ever have the same.
    pub epoch: u32,
    /// Port, protocol and direction.
    traffic: u32,
}

impl<const N: usize> Question<N> {
    /// Whether traffic in `direction` with `port` at its destination is allowed.
    #[inline(always)]
    pub const fn new(
        remote: Address<N>,
        epoch: u32,
        direction: Direction,
        protocol: u8,
        port: Port,
    ) -> Self {
        let traffic = (port.number() as u32) << 16 | (protocol as u32) << 8 | direction as u32;
        Self { remote, epoch, traffic }
    }

    /// Which of `len` places, a power of two, its answer is kept in.
    #[inline(always)]
    pub const fn place(&self, len: u32) -> u32 {
        let mut mixed = (self.epoch as u64) << 32 | self.traffic as u64;
        let mut index = 0;
        while index < N / 4 {
            // Fibonacci hashing: the upper bits depend on all of the lower ones.
            mixed = (mixed ^ self.remote.word(index) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            index += 1;
        }
        (mixed >> (u64::BITS - len.ilog2())) as u32
    }
}

/// A question and its answer. Zero: none. Value of `memos_v4` and `memos_v6`, for each CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Memo<const N: usize> {
    question: Question<N>,
    /// See [`Memo::recall`].
    answer: u32,
}

/// The answer was the same twice.
const SURE: u32 = 1 << 8;
/// The answer that nothing allows it; others are an [`AllowReason`] as a number.
const DENIED: u32 = 0xff;

impl<const N: usize> Memo<N> {
    /// None.
    pub const EMPTY: Self =
        Self { question: Question { remote: Address::ZERO, epoch: 0, traffic: 0 }, answer: 0 };

    /// The answer, if it is known: why it is allowed, or that it is not.
    #[inline(always)]
    pub fn recall(&self, question: &Question<N>) -> Option<Option<AllowReason>> {
        if self.answer & SURE == 0 || self.question != *question {
            return None;
        }
        Some(AllowReason::from_number(self.answer as u8))
    }

    /// Keeps what the maps answered.
    #[inline(always)]
    pub fn note(&mut self, question: &Question<N>, answer: Option<AllowReason>) {
        let answer = answer.map_or(DENIED, |reason| reason as u32);
        let again = self.question == *question && self.answer & !SURE == answer;
        *self = Self { question: *question, answer: if again { answer | SURE } else { answer } };
    }
}

const _: () = assert!(size_of::<Memo<4>>() == 16 && size_of::<Memo<16>>() == 28);
const _: () = assert!(AllowReason::from_number(DENIED as u8).is_none());

#[cfg(test)]
mod tests {
    use super::*;

    const LEN: u32 = 1024;

    fn question(remote: u32, epoch: u32) -> Question<4> {
        let remote = Address(remote.to_be_bytes());
        Question::new(remote, epoch, Direction::Ingress, 6, Port::new(80))
    }

    #[test]
    fn an_answer_counts_once_it_was_the_same_twice() {
        let asked = question(1, 7);
        for answer in [None, Some(AllowReason::Rule), Some(AllowReason::OwnNode)] {
            let mut memo = Memo::EMPTY;
            assert_eq!(memo.recall(&asked), None);
            memo.note(&asked, answer);
            assert_eq!(memo.recall(&asked), None);
            memo.note(&asked, answer);
            assert_eq!(memo.recall(&asked), Some(answer));
        }
        let mut memo = Memo::EMPTY;
        for answer in [Some(AllowReason::Rule), None, Some(AllowReason::Rule)] {
            memo.note(&asked, answer);
            assert_eq!(memo.recall(&asked), None, "it is another one than before");
        }
    }

    #[test]
    fn another_question_has_no_answer() {
        let asked = question(1, 7);
        let mut memo = Memo::EMPTY;
        memo.note(&asked, Some(AllowReason::Rule));
        memo.note(&asked, Some(AllowReason::Rule));
        let Question { remote, epoch, .. } = asked;
        for other in [
            question(2, 7),
            question(1, 8),
            Question::new(remote, epoch, Direction::Egress, 6, Port::new(80)),
            Question::new(remote, epoch, Direction::Ingress, 17, Port::new(80)),
            Question::new(remote, epoch, Direction::Ingress, 6, Port::new(81)),
        ] {
            assert_eq!(memo.recall(&other), None, "{other:?}");
        }
        memo.note(&question(2, 7), None);
        assert_eq!(memo.recall(&asked), None, "it has made room");
    }

    #[test]
    fn questions_are_spread_over_the_places() {
        let mut taken = [false; LEN as usize];
        for remote in 0..LEN {
            taken[question(0x0a00_0000 + remote, 7).place(LEN) as usize] = true;
        }
        // As many as balls thrown at random would hit: 1 - 1/e of them.
        assert!(taken.iter().filter(|taken| **taken).count() > 600);
    }
}
