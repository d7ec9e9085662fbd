//! Max and average pooling, a few planes a task.

use graph::operators::{Activation, Pool};

use super::{
    Plan,
    batch_norm::Normalized,
    fusion::Epilogue,
    memory::{Memory, Slot},
    movement::{CHUNK, chunk},
    program::Kernel,
    simd::{self, dispatch},
    vector,
    windows::ByTwo,
};

#[derive(Clone, Copy)]
pub(super) struct Planes {
    pub(super) pool: Pool,
    /// Number of planes [N·C].
    count: usize,
    h: usize,
    pub(super) w: usize,
    pub(super) oh: usize,
    pub(super) ow: usize,
}

impl Planes {
    fn new(pool: Pool, x_shape: &[usize]) -> Self {
        let y = pool.output_shape(x_shape);
        Self { pool, count: x_shape[0] * x_shape[1], h: x_shape[2], w: x_shape[3], oh: y[2], ow: y[3] }
    }
    pub(super) fn input(&self) -> usize {
        self.h * self.w
    }
    pub(super) fn output(&self) -> usize {
        self.oh * self.ow
    }
    /// Whether lines can be split into even and odd pixels.
    fn by_two(&self) -> bool {
        self.pool.stride == 2 && matches!(self.pool.size, 2 | 3)
    }
    /// Planes per task.
    fn batch(&self) -> usize {
        (CHUNK / self.input()).max(1)
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Max,
    MaxGrad,
    Average,
    AverageGrad,
}

struct Pooling {
    kind: Kind,
    planes: Planes,
    x: Slot,
    /// dy of the max pool's gradient.
    dy: Option<Slot>,
    y: Slot,
    epilogue: Epilogue,
}

impl Kernel for Pooling {
    fn name(&self) -> &'static str {
        match self.kind {
            Kind::Max => "max pool",
            Kind::MaxGrad => "max pool gradient",
            Kind::Average => "average pool",
            Kind::AverageGrad => "average pool gradient",
        }
    }
    fn tasks(&self) -> usize {
        self.planes.count.div_ceil(self.planes.batch())
    }
    fn run(&self, task: usize, memory: &Memory, _: &mut [f32]) {
        let p = &self.planes;
        let range = chunk(task, p.batch(), p.count);
        let (inputs, outputs) =
            (range.start * p.input()..range.end * p.input(), range.start * p.output()..range.end * p.output());
        let x = memory.read(self.x);
        let target = if matches!(self.kind, Kind::Max | Kind::Average) { outputs.clone() } else { inputs.clone() };
        let y = memory.write(self.y, target.clone());
        match self.kind {
            Kind::Max => max_of(p, &x[inputs], y),
            Kind::Average => average_planes(p, &x[inputs], y),
            Kind::AverageGrad => average_grad_planes(p, &x[outputs], y),
            Kind::MaxGrad => {
                let dy = &memory.read(self.dy.expect("a gradient comes in"))[outputs];
                max_grad_of(p, &x[inputs], dy, y);
            }
        }
        self.epilogue.apply(memory, y, target.start);
    }
}

/// A gradient of max pooling.
#[derive(Clone, Copy)]
pub(super) struct Gradient {
    pub(super) dy: Slot,
    /// What was done last to the values that were pooled, if its gradient is wanted too.
    pub(super) activation: Option<Activation>,
}

/// Max pooling of normalized values that are made here, or its gradient, one channel a task.
struct OfNormalized {
    planes: Planes,
    x: Normalized,
    gradient: Option<Gradient>,
    /// Forward: y. Backward: dx.
    out: Slot,
    epilogue: Epilogue,
}

