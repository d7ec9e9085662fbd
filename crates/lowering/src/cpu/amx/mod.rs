//! Products of bfloat16 by tiles of sixteen rows of 64 bytes, as Intel's AMX has them: one instruction adds 16·16·32 products, sixteen times as
//! many a cycle as two vector units do in 32 bits.
//!
//! A tile of the left operand is sixteen rows of sixteen words, one of the right operand sixteen words of the depth by sixteen columns, a
//! word being two values of the depth (see `arithmetic`). Next to such products everything else is dear, so convolutions are lowered in
//! their own way here: no minimal filtering, no panels; rows of tiles are read where they lie in a copy of the image in 16 bits.
//!
//! On the portable level the same kernels run with [`emulated`] tiles, which give the same bits.

mod copies;
mod layout;
pub(super) mod linear;
mod lines;
mod native;
mod pixels;
mod weight_grad;

use std::marker::PhantomData;

#[cfg(any(target_arch = "x86_64", test))]
pub(super) use native::available;
pub(super) use pixels::input_grad;
pub(super) use weight_grad::weight_grad;

use super::{
    Plan,
    convolution::Extents,
    fusion::Epilogue,
    matrix::{Ahead, Target},
    memory::Slot,
    vector::{self, Level},
};
use crate::Precision;

/// Rows of a tile, and words of its rows.
pub(crate) const SIDE: usize = 16;
/// Values of 16 bits of a tile's row.
pub(crate) const HALVES: usize = 2 * SIDE;
/// Side of what a product computes at most: four tiles of sums, beside two of each operand.
pub(crate) const BLOCK: usize = 2 * SIDE;

/// What computes with tiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Machine {
    /// The processor.
    Native,
    /// Plain Rust.
    Emulated,
}

/// What the kernels of this process compute tiles with, if they have any.
pub(crate) fn machine() -> Option<Machine> {
    match vector::level() {
        Level::Amx => Some(Machine::Native),
        Level::Portable => Some(Machine::Emulated),
        Level::Neon | Level::Avx2 | Level::Avx512 => None,
    }
}

/// Whether tiles serve a convolution: channels that fill them at least half.
pub(super) fn serves(e: &Extents, precision: Precision) -> bool {
    let (from, to) = (e.c / e.groups, e.o / e.groups);
    precision == Precision::Bf16
        && machine().is_some()
        && e.padding < e.kh.min(e.kw)
        && to >= SIDE
        && if e.stride == 1 { from >= SIDE } else { from * e.stride.div_ceil(2) * e.kh >= SIDE }
}

/// Whether they serve its input gradient too.
pub(super) fn serves_input_grad(e: &Extents, precision: Precision) -> bool {
    serves(e, precision) && e.stride == 1
}

/// x = [x, w, b].
pub(super) fn forward(plan: &mut Plan, e: &Extents, x: &[Slot], y: Slot, epilogue: Epilogue) {
    match e.stride {
        1 => pixels::forward(plan, e, x, y, epilogue),
        _ => lines::forward(plan, e, x, y, epilogue),
    }
}

/// Tiles that are set up on this thread, until this is dropped.
#[derive(Debug)]
pub(crate) struct Tiles {
    machine: Machine,
    /// They belong to the thread.
    of_thread: PhantomData<*const ()>,
}

impl Tiles {
    /// All eight of full size.
    pub(crate) fn new(machine: Machine) -> Self {
        if machine == Machine::Native {
            native::configure();
        }
        Self { machine, of_thread: PhantomData }
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        if self.machine == Machine::Native {
            native::release();
        }
    }
}

/// An operand of a product.
#[derive(Clone, Copy)]
pub(crate) struct Operand<'a> {
    /// Values of 16 bits, from the first row's first one on.
    pub(crate) halves: &'a [u16],
    /// From one row to the next.
    pub(crate) stride: usize,
    /// From the first tile to the second one.
    pub(crate) second: usize,
}

impl<'a> Operand<'a> {
    /// Words from the first on, rows of so many words.
    pub(crate) fn words(words: &'a [f32], stride: usize, second: usize) -> Self {
        Self { halves: halves(words), stride: 2 * stride, second: 2 * second }
    }
}

/// Words as what they are.
pub(crate) fn halves(words: &[f32]) -> &[u16] {
    pulp::bytemuck::cast_slice(words)
}

/// Words as what they are.
pub(crate) fn halves_mut(words: &mut [f32]) -> &mut [u16] {
    pulp::bytemuck::cast_slice_mut(words)
}

/// Steps of the depth, of sixteen words each: where both operands' tiles are, in values of 16 bits from their first one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Steps<'a> {
    at: &'a [[usize; 2]],
    /// The largest of each.
    reach: [usize; 2],
}

impl<'a> Steps<'a> {
    /// # Panics
    /// Without any.
    pub(crate) fn new(at: &'a [[usize; 2]]) -> Self {
        let most = |operand: usize| at.iter().map(|at| at[operand]).max().expect("a product has a depth");
        Self { at, reach: [most(0), most(1)] }
    }
}

