//! Operations on one vector at a time: activations and their gradients, sums, dropout.

use graph::operators::{Activation, Dropout};
use pulp::{Simd, WithSimd};

use super::{
    super::{
        memory::Slot,
        vector::{at_least, at_most, fma},
    },
    chain::{Id, Room, Step},
};

/// Beyond this tanh is ±1 to the last bit but one.
const LARGEST: f32 = 8.5;
/// tanh x ≈ x·P(x²)/Q(x²), fitted to the least relative error (1.2e-8 before rounding) up to [`LARGEST`].
const P: [f32; 5] = [1.426_901e-8, 2.125_089_1e-5, 3.534_017_8e-3, 1.341_324e-1, 1.0];
const Q: [f32; 5] = [8.145_035_5e-7, 3.348_85e-4, 2.602_271_8e-2, 4.674_656e-1, 1.0];

/// tanh x with a relative error below 4e-7.
#[inline(always)]
pub(super) fn tanh<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    // In pairs of terms, so that the chain of dependent operations is short.
    #[inline(always)]
    fn polynomial<S: Simd>(simd: S, c: [f32; 5], u: S::f32s, square: S::f32s) -> S::f32s {
        let high = fma(simd, simd.splat_f32s(c[1]), u, simd.splat_f32s(c[2]));
        let low = fma(simd, simd.splat_f32s(c[3]), u, simd.splat_f32s(c[4]));
        fma(simd, fma(simd, simd.splat_f32s(c[0]), square, high), square, low)
    }
    let limit = simd.splat_f32s(LARGEST);
    let a = at_least(simd, simd.splat_f32s(-LARGEST), at_most(simd, limit, x));
    let u = simd.mul_f32s(a, a);
    let square = simd.mul_f32s(u, u);
    let y = simd.mul_f32s(a, polynomial(simd, P, u, square));
    let y = simd.div_f32s(y, polynomial(simd, Q, u, square));
    at_least(simd, simd.splat_f32s(-1.0), at_most(simd, simd.splat_f32s(1.0), y))
}

/// x ← f(x).
///
/// Loops, here and in all kernels: closures given to iterators are not always inlined, and then not compiled for the
/// level.
#[inline(always)]
pub(super) fn activate<S: Simd>(simd: S, kind: Activation, x: &mut [S::f32s]) {
    match kind {
        Activation::Relu => {
            let zero = simd.splat_f32s(0.0);
            for v in x {
                *v = at_least(simd, zero, *v);
            }
        }
        Activation::Tanh => {
            for v in x {
                *v = tanh(simd, *v);
            }
        }
        Activation::Sigmoid => {
            let half = simd.splat_f32s(0.5);
            for v in x {
                *v = fma(simd, half, tanh(simd, simd.mul_f32s(half, *v)), half);
            }
        }
    }
}

/// dy·f'(x) from y = f(x).
#[inline(always)]
pub(super) fn slope<S: Simd>(simd: S, kind: Activation, y: S::f32s, dy: S::f32s) -> S::f32s {
    let one = simd.splat_f32s(1.0);
    match kind {
        Activation::Relu => {
            let zero = simd.splat_f32s(0.0);
            // Not a selection of dy itself, which would become a masked store, slow on some processors.
            simd.mul_f32s(dy, simd.select_f32s(simd.less_than_or_equal_f32s(y, zero), zero, one))
        }
        Activation::Tanh => simd.mul_f32s(dy, simd.sub_f32s(one, simd.mul_f32s(y, y))),
        Activation::Sigmoid => simd.mul_f32s(simd.mul_f32s(dy, y), simd.sub_f32s(one, y)),
    }
}

/// An operation on a value and perhaps another one.
#[derive(Clone, Copy)]
pub(super) enum Operation {
    Activation(Activation),
    /// The other value is the activation's output.
    ActivationGrad(Activation),
    Add,
    /// The key and the features of an image, by which the reference numbers values.
    Dropout(Dropout, Slot, usize),
}

/// out = operation(x, other); `x` may be `out`.
pub(super) struct Elementwise {
    pub(super) operation: Operation,
    pub(super) x: Id,
    pub(super) other: Option<Id>,
    pub(super) out: Id,
    pub(super) lanes: usize,
}

struct Body<'a> {
    operation: Operation,
    other: &'a [f32],
    out: &'a mut [f32],
}

impl WithSimd for Body<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let out = S::as_mut_simd_f32s(self.out).0;
        let other = S::as_simd_f32s(self.other).0;
        match self.operation {
            Operation::Dropout(..) => {}
            Operation::Activation(kind) => activate(simd, kind, out),
            Operation::ActivationGrad(kind) => {
                for (dy, &y) in out.iter_mut().zip(other) {
                    *dy = slope(simd, kind, y, *dy);
                }
            }
            Operation::Add => {
                for (a, &b) in out.iter_mut().zip(other) {
                    *a = simd.add_f32s(*a, b);
                }
            }
        }
    }
}

