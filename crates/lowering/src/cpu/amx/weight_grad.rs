//! Weight gradients of convolutions: the depth of the product are the outputs of all images. Images lie as rows of pixels (see `layout`), which
//! taps read from their own places on; output gradients are turned once, so that two pixels of a channel are a word, and
//! channels columns.

use std::ops::Range;

use pulp::Simd;

use super::{
    super::{
        Plan,
        arithmetic::{self, Arithmetic, Compute},
        convolution::Extents,
        matrix::Target,
        memory::{Memory, Slot},
        movement::chunk,
        program::{Kernel, Work},
        transpose::{Aligned, Square, transpose},
        vector::{load_sixteen, prefetch, store_sixteen},
    },
    BLOCK, HALVES, Operand, SIDE, Steps, Tiles, copies, halves, halves_mut,
    layout::{Correlation, Rows},
    product,
};
use crate::Precision;

/// Tasks of a layer that are enough for most machines. Fewer, of more output channels each, read images' rows less often.
const TASKS: usize = 12;
/// Values of a cache line.
const LINE: usize = 16;
/// Most steps of the depth that all taps take before the next ones: both operands stay in the first-level cache meanwhile.
const NEAR: usize = 8;

/// Copies of images [images, groups, rows] and of output gradients [groups, blocks of channels, images, words of places, channels] in 16 bits.
struct Turn {
    rows: Rows,
    x: Slot,
    dy: Slot,
    images: Slot,
    gradients: Slot,
}

impl Turn {
    /// Blocks of output channels, each a task for each image.
    fn blocks(&self) -> usize {
        self.rows.c.to.div_ceil(BLOCK)
    }
    /// Words of a block of channels of an image.
    fn words(rows: &Rows) -> usize {
        rows.positions() / 2 * BLOCK
    }
}

impl Kernel for Turn {
    fn name(&self) -> &'static str {
        "rows of tiles"
    }
    fn tasks(&self) -> usize {
        self.rows.c.images * self.rows.c.groups * (1 + self.blocks())
    }
    fn scratch(&self) -> usize {
        room(&self.rows).iter().sum()
    }
    fn run(&self, task: usize, memory: &Memory, scratch: &mut [f32]) {
        let Rows { c, image, .. } = &self.rows;
        let (position, part) = (task / (1 + self.blocks()), task % (1 + self.blocks()));
        let [line, words] = room(&self.rows);
        let (line, room) = scratch.split_at_mut(line);
        if part == 0 {
            let x = &memory.read(self.x)[position * c.input()..][..c.input()];
            let size = image / 2;
            let to = memory.write(self.images, position * size..(position + 1) * size);
            return arithmetic::run(Precision::Bf16, FillRows { rows: &self.rows, x, room: line, to });
        }
        let (image, group) = (position / c.groups, position % c.groups);
        let block = part - 1;
        let pixels = c.y[0] * c.y[1];
        let channels = chunk(block, BLOCK, c.to);
        let dy = &memory.read(self.dy)[position * c.output()..][channels.start * pixels..channels.end * pixels];
        let size = Self::words(&self.rows);
        let from = ((group * self.blocks() + block) * c.images + image) * size;
        let to = memory.write(self.gradients, from..from + size);
        arithmetic::run(
            Precision::Bf16,
            TurnGradients { rows: &self.rows, dy, plane: line, places: &mut room[..words], to },
        );
    }
}

/// Room for a line of the image with its padding or a plane of either in 16 bits, and for sixteen channels of output gradients with their places as
/// words.
fn room(rows: &Rows) -> [usize; 2] {
    let Rows { c, row, .. } = rows;
    let plane = (c.x[0] * c.x[1]).max(c.y[0] * c.y[1]).div_ceil(2);
    [c.padded_line(*row).max(plane).next_multiple_of(SIDE), SIDE * (rows.positions() / 2)]
}

struct FillRows<'a> {
    rows: &'a Rows,
    x: &'a [f32],
    room: &'a mut [f32],
    to: &'a mut [f32],
}

