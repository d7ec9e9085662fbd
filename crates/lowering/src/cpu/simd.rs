//! Inner loops, compiled for AVX-512, AVX2 and the plain target, chosen at run time.
//!
//! Bodies are plain Rust in a form that vectorizes; none uses fused multiply-add or reorders a sum, so all versions
//! give the same bits.

use graph::operators::{Activation, Dropout};
use pulp::{Simd, WithSimd};

use super::vector;

/// Compiles a function body three times and picks the best that the processor runs.
macro_rules! dispatch {
    ($(#[$doc:meta])* fn $name:ident($($arg:ident: $ty:ty),*) $(-> $ret:ty)? $body:block) => {
        $(#[$doc])*
        pub(crate) fn $name($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            fn portable($($arg: $ty),*) $(-> $ret)? $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
                fn wide($($arg: $ty),*) $(-> $ret)? { portable($($arg),*) }
                #[target_feature(enable = "avx2")]
                fn middle($($arg: $ty),*) $(-> $ret)? { portable($($arg),*) }
                if is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
                {
                    // SAFETY: the processor has the features, checked just above (avx512bw implies avx512f).
                    #[expect(unsafe_code, reason = "a call into code compiled for more features")]
                    return unsafe { wide($($arg),*) };
                }
                if is_x86_feature_detected!("avx2") {
                    // SAFETY: the processor has the feature, checked just above.
                    #[expect(unsafe_code, reason = "a call into code compiled for more features")]
                    return unsafe { middle($($arg),*) };
                }
            }
            portable($($arg),*)
        }
    };
}
pub(crate) use dispatch;

/// Running sums of a reduction; sixteen fill one AVX-512 register.
pub(crate) const LANES: usize = 16;

/// Adds up sixteen lanes in a fixed order.
#[inline(always)]
pub(crate) fn fold(lanes: [f32; LANES]) -> f32 {
    let mut lanes = lanes;
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    lanes[0]
}

dispatch! {
    /// y += x.
    fn add(y: &mut [f32], x: &[f32]) {
        for (y, x) in y.iter_mut().zip(x) {
            *y += x;
        }
    }
}

dispatch! {
    /// Σ x, in sixteen lanes.
    fn sum(x: &[f32]) -> f32 {
        let mut lanes = [0.0; LANES];
        let (whole, rest) = x.as_chunks::<LANES>();
        for chunk in whole {
            for i in 0..LANES {
                lanes[i] += chunk[i];
            }
        }
        for (lane, x) in lanes.iter_mut().zip(rest) {
            *lane += x;
        }
        fold(lanes)
    }
}

dispatch! {
    /// Σ (x − mean)², in sixteen lanes.
    fn squares(x: &[f32], mean: f32) -> f32 {
        let mut lanes = [0.0; LANES];
        let (whole, rest) = x.as_chunks::<LANES>();
        for chunk in whole {
            for i in 0..LANES {
                lanes[i] += (chunk[i] - mean) * (chunk[i] - mean);
            }
        }
        for (lane, x) in lanes.iter_mut().zip(rest) {
            *lane += (x - mean) * (x - mean);
        }
        fold(lanes)
    }
}

/// (Σ dy·(x − mean), Σ dy), in sixteen lanes each.
pub(crate) fn moments(x: &[f32], mean: f32, dy: &[f32]) -> (f32, f32) {
    vector::run(Moments { x, mean, dy })
}

/// By registers: of two sums side by side the compiler would make a single vector, with a shuffle for each value.
struct Moments<'a> {
    x: &'a [f32],
    mean: f32,
    dy: &'a [f32],
}

impl WithSimd for Moments<'_> {
    type Output = (f32, f32);
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> (f32, f32) {
        let (mut products, mut sums) = ([0.0; LANES], [0.0; LANES]);
        let (xs, x_rest) = self.x.as_chunks::<LANES>();
        let (dys, dy_rest) = self.dy.as_chunks::<LANES>();
        let mean = simd.splat_f32s(self.mean);
        let products_of = S::as_mut_simd_f32s(&mut products).0;
        let sums_of = S::as_mut_simd_f32s(&mut sums).0;
        for (x, dy) in xs.iter().zip(dys) {
            let (x, dy) = (S::as_simd_f32s(x).0, S::as_simd_f32s(dy).0);
            for n in 0..LANES / S::F32_LANES {
                let product = simd.mul_f32s(dy[n], simd.sub_f32s(x[n], mean));
                products_of[n] = simd.add_f32s(products_of[n], product);
                sums_of[n] = simd.add_f32s(sums_of[n], dy[n]);
            }
        }
        for (i, (x, dy)) in x_rest.iter().zip(dy_rest).enumerate() {
            products[i] += dy * (x - self.mean);
            sums[i] += dy;
        }
        (fold(products), fold(sums))
    }
}

