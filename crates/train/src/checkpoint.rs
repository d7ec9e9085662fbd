//! The exact state of a run, so that one that was stopped ends in the same bits as one that was not.

use std::{collections::HashMap, path::Path};

use graph::{State, step::Variables};
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

/// The progress with a hash of itself and of the tensors: a checkpoint with a changed bit must not be gone on from.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sealed {
    /// 64 hex digits.
    blake3: String,
    progress: Progress,
}

/// BLAKE3 over the progress and the values of all states, with their names.
fn seal(progress: &Progress, states: &[&State]) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(serde_json::to_string(progress).expect("progress is plain data").as_bytes());
    for state in states {
        hasher.update(state.name().as_bytes());
        let values = state.read();
        hasher.update(bytemuck::cast_slice::<f32, u8>(&values));
    }
    hasher.finalize().to_hex().to_string()
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
    let sealed = Sealed { blake3: seal(progress, &states), progress: progress.clone() };
    let json = serde_json::to_string(&sealed).expect("progress is plain data");
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
    let (progress, hash) = match serde_json::from_str(json) {
        Ok(Sealed { progress, blake3 }) => (progress, Some(blake3)),
        // Checkpoints had no hash once.
        Err(error) => match serde_json::from_str::<Progress>(json) {
            Ok(progress) => (progress, None),
            Err(_) => return Err(refuse(format!("its progress is unreadable: {error}"))),
        },
    };
    if progress.trial != trial {
        return Err(refuse(format!("belongs to trial {}, not to {trial}; delete it to start over", progress.trial)));
    }
    let states: Vec<_> = variables.persistent().collect();
    weights::read(&path, &states)?;
    if hash.is_some_and(|hash| hash != seal(&progress, &states)) {
        return Err(refuse("is corrupt: it does not have its own hash; delete it to start over".into()));
    }
    Ok(Some(progress))
}

#[cfg(test)]
mod tests {
    use dataset::rng::{Counter, Purpose};
    use plan::{Model, Optimizer};

    use super::*;

    #[test]
    fn a_damaged_checkpoint_is_refused_whatever_was_hit() {
        let network = graph::Network::new(&Model::default(), [1, 28, 28], 10).unwrap();
        let variables = || Variables::new(&network, Optimizer::Sgd);
        let saved = variables();
        crate::initialize(&saved, &Model::default(), 3);
        let progress = Progress { trial: "a".into(), completed_epochs: 2, losses: vec![7; 30], ..Progress::default() };
        let folder = tempfile::tempdir().unwrap();
        save(folder.path(), &saved, &progress).unwrap();
        let path = folder.path().join(CHECKPOINT);
        let whole = std::fs::read(&path).unwrap();
        let values = |variables: &Variables| -> Vec<u32> {
            variables
                .persistent()
                .flat_map(|state| state.read().iter().map(|v| v.to_bits()).collect::<Vec<_>>())
                .collect()
        };
        let loaded = variables();
        assert_eq!(load(folder.path(), &loaded, "a").unwrap(), Some(progress.clone()));
        assert!(values(&loaded) == values(&saved));
        let mut random = Counter::new(1, Purpose::Other, 0, 0);
        for _ in 0..200 {
            let mut bytes = whole.clone();
            // The header, which is small, as often as the tensors.
            let end = [3_000, bytes.len() as u32][random.below(2) as usize];
            let at = random.below(end) as usize;
            let other = random.below(end) as usize;
            match random.below(4) {
                0 => bytes[at] ^= 1 << random.below(8),
                1 => bytes.truncate(at),
                2 => drop(bytes.drain(at..(at + 4).min(whole.len()))),
                _ => bytes.copy_within(at..(at + 20).min(whole.len()), other.min(whole.len() - 20)),
            }
            if bytes == whole {
                continue;
            }
            std::fs::write(&path, &bytes).unwrap();
            let loaded = variables();
            // Spaces behind the header do not count, for example.
            if let Ok(found) = load(folder.path(), &loaded, "a") {
                assert_eq!(found.as_ref(), Some(&progress), "another progress, unnoticed");
                assert!(values(&loaded) == values(&saved), "other values, unnoticed");
            }
        }
        // A bit of the last tensor.
        let mut bytes = whole.clone();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        let refusal = load(folder.path(), &variables(), "a").unwrap_err().to_string();
        assert!(refusal.contains("checkpoint.safetensors: is corrupt"), "{refusal}");
    }
}
