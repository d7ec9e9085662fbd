//! IDX files, as MNIST and Fashion-MNIST are distributed: plain or gzipped.
//!
//! Format: two zero bytes, the type of the elements (8: unsigned bytes), the number of dimensions, each dimension as a
//! big-endian 32-bit integer, then the elements (LeCun, Cortes & Burges, "The MNIST database").

use std::{
    cmp::Ordering,
    fs::File,
    io::{BufReader, Read},
    path::{Path, PathBuf},
};

use flate2::read::MultiGzDecoder;

use crate::{
    DatasetError, Part,
    source::{Entry, Feed, Payload, Raw, Sink, Survey},
};

/// Largest decompressed IDX file: 16 GiB, so that a corrupt header cannot ask for all memory.
const MAX_BYTES: usize = 16 << 30;

/// An IDX file of unsigned bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idx {
    /// Sizes, the slowest first: `[N]` for labels, `[N, H, W]` for images.
    pub dimensions: Vec<usize>,
    /// Elements in row-major order.
    pub data: Vec<u8>,
}

impl Idx {
    /// Reads the file at `path`, gzipped where its name ends in `.gz` or its first bytes say so, and expects
    /// `dimensions` dimensions.
    ///
    /// # Errors
    /// A file that cannot be read, is no IDX file of unsigned bytes, has other dimensions, is truncated or too long, or
    /// whose compression is corrupt.
    pub fn read(path: &Path, dimensions: usize) -> Result<Self, DatasetError> {
        let mut opened = Opened::new(path, dimensions)?;
        let mut data = Vec::new();
        opened.read(opened.bytes, &mut data)?;
        opened.finish()?;
        Ok(Self { dimensions: opened.dimensions, data })
    }
}

/// An IDX file whose header is read and whose elements are read piece by piece.
struct Opened {
    path: PathBuf,
    reader: Box<dyn Read>,
    zipped: bool,
    dimensions: Vec<usize>,
    /// Elements in all, and read so far; one byte each.
    bytes: usize,
    done: usize,
}

impl Opened {
    fn new(path: &Path, dimensions: usize) -> Result<Self, DatasetError> {
        let file = File::open(path).map_err(|error| DatasetError::io("read", path, error))?;
        let length = file.metadata().map_err(|error| DatasetError::io("read", path, error))?.len();
        let mut start = BufReader::with_capacity(1 << 16, file);
        let zipped = path.extension().is_some_and(|extension| extension == "gz")
            || std::io::BufRead::fill_buf(&mut start).is_ok_and(|bytes| bytes.starts_with(&[0x1f, 0x8b]));
        let reader: Box<dyn Read> = if zipped { Box::new(MultiGzDecoder::new(start)) } else { Box::new(start) };
        let mut opened = Self { path: path.to_path_buf(), reader, zipped, dimensions: Vec::new(), bytes: 0, done: 0 };
        opened.read_header(dimensions)?;
        // What can be known at once is said before the work of hours.
        let data = length.saturating_sub(4 + 4 * dimensions as u64);
        match data.cmp(&(opened.bytes as u64)) {
            Ordering::Less if !zipped => Err(opened.truncated(data)),
            Ordering::Greater if !zipped => Err(opened.too_long()),
            _ => Ok(opened),
        }
    }

    fn failed(&self, error: std::io::Error) -> DatasetError {
        if self.zipped {
            DatasetError::file(&self.path, format!("corrupt gzip: {error}"))
        } else {
            DatasetError::io("read", &self.path, error)
        }
    }

    fn truncated(&self, bytes: u64) -> DatasetError {
        let Self { path, bytes: expected, dimensions, .. } = self;
        DatasetError::file(path, format!("truncated: {bytes} of {expected} bytes for dimensions {dimensions:?}"))
    }

    fn too_long(&self) -> DatasetError {
        let Self { path, bytes, dimensions, .. } = self;
        DatasetError::file(path, format!("too long: more than the {bytes} bytes of its dimensions {dimensions:?}"))
    }

