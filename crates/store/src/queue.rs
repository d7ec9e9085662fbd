//! The queue: which trials wait, who has which, and since when nobody has heard of them.

use std::time::Duration;

use sqlx::{Connection, FromRow, SqliteConnection};

use crate::experiment::now_ms;
use crate::session::Problem;
use crate::{ExperimentId, RunId, RunStatus, Store, StoreError};

/// Where a trial of an experiment's plan stands.
#[derive(Clone, Debug, PartialEq)]
pub struct TrialState {
    /// The trial.
    pub identity: String,
    /// Place in the plan, from 0.
    pub position: u32,
    /// Short name for people.
    pub label: String,
    /// Where its newest run stands; `Queued` where there is none. `Running` may be dead: see `lease_until_ms`.
    pub status: RunStatus,
    /// Its newest run.
    pub run: Option<RunId>,
    /// The newest run was made on behalf of another experiment.
    pub reused: bool,
    /// Worker that has the run, or had it last.
    pub worker: Option<String>,
    /// Until when the worker may be thought alive without a sign of life, in milliseconds since 1970-01-01 UTC.
    pub lease_until_ms: Option<i64>,
    /// Epochs recorded by the newest run.
    pub epochs: u32,
}

/// The newest run of a trial, on behalf of whichever experiment.
#[derive(Clone, Debug, PartialEq, FromRow)]
pub struct NewestRun {
    /// The trial.
    pub identity: String,
    /// Where the run stands.
    pub status: RunStatus,
    /// Name of the experiment on whose behalf it was made, if that is still there.
    pub experiment: Option<String>,
    /// Epochs recorded.
    pub epochs: u32,
    /// Worker that has the run, or had it last.
    pub worker: Option<String>,
    /// Until when the worker may be thought alive without a sign of life, in milliseconds since 1970-01-01 UTC.
    pub lease_until_ms: Option<i64>,
}

/// By what program a run is made, where and with what.
#[derive(Clone, Debug, Default, PartialEq, FromRow)]
pub struct Provenance {
    /// Git commit that the program was built from.
    #[sqlx(rename = "commit_hash")]
    pub commit: String,
    /// Version of the program.
    pub version: String,
    /// Device that the network runs on.
    pub device: String,
    /// Threads of the training step.
    pub threads: u32,
    /// Operating system.
    pub os: String,
    /// Processor.
    pub cpu: String,
    /// Command line that makes the run again.
    pub command: String,
    /// Experiment file and overrides.
    pub config: String,
    /// Hash of the prepared data set that is read.
    pub data_fingerprint: String,
}

/// A trial that the worker has now.
#[derive(Clone, Debug, PartialEq)]
pub struct Claim {
    /// Its run: a new one, or one that was interrupted and goes on.
    pub run: RunId,
    /// The trial.
    pub identity: String,
    /// Which attempt at the trial this is, from 1.
    pub attempt: u32,
    /// How often a worker has taken the run up, this time included. A run that kills its workers shows here.
    pub claims: u32,
    /// Epochs that were complete in the newest recorded checkpoint; 0: start anew. The worker says what it really goes on from
    /// with [`Store::rewind`].
    pub resume_from_epoch: u32,
    /// The newest recorded checkpoint.
    pub checkpoint: Option<String>,
    /// Epochs recorded so far: more than `resume_from_epoch` where the worker died between a row and its checkpoint.
    pub epochs: u32,
}

#[derive(FromRow)]
struct Newest {
    run_id: RunId,
    attempt: u32,
    status: RunStatus,
    lease_until_ms: Option<i64>,
    claims: u32,
    checkpoint_epoch: Option<u32>,
    checkpoint: Option<String>,
}

impl Store {
    /// Every trial of the experiment's plan, in order, with where it stands.
    pub fn trial_states(&self, experiment: ExperimentId) -> Result<Vec<TrialState>, StoreError> {
        type Row = (
            String,
            u32,
            String,
            Option<RunStatus>,
            Option<RunId>,
            Option<ExperimentId>,
            Option<String>,
            Option<i64>,
            u32,
        );
        let rows: Vec<Row> = self.read(async |connection| {
            Ok(sqlx::query_as(
                "SELECT p.identity, p.position, p.label, r.status, r.run_id, r.experiment_id, r.worker, r.lease_until_ms,
                    (SELECT coalesce(max(e.epoch), 0) FROM epochs AS e WHERE e.run_id = r.run_id)
                 FROM experiment_trials AS p
                 LEFT JOIN runs AS r ON r.identity = p.identity
                    AND r.attempt = (SELECT max(n.attempt) FROM runs AS n WHERE n.identity = p.identity)
                 WHERE p.experiment_id = ?1 AND p.position IS NOT NULL
                 ORDER BY p.position",
            )
            .bind(experiment)
            .fetch_all(connection)
            .await?)
        })?;
        Ok(rows
            .into_iter()
            .map(|(identity, position, label, status, run, owner, worker, lease_until_ms, epochs)| TrialState {
                identity,
                position,
                label,
                status: status.unwrap_or(RunStatus::Queued),
                run,
                reused: owner.is_some_and(|owner| owner != experiment),
                worker,
                lease_until_ms,
                epochs,
            })
            .collect())
    }