impl Kernel for OfNormalized {
    fn name(&self) -> &'static str {
        match self.gradient {
            None => "batch normalization and max pool",
            Some(_) => "max pool gradient",
        }
    }
    fn tasks(&self) -> usize {
        self.x.channels()
    }
    fn scratch(&self) -> usize {
        self.planes.input()
    }
    fn run(&self, task: usize, memory: &Memory, scratch: &mut [f32]) {
        let p = &self.planes;
        let x = &mut scratch[..p.input()];
        self.x.each(memory, task, |inputs, make| {
            make(x);
            let from = inputs.start / p.input() * p.output();
            let outputs = from..from + p.output();
            let target = if self.gradient.is_some() { inputs } else { outputs.clone() };
            let out = memory.write(self.out, target.clone());
            match self.gradient {
                None => max_of(p, x, out),
                Some(Gradient { dy, activation }) => {
                    max_grad_of(p, x, memory.part(dy, outputs), out);
                    if let Some(kind) = activation {
                        simd::activation_grad(kind, x, out);
                    }
                }
            }
            self.epilogue.apply(memory, out, target.start);
        });
    }
}

/// y: the largest values of some planes' windows.
fn max_of(p: &Planes, x: &[f32], y: &mut [f32]) {
    if p.by_two() {
        vector::run(ByTwo { p, x, out: y, dy: None });
    } else {
        max_planes(p, x, y);
    }
}

/// dx: dy, at the largest values.
fn max_grad_of(p: &Planes, x: &[f32], dy: &[f32], dx: &mut [f32]) {
    if p.by_two() {
        vector::run(ByTwo { p, x, out: dx, dy: Some(dy) });
    } else {
        max_grad_planes(p, x, dy, dx);
    }
}

dispatch! {
    /// Largest value of each window.
    fn max_planes(p: &Planes, x: &[f32], y: &mut [f32]) {
        let Pool { size, stride } = p.pool;
        for (x, y) in x.chunks_exact(p.input()).zip(y.chunks_exact_mut(p.output())) {
            for (oy, line) in y.chunks_exact_mut(p.ow).enumerate() {
                line.fill(f32::NEG_INFINITY);
                for ky in 0..size {
                    let row = &x[(oy * stride + ky) * p.w..][..p.w];
                    for kx in 0..size {
                        for (value, &pixel) in line.iter_mut().zip(row[kx..].iter().step_by(stride)) {
                            // NaN wins, so that a diverged network shows.
                            *value = if pixel > *value || pixel.is_nan() { pixel } else { *value };
                        }
                    }
                }
            }
        }
    }
}

/// dy goes to the first largest value of each window.
fn max_grad_planes(p: &Planes, x: &[f32], dy: &[f32], dx: &mut [f32]) {
    let Pool { size, stride } = p.pool;
    dx.fill(0.0);
    for ((x, dy), dx) in x.chunks_exact(p.input()).zip(dy.chunks_exact(p.output())).zip(dx.chunks_exact_mut(p.input()))
    {
        for oy in 0..p.oh {
            for ox in 0..p.ow {
                let corner = oy * stride * p.w + ox * stride;
                let (mut best, mut largest) = (corner, x[corner]);
                for ky in 0..size {
                    let row = corner + ky * p.w;
                    for (i, &pixel) in x[row..row + size].iter().enumerate() {
                        if pixel > largest || pixel.is_nan() {
                            (best, largest) = (row + i, pixel);
                        }
                    }
                }
                dx[best] += dy[oy * p.ow + ox];
            }
        }
    }
}

/// The first `pairs` pairs of a row.
#[inline(always)]
fn pairs(row: &[f32], pairs: usize) -> &[[f32; 2]] {
    &row.as_chunks::<2>().0[..pairs]
}

