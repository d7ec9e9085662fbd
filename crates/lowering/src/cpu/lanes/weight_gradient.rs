//! Convolutions' weight gradients on blocks.

use std::ops::Range;

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
    /// Segments of rows of the kernel: the first tap's number and place in x, and how many.
    segments: Vec<Segment>,
}

/// Neighbouring taps of one row of the kernel.
#[derive(Clone, Copy)]
struct Segment {
    tap: usize,
    x: usize,
    taps: usize,
}

/// Most taps of a tile.
const TAPS: usize = 5;

impl WeightGrad {
    /// Rows of dy that are summed at once.
    pub(super) fn strip(e: &Extents, lanes: usize) -> usize {
        let row = e.o * e.ow * lanes;
        // Sums that would not stay in the cache must not be loaded and stored for each strip.
        if e.o * e.taps() * lanes > STRIP || e.oh * row <= 2 * STRIP { e.oh } else { (STRIP / row).clamp(1, e.oh) }
    }

    pub(super) fn new(e: Extents, strip: usize, (x, dy, sums): (Id, Id, Option<Id>), partial: Slot) -> Self {
        let (ph, pw) = (e.h + 2 * e.padding, e.w + 2 * e.padding);
        let count = e.kw.div_ceil(TAPS);
        let segments = (0..e.c * e.kh).flat_map(|row| {
            (0..count).map(move |i| {
                let columns = i * e.kw / count..(i + 1) * e.kw / count;
                let x = (row / e.kh * ph + row % e.kh) * pw + columns.start;
                Segment { tap: row * e.kw + columns.start, x, taps: columns.len() }
            })
        });
        let segments = segments.collect();
        Self { e, x, dy, sums, partial, strip, segments }
    }
}

/// acc[m][t] += Σ dy[channel m]·x[tap t] over rows of pixels.
#[inline(always)]
fn correlate<S: Simd, const M: usize, const T: usize>(
    simd: S,
    e: &Extents,
    (x, dy): (&[S::f32s], &[S::f32s]),
    (o, first): (usize, usize),
    rows: Range<usize>,
    acc: &mut [[S::f32s; T]; M],
) {
    let width = (e.w + 2 * e.padding) * e.stride;
    let reach = (e.ow - 1) * e.stride + T;
    for oy in rows {
        let mut d: [&[S::f32s]; M] = [&[]; M];
        for m in 0..M {
            d[m] = &dy[((o + m) * e.oh + oy) * e.ow..][..e.ow];
        }
        let x = &x[first + oy * width..][..reach];
        if e.stride == 1 {
            for (i, b) in x.array_windows::<T>().enumerate() {
                products(simd, &d, i, b, acc);
            }
        } else {
            for i in 0..e.ow {
                let b: &[S::f32s; T] = x[i * e.stride..][..T].try_into().expect("T values");
                products(simd, &d, i, b, acc);
            }
        }
    }
}

/// acc[m][t] += d[m][i]·b[t].
#[inline(always)]
fn products<S: Simd, const M: usize, const T: usize>(
    simd: S,
    d: &[&[S::f32s]; M],
    i: usize,
    b: &[S::f32s; T],
    acc: &mut [[S::f32s; T]; M],
) {
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
        segment: Segment,
        rows: Range<usize>,
    ) {
        let e = &self.g.e;
        let (x, dy) = (S::as_simd_f32s(self.x).0, S::as_simd_f32s(self.dy).0);
        let sums = S::as_mut_simd_f32s(self.sums).0;
        let count = e.taps();
        let mut acc = [[simd.splat_f32s(0.0); T]; M];
        if rows.start > 0 {
            for m in 0..M {
                acc[m].copy_from_slice(&sums[(o + m) * count + segment.tap..][..T]);
            }
        }
        let last = rows.end == e.oh;
        correlate(simd, e, (x, dy), (o, segment.x), rows, &mut acc);
        for m in 0..M {
            let at = (o + m) * count + segment.tap;
            if last {
                for t in 0..T {
                    self.out[at + t] = simd.reduce_sum_f32s(acc[m][t]);
                }
            } else {
                sums[at..at + T].copy_from_slice(&acc[m]);
            }
        }
    }

    /// All segments of `T` taps, with `M` output channels.
    #[inline(always)]
    fn channels<S: Simd, const M: usize, const T: usize>(&mut self, simd: S, o: usize, rows: &Range<usize>) {
        let g = self.g;
        for &segment in g.segments.iter().filter(|segment| segment.taps == T) {
            self.tile::<S, M, T>(simd, o, segment, rows.clone());
        }
    }

    /// All segments of `T` taps, with tiles of `M` output channels, then of one.
    #[inline(always)]
    fn segments<S: Simd, const M: usize, const T: usize>(&mut self, simd: S, rows: &Range<usize>) {
        let outputs = self.g.e.o;
        let mut o = 0;
        while o + M <= outputs {
            self.channels::<S, M, T>(simd, o, rows);
            o += M;
        }
        while o + 2 <= outputs {
            self.channels::<S, 2, T>(simd, o, rows);
            o += 2;
        }
        if o < outputs {
            self.channels::<S, 1, T>(simd, o, rows);
        }
    }
}

impl WithSimd for WeightGradBody<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let (e, g) = (self.g.e, self.g);
        let mut start = 0;
        while start < e.oh {
            let rows = start..(start + g.strip).min(e.oh);
            start = rows.end;
            for taps in 1..=TAPS {
                if !g.segments.iter().any(|segment| segment.taps == taps) {
                    continue;
                }
                // Twelve sums in registers, or more where there are more.
                match taps {
                    1 => self.segments::<S, 6, 1>(simd, &rows),
                    2 => self.segments::<S, 6, 2>(simd, &rows),
                    3 if S::F32_LANES == 16 => self.segments::<S, 6, 3>(simd, &rows),
                    3 => self.segments::<S, 4, 3>(simd, &rows),
                    4 => self.segments::<S, 3, 4>(simd, &rows),
                    _ if S::F32_LANES == 16 => self.segments::<S, 4, TAPS>(simd, &rows),
                    _ => self.segments::<S, 2, TAPS>(simd, &rows),
                }
            }
        }
    }
}

impl Step for WeightGrad {
    fn name(&self) -> &'static str {
        "convolution weight gradient"
    }
    fn run(&self, room: &mut Room) {
        let size = self.e.o * self.e.taps();
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
