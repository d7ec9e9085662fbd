//! Counter-based random numbers: Philox4x32-10.
//!
//! A draw is a pure function of (seed, purpose, epoch, sample, position), so results depend neither on the number of
//! threads nor on what was drawn before, and a resumed run needs no saved generator state.
//!
//! Salmon, Moraes, Dror & Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011, section 3.3.

use crate::elementary::{exp, ln, sin_cos};

/// What a draw is for. Each purpose has a stream of its own, so that switching one augmentation on does not move the
/// draws of another, and two trials that differ in it still see the same crops.
///
/// The numbers are part of every result's reproducibility: never reuse or renumber one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
#[non_exhaustive]
pub enum Purpose {
    /// Drawing the built-in glyphs.
    Glyph = 1,
    /// Holding images back for validation.
    Validation = 2,
    /// Choosing the images of a limited part.
    Subset = 3,
    /// Holding images back for the test, where the source has no test part.
    Test = 4,
    /// Order of an epoch.
    Order = 5,
    /// Random crop.
    Crop = 6,
    /// Horizontal flip.
    Flip = 7,
    /// Rotation, scale, shear and translation.
    Affine = 8,
    /// Brightness, contrast, saturation and hue.
    Color = 9,
    /// PCA colour noise.
    Pca = 10,
    /// Pixel noise.
    Noise = 11,
    /// Cutout.
    Cutout = 12,
    /// Mixup's partner and share.
    Mixup = 13,
    /// Initial weights of a network.
    Weights = 14,
    /// Dropout masks.
    Dropout = 15,
    /// For tests and tools.
    Other = 16,
    /// Place, area and shape of a resized crop.
    ResizedCrop = 17,
}

/// A stream of random numbers at one place of the key space.
#[derive(Clone, Debug)]
pub struct Counter {
    key: [u32; 2],
    counter: [u32; 4],
    block: [u32; 4],
    used: usize,
}

impl Counter {
    /// The stream of (`seed`, `purpose`, `epoch`, `sample`). Key: the seed's two halves; counter: block number, purpose,
    /// epoch, sample. A stream holds 2³⁴ draws of 32 bits.
    pub fn new(seed: u64, purpose: Purpose, epoch: u32, sample: u32) -> Self {
        Self {
            key: [seed as u32, (seed >> 32) as u32],
            counter: [0, purpose as u32, epoch, sample],
            block: [0; 4],
            used: 4,
        }
    }

    /// 32 random bits.
    pub fn bits(&mut self) -> u32 {
        if self.used == 4 {
            self.block = philox(self.counter, self.key);
            self.counter[0] = self.counter[0].wrapping_add(1);
            self.used = 0;
        }
        self.used += 1;
        self.block[self.used - 1]
    }

    /// Four draws of 32 bits at once: the next whole block.
    pub fn block(&mut self) -> [u32; 4] {
        self.used = 4;
        let block = philox(self.counter, self.key);
        self.counter[0] = self.counter[0].wrapping_add(1);
        block
    }

    /// 64 random bits.
    pub fn bits64(&mut self) -> u64 {
        u64::from(self.bits()) | u64::from(self.bits()) << 32
    }

    /// Uniform in [0, 1), with 53 random bits.
    pub fn uniform(&mut self) -> f64 {
        (self.bits64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Uniform in [0, 1), with 24 random bits.
    pub fn uniform_f32(&mut self) -> f32 {
        (self.bits() >> 8) as f32 * (1.0 / (1u32 << 24) as f32)
    }

    /// Uniform in [`low`, `high`).
    pub fn range(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.uniform()
    }

    /// Uniform in 0 … `bound` − 1, without bias; 0 where `bound` is 0.
    /// Lemire, "Fast random integer generation in an interval", TOMACS 29(1), 2019.
    pub fn below(&mut self, bound: u32) -> u32 {
        let mut product = u64::from(self.bits()) * u64::from(bound);
        if (product as u32) < bound {
            let threshold = bound.wrapping_neg() % bound;
            while (product as u32) < threshold {
                product = u64::from(self.bits()) * u64::from(bound);
            }
        }
        (product >> 32) as u32
    }

    /// True with the given probability.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.uniform() < probability
    }

    /// Normal with mean 0 and deviation 1 (Box & Muller 1958). No call of the C library: equal bits on every machine.
    pub fn normal(&mut self) -> f64 {
        // 1 − u is never 0.
        let radius = (-2.0 * ln(1.0 - self.uniform())).sqrt();
        radius * sin_cos(self.uniform()).1
    }

    /// Gamma(`shape`, 1) (Marsaglia & Tsang, "A simple method for generating gamma variables", TOMS 26(3), 2000).
    pub fn gamma(&mut self, shape: f64) -> f64 {
        if shape < 1.0 {
            let boost = exp(ln(1.0 - self.uniform()) / shape);
            return self.gamma(shape + 1.0) * boost;
        }
        let d = shape - 1.0 / 3.0;
        let c = 1.0 / (9.0 * d).sqrt();
        loop {
            let x = self.normal();
            let v = 1.0 + c * x;
            if v <= 0.0 {
                continue;
            }
            let v = v * v * v;
            if ln(1.0 - self.uniform()) < 0.5 * x * x + d * (1.0 - v + ln(v.max(f64::MIN_POSITIVE))) {
                return d * v;
            }
        }
    }

    /// Beta(`alpha`, `beta`), in [0, 1].
    pub fn beta(&mut self, alpha: f64, beta: f64) -> f64 {
        let (a, b) = (self.gamma(alpha), self.gamma(beta));
        if a + b > 0.0 { a / (a + b) } else { 1.0 }
    }

    /// Puts `items` in random order (Fisher & Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.below(last as u32 + 1) as usize;
            items.swap(last, other);
        }
    }
}

