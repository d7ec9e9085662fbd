//! Experiments and runs as people look through them: `list`, `show`, `diff`, `gc`.

use crate::experiment::now_ms;
use crate::{ExperimentId, RunId, Store, StoreError, Table, Value};

/// Which experiments or runs are listed. What is `None` does not matter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Listing<'a> {
    /// Only runs of trials that this experiment has or had in its plan.
    pub experiment: Option<ExperimentId>,
    /// Only runs that stand so.
    pub status: Option<&'a str>,
    /// Only what has this tag; a run has its experiment's tags too.
    pub tag: Option<&'a str>,
    /// Only runs of this variant or architecture.
    pub network: Option<&'a str>,
    /// What was put away too.
    pub archived: bool,
    /// At most so many, the newest first.
    pub limit: Option<u32>,
    /// Without so many of the newest.
    pub skip: u32,
    /// In the order of a column, in the place of the newest first.
    pub order: Option<Order<'a>>,
}

/// Rows in the order of a column; what is not known comes last, and equal rows as they come otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order<'a> {
    /// A column of the list.
    pub column: &'a str,
    /// The greatest first.
    pub descending: bool,
}

impl Order<'_> {
    /// What comes before the usual order. `of` are the columns of the list.
    fn sql(order: Option<Self>, of: &[&'static str]) -> String {
        let found =
            order.and_then(|order| Some((of.iter().find(|column| **column == order.column)?, order.descending)));
        found.map_or_else(String::new, |(column, descending)| {
            let way = if descending { "DESC" } else { "ASC" };
            format!("\"{column}\" {way} NULLS LAST, ")
        })
    }
}

/// Columns of [`Store::list_experiments`].
pub const EXPERIMENT_COLUMNS: [&str; 11] = [
    "experiment",
    "trials",
    "done",
    "pruned",
    "failed",
    "running",
    "planned_utc",
    "tags",
    "archived",
    "note",
    "question",
];

/// Columns of [`Store::list_runs`].
pub const RUN_COLUMNS: [&str; 13] = [
    "run",
    "experiment",
    "label",
    "attempt",
    "status",
    "epochs",
    "validation_top1",
    "test_top1",
    "train_seconds",
    "started_utc",
    "tags",
    "archived",
    "note",
];

fn optional(text: Option<&str>) -> Value {
    text.map_or(Value::Null, Value::from)
}

/// Status of a run for people: a worker that is silent for longer than its lease has it no more.
const STANDING: &str =
    "CASE WHEN r.status = 'running' AND coalesce(r.lease_until_ms, 0) <= ?7 THEN 'interrupted' ELSE r.status END";

impl Store {
    /// Experiments, the one that was planned last first unless asked otherwise: how many of their trials are done, tags, note.
    pub fn list_experiments(&self, listing: &Listing) -> Result<Table, StoreError> {
        let order = Order::sql(listing.order, &EXPERIMENT_COLUMNS);
        let sql = format!(
            "SELECT x.name AS experiment,
                count(p.identity) AS trials,
                coalesce(sum(s.status = 'done'), 0) AS done,
                coalesce(sum(s.status = 'pruned'), 0) AS pruned,
                coalesce(sum(s.status = 'failed'), 0) AS failed,
                coalesce(sum(s.status = 'running' AND s.lease_until_ms > ?4), 0) AS running,
                strftime('%Y-%m-%d %H:%M', x.updated_ms / 1000, 'unixepoch') AS planned_utc,
                (SELECT group_concat(tag, ', ') FROM (SELECT tag FROM experiment_tags AS g
                    WHERE g.experiment_id = x.experiment_id ORDER BY tag)) AS tags,
                x.experiment_id IN (SELECT experiment_id FROM archived_experiments) AS archived,
                (SELECT note FROM experiment_notes AS n WHERE n.experiment_id = x.experiment_id) AS note,
                x.question
             FROM experiments AS x
             LEFT JOIN experiment_trials AS p ON p.experiment_id = x.experiment_id AND p.position IS NOT NULL
             LEFT JOIN runs AS s ON s.run_id = (SELECT r.run_id FROM runs AS r WHERE r.identity = p.identity
                ORDER BY r.status = 'done' DESC, r.attempt DESC LIMIT 1)
             WHERE (?1 OR x.experiment_id NOT IN (SELECT experiment_id FROM archived_experiments))
                AND (?2 IS NULL OR EXISTS (SELECT 1 FROM experiment_tags AS g
                    WHERE g.experiment_id = x.experiment_id AND g.tag = ?2))
             GROUP BY x.experiment_id
             ORDER BY {order}x.updated_ms DESC, x.experiment_id DESC
             LIMIT ?3 OFFSET ?5"
        );
        self.query(
            &sql,
            &[
                Value::Integer(listing.archived.into()),
                optional(listing.tag),
                Value::Integer(listing.limit.map_or(-1, i64::from)),
                Value::Integer(now_ms()),
                Value::Integer(listing.skip.into()),
            ],
        )
    }

