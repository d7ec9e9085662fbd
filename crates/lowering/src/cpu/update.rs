//! The optimizer's step in one pass over each parameter.

use graph::operators::{
    Rule,
    update::{
        AVERAGE_DECAY, BETA2, CLIP_NORM, CORRECTION1, CORRECTION2, EPSILON, LEARNING_RATE, MOMENTUM, WEIGHT_DECAY,
    },
};

use super::{
    Plan,
    memory::{Memory, Slot},
    movement::{CHUNK, chunk},
    program::Kernel,
    simd,
};

struct Update {
    rule: Rule,
    elements: usize,
    /// Parameter, gradient, hyper, moments…, clip factor.
    x: Vec<Slot>,
}

impl Kernel for Update {
    fn name(&self) -> &'static str {
        "update"
    }
    fn tasks(&self) -> usize {
        self.elements.div_ceil(CHUNK)
    }
    fn run(&self, task: usize, memory: &Memory, _: &mut [f32]) {
        let range = chunk(task, CHUNK, self.elements);
        apply(self.rule, &self.x, memory, range.clone(), &memory.read(self.x[1])[range]);
    }
}

/// Most values that a step keeps of each parameter: itself, two moments and an average.
pub(super) const STATES: usize = 4;

/// What [`apply`] reads and writes.
pub(super) fn states(rule: Rule, x: &[Slot]) -> impl Iterator<Item = Slot> + '_ {
    std::iter::once(x[0]).chain(x[3..3 + rule.moments()].iter().copied())
}

/// One step on a range of a parameter whose gradient there is `g`. x = [parameter, gradient (not read), hyper, moments…,
/// clip factor].
pub(super) fn apply(rule: Rule, x: &[Slot], memory: &Memory, range: std::ops::Range<usize>, g: &[f32]) {
    let hyper = memory.read(x[2]);
    let clip = x.get(3 + rule.moments()).map_or(1.0, |&slot| memory.read(slot)[0]);
    let w = memory.write(x[0], range.clone());
    let first = memory.write(x[3], range.clone());
    match rule {
        Rule::Sgd { nesterov, decay, .. } => {
            let lambda = if decay { hyper[WEIGHT_DECAY] } else { 0.0 };
            let factors = simd::Sgd { rate: hyper[LEARNING_RATE], momentum: hyper[MOMENTUM], lambda, clip, nesterov };
            simd::sgd(w, g, first, factors);
        }
        Rule::Adam { decoupled, decay, .. } => {
            let lambda = if decay { hyper[WEIGHT_DECAY] } else { 0.0 };
            let (joined, shrink) = if decoupled { (0.0, 1.0 - hyper[LEARNING_RATE] * lambda) } else { (lambda, 1.0) };
            let factors = simd::Adam {
                rate: hyper[LEARNING_RATE],
                beta1: hyper[MOMENTUM],
                beta2: hyper[BETA2],
                epsilon: hyper[EPSILON],
                correction1: hyper[CORRECTION1],
                correction2: hyper[CORRECTION2],
                joined,
                shrink,
                clip,
            };
            simd::adam(w, g, first, memory.write(x[4], range.clone()), factors);
        }
    }
    if rule.averages() {
        simd::blend(memory.write(x[2 + rule.moments()], range), w, hyper[AVERAGE_DECAY]);
    }
}

pub(super) fn update(plan: &mut Plan, rule: Rule, x: &[Slot], shape: &[usize]) {
    plan.push(Update { rule, elements: shape.iter().product(), x: x.to_vec() }, x);
}

/// Sums of squares of chunks of one gradient.
struct Squares {
    g: Slot,
    elements: usize,
    partial: Slot,
    from: usize,
}

impl Kernel for Squares {
    fn name(&self) -> &'static str {
        "gradient norm"
    }
    fn tasks(&self) -> usize {
        self.elements.div_ceil(CHUNK)
    }
    fn run(&self, task: usize, memory: &Memory, _: &mut [f32]) {
        let g = &memory.read(self.g)[chunk(task, CHUNK, self.elements)];
        memory.write(self.partial, self.from + task..self.from + task + 1)[0] = simd::squares(g, 0.0);
    }
}

struct ClipFactor {
    partial: Slot,
    hyper: Slot,
    y: Slot,
}

impl Kernel for ClipFactor {
    fn name(&self) -> &'static str {
        "clip factor"
    }
    fn tasks(&self) -> usize {
        1
    }
    fn run(&self, _: usize, memory: &Memory, _: &mut [f32]) {
        let norm = memory.read(self.partial).iter().map(|&v| f64::from(v)).sum::<f64>().sqrt();
        let limit = f64::from(memory.read(self.hyper)[CLIP_NORM]);
        // Written so that a NaN norm gives a NaN factor instead of passing for a small one.
        let factor = limit / (norm + 1e-6);
        memory.write(self.y, 0..1)[0] = if factor >= 1.0 { 1.0 } else { factor as f32 };
    }
}

/// x = [gradients…, hyper].
pub(super) fn clip_factor(plan: &mut Plan, x: &[Slot], shapes: &[Vec<usize>], y: Slot) {
    let (&hyper, gradients) = x.split_last().expect("hyper is an input");
    let elements: Vec<usize> = shapes.iter().map(|shape| shape.iter().product()).collect();
    let chunks = |i: usize| elements[i].div_ceil(CHUNK);
    let partial = plan.temporary((0..gradients.len()).map(chunks).sum());
    let mut from = 0;
    for (i, &g) in gradients.iter().enumerate() {
        plan.push(Squares { g, elements: elements[i], partial, from }, &[g, partial]);
        from += chunks(i);
    }
    plan.push(ClipFactor { partial, hyper, y }, &[partial, hyper, y]);
}
