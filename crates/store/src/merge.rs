//! Taking over the experiments of another database: one sweep that was split over machines becomes one again.
//!
//! Rows are read in one transaction of the other database and written in one of this one. Tables are copied by the names of their
//! columns, so that a migration that adds some needs nothing here: a table with a `run_id` belongs to its run.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};

use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{AssertSqlSafe, Connection, QueryBuilder, Row, Sqlite, SqliteConnection};

use crate::experiment::now_ms;
use crate::query::value;
use crate::session::Problem;
use crate::{RunId, Store, StoreError, Value};

/// Tables whose rows are matched by more than a number; all others follow their run or their experiment.
const MATCHED: [&str; 5] = ["experiments", "trials", "experiment_trials", "assignments", "runs"];
/// Tables of what a run came to, and of who made it.
const CHILDREN: [&str; 3] = ["claims", "epochs", "evaluations"];
/// What people wrote about runs: joined where the run is here already.
const MARKS: [&str; 2] = ["run_tags", "run_notes"];
/// Columns that say when or how fast, in which two runs of one trial differ though they came to the same.
const TIMES: [&str; 5] = ["run_id", "images_per_second", "epoch_seconds", "seconds", "recorded_ms"];
/// SQLite's limit is 32,766 parameters to a statement.
const PARAMETERS: usize = 16_000;

/// What a merge did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Merged {
    /// All experiments of the other database.
    pub experiments: Vec<MergedExperiment>,
    /// Trials that are new here.
    pub trials: u32,
    /// All runs of the other database.
    pub runs: Vec<MergedRun>,
}

impl Merged {
    /// How many runs had this fate.
    pub fn count(&self, fate: Fate) -> usize {
        self.runs.iter().filter(|run| run.fate == fate).count()
    }
}

/// An experiment of the other database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MergedExperiment {
    /// Its name, there and here.
    pub name: String,
    /// No experiment of this name was here.
    pub is_new: bool,
    /// It was planned from another text than the one that is here.
    pub differs: bool,
    /// Planned trials that came behind the plan that was here.
    pub appended: u32,
}

/// A run of the other database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MergedRun {
    /// Its number there.
    pub there: RunId,
    /// Its number here; `None` where it was left out.
    pub here: Option<RunId>,
    /// What became of it.
    pub fate: Fate,
}

/// What becomes of a run of the other database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is added.
    New,
    /// It, or one of the same trial that came to the same, is here already.
    Known,
    /// It had got further than the same attempt here, and took its place.
    Further,
    /// A worker has it there, or the attempt of that number here: it is left out, and may be merged later.
    Running,
}

/// A table's rows.
#[derive(Clone, Debug, Default)]
struct Rows {
    columns: Vec<String>,
    rows: Vec<Vec<Value>>,
}

impl Rows {
    fn index(&self, column: &str) -> Option<usize> {
        self.columns.iter().position(|name| name == column)
    }

    /// The value of a column that the table has; `Null` for one that it has not.
    fn get<'a>(&self, row: &'a [Value], column: &str) -> &'a Value {
        self.index(column).map_or(&Value::Null, |index| &row[index])
    }

    fn number(&self, row: &[Value], column: &str) -> Option<i64> {
        if let Value::Integer(number) = self.get(row, column) { Some(*number) } else { None }
    }

    fn text(&self, row: &[Value], column: &str) -> String {
        self.get(row, column).to_string()
    }

    fn set(&self, row: &mut [Value], column: &str, value: Value) {
        if let Some(index) = self.index(column) {
            row[index] = value;
        }
    }

    fn without(&self, column: &str) -> Self {
        let Some(gone) = self.index(column) else { return self.clone() };
        let keep = |values: &[Value]| {
            values.iter().enumerate().filter(|(index, _)| *index != gone).map(|(_, value)| value.clone()).collect()
        };
        Self {
            columns: self.columns.iter().filter(|name| *name != column).cloned().collect(),
            rows: self.rows.iter().map(|row| keep(row)).collect(),
        }
    }
}

