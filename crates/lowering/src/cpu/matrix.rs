//! Matrix products: register tiles over packed panels.
//!
//! A tile of the result stays in registers while some rows of a meet a packed panel of b ([k, columns of the tile]). Sums run
//! over k in order, in blocks of at most [`DEPTH`], so results do not depend on how a product is split into
//! tasks by rows or columns.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::{
    amx,
    arithmetic::{Arithmetic, Compute, Single},
    transpose::{Aligned, SIDE, Square, transpose},
    vector::{self, Level, load_sixteen},
};

/// Depth of packed blocks: a panel of b of this depth stays in the first-level cache.
const DEPTH: usize = 256;

/// Values of a cache line.
pub(crate) const LINE: usize = 16;

/// Extents of a register tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tile {
    /// Rows of the result.
    pub(crate) rows: usize,
    /// Columns of the result: two registers.
    pub(crate) columns: usize,
}

impl Tile {
    /// What the kernels of this process use.
    pub(crate) fn new() -> Self {
        match vector::level() {
            Level::Amx | Level::Avx512 | Level::Portable => Self { rows: 12, columns: 32 },
            Level::Avx2 => Self { rows: 6, columns: 16 },
            Level::Neon => Self { rows: 8, columns: 8 },
        }
    }
}

/// Runs a body with the tile of a level as constants: rows and registers across.
macro_rules! with_tile {
    ($simd:ident: $S:ident, $body:ident($($arg:expr),*)) => {
        match $S::F32_LANES {
            16 => $body::<$S, 12, 2>($simd, $($arg),*),
            8 => $body::<$S, 6, 2>($simd, $($arg),*),
            _ => $body::<$S, 8, 2>($simd, $($arg),*),
        }
    };
    ($simd:ident: $S:ident, $arithmetic:ident: $A:ident, $body:ident($($arg:expr),*)) => {
        match $S::F32_LANES {
            16 => $body::<$S, $A, 12, 2>($simd, $arithmetic, $($arg),*),
            8 => $body::<$S, $A, 6, 2>($simd, $arithmetic, $($arg),*),
            _ => $body::<$S, $A, 8, 2>($simd, $arithmetic, $($arg),*),
        }
    };
}
pub(crate) use with_tile;

/// A tile of the result, in registers.
pub(crate) type Sums<S, const M: usize, const N: usize> = [[<S as Simd>::f32s; N]; M];

/// A matrix that products are written to: rows `stride` apart.
pub(crate) struct Target<'a> {
    pub(crate) values: &'a mut [f32],
    pub(crate) stride: usize,
    /// Whether products are added to what is there.
    pub(crate) accumulate: bool,
}

/// Cache lines of some rows of matrices, to be read or written, which are asked for while something else is computed.
#[derive(Clone, Copy)]
pub(crate) struct Ahead<'a, const WRITE: bool = false> {
    /// Of one matrix, from the first value that is wanted on; then those of others.
    values: &'a [f32],
    others: &'a [&'a [f32]],
    /// Values of a row that are wanted, and from one row to the next.
    row: usize,
    stride: usize,
    /// Lines to ask for at each step of a product.
    rate: usize,
    /// The next one, and where its row ends.
    at: usize,
    end: usize,
}

impl<'a, const WRITE: bool> Ahead<'a, WRITE> {
    pub(crate) const NOTHING: Self = Self { values: &[], others: &[], row: 0, stride: 0, rate: 0, at: 0, end: 0 };

    /// `row` values of each of the rows `stride` apart, within so many steps of the products at hand.
    pub(crate) fn rows(matrices: &'a [&'a [f32]], row: usize, stride: usize, steps: usize) -> Self {
        let Some((&values, others)) = matrices.split_first() else { return Self::NOTHING };
        let lines = matrices.len() * values.len().div_ceil(stride) * row.div_ceil(LINE);
        Self { values, others, row, stride, rate: lines.div_ceil(steps.max(1)), at: 0, end: row }
    }

    /// Values that lie one after the other, a line each step.
    pub(crate) fn line(values: &'a [f32]) -> Self {
        Self { values, row: values.len(), stride: values.len(), rate: 1, end: values.len(), ..Self::NOTHING }
    }

    /// Some runs of such values, as rows without a distance between them.
    pub(crate) fn lines(runs: &'a [&'a [f32]]) -> Self {
        let Some((values, others)) = runs.split_first() else { return Self::NOTHING };
        const ROW: usize = 8 * LINE;
        Self { values, others, row: ROW, stride: ROW, rate: 1, at: 0, end: ROW }
    }

    /// Asks for what is due at so many steps.
    #[inline(always)]
    pub(crate) fn steps(&mut self, steps: usize) {
        let mut next = *self;
        (0..steps).for_each(|_| next.step());
        *self = next;
    }

    /// Asks for what is due at one step.
    #[inline(always)]
    pub(crate) fn step(&mut self) {
        for _ in 0..self.rate {
            if WRITE {
                vector::prefetch_to_write(self.values, self.at);
            } else {
                vector::prefetch(self.values, self.at);
            }
            self.at += LINE;
            if self.at >= self.end {
                self.end += self.stride;
                self.at = self.end - self.row;
                if self.at >= self.values.len() {
                    let (values, others) = self.others.split_first().map_or((&[][..], self.others), |(v, o)| (*v, o));
                    *self = Self { values, others, at: 0, end: self.row, ..*self };
                }
            }
        }
    }
}

