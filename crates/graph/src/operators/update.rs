//! The optimizer's step, in place.
//!
//! Hyperparameters are an input, not attributes: one compiled graph serves every λ and learning rate. Inputs of
//! [`super::Operator::Update`]: parameter, gradient, hyper [[`HYPER`]], the moments of the rule (the last of them the average
//! of the parameter, if it is averaged), and, if the gradient is clipped, the factor \[1\].

use super::Real;

/// Number of values in the hyperparameter input; the constants below are positions in it.
pub const HYPER: usize = 9;
/// η.
pub const LEARNING_RATE: usize = 0;
/// λ.
pub const WEIGHT_DECAY: usize = 1;
/// μ of SGD, β₁ of Adam.
pub const MOMENTUM: usize = 2;
/// β₂ of Adam.
pub const BETA2: usize = 3;
/// ε of Adam.
pub const EPSILON: usize = 4;
/// 1 − β₁ᵗ at step t.
pub const CORRECTION1: usize = 5;
/// 1 − β₂ᵗ at step t.
pub const CORRECTION2: usize = 6;
/// Largest norm of the whole gradient.
pub const CLIP_NORM: usize = 7;
/// Share of the old average of a parameter in its new one.
pub const AVERAGE_DECAY: usize = 8;

/// Which step an update takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// v ← μv + g + λw; w ← w − ηv, or with Nesterov's form w ← w − η(g + λw + μv).
    Sgd {
        /// Nesterov's form.
        nesterov: bool,
        /// Whether λ applies.
        decay: bool,
        /// Whether an average a ← δa + (1 − δ)w of the new weights is kept (Polyak & Juditsky 1992).
        average: bool,
    },
    /// m ← β₁m + (1 − β₁)g; s ← β₂s + (1 − β₂)g²; w ← w − η·m̂ / (√ŝ + ε).
    Adam {
        /// λ shrinks the weights by ηλ instead of joining the gradient (AdamW).
        decoupled: bool,
        /// Whether λ applies.
        decay: bool,
        /// Whether an average of the new weights is kept, as with SGD.
        average: bool,
    },
}

impl Rule {
    /// Number of moment states per parameter, the average included.
    pub fn moments(self) -> usize {
        self.writes().len() - 1
    }

    /// Whether an average of the weights is kept.
    pub fn averages(self) -> bool {
        match self {
            Self::Sgd { average, .. } | Self::Adam { average, .. } => average,
        }
    }

    /// Input positions of the parameter and its moments.
    pub(crate) fn writes(self) -> &'static [usize] {
        match self {
            Self::Sgd { average: false, .. } => &[0, 3],
            Self::Sgd { average: true, .. } | Self::Adam { average: false, .. } => &[0, 3, 4],
            Self::Adam { average: true, .. } => &[0, 3, 4, 5],
        }
    }

    /// New values of the parameter and its moments, by input position.
    pub fn step<T: Real>(self, x: &[&[T]]) -> Vec<(usize, Vec<T>)> {
        let (w, g, hyper) = (x[0], x[1], x[2]);
        let clip = x.get(3 + self.moments()).map_or(T::one(), |factor| factor[0]);
        let (rate, momentum) = (hyper[LEARNING_RATE], hyper[MOMENTUM]);
        let mut new = match self {
            Self::Sgd { nesterov, decay, .. } => {
                let lambda = if decay { hyper[WEIGHT_DECAY] } else { T::zero() };
                let g: Vec<T> = w.iter().zip(g).map(|(&w, &g)| g * clip + lambda * w).collect();
                let v: Vec<T> = x[3].iter().zip(&g).map(|(&v, &g)| momentum * v + g).collect();
                let stepped = |i: usize| if nesterov { g[i] + momentum * v[i] } else { v[i] };
                let w = (0..w.len()).map(|i| w[i] - rate * stepped(i)).collect();
                vec![(0, w), (3, v)]
            }
            Self::Adam { decoupled, decay, .. } => {
                let lambda = if decay { hyper[WEIGHT_DECAY] } else { T::zero() };
                let beta2 = hyper[BETA2];
                let (joined, shrink) =
                    if decoupled { (T::zero(), T::one() - rate * lambda) } else { (lambda, T::one()) };
                let g: Vec<T> = w.iter().zip(g).map(|(&w, &g)| g * clip + joined * w).collect();
                let m: Vec<T> = x[3].iter().zip(&g).map(|(&m, &g)| momentum * m + (T::one() - momentum) * g).collect();
                let s: Vec<T> = x[4].iter().zip(&g).map(|(&s, &g)| beta2 * s + (T::one() - beta2) * g * g).collect();
                let w = (0..w.len())
                    .map(|i| {
                        let root = (s[i] / hyper[CORRECTION2]).sqrt() + hyper[EPSILON];
                        w[i] * shrink - rate * (m[i] / hyper[CORRECTION1]) / root
                    })
                    .collect();
                vec![(0, w), (3, m), (4, s)]
            }
        };
        if self.averages() {
            let (position, kept) = (2 + self.moments(), hyper[AVERAGE_DECAY]);
            let blend = |(&a, &w): (&T, &T)| kept * a + (T::one() - kept) * w;
            let average = x[position].iter().zip(&new[0].1).map(blend).collect();
            new.push((position, average));
        }
        new
    }
}

/// min(1, limit / (‖g‖ + 1e-6)) over all gradients together, as PyTorch's `clip_grad_norm_`. The last input is hyper.
pub fn clip_factor<T: Real>(x: &[&[T]]) -> T {
    let (hyper, gradients) = x.split_last().expect("hyper is an input");
    let norm = gradients.iter().map(|g| g.iter().map(|&v| v * v).sum::<T>()).sum::<T>().sqrt();
    T::one().min(hyper[CLIP_NORM] / (norm + T::of(1e-6)))
}
