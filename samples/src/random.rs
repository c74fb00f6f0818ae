//! Randomness from a seed, the same on every platform.
//!
//! The generator is SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", OOPSLA 2014): one
//! addition and one mixing function for 64 bits, and every 64-bit state is a good start. So every record has a stream of
//! its own, made from the seed and the record's number, and record `n` needs none of the records before it.
//!
//! Only integers are drawn. A draw must not use `usize` or a float, because both differ between platforms. This is not
//! cryptography, and a bias of about 2^-32 from the multiply-and-shift of [`Rng::below`] is accepted.

/// The odd constant by which SplitMix64 moves its state: 2^64 divided by the golden ratio.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// SplitMix64's mixing function: a bijection of 64 bits in which each input bit moves about half of the output bits.
pub(super) fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// One stream of random numbers.
#[derive(Debug, Clone)]
pub(super) struct Rng {
    state: u64,
    /// The share of unusual texts, in 10,000ths; see [`Rng::text`].
    unusual_ratio: u32,
}

impl Rng {
    /// Stream number `n` of a seed.
    pub(super) fn of(seed: u64, n: u64) -> Self {
        Rng { state: mix(mix(seed.wrapping_add(STEP)).wrapping_add(n.wrapping_mul(STEP))), unusual_ratio: 500 }
    }

    /// The same stream with another share of unusual texts, in 10,000ths.
    pub(super) fn with_unusual_ratio(self, unusual_ratio: u32) -> Self {
        Rng { unusual_ratio, ..self }
    }

    /// 64 random bits.
    pub(super) fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(STEP);
        mix(self.state)
    }

    /// A number in `0..bound`. `bound` must not be 0.
    pub(super) fn below(&mut self, bound: u32) -> u32 {
        debug_assert!(bound > 0, "the bound must not be 0");
        (((self.bits() >> 32) * u64::from(bound)) >> 32) as u32
    }

    /// A number in `low..high`. The span must fit into 32 bits.
    pub(super) fn between(&mut self, low: u32, high: u32) -> u32 {
        low + self.below(high - low)
    }

    /// A number in `0..bound` by a power law: the density falls with the square root. Of 50,000 users, the most active one
    /// has 0.4 % of the records, and the last tenth has 5 % together.
    pub(super) fn skewed(&mut self, bound: u32) -> u32 {
        let unit = self.bits() >> 32;
        ((((unit * unit) >> 32) * u64::from(bound)) >> 32) as u32
    }

    /// True in `parts` of 10,000 draws.
    pub(super) fn chance(&mut self, parts: u32) -> bool {
        self.below(10_000) < parts
    }

    /// Any element with the same probability.
    pub(super) fn pick<T: Copy>(&mut self, table: &[T]) -> T {
        table[self.below(table.len() as u32) as usize]
    }

    /// An element by a power law: those at the front of the table are frequent.
    pub(super) fn pick_skewed<T: Copy>(&mut self, table: &[T]) -> T {
        table[self.skewed(table.len() as u32) as usize]
    }

    /// A text of one of two tables. The share of unusual ones (escapes, text beyond ASCII) is 5 % by default.
    pub(super) fn text(&mut self, plain: &[&'static str], unusual: &[&'static str]) -> &'static str {
        if self.chance(self.unusual_ratio) { self.pick(unusual) } else { self.pick(plain) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_the_published_algorithm() {
        // The first numbers of SplitMix64 from state 1234567, as the C code of its authors prints them.
        let mut rng = Rng { state: 1_234_567, unusual_ratio: 0 };
        assert_eq!(rng.bits(), 6_457_827_717_110_365_317);
        assert_eq!(rng.bits(), 3_203_168_211_198_807_973);
    }

    #[test]
    fn draws_stay_in_their_range() {
        let mut rng = Rng::of(1, 2);
        for _ in 0..10_000 {
            assert!(rng.below(3) < 3);
            assert!(rng.skewed(7) < 7);
            assert!((5..9).contains(&rng.between(5, 9)));
        }
    }
}
