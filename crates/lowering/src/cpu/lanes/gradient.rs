//! The gradients of parameters over all blocks, and the optimizer's step on them while they are in the cache.

use graph::operators::Rule;
use pulp::{Simd, WithSimd};

use super::super::{
    Plan,
    memory::{Memory, Slot},
    movement::chunk,
    program::{Kernel, Work},
    update,
    vector::{self, Level, fma},
};

/// Values of a gradient per task that sums partial ones.
const CHUNK: usize = 1_024;
/// Outputs and inputs per task of a product of rows.
const OUTPUTS: usize = 12;
const INPUTS: usize = 512;

/// Where a gradient comes from.
#[derive(Clone, Copy)]
pub(super) enum Origin {
    /// [blocks][elements], added in order.
    Partial(Slot),
    /// dyᵀ·x over rows of images.
    Rows { dy: Slot, x: Slot, outputs: usize, inputs: usize },
}

/// Where it goes.
#[derive(Clone)]
pub(super) enum Target {
    /// A place of its own.
    Slot(Slot),
    /// Into the optimizer's step at once; slots as of [`update::apply`].
    Update(Rule, Vec<Slot>),
}

#[derive(Clone)]
pub(super) struct Gradient {
    pub(super) elements: usize,
    pub(super) origin: Origin,
    pub(super) target: Target,
}

impl Gradient {
    fn tasks(&self) -> usize {
        match self.origin {
            Origin::Partial(_) => self.elements.div_ceil(CHUNK),
            Origin::Rows { outputs, inputs, .. } => outputs.div_ceil(OUTPUTS) * inputs.div_ceil(INPUTS),
        }
    }

    fn scratch(&self) -> usize {
        match self.origin {
            Origin::Partial(_) => self.elements.min(CHUNK),
            Origin::Rows { inputs, .. } => OUTPUTS * inputs.min(INPUTS),
        }
    }

    fn slots(&self) -> Vec<Slot> {
        let mut slots = match self.origin {
            Origin::Partial(slot) => vec![slot],
            Origin::Rows { dy, x, .. } => vec![dy, x],
        };
        match &self.target {
            Target::Slot(slot) => slots.push(*slot),
            Target::Update(_, x) => slots.extend(x),
        }
        slots
    }

    /// Hands over values from `from` on.
    fn deliver(&self, memory: &Memory, from: usize, values: &[f32]) {
        let range = from..from + values.len();
        match &self.target {
            Target::Slot(slot) => memory.write(*slot, range).copy_from_slice(values),
            Target::Update(rule, x) => update::apply(*rule, x, memory, range, values),
        }
    }
}

/// Stride of rows of images that a product reads: whole vectors of inputs, whole tiles of outputs.
pub(super) fn stride(features: usize, inputs: bool) -> usize {
    features.next_multiple_of(if inputs { 32 } else { OUTPUTS })
}

struct Gradients {
    level: Level,
    images: usize,
    all: Vec<Gradient>,
}

impl Kernel for Gradients {
    fn name(&self) -> &'static str {
        "parameters"
    }
    fn work(&self) -> Work {
        let products = |gradient: &Gradient| match gradient.origin {
            Origin::Partial(_) => 0,
            Origin::Rows { outputs, inputs, .. } => self.images * outputs * inputs,
        };
        Work::plain(self.all.iter().map(products).sum())
    }
    fn tasks(&self) -> usize {
        self.all.iter().map(Gradient::tasks).sum()
    }
    fn scratch(&self) -> usize {
        self.all.iter().map(Gradient::scratch).max().unwrap_or(0)
    }
    fn run(&self, task: usize, memory: &Memory, scratch: &mut [f32]) {
        let mut task = task;
        for gradient in &self.all {
            if task < gradient.tasks() {
                return self.part(gradient, task, memory, scratch);
            }
            task -= gradient.tasks();
        }
    }
}

