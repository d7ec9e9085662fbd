//! What can go wrong, said once and clearly.

use std::{
    io,
    path::{Path, PathBuf},
};

/// Why a data set cannot be prepared, opened or fed to a network.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DatasetError {
    /// A file of the source is not what it should be.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file; inside an archive, the archive's path and the entry's joined by a slash.
        path: PathBuf,
        /// What is wrong and what would be right.
        reason: String,
    },
    /// The operating system refused a read or a write.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried: `read`, `write`, `create`…
        action: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// There is no room for the prepared images. What is prepared is kept and gone on from.
    #[error(
        "no room to write {}: {source}; what is prepared is kept, and goes on when there is room or in another cache",
        path.display()
    )]
    NoRoom {
        /// The file that could not grow.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The operating system starts no more threads.
    #[error(
        "cannot start the threads that prepare images: {reason}; memory or processes are limited too tightly (ulimit -d, -v, -u)"
    )]
    Threads {
        /// What the operating system said.
        reason: String,
    },
    /// A setting does not fit the data, or the other settings.
    #[error("{key}: {reason}")]
    Setting {
        /// Key path in the experiment file, such as `augment.crop`.
        key: &'static str,
        /// What is wrong and what would be right.
        reason: String,
    },
}

impl DatasetError {
    pub(crate) fn file(path: &Path, reason: impl Into<String>) -> Self {
        Self::File { path: path.to_path_buf(), reason: reason.into() }
    }

    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { action, path: path.to_path_buf(), source }
    }

    /// A prepared file that could not be written.
    pub(crate) fn unwritten(path: &Path, source: io::Error) -> Self {
        use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        match source.kind() {
            StorageFull | QuotaExceeded | FileTooLarge => Self::NoRoom { path: path.to_path_buf(), source },
            _ => Self::io("write", path, source),
        }
    }

    pub(crate) fn setting(key: &'static str, reason: impl Into<String>) -> Self {
        Self::Setting { key, reason: reason.into() }
    }
}
