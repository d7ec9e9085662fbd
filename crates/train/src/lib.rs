//! The epoch loop: training, evaluation, metrics, checkpoints.
//!
//! [`run`] trains one trial and tells a [`Sink`] what happens; it neither prints nor stores. Two runs of one trial end in
//! the same bits, whatever the number of threads and however often they were stopped and resumed.

mod assessment;
pub mod bench;
mod checkpoint;
mod device;
mod engine;
mod event;
mod freeze;
mod gpu;
mod initial;
mod initialize;
mod metrics;
mod names;
mod post_mortem;
mod predictor;
mod run;
mod steps;
mod weights;

pub use assessment::{Assessment, ClassScores, Confusion};
pub use checkpoint::{CHECKPOINT, Progress};
pub use device::{Device, Finding, Products, bf16_products};
pub use engine::{Engine, Memory, Views, memory};
pub use event::{EpochRecord, Event, Sink, SinkError, StepProgress, TestRecord};
pub use freeze::check_frozen_layers;
pub use initial::{check_initial_weights, note_initial_weights};
pub use initialize::initialize;
pub use metrics::{Evaluation, Scores, StepScores};
pub use names::Names;
pub use post_mortem::{Norms, PostMortem};
pub use predictor::{Guess, PREDICTION_BATCH, Predictor};
pub use run::{Options, Outcome, Stop, Summary, assess, penalty, run};
pub use weights::{Card, load_weights, save_weights};

use std::path::PathBuf;

impl From<lowering::cuda::CudaError> for TrainError {
    fn from(error: lowering::cuda::CudaError) -> Self {
        Self::Device(error)
    }
}

/// Why a trial did not end well.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The network does not fit the images.
    #[error(transparent)]
    Model(#[from] graph::ModelError),
    /// The data set cannot be read or augmented as asked.
    #[error(transparent)]
    Dataset(#[from] dataset::DatasetError),
    /// There is nothing to train on.
    #[error("dataset: the training split is empty; lower dataset.validation_fraction or raise dataset.train_images")]
    NoTrainingImages,
    /// The loss is no longer a number.
    #[error(
        "training diverged: the loss was {loss} in epoch {epoch}, step {step}; a lower train.learning_rate may help"
    )]
    Diverged {
        /// From 1.
        epoch: u32,
        /// From 1, within the epoch.
        step: u32,
        /// NaN or infinite.
        loss: f64,
        /// What is known beside that.
        post_mortem: Box<PostMortem>,
    },
    /// A file cannot be read or written.
    #[error("failed to {action} {}: {source}", path.display())]
    File {
        /// `read`, `write` or `remove`.
        action: &'static str,
        /// Which file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A weights file is not what the network needs.
    #[error("{}: {reason}", path.display())]
    Weights {
        /// Which file.
        path: PathBuf,
        /// What is wrong and what would be right.
        reason: String,
    },
    /// Layers cannot be frozen as asked.
    #[error("train.freeze: {0}")]
    Freeze(String),
    /// The GPU cannot be used, or failed.
    #[error("train.device: {0}")]
    Device(lowering::cuda::CudaError),
    /// The GPU does not have the arithmetic.
    #[error("train.precision: {0}")]
    Precision(lowering::cuda::CudaError),
    /// Who listens to events could not go on.
    #[error("failed to record the run: {0}")]
    Sink(SinkError),
}
