//! Convolutions with stride 1 and their input gradients, some images a task. Rows of the product are outputs and columns output channels: a
//! pixel's channels lie one after the other, so that whatever a tap sees begins on a cache line.
//!
//! A line of pixels follows the last one at a distance that leaves its padding once between them, so that what a tap sees at all outputs are
//! pixels in a row (and some between the lines, whose sums are not used).

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
        transpose::{Aligned, Square, transpose},
        vector::{load_sixteen, store_sixteen},
    },
    BLOCK, HALVES, Operand, SIDE, Steps, copies,
    layout::{Correlation, spread},
    product,
};
use crate::Precision;

/// Words of a step of a block of output channels.
const STEP: usize = BLOCK * SIDE;

/// Where an image's pixels are.
#[derive(Clone, Copy, Debug)]
struct Pixels {
    c: Correlation,
    /// Words of a pixel: two channels each.
    words: usize,
    /// Outputs with those between lines: whole tiles.
    places: usize,
}

impl Pixels {
    fn new(c: Correlation) -> Self {
        Self { c, words: spread(c.from.div_ceil(2), SIDE), places: c.places().next_multiple_of(SIDE) }
    }
    /// Blocks of 32 input channels.
    fn blocks(&self) -> usize {
        self.c.from.div_ceil(HALVES)
    }
    /// Words of a group of an image.
    fn image(&self) -> usize {
        (self.places + self.c.reach()) * self.words
    }
    /// Steps of the depth, in values of 16 bits: taps of 32 channels after those of the last ones.
    fn steps(&self) -> Vec<[usize; 2]> {
        let [kh, kw] = self.c.kernel;
        let taps = (0..kh).flat_map(|ky| (0..kw).map(move |kx| ky * self.c.period() + kx));
        let starts =
            (0..self.blocks()).flat_map(|block| taps.clone().map(move |tap| 2 * (tap * self.words + block * SIDE)));
        starts.enumerate().map(|(step, start)| [start, step * 2 * STEP]).collect()
    }
}

/// Weights as right operands [groups, blocks of output channels, steps, 2 tiles, words, channels].
struct Weights {
    pixels: Pixels,
    /// From one output channel to the next, and from one input channel to the next.
    to: usize,
    from: usize,
    /// Whether inputs and outputs change roles and kernels turn around, as gradients of inputs want.
    turned: bool,
    w: Slot,
    y: Slot,
}

impl Weights {
    /// Tasks of a group: sixteen output channels each.
    fn parts(&self) -> usize {
        self.pixels.c.to.next_multiple_of(BLOCK) / SIDE
    }
}

impl Kernel for Weights {
    fn name(&self) -> &'static str {
        "tiles of weights"
    }
    fn tasks(&self) -> usize {
        self.pixels.c.groups * self.parts()
    }
    fn scratch(&self) -> usize {
        self.pixels.c.taps() * SIDE * SIDE
    }
    fn run(&self, task: usize, memory: &Memory, scratch: &mut [f32]) {
        let c = &self.pixels.c;
        let (group, part) = (task / self.parts(), task % self.parts());
        let size = c.to * c.from * c.taps();
        let w = &memory.read(self.w)[group * size..][..size];
        let steps = self.pixels.blocks() * c.taps();
        let first = (task / 2) * steps * STEP + task % 2 * SIDE * SIDE;
        let channels = (part * SIDE).min(c.to)..(part * SIDE + SIDE).min(c.to);
        let room = &mut scratch[..self.scratch()];
        arithmetic::run(Precision::Bf16, PackWeights { kernel: self, memory, channels, w, room, first });
    }
}

struct PackWeights<'a> {
    kernel: &'a Weights,
    memory: &'a Memory,
    channels: std::ops::Range<usize>,
    w: &'a [f32],
    /// [taps, output channels, words].
    room: &'a mut [f32],
    /// Where the first tile goes.
    first: usize,
}