/// `rows` rows of `left`, each as long as the panel `right` [steps of the depth, N registers] and `stride` apart, times that panel.
#[inline(always)]
pub(crate) fn row_tiles<S: Simd, A: Arithmetic<S>, const M: usize, const N: usize>(
    simd: S,
    arithmetic: A,
    (left, stride): (&[f32], usize),
    rows: usize,
    right: &[f32],
    to: Target,
) {
    row_tiles_ahead::<S, A, M, N>(simd, arithmetic, (left, stride), rows, right, &mut { Ahead::NOTHING }, to);
}

/// [`row_tiles`] that asks for what comes next meanwhile.
#[inline(always)]
pub(crate) fn row_tiles_ahead<S: Simd, A: Arithmetic<S>, const M: usize, const N: usize>(
    simd: S,
    arithmetic: A,
    (left, stride): (&[f32], usize),
    rows: usize,
    right: &[f32],
    ahead: &mut Ahead,
    to: Target,
) {
    let mut row = match arithmetic.tiles() {
        Some(tiles) => {
            let to = Target { values: &mut *to.values, ..to };
            amx::row_tiles(tiles, (left, stride), rows, right, ahead, M, to)
        }
        None => 0,
    };
    while row < rows {
        let left = &left[row * stride..];
        let to = Target { values: &mut to.values[row * to.stride..], ..to };
        row += match rows - row {
            // One or two rows at the end would take as long as four, for each sum waits for itself: there are registers for thirteen and
            // fourteen, and eight are one tile instead of two.
            13 if M == 12 => arithmetic.vectorize(simd, RegisterTile::<13, N> { left, stride, right, ahead, to }),
            14 if M == 12 => arithmetic.vectorize(simd, RegisterTile::<14, N> { left, stride, right, ahead, to }),
            8 if M == 12 => arithmetic.vectorize(simd, RegisterTile::<8, N> { left, stride, right, ahead, to }),
            n if n >= M => arithmetic.vectorize(simd, RegisterTile::<M, N> { left, stride, right, ahead, to }),
            n if n >= 6 => arithmetic.vectorize(simd, RegisterTile::<6, N> { left, stride, right, ahead, to }),
            n if n >= 4 => arithmetic.vectorize(simd, RegisterTile::<4, N> { left, stride, right, ahead, to }),
            n if n >= 2 => arithmetic.vectorize(simd, RegisterTile::<2, N> { left, stride, right, ahead, to }),
            _ => arithmetic.vectorize(simd, RegisterTile::<1, N> { left, stride, right, ahead, to }),
        };
    }
}

/// One register tile: a function of its own, so that the compiler keeps its sums in registers wherever it is called from.
struct RegisterTile<'a, 'b, const M: usize, const N: usize> {
    left: &'a [f32],
    stride: usize,
    right: &'a [f32],
    ahead: &'a mut Ahead<'b>,
    to: Target<'a>,
}

impl<const M: usize, const N: usize> Compute for RegisterTile<'_, '_, M, N> {
    type Output = usize;
    #[inline(always)]
    fn compute<S: Simd, A: Arithmetic<S>>(self, simd: S, arithmetic: A) -> usize {
        let right = S::as_simd_f32s(self.right).0.as_chunks::<N>().0;
        tile::<S, A, M, N>(simd, arithmetic, (self.left, self.stride), right, self.ahead, self.to)
    }
}

