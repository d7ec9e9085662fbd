//! What a report is about: experiments, their runs and what was measured, as plain rows.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::evidence::Examination;
use crate::picture::Picture;

/// Everything that one report reads.
#[derive(Clone, Debug, Default)]
pub struct Study {
    /// The experiments asked for, in that order.
    pub experiments: Vec<Experiment>,
    /// Their runs; of one that several experiments share, once.
    pub runs: Vec<Run>,
    /// Trials that are planned but have no run yet.
    pub waiting: usize,
    /// Predicted classes of the test part by run; may be empty, or hold only the runs that are compared.
    pub predictions: BTreeMap<i64, Predictions>,
    /// What the weights of some runs say about single images.
    pub examinations: BTreeMap<i64, Examination>,
    /// Images of the test part by the fingerprint of their data and their place in it.
    pub pictures: BTreeMap<(String, u32), Picture>,
    /// What could not be shown, and why, in sentences.
    pub remarks: Vec<String>,
}

/// One experiment file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Experiment {
    /// Its name.
    pub name: String,
    /// The question that it asks, in words; may be empty.
    pub question: String,
    /// Command line that planned it last; may be empty.
    pub command: String,
    /// Trials in its plan.
    pub trials: usize,
    /// What it aims at, as `sweep.objective` names it.
    pub objectives: Vec<String>,
    /// What the values of its varied keys are drawn from, where that is known.
    pub distributions: BTreeMap<String, store::Distribution>,
}

/// State of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    /// Waits for a worker.
    Queued,
    /// Is being trained.
    Running,
    /// Was stopped, and can be resumed.
    Interrupted,
    /// Ended with an error.
    Failed,
    /// Ended early by a rule of the sweep, because others did better.
    Pruned,
    /// Ended well.
    #[default]
    Done,
    /// A state that a later program knows, by its word in the database.
    Other(&'static str),
}

impl Status {
    /// The state that the database has this word for.
    pub fn named(word: &'static str) -> Self {
        match word {
            "queued" => Self::Queued,
            "running" => Self::Running,
            "interrupted" => Self::Interrupted,
            "failed" => Self::Failed,
            "pruned" => Self::Pruned,
            "done" => Self::Done,
            other => Self::Other(other),
        }
    }

    /// The word the database uses.
    pub fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Interrupted => "interrupted",
            Self::Failed => "failed",
            Self::Pruned => "pruned",
            Self::Done => "done",
            Self::Other(word) => word,
        }
    }
}

/// One attempt at one trial.
#[derive(Clone, Debug, Default)]
pub struct Run {
    /// Number of the run in the database; a later run has a larger one.
    pub id: i64,
    /// Experiment (the first of those asked for that has it).
    pub experiment: String,
    /// Identity of the trial.
    pub trial: String,
    /// Identity of the trial without its seed: what is averaged over.
    pub configuration: String,
    /// Short name of the trial for people.
    pub label: String,
    /// Variant, where the experiment has named ones.
    pub variant: Option<String>,
    /// Seed of the trial.
    pub seed: u64,
    /// `lenet5`, `alexnet`.
    pub architecture: String,
    /// Trainable parameters.
    pub parameters: Option<u64>,
    /// Multiply–accumulate operations of one forward pass of one image.
    pub macs_per_image: Option<u64>,
    /// Some of its layers are not trained.
    pub has_frozen_layers: bool,
    /// Swept keys and their values.
    pub assignments: Vec<(String, Value)>,
    /// State.
    pub status: Status,
    /// What went wrong, for failed runs; why it was left, for pruned ones.
    pub error: Option<String>,
    /// Where the numbers come from.
    pub provenance: Provenance,
    /// Epoch whose weights were tested, where the trainer says so; from 1.
    pub chosen_epoch: Option<u32>,
    /// Time of training and validation, in seconds, where the trainer measured it.
    pub wall_seconds: Option<f64>,
    /// Largest resident memory of the process, in bytes.
    pub peak_memory_bytes: Option<u64>,
    /// Memory that training one step takes, in bytes: parameters, moments, activations and batches, as the plan of the memory has it.
    pub step_memory_bytes: Option<u64>,
    /// What was measured after each epoch, in order.
    pub epochs: Vec<Epoch>,
    /// The one evaluation on the test part.
    pub test: Option<Evaluation>,
}

/// Where the numbers of a run come from.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Provenance {
    /// Commit of the program.
    pub commit: String,
    /// Version of the program.
    pub version: String,
    /// Device that trained.
    pub device: String,
    /// Threads of one run.
    pub threads: Option<u32>,
    /// Processor.
    pub cpu: String,
    /// Fingerprint of the prepared data.
    pub data_fingerprint: String,
    /// Command line that makes the run again.
    pub command: String,
}