impl Compute for PackWeights<'_> {
    type Output = ();
    #[inline(always)]
    fn compute<S: Simd, A: Arithmetic<S>>(self, simd: S, arithmetic: A) {
        let Self { kernel, memory, channels, w, room, first } = self;
        let c = &kernel.pixels.c;
        let taps = c.taps();
        room.fill(0.0);
        for block in 0..kernel.pixels.blocks() {
            for (row, channel) in channels.clone().enumerate() {
                let w = &w[channel * kernel.to..];
                for tap in (0..taps).step_by(SIDE) {
                    let here = SIDE.min(taps - tap);
                    // Rows are input channels, columns taps.
                    let mut squares: Aligned<[Square; 2]> = Aligned([[[0.0; SIDE]; SIDE]; 2]);
                    for (i, row) in squares.as_flattened_mut().iter_mut().enumerate() {
                        let channel = block * HALVES + i;
                        if channel < c.from {
                            let from = &w[channel * kernel.from..][..taps];
                            load_sixteen(simd, &from[if kernel.turned { taps - tap - here } else { tap }..], row);
                        }
                    }
                    squares.iter_mut().for_each(|square| transpose(simd, square));
                    for i in 0..here {
                        let from = if kernel.turned { here - 1 - i } else { i };
                        // Tiles exist where registers have sixteen lanes.
                        let registers = [0, 1].map(|half| S::as_simd_f32s(&squares[half][from]).0[0]);
                        let to = &mut room[((tap + i) * SIDE + row) * SIDE..][..SIDE];
                        S::as_mut_simd_f32s(to).0[0] = arithmetic.pack(simd, registers);
                    }
                }
            }
            for (tap, words) in room.as_chunks::<{ SIDE * SIDE }>().0.iter().enumerate() {
                let mut square: Aligned<Square> = Aligned([[0.0; SIDE]; SIDE]);
                square.as_flattened_mut().copy_from_slice(words);
                transpose(simd, &mut square);
                let at = first + (block * taps + tap) * STEP;
                memory.write(kernel.y, at..at + SIDE * SIDE).copy_from_slice(square.as_flattened());
            }
        }
    }
}

/// Applies them.
struct Apply {
    name: &'static str,
    pixels: Pixels,
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
        (self.pixels.c.images / 8).clamp(1, 4)
    }
    /// Images in 16 bits; sums of a block of output channels [places, channels], and [channels, places].
    fn room(&self) -> [usize; 3] {
        [self.images() * self.pixels.image(), self.pixels.places * BLOCK, self.pixels.places * BLOCK]
    }
}

impl Kernel for Apply {
    fn name(&self) -> &'static str {
        self.name
    }
    fn work(&self) -> Work {
        Work::plain(self.pixels.c.multiply_adds())
    }
    fn tasks(&self) -> usize {
        self.pixels.c.images.div_ceil(self.images())
    }
    fn scratch(&self) -> usize {
        self.room().iter().sum()
    }
    fn run(&self, task: usize, memory: &Memory, scratch: &mut [f32]) {
        let c = &self.pixels.c;
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
        let pixels = &kernel.pixels;
        let (c, places) = (&pixels.c, pixels.places);
        let [all, sums, planes] = kernel.room();
        let (all, room) = room.split_at_mut(all);
        let (sums, room) = room.split_at_mut(sums);
        let planes = &mut room[..planes];
        let steps = Steps::new(&kernel.at);
        let blocks = c.to.div_ceil(BLOCK);
        let size = c.y[0] * c.y[1];
        for group in 0..c.groups {
            for (x, image) in x.chunks_exact(c.groups * c.input()).zip(all.chunks_exact_mut(pixels.image())) {
                fill(simd, arithmetic, pixels, &x[group * c.input()..][..c.input()], image);
            }
            for block in 0..blocks {
                let channels = chunk(block, BLOCK, c.to);
                let columns = channels.len().div_ceil(SIDE);
                let w = &weights[(group * blocks + block) * kernel.at.len() * STEP..][..kernel.at.len() * STEP];
                let right = Operand::words(w, SIDE, SIDE * SIDE);
                for (y, image) in y.chunks_exact_mut(c.groups * c.output()).zip(all.chunks_exact(pixels.image())) {
                    for place in (0..places).step_by(BLOCK) {
                        let rows = (places - place).min(BLOCK) / SIDE;
                        let left = Operand::words(&image[place * pixels.words..], pixels.words, SIDE * pixels.words);
                        let to = Target { values: &mut sums[place * BLOCK..], stride: BLOCK, accumulate: false };
                        product(tiles, [rows, columns], [left, right], steps, to);
                        turn(
                            simd,
                            &sums[place * BLOCK..][..rows * SIDE * BLOCK],
                            columns,
                            places,
                            &mut planes[place..],
                        );
                    }
                    // Sums of outputs, without those between lines.
                    for (channel, sums) in channels.clone().zip(planes.chunks_exact(places)) {
                        let channel = group * c.to + channel;
                        let bias = bias.map_or(0.0, |bias| bias[channel]);
                        let y = &mut y[channel * size..][..size];
                        for (y, sums) in y.chunks_exact_mut(c.y[1]).zip(sums.chunks(c.period())) {
                            copies::add(&sums[..c.y[1]], bias, y);
                        }
                    }
                }
            }
        }
    }
}