dispatch! {
    /// y = (x − mean)·scale + shift.
    fn affine(x: &[f32], mean: f32, scale: f32, shift: f32, y: &mut [f32]) {
        for (y, x) in y.iter_mut().zip(x) {
            *y = (x - mean) * scale + shift;
        }
    }
}

dispatch! {
    /// dy ← scale·(dy − a − (x − mean)·b).
    fn normalize_grad(x: &[f32], mean: f32, scale: f32, a: f32, b: f32, dy: &mut [f32]) {
        for (dy, x) in dy.iter_mut().zip(x) {
            *dy = scale * (*dy - a - (x - mean) * b);
        }
    }
}

/// eˣ for |x| ≤ 80 with a relative error below 2e-7: 2ⁿ·eʳ, |r| ≤ ln 2 / 2, by its Taylor series to r⁷.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    // Adding and taking away 1.5·2²³ rounds to an integer.
    const ROUND: f32 = 12_582_912.0;
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    // ln 2 in two parts, the first with few enough bits that its product with n is exact.
    let r = (x - n * 0.693_359_4) - n * -2.121_944_4e-4;
    let mut p = 1.0 / 5040.0;
    for c in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        p = p * r + c;
    }
    let exponent = (shifted.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32).wrapping_add(127) << 23;
    p * f32::from_bits(exponent as u32)
}

/// tanh x with a relative error below 3e-7: an odd polynomial up to 0.625, beyond it 1 − 2/(e²ˣ + 1).
#[inline(always)]
pub(crate) fn tanh(x: f32) -> f32 {
    // Least-squares fit of (tanh x − x)/x³ in x², reweighted towards equal relative error.
    const FIT: [f32; 6] = [2.142_96e-3, -8.177_396e-3, 2.170_070_2e-2, -5.394_676_3e-2, 1.333_320_6e-1, -3.333_333e-1];
    let a = x.abs();
    let u = x * x;
    let mut p = FIT[0];
    for c in &FIT[1..] {
        p = p * u + c;
    }
    let small = x + x * u * p;
    let large = 1.0 - 2.0 / (exp(2.0 * a.min(10.0)) + 1.0);
    let large = f32::from_bits(large.to_bits() | (x.to_bits() & 0x8000_0000));
    // The comparison is false for NaN, which the polynomial passes on.
    if a > 0.625 { large } else { small }
}

dispatch! {
    /// x ← f(x).
    fn activation(kind: Activation, x: &mut [f32]) {
        match kind {
            Activation::Relu => x.iter_mut().for_each(|v| *v = if *v <= 0.0 { 0.0 } else { *v }),
            Activation::Tanh => x.iter_mut().for_each(|v| *v = tanh(*v)),
            Activation::Sigmoid => x.iter_mut().for_each(|v| *v = 0.5 * tanh(0.5 * *v) + 0.5),
        }
    }
}

dispatch! {
    /// dy ← dy·f'(x), from y = f(x).
    fn activation_grad(kind: Activation, y: &[f32], dy: &mut [f32]) {
        for (dy, &y) in dy.iter_mut().zip(y) {
            *dy = kind.gradient(y, *dy);
        }
    }
}

dispatch! {
    /// Zeroes dropped values and scales the others up; `offset` is the position of the first.
    fn dropout(words: (u32, u32), threshold: u32, scale: f32, offset: u32, x: &mut [f32]) {
        for (i, v) in x.iter_mut().enumerate() {
            *v = if Dropout::keeps(words, threshold, offset.wrapping_add(i as u32)) { *v * scale } else { 0.0 };
        }
    }
}

/// Zero instead of a value below the normal range. A moment whose gradients have become zero (a weight behind a dead unit, or
/// of a pixel that is always black) fades until rounding holds it at a few of the smallest steps for ever, and arithmetic
/// on such values takes many processors ten to a hundred times as long.
#[inline(always)]
fn faded(moment: f32) -> f32 {
    // The comparison is false for NaN, which is passed on.
    if moment.abs() < f32::MIN_POSITIVE { 0.0 } else { moment }
}

/// Factors of one SGD step that all parameters share.
#[derive(Clone, Copy)]
pub(crate) struct Sgd {
    pub(crate) rate: f32,
    pub(crate) momentum: f32,
    pub(crate) lambda: f32,
    pub(crate) clip: f32,
    pub(crate) nesterov: bool,
}

