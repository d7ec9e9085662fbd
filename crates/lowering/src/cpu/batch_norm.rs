//! Batch normalization, one channel a task. These kernels join each other, so they read no more than their channel of anything.

use std::ops::Range;

use graph::operators::batch_norm::EPSILON;

use super::{
    Plan,
    fusion::Epilogue,
    memory::{Memory, Slot},
    program::Kernel,
    simd, vector,
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
    fn planes(self, channel: usize) -> impl Iterator<Item = Range<usize>> {
        (0..self.images)
            .map(move |n| (n * self.channels + channel) * self.plane)
            .map(move |start| start..start + self.plane)
    }
    /// Mean and variance of a channel.
    fn statistics(self, memory: &Memory, slot: Slot, channel: usize) -> [f32; 2] {
        [channel, self.channels + channel].map(|at| value(memory, slot, at))
    }
    /// Asks for the plane of the next image, which may lie far from this one.
    fn fetch_next(self, memory: &Memory, slot: Slot, plane: &Range<usize>) {
        let start = plane.start + self.channels * self.plane;
        if start < self.images * self.channels * self.plane {
            vector::prefetch_all(memory.part(slot, start..start + self.plane));
        }
    }
    /// Values per channel.
    fn count(self) -> f64 {
        (self.images * self.plane) as f64
    }
}

/// One value of a slot.
fn value(memory: &Memory, slot: Slot, at: usize) -> f32 {
    memory.part(slot, at..at + 1)[0]
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
        let sum = |range: Range<usize>| {
            self.e.fetch_next(memory, self.x, &range);
            f64::from(simd::sum(memory.part(self.x, range)))
        };
        let mean = self.e.planes(task).map(sum).sum::<f64>() / self.e.count();
        let squares = |range| f64::from(simd::squares(memory.part(self.x, range), mean as f32));
        let squares = self.e.planes(task).map(squares).sum::<f64>();
        // The mean was rounded to f32 on its way into the squares; this takes that back.
        let rounding = mean - f64::from(mean as f32);
        memory.write(self.y, task..task + 1)[0] = mean as f32;
        let second = self.e.channels + task;
        memory.write(self.y, second..second + 1)[0] = (squares / self.e.count() - rounding * rounding).max(0.0) as f32;
    }
}

pub(super) fn statistics(plan: &mut Plan, shape: &[usize], x: Slot, y: Slot) {
    plan.push_by_channel(Statistics { e: Extents::new(shape), x, y }, &[x, y]);
}

/// Normalized values, plane by plane, for whoever wants them: from x they are made as fast as they are read.
#[derive(Clone)]
pub(super) struct Normalized {
    e: Extents,
    x: Slot,
    statistics: Slot,
    gamma: Slot,
    beta: Slot,
    epilogue: Epilogue,
}

impl Normalized {
    /// x = [x, statistics, gamma, beta].
    pub(super) fn new(shape: &[usize], x: &[Slot], epilogue: Epilogue) -> Self {
        Self { e: Extents::new(shape), x: x[0], statistics: x[1], gamma: x[2], beta: x[3], epilogue }
    }
    /// Slots that it reads.
    pub(super) fn slots(&self) -> impl Iterator<Item = Slot> + '_ {
        [self.x, self.statistics, self.gamma, self.beta].into_iter().chain(self.epilogue.slots())
    }
    pub(super) fn channels(&self) -> usize {
        self.e.channels
    }
    /// Calls `then` with the place of each plane of a channel, in order, and a way to make its values.
    pub(super) fn each(
        &self,
        memory: &Memory,
        channel: usize,
        mut then: impl FnMut(Range<usize>, &dyn Fn(&mut [f32])),
    ) {
        let [mean, variance] = self.e.statistics(memory, self.statistics, channel);
        let scale = (f64::from(value(memory, self.gamma, channel)) * inverse(variance)) as f32;
        let shift = value(memory, self.beta, channel);
        for range in self.e.planes(channel) {
            self.e.fetch_next(memory, self.x, &range);
            then(range.clone(), &|y| {
                simd::affine(memory.part(self.x, range.clone()), mean, scale, shift, y);
                self.epilogue.apply(memory, y, range.start);
            });
        }
    }
}

struct Normalize {
    values: Normalized,
    y: Slot,
}

