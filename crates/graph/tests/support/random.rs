//! The counter-based numbers of `tests/golden/README.md`: the same in every language and on every machine.

/// SplitMix64's output function of a running index.
pub fn word(stream: u64, i: u64) -> u64 {
    let mut z = (stream << 40).wrapping_add(i).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

pub fn bits24(stream: u64, i: u64) -> u64 {
    word(stream, i) >> 40
}

/// `n` values in [-1, 1).
pub fn uniform(stream: u64, n: usize) -> Vec<f32> {
    (0..n as u64).map(|i| (bits24(stream, i) as f64 / f64::from(1 << 23) - 1.0) as f32).collect()
}

/// `n` multiples of 1/8 in [-1, 1], so that sums of their products are exact in f32 and ties are ties on every machine.
pub fn eighths(stream: u64, n: usize) -> Vec<f32> {
    (0..n as u64).map(|i| (word(stream, i) % 17) as f32 / 8.0 - 1.0).collect()
}

/// `n` values at least 0.01 from each other and from 0, in a random order.
pub fn apart(stream: u64, n: usize) -> Vec<f32> {
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by_key(|&i| word(stream, i as u64));
    order.into_iter().map(|i| (i as f32 - n as f32 / 2.0 + 0.25) * 0.02).collect()
}

/// Sample `s` of the traces: its label and its pixels.
pub fn sample(s: u64, elements: usize) -> (usize, Vec<f32>) {
    let (label, elements) = (s % 10, elements as u64);
    let pixel = |e| {
        let sum = bits24(1, label * elements + e) + bits24(2, s * elements + e);
        ((sum >> 1) as f64 / f64::from(1 << 23) - 1.0) as f32
    };
    (label as usize, (0..elements).map(pixel).collect())
}
