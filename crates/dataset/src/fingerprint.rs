//! Fingerprint of a source: BLAKE3 over the contents of its files, remembered by their sizes and times, so that a second
//! run reads nothing.

use std::{
    fs::File,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use plan::{Dataset, Source};
use serde::{Deserialize, Serialize};

use crate::{
    DatasetError, Progress, Stage,
    archive::{self, Kind},
    cifar, idx, imagenet, prepare,
};

/// What is known of a source without decoding it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Identity {
    /// 64 hex digits; empty for glyphs.
    pub fingerprint: String,
    /// Whether the source itself says which images are for the test.
    pub has_test_part: bool,
}

/// What is remembered of a source, in the cache.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Memory {
    /// Hash of the files' names, sizes and times.
    stamp: String,
    identity: Identity,
}

/// A file younger than this may yet be changed without its time showing it.
const SETTLED: Duration = Duration::from_millis(50);

/// A file of a source.
#[derive(Clone, Debug)]
pub(crate) struct SourceFile {
    pub path: PathBuf,
    pub bytes: u64,
    pub modified: SystemTime,
}

impl SourceFile {
    /// Looks the file up, following links.
    pub fn new(path: PathBuf) -> Result<Self, DatasetError> {
        let failed = |error| DatasetError::io("read", &path, error);
        let metadata = std::fs::metadata(&path).map_err(failed)?;
        let modified = metadata.modified().map_err(failed)?;
        Ok(Self { bytes: metadata.len(), modified, path })
    }
}

/// Every file that shapes the data set, in a fixed order.
fn files(settings: &Dataset) -> Result<Vec<SourceFile>, DatasetError> {
    let path = prepare::source_path(settings);
    let paths = match settings.source {
        Source::Glyphs => Vec::new(),
        Source::Idx => idx::files(&path)?,
        Source::Cifar if path.is_dir() => cifar::folder_files(&path)?,
        Source::Images if path.is_dir() => image_files(&path)?,
        Source::Imagenet if path.is_dir() => imagenet::files(&path)?,
        Source::Cifar | Source::Images | Source::Imagenet => {
            archive::check(&path)?;
            vec![path]
        }
    };
    paths.into_iter().map(SourceFile::new).collect()
}

/// Every file in a folder of images that can be read; what cannot is the packer's to report.
fn image_files(root: &Path) -> Result<Vec<PathBuf>, DatasetError> {
    let found = archive::list_folder(root)?.into_iter().filter(|found| found.kind == Kind::File);
    Ok(found.map(|found| root.join(found.path)).filter(|path| File::open(path).is_ok()).collect())
}

fn stamp(root: &Path, files: &[SourceFile]) -> String {
    let mut hasher = blake3::Hasher::new();
    for file in files {
        let time = file.modified.duration_since(UNIX_EPOCH).unwrap_or_default();
        hash_name(&mut hasher, root, &file.path);
        hasher.update(&file.bytes.to_le_bytes());
        hasher.update(&time.as_nanos().to_le_bytes());
    }
    hasher.finalize().to_hex().to_string()
}

fn hash_name(hasher: &mut blake3::Hasher, root: &Path, path: &Path) {
    let name = path.strip_prefix(root).unwrap_or(path).as_os_str().as_encoded_bytes();
    hasher.update(&(name.len() as u64).to_le_bytes());
    hasher.update(name);
}

/// Where the memory of a source lies: by kind and absolute path.
fn memory_path(settings: &Dataset, cache: &Path) -> PathBuf {
    let path = prepare::source_path(settings);
    let path = std::fs::canonicalize(&path).unwrap_or(path);
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[settings.source as u8]);
    hasher.update(path.as_os_str().as_encoded_bytes());
    cache.join("sources").join(format!("{}.json", &hasher.finalize().to_hex()[..32]))
}

/// The identity of a source whose files have not changed since it was last computed.
pub(crate) fn remembered(settings: &Dataset, cache: &Path) -> Result<Option<Identity>, DatasetError> {
    if settings.source == Source::Glyphs {
        return Ok(Some(Identity { fingerprint: String::new(), has_test_part: true }));
    }
    let files = files(settings)?;
    Ok(recall(settings, cache, &stamp(&prepare::source_path(settings), &files)))
}

fn recall(settings: &Dataset, cache: &Path, stamp: &str) -> Option<Identity> {
    let json = std::fs::read(memory_path(settings, cache)).ok()?;
    // A memory that cannot be read is no error: the files are still there.
    let memory: Memory = serde_json::from_slice(&json).ok()?;
    (memory.stamp == stamp).then_some(memory.identity)
}

/// The identity of the source of `settings`.
pub(crate) fn identify(
    settings: &Dataset,
    cache: &Path,
    progress: &dyn Fn(Progress),
) -> Result<Identity, DatasetError> {
    if settings.source == Source::Glyphs {
        return Ok(Identity { fingerprint: String::new(), has_test_part: true });
    }
    let root = prepare::source_path(settings);
    let files = files(settings)?;
    let stamp = stamp(&root, &files);
    if let Some(identity) = recall(settings, cache, &stamp) {
        return Ok(identity);
    }
    let fingerprint = hash_contents(&root, &files, progress)?;
    let has_test_part = settings.source != Source::Images || prepare::open(settings)?.0.has_test_part;
    let identity = Identity { fingerprint, has_test_part };
    let settled =
        SystemTime::now().checked_sub(SETTLED).is_some_and(|time| files.iter().all(|file| file.modified < time));
    if settled {
        remember(&memory_path(settings, cache), &Memory { stamp, identity: identity.clone() })?;
    }
    Ok(identity)
}

fn hash_contents(root: &Path, files: &[SourceFile], progress: &dyn Fn(Progress)) -> Result<String, DatasetError> {
    let total = files.iter().map(|file| file.bytes).sum();
    let mut done = 0;
    let mut hasher = blake3::Hasher::new();
    for file in files {
        let failed = |error| DatasetError::io("read", &file.path, error);
        // The name of an archive does not shape its images; names within a folder do.
        if file.path != root {
            hash_name(&mut hasher, root, &file.path);
        }
        let mut contents = blake3::Hasher::new();
        contents.update_reader(File::open(&file.path).map_err(failed)?).map_err(failed)?;
        hasher.update(contents.finalize().as_bytes());
        done += file.bytes;
        progress(Progress { stage: Stage::Fingerprint, done, total });
    }
    Ok(hasher.finalize().to_hex().to_string())
}

/// Writes whole or not at all; the last of several processes wins, and they write the same.
fn remember(path: &Path, memory: &Memory) -> Result<(), DatasetError> {
    let folder = path.parent().unwrap_or(path);
    std::fs::create_dir_all(folder).map_err(|error| DatasetError::io("create", folder, error))?;
    let json =
        serde_json::to_vec(memory).map_err(|error| DatasetError::io("write", path, std::io::Error::other(error)))?;
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    std::fs::write(&temporary, json).map_err(|error| DatasetError::io("write", &temporary, error))?;
    std::fs::rename(&temporary, path).map_err(|error| DatasetError::io("rename", &temporary, error))
}
