//! Fully connected layers. Their weights are larger than any cache, so each product reads or writes them once, along rows, and
//! the step of SGD or Adam is taken while a gradient is still in cache.

use graph::operators::Rule;
use pulp::Simd;

use super::{
    Plan,
    amx::linear::{self as tiled, Layer},
    arithmetic::{self, Arithmetic, Compute, join_halves, join_row},
    fusion::Epilogue,
    matrix::{Ahead, Matrix, Target, Tile, block_depth, pack_panel, row_tiles_ahead, with_tile},
    memory::{Memory, Slot},
    movement::chunk,
    program::{Kernel, Work},
    update,
    vector::prefetch_all,
};
use crate::Precision;

/// Outputs of a task: a multiple of the rows of every register tile.
const OUTPUTS: usize = 48;
/// Inputs of a task of an input gradient.
const INPUTS: usize = 256;
/// Inputs whose weight gradients a task computes at a time: they stay in the first-level cache until the update has read them.
const UPDATED: usize = 128;

/// x [rows, inputs] as panels [panels, inputs, columns of a panel], rows across, or as panels of words of each block of inputs.
struct Panels {
    precision: Precision,
    x: Slot,
    y: Slot,
    rows: usize,
    inputs: usize,
}

impl Panels {
    /// Values or words of a panel's column.
    fn words(precision: Precision, inputs: usize) -> usize {
        let block = block_depth(inputs);
        let words = |depth: usize| depth.div_ceil(precision.step());
        inputs / block * words(block) + words(inputs % block)
    }
}

impl Kernel for Panels {
    fn name(&self) -> &'static str {
        "linear inputs"
    }
    fn tasks(&self) -> usize {
        self.rows.div_ceil(Tile::new().columns) * self.inputs.div_ceil(block_depth(self.inputs))
    }
    fn scratch(&self) -> usize {
        block_depth(self.inputs) * Tile::new().columns
    }
    fn run(&self, task: usize, memory: &Memory, scratch: &mut [f32]) {
        let (width, block) = (Tile::new().columns, block_depth(self.inputs));
        let parts = self.inputs.div_ceil(block);
        let (panel, part) = (task / parts, task % parts);
        let depth = chunk(part, block, self.inputs);
        let step = self.precision.step();
        let from = panel * Self::words(self.precision, self.inputs) + part * block.div_ceil(step);
        let to = memory.write(self.y, from * width..(from + depth.len().div_ceil(step)) * width);
        let x = Matrix::columns(memory.read(self.x), self.inputs);
        let room = &mut scratch[..depth.len() * width];
        arithmetic::run(self.precision, Pack { x, from: panel * width, rows: self.rows, depth, room, to });
    }
}

struct Pack<'a> {
    x: Matrix<'a>,
    from: usize,
    rows: usize,
    depth: std::ops::Range<usize>,
    room: &'a mut [f32],
    to: &'a mut [f32],
}

impl Compute for Pack<'_> {
    type Output = ();
    #[inline(always)]
    fn compute<S: Simd, A: Arithmetic<S>>(self, simd: S, arithmetic: A) {
        pack_panel(simd, self.room, self.x, self.from, self.rows, self.depth);
        join_halves::<S, A, 2>(simd, arithmetic, self.room);
        self.to.copy_from_slice(&self.room[..self.to.len()]);
    }
}

/// y [rows, outputs] = x wᵀ + b, some outputs a task.
struct Forward {
    precision: Precision,
    rows: usize,
    inputs: usize,
    outputs: usize,
    panels: Slot,
    w: Slot,
    b: Slot,
    y: Slot,
    epilogue: Epilogue,
}

impl Forward {
    fn width(&self) -> usize {
        self.rows.next_multiple_of(Tile::new().columns)
    }
    /// Words of a block of a task's weights.
    fn words(&self) -> usize {
        OUTPUTS * self.precision.words_of_row(block_depth(self.inputs))
    }
}

