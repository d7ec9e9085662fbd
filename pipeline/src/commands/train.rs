//! `pipeline train`: one trial of an experiment.

use report::Cell;
use store::Store;

use crate::{
    cli::{self, Format, Global, Machine, Rows},
    exit::Exit,
    output::{rows, text},
    runner::{self, Redo},
};

/// Trains the trial chosen and prints its epochs.
pub fn run(
    experiment: &cli::Experiment,
    trial: Option<usize>,
    again: bool,
    machine: Machine,
    global: &Global,
) -> anyhow::Result<Exit> {
    let file = &experiment.file;
    let ready = runner::ready(file, &experiment.overrides, global)?;
    let chosen = match (trial, ready.trials.len()) {
        (None, 1) => 0,
        (Some(trial), count) if trial < count => trial,
        (Some(trial), count) => {
            anyhow::bail!("--trial {trial}: {} has the trials 0 to {}; see `pipeline plan`", file.display(), count - 1)
        }
        (None, count) => anyhow::bail!(
            "{} has {count} trials: choose one with --trial N (see `pipeline plan`), or run all with `pipeline sweep`",
            file.display()
        ),
    };
    let machine = Machine { jobs: Some(1), ..machine };
    let swept =
        runner::sweep(&ready, global, machine, Redo { done: again, failed: true, pruned: true }, Some(&[chosen]))?;
    let end = super::sweep::end(&swept, file, global);
    let store = Store::open_read_only(&global.db)?;
    if let Some(run) = swept.states.first().and_then(|state| state.run) {
        let sql = "SELECT epoch, learning_rate, round(train_loss, 4) AS train_loss, round(train_top1, 4) AS train_top1, \
                   round(validation_loss, 4) AS validation_loss, round(validation_top1, 4) AS validation_top1, \
                   round(images_per_second) AS images_per_second FROM epochs WHERE run_id = ?1 ORDER BY epoch";
        super::query::print(&store.query(sql, &[run.0.into()])?, &Rows { format: Format::Table, out: None })?;
        let sql = "SELECT run_id AS run, split, round(loss, 4) AS loss, top1, top5, images FROM evaluations WHERE run_id = ?1";
        let table = store.query(sql, &[run.0.into()])?;
        if table.rows.is_empty() {
            rows(
                &["run", "test"],
                &[vec![Cell::Integer(run.0), text("not yet")]],
                &Rows { format: Format::Table, out: None },
            )?;
        } else {
            super::query::print(&table, &Rows { format: Format::Table, out: None })?;
        }
    }
    Ok(end)
}