impl Store {
    /// Takes over what `other` has: all of it, or the experiments of these names. In one transaction; merging twice changes
    /// nothing.
    ///
    /// Experiments are the same by their names, trials by their identity. A run is the same as one here if it was started at the
    /// same moment by the same worker, or if it came to the same in every epoch and evaluation. A run whose attempt is taken by
    /// one that came to something else becomes a further attempt, so nothing is lost. An experiment that is here keeps its plan;
    /// trials that only the other one's has come behind it. `relocate` gives the path of a run's file here from its number here
    /// and its path there. With `commit` false nothing is written: what comes back says what would be.
    ///
    /// # Errors
    /// [`StoreError::Query`] for a name that no experiment of `other` has; what SQLite says. Then nothing is written.
    pub fn merge(
        &self,
        other: &Self,
        only: Option<&[&str]>,
        relocate: &dyn Fn(RunId, &str) -> String,
        commit: bool,
    ) -> Result<Merged, StoreError> {
        let tables = other.read(async |connection| snapshot(connection, only).await)?;
        if let Some(missing) = only.into_iter().flatten().find(|name| {
            let experiments = &tables["experiments"];
            !experiments.rows.iter().any(|row| experiments.text(row, "name") == **name)
        }) {
            return Err(StoreError::Query(format!("no experiment is called {missing:?}")));
        }
        self.write(async |connection| {
            let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
            sqlx::query("PRAGMA defer_foreign_keys = ON").execute(&mut *transaction).await?;
            let mut merge = Merge { tables: &tables, merged: Merged::default(), experiments: HashMap::new() };
            merge.plans(&mut transaction).await?;
            merge.runs(&mut transaction, relocate).await?;
            if commit {
                transaction.commit().await?;
            } else {
                transaction.rollback().await?;
            }
            Ok(merge.merged)
        })
    }
}

/// All rows, of one moment.
async fn snapshot(connection: &mut SqliteConnection, only: Option<&[&str]>) -> Result<BTreeMap<String, Rows>, Problem> {
    let mut transaction = connection.begin().await?;
    let names: Vec<String> = sqlx::query_scalar(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'
            AND name NOT LIKE '\\_sqlx%' ESCAPE '\\' ORDER BY rowid",
    )
    .fetch_all(&mut *transaction)
    .await?;
    let names_json = only.map(|names| serde_json::json!(names).to_string());
    let experiments =
        "SELECT experiment_id FROM experiments WHERE ?1 IS NULL OR name IN (SELECT value FROM json_each(?1))";
    let trials = format!("SELECT identity FROM experiment_trials WHERE experiment_id IN ({experiments})");
    let mut tables = BTreeMap::new();
    for name in names {
        let columns: Vec<String> = sqlx::query_scalar("SELECT name FROM pragma_table_info(?1)")
            .bind(&name)
            .fetch_all(&mut *transaction)
            .await?;
        let has = |column: &str| columns.iter().any(|name| name == column);
        let order = if name == "experiment_trials" { "ORDER BY position IS NULL, position" } else { "ORDER BY 1, 2" };
        let condition = match name.as_str() {
            "trials" => format!("?1 IS NULL OR identity IN ({trials})"),
            "runs" => format!("?1 IS NULL OR identity IN ({trials})"),
            _ if has("run_id") => {
                format!("?1 IS NULL OR run_id IN (SELECT run_id FROM runs WHERE identity IN ({trials}))")
            }
            _ if has("experiment_id") => format!("?1 IS NULL OR experiment_id IN ({experiments})"),
            _ => continue,
        };
        let list: Vec<String> = columns.iter().map(|column| quoted(column)).collect();
        let sql = format!("SELECT {} FROM {} WHERE {condition} {order}", list.join(", "), quoted(&name));
        let width = columns.len();
        let rows = sqlx::query(AssertSqlSafe(sql))
            .bind(&names_json)
            .try_map(|row: SqliteRow| (0..width).map(|index| value(&row, index)).collect())
            .fetch_all(&mut *transaction)
            .await?;
        tables.insert(name, Rows { columns, rows });
    }
    transaction.commit().await?;
    if let Some(missing) = MATCHED.iter().chain(&CHILDREN).find(|name| !tables.contains_key(**name)) {
        return Err(StoreError::Query(format!("the other database is damaged: it has no table {missing}")).into());
    }
    Ok(tables)
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

type Query<'a> = sqlx::query::Query<'a, Sqlite, SqliteArguments>;

fn bind<'a>(query: Query<'a>, value: &Value) -> Query<'a> {
    match value {
        Value::Null => query.bind(None::<i64>),
        Value::Integer(number) => query.bind(*number),
        Value::Real(number) => query.bind(*number),
        Value::Text(text) => query.bind(text.clone()),
        Value::Blob(bytes) => query.bind(bytes.clone()),
    }
}