impl Kernel for Forward {
    fn name(&self) -> &'static str {
        "linear"
    }
    fn work(&self) -> Work {
        Work::plain(self.rows * self.inputs * self.outputs)
    }
    fn tasks(&self) -> usize {
        self.outputs.div_ceil(OUTPUTS)
    }
    fn scratch(&self) -> usize {
        OUTPUTS * (self.width() + 1) + self.words()
    }
    fn run(&self, task: usize, memory: &Memory, scratch: &mut [f32]) {
        let outputs = chunk(task, OUTPUTS, self.outputs);
        let (sums, room) = scratch.split_at_mut(OUTPUTS * self.width());
        let (words, line) = room.split_at_mut(self.words());
        let task = ForwardTask {
            inputs: self.inputs,
            words,
            rows: outputs.len(),
            w: &memory.read(self.w)[outputs.start * self.inputs..outputs.end * self.inputs],
            panels: memory.read(self.panels),
            sums: &mut *sums,
            stride: self.width(),
        };
        arithmetic::run(self.precision, task);
        let bias = &memory.read(self.b)[outputs.clone()];
        let line = &mut line[..outputs.len()];
        for row in 0..self.rows {
            for ((value, sums), bias) in line.iter_mut().zip(sums.chunks_exact(self.width())).zip(bias) {
                *value = sums[row] + bias;
            }
            let from = row * self.outputs + outputs.start;
            self.epilogue.apply(memory, line, from);
            memory.write(self.y, from..from + line.len()).copy_from_slice(line);
        }
    }
}

struct ForwardTask<'a> {
    inputs: usize,
    words: &'a mut [f32],
    rows: usize,
    w: &'a [f32],
    panels: &'a [f32],
    /// [outputs, stride]: rows across.
    sums: &'a mut [f32],
    stride: usize,
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
    let width = N * S::F32_LANES;
    let block = block_depth(t.inputs);
    let mut done = 0;
    let panels = t.stride / width;
    for start in (0..t.inputs).step_by(block) {
        let depth = block.min(t.inputs - start);
        let steps = A::steps(depth);
        let next = start + depth;
        let calls = panels * t.rows.div_ceil(M);
        let following = [t.w.get(next..).unwrap_or(&[])];
        let mut ahead = match t.inputs.saturating_sub(next) {
            0 => Ahead::NOTHING,
            left => Ahead::rows(&following, left.min(block), t.inputs, calls * steps),
        };
        // Products by tiles are over before a block could come in meanwhile.
        let tiles = arithmetic.tiles().is_some();
        if tiles {
            ahead = Ahead::NOTHING;
        }
        let left = if A::STEP == 1 {
            (&t.w[start..], t.inputs)
        } else {
            for (row, words) in t.w.chunks_exact(t.inputs).zip(t.words.chunks_exact_mut(steps)) {
                if tiles {
                    prefetch_all(&row[next..t.inputs.min(next + block)]);
                }
                join_row(simd, arithmetic, &row[start..start + depth], words);
            }
            (&*t.words, steps)
        };
        for (p, panel) in t.panels.chunks_exact(t.panels.len() / panels).enumerate() {
            let panel = &panel[done * width..][..steps * width];
            let to = Target { values: &mut t.sums[p * width..], stride: t.stride, accumulate: start > 0 };
            row_tiles_ahead::<S, A, M, N>(simd, arithmetic, left, t.rows, panel, &mut ahead, to);
        }
        done += steps;
    }
}

/// x = [x, w, b] → y [rows, outputs] = x wᵀ + b.
pub(super) fn forward(
    plan: &mut Plan,
    rows: usize,
    inputs: usize,
    outputs: usize,
    x: &[Slot],
    y: Slot,
    epilogue: Epilogue,
) {
    if let Some(tiles) = plan.tiles_of(x[1]) {
        return tiled::forward(plan, Layer { rows, inputs, outputs }, x, tiles, y, epilogue);
    }
    let precision = plan.precision;
    let panels = plan.temporary(rows.next_multiple_of(Tile::new().columns) * Panels::words(precision, inputs));
    plan.push(Panels { precision, x: x[0], y: panels, rows, inputs }, &[x[0], panels]);
    let touches: Vec<Slot> = [panels, x[1], x[2], y].into_iter().chain(epilogue.slots()).collect();
    plan.push(Forward { precision, rows, inputs, outputs, panels, w: x[1], b: x[2], y, epilogue }, &touches);
}

