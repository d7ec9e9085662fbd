//! Data sets: sources, preparation, splits, augmentation, batches.
//!
//! [`prepare`] turns a source (the built-in glyphs, IDX files, CIFAR batches, image files) into packed 8-bit images in a
//! cache, memory-mapped and described by a [`Manifest`]. [`Prepared::splits`] says who trains, validates and tests,
//! [`epoch_order`] in which order, and a [`Loader`] writes batches: cropped, flipped, distorted, coloured, normalised.
//!
//! All randomness comes from [`rng::Counter`], keyed by (seed, purpose, epoch, sample): what a sample looks like in an epoch
//! depends on nothing else, neither on threads nor on batches nor on what ran before.

mod archive;
mod buffers;
mod cifar;
mod color;
mod container;
mod cursor;
mod decode;
mod elementary;
mod error;
mod exif;
mod fingerprint;
mod geometry;
pub mod glyphs;
mod idx;
mod imagenet;
mod images;
mod journal;
mod jpeg;
mod loader;
mod manifest;
mod pack;
mod pool;
mod prepare;
mod prepared;
mod preprocess;
mod resize;
mod resized_crop;
pub mod rng;
mod scans;
mod sheet;
mod source;
mod splits;
mod statistics;

pub use error::DatasetError;
pub use idx::Idx;
pub use loader::{Draw, Loader, Recipe, Scratch};
pub use manifest::{Broken, FORMAT_VERSION, Manifest};
pub use prepare::{Progress, Stage, find, prepare};
pub use prepared::Prepared;
pub use preprocess::Preprocessing;
pub use sheet::preview;
pub use source::Part;
pub use splits::{Splits, epoch_order};
pub use statistics::Principal;
