//! Typed rows for those who count: reports, plots, exports.

use std::collections::HashMap;
use std::sync::Arc;

use sqlx::sqlite::SqliteRow;
use sqlx::{Connection, FromRow, Row};

use crate::{EpochRow, EvaluationRow, ExperimentId, Provenance, RunId, RunStatus, Split, Store, StoreError};

/// A trial of an experiment with the run that stands for it: the newest one that is done, else the newest one.
///
/// Accuracies are fractions in [0, 1], losses are in nats per image. What a run has not come to yet is `None`.
#[derive(Clone, Debug, PartialEq, FromRow)]
pub struct RunRow {
    /// The run.
    #[sqlx(rename = "run_id")]
    pub run: RunId,
    /// The trial.
    pub identity: String,
    /// What the trial shares with those that differ from it in the seed only.
    pub configuration: String,
    /// Place in the plan, from 0.
    pub position: u32,
    /// Short name for people.
    pub label: String,
    /// Named variant.
    pub variant: Option<String>,
    /// Family of the network.
    pub architecture: String,
    /// The variant, or the architecture where there are no variants.
    pub network: String,
    /// Seed.
    #[sqlx(try_from = "i64")]
    pub seed: u64,
    /// Trainable parameters.
    #[sqlx(try_from = "i64")]
    pub parameters: u64,
    /// Multiply-accumulate operations of one forward pass of one image.
    #[sqlx(try_from = "i64")]
    pub macs_per_image: u64,
    /// The keys that the experiment varies, by name, with this trial's values.
    #[sqlx(rename = "settings", try_from = "String")]
    pub assignments: Assignments,
    /// Where the run stands.
    pub status: RunStatus,
    /// Which attempt at the trial the run is, from 1.
    pub attempt: u32,
    /// Attempts at the trial so far.
    pub attempts: u32,
    /// The run was made on behalf of another experiment.
    pub reused: bool,
    /// How often a worker took the run up; more than 1: it was interrupted and continued.
    pub claims: u32,
    /// Epochs recorded.
    pub epochs: u32,
    /// Epoch whose weights were tested: the last; from 1.
    pub tested_epoch: Option<u32>,
    /// Loss over the training part in the tested epoch, as trained.
    pub train_loss: Option<f64>,
    /// Accuracy over the training part in the tested epoch, as trained.
    pub train_top1: Option<f64>,
    /// Loss over the validation part after the tested epoch.
    pub validation_loss: Option<f64>,
    /// Accuracy over the validation part after the tested epoch.
    pub validation_top1: Option<f64>,
    /// Top-5 accuracy over the validation part after the tested epoch.
    pub validation_top5: Option<f64>,
    /// Loss over the test part.
    pub test_loss: Option<f64>,
    /// Accuracy over the test part.
    pub test_top1: Option<f64>,
    /// Top-5 accuracy over the test part.
    pub test_top5: Option<f64>,
    /// Images of the test part.
    pub test_images: Option<u32>,
    /// Wall-clock time of training and validation, in seconds.
    pub train_seconds: Option<f64>,
    /// Wall-clock time of the test, in seconds.
    pub test_seconds: Option<f64>,
    /// Largest resident memory of the process, in bytes.
    pub peak_memory_bytes: Option<i64>,
    /// When a worker took it up first, in milliseconds since 1970-01-01 UTC.
    pub started_ms: Option<i64>,
    /// When it ended, in milliseconds since 1970-01-01 UTC.
    pub finished_ms: Option<i64>,
    /// Weights of the tested epoch, or the newest checkpoint of a run that is not done.
    pub checkpoint: Option<String>,
    /// What kind of failure it was.
    pub failure_kind: Option<String>,
    /// What went wrong.
    pub failure_message: Option<String>,
    /// Device of the last claim.
    pub device: Option<String>,
    /// Threads of the last claim.
    pub threads: Option<u32>,
    /// Git commit of the program at the last claim.
    #[sqlx(rename = "commit_hash")]
    pub commit: Option<String>,
    /// Some of its layers are not trained.
    pub has_frozen_layers: bool,
}

/// The keys that an experiment varies, in alphabetical order, each with its value in a trial.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Assignments(pub Vec<(String, serde_json::Value)>);

