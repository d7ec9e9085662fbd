//! What sweeps that adapt write down and go by: how far trials have come, what was left and why, what was decided, what failed.

use std::collections::HashMap;

use sqlx::sqlite::SqliteRow;
use sqlx::{Connection, FromRow, Row, SqliteConnection};

use crate::experiment::{insert_trial, now_ms};
use crate::queue::refusal;
use crate::session::Problem;
use crate::{ExperimentId, NewTrial, RunId, RunStatus, Store, StoreError};

/// How far a trial of an experiment's plan has come.
#[derive(Clone, Debug, PartialEq)]
pub struct Standing {
    /// The trial.
    pub identity: String,
    /// What it shares with those that differ from it in the seed only.
    pub configuration: String,
    /// The variant, or the architecture where there are no variants.
    pub network: String,
    /// What people call it: network, what is varied, seed.
    pub label: String,
    /// Its seed.
    pub seed: u64,
    /// Where its newest run stands; `Queued` where there is none.
    pub status: RunStatus,
    /// Its newest run.
    pub run: Option<RunId>,
    /// Until when the worker may be thought alive without a sign of life, in milliseconds since 1970-01-01 UTC.
    pub lease_until_ms: Option<i64>,
    /// What kind of failure ended the run.
    pub failure_kind: Option<String>,
    /// What the run's epochs came to on the validation part, the first epoch first.
    pub validations: Vec<Validation>,
    /// Wall-clock time of training and validation, in seconds; `None` until it is done.
    pub train_seconds: Option<f64>,
    /// Multiply-accumulate operations of one forward pass of one image.
    pub macs_per_image: u64,
    /// Trainable parameters.
    pub parameters: u64,
}

/// What an epoch came to on the validation part. `None` where it is not a number.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Validation {
    /// Fraction of images whose most probable class was right.
    pub top1: Option<f64>,
    /// Mean cross-entropy, in nats per image.
    pub loss: Option<f64>,
}

/// Why a run is left before its last epoch.
#[derive(Clone, Debug, PartialEq)]
pub struct Pruning {
    /// After which epoch it was compared.
    pub epoch: u32,
    /// The rule, as `sweep.pruner.kind` names it.
    pub rule: String,
    /// What was compared, as `sweep.objective` names it.
    pub objective: String,
    /// What its configuration came to, a mean over seeds.
    pub value: f64,
    /// What it would have had to come to.
    pub threshold: Option<f64>,
    /// Configurations that it was compared with, itself included.
    pub competitors: u32,
}

/// A configuration that is decided while a sweep runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Suggestion {
    /// Hash of what the search is.
    pub search: String,
    /// Which configuration of the search this is, from 0, those of the plan counted.
    pub number: u32,
    /// Its values, in the order of the space, as a JSON array.
    pub point: String,
    /// Configurations whose results were known.
    pub known: u32,
    /// Configurations that were under way.
    pub pending: u32,
}

/// What is known of a failure.
#[derive(Clone, Debug, Default, PartialEq, FromRow)]
pub struct FailureRow {
    /// What kind: `not-finite`, `panic`, `memory`, `time`, `io`, ...
    pub kind: String,
    /// What went wrong.
    pub message: String,
    /// Epoch in which it went wrong, from 1.
    pub epoch: Option<u32>,
    /// Step of the epoch, from 1.
    pub step: Option<u32>,
    /// Learning rate of that step.
    pub learning_rate: Option<f64>,
    /// Last mean training loss of the epoch that was finite, in nats per image.
    pub loss: Option<f64>,
    /// L2 norms, as a JSON object.
    pub norms: Option<String>,
    /// The last good state.
    pub checkpoint: Option<String>,
    /// Epochs that were complete in it.
    pub checkpoint_epoch: Option<u32>,
}

