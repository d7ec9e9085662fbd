//! Dropout (Srivastava et al. 2014), scaled at training time so that evaluation needs nothing.

use super::Real;

/// Number of values in a dropout key: non-negative integers below 2²⁴, so that floats hold them exactly.
pub const KEY: usize = 4;

/// Zeroes values with a probability. Which ones is a function of (key, layer, position) alone, so that the same step
/// drops the same values on any device, with any number of threads, and after a resume.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dropout {
    /// Probability that a value is dropped, in [0, 1).
    pub rate: f32,
    /// Tells layers of one network apart.
    pub layer: u32,
}

/// A 32-bit mixing function with full avalanche (constants of Wellons' `lowbias32`, found by search; public domain).
#[inline(always)]
fn mix(mut h: u32) -> u32 {
    h ^= h >> 16;
    h = h.wrapping_mul(0x7feb_352d);
    h ^= h >> 15;
    h = h.wrapping_mul(0x846c_a68b);
    h ^ (h >> 16)
}

impl Dropout {
    /// Two words that stand for key and layer.
    #[inline]
    pub fn words(&self, key: [f64; KEY]) -> (u32, u32) {
        let word = |seed: u32, a: f64, b: f64| {
            mix(mix(seed ^ self.layer.wrapping_mul(0x9e37_79b9))
                ^ mix(a as u32).wrapping_add(mix((b as u32) ^ 0x5bd1_e995)))
        };
        (word(0x243f_6a88, key[0], key[1]), word(0x85a3_08d3, key[2], key[3]))
    }

    /// Hashes below this are dropped.
    #[inline]
    pub fn threshold(&self) -> u32 {
        (f64::from(self.rate) * 4_294_967_296.0) as u32
    }

    /// Factor on the values that stay: 1 / (1 − rate).
    #[inline]
    pub fn scale(&self) -> f64 {
        1.0 / (1.0 - f64::from(self.rate))
    }

    /// Whether the value at this position is kept.
    #[inline(always)]
    pub fn keeps(words: (u32, u32), threshold: u32, position: u32) -> bool {
        mix(mix(position ^ words.0).wrapping_add(words.1)) >= threshold
    }

    /// The reference: also its own gradient, since it is linear and its mask does not depend on x.
    pub fn apply<T: Real>(&self, x: &[T], key: &[T]) -> Vec<T> {
        let words = self.words(std::array::from_fn(|i| key[i].to_f64().expect("keys are integers")));
        let scale = T::of(self.scale());
        let value =
            |(i, &v): (usize, &T)| if Self::keeps(words, self.threshold(), i as u32) { v * scale } else { T::zero() };
        x.iter().enumerate().map(value).collect()
    }
}
