//! Weight gradients: a filter as large as a tile of output gradients slides over the tile of inputs, so that the products of
//! all tiles are summed before they are transformed back once.
//!
//! Sheets are taken some at a time: their tiles are transformed, then each of their products adds a matrix product over
//! tiles to its sums. The order of these additions is fixed by the shapes.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::{
    super::{
        Plan,
        arithmetic::{self, Arithmetic, Compute},
        matrix::{Ahead, Sums, Tile, with_tile},
        memory::{Memory, Slot},
        movement::chunk,
        program::{Kernel, Work},
        transpose::{Aligned, Square, transpose},
        vector::{self, past_caches, store_sixteen},
    },
    Correlation,
    tiles::{Destination, Images, Pairs, Values, data_of_channels, gradients_of_channels},
    transform::{Outputs, Transform, columns},
};

/// Words of tiles that a matrix product sums over, about: many, since each product reads and writes all sums.
const DEPTH: usize = 400;

#[derive(Clone, Copy)]
struct Extents {
    c: Correlation,
    /// Words of the tiles of a sheet.
    words: usize,
    /// Sheets that are taken at a time.
    sheets: usize,
}

impl Extents {
    fn new(c: Correlation) -> Self {
        let words = c.per_sheet().div_ceil(c.precision.step());
        // Equal parts of the batch.
        let parts = c.sheets().div_ceil(DEPTH.div_ceil(words));
        Self { c, words, sheets: c.sheets().div_ceil(parts) }
    }
    /// Words of the sheets that are taken at a time.
    fn block(&self) -> usize {
        self.sheets * self.words
    }
    /// Channels of a panel of inputs, and of output gradients: those of a register tile's columns, and of four times its rows, which are whole
    /// registers. What a register tile reads is so one after the other in memory.
    fn panels(&self) -> [usize; 2] {
        let Tile { rows, columns } = Tile::new();
        [columns, 4 * rows]
    }
    /// Transformed values of one product of one group, of inputs and of output gradients.
    fn values(&self) -> [usize; 2] {
        let [x, dy] = self.panels();
        // Two registers of channels are transformed at a time.
        let [from, to] = [self.c.from, self.c.to].map(|channels| channels.next_multiple_of(x));
        [from, to.next_multiple_of(dy)].map(|channels| self.block() * channels)
    }
    /// Sums of one product of one group.
    fn sums(&self) -> usize {
        let Tile { rows, columns } = Tile::new();
        self.c.to.next_multiple_of(rows) * self.c.from.next_multiple_of(columns)
    }
}

/// Transforms the tiles of some sheets: inputs and output gradients, some channels of one sheet a task.
struct TransformTiles {
    e: Extents,
    sheets: Range<usize>,
    x: Slot,
    dy: Slot,
    /// [groups, products, panels, tiles, channels of a panel].
    inputs: Slot,
    gradients: Slot,
}

impl TransformTiles {
    /// Tasks for the inputs and for the gradients of one sheet and group.
    fn panels(&self) -> [usize; 2] {
        [self.e.c.from, self.e.c.to].map(|channels| channels.div_ceil(Tile::new().columns))
    }
}

impl Kernel for TransformTiles {
    fn name(&self) -> &'static str {
        "winograd gradient tiles"
    }
    fn tasks(&self) -> usize {
        self.sheets.len() * self.e.c.groups * self.panels().iter().sum::<usize>()
    }
    fn scratch(&self) -> usize {
        let [h, w] = self.e.c.padded();
        h * w * Tile::new().columns
    }
    fn run(&self, task: usize, memory: &Memory, scratch: &mut [f32]) {
        arithmetic::run(self.e.c.precision, TransformTask { kernel: self, task, memory, image: scratch });
        vector::streamed();
    }
}

struct TransformTask<'a> {
    kernel: &'a TransformTiles,
    task: usize,
    memory: &'a Memory,
    image: &'a mut [f32],
}

