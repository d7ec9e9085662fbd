//! Batch normalization, one channel a task.

use graph::operators::batch_norm::EPSILON;

use super::{
    Plan,
    fusion::Epilogue,
    memory::{Memory, Slot},
    program::Kernel,
    simd,
};

#[derive(Clone, Copy)]
struct Extents {
    images: usize,
    channels: usize,
    plane: usize,
}

impl Extents {
    fn new(shape: &[usize]) -> Self {
        Self { images: shape[0], channels: shape[1], plane: shape[2..].iter().product() }
    }
    /// Values of a channel in each image.
    fn planes(self, channel: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
        (0..self.images)
            .map(move |n| (n * self.channels + channel) * self.plane)
            .map(move |start| start..start + self.plane)
    }
    /// Values per channel.
    fn count(self) -> f64 {
        (self.images * self.plane) as f64
    }
}

/// 1 / √(variance + ε).
fn inverse(variance: f32) -> f64 {
    1.0 / (f64::from(variance) + EPSILON).sqrt()
}

struct Statistics {
    e: Extents,
    x: Slot,
    y: Slot,
}

impl Kernel for Statistics {
    fn name(&self) -> &'static str {
        "batch statistics"
    }
    fn tasks(&self) -> usize {
        self.e.channels
    }
    fn run(&self, task: usize, memory: &Memory, _: &mut [f32]) {
        let x = memory.read(self.x);
        let mean = self.e.planes(task).map(|range| f64::from(simd::sum(&x[range]))).sum::<f64>() / self.e.count();
        let squares = self.e.planes(task).map(|range| f64::from(simd::squares(&x[range], mean as f32))).sum::<f64>();
        // The mean was rounded to f32 on its way into the squares; this takes that back.
        let rounding = mean - f64::from(mean as f32);
        memory.write(self.y, task..task + 1)[0] = mean as f32;
        let second = self.e.channels + task;
        memory.write(self.y, second..second + 1)[0] = (squares / self.e.count() - rounding * rounding).max(0.0) as f32;
    }
}

pub(super) fn statistics(plan: &mut Plan, shape: &[usize], x: Slot, y: Slot) {
    plan.push(Statistics { e: Extents::new(shape), x, y }, &[x, y]);
}

struct Normalize {
    e: Extents,
    x: Slot,
    statistics: Slot,
    gamma: Slot,
    beta: Slot,
    y: Slot,
    epilogue: Epilogue,
}

impl Kernel for Normalize {
    fn name(&self) -> &'static str {
        "batch normalization"
    }
    fn tasks(&self) -> usize {
        self.e.channels
    }
    fn run(&self, task: usize, memory: &Memory, _: &mut [f32]) {
        let (x, statistics) = (memory.read(self.x), memory.read(self.statistics));
        let scale = (f64::from(memory.read(self.gamma)[task]) * inverse(statistics[self.e.channels + task])) as f32;
        let (mean, shift) = (statistics[task], memory.read(self.beta)[task]);
        for range in self.e.planes(task) {
            let y = memory.write(self.y, range.clone());
            simd::affine(&x[range.clone()], mean, scale, shift, y);
            self.epilogue.apply(memory, y, range.start);
        }
    }
}

/// x = [x, statistics, gamma, beta].
pub(super) fn normalize(plan: &mut Plan, shape: &[usize], x: &[Slot], y: Slot, epilogue: Epilogue) {
    let touches: Vec<Slot> = x.iter().copied().chain([y]).chain(epilogue.slots()).collect();
    let e = Extents::new(shape);
    plan.push(Normalize { e, x: x[0], statistics: x[1], gamma: x[2], beta: x[3], y, epilogue }, &touches);
}

struct ParameterGrad {
    e: Extents,
    x: Slot,
    statistics: Slot,
    dy: Slot,
    y: Slot,
}