/// Adds rows; returns how many were not there.
async fn insert(connection: &mut SqliteConnection, table: &str, rows: &Rows) -> Result<u64, Problem> {
    let width = rows.columns.len();
    let mut added = 0;
    let list: Vec<String> = rows.columns.iter().map(|column| quoted(column)).collect();
    for chunk in rows.rows.chunks((PARAMETERS / width.max(1)).max(1)) {
        let mut builder = QueryBuilder::<Sqlite>::new(format!("INSERT INTO {} ({}) ", quoted(table), list.join(", ")));
        builder.push_values(chunk, |mut values, row| {
            for value in row {
                match value {
                    Value::Null => values.push_bind(None::<i64>),
                    Value::Integer(number) => values.push_bind(*number),
                    Value::Real(number) => values.push_bind(*number),
                    Value::Text(text) => values.push_bind(text.clone()),
                    Value::Blob(bytes) => values.push_bind(bytes.clone()),
                };
            }
        });
        builder.push(" ON CONFLICT DO NOTHING");
        added += builder.build().execute(&mut *connection).await?.rows_affected();
    }
    Ok(added)
}

/// A run of this database as far as it decides about another one's.
#[derive(Clone, Debug)]
struct Here {
    run: i64,
    attempt: i64,
    status: String,
    live: bool,
    origin: Origin,
    epochs: i64,
}

/// When it was asked for, and by whom and when it was first taken up: the same for copies of one run only.
type Origin = (i64, Option<String>, Option<i64>);

/// How final a status is: done; failed, from which a run may be taken up again; all others.
fn finality(status: &str) -> u8 {
    match status {
        "done" => 2,
        "failed" => 1,
        _ => 0,
    }
}

/// Whether a run with this status is over. One that was pruned may be taken to its end yet.
fn finished(status: &str) -> bool {
    finality(status) > 0
}

struct Merge<'a> {
    tables: &'a BTreeMap<String, Rows>,
    merged: Merged,
    /// Number there to number here.
    experiments: HashMap<i64, i64>,
}