impl Gradients {
    fn part(&self, gradient: &Gradient, task: usize, memory: &Memory, scratch: &mut [f32]) {
        match gradient.origin {
            Origin::Partial(partial) => {
                let range = chunk(task, CHUNK, gradient.elements);
                let out = &mut scratch[..range.len()];
                let partial = memory.read(partial);
                vector::run_at(self.level, Sum { partial, elements: gradient.elements, from: range.start, out });
                gradient.deliver(memory, range.start, out);
            }
            Origin::Rows { dy, x, outputs, inputs } => {
                let across = inputs.div_ceil(INPUTS);
                let rows = chunk(task / across, OUTPUTS, outputs);
                let columns = chunk(task % across, INPUTS, inputs);
                let (dy, x) = (memory.read(dy), memory.read(x));
                let width = columns.len();
                let out = &mut scratch[..OUTPUTS * width];
                let product = Product {
                    dy: &dy[..self.images * stride(outputs, false)],
                    x: &x[..self.images * stride(inputs, true)],
                    strides: (stride(outputs, false), stride(inputs, true)),
                    first: (rows.start, columns.start),
                    rows: rows.len(),
                    width,
                    out,
                };
                vector::run_at(self.level, product);
                if across == 1 {
                    gradient.deliver(memory, rows.start * inputs, &scratch[..rows.len() * inputs]);
                    return;
                }
                for (row, values) in rows.zip(scratch.chunks_exact(width)) {
                    gradient.deliver(memory, row * inputs + columns.start, values);
                }
            }
        }
    }
}

pub(super) fn push(plan: &mut Plan, level: Level, images: usize, all: Vec<Gradient>) {
    if !all.is_empty() {
        let touches: Vec<Slot> = all.iter().flat_map(Gradient::slots).collect();
        plan.push(Gradients { level, images, all }, &touches);
    }
}

/// out = Σ partial over blocks, in order.
struct Sum<'a> {
    partial: &'a [f32],
    elements: usize,
    from: usize,
    out: &'a mut [f32],
}

impl WithSimd for Sum<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        self.out.fill(0.0);
        for part in self.partial.chunks_exact(self.elements) {
            let part = &part[self.from..self.from + self.out.len()];
            self.out.iter_mut().zip(part).for_each(|(sum, &v)| *sum += v);
        }
    }
}

/// out [rows, width] = dyᵀ·x, from the columns `first` of each on.
struct Product<'a> {
    dy: &'a [f32],
    x: &'a [f32],
    strides: (usize, usize),
    first: (usize, usize),
    rows: usize,
    width: usize,
    out: &'a mut [f32],
}

impl Product<'_> {
    /// `M` outputs, two vectors of inputs.
    #[inline(always)]
    fn tile<S: Simd, const M: usize>(&mut self, simd: S, row: usize, column: usize) {
        let zero = simd.splat_f32s(0.0);
        let mut acc = [[zero; 2]; M];
        let (o, k) = (self.first.0 + row, self.first.1 + column);
        let span = 2 * S::F32_LANES;
        for (dy, x) in self.dy.chunks_exact(self.strides.0).zip(self.x.chunks_exact(self.strides.1)) {
            let a: &[f32; M] = dy[o..o + M].try_into().expect("M values");
            let b = S::as_simd_f32s(&x[k..k + span]).0;
            let (b0, b1) = (b[0], b[1]);
            for m in 0..M {
                let a = simd.splat_f32s(a[m]);
                acc[m][0] = fma(simd, a, b0, acc[m][0]);
                acc[m][1] = fma(simd, a, b1, acc[m][1]);
            }
        }
        // An array addressed by a variable does not stay in registers while it is summed up: store a copy.
        let acc = std::hint::black_box(acc);
        let width = span.min(self.width - column);
        for m in 0..M.min(self.rows - row) {
            let out = &mut self.out[(row + m) * self.width + column..][..width];
            if width == span {
                S::as_mut_simd_f32s(out).0.copy_from_slice(&acc[m]);
            } else {
                for (i, v) in out.iter_mut().enumerate() {
                    let lanes: &[f32] = pulp::bytemuck::cast_slice(std::slice::from_ref(&acc[m][i / S::F32_LANES]));
                    *v = lanes[i % S::F32_LANES];
                }
            }
        }
    }
}

impl WithSimd for Product<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let mut column = 0;
        while column < self.width {
            let mut row = 0;
            while row < self.rows {
                // Twelve rows take twenty-four of AVX-512's registers.
                row += if S::F32_LANES == 16 {
                    self.tile::<S, OUTPUTS>(simd, row, column);
                    OUTPUTS
                } else {
                    self.tile::<S, 6>(simd, row, column);
                    6
                };
            }
            column += 2 * S::F32_LANES;
        }
    }
}
