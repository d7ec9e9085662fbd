//! Convolutions and, with stride 1, their input gradients: some images a task. Rows of the product are output channels, columns outputs, so that
//! sums come out as planes.

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
        transpose::{Square, transpose},
        vector::load_sixteen,
    },
    BLOCK, HALVES, Operand, SIDE, Steps, copies,
    layout::{Correlation, Seen, Words},
    machine, product,
};
use crate::Precision;

/// Whether tiles serve a convolution: channels that fill them at least half.
pub(in super::super) fn serves(e: &Extents, precision: Precision) -> bool {
    let (from, to) = (e.c / e.groups, e.o / e.groups);
    precision == Precision::Bf16
        && machine().is_some()
        && e.padding < e.kh.min(e.kw)
        && to >= SIDE
        && if e.stride == 1 { from >= SIDE } else { from * e.stride.div_ceil(2) * e.kh >= SIDE }
}

/// Whether they serve its input gradient too.
pub(in super::super) fn serves_input_grad(e: &Extents, precision: Precision) -> bool {
    serves(e, precision) && e.stride == 1
}

/// Weights as left operands [groups, blocks of output channels, steps, 2 tiles, rows, words], a multiple of the steps of the depth.
struct Weights {
    c: Correlation,
    /// For each word of each step its two weights, from those of an output channel on; with a stride.
    seen: Vec<[Option<usize>; 2]>,
    /// Words of a block of output channels.
    block: usize,
    /// From one output channel to the next, and from one input channel to the next.
    stride: usize,
    from: usize,
    /// Whether inputs and outputs change roles and kernels turn around, as gradients of inputs want.
    turned: bool,
    w: Slot,
    y: Slot,
}

/// Words of a step of a block of output channels.
const STEP: usize = BLOCK * SIDE;

impl Weights {
    fn new(words: &Words, turned: bool, w: Slot, y: Slot) -> Self {
        let c = words.c;
        let place = |seen: Seen| seen.map(|(channel, tap)| channel * c.taps() + tap);
        let all = (0..words.steps.len()).flat_map(|step| (0..SIDE).map(move |word| (step, word)));
        let seen = match c.stride {
            1 => Vec::new(),
            _ => all.map(|(step, word)| words.seen(step, word).map(place)).collect(),
        };
        let [to, from] = [c.to, c.from].map(|channels| channels * c.taps());
        let (stride, from) = if turned { (c.taps(), to) } else { (from, c.taps()) };
        Self { c, seen, block: words.steps.len() * STEP, stride, from, turned, w, y }
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
        let to = memory.write(self.y, task * self.block..(task + 1) * self.block);
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
        for (row, channel) in channels.enumerate() {
            let (w, to) = (&w[channel * kernel.stride..], &mut to[row * SIDE..]);
            if kernel.c.stride == 1 {
                pack_channels(simd, arithmetic, kernel, w, to);
            } else {
                pack_taps(simd, arithmetic, kernel, w, to);
            }
        }
    }
}

/// The weights of an output channel, words being two input channels. Tiles exist where registers have sixteen lanes.
#[inline(always)]
fn pack_channels<S: Simd, A: Arithmetic<S>>(simd: S, arithmetic: A, kernel: &Weights, w: &[f32], to: &mut [f32]) {
    let c = &kernel.c;
    let taps = c.taps();
    for (block, to) in to.chunks_mut(taps * STEP).enumerate() {
        for tap in (0..taps).step_by(SIDE) {
            let here = SIDE.min(taps - tap);
            // Rows are channels, columns taps.
            let mut squares: [Square; 2] = [[[0.0; SIDE]; SIDE]; 2];
            for (i, row) in squares.as_flattened_mut().iter_mut().enumerate() {
                let channel = block * HALVES + i;
                if channel < c.from {
                    let from = &w[channel * kernel.from..][..taps];
                    // What follows is read too, and not used.
                    load_sixteen(simd, &from[if kernel.turned { taps - tap - here } else { tap }..], row);
                }
            }
            squares.iter_mut().for_each(|square| transpose(simd, square));
            for i in 0..here {
                let from = if kernel.turned { here - 1 - i } else { i };
                let registers = [0, 1].map(|half| S::as_simd_f32s(&squares[half][from]).0[0]);
                S::as_mut_simd_f32s(&mut to[(tap + i) * STEP..][..SIDE]).0[0] = arithmetic.pack(simd, registers);
            }
        }
    }
}