impl Step for Elementwise {
    fn name(&self) -> &'static str {
        match self.operation {
            Operation::Activation(_) => "activation",
            Operation::ActivationGrad(_) => "activation gradient",
            Operation::Add => "sum",
            Operation::Dropout(..) => "dropout",
        }
    }
    fn run(&self, room: &mut Room) {
        if self.x != self.out {
            let [x, out] = room.values([self.x, self.out]);
            out.copy_from_slice(x);
        }
        let (level, block) = (room.level, room.block);
        if let Operation::Dropout(dropout, key, features) = self.operation {
            let key = room.memory.read(key);
            let words = dropout.words(std::array::from_fn(|i| f64::from(key[i])));
            let (threshold, scale) = (dropout.threshold(), dropout.scale() as f32);
            let [out] = room.values([self.out]);
            for (feature, lanes) in out.chunks_exact_mut(self.lanes).enumerate() {
                for (lane, v) in lanes.iter_mut().enumerate() {
                    let position = ((block * self.lanes + lane) * features + feature) as u32;
                    *v = if Dropout::keeps(words, threshold, position) { *v * scale } else { 0.0 };
                }
            }
            return;
        }
        match self.other {
            // x + x
            Some(other) if other == self.out => {
                let [out] = room.values([self.out]);
                out.iter_mut().for_each(|v| *v += *v);
            }
            Some(other) => {
                let [other, out] = room.values([other, self.out]);
                Room::vectorize(level, Body { operation: self.operation, other, out });
            }
            None => {
                let [out] = room.values([self.out]);
                Room::vectorize(level, Body { operation: self.operation, other: &[], out });
            }
        }
    }
}

/// Sums over the lanes and pixels of each channel: the share of one block in a bias gradient.
pub(super) struct ChannelSum {
    pub(super) x: Id,
    /// [blocks][channels]
    pub(super) partial: Slot,
    pub(super) channels: usize,
}

struct Sums<'a> {
    x: &'a [f32],
    out: &'a mut [f32],
}

impl WithSimd for Sums<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let plane = self.x.len() / self.out.len();
        for (plane, out) in self.x.chunks_exact(plane).zip(self.out) {
            // Four chains hide the latency of an addition.
            let (fours, rest) = S::as_simd_f32s(plane).0.as_chunks::<4>();
            let mut sums = [simd.splat_f32s(0.0); 4];
            for four in fours {
                for i in 0..4 {
                    sums[i] = simd.add_f32s(sums[i], four[i]);
                }
            }
            for (sum, &v) in sums.iter_mut().zip(rest) {
                *sum = simd.add_f32s(*sum, v);
            }
            let [a, b, c, d] = sums;
            *out = simd.reduce_sum_f32s(simd.add_f32s(simd.add_f32s(a, b), simd.add_f32s(c, d)));
        }
    }
}

impl Step for ChannelSum {
    fn name(&self) -> &'static str {
        "bias gradient"
    }
    fn run(&self, room: &mut Room) {
        let first = room.block * self.channels;
        let out = room.memory.write(self.partial, first..first + self.channels);
        let level = room.level;
        let [x] = room.values([self.x]);
        Room::vectorize(level, Sums { x, out });
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::super::vector::{Level, level, run_at},
        *,
    };

    fn activated(level: Level, kind: Activation, x: &[f32]) -> Vec<f32> {
        let mut out = x.to_vec();
        run_at(level, Body { operation: Operation::Activation(kind), other: &[], out: &mut out });
        out
    }

    #[test]
    fn activations_are_within_a_few_ulp() {
        let x: Vec<f32> = (-160_000..160_000).map(|i| i as f32 * 1e-4).collect();
        for level in [Level::Portable, level()] {
            for (x, y) in x.iter().zip(activated(level, Activation::Tanh, &x)) {
                let exact = f64::from(*x).tanh();
                let error = (f64::from(y) - exact).abs();
                assert!(error <= 4e-7 * exact.abs() && y.abs() <= 1.0, "{level:?}: tanh({x}) = {y}");
            }
            for (x, y) in x.iter().zip(activated(level, Activation::Sigmoid, &x)) {
                let exact = 1.0 / (1.0 + (-f64::from(*x)).exp());
                assert!((f64::from(y) - exact).abs() <= 3e-7, "{level:?}: sigmoid({x}) = {y}");
            }
            let mut special = [0.0; 16];
            special[..4].copy_from_slice(&[f32::INFINITY, f32::NEG_INFINITY, f32::NAN, -3.0]);
            let tanh = activated(level, Activation::Tanh, &special);
            assert!(tanh[0] > 0.999_999 && tanh[1] < -0.999_999 && tanh[2].is_nan() && tanh[4] == 0.0, "{tanh:?}");
            let relu = activated(level, Activation::Relu, &special);
            assert!(relu[0] == f32::INFINITY && relu[1] == 0.0 && relu[2].is_nan() && relu[3] == 0.0, "{relu:?}");
        }
    }
}