/// dx [rows, inputs] = dy w, some inputs a task.
struct InputGrad {
    precision: Precision,
    rows: usize,
    inputs: usize,
    outputs: usize,
    w: Slot,
    dy: Slot,
    dx: Slot,
    epilogue: Epilogue,
}

impl InputGrad {
    fn depth(&self) -> usize {
        block_depth(self.outputs)
    }
    /// Words of a block of a row of output gradients.
    fn words(&self) -> usize {
        self.precision.words_of_row(self.depth())
    }
}

impl Kernel for InputGrad {
    fn name(&self) -> &'static str {
        "linear input gradient"
    }
    fn work(&self) -> Work {
        Work::plain(self.rows * self.inputs * self.outputs)
    }
    fn tasks(&self) -> usize {
        self.inputs.div_ceil(INPUTS)
    }
    fn scratch(&self) -> usize {
        INPUTS * (self.depth() + self.rows) + self.rows * self.words()
    }
    fn run(&self, task: usize, memory: &Memory, scratch: &mut [f32]) {
        let inputs = chunk(task, INPUTS, self.inputs);
        let (panels, room) = scratch.split_at_mut(INPUTS * self.depth());
        let (sums, words) = room.split_at_mut(INPUTS * self.rows);
        let words = &mut words[..self.rows * self.words()];
        let dy = (memory.read(self.dy), self.outputs);
        let w = Matrix::rows(memory.read(self.w), self.inputs);
        for start in (0..self.outputs).step_by(self.depth()) {
            let depth = start..(start + self.depth()).min(self.outputs);
            let next = depth.end..(depth.end + self.depth()).min(self.outputs);
            let next = match next.is_empty() {
                true => &[][..],
                false => &w.values[next.start * self.inputs + inputs.start..next.end * self.inputs],
            };
            let columns = Columns {
                left: (&dy.0[start..], dy.1),
                words: &mut *words,
                rows: self.rows,
                right: w,
                depth,
                columns: inputs.clone(),
                panels: &mut *panels,
                sums: &mut *sums,
                stride: INPUTS,
                accumulate: start > 0,
                next,
                ahead: &[],
            };
            arithmetic::run(self.precision, columns);
        }
        for (row, sums) in sums.chunks_exact_mut(INPUTS).enumerate() {
            let (from, sums) = (row * self.inputs + inputs.start, &mut sums[..inputs.len()]);
            self.epilogue.apply(memory, sums, from);
            memory.write(self.dx, from..from + sums.len()).copy_from_slice(sums);
        }
    }
}

/// sums [rows, stride] (+)= left [rows, depth] · right [depth, columns], of which `right` is packed here, all columns of a row at
/// a time, because its rows lie far apart.
struct Columns<'a> {
    left: (&'a [f32], usize),
    /// Room for words of `left`.
    words: &'a mut [f32],
    rows: usize,
    right: Matrix<'a>,
    depth: std::ops::Range<usize>,
    columns: std::ops::Range<usize>,
    panels: &'a mut [f32],
    sums: &'a mut [f32],
    stride: usize,
    accumulate: bool,
    /// What is wanted next of `right`, from the first value on, and of other matrices with rows as long and as far apart.
    next: &'a [f32],
    ahead: &'a [&'a [f32]],
}

impl Compute for Columns<'_> {
    type Output = ();
    #[inline(always)]
    fn compute<S: Simd, A: Arithmetic<S>>(self, simd: S, arithmetic: A) {
        with_tile!(simd: S, arithmetic: A, column_tiles(self));
    }
}

