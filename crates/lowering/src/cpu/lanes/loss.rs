//! Softmax cross-entropy on blocks: [K][lanes], each lane an image.

use pulp::{Simd, WithSimd};

use super::{
    super::{
        Plan,
        memory::{Memory, Slot},
        program::Kernel,
        simd::exp,
    },
    chain::{Id, Room, Step},
};

/// Losses of the images of each block, or with `gradient` their gradients.
pub(super) struct CrossEntropy {
    pub(super) logits: Id,
    /// [N, K]
    pub(super) targets: Slot,
    pub(super) images: usize,
    pub(super) classes: usize,
    pub(super) lanes: usize,
    pub(super) out: Output,
}

/// What is computed.
#[derive(Clone, Copy)]
pub(super) enum Output {
    /// Each image's loss \[blocks·lanes\].
    Losses(Slot),
    /// dloss \[1\] and the gradient of the logits.
    Gradient(Slot, Id),
}

/// eˣ⁻ᵐ of each logit and, for each lane, the largest logit m and the sum of the powers.
#[inline(always)]
fn powers<const L: usize>(logits: &[[f32; L]], mut visit: impl FnMut(usize, [f32; L])) -> ([f32; L], [f32; L]) {
    let mut largest = [f32::NEG_INFINITY; L];
    for row in logits {
        for l in 0..L {
            // NaN stays: its comparison is false the second time.
            largest[l] = if row[l] <= largest[l] { largest[l] } else { row[l] };
        }
    }
    let mut sums = [0.0; L];
    for (k, row) in logits.iter().enumerate() {
        let mut power = [0.0; L];
        for l in 0..L {
            // The function is good down to −80; beyond, the share of a class is below 1e-34 either way.
            let x = row[l] - largest[l];
            power[l] = exp(if x < -80.0 { -80.0 } else { x });
            sums[l] += power[l];
        }
        visit(k, power);
    }
    (largest, sums)
}

struct Body<'a> {
    logits: &'a [f32],
    /// Rows of the block's images.
    targets: &'a [f32],
    classes: usize,
    images: usize,
    lanes: usize,
    factor: f32,
    losses: Option<&'a mut [f32]>,
    gradient: &'a mut [f32],
}

impl Body<'_> {
    #[inline(always)]
    fn run<const L: usize>(self) {
        let logits = self.logits.as_chunks::<L>().0;
        if let Some(losses) = self.losses {
            let (largest, sums) = powers(logits, |_, _| {});
            for (lane, loss) in losses.iter_mut().enumerate() {
                if lane >= self.images {
                    *loss = 0.0;
                    continue;
                }
                let norm = f64::from(largest[lane]) + f64::from(sums[lane]).ln();
                let targets = &self.targets[lane * self.classes..][..self.classes];
                let terms = logits.iter().zip(targets).map(|(row, &t)| f64::from(t) * (norm - f64::from(row[lane])));
                *loss = terms.sum::<f64>() as f32;
            }
            return;
        }
        let gradient = self.gradient.as_chunks_mut::<L>().0;
        let (_, sums) = powers(logits, |k, power| gradient[k] = power);
        // Zero images pull nowhere.
        let (mut scale, mut factor) = ([0.0; L], [0.0; L]);
        for lane in 0..self.images {
            let mass: f32 = self.targets[lane * self.classes..][..self.classes].iter().sum();
            factor[lane] = self.factor;
            scale[lane] = mass / sums[lane];
        }
        for (k, row) in gradient.iter_mut().enumerate() {
            let mut target = [0.0; L];
            for lane in 0..self.images {
                target[lane] = self.targets[lane * self.classes + k];
            }
            for l in 0..L {
                row[l] = factor[l] * (row[l] * scale[l] - target[l]);
            }
        }
    }
}

impl WithSimd for Body<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        match self.lanes {
            4 => self.run::<4>(),
            8 => self.run::<8>(),
            _ => self.run::<16>(),
        }
    }
}

impl Step for CrossEntropy {
    fn name(&self) -> &'static str {
        match self.out {
            Output::Losses(_) => "cross-entropy",
            Output::Gradient(..) => "cross-entropy gradient",
        }
    }
    fn run(&self, room: &mut Room) {
        let first = room.block * self.lanes;
        let images = self.lanes.min(self.images - first);
        let targets = &room.memory.read(self.targets)[first * self.classes..][..images * self.classes];
        let (classes, lanes, level) = (self.classes, self.lanes, room.level);
        match self.out {
            Output::Losses(slot) => {
                let losses = Some(room.memory.write(slot, first..first + lanes));
                let [logits] = room.values([self.logits]);
                let body = Body { logits, targets, classes, images, lanes, factor: 0.0, losses, gradient: &mut [] };
                Room::vectorize(level, body);
            }
            Output::Gradient(dloss, out) => {
                let factor = (f64::from(room.memory.read(dloss)[0]) / self.images as f64) as f32;
                let [logits, gradient] = room.values([self.logits, out]);
                let body = Body { logits, targets, classes, images, lanes, factor, losses: None, gradient };
                Room::vectorize(level, body);
            }
        }
    }
}

/// The mean of the images' losses.
struct Mean {
    losses: Slot,
    y: Slot,
    images: usize,
}

impl Kernel for Mean {
    fn name(&self) -> &'static str {
        "mean loss"
    }
    fn tasks(&self) -> usize {
        1
    }
    fn run(&self, _: usize, memory: &Memory, _: &mut [f32]) {
        let sum: f64 = memory.read(self.losses)[..self.images].iter().map(|&v| f64::from(v)).sum();
        memory.write(self.y, 0..1)[0] = (sum / self.images as f64) as f32;
    }
}

pub(super) fn mean(plan: &mut Plan, losses: Slot, y: Slot, images: usize) {
    plan.push(Mean { losses, y, images }, &[losses, y]);
}
