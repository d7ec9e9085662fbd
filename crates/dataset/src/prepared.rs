//! A prepared data set, opened: images straight from the memory map, labels in memory.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
};

use memmap2::Mmap;
use rayon::prelude::*;

use crate::{
    DatasetError, Manifest, Part,
    container::{HEADER_BYTES, Placement, header},
    manifest::FORMAT_VERSION,
    pack::{DATA, MANIFEST, fingerprint},
    pool,
};

/// A prepared data set. Cheap to clone; all clones share one memory map.
///
/// Images of both parts are numbered in one row: the training part from 0, the test part from
/// [`Manifest::train_images`] on.
#[derive(Clone, Debug)]
pub struct Prepared(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    folder: PathBuf,
    manifest: Manifest,
    labels: Vec<u32>,
    map: Mmap,
    /// Offset of the first image.
    images: usize,
    image_bytes: usize,
}

impl Prepared {
    /// Opens the prepared data set in `folder`. Reads the manifest, the header and the labels, no image.
    ///
    /// # Errors
    /// An entry that is not there, was written by another version, or is corrupt: sizes and header must be exactly those
    /// that the manifest implies, and the header carries the hashes of the manifest and of the labels. Pixels are looked at by
    /// [`Self::verify`] alone.
    pub fn open(folder: &Path) -> Result<Self, DatasetError> {
        let manifest_path = folder.join(MANIFEST);
        let json = std::fs::read(&manifest_path).map_err(|error| DatasetError::io("read", &manifest_path, error))?;
        let manifest: Manifest = serde_json::from_slice(&json)
            .map_err(|error| DatasetError::file(&manifest_path, format!("corrupt manifest: {error}")))?;
        if manifest.format_version != FORMAT_VERSION {
            return Err(DatasetError::file(
                &manifest_path,
                format!("format version {}, this program reads {FORMAT_VERSION}", manifest.format_version),
            ));
        }
        let data_path = folder.join(DATA);
        let mut file = File::open(&data_path).map_err(|error| DatasetError::io("read", &data_path, error))?;
        let length = file.metadata().map_err(|error| DatasetError::io("read", &data_path, error))?.len();
        let placement = Placement::of(&manifest);
        if length != placement.end {
            return Err(DatasetError::file(
                &data_path,
                format!("corrupt: {length} bytes, the manifest implies {}", placement.end),
            ));
        }
        let mut start = vec![0; HEADER_BYTES as usize];
        file.read_exact(&mut start).map_err(|error| DatasetError::io("read", &data_path, error))?;
        let map = map(&file).map_err(|error| DatasetError::io("map", &data_path, error))?;
        // Sizes beyond all reason may have come round to the file's length.
        let labels = map.get(placement.labels as usize..placement.images as usize);
        let labels = labels.filter(|labels| start == header(&manifest, &blake3::hash(&json).to_hex(), labels));
        let labels = labels.ok_or_else(|| {
            DatasetError::file(&data_path, "corrupt: the header does not fit the manifest and the labels")
        })?;
        let labels: Vec<u32> = labels
            .chunks_exact(8)
            .map(|bytes| u64::from_le_bytes(bytes.try_into().expect("chunks of eight")).min(u64::from(u32::MAX)) as u32)
            .collect();
        if let Some(label) = labels.iter().find(|&&label| label as usize >= manifest.classes.len()) {
            return Err(DatasetError::file(
                &data_path,
                format!("corrupt: label {label} of {} classes", manifest.classes.len()),
            ));
        }
        let (images, image_bytes) = (placement.images as usize, manifest.image_bytes());
        Ok(Self(Arc::new(Inner { folder: folder.to_path_buf(), manifest, labels, map, images, image_bytes })))
    }

    /// The folder of the two files `data.safetensors` and `manifest.json`.
    pub fn folder(&self) -> &Path {
        &self.0.folder
    }

    /// What it holds.
    pub fn manifest(&self) -> &Manifest {
        &self.0.manifest
    }

    /// Number of images of both parts.
    pub fn len(&self) -> usize {
        self.0.labels.len()
    }

    /// Whether there is no image at all (there always is one).
    pub fn is_empty(&self) -> bool {
        self.0.labels.is_empty()
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.0.manifest.classes.len()
    }

    /// Labels of one part, in the order of its images.
    pub fn labels(&self, part: Part) -> &[u32] {
        let (train, test) = self.0.labels.split_at(self.0.manifest.train_images);
        match part {
            Part::Train => train,
            Part::Test => test,
        }
    }

    /// Indices of one part's images.
    pub fn indices(&self, part: Part) -> std::ops::Range<u32> {
        let train = self.0.manifest.train_images as u32;
        match part {
            Part::Train => 0..train,
            Part::Test => train..self.len() as u32,
        }
    }

    /// Label of image `index`.
    ///
    /// # Panics
    /// If `index` is not below [`Self::len`].
    pub fn label(&self, index: u32) -> u32 {
        self.0.labels[index as usize]
    }

    /// Pixels of image `index`: [C, H, W].
    ///
    /// # Panics
    /// If `index` is not below [`Self::len`].
    pub fn image(&self, index: u32) -> &[u8] {
        let start = self.0.images + index as usize * self.0.image_bytes;
        &self.0.map[start..start + self.0.image_bytes]
    }

    /// Pixels of all images, as they are packed: [N, C, H, W].
    pub fn pixels(&self) -> &[u8] {
        &self.0.map[self.0.images..self.0.images + self.len() * self.0.image_bytes]
    }

    /// Reads every byte and compares it with the fingerprint.
    ///
    /// # Errors
    /// If a bit has changed since the data set was prepared.
    pub fn verify(&self) -> Result<(), DatasetError> {
        pool::start()?;
        let manifest = &self.0.manifest;
        let shape = [manifest.train_images, manifest.test_images, manifest.channels, manifest.height, manifest.width];
        let labels = &self.0.map[HEADER_BYTES as usize..self.0.images];
        let hashes: Vec<_> =
            (0..self.len() as u32).into_par_iter().map(|index| *blake3::hash(self.image(index)).as_bytes()).collect();
        let found = fingerprint(&manifest.classes, shape, labels, hashes.into_iter());
        if found == manifest.fingerprint {
            return Ok(());
        }
        Err(DatasetError::file(
            &self.0.folder.join(DATA),
            "corrupt: the images do not have the manifest's fingerprint; delete the folder to prepare anew",
        ))
    }
}

#[expect(unsafe_code, reason = "a memory map is the only way to train from files larger than memory")]
fn map(file: &File) -> std::io::Result<Mmap> {
    // SAFETY: entries of the cache are written under another name, renamed when complete and never changed afterwards; a
    // corrupt one is replaced by renaming, which leaves this mapping intact. Bytes are valid whatever their value. What is
    // left is a stranger who truncates the file in place, as with every map.
    unsafe { Mmap::map(file) }
}