    /// The newest run of every trial that has one, whether a plan still names it or not: what is done is done for all.
    pub fn newest_runs(&self) -> Result<Vec<NewestRun>, StoreError> {
        self.read(async |connection| {
            Ok(sqlx::query_as(
                "SELECT r.identity, r.status, x.name AS experiment, r.worker, r.lease_until_ms,
                    (SELECT coalesce(max(e.epoch), 0) FROM epochs AS e WHERE e.run_id = r.run_id) AS epochs
                 FROM runs AS r
                 LEFT JOIN experiments AS x ON x.experiment_id = r.experiment_id
                 WHERE r.attempt = (SELECT max(n.attempt) FROM runs AS n WHERE n.identity = r.identity)",
            )
            .fetch_all(connection)
            .await?)
        })
    }

    /// Takes up a trial, or says `None`: it is done, failed, or another worker has it.
    ///
    /// A run that was interrupted, or whose worker let its lease run out, is continued as the same run. Failed trials are taken up
    /// only after [`Self::again`] or [`Self::go_on`]; those that a pruner left go on, so whoever follows one must ask first what it
    /// says. `worker` tells workers apart and must be unique among all processes, past ones included: a process number alone is not
    /// enough. The lease is to be renewed well before it is over ([`Self::renew`]).
    pub fn claim(
        &self,
        experiment: ExperimentId,
        identity: &str,
        worker: &str,
        lease: Duration,
        provenance: &Provenance,
    ) -> Result<Option<Claim>, StoreError> {
        self.write(async |connection| {
            let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
            let planned: bool = sqlx::query_scalar(
                "SELECT EXISTS (SELECT 1 FROM experiment_trials WHERE experiment_id = ?1 AND identity = ?2)",
            )
            .bind(experiment)
            .bind(identity)
            .fetch_one(&mut *transaction)
            .await?;
            if !planned {
                return Err(StoreError::UnknownTrial { experiment, identity: identity.to_owned() }.into());
            }
            let claim = take(&mut transaction, experiment, identity, worker, lease, provenance).await?;
            transaction.commit().await?;
            Ok(claim)
        })
    }

    /// Takes up the first trial of the experiment's plan that waits, was interrupted or lost its worker; `None` where there is none
    /// at the moment. See [`Self::claim`].
    pub fn claim_next(
        &self,
        experiment: ExperimentId,
        worker: &str,
        lease: Duration,
        provenance: &Provenance,
    ) -> Result<Option<Claim>, StoreError> {
        self.write(async |connection| {
            let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
            let identity: Option<String> = sqlx::query_scalar(
                "SELECT p.identity
                 FROM experiment_trials AS p
                 LEFT JOIN runs AS r ON r.identity = p.identity
                    AND r.attempt = (SELECT max(n.attempt) FROM runs AS n WHERE n.identity = p.identity)
                 WHERE p.experiment_id = ?1 AND p.position IS NOT NULL
                    AND (r.run_id IS NULL OR r.status IN ('queued', 'interrupted')
                        OR (r.status = 'running' AND r.lease_until_ms <= ?2))
                 ORDER BY p.position
                 LIMIT 1",
            )
            .bind(experiment)
            .bind(now_ms())
            .fetch_optional(&mut *transaction)
            .await?;
            let claim = match identity {
                Some(identity) => take(&mut transaction, experiment, &identity, worker, lease, provenance).await?,
                None => None,
            };
            transaction.commit().await?;
            Ok(claim)
        })
    }

    /// Prolongs the lease, from now. A lease that is over is prolonged too, as long as no other worker has taken up the run.
    pub fn renew(&self, run: RunId, worker: &str, lease: Duration) -> Result<(), StoreError> {
        self.write(async |connection| {
            let renewed = sqlx::query(
                "UPDATE runs SET lease_until_ms = ?3 WHERE run_id = ?1 AND worker = ?2 AND status = 'running'",
            )
            .bind(run)
            .bind(worker)
            .bind(until_ms(lease))
            .execute(&mut *connection)
            .await?;
            match renewed.rows_affected() {
                0 => Err(refusal(connection, run, worker).await?),
                _ => Ok(()),
            }
        })
    }

    /// Asks for trials of the experiment to be run anew, each by a new run beside those that are there, and returns how many.
    ///
    /// Trials that wait already, that a worker has, or that were never run need no asking and are not counted.
    pub fn again(&self, experiment: ExperimentId, identities: &[&str]) -> Result<u32, StoreError> {
        let now_ms = now_ms();
        self.write(async |connection| {
            let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
            let mut queued = 0;
            for identity in identities {
                // A worker that died must not come back to the old run once the new one is there.
                sqlx::query(
                    "UPDATE runs SET status = 'interrupted', lease_until_ms = NULL, finished_ms = ?2
                     WHERE identity = ?1 AND status = 'running' AND lease_until_ms <= ?2",
                )
                .bind(identity)
                .bind(now_ms)
                .execute(&mut *transaction)
                .await?;
                let result = sqlx::query(
                    "INSERT INTO runs (experiment_id, identity, attempt, status, claims, queued_ms)
                     SELECT p.experiment_id, r.identity, r.attempt + 1, 'queued', 0, ?3
                     FROM experiment_trials AS p
                     JOIN runs AS r ON r.identity = p.identity
                     WHERE p.experiment_id = ?1 AND p.identity = ?2
                        AND r.attempt = (SELECT max(n.attempt) FROM runs AS n WHERE n.identity = p.identity)
                        AND r.status IN ('done', 'failed', 'interrupted', 'pruned')",
                )
                .bind(experiment)
                .bind(identity)
                .bind(now_ms)
                .execute(&mut *transaction)
                .await?;
                queued += u32::try_from(result.rows_affected())?;
            }
            transaction.commit().await?;
            Ok(queued)
        })
    }
}

