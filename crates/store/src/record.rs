//! What a worker writes down about its run. Every write checks that the run is still the worker's.

use std::collections::HashSet;

use sqlx::{Connection, QueryBuilder, Sqlite, SqliteConnection};

use crate::experiment::{integer, now_ms};
use crate::queue::refusal;
use crate::session::Problem;
use crate::{RunId, Split, Store, StoreError};

/// What an epoch of training came to. Accuracies are fractions in [0, 1], losses are in nats per image. Values that are not
/// numbers are kept as missing and read back as NaN, or as `None` where they may be missing.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct EpochRow {
    /// The epoch, from 1.
    pub epoch: u32,
    /// Learning rate of the last step of the epoch.
    pub learning_rate: f64,
    /// Mean cross-entropy over the training part, as trained, without the L2 term.
    pub train_loss: f64,
    /// L2 term λ/2·Σw² at the end of the epoch.
    pub train_penalty: f64,
    /// Training images whose most probable class was right.
    pub train_top1: f64,
    /// Training images with the right class among the five most probable ones.
    pub train_top5: f64,
    /// Mean cross-entropy over the validation part; `None` where there is none.
    pub validation_loss: Option<f64>,
    /// Validation images whose most probable class was right.
    pub validation_top1: Option<f64>,
    /// Validation images with the right class among the five most probable ones.
    pub validation_top5: Option<f64>,
    /// Training images per second.
    pub images_per_second: f64,
    /// Wall-clock time of the epoch with its validation, in seconds.
    pub epoch_seconds: f64,
    /// Updates of the weights in the epoch.
    pub steps: u32,
}

/// What the trained network came to on a part of the data.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EvaluationRow {
    /// The part.
    pub split: Split,
    /// Epoch whose weights were evaluated, from 1.
    pub epoch: u32,
    /// Mean cross-entropy in nats per image, without the L2 term.
    pub loss: f64,
    /// Fraction of images whose most probable class was right.
    pub top1: f64,
    /// Fraction of images with the right class among the five most probable ones.
    pub top5: f64,
    /// Images evaluated.
    pub images: u32,
    /// Wall-clock time, in seconds.
    pub seconds: f64,
}

/// How a run ends.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Complete.
    Done {
        /// Epoch whose weights were tested, from 1.
        tested_epoch: u32,
        /// File of the weights of the tested epoch, where they were kept.
        checkpoint: Option<String>,
        /// Wall-clock time of training and validation, in seconds.
        train_seconds: f64,
        /// Largest resident memory of the process, in bytes.
        peak_memory_bytes: u64,
    },
    /// Ended in an error.
    Failed {
        /// What kind of failure: `not-finite`, `panic`, `memory`, `time`, `io`, ...
        kind: String,
        /// What went wrong.
        message: String,
    },
    /// Stopped; whoever takes it up next goes on from the checkpoint.
    Interrupted {
        /// Epochs that were complete in the newest checkpoint; `None`: what was last recorded of it stands.
        checkpoint_epoch: Option<u32>,
    },
}

impl Store {
    /// Writes down an epoch. When this returns, the row survives the death of the process.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`] where another worker has taken up the run, [`StoreError::NotRunning`] where it is over,
    /// [`StoreError::EpochExists`] where the run has this epoch already.
    pub fn record_epoch(&self, run: RunId, worker: &str, epoch: &EpochRow) -> Result<(), StoreError> {
        self.record_epochs(run, worker, std::slice::from_ref(epoch))
    }

    /// Writes down several epochs in one transaction: all or none. See [`Self::record_epoch`].
    pub fn record_epochs(&self, run: RunId, worker: &str, epochs: &[EpochRow]) -> Result<(), StoreError> {
        self.write(async |connection| {
            if epochs.len() <= ROWS_PER_STATEMENT {
                // One statement is a transaction of its own.
                return insert_epochs(connection, run, worker, epochs).await;
            }
            let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
            for rows in epochs.chunks(ROWS_PER_STATEMENT) {
                insert_epochs(&mut transaction, run, worker, rows).await?;
            }
            transaction.commit().await?;
            Ok(())
        })
    }

    /// [`Self::record_epoch`], together with the loss of each of its steps, in nats per image, where it is known.
    pub fn record_epoch_with_steps(
        &self,
        run: RunId,
        worker: &str,
        epoch: &EpochRow,
        losses: &[f32],
    ) -> Result<(), StoreError> {
        let bytes: Vec<u8> = losses.iter().flat_map(|loss| loss.to_le_bytes()).collect();
        self.write(async |connection| {
            let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
            insert_epochs(&mut transaction, run, worker, std::slice::from_ref(epoch)).await?;
            if !bytes.is_empty() {
                sqlx::query("INSERT INTO steps (run_id, epoch, losses) VALUES (?1, ?2, ?3)")
                    .bind(run)
                    .bind(epoch.epoch)
                    .bind(&bytes[..])
                    .execute(&mut *transaction)
                    .await?;
            }
            transaction.commit().await?;
            Ok(())
        })
    }