impl Assignments {
    /// The value of a key such as `train.weight_decay`.
    pub fn get(&self, key: &str) -> Option<&serde_json::Value> {
        self.0.iter().find_map(|(name, value)| (name == key).then_some(value))
    }
}

impl TryFrom<String> for Assignments {
    type Error = serde_json::Error;

    /// Reads a JSON object.
    fn try_from(text: String) -> Result<Self, Self::Error> {
        let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&text)?;
        Ok(Self(object.into_iter().collect()))
    }
}

/// An epoch with the trial that it belongs to.
#[derive(Clone, Debug, PartialEq)]
pub struct EpochRecord {
    /// The run.
    pub run: RunId,
    /// The trial's short name.
    pub label: Arc<str>,
    /// The trial's named variant.
    pub variant: Option<Arc<str>>,
    /// The variant, or the architecture where there are no variants.
    pub network: Arc<str>,
    /// What the trial shares with those that differ from it in the seed only.
    pub configuration: Arc<str>,
    /// The trial's seed.
    pub seed: u64,
    /// What the epoch came to.
    pub row: EpochRow,
}

/// What reports draw of an epoch. Accuracies are fractions, losses are in nats per image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CurvePoint {
    /// The run.
    pub run: RunId,
    /// From 1.
    pub epoch: u32,
    /// Learning rate of its last step.
    pub learning_rate: f64,
    /// Loss over the training part, as trained.
    pub train_loss: f64,
    /// Accuracy over the training part, as trained.
    pub train_top1: f64,
    /// Loss over the validation part, if there is one.
    pub validation_loss: Option<f64>,
    /// Accuracy over the validation part.
    pub validation_top1: Option<f64>,
    /// Training images per second.
    pub images_per_second: f64,
    /// Wall-clock time with validation, in seconds.
    pub epoch_seconds: f64,
}

/// An evaluation with its run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EvaluationRecord {
    /// The run.
    pub run: RunId,
    /// What it came to.
    pub row: EvaluationRow,
}

/// One time that a worker took up a run.
#[derive(Clone, Debug, PartialEq, FromRow)]
pub struct ProvenanceRow {
    /// Which claim on the run this is, from 1.
    pub claim: u32,
    /// When, in milliseconds since 1970-01-01 UTC.
    pub claimed_ms: i64,
    /// The worker.
    pub worker: String,
    /// Epochs that were complete in the checkpoint then; 0: from the start.
    pub from_epoch: u32,
    /// By what program, where and with what.
    #[sqlx(flatten)]
    pub provenance: Provenance,
}

/// The run that stands for a trial: the newest one that is done, else the newest one. As in the view `results`.
const STANDING_RUN: &str = "(SELECT s.run_id FROM runs AS s WHERE s.identity = p.identity
    ORDER BY s.status = 'done' DESC, s.attempt DESC LIMIT 1)";

impl Store {
    /// One row per trial of the experiment's plan that has been run, in the order of the plan.
    pub fn runs(&self, experiment: ExperimentId) -> Result<Vec<RunRow>, StoreError> {
        self.read(async |connection| {
            Ok(sqlx::query_as(
                "SELECT r.*, c.device, c.threads, c.commit_hash,
                        json_extract(t.canonical, '$.train.freeze') IS NOT NULL AS has_frozen_layers
                 FROM results AS r
                 JOIN trials AS t ON t.identity = r.identity
                 LEFT JOIN claims AS c ON c.run_id = r.run_id AND c.claim = r.claims
                 WHERE r.experiment_id = ?1 AND r.run_id IS NOT NULL
                 ORDER BY r.position",
            )
            .bind(experiment)
            .fetch_all(connection)
            .await?)
        })
    }

