//! Convolutions with a stride, an image a task. Rows of the product are output channels, columns outputs along a line, so that sums come out
//! as planes.

use pulp::Simd;

use super::{
    super::{
        Plan,
        arithmetic::{self, Arithmetic, Compute},
        convolution::Extents,
        fusion::Epilogue,
        matrix::Target,
        memory::{Memory, Slot},
        movement::chunk,
        program::{Kernel, Work},
    },
    BLOCK, Operand, SIDE, Steps, copies,
    layout::{Correlation, Lines, Seen},
    product,
};
use crate::Precision;

/// Weights as left operands [groups, blocks of output channels, steps, 2 tiles, rows, words].
struct Weights {
    c: Correlation,
    /// For each word of each step its two weights, from those of an output channel on.
    seen: Vec<[Option<usize>; 2]>,
    w: Slot,
    y: Slot,
}

/// Words of a step of a block of output channels.
const STEP: usize = BLOCK * SIDE;

impl Weights {
    fn new(lines: &Lines, w: Slot, y: Slot) -> Self {
        let c = lines.c;
        let place = |seen: Seen| seen.map(|(channel, tap)| channel * c.taps() + tap);
        let all = (0..lines.steps.len()).flat_map(|step| (0..SIDE).map(move |word| (step, word)));
        let seen = all.map(|(step, word)| lines.seen(step, word).map(place)).collect();
        Self { c, seen, w, y }
    }
    /// Words of a block of output channels.
    fn block(&self) -> usize {
        self.seen.len() * BLOCK
    }
    fn blocks(&self) -> usize {
        self.c.to.div_ceil(BLOCK)
    }
}

impl Kernel for Weights {
    fn name(&self) -> &'static str {
        "tiles of weights"
    }
    fn tasks(&self) -> usize {
        self.c.groups * self.blocks()
    }
    fn run(&self, task: usize, memory: &Memory, _: &mut [f32]) {
        let (group, block) = (task / self.blocks(), task % self.blocks());
        let size = self.c.to * self.c.from * self.c.taps();
        let w = &memory.read(self.w)[group * size..][..size];
        let to = memory.write(self.y, task * self.block()..(task + 1) * self.block());
        arithmetic::run(Precision::Bf16, PackWeights { kernel: self, channels: chunk(block, BLOCK, self.c.to), w, to });
    }
}

struct PackWeights<'a> {
    kernel: &'a Weights,
    channels: std::ops::Range<usize>,
    w: &'a [f32],
    to: &'a mut [f32],
}

impl Compute for PackWeights<'_> {
    type Output = ();
    #[inline(always)]
    fn compute<S: Simd, A: Arithmetic<S>>(self, simd: S, arithmetic: A) {
        let Self { kernel, channels, w, to } = self;
        if channels.len() < BLOCK {
            to.fill(0.0);
        }
        let each = kernel.c.from * kernel.c.taps();
        let mut values = [[0.0; SIDE]; 2];
        for (row, channel) in channels.enumerate() {
            let (w, to) = (&w[channel * each..][..each], &mut to[row * SIDE..]);
            for (seen, to) in kernel.seen.as_chunks::<SIDE>().0.iter().zip(to.chunks_mut(STEP)) {
                for (word, seen) in seen.iter().enumerate() {
                    for part in 0..2 {
                        values[part][word] = seen[part].map_or(0.0, |at| w[at]);
                    }
                }
                let [low, high] = &values;
                let ((low, _), (high, _)) = (S::as_simd_f32s(low), S::as_simd_f32s(high));
                for ((to, &low), &high) in S::as_mut_simd_f32s(&mut to[..SIDE]).0.iter_mut().zip(low).zip(high) {
                    *to = arithmetic.join(simd, [low, high]);
                }
            }
        }
    }
}

/// Applies them.
struct Apply {
    lines: Lines,
    at: Vec<[usize; 2]>,
    x: Slot,
    weights: Slot,
    bias: Slot,
    y: Slot,
    epilogue: Epilogue,
}

impl Apply {
    /// An image in 16 bits, sums of a block of output channels along a line of outputs, and a line of the image with its padding.
    fn room(&self) -> [usize; 3] {
        let Lines { c, image, places, row, .. } = self.lines;
        [image, BLOCK * places, c.padded_line(row).next_multiple_of(SIDE)]
    }
}

impl Kernel for Apply {
    fn name(&self) -> &'static str {
        "convolution"
    }
    fn work(&self) -> Work {
        Work::plain(self.lines.c.multiply_adds())
    }
    fn tasks(&self) -> usize {
        self.lines.c.images
    }
    fn scratch(&self) -> usize {
        self.room().iter().sum()
    }
    fn run(&self, task: usize, memory: &Memory, scratch: &mut [f32]) {
        let c = &self.lines.c;
        let (input, output) = (c.groups * c.input(), c.groups * c.output());
        let range = task * output..(task + 1) * output;
        let y = memory.write(self.y, range.clone());
        let x = &memory.read(self.x)[task * input..(task + 1) * input];
        let (weights, bias) = (memory.read(self.weights), memory.read(self.bias));
        arithmetic::run(Precision::Bf16, ApplyTask { kernel: self, x, weights, bias, y: &mut *y, room: scratch });
        self.epilogue.apply(memory, y, range.start);
    }
}

