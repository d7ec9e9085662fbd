//! Convolutions as matrix products straight from the image: of any stride, for few channels.
//!
//! A padded image is split by columns modulo the stride (its phases), so that what one tap of the window sees along a line of
//! outputs lies contiguous. Panels of the product are then plain copies, or none are needed.

use std::ops::Range;

use pulp::Simd;

use super::{
    Plan,
    arithmetic::{self, Arithmetic, Compute, join_halves, join_line, join_neighbours, join_row},
    convolution::Extents,
    fusion::Epilogue,
    matrix::{Ahead, LINE, Matrix, Sums, Target, Tile, pack_panel, row_tiles, with_tile},
    memory::{Memory, Slot},
    movement::{self, chunk},
    program::{Kernel, Work},
    vector::{self, Level},
};
use crate::Precision;

/// Most taps of a panel: more are taken in equal parts. Cores with tiles (measured: Emerald Rapids) gain where a panel stays in the first-level
/// cache, others (measured: Zen 5) where sums are not read again.
fn most_taps() -> usize {
    if vector::level() == Level::Amx { 200 } else { 400 }
}

/// Largest panel's columns: copies of whole panels may reach so far beyond what they are about.
const SLACK: usize = 32;

/// Phases [channels, padded height, stride, columns] of one image.
#[derive(Clone, Copy)]
struct Phases {
    e: Extents,
    height: usize,
    /// Columns of one phase.
    across: usize,
}

impl Phases {
    fn new(e: Extents) -> Self {
        let across = (e.w + 2 * e.padding).max(e.kw).div_ceil(e.stride);
        Self { e, height: (e.h + 2 * e.padding).max(e.kh), across }
    }

    /// Values of an image, with room for copies that reach too far. What follows begins with a cache line: registers that cross one are read
    /// and written half as fast.
    fn values(&self) -> usize {
        (self.e.c * self.height * self.e.stride * self.across + SLACK).next_multiple_of(LINE)
    }

    fn fill(&self, x: &[f32], phases: &mut [f32]) {
        let e = &self.e;
        phases.fill(0.0);
        for (plane, to) in x.chunks_exact(e.h * e.w).zip(phases.chunks_exact_mut(self.height * e.stride * self.across))
        {
            let lines = to.chunks_exact_mut(e.stride * self.across).skip(e.padding);
            for (row, line) in plane.chunks_exact(e.w).zip(lines) {
                for (phase, line) in line.chunks_exact_mut(self.across).enumerate() {
                    // Column q of this phase is the image's column q·stride + phase − padding.
                    let skipped = e.padding.saturating_sub(phase).div_ceil(e.stride);
                    let first = skipped * e.stride + phase - e.padding;
                    if first >= e.w {
                        continue;
                    }
                    let from = row[first..].iter().step_by(e.stride);
                    line[skipped..].iter_mut().zip(from).for_each(|(to, from)| *to = *from);
                }
            }
        }
    }

    /// Where a tap (channel of the image, row, column) starts for the first output.
    fn tap(&self, channel: usize, ky: usize, kx: usize) -> usize {
        let e = &self.e;
        ((channel * self.height + ky) * e.stride + kx % e.stride) * self.across + kx / e.stride
    }

    /// Distance between two lines of outputs.
    fn line(&self) -> usize {
        self.e.stride * self.e.stride * self.across
    }

    /// Starts of the taps of the first group, in the order of the weights.
    fn taps(&self) -> Vec<usize> {
        let e = &self.e;
        let columns = |channel, ky| (0..e.kw).map(move |kx| (channel, ky, kx));
        let channels = (0..e.c / e.groups).flat_map(|channel| (0..e.kh).map(move |ky| (channel, ky)));
        channels.flat_map(|(channel, ky)| columns(channel, ky)).map(|(c, ky, kx)| self.tap(c, ky, kx)).collect()
    }