/// The weights of an output channel, words being two columns of the window.
#[inline(always)]
fn pack_taps<S: Simd, A: Arithmetic<S>>(simd: S, arithmetic: A, kernel: &Weights, w: &[f32], to: &mut [f32]) {
    let mut values = [[0.0; SIDE]; 2];
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

/// Applies them.
struct Apply {
    name: &'static str,
    words: Words,
    /// Steps of the depth for products.
    at: Vec<[usize; 2]>,
    x: Slot,
    weights: Slot,
    bias: Option<Slot>,
    y: Slot,
    epilogue: Epilogue,
}

impl Apply {
    /// Images of a task: some, so that weights are read seldom, but enough tasks for many threads. A function of the shapes alone.
    fn images(&self) -> usize {
        (self.words.c.images / 8).clamp(1, 4)
    }
    /// Images in 16 bits, sums of a block of output channels along a line of outputs, and a line of the image with its padding or two planes as
    /// words.
    fn room(&self) -> [usize; 3] {
        let Words { c, image, places, row, .. } = &self.words;
        let width = (c.x[1] + 2 * c.padding[1]).max(c.stride * row);
        [self.images() * image, BLOCK * places + SIDE, width.max(c.x[0] * c.x[1]).next_multiple_of(SIDE)]
    }
}

impl Kernel for Apply {
    fn name(&self) -> &'static str {
        self.name
    }
    fn work(&self) -> Work {
        Work::plain(self.words.c.multiply_adds())
    }
    fn tasks(&self) -> usize {
        self.words.c.images.div_ceil(self.images())
    }
    fn scratch(&self) -> usize {
        self.room().iter().sum()
    }
    fn run(&self, task: usize, memory: &Memory, scratch: &mut [f32]) {
        let c = &self.words.c;
        let images = chunk(task, self.images(), c.images);
        let (input, output) = (c.groups * c.input(), c.groups * c.output());
        let range = images.start * output..images.end * output;
        let y = memory.write(self.y, range.clone());
        let x = &memory.read(self.x)[images.start * input..images.end * input];
        let weights = memory.read(self.weights);
        let bias = self.bias.map(|bias| memory.read(bias));
        arithmetic::run(Precision::Bf16, ApplyTask { kernel: self, x, weights, bias, y: &mut *y, room: scratch });
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
        let Self { kernel, x, weights, bias, y, room } = self;
        let tiles = arithmetic.tiles().expect("this kernel is chosen where there are tiles");
        let words = &kernel.words;
        let c = &words.c;
        let [all, sums, _] = kernel.room();
        let (all, room) = room.split_at_mut(all);
        let (sums, line) = room.split_at_mut(sums);
        let steps = Steps::new(&kernel.at);
        let blocks = c.to.div_ceil(BLOCK);
        let block_words = weights.len() / (c.groups * blocks);
        let pixels = c.y[0] * c.y[1];
        for group in 0..c.groups {
            for (x, image) in x.chunks_exact(c.groups * c.input()).zip(all.chunks_exact_mut(words.image)) {
                let x = &x[group * c.input()..][..c.input()];
                if c.stride == 1 {
                    fill_planes(simd, arithmetic, words, x, image, line);
                } else {
                    fill_lines(simd, arithmetic, words, x, image, line);
                }
            }
            for block in 0..blocks {
                let channels = chunk(block, BLOCK, c.to);
                let rows = channels.len().div_ceil(SIDE);
                let w = &weights[(group * blocks + block) * block_words..][..block_words];
                let left = Operand::words(w, SIDE, SIDE * SIDE);
                for (y, image) in y.chunks_exact_mut(c.groups * c.output()).zip(all.chunks_exact(words.image)) {
                    for line in 0..words.lines {
                        for place in (0..words.places).step_by(BLOCK) {
                            let columns = (words.places - place).min(BLOCK) / SIDE;
                            let right = Operand::words(&image[line * words.line + place..], words.row, SIDE);
                            let to = Target { values: &mut sums[place..], stride: words.places, accumulate: false };
                            product(tiles, [rows, columns], [left, right], steps, to);
                        }
                        // Sums of outputs, without those between the lines of a plane.
                        for (channel, sums) in channels.clone().zip(sums.chunks_exact(words.places)) {
                            let channel = group * c.to + channel;
                            let bias = bias.map_or(0.0, |bias| bias[channel]);
                            let y = &mut y[channel * pixels + line * c.y[1]..][..pixels / words.lines];
                            for (y, sums) in y.chunks_exact_mut(c.y[1]).zip(sums.chunks(words.period)) {
                                copies::add(&sums[..c.y[1]], bias, y);
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Planes of words: two channels each.
#[inline(always)]
fn fill_planes<S: Simd, A: Arithmetic<S>>(
    simd: S,
    arithmetic: A,
    words: &Words,
    x: &[f32],
    to: &mut [f32],
    room: &mut [f32],
) {
    let c = &words.c;
    let [h, w] = c.x;
    to.fill(0.0);
    let room = &mut room[..h * w];
    for (pair, to) in x.chunks(2 * h * w).zip(to.chunks_exact_mut(words.row)) {
        let (low, high) = pair.split_at(h * w);
        copies::join(simd, arithmetic, low, high, room);
        let lines = to[c.padding[0] * c.period()..].chunks_mut(c.period());
        for (from, line) in room.chunks_exact(w).zip(lines) {
            copies::copy(from, &mut line[c.padding[1]..][..w]);
        }
    }
}

/// Lines of words: two columns each.
#[inline(always)]
fn fill_lines<S: Simd, A: Arithmetic<S>>(
    simd: S,
    arithmetic: A,
    words: &Words,
    x: &[f32],
    to: &mut [f32],
    room: &mut [f32],
) {
    let c = &words.c;
    let [h, w] = c.x;
    let pairs = c.stride.div_ceil(2);
    to.fill(0.0);
    room.fill(0.0);
    let lines = to.chunks_exact_mut(c.from * pairs * words.row).skip(c.padding[0]);
    for (y, lines) in lines.enumerate().take(h) {
        for (channel, lines) in lines.chunks_exact_mut(pairs * words.row).enumerate() {
            room[c.padding[1]..][..w].copy_from_slice(&x[(channel * h + y) * w..][..w]);
            for (pair, line) in lines.chunks_exact_mut(words.row).enumerate() {
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

fn apply(
    plan: &mut Plan,
    name: &'static str,
    c: Correlation,
    turned: bool,
    [w, x, y]: [Slot; 3],
    bias: Option<Slot>,
    epilogue: Epilogue,
) {
    let words = Words::new(c);
    let steps = words.steps.len();
    let weights = plan.temporary(c.groups * c.to.div_ceil(BLOCK) * steps * STEP);
    plan.push(Weights::new(&words, turned, w, weights), &[w, weights]);
    let at = words.steps.iter().enumerate().map(|(step, &at)| [step * 2 * STEP, 2 * at]).collect();
    let touches: Vec<Slot> = [x, weights, y].into_iter().chain(bias).chain(epilogue.slots()).collect();
    plan.push(Apply { name, words, at, x, weights, bias, y, epilogue }, &touches);
}

/// x = [x, w, b].
pub(in super::super) fn forward(plan: &mut Plan, e: &Extents, x: &[Slot], y: Slot, epilogue: Epilogue) {
    apply(plan, "convolution", Correlation::new(e), false, [x[1], x[0], y], Some(x[2]), epilogue);
}

/// x = [w, dy].
pub(in super::super) fn input_grad(plan: &mut Plan, e: &Extents, x: &[Slot], dx: Slot, epilogue: Epilogue) {
    let c = Correlation::new(e).backward();
    apply(plan, "convolution input gradient", c, true, [x[0], x[1], dx], None, epilogue);
}