/// Products of `rows` tiles of the left operand and `columns` tiles of the right one, each one or two.
///
/// # Panics
/// When the operands or the target are too short.
pub(crate) fn product(
    tiles: &Tiles,
    [rows, columns]: [usize; 2],
    [left, right]: [Operand; 2],
    steps: Steps,
    to: Target,
) {
    let end = |operand: &Operand, count: usize, reach| {
        reach + (count - 1) * operand.second + (SIDE - 1) * operand.stride + HALVES
    };
    assert!(matches!([rows, columns], [1 | 2, 1 | 2]), "{rows} by {columns} tiles");
    assert!(end(&left, rows, steps.reach[0]) <= left.halves.len(), "the left operand is too short");
    assert!(end(&right, columns, steps.reach[1]) <= right.halves.len(), "the right operand is too short");
    assert!((rows * SIDE - 1) * to.stride + columns * SIDE <= to.values.len(), "the target is too small");
    match tiles.machine {
        Machine::Native => native::product([rows, columns], [left, right], steps, to),
        Machine::Emulated => emulated(rows, columns, [left, right], steps, to),
    }
}

/// What the processor computes: at each step sums over the first and over the second values of the words, then both added
/// to the tile.
fn emulated(rows: usize, columns: usize, [left, right]: [Operand; 2], steps: Steps, to: Target) {
    let value = |half: u16| flushed(f32::from_bits(u32::from(half) << 16));
    for row in 0..rows * SIDE {
        let sums = &mut to.values[row * to.stride..][..columns * SIDE];
        if !to.accumulate {
            sums.fill(0.0);
        }
        for at in steps.at {
            let left = &left.halves[at[0] + row / SIDE * left.second + row % SIDE * left.stride..][..HALVES];
            for (tile, sums) in sums.as_chunks_mut::<SIDE>().0.iter_mut().enumerate() {
                let (mut first, mut second) = ([0.0_f32; SIDE], [0.0_f32; SIDE]);
                for (word, pair) in left.as_chunks::<2>().0.iter().enumerate() {
                    let words = &right.halves[at[1] + tile * right.second + word * right.stride..][..HALVES];
                    let [low, high] = pair.map(value);
                    for (column, &[a, b]) in words.as_chunks::<2>().0.iter().enumerate() {
                        first[column] = flushed(first[column] + low * value(a));
                        second[column] = flushed(second[column] + high * value(b));
                    }
                }
                for column in 0..SIDE {
                    sums[column] = flushed(sums[column] + flushed(first[column] + second[column]));
                }
            }
        }
    }
}

/// Zero of the same sign instead of a number below the normal range.
fn flushed(x: f32) -> f32 {
    if x.abs() < f32::MIN_POSITIVE { 0.0_f32.copysign(x) } else { x }
}

/// Most steps of [`row_tiles`] that one product takes.
const STEPS: usize = 32;