impl Compute for FillRows<'_> {
    type Output = ();
    #[inline(always)]
    fn compute<S: Simd, A: Arithmetic<S>>(self, simd: S, arithmetic: A) {
        let Self { rows: Rows { c, row, .. }, x, room, to } = self;
        let [h, w] = c.x;
        to.fill(0.0);
        let to = halves_mut(to);
        if c.stride == 1 {
            let room = &mut halves_mut(room)[..h * w];
            for (plane, to) in x.chunks_exact(h * w).zip(to.chunks_exact_mut(*row)) {
                copies::round(simd, arithmetic, plane, room);
                let lines = to[c.padding[0] * c.period()..].chunks_mut(c.period());
                for (from, line) in room.chunks_exact(w).zip(lines) {
                    copies::copy(from, &mut line[c.padding[1]..][..w]);
                }
            }
            return;
        }
        room.fill(0.0);
        let lines = to.chunks_exact_mut(c.from * c.stride * row).skip(c.padding[0]);
        for (y, lines) in lines.enumerate().take(h) {
            for (channel, lines) in lines.chunks_exact_mut(c.stride * row).enumerate() {
                room[c.padding[1]..][..w].copy_from_slice(&x[(channel * h + y) * w..][..w]);
                for (phase, line) in lines.chunks_exact_mut(*row).enumerate() {
                    let mut values = [0.0; HALVES];
                    for (part, line) in line.as_chunks_mut::<HALVES>().0.iter_mut().enumerate() {
                        let from = &room[part * HALVES * c.stride..][..HALVES * c.stride];
                        copies::strided(from, c.stride, phase, &mut values);
                        copies::round(simd, arithmetic, &values, line);
                    }
                }
            }
        }
    }
}

struct TurnGradients<'a> {
    rows: &'a Rows,
    /// Planes of some output channels.
    dy: &'a [f32],
    /// One of them, and the places of sixteen, in 16 bits.
    plane: &'a mut [f32],
    places: &'a mut [f32],
    to: &'a mut [f32],
}

impl Compute for TurnGradients<'_> {
    type Output = ();
    #[inline(always)]
    fn compute<S: Simd, A: Arithmetic<S>>(self, simd: S, arithmetic: A) {
        let Self { rows, dy, plane: room, places, to } = self;
        let [oh, ow] = rows.c.y;
        let rounded = &mut halves_mut(room)[..oh * ow];
        let words = rows.positions() / 2;
        for (half, dy) in dy.chunks(SIDE * oh * ow).enumerate() {
            places.fill(0.0);
            for (plane, places) in dy.chunks_exact(oh * ow).zip(places.chunks_exact_mut(words)) {
                copies::round(simd, arithmetic, plane, rounded);
                let places = halves_mut(places);
                for (y, from) in rounded.chunks_exact(ow).enumerate() {
                    let at = if rows.lines == 1 { y * rows.period } else { y * rows.places };
                    copies::copy(from, &mut places[at..at + ow]);
                }
            }
            let mut square: Aligned<Square> = Aligned([[0.0; SIDE]; SIDE]);
            for (part, to) in to.chunks_exact_mut(SIDE * BLOCK).enumerate() {
                for (row, from) in square.iter_mut().zip(places.chunks_exact(words)) {
                    load_sixteen(simd, &from[part * SIDE..], row);
                }
                transpose(simd, &mut square);
                for (row, to) in square.iter().zip(to.chunks_exact_mut(BLOCK)) {
                    store_sixteen(simd, row, &mut to[half * SIDE..]);
                }
            }
        }
        // Channels that are not there.
        let there = dy.len().div_ceil(SIDE * oh * ow) * SIDE;
        if there < BLOCK {
            to.chunks_exact_mut(BLOCK).for_each(|row| row[there..].fill(0.0));
        }
    }
}

/// Sums of products over all images and places, some rows and output channels a task.
struct WeightGrad {
    rows: Rows,
    /// Steps of the depth of an image.
    at: Vec<[usize; 2]>,
    images: Slot,
    gradients: Slot,
    dw: Slot,
}

impl WeightGrad {
    /// Blocks of output channels of a task. A function of the shapes alone.
    fn blocks(&self) -> usize {
        let all = self.rows.c.groups * self.rows.rows.div_ceil(BLOCK) * self.rows.c.to.div_ceil(BLOCK);
        if all / 4 >= TASKS { 4 } else { 2 }
    }
    /// Tasks of a group: blocks of rows, and parts of the output channels.
    fn parts(&self) -> [usize; 2] {
        [self.rows.rows.div_ceil(BLOCK), self.rows.c.to.div_ceil(self.blocks() * BLOCK)]
    }
}

