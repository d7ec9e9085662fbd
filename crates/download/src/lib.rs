//! Public data sets: where they are, their checksums, and how they are fetched.
//!
//! The only crate that opens a connection, and it does so in [`fetch`] alone. A file is written as `NAME.part`, goes on from
//! where it stopped after any interruption (HTTP Range, RFC 9110 section 14), is compared with the published SHA-256, and only
//! then gets its name. So what has the name of a public file is that file, whole.

mod catalogue;
mod checksum;
mod error;
mod fetch;
mod transfer;

pub use catalogue::{Contents, PublicFile, PublicSet, all, find};
pub use error::DownloadError;
pub use fetch::{Event, Fetched, Options, fetch};
