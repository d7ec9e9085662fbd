//! An experiment as a study of Optuna: a SQLite file that its `RDBStorage` and optuna-dashboard open.
//!
//! Source: `optuna/storages/_rdb/models.py`; the tables are those of schema version 12 (Alembic `v3.2.0.a`), which is the
//! newest one still in Optuna 5.0.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};
use sqlx::{Connection, SqliteConnection};

use crate::session::{Access, Problem, Session};
use crate::{Distribution, EpochRecord, ExperimentId, RunRow, RunStatus, Store, StoreError};

const TABLES: &str = include_str!("optuna.sql");

/// What a study came to: how many trials it has, and what its objective is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Study {
    /// Runs that became trials.
    pub trials: u32,
    /// What it aims at, by the names of `sweep.objective`: several where the experiment has several; else `validation_top1`, or
    /// `test_top1` where there is no validation part.
    pub objectives: Vec<String>,
}

/// Whether a measure is to be high.
fn is_maximized(measure: &str) -> bool {
    measure.ends_with("_top1")
}

/// What a run came to. `None` where it has not, or is not a number.
fn value(run: &RunRow, measure: &str) -> Option<f64> {
    let value = match measure {
        "validation_top1" => run.validation_top1,
        "validation_loss" => run.validation_loss,
        "train_seconds" => run.train_seconds,
        "macs_per_image" => Some(run.macs_per_image as f64),
        "parameters" => Some(run.parameters as f64),
        "test_top1" => run.test_top1,
        _ => None,
    };
    value.filter(|value| value.is_finite())
}

/// Optuna's times are text without a zone; these are UTC.
const TIME: &str = "strftime('%Y-%m-%d %H:%M:%f', ? / 1000.0, 'unixepoch')";

impl Store {
    /// Writes the experiment's runs as a study of Optuna into a new file. Each trial of the plan that has been run is one of
    /// Optuna's, with the varied keys as parameters (and `network` where there are several) over what `[sweep.space]` has for them.
    /// Its values are those of the experiment's objectives where there are several, else its validation accuracy, to be maximized,
    /// with the epochs' as intermediate values. The file must not be there yet.
    ///
    /// # Errors
    /// [`StoreError::Database`] where the file cannot be written.
    pub fn write_optuna(&self, experiment: ExperimentId, name: &str, path: &Path) -> Result<Study, StoreError> {
        let runs = self.runs(experiment)?;
        let epochs = self.epochs(experiment)?;
        let mut objectives = self.objectives(experiment)?;
        if objectives.len() < 2 {
            let validated = runs.iter().any(|run| run.validation_top1.is_some());
            objectives = vec![if validated { "validation_top1" } else { "test_top1" }.to_owned()];
        }
        let mut distributions = self.distributions(experiment, &runs)?;
        if runs.iter().any(|run| run.network != runs[0].network) {
            let names: Vec<Value> = runs.iter().map(|run| run.network.as_str().into()).collect();
            distributions.insert("network".to_owned(), Distribution::of(&names.iter().collect::<Vec<_>>()));
        }
        let mut session = Session::open(path, Access::Write).map_err(|problem| problem.at(path))?;
        session.run(async |connection| {
            let study = write(connection, name, &runs, &epochs, &objectives, &distributions).await?;
            // A file by itself, as Optuna makes it.
            sqlx::query("PRAGMA journal_mode = DELETE").execute(connection).await?;
            Ok(study)
        })
    }
}