impl Kernel for WeightGrad {
    fn name(&self) -> &'static str {
        "convolution weight gradient"
    }
    fn work(&self) -> Work {
        Work::plain(self.rows.c.multiply_adds())
    }
    fn tasks(&self) -> usize {
        self.rows.c.groups * self.parts().iter().product::<usize>()
    }
    fn scratch(&self) -> usize {
        self.blocks() * self.rows.shifts.len() * BLOCK * BLOCK
    }
    fn run(&self, task: usize, memory: &Memory, scratch: &mut [f32]) {
        let [blocks, parts] = self.parts();
        let (group, place) = (task / (blocks * parts), task % (blocks * parts));
        let (block, part) = (place / parts, place % parts);
        let channels = chunk(part, self.blocks() * BLOCK, self.rows.c.to);
        let blocks = channels.len().div_ceil(BLOCK);
        let sums = &mut scratch[..blocks * self.rows.shifts.len() * BLOCK * BLOCK];
        let task = SumTask { kernel: self, memory, group, block, channels, sums };
        arithmetic::run(Precision::Bf16, task);
    }
}

/// Adds the products of an image's rows from a block's first one on and of a block of output channels to their sums [shifts, rows, channels], and
/// asks for what comes next meanwhile.
#[expect(clippy::too_many_arguments, reason = "a product's operands and what goes with them")]
fn add_products(
    tiles: &Tiles,
    rows: &Rows,
    at: &[[usize; 2]],
    [row_tiles, columns]: [usize; 2],
    [images, gradients]: [&[u16]; 2],
    next: &[&[f32]],
    is_first: bool,
    sums: &mut [f32],
) {
    let right = Operand { halves: gradients, stride: 2 * BLOCK, second: HALVES };
    // Equal parts of the image's steps.
    let times = at.len().div_ceil(NEAR);
    let near = at.len().div_ceil(times);
    let mut next = next.iter().flat_map(|values| values.chunks(LINE));
    let lines = next.clone().count().div_ceil(times * rows.shifts.len());
    for (time, at) in at.chunks(near).enumerate() {
        let steps = Steps::new(at);
        for (&shift, sums) in rows.shifts.iter().zip(sums.chunks_exact_mut(BLOCK * BLOCK)) {
            let left = Operand { halves: &images[shift..], stride: rows.row, second: SIDE * rows.row };
            let to = Target { values: sums, stride: BLOCK, accumulate: !is_first || time > 0 };
            product(tiles, [row_tiles, columns], [left, right], steps, to);
            next.by_ref().take(lines).for_each(|line| prefetch(line, 0));
        }
    }
}

struct SumTask<'a> {
    kernel: &'a WeightGrad,
    memory: &'a Memory,
    group: usize,
    block: usize,
    channels: Range<usize>,
    /// [blocks of channels, shifts, rows, channels].
    sums: &'a mut [f32],
}

impl Compute for SumTask<'_> {
    type Output = ();
    #[inline(always)]
    fn compute<S: Simd, A: Arithmetic<S>>(self, simd: S, arithmetic: A) {
        let Self { kernel, memory, group, block, channels, sums } = self;
        let tiles = arithmetic.tiles().expect("this kernel is chosen where there are tiles");
        let rows = &kernel.rows;
        let c = &rows.c;
        let (images, gradients) = (memory.read(kernel.images), memory.read(kernel.gradients));
        let first = block * BLOCK;
        let row_tiles = (rows.rows - first).min(BLOCK).div_ceil(SIDE);
        let size = Turn::words(rows);
        // Of an image, and of one and a block of channels; none beyond the last image.
        let rows_of = |image: usize| match image < c.images {
            true => &images[((image * c.groups + group) * rows.image + first * rows.row) / 2..][..BLOCK * rows.row / 2],
            false => &[],
        };
        let channels_of = |image: usize, from: usize| match image < c.images {
            true => &gradients[((group * c.to.div_ceil(BLOCK) + from / BLOCK) * c.images + image) * size..][..size],
            false => &[],
        };
        for image in 0..c.images {
            for (part, sums) in sums.chunks_exact_mut(rows.shifts.len() * BLOCK * BLOCK).enumerate() {
                let from = channels.start + part * BLOCK;
                let columns = (channels.end - from).min(BLOCK).div_ceil(SIDE);
                let operands = [rows_of(image), channels_of(image, from)].map(halves);
                let next = match from + BLOCK < channels.end {
                    true => [channels_of(image, from + BLOCK), &[]],
                    false => [channels_of(image + 1, channels.start), rows_of(image + 1)],
                };
                add_products(tiles, rows, &kernel.at, [row_tiles, columns], operands, &next, image == 0, sums);
            }
        }
        finish(simd, memory, kernel, group, first, channels, sums);
    }
}