struct ApplyTask<'a> {
    kernel: &'a Apply,
    x: &'a [f32],
    weights: &'a [f32],
    bias: &'a [f32],
    y: &'a mut [f32],
    room: &'a mut [f32],
}

impl Compute for ApplyTask<'_> {
    type Output = ();
    #[inline(always)]
    fn compute<S: Simd, A: Arithmetic<S>>(self, simd: S, arithmetic: A) {
        let Self { kernel, x, weights, bias, y, room } = self;
        let tiles = arithmetic.tiles().expect("this kernel is chosen where there are tiles");
        let lines = &kernel.lines;
        let (c, places) = (&lines.c, lines.places);
        let [image, sums, line] = kernel.room();
        let (image, room) = room.split_at_mut(image);
        let (sums, room) = room.split_at_mut(sums);
        let room = &mut room[..line];
        let steps = Steps::new(&kernel.at);
        let blocks = c.to.div_ceil(BLOCK);
        let block_words = weights.len() / (c.groups * blocks);
        let [oh, ow] = c.y;
        for group in 0..c.groups {
            fill(simd, arithmetic, lines, &x[group * c.input()..][..c.input()], image, room);
            for block in 0..blocks {
                let channels = chunk(block, BLOCK, c.to);
                let rows = channels.len().div_ceil(SIDE);
                let w = &weights[(group * blocks + block) * block_words..][..block_words];
                let left = Operand::words(w, SIDE, SIDE * SIDE);
                for line in 0..oh {
                    for place in (0..places).step_by(BLOCK) {
                        let columns = (places - place).min(BLOCK) / SIDE;
                        let right = Operand::words(&image[line * lines.line + place..], lines.row, SIDE);
                        let to = Target { values: &mut sums[place..], stride: places, accumulate: false };
                        product(tiles, [rows, columns], [left, right], steps, to);
                    }
                    for (channel, sums) in channels.clone().zip(sums.chunks_exact(places)) {
                        let channel = group * c.to + channel;
                        copies::add(&sums[..ow], bias[channel], &mut y[(channel * oh + line) * ow..][..ow]);
                    }
                }
            }
        }
    }
}

/// Lines of words: two columns each.
#[inline(always)]
fn fill<S: Simd, A: Arithmetic<S>>(simd: S, arithmetic: A, lines: &Lines, x: &[f32], to: &mut [f32], room: &mut [f32]) {
    let c = &lines.c;
    let [h, w] = c.x;
    let pairs = c.stride.div_ceil(2);
    to.fill(0.0);
    room.fill(0.0);
    let all = to.chunks_exact_mut(c.from * pairs * lines.row).skip(c.padding[0]);
    for (y, all) in all.enumerate().take(h) {
        for (channel, phases) in all.chunks_exact_mut(pairs * lines.row).enumerate() {
            room[c.padding[1]..][..w].copy_from_slice(&x[(channel * h + y) * w..][..w]);
            for (pair, line) in phases.chunks_exact_mut(lines.row).enumerate() {
                let mut values = [[0.0; SIDE]; 2];
                for (part, line) in line.as_chunks_mut::<SIDE>().0.iter_mut().enumerate() {
                    let from = &room[part * SIDE * c.stride..][..SIDE * c.stride];
                    for (part, values) in values.iter_mut().enumerate() {
                        copies::strided(from, c.stride, 2 * pair + part, values);
                    }
                    let [low, high] = &values;
                    let ((low, _), (high, _)) = (S::as_simd_f32s(low), S::as_simd_f32s(high));
                    for ((to, &low), &high) in S::as_mut_simd_f32s(line).0.iter_mut().zip(low).zip(high) {
                        *to = arithmetic.join(simd, [low, high]);
                    }
                }
            }
        }
    }
}

/// x = [x, w, b].
pub(super) fn forward(plan: &mut Plan, e: &Extents, x: &[Slot], y: Slot, epilogue: Epilogue) {
    let lines = Lines::new(Correlation::new(e));
    let c = lines.c;
    let weights = plan.temporary(c.groups * c.to.div_ceil(BLOCK) * lines.steps.len() * STEP);
    plan.push(Weights::new(&lines, x[1], weights), &[x[1], weights]);
    let at = lines.steps.iter().enumerate().map(|(step, &at)| [step * 2 * STEP, 2 * at]).collect();
    let touches: Vec<Slot> = [x[0], weights, x[2], y].into_iter().chain(epilogue.slots()).collect();
    plan.push(Apply { lines, at, x: x[0], weights, bias: x[2], y, epilogue }, &touches);
}
