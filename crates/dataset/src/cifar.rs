//! CIFAR-10 and CIFAR-100 in their binary form (Krizhevsky 2009): a folder, a .tar or a .tar.gz.
//!
//! A record is the label (CIFAR-100: coarse, then fine; the fine one counts) and 3072 bytes: 32×32 red, then green, then blue.

use std::{
    collections::HashMap,
    fs::File,
    io::{BufReader, Read},
    path::{Path, PathBuf},
};

use crate::{
    DatasetError, Part,
    archive::{self, Kind},
    source::{Entry, Feed, Payload, Raw, Sink, Survey},
};

const SIDE: usize = 32;
const PIXELS: usize = 3 * SIDE * SIDE;
/// Longest list of class names, in bytes.
const MAX_NAMES_BYTES: u64 = 1 << 20;

/// Where the records lie; they are read when they are wanted, one by one.
#[derive(Debug)]
pub(crate) struct CifarFeed {
    path: PathBuf,
    /// Bytes of label before the pixels.
    label_bytes: usize,
    /// By a batch's name: the position of its first record, and how many there are.
    batches: HashMap<String, (usize, usize)>,
}

impl Feed for CifarFeed {
    fn run(&self, sink: &mut Sink<'_>) -> Result<(), DatasetError> {
        visit(&self.path, &mut |name, path, reader| {
            let Some(&(first, count)) = self.batches.get(name) else { return Ok(true) };
            let mut record = vec![0; self.label_bytes + PIXELS];
            for position in first..first + count {
                reader
                    .read_exact(&mut record)
                    .map_err(|error| DatasetError::file(path, format!("cannot be read once more: {error}")))?;
                let pixels = record[self.label_bytes..].to_vec();
                if !sink(position, Payload::Raw(Raw { channels: 3, height: SIDE, width: SIDE, pixels })) {
                    return Ok(false);
                }
            }
            Ok(true)
        })
    }
}

/// The files of one of the two sets.
struct Layout {
    train: &'static [&'static str],
    test: &'static str,
    names: &'static str,
    label_bytes: usize,
    classes: usize,
}

const CIFAR_10: Layout = Layout {
    train: &["data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin"],
    test: "test_batch.bin",
    names: "batches.meta.txt",
    label_bytes: 1,
    classes: 10,
};

const CIFAR_100: Layout =
    Layout { train: &["train.bin"], test: "test.bin", names: "fine_label_names.txt", label_bytes: 2, classes: 100 };

impl Layout {
    fn wants(&self, name: &str) -> bool {
        self.train.contains(&name) || name == self.test || name == self.names
    }
}

/// The layout that has a file `name`.
fn layout_of(name: &str) -> Option<&'static Layout> {
    [&CIFAR_10, &CIFAR_100].into_iter().find(|layout| layout.wants(name))
}

/// Receives a file's name, its path for messages, and its contents; stops by `false`.
type Visit<'a> = dyn FnMut(&str, &Path, &mut dyn Read) -> Result<bool, DatasetError> + 'a;

/// Calls `see` with every file that belongs to one of the sets.
fn visit(path: &Path, see: &mut Visit<'_>) -> Result<(), DatasetError> {
    let wanted = |path: &Path| path.file_name()?.to_str().filter(|name| layout_of(name).is_some()).map(String::from);
    if path.is_dir() {
        for path in folder_files(path)? {
            if let Some(name) = wanted(&path) {
                let file = File::open(&path).map_err(|error| DatasetError::io("read", &path, error))?;
                if !see(&name, &path, &mut BufReader::with_capacity(1 << 16, file))? {
                    break;
                }
            }
        }
        return Ok(());
    }
    archive::walk(path, &mut |_, found, reader| match (&found.kind, wanted(&found.path)) {
        (Kind::File, Some(name)) => see(&name, &path.join(&found.path), reader),
        _ => Ok(true),
    })
}

/// What is kept of a file: all of a list of names; of a batch, the labels that count and the length in bytes.
struct Known {
    name: String,
    path: PathBuf,
    contents: Vec<u8>,
    bytes: u64,
}

