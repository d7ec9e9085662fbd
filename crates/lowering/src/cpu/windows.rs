//! Max pooling by registers: windows of 2×2 or 3×3 pixels with stride 2, a line of windows at a time.

use pulp::{Simd, WithSimd};

use super::{
    pooling::Planes,
    transpose::{join_pairs, later, split_pairs},
    vector::{load_sixteen, store_sixteen},
};

/// Outputs of a line that are worked on together: sixteen fill whole registers of every level.
const LINE: usize = 16;

/// Pixels of a row that windows of three, two apart, see for a line of outputs.
const REACH: usize = 2 * LINE + 1;

/// Every second pixel of a row from the first, the second and the third on, so that each column of windows with stride 2 is whole registers.
#[derive(Clone, Copy)]
struct Columns([[f32; LINE]; 3]);

impl Columns {
    /// Of the pixels from `from` on. Where a plane goes on behind what the windows see, what is there is taken too, and where it ends,
    /// zeros: neither counts, since outputs behind the last are not used.
    #[inline(always)]
    fn split<S: Simd>(simd: S, plane: &[f32], from: usize) -> Self {
        let mut beyond = [0.0; REACH];
        let pixels: &[f32; REACH] = plane[from..].first_chunk().unwrap_or_else(|| {
            let rest = &plane[from..];
            beyond[..rest.len()].copy_from_slice(rest);
            &beyond
        });
        // The third column is what the odd pixels are one pixel later.
        let [first, second] = split_pairs(simd, pixels.first_chunk().expect("more pixels than these"));
        let [_, third] = split_pairs(simd, pixels.last_chunk().expect("more pixels than these"));
        Self([first, second, third])
    }

    /// The pixels that column `kx` of the windows sees.
    #[inline(always)]
    fn column(&self, kx: usize) -> &[f32] {
        &self.0[kx]
    }
}

/// Max pooling and its gradient for windows of 2×2 or 3×3 pixels with stride 2.
pub(super) struct ByTwo<'a> {
    pub(super) p: &'a Planes,
    pub(super) x: &'a [f32],
    /// Forward: y. Backward: dx.
    pub(super) out: &'a mut [f32],
    pub(super) dy: Option<&'a [f32]>,
}

impl WithSimd for ByTwo<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let p = self.p;
        match self.dy {
            None => {
                for (x, y) in self.x.chunks_exact(p.input()).zip(self.out.chunks_exact_mut(p.output())) {
                    max_plane(simd, p, x, y);
                }
            }
            Some(dy) => {
                let planes = self.x.chunks_exact(p.input()).zip(dy.chunks_exact(p.output()));
                for ((x, dy), dx) in planes.zip(self.out.chunks_exact_mut(p.input())) {
                    max_grad_plane(simd, p, x, dy, dx);
                }
            }
        }
    }
}

/// Largest value of each window of part of a line, and the number of the tap that has it. NaN wins, so that a diverged
/// network shows.
#[inline(always)]
fn largest<S: Simd>(simd: S, size: usize, rows: &[Columns; 3], n: usize) -> (S::f32s, S::f32s) {
    let mut best = simd.splat_f32s(f32::NEG_INFINITY);
    let mut winner = simd.splat_f32s(0.0);
    for (ky, row) in rows.iter().enumerate().take(size) {
        for kx in 0..size {
            let pixel = S::as_simd_f32s(row.column(kx)).0[n];
            let number_of = simd.not_m32s(simd.equal_f32s(pixel, pixel));
            let wins = simd.or_m32s(simd.greater_than_f32s(pixel, best), number_of);
            best = simd.select_f32s(wins, pixel, best);
            winner = simd.select_f32s(wins, simd.splat_f32s((ky * size + kx) as f32), winner);
        }
    }
    (best, winner)
}

/// The rows that a line of windows sees, from output column `from` on.
#[inline(always)]
fn rows_of_line<S: Simd>(simd: S, p: &Planes, x: &[f32], oy: usize, from: usize) -> [Columns; 3] {
    let mut rows = [Columns([[0.0; LINE]; 3]); 3];
    for (ky, row) in rows.iter_mut().enumerate().take(p.pool.size) {
        *row = Columns::split(simd, x, (2 * oy + ky) * p.w + 2 * from);
    }
    rows
}