    fn read_header(&mut self, dimensions: usize) -> Result<(), DatasetError> {
        let mut header = Vec::new();
        let read = self.reader.by_ref().take(4 + 4 * dimensions as u64).read_to_end(&mut header);
        read.map_err(|error| self.failed(error))?;
        let path = &self.path;
        let magic = [0, 0, 8, dimensions as u8];
        if header.len() < 4 {
            return Err(DatasetError::file(
                path,
                format!("truncated: {} bytes, too few for an IDX header", header.len()),
            ));
        }
        if header[..4] != magic {
            let found: Vec<String> = header[..4].iter().map(|byte| format!("{byte:02x}")).collect();
            return Err(DatasetError::file(
                path,
                format!(
                    "not an IDX file of unsigned bytes in {dimensions} dimension{}: it starts with {}, not 00 00 08 {dimensions:02x}",
                    if dimensions == 1 { "" } else { "s" },
                    found.join(" ")
                ),
            ));
        }
        if header.len() < 4 + 4 * dimensions {
            return Err(DatasetError::file(path, "truncated in the IDX header"));
        }
        let sizes: Vec<usize> =
            header[4..].chunks_exact(4).map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]) as usize).collect();
        self.bytes = sizes
            .iter()
            .try_fold(1usize, |product, &size| product.checked_mul(size))
            .filter(|&bytes| bytes <= MAX_BYTES)
            .ok_or_else(|| {
                DatasetError::file(path, format!("corrupt IDX header: dimensions {sizes:?} are beyond all reason"))
            })?;
        self.dimensions = sizes;
        Ok(())
    }

    /// Appends the next `bytes` elements to `data`.
    fn read(&mut self, bytes: usize, data: &mut Vec<u8>) -> Result<(), DatasetError> {
        let before = data.len();
        let read = self.reader.by_ref().take(bytes as u64).read_to_end(data);
        self.done += data.len() - before;
        read.map_err(|error| self.failed(error))?;
        if data.len() - before < bytes { Err(self.truncated(self.done as u64)) } else { Ok(()) }
    }

    /// Says whether there is more than was announced, and whether the compression is sound to its end.
    fn finish(&mut self) -> Result<(), DatasetError> {
        match self.reader.read(&mut [0]) {
            Ok(0) => Ok(()),
            Ok(_) => Err(self.too_long()),
            Err(error) => Err(self.failed(error)),
        }
    }
}

/// Names that the four files go by; each also with `.gz` behind it.
fn candidates(part: Part, labels: bool) -> Vec<String> {
    let stems: &[&str] = match part {
        Part::Train => &["train"],
        Part::Test => &["t10k", "test"],
    };
    let (noun, kind) = if labels { ("labels", "idx1") } else { ("images", "idx3") };
    let mut names = Vec::new();
    for stem in stems {
        for separator in ['-', '.'] {
            for ending in ["", ".gz"] {
                names.push(format!("{stem}-{noun}{separator}{kind}-ubyte{ending}"));
            }
        }
    }
    names
}

fn find(folder: &Path, part: Part, labels: bool) -> Result<PathBuf, DatasetError> {
    let names = candidates(part, labels);
    names
        .iter()
        .map(|name| folder.join(name))
        .find(|path| path.is_file())
        .ok_or_else(|| DatasetError::file(folder, format!("no {} here (nor {})", names[0], names[1..].join(", "))))
}

/// The four files of `folder`, in the order training images, training labels, test images, test labels.
pub(crate) fn files(folder: &Path) -> Result<Vec<PathBuf>, DatasetError> {
    if !folder.is_dir() {
        let reason = if folder.exists() {
            "not a folder; dataset.path must be the folder of the four IDX files"
        } else {
            "no such folder (dataset.path)"
        };
        return Err(DatasetError::file(folder, reason));
    }
    let mut paths = Vec::new();
    for part in [Part::Train, Part::Test] {
        for labels in [false, true] {
            paths.push(find(folder, part, labels)?);
        }
    }
    Ok(paths)
}

/// The files of the pixels of both parts, [N, H, W] each, in the order of the survey's entries; read when they are wanted.
#[derive(Debug)]
pub(crate) struct IdxFeed {
    paths: [PathBuf; 2],
    /// [N, H, W] of each.
    dimensions: [Vec<usize>; 2],
}

