//! What every source of images looks like to the packer: a list of images and a stream of their contents.

use std::path::PathBuf;

use crate::{DatasetError, glyphs::Glyphs};

/// Which part of a data set an image belongs to, as its source says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// For training; the validation images are held back from it.
    Train,
    /// For the one test at the end.
    Test,
}

/// One image of a source. Its position in [`Survey::entries`] is its place in the prepared file.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub part: Part,
    pub label: u32,
    /// For messages: the file, or the file and the position in it.
    pub name: PathBuf,
}

/// Pixels as they come out of a source that stores them plainly: [C, H, W].
#[derive(Clone, Debug)]
pub(crate) struct Raw {
    pub channels: usize,
    pub height: usize,
    pub width: usize,
    pub pixels: Vec<u8>,
}

/// Contents of one image on its way to the packer.
#[derive(Debug)]
pub(crate) enum Payload {
    /// Pixels.
    Raw(Raw),
    /// An image file in memory.
    Encoded(Vec<u8>),
    /// An image file, to be read by the worker that decodes it.
    File(PathBuf),
    /// One of the built-in glyphs, to be drawn by the worker.
    Glyph(Glyphs, u32),
}

impl Payload {
    /// Bytes held in memory.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Raw(raw) => raw.pixels.len(),
            Self::Encoded(bytes) => bytes.len(),
            Self::File(_) | Self::Glyph(..) => 0,
        }
    }
}

/// What a source holds, known before any image is decoded. Training images come first.
#[derive(Debug)]
pub(crate) struct Survey {
    pub classes: Vec<String>,
    pub entries: Vec<Entry>,
    /// Channels of the images, where no setting decides.
    pub channels: usize,
    /// Whether the source itself says which images are for the test.
    pub has_test_part: bool,
    /// Files that are no images: (path, reason).
    pub broken: Vec<(PathBuf, String)>,
    /// Files that were passed over, such as a README.
    pub ignored_files: u64,
}

/// Receives (position in [`Survey::entries`], contents); refuses with `false` when the packer has given up.
pub(crate) type Sink<'a> = dyn FnMut(usize, Payload) -> bool + 'a;

/// A source whose images can be read once more, in any order, each at most once.
pub(crate) trait Feed: Send + Sync {
    /// Sends the contents of every entry to `sink`.
    fn run(&self, sink: &mut Sink<'_>) -> Result<(), DatasetError>;
}