    /// Runs, all attempts of them, the newest first unless asked otherwise, with the last epoch's validation and the test.
    pub fn list_runs(&self, listing: &Listing) -> Result<Table, StoreError> {
        let order = Order::sql(listing.order, &RUN_COLUMNS);
        let sql = format!(
            "SELECT r.run_id AS run, x.name AS experiment, p.label, r.attempt, {STANDING} AS status,
                coalesce(e.epoch, 0) AS epochs, e.validation_top1, v.top1 AS test_top1, r.train_seconds,
                strftime('%Y-%m-%d %H:%M', r.started_ms / 1000, 'unixepoch') AS started_utc,
                (SELECT group_concat(tag, ', ') FROM (SELECT tag FROM run_tags AS g
                    WHERE g.run_id = r.run_id ORDER BY tag)) AS tags,
                (r.run_id IN (SELECT run_id FROM archived_runs)
                    OR x.experiment_id IN (SELECT experiment_id FROM archived_experiments)) AS archived,
                (SELECT note FROM run_notes AS n WHERE n.run_id = r.run_id) AS note
             FROM runs AS r
             JOIN trials AS t ON t.identity = r.identity
             LEFT JOIN experiment_trials AS p ON p.identity = r.identity AND p.experiment_id = coalesce(?1, r.experiment_id,
                (SELECT min(o.experiment_id) FROM experiment_trials AS o WHERE o.identity = r.identity))
             LEFT JOIN experiments AS x ON x.experiment_id = p.experiment_id
             LEFT JOIN epochs AS e ON e.run_id = r.run_id
                AND e.epoch = (SELECT max(n.epoch) FROM epochs AS n WHERE n.run_id = r.run_id)
             LEFT JOIN evaluations AS v ON v.run_id = r.run_id AND v.split = 'test'
             WHERE (?1 IS NULL OR p.experiment_id IS NOT NULL)
                AND (?2 IS NULL OR {STANDING} = ?2)
                AND (?3 IS NULL OR EXISTS (SELECT 1 FROM run_tags AS g WHERE g.run_id = r.run_id AND g.tag = ?3)
                    OR EXISTS (SELECT 1 FROM experiment_tags AS g WHERE g.experiment_id = x.experiment_id AND g.tag = ?3))
                AND (?4 IS NULL OR p.variant = ?4 OR t.architecture = ?4)
                AND (?5 OR NOT (r.run_id IN (SELECT run_id FROM archived_runs)
                    OR coalesce(x.experiment_id IN (SELECT experiment_id FROM archived_experiments), 0)))
             ORDER BY {order}r.run_id DESC
             LIMIT ?6 OFFSET ?8"
        );
        self.query(
            &sql,
            &[
                listing.experiment.map_or(Value::Null, |id| Value::Integer(id.0)),
                optional(listing.status),
                optional(listing.tag),
                optional(listing.network),
                Value::Integer(listing.archived.into()),
                Value::Integer(listing.limit.map_or(-1, i64::from)),
                Value::Integer(now_ms()),
                Value::Integer(listing.skip.into()),
            ],
        )
    }

    /// One row that tells what a run is, where it stands and what it came to.
    ///
    /// # Errors
    /// [`StoreError::UnknownRun`].
    pub fn describe_run(&self, run: RunId) -> Result<Table, StoreError> {
        let utc = |column: &str| format!("strftime('%Y-%m-%d %H:%M:%S', r.{column} / 1000, 'unixepoch') AS ");
        let sql = format!(
            "SELECT r.run_id AS run,
                (SELECT group_concat(name, ', ') FROM (SELECT x.name FROM experiment_trials AS p
                    JOIN experiments AS x USING (experiment_id) WHERE p.identity = r.identity ORDER BY x.name)) AS experiments,
                p.label, coalesce(p.variant, t.architecture) AS network, t.seed, r.attempt,
                (SELECT count(*) FROM runs AS n WHERE n.identity = r.identity) AS attempts,
                {} AS status, r.claims,
                (SELECT group_concat(tag, ', ') FROM (SELECT tag FROM run_tags AS g
                    WHERE g.run_id = r.run_id ORDER BY tag)) AS tags,
                (SELECT note FROM run_notes AS n WHERE n.run_id = r.run_id) AS note,
                r.run_id IN (SELECT run_id FROM archived_runs) AS archived,
                {}queued_utc, {}started_utc, {}finished_utc,
                (SELECT count(*) FROM epochs AS e WHERE e.run_id = r.run_id) AS epochs, r.tested_epoch, r.train_seconds,
                r.peak_memory_bytes, r.failure_kind, r.failure_message,
                t.parameters, t.macs_per_image, r.identity, t.configuration, t.data_fingerprint
             FROM runs AS r
             JOIN trials AS t ON t.identity = r.identity
             LEFT JOIN experiment_trials AS p ON p.identity = r.identity AND p.experiment_id = coalesce(r.experiment_id,
                (SELECT min(o.experiment_id) FROM experiment_trials AS o WHERE o.identity = r.identity))
             WHERE r.run_id = ?1",
            STANDING.replace("?7", "?2"),
            utc("queued_ms"),
            utc("started_ms"),
            utc("finished_ms"),
        );
        let table = self.query(&sql, &[Value::Integer(run.0), Value::Integer(now_ms())])?;
        if table.rows.is_empty() {
            return Err(StoreError::UnknownRun { run });
        }
        Ok(table)
    }