impl Feed for IdxFeed {
    fn run(&self, sink: &mut Sink<'_>) -> Result<(), DatasetError> {
        let mut position = 0;
        for (path, dimensions) in self.paths.iter().zip(&self.dimensions) {
            let mut images = Opened::new(path, 3)?;
            if images.dimensions != *dimensions {
                return Err(DatasetError::file(path, "has changed while it was read"));
            }
            let (height, width) = (dimensions[1], dimensions[2]);
            for _ in 0..dimensions[0] {
                let mut pixels = Vec::with_capacity((height * width).min(1 << 20));
                images.read(height * width, &mut pixels)?;
                if !sink(position, Payload::Raw(Raw { channels: 1, height, width, pixels })) {
                    return Ok(());
                }
                position += 1;
            }
            images.finish()?;
        }
        Ok(())
    }
}

/// Reads the labels, and checks what the four files say of themselves.
pub(crate) fn survey(folder: &Path) -> Result<(Survey, IdxFeed), DatasetError> {
    let paths = files(folder)?;
    let mut entries = Vec::new();
    let mut parts = Vec::new();
    let mut classes = 0;
    for (part, [image_path, label_path]) in
        [(Part::Train, [&paths[0], &paths[1]]), (Part::Test, [&paths[2], &paths[3]])]
    {
        let images = Opened::new(image_path, 3)?;
        let labels = Idx::read(label_path, 1)?;
        if images.dimensions[0] != labels.dimensions[0] {
            return Err(DatasetError::file(
                label_path,
                format!(
                    "{} labels for the {} images of {}",
                    labels.dimensions[0],
                    images.dimensions[0],
                    image_path.display()
                ),
            ));
        }
        if images.bytes == 0 {
            return Err(DatasetError::file(image_path, format!("holds no image: dimensions {:?}", images.dimensions)));
        }
        if part == Part::Train {
            classes = class_count(label_path, &labels.data)?;
        }
        for (index, &label) in labels.data.iter().enumerate() {
            if usize::from(label) >= classes {
                return Err(DatasetError::file(
                    label_path,
                    format!(
                        "label {label} (image {index}) is out of range: the training part has the classes 0 to {}",
                        classes - 1
                    ),
                ));
            }
            entries.push(Entry { part, label: u32::from(label), name: image_path.join(index.to_string()) });
        }
        parts.push(images.dimensions);
    }
    let [train, test]: [Vec<usize>; 2] = parts.try_into().expect("two parts were pushed");
    if train[1..] != test[1..] {
        return Err(DatasetError::file(
            &paths[2],
            format!("images of {:?} pixels, but the training images have {:?}", &test[1..], &train[1..]),
        ));
    }
    let classes = (0..classes).map(|class| class.to_string()).collect();
    let survey = Survey { classes, entries, channels: 1, has_test_part: true, broken: Vec::new(), ignored_files: 0 };
    Ok((survey, IdxFeed { paths: [paths[0].clone(), paths[2].clone()], dimensions: [train, test] }))
}

