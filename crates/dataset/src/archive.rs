//! Archives, read as they are: .tar and .tar.gz. Nothing is ever extracted.

use std::{
    collections::{BTreeMap, HashSet},
    fs::File,
    io::{BufRead, BufReader, Read},
    path::{Component, Path, PathBuf},
};

use flate2::bufread::MultiGzDecoder;
use tar::{Archive, EntryType};

use crate::DatasetError;

/// Largest file in an archive that is taken into memory.
const MAX_FILE_BYTES: u64 = 1 << 28;

/// What an entry of an archive or folder is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Folder,
    /// Neither, and why it is of no use.
    Unusable(String),
}

/// An entry by its path within the archive or folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub path: PathBuf,
    pub kind: Kind,
}

/// Whether `path` looks like an archive that this module reads.
pub(crate) fn check(path: &Path) -> Result<(), DatasetError> {
    if !path.exists() {
        return Err(DatasetError::file(path, "no such file or folder (dataset.path)"));
    }
    let mut start = [0; 512];
    let mut file = File::open(path).map_err(|error| DatasetError::io("read", path, error))?;
    let read = file.read(&mut start).map_err(|error| DatasetError::io("read", path, error))?;
    let zipped = start.starts_with(&[0x1f, 0x8b]);
    let tar = read == 512 && start[257..262] == *b"ustar";
    // Tapes from before POSIX have no magic, only a name and numbers in octal; their checksum is tested when reading.
    let old = read == 512 && start[0] != 0 && start[148..154].iter().all(|byte| matches!(byte, b'0'..=b'7' | b' '));
    if zipped || tar || old {
        Ok(())
    } else {
        Err(DatasetError::file(path, "neither a folder nor a .tar or .tar.gz archive"))
    }
}

/// Receives the number and the name of an entry, and its contents; stops the walk by `false`.
type Visit<'a> = dyn FnMut(usize, Found, &mut dyn Read) -> Result<bool, DatasetError> + 'a;

/// Calls `visit` with the number and the name of every entry, and its contents; `visit` may stop by `false`.
pub(crate) fn walk(path: &Path, visit: &mut Visit<'_>) -> Result<(), DatasetError> {
    check(path)?;
    let file = File::open(path).map_err(|error| DatasetError::io("read", path, error))?;
    let mut reader = BufReader::with_capacity(1 << 16, file);
    let zipped = reader.fill_buf().map_err(|error| DatasetError::io("read", path, error))?.starts_with(&[0x1f, 0x8b]);
    let reader: Box<dyn Read> = if zipped { Box::new(MultiGzDecoder::new(reader)) } else { Box::new(reader) };
    let corrupt = |error: std::io::Error| DatasetError::file(path, format!("truncated or corrupt archive: {error}"));
    let mut archive = Archive::new(reader);
    for (number, entry) in archive.entries().map_err(corrupt)?.enumerate() {
        let mut entry = entry.map_err(corrupt)?;
        let name = entry.path().map_err(corrupt)?.into_owned();
        let kind = match entry.header().entry_type() {
            EntryType::Regular | EntryType::Continuous if entry.size() > MAX_FILE_BYTES => {
                Kind::Unusable(format!("{} bytes, more than the {MAX_FILE_BYTES} that are accepted", entry.size()))
            }
            EntryType::Regular | EntryType::Continuous => Kind::File,
            EntryType::Directory => Kind::Folder,
            EntryType::Symlink | EntryType::Link => {
                Kind::Unusable("a link, which is not followed in archives".to_string())
            }
            _ => Kind::Unusable("not a plain file".to_string()),
        };
        let (name, kind) = match normal(&name) {
            Some(normal) => (normal, kind),
            None => (name, Kind::Unusable("a path that leads out of the archive".to_string())),
        };
        if !visit(number, Found { path: name, kind }, &mut entry)? {
            return Ok(());
        }
    }
    // The checksum of the compression stands behind the end of the archive.
    std::io::copy(&mut archive.into_inner(), &mut std::io::sink()).map_err(corrupt)?;
    Ok(())
}

/// The path without `.` parts; `None` where it is absolute or goes up.
fn normal(path: &Path) -> Option<PathBuf> {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => normal.push(name),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(normal)
}

/// Every entry of the archive, in its order.
///
/// # Errors
/// An archive that cannot be read to its end, or that holds a name twice.
pub(crate) fn list(path: &Path) -> Result<Vec<Found>, DatasetError> {
    list_and_read(path, &|_| false).map(|(found, _)| found)
}

/// Files by path within the archive or folder.
pub(crate) type Contents = BTreeMap<PathBuf, Vec<u8>>;

/// The same, with the contents of those files that are `wanted`.
pub(crate) fn list_and_read(
    path: &Path,
    wanted: &dyn Fn(&Path) -> bool,
) -> Result<(Vec<Found>, Contents), DatasetError> {
    let mut found = Vec::new();
    let mut read = BTreeMap::new();
    let mut names = HashSet::new();
    walk(path, &mut |_, entry, reader| {
        if entry.kind == Kind::File {
            if !names.insert(entry.path.clone()) {
                return Err(DatasetError::file(&path.join(&entry.path), "twice in the archive: which one counts?"));
            }
            if wanted(&entry.path) {
                read.insert(entry.path.clone(), contents(&path.join(&entry.path), reader)?);
            }
        }
        found.push(entry);
        Ok(true)
    })?;
    Ok((found, read))
}

/// Reads an entry to its end.
pub(crate) fn contents(path: &Path, reader: &mut dyn Read) -> Result<Vec<u8>, DatasetError> {
    let mut bytes = Vec::new();
    reader
        .read_to_end(&mut bytes)
        .map_err(|error| DatasetError::file(path, format!("truncated or corrupt archive: {error}")))?;
    Ok(bytes)
}

/// Every entry of the folder `root`, at any depth, sorted by path. Links are followed, but not round in circles.
pub(crate) fn list_folder(root: &Path) -> Result<Vec<Found>, DatasetError> {
    let mut found = Vec::new();
    let mut open = vec![(root.to_path_buf(), 0)];
    while let Some((folder, depth)) = open.pop() {
        let failed = |error| DatasetError::io("read", &folder, error);
        for entry in std::fs::read_dir(&folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let kind = match std::fs::metadata(&path) {
                Ok(metadata) if metadata.is_file() => Kind::File,
                Ok(metadata) if metadata.is_dir() && depth < MAX_DEPTH => {
                    open.push((path.clone(), depth + 1));
                    Kind::Folder
                }
                Ok(metadata) if metadata.is_dir() => {
                    return Err(DatasetError::file(
                        &path,
                        format!("folders more than {MAX_DEPTH} deep: links in a circle?"),
                    ));
                }
                Ok(_) => Kind::Unusable("not a plain file".to_string()),
                Err(error) => Kind::Unusable(format!("cannot be read: {error}")),
            };
            found.push(Found { path: path.strip_prefix(root).unwrap_or(&path).to_path_buf(), kind });
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

/// Deepest nesting of folders that is followed.
const MAX_DEPTH: usize = 6;
