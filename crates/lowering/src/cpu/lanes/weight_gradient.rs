//! Convolutions' weight gradients on blocks.

use pulp::{Simd, WithSimd};

use super::{
    super::{memory::Slot, vector::fma},
    chain::{Id, Room, Step},
    convolution::Extents,
};

/// Vectors of dy (in f32) that a strip of rows may hold, so that it stays in the L1 cache beside the images'.
const STRIP: usize = 3_072;

/// The share of one block in a convolution's weight gradient: a tile of output channels and taps in registers, summed
/// over pixels, then over lanes.
pub(super) struct WeightGrad {
    e: Extents,
    /// Padded.
    pub(super) x: Id,
    pub(super) dy: Id,
    /// Sums between strips [o][taps][lanes], if there is more than one.
    pub(super) sums: Option<Id>,
    /// [blocks][o][taps]
    partial: Slot,
    /// Rows of dy in a strip.
    strip: usize,
    taps: Vec<u32>,
}

impl WeightGrad {
    /// Rows of dy that are summed at once.
    pub(super) fn strip(e: &Extents, lanes: usize) -> usize {
        let row = e.o * e.ow * lanes;
        // Sums that would not stay in the cache must not be loaded and stored for each strip.
        if e.o * e.taps() * lanes > STRIP || e.oh * row <= 2 * STRIP { e.oh } else { (STRIP / row).clamp(1, e.oh) }
    }

    pub(super) fn new(e: Extents, strip: usize, (x, dy, sums): (Id, Id, Option<Id>), partial: Slot) -> Self {
        let (ph, pw) = (e.h + 2 * e.padding, e.w + 2 * e.padding);
        let place = |tap: usize| (tap / (e.kh * e.kw) * ph + tap / e.kw % e.kh) * pw + tap % e.kw;
        let taps = (0..e.taps()).map(|tap| place(tap) as u32).collect();
        Self { e, x, dy, sums, partial, strip, taps }
    }
}

/// acc[m][t] += Σ dy[channel m]·x[tap t] over rows of pixels.
#[inline(always)]
fn correlate<S: Simd, const M: usize, const T: usize>(
    simd: S,
    g: &WeightGrad,
    (x, dy): (&[S::f32s], &[S::f32s]),
    (o, taps): (usize, &[u32]),
    rows: std::ops::Range<usize>,
    acc: &mut [[S::f32s; T]; M],
) {
    let e = &g.e;
    let width = e.w + 2 * e.padding;
    for oy in rows {
        let mut d: [&[S::f32s]; M] = [&[]; M];
        let mut s: [&[S::f32s]; T] = [&[]; T];
        for m in 0..M {
            d[m] = &dy[((o + m) * e.oh + oy) * e.ow..][..e.ow];
        }
        let reach = (e.ow - 1) * e.stride + 1;
        for t in 0..T {
            s[t] = &x[taps[t] as usize + oy * e.stride * width..][..reach];
        }
        if e.stride == 1 {
            for i in 0..reach {
                products(simd, &d, &s, (i, i), acc);
            }
        } else {
            for i in 0..e.ow {
                products(simd, &d, &s, (i, i * e.stride), acc);
            }
        }
    }
}

/// acc[m][t] += d[m][i]·s[t][j].
#[inline(always)]
fn products<S: Simd, const M: usize, const T: usize>(
    simd: S,
    d: &[&[S::f32s]; M],
    s: &[&[S::f32s]; T],
    (i, j): (usize, usize),
    acc: &mut [[S::f32s; T]; M],
) {
    let mut b = [acc[0][0]; T];
    for t in 0..T {
        b[t] = s[t][j];
    }
    for m in 0..M {
        let a = d[m][i];
        for t in 0..T {
            acc[m][t] = fma(simd, a, b[t], acc[m][t]);
        }
    }
}

struct WeightGradBody<'a> {
    g: &'a WeightGrad,
    x: &'a [f32],
    dy: &'a [f32],
    sums: &'a mut [f32],
    out: &'a mut [f32],
}

impl WeightGradBody<'_> {
    #[inline(always)]
    fn tile<S: Simd, const M: usize, const T: usize>(
        &mut self,
        simd: S,
        o: usize,
        first: usize,
        rows: std::ops::Range<usize>,
    ) {
        let g = self.g;
        let (x, dy) = (S::as_simd_f32s(self.x).0, S::as_simd_f32s(self.dy).0);
        let sums = S::as_mut_simd_f32s(self.sums).0;
        let count = g.taps.len();
        let mut acc = [[simd.splat_f32s(0.0); T]; M];
        if rows.start > 0 {
            for m in 0..M {
                acc[m].copy_from_slice(&sums[(o + m) * count + first..][..T]);
            }
        }
        let last = rows.end == g.e.oh;
        correlate(simd, g, (x, dy), (o, &g.taps[first..first + T]), rows, &mut acc);
        for m in 0..M {
            let at = (o + m) * count + first;
            if last {
                for t in 0..T {
                    self.out[at + t] = simd.reduce_sum_f32s(acc[m][t]);
                }
            } else {
                sums[at..at + T].copy_from_slice(&acc[m]);
            }
        }
    }

    #[inline(always)]
    fn channels<S: Simd, const M: usize>(&mut self, simd: S, o: usize, rows: std::ops::Range<usize>) {
        let count = self.g.taps.len();
        let mut first = 0;
        while first < count {
            let taps = (count - first).min(5);
            match taps {
                1 => self.tile::<S, M, 1>(simd, o, first, rows.clone()),
                2 => self.tile::<S, M, 2>(simd, o, first, rows.clone()),
                3 => self.tile::<S, M, 3>(simd, o, first, rows.clone()),
                4 => self.tile::<S, M, 4>(simd, o, first, rows.clone()),
                _ => self.tile::<S, M, 5>(simd, o, first, rows.clone()),
            }
            first += taps;
        }
    }
}

impl WithSimd for WeightGradBody<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let e = self.g.e;
        let mut start = 0;
        while start < e.oh {
            let rows = start..(start + self.g.strip).min(e.oh);
            start = rows.end;
            let mut o = 0;
            while o < e.o {
                let rest = e.o - o;
                o += if S::F32_LANES == 16 && rest >= 4 {
                    self.channels::<S, 4>(simd, o, rows.clone());
                    4
                } else if rest >= 2 {
                    self.channels::<S, 2>(simd, o, rows.clone());
                    2
                } else {
                    self.channels::<S, 1>(simd, o, rows.clone());
                    1
                };
            }
        }
    }
}

impl Step for WeightGrad {
    fn name(&self) -> &'static str {
        "convolution weight gradient"
    }
    fn run(&self, room: &mut Room) {
        let size = self.e.o * self.taps.len();
        let out = room.memory.write(self.partial, room.block * size..(room.block + 1) * size);
        let level = room.level;
        match self.sums {
            Some(sums) => {
                let [x, dy, sums] = room.values([self.x, self.dy, sums]);
                Room::vectorize(level, WeightGradBody { g: self, x, dy, sums, out });
            }
            None => {
                let [x, dy] = room.values([self.x, self.dy]);
                Room::vectorize(level, WeightGradBody { g: self, x, dy, sums: &mut [], out });
            }
        }
    }
}
