//! Forward convolutions and input gradients, some images a task.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::{
    super::{
        Plan,
        fusion::Epilogue,
        matrix::{Target, Tile, row_tiles_ahead, with_tile},
        memory::{Memory, Slot},
        movement::chunk,
        program::{Kernel, Work},
        transpose::{Square, transpose},
        vector,
    },
    Correlation, SIDE, channel_stride,
    tiles::{Destination, Images, Values, data_of_channels},
    transform::{self, both_ways},
    with_kernel,
};

/// Tiles that are transformed together: enough for the transformed weights to be read seldom, few enough for their values
/// to stay near.
const BLOCK: usize = 64;

/// Most channels that are summed in a row: shorter sums, added up, are more precise than one long one, and rounding of
/// these sums, magnified by the transform of the outputs, is most of the error of minimal filtering.
const DEPTH: usize = 128;

/// Tiles, rows of a block are a multiple of this: of the rows of every register tile.
const ROWS: usize = 12;

/// Transformed weights [groups, products, panels, from, columns of a panel] of a correlation.
struct Weights {
    c: Correlation,
    /// Weights as they stand: [O, C/g, k, k].
    w: Slot,
    y: Slot,
    /// Whether inputs and outputs change roles and kernels turn around, as gradients of inputs want.
    transposed: bool,
}

impl Weights {
    /// Values of one product of one group.
    fn product(c: &Correlation) -> usize {
        c.to.next_multiple_of(Tile::new().columns) * c.from
    }
}

impl Kernel for Weights {
    fn name(&self) -> &'static str {
        "winograd weights"
    }
    fn tasks(&self) -> usize {
        self.c.groups * PRODUCT_TASKS
    }
    fn run(&self, task: usize, memory: &Memory, _: &mut [f32]) {
        vector::run(TransformWeights { kernel: self, task, memory });
    }
}

/// Parts of a group's input channels.
const PRODUCT_TASKS: usize = 8;

struct TransformWeights<'a> {
    kernel: &'a Weights,
    task: usize,
    memory: &'a Memory,
}

impl WithSimd for TransformWeights<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        with_kernel!(self.kernel.c, weights::<S>(simd, &self));
    }
}

#[inline(always)]
fn weights<S: Simd, const K: usize, const POINTS: usize>(simd: S, t: &TransformWeights) {
    let Weights { c, w, y, transposed } = *t.kernel;
    let (group, part) = (t.task / PRODUCT_TASKS, t.task % PRODUCT_TASKS);
    let source = &t.memory.read(w)[group * c.from * c.to * K * K..][..c.from * c.to * K * K];
    let width = 2 * S::F32_LANES;
    let size = Weights::product(&c);
    let inputs = chunk(part, c.from.div_ceil(PRODUCT_TASKS), c.from);
    for input in inputs {
        for first in (0..c.to.next_multiple_of(width)).step_by(S::F32_LANES) {
            // Rows are channels, then taps.
            let mut taps: [Square; 2] = [[[0.0; 16]; 16]; 2];
            for lane in 0..S::F32_LANES.min(c.to.saturating_sub(first)) {
                let output = first + lane;
                let index = if transposed { input * c.to + output } else { output * c.from + input };
                let kernel = &source[index * K * K..][..K * K];
                for (part, kernel) in taps.iter_mut().zip(kernel.chunks(16)) {
                    part[lane][..kernel.len()].copy_from_slice(kernel);
                }
            }
            for part in &mut taps[..(K * K).div_ceil(16)] {
                transpose(simd, part);
            }
            let mut square = [[simd.splat_f32s(0.0); K]; K];
            for (tap, to) in square.as_flattened_mut().iter_mut().enumerate() {
                let tap = if transposed { K * K - 1 - tap } else { tap };
                *to = S::as_simd_f32s(&taps[tap / 16][tap % 16]).0[0];
            }
            let products = both_ways!(simd, square, K, POINTS, transform::filter::<S, K, POINTS>);
            let at = (first / width * c.from + input) * width + first % width;
            for (i, &product) in products.as_flattened().iter().enumerate() {
                let at = (group * c.products() + i) * size + at;
                let to = t.memory.write(y, at..at + S::F32_LANES);
                S::as_mut_simd_f32s(to).0[0] = product;
            }
        }
    }
}