/// One more than the largest label, when every class below it occurs: a corrupt label shows as a gap.
fn class_count(path: &Path, labels: &[u8]) -> Result<usize, DatasetError> {
    let mut first = [usize::MAX; 256];
    for (index, &label) in labels.iter().enumerate().rev() {
        first[usize::from(label)] = index;
    }
    let classes = first.iter().position(|&index| index == usize::MAX).unwrap_or(256);
    if let Some(label) = (classes..256).find(|&label| first[label] != usize::MAX) {
        return Err(DatasetError::file(
            path,
            format!("label {label} (image {}) is out of range: no image has the label {classes}", first[label]),
        ));
    }
    Ok(classes)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn idx(dimensions: &[u32], data: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0, 0, 8, dimensions.len() as u8];
        for size in dimensions {
            bytes.extend(size.to_be_bytes());
        }
        bytes.extend(data);
        bytes
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn folder(files: &[(&str, Vec<u8>)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            std::fs::write(folder.path().join(name), bytes).unwrap();
        }
        folder
    }

    fn good() -> Vec<(&'static str, Vec<u8>)> {
        vec![
            ("train-images-idx3-ubyte.gz", gzip(&idx(&[3, 2, 2], &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]))),
            ("train-labels-idx1-ubyte", idx(&[3], &[0, 1, 0])),
            ("t10k-images.idx3-ubyte", idx(&[1, 2, 2], &[9, 9, 9, 9])),
            ("t10k-labels.idx1-ubyte.gz", gzip(&idx(&[1], &[1]))),
        ]
    }

    fn refusal(change: impl FnOnce(&mut Vec<(&'static str, Vec<u8>)>)) -> String {
        let mut files = good();
        change(&mut files);
        whole(folder(&files).path()).unwrap_err().to_string()
    }

    /// Surveys and reads all.
    fn whole(folder: &Path) -> Result<(), DatasetError> {
        let (_, feed) = survey(folder)?;
        feed.run(&mut |_, _| true)
    }

    #[test]
    fn reads_plain_and_zipped_files_under_either_name() {
        let folder = folder(&good());
        let (survey, feed) = survey(folder.path()).unwrap();
        assert_eq!(survey.classes, ["0", "1"]);
        let labels: Vec<_> = survey.entries.iter().map(|entry| (entry.part, entry.label)).collect();
        assert_eq!(labels, [(Part::Train, 0), (Part::Train, 1), (Part::Train, 0), (Part::Test, 1)]);
        let mut seen = Vec::new();
        feed.run(&mut |position, payload| {
            let Payload::Raw(raw) = payload else { panic!("IDX holds plain pixels") };
            seen.push((position, raw.pixels));
            true
        })
        .unwrap();
        assert_eq!(seen[1], (1, vec![5, 6, 7, 8]));
        assert_eq!(seen[3], (3, vec![9; 4]));
    }

    #[test]
    fn a_zipped_file_needs_no_gz_in_its_name() {
        let folder = folder(&[("images", gzip(&idx(&[1], &[7])))]);
        assert_eq!(Idx::read(&folder.path().join("images"), 1).unwrap().data, [7]);
    }

    #[test]
    fn refuses_with_one_clear_message_that_names_the_file() {
        let cases: [(&str, &str); 9] = [
            (
                &refusal(|files| files[1].1 = idx(&[3, 1, 1], &[0; 3])),
                "train-labels-idx1-ubyte: not an IDX file of unsigned bytes in 1 dimension: it starts with 00 00 08 03, not 00 00 08 01",
            ),
            (
                &refusal(|files| {
                    files[1].1.pop();
                }),
                "train-labels-idx1-ubyte: truncated: 2 of 3 bytes for dimensions [3]",
            ),
            (
                &refusal(|files| files[1].1.push(0)),
                "train-labels-idx1-ubyte: too long: more than the 3 bytes of its dimensions [3]",
            ),
            (
                &refusal(|files| files[1].1 = vec![0, 0]),
                "train-labels-idx1-ubyte: truncated: 2 bytes, too few for an IDX header",
            ),
            (&refusal(|files| files[0].1[14] ^= 0x55), "train-images-idx3-ubyte.gz: "),
            (
                &refusal(|files| files[1].1 = idx(&[2], &[0, 1])),
                "train-labels-idx1-ubyte: 2 labels for the 3 images of ",
            ),
            (
                &refusal(|files| files[1].1 = idx(&[3], &[0, 1, 200])),
                "train-labels-idx1-ubyte: label 200 (image 2) is out of range: no image has the label 2",
            ),
            (
                &refusal(|files| files[3].1 = gzip(&idx(&[1], &[2]))),
                "t10k-labels.idx1-ubyte.gz: label 2 (image 0) is out of range: the training part has the classes 0 to 1",
            ),
            (
                &refusal(|files| {
                    files.remove(2);
                }),
                "no t10k-images-idx3-ubyte here (nor t10k-images-idx3-ubyte.gz, t10k-images.idx3-ubyte",
            ),
        ];
        for (message, expected) in cases {
            assert!(message.contains(expected), "{message:?} should contain {expected:?}");
        }
        let mut half = good();
        let length = half[0].1.len();
        half[0].1.truncate(length - 6);
        assert!(
            whole(folder(&half).path()).unwrap_err().to_string().contains("train-images-idx3-ubyte.gz: corrupt gzip: ")
        );
        assert!(refusal(|files| files[2].1 = idx(&[u32::MAX; 3], &[])).contains("beyond all reason"));
        assert!(
            refusal(|files| files[2].1 = idx(&[1, 1, 4], &[0; 4]))
                .contains("images of [1, 4] pixels, but the training images have [2, 2]")
        );
        assert!(
            survey(Path::new("no/such/folder")).unwrap_err().to_string().contains("no/such/folder: no such folder")
        );
    }
}
