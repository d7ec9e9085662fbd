//! Fully connected layers. Their weights are larger than any cache, so each product reads or writes them once, along rows, and
//! the step of SGD or Adam is taken while a gradient is still in cache.

use graph::operators::Rule;
use pulp::{Simd, WithSimd};

use super::{
    Plan,
    fusion::Epilogue,
    matrix::{Matrix, Target, Tile, block_depth, pack_panel, row_tiles, with_tile},
    memory::{Memory, Slot},
    movement::chunk,
    program::{Kernel, Work},
    update, vector,
};

/// Outputs of a task: a multiple of the rows of every register tile.
const OUTPUTS: usize = 48;
/// Inputs that a task of a gradient takes at a time.
const INPUTS: usize = 256;

/// x [rows, inputs] as panels [panels, inputs, columns of a panel], rows across.
struct Panels {
    x: Slot,
    y: Slot,
    rows: usize,
    inputs: usize,
}

/// Inputs that a task packs.
const PACKED: usize = 512;

impl Kernel for Panels {
    fn name(&self) -> &'static str {
        "linear inputs"
    }
    fn tasks(&self) -> usize {
        self.rows.div_ceil(Tile::new().columns) * self.inputs.div_ceil(PACKED)
    }
    fn run(&self, task: usize, memory: &Memory, _: &mut [f32]) {
        let width = Tile::new().columns;
        let parts = self.inputs.div_ceil(PACKED);
        let (panel, inputs) = (task / parts, chunk(task % parts, PACKED, self.inputs));
        let from = (panel * self.inputs + inputs.start) * width;
        let to = memory.write(self.y, from..from + inputs.len() * width);
        vector::run(Pack {
            x: Matrix::columns(memory.read(self.x), self.inputs),
            from: panel * width,
            rows: self.rows,
            depth: inputs,
            to,
        });
    }
}

struct Pack<'a> {
    x: Matrix<'a>,
    from: usize,
    rows: usize,
    depth: std::ops::Range<usize>,
    to: &'a mut [f32],
}

impl WithSimd for Pack<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        pack_panel::<S>(self.to, self.x, self.from, self.rows, self.depth);
    }
}

/// y [rows, outputs] = x wᵀ + b, some outputs a task.
struct Forward {
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
        OUTPUTS * (self.width() + 1)
    }
    fn run(&self, task: usize, memory: &Memory, scratch: &mut [f32]) {
        let outputs = chunk(task, OUTPUTS, self.outputs);
        let (sums, line) = scratch.split_at_mut(OUTPUTS * self.width());
        vector::run(ForwardTask {
            inputs: self.inputs,
            rows: outputs.len(),
            w: &memory.read(self.w)[outputs.start * self.inputs..outputs.end * self.inputs],
            panels: memory.read(self.panels),
            sums: &mut *sums,
            stride: self.width(),
        });
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
    rows: usize,
    w: &'a [f32],
    panels: &'a [f32],
    /// [outputs, stride]: rows across.
    sums: &'a mut [f32],
    stride: usize,
}

impl WithSimd for ForwardTask<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        with_tile!(simd: S, forward_tiles(self));
    }
}

#[inline(always)]
fn forward_tiles<S: Simd, const M: usize, const N: usize>(simd: S, t: ForwardTask) {
    let width = N * S::F32_LANES;
    let block = block_depth(t.inputs);
    for start in (0..t.inputs).step_by(block) {
        let depth = block.min(t.inputs - start);
        for (p, panel) in t.panels.chunks_exact(t.inputs * width).enumerate() {
            let panel = &panel[start * width..][..depth * width];
            let to = Target { values: &mut t.sums[p * width..], stride: t.stride, accumulate: start > 0 };
            row_tiles::<S, M, N>(simd, (&t.w[start..], t.inputs), t.rows, panel, to);
        }
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
    let panels = plan.temporary(rows.next_multiple_of(Tile::new().columns) * inputs);
    plan.push(Panels { x: x[0], y: panels, rows, inputs }, &[x[0], panels]);
    let touches: Vec<Slot> = [panels, x[1], x[2], y].into_iter().chain(epilogue.slots()).collect();
    plan.push(Forward { rows, inputs, outputs, panels, w: x[1], b: x[2], y, epilogue }, &touches);
}

/// dx [rows, inputs] = dy w, some inputs a task.
struct InputGrad {
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
        INPUTS * (self.depth() + self.rows)
    }
    fn run(&self, task: usize, memory: &Memory, scratch: &mut [f32]) {
        let inputs = chunk(task, INPUTS, self.inputs);
        let (panels, sums) = scratch.split_at_mut(INPUTS * self.depth());
        let sums = &mut sums[..INPUTS * self.rows];
        let dy = (memory.read(self.dy), self.outputs);
        let w = Matrix::rows(memory.read(self.w), self.inputs);
        for start in (0..self.outputs).step_by(self.depth()) {
            let depth = start..(start + self.depth()).min(self.outputs);
            vector::run(Columns {
                left: (&dy.0[start..], dy.1),
                rows: self.rows,
                right: w,
                depth,
                columns: inputs.clone(),
                panels: &mut *panels,
                sums: &mut *sums,
                accumulate: start > 0,
            });
        }
        for (row, sums) in sums.chunks_exact_mut(INPUTS).enumerate() {
            let (from, sums) = (row * self.inputs + inputs.start, &mut sums[..inputs.len()]);
            self.epilogue.apply(memory, sums, from);
            memory.write(self.dx, from..from + sums.len()).copy_from_slice(sums);
        }
    }
}