/// Sums [places, channels] of some tiles across to planes, which are so many places apart.
#[inline(always)]
fn turn<S: Simd>(simd: S, sums: &[f32], columns: usize, places: usize, planes: &mut [f32]) {
    for (part, sums) in sums.as_chunks::<{ SIDE * BLOCK }>().0.iter().enumerate() {
        for half in 0..columns {
            let mut square: Aligned<Square> = Aligned([[0.0; SIDE]; SIDE]);
            for (row, sums) in square.iter_mut().zip(sums.as_chunks::<BLOCK>().0) {
                load_sixteen(simd, &sums[half * SIDE..], row);
            }
            transpose(simd, &mut square);
            for (i, row) in square.iter().enumerate() {
                store_sixteen(simd, row, &mut planes[(half * SIDE + i) * places + part * SIDE..]);
            }
        }
    }
}

/// Planes of a group's channels to pixels.
#[inline(always)]
fn fill<S: Simd, A: Arithmetic<S>>(simd: S, arithmetic: A, pixels: &Pixels, x: &[f32], to: &mut [f32]) {
    let c = &pixels.c;
    let [h, w] = c.x;
    to.fill(0.0);
    let start = c.padding[0] * c.period() + c.padding[1];
    for (block, planes) in x.chunks(HALVES * h * w).enumerate() {
        let (mut line, mut column) = (0, 0);
        for pixel in (0..h * w).step_by(SIDE) {
            // Rows are channels, columns pixels.
            let mut squares: Aligned<[Square; 2]> = Aligned([[[0.0; SIDE]; SIDE]; 2]);
            for (plane, row) in planes.chunks_exact(h * w).zip(squares.as_flattened_mut()) {
                load_sixteen(simd, &plane[pixel..], row);
            }
            squares.iter_mut().for_each(|square| transpose(simd, square));
            for i in 0..SIDE.min(h * w - pixel) {
                let registers = [0, 1].map(|half| S::as_simd_f32s(&squares[half][i]).0[0]);
                let at = (start + line * c.period() + column) * pixels.words + block * SIDE;
                S::as_mut_simd_f32s(&mut to[at..at + SIDE]).0[0] = arithmetic.pack(simd, registers);
                column += 1;
                if column == w {
                    (line, column) = (line + 1, 0);
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
    let pixels = Pixels::new(c);
    let at = pixels.steps();
    let weights = plan.temporary(c.groups * c.to.div_ceil(BLOCK) * at.len() * STEP);
    let (to, from) = if turned { (c.taps(), c.to * c.taps()) } else { (c.from * c.taps(), c.taps()) };
    plan.push(Weights { pixels, to, from, turned, w, y: weights }, &[w, weights]);
    let touches: Vec<Slot> = [x, weights, y].into_iter().chain(bias).chain(epilogue.slots()).collect();
    plan.push(Apply { name, pixels, at, x, weights, bias, y, epilogue }, &touches);
}

/// x = [x, w, b].
pub(super) fn forward(plan: &mut Plan, e: &Extents, x: &[Slot], y: Slot, epilogue: Epilogue) {
    apply(plan, "convolution", Correlation::new(e), false, [x[1], x[0], y], Some(x[2]), epilogue);
}

/// x = [w, dy].
pub(in super::super) fn input_grad(plan: &mut Plan, e: &Extents, x: &[Slot], dx: Slot, epilogue: Epilogue) {
    let c = Correlation::new(e).backward();
    apply(plan, "convolution input gradient", c, true, [x[0], x[1], dx], None, epilogue);
}
