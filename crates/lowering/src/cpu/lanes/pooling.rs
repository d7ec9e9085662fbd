//! Pooling on blocks, a vector a pixel.

use graph::operators::{Activation, Pool};
use pulp::{Simd, WithSimd};

use super::{
    super::vector::fma,
    chain::{Id, Room, Step},
    elementwise::slope,
};

/// Planes of one image and their pooled ones.
#[derive(Clone, Copy)]
pub(super) struct Planes {
    pub(super) pool: Pool,
    pub(super) h: usize,
    pub(super) w: usize,
    pub(super) oh: usize,
    pub(super) ow: usize,
}

impl Planes {
    /// From [N, C, H, W].
    pub(super) fn new(pool: Pool, x_shape: &[usize]) -> Self {
        let y = pool.output_shape(x_shape);
        Self { pool, h: x_shape[2], w: x_shape[3], oh: y[2], ow: y[3] }
    }
    /// Index of a window's corner in its plane.
    #[inline(always)]
    fn corner(&self, oy: usize, ox: usize) -> usize {
        (oy * self.w + ox) * self.pool.stride
    }
}

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Kind {
    Max,
    Average,
}

/// y = pool(x).
pub(super) struct Pooling {
    pub(super) kind: Kind,
    pub(super) planes: Planes,
    pub(super) x: Id,
    pub(super) y: Id,
}

struct Body<'a> {
    kind: Kind,
    p: &'a Planes,
    x: &'a [f32],
    y: &'a mut [f32],
}

/// The larger one; NaN wins.
#[inline(always)]
fn larger<S: Simd>(simd: S, best: S::f32s, v: S::f32s) -> S::f32s {
    let greater = simd.select_f32s(simd.greater_than_f32s(v, best), v, best);
    simd.select_f32s(simd.equal_f32s(v, v), greater, v)
}

impl WithSimd for Body<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let p = self.p;
        let size = p.pool.size;
        let share = simd.splat_f32s(1.0 / (size * size) as f32);
        let planes = S::as_simd_f32s(self.x).0.chunks_exact(p.h * p.w);
        for (x, y) in planes.zip(S::as_mut_simd_f32s(self.y).0.chunks_exact_mut(p.oh * p.ow)) {
            for (oy, line) in y.chunks_exact_mut(p.ow).enumerate() {
                for (ox, out) in line.iter_mut().enumerate() {
                    let x = &x[p.corner(oy, ox)..];
                    *out = match self.kind {
                        Kind::Average if size == 2 => {
                            let (upper, lower) = (simd.add_f32s(x[0], x[1]), simd.add_f32s(x[p.w], x[p.w + 1]));
                            simd.mul_f32s(simd.add_f32s(upper, lower), share)
                        }
                        Kind::Average => {
                            let mut sum = simd.splat_f32s(0.0);
                            for i in 0..size * size {
                                sum = simd.add_f32s(sum, x[i / size * p.w + i % size]);
                            }
                            simd.mul_f32s(sum, share)
                        }
                        Kind::Max => {
                            let mut best = x[0];
                            for i in 1..size * size {
                                best = larger(simd, best, x[i / size * p.w + i % size]);
                            }
                            best
                        }
                    };
                }
            }
        }
    }
}

impl Step for Pooling {
    fn name(&self) -> &'static str {
        match self.kind {
            Kind::Max => "max pool",
            Kind::Average => "average pool",
        }
    }
    fn run(&self, room: &mut Room) {
        let level = room.level;
        let [x, y] = room.values([self.x, self.y]);
        Room::vectorize(level, Body { kind: self.kind, p: &self.planes, x, y });
    }
}

/// dx of an average pool, then of the activation before it: with an activation `dx` holds its output on entry.
pub(super) struct AverageGrad {
    pub(super) planes: Planes,
    pub(super) activation: Option<Activation>,
    /// The activation's output, copied to `dx` first.
    pub(super) y: Option<Id>,
    pub(super) dy: Id,
    pub(super) dx: Id,
}

struct AverageGradBody<'a> {
    p: &'a Planes,
    activation: Option<Activation>,
    dy: &'a [f32],
    dx: &'a mut [f32],
}