impl Known {
    fn read(name: &str, path: &Path, reader: &mut dyn Read) -> Result<Self, DatasetError> {
        let failed = |error| DatasetError::file(path, format!("truncated or corrupt: {error}"));
        let mut known = Self { name: name.to_string(), path: path.to_path_buf(), contents: Vec::new(), bytes: 0 };
        match layout_of(name).filter(|layout| layout.names != name) {
            None => {
                reader.take(MAX_NAMES_BYTES).read_to_end(&mut known.contents).map_err(failed)?;
                known.bytes = known.contents.len() as u64;
            }
            Some(layout) => {
                let record_bytes = layout.label_bytes + PIXELS;
                let mut record = Vec::with_capacity(record_bytes);
                loop {
                    record.clear();
                    (&mut *reader).take(record_bytes as u64).read_to_end(&mut record).map_err(failed)?;
                    known.bytes += record.len() as u64;
                    if record.len() < record_bytes {
                        break;
                    }
                    known.contents.push(record[layout.label_bytes - 1]);
                }
            }
        }
        Ok(known)
    }
}

/// The batch files below the folder `path`, sorted.
pub(crate) fn folder_files(path: &Path) -> Result<Vec<PathBuf>, DatasetError> {
    let wanted = |name: &str| layout_of(name).is_some();
    let found = archive::list_folder(path)?.into_iter().filter(|found| found.kind == Kind::File);
    Ok(found
        .filter(|found| found.path.file_name().and_then(|name| name.to_str()).is_some_and(wanted))
        .map(|found| path.join(found.path))
        .collect())
}

/// Reads the labels and checks the batches.
pub(crate) fn survey(path: &Path) -> Result<(Survey, CifarFeed), DatasetError> {
    let mut files = Vec::new();
    visit(path, &mut |name, path, reader| {
        files.push(Known::read(name, path, reader)?);
        Ok(true)
    })?;
    if files.is_empty() {
        return Err(DatasetError::file(
            path,
            format!(
                "no {} or {} here, as CIFAR's binary versions have; dataset.source = \"images\" reads image files in one folder per class",
                CIFAR_10.train[0], CIFAR_100.train[0]
            ),
        ));
    }
    let has = |name: &str| files.iter().any(|file| file.name == name);
    let layout = if has(CIFAR_10.train[0]) || has(CIFAR_10.test) { CIFAR_10 } else { CIFAR_100 };
    let mut take = |name: &str| -> Result<Option<Known>, DatasetError> {
        let Some(position) = files.iter().position(|file| file.name == name) else { return Ok(None) };
        let file = files.swap_remove(position);
        if let Some(other) = files.iter().find(|file| file.name == name) {
            return Err(DatasetError::file(&file.path, format!("twice: also as {}", other.path.display())));
        }
        Ok(Some(file))
    };
    let classes = match take(layout.names)? {
        Some(file) => class_names(&file.path, &file.contents, layout.classes)?,
        None => (0..layout.classes).map(|class| class.to_string()).collect(),
    };
    let mut entries = Vec::new();
    let mut batches = HashMap::new();
    let parts = layout.train.iter().map(|&name| (Part::Train, name)).chain([(Part::Test, layout.test)]);
    for (part, name) in parts {
        let file = take(name)?.ok_or_else(|| {
            let wanted = [layout.train, &[layout.test]].concat().join(", ");
            DatasetError::file(path, format!("no {name} here; CIFAR's binary version has {wanted}"))
        })?;
        let record = layout.label_bytes + PIXELS;
        if file.bytes == 0 || file.bytes % record as u64 != 0 {
            return Err(DatasetError::file(
                &file.path,
                format!("truncated or no CIFAR batch: {} bytes are no multiple of {record}", file.bytes),
            ));
        }
        batches.insert(name.to_string(), (entries.len(), file.contents.len()));
        for (index, label) in file.contents.iter().map(|&label| u32::from(label)).enumerate() {
            if label as usize >= layout.classes {
                return Err(DatasetError::file(
                    &file.path,
                    format!("label {label} (image {index}) is out of range: there are {} classes", layout.classes),
                ));
            }
            entries.push(Entry { part, label, name: file.path.join(index.to_string()) });
        }
    }
    let survey = Survey { classes, entries, channels: 3, has_test_part: true, broken: Vec::new(), ignored_files: 0 };
    Ok((survey, CifarFeed { path: path.to_path_buf(), label_bytes: layout.label_bytes, batches }))
}