    /// How much later those of another group start.
    fn group(&self, group: usize) -> usize {
        group * self.e.c / self.e.groups * self.height * self.e.stride * self.across
    }
}

struct Forward {
    e: Extents,
    /// [`Phases::taps`].
    taps: Vec<usize>,
    precision: Precision,
    x: Slot,
    w: Slot,
    b: Slot,
    y: Slot,
    epilogue: Epilogue,
}

impl Forward {
    fn depth(&self) -> usize {
        self.e.window().div_ceil(self.e.window().div_ceil(most_taps()))
    }
    /// Phases, a panel, weights of all panels' depths as words, and the sums of a panel that reaches beyond the outputs.
    fn room(&self) -> [usize; 4] {
        let (width, outputs) = (Tile::new().columns, self.e.o / self.e.groups);
        let panels = self.e.window().div_ceil(self.depth());
        let words = panels * outputs * self.precision.words_of_row(self.depth());
        [Phases::new(self.e).values(), width * self.depth() + SLACK, words, width * outputs]
    }
}

impl Kernel for Forward {
    fn name(&self) -> &'static str {
        "convolution"
    }
    fn work(&self) -> Work {
        Work::plain(self.e.multiply_adds())
    }
    fn tasks(&self) -> usize {
        self.e.images
    }
    fn scratch(&self) -> usize {
        self.room().iter().sum()
    }
    fn run(&self, task: usize, memory: &Memory, scratch: &mut [f32]) {
        let e = &self.e;
        let [phases, panel, words, _] = self.room();
        let (phases, room) = scratch.split_at_mut(phases);
        let (panel, room) = room.split_at_mut(panel);
        let (words, sums) = room.split_at_mut(words);
        Phases::new(*e).fill(&memory.read(self.x)[task * e.input()..][..e.input()], phases);
        let range = task * e.output()..(task + 1) * e.output();
        let y = memory.write(self.y, range.clone());
        let (w, biases) = (memory.read(self.w), memory.read(self.b));
        let task = ForwardTask { kernel: self, phases, w, panel, words, sums, y: &mut *y };
        arithmetic::run(self.precision, task);
        for (plane, &bias) in y.chunks_exact_mut(e.pixels()).zip(biases) {
            plane.iter_mut().for_each(|v| *v += bias);
        }
        self.epilogue.apply(memory, y, range.start);
    }
}

struct ForwardTask<'a> {
    kernel: &'a Forward,
    phases: &'a [f32],
    w: &'a [f32],
    panel: &'a mut [f32],
    words: &'a mut [f32],
    sums: &'a mut [f32],
    y: &'a mut [f32],
}

impl Compute for ForwardTask<'_> {
    type Output = ();
    #[inline(always)]
    fn compute<S: Simd, A: Arithmetic<S>>(self, simd: S, arithmetic: A) {
        with_tile!(simd: S, arithmetic: A, forward_tiles(self));
    }
}

