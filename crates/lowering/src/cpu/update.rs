//! The optimizer's step in one pass over each parameter.

use std::ops::Range;

use graph::operators::{
    Rule,
    update::{BETA2, CLIP_NORM, CORRECTION1, CORRECTION2, EPSILON, LEARNING_RATE, MOMENTUM, WEIGHT_DECAY},
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
    g: Slot,
    clip: Option<Slot>,
    /// Parameter, hyperparameters, moments.
    slots: Vec<Slot>,
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
        let clip = self.clip.map_or(1.0, |slot| memory.read(slot)[0]);
        step(self.rule, memory, &self.slots, &memory.read(self.g)[range.clone()], clip, range);
    }
}

/// One step with the gradients `g` of a range of a parameter; slots are the parameter, the hyperparameters and the moments.
pub(super) fn step(rule: Rule, memory: &Memory, slots: &[Slot], g: &[f32], clip: f32, range: Range<usize>) {
    let hyper = memory.read(slots[1]);
    let w = memory.write(slots[0], range.clone());
    let first = memory.write(slots[2], range.clone());
    match rule {
        Rule::Sgd { nesterov, decay } => {
            let lambda = if decay { hyper[WEIGHT_DECAY] } else { 0.0 };
            let factors = simd::Sgd { rate: hyper[LEARNING_RATE], momentum: hyper[MOMENTUM], lambda, clip, nesterov };
            simd::sgd(w, g, first, factors);
        }
        Rule::Adam { decoupled, decay } => {
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
            simd::adam(w, g, first, memory.write(slots[3], range), factors);
        }
    }
}

pub(super) fn update(plan: &mut Plan, rule: Rule, x: &[Slot], shape: &[usize]) {
    // Parameter, gradient, hyperparameters, moments…, clip factor.
    let (moments, clip) = x[3..].split_at(rule.moments());
    let slots = [x[0], x[2]].into_iter().chain(moments.iter().copied()).collect();
    plan.push(Update { rule, elements: shape.iter().product(), g: x[1], clip: clip.first().copied(), slots }, x);
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
