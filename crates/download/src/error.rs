//! What can go wrong, said once and clearly.

use std::{
    io,
    path::{Path, PathBuf},
};

/// Why a public data set could not be fetched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DownloadError {
    /// A file of that name is there already and is another one. It is never overwritten.
    #[error(
        "{}: is there already, but is not {title}'s file ({why}); move it away and the same command fetches the right one",
        path.display()
    )]
    OtherFile {
        /// The file on the disk.
        path: PathBuf,
        /// The set's title.
        title: String,
        /// Checksums or sizes.
        why: String,
    },
    /// The mirror's file is not the published one. It has been thrown away.
    #[error("{url}: not {title}'s file ({why}); nothing was kept of it")]
    WrongContents {
        /// What was fetched.
        url: String,
        /// The set's title.
        title: String,
        /// Checksums or sizes.
        why: String,
    },
    /// The server refused for good.
    #[error("{url}: the server answered {status}")]
    Refused {
        /// What was asked for.
        url: String,
        /// Status code and its meaning: `404 Not Found`.
        status: String,
    },
    /// The file did not come, or not whole, however often it was asked for. What has come is kept.
    #[error("{url}: gave up after {attempts} attempts: {reason}{}", kept(*.kept_bytes))]
    GaveUp {
        /// What was asked for.
        url: String,
        /// How often, without a new byte.
        attempts: u32,
        /// What was wrong the last time.
        reason: String,
        /// Bytes that are kept for the next time.
        kept_bytes: u64,
    },
    /// Not an address that this program can fetch from.
    #[error("{url}: not an address to fetch from; it must begin with http:// or https://")]
    Address {
        /// What was given.
        url: String,
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
}

fn kept(bytes: u64) -> String {
    match bytes {
        0 => String::new(),
        _ => format!("; the {bytes} bytes that have come are kept, and the same command goes on from there"),
    }
}

impl DownloadError {
    /// Whether the mirror is at fault, so that another one may help.
    pub fn blames_the_mirror(&self) -> bool {
        matches!(self, Self::WrongContents { .. } | Self::Refused { .. } | Self::GaveUp { .. })
    }

    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { action, path: path.to_path_buf(), source }
    }
}