/// sums [rows, INPUTS] (+)= left [rows, depth] · right [depth, columns], of which `right` is packed here, all columns of a row at
/// a time, because its rows lie far apart.
struct Columns<'a> {
    left: (&'a [f32], usize),
    rows: usize,
    right: Matrix<'a>,
    depth: std::ops::Range<usize>,
    columns: std::ops::Range<usize>,
    panels: &'a mut [f32],
    sums: &'a mut [f32],
    accumulate: bool,
}

impl WithSimd for Columns<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        with_tile!(simd: S, column_tiles(self));
    }
}

#[inline(always)]
fn column_tiles<S: Simd, const M: usize, const N: usize>(simd: S, t: Columns) {
    let width = N * S::F32_LANES;
    let depth = t.depth.len();
    for (k, row) in t.depth.enumerate() {
        let row = &t.right.values[row * t.right.row_stride..][t.columns.clone()];
        for (panel, values) in t.panels.chunks_mut(depth * width).zip(row.chunks(width)) {
            let to = &mut panel[k * width..][..width];
            if values.len() == width {
                S::as_mut_simd_f32s(to).0.copy_from_slice(S::as_simd_f32s(values).0);
            } else {
                to[..values.len()].copy_from_slice(values);
                to[values.len()..].fill(0.0);
            }
        }
    }
    for (p, panel) in t.panels.chunks(depth * width).enumerate().take(t.columns.len().div_ceil(width)) {
        let to = Target { values: &mut t.sums[p * width..], stride: INPUTS, accumulate: t.accumulate };
        row_tiles::<S, M, N>(simd, t.left, t.rows, panel, to);
    }
}

/// x = [w, dy] → dx [rows, inputs] = dy w.
pub(super) fn input_grad(plan: &mut Plan, rows: usize, w_shape: &[usize], x: &[Slot], dx: Slot, epilogue: Epilogue) {
    let (outputs, inputs) = (w_shape[0], w_shape[1..].iter().product());
    let touches: Vec<Slot> = [x[0], x[1], dx].into_iter().chain(epilogue.slots()).collect();
    plan.push(InputGrad { rows, inputs, outputs, w: x[0], dy: x[1], dx, epilogue }, &touches);
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
        OUTPUTS * self.rows + INPUTS * (self.depth() + OUTPUTS)
    }
    fn run(&self, task: usize, memory: &Memory, scratch: &mut [f32]) {
        let outputs = chunk(task, OUTPUTS, self.outputs);
        let (left, room) = scratch.split_at_mut(OUTPUTS * self.rows);
        let (panels, sums) = room.split_at_mut(INPUTS * self.depth());
        let dy = memory.read(self.dy);
        for (row, dy) in dy.chunks_exact(self.outputs).enumerate() {
            for (i, &value) in dy[outputs.clone()].iter().enumerate() {
                left[i * self.rows + row] = value;
            }
        }
        let x = Matrix::rows(memory.read(self.x), self.inputs);
        for part in 0..self.inputs.div_ceil(INPUTS) {
            let inputs = chunk(part, INPUTS, self.inputs);
            for start in (0..self.rows).step_by(self.depth()) {
                vector::run(Columns {
                    left: (&left[start..], self.rows),
                    rows: outputs.len(),
                    right: x,
                    depth: start..(start + self.depth()).min(self.rows),
                    columns: inputs.clone(),
                    panels: &mut *panels,
                    sums: &mut *sums,
                    accumulate: start > 0,
                });
            }
            for (output, g) in outputs.clone().zip(sums.chunks_exact(INPUTS)) {
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
    plan.push(WeightGrad { rows, inputs, outputs, x: x[0], dy: x[1], then: Use::Keep(dw) }, &[x[0], x[1], dw]);
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
    let touches: Vec<Slot> = x.iter().chain(update).copied().collect();
    let then = Use::Update(rule, update.to_vec());
    plan.push(WeightGrad { rows, inputs, outputs, x: x[0], dy: x[1], then }, &touches);
}
