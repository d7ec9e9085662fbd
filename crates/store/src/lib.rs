//! The results database: one SQLite file that holds every experiment, trial, run and epoch.
//!
//! The only crate that knows SQL or async. To the outside it is a blocking [`Store`], which several threads share and several
//! processes open at once on the same file:
//!
//! ```
//! # fn main() -> Result<(), store::StoreError> {
//! # let folder = tempfile::tempdir().unwrap();
//! # let path = folder.path().join("results.db");
//! let store = store::Store::open(&path)?;
//! let table = store.query("SELECT name, question FROM experiments", &[])?;
//! assert_eq!(table.columns[0].name, "name");
//! # Ok(())
//! # }
//! ```
//!
//! - **Writing**: [`Store::record_experiment`] writes a plan down; [`Store::claim_next`] or [`Store::claim`] takes up a trial
//!   under a lease; [`Store::record_epoch`], [`Store::record_evaluation`] and [`Store::finish`] keep what came of it. Results are
//!   never edited: [`Store::again`] adds a run.
//! - **Reading**: typed rows ([`Store::runs`], [`Store::epochs`], …) in one query each, and SQL for people ([`Store::query`],
//!   [`named`]), which cannot write.
//! - **Managing**: tags, notes and archives ([`Store::tag`], …), [`Store::delete`], and [`Store::merge`], which takes over the
//!   experiments of another database.
//! - **Durability**: the database is in WAL mode with `synchronous = NORMAL`. What a call has written survives the death of the
//!   process, `kill -9` included, from the moment that it returns. A power cut may lose the last moments, never the file's
//!   consistency.
//! - **Units**: the migrations' comments are the one place that states them; [`schema`] reads them from there.

mod distribution;
mod error;
mod experiment;
mod file;
mod identifier;
mod listing;
mod mark;
mod merge;
pub mod named;
mod optuna;
mod query;
mod queue;
mod read;
mod record;
mod remove;
mod schema;
mod search;
mod session;
mod statement;

pub use distribution::Distribution;
pub use error::StoreError;
pub use experiment::{ExperimentRow, NewExperiment, NewTrial};
pub use file::Store;
pub use identifier::{ExperimentId, RunId, RunStatus, Split};
pub use listing::{EXPERIMENT_COLUMNS, Listing, Order, RUN_COLUMNS, RunFiles};
pub use mark::Subject;
pub use merge::{Fate, Merged, MergedExperiment, MergedRun};
pub use optuna::Study;
pub use query::{Column, Table, Value};
pub use queue::{Claim, NewestRun, Provenance, TrialState};
pub use read::{Assignments, CurvePoint, EpochRecord, EvaluationRecord, ProvenanceRow, RunRow};
pub use record::{EpochRow, EvaluationRow, Outcome};
pub use remove::Deleted;
pub use schema::{ColumnDoc, TableDoc, schema};
pub use search::{FailureRow, Pruning, Standing, Suggestion, Validation};
pub use session::when_waiting;