#[inline(always)]
fn forward_tiles<S: Simd, A: Arithmetic<S>, const M: usize, const N: usize>(simd: S, arithmetic: A, t: ForwardTask) {
    let e = &t.kernel.e;
    let phases = Phases::new(*e);
    let width = N * S::F32_LANES;
    let (pixels, outputs, window) = (e.pixels(), e.o / e.groups, e.window());
    for group in 0..e.groups {
        let seen = &t.phases[phases.group(group)..];
        let w = &t.w[group * outputs * window..][..outputs * window];
        let y = &mut t.y[group * outputs * pixels..][..outputs * pixels];
        let most = t.kernel.depth();
        let panels = || (0..window).step_by(most).map(|start| (start, most.min(window - start)));
        let words = outputs * A::steps(most);
        if A::STEP != 1 {
            for ((start, depth), words) in panels().zip(t.words.chunks_exact_mut(words)) {
                for (row, words) in w.chunks_exact(window).zip(words.chunks_exact_mut(A::steps(depth))) {
                    join_row(simd, arithmetic, &row[start..start + depth], words);
                }
            }
        }
        for first in (0..pixels).step_by(width) {
            let count = width.min(pixels - first);
            for (part, (start, depth)) in panels().enumerate() {
                let taps = &t.kernel.taps[start..start + depth];
                match S::F32_LANES {
                    16 => pack::<32>(&phases, seen, taps, first..first + count, t.panel),
                    8 => pack::<16>(&phases, seen, taps, first..first + count, t.panel),
                    _ => pack::<8>(&phases, seen, taps, first..first + count, t.panel),
                }
                join_halves::<S, A, N>(simd, arithmetic, &mut t.panel[..depth * width]);
                let steps = A::steps(depth);
                let left =
                    if A::STEP == 1 { (&w[start..], window) } else { (&t.words[part * words..][..words], steps) };
                let panel = &t.panel[..steps * width];
                let (values, stride) = if count == width { (&mut y[first..], pixels) } else { (&mut *t.sums, width) };
                let to = Target { values, stride, accumulate: start > 0 };
                row_tiles::<S, A, M, N>(simd, arithmetic, left, outputs, panel, to);
            }
            if count < width {
                for (row, sums) in t.sums.chunks_exact(width).enumerate().take(outputs) {
                    y[row * pixels + first..][..count].copy_from_slice(&sums[..count]);
                }
            }
        }
    }
}

/// Runs of outputs that lie side by side in the image.
struct Runs<const L: usize> {
    /// For each run its first output, counted from the first of all, and where a tap that starts at 0 sees it.
    runs: [(usize, usize); L],
    count: usize,
}

impl<const L: usize> Runs<L> {
    /// Of at most L outputs.
    #[inline(always)]
    fn new(p: &Phases, outputs: Range<usize>) -> Self {
        let mut runs = Self { runs: [(0, 0); L], count: 0 };
        let mut output = outputs.start;
        while output < outputs.end {
            let (oy, ox) = (output / p.e.ow, output % p.e.ow);
            runs.runs[runs.count] = (output - outputs.start, oy * p.line() + ox);
            runs.count += 1;
            output += p.e.ow - ox;
        }
        runs
    }
}

/// Copies what some taps, given by their starts, see at some outputs to a panel [taps, L]. Copies are as long as a row of the panel: what
/// they write too much is overwritten by the next one.
#[inline(always)]
fn pack<const L: usize>(p: &Phases, phases: &[f32], taps: &[usize], outputs: Range<usize>, panel: &mut [f32]) {
    let runs = Runs::<L>::new(p, outputs);
    for (row, tap) in taps.iter().enumerate() {
        for &(first, place) in &runs.runs[..runs.count] {
            let from: &[f32; L] = phases[tap + place..].first_chunk().expect("there is slack behind the image");
            panel[row * L + first..][..L].copy_from_slice(from);
        }
    }
}

/// x = [x, w, b].
pub(super) fn forward(plan: &mut Plan, e: Extents, x: &[Slot], y: Slot, epilogue: Epilogue) {
    let touches: Vec<Slot> = x.iter().copied().chain([y]).chain(epilogue.slots()).collect();
    let taps = Phases::new(e).taps();
    plan.push(Forward { e, taps, precision: plan.precision, x: x[0], w: x[1], b: x[2], y, epilogue }, &touches);
}

/// Lines of outputs that weight gradients take at a time: enough for sums to be read and written seldom, few enough for panels to stay near.
const LINES: usize = 4;

/// Weight gradients of a fixed part of the batch, some lines of outputs after the other: taps of the window are rows, output
/// channels columns.
struct WeightGrad {
    e: Extents,
    /// [`Phases::taps`].
    taps: Vec<usize>,
    precision: Precision,
    x: Slot,
    dy: Slot,
    partial: Slot,
    parts: usize,
}

