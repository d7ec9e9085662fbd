//! Matrix products: register tiles over packed panels.
//!
//! A tile of the result stays in registers while a panel of a ([k, rows of the tile]) meets a panel of b ([k, columns of the
//! tile]). Sums run over k in order, in blocks of at most [`DEPTH`], so results do not depend on how a product is split into
//! tasks by rows or columns.

use pulp::{Simd, WithSimd};

use super::vector::{self, Level, fma};

/// Depth of packed blocks: a panel of b of this depth stays in the first-level cache.
const DEPTH: usize = 256;

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
            Level::Avx512 | Level::PortableWide => Self { rows: 12, columns: 32 },
            Level::Avx2 => Self { rows: 6, columns: 16 },
            Level::Portable => Self { rows: 6, columns: 8 },
        }
    }
}

/// Runs a body with the tile of a level as constants: rows and registers across.
macro_rules! with_tile {
    ($simd:ident: $S:ident, $body:ident($($arg:expr),*)) => {
        if $S::F32_LANES == 16 { $body::<$S, 12, 2>($simd, $($arg),*) } else { $body::<$S, 6, 2>($simd, $($arg),*) }
    };
}
pub(crate) use with_tile;

/// A tile of the result, in registers.
pub(crate) type Sums<S, const M: usize, const N: usize> = [[<S as Simd>::f32s; N]; M];

/// Σ over k of a [k, M] · b [k, N registers].
#[inline(always)]
pub(crate) fn tile<S: Simd, const M: usize, const N: usize>(simd: S, a: &[f32], b: &[f32]) -> Sums<S, M, N> {
    let mut sums = [[simd.splat_f32s(0.0); N]; M];
    for (a, b) in a.as_chunks::<M>().0.iter().zip(S::as_simd_f32s(b).0.as_chunks::<N>().0) {
        for (row, &a) in sums.iter_mut().zip(a) {
            let a = simd.splat_f32s(a);
            for (sum, &b) in row.iter_mut().zip(b) {
                *sum = fma(simd, a, b, *sum);
            }
        }
    }
    sums
}

/// Writes sums to `c`, whose rows are `stride` apart and which may end before the tile does; adds them with `accumulate`.
#[inline(always)]
fn store<S: Simd, const M: usize, const N: usize>(
    simd: S,
    sums: &Sums<S, M, N>,
    c: &mut [f32],
    stride: usize,
    (rows, columns): (usize, usize),
    accumulate: bool,
) {
    let width = N * S::F32_LANES;
    for (i, sums) in sums.iter().enumerate().take(rows) {
        if columns >= width {
            let row = S::as_mut_simd_f32s(&mut c[i * stride..][..width]).0;
            for (to, &sum) in row.iter_mut().zip(sums) {
                *to = if accumulate { simd.add_f32s(*to, sum) } else { sum };
            }
        } else {
            let mut whole = [0.0; 64];
            S::as_mut_simd_f32s(&mut whole[..width]).0.copy_from_slice(sums);
            for (to, sum) in c[i * stride..][..columns].iter_mut().zip(whole) {
                *to = if accumulate { *to + sum } else { sum };
            }
        }
    }
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

    fn transpose(self) -> Self {
        Self { values: self.values, row_stride: self.column_stride, column_stride: self.row_stride }
    }
}

/// Packs rows `from..from + L` (those there are, zeros beyond `rows`) of columns `depth` into `panel` [depth, L].
#[inline(always)]
fn pack<const L: usize>(panel: &mut [f32], x: Matrix, from: usize, rows: usize, depth: std::ops::Range<usize>) {
    let here = rows.saturating_sub(from).min(L);
    let panel = panel.as_chunks_mut::<L>().0;
    if x.row_stride == 1 && here == L {
        for (to, k) in panel.iter_mut().zip(depth) {
            to.copy_from_slice(&x.values[k * x.column_stride + from..][..L]);
        }
        return;
    }
    if x.column_stride == 1 {
        // Four values of each row at a time: reads run along rows, writes stay within a few cache lines.
        let length = depth.len();
        if here < L {
            panel[..length].iter_mut().for_each(|to| to.fill(0.0));
        }
        let (fours, rest) = panel[..length].as_chunks_mut::<4>();
        for i in 0..here {
            let row = &x.values[(from + i) * x.row_stride + depth.start..][..length];
            let (values, tail) = row.as_chunks::<4>();
            for (to, values) in fours.iter_mut().zip(values) {
                for j in 0..4 {
                    to[j][i] = values[j];
                }
            }
            for (to, &value) in rest.iter_mut().zip(tail) {
                to[i] = value;
            }
        }
        return;
    }
    for (to, k) in panel.iter_mut().zip(depth) {
        for (i, to) in to.iter_mut().enumerate() {
            *to = if i < here { x.values[(from + i) * x.row_stride + k * x.column_stride] } else { 0.0 };
        }
    }
}

/// Packs columns of b, as [`pack`] does rows of a.
#[inline(always)]
fn pack_columns<S: Simd>(panel: &mut [f32], b: Matrix, from: usize, columns: usize, depth: std::ops::Range<usize>) {
    match S::F32_LANES {
        16 => pack::<32>(panel, b.transpose(), from, columns, depth),
        8 => pack::<16>(panel, b.transpose(), from, columns, depth),
        _ => pack::<8>(panel, b.transpose(), from, columns, depth),
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
    let (panels, room) = room.split_at_mut(m.next_multiple_of(M) * block);
    for start in (0..k).step_by(block) {
        let depth = start..(start + block).min(k);
        let length = depth.len();
        for (i, panel) in panels.chunks_exact_mut(M * block).enumerate() {
            pack::<M>(&mut panel[..M * length], a, i * M, m, depth.clone());
        }
        for column in (0..n).step_by(width) {
            let right = &mut room[..width * length];
            pack_columns::<S>(right, b, column, n, depth.clone());
            for (i, left) in panels.chunks_exact(M * block).enumerate() {
                let sums = tile::<S, M, N>(simd, &left[..M * length], right);
                let here = ((m - i * M).min(M), n - column);
                store(simd, &sums, &mut c[i * M * stride + column..], stride, here, accumulate || start > 0);
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
fn block_depth(k: usize) -> usize {
    k.div_ceil(k.div_ceil(DEPTH).max(1))
}

/// Private memory that a product of m rows and depth k needs for its packed panels, in f32.
pub(crate) fn room(m: usize, k: usize) -> usize {
    let tile = Tile::new();
    (m.next_multiple_of(tile.rows) + tile.columns) * block_depth(k)
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
