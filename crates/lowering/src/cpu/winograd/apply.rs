//! Forward convolutions and input gradients, some images a task.

use std::ops::Range;

use pulp::Simd;

use super::{
    super::{
        Plan,
        arithmetic::{self, Arithmetic, Compute},
        fusion::Epilogue,
        matrix::{Ahead, LINE, Target, Tile, row_tiles_ahead, with_tile},
        memory::{Memory, Slot},
        movement::chunk,
        program::{Kernel, Work},
        transpose::{Aligned, Square, transpose},
        vector::{self, load_sixteen, load_some},
    },
    Correlation, SIDE, channel_stride,
    tiles::{Destination, Images, Pairs, Values, data_of_channels},
    transform::{Filter, Outputs, Transform, columns},
    with_kernel,
};

/// Tiles that are transformed together: enough for the transformed weights to be read seldom, few enough for their values
/// to stay near.
const BLOCK: usize = 64;

/// Most channels that are summed in a row: shorter sums, added up, are more precise than one long one, and rounding of
/// these sums, magnified by the transform of the outputs, is most of the error of minimal filtering.
const DEPTH: usize = 128;

/// Output channels that a block's products are computed for at a time: few enough for the products to stay in the second-level cache until
/// they are transformed back.
const PASS: usize = 64;

/// Tiles, rows of a block are a multiple of this: of the rows of every register tile.
const ROWS: usize = 12;

/// Transformed weights [groups, passes, products, panels of a pass, words of from, columns of a panel] of a correlation.
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
        c.to.next_multiple_of(Tile::new().columns) * c.words(c.from)
    }
    /// Panels of a pass; the last may have fewer.
    fn panels(c: &Correlation, pass: usize) -> usize {
        (c.to - pass * PASS).min(PASS).div_ceil(Tile::new().columns)
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
        arithmetic::run(self.c.precision, TransformWeights { kernel: self, task, memory });
        vector::streamed();
    }
}

/// Parts of a group's input channels.
const PRODUCT_TASKS: usize = 8;

struct TransformWeights<'a> {
    kernel: &'a Weights,
    task: usize,
    memory: &'a Memory,
}

impl Compute for TransformWeights<'_> {
    type Output = ();
    #[inline(always)]
    fn compute<S: Simd, A: Arithmetic<S>>(self, simd: S, arithmetic: A) {
        match self.kernel.c.kernel {
            3 => weights::<S, A, 3, 6>(simd, arithmetic, &self),
            _ => weights::<S, A, 5, 8>(simd, arithmetic, &self),
        }
    }
}

#[inline(always)]
fn weights<S: Simd, A: Arithmetic<S>, const K: usize, const POINTS: usize>(
    simd: S,
    arithmetic: A,
    t: &TransformWeights,
) {
    let Weights { c, y, .. } = *t.kernel;
    let (group, part) = (t.task / PRODUCT_TASKS, t.task % PRODUCT_TASKS);
    let (lanes, width) = (S::F32_LANES, 2 * S::F32_LANES);
    let size = Weights::product(&c);
    let words = c.words(c.from);
    let past = vector::past_caches();
    let zeros = [[simd.splat_f32s(0.0); K]; POINTS];
    let (mut half, mut next) = (zeros, zeros);
    for word in chunk(part, words.div_ceil(PRODUCT_TASKS), words) {
        for first in (0..c.to.next_multiple_of(width)).step_by(lanes) {
            let input = if A::STEP == 1 { word } else { word / lanes * width + word % lanes };
            half_transformed(simd, t, (group, input, first), &mut half);
            if A::STEP == 2 {
                half_transformed(simd, t, (group, input + lanes, first), &mut next);
            }
            let (pass, panel) = (first / PASS, first % PASS / width);
            let panels = Weights::panels(&c, pass);
            let from = group * c.products() * size + c.products() * pass * PASS * words;
            for row in 0..POINTS {
                let mut products: [S::f32s; POINTS] = Filter::of(simd, half[row]);
                if A::STEP == 2 {
                    let next: [S::f32s; POINTS] = Filter::of(simd, next[row]);
                    for column in 0..POINTS {
                        products[column] = arithmetic.join(simd, [products[column], next[column]]);
                    }
                }
                for column in 0..POINTS {
                    let at = from + (((row * POINTS + column) * panels + panel) * words + word) * width + first % width;
                    t.memory.put(simd, y, at, products[column], 2 * width, past);
                }
            }
        }
    }
}

