//! `pipeline sweep`: run what has not been run, then report.

use std::path::Path;

use store::RunStatus;

use crate::{
    cli::{self, Global, Machine},
    exit::Exit,
    runner::{self, Redo, Swept},
};

/// Runs an experiment's trials.
pub fn run(
    experiment: &cli::Experiment,
    again: bool,
    retry_failed: bool,
    no_report: bool,
    machine: Machine,
    global: &Global,
) -> anyhow::Result<Exit> {
    let ready = runner::ready(&experiment.file, &experiment.overrides, global)?;
    let redo = Redo { done: again, failed: again || retry_failed };
    let swept = runner::sweep(&ready, global, machine, redo, None)?;
    let end = end(&swept, &experiment.file, global);
    if end != Exit::Interrupted && !no_report && swept.states.iter().any(|state| state.status == RunStatus::Done) {
        super::report::write(std::slice::from_ref(&ready.experiment.name), None, global)?;
    }
    Ok(end)
}

/// Says how a sweep ended.
pub fn end(swept: &Swept, file: &Path, global: &Global) -> Exit {
    let count = |status| swept.states.iter().filter(|state| state.status == status).count();
    let (done, failed, all) = (count(RunStatus::Done), count(RunStatus::Failed), swept.states.len());
    if !global.quiet {
        let elsewhere = done.saturating_sub(swept.tally.done + swept.before);
        let mut before = if swept.before > 0 { format!(" ({} of them before)", swept.before) } else { String::new() };
        if elsewhere > 0 {
            before += &format!(" ({elsewhere} of them by other processes)");
        }
        let failures = if failed > 0 { format!(", {failed} failed") } else { String::new() };
        eprintln!("{done} of {all} trials done{before}{failures}");
    }
    if runner::interrupted() {
        eprintln!("stopped; the same command goes on where it stopped");
        return Exit::Interrupted;
    }
    if failed > 0 {
        eprintln!(
            "see `pipeline query failed`; `pipeline sweep {} --retry-failed` runs them once more",
            file.display()
        );
        return Exit::TrialsFailed;
    }
    Exit::Fine
}
