//! `pipeline sweep`: run what has not been run, then report.

use store::RunStatus;

use crate::{
    cli::{self, Global, Machine},
    exit::Exit,
    provenance,
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
    let end = end(&swept, experiment, global);
    if end != Exit::Interrupted && !no_report && swept.states.iter().any(|state| state.status == RunStatus::Done) {
        super::report::write(std::slice::from_ref(&ready.experiment.name), None, global)?;
    }
    Ok(end)
}

/// The command that sweeps the same plan into the same database.
fn command(experiment: &cli::Experiment, option: &str, global: &Global) -> String {
    let default = std::env::var_os("PIPELINE_DB").unwrap_or_else(|| "results.db".into());
    let db = (global.db.as_os_str() != default).then(|| ["--db".to_owned(), global.db.display().to_string()]);
    let words = ["pipeline", "sweep"].map(str::to_owned).into_iter();
    provenance::words(
        words
            .chain([experiment.file.display().to_string()])
            .chain(experiment.overrides.iter().cloned())
            .chain(db.into_iter().flatten())
            .chain([option.to_owned()]),
    )
}

/// Says how a sweep ended.
pub fn end(swept: &Swept, experiment: &cli::Experiment, global: &Global) -> Exit {
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
                "{trained} of {planned} epochs trained, {saved:.0} % saved; `{}` trains the others too",
                command(experiment, "--resume-pruned", global)
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
            "see `pipeline query failed`; `pipeline verify RUN --from-checkpoint` replays one; `{}` runs them once more",
            command(experiment, "--retry-failed", global)
        );
        return Exit::TrialsFailed;
    }
    Exit::Fine
}