/// G g of the kernels from one input channel, zeros beyond the last, to a register of output channels.
#[inline(always)]
fn half_transformed<S: Simd, const K: usize, const POINTS: usize>(
    simd: S,
    t: &TransformWeights,
    (group, input, first): (usize, usize, usize),
    half: &mut [[S::f32s; K]; POINTS],
) {
    let Weights { c, w, transposed, .. } = *t.kernel;
    let source = &t.memory.read(w)[group * c.from * c.to * K * K..][..c.from * c.to * K * K];
    // Rows are channels, then taps.
    let mut taps: Aligned<[Square; 2]> = Aligned([[[0.0; 16]; 16]; 2]);
    let there = if input < c.from { S::F32_LANES.min(c.to.saturating_sub(first)) } else { 0 };
    for lane in 0..there {
        let output = first + lane;
        let index = if transposed { input * c.to + output } else { output * c.from + input };
        // What follows the kernel is read too, and not used.
        for (n, part) in taps.iter_mut().enumerate().take((K * K).div_ceil(16)) {
            load_sixteen(simd, source.get(index * K * K + n * 16..).unwrap_or(&[]), &mut part[lane]);
        }
    }
    for part in &mut taps[..(K * K).div_ceil(16)] {
        transpose(simd, part);
    }
    columns::<S, Filter, K, POINTS>(
        simd,
        #[inline(always)]
        |row, column| {
            let tap = row * K + column;
            let tap = if transposed { K * K - 1 - tap } else { tap };
            S::as_simd_f32s(&taps[tap / 16][tap % 16]).0[0]
        },
        half,
    );
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
    /// Distances between tiles, and between panels of a tile, of the products of a pass: a tile's lie together, so that their transform reads
    /// runs of lines, and tiles do not fall into the same sets of the cache.
    fn strides(&self) -> [usize; 2] {
        let width = Tile::new().columns;
        let panel = (self.c.products() + 1) * width;
        [PASS / width * panel, panel]
    }
    /// A group's padded channels of one sheet, `columns` at a time; then values of a block's tiles before the matrix products, and those of a
    /// pass after them.
    fn room(&self) -> [usize; 3] {
        let [h, w] = self.c.padded();
        let before = self.c.products() * self.block() * channel_stride(self.c.words(self.c.from));
        [h * w * Tile::new().columns, before, self.block() * self.strides()[0]]
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
        arithmetic::run(self.c.precision, ApplyTask { kernel: self, x, weights, bias, y: &mut *y, room: scratch });
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

impl Compute for ApplyTask<'_> {
    type Output = ();
    #[inline(always)]
    fn compute<S: Simd, A: Arithmetic<S>>(self, simd: S, arithmetic: A) {
        with_tile!(simd: S, arithmetic: A, apply(self));
    }
}

#[inline(always)]
fn apply<S: Simd, A: Arithmetic<S>, const M: usize, const N: usize>(simd: S, arithmetic: A, t: ApplyTask) {
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
                let (block, panel) = (kernel.block(), channel_stride(c.words(c.from)));
                let destination = Destination::Private(&mut *before);
                let mut values = Values { destination, block, panel, size: block * panel };
                data::<S, A, N>(simd, arithmetic, c, there, here.clone(), image, &mut values, done);
                done += here.len();
            }
            let weights = &weights[group * c.products() * size..][..c.products() * size];
            let bias = bias.map(|bias| &bias[group * c.to..][..c.to]);
            for pass in 0..c.to.div_ceil(PASS) {
                let weights = &weights[c.products() * pass * PASS * c.words(c.from)..];
                let panels = Weights::panels(c, pass);
                let channels = pass * PASS..c.to.min((pass + 1) * PASS);
                let to = [planes_of(c, block.clone(), group, channels.clone(), images)].map(|range| &y[range]);
                // Of a part of a sheet only some lines would be written.
                let to: &[&[f32]] = if block.len().is_multiple_of(c.per_sheet()) { &to } else { &[] };
                let steps = c.products() * panels * c.words(c.from).div_ceil(DEPTH);
                let mut ahead = Ahead::rows(to, channels.len() * c.oh * c.ow, output, steps);
                products::<S, A, M, N>(
                    simd,
                    arithmetic,
                    kernel,
                    (block.len(), panels),
                    weights,
                    before,
                    after,
                    &mut ahead,
                );
                let mut done = 0;
                for (sheet, here) in by_sheet(c, block.clone()) {
                    let first = sheet * c.per();
                    let planes = &mut y[first * output + group * c.to * c.oh * c.ow..];
                    let planes = (planes, c.per().min(images - first));
                    let channels = channels.clone();
                    with_kernel!(c, results::<S>(simd, kernel, here.clone(), channels, after, done, bias, planes));
                    done += here.len();
                }
            }
        }
    }
}