#[inline(always)]
fn column_tiles<S: Simd, A: Arithmetic<S>, const M: usize, const N: usize>(simd: S, arithmetic: A, t: Columns) {
    let width = N * S::F32_LANES;
    let depth = t.depth.len();
    let steps = A::steps(depth);
    let row = |k: usize| &t.right.values[k * t.right.row_stride..][t.columns.clone()];
    // Products by tiles are over before a block could come in meanwhile.
    let next = if arithmetic.tiles().is_some() { t.next } else { &[] };
    for step in 0..steps {
        for row in [step, step + steps].map(|row| next.get(row * t.right.row_stride..).unwrap_or(&[])) {
            prefetch_all(&row[..t.columns.len().min(row.len())]);
        }
        let low = row(t.depth.start + step);
        let high = if A::STEP == 2 && step + steps < depth { row(t.depth.start + step + steps) } else { &[] };
        for (p, values) in low.chunks(width).enumerate() {
            let next = high.get(p * width..p * width + values.len()).unwrap_or(&[]);
            // What lies beyond the last column, or the last row, is zero.
            let padded;
            let [values, next] = if A::STEP == 1 && values.len() == width {
                [values, values]
            } else if next.len() == width {
                [values, next]
            } else {
                let mut both = [[0.0; 32]; 2];
                both[0][..values.len()].copy_from_slice(values);
                both[1][..next.len()].copy_from_slice(next);
                padded = both;
                [&padded[0][..width], &padded[1][..width]]
            };
            let to = &mut t.panels[(p * steps + step) * width..][..width];
            let ((low, _), (high, _)) = (S::as_simd_f32s(values), S::as_simd_f32s(next));
            for ((to, &low), &high) in S::as_mut_simd_f32s(to).0.iter_mut().zip(low).zip(high) {
                *to = arithmetic.join(simd, [low, high]);
            }
        }
    }
    let left = if A::STEP == 1 {
        t.left
    } else {
        for (row, words) in t.left.0.chunks(t.left.1).zip(t.words.chunks_exact_mut(steps)).take(t.rows) {
            join_row(simd, arithmetic, &row[..depth], words);
        }
        (&*t.words, steps)
    };
    let panels = t.columns.len().div_ceil(width);
    let calls = panels * t.rows.div_ceil(M);
    let right = [t.next];
    let wanted = match (t.next.is_empty(), arithmetic.tiles()) {
        (true, _) => t.ahead,
        (false, None) => &right,
        (false, Some(_)) => &[],
    };
    let mut ahead = Ahead::rows(wanted, t.columns.len(), t.right.row_stride, calls * steps);
    for (p, panel) in t.panels.chunks(steps * width).enumerate().take(panels) {
        let to = Target { values: &mut t.sums[p * width..], stride: t.stride, accumulate: t.accumulate };
        row_tiles_ahead::<S, A, M, N>(simd, arithmetic, left, t.rows, panel, &mut ahead, to);
    }
}

/// x = [w, dy] → dx [rows, inputs] = dy w.
pub(super) fn input_grad(plan: &mut Plan, rows: usize, w_shape: &[usize], x: &[Slot], dx: Slot, epilogue: Epilogue) {
    let (outputs, inputs) = (w_shape[0], w_shape[1..].iter().product());
    if let Some(tiles) = plan.tiles_of(x[0]) {
        return tiled::input_grad(plan, Layer { rows, inputs, outputs }, x, tiles, dx, epilogue);
    }
    let touches: Vec<Slot> = [x[0], x[1], dx].into_iter().chain(epilogue.slots()).collect();
    let precision = plan.precision;
    plan.push(InputGrad { precision, rows, inputs, outputs, w: x[0], dy: x[1], dx, epilogue }, &touches);
}

/// What becomes of a weight gradient.
enum Use {
    /// It is kept.
    Keep(Slot),
    /// The optimizer takes its step at once, with these inputs of [`update::apply`].
    Update(Rule, Vec<Slot>),
}

/// dw [outputs, inputs] = dyᵀ x, some outputs a task.
struct WeightGrad {
    precision: Precision,
    rows: usize,
    inputs: usize,
    outputs: usize,
    x: Slot,
    dy: Slot,
    then: Use,
}

impl WeightGrad {
    fn depth(&self) -> usize {
        block_depth(self.rows)
    }
    /// Words of a block of an output's gradients.
    fn words(&self) -> usize {
        self.precision.words_of_row(self.depth())
    }
}