impl Kernel for ParameterGrad {
    fn name(&self) -> &'static str {
        "batch normalization parameter gradient"
    }
    fn tasks(&self) -> usize {
        self.e.channels
    }
    fn run(&self, task: usize, memory: &Memory, _: &mut [f32]) {
        let (x, dy, statistics) = (memory.read(self.x), memory.read(self.dy), memory.read(self.statistics));
        let (mut gamma, mut beta) = (0.0, 0.0);
        for range in self.e.planes(task) {
            let (products, sum) = simd::moments(&x[range.clone()], statistics[task], &dy[range]);
            gamma += f64::from(products);
            beta += f64::from(sum);
        }
        let second = self.e.channels + task;
        memory.write(self.y, task..task + 1)[0] = (gamma * inverse(statistics[second])) as f32;
        memory.write(self.y, second..second + 1)[0] = beta as f32;
    }
}

/// x = [x, statistics, dy].
pub(super) fn parameter_grad(plan: &mut Plan, shape: &[usize], x: &[Slot], y: Slot) {
    let e = Extents::new(shape);
    plan.push(ParameterGrad { e, x: x[0], statistics: x[1], dy: x[2], y }, &[x[0], x[1], x[2], y]);
}

struct InputGrad {
    e: Extents,
    x: Slot,
    statistics: Slot,
    gamma: Slot,
    parameters: Slot,
    dy: Slot,
    dx: Slot,
    epilogue: Epilogue,
}

impl Kernel for InputGrad {
    fn name(&self) -> &'static str {
        "batch normalization input gradient"
    }
    fn tasks(&self) -> usize {
        self.e.channels
    }
    fn run(&self, task: usize, memory: &Memory, _: &mut [f32]) {
        let (x, dy, statistics) = (memory.read(self.x), memory.read(self.dy), memory.read(self.statistics));
        let parameters = memory.read(self.parameters);
        let inverse = inverse(statistics[self.e.channels + task]);
        let scale = (f64::from(memory.read(self.gamma)[task]) * inverse) as f32;
        let a = (f64::from(parameters[self.e.channels + task]) / self.e.count()) as f32;
        let b = (f64::from(parameters[task]) * inverse / self.e.count()) as f32;
        for range in self.e.planes(task) {
            let dx = memory.write(self.dx, range.clone());
            simd::normalize_grad(&x[range.clone()], statistics[task], &dy[range.clone()], scale, a, b, dx);
            self.epilogue.apply(memory, dx, range.start);
        }
    }
}

/// x = [x, statistics, gamma, parameter gradients, dy].
pub(super) fn input_grad(plan: &mut Plan, shape: &[usize], x: &[Slot], dx: Slot, epilogue: Epilogue) {
    let touches: Vec<Slot> = x.iter().copied().chain([dx]).chain(epilogue.slots()).collect();
    let e = Extents::new(shape);
    let kernel = InputGrad { e, x: x[0], statistics: x[1], gamma: x[2], parameters: x[3], dy: x[4], dx, epilogue };
    plan.push(kernel, &touches);
}

struct UpdateRunning {
    momentum: f32,
    count: usize,
    mean: Slot,
    variance: Slot,
    statistics: Slot,
}

impl Kernel for UpdateRunning {
    fn name(&self) -> &'static str {
        "running statistics"
    }
    fn tasks(&self) -> usize {
        1
    }
    fn run(&self, _: usize, memory: &Memory, _: &mut [f32]) {
        let statistics = memory.read(self.statistics);
        let channels = statistics.len() / 2;
        let (mean, variance) = (memory.write(self.mean, 0..channels), memory.write(self.variance, 0..channels));
        let unbiased = (self.count as f64 / (self.count.max(2) - 1) as f64) as f32;
        let blend = |old: &mut f32, new: f32| *old = (1.0 - self.momentum) * *old + self.momentum * new;
        for c in 0..channels {
            blend(&mut mean[c], statistics[c]);
            blend(&mut variance[c], statistics[channels + c] * unbiased);
        }
    }
}

/// x = [mean, variance, statistics].
pub(super) fn update_running(plan: &mut Plan, momentum: f32, count: usize, x: &[Slot]) {
    plan.push(UpdateRunning { momentum, count, mean: x[0], variance: x[1], statistics: x[2] }, x);
}
