//! Copies, fills and sums.

use super::{
    Plan,
    memory::{Memory, Slot},
    program::Kernel,
    simd,
};

/// Values per task of a kernel that only moves or transforms them.
pub(crate) const CHUNK: usize = 16_384;

/// The task's range of `elements` values.
pub(crate) fn chunk(task: usize, size: usize, elements: usize) -> std::ops::Range<usize> {
    task * size..((task + 1) * size).min(elements)
}

struct Fill {
    value: f32,
    y: Slot,
    elements: usize,
}

impl Kernel for Fill {
    fn name(&self) -> &'static str {
        "fill"
    }
    fn tasks(&self) -> usize {
        self.elements.div_ceil(CHUNK)
    }
    fn run(&self, task: usize, memory: &Memory, _: &mut [f32]) {
        memory.write(self.y, chunk(task, CHUNK, self.elements)).fill(self.value);
    }
}

pub(super) fn fill(plan: &mut Plan, value: f32, y: Slot, elements: usize) {
    plan.push(Fill { value, y, elements }, &[y]);
}

struct Copy {
    x: Slot,
    from: usize,
    y: Slot,
    to: usize,
    elements: usize,
}

impl Kernel for Copy {
    fn name(&self) -> &'static str {
        "copy"
    }
    fn tasks(&self) -> usize {
        self.elements.div_ceil(CHUNK)
    }
    fn run(&self, task: usize, memory: &Memory, _: &mut [f32]) {
        let range = chunk(task, CHUNK, self.elements);
        let x = &memory.read(self.x)[self.from + range.start..self.from + range.end];
        memory.write(self.y, self.to + range.start..self.to + range.end).copy_from_slice(x);
    }
}

/// y = x\[from..from + elements\].
pub(super) fn copy(plan: &mut Plan, x: Slot, from: usize, y: Slot, elements: usize) {
    plan.push(Copy { x, from, y, to: 0, elements }, &[x, y]);
}

/// y [2, C] = rows a and b.
pub(super) fn stack(plan: &mut Plan, a: Slot, b: Slot, y: Slot, channels: usize) {
    plan.push(Copy { x: a, from: 0, y, to: 0, elements: channels }, &[a, y]);
    plan.push(Copy { x: b, from: 0, y, to: channels, elements: channels }, &[b, y]);
}

/// Sum of each channel's planes, one channel a task.
struct PlaneSum {
    x: Slot,
    y: Slot,
    images: usize,
    channels: usize,
    plane: usize,
}

impl Kernel for PlaneSum {
    fn name(&self) -> &'static str {
        "bias gradient"
    }
    fn tasks(&self) -> usize {
        self.channels
    }
    fn run(&self, task: usize, memory: &Memory, _: &mut [f32]) {
        let starts = (0..self.images).map(|n| (n * self.channels + task) * self.plane);
        let planes = starts.map(|start| memory.part(self.x, start..start + self.plane));
        memory.write(self.y, task..task + 1)[0] = planes.map(|plane| f64::from(simd::sum(plane))).sum::<f64>() as f32;
    }
}

/// Columns per task of [`ColumnSum`].
const COLUMNS: usize = 256;

/// Sum over the rows of a matrix [rows, columns].
struct ColumnSum {
    x: Slot,
    y: Slot,
    rows: usize,
    columns: usize,
}

impl Kernel for ColumnSum {
    fn name(&self) -> &'static str {
        "bias gradient"
    }
    fn tasks(&self) -> usize {
        self.columns.div_ceil(COLUMNS)
    }
    fn run(&self, task: usize, memory: &Memory, _: &mut [f32]) {
        let range = chunk(task, COLUMNS, self.columns);
        let x = memory.read(self.x);
        let y = memory.write(self.y, range.clone());
        y.fill(0.0);
        for row in 0..self.rows {
            simd::add(y, &x[row * self.columns + range.start..row * self.columns + range.end]);
        }
    }
}

pub(super) fn channel_sum(plan: &mut Plan, x: Slot, shape: &[usize], y: Slot) {
    let plane = shape[2..].iter().product();
    if plane == 1 {
        plan.push(ColumnSum { x, y, rows: shape[0], columns: shape[1] }, &[x, y]);
    } else {
        plan.push_by_channel(PlaneSum { x, y, images: shape[0], channels: shape[1], plane }, &[x, y]);
    }
}

/// Adds partial results in their order, whatever thread made them: y = Σ partial\[i\].
struct Reduce {
    partial: Slot,
    y: Slot,
    parts: usize,
    elements: usize,
}

impl Kernel for Reduce {
    fn name(&self) -> &'static str {
        "weight gradient sum"
    }
    fn tasks(&self) -> usize {
        self.elements.div_ceil(CHUNK)
    }
    fn run(&self, task: usize, memory: &Memory, _: &mut [f32]) {
        let range = chunk(task, CHUNK, self.elements);
        let partial = memory.read(self.partial);
        let y = memory.write(self.y, range.clone());
        y.copy_from_slice(&partial[range.clone()]);
        for part in 1..self.parts {
            simd::add(y, &partial[part * self.elements + range.start..part * self.elements + range.end]);
        }
    }
}

pub(super) fn reduce(plan: &mut Plan, partial: Slot, parts: usize, y: Slot, elements: usize) {
    plan.push(Reduce { partial, y, parts, elements }, &[partial, y]);
}