impl Kernel for WeightGrad {
    fn name(&self) -> &'static str {
        match self.then {
            Use::Keep(_) => "linear weight gradient",
            Use::Update(..) => "linear weight gradient and update",
        }
    }
    fn work(&self) -> Work {
        Work::plain(self.rows * self.inputs * self.outputs)
    }
    fn tasks(&self) -> usize {
        self.outputs.div_ceil(OUTPUTS)
    }
    fn scratch(&self) -> usize {
        OUTPUTS * (self.rows + self.words()) + UPDATED * (self.depth() + OUTPUTS)
    }
    fn run(&self, task: usize, memory: &Memory, scratch: &mut [f32]) {
        let outputs = chunk(task, OUTPUTS, self.outputs);
        let (left, room) = scratch.split_at_mut(OUTPUTS * self.rows);
        let (panels, room) = room.split_at_mut(UPDATED * self.depth());
        let (sums, words) = room.split_at_mut(UPDATED * OUTPUTS);
        let dy = memory.read(self.dy);
        for (row, dy) in dy.chunks_exact(self.outputs).enumerate() {
            for (i, &value) in dy[outputs.clone()].iter().enumerate() {
                left[i * self.rows + row] = value;
            }
        }
        let x = Matrix::rows(memory.read(self.x), self.inputs);
        for part in 0..self.inputs.div_ceil(UPDATED) {
            let inputs = chunk(part, UPDATED, self.inputs);
            // What the update will touch.
            let mut states: [&[f32]; update::STATES] = [&[]; update::STATES];
            let mut count = 0;
            if let Use::Update(rule, slots) = &self.then {
                for slot in update::states(*rule, slots) {
                    let rows = outputs.start * self.inputs + inputs.start..outputs.end * self.inputs;
                    (states[count], count) = (memory.write(slot, rows), count + 1);
                }
            }
            for start in (0..self.rows).step_by(self.depth()) {
                let columns = Columns {
                    left: (&left[start..], self.rows),
                    words: &mut *words,
                    rows: outputs.len(),
                    right: x,
                    depth: start..(start + self.depth()).min(self.rows),
                    columns: inputs.clone(),
                    panels: &mut *panels,
                    sums: &mut *sums,
                    stride: UPDATED,
                    accumulate: start > 0,
                    next: &[],
                    ahead: if start == 0 { &states[..count] } else { &[] },
                };
                arithmetic::run(self.precision, columns);
            }
            for (output, g) in outputs.clone().zip(sums.chunks_exact(UPDATED)) {
                let range = output * self.inputs + inputs.start..output * self.inputs + inputs.end;
                let g = &g[..inputs.len()];
                match &self.then {
                    Use::Keep(dw) => memory.write(*dw, range).copy_from_slice(g),
                    Use::Update(rule, slots) => update::apply(*rule, slots, memory, range, g),
                }
            }
        }
    }
}

/// x = [x, dy] → dw [outputs, inputs] = dyᵀ x.
pub(super) fn weight_grad(plan: &mut Plan, rows: usize, w_shape: &[usize], x: &[Slot], dw: Slot) {
    let (outputs, inputs) = (w_shape[0], w_shape[1..].iter().product());
    let (precision, then) = (plan.precision, Use::Keep(dw));
    plan.push(WeightGrad { precision, rows, inputs, outputs, x: x[0], dy: x[1], then }, &[x[0], x[1], dw]);
}

/// x = [x, dy]; `update` = [w, anything, hyper, moments…]: the optimizer's step with dw = dyᵀ x, which is never stored.
pub(super) fn weight_grad_and_update(
    plan: &mut Plan,
    rows: usize,
    w_shape: &[usize],
    x: &[Slot],
    rule: Rule,
    update: &[Slot],
) {
    let (outputs, inputs) = (w_shape[0], w_shape[1..].iter().product());
    if let Some(tiles) = plan.tiles_of(update[0]) {
        return tiled::update(plan, Layer { rows, inputs, outputs }, x, rule, update, tiles);
    }
    let touches: Vec<Slot> = x.iter().chain(update).copied().collect();
    let then = Use::Update(rule, update.to_vec());
    let precision = plan.precision;
    plan.push(WeightGrad { precision, rows, inputs, outputs, x: x[0], dy: x[1], then }, &touches);
}