    /// Says that a checkpoint of the state after `epoch` epochs is complete on the disk, so that whoever takes up the run after
    /// this worker's death goes on from there.
    pub fn record_checkpoint(&self, run: RunId, worker: &str, epoch: u32, path: &str) -> Result<(), StoreError> {
        self.write(async |connection| {
            let result = sqlx::query(
                "UPDATE runs SET checkpoint_epoch = ?3, checkpoint = ?4
                 WHERE run_id = ?1 AND worker = ?2 AND status = 'running'",
            )
            .bind(run)
            .bind(worker)
            .bind(epoch)
            .bind(path)
            .execute(&mut *connection)
            .await?;
            accepted(connection, result.rows_affected(), run, worker).await
        })
    }

    /// Takes back the epochs after `epoch`, and the evaluations: the run goes on from a checkpoint of that epoch (0: from the
    /// start) and will come to them again. Returns how many epochs were taken back.
    pub fn rewind(&self, run: RunId, worker: &str, epoch: u32) -> Result<u32, StoreError> {
        self.write(async |connection| {
            let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
            let held = sqlx::query(
                "UPDATE runs SET
                    checkpoint_epoch = CASE WHEN checkpoint_epoch > ?3 THEN nullif(?3, 0) ELSE checkpoint_epoch END,
                    checkpoint = CASE WHEN ?3 = 0 THEN NULL ELSE checkpoint END
                 WHERE run_id = ?1 AND worker = ?2 AND status = 'running'",
            )
            .bind(run)
            .bind(worker)
            .bind(epoch)
            .execute(&mut *transaction)
            .await?;
            accepted(&mut transaction, held.rows_affected(), run, worker).await?;
            let removed = sqlx::query("DELETE FROM epochs WHERE run_id = ?1 AND epoch > ?2")
                .bind(run)
                .bind(epoch)
                .execute(&mut *transaction)
                .await?;
            sqlx::query("DELETE FROM evaluations WHERE run_id = ?1").bind(run).execute(&mut *transaction).await?;
            transaction.commit().await?;
            Ok(u32::try_from(removed.rows_affected())?)
        })
    }

    /// Writes down an evaluation, with the most probable class of each image in the order of the part. A second one of the same
    /// part, by a worker that was interrupted between it and [`Self::finish`], replaces the first.
    pub fn record_evaluation(
        &self,
        run: RunId,
        worker: &str,
        evaluation: &EvaluationRow,
        predictions: Option<&[u16]>,
    ) -> Result<(), StoreError> {
        let classes: Option<Vec<u8>> =
            predictions.map(|classes| classes.iter().flat_map(|class| class.to_le_bytes()).collect());
        self.write(async |connection| {
            let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
            let result = sqlx::query(
                "INSERT INTO evaluations (run_id, split, epoch, loss, top1, top5, images, seconds, recorded_ms)
                 SELECT run_id, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10 FROM runs
                 WHERE run_id = ?1 AND worker = ?2 AND status = 'running'
                 ON CONFLICT (run_id, split) DO UPDATE SET
                    epoch = excluded.epoch, loss = excluded.loss, top1 = excluded.top1, top5 = excluded.top5,
                    images = excluded.images, seconds = excluded.seconds, recorded_ms = excluded.recorded_ms",
            )
            .bind(run)
            .bind(worker)
            .bind(evaluation.split)
            .bind(evaluation.epoch)
            .bind(evaluation.loss)
            .bind(evaluation.top1)
            .bind(evaluation.top5)
            .bind(evaluation.images)
            .bind(evaluation.seconds)
            .bind(now_ms())
            .execute(&mut *transaction)
            .await?;
            accepted(&mut transaction, result.rows_affected(), run, worker).await?;
            sqlx::query("DELETE FROM predictions WHERE run_id = ?1 AND split = ?2")
                .bind(run)
                .bind(evaluation.split)
                .execute(&mut *transaction)
                .await?;
            if let Some(classes) = &classes {
                sqlx::query("INSERT INTO predictions (run_id, split, classes) VALUES (?1, ?2, ?3)")
                    .bind(run)
                    .bind(evaluation.split)
                    .bind(&classes[..])
                    .execute(&mut *transaction)
                    .await?;
            }
            transaction.commit().await?;
            Ok(())
        })
    }

