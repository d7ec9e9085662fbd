//! Experiments and the trials that they consist of.

use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

use sqlx::{Connection, FromRow, SqliteConnection};

use crate::session::Problem;
use crate::{ExperimentId, Store, StoreError};

/// An experiment as it is planned.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NewExperiment {
    /// Its name, by which it is found again. Not empty.
    pub name: String,
    /// The question it is to answer; may be empty.
    pub question: String,
    /// Experiment file, as it was named on the command line.
    pub file: String,
    /// Text of the experiment file.
    pub config_toml: String,
    /// Command line.
    pub command: String,
}

/// A trial as it is planned.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NewTrial {
    /// Hash of the canonical specification, the seed and the data set's fingerprint.
    pub identity: String,
    /// The same hash without the seed.
    pub configuration: String,
    /// Canonical specification: JSON of all settings and the seed.
    pub canonical: String,
    /// Short name for people.
    pub label: String,
    /// Named variant that it belongs to.
    pub variant: Option<String>,
    /// Seed, below 2⁶³.
    pub seed: u64,
    /// Family of the network.
    pub architecture: String,
    /// Trainable parameters.
    pub parameters: u64,
    /// Multiply-accumulate operations of one forward pass of one image.
    pub macs_per_image: u64,
    /// Hash of the prepared data set.
    pub data_fingerprint: String,
    /// The keys that the experiment varies, each with its value as JSON.
    pub assignments: Vec<(String, String)>,
}

/// An experiment as it is kept.
#[derive(Clone, Debug, PartialEq, FromRow)]
pub struct ExperimentRow {
    /// Its number in this file.
    #[sqlx(rename = "experiment_id")]
    pub id: ExperimentId,
    /// Its name.
    pub name: String,
    /// The question it is to answer; may be empty.
    pub question: String,
    /// Experiment file, as it was named on the command line.
    pub file: String,
    /// Text of the experiment file, the last time it was planned.
    pub config_toml: String,
    /// Command line that planned it last.
    pub command: String,
    /// When it was planned first, in milliseconds since 1970-01-01 UTC.
    pub created_ms: i64,
    /// When it was planned last, in milliseconds since 1970-01-01 UTC.
    pub updated_ms: i64,
    /// Trials in its plan.
    pub trials: u32,
    /// Trials that are done.
    pub done: u32,
    /// Trials whose newest run has failed.
    pub failed: u32,
    /// Trials whose newest run was left early.
    pub pruned: u32,
}

impl Store {
    /// Writes a plan down, in one transaction, and returns the experiment's number.
    ///
    /// The name decides: planning it again keeps the experiment and replaces its plan, so that trials which are no longer in the
    /// file leave the reports. Their results stay, and are there again when the trials come back. Trials are shared between
    /// experiments by identity: one that has been run on behalf of another experiment is not run again.
    ///
    /// # Errors
    /// An empty name, two trials of the same identity, or values that are not JSON; then nothing is written.
    pub fn record_experiment(
        &self,
        experiment: &NewExperiment,
        trials: &[NewTrial],
    ) -> Result<ExperimentId, StoreError> {
        self.record_search(experiment, trials, &[])
    }

    /// As [`Self::record_experiment`], for a plan with searches: each is given by its hash and the number of its configurations. What
    /// they have decided so far ([`Self::suggest`]) stays in the plan.
    pub fn record_search(
        &self,
        experiment: &NewExperiment,
        trials: &[NewTrial],
        searches: &[(String, u32)],
    ) -> Result<ExperimentId, StoreError> {
        check(experiment, trials)?;
        let searches = serde_json::json!(searches).to_string();
        let now_ms = now_ms();
        self.write(async |connection| {
            let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
            let id: ExperimentId = sqlx::query_scalar(
                "INSERT INTO experiments (name, question, file, config_toml, command, created_ms, updated_ms)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6)
                 ON CONFLICT (name) DO UPDATE SET
                    question = excluded.question, file = excluded.file, config_toml = excluded.config_toml,
                    command = excluded.command, updated_ms = excluded.updated_ms
                 RETURNING experiment_id",
            )
            .bind(&experiment.name)
            .bind(&experiment.question)
            .bind(&experiment.file)
            .bind(&experiment.config_toml)
            .bind(&experiment.command)
            .bind(now_ms)
            .fetch_one(&mut *transaction)
            .await?;
            sqlx::query("UPDATE experiment_trials SET position = NULL WHERE experiment_id = ?1")
                .bind(id)
                .execute(&mut *transaction)
                .await?;
            for (position, trial) in (0_i64..).zip(trials) {
                insert_trial(&mut transaction, id, position, trial, now_ms).await?;
            }
            // What a search of this plan has decided so far, also by another process at this moment, stays in the plan behind it.
            let decided: Vec<String> = sqlx::query_scalar(
                "SELECT p.identity
                 FROM suggestions AS s
                 JOIN trials AS t ON t.configuration = s.configuration
                 JOIN experiment_trials AS p ON p.experiment_id = s.experiment_id AND p.identity = t.identity AND p.position IS NULL
                 JOIN json_each(?2) AS w ON w.value ->> 0 = s.search AND s.number < w.value ->> 1
                 WHERE s.experiment_id = ?1
                 ORDER BY w.key, s.number, t.seed",
            )
            .bind(id)
            .bind(&searches)
            .fetch_all(&mut *transaction)
            .await?;
            for (position, identity) in (i64::try_from(trials.len())?..).zip(decided) {
                sqlx::query("UPDATE experiment_trials SET position = ?3 WHERE experiment_id = ?1 AND identity = ?2")
                    .bind(id)
                    .bind(identity)
                    .bind(position)
                    .execute(&mut *transaction)
                    .await?;
            }
            transaction.commit().await?;
            Ok(id)
        })
    }