/// From the first image's planes of some channels to the last's, of the images that are there in the sheets of a block.
fn planes_of(
    c: &Correlation,
    block: Range<usize>,
    group: usize,
    channels: Range<usize>,
    images: usize,
) -> Range<usize> {
    let first = block.start / c.per_sheet() * c.per();
    let last = images.min(block.end.div_ceil(c.per_sheet()) * c.per()) - 1;
    let plane = |image, channel| ((image * c.groups + group) * c.to + channel) * c.oh * c.ow;
    plane(first, channels.start)..plane(last, channels.end)
}

/// Tiles of a run of sheets as (sheet, tiles of it).
fn by_sheet(c: &Correlation, tiles: Range<usize>) -> impl Iterator<Item = (usize, Range<usize>)> {
    let each = c.per_sheet();
    (tiles.start / each..tiles.end.div_ceil(each))
        .map(move |n| (n, tiles.start.max(n * each) - n * each..tiles.end.min((n + 1) * each) - n * each))
}

/// Transforms the tiles given of one sheet and group to `values`, from position `first` on.
#[expect(clippy::too_many_arguments, reason = "a sheet's parts and where they go")]
#[inline(always)]
fn data<S: Simd, A: Arithmetic<S>, const N: usize>(
    simd: S,
    arithmetic: A,
    c: &Correlation,
    images: Images,
    tiles: Range<usize>,
    image: &mut [f32],
    values: &mut Values,
    first: usize,
) {
    for channel in (0..c.from).step_by(N * S::F32_LANES) {
        macro_rules! channels {
            ($points:literal) => {{
                let tiles = tiles.clone();
                data_of_channels::<S, A, N, $points>(
                    simd,
                    arithmetic,
                    Pairs::Channels,
                    c,
                    images,
                    channel,
                    tiles,
                    image,
                    values,
                    first,
                );
            }};
        }
        match c.kernel {
            3 => channels!(6),
            _ => channels!(8),
        }
    }
}

