//! Deleting runs and experiments. Results are never edited, but they may be thrown away.

use std::collections::BTreeSet;

use sqlx::{Connection, SqliteConnection};

use crate::experiment::now_ms;
use crate::session::Problem;
use crate::{ExperimentId, RunId, Store, StoreError, Subject};

/// What a deletion takes away, or would take away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Deleted {
    /// Names of the experiments.
    pub experiments: Vec<String>,
    /// The runs, with their epochs, evaluations and predictions.
    pub runs: Vec<RunId>,
    /// Runs of those experiments that stay, because another experiment's plan has the trial too.
    pub kept_runs: u32,
    /// Epochs recorded by the runs that go.
    pub epochs: u64,
}

impl Store {
    /// Deletes runs and experiments in one transaction. An experiment takes the runs along whose trials no other experiment has.
    /// With `commit` false nothing is deleted: what comes back says what would be.
    ///
    /// # Errors
    /// [`StoreError::StillRunning`] where a worker has one of the runs, and what is not there; then nothing is deleted.
    pub fn delete(&self, subjects: &[Subject], commit: bool) -> Result<Deleted, StoreError> {
        self.write(async |connection| {
            let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
            let mut deleted = Deleted::default();
            let mut runs = BTreeSet::new();
            let mut experiments = Vec::new();
            for subject in subjects {
                subject.check(&mut transaction).await?;
                match *subject {
                    Subject::Run(run) => {
                        runs.insert(run);
                    }
                    Subject::Experiment(id) if !experiments.contains(&id) => {
                        let name: String = sqlx::query_scalar("SELECT name FROM experiments WHERE experiment_id = ?1")
                            .bind(id)
                            .fetch_one(&mut *transaction)
                            .await?;
                        deleted.experiments.push(name);
                        experiments.push(id);
                    }
                    Subject::Experiment(_) => {}
                }
            }
            for &id in &experiments {
                for (run, shared) in of_experiment(&mut transaction, id, &experiments).await? {
                    if shared {
                        deleted.kept_runs += 1;
                    } else {
                        runs.insert(run);
                    }
                }
            }
            for &run in &runs {
                let holder: Option<String> = sqlx::query_scalar(
                    "SELECT coalesce(worker, '') FROM runs WHERE run_id = ?1 AND status = 'running' AND lease_until_ms > ?2",
                )
                .bind(run)
                .bind(now_ms())
                .fetch_optional(&mut *transaction)
                .await?;
                if let Some(worker) = holder {
                    return Err(StoreError::StillRunning { run, worker }.into());
                }
                let epochs: i64 = sqlx::query_scalar("SELECT count(*) FROM epochs WHERE run_id = ?1")
                    .bind(run)
                    .fetch_one(&mut *transaction)
                    .await?;
                deleted.epochs += u64::try_from(epochs)?;
                sqlx::query("DELETE FROM runs WHERE run_id = ?1").bind(run).execute(&mut *transaction).await?;
            }
            for id in experiments {
                sqlx::query("DELETE FROM experiments WHERE experiment_id = ?1")
                    .bind(id)
                    .execute(&mut *transaction)
                    .await?;
            }
            sqlx::query(
                "DELETE FROM trials WHERE identity NOT IN (SELECT identity FROM experiment_trials)
                    AND identity NOT IN (SELECT identity FROM runs)",
            )
            .execute(&mut *transaction)
            .await?;
            deleted.runs = runs.into_iter().collect();
            if commit {
                transaction.commit().await?;
            } else {
                transaction.rollback().await?;
            }
            Ok(deleted)
        })
    }
}

/// Runs of an experiment's trials, each with whether an experiment that stays has the trial too.
async fn of_experiment(
    connection: &mut SqliteConnection,
    id: ExperimentId,
    going: &[ExperimentId],
) -> Result<Vec<(RunId, bool)>, Problem> {
    let going = serde_json::json!(going.iter().map(|id| id.0).collect::<Vec<_>>()).to_string();
    Ok(sqlx::query_as(
        "SELECT r.run_id, EXISTS (SELECT 1 FROM experiment_trials AS o WHERE o.identity = r.identity
            AND o.experiment_id NOT IN (SELECT value FROM json_each(?2)))
         FROM runs AS r JOIN experiment_trials AS p ON p.identity = r.identity
         WHERE p.experiment_id = ?1 ORDER BY r.run_id",
    )
    .bind(id)
    .bind(going)
    .fetch_all(connection)
    .await?)
}