impl Store {
    /// How far every trial of the experiment's plan has come, in the order of the plan.
    pub fn standings(&self, experiment: ExperimentId) -> Result<Vec<Standing>, StoreError> {
        self.read(async |connection| {
            // One transaction, so that both queries see the same moment.
            let mut transaction = connection.begin().await?;
            let rows: Vec<SqliteRow> = sqlx::query(
                "SELECT p.identity, t.configuration, coalesce(p.variant, t.architecture), t.seed, t.macs_per_image, t.parameters,
                    r.status, r.run_id, r.lease_until_ms, r.failure_kind, r.train_seconds, p.label
                 FROM experiment_trials AS p
                 JOIN trials AS t ON t.identity = p.identity
                 LEFT JOIN runs AS r ON r.identity = p.identity
                    AND r.attempt = (SELECT max(n.attempt) FROM runs AS n WHERE n.identity = p.identity)
                 WHERE p.experiment_id = ?1 AND p.position IS NOT NULL
                 ORDER BY p.position",
            )
            .bind(experiment)
            .fetch_all(&mut *transaction)
            .await?;
            let epochs: Vec<(RunId, Option<f64>, Option<f64>)> = sqlx::query_as(
                "SELECT e.run_id, e.validation_top1, e.validation_loss
                 FROM experiment_trials AS p
                 JOIN runs AS r ON r.identity = p.identity
                    AND r.attempt = (SELECT max(n.attempt) FROM runs AS n WHERE n.identity = p.identity)
                 JOIN epochs AS e ON e.run_id = r.run_id
                 WHERE p.experiment_id = ?1 AND p.position IS NOT NULL
                 ORDER BY e.run_id, e.epoch",
            )
            .bind(experiment)
            .fetch_all(&mut *transaction)
            .await?;
            transaction.commit().await?;
            let mut curves: HashMap<RunId, Vec<Validation>> = HashMap::new();
            for (run, top1, loss) in epochs {
                curves.entry(run).or_default().push(Validation { top1, loss });
            }
            rows.iter()
                .map(|row| {
                    let run: Option<RunId> = row.try_get(7)?;
                    Ok(Standing {
                        identity: row.try_get(0)?,
                        configuration: row.try_get(1)?,
                        network: row.try_get(2)?,
                        label: row.try_get(11)?,
                        seed: u64::try_from(row.try_get::<i64, _>(3)?)?,
                        status: row.try_get::<Option<RunStatus>, _>(6)?.unwrap_or(RunStatus::Queued),
                        run,
                        lease_until_ms: row.try_get(8)?,
                        failure_kind: row.try_get(9)?,
                        validations: run.and_then(|run| curves.remove(&run)).unwrap_or_default(),
                        train_seconds: row.try_get(10)?,
                        macs_per_image: u64::try_from(row.try_get::<i64, _>(4)?)?,
                        parameters: u64::try_from(row.try_get::<i64, _>(5)?)?,
                    })
                })
                .collect()
        })
    }

    /// Says what the experiment's sweep aims at, in place of what was said before: names of measures, the first one first.
    pub fn record_objectives(&self, experiment: ExperimentId, measures: &[&str]) -> Result<(), StoreError> {
        self.write(async |connection| {
            let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
            sqlx::query("DELETE FROM objectives WHERE experiment_id = ?1")
                .bind(experiment)
                .execute(&mut *transaction)
                .await?;
            for (place, measure) in (0_i64..).zip(measures) {
                sqlx::query("INSERT INTO objectives (experiment_id, place, measure) VALUES (?1, ?2, ?3)")
                    .bind(experiment)
                    .bind(place)
                    .bind(measure)
                    .execute(&mut *transaction)
                    .await?;
            }
            transaction.commit().await?;
            Ok(())
        })
    }

    /// What the experiment's sweep aims at; nothing where it was planned by an earlier version.
    pub fn objectives(&self, experiment: ExperimentId) -> Result<Vec<String>, StoreError> {
        self.read(async |connection| {
            Ok(sqlx::query_scalar("SELECT measure FROM objectives WHERE experiment_id = ?1 ORDER BY place")
                .bind(experiment)
                .fetch_all(connection)
                .await?)
        })
    }

    /// Takes a run back from a worker that is known to be dead, before its lease is over. Returns whether it had the run.
    pub fn release(&self, run: RunId, worker: &str) -> Result<bool, StoreError> {
        let now_ms = now_ms();
        self.write(async |connection| {
            let released = sqlx::query(
                "UPDATE runs SET status = 'interrupted', lease_until_ms = NULL, finished_ms = ?3
                 WHERE run_id = ?1 AND worker = ?2 AND status = 'running'",
            )
            .bind(run)
            .bind(worker)
            .bind(now_ms)
            .execute(connection)
            .await?;
            Ok(released.rows_affected() > 0)
        })
    }

    /// Takes runs of the experiment's plan back from workers whose leases are over; they wait to be taken up again. Returns how many.
    pub fn release_dead(&self, experiment: ExperimentId) -> Result<u32, StoreError> {
        let now_ms = now_ms();
        self.write(async |connection| {
            let released = sqlx::query(
                "UPDATE runs SET status = 'interrupted', lease_until_ms = NULL, finished_ms = ?2
                 WHERE status = 'running' AND lease_until_ms <= ?2 AND identity IN
                    (SELECT p.identity FROM experiment_trials AS p WHERE p.experiment_id = ?1 AND p.position IS NOT NULL)",
            )
            .bind(experiment)
            .bind(now_ms)
            .execute(connection)
            .await?;
            Ok(u32::try_from(released.rows_affected())?)
        })
    }

