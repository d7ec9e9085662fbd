//! The steps of an epoch, and what they came to.

use std::collections::VecDeque;

use crate::{Scores, StepScores};

/// Steps that were started, in order, and the results of those that are known.
#[derive(Debug)]
pub(crate) struct Steps {
    /// Sums over the known ones.
    pub(crate) scores: Scores,
    /// Their losses.
    pub(crate) losses: Vec<f32>,
    /// Learning rates of those whose results are not known yet.
    waiting: VecDeque<f64>,
    /// Steps whose results are known, those before a resume among them.
    known: u32,
}

/// The first step whose loss is no number.
#[derive(Debug)]
pub(crate) struct NotFinite {
    /// From 1, within the epoch.
    pub(crate) step: u32,
    pub(crate) loss: f64,
    pub(crate) learning_rate: f64,
    /// Mean loss of the steps before it, if there were any.
    pub(crate) last_loss: Option<f64>,
}

impl Steps {
    /// After `known` steps with these sums.
    pub(crate) fn new(scores: Scores, losses: Vec<f32>, known: u32) -> Self {
        Self { scores, losses, waiting: VecDeque::new(), known }
    }

    /// A step was started.
    pub(crate) fn started(&mut self, learning_rate: f64) {
        self.waiting.push_back(learning_rate);
    }

    /// Takes in the next results. Behind a loss that is no number nothing counts.
    pub(crate) fn settle(&mut self, results: &[StepScores]) -> Result<(), NotFinite> {
        for step in results {
            let learning_rate = self.waiting.pop_front().expect("results are of steps that were started");
            self.known += 1;
            if !step.loss.is_finite() {
                let last_loss = (self.scores.images > 0).then(|| self.scores.loss / self.scores.images as f64);
                let loss = f64::from(step.loss);
                return Err(NotFinite { step: self.known, loss, learning_rate, last_loss });
            }
            self.scores.step(step);
            self.losses.push(step.loss);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_loss_that_is_no_number_is_told_with_its_own_step() {
        let step = |loss: f32| StepScores { loss, top1: 1, top5: 2, images: 4 };
        let mut steps = Steps::new(Scores::default(), Vec::new(), 5);
        (0..5).for_each(|i| steps.started(f64::from(i)));
        steps.settle(&[step(3.0), step(1.0)]).expect("both are numbers");
        assert_eq!((steps.scores.loss, steps.scores.images, steps.scores.top5), (16.0, 8, 4));
        let end = steps.settle(&[step(2.0), step(f32::NAN), step(f32::NAN)]).expect_err("one is no number");
        assert_eq!((end.step, end.learning_rate, end.last_loss), (9, 3.0, Some(2.0)));
        assert!(end.loss.is_nan());
        assert_eq!(steps.losses, [3.0, 1.0, 2.0]);
    }
}