/// after [tiles, panels of a pass, products, columns] = before [products, tiles, words of from] · weights [products, panels, words of from,
/// columns]; meanwhile asks for the panel of weights and the tiles that come next, and for the lines `to_write` that the results will go to,
/// which lie in memory.
#[expect(clippy::too_many_arguments, reason = "three matrices, their extents and what comes next")]
#[inline(always)]
fn products<S: Simd, A: Arithmetic<S>, const M: usize, const N: usize>(
    simd: S,
    arithmetic: A,
    kernel: &Apply,
    (tiles, panels): (usize, usize),
    weights: &[f32],
    before: &[f32],
    after: &mut [f32],
    to_write: &mut Ahead<true>,
) {
    let c = &kernel.c;
    let width = N * S::F32_LANES;
    let words = c.words(c.from);
    let from = channel_stride(words);
    let [stride, panel_stride] = kernel.strides();
    let depth = words.div_ceil(words.div_ceil(DEPTH));
    let size = kernel.block() * from;
    let part = (tiles * from).div_ceil(panels * words.div_ceil(depth)).next_multiple_of(LINE);
    let mut weights = weights;
    for (product, left) in before.chunks_exact(size).enumerate() {
        let mut next = before[(product + 1) % c.products() * size..][..tiles * from].chunks(part);
        for panel in 0..panels {
            for start in (0..words).step_by(depth) {
                to_write.steps(1);
                let right;
                (right, weights) = weights.split_at(depth.min(words - start) * width);
                let values = &mut after[panel * panel_stride + product * width..];
                let to = Target { values, stride, accumulate: start > 0 };
                let soon = [&weights[..right.len().min(weights.len())], next.next().unwrap_or_default()];
                // With AVX2 (measured on Emerald Rapids) asking for tiles costs more than it saves.
                let mut ahead = if S::F32_LANES == 16 { Ahead::lines(&soon) } else { Ahead::line(weights) };
                row_tiles_ahead::<S, A, M, N>(simd, arithmetic, (&left[start..], from), tiles, right, &mut ahead, to);
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

/// Transforms the products of some channels of one sheet's tiles back and writes the planes [to, oh, ow] of its images, of which so many are
/// there.
#[expect(clippy::too_many_arguments, reason = "a sheet's parts and where they go")]
#[inline(always)]
fn results<S: Simd, const K: usize, const POINTS: usize>(
    simd: S,
    kernel: &Apply,
    tiles: Range<usize>,
    channels: Range<usize>,
    after: &[f32],
    first: usize,
    bias: Option<&[f32]>,
    (planes, images): (&mut [f32], usize),
) {
    let c = &kernel.c;
    let [stride, panel_stride] = kernel.strides();
    let width = Tile::new().columns;
    let mut half = [[simd.splat_f32s(0.0); POINTS]; SIDE];
    for panel in channels.clone().step_by(width) {
        for (position, tile) in tiles.clone().enumerate() {
            for channel in (panel..channels.end.min(panel + width)).step_by(S::F32_LANES) {
                let lanes = S::F32_LANES.min(channels.end - channel);
                let bias = load_some(simd, bias.map_or(&[], |bias| &bias[channel..][..lanes]));
                let at = (panel - channels.start) / width * panel_stride + channel - panel;
                let products = &after[(first + position) * stride + at..];
                columns::<S, Outputs, POINTS, SIDE>(
                    simd,
                    #[inline(always)]
                    |row, column| S::as_simd_f32s(&products[(row * POINTS + column) * width..][..S::F32_LANES]).0[0],
                    &mut half,
                );
                // Rows are pixels, then channels.
                let mut values: Aligned<Square> = Aligned([[0.0; 16]; SIDE * SIDE]);
                for row in 0..SIDE {
                    let outputs: [S::f32s; SIDE] = Outputs::of(simd, half[row]);
                    for column in 0..SIDE {
                        let to = &mut values[row * SIDE + column];
                        S::as_mut_simd_f32s(to).0[0] = simd.add_f32s(outputs[column], bias);
                    }
                }
                transpose(simd, &mut values);
                put(c, tile, channel, &values[..lanes], (&mut *planes, images));
            }
        }
    }
}

/// Writes some channels of a tile's outputs [channels, pixels] to the planes of its images.
#[inline(always)]
fn put(c: &Correlation, tile: usize, channel: usize, values: &[[f32; 16]], (planes, images): (&mut [f32], usize)) {
    let (plane, output, across) = (c.oh * c.ow, c.groups * c.to * c.oh * c.ow, c.tiles()[1]);
    let (period, y, x) = (c.period(), tile / across * SIDE, tile % across * SIDE);
    for (top, down, y, height) in parts(y, period[0], c.oh, c.sheet) {
        for (left, right, x, width) in parts(x, period[1], c.ow, c.sheet) {
            let image = down * c.sheet + right;
            if height == 0 || width == 0 || image >= images {
                continue;
            }
            let corner = image * output + channel * plane + y * c.ow + x;
            for (lane, values) in values.iter().enumerate() {
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