fn class_names(path: &Path, bytes: &[u8], classes: usize) -> Result<Vec<String>, DatasetError> {
    let names: Vec<String> = String::from_utf8_lossy(bytes)
        .lines()
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .map(String::from)
        .collect();
    if names.len() == classes {
        Ok(names)
    } else {
        Err(DatasetError::file(path, format!("{} names for {classes} classes", names.len())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Files = Vec<(String, Vec<u8>)>;

    fn batch(labels: &[&[u8]], shade: u8) -> Vec<u8> {
        labels.iter().flat_map(|label| label.iter().copied().chain(std::iter::repeat_n(shade, PIXELS))).collect()
    }

    fn small_cifar_10() -> Files {
        let names: Vec<String> = (0..10).map(|class| format!("class{class}")).collect();
        let mut files: Vec<_> = CIFAR_10
            .train
            .iter()
            .zip(0u8..)
            .map(|(name, n)| (name.to_string(), batch(&[&[2 * n], &[2 * n + 1]], n)))
            .collect();
        files.push((CIFAR_10.test.to_string(), batch(&[&[9]], 77)));
        files.push((CIFAR_10.names.to_string(), names.join("\n").into_bytes()));
        files
    }

    fn write(files: &[(String, Vec<u8>)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("cifar-10-batches-bin");
        std::fs::create_dir(&inner).unwrap();
        for (name, bytes) in files {
            std::fs::write(inner.join(name), bytes).unwrap();
        }
        folder
    }

    fn labels(survey: &Survey) -> Vec<u32> {
        survey.entries.iter().map(|entry| entry.label).collect()
    }

    #[test]
    fn a_folder_and_an_archive_hold_the_same() {
        let folder = write(&small_cifar_10());
        let (survey_folder, _) = survey(folder.path()).unwrap();
        assert_eq!(labels(&survey_folder), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9]);
        assert_eq!(survey_folder.classes[3], "class3");
        let path = folder.path().join("cifar-10-binary.tar.gz");
        let gz = flate2::write::GzEncoder::new(File::create(&path).unwrap(), flate2::Compression::fast());
        let mut tar = tar::Builder::new(gz);
        tar.append_dir_all("cifar-10-batches-bin", folder.path().join("cifar-10-batches-bin")).unwrap();
        tar.into_inner().unwrap().finish().unwrap();
        let (survey_archive, feed) = survey(&path).unwrap();
        assert_eq!(labels(&survey_archive), labels(&survey_folder));
        // In the order of the archive, each at its place.
        let mut shades = [u8::MAX; 11];
        feed.run(&mut |position, payload| {
            let Payload::Raw(raw) = payload else { panic!("CIFAR holds plain pixels") };
            shades[position] = raw.pixels[0];
            true
        })
        .unwrap();
        assert_eq!(shades, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 77]);
    }

    #[test]
    fn cifar_100_counts_by_its_fine_labels() {
        let folder =
            write(&[("train.bin".into(), batch(&[&[19, 99], &[0, 1]], 0)), ("test.bin".into(), batch(&[&[3, 7]], 0))]);
        let (survey, _) = survey(folder.path()).unwrap();
        assert_eq!((survey.classes.len(), labels(&survey)), (100, vec![99, 1, 7]));
    }

    #[test]
    fn damage_is_named() {
        let refusal = |change: &dyn Fn(&mut Files)| {
            let mut files = small_cifar_10();
            change(&mut files);
            survey(write(&files).path()).unwrap_err().to_string()
        };
        let text = refusal(&|files| {
            files[1].1.pop();
        });
        assert!(
            text.contains("data_batch_2.bin: truncated or no CIFAR batch: 6145 bytes are no multiple of 3073"),
            "{text}"
        );
        let text = refusal(&|files| files[0].1[3073] = 10);
        assert!(text.contains("data_batch_1.bin: label 10 (image 1) is out of range: there are 10 classes"), "{text}");
        let text = refusal(&|files| {
            files.remove(2);
        });
        assert!(text.contains("no data_batch_3.bin here"), "{text}");
        let text = refusal(&|files| *files = vec![("cat_1.jpg".into(), vec![1])]);
        assert!(text.contains("no data_batch_1.bin or train.bin here"), "{text}");
        assert!(text.contains("dataset.source = \"images\" reads image files"), "{text}");
        let text = refusal(&|files| files[6].1.clear());
        assert!(text.contains("batches.meta.txt: 0 names for 10 classes"), "{text}");
    }
}
