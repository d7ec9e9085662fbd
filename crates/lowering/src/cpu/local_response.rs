//! Local response normalization, one image a task: sums over channels run along contiguous pixels.

use graph::operators::LocalResponse;

use super::{
    Plan,
    fusion::Epilogue,
    memory::{Memory, Slot},
    program::Kernel,
    simd::dispatch,
};

#[derive(Clone, Copy)]
struct Extents {
    images: usize,
    channels: usize,
    plane: usize,
}

impl Extents {
    fn new(shape: &[usize]) -> Self {
        Self { images: shape[0], channels: shape[1], plane: shape[2] * shape[3] }
    }
    fn image(&self) -> usize {
        self.channels * self.plane
    }
}

/// d^−β; the paper's β = 3/4 by square roots, which vectorize.
#[inline(always)]
fn power(d: f32, beta: f32) -> f32 {
    if beta == 0.75 {
        let root = d.sqrt();
        1.0 / (root * root.sqrt())
    } else {
        d.powf(-beta)
    }
}

dispatch! {
    /// d = k + α Σ x² for one channel.
    fn denominators(a: LocalResponse, x: &[f32], channel: usize, channels: usize, d: &mut [f32]) {
        let plane = d.len();
        d.fill(0.0);
        for c in a.neighbours(channel, channels) {
            for (d, x) in d.iter_mut().zip(&x[c * plane..][..plane]) {
                *d += x * x;
            }
        }
        for d in d.iter_mut() {
            *d = a.k + a.alpha * *d;
        }
    }
}

dispatch! {
    /// y = x·d^−β.
    fn scale(x: &[f32], d: &[f32], beta: f32, y: &mut [f32]) {
        for ((y, x), d) in y.iter_mut().zip(x).zip(d) {
            *y = x * power(*d, beta);
        }
    }
}

dispatch! {
    /// dx = dy·d^−β and d ← dy·x·d^(−β−1).
    fn grad_terms(x: &[f32], dy: &[f32], beta: f32, d: &mut [f32], dx: &mut [f32]) {
        for (((d, x), dy), dx) in d.iter_mut().zip(x).zip(dy).zip(dx) {
            let scaled = dy * power(*d, beta);
            *dx = scaled;
            *d = scaled * x / *d;
        }
    }
}

dispatch! {
    /// dx −= factor·x·Σ terms over the channels given.
    fn cross(x: &[f32], terms: &[f32], holders: std::ops::Range<usize>, factor: f32, dx: &mut [f32]) {
        let plane = dx.len();
        for j in holders {
            for ((dx, x), term) in dx.iter_mut().zip(x).zip(&terms[j * plane..][..plane]) {
                *dx -= factor * x * term;
            }
        }
    }
}

struct Forward {
    a: LocalResponse,
    e: Extents,
    x: Slot,
    y: Slot,
    epilogue: Epilogue,
}

impl Kernel for Forward {
    fn name(&self) -> &'static str {
        "local response normalization"
    }
    fn tasks(&self) -> usize {
        self.e.images
    }
    fn scratch(&self) -> usize {
        self.e.plane
    }
    fn run(&self, task: usize, memory: &Memory, scratch: &mut [f32]) {
        let range = task * self.e.image()..(task + 1) * self.e.image();
        let x = &memory.read(self.x)[range.clone()];
        let y = memory.write(self.y, range.clone());
        let d = &mut scratch[..self.e.plane];
        let planes = y.chunks_exact_mut(self.e.plane).zip(x.chunks_exact(self.e.plane));
        for (channel, (y, plane)) in planes.enumerate() {
            denominators(self.a, x, channel, self.e.channels, d);
            scale(plane, d, self.a.beta, y);
        }
        self.epilogue.apply(memory, y, range.start);
    }
}

pub(super) fn forward(plan: &mut Plan, a: LocalResponse, shape: &[usize], x: Slot, y: Slot, epilogue: Epilogue) {
    let touches: Vec<Slot> = [x, y].into_iter().chain(epilogue.slots()).collect();
    plan.push(Forward { a, e: Extents::new(shape), x, y, epilogue }, &touches);
}

struct Grad {
    a: LocalResponse,
    e: Extents,
    x: Slot,
    dy: Slot,
    dx: Slot,
    epilogue: Epilogue,
}

impl Kernel for Grad {
    fn name(&self) -> &'static str {
        "local response normalization gradient"
    }
    fn tasks(&self) -> usize {
        self.e.images
    }
    fn scratch(&self) -> usize {
        self.e.image()
    }
    fn run(&self, task: usize, memory: &Memory, scratch: &mut [f32]) {
        let (e, a) = (&self.e, self.a);
        let range = task * e.image()..(task + 1) * e.image();
        let (x, dy) = (&memory.read(self.x)[range.clone()], &memory.read(self.dy)[range.clone()]);
        let dx = memory.write(self.dx, range.clone());
        let terms = &mut scratch[..e.image()];
        for c in 0..e.channels {
            let plane = c * e.plane..(c + 1) * e.plane;
            let d = &mut terms[plane.clone()];
            denominators(a, x, c, e.channels, d);
            grad_terms(&x[plane.clone()], &dy[plane.clone()], a.beta, d, &mut dx[plane]);
        }
        for c in 0..e.channels {
            let plane = c * e.plane..(c + 1) * e.plane;
            cross(&x[plane.clone()], terms, a.holders(c, e.channels), 2.0 * a.alpha * a.beta, &mut dx[plane]);
        }
        self.epilogue.apply(memory, dx, range.start);
    }
}

/// x = [x, dy].
pub(super) fn grad(plan: &mut Plan, a: LocalResponse, shape: &[usize], x: &[Slot], dx: Slot, epilogue: Epilogue) {
    let touches: Vec<Slot> = x.iter().copied().chain([dx]).chain(epilogue.slots()).collect();
    plan.push(Grad { a, e: Extents::new(shape), x: x[0], dy: x[1], dx, epilogue }, &touches);
}