    /// Marks a run that waits as left, and says why. Returns whether it did: not where a worker has taken it up since.
    pub fn prune(&self, experiment: ExperimentId, run: RunId, pruning: &Pruning) -> Result<bool, StoreError> {
        let now_ms = now_ms();
        self.write(async |connection| {
            let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
            let marked = sqlx::query(
                "UPDATE runs SET status = 'pruned', finished_ms = ?2 WHERE run_id = ?1 AND status = 'interrupted'",
            )
            .bind(run)
            .bind(now_ms)
            .execute(&mut *transaction)
            .await?
            .rows_affected();
            if marked == 1 {
                sqlx::query(
                    "INSERT INTO prunings (run_id, claim, experiment_id, epoch, rule, objective, value, threshold, competitors, pruned_ms)
                     SELECT run_id, claims, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9 FROM runs WHERE run_id = ?1
                     ON CONFLICT (run_id, claim) DO NOTHING",
                )
                .bind(run)
                .bind(experiment)
                .bind(pruning.epoch)
                .bind(&pruning.rule)
                .bind(&pruning.objective)
                .bind(pruning.value)
                .bind(pruning.threshold)
                .bind(pruning.competitors)
                .bind(now_ms)
                .execute(&mut *transaction)
                .await?;
            }
            transaction.commit().await?;
            Ok(marked == 1)
        })
    }

    /// The newest reason why each run of the experiment that is left now was left.
    pub fn prunings(&self, experiment: ExperimentId) -> Result<Vec<(RunId, Pruning)>, StoreError> {
        type Pruned = (RunId, u32, String, String, Option<f64>, Option<f64>, u32);
        let rows: Vec<Pruned> = self.read(async |connection| {
            Ok(sqlx::query_as(
                "SELECT n.run_id, n.epoch, n.rule, n.objective, n.value, n.threshold, n.competitors
                 FROM experiment_trials AS p
                 JOIN runs AS r ON r.identity = p.identity AND r.status = 'pruned'
                 JOIN prunings AS n ON n.run_id = r.run_id AND n.claim = r.claims
                 WHERE p.experiment_id = ?1 AND p.position IS NOT NULL
                 ORDER BY p.position",
            )
            .bind(experiment)
            .fetch_all(connection)
            .await?)
        })?;
        let pruning = |(run, epoch, rule, objective, value, threshold, competitors): Pruned| {
            let value = value.unwrap_or(f64::NAN);
            (run, Pruning { epoch, rule, objective, value, threshold, competitors })
        };
        Ok(rows.into_iter().map(pruning).collect())
    }

    /// Adds a configuration to the experiment's plan: the next one of its search, a trial for each seed. Returns whether it did: not
    /// where another process has decided on one of this number since.
    ///
    /// # Errors
    /// [`StoreError::InvalidPlan`] where a trial cannot be kept.
    pub fn suggest(
        &self,
        experiment: ExperimentId,
        suggestion: &Suggestion,
        trials: &[NewTrial],
    ) -> Result<bool, StoreError> {
        let now_ms = now_ms();
        let Some(first) = trials.first() else { return Ok(false) };
        self.write(async |connection| {
            let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
            let added = sqlx::query(
                "INSERT INTO suggestions (experiment_id, search, number, configuration, point, known, pending, decided_ms)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
                 ON CONFLICT (experiment_id, search, number) DO NOTHING",
            )
            .bind(experiment)
            .bind(&suggestion.search)
            .bind(suggestion.number)
            .bind(&first.configuration)
            .bind(&suggestion.point)
            .bind(suggestion.known)
            .bind(suggestion.pending)
            .bind(now_ms)
            .execute(&mut *transaction)
            .await?
            .rows_affected();
            if added == 0 {
                return Ok(false);
            }
            let next: i64 = sqlx::query_scalar(
                "SELECT coalesce(max(position), -1) + 1 FROM experiment_trials WHERE experiment_id = ?1",
            )
            .bind(experiment)
            .fetch_one(&mut *transaction)
            .await?;
            for (position, trial) in (next..).zip(trials) {
                insert_trial(&mut transaction, experiment, position, trial, now_ms).await?;
            }
            transaction.commit().await?;
            Ok(true)
        })
    }

