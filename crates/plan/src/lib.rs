//! Experiment files: validation, schedules, search spaces and trials; no I/O beyond the one file.
//!
//! [`Experiment::load`] reads a TOML file, lays `key=value` overrides from the command line over it, checks everything that can be
//! checked without the data, and lists the [`Trial`]s. What it refuses, it refuses with the file, the line and the key path.
//!
//! ```
//! let text = r#"
//! seeds = 2
//! [sweep.grid]
//! "train.weight_decay" = [0.0, 0.0005]
//! "#;
//! let experiment = plan::Experiment::parse(text, "example.toml", &["train.epochs=1".to_owned()])?;
//! let labels: Vec<String> = experiment.trials().iter().map(plan::Trial::label).collect();
//! assert_eq!(labels, ["lenet5 λ=0 seed=1", "lenet5 λ=0 seed=2", "lenet5 λ=0.0005 seed=1", "lenet5 λ=0.0005 seed=2"]);
//! # Ok::<(), plan::PlanError>(())
//! ```

mod check;
mod condition;
mod deserialize;
mod document;
mod error;
mod experiment;
mod keys;
mod overrides;
mod policy;
mod resolve;
pub mod schedule;
mod search;
mod searching;
pub mod settings;
mod space;
mod suggest;
mod sweeping;
mod synonyms;
mod trial;

pub use check::Violation;
pub use error::{Location, PlanError};
pub use experiment::{Experiment, MAX_TRIALS, Variant};
pub use keys::{Key, keys};
pub use policy::{Objective, OnFailure, Policy, Pruner, PrunerKind};
pub use schedule::{Curve, PlateauState, Schedule, ScheduleState, TableStep, noise_to_lose, preview};
pub use search::{Axis, Sweep};
pub use searching::Search;
pub use settings::{
    Activation, Architecture, Augment, Color, Dataset, Decay, Device, Initialization, Layout, Model, Normalization,
    OnBroken, Optimizer, Precision, ResizedCrop, Settings, Source, Stem, Train,
};
pub use space::{Distribution, Parameter, Sampler, SamplerKind};
pub use trial::Trial;
