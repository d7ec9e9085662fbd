//! Compiled kernels, kept on disk from one process to the next: compiling a large network takes seconds.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// Ends the names of entries; changes with what an entry looks like.
const ENDING: &str = "kernels1";
/// Begins the names of entries that are being written.
const UNFINISHED: &str = ".kernels-";
/// Entries at most; beyond it those go that were not asked for longest.
const MOST_ENTRIES: usize = 256;
/// What was being written for so long belongs to a process that is gone.
const STALE: Duration = Duration::from_secs(24 * 3600);

/// A folder of compiled programs. An entry is the BLAKE3 hash of an image, then the image; its name is the hash of all that the image
/// depends on. An entry appears whole or not at all, whoever else writes it at the same time, and one that was damaged since is none.
/// It is a convenience: where it cannot be read or written, it is done without.
#[derive(Debug)]
pub(crate) struct Cache {
    folder: PathBuf,
}

impl Cache {
    pub(crate) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// Name of what NVRTC of this version makes of a source under these options.
    pub(crate) fn key(source: &str, options: &[String], version: (i32, i32)) -> String {
        let mut hasher = blake3::Hasher::new();
        let version = format!("{}.{}", version.0, version.1);
        for part in [source, &version].into_iter().chain(options.iter().map(String::as_str)) {
            // Lengths keep parts apart.
            hasher.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
        }
        hasher.finalize().to_hex().to_string()
    }

    fn path(&self, key: &str) -> PathBuf {
        self.folder.join(format!("{key}.{ENDING}"))
    }

    /// The image of this name, if it is there and whole.
    pub(crate) fn get(&self, key: &str) -> Option<Vec<u8>> {
        let path = self.path(key);
        let entry = fs::read(&path).ok()?;
        let (hash, image) = entry.split_at_checked(blake3::OUT_LEN)?;
        if blake3::hash(image) != blake3::Hash::from_slice(hash).ok()? {
            return None;
        }
        // Whether it was asked for is seen by its time; a folder that is only read keeps its times.
        let _ = File::options().append(true).open(&path).and_then(|file| file.set_modified(SystemTime::now()));
        Some(image.to_vec())
    }

    /// Keeps an image, in place of what has its name.
    pub(crate) fn put(&self, key: &str, image: &[u8]) {
        let write = || -> std::io::Result<()> {
            fs::create_dir_all(&self.folder)?;
            let mut file = tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(&self.folder)?;
            file.write_all(blake3::hash(image).as_bytes())?;
            file.write_all(image)?;
            file.persist(self.path(key)).map_err(|error| error.error)?;
            self.tidy()
        };
        let _ = write();
    }

    /// Removes what was not asked for longest, and what dead processes left.
    fn tidy(&self) -> std::io::Result<()> {
        let now = SystemTime::now();
        let (mut entries, mut scraps) = (Vec::new(), Vec::new());
        for entry in fs::read_dir(&self.folder)?.flatten() {
            let Ok(modified) = entry.metadata().and_then(|metadata| metadata.modified()) else { continue };
            let path = entry.path();
            // Nothing else is ours.
            if path.extension().is_some_and(|ending| ending == ENDING) {
                entries.push((modified, path));
            } else if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
                scraps.push((modified, path));
            }
        }
        entries.sort();
        let superfluous = entries.len().saturating_sub(MOST_ENTRIES);
        let stale = |(modified, _): &&(SystemTime, PathBuf)| now.duration_since(*modified).is_ok_and(|age| age > STALE);
        for (_, path) in entries[..superfluous].iter().chain(scraps.iter().filter(stale)) {
            let _ = fs::remove_file(path);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stands_for_all_that_an_image_depends_on() {
        let options = |o: &[&str]| o.iter().map(ToString::to_string).collect::<Vec<_>>();
        let base = Cache::key("source", &options(&["-a", "-b"]), (13, 0));
        assert_eq!(base, Cache::key("source", &options(&["-a", "-b"]), (13, 0)));
        for other in [
            Cache::key("sourc", &options(&["-a", "-b"]), (13, 0)),
            Cache::key("source", &options(&["-a"]), (13, 0)),
            Cache::key("source", &options(&["-a-b"]), (13, 0)),
            Cache::key("source", &options(&["-a", "-b"]), (13, 1)),
            Cache::key("source", &options(&["-a", "-b"]), (12, 0)),
        ] {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn only_what_was_not_asked_for_longest_goes() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Cache::new(folder.path());
        let at = |key: usize, days: u64| {
            cache.put(&key.to_string(), &[key as u8]);
            let time = SystemTime::now() - Duration::from_secs(days * 24 * 3600);
            let file = File::options().append(true).open(cache.path(&key.to_string())).expect("an entry");
            file.set_modified(time).expect("a time");
        };
        for key in 0..MOST_ENTRIES {
            at(key, 3 + (key as u64 + MOST_ENTRIES as u64 - 7) % MOST_ENTRIES as u64);
        }
        // The oldest is the one numbered 6; being asked for makes it the youngest.
        assert_eq!(cache.get("6").expect("an entry"), [6]);
        cache.put("new", b"new");
        assert!(cache.get("5").is_none(), "then the oldest goes");
        for kept in ["new", "6", "4", "7"] {
            assert!(cache.get(kept).is_some(), "{kept}");
        }
    }
}