/// What was measured in one epoch. Accuracies are fractions in [0, 1], losses are cross-entropy in nats without the
/// penalty.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Epoch {
    /// From 1.
    pub epoch: u32,
    /// Learning rate of the epoch's last step.
    pub learning_rate: f64,
    /// Mean training loss.
    pub train_loss: f64,
    /// Training top-1 accuracy, as seen while training.
    pub train_top1: f64,
    /// Validation loss.
    pub validation_loss: Option<f64>,
    /// Validation top-1 accuracy.
    pub validation_top1: Option<f64>,
    /// Training speed.
    pub images_per_second: f64,
    /// Duration of the epoch with its evaluation, in seconds.
    pub epoch_seconds: f64,
}

/// One evaluation of one part of the data.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Evaluation {
    /// Mean cross-entropy, in nats.
    pub loss: f64,
    /// Top-1 accuracy, a fraction.
    pub top1: f64,
    /// Top-5 accuracy, a fraction.
    pub top5: Option<f64>,
    /// Images evaluated.
    pub images: u64,
}

/// Predicted and true class of each image of the test part.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Predictions {
    /// What the network said, one class index an image.
    pub predicted: Vec<u16>,
    /// What is true, in the same order; empty where it is not known.
    pub actual: Vec<u16>,
    /// Names of the classes by index; may be empty.
    pub classes: Vec<String>,
}

impl Predictions {
    /// Whether each image is right; `None` where the truth is not known.
    pub fn correct(&self) -> Option<Vec<bool>> {
        (!self.actual.is_empty() && self.actual.len() == self.predicted.len())
            .then(|| self.predicted.iter().zip(&self.actual).map(|(p, a)| p == a).collect())
    }
}

impl Run {
    /// The epoch that validation chose: the trainer's word, else highest validation accuracy, then lowest validation loss, then the earliest.
    /// Where nothing was validated, the last.
    pub fn tested_epoch(&self) -> Option<&Epoch> {
        if let Some(chosen) = self.chosen_epoch.and_then(|chosen| self.epochs.iter().find(|e| e.epoch == chosen)) {
            return Some(chosen);
        }
        let validated = self.epochs.iter().filter(|epoch| epoch.validation_top1.is_some_and(f64::is_finite));
        validated
            .min_by(|a, b| {
                let accuracy = |epoch: &Epoch| epoch.validation_top1.unwrap_or(f64::NEG_INFINITY);
                let loss = |epoch: &Epoch| epoch.validation_loss.unwrap_or(f64::INFINITY);
                accuracy(b).total_cmp(&accuracy(a)).then(loss(a).total_cmp(&loss(b))).then(a.epoch.cmp(&b.epoch))
            })
            .or_else(|| self.epochs.last())
    }

    /// Validation accuracy at the epoch that validation chooses.
    pub fn validation_top1(&self) -> Option<f64> {
        self.tested_epoch().and_then(|epoch| epoch.validation_top1)
    }

    /// Training less validation accuracy at the epoch that validation chooses.
    pub fn generalization_gap(&self) -> Option<f64> {
        let best = self.tested_epoch()?;
        Some(best.train_top1 - best.validation_top1?)
    }

    /// Training accuracy at the epoch that validation chooses less test accuracy.
    pub fn test_gap(&self) -> Option<f64> {
        Some(self.tested_epoch()?.train_top1 - self.test?.top1)
    }

    /// Time of training and validation, in seconds: the trainer's word, else the sum over the epochs.
    pub fn train_seconds(&self) -> Option<f64> {
        self.wall_seconds.or_else(|| self.epochs_seconds())
    }

    fn epochs_seconds(&self) -> Option<f64> {
        (!self.epochs.is_empty()).then(|| self.epochs.iter().map(|epoch| epoch.epoch_seconds).sum())
    }

    /// Mean training speed over the epochs.
    pub fn images_per_second(&self) -> Option<f64> {
        let speeds: Vec<f64> = self.epochs.iter().map(|epoch| epoch.images_per_second).collect();
        crate::statistics::mean(&speeds)
    }

    /// Floating-point operations of the whole training: 6 for each multiply–accumulate of the forward pass, 2 forward
    /// and 4 backward. Unknown where layers are frozen, which have less to do.
    pub fn train_flop(&self) -> Option<f64> {
        if self.has_frozen_layers {
            return None;
        }
        let images: f64 = self.epochs.iter().map(|epoch| epoch.images_per_second * epoch.epoch_seconds).sum();
        Some(6.0 * self.macs_per_image? as f64 * images).filter(|flop| flop.is_finite() && *flop > 0.0)
    }

    /// First epoch whose validation accuracy reaches `target`.
    pub fn epochs_to(&self, target: f64) -> Option<u32> {
        self.epochs.iter().find(|epoch| epoch.validation_top1.is_some_and(|top1| top1 >= target)).map(|e| e.epoch)
    }
}
