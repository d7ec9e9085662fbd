//! What a run tells whoever listens.

use graph::Network;

use crate::metrics::Evaluation;

/// Metrics of one epoch. Accuracies are fractions in [0, 1].
#[derive(Clone, Debug, PartialEq)]
pub struct EpochRecord {
    /// From 1.
    pub epoch: u32,
    /// Steps taken in this epoch.
    pub steps: u32,
    /// Learning rate of the epoch's last step.
    pub learning_rate: f64,
    /// Mean cross-entropy of each step's batch before its update, as computed: in 32 bits. Empty where the epoch was gone on with from a
    /// checkpoint that does not tell.
    pub losses: Vec<f32>,
    /// Mean cross-entropy over the training images as they were when trained on, without the penalty.
    pub train_loss: f64,
    /// λ/2·Σw² over the decaying weights, at the epoch's end; added to the loss it gives what is minimized.
    pub train_penalty: f64,
    /// Share of training images whose class was ranked first, as they were when trained on.
    pub train_top1: f64,
    /// Share whose class was among the first five.
    pub train_top5: f64,
    /// Metrics of the validation split after the epoch; none if nothing is held back.
    pub validation: Option<Evaluation>,
    /// Training throughput, evaluation left out.
    pub images_per_second: f64,
    /// Wall-clock time of the epoch, validation included.
    pub epoch_seconds: f64,
}

/// The one test at the end, with the final weights.
#[derive(Clone, Debug, PartialEq)]
pub struct TestRecord {
    /// Loss and accuracies.
    pub evaluation: Evaluation,
    /// Wall-clock time of the test.
    pub seconds: f64,
}

/// Where a run is within an epoch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepProgress {
    /// From 1.
    pub epoch: u32,
    /// Epochs in all.
    pub epochs: u32,
    /// Steps done in this epoch.
    pub step: u32,
    /// Steps per epoch.
    pub steps: u32,
    /// Mean training loss of the epoch so far.
    pub loss: f64,
    /// Images trained on since the run was started or resumed.
    pub images: u64,
}

/// What happens, in the order in which it happens.
#[derive(Debug)]
pub enum Event<'a> {
    /// The step is compiled; training starts, or goes on after `completed_epochs`.
    Started {
        /// The network.
        network: &'a Network,
        /// Epochs that a checkpoint holds.
        completed_epochs: u32,
        /// Steps per epoch.
        steps: u32,
        /// Memory that the run takes, in bytes.
        memory_bytes: usize,
    },
    /// Some steps are done; told a few times a second at most.
    Step(StepProgress),
    /// An epoch is done. The checkpoint is written after the sink returns, so that a record is never missing.
    Epoch(&'a EpochRecord),
    /// The state after so many epochs is safely on the disk.
    Checkpoint {
        /// Epochs that it holds.
        completed_epochs: u32,
        /// Where it is.
        path: &'a std::path::Path,
    },
    /// The test is done.
    Tested(&'a TestRecord),
}

/// Any error of a sink.
pub type SinkError = Box<dyn std::error::Error + Send + Sync>;

/// Listens to a run. An error ends the run.
pub trait Sink {
    /// Something happened.
    ///
    /// # Errors
    /// When the run should not go on: its record cannot be kept, or it is no longer wanted.
    fn event(&mut self, event: Event) -> Result<(), SinkError>;

    /// Whether the run is to go on after so many epochs, whose checkpoint is on the disk. Asked after each epoch but the last.
    ///
    /// # Errors
    /// When that cannot be decided.
    fn goes_on(&mut self, _completed_epochs: u32) -> Result<bool, SinkError> {
        Ok(true)
    }
}