impl Compute for TransformTask<'_> {
    type Output = ();
    #[inline(always)]
    fn compute<S: Simd, A: Arithmetic<S>>(self, simd: S, arithmetic: A) {
        let Self { kernel, task, memory, image } = self;
        let c = &kernel.e.c;
        let [inputs, gradients] = kernel.panels();
        let (outer, panel) = (task / (inputs + gradients), task % (inputs + gradients));
        let (position, group) = (outer / c.groups, outer % c.groups);
        let first = (kernel.sheets.start + position) * c.per();
        let is_input = panel < inputs;
        let (slot, target, channels, pixels) = if is_input {
            (kernel.x, kernel.inputs, c.from, c.h * c.w)
        } else {
            (kernel.dy, kernel.gradients, c.to, c.oh * c.ow)
        };
        let planes = &memory.read(slot)[(first * c.groups + group) * channels * pixels..];
        let (count, stride) = (c.per().min(c.images - first), c.groups * channels * pixels);
        let images = Images { planes, count, stride };
        let block = kernel.e.block();
        let which = usize::from(!is_input);
        let (panel_width, size) = (kernel.e.panels()[which], kernel.e.values()[which]);
        let channel = if is_input { panel } else { panel - inputs } * 2 * S::F32_LANES;
        let from = group * c.products() * size;
        let destination = Destination::Shared { memory, slot: target, from, past: past_caches() };
        let mut values = Values { destination, block, panel: panel_width, size };
        let first = position * kernel.e.words;
        macro_rules! inputs {
            ($points:literal) => {{
                let tiles = 0..c.per_sheet();
                data_of_channels::<S, A, 2, $points>(
                    simd,
                    arithmetic,
                    Pairs::Tiles,
                    c,
                    images,
                    channel,
                    tiles,
                    image,
                    &mut values,
                    first,
                );
            }};
        }
        macro_rules! gradients {
            ($points:literal) => {
                gradients_of_channels::<S, A, 2, $points>(
                    simd,
                    arithmetic,
                    c,
                    images,
                    channel,
                    image,
                    &mut values,
                    first,
                )
            };
        }
        match (is_input, c.kernel) {
            (true, 3) => inputs!(6),
            (true, _) => inputs!(8),
            (false, 3) => gradients!(6),
            (false, _) => gradients!(8),
        }
    }
}

/// Adds the products of the tiles at hand to their sums [groups, products, panels of rows, panels of columns, rows, columns]: rows are
/// output channels, columns input channels. One of the products of a group a task.
struct Accumulate {
    e: Extents,
    /// Sheets of this time; the last may be fewer.
    sheets: usize,
    inputs: Slot,
    gradients: Slot,
    sums: Slot,
    first: bool,
}

impl Kernel for Accumulate {
    fn name(&self) -> &'static str {
        "winograd weight gradient"
    }
    fn work(&self) -> Work {
        let work = self.e.c.work();
        let share = self.sheets as f64 / self.e.c.sheets() as f64;
        Work { defined_flop: work.defined_flop * share, done_flop: work.done_flop * share }
    }
    fn tasks(&self) -> usize {
        self.e.c.groups * self.e.c.products()
    }
    fn run(&self, task: usize, memory: &Memory, _: &mut [f32]) {
        let [inputs, gradients] = self.e.values();
        let size = self.e.sums();
        let task = AccumulateTask {
            kernel: self,
            x: &memory.read(self.inputs)[task * inputs..][..inputs],
            dy: &memory.read(self.gradients)[task * gradients..][..gradients],
            sums: memory.write(self.sums, task * size..(task + 1) * size),
        };
        arithmetic::run(self.e.c.precision, task);
    }
}

struct AccumulateTask<'a> {
    kernel: &'a Accumulate,
    x: &'a [f32],
    dy: &'a [f32],
    sums: &'a mut [f32],
}

impl Compute for AccumulateTask<'_> {
    type Output = ();
    #[inline(always)]
    fn compute<S: Simd, A: Arithmetic<S>>(self, simd: S, arithmetic: A) {
        with_tile!(simd: S, arithmetic: A, accumulate(self));
    }
}

#[inline(always)]
fn accumulate<S: Simd, A: Arithmetic<S>, const M: usize, const N: usize>(simd: S, arithmetic: A, t: AccumulateTask) {
    let AccumulateTask { kernel, x, dy, sums } = t;
    let c = &kernel.e.c;
    let width = N * S::F32_LANES;
    let words = kernel.sheets * kernel.e.words;
    let block = kernel.e.block();
    let columns = c.from.div_ceil(width);
    let (rows, panel) = (c.to.div_ceil(M), block * 4 * M);
    for column in 0..columns {
        let (x, others) = x[column * block * width..].split_at(block * width);
        let mut ahead = Ahead::<false>::NOTHING;
        let right = S::as_simd_f32s(&x[..words * width]).0.as_chunks::<N>().0;
        for row in 0..rows {
            let (left, below) = dy[row / 4 * panel..].split_at(panel);
            let left = &left[..words * 4 * M];
            if row % 4 == 0 {
                // The first time all gradients come from memory, then from the second-level cache.
                ahead = match (row + 4 < rows, column) {
                    (true, 0) => Ahead::line(&below[..words * 4 * M]),
                    (false, _) if column + 1 < columns => Ahead::line(&others[..words * width]),
                    _ => Ahead::NOTHING,
                };
            }
            let mut next = ahead;
            let mut tile: Sums<S, M, N> = [[simd.splat_f32s(0.0); N]; M];
            for (left, right) in left.chunks_exact(4 * M).zip(right) {
                let left = &left[row % 4 * M..][..M];
                next.step();
                for i in 0..M {
                    let value = simd.splat_f32s(left[i]);
                    for n in 0..N {
                        tile[i][n] = arithmetic.step(simd, value, right[n], tile[i][n]);
                    }
                }
            }
            ahead = next;
            let to = &mut sums[(row * columns + column) * M * width..][..M * width];
            let to = S::as_mut_simd_f32s(to).0;
            for (to, &sum) in to.iter_mut().zip(tile.as_flattened()) {
                *to = if kernel.first { sum } else { simd.add_f32s(*to, sum) };
            }
        }
    }
}