impl WeightGrad {
    /// Phases, panels of some lines of output gradients [panels, lines, ow, columns], and sums [window, columns of all panels].
    fn room(&self) -> [usize; 3] {
        let columns = (self.e.o / self.e.groups).next_multiple_of(Tile::new().columns);
        [
            Phases::new(self.e).values(),
            columns * LINES * self.e.ow,
            columns * self.e.window().next_multiple_of(Tile::new().rows),
        ]
    }
}

impl Kernel for WeightGrad {
    fn name(&self) -> &'static str {
        "convolution weight gradient"
    }
    fn work(&self) -> Work {
        Work::plain(self.e.multiply_adds())
    }
    fn tasks(&self) -> usize {
        self.parts * self.e.groups
    }
    fn scratch(&self) -> usize {
        self.room().iter().sum()
    }
    fn run(&self, task: usize, memory: &Memory, scratch: &mut [f32]) {
        let e = &self.e;
        let (part, group) = (task / e.groups, task % e.groups);
        let [phases, panels, sums] = self.room();
        let (phases, room) = scratch.split_at_mut(phases);
        let (panels, room) = room.split_at_mut(panels);
        let sums = &mut room[..sums];
        sums.fill(0.0);
        let outputs = e.o / e.groups;
        for image in chunk(part, e.images.div_ceil(self.parts), e.images) {
            Phases::new(*e).fill(&memory.read(self.x)[image * e.input()..][..e.input()], phases);
            let dy = &memory.read(self.dy)[image * e.output() + group * outputs * e.pixels()..][..outputs * e.pixels()];
            let (phases, panels, sums) = (&mut *phases, &mut *panels, &mut *sums);
            let task = WeightGradTask { e, taps: &self.taps, group, phases, dy, panels, sums };
            arithmetic::run(self.precision, task);
        }
        let columns = outputs.next_multiple_of(Tile::new().columns);
        let size = outputs * e.window();
        let from = part * e.weights() + group * size;
        let out = memory.write(self.partial, from..from + size);
        for (output, kernel) in out.chunks_exact_mut(e.window()).enumerate() {
            for (to, sums) in kernel.iter_mut().zip(sums.chunks_exact(columns)) {
                *to = sums[output];
            }
        }
    }
}

struct WeightGradTask<'a> {
    e: &'a Extents,
    taps: &'a [usize],
    group: usize,
    phases: &'a mut [f32],
    dy: &'a [f32],
    panels: &'a mut [f32],
    sums: &'a mut [f32],
}

impl Compute for WeightGradTask<'_> {
    type Output = ();
    #[inline(always)]
    fn compute<S: Simd, A: Arithmetic<S>>(self, simd: S, arithmetic: A) {
        with_tile!(simd: S, arithmetic: A, weight_grad_tiles(self));
    }
}

#[inline(always)]
fn weight_grad_tiles<S: Simd, A: Arithmetic<S>, const M: usize, const N: usize>(
    simd: S,
    arithmetic: A,
    t: WeightGradTask,
) {
    let e = t.e;
    let phases = Phases::new(*e);
    let width = N * S::F32_LANES;
    let outputs = e.o / e.groups;
    let columns = outputs.next_multiple_of(width);
    let steps = A::steps(e.ow);
    join_line(simd, arithmetic, t.phases);
    let size = e.ow * width;
    for oy in (0..e.oh).step_by(LINES) {
        let lines = LINES.min(e.oh - oy);
        // Output gradients of the lines: [pixels, channels], a panel of channels at a time.
        for (p, panel) in t.panels.chunks_exact_mut(lines * size).take(columns / width).enumerate() {
            for (line, panel) in panel.chunks_exact_mut(size).enumerate() {
                let dy = Matrix::columns(&t.dy[(oy + line) * e.ow..], e.pixels());
                pack_panel(simd, panel, dy, p * width, outputs, 0..e.ow);
                join_neighbours::<S, A, N>(simd, arithmetic, panel);
            }
        }
        let first = phases.group(t.group) + oy * phases.line();
        // Of each plane the next lines are a short run of its own.
        let next = [&t.dy[(oy + lines) * e.ow..]];
        let row = LINES.min(e.oh - oy - lines) * e.ow;
        let tiles = e.window().div_ceil(M) * (columns / width);
        let mut ahead: Ahead = Ahead::rows(&next, row, e.pixels(), tiles);
        for tap in (0..e.window()).step_by(M) {
            // Beyond the last tap any will do: those sums are not used.
            let mut rows: [&[f32]; M] = [&[]; M];
            for (i, row) in rows.iter_mut().enumerate() {
                let start = t.taps.get(tap + i).unwrap_or(&0);
                *row = &t.phases[first + start..][..(lines - 1) * phases.line() + A::STEP * steps];
            }
            for (p, panel) in t.panels.chunks_exact(lines * size).take(columns / width).enumerate() {
                ahead.step();
                let to = &mut t.sums[tap * columns + p * width..];
                let (line, used) = (phases.line(), steps * width);
                arithmetic.vectorize(simd, LineTile::<M, N> { rows, line, right: panel, size, used, to, columns });
            }
        }
    }
}