async fn write(
    connection: &mut SqliteConnection,
    name: &str,
    runs: &[RunRow],
    epochs: &[EpochRecord],
    objectives: &[String],
    distributions: &BTreeMap<String, Distribution>,
) -> Result<Study, Problem> {
    let networks = distributions.contains_key("network");
    let parameters: Vec<Vec<(String, Value)>> = runs
        .iter()
        .map(|run| {
            let network = networks.then(|| ("network".to_owned(), Value::from(run.network.as_str())));
            run.assignments.0.iter().cloned().chain(network).collect()
        })
        .collect();
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    sqlx::raw_sql(TABLES).execute(&mut *transaction).await?;
    sqlx::query("INSERT INTO studies (study_id, study_name) VALUES (1, ?1)")
        .bind(name)
        .execute(&mut *transaction)
        .await?;
    for (place, objective) in (0_i64..).zip(objectives) {
        sqlx::query("INSERT INTO study_directions (direction, study_id, objective) VALUES (?1, 1, ?2)")
            .bind(if is_maximized(objective) { "MAXIMIZE" } else { "MINIMIZE" })
            .bind(place)
            .execute(&mut *transaction)
            .await?;
    }
    // optuna-dashboard titles its axes by the names of metrics.
    sqlx::query(
        "INSERT INTO study_system_attributes (study_id, \"key\", value_json) VALUES (1, 'study:metric_names', ?1)",
    )
    .bind(json!(objectives).to_string())
    .execute(&mut *transaction)
    .await?;
    let about = [("objective", Value::from(objectives.join(", "))), ("made_by", Value::from("pipeline"))];
    for (key, value) in about {
        sqlx::query("INSERT INTO study_user_attributes (study_id, \"key\", value_json) VALUES (1, ?1, ?2)")
            .bind(key)
            .bind(value.to_string())
            .execute(&mut *transaction)
            .await?;
    }
    for ((index, run), parameters) in (0_i64..).zip(runs).zip(&parameters) {
        let trial = index + 1;
        let values: Option<Vec<f64>> = objectives.iter().map(|objective| value(run, objective)).collect();
        let state = match run.status {
            RunStatus::Done if values.is_some() => "COMPLETE",
            RunStatus::Running => "RUNNING",
            RunStatus::Pruned => "PRUNED",
            RunStatus::Queued | RunStatus::Interrupted => "WAITING",
            _ => "FAIL",
        };
        let sql = format!(
            "INSERT INTO trials (trial_id, number, study_id, state, datetime_start, datetime_complete) VALUES (?, ?, 1, ?, {TIME}, {TIME})"
        );
        sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(trial)
            .bind(index)
            .bind(state)
            .bind(run.started_ms)
            .bind(run.finished_ms)
            .execute(&mut *transaction)
            .await?;
        for (key, value) in parameters {
            let Some(distribution) = distributions.get(key.as_str()) else { continue };
            sqlx::query("INSERT INTO trial_params (trial_id, param_name, param_value, distribution_json) VALUES (?1, ?2, ?3, ?4)")
                .bind(trial)
                .bind(key)
                .bind(distribution.number(value))
                .bind(distribution.json().to_string())
                .execute(&mut *transaction)
                .await?;
        }
        for (place, value) in (0_i64..).zip(values.iter().flatten()).filter(|_| state == "COMPLETE") {
            sqlx::query(
                "INSERT INTO trial_values (trial_id, objective, value, value_type) VALUES (?1, ?2, ?3, 'FINITE')",
            )
            .bind(trial)
            .bind(place)
            .bind(value)
            .execute(&mut *transaction)
            .await?;
        }
        let attributes = [
            ("run", json!(run.run.0)),
            ("label", json!(run.label)),
            ("seed", json!(run.seed)),
            ("network", json!(run.network)),
            ("identity", json!(run.identity)),
            ("configuration", json!(run.configuration)),
            ("test_top1", json!(run.test_top1)),
            ("test_loss", json!(run.test_loss)),
            ("train_seconds", json!(run.train_seconds)),
        ];
        for (key, value) in attributes.iter().filter(|(_, value)| !value.is_null()) {
            sqlx::query("INSERT INTO trial_user_attributes (trial_id, \"key\", value_json) VALUES (?1, ?2, ?3)")
                .bind(trial)
                .bind(key)
                .bind(value.to_string())
                .execute(&mut *transaction)
                .await?;
        }
        for epoch in epochs.iter().filter(|epoch| epoch.run == run.run) {
            let Some(value) = epoch.row.validation_top1 else { continue };
            let kind = if value.is_nan() { "NAN" } else { "FINITE" };
            sqlx::query(
                "INSERT INTO trial_intermediate_values (trial_id, step, intermediate_value, intermediate_value_type)
                 VALUES (?1, ?2, ?3, ?4)",
            )
            .bind(trial)
            .bind(epoch.row.epoch)
            .bind(value)
            .bind(kind)
            .execute(&mut *transaction)
            .await?;
        }
    }
    transaction.commit().await?;
    Ok(Study { trials: u32::try_from(runs.len())?, objectives: objectives.to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_are_those_that_optuna_reads() {
        use crate::{EvaluationRow, NewExperiment, NewTrial, Outcome, Provenance, Split};
        use std::time::Duration;

        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().join("results.db")).unwrap();
        let trials: Vec<NewTrial> = [("0.0", 1), ("0.1", 1)]
            .into_iter()
            .map(|(decay, seed)| NewTrial {
                identity: format!("{decay} {seed}"),
                canonical: "{}".to_owned(),
                architecture: "lenet5".to_owned(),
                seed,
                assignments: vec![("train.weight_decay".to_owned(), decay.to_owned())],
                ..NewTrial::default()
            })
            .collect();
        let experiment = NewExperiment { name: "x<y>".to_owned(), ..NewExperiment::default() };
        let id = store.record_experiment(&experiment, &trials).unwrap();
        let lease = Duration::from_secs(600);
        let done = store.claim_next(id, "w", lease, &Provenance::default()).unwrap().unwrap().run;
        let epoch = crate::EpochRow { epoch: 1, validation_top1: Some(0.75), ..crate::EpochRow::default() };
        store.record_epoch(done, "w", &epoch).unwrap();
        let test =
            EvaluationRow { split: Split::Test, epoch: 1, loss: 0.5, top1: 0.5, top5: 1.0, images: 4, seconds: 1.0 };
        store.record_evaluation(done, "w", &test, None).unwrap();
        let outcome = Outcome::Done { tested_epoch: 1, checkpoint: None, train_seconds: 2.0, peak_memory_bytes: 1 };
        store.finish(done, "w", &outcome).unwrap();
        let failed = store.claim_next(id, "w", lease, &Provenance::default()).unwrap().unwrap().run;
        store.finish(failed, "w", &Outcome::Failed { kind: "io".to_owned(), message: "x".to_owned() }).unwrap();

        let path = folder.path().join("study.db");
        let study = store.write_optuna(id, "x<y>", &path).unwrap();
        assert_eq!(study, Study { trials: 2, objectives: vec!["validation_top1".to_owned()] });
        let mut session = Session::open(&path, Access::Read).unwrap();
        let mut rows = |sql: &'static str| -> Vec<String> {
            session.run(async |connection| Ok(sqlx::query_scalar(sql).fetch_all(connection).await?)).unwrap()
        };
        assert_eq!(
            rows("SELECT study_name || ' ' || direction FROM studies JOIN study_directions USING (study_id)"),
            ["x<y> MAXIMIZE"]
        );
        assert_eq!(rows("SELECT version_num FROM alembic_version"), ["v3.2.0.a"]);
        assert_eq!(rows("SELECT number || ' ' || state FROM trials ORDER BY number"), ["0 COMPLETE", "1 FAIL"]);
        assert_eq!(
            rows("SELECT length(datetime_start) || ' ' || length(datetime_complete) FROM trials WHERE number = 0"),
            ["23 23"]
        );
        assert_eq!(
            rows("SELECT param_name || ' ' || param_value || ' ' || distribution_json FROM trial_params ORDER BY trial_id"),
            // Which choice, not its value.
            ["0.0", "1.0"].map(|value| {
                format!("train.weight_decay {value} {{\"attributes\":{{\"choices\":[0.0,0.1]}},\"name\":\"CategoricalDistribution\"}}")
            })
        );
        assert_eq!(rows("SELECT trial_id || ' ' || value || ' ' || value_type FROM trial_values"), ["1 0.75 FINITE"]);
        assert_eq!(rows("SELECT step || ' ' || intermediate_value FROM trial_intermediate_values"), ["1 0.75"]);
        assert_eq!(rows("SELECT value_json FROM trial_user_attributes WHERE \"key\" = 'test_top1'"), ["0.5"]);
    }
}
