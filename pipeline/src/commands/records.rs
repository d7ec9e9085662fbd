//! `pipeline export EXPERIMENT`: what is known of its runs, for programs that keep records of experiments.

use std::collections::HashMap;

use ::export::{Point, RecordStatus, RunRecord};
use anyhow::Context;
use report::Cell;
use store::{EpochRow, RunStatus, Store, Value};

use crate::{
    cli::{self, Format, Global, Rows},
    commands::show::flattened,
    exit::Exit,
    output::{integer, rows, text},
    subject,
};

/// Writes what was asked for, and prints where it is.
pub fn run(to: &cli::Export, global: &Global) -> anyhow::Result<Exit> {
    anyhow::ensure!(
        to.tensorboard.is_some() || to.mlflow.is_some() || to.optuna.is_some(),
        "nothing says what to write: --out FOLDER for the network of a run; --tensorboard FOLDER, --mlflow FOLDER or --optuna FILE for \
         the records of an experiment"
    );
    let store = Store::open_read_only(&global.db)?;
    let id = subject::experiment(&store, &to.network)?;
    let runs = records(&store, id)?;
    anyhow::ensure!(!runs.is_empty(), "experiment {:?} has no run yet: there is nothing to export", to.network);
    let mut table = Vec::new();
    if let Some(folder) = &to.tensorboard {
        let folder = ::export::write_tensorboard(folder, &to.network, &runs)?;
        table.push(vec![text(folder.display().to_string()), integer(runs.len()), text("TensorBoard's event files")]);
    }
    if let Some(folder) = &to.mlflow {
        let folder = ::export::write_mlflow(folder, &to.network, &runs)?;
        table.push(vec![text(folder.display().to_string()), integer(runs.len()), text("MLflow's file store")]);
    }
    if let Some(file) = &to.optuna {
        let fail = || format!("cannot write {}", file.display());
        let mut name = file.file_name().with_context(fail)?.to_owned();
        name.push(format!(".{}.tmp", std::process::id()));
        let temporary = file.with_file_name(name);
        let study = store
            .write_optuna(id, &to.network, &temporary)
            .map_err(anyhow::Error::from)
            .and_then(|study| std::fs::rename(&temporary, file).with_context(fail).map(|()| study))
            .inspect_err(|_| {
                let _ = std::fs::remove_file(&temporary);
            })?;
        let what = format!("Optuna's database, by {}", study.objectives.join(" and "));
        table.push(vec![text(file.display().to_string()), integer(study.trials), text(what)]);
    }
    rows(&["written", "runs", "holds"], &table, &Rows { format: Format::Table, out: None })?;
    Ok(Exit::Fine)
}

/// All runs that stand for the experiment's trials.
fn records(store: &Store, id: store::ExperimentId) -> anyhow::Result<Vec<RunRecord>> {
    let sql = "SELECT e.run_id, e.epoch, e.recorded_ms FROM epochs AS e JOIN results AS r USING (run_id) \
               WHERE r.experiment_id = ?1";
    let times: HashMap<(i64, i64), i64> = store
        .query(sql, &[Value::Integer(id.0)])?
        .rows
        .iter()
        .filter_map(|row| match row[..] {
            [Value::Integer(run), Value::Integer(epoch), Value::Integer(at_ms)] => Some(((run, epoch), at_ms)),
            _ => None,
        })
        .collect();
    let mut points: HashMap<i64, Vec<Point>> = HashMap::new();
    for epoch in store.epochs(id)? {
        let at_ms = times.get(&(epoch.run.0, epoch.row.epoch.into())).copied().unwrap_or(0);
        let of_run = points.entry(epoch.run.0).or_default();
        for (measure, value) in measures(&epoch.row) {
            of_run.push(Point { measure: measure.to_owned(), epoch: epoch.row.epoch, at_ms, value });
        }
    }
    store
        .runs(id)?
        .into_iter()
        .map(|run| {
            let settings = flattened(&store.canonical(run.run)?)?.into_iter().filter_map(|(key, value)| {
                let value = match value {
                    Cell::Null | Cell::Blob(_) => return None,
                    Cell::Integer(value) => value.into(),
                    Cell::Real(value) => value.into(),
                    Cell::Text(value) => value.into(),
                };
                Some((key, value))
            });
            let started_ms = run.started_ms.unwrap_or(0);
            let finished_ms = run.finished_ms;
            let mut points = points.remove(&run.run.0).unwrap_or_default();
            let end = [("test/loss", run.test_loss), ("test/top1", run.test_top1), ("test/top5", run.test_top5)];
            for (measure, value) in end {
                if let Some(value) = value {
                    let epoch = run.tested_epoch.unwrap_or(run.epochs);
                    let at_ms = finished_ms.unwrap_or(started_ms);
                    points.push(Point { measure: measure.to_owned(), epoch, at_ms, value });
                }
            }
            let notes = [
                ("pipeline.run", Some(run.run.to_string())),
                ("pipeline.network", Some(run.network.clone())),
                ("pipeline.configuration", Some(run.configuration.clone())),
                ("pipeline.status", Some(run.status.to_string())),
                ("pipeline.device", run.device.clone()),
                ("pipeline.commit", run.commit.clone()),
                ("pipeline.failure", run.failure_message.clone()),
            ];
            let notes = notes.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
            Ok(RunRecord {
                identity: format!("{}-{}", run.identity, run.attempt),
                name: run.label.clone(),
                status: match run.status {
                    RunStatus::Done => RecordStatus::Done,
                    RunStatus::Queued | RunStatus::Running | RunStatus::Interrupted => RecordStatus::Running,
                    RunStatus::Pruned => RecordStatus::Left,
                    RunStatus::Failed => RecordStatus::Failed,
                },
                started_ms,
                finished_ms,
                settings: settings.collect(),
                notes: notes.collect(),
                points,
            })
        })
        .collect()
}

/// What is measured in an epoch, under names that TensorBoard and MLflow group by what stands before the slash.
fn measures(row: &EpochRow) -> impl Iterator<Item = (&'static str, f64)> {
    let all = [
        ("train/loss", Some(row.train_loss)),
        ("train/top1", Some(row.train_top1)),
        ("train/top5", Some(row.train_top5)),
        ("train/penalty", Some(row.train_penalty)),
        ("train/learning_rate", Some(row.learning_rate)),
        ("train/images_per_second", Some(row.images_per_second)),
        ("validation/loss", row.validation_loss),
        ("validation/top1", row.validation_top1),
        ("validation/top5", row.validation_top5),
    ];
    all.into_iter().filter_map(|(name, value)| value.filter(|value| !value.is_nan()).map(|value| (name, value)))
}