/// Transforms sums back to gradients [O, C/g, k, k]; some output channels a task.
struct Finish {
    e: Extents,
    sums: Slot,
    dw: Slot,
}

impl Finish {
    /// Tasks of a group: as many output channels each as a register tile has rows.
    fn panels(&self) -> usize {
        self.e.c.to.div_ceil(Tile::new().rows)
    }
}

impl Kernel for Finish {
    fn name(&self) -> &'static str {
        "winograd weight gradient sums"
    }
    fn tasks(&self) -> usize {
        self.e.c.groups * self.panels()
    }
    fn run(&self, task: usize, memory: &Memory, _: &mut [f32]) {
        let c = &self.e.c;
        let (group, panel) = (task / self.panels(), task % self.panels());
        let size = c.products() * self.e.sums();
        let sums = &memory.read(self.sums)[group * size..][..size];
        let rows = chunk(panel, Tile::new().rows, c.to);
        let each = c.from * c.kernel * c.kernel;
        let dw = memory.write(self.dw, (group * c.to + rows.start) * each..(group * c.to + rows.end) * each);
        vector::run(FinishTask { e: &self.e, sums, rows, dw });
    }
}

struct FinishTask<'a> {
    e: &'a Extents,
    sums: &'a [f32],
    rows: Range<usize>,
    dw: &'a mut [f32],
}

impl WithSimd for FinishTask<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match self.e.c.kernel {
            3 => with_tile!(simd: S, finish3(self)),
            _ => with_tile!(simd: S, finish5(self)),
        }
    }
}

#[inline(always)]
fn finish3<S: Simd, const M: usize, const N: usize>(simd: S, t: FinishTask) {
    finish::<S, M, N, 3, 6>(simd, t);
}

#[inline(always)]
fn finish5<S: Simd, const M: usize, const N: usize>(simd: S, t: FinishTask) {
    finish::<S, M, N, 5, 8>(simd, t);
}

#[inline(always)]
fn finish<S: Simd, const M: usize, const N: usize, const K: usize, const POINTS: usize>(simd: S, t: FinishTask) {
    let c = &t.e.c;
    let width = N * S::F32_LANES;
    let panels = c.from.div_ceil(width);
    let size = t.e.sums();
    let mut half = [[simd.splat_f32s(0.0); POINTS]; K];
    for (row, dw) in t.rows.clone().zip(t.dw.chunks_exact_mut(c.from * K * K)) {
        for channel in (0..c.from).step_by(S::F32_LANES) {
            let at = ((row / M * panels + channel / width) * M + row % M) * width + channel % width;
            columns::<S, Outputs, POINTS, K>(
                simd,
                #[inline(always)]
                |row, column| S::as_simd_f32s(&t.sums[(row * POINTS + column) * size + at..][..S::F32_LANES]).0[0],
                &mut half,
            );
            // Rows are taps, then channels.
            let mut values: Aligned<[Square; 2]> = Aligned([[[0.0; 16]; 16]; 2]);
            for row in 0..K {
                let taps: [S::f32s; K] = Outputs::of(simd, half[row]);
                for column in 0..K {
                    let to = &mut values.as_flattened_mut()[row * K + column];
                    S::as_mut_simd_f32s(to).0[0] = taps[column];
                }
            }
            for part in &mut values[..(K * K).div_ceil(16)] {
                transpose(simd, part);
            }
            // What is written behind a kernel is overwritten by the next.
            for lane in 0..S::F32_LANES.min(c.from - channel) {
                for (n, part) in values.iter().enumerate().take((K * K).div_ceil(16)) {
                    if let Some(to) = dw.get_mut((channel + lane) * K * K + n * 16..) {
                        store_sixteen(simd, &part[lane], to);
                    }
                }
            }
        }
    }
}

/// x = [x, dy].
pub(in super::super) fn weight_grad(plan: &mut Plan, c: Correlation, x: &[Slot], dw: Slot) {
    let e = Extents::new(c);
    let [inputs, gradients] = e.values().map(|values| c.groups * c.products() * values);
    let (inputs, gradients) = (plan.temporary(inputs), plan.temporary(gradients));
    let sums = plan.temporary(c.groups * c.products() * e.sums());
    for start in (0..c.sheets()).step_by(e.sheets) {
        let sheets = start..(start + e.sheets).min(c.sheets());
        let count = sheets.len();
        let touches = [x[0], x[1], inputs, gradients];
        plan.push(TransformTiles { e, sheets, x: x[0], dy: x[1], inputs, gradients }, &touches);
        let touches = [inputs, gradients, sums];
        plan.push(Accumulate { e, sheets: count, inputs, gradients, sums, first: start == 0 }, &touches);
    }
    plan.push(Finish { e, sums, dw }, &[sums, dw]);
}