/// Applies transformed weights.
struct Apply {
    name: &'static str,
    c: Correlation,
    x: Slot,
    weights: Slot,
    bias: Option<Slot>,
    y: Slot,
    epilogue: Epilogue,
}

impl Apply {
    /// Sheets of a task: of four images, or fewer where a batch would make too few tasks. A function of the shapes alone.
    fn sheets(&self) -> usize {
        ((self.c.images / 8).clamp(1, 4) / self.c.per()).max(1)
    }
    /// Tiles of a block: equal parts of a task's.
    fn block(&self) -> usize {
        let total = self.sheets() * self.c.per_sheet();
        total.div_ceil(total.div_ceil(BLOCK)).next_multiple_of(ROWS)
    }
    /// A group's padded channels of one sheet, `columns` at a time; then values of a block's tiles before and after the
    /// matrix products.
    fn room(&self) -> [usize; 3] {
        let [h, w] = self.c.padded();
        let values = |channels| self.c.products() * self.block() * channel_stride(channels);
        [h * w * Tile::new().columns, values(self.c.from), values(self.c.to)]
    }
}

impl Kernel for Apply {
    fn name(&self) -> &'static str {
        self.name
    }
    fn work(&self) -> Work {
        self.c.work()
    }
    fn tasks(&self) -> usize {
        self.c.sheets().div_ceil(self.sheets())
    }
    fn scratch(&self) -> usize {
        self.room().iter().sum()
    }
    fn run(&self, task: usize, memory: &Memory, scratch: &mut [f32]) {
        let images = chunk(task, self.sheets() * self.c.per(), self.c.images);
        let size = self.c.groups * self.c.to * self.c.oh * self.c.ow;
        let range = images.start * size..images.end * size;
        let y = memory.write(self.y, range.clone());
        let input = self.c.groups * self.c.from * self.c.h * self.c.w;
        let x = &memory.read(self.x)[images.start * input..images.end * input];
        let weights = memory.read(self.weights);
        let bias = self.bias.map(|bias| memory.read(bias));
        vector::run(ApplyTask { kernel: self, x, weights, bias, y: &mut *y, room: scratch });
        self.epilogue.apply(memory, y, range.start);
    }
}

struct ApplyTask<'a> {
    kernel: &'a Apply,
    x: &'a [f32],
    weights: &'a [f32],
    bias: Option<&'a [f32]>,
    y: &'a mut [f32],
    room: &'a mut [f32],
}

impl WithSimd for ApplyTask<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        with_tile!(simd: S, apply(self));
    }
}

#[inline(always)]
fn apply<S: Simd, const M: usize, const N: usize>(simd: S, t: ApplyTask) {
    let ApplyTask { kernel, x, weights, bias, y, room } = t;
    let c = &kernel.c;
    let [image_room, before_room, after_room] = kernel.room();
    let (image, room) = room.split_at_mut(image_room);
    let (before, after) = room[..before_room + after_room].split_at_mut(before_room);
    let input = c.groups * c.from * c.h * c.w;
    let output = c.groups * c.to * c.oh * c.ow;
    let images = x.len() / input;
    let tiles = images.div_ceil(c.per()) * c.per_sheet();
    let size = Weights::product(c);
    for start in (0..tiles).step_by(kernel.block()) {
        let block = start..(start + kernel.block()).min(tiles);
        for group in 0..c.groups {
            let mut done = 0;
            for (sheet, here) in by_sheet(c, block.clone()) {
                let first = sheet * c.per();
                let planes = &x[first * input + group * c.from * c.h * c.w..];
                let there = Images { planes, count: c.per().min(images - first), stride: input };
                let mut values = Values {
                    destination: Destination::Private(&mut *before),
                    block: kernel.block(),
                    stride: channel_stride(c.from),
                };
                data::<S, N>(simd, c, there, here.clone(), image, &mut values, done);
                done += here.len();
            }
            let weights = &weights[group * c.products() * size..][..c.products() * size];
            products::<S, M, N>(simd, kernel, block.len(), weights, before, after);
            let bias = bias.map(|bias| &bias[group * c.to..][..c.to]);
            let mut done = 0;
            for (sheet, here) in by_sheet(c, block.clone()) {
                let first = sheet * c.per();
                let planes = &mut y[first * output + group * c.to * c.oh * c.ow..];
                let planes = (planes, c.per().min(images - first));
                with_kernel!(c, results::<S>(simd, kernel, here.clone(), after, done, bias, planes));
                done += here.len();
            }
        }
    }
}