/// Rows of `left`, each as many words as the panel `right` [words, 32 columns] has rows and `stride` apart, times that panel, as far as tiles
/// of rows are full; returns how many rows those are.
pub(crate) fn row_tiles(
    tiles: &Tiles,
    (left, stride): (&[f32], usize),
    rows: usize,
    right: &[f32],
    ahead: &mut Ahead,
    rows_of_ahead: usize,
    to: Target,
) -> usize {
    let words = right.len() / BLOCK;
    let (whole, rest) = (words / SIDE, words % SIDE);
    let mut row = 0;
    while rows - row >= SIDE {
        let count = if rows - row >= BLOCK { 2 } else { 1 };
        let left = &left[row * stride..];
        let values = &mut to.values[row * to.stride..];
        for first in (0..whole).step_by(STEPS) {
            let mut at = [[0; 2]; STEPS];
            let here = STEPS.min(whole - first);
            for (step, at) in at[..here].iter_mut().enumerate() {
                *at = [(first + step) * HALVES, (first + step) * SIDE * 2 * BLOCK];
            }
            let operands = [Operand::words(left, stride, SIDE * stride), Operand::words(right, BLOCK, SIDE)];
            let accumulate = to.accumulate || first > 0;
            let to = Target { values: &mut *values, stride: to.stride, accumulate };
            product(tiles, [count, 2], operands, Steps::new(&at[..here]), to);
        }
        if rest > 0 {
            let (mut tail, mut panel) = ([0.0; BLOCK * SIDE], [0.0; SIDE * BLOCK]);
            for (row, tail) in tail.as_chunks_mut::<SIDE>().0.iter_mut().take(count * SIDE).enumerate() {
                tail[..rest].copy_from_slice(&left[row * stride + whole * SIDE..][..rest]);
            }
            panel[..rest * BLOCK].copy_from_slice(&right[whole * SIDE * BLOCK..]);
            let operands = [Operand::words(&tail, SIDE, SIDE * SIDE), Operand::words(&panel, BLOCK, SIDE)];
            let to = Target { values, stride: to.stride, accumulate: to.accumulate || whole > 0 };
            product(tiles, [count, 2], operands, Steps::new(&[[0; 2]]), to);
        }
        ahead.steps(words * (count * SIDE).div_ceil(rows_of_ahead));
        row += count * SIDE;
    }
    row
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn values(seed: u64, count: usize) -> Vec<f32> {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            // Two numbers of 16 bits of magnitudes that differ, some of them zero.
            let half = |bits: u64| match bits % 17 {
                0 => 0,
                scale => ((bits >> 8) as u32 & 0x807f) | (110 + scale as u32) << 7,
            };
            f32::from_bits(half(state >> 10) | half(state >> 37) << 16)
        };
        (0..count).map(|_| next()).collect()
    }

    proptest! {
        #[test]
        fn emulated_tiles_are_sums_of_products(seed: u64, rows in 1_usize..=2, columns in 1_usize..=2, depth in 1_usize..4, accumulate: bool) {
            let (left, right) = (values(seed, depth * BLOCK * SIDE), values(!seed, depth * SIDE * BLOCK));
            let at: Vec<_> = (0..depth).map(|step| [step * HALVES, step * 2 * SIDE * BLOCK]).collect();
            let operands =
                [Operand::words(&left, depth * SIDE, depth * SIDE * SIDE), Operand::words(&right, BLOCK, SIDE)];
            let mut got = vec![0.5; rows * SIDE * BLOCK];
            let to = Target { values: &mut got, stride: BLOCK, accumulate };
            product(&Tiles::new(Machine::Emulated), [rows, columns], operands, Steps::new(&at), to);
            let half = |half: u16| f64::from(f32::from_bits(u32::from(half) << 16));
            for row in 0..rows * SIDE {
                for column in 0..BLOCK {
                    let mut exact = if accumulate { 0.5 } else { 0.0 };
                    let mut size: f64 = exact;
                    for word in 0..depth * SIDE {
                        for part in 0..2 {
                            let a = half(halves(&left)[2 * (row * depth * SIDE + word) + part]);
                            let b = half(halves(&right)[2 * (word * BLOCK + column) + part]);
                            exact += a * b;
                            size += (a * b).abs();
                        }
                    }
                    let got = f64::from(got[row * BLOCK + column]);
                    if column < columns * SIDE {
                        prop_assert!((got - exact).abs() <= 1e-5 * size + 1e-30, "{row}, {column}: {got} for {exact}");
                    } else {
                        prop_assert_eq!(got, 0.5);
                    }
                }
            }
        }

        #[test]
        fn the_processor_and_the_emulation_give_the_same_bits(
            seed: u64, rows in 1_usize..=2, columns in 1_usize..=2, depth in 1_usize..5, skew in 0_usize..40, accumulate: bool,
        ) {
            if !available() {
                eprintln!("SKIPPED: this processor has no tiles; only their emulation was tested");
                return Ok(());
            }
            // Rows that lie anywhere, also at odd places.
            let (left, right) = (values(seed, depth * BLOCK * SIDE + 64), values(!seed, depth * SIDE * BLOCK + 64));
            let at: Vec<_> = (0..depth).map(|step| [step * HALVES + skew, step * 2 * SIDE * BLOCK]).collect();
            let operands =
                [Operand::words(&left, depth * SIDE, depth * SIDE * SIDE), Operand::words(&right[skew..], BLOCK, SIDE)];
            let got = [Machine::Native, Machine::Emulated].map(|machine| {
                let mut got = vec![0.5; rows * SIDE * BLOCK];
                let to = Target { values: &mut got, stride: BLOCK, accumulate };
                product(&Tiles::new(machine), [rows, columns], operands, Steps::new(&at), to);
                got.into_iter().map(f32::to_bits).collect::<Vec<_>>()
            });
            prop_assert_eq!(&got[0], &got[1]);
        }
    }

    #[test]
    fn operands_that_are_too_short_are_refused() {
        let (left, right) = (vec![0.0; BLOCK * SIDE], vec![0.0; SIDE * BLOCK]);
        let run = |left: &[f32], right: &[f32], sums: usize| {
            let operands = [Operand::words(left, SIDE, SIDE * SIDE), Operand::words(right, BLOCK, SIDE)];
            let mut sums = vec![0.0; sums];
            let to = Target { values: &mut sums, stride: BLOCK, accumulate: false };
            product(&Tiles::new(Machine::Emulated), [2, 2], operands, Steps::new(&[[0; 2]]), to);
        };
        run(&left, &right, BLOCK * BLOCK);
        for (l, r, sums) in [
            (left.len() - 1, right.len(), BLOCK * BLOCK),
            (left.len(), right.len() - 1, BLOCK * BLOCK),
            (left.len(), right.len(), BLOCK * BLOCK - 1),
        ] {
            assert!(std::panic::catch_unwind(|| run(&left[..l], &right[..r], sums)).is_err(), "{l}, {r}, {sums}");
        }
    }
}
