//! Softmax cross-entropy, in f64: [N, K] is small beside everything else.

use super::{
    Plan,
    memory::{Memory, Slot},
    movement::chunk,
    program::Kernel,
};

struct Forward {
    classes: usize,
    rows: usize,
    logits: Slot,
    targets: Slot,
    y: Slot,
}

/// log Σ eˡ.
fn log_sum_exp(row: &[f32]) -> f64 {
    let largest = f64::from(row.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    largest + row.iter().map(|&v| (f64::from(v) - largest).exp()).sum::<f64>().ln()
}

impl Kernel for Forward {
    fn name(&self) -> &'static str {
        "cross-entropy"
    }
    fn tasks(&self) -> usize {
        1
    }
    fn run(&self, _: usize, memory: &Memory, _: &mut [f32]) {
        let logits = memory.read(self.logits).chunks_exact(self.classes);
        let rows = logits.zip(memory.read(self.targets).chunks_exact(self.classes));
        let loss: f64 = rows
            .map(|(l, t)| {
                let norm = log_sum_exp(l);
                l.iter().zip(t).map(|(&l, &t)| f64::from(t) * (norm - f64::from(l))).sum::<f64>()
            })
            .sum();
        memory.write(self.y, 0..1)[0] = (loss / self.rows as f64) as f32;
    }
}

/// x = [logits, targets].
pub(super) fn forward(plan: &mut Plan, shape: &[usize], x: &[Slot], y: Slot) {
    plan.push(Forward { rows: shape[0], classes: shape[1], logits: x[0], targets: x[1], y }, &[x[0], x[1], y]);
}

/// Rows per task of the gradient.
const ROWS: usize = 32;

struct Grad {
    rows: usize,
    classes: usize,
    logits: Slot,
    targets: Slot,
    dloss: Slot,
    y: Slot,
}

impl Kernel for Grad {
    fn name(&self) -> &'static str {
        "cross-entropy gradient"
    }
    fn tasks(&self) -> usize {
        self.rows.div_ceil(ROWS)
    }
    fn run(&self, task: usize, memory: &Memory, _: &mut [f32]) {
        let rows = chunk(task, ROWS, self.rows);
        let range = rows.start * self.classes..rows.end * self.classes;
        let factor = f64::from(memory.read(self.dloss)[0]) / self.rows as f64;
        let logits = memory.read(self.logits)[range.clone()].chunks_exact(self.classes);
        let targets = memory.read(self.targets)[range.clone()].chunks_exact(self.classes);
        let out = memory.write(self.y, range).chunks_exact_mut(self.classes);
        for ((l, t), y) in logits.zip(targets).zip(out) {
            let norm = log_sum_exp(l);
            let mass: f64 = t.iter().map(|&t| f64::from(t)).sum();
            for ((y, &l), &t) in y.iter_mut().zip(l).zip(t) {
                *y = (factor * ((f64::from(l) - norm).exp() * mass - f64::from(t))) as f32;
            }
        }
    }
}

/// x = [logits, targets, dloss].
pub(super) fn grad(plan: &mut Plan, shape: &[usize], x: &[Slot], y: Slot) {
    let kernel = Grad { rows: shape[0], classes: shape[1], logits: x[0], targets: x[1], dloss: x[2], y };
    plan.push(kernel, &[x[0], x[1], x[2], y]);
}