/// Tiles of a run of sheets as (sheet, tiles of it).
fn by_sheet(c: &Correlation, tiles: Range<usize>) -> impl Iterator<Item = (usize, Range<usize>)> {
    let each = c.per_sheet();
    (tiles.start / each..tiles.end.div_ceil(each))
        .map(move |n| (n, tiles.start.max(n * each) - n * each..tiles.end.min((n + 1) * each) - n * each))
}

/// Transforms the tiles given of one sheet and group to `values`, from position `first` on.
#[inline(always)]
fn data<S: Simd, const N: usize>(
    simd: S,
    c: &Correlation,
    images: Images,
    tiles: Range<usize>,
    image: &mut [f32],
    values: &mut Values,
    first: usize,
) {
    for channel in (0..c.from).step_by(N * S::F32_LANES) {
        match c.kernel {
            3 => data_of_channels::<S, N, 6>(simd, c, images, channel, tiles.clone(), image, values, first),
            _ => data_of_channels::<S, N, 8>(simd, c, images, channel, tiles.clone(), image, values, first),
        }
    }
}

/// after [products, tiles, to] = before [products, tiles, from] · weights [products, panels, from, columns].
#[inline(always)]
fn products<S: Simd, const M: usize, const N: usize>(
    simd: S,
    kernel: &Apply,
    tiles: usize,
    weights: &[f32],
    before: &[f32],
    after: &mut [f32],
) {
    let c = &kernel.c;
    let width = N * S::F32_LANES;
    let (from, to) = (channel_stride(c.from), channel_stride(c.to));
    let depth = c.from.div_ceil(c.from.div_ceil(DEPTH));
    let left = before.chunks_exact(kernel.block() * from);
    let results = after.chunks_exact_mut(kernel.block() * to);
    let mut weights = weights;
    for (left, results) in left.zip(results) {
        for panel in (0..c.to).step_by(width) {
            for start in (0..c.from).step_by(depth) {
                let right;
                (right, weights) = weights.split_at(depth.min(c.from - start) * width);
                let to = Target { values: &mut results[panel..], stride: to, accumulate: start > 0 };
                row_tiles_ahead::<S, M, N>(simd, (&left[start..], from), tiles, right, weights, to);
            }
        }
    }
}

/// Where a tile's outputs go, down or across: (the first of them, image of the sheet, place in it, how many) for at most two
/// images, without what falls between or behind them.
#[inline(always)]
fn parts(from: usize, period: usize, extent: usize, sheet: usize) -> [(usize, usize, usize, usize); 2] {
    let (image, place) = (from / period, from % period);
    let here = if image < sheet { extent.saturating_sub(place).min(SIDE) } else { 0 };
    let skipped = period - place;
    let beyond = if image + 1 < sheet { SIDE.saturating_sub(skipped) } else { 0 };
    [(0, image, place, here), (skipped, image + 1, 0, beyond)]
}

