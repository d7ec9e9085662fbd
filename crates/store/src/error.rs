//! What can go wrong, in words for the person at the terminal.

use std::error::Error;
use std::path::PathBuf;

use crate::{RunId, RunStatus};

/// Why the database did not do as it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// There is nothing to read.
    #[error("{}: no such database; `pipeline sweep FILE` or `pipeline train FILE` makes one, `--db FILE` or PIPELINE_DB names another", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The folder that the database was to be made in is not there.
    #[error("{}: cannot make a database here: {} is not a folder", path.display(), folder.display())]
    NoFolder {
        /// The file.
        path: PathBuf,
        /// The folder.
        folder: PathBuf,
    },
    /// The file is something else, or damaged. It was not altered.
    #[error("{}: not a SQLite database ({reason}); it was left as it is: name another file with `--db FILE`", path.display())]
    NotADatabase {
        /// The file.
        path: PathBuf,
        /// What SQLite says of it.
        reason: String,
    },
    /// A SQLite database of another program. It was not altered.
    #[error("{}: a SQLite database, but not one of pipeline's; it was left as it is: name another file with `--db FILE`", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// Written by a newer version of this program. It was not altered.
    #[error("{}: made by a newer version of pipeline (migration {version} is not known to this one); use that version, or name another file with `--db FILE`", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// First migration that is not known here.
        version: i64,
    },
    /// Written by another line of this program's history. It was not altered.
    #[error("{}: made by another build of pipeline (its migration {version} differs from the one known here, or was left half done); use that build, or name another file with `--db FILE`", path.display())]
    Different {
        /// The file.
        path: PathBuf,
        /// First migration that differs.
        version: i64,
    },
    /// To be read, the database would first have to be brought up to date.
    #[error("{}: made by an older version of pipeline; any command that writes to it, such as `pipeline sweep`, brings it up to date", path.display())]
    Older {
        /// The file.
        path: PathBuf,
    },
    /// The store was opened for reading.
    #[error("{}: opened for reading only", path.display())]
    ReadOnly {
        /// The file.
        path: PathBuf,
    },
    /// No run of this number.
    #[error("no run {run} in this database")]
    UnknownRun {
        /// The number.
        run: RunId,
    },
    /// No experiment of this number.
    #[error("no experiment {experiment} in this database")]
    UnknownExperiment {
        /// The number.
        experiment: crate::ExperimentId,
    },
    /// A worker has the run: nothing was deleted.
    #[error("run {run} is running (worker {worker}); stop it first, or wait: nothing was deleted")]
    StillRunning {
        /// The run.
        run: RunId,
        /// Who has it.
        worker: String,
    },
    /// No such trial in the experiment.
    #[error("no trial {identity} in experiment {experiment}")]
    UnknownTrial {
        /// Number of the experiment.
        experiment: crate::ExperimentId,
        /// The trial.
        identity: String,
    },
    /// The worker was late and another one has taken up its run: nothing was written.
    #[error(
        "run {run} now belongs to worker {holder}: {worker} was silent for longer than its lease; nothing was written"
    )]
    LeaseLost {
        /// The run.
        run: RunId,
        /// Who wanted to write.
        worker: String,
        /// Who has it.
        holder: String,
    },
    /// The run is over or was never started: nothing was written.
    #[error("run {run} is {status}, not running; nothing was written")]
    NotRunning {
        /// The run.
        run: RunId,
        /// Where it stands.
        status: RunStatus,
    },
    /// Results are never edited.
    #[error("run {run} already has epoch {epoch}: a run that goes on from a checkpoint is rewound to it first")]
    EpochExists {
        /// The run.
        run: RunId,
        /// The epoch, from 1.
        epoch: u32,
    },
    /// The plan cannot be written down as it is.
    #[error("experiment {experiment}: {problem}")]
    InvalidPlan {
        /// Name of the experiment.
        experiment: String,
        /// What is wrong, and with which trial.
        problem: String,
    },
    /// A number does not fit into the database.
    #[error("{what} {value} is too large: the largest that can be kept is {}", i64::MAX)]
    TooLarge {
        /// Which number.
        what: &'static str,
        /// Its value.
        value: u64,
    },
    /// A question that cannot be answered as it was put.
    #[error("{0}")]
    Query(String),
    /// It is locked, or cannot be written, or its file system is full.
    #[error("{}: {reason}", path.display())]
    Unavailable {
        /// The file.
        path: PathBuf,
        /// What is in the way, and what can be done.
        reason: &'static str,
    },
    /// Everything else that SQLite or the file system says.
    #[error("{}: {source}", path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// What it says.
        source: Box<dyn Error + Send + Sync>,
    },
}