impl Merge<'_> {
    /// Experiments, trials, and which experiment has which trial.
    async fn plans(&mut self, connection: &mut SqliteConnection) -> Result<(), Problem> {
        let experiments = &self.tables["experiments"];
        let numberless = experiments.without("experiment_id");
        let mut next: HashMap<i64, i64> = HashMap::new();
        for (row, fields) in experiments.rows.iter().zip(&numberless.rows) {
            let name = experiments.text(row, "name");
            let find = "SELECT experiment_id, config_toml FROM experiments WHERE name = ?1";
            let known: Option<(i64, String)> =
                sqlx::query_as(find).bind(&name).fetch_optional(&mut *connection).await?;
            if known.is_none() {
                let one = Rows { columns: numberless.columns.clone(), rows: vec![fields.clone()] };
                insert(connection, "experiments", &one).await?;
            }
            let (here, _): (i64, String) = sqlx::query_as(find).bind(&name).fetch_one(&mut *connection).await?;
            if known.is_some() {
                let sql = "SELECT coalesce(max(position) + 1, 0) FROM experiment_trials WHERE experiment_id = ?1";
                next.insert(here, sqlx::query_scalar(sql).bind(here).fetch_one(&mut *connection).await?);
            }
            if let Some(there) = experiments.number(row, "experiment_id") {
                self.experiments.insert(there, here);
            }
            let differs = known.as_ref().is_some_and(|(_, text)| *text != experiments.text(row, "config_toml"));
            self.merged.experiments.push(MergedExperiment { name, is_new: known.is_none(), differs, appended: 0 });
        }
        let trials = insert(connection, "trials", &self.tables["trials"]).await?;
        self.merged.trials = u32::try_from(trials)?;

        let planned = &self.tables["experiment_trials"];
        let mut appended: HashMap<i64, u32> = HashMap::new();
        for row in &planned.rows {
            let mut row = row.clone();
            let Some(here) = self.renumber(planned, &mut row) else { continue };
            // Behind the plan that is here; in the same place where the experiment is new.
            let place = next.get_mut(&here).filter(|_| planned.number(&row, "position").is_some());
            if let Some(place) = &place {
                planned.set(&mut row, "position", Value::Integer(**place));
            }
            let one = Rows { columns: planned.columns.clone(), rows: vec![row] };
            let added = insert(connection, "experiment_trials", &one).await?;
            if let (Some(place), 1..) = (place, added) {
                *place += 1;
                *appended.entry(here).or_default() += 1;
            }
        }
        for (row, merged) in experiments.rows.iter().zip(&mut self.merged.experiments) {
            let here = experiments.number(row, "experiment_id").and_then(|there| self.experiments.get(&there));
            merged.appended = here.and_then(|here| appended.get(here)).copied().unwrap_or(0);
        }
        let others = self.tables.iter().filter(|(name, rows)| {
            *name == "assignments"
                || (!MATCHED.contains(&name.as_str())
                    && rows.index("experiment_id").is_some()
                    && rows.index("run_id").is_none())
        });
        for (name, rows) in others {
            let mut renumbered = rows.clone();
            renumbered.rows = rows
                .rows
                .iter()
                .filter_map(|row| {
                    let mut row = row.clone();
                    self.renumber(rows, &mut row).map(|_| row)
                })
                .collect();
            insert(connection, name, &renumbered).await?;
        }
        Ok(())
    }

    /// Puts the experiment's number here into the row, and returns it.
    fn renumber(&self, rows: &Rows, row: &mut [Value]) -> Option<i64> {
        let here = *self.experiments.get(&rows.number(row, "experiment_id")?)?;
        rows.set(row, "experiment_id", Value::Integer(here));
        Some(here)
    }

    async fn runs(
        &mut self,
        connection: &mut SqliteConnection,
        relocate: &dyn Fn(RunId, &str) -> String,
    ) -> Result<(), Problem> {
        let runs = &self.tables["runs"];
        let children: BTreeMap<&String, HashMap<i64, Vec<&Vec<Value>>>> = self
            .tables
            .iter()
            .filter(|(name, rows)| !MATCHED.contains(&name.as_str()) && rows.index("run_id").is_some())
            .map(|(name, rows)| {
                let mut of_run: HashMap<i64, Vec<&Vec<Value>>> = HashMap::new();
                for row in &rows.rows {
                    if let Some(run) = rows.number(row, "run_id") {
                        of_run.entry(run).or_default().push(row);
                    }
                }
                (name, of_run)
            })
            .collect();
        let mut pending: BTreeMap<&String, Vec<Vec<Value>>> = BTreeMap::new();
        for row in &runs.rows {
            let Some(there) = runs.number(row, "run_id") else { continue };
            let of_there =
                |table: &str| children.iter().find(|(name, _)| **name == table).and_then(|(_, of)| of.get(&there));
            let claims = &self.tables["claims"];
            let first = of_there("claims").and_then(|rows| rows.first());
            let origin: Origin = (
                runs.number(row, "queued_ms").unwrap_or(0),
                first.map(|claim| claims.text(claim, "worker")),
                first.and_then(|claim| claims.number(claim, "claimed_ms")),
            );
            let status = runs.text(row, "status");
            let epochs = of_there("epochs").map_or(0, |rows| rows.len() as i64);
            let identity = runs.text(row, "identity");
            let attempt = runs.number(row, "attempt").unwrap_or(1);
            let here = runs_here(connection, &identity).await?;
            let is_live =
                status == "running" && runs.number(row, "lease_until_ms").is_some_and(|until| until > now_ms());

            let same = here.iter().find(|run| run.origin == origin);
            let taken = here.iter().find(|run| run.attempt == attempt);
            let ahead = |run: &Here| match finality(&status).cmp(&finality(&run.status)) {
                Ordering::Greater => true,
                Ordering::Equal => !finished(&status) && epochs > run.epochs,
                Ordering::Less => false,
            };
            let (fate, place, attempt) = match (same, taken) {
                _ if is_live => (Fate::Running, None, attempt),
                (Some(run), _) if run.live => (Fate::Running, None, attempt),
                (Some(run), _) if ahead(run) => (Fate::Further, Some(run.run), run.attempt),
                (Some(run), _) => (Fate::Known, Some(run.run), attempt),
                (None, None) => (Fate::New, None, attempt),
                (None, Some(run)) if run.live => (Fate::Running, None, attempt),
                (None, Some(run)) if !finished(&run.status) && finished(&status) => {
                    (Fate::Further, Some(run.run), run.attempt)
                }
                (None, Some(run)) if !finished(&status) => (Fate::Known, Some(run.run), attempt),
                (None, Some(_)) => {
                    let outcome = self.outcome_there(there, &children);
                    let mut equal = None;
                    for run in here.iter().filter(|run| run.status == status) {
                        if outcome_here(connection, run.run, self.tables).await? == outcome {
                            equal = Some(run.run);
                            break;
                        }
                    }
                    match equal {
                        Some(run) => (Fate::Known, Some(run), attempt),
                        None => (Fate::New, None, here.iter().map(|run| run.attempt).max().unwrap_or(0) + 1),
                    }
                }
            };
            let mut number = place;
            if matches!(fate, Fate::New | Fate::Further) {
                let mut row = row.clone();
                runs.set(&mut row, "attempt", Value::Integer(attempt));
                if self.renumber(runs, &mut row).is_none() {
                    runs.set(&mut row, "experiment_id", Value::Null);
                }
                runs.set(&mut row, "lease_until_ms", Value::Null);
                if status == "running" {
                    runs.set(&mut row, "status", "interrupted".into());
                }
                let id = put_run(connection, runs, &row, place).await?;
                let path = runs.text(&row, "checkpoint");
                if !path.is_empty() {
                    sqlx::query("UPDATE runs SET checkpoint = ?2 WHERE run_id = ?1")
                        .bind(id)
                        .bind(relocate(RunId(id), &path))
                        .execute(&mut *connection)
                        .await?;
                }
                number = Some(id);
            }
            if let (Some(id), true) = (number, fate != Fate::Running) {
                for (name, of_run) in &children {
                    let wanted = fate != Fate::Known || MARKS.contains(&name.as_str());
                    for row in of_run.get(&there).filter(|_| wanted).into_iter().flatten() {
                        let mut row = (*row).clone();
                        self.tables[*name].set(&mut row, "run_id", Value::Integer(id));
                        pending.entry(name).or_default().push(row);
                    }
                }
            }
            self.merged.runs.push(MergedRun { there: RunId(there), here: number.map(RunId), fate });
        }
        for (name, rows) in pending {
            let rows = Rows { columns: self.tables[name].columns.clone(), rows };
            insert(connection, name, &rows).await?;
        }
        Ok(())
    }

    /// What a run came to, but for times: text that is equal where that is.
    fn outcome_there(&self, run: i64, children: &BTreeMap<&String, HashMap<i64, Vec<&Vec<Value>>>>) -> String {
        let mut text = String::new();
        for table in ["epochs", "evaluations"] {
            let rows = &self.tables[table];
            let of_run = children.iter().find(|(name, _)| name.as_str() == table).and_then(|(_, of)| of.get(&run));
            for row in of_run.into_iter().flatten() {
                for (column, value) in rows.columns.iter().zip(row.iter()) {
                    if !TIMES.contains(&column.as_str()) {
                        text.push_str(&format!("{column}={value:?};"));
                    }
                }
            }
        }
        text
    }
}

