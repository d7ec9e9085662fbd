//! The learning rate at each step of a run.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

use super::{BOOK, BOOK_FINAL, Curve, Schedule};
use crate::{Optimizer, Train};

/// What a schedule remembers between epochs, for checkpoints. Only `plateau` makes use of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlateauState {
    /// Lowest validation loss so far.
    pub best_loss: Option<f64>,
    /// Epochs since it was reached or since the rate was last cut.
    pub epochs_without_improvement: u32,
    /// How many times the rate has been cut.
    pub cuts: u32,
    /// Epochs observed.
    pub epochs_observed: u32,
}

/// A schedule laid over a run of known length.
#[derive(Clone, Debug, PartialEq)]
pub struct ScheduleState {
    schedule: Schedule,
    learning_rate: f64,
    epochs: u32,
    steps_per_epoch: u32,
    plateau: PlateauState,
}

impl ScheduleState {
    /// Lays `train.schedule` over `train.epochs` epochs of `steps_per_epoch` steps.
    pub fn new(train: &Train, steps_per_epoch: u32) -> Self {
        Self {
            schedule: train.schedule.clone(),
            learning_rate: train.learning_rate,
            epochs: train.epochs,
            steps_per_epoch: steps_per_epoch.max(1),
            plateau: PlateauState::default(),
        }
    }

    /// Learning rate of a step; epochs and steps count from 0.
    pub fn learning_rate(&self, epoch: u32, step_in_epoch: u32) -> f64 {
        let steps = f64::from(self.steps_per_epoch);
        let warmup = self.schedule.warmup_epochs;
        if epoch < warmup {
            let done = f64::from(epoch) * steps + f64::from(step_in_epoch) + 1.0;
            return self.curve(0, 0) * done / (f64::from(warmup) * steps);
        }
        self.curve(epoch - warmup, step_in_epoch)
    }

    /// Rate of the curve, its epochs counted from the end of the warm-up.
    fn curve(&self, epoch: u32, step_in_epoch: u32) -> f64 {
        let steps = f64::from(self.steps_per_epoch);
        let step = f64::from(epoch) * steps + f64::from(step_in_epoch);
        let all_steps = f64::from(self.epochs.saturating_sub(self.schedule.warmup_epochs)) * steps;
        let peak = self.learning_rate;
        match &self.schedule.curve {
            Curve::Constant => peak,
            Curve::Book => from_table(BOOK, epoch).unwrap_or(BOOK_FINAL),
            Curve::Table { steps } => {
                let last = steps.last().map_or(peak, |step| step.learning_rate);
                from_table(steps.iter().map(|step| (step.epochs, step.learning_rate)), epoch).unwrap_or(last)
            }
            Curve::Step { every_epochs, factor } => peak * power(*factor, epoch / (*every_epochs).max(1)),
            Curve::Plateau { factor, .. } => peak * power(*factor, self.plateau.cuts),
            Curve::Cosine { minimum } => between(peak, *minimum, step / all_steps.max(1.0)),
            Curve::OneCycle { rise, initial_divisor, final_divisor } => {
                let first = peak / initial_divisor;
                let last = first / final_divisor;
                // Both phases end on a step, as PyTorch counts them: the peak at step rise·n − 1, the last rate at step n − 1.
                let top = rise * all_steps - 1.0;
                let end = all_steps - 1.0;
                if step <= top {
                    between(first, peak, if top > 0.0 { step / top } else { 1.0 })
                } else {
                    between(peak, last, if end > top { (step - top) / (end - top) } else { 1.0 })
                }
            }
        }
    }

    /// Tells the schedule the validation loss at an epoch's end. A loss that is not a number is no improvement; epochs of the warm-up
    /// are never held against the rate.
    pub fn observe(&mut self, validation_loss: f64) {
        let state = &mut self.plateau;
        state.epochs_observed += 1;
        if state.best_loss.is_none_or(|best| validation_loss < best) && !validation_loss.is_nan() {
            state.best_loss = Some(validation_loss);
            state.epochs_without_improvement = 0;
            return;
        }
        let Curve::Plateau { patience_epochs, .. } = self.schedule.curve else { return };
        if state.epochs_observed <= self.schedule.warmup_epochs {
            return;
        }
        state.epochs_without_improvement += 1;
        if state.epochs_without_improvement >= patience_epochs {
            state.epochs_without_improvement = 0;
            state.cuts += 1;
        }
    }

    /// What to keep in a checkpoint.
    pub fn state(&self) -> PlateauState {
        self.plateau
    }

    /// Goes on from a checkpoint.
    pub fn restore(&mut self, state: PlateauState) {
        self.plateau = state;
    }
}

/// Learning rate at the first step of each epoch, for a dry run. `plateau` is shown as if the validation loss always improved.
pub fn preview(train: &Train, steps_per_epoch: u32) -> Vec<f64> {
    let state = ScheduleState::new(train, steps_per_epoch);
    (0..train.epochs).map(|epoch| state.learning_rate(epoch, 0)).collect()
}

/// By how much the schedule is yet to lower the noise of the steps after 0, 1, … epochs: the largest rate that is to come less the last one,
/// for SGD as η/(B(1 − μ)) (Smith & Le 2018, "A Bayesian perspective on generalization and stochastic gradient descent", section 5),
/// for Adam as η/B. None for `plateau`, which is not known beforehand.
pub fn noise_to_lose(train: &Train, steps_per_epoch: u32) -> Vec<f64> {
    let rates = preview(train, steps_per_epoch);
    let inertia = if train.optimizer == Optimizer::Sgd { 1.0 - train.momentum } else { 1.0 };
    let scale = 1.0 / (train.batch_size as f64 * inertia);
    let last = rates.last().copied().unwrap_or(0.0);
    let mut highest = last;
    let mut to_lose: Vec<f64> = Vec::with_capacity(rates.len());
    for rate in rates.iter().rev() {
        highest = highest.max(*rate);
        to_lose.push((highest - last) * scale);
    }
    to_lose.reverse();
    to_lose
}

/// The rate of the row that covers the epoch, if one does.
fn from_table(rows: impl IntoIterator<Item = (u32, f64)>, epoch: u32) -> Option<f64> {
    let mut end = 0_u32;
    rows.into_iter().find_map(|(epochs, rate)| {
        end = end.saturating_add(epochs);
        (epoch < end).then_some(rate)
    })
}

/// `factor` to a whole power by repeated multiplication: the same bits on every machine, which `powi` does not promise.
fn power(factor: f64, exponent: u32) -> f64 {
    (0..exponent.min(1100)).fold(1.0, |product, _| product * factor)
}

/// Half a cosine from `start` (at 0) to `end` (at 1); both ends are met exactly.
fn between(start: f64, end: f64, share: f64) -> f64 {
    let weight = 0.5 * (1.0 + (PI * share.clamp(0.0, 1.0)).cos());
    start * weight + end * (1.0 - weight)
}