impl Kernel for Normalize {
    fn name(&self) -> &'static str {
        "batch normalization"
    }
    fn tasks(&self) -> usize {
        self.values.channels()
    }
    fn run(&self, task: usize, memory: &Memory, _: &mut [f32]) {
        self.values.each(memory, task, |range, make| make(memory.write(self.y, range)));
    }
}

pub(super) fn normalize(plan: &mut Plan, values: Normalized, y: Slot) {
    let touches: Vec<Slot> = values.slots().chain([y]).collect();
    plan.push_by_channel(Normalize { values, y }, &touches);
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
        let [mean, variance] = self.e.statistics(memory, self.statistics, task);
        let (mut gamma, mut beta) = (0.0, 0.0);
        for range in self.e.planes(task) {
            let (x, dy) = (memory.part(self.x, range.clone()), memory.part(self.dy, range));
            let (products, sum) = simd::moments(x, mean, dy);
            gamma += f64::from(products);
            beta += f64::from(sum);
        }
        let second = self.e.channels + task;
        memory.write(self.y, task..task + 1)[0] = (gamma * inverse(variance)) as f32;
        memory.write(self.y, second..second + 1)[0] = beta as f32;
    }
}

/// x = [x, statistics, dy].
pub(super) fn parameter_grad(plan: &mut Plan, shape: &[usize], x: &[Slot], y: Slot) {
    let e = Extents::new(shape);
    plan.push_by_channel(ParameterGrad { e, x: x[0], statistics: x[1], dy: x[2], y }, &[x[0], x[1], x[2], y]);
}

struct InputGrad {
    e: Extents,
    x: Slot,
    statistics: Slot,
    gamma: Slot,
    parameters: Slot,
    /// If it is `dx`, the one takes the place of the other.
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
        let [mean, variance] = self.e.statistics(memory, self.statistics, task);
        let inverse = inverse(variance);
        let scale = (f64::from(value(memory, self.gamma, task)) * inverse) as f32;
        let [gamma, beta] = [task, self.e.channels + task].map(|at| f64::from(value(memory, self.parameters, at)));
        let a = (beta / self.e.count()) as f32;
        let b = (gamma * inverse / self.e.count()) as f32;
        for range in self.e.planes(task) {
            let dx = memory.write(self.dx, range.clone());
            if self.dy != self.dx {
                dx.copy_from_slice(memory.part(self.dy, range.clone()));
            }
            simd::normalize_grad(memory.part(self.x, range.clone()), mean, scale, a, b, dx);
            self.epilogue.apply(memory, dx, range.start);
        }
    }
}

/// x = [x, statistics, gamma, parameter gradients, dy]; dx may be dy.
pub(super) fn input_grad(plan: &mut Plan, shape: &[usize], x: &[Slot], dx: Slot, epilogue: Epilogue) {
    let touches: Vec<Slot> = x.iter().copied().chain([dx]).chain(epilogue.slots()).collect();
    let e = Extents::new(shape);
    let kernel = InputGrad { e, x: x[0], statistics: x[1], gamma: x[2], parameters: x[3], dy: x[4], dx, epilogue };
    let step = plan.push_by_channel(kernel, &touches);
    if x[4] == dx {
        plan.replaced.insert(dx, step);
    }
}

struct UpdateRunning {
    momentum: f32,
    count: usize,
    channels: usize,
    mean: Slot,
    variance: Slot,
    statistics: Slot,
}

impl Kernel for UpdateRunning {
    fn name(&self) -> &'static str {
        "running statistics"
    }
    fn tasks(&self) -> usize {
        self.channels
    }
    fn run(&self, task: usize, memory: &Memory, _: &mut [f32]) {
        let unbiased = (self.count as f64 / (self.count.max(2) - 1) as f64) as f32;
        let blend = |running: Slot, new: f32| {
            let old = &mut memory.write(running, task..task + 1)[0];
            *old = (1.0 - self.momentum) * *old + self.momentum * new;
        };
        blend(self.mean, value(memory, self.statistics, task));
        blend(self.variance, value(memory, self.statistics, self.channels + task) * unbiased);
    }
}

/// x = [mean, variance, statistics], of so many channels.
pub(super) fn update_running(plan: &mut Plan, momentum: f32, count: usize, channels: usize, x: &[Slot]) {
    let kernel = UpdateRunning { momentum, count, channels, mean: x[0], variance: x[1], statistics: x[2] };
    plan.push_by_channel(kernel, x);
}
