//! What can be wrong with an experiment.

use std::fmt;
use std::path::PathBuf;

/// Where a key was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// In the experiment file.
    File {
        /// The file as it was named.
        path: PathBuf,
        /// Line, from 1; none where a key is missing.
        line: Option<u32>,
    },
    /// In a `key=value` of the command line.
    CommandLine,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line: Some(line) } => write!(f, "{}:{line}", path.display()),
            Self::File { path, line: None } => write!(f, "{}", path.display()),
            Self::CommandLine => f.write_str("command line"),
        }
    }
}

/// Why an experiment is refused. Always a fault of the file or of the command line; nothing has been written when it is returned.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The file cannot be read.
    #[error("{}: cannot read the experiment file: {source}", path.display())]
    Read {
        /// The file as it was named.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// Not TOML, or not `key=value`.
    #[error("{location}: {message}")]
    Syntax {
        /// Where.
        location: Location,
        /// What was expected.
        message: String,
    },
    /// A key is unknown, of the wrong type, out of range, or does not go with the others.
    #[error("{location}: {key}: {message}")]
    Key {
        /// Where the key was written.
        location: Location,
        /// Its key path, such as `train.weight_decay` or `sweep.grid."train.weight_decay"[2]`.
        key: String,
        /// What would be right, and what was given.
        message: String,
    },
}
