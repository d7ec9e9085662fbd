//! What a sweep aims at, which configurations it leaves early, and what it does when a trial fails.

use serde::Deserialize;

/// `sweep.objective`: what a search and a pruner go by. The test part has no say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Objective {
    /// `validation_loss`: mean cross-entropy over the validation part. The default: early in training it ranks configurations more
    /// reliably than shares of a few thousand images do.
    #[default]
    ValidationLoss,
    /// `validation_top1`: the share of validation images whose most probable class is right; equal shares rank by the loss.
    ValidationTop1,
    /// `train_seconds`: wall-clock time of training and validation, in seconds. It is as noisy as the machine is busy.
    TrainSeconds,
    /// `macs_per_image`: multiply-accumulate operations of one forward pass of one image.
    MacsPerImage,
    /// `parameters`: trainable parameters.
    Parameters,
}

impl Objective {
    /// Whether it is measured on the validation part, after each epoch.
    pub fn is_validation(self) -> bool {
        matches!(self, Self::ValidationLoss | Self::ValidationTop1)
    }

    /// The name in experiment files.
    pub fn name(self) -> &'static str {
        match self {
            Self::ValidationTop1 => "validation_top1",
            Self::ValidationLoss => "validation_loss",
            Self::TrainSeconds => "train_seconds",
            Self::MacsPerImage => "macs_per_image",
            Self::Parameters => "parameters",
        }
    }
}

/// `sweep.on_failure`: what the other trials do when one has failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// They go on.
    #[default]
    Continue,
    /// Those under way stop and save, no other is begun.
    Stop,
}

/// What decides which configurations are left before their last epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PrunerKind {
    /// Asynchronous successive halving.
    Halving,
    /// Successive halving in brackets, each of which compares later than the one before.
    Hyperband,
    /// Left when worse than the median of the others.
    Median,
    /// Left when it no longer improves.
    Patience,
    /// Left when worse than the best one, at the same seeds and the same epoch, by more than a margin.
    Paired,
}

impl PrunerKind {
    /// The name in experiment files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Halving => "halving",
            Self::Hyperband => "hyperband",
            Self::Median => "median",
            Self::Patience => "patience",
            Self::Paired => "paired",
        }
    }
}

/// `[sweep.pruner]` as written.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Written {
    kind: PrunerKind,
    reduction_factor: Option<u32>,
    minimum_epochs: Option<u32>,
    interval_epochs: Option<u32>,
    patience_epochs: Option<u32>,
    startup_configurations: Option<usize>,
    margin: Option<f64>,
}

/// `[sweep.pruner]`: configurations of one network are compared with each other, by their means over seeds after equal numbers of
/// epochs.
#[derive(Clone, Debug, PartialEq)]
pub struct Pruner {
    /// `kind`.
    pub kind: PrunerKind,
    /// `reduction_factor` of halving and hyperband: of so many that come to a rung one goes on (rounded up, as Ray Tune does; Optuna
    /// rounds down), and so many times longer to the next rung. Default: 3.
    pub reduction_factor: u32,
    /// `minimum_epochs`: no configuration is left before. Default: a fifth of `train.epochs` for halving and hyperband, a quarter for the
    /// others, at least 1.
    pub minimum_epochs: u32,
    /// `interval_epochs` of median, patience and paired: epochs between two comparisons. Default: 1.
    pub interval_epochs: u32,
    /// `patience_epochs` of patience: how many epochs may pass without an improvement. Default: 5.
    pub patience_epochs: u32,
    /// `startup_configurations` of median: how many others must have come as far. Default: 5.
    pub startup_configurations: usize,
    /// `margin`, in the objective's own unit. Paired: how much worse than the best is borne; default 0.01 for accuracies, 0.05 for
    /// losses. Patience: the least improvement; default 0.
    pub margin: f64,
    /// `train.epochs` of every trial.
    pub epochs: u32,
}