dispatch! {
    /// One step of SGD: v ← μv + clip·g + λw; w ← w − η·v, or Nesterov's form.
    fn sgd(w: &mut [f32], g: &[f32], v: &mut [f32], a: Sgd) {
        for ((w, g), v) in w.iter_mut().zip(g).zip(v) {
            let g = g * a.clip + a.lambda * *w;
            *v = faded(a.momentum * *v + g);
            *w -= a.rate * if a.nesterov { g + a.momentum * *v } else { *v };
        }
    }
}

dispatch! {
    /// a ← kept·a + (1 − kept)·w.
    fn blend(a: &mut [f32], w: &[f32], kept: f32) {
        for (a, w) in a.iter_mut().zip(w) {
            *a = kept * *a + (1.0 - kept) * w;
        }
    }
}

/// Factors of one Adam step that all parameters share.
#[derive(Clone, Copy)]
pub(crate) struct Adam {
    pub(crate) rate: f32,
    pub(crate) beta1: f32,
    pub(crate) beta2: f32,
    pub(crate) epsilon: f32,
    pub(crate) correction1: f32,
    pub(crate) correction2: f32,
    /// λ joined to the gradient.
    pub(crate) joined: f32,
    /// Factor on the weights (decoupled decay).
    pub(crate) shrink: f32,
    pub(crate) clip: f32,
}

dispatch! {
    /// One step of Adam.
    fn adam(w: &mut [f32], g: &[f32], m: &mut [f32], s: &mut [f32], a: Adam) {
        for (((w, g), m), s) in w.iter_mut().zip(g).zip(m).zip(s) {
            let g = g * a.clip + a.joined * *w;
            *m = faded(a.beta1 * *m + (1.0 - a.beta1) * g);
            *s = faded(a.beta2 * *s + (1.0 - a.beta2) * g * g);
            let root = (*s / a.correction2).sqrt() + a.epsilon;
            *w = *w * a.shrink - a.rate * (*m / a.correction1) / root;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tanh_and_exp_are_within_a_few_ulp() {
        for i in -200_000..=200_000 {
            let x = i as f32 * 1e-4;
            let exact = f64::from(x).tanh();
            let error = (f64::from(tanh(x)) - exact).abs();
            assert!(error <= 3e-7 * exact.abs().max(1e-30), "tanh({x}): {error:e}");
            if x.abs() < 20.0 {
                let exact = f64::from(x).exp();
                assert!((f64::from(exp(x)) - exact).abs() <= 2e-7 * exact, "exp({x})");
            }
        }
        assert_eq!((tanh(50.0), tanh(-50.0), tanh(0.0)), (1.0, -1.0, 0.0));
        assert!(tanh(f32::NAN).is_nan());
    }

    #[test]
    fn moments_without_gradients_become_zero() {
        let mut w = [1.0_f32; 40];
        let (mut v, mut m, mut s) = ([-3.0_f32; 40], [2.0_f32; 40], [4.0_f32; 40]);
        let mut plain = -3.0_f32;
        let factors = Sgd { rate: 0.1, momentum: 0.9, lambda: 0.0, clip: 1.0, nesterov: false };
        for step in 0..1200 {
            sgd(&mut w, &[0.0; 40], &mut v, factors);
            plain *= 0.9;
            assert!(plain.abs() < f32::MIN_POSITIVE || v == [plain; 40], "step {step}: {} and {plain}", v[0]);
        }
        assert!(v == [0.0; 40] && plain != 0.0, "{} and {plain}", v[0]);
        let (beta1, beta2) = (0.9, 0.99);
        let one = Adam {
            rate: 0.1,
            beta1,
            beta2,
            epsilon: 1e-8,
            correction1: 1.0,
            correction2: 1.0,
            joined: 0.0,
            shrink: 1.0,
            clip: 1.0,
        };
        (0..12_000).for_each(|_| adam(&mut w, &[0.0; 40], &mut m, &mut s, one));
        assert_eq!((m, s), ([0.0; 40], [0.0; 40]));
        sgd(&mut w, &[f32::NAN; 40], &mut v, factors);
        assert!(v.iter().all(|v| v.is_nan()));
    }

    #[test]
    fn sums_take_odd_lengths() {
        for n in 0..70_usize {
            let x: Vec<f32> = (0..n).map(|i| i as f32).collect();
            assert_eq!(sum(&x), (n * n.saturating_sub(1) / 2) as f32);
            assert_eq!(moments(&x, 1.0, &vec![2.0; n]), (x.iter().map(|v| 2.0 * (v - 1.0)).sum(), 2.0 * n as f32));
        }
    }
}
