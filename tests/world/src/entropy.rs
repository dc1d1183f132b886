//! Where a world's choices come from.

use std::fmt::Debug;

/// A source of choices. Whoever asks says how many there are; 0 is always the tamest.
pub trait Entropy: Debug {
    /// A number below `bound`, and 0 where that is 0.
    fn below(&mut self, bound: u32) -> u32;

    /// Step `number` begins. A source may begin anew with it, so that the choices of a step do not depend on those
    /// of the steps before: then a failure can be shrunk by leaving steps out.
    fn begin(&mut self, number: u32) {
        let _ = number;
    }

    /// Whether to do something that is done once in `bound` times; never for 0.
    fn one_in(&mut self, bound: u32) -> bool {
        bound > 0 && self.below(bound) == bound - 1
    }

    /// A number between `least` and `most`, both included.
    fn between(&mut self, least: u32, most: u32) -> u32 {
        least + self.below(most.saturating_sub(least).saturating_add(1))
    }
}

/// Every number follows from a seed: SplitMix64 (Steele, Lea, Flood 2014), the same on every machine for ever, which
/// no crate of random numbers promises.
#[derive(Clone, Debug)]
pub struct Seeded {
    seed: u64,
    state: u64,
}

impl Seeded {
    /// The numbers of a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { seed, state: seed }
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}

impl Entropy for Seeded {
    fn below(&mut self, bound: u32) -> u32 {
        let high = self.next() >> 32;
        u32::try_from((high * u64::from(bound)) >> 32).unwrap_or(0)
    }

    fn begin(&mut self, number: u32) {
        self.state = self.seed;
        self.state = self.next() ^ u64::from(number) << 16;
    }
}

/// A fuzzer's bytes; when they are used up, every choice is 0.
#[derive(Clone, Debug)]
pub struct Bytes<'b>(&'b [u8]);

impl<'b> Bytes<'b> {
    /// The choices that these bytes make.
    #[must_use]
    pub const fn new(bytes: &'b [u8]) -> Self {
        Self(bytes)
    }

    /// How many bytes are left.
    #[must_use]
    pub const fn left(&self) -> usize {
        self.0.len()
    }
}

impl Entropy for Bytes<'_> {
    fn below(&mut self, bound: u32) -> u32 {
        if bound < 2 {
            return 0;
        }
        let length = if bound <= 256 { 1 } else { 4.min(self.0.len()) };
        let Some((taken, rest)) = self.0.split_at_checked(length) else { return 0 };
        self.0 = rest;
        taken.iter().fold(0, |number: u32, &byte| number << 8 | u32::from(byte)) % bound
    }
}

/// Every sequence of choices, one after another: call [`advance`](Self::advance) between runs until it is false.
#[derive(Clone, Debug, Default)]
pub struct Exhaustive {
    /// What was chosen, out of how many.
    path: Vec<(u32, u32)>,
    depth: usize,
}

impl Exhaustive {
    /// Goes to the next sequence; false when there is none.
    pub fn advance(&mut self) -> bool {
        self.depth = 0;
        while let Some((choice, bound)) = self.path.pop() {
            if choice + 1 < bound {
                self.path.push((choice + 1, bound));
                return true;
            }
        }
        false
    }
}

impl Entropy for Exhaustive {
    fn below(&mut self, bound: u32) -> u32 {
        if bound < 2 {
            return 0;
        }
        if self.depth == self.path.len() {
            self.path.push((0, bound));
        }
        let (choice, _) = self.path[self.depth];
        self.depth += 1;
        choice
    }
}

impl<E: Entropy + ?Sized> Entropy for &mut E {
    fn below(&mut self, bound: u32) -> u32 {
        (**self).below(bound)
    }

    fn begin(&mut self, number: u32) {
        (**self).begin(number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_numbers_for_ever() {
        let mut seeded = Seeded::new(1);
        let numbers: Vec<_> = (0..4).map(|_| seeded.below(1000)).collect();
        assert_eq!(numbers, [566, 745, 971, 444]);
    }

    #[test]
    fn a_step_draws_the_same_whatever_was_drawn_before_it() {
        let draw = |before: u32| {
            let mut seeded = Seeded::new(7);
            (0..before).for_each(|_| _ = seeded.below(9));
            seeded.begin(3);
            [seeded.below(1000), seeded.below(1000)]
        };
        assert_eq!(draw(0), draw(5));
    }

    #[test]
    fn the_enumerator_gives_every_sequence_once() {
        let mut all = Exhaustive::default();
        let mut seen = Vec::new();
        loop {
            let first = all.below(3);
            let second = if first == 1 { all.below(2) } else { 0 };
            seen.push((first, second));
            if !all.advance() {
                break;
            }
        }
        assert_eq!(seen, [(0, 0), (1, 0), (1, 1), (2, 0)]);
    }

    #[test]
    fn bytes_that_are_used_up_choose_the_tamest() {
        let mut bytes = Bytes::new(&[5, 0, 0, 1, 0]);
        assert_eq!([bytes.below(4), bytes.below(1), bytes.below(70_000), bytes.below(9)], [1, 0, 256, 0]);
        assert_eq!(bytes.left(), 0);
    }
}