#[inline(always)]
fn max_plane<S: Simd>(simd: S, p: &Planes, x: &[f32], y: &mut [f32]) {
    for (oy, line) in y.chunks_exact_mut(p.ow).enumerate() {
        for (part, line) in line.chunks_mut(LINE).enumerate() {
            let rows = rows_of_line(simd, p, x, oy, part * LINE);
            let mut values = [0.0; LINE];
            for n in 0..LINE / S::F32_LANES {
                S::as_mut_simd_f32s(&mut values).0[n] = largest(simd, p.pool.size, &rows, n).0;
            }
            store_sixteen(simd, &values, line);
        }
    }
}

/// A line's columns of a row of pixels: those with even numbers, and those with odd ones.
type Pairs = [[f32; LINE]; 2];

/// What the windows of a line give to one of the rows that they see, of which `winners` and `share` are the numbers of the taps and dy: to pixel
/// 2i the windows i and, where they are three wide, i − 1; to pixel 2i + 1 window i.
#[inline(always)]
fn row_of_grad<S: Simd>(simd: S, size: usize, ky: usize, winners: &[f32; LINE], share: &[f32; LINE]) -> Pairs {
    let mut columns = [[0.0; LINE]; 3];
    for (kx, column) in columns.iter_mut().enumerate().take(size) {
        let number = simd.splat_f32s((ky * size + kx) as f32);
        for (n, to) in S::as_mut_simd_f32s(column).0.iter_mut().enumerate() {
            let wins = simd.equal_f32s(S::as_simd_f32s(winners).0[n], number);
            *to = simd.select_f32s(wins, S::as_simd_f32s(share).0[n], simd.splat_f32s(0.0));
        }
    }
    let [even, odd, third] = columns;
    [sum(simd, &even, &later(simd, &third)), odd]
}

#[inline(always)]
fn sum<S: Simd>(simd: S, a: &[f32; LINE], b: &[f32; LINE]) -> [f32; LINE] {
    let mut sums = [0.0; LINE];
    for (n, sum) in S::as_mut_simd_f32s(&mut sums).0.iter_mut().enumerate() {
        *sum = simd.add_f32s(S::as_simd_f32s(a).0[n], S::as_simd_f32s(b).0[n]);
    }
    sums
}

/// Stores pairs of pixels from the first or, if the first is complete already, from the second on, up to the end of their row.
#[inline(always)]
fn store_pairs<S: Simd>(simd: S, [even, odd]: &Pairs, skip: usize, row: &mut [f32]) {
    let pixels = join_pairs(simd, even, odd);
    let pixels = &pixels[skip..];
    // Of the second register as much as there is, also where the first two pixels are left out.
    for (from, to) in [(0, 0), (LINE - skip, LINE - skip)] {
        if to < row.len() {
            store_sixteen(simd, pixels[from..].first_chunk().expect("there are that many"), &mut row[to..]);
        }
    }
}

/// dy goes to the first largest value of each window. Each pixel is written once: a pixel that two windows of a line see has its values from both,
/// so lines overlap by a window, and what a line of windows gives to the row that the next one sees too waits for that.
#[inline(always)]
fn max_grad_plane<S: Simd>(simd: S, p: &Planes, x: &[f32], dy: &[f32], dx: &mut [f32]) {
    let size = p.pool.size;
    let pairs = p.w.div_ceil(2);
    for part in 0..(pairs - 1).div_ceil(LINE - 1).max(1) {
        let from = part * (LINE - 1);
        // The first pair is the last one of the part before.
        let skip = if part == 0 { 0 } else { 2 };
        let mut rows_of_dx = dx.chunks_exact_mut(p.w).map(|row| &mut row[2 * from + skip..]);
        let mut waiting = [[0.0; LINE]; 2];
        for (oy, line) in dy.chunks_exact(p.ow).enumerate() {
            let rows = rows_of_line(simd, p, x, oy, from);
            // Behind the last window there is nothing to share out.
            let mut share = [0.0; LINE];
            load_sixteen(simd, line.get(from..).unwrap_or(&[]), &mut share);
            let mut winners = [0.0; LINE];
            for n in 0..LINE / S::F32_LANES {
                S::as_mut_simd_f32s(&mut winners).0[n] = largest(simd, size, &rows, n).1;
            }
            for ky in 0..2 {
                let mut row = row_of_grad(simd, size, ky, &winners, &share);
                if ky == 0 {
                    row = [sum(simd, &waiting[0], &row[0]), sum(simd, &waiting[1], &row[1])];
                }
                store_pairs(simd, &row, skip, rows_of_dx.next().expect("windows lie within the plane"));
            }
            if size == 3 {
                waiting = row_of_grad(simd, size, 2, &winners, &share);
            }
        }
        for row in rows_of_dx {
            store_pairs(simd, &waiting, skip, row);
            waiting = [[0.0; LINE]; 2];
        }
    }
}
