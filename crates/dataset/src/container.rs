//! The packed file: safetensors, so that `safetensors.torch.load_file` and its like open it.
//!
//! Tensors: `train_labels` [N] and `test_labels` [M] (I64), `train_images` [N, C, H, W] and `test_images` [M, C, H, W] (U8).
//! The header is padded with spaces to [`HEADER_BYTES`], so that the labels are aligned and the header can be written last.
//! It is a function of the manifest and the labels, whose hashes it carries: a header that differs from the expected one means a
//! corrupt entry.

use std::fmt::Write as _;

use crate::Manifest;

/// Bytes before the first tensor, the eight of the length field included.
pub(crate) const HEADER_BYTES: u64 = 4096;

/// Where the pieces of a packed file lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Placement {
    /// Offset of the labels (training, then test), 8 bytes each.
    pub labels: u64,
    /// Offset of the images (training, then test).
    pub images: u64,
    /// Length of the file.
    pub end: u64,
}

impl Placement {
    pub fn new(images: usize, image_bytes: usize) -> Self {
        let labels = HEADER_BYTES;
        let first = labels + 8 * images as u64;
        Self { labels, images: first, end: first + images as u64 * image_bytes as u64 }
    }

    pub fn of(manifest: &Manifest) -> Self {
        Self::new(manifest.images(), manifest.image_bytes())
    }
}

/// The first [`HEADER_BYTES`] of the packed file that belongs to `manifest` and holds these `labels`, 8 bytes each.
pub(crate) fn header(manifest: &Manifest, manifest_hash: &str, labels: &[u8]) -> Vec<u8> {
    let (train, test) = (manifest.train_images as u64, manifest.test_images as u64);
    let shape = format!("{},{},{}", manifest.channels, manifest.height, manifest.width);
    let image_bytes = manifest.image_bytes() as u64;
    let mut json = format!(
        r#"{{"__metadata__":{{"format":"pipeline dataset {}","fingerprint":"{}","manifest_blake3":"{manifest_hash}","labels_blake3":"{}"}}"#,
        manifest.format_version,
        manifest.fingerprint,
        blake3::hash(labels).to_hex()
    );
    let mut offset = 0;
    let tensors = [
        ("train_labels", "I64", format!("[{train}]"), 8 * train),
        ("test_labels", "I64", format!("[{test}]"), 8 * test),
        ("train_images", "U8", format!("[{train},{shape}]"), train * image_bytes),
        ("test_images", "U8", format!("[{test},{shape}]"), test * image_bytes),
    ];
    for (name, kind, shape, bytes) in tensors {
        write!(json, r#","{name}":{{"dtype":"{kind}","shape":{shape},"data_offsets":[{offset},{}]}}"#, offset + bytes)
            .expect("writing to a string cannot fail");
        offset += bytes;
    }
    json.push('}');
    let mut header = (HEADER_BYTES - 8).to_le_bytes().to_vec();
    header.extend(json.bytes());
    // The longest possible header is far shorter: fixed names, four numbers, three hashes.
    header.resize(HEADER_BYTES as usize, b' ');
    header
}