async fn outcome_here(
    connection: &mut SqliteConnection,
    run: i64,
    tables: &BTreeMap<String, Rows>,
) -> Result<String, Problem> {
    let mut text = String::new();
    for table in ["epochs", "evaluations"] {
        let columns = &tables[table].columns;
        let list: Vec<String> = columns.iter().map(|column| quoted(column)).collect();
        let sql = format!("SELECT {} FROM {table} WHERE run_id = ?1 ORDER BY 1, 2", list.join(", "));
        let rows = sqlx::query(AssertSqlSafe(sql)).bind(run).fetch_all(&mut *connection).await?;
        for row in &rows {
            for (index, column) in columns.iter().enumerate() {
                if !TIMES.contains(&column.as_str()) {
                    text.push_str(&format!("{column}={:?};", value(row, index)?));
                }
            }
        }
    }
    Ok(text)
}

async fn runs_here(connection: &mut SqliteConnection, identity: &str) -> Result<Vec<Here>, Problem> {
    let rows = sqlx::query(
        "SELECT r.run_id, r.attempt, r.status, r.status = 'running' AND coalesce(r.lease_until_ms, 0) > ?2,
            r.queued_ms, c.worker, c.claimed_ms, (SELECT count(*) FROM epochs AS e WHERE e.run_id = r.run_id)
         FROM runs AS r LEFT JOIN claims AS c ON c.run_id = r.run_id
            AND c.claim = (SELECT min(f.claim) FROM claims AS f WHERE f.run_id = r.run_id)
         WHERE r.identity = ?1 ORDER BY r.attempt",
    )
    .bind(identity)
    .bind(now_ms())
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(Here {
                run: row.try_get(0)?,
                attempt: row.try_get(1)?,
                status: row.try_get(2)?,
                live: row.try_get(3)?,
                origin: (row.try_get(4)?, row.try_get(5)?, row.try_get(6)?),
                epochs: row.try_get(7)?,
            })
        })
        .collect()
}

