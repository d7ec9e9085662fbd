//! An experiment as a study of Optuna: a SQLite file that its `RDBStorage` and optuna-dashboard open.
//!
//! Source: `optuna/storages/_rdb/models.py`; the tables are those of schema version 12 (Alembic `v3.2.0.a`), which is the
//! newest one still in Optuna 5.0.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};
use sqlx::{Connection, SqliteConnection};

use crate::session::{Access, Problem, Session};
use crate::{EpochRecord, ExperimentId, RunRow, RunStatus, Store, StoreError};

const TABLES: &str = include_str!("optuna.sql");

/// What a study came to: how many trials it has, and what its objective is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Study {
    /// Runs that became trials.
    pub trials: u32,
    /// What is maximized: `validation_top1`, or `test_top1` where there is no validation part.
    pub objective: &'static str,
}

/// How the values of a key are distributed, in Optuna's words.
#[derive(Clone, Debug, PartialEq)]
enum Distribution {
    Float { low: f64, high: f64, log: bool },
    Integer { low: i64, high: i64 },
    Categorical(Vec<Value>),
}

impl Distribution {
    /// From all values that an experiment has of a key.
    fn of(values: &[&Value]) -> Self {
        let integers: Option<Vec<i64>> = values.iter().map(|value| value.as_i64()).collect();
        let numbers: Option<Vec<f64>> = values.iter().map(|value| value.as_f64()).collect();
        match (integers, numbers) {
            (Some(all), _) => {
                let (low, high) = (all.iter().copied().min(), all.iter().copied().max());
                Self::Integer { low: low.unwrap_or(0), high: high.unwrap_or(0) }
            }
            (None, Some(all)) => {
                let low = all.iter().copied().fold(f64::INFINITY, f64::min);
                let high = all.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                // Over two decades a scale that is not logarithmic would see the largest values only.
                Self::Float { low, high, log: low > 0.0 && high / low >= 100.0 }
            }
            (None, None) => {
                let mut choices: Vec<Value> = Vec::new();
                for value in values.iter().map(|value| choice(value)) {
                    if !choices.contains(&value) {
                        choices.push(value);
                    }
                }
                Self::Categorical(choices)
            }
        }
    }

    fn json(&self) -> Value {
        let (name, attributes) = match self {
            Self::Float { low, high, log } => {
                ("FloatDistribution", json!({ "step": null, "low": low, "high": high, "log": log }))
            }
            Self::Integer { low, high } => {
                ("IntDistribution", json!({ "log": false, "step": 1, "low": low, "high": high }))
            }
            Self::Categorical(choices) => ("CategoricalDistribution", json!({ "choices": choices })),
        };
        json!({ "name": name, "attributes": attributes })
    }

    /// Optuna keeps a number: the value, or which choice it is.
    fn number(&self, value: &Value) -> Option<f64> {
        match self {
            Self::Categorical(choices) => {
                let index = choices.iter().position(|known| *known == choice(value))?;
                Some(index as f64)
            }
            _ => value.as_f64(),
        }
    }
}

/// A choice must be nothing, a truth, a number or text: lists and tables become text.
fn choice(value: &Value) -> Value {
    if value.is_array() || value.is_object() { value.to_string().into() } else { value.clone() }
}

/// Optuna's times are text without a zone; these are UTC.
const TIME: &str = "strftime('%Y-%m-%d %H:%M:%f', ? / 1000.0, 'unixepoch')";