    /// All settings and the seed of a run's trial, as canonical JSON.
    ///
    /// # Errors
    /// [`StoreError::UnknownRun`].
    pub fn canonical(&self, run: RunId) -> Result<String, StoreError> {
        let sql = "SELECT t.canonical FROM runs AS r JOIN trials AS t ON t.identity = r.identity WHERE r.run_id = ?1";
        let table = self.query(sql, &[Value::Integer(run.0)])?;
        table.rows.first().map(|row| row[0].to_string()).ok_or(StoreError::UnknownRun { run })
    }

    /// Keys that an experiment varies and this run's trial therefore has a value of its own for.
    pub fn varied_keys(&self, run: RunId) -> Result<Vec<String>, StoreError> {
        let sql = "SELECT DISTINCT a.key FROM runs AS r JOIN assignments AS a ON a.identity = r.identity \
                   WHERE r.run_id = ?1 ORDER BY a.key";
        Ok(self.query(sql, &[Value::Integer(run.0)])?.rows.iter().map(|row| row[0].to_string()).collect())
    }

    /// Names of all variants and architectures, in the order of the alphabet.
    pub fn networks(&self) -> Result<Vec<String>, StoreError> {
        let sql =
            "SELECT variant FROM experiment_trials WHERE variant IS NOT NULL UNION SELECT architecture FROM trials";
        Ok(self.query(sql, &[])?.rows.iter().map(|row| row[0].to_string()).collect())
    }

    /// What a run's weights came to on each part of the data.
    pub fn run_evaluations(&self, run: RunId) -> Result<Table, StoreError> {
        let sql =
            "SELECT split, epoch, loss, top1, top5, images, seconds FROM evaluations WHERE run_id = ?1 ORDER BY split";
        self.query(sql, &[Value::Integer(run.0)])
    }

    /// Each time that a worker took up a run, as rows to be printed.
    pub fn run_claims(&self, run: RunId) -> Result<Table, StoreError> {
        let sql = "SELECT claim, strftime('%Y-%m-%d %H:%M:%S', claimed_ms / 1000, 'unixepoch') AS claimed_utc, from_epoch, \
                   commit_hash, version, device, threads, os, cpu, worker, command, config FROM claims WHERE run_id = ?1 ORDER BY claim";
        self.query(sql, &[Value::Integer(run.0)])
    }

    /// Every run with what decides about its files.
    pub fn run_files(&self) -> Result<Vec<RunFiles>, StoreError> {
        let sql = "WITH chosen AS (SELECT r.run_id FROM results AS r JOIN best AS b
                       ON b.experiment = r.experiment AND b.network = r.network AND b.configuration = r.configuration
                       WHERE r.run_id IS NOT NULL)
                   SELECT r.run_id, r.status, r.status = 'running' AND coalesce(r.lease_until_ms, 0) > ?1,
                       r.run_id IN (SELECT run_id FROM archived_runs) OR (EXISTS (SELECT 1 FROM experiment_trials AS p WHERE p.identity = r.identity)
                           AND NOT EXISTS (SELECT 1 FROM experiment_trials AS p WHERE p.identity = r.identity
                               AND p.experiment_id NOT IN (SELECT experiment_id FROM archived_experiments))),
                       r.run_id IN (SELECT run_id FROM chosen)
                   FROM runs AS r ORDER BY r.run_id";
        let table = self.query(sql, &[Value::Integer(now_ms())])?;
        let yes = |value: &Value| *value == Value::Integer(1);
        let files = table.rows.iter().filter_map(|row| {
            let Value::Integer(id) = row[0] else { return None };
            Some(RunFiles {
                run: RunId(id),
                status: row[1].to_string(),
                live: yes(&row[2]),
                archived: yes(&row[3]),
                best: yes(&row[4]),
            })
        });
        Ok(files.collect())
    }
}

/// What decides which of a run's files are still needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunFiles {
    /// The run.
    pub run: RunId,
    /// Where it stands, as the database names it.
    pub status: String,
    /// A worker has it and is alive.
    pub live: bool,
    /// It was put away, or every experiment that has its trial was.
    pub archived: bool,
    /// It belongs to the best configuration of a network in an experiment, chosen on the validation part.
    pub best: bool,
}
