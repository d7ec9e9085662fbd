//! Experiments and runs as they are named on the command line.

use std::io::{BufRead, IsTerminal, Write};

use anyhow::Context;
use store::{ExperimentId, RunId, Store, StoreError, Subject};

/// What stands before the name of an experiment that looks like a run's number.
const PREFIX: &str = "experiment:";

/// An experiment by its name.
pub fn experiment(store: &Store, name: &str) -> anyhow::Result<ExperimentId> {
    if let Some(id) = store.experiment(name)? {
        return Ok(id);
    }
    let known: Vec<String> = store.experiments()?.into_iter().map(|experiment| experiment.name).collect();
    match &known[..] {
        [] => anyhow::bail!("no experiment is called {name:?}: there is none in this database"),
        _ => anyhow::bail!("no experiment is called {name:?}; there are: {}", known.join(", ")),
    }
}

/// A run by its number, or an experiment by its name.
pub fn find(store: &Store, text: &str) -> anyhow::Result<Subject> {
    match (text.strip_prefix(PREFIX), text.parse()) {
        (Some(name), _) => Ok(Subject::Experiment(experiment(store, name)?)),
        (None, Ok(run)) => match store.describe_run(RunId(run)) {
            Ok(_) => Ok(Subject::Run(RunId(run))),
            Err(StoreError::UnknownRun { .. }) => {
                anyhow::bail!("no run {run}: see `pipeline list --runs`; an experiment of that name is {PREFIX}{run}")
            }
            Err(error) => Err(error.into()),
        },
        (None, Err(_)) => Ok(Subject::Experiment(experiment(store, text)?)),
    }
}

/// All of them, before anything is done to the first one.
pub fn find_all(store: &Store, texts: &[String]) -> anyhow::Result<Vec<Subject>> {
    texts.iter().map(|text| find(store, text)).collect()
}

/// As people say it: `run 3`, `experiment width`.
pub fn told(text: &str, subject: Subject) -> String {
    match subject {
        Subject::Run(run) => format!("run {run}"),
        Subject::Experiment(_) => {
            format!("experiment {}", report::visible(text.strip_prefix(PREFIX).unwrap_or(text)))
        }
    }
}

/// Asks the person at the terminal; an error where there is none.
pub fn confirmed(question: &str) -> anyhow::Result<bool> {
    let input = std::io::stdin();
    anyhow::ensure!(input.is_terminal(), "{question}: nobody is there to ask; --yes says so beforehand");
    eprint!("{question}? [y/N] ");
    std::io::stderr().flush()?;
    let mut answer = String::new();
    input.lock().read_line(&mut answer).context("cannot read the answer")?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}