    /// Every epoch of the runs that [`Self::runs`] gives: by the order of the plan, then by epoch.
    pub fn epochs(&self, experiment: ExperimentId) -> Result<Vec<EpochRecord>, StoreError> {
        self.read(async |connection| {
            // One transaction, so that both queries see the same moment.
            let mut transaction = connection.begin().await?;
            let trials: Vec<(RunId, String, Option<String>, String, String, i64)> =
                sqlx::query_as(sqlx::AssertSqlSafe(format!(
                    "SELECT {STANDING_RUN}, p.label, p.variant, t.architecture, t.configuration, t.seed
                     FROM experiment_trials AS p JOIN trials AS t ON t.identity = p.identity
                     WHERE p.experiment_id = ?1 AND p.position IS NOT NULL
                        AND EXISTS (SELECT 1 FROM runs AS r WHERE r.identity = p.identity)
                     ORDER BY p.position"
                )))
                .bind(experiment)
                .fetch_all(&mut *transaction)
                .await?;
            let rows: Vec<Numbered> = sqlx::query_as(sqlx::AssertSqlSafe(format!(
                "SELECT e.run_id, e.epoch, e.learning_rate, e.train_loss, e.train_penalty, e.train_top1, e.train_top5,
                    e.validation_loss, e.validation_top1, e.validation_top5, e.images_per_second, e.epoch_seconds, e.steps
                 FROM experiment_trials AS p JOIN epochs AS e ON e.run_id = {STANDING_RUN}
                 WHERE p.experiment_id = ?1 AND p.position IS NOT NULL
                 ORDER BY p.position, e.epoch"
            )))
            .bind(experiment)
            .fetch_all(&mut *transaction)
            .await?;
            transaction.commit().await?;

            // The names are many times fewer than the rows, which share them.
            let mut templates = HashMap::with_capacity(trials.len());
            for (run, label, variant, architecture, configuration, seed) in trials {
                let variant: Option<Arc<str>> = variant.map(Arc::from);
                let network = variant.clone().unwrap_or_else(|| architecture.into());
                templates.insert(
                    run,
                    EpochRecord {
                        run,
                        label: label.into(),
                        variant,
                        network,
                        configuration: configuration.into(),
                        seed: u64::try_from(seed)?,
                        row: EpochRow::default(),
                    },
                );
            }
            Ok(rows
                .into_iter()
                .filter_map(|Numbered { run, row }| {
                    templates.get(&run).map(|template| EpochRecord {
                        row,
                        ..template.clone()
                    })
                })
                .collect())
        })
    }

    /// The learning curves of the runs that [`Self::runs`] gives: by run, then by epoch. Half the time of [`Self::epochs`].
    pub fn curves(&self, experiment: ExperimentId) -> Result<Vec<CurvePoint>, StoreError> {
        self.read(async |connection| {
            Ok(sqlx::query_as(sqlx::AssertSqlSafe(format!(
                "SELECT e.run_id, e.epoch, e.learning_rate, e.train_loss, e.train_top1, e.validation_loss, e.validation_top1,
                    e.images_per_second, e.epoch_seconds
                 FROM epochs AS e WHERE e.run_id IN (
                    SELECT {STANDING_RUN} FROM experiment_trials AS p WHERE p.experiment_id = ?1 AND p.position IS NOT NULL)
                 ORDER BY e.run_id, e.epoch"
            )))
            .bind(experiment)
            .fetch_all(connection)
            .await?)
        })
    }

    /// Every evaluation of the runs that [`Self::runs`] gives, in the order of the plan.
    pub fn evaluations(&self, experiment: ExperimentId) -> Result<Vec<EvaluationRecord>, StoreError> {
        self.read(async |connection| {
            Ok(sqlx::query_as(sqlx::AssertSqlSafe(format!(
                "SELECT v.run_id, v.split, v.epoch, v.loss, v.top1, v.top5, v.images, v.seconds
                 FROM experiment_trials AS p JOIN evaluations AS v ON v.run_id = {STANDING_RUN}
                 WHERE p.experiment_id = ?1 AND p.position IS NOT NULL
                 ORDER BY p.position, v.split"
            )))
            .bind(experiment)
            .fetch_all(connection)
            .await?)
        })
    }

    /// The most probable class of each image of a part, in the order of the part; `None` where they were not kept.
    pub fn predictions(&self, run: RunId, split: Split) -> Result<Option<Vec<u16>>, StoreError> {
        let bytes: Option<Vec<u8>> = self.read(async |connection| {
            Ok(sqlx::query_scalar("SELECT classes FROM predictions WHERE run_id = ?1 AND split = ?2")
                .bind(run)
                .bind(split)
                .fetch_optional(connection)
                .await?)
        })?;
        Ok(bytes.map(|bytes| bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect()))
    }