/// Sums of all taps [blocks of channels, taps, rows, channels] to gradients [channels, rows, taps].
#[inline(always)]
fn finish<S: Simd>(
    simd: S,
    memory: &Memory,
    kernel: &WeightGrad,
    group: usize,
    first: usize,
    channels: Range<usize>,
    sums: &[f32],
) {
    let c = &kernel.rows.c;
    let taps = c.taps();
    let rows = BLOCK.min(c.from - first);
    let mut square: Aligned<Square> = Aligned([[0.0; SIDE]; SIDE]);
    for (part, sums) in sums.chunks_exact(taps * BLOCK * BLOCK).enumerate() {
        for half in 0..BLOCK / SIDE {
            let output = channels.start + part * BLOCK + half * SIDE;
            for row in 0..rows {
                for tap in (0..taps).step_by(SIDE) {
                    let here = SIDE.min(taps - tap);
                    for (i, square) in square.iter_mut().enumerate().take(here) {
                        load_sixteen(simd, &sums[((tap + i) * BLOCK + row) * BLOCK + half * SIDE..], square);
                    }
                    transpose(simd, &mut square);
                    for (lane, values) in square.iter().enumerate() {
                        let output = output + lane;
                        if output < channels.end {
                            let at = ((group * c.to + output) * c.from + first + row) * taps + tap;
                            store_sixteen(simd, values, memory.write(kernel.dw, at..at + here));
                        }
                    }
                }
            }
        }
    }
}

/// Sums of products with a stride over some images a task: all rows and output channels of an image at a time, which stay in the second-level cache.
struct LinesGrad {
    rows: Rows,
    at: Vec<[usize; 2]>,
    x: Slot,
    dy: Slot,
    /// [parts, groups, blocks of channels, blocks of rows, shifts, rows, channels].
    sums: Slot,
}

impl LinesGrad {
    /// Images of a task. A function of the shapes alone.
    fn images(&self) -> usize {
        (self.rows.c.images / 8).clamp(1, 4)
    }
    fn blocks(rows: &Rows) -> [usize; 2] {
        [rows.c.to, rows.rows].map(|count| count.div_ceil(BLOCK))
    }
    /// Sums of a part of the batch.
    fn size(rows: &Rows) -> usize {
        rows.c.groups * Self::blocks(rows).iter().product::<usize>() * rows.shifts.len() * BLOCK * BLOCK
    }
    /// Rows of an image, output gradients of a block of channels, and room for both to be made.
    fn room(&self) -> [usize; 4] {
        let [line, places] = room(&self.rows);
        [self.rows.image / 2, Turn::words(&self.rows), line, places]
    }
}

impl Kernel for LinesGrad {
    fn name(&self) -> &'static str {
        "convolution weight gradient"
    }
    fn work(&self) -> Work {
        Work::plain(self.rows.c.multiply_adds())
    }
    fn tasks(&self) -> usize {
        self.rows.c.images.div_ceil(self.images())
    }
    fn scratch(&self) -> usize {
        self.room().iter().sum()
    }
    fn run(&self, task: usize, memory: &Memory, scratch: &mut [f32]) {
        let rows = &self.rows;
        let c = &rows.c;
        let size = Self::size(rows);
        let sums = memory.write(self.sums, task * size..(task + 1) * size);
        let [image, gradients, line, places] = self.room();
        let (image, room) = scratch.split_at_mut(image);
        let (gradients, room) = room.split_at_mut(gradients);
        let (line, room) = room.split_at_mut(line);
        let places = &mut room[..places];
        let [blocks, row_blocks] = Self::blocks(rows);
        let pixels = c.y[0] * c.y[1];
        let tasks = chunk(task, self.images(), c.images);
        for position in tasks.start * c.groups..tasks.end * c.groups {
            let is_first = position < (tasks.start + 1) * c.groups;
            let x = &memory.read(self.x)[position * c.input()..][..c.input()];
            let dy = &memory.read(self.dy)[position * c.output()..][..c.output()];
            let sums = &mut sums[position % c.groups * (size / c.groups)..][..size / c.groups];
            arithmetic::run(Precision::Bf16, FillRows { rows, x, room: &mut *line, to: &mut *image });
            for (block, sums) in sums.chunks_exact_mut(size / c.groups / blocks).enumerate() {
                let channels = chunk(block, BLOCK, c.to);
                let dy = &dy[channels.start * pixels..channels.end * pixels];
                let turn = TurnGradients { rows, dy, plane: &mut *line, places: &mut *places, to: &mut *gradients };
                arithmetic::run(Precision::Bf16, turn);
                let operands = [halves(image), halves(gradients)];
                let columns = channels.len().div_ceil(SIDE);
                let sums = LinesTask { rows, at: &self.at, columns, operands, is_first, row_blocks, sums };
                arithmetic::run(Precision::Bf16, sums);
            }
        }
    }
}

