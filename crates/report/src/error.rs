//! What can go wrong between the database and the page.

use std::path::PathBuf;

/// Why a report or an export could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReportError {
    /// No experiment was named.
    #[error("no experiment named: give at least one, as in `pipeline report lenet5-mnist`")]
    NoExperiment,
    /// The database does not know an experiment.
    #[error("experiment `{name}` is not in the database; it knows {known}")]
    UnknownExperiment {
        /// As asked for.
        name: String,
        /// What there is, as text.
        known: String,
    },
    /// The database could not be read.
    #[error("cannot read results: {0}")]
    Store(#[from] store::StoreError),
    /// A file could not be written.
    #[error("cannot write {path}: {source}")]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A row does not fit the columns.
    #[error("row {row} has {found} values where there are {expected} columns")]
    Ragged {
        /// Index of the row, from 0.
        row: usize,
        /// Values found.
        found: usize,
        /// Columns.
        expected: usize,
    },
    /// A frame could not be made or written.
    #[error("cannot build the frame: {0}")]
    Frame(#[from] polars::error::PolarsError),
    /// A plot could not be drawn.
    #[error("cannot draw {plot}: {cause}")]
    Plot {
        /// Name of the plot.
        plot: String,
        /// The cause.
        cause: String,
    },
    /// The page's template failed.
    #[error("cannot fill in the page: {0}")]
    Page(#[from] minijinja::Error),
}