/// One register tile; returns its rows.
#[inline(always)]
fn tile<S: Simd, A: Arithmetic<S>, const M: usize, const N: usize>(
    simd: S,
    arithmetic: A,
    (left, stride): (&[f32], usize),
    right: &[[S::f32s; N]],
    ahead: &mut Ahead,
    to: Target,
) -> usize {
    // A copy, which the compiler keeps in registers.
    let mut next = *ahead;
    let mut sums: Sums<S, M, N> = [[simd.splat_f32s(0.0); N]; M];
    if S::F32_LANES == 16 {
        // One step at a time: of four, the compiler loads all values first and spills them.
        let mut rows: [&[f32]; M] = [&[]; M];
        for i in 0..M {
            rows[i] = &left[i * stride..][..right.len()];
        }
        for (k, right) in right.iter().enumerate() {
            next.step();
            for i in 0..M {
                let value = simd.splat_f32s(rows[i][k]);
                for n in 0..N {
                    sums[i][n] = arithmetic.step(simd, value, right[n], sums[i][n]);
                }
            }
        }
    } else {
        // Four values of each row at a time, so that their addresses are computed once.
        let (fours, rest) = right.as_chunks::<4>();
        let mut rows: [&[[f32; 4]]; M] = [&[]; M];
        let mut last = [[0.0; 4]; M];
        for i in 0..M {
            let (row, tail) = left[i * stride..][..right.len()].as_chunks::<4>();
            rows[i] = &row[..fours.len()];
            last[i][..tail.len()].copy_from_slice(tail);
        }
        for (k, right) in fours.iter().enumerate() {
            for j in 0..4 {
                next.step();
                for i in 0..M {
                    let value = simd.splat_f32s(rows[i][k][j]);
                    for n in 0..N {
                        sums[i][n] = arithmetic.step(simd, value, right[j][n], sums[i][n]);
                    }
                }
            }
        }
        for (j, right) in rest.iter().enumerate() {
            for i in 0..M {
                let value = simd.splat_f32s(last[i][j]);
                for n in 0..N {
                    sums[i][n] = arithmetic.step(simd, value, right[n], sums[i][n]);
                }
            }
        }
    }
    *ahead = next;
    for (i, sums) in sums.iter().enumerate() {
        let row = S::as_mut_simd_f32s(&mut to.values[i * to.stride..][..N * S::F32_LANES]).0;
        for (to_value, &sum) in row.iter_mut().zip(sums) {
            *to_value = if to.accumulate { simd.add_f32s(*to_value, sum) } else { sum };
        }
    }
    M
}

/// A matrix in a slice, by strides.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a> {
    pub(crate) values: &'a [f32],
    pub(crate) row_stride: usize,
    pub(crate) column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// Rows one after the other, `stride` apart.
    pub(crate) fn rows(values: &'a [f32], stride: usize) -> Self {
        Self { values, row_stride: stride, column_stride: 1 }
    }

    /// The transpose of [`Self::rows`].
    pub(crate) fn columns(values: &'a [f32], stride: usize) -> Self {
        Self { values, row_stride: 1, column_stride: stride }
    }

    fn covers(&self, rows: usize, columns: usize) -> bool {
        (rows - 1) * self.row_stride + (columns - 1) * self.column_stride < self.values.len()
    }
}

/// Packs columns `from..` of b (those there are, zeros beyond `columns`) at some depth into `panel` [depth, columns of the level's tile].
#[inline(always)]
pub(crate) fn pack_panel<S: Simd>(
    simd: S,
    panel: &mut [f32],
    b: Matrix,
    from: usize,
    columns: usize,
    depth: Range<usize>,
) {
    let width = 2 * S::F32_LANES;
    let here = columns.saturating_sub(from).min(width);
    let panel = &mut panel[..depth.len() * width];
    if b.column_stride == 1 {
        for (to, k) in panel.chunks_exact_mut(width).zip(depth) {
            let row = &b.values[k * b.row_stride + from..];
            if here == width {
                to.copy_from_slice(&row[..width]);
            } else {
                to[..here].copy_from_slice(&row[..here]);
                to[here..].fill(0.0);
            }
        }
        return;
    }
    for group in (0..width).step_by(SIDE) {
        for (part, panel) in panel.chunks_mut(SIDE * width).enumerate() {
            let mut square: Aligned<Square> = Aligned([[0.0; SIDE]; SIDE]);
            for (lane, values) in square.iter_mut().enumerate().take(here.saturating_sub(group)) {
                // What follows a column's part is read too, and not used.
                let column = (from + group + lane) * b.column_stride;
                load_sixteen(simd, &b.values[column + depth.start + part * SIDE..], values);
            }
            transpose(simd, &mut square);
            for (to, values) in panel.chunks_exact_mut(width).zip(square.iter()) {
                let to = &mut to[group..];
                match to.first_chunk_mut::<SIDE>() {
                    Some(to) => *to = *values,
                    None => to.copy_from_slice(&values[..to.len()]),
                }
            }
        }
    }
}