impl Store {
    /// Writes the experiment's runs as a study of Optuna into a new file. Each trial of the plan that has been run is one of
    /// Optuna's, with the varied keys as parameters (and `network` where there are several), its validation accuracy as the value
    /// to be maximized, and the epochs' as intermediate values. The file must not be there yet.
    ///
    /// # Errors
    /// [`StoreError::Database`] where the file cannot be written.
    pub fn write_optuna(&self, experiment: ExperimentId, name: &str, path: &Path) -> Result<Study, StoreError> {
        let runs = self.runs(experiment)?;
        let epochs = self.epochs(experiment)?;
        let mut session = Session::open(path, Access::Write).map_err(|problem| problem.at(path))?;
        session.run(async |connection| {
            let study = write(connection, name, &runs, &epochs).await?;
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
) -> Result<Study, Problem> {
    let objective = if runs.iter().any(|run| run.validation_top1.is_some()) { "validation_top1" } else { "test_top1" };
    let networks = runs.iter().any(|run| run.network != runs[0].network);
    let parameters: Vec<Vec<(String, Value)>> = runs
        .iter()
        .map(|run| {
            let network = networks.then(|| ("network".to_owned(), Value::from(run.network.as_str())));
            run.assignments.0.iter().cloned().chain(network).collect()
        })
        .collect();
    let mut values: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for (key, value) in parameters.iter().flatten() {
        values.entry(key).or_default().push(value);
    }
    let distributions: BTreeMap<&str, Distribution> =
        values.into_iter().map(|(key, values)| (key, Distribution::of(&values))).collect();

    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    sqlx::raw_sql(TABLES).execute(&mut *transaction).await?;
    sqlx::query("INSERT INTO studies (study_id, study_name) VALUES (1, ?1)")
        .bind(name)
        .execute(&mut *transaction)
        .await?;
    sqlx::query("INSERT INTO study_directions (direction, study_id, objective) VALUES ('MAXIMIZE', 1, 0)")
        .execute(&mut *transaction)
        .await?;
    let about = [("objective", Value::from(objective)), ("made_by", Value::from("pipeline"))];
    for (key, value) in about {
        sqlx::query("INSERT INTO study_user_attributes (study_id, \"key\", value_json) VALUES (1, ?1, ?2)")
            .bind(key)
            .bind(value.to_string())
            .execute(&mut *transaction)
            .await?;
    }
    for ((index, run), parameters) in (0_i64..).zip(runs).zip(&parameters) {
        let trial = index + 1;
        let value = if objective == "validation_top1" { run.validation_top1 } else { run.test_top1 };
        let state = match run.status {
            RunStatus::Done if value.is_some() => "COMPLETE",
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
        if let (Some(value), "COMPLETE") = (value, state) {
            sqlx::query(
                "INSERT INTO trial_values (trial_id, objective, value, value_type) VALUES (?1, 0, ?2, 'FINITE')",
            )
            .bind(trial)
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
    Ok(Study { trials: u32::try_from(runs.len())?, objective })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_distributed_as_its_values_are() {
        let of = |values: &[Value]| Distribution::of(&values.iter().collect::<Vec<_>>());
        assert_eq!(of(&[json!(0.0), json!(0.5)]), Distribution::Float { low: 0.0, high: 0.5, log: false });
        assert_eq!(
            of(&[json!(0.1), json!(0.001), json!(0.01)]),
            Distribution::Float { low: 0.001, high: 0.1, log: true }
        );
        assert_eq!(of(&[json!(1), json!(0.5)]), Distribution::Float { low: 0.5, high: 1.0, log: false });
        assert_eq!(of(&[json!(64), json!(16)]), Distribution::Integer { low: 16, high: 64 });
        let choices = of(&[json!("sgd"), json!({"kind": "step"}), json!("sgd"), json!(1)]);
        assert_eq!(choices, Distribution::Categorical(vec![json!("sgd"), json!("{\"kind\":\"step\"}"), json!(1)]));
        assert_eq!(choices.number(&json!(1)), Some(2.0));
        assert_eq!(choices.number(&json!({"kind": "step"})), Some(1.0));
    }

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
        assert_eq!(study, Study { trials: 2, objective: "validation_top1" });
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
            ["0.0", "0.1"].map(|value| {
                format!("train.weight_decay {value} {{\"attributes\":{{\"high\":0.1,\"log\":false,\"low\":0.0,\"step\":null}},\"name\":\"FloatDistribution\"}}")
            })
        );
        assert_eq!(rows("SELECT trial_id || ' ' || value || ' ' || value_type FROM trial_values"), ["1 0.75 FINITE"]);
        assert_eq!(rows("SELECT step || ' ' || intermediate_value FROM trial_intermediate_values"), ["1 0.75"]);
        assert_eq!(rows("SELECT value_json FROM trial_user_attributes WHERE \"key\" = 'test_top1'"), ["0.5"]);
    }
}