/// Adds products of M taps at some lines and a panel of output channels to their sums, rows of which are `columns` apart: a function of its own,
/// as register tiles of matrices are.
struct LineTile<'a, const M: usize, const N: usize> {
    /// What the taps see, from one line to the next.
    rows: [&'a [f32]; M],
    line: usize,
    /// [lines, size], of which so many values of each line are used.
    right: &'a [f32],
    size: usize,
    used: usize,
    to: &'a mut [f32],
    columns: usize,
}

impl<const M: usize, const N: usize> Compute for LineTile<'_, M, N> {
    type Output = ();
    #[inline(always)]
    fn compute<S: Simd, A: Arithmetic<S>>(self, simd: S, arithmetic: A) {
        let mut sums: Sums<S, M, N> = [[simd.splat_f32s(0.0); N]; M];
        for (line, right) in self.right.chunks_exact(self.size).enumerate() {
            let right = S::as_simd_f32s(&right[..self.used]).0.as_chunks::<N>().0;
            // As long as the panel, which the compiler does not know.
            let rows = self.rows.map(|row| &row[line * self.line..][..A::STEP * right.len()]);
            for (k, right) in right.iter().enumerate() {
                for i in 0..M {
                    let value = simd.splat_f32s(rows[i][A::STEP * k]);
                    for n in 0..N {
                        sums[i][n] = arithmetic.step(simd, value, right[n], sums[i][n]);
                    }
                }
            }
        }
        for (i, sums) in sums.iter().enumerate() {
            let to = &mut self.to[i * self.columns..][..N * S::F32_LANES];
            for (to, &sum) in S::as_mut_simd_f32s(to).0.iter_mut().zip(sums) {
                *to = simd.add_f32s(*to, sum);
            }
        }
    }
}

/// Parts that a batch is split into for weight gradients. A function of the shapes alone, so that sums come out the
/// same for any number of threads; fewer for large weights, whose partial sums cost memory.
fn parts(e: &Extents) -> usize {
    let most = if e.weights() <= 32_768 { 16 } else { 8 };
    let size = e.images.div_ceil(most);
    e.images.div_ceil(size)
}

/// x = [x, dy].
pub(super) fn weight_grad(plan: &mut Plan, e: Extents, x: &[Slot], dw: Slot) {
    let (parts, precision, taps) = (parts(&e), plan.precision, Phases::new(e).taps());
    if parts == 1 {
        return plan.push(WeightGrad { e, taps, precision, x: x[0], dy: x[1], partial: dw, parts }, &[x[0], x[1], dw]);
    }
    let partial = plan.temporary(parts * e.weights());
    plan.push(WeightGrad { e, taps, precision, x: x[0], dy: x[1], partial, parts }, &[x[0], x[1], partial]);
    movement::reduce(plan, partial, parts, dw, e.weights());
}