struct Multiply<'a> {
    c: &'a mut [f32],
    stride: usize,
    sizes: (usize, usize, usize),
    a: Matrix<'a>,
    b: Matrix<'a>,
    accumulate: bool,
    room: &'a mut [f32],
}

#[inline(always)]
fn multiply_tiles<S: Simd, const M: usize, const N: usize>(simd: S, task: Multiply) {
    let Multiply { c, stride, sizes: (m, k, n), a, b, accumulate, room } = task;
    let width = N * S::F32_LANES;
    let block = block_depth(k);
    let (turned, room) = room.split_at_mut(m * block);
    let (panel, edge) = room.split_at_mut(width * block);
    for start in (0..k).step_by(block) {
        let depth = start..(start + block).min(k);
        let accumulate = accumulate || start > 0;
        let left = if a.column_stride == 1 {
            (&a.values[start..], a.row_stride)
        } else {
            for (i, row) in turned.chunks_exact_mut(block).enumerate() {
                for (to, k) in row.iter_mut().zip(depth.clone()) {
                    *to = a.values[i * a.row_stride + k * a.column_stride];
                }
            }
            (&*turned, block)
        };
        let panel = &mut panel[..width * depth.len()];
        for column in (0..n).step_by(width) {
            pack_panel(simd, panel, b, column, n, depth.clone());
            if n - column >= width {
                let to = Target { values: &mut c[column..], stride, accumulate };
                row_tiles::<S, Single, M, N>(simd, Single, left, m, panel, to);
                continue;
            }
            let to = Target { values: &mut *edge, stride: width, accumulate: false };
            row_tiles::<S, Single, M, N>(simd, Single, left, m, panel, to);
            for (row, sums) in edge.chunks_exact(width).enumerate().take(m) {
                for (to, &sum) in c[row * stride..][column..n].iter_mut().zip(sums) {
                    *to = if accumulate { *to + sum } else { sum };
                }
            }
        }
    }
}

impl WithSimd for Multiply<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        with_tile!(simd: S, multiply_tiles(self));
    }
}

/// Depth of each packed block: equal parts of at most [`DEPTH`].
pub(crate) fn block_depth(k: usize) -> usize {
    k.div_ceil(k.div_ceil(DEPTH).max(1))
}

/// Private memory that a product of m rows and depth k needs, in f32.
pub(crate) fn room(m: usize, k: usize) -> usize {
    let width = Tile::new().columns;
    (m + width) * block_depth(k) + m * width
}

/// c [m, n] = a [m, k] · b [k, n], or c += with `accumulate`; rows of c are `stride` apart. Runs on the calling thread;
/// `private` holds at least [`room`] values.
pub(crate) fn multiply(
    c: &mut [f32],
    stride: usize,
    (m, k, n): (usize, usize, usize),
    a: Matrix,
    b: Matrix,
    accumulate: bool,
    private: &mut [f32],
) {
    if m == 0 || n == 0 {
        return;
    }
    assert!(
        k > 0 && a.covers(m, k) && b.covers(k, n) && n <= stride && (m - 1) * stride + n <= c.len(),
        "matrix sizes"
    );
    vector::run(Multiply { c, stride, sizes: (m, k, n), a, b, accumulate, room: private });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Small whole numbers, whose sums of products are exact in any order.
    fn numbers(count: usize, step: usize) -> Vec<f32> {
        (0..count).map(|i| (i * step % 17) as f32 - 8.0).collect()
    }

    #[test]
    fn every_number_of_rows_gives_all_of_its_sums() {
        let (k, n) = (37, 70);
        for m in 1..=3 * 14 {
            let (a, b) = (numbers(m * k, 5), numbers(k * n, 7));
            let mut c = vec![0.5; m * n];
            let mut private = vec![0.0; room(m, k)];
            multiply(&mut c, n, (m, k, n), Matrix::rows(&a, k), Matrix::rows(&b, n), true, &mut private);
            for (at, &sum) in c.iter().enumerate() {
                let exact: f32 = (0..k).map(|i| a[at / n * k + i] * b[i * n + at % n]).sum();
                assert_eq!(sum, exact + 0.5, "row {} of {m}, column {}", at / n, at % n);
            }
        }
    }
}