dispatch! {
    /// Mean of each window.
    fn average_planes(p: &Planes, x: &[f32], y: &mut [f32]) {
        let Pool { size, stride } = p.pool;
        let share = 1.0 / (size * size) as f32;
        for (x, y) in x.chunks_exact(p.input()).zip(y.chunks_exact_mut(p.output())) {
            for (oy, line) in y.chunks_exact_mut(p.ow).enumerate() {
                if (size, stride) == (2, 2) {
                    // Most windows are so; pairs of pixels vectorize where strided ones do not.
                    let upper = pairs(&x[2 * oy * p.w..][..p.w], p.ow);
                    let lower = pairs(&x[(2 * oy + 1) * p.w..][..p.w], p.ow);
                    for ((value, a), b) in line.iter_mut().zip(upper).zip(lower) {
                        *value = ((a[0] + a[1]) + (b[0] + b[1])) * share;
                    }
                    continue;
                }
                line.fill(0.0);
                for ky in 0..size {
                    let row = &x[(oy * stride + ky) * p.w..][..p.w];
                    for kx in 0..size {
                        for (value, pixel) in line.iter_mut().zip(row[kx..].iter().step_by(stride)) {
                            *value += pixel;
                        }
                    }
                }
                line.iter_mut().for_each(|value| *value *= share);
            }
        }
    }
}

dispatch! {
    /// dy spread evenly over each window.
    fn average_grad_planes(p: &Planes, dy: &[f32], dx: &mut [f32]) {
        let Pool { size, stride } = p.pool;
        let share = 1.0 / (size * size) as f32;
        dx.fill(0.0);
        for (dy, dx) in dy.chunks_exact(p.output()).zip(dx.chunks_exact_mut(p.input())) {
            for (oy, line) in dy.chunks_exact(p.ow).enumerate() {
                if (size, stride) == (2, 2) {
                    for row in dx[2 * oy * p.w..][..2 * p.w].chunks_exact_mut(p.w) {
                        for (pair, value) in row.as_chunks_mut::<2>().0[..p.ow].iter_mut().zip(line) {
                            *pair = [value * share; 2];
                        }
                    }
                    continue;
                }
                for ky in 0..size {
                    let row = &mut dx[(oy * stride + ky) * p.w..][..p.w];
                    for kx in 0..size {
                        for (pixel, value) in row[kx..].iter_mut().step_by(stride).zip(line) {
                            *pixel += value * share;
                        }
                    }
                }
            }
        }
    }
}

fn push(plan: &mut Plan, kernel: Pooling) {
    let touches: Vec<Slot> = [kernel.x, kernel.y].into_iter().chain(kernel.dy).chain(kernel.epilogue.slots()).collect();
    plan.push(kernel, &touches);
}

pub(super) fn max(plan: &mut Plan, pool: Pool, shape: &[usize], x: Slot, y: Slot, epilogue: Epilogue) {
    push(plan, Pooling { kind: Kind::Max, planes: Planes::new(pool, shape), x, dy: None, y, epilogue });
}

/// Max pooling of values of `shape` that are made from others, or its gradient.
pub(super) fn of_normalized(
    plan: &mut Plan,
    pool: Pool,
    shape: &[usize],
    x: Normalized,
    gradient: Option<Gradient>,
    out: Slot,
    epilogue: Epilogue,
) {
    let dy = gradient.map(|gradient| gradient.dy);
    let touches: Vec<Slot> = x.slots().chain(dy).chain([out]).chain(epilogue.slots()).collect();
    plan.push_by_channel(OfNormalized { planes: Planes::new(pool, shape), x, gradient, out, epilogue }, &touches);
}

/// x = [x, dy].
pub(super) fn max_grad(plan: &mut Plan, pool: Pool, shape: &[usize], x: &[Slot], y: Slot, epilogue: Epilogue) {
    push(plan, Pooling { kind: Kind::MaxGrad, planes: Planes::new(pool, shape), x: x[0], dy: Some(x[1]), y, epilogue });
}

pub(super) fn average(plan: &mut Plan, pool: Pool, shape: &[usize], x: Slot, y: Slot, epilogue: Epilogue) {
    push(plan, Pooling { kind: Kind::Average, planes: Planes::new(pool, shape), x, dy: None, y, epilogue });
}

/// `x_shape` is the shape of dx.
pub(super) fn average_grad(plan: &mut Plan, pool: Pool, x_shape: &[usize], dy: Slot, y: Slot, epilogue: Epilogue) {
    push(plan, Pooling { kind: Kind::AverageGrad, planes: Planes::new(pool, x_shape), x: dy, dy: None, y, epilogue });
}