/// Takes the trial's newest run, or makes its first one. Within a transaction that has the write lock.
async fn take(
    connection: &mut SqliteConnection,
    experiment: ExperimentId,
    identity: &str,
    worker: &str,
    lease: Duration,
    provenance: &Provenance,
) -> Result<Option<Claim>, Problem> {
    let now_ms = now_ms();
    let newest: Option<Newest> = sqlx::query_as(
        "SELECT run_id, attempt, status, lease_until_ms, claims, checkpoint_epoch, checkpoint
         FROM runs WHERE identity = ?1 ORDER BY attempt DESC LIMIT 1",
    )
    .bind(identity)
    .fetch_optional(&mut *connection)
    .await?;
    let claim = match newest {
        None => {
            let run: RunId = sqlx::query_scalar(
                "INSERT INTO runs (experiment_id, identity, attempt, status, worker, lease_until_ms, claims, queued_ms, started_ms)
                 VALUES (?1, ?2, 1, 'running', ?3, ?4, 1, ?5, ?5)
                 RETURNING run_id",
            )
            .bind(experiment)
            .bind(identity)
            .bind(worker)
            .bind(until_ms(lease))
            .bind(now_ms)
            .fetch_one(&mut *connection)
            .await?;
            Claim {
                run,
                identity: identity.to_owned(),
                attempt: 1,
                claims: 1,
                resume_from_epoch: 0,
                checkpoint: None,
                epochs: 0,
            }
        }
        Some(newest) => {
            let free = match newest.status {
                RunStatus::Queued | RunStatus::Interrupted | RunStatus::Pruned => true,
                RunStatus::Running => newest.lease_until_ms.is_none_or(|until_ms| until_ms <= now_ms),
                RunStatus::Done | RunStatus::Failed => false,
            };
            if !free {
                return Ok(None);
            }
            sqlx::query(
                "UPDATE runs SET status = 'running', worker = ?2, lease_until_ms = ?3, claims = claims + 1,
                    started_ms = coalesce(started_ms, ?4), finished_ms = NULL
                 WHERE run_id = ?1",
            )
            .bind(newest.run_id)
            .bind(worker)
            .bind(until_ms(lease))
            .bind(now_ms)
            .execute(&mut *connection)
            .await?;
            let epochs = sqlx::query_scalar("SELECT coalesce(max(epoch), 0) FROM epochs WHERE run_id = ?1")
                .bind(newest.run_id)
                .fetch_one(&mut *connection)
                .await?;
            Claim {
                run: newest.run_id,
                identity: identity.to_owned(),
                attempt: newest.attempt,
                claims: newest.claims + 1,
                resume_from_epoch: newest.checkpoint_epoch.unwrap_or(0),
                checkpoint: newest.checkpoint,
                epochs,
            }
        }
    };
    sqlx::query(
        "INSERT INTO claims (run_id, claim, claimed_ms, worker, from_epoch, commit_hash, version, device, threads, os, cpu, command, config, data_fingerprint)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
    )
    .bind(claim.run)
    .bind(claim.claims)
    .bind(now_ms)
    .bind(worker)
    .bind(claim.resume_from_epoch)
    .bind(&provenance.commit)
    .bind(&provenance.version)
    .bind(&provenance.device)
    .bind(provenance.threads)
    .bind(&provenance.os)
    .bind(&provenance.cpu)
    .bind(&provenance.command)
    .bind(&provenance.config)
    .bind(&provenance.data_fingerprint)
    .execute(connection)
    .await?;
    Ok(Some(claim))
}

fn until_ms(lease: Duration) -> i64 {
    now_ms().saturating_add(i64::try_from(lease.as_millis()).unwrap_or(i64::MAX))
}

/// Why a worker's write to a run changed nothing.
pub(crate) async fn refusal(connection: &mut SqliteConnection, run: RunId, worker: &str) -> Result<Problem, Problem> {
    let row: Option<(RunStatus, Option<String>)> = sqlx::query_as("SELECT status, worker FROM runs WHERE run_id = ?1")
        .bind(run)
        .fetch_optional(connection)
        .await?;
    Ok(match row {
        None => StoreError::UnknownRun { run },
        Some((_, Some(holder))) if holder != worker => StoreError::LeaseLost { run, worker: worker.to_owned(), holder },
        Some((status, _)) => StoreError::NotRunning { run, status },
    }
    .into())
}