    /// The loss of each step of an epoch, in nats per image, before the step's update; none where they were not kept.
    pub fn step_losses(&self, run: RunId, epoch: u32) -> Result<Vec<f32>, StoreError> {
        let bytes: Option<Vec<u8>> = self.read(async |connection| {
            Ok(sqlx::query_scalar("SELECT losses FROM steps WHERE run_id = ?1 AND epoch = ?2")
                .bind(run)
                .bind(epoch)
                .fetch_optional(connection)
                .await?)
        })?;
        let bytes = bytes.unwrap_or_default();
        Ok(bytes.chunks_exact(4).map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]])).collect())
    }

    /// The provenance of the last claim on each run that [`Self::runs`] gives.
    pub fn last_claims(&self, experiment: ExperimentId) -> Result<HashMap<RunId, Provenance>, StoreError> {
        let rows: Vec<LastClaim> = self.read(async |connection| {
            Ok(sqlx::query_as(sqlx::AssertSqlSafe(format!(
                "SELECT c.* FROM experiment_trials AS p JOIN runs AS r ON r.run_id = {STANDING_RUN}
                 JOIN claims AS c ON c.run_id = r.run_id AND c.claim = r.claims
                 WHERE p.experiment_id = ?1 AND p.position IS NOT NULL"
            )))
            .bind(experiment)
            .fetch_all(connection)
            .await?)
        })?;
        Ok(rows.into_iter().map(|row| (row.run, row.provenance)).collect())
    }

    /// Each time that a worker took up the run, first to last: one row for a run that was never interrupted.
    pub fn provenance(&self, run: RunId) -> Result<Vec<ProvenanceRow>, StoreError> {
        self.read(async |connection| {
            Ok(sqlx::query_as("SELECT * FROM claims WHERE run_id = ?1 ORDER BY claim")
                .bind(run)
                .fetch_all(connection)
                .await?)
        })
    }
}

#[derive(FromRow)]
struct LastClaim {
    #[sqlx(rename = "run_id")]
    run: RunId,
    #[sqlx(flatten)]
    provenance: Provenance,
}

struct Numbered {
    run: RunId,
    row: EpochRow,
}

/// By place, not by name: a hundred thousand rows of thirteen columns are a million look-ups.
impl FromRow<'_, SqliteRow> for Numbered {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        Ok(Self {
            run: row.try_get(0)?,
            row: EpochRow {
                epoch: row.try_get(1)?,
                learning_rate: number(row, 2)?,
                train_loss: number(row, 3)?,
                train_penalty: number(row, 4)?,
                train_top1: number(row, 5)?,
                train_top5: number(row, 6)?,
                validation_loss: row.try_get(7)?,
                validation_top1: row.try_get(8)?,
                validation_top5: row.try_get(9)?,
                images_per_second: number(row, 10)?,
                epoch_seconds: number(row, 11)?,
                steps: row.try_get(12)?,
            },
        })
    }
}

impl FromRow<'_, SqliteRow> for CurvePoint {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        Ok(Self {
            run: row.try_get(0)?,
            epoch: row.try_get(1)?,
            learning_rate: number(row, 2)?,
            train_loss: number(row, 3)?,
            train_top1: number(row, 4)?,
            validation_loss: row.try_get(5)?,
            validation_top1: row.try_get(6)?,
            images_per_second: number(row, 7)?,
            epoch_seconds: number(row, 8)?,
        })
    }
}

impl FromRow<'_, SqliteRow> for EvaluationRecord {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        Ok(Self {
            run: row.try_get(0)?,
            row: EvaluationRow {
                split: row.try_get(1)?,
                epoch: row.try_get(2)?,
                loss: number(row, 3)?,
                top1: number(row, 4)?,
                top5: number(row, 5)?,
                images: row.try_get(6)?,
                seconds: number(row, 7)?,
            },
        })
    }
}

/// SQLite keeps NaN as NULL.
fn number(row: &SqliteRow, index: usize) -> sqlx::Result<f64> {
    Ok(row.try_get::<Option<f64>, _>(index)?.unwrap_or(f64::NAN))
}
