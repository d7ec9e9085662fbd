//! Linear layers on blocks, and the weight gradients of all layers over all blocks.

use graph::operators::Activation;
use pulp::{Simd, WithSimd};

use super::{
    super::{memory::Slot, vector::fma},
    chain::{Id, Room, Step},
    elementwise::activate,
};

/// y [O][lanes] = w [O, K] · x [K][lanes] + b, then an activation.
pub(super) struct Linear {
    pub(super) x: Id,
    pub(super) y: Id,
    pub(super) w: Slot,
    pub(super) bias: Slot,
    pub(super) activation: Option<Activation>,
}

struct Body<'a> {
    x: &'a [f32],
    w: &'a [f32],
    bias: &'a [f32],
    activation: Option<Activation>,
    y: &'a mut [f32],
}

/// Rows `o..o + M`: two sums each, of even and odd inputs, to hide the latency.
#[inline(always)]
fn rows<S: Simd, const M: usize>(simd: S, x: &[S::f32s], w: &[f32], bias: &[f32], y: &mut [S::f32s]) {
    let inputs = x.len();
    let mut acc = [[simd.splat_f32s(0.0); M]; 2];
    let mut pairs: [&[[f32; 2]]; M] = [&[]; M];
    let (twos, rest) = x.as_chunks::<2>();
    for m in 0..M {
        pairs[m] = &w[m * inputs..(m + 1) * inputs].as_chunks::<2>().0[..twos.len()];
        acc[0][m] = simd.splat_f32s(bias[m]);
    }
    for i in 0..twos.len() {
        for half in 0..2 {
            let b = twos[i][half];
            for m in 0..M {
                acc[half][m] = fma(simd, simd.splat_f32s(pairs[m][i][half]), b, acc[half][m]);
            }
        }
    }
    for m in 0..M {
        if let Some(&last) = rest.first() {
            acc[0][m] = fma(simd, simd.splat_f32s(w[(m + 1) * inputs - 1]), last, acc[0][m]);
        }
        y[m] = simd.add_f32s(acc[0][m], acc[1][m]);
    }
}

impl WithSimd for Body<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let x = S::as_simd_f32s(self.x).0;
        let y = S::as_mut_simd_f32s(self.y).0;
        let mut o = 0;
        while o < y.len() {
            let (w, b) = (&self.w[o * x.len()..], &self.bias[o..]);
            o += if y.len() - o >= 6 {
                rows::<S, 6>(simd, x, w, b, &mut y[o..]);
                6
            } else if y.len() - o >= 4 {
                rows::<S, 4>(simd, x, w, b, &mut y[o..]);
                4
            } else {
                rows::<S, 1>(simd, x, w, b, &mut y[o..]);
                1
            };
        }
        if let Some(kind) = self.activation {
            activate(simd, kind, y);
        }
    }
}

impl Step for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }
    fn run(&self, room: &mut Room) {
        let (w, bias, level) = (room.memory.read(self.w), room.memory.read(self.bias), room.level);
        let [x, y] = room.values([self.x, self.y]);
        Room::vectorize(level, Body { x, w, bias, activation: self.activation, y });
    }
}

/// dx [K][lanes] = wᵀ · dy [O][lanes].
pub(super) struct LinearInputGrad {
    pub(super) dy: Id,
    pub(super) dx: Id,
    pub(super) w: Slot,
}

struct InputGradBody<'a> {
    dy: &'a [f32],
    w: &'a [f32],
    dx: &'a mut [f32],
}

#[inline(always)]
fn columns<S: Simd, const M: usize>(simd: S, dy: &[S::f32s], w: &[f32], inputs: usize, k: usize, dx: &mut [S::f32s]) {
    let mut acc = [simd.splat_f32s(0.0); M];
    for (row, &d) in w.chunks_exact(inputs).zip(dy) {
        let a: &[f32; M] = row[k..k + M].try_into().expect("M values");
        for m in 0..M {
            acc[m] = fma(simd, simd.splat_f32s(a[m]), d, acc[m]);
        }
    }
    dx[k..k + M].copy_from_slice(&acc);
}

impl WithSimd for InputGradBody<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let dy = S::as_simd_f32s(self.dy).0;
        let dx = S::as_mut_simd_f32s(self.dx).0;
        let inputs = dx.len();
        let mut k = 0;
        while k < inputs {
            k += if inputs - k >= 12 {
                columns::<S, 12>(simd, dy, self.w, inputs, k, dx);
                12
            } else if inputs - k >= 4 {
                columns::<S, 4>(simd, dy, self.w, inputs, k, dx);
                4
            } else {
                columns::<S, 1>(simd, dy, self.w, inputs, k, dx);
                1
            };
        }
    }
}

impl Step for LinearInputGrad {
    fn name(&self) -> &'static str {
        "linear input gradient"
    }
    fn run(&self, room: &mut Room) {
        let (w, level) = (room.memory.read(self.w), room.level);
        let [dy, dx] = room.values([self.dy, self.dx]);
        Room::vectorize(level, InputGradBody { dy, w, dx });
    }
}