    /// Ends the run. After this nothing more is written to it, unless it was interrupted and a worker takes it up again.
    pub fn finish(&self, run: RunId, worker: &str, outcome: &Outcome) -> Result<(), StoreError> {
        let now_ms = now_ms();
        self.write(async |connection| {
            let result = match outcome {
                Outcome::Done {
                    tested_epoch,
                    checkpoint,
                    train_seconds,
                    peak_memory_bytes,
                } => {
                    sqlx::query("UPDATE runs SET status = 'done', tested_epoch = ?4, checkpoint = ?5, train_seconds = ?6, peak_memory_bytes = ?7, lease_until_ms = NULL, finished_ms = ?3
                         WHERE run_id = ?1 AND worker = ?2 AND status = 'running'",
                    )
                    .bind(run)
                    .bind(worker)
                    .bind(now_ms)
                    .bind(tested_epoch)
                    .bind(checkpoint)
                    .bind(train_seconds)
                    .bind(integer("the memory", *peak_memory_bytes)?)
                    .execute(&mut *connection)
                    .await?
                }
                Outcome::Failed { kind, message } => {
                    sqlx::query("UPDATE runs SET status = 'failed', failure_kind = ?4, failure_message = ?5, lease_until_ms = NULL, finished_ms = ?3
                         WHERE run_id = ?1 AND worker = ?2 AND status = 'running'",
                    )
                    .bind(run)
                    .bind(worker)
                    .bind(now_ms)
                    .bind(kind)
                    .bind(message)
                    .execute(&mut *connection)
                    .await?
                }
                Outcome::Interrupted { checkpoint_epoch } => {
                    sqlx::query("UPDATE runs SET status = 'interrupted', checkpoint_epoch = coalesce(?4, checkpoint_epoch), lease_until_ms = NULL, finished_ms = ?3
                         WHERE run_id = ?1 AND worker = ?2 AND status = 'running'",
                    )
                    .bind(run)
                    .bind(worker)
                    .bind(now_ms)
                    .bind(checkpoint_epoch)
                    .execute(&mut *connection)
                    .await?
                }
            };
            accepted(connection, result.rows_affected(), run, worker).await
        })
    }
}

async fn accepted(connection: &mut SqliteConnection, rows: u64, run: RunId, worker: &str) -> Result<(), Problem> {
    match rows {
        0 => Err(refusal(connection, run, worker).await?),
        _ => Ok(()),
    }
}

/// Each statement is a trip to SQLite's thread and back, which costs more than the row itself.
const ROWS_PER_STATEMENT: usize = 64;

async fn insert_epochs(
    connection: &mut SqliteConnection,
    run: RunId,
    worker: &str,
    epochs: &[EpochRow],
) -> Result<(), Problem> {
    if epochs.is_empty() {
        return Ok(());
    }
    let now_ms = now_ms();
    let mut statement = QueryBuilder::<Sqlite>::new(
        "INSERT INTO epochs (run_id, epoch, learning_rate, train_loss, train_penalty, train_top1, train_top5,
            validation_loss, validation_top1, validation_top5, images_per_second, epoch_seconds, steps, recorded_ms)
         SELECT r.run_id, e.* FROM (",
    );
    statement.push_values(epochs, |mut values, epoch| {
        values
            .push_bind(epoch.epoch)
            .push_bind(epoch.learning_rate)
            .push_bind(epoch.train_loss)
            .push_bind(epoch.train_penalty)
            .push_bind(epoch.train_top1)
            .push_bind(epoch.train_top5)
            .push_bind(epoch.validation_loss)
            .push_bind(epoch.validation_top1)
            .push_bind(epoch.validation_top5)
            .push_bind(epoch.images_per_second)
            .push_bind(epoch.epoch_seconds)
            .push_bind(epoch.steps)
            .push_bind(now_ms);
    });
    statement.push(") AS e JOIN runs AS r ON r.status = 'running' AND r.run_id = ").push_bind(run);
    statement.push(" AND r.worker = ").push_bind(worker);
    match statement.build().execute(&mut *connection).await {
        Ok(result) => accepted(connection, result.rows_affected(), run, worker).await,
        Err(error) if error.as_database_error().is_some_and(|error| error.is_unique_violation()) => {
            let kept: Vec<u32> = sqlx::query_scalar("SELECT epoch FROM epochs WHERE run_id = ?1")
                .bind(run)
                .fetch_all(connection)
                .await?;
            let mut seen: HashSet<u32> = kept.into_iter().collect();
            let twice = epochs.iter().find(|row| !seen.insert(row.epoch));
            Err(twice.map_or(error.into(), |row| StoreError::EpochExists { run, epoch: row.epoch }.into()))
        }
        Err(error) => Err(error.into()),
    }
}
