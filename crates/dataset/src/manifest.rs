//! The description that lies beside the packed images.

use serde::{Deserialize, Serialize};

use crate::statistics::Principal;

/// Version of the prepared format; part of the cache key, so that a newer program prepares anew.
pub const FORMAT_VERSION: u32 = 2;

/// What a prepared data set holds: `manifest.json` beside `data.safetensors`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`FORMAT_VERSION`] of the program that wrote it.
    pub format_version: u32,
    /// 64 hex digits of BLAKE3 over classes, shape, labels and pixels: equal images have equal fingerprints, wherever they
    /// came from.
    pub fingerprint: String,
    /// Kind of the source.
    pub source: plan::Source,
    /// 64 hex digits of BLAKE3 over the contents of the source's files; empty for glyphs.
    pub source_fingerprint: String,
    /// Names of the classes; the position is the label.
    pub classes: Vec<String>,
    /// Channels of an image: 1, or 3 for red, green, blue.
    pub channels: usize,
    /// Rows of an image, in pixels.
    pub height: usize,
    /// Columns of an image, in pixels.
    pub width: usize,
    /// Images of the training part; the validation images are among them.
    pub train_images: usize,
    /// Images of the test part.
    pub test_images: usize,
    /// Mean of the training part per channel, in [0, 1].
    pub mean: Vec<f64>,
    /// Standard deviation of the training part per channel, in units of the full range.
    pub std: Vec<f64>,
    /// Principal components of the training part's colours, of colour images.
    pub principal: Option<Principal>,
    /// Files that could not be read and were left out.
    pub broken: Vec<Broken>,
    /// Files of the source that are no images and were passed over.
    pub ignored_files: u64,
}

/// A file that could not be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Broken {
    /// The file's path within the source.
    pub path: String,
    /// Why it could not be read.
    pub reason: String,
}

impl Manifest {
    /// Bytes of one image.
    pub fn image_bytes(&self) -> usize {
        self.channels * self.height * self.width
    }

    /// Images of both parts.
    pub fn images(&self) -> usize {
        self.train_images + self.test_images
    }
}