    /// All experiments, the one that was planned last first.
    pub fn experiments(&self) -> Result<Vec<ExperimentRow>, StoreError> {
        self.read(async |connection| {
            // Where a trial stands is what its newest run says, unless an older one is done.
            Ok(sqlx::query_as(
                "SELECT x.*,
                    count(p.identity) AS trials,
                    coalesce(sum(s.status = 'done'), 0) AS done,
                    coalesce(sum(s.status = 'failed'), 0) AS failed,
                    coalesce(sum(s.status = 'pruned'), 0) AS pruned
                 FROM experiments AS x
                 LEFT JOIN experiment_trials AS p ON p.experiment_id = x.experiment_id AND p.position IS NOT NULL
                 LEFT JOIN runs AS s ON s.run_id = (SELECT r.run_id FROM runs AS r WHERE r.identity = p.identity
                    ORDER BY r.status = 'done' DESC, r.attempt DESC LIMIT 1)
                 GROUP BY x.experiment_id
                 ORDER BY x.updated_ms DESC, x.experiment_id DESC",
            )
            .fetch_all(connection)
            .await?)
        })
    }

    /// Number of the experiment of this name.
    pub fn experiment(&self, name: &str) -> Result<Option<ExperimentId>, StoreError> {
        self.read(async |connection| {
            Ok(sqlx::query_scalar("SELECT experiment_id FROM experiments WHERE name = ?1")
                .bind(name)
                .fetch_optional(connection)
                .await?)
        })
    }
}

/// Adds a trial to an experiment's plan at a position. Within a transaction.
pub(crate) async fn insert_trial(
    connection: &mut SqliteConnection,
    experiment: ExperimentId,
    position: i64,
    trial: &NewTrial,
    now_ms: i64,
) -> Result<(), Problem> {
    sqlx::query(
        "INSERT INTO trials (identity, configuration, canonical, seed, architecture, parameters, macs_per_image, data_fingerprint, created_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
         ON CONFLICT (identity) DO NOTHING",
    )
    .bind(&trial.identity)
    .bind(&trial.configuration)
    .bind(&trial.canonical)
    .bind(integer("the seed", trial.seed)?)
    .bind(&trial.architecture)
    .bind(integer("the number of parameters", trial.parameters)?)
    .bind(integer("the number of multiply-accumulate operations", trial.macs_per_image)?)
    .bind(&trial.data_fingerprint)
    .bind(now_ms)
    .execute(&mut *connection)
    .await?;
    sqlx::query(
        "INSERT INTO experiment_trials (experiment_id, identity, position, label, variant)
         VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (experiment_id, identity) DO UPDATE SET
            position = excluded.position, label = excluded.label, variant = excluded.variant",
    )
    .bind(experiment)
    .bind(&trial.identity)
    .bind(position)
    .bind(&trial.label)
    .bind(&trial.variant)
    .execute(&mut *connection)
    .await?;
    sqlx::query("DELETE FROM assignments WHERE experiment_id = ?1 AND identity = ?2")
        .bind(experiment)
        .bind(&trial.identity)
        .execute(&mut *connection)
        .await?;
    for (key, value) in &trial.assignments {
        sqlx::query("INSERT INTO assignments (experiment_id, identity, key, value) VALUES (?1, ?2, ?3, ?4)")
            .bind(experiment)
            .bind(&trial.identity)
            .bind(key)
            .bind(value)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

fn check(experiment: &NewExperiment, trials: &[NewTrial]) -> Result<(), StoreError> {
    let refuse = |problem: String| Err(StoreError::InvalidPlan { experiment: experiment.name.clone(), problem });
    if experiment.name.is_empty() {
        return refuse("the name is empty".to_owned());
    }
    let mut seen: HashMap<&str, &str> = HashMap::with_capacity(trials.len());
    for trial in trials {
        if trial.identity.is_empty() {
            return refuse(format!("trial {:?} has no identity", trial.label));
        }
        if let Some(other) = seen.insert(&trial.identity, &trial.label) {
            return refuse(format!(
                "trials {other:?} and {:?} are the same: nothing in their settings differs",
                trial.label
            ));
        }
        if !is_json(&trial.canonical) {
            return refuse(format!("the canonical form of trial {:?} is not JSON", trial.label));
        }
        for (index, (key, value)) in trial.assignments.iter().enumerate() {
            if !is_json(value) {
                return refuse(format!("trial {:?}: the value of {key} is not JSON: {value}", trial.label));
            }
            if trial.assignments[..index].iter().any(|(other, _)| other == key) {
                return refuse(format!("trial {:?} has two values for {key}", trial.label));
            }
        }
    }
    Ok(())
}

fn is_json(text: &str) -> bool {
    serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
}

/// SQLite's integers have a sign.
pub(crate) fn integer(what: &'static str, value: u64) -> Result<i64, StoreError> {
    i64::try_from(value).map_err(|_| StoreError::TooLarge { what, value })
}

/// The wall clock. Leases compare it between processes of one machine.
pub(crate) fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|elapsed| i64::try_from(elapsed.as_millis()).ok())
        .unwrap_or(0)
}

impl From<std::num::TryFromIntError> for Problem {
    fn from(error: std::num::TryFromIntError) -> Self {
        Self::Sqlite(sqlx::Error::Decode(Box::new(error)))
    }
}