/// Transforms the products of one sheet's tiles back and writes the planes [to, oh, ow] of its images, of which so many are
/// there.
#[inline(always)]
fn results<S: Simd, const K: usize, const POINTS: usize>(
    simd: S,
    kernel: &Apply,
    tiles: Range<usize>,
    after: &[f32],
    first: usize,
    bias: Option<&[f32]>,
    (planes, images): (&mut [f32], usize),
) {
    let c = &kernel.c;
    let (stride, across) = (channel_stride(c.to), c.tiles()[1]);
    let (plane, block, output) = (c.oh * c.ow, kernel.block(), c.groups * c.to * c.oh * c.ow);
    let period = c.period();
    for channel in (0..c.to).step_by(S::F32_LANES) {
        let lanes = S::F32_LANES.min(c.to - channel);
        let mut biases = [0.0; 16];
        if let Some(bias) = bias {
            biases[..lanes].copy_from_slice(&bias[channel..][..lanes]);
        }
        let bias = S::as_simd_f32s(&biases).0[0];
        for (position, tile) in tiles.clone().enumerate() {
            let at = (first + position) * stride + channel;
            let mut square = [[simd.splat_f32s(0.0); POINTS]; POINTS];
            for (product, value) in square.as_flattened_mut().iter_mut().enumerate() {
                *value = S::as_simd_f32s(&after[product * block * stride + at..][..S::F32_LANES]).0[0];
            }
            let square = both_ways!(simd, square, POINTS, SIDE, transform::outputs::<S, SIDE, POINTS>);
            // Rows are pixels, then channels.
            let mut values: Square = [[0.0; 16]; SIDE * SIDE];
            for (to, from) in values.iter_mut().zip(square.as_flattened()) {
                S::as_mut_simd_f32s(to).0[0] = simd.add_f32s(*from, bias);
            }
            transpose(simd, &mut values);
            let (y, x) = (tile / across * SIDE, tile % across * SIDE);
            for (top, down, y, height) in parts(y, period[0], c.oh, c.sheet) {
                for (left, right, x, width) in parts(x, period[1], c.ow, c.sheet) {
                    let image = down * c.sheet + right;
                    if height == 0 || width == 0 || image >= images {
                        continue;
                    }
                    let corner = image * output + channel * plane + y * c.ow + x;
                    for (lane, values) in values.iter().enumerate().take(lanes) {
                        let lines = values.as_chunks::<SIDE>().0;
                        for (row, values) in lines[top..top + height].iter().enumerate() {
                            let to = &mut planes[corner + lane * plane + row * c.ow..][..width];
                            match to.first_chunk_mut::<SIDE>() {
                                Some(to) => *to = *values,
                                None => to.iter_mut().zip(&values[left..]).for_each(|(to, value)| *to = *value),
                            }
                        }
                    }
                }
            }
        }
    }
}

fn push(
    plan: &mut Plan,
    name: &'static str,
    c: Correlation,
    (x, w, bias): (Slot, Slot, Option<Slot>),
    transposed: bool,
    y: Slot,
    epilogue: Epilogue,
) {
    let weights = plan.temporary(c.groups * c.products() * Weights::product(&c));
    plan.push(Weights { c, w, y: weights, transposed }, &[w, weights]);
    let touches: Vec<Slot> = [x, weights, y].into_iter().chain(bias).chain(epilogue.slots()).collect();
    plan.push(Apply { name, c, x, weights, bias, y, epilogue }, &touches);
}

/// x = [x, w, b].
pub(in super::super) fn forward(plan: &mut Plan, c: Correlation, x: &[Slot], y: Slot, epilogue: Epilogue) {
    push(plan, "winograd convolution", c, (x[0], x[1], Some(x[2])), false, y, epilogue);
}

/// x = [w, dy]; `c` is the forward correlation.
pub(in super::super) fn input_grad(plan: &mut Plan, c: Correlation, x: &[Slot], dx: Slot, epilogue: Epilogue) {
    push(plan, "winograd input gradient", c.backward(), (x[1], x[0], None), true, dx, epilogue);
}