impl WithSimd for AverageGradBody<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let p = self.p;
        let Pool { size, stride } = p.pool;
        let share = simd.splat_f32s(1.0 / (size * size) as f32);
        let zero = simd.splat_f32s(0.0);
        let planes = S::as_simd_f32s(self.dy).0.chunks_exact(p.oh * p.ow);
        for (dy, dx) in planes.zip(S::as_mut_simd_f32s(self.dx).0.chunks_exact_mut(p.h * p.w)) {
            if size == 2 && stride == 2 && (p.h, p.w) == (2 * p.oh, 2 * p.ow) {
                // Every pixel is in one window.
                for (line, rows) in dy.chunks_exact(p.ow).zip(dx.chunks_exact_mut(2 * p.w)) {
                    for row in rows.chunks_exact_mut(p.w) {
                        for (pair, &d) in row.as_chunks_mut::<2>().0.iter_mut().zip(line) {
                            let d = simd.mul_f32s(d, share);
                            for v in pair {
                                *v = match self.activation {
                                    Some(kind) => slope(simd, kind, *v, d),
                                    None => d,
                                };
                            }
                        }
                    }
                }
                continue;
            }
            for y in 0..p.h {
                for x in 0..p.w {
                    let mut sum = zero;
                    for oy in windows_over(y, size, stride, p.oh) {
                        for ox in windows_over(x, size, stride, p.ow) {
                            sum = fma(simd, dy[oy * p.ow + ox], share, sum);
                        }
                    }
                    let at = y * p.w + x;
                    dx[at] = match self.activation {
                        Some(kind) => slope(simd, kind, dx[at], sum),
                        None => sum,
                    };
                }
            }
        }
    }
}

/// Windows that hold a pixel, along one side.
#[inline(always)]
fn windows_over(pixel: usize, size: usize, stride: usize, windows: usize) -> std::ops::Range<usize> {
    let first = (pixel + 1).saturating_sub(size).div_ceil(stride);
    first..(pixel / stride + 1).min(windows).max(first)
}

impl Step for AverageGrad {
    fn name(&self) -> &'static str {
        "average pool gradient"
    }
    fn run(&self, room: &mut Room) {
        let level = room.level;
        if let Some(y) = self.y {
            let [y, dx] = room.values([y, self.dx]);
            dx.copy_from_slice(y);
        }
        let [dy, dx] = room.values([self.dy, self.dx]);
        Room::vectorize(level, AverageGradBody { p: &self.planes, activation: self.activation, dy, dx });
    }
}

/// dx of a max pool: dy goes to the first largest value of each window.
pub(super) struct MaxGrad {
    pub(super) planes: Planes,
    pub(super) x: Id,
    pub(super) dy: Id,
    pub(super) dx: Id,
}

struct MaxGradBody<'a> {
    p: &'a Planes,
    x: &'a [f32],
    dy: &'a [f32],
    dx: &'a mut [f32],
}

impl WithSimd for MaxGradBody<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let p = self.p;
        let size = p.pool.size;
        let zero = simd.splat_f32s(0.0);
        let planes = S::as_simd_f32s(self.x).0.chunks_exact(p.h * p.w);
        let gradients = S::as_simd_f32s(self.dy).0.chunks_exact(p.oh * p.ow);
        let out = S::as_mut_simd_f32s(self.dx).0.chunks_exact_mut(p.h * p.w);
        for ((x, dy), dx) in planes.zip(gradients).zip(out) {
            dx.fill(zero);
            for (o, &d) in dy.iter().enumerate() {
                let corner = p.corner(o / p.ow, o % p.ow);
                let (mut best, mut place) = (x[corner], zero);
                for i in 1..size * size {
                    let v = x[corner + i / size * p.w + i % size];
                    let i = simd.splat_f32s(i as f32);
                    let greater = simd.greater_than_f32s(v, best);
                    let (next, at) = (simd.select_f32s(greater, v, best), simd.select_f32s(greater, i, place));
                    // Any NaN wins, the last one of several.
                    let number = simd.equal_f32s(v, v);
                    best = simd.select_f32s(number, next, v);
                    place = simd.select_f32s(number, at, i);
                }
                for i in 0..size * size {
                    let to = corner + i / size * p.w + i % size;
                    let here = simd.equal_f32s(place, simd.splat_f32s(i as f32));
                    dx[to] = simd.add_f32s(dx[to], simd.select_f32s(here, d, zero));
                }
            }
        }
    }
}

impl Step for MaxGrad {
    fn name(&self) -> &'static str {
        "max pool gradient"
    }
    fn run(&self, room: &mut Room) {
        let level = room.level;
        let [x, dy, dx] = room.values([self.x, self.dy, self.dx]);
        Room::vectorize(level, MaxGradBody { p: &self.planes, x, dy, dx });
    }
}