/// Writes a run's row: a new one, or in the place of one that had got less far, whose epochs and claims go.
async fn put_run(
    connection: &mut SqliteConnection,
    runs: &Rows,
    row: &[Value],
    place: Option<i64>,
) -> Result<i64, Problem> {
    let fields: Vec<(&String, &Value)> =
        runs.columns.iter().zip(row).filter(|(column, _)| *column != "run_id").collect();
    let names: Vec<String> = fields.iter().map(|(column, _)| quoted(column)).collect();
    let marks: Vec<String> = (1..=fields.len()).map(|index| format!("?{index}")).collect();
    let sql = match place {
        Some(run) => {
            for table in CHILDREN {
                sqlx::query(AssertSqlSafe(format!("DELETE FROM {table} WHERE run_id = ?1")))
                    .bind(run)
                    .execute(&mut *connection)
                    .await?;
            }
            let set: Vec<String> = names.iter().zip(&marks).map(|(name, mark)| format!("{name} = {mark}")).collect();
            format!("UPDATE runs SET {} WHERE run_id = ?{} RETURNING run_id", set.join(", "), fields.len() + 1)
        }
        None => format!("INSERT INTO runs ({}) VALUES ({}) RETURNING run_id", names.join(", "), marks.join(", ")),
    };
    let mut query = sqlx::query(AssertSqlSafe(sql));
    for (_, value) in &fields {
        query = bind(query, value);
    }
    if let Some(run) = place {
        query = query.bind(run);
    }
    Ok(query.fetch_one(connection).await?.try_get(0)?)
}
