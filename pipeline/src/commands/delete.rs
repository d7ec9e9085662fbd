//! `pipeline delete`: results that nobody needs any more.

use crate::{cli::Global, commands::mark, exit::Exit, output, runner::run_folder, subject};

/// Deletes runs and experiments with their files, after asking.
pub fn run(targets: &[String], yes: bool, global: &Global) -> anyhow::Result<Exit> {
    let store = mark::open(&global.db)?;
    let subjects = subject::find_all(&store, targets)?;
    // What is told and what is done are looked at apart: a person may take long to answer.
    let planned = store.delete(&subjects, false)?;
    let (runs, epochs) =
        (output::counted(planned.runs.len(), "run"), output::counted(planned.epochs as usize, "epoch"));
    let mut what = format!("{runs} with {epochs}");
    if !planned.experiments.is_empty() {
        let names: Vec<String> = planned.experiments.iter().map(|name| report::visible(name)).collect();
        what = format!("experiment {} and {what}", names.join(", "));
    }
    if planned.kept_runs > 0 {
        what.push_str(&format!(" ({} more stay: other experiments have their trials too)", planned.kept_runs));
    }
    if !yes && !subject::confirmed(&format!("delete {what} and their files for good"))? {
        output::line("nothing was deleted")?;
        return Ok(Exit::Fine);
    }
    let deleted = store.delete(&subjects, true)?;
    for &run in &deleted.runs {
        let folder = run_folder(&global.db, run);
        if let Err(error) = std::fs::remove_dir_all(&folder)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            output::tell(&format!("{}: {error}; `pipeline gc` removes it later", folder.display()));
        }
    }
    output::line(&format!("deleted {what}"))?;
    Ok(Exit::Fine)
}
