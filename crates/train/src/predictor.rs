//! Classes of single images, outside of any data set.

use std::{collections::HashMap, path::Path};

use dataset::rng::{Counter, Purpose};
use graph::{State, step::Variables};
use plan::Train;

use crate::{Card, Device, Engine, Names, TrainError, metrics::softmax, run::thread_count, weights};

/// Images per step: enough to keep the cores busy, few enough to start at once.
pub const PREDICTION_BATCH: usize = 64;

/// A trained network, ready for images.
pub struct Predictor {
    card: Card,
    engine: Engine,
}

/// A class and how probable it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Guess {
    /// Index into the card's classes.
    pub class: usize,
    /// In [0, 1].
    pub probability: f64,
}

impl Predictor {
    /// Of weights and their card. `threads` 0 takes one per core.
    ///
    /// # Errors
    /// When the GPU refuses, as in all that follow; on the processor they do not fail.
    pub fn new(card: Card, variables: Variables, device: &Device, threads: usize) -> Result<Self, TrainError> {
        let train = Train { precision: device.nearest(card.precision), ..Train::default() };
        let engine = Engine::new(variables, &train, device, None, thread_count(threads))?;
        Ok(Self { card, engine })
    }

    /// What the weights say about themselves.
    pub fn card(&self) -> &Card {
        &self.card
    }

    /// Logits [N, K] of normalised images [N, C, H, W].
    ///
    /// # Errors
    /// When the GPU fails.
    ///
    /// # Panics
    /// If `images` does not hold whole images.
    pub fn logits(&mut self, images: &[f32]) -> Result<Vec<f32>, TrainError> {
        let values: usize = self.card.input.iter().product();
        assert_eq!(images.len() % values, 0, "images must be [N, C, H, W]");
        let mut logits = Vec::new();
        for part in images.chunks(PREDICTION_BATCH * values) {
            logits.extend(self.engine.logits(part.len() / values, &|position, image| {
                image.copy_from_slice(&part[position as usize * values..][..values]);
            })?);
        }
        Ok(logits)
    }

    /// The `top` most probable classes of each image, the most probable first; ties in the order of the classes.
    ///
    /// # Errors
    /// As [`Self::logits`].
    ///
    /// # Panics
    /// As [`Self::logits`].
    pub fn guesses(&mut self, images: &[f32], top: usize) -> Result<Vec<Vec<Guess>>, TrainError> {
        let classes = self.card.classes.len();
        let ranked = |row: &[f32]| {
            let probabilities = softmax(row).into_iter().enumerate();
            let mut guesses: Vec<Guess> =
                probabilities.map(|(class, probability)| Guess { class, probability }).collect();
            guesses.sort_by(|a, b| b.probability.total_cmp(&a.probability));
            guesses.truncate(top);
            guesses
        };
        Ok(self.logits(images)?.chunks_exact(classes).map(ranked).collect())
    }

    /// Writes `count` images of noise, as `input` [N, C, H, W], and their `logits` [N, K] to the safetensors file `path`, by
    /// which another program can be judged. The noise is always the same, of mean 0 and deviation 1 as normalised images.
    ///
    /// # Errors
    /// When the file cannot be written, or as [`Self::logits`].
    pub fn write_sample(&mut self, path: &Path, count: usize) -> Result<(), TrainError> {
        let [c, h, w] = self.card.input;
        let input = State::new("input", &[count, c, h, w]);
        let logits = State::new("logits", &[count, self.card.classes.len()]);
        for (image, values) in (0..).zip(input.write().chunks_exact_mut(c * h * w)) {
            let mut rng = Counter::new(0, Purpose::Noise, 0, image);
            values.iter_mut().for_each(|value| *value = rng.normal() as f32);
        }
        let computed = self.logits(&input.read())?;
        logits.write().copy_from_slice(&computed);
        weights::write(path, &[&input, &logits], Names::Layers, HashMap::new())
    }
}