/// What every sweep may say of how it is run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Policy {
    /// `sweep.objective`, the first one, which is of the validation part.
    pub objective: Objective,
    /// The others of a list: what is to be low, or as an accuracy high, besides. A search then looks for configurations that none is
    /// better than in all of them.
    pub other_objectives: Vec<Objective>,
    /// `[sweep.pruner]`.
    pub pruner: Option<Pruner>,
    /// `sweep.on_failure`.
    pub on_failure: OnFailure,
    /// `sweep.retries`: how often a trial is taken up again in one sweep after a failure of the machine, from its last checkpoint. A loss
    /// that is not finite is none: it would come out the same. Default: 0.
    pub retries: u32,
    /// `sweep.trial_minutes`: how long a trial may take, all its sessions together. Default: no limit.
    pub trial_minutes: Option<f64>,
    /// `sweep.minutes`: after so long the sweep stops and saves, and the same command goes on. Default: no limit.
    pub minutes: Option<f64>,
}

impl Policy {
    /// All objectives, the first one first.
    pub fn objectives(&self) -> Vec<Objective> {
        std::iter::once(self.objective).chain(self.other_objectives.iter().copied()).collect()
    }
}

/// A message, with the key within the pruner.
type Refusal = (&'static str, String);

impl Written {
    /// Fills in what is left out and checks ranges, for trials of so many epochs.
    pub(crate) fn checked(self, objective: Objective, epochs: u32) -> Result<Pruner, Refusal> {
        use PrunerKind::{Halving, Hyperband, Median, Paired, Patience};
        let kind = self.kind;
        let given: [(&'static str, bool, &[PrunerKind]); 5] = [
            ("reduction_factor", self.reduction_factor.is_some(), &[Halving, Hyperband]),
            ("interval_epochs", self.interval_epochs.is_some(), &[Median, Patience, Paired]),
            ("patience_epochs", self.patience_epochs.is_some(), &[Patience]),
            ("startup_configurations", self.startup_configurations.is_some(), &[Median]),
            ("margin", self.margin.is_some(), &[Paired, Patience]),
        ];
        if let Some((key, _, of)) = given.iter().find(|(_, given, of)| *given && !of.contains(&kind)) {
            let of: Vec<&str> = of.iter().map(|kind| kind.name()).collect();
            return Err((*key, format!("belongs to kind {}, not to {}", of.join(", "), kind.name())));
        }
        if epochs < 2 {
            return Err(("kind", format!("a pruner needs trials of at least 2 epochs, got train.epochs = {epochs}")));
        }
        let whole = |key: &'static str, value: u32, least: u32, most: u32| match (least..=most).contains(&value) {
            true => Ok(value),
            false => Err((key, format!("must be from {least} to {most}, got {value}"))),
        };
        let part = if matches!(kind, Halving | Hyperband) { 5 } else { 4 };
        let minimum_epochs = self.minimum_epochs.unwrap_or_else(|| (epochs / part).max(1));
        if !(1..epochs).contains(&minimum_epochs) {
            let most = epochs - 1;
            let message = format!("must be from 1 to {most}, below train.epochs = {epochs}, got {minimum_epochs}");
            return Err(("minimum_epochs", message));
        }
        let margin = self.margin.unwrap_or(match (kind, objective) {
            (Paired, Objective::ValidationTop1) => 0.01,
            (Paired, _) => 0.05,
            _ => 0.0,
        });
        if !(margin >= 0.0 && margin.is_finite()) {
            return Err(("margin", format!("must be ≥ 0, in the unit of {}, got {margin}", objective.name())));
        }
        let startup_configurations = self.startup_configurations.unwrap_or(5);
        if startup_configurations == 0 {
            return Err(("startup_configurations", "must be ≥ 1, got 0".to_owned()));
        }
        Ok(Pruner {
            kind,
            reduction_factor: whole("reduction_factor", self.reduction_factor.unwrap_or(3), 2, 100)?,
            minimum_epochs,
            interval_epochs: whole("interval_epochs", self.interval_epochs.unwrap_or(1), 1, epochs)?,
            patience_epochs: whole("patience_epochs", self.patience_epochs.unwrap_or(5).min(epochs), 1, epochs)?,
            startup_configurations,
            margin,
            epochs,
        })
    }
}