/// Ten rounds of Philox4x32: the bijection itself.
pub fn philox(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let [mut c0, mut c1, mut c2, mut c3] = counter;
    let [mut k0, mut k1] = key;
    for _ in 0..10 {
        let p0 = 0xD251_1F53u64 * u64::from(c0);
        let p1 = 0xCD9E_8D57u64 * u64::from(c2);
        (c0, c1, c2, c3) = ((p1 >> 32) as u32 ^ c1 ^ k0, p1 as u32, (p0 >> 32) as u32 ^ c3 ^ k1, p0 as u32);
        k0 = k0.wrapping_add(0x9E37_79B9);
        k1 = k1.wrapping_add(0xBB67_AE85);
    }
    [c0, c1, c2, c3]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known answers that Random123 publishes for philox4x32 with 10 rounds.
    #[test]
    fn known_answers() {
        let cases = [
            ([0; 4], [0; 2], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
            ([u32::MAX; 4], [u32::MAX; 2], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
            (
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0],
                [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
            ),
        ];
        for (counter, key, expected) in cases {
            assert_eq!(philox(counter, key), expected);
        }
    }

    #[test]
    fn streams_are_keyed_by_every_part() {
        let draw = |seed, purpose, epoch, sample| Counter::new(seed, purpose, epoch, sample).bits64();
        let base = draw(1, Purpose::Crop, 2, 3);
        assert_eq!(base, draw(1, Purpose::Crop, 2, 3));
        for other in
            [draw(1 << 32 | 1, Purpose::Crop, 2, 3), draw(2, Purpose::Crop, 2, 3), draw(1, Purpose::Flip, 2, 3)]
        {
            assert_ne!(base, other);
        }
        assert_ne!(base, draw(1, Purpose::Crop, 3, 3));
        assert_ne!(base, draw(1, Purpose::Crop, 2, 4));
    }

    #[test]
    fn draws_have_their_moments() {
        let mut rng = Counter::new(7, Purpose::Other, 0, 0);
        let n = 200_000;
        let moments = |draws: Vec<f64>| {
            let mean = draws.iter().sum::<f64>() / draws.len() as f64;
            (mean, draws.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / draws.len() as f64)
        };
        let near = |(mean, variance): (f64, f64), m: f64, v: f64| {
            (mean - m).abs() < 0.02 && (variance - v).abs() < 0.02 * v.max(1.0)
        };
        assert!(near(moments((0..n).map(|_| rng.uniform()).collect()), 0.5, 1.0 / 12.0));
        assert!(near(moments((0..n).map(|_| f64::from(rng.uniform_f32())).collect()), 0.5, 1.0 / 12.0));
        assert!(near(moments((0..n).map(|_| rng.normal()).collect()), 0.0, 1.0));
        assert!(near(moments((0..n).map(|_| rng.gamma(2.5)).collect()), 2.5, 2.5));
        assert!(near(moments((0..n).map(|_| rng.gamma(0.3)).collect()), 0.3, 0.3));
        assert!(near(moments((0..n).map(|_| rng.beta(0.2, 0.2)).collect()), 0.5, 0.25 / 1.4));
        let mut counts = [0u32; 7];
        for _ in 0..n {
            counts[rng.below(7) as usize] += 1;
        }
        assert!(counts.iter().all(|&count| (f64::from(count) * 7.0 / f64::from(n) - 1.0).abs() < 0.03));
        assert_eq!(rng.below(0), 0);
    }

    #[test]
    fn a_shuffle_is_a_permutation_and_reaches_every_order() {
        let mut seen = std::collections::HashSet::new();
        for sample in 0..500 {
            let mut items = [0, 1, 2, 3];
            Counter::new(0, Purpose::Order, 0, sample).shuffle(&mut items);
            let mut sorted = items;
            sorted.sort_unstable();
            assert_eq!(sorted, [0, 1, 2, 3]);
            seen.insert(items);
        }
        assert_eq!(seen.len(), 24);
    }
}
