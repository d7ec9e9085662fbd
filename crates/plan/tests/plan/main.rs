//! What experiment files may say and what comes of it.
//!
//! - `refusals`: every message, word by word
//! - `trials`: sweeps, variants, seeds, their order and labels
//! - `overrides`: `key=value` from the command line
//! - `identity`: what changes a trial's identity and what does not
//! - `schedules`: learning rates against closed formulas
//! - `spaces`: distributions and samplers
//! - `experiments`: the files in `experiments/`

mod experiments;
mod identity;
mod overrides;
mod refusals;
mod schedules;
mod spaces;
mod trials;

use plan::{Experiment, PlanError};

/// Reads an experiment called `x.toml`.
fn parse(text: &str, overrides: &[&str]) -> Result<Experiment, PlanError> {
    let overrides: Vec<String> = overrides.iter().map(|text| (*text).to_owned()).collect();
    Experiment::parse(text, "x.toml", &overrides)
}

/// Reads an experiment that must be sound.
#[track_caller]
fn sound(text: &str, overrides: &[&str]) -> Experiment {
    parse(text, overrides).unwrap_or_else(|error| panic!("{error}"))
}

/// Labels of all trials.
#[track_caller]
fn labels(text: &str, overrides: &[&str]) -> Vec<String> {
    sound(text, overrides).trials().iter().map(plan::Trial::label).collect()
}
