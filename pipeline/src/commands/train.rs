//! `pipeline train`: one trial of an experiment.

use report::Cell;
use store::Store;

use crate::{
    cli::{self, Format, Global, Machine, Rows},
    commands::show::{cells, names},
    exit::Exit,
    output::{Table, tables, text},
    runner::{self, Redo},
};

/// Trains the trial chosen and prints its epochs.
pub fn run(
    experiment: &cli::Experiment,
    trial: Option<usize>,
    again: bool,
    threads: Option<u16>,
    to: &Rows,
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
    let machine = Machine { jobs: Some(1), threads };
    let swept =
        runner::sweep(&ready, global, machine, Redo { done: again, failed: true, pruned: true }, Some(&[chosen]))?;
    let end = super::sweep::end(&swept, experiment, global);
    let store = Store::open_read_only(&global.db)?;
    if let Some(run) = swept.states.first().and_then(|state| state.run) {
        let sql = "SELECT epoch, learning_rate, round(train_loss, 4) AS train_loss, round(train_top1, 4) AS train_top1, \
                   round(validation_loss, 4) AS validation_loss, round(validation_top1, 4) AS validation_top1, \
                   round(images_per_second) AS images_per_second FROM epochs WHERE run_id = ?1 ORDER BY epoch";
        let epochs = store.query(sql, &[run.0.into()])?;
        let sql = "SELECT run_id AS run, split, round(loss, 4) AS loss, top1, top5, images FROM evaluations WHERE run_id = ?1";
        let test = store.query(sql, &[run.0.into()])?;
        let not_yet = vec![vec![Cell::Integer(run.0), text("not yet")]];
        let (epoch_columns, test_columns) = (names(&epochs), names(&test));
        let is_tested = !test.rows.is_empty();
        let test = match (is_tested, to.format) {
            // For people; for programs there are no rows.
            (false, Format::Table) => Table { name: "test", columns: &["run", "test"], rows: not_yet },
            _ => Table { name: "test", columns: &test_columns, rows: cells(&test) },
        };
        let mut all = vec![Table { name: "epochs", columns: &epoch_columns, rows: cells(&epochs) }];
        // These hold one table.
        if !matches!(to.format, Format::Csv | Format::Parquet) {
            all.push(test);
        }
        tables(&all, to)?;
    }
    Ok(end)
}
