//! What people add to results: tags, notes, and what they have put away. Results themselves are never edited.

use sqlx::{AssertSqlSafe, Connection, SqliteConnection};

use crate::experiment::now_ms;
use crate::session::Problem;
use crate::{ExperimentId, RunId, Store, StoreError};

/// What can be marked or deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// An experiment with its plan.
    Experiment(ExperimentId),
    /// A run.
    Run(RunId),
}

impl Subject {
    /// Tables of its tags, its note and its being put away, and the column that holds its number there.
    fn tables(self) -> [&'static str; 4] {
        match self {
            Self::Experiment(_) => ["experiment_tags", "experiment_notes", "archived_experiments", "experiment_id"],
            Self::Run(_) => ["run_tags", "run_notes", "archived_runs", "run_id"],
        }
    }

    fn id(self) -> i64 {
        match self {
            Self::Experiment(id) => id.0,
            Self::Run(id) => id.0,
        }
    }

    /// An error where there is no such row.
    pub(crate) async fn check(self, connection: &mut SqliteConnection) -> Result<(), Problem> {
        let sql = match self {
            Self::Experiment(_) => "SELECT EXISTS (SELECT 1 FROM experiments WHERE experiment_id = ?1)",
            Self::Run(_) => "SELECT EXISTS (SELECT 1 FROM runs WHERE run_id = ?1)",
        };
        let there: bool = sqlx::query_scalar(sql).bind(self.id()).fetch_one(connection).await?;
        match self {
            _ if there => Ok(()),
            Self::Run(run) => Err(StoreError::UnknownRun { run }.into()),
            Self::Experiment(experiment) => Err(StoreError::UnknownExperiment { experiment }.into()),
        }
    }
}

impl Store {
    /// Adds tags, and returns how many were not there yet.
    ///
    /// # Errors
    /// An empty tag, or a subject that is not there; then nothing is written.
    pub fn tag(&self, subject: Subject, tags: &[&str]) -> Result<u32, StoreError> {
        let [table, _, _, column] = subject.tables();
        self.change_tags(
            subject,
            tags,
            &format!("INSERT INTO {table} ({column}, tag, tagged_ms) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING"),
        )
    }

    /// Removes tags, and returns how many were there.
    ///
    /// # Errors
    /// A subject that is not there.
    pub fn untag(&self, subject: Subject, tags: &[&str]) -> Result<u32, StoreError> {
        let [table, _, _, column] = subject.tables();
        self.change_tags(
            subject,
            tags,
            &format!("DELETE FROM {table} WHERE {column} = ?1 AND tag = ?2 AND ?3 IS NOT NULL"),
        )
    }

    fn change_tags(&self, subject: Subject, tags: &[&str], sql: &str) -> Result<u32, StoreError> {
        if tags.iter().any(|tag| tag.trim().is_empty()) {
            return Err(StoreError::Query("a tag is a word: this one is empty".to_owned()));
        }
        self.write(async |connection| {
            let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
            subject.check(&mut transaction).await?;
            let mut changed = 0;
            for tag in tags {
                let result = sqlx::query(AssertSqlSafe(sql.to_owned()))
                    .bind(subject.id())
                    .bind(*tag)
                    .bind(now_ms())
                    .execute(&mut *transaction)
                    .await?;
                changed += u32::try_from(result.rows_affected())?;
            }
            transaction.commit().await?;
            Ok(changed)
        })
    }

    /// Replaces the note. An empty one removes it.
    ///
    /// # Errors
    /// A subject that is not there.
    pub fn set_note(&self, subject: Subject, note: &str) -> Result<(), StoreError> {
        let [_, table, _, column] = subject.tables();
        self.write(async |connection| {
            let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
            subject.check(&mut transaction).await?;
            sqlx::query(AssertSqlSafe(format!("DELETE FROM {table} WHERE {column} = ?1")))
                .bind(subject.id())
                .execute(&mut *transaction)
                .await?;
            if !note.is_empty() {
                sqlx::query(AssertSqlSafe(format!(
                    "INSERT INTO {table} ({column}, note, noted_ms) VALUES (?1, ?2, ?3)"
                )))
                .bind(subject.id())
                .bind(note)
                .bind(now_ms())
                .execute(&mut *transaction)
                .await?;
            }
            transaction.commit().await?;
            Ok(())
        })
    }

    /// The note, if there is one.
    pub fn note(&self, subject: Subject) -> Result<Option<String>, StoreError> {
        let [_, table, _, column] = subject.tables();
        self.read(async |connection| {
            subject.check(connection).await?;
            Ok(sqlx::query_scalar(AssertSqlSafe(format!("SELECT note FROM {table} WHERE {column} = ?1")))
                .bind(subject.id())
                .fetch_optional(connection)
                .await?)
        })
    }

    /// Puts the subject away, or takes it out again; says whether that changed anything. Reports count it as before.
    ///
    /// # Errors
    /// A subject that is not there.
    pub fn archive(&self, subject: Subject, away: bool) -> Result<bool, StoreError> {
        let [_, _, table, column] = subject.tables();
        let sql = if away {
            format!("INSERT INTO {table} ({column}, archived_ms) VALUES (?1, ?2) ON CONFLICT DO NOTHING")
        } else {
            format!("DELETE FROM {table} WHERE {column} = ?1 AND ?2 IS NOT NULL")
        };
        self.write(async |connection| {
            let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
            subject.check(&mut transaction).await?;
            let result = sqlx::query(AssertSqlSafe(sql.clone()))
                .bind(subject.id())
                .bind(now_ms())
                .execute(&mut *transaction)
                .await?;
            transaction.commit().await?;
            Ok(result.rows_affected() > 0)
        })
    }
}