struct LinesTask<'a> {
    rows: &'a Rows,
    at: &'a [[usize; 2]],
    columns: usize,
    operands: [&'a [u16]; 2],
    is_first: bool,
    row_blocks: usize,
    sums: &'a mut [f32],
}

impl Compute for LinesTask<'_> {
    type Output = ();
    #[inline(always)]
    fn compute<S: Simd, A: Arithmetic<S>>(self, _: S, arithmetic: A) {
        let Self { rows, at, columns, operands, is_first, row_blocks, sums } = self;
        let tiles = arithmetic.tiles().expect("this kernel is chosen where there are tiles");
        for (block, sums) in sums.chunks_exact_mut(sums.len() / row_blocks).enumerate() {
            let row_tiles = (rows.rows - block * BLOCK).min(BLOCK).div_ceil(SIDE);
            let operands = [&operands[0][block * BLOCK * rows.row..], operands[1]];
            add_products(tiles, rows, at, [row_tiles, columns], operands, &[], is_first, sums);
        }
    }
}

/// Sums of all parts of the batch, in their order, to gradients; a block of output channels a task.
struct LinesSum {
    rows: Rows,
    parts: usize,
    sums: Slot,
    dw: Slot,
}

impl Kernel for LinesSum {
    fn name(&self) -> &'static str {
        "weight gradient sum"
    }
    fn tasks(&self) -> usize {
        self.rows.c.groups * LinesGrad::blocks(&self.rows)[0]
    }
    fn run(&self, task: usize, memory: &Memory, _: &mut [f32]) {
        let rows = &self.rows;
        let c = &rows.c;
        let size = LinesGrad::size(rows);
        let each = size / self.tasks();
        let sums = &memory.read(self.sums)[task * each..];
        let blocks = LinesGrad::blocks(rows)[0];
        let channels = chunk(task % blocks, BLOCK, c.to);
        let first = (task / blocks * c.to + channels.start) * c.from * c.taps();
        let dw = memory.write(self.dw, first..first + channels.len() * c.from * c.taps());
        for (channel, dw) in dw.chunks_exact_mut(c.from * c.taps()).enumerate() {
            for row in 0..rows.rows {
                for shift in 0..rows.shifts.len() {
                    if let Some((input, tap)) = rows.seen(shift, row) {
                        let at = ((row / BLOCK * rows.shifts.len() + shift) * BLOCK + row % BLOCK) * BLOCK + channel;
                        dw[input * c.taps() + tap] = (0..self.parts).map(|part| sums[part * size + at]).sum();
                    }
                }
            }
        }
    }
}

/// x = [x, dy].
pub(in super::super) fn weight_grad(plan: &mut Plan, e: &Extents, x: &[Slot], dw: Slot) {
    let c = Correlation::new(e);
    let rows = Rows::new(c);
    let at = rows.steps().map(|[at, position]| [at, position * BLOCK]).collect();
    let (x, dy) = (x[0], x[1]);
    if c.stride > 1 {
        let mut kernel = LinesGrad { rows: rows.clone(), at, x, dy, sums: x };
        let parts = kernel.tasks();
        kernel.sums = plan.temporary(parts * LinesGrad::size(&rows));
        let sums = kernel.sums;
        plan.push(kernel, &[x, dy, sums]);
        plan.push(LinesSum { rows, parts, sums, dw }, &[sums, dw]);
        return;
    }
    let images = plan.temporary(c.images * c.groups * rows.image / 2);
    let gradients = plan.temporary(c.groups * c.to.div_ceil(BLOCK) * c.images * Turn::words(&rows));
    plan.push(Turn { rows: rows.clone(), x, dy, images, gradients }, &[x, dy, images, gradients]);
    plan.push(WeightGrad { rows, at, images, gradients, dw }, &[images, gradients, dw]);
}
