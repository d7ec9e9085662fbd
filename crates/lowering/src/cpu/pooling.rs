//! Max and average pooling, a few planes a task.

use graph::operators::{Activation, Pool};
use pulp::{Simd, WithSimd};

use super::{
    Plan,
    batch_norm::Normalized,
    fusion::Epilogue,
    memory::{Memory, Slot},
    movement::{CHUNK, chunk},
    program::Kernel,
    simd::{self, dispatch},
    transpose::split_pairs,
    vector::{self, load_sixteen, store_sixteen},
};

#[derive(Clone, Copy)]
pub(crate) struct Planes {
    pool: Pool,
    /// Number of planes [N·C].
    count: usize,
    h: usize,
    w: usize,
    oh: usize,
    ow: usize,
}

impl Planes {
    fn new(pool: Pool, x_shape: &[usize]) -> Self {
        let y = pool.output_shape(x_shape);
        Self { pool, count: x_shape[0] * x_shape[1], h: x_shape[2], w: x_shape[3], oh: y[2], ow: y[3] }
    }
    fn input(&self) -> usize {
        self.h * self.w
    }
    fn output(&self) -> usize {
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

/// Max pooling of normalized values that are made here, one channel a task.
struct MaxOfNormalized {
    planes: Planes,
    x: Normalized,
    y: Slot,
    epilogue: Epilogue,
}

impl Kernel for MaxOfNormalized {
    fn name(&self) -> &'static str {
        "batch normalization and max pool"
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
        self.x.each(memory, task, |range, make| {
            make(x);
            let from = range.start / p.input() * p.output();
            let y = memory.write(self.y, from..from + p.output());
            max_of(p, x, y);
            self.epilogue.apply(memory, y, from);
        });
    }
}

/// The gradient of [`MaxOfNormalized`] for the normalized values or, with an activation, for what it was applied to.
struct MaxGradOfNormalized {
    planes: Planes,
    x: Normalized,
    activation: Option<Activation>,
    dy: Slot,
    dx: Slot,
    epilogue: Epilogue,
}

impl Kernel for MaxGradOfNormalized {
    fn name(&self) -> &'static str {
        "max pool gradient"
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
        self.x.each(memory, task, |range, make| {
            make(x);
            let from = range.start / p.input() * p.output();
            let dx = memory.write(self.dx, range.clone());
            max_grad_of(p, x, memory.part(self.dy, from..from + p.output()), dx);
            if let Some(kind) = self.activation {
                simd::activation_grad(kind, x, dx);
            }
            self.epilogue.apply(memory, dx, range.start);
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

/// Outputs of a line that are worked on together: sixteen fill whole registers of every level.
const LINE: usize = 16;

/// Pixels of a row that windows of three, two apart, see for a line of outputs.
const REACH: usize = 2 * LINE + 1;

/// Every second pixel of a row from the first, the second and the third on, so that each column of windows with stride 2 is whole registers.
#[derive(Clone, Copy)]
struct Columns([[f32; LINE]; 3]);

impl Columns {
    /// Of the pixels from `from` on. Where a plane goes on behind what the windows see, what is there is taken too, and where it ends,
    /// zeros: neither counts, since outputs behind the last are not used.
    #[inline(always)]
    fn split<S: Simd>(simd: S, plane: &[f32], from: usize) -> Self {
        let mut beyond = [0.0; REACH];
        let pixels: &[f32; REACH] = plane[from..].first_chunk().unwrap_or_else(|| {
            let rest = &plane[from..];
            beyond[..rest.len()].copy_from_slice(rest);
            &beyond
        });
        // The third column is what the odd pixels are one pixel later.
        let [first, second] = split_pairs(simd, pixels.first_chunk().expect("more pixels than these"));
        let [_, third] = split_pairs(simd, pixels.last_chunk().expect("more pixels than these"));
        Self([first, second, third])
    }

    /// The pixels that column `kx` of the windows sees.
    #[inline(always)]
    fn column(&self, kx: usize) -> &[f32] {
        &self.0[kx]
    }
}

/// Max pooling and its gradient for windows of 2×2 or 3×3 pixels with stride 2.
struct ByTwo<'a> {
    p: &'a Planes,
    x: &'a [f32],
    /// Forward: y. Backward: dx.
    out: &'a mut [f32],
    dy: Option<&'a [f32]>,
}

impl WithSimd for ByTwo<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let p = self.p;
        match self.dy {
            None => {
                for (x, y) in self.x.chunks_exact(p.input()).zip(self.out.chunks_exact_mut(p.output())) {
                    max_plane(simd, p, x, y);
                }
            }
            Some(dy) => {
                let planes = self.x.chunks_exact(p.input()).zip(dy.chunks_exact(p.output()));
                for ((x, dy), dx) in planes.zip(self.out.chunks_exact_mut(p.input())) {
                    dx.fill(0.0);
                    max_grad_plane(simd, p, x, dy, dx);
                }
            }
        }
    }
}

/// Largest value of each window of part of a line, and the number of the tap that has it. NaN wins, so that a diverged
/// network shows.
#[inline(always)]
fn largest<S: Simd>(simd: S, size: usize, rows: &[Columns; 3], n: usize) -> (S::f32s, S::f32s) {
    let mut best = simd.splat_f32s(f32::NEG_INFINITY);
    let mut winner = simd.splat_f32s(0.0);
    for (ky, row) in rows.iter().enumerate().take(size) {
        for kx in 0..size {
            let pixel = S::as_simd_f32s(row.column(kx)).0[n];
            let number_of = simd.not_m32s(simd.equal_f32s(pixel, pixel));
            let wins = simd.or_m32s(simd.greater_than_f32s(pixel, best), number_of);
            best = simd.select_f32s(wins, pixel, best);
            winner = simd.select_f32s(wins, simd.splat_f32s((ky * size + kx) as f32), winner);
        }
    }
    (best, winner)
}

/// The rows that a line of windows sees, from output column `from` on.
#[inline(always)]
fn rows_of_line<S: Simd>(simd: S, p: &Planes, x: &[f32], oy: usize, from: usize) -> [Columns; 3] {
    let mut rows = [Columns([[0.0; LINE]; 3]); 3];
    for (ky, row) in rows.iter_mut().enumerate().take(p.pool.size) {
        *row = Columns::split(simd, x, (2 * oy + ky) * p.w + 2 * from);
    }
    rows
}

#[inline(always)]
fn max_plane<S: Simd>(simd: S, p: &Planes, x: &[f32], y: &mut [f32]) {
    for (oy, line) in y.chunks_exact_mut(p.ow).enumerate() {
        for (part, line) in line.chunks_mut(LINE).enumerate() {
            let rows = rows_of_line(simd, p, x, oy, part * LINE);
            let mut values = [0.0; LINE];
            for n in 0..LINE / S::F32_LANES {
                S::as_mut_simd_f32s(&mut values).0[n] = largest(simd, p.pool.size, &rows, n).0;
            }
            store_sixteen(simd, &values, line);
        }
    }
}

/// dy goes to the first largest value of each window.
#[inline(always)]
fn max_grad_plane<S: Simd>(simd: S, p: &Planes, x: &[f32], dy: &[f32], dx: &mut [f32]) {
    let size = p.pool.size;
    for (oy, line) in dy.chunks_exact(p.ow).enumerate() {
        for (part, line) in line.chunks(LINE).enumerate() {
            let rows = rows_of_line(simd, p, x, oy, part * LINE);
            // Behind the last window there is nothing to share out.
            let mut share = [0.0; LINE];
            load_sixteen(simd, line, &mut share);
            let mut winners = [0.0; LINE];
            for n in 0..LINE / S::F32_LANES {
                S::as_mut_simd_f32s(&mut winners).0[n] = largest(simd, size, &rows, n).1;
            }
            for ky in 0..size {
                let mut columns = [[0.0; LINE]; 3];
                for (kx, column) in columns.iter_mut().enumerate().take(size) {
                    let number = simd.splat_f32s((ky * size + kx) as f32);
                    for (n, to) in S::as_mut_simd_f32s(column).0.iter_mut().enumerate() {
                        let wins = simd.equal_f32s(S::as_simd_f32s(&winners).0[n], number);
                        *to = simd.select_f32s(wins, S::as_simd_f32s(&share).0[n], simd.splat_f32s(0.0));
                    }
                }
                let mut sums = [0.0; REACH];
                for i in 0..LINE {
                    let before = if i == 0 { 0.0 } else { columns[2][i - 1] };
                    sums[2 * i] = columns[0][i] + before;
                    sums[2 * i + 1] = columns[1][i];
                }
                sums[2 * LINE] = columns[2][LINE - 1];
                // Behind the last window zeros are added, to the next row or to nothing.
                let row = &mut dx[(2 * oy + ky) * p.w + 2 * part * LINE..];
                if let Some(row) = row.first_chunk_mut::<REACH>() {
                    for i in 0..REACH {
                        row[i] += sums[i];
                    }
                } else {
                    row.iter_mut().zip(&sums).for_each(|(to, sum)| *to += sum);
                }
            }
        }
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

/// The values of `shape` are made from others.
pub(super) fn max_of_normalized(
    plan: &mut Plan,
    pool: Pool,
    shape: &[usize],
    x: Normalized,
    y: Slot,
    epilogue: Epilogue,
) {
    let touches: Vec<Slot> = x.slots().chain([y]).chain(epilogue.slots()).collect();
    plan.push_by_channel(MaxOfNormalized { planes: Planes::new(pool, shape), x, y, epilogue }, &touches);
}

/// The values of `shape` are made from others; `activation` is what was done to them last, if its gradient is wanted too.
pub(super) fn max_grad_of_normalized(
    plan: &mut Plan,
    pool: Pool,
    shape: &[usize],
    x: Normalized,
    activation: Option<Activation>,
    [dy, dx]: [Slot; 2],
    epilogue: Epilogue,
) {
    let touches: Vec<Slot> = x.slots().chain([dy, dx]).chain(epilogue.slots()).collect();
    let planes = Planes::new(pool, shape);
    plan.push_by_channel(MaxGradOfNormalized { planes, x, activation, dy, dx, epilogue }, &touches);
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
