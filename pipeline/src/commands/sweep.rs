//! `pipeline sweep`: run what has not been run, then report.

use std::path::Path;

use store::RunStatus;

use crate::{
    cli::{self, Global, Machine},
    exit::Exit,
    runner::{self, Halt, Redo, Swept},
};

/// Runs an experiment's trials.
pub fn run(
    experiment: &cli::Experiment,
    redo: Redo,
    no_report: bool,
    machine: Machine,
    global: &Global,
) -> anyhow::Result<Exit> {
    let ready = runner::ready(&experiment.file, &experiment.overrides, global)?;
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
        let pruned = count(RunStatus::Pruned);
        let left = if pruned > 0 { format!(", {pruned} left early") } else { String::new() };
        eprintln!("{done} of {all} trials done{before}{left}{failures}");
        if let Some((trained, planned)) = swept.epochs.filter(|(trained, planned)| trained < planned && pruned > 0) {
            let saved = 100.0 * (planned - trained) as f64 / planned as f64;
            eprintln!(
                "{trained} of {planned} epochs trained, {saved:.0} % saved; `pipeline sweep {} --resume-pruned` trains the others too",
                file.display()
            );
        }
    }
    if swept.halt == Some(Halt::Failure) {
        eprintln!("stopped at the first failure (sweep.on_failure = \"stop\"); the same command runs the others");
        return Exit::TrialsFailed;
    }
    if swept.halt == Some(Halt::Time) {
        eprintln!("the time of sweep.minutes is over; the same command goes on where it stopped");
        return Exit::Interrupted;
    }
    if runner::interrupted() {
        eprintln!("stopped; the same command goes on where it stopped");
        return Exit::Interrupted;
    }
    if failed > 0 {
        eprintln!(
            "see `pipeline query failed`; `pipeline verify RUN --from-checkpoint` replays one; `pipeline sweep {} --retry-failed` runs them once more",
            file.display()
        );
        return Exit::TrialsFailed;
    }
    Exit::Fine
}
