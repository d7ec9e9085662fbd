//! The exact state of a run, so that one that was stopped ends in the same bits as one that was not.

use std::{collections::HashMap, path::Path};

use graph::step::Variables;
use plan::PlateauState;
use serde::{Deserialize, Serialize};

use crate::{Names, Scores, TrainError, weights};

/// File name of a run's checkpoint within its folder.
pub const CHECKPOINT: &str = "checkpoint.safetensors";

/// Key of the progress in the file's metadata.
const PROGRESS: &str = "progress";

/// Where a run stands, besides its tensors.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// Identity of the trial, so that a checkpoint is never resumed as another.
    pub trial: String,
    /// Epochs that are done.
    pub completed_epochs: u32,
    /// Steps that are done of the epoch after them.
    pub completed_steps: u32,
    /// Bits of Σ loss over those steps (f64, kept exactly).
    pub loss_bits: u64,
    /// Images of those steps, and how many were ranked first and among five.
    pub images: u64,
    /// See [`Self::images`].
    pub top1: u64,
    /// See [`Self::images`].
    pub top5: u64,
    /// Bits of the losses of those steps (f32).
    #[serde(default)]
    pub losses: Vec<u32>,
    /// What the schedule remembers.
    pub plateau: PlateauState,
    /// Epoch with the lowest validation loss so far, from 1, and the bits of that loss.
    pub best: Option<(u32, u64)>,
    /// Seconds of training so far.
    pub train_seconds: f64,
}

impl Progress {
    pub(crate) fn scores(&self) -> Scores {
        Scores { loss: f64::from_bits(self.loss_bits), top1: self.top1, top5: self.top5, images: self.images }
    }

    pub(crate) fn set_scores(&mut self, scores: &Scores) {
        let Scores { loss, top1, top5, images } = *scores;
        (self.loss_bits, self.top1, self.top5, self.images) = (loss.to_bits(), top1, top5, images);
    }
}

/// Writes all persistent tensors and the progress.
pub(crate) fn save(folder: &Path, variables: &Variables, progress: &Progress) -> Result<(), TrainError> {
    let states: Vec<_> = variables.persistent().collect();
    let json = serde_json::to_string(progress).expect("progress is plain data");
    weights::write(&folder.join(CHECKPOINT), &states, Names::Layers, HashMap::from([(PROGRESS.to_owned(), json)]))
}

/// Fills the variables from a run's checkpoint, if there is one of this trial.
pub(crate) fn load(folder: &Path, variables: &Variables, trial: &str) -> Result<Option<Progress>, TrainError> {
    let path = folder.join(CHECKPOINT);
    if !path.exists() {
        return Ok(None);
    }
    let refuse = |reason: String| TrainError::Weights { path: path.clone(), reason };
    let metadata = weights::read(&path, &[])?;
    let json = metadata.get(PROGRESS).ok_or_else(|| refuse("is not a checkpoint of this program".into()))?;
    let progress: Progress =
        serde_json::from_str(json).map_err(|error| refuse(format!("its progress is unreadable: {error}")))?;
    if progress.trial != trial {
        return Err(refuse(format!("belongs to trial {}, not to {trial}; delete it to start over", progress.trial)));
    }
    let states: Vec<_> = variables.persistent().collect();
    weights::read(&path, &states)?;
    Ok(Some(progress))
}