    /// What was decided for a search so far, in order. None where the experiment is not in the database.
    pub fn suggestions(&self, experiment: &str, search: &str) -> Result<Vec<Suggestion>, StoreError> {
        type Decided = (u32, String, u32, u32);
        let rows: Vec<Decided> = self.read(async |connection| {
            Ok(sqlx::query_as(
                "SELECT s.number, s.point, s.known, s.pending
                 FROM suggestions AS s JOIN experiments AS x ON x.experiment_id = s.experiment_id
                 WHERE x.name = ?1 AND s.search = ?2 ORDER BY s.number",
            )
            .bind(experiment)
            .bind(search)
            .fetch_all(connection)
            .await?)
        })?;
        let suggestion = |(number, point, known, pending): Decided| Suggestion {
            search: search.to_owned(),
            number,
            point,
            known,
            pending,
        };
        Ok(rows.into_iter().map(suggestion).collect())
    }

    /// Keeps what is known of a failure, while the worker still has the run; [`Self::finish`] ends it.
    pub fn record_failure(&self, run: RunId, worker: &str, failure: &FailureRow) -> Result<(), StoreError> {
        self.write(async |connection| {
            let result = sqlx::query(
                "INSERT INTO failures (run_id, claim, kind, message, epoch, step, learning_rate, loss, norms, checkpoint, checkpoint_epoch, failed_ms)
                 SELECT run_id, claims, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12 FROM runs
                 WHERE run_id = ?1 AND worker = ?2 AND status = 'running'
                 ON CONFLICT (run_id, claim) DO UPDATE SET failed_ms = excluded.failed_ms",
            )
            .bind(run)
            .bind(worker)
            .bind(&failure.kind)
            .bind(&failure.message)
            .bind(failure.epoch)
            .bind(failure.step)
            .bind(failure.learning_rate)
            .bind(failure.loss)
            .bind(&failure.norms)
            .bind(&failure.checkpoint)
            .bind(failure.checkpoint_epoch)
            .bind(now_ms())
            .execute(&mut *connection)
            .await?;
            match result.rows_affected() {
                0 => Err(refusal(connection, run, worker).await?),
                _ => Ok(()),
            }
        })
    }

    /// What is known of a run's failures, the last one first.
    pub fn failures(&self, run: RunId) -> Result<Vec<FailureRow>, StoreError> {
        self.read(async |connection| {
            Ok(sqlx::query_as(
                "SELECT kind, message, epoch, step, learning_rate, loss, norms, checkpoint, checkpoint_epoch
                 FROM failures WHERE run_id = ?1 ORDER BY claim DESC",
            )
            .bind(run)
            .fetch_all(connection)
            .await?)
        })
    }

    /// Lets trials whose newest run ended in a failure of the machine go on as the same run, from its last checkpoint, and returns how
    /// many. Others are left as they are: a loss that is not finite would come out the same.
    pub fn go_on(&self, identities: &[&str]) -> Result<u32, StoreError> {
        self.write(async |connection| {
            let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
            let mut count = 0;
            for identity in identities {
                count += let_go_on(&mut transaction, identity).await?;
            }
            transaction.commit().await?;
            Ok(count)
        })
    }
}

async fn let_go_on(connection: &mut SqliteConnection, identity: &str) -> Result<u32, Problem> {
    const RUN: &str = "identity = ?1 AND status = 'failed' AND failure_kind <> 'not-finite'
        AND attempt = (SELECT max(n.attempt) FROM runs AS n WHERE n.identity = ?1)";
    // Failures that an older version of this program recorded in the run alone.
    sqlx::query(sqlx::AssertSqlSafe(format!(
        "INSERT INTO failures (run_id, claim, kind, message, checkpoint, checkpoint_epoch, failed_ms)
         SELECT run_id, claims, failure_kind, coalesce(failure_message, ''), checkpoint, checkpoint_epoch, coalesce(finished_ms, 0)
         FROM runs WHERE {RUN} ON CONFLICT (run_id, claim) DO NOTHING"
    )))
    .bind(identity)
    .execute(&mut *connection)
    .await?;
    let result = sqlx::query(sqlx::AssertSqlSafe(format!(
        "UPDATE runs SET status = 'interrupted', failure_kind = NULL, failure_message = NULL WHERE {RUN}"
    )))
    .bind(identity)
    .execute(connection)
    .await?;
    Ok(u32::try_from(result.rows_affected())?)
}
