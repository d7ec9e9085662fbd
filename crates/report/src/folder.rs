//! Files that get their names in a folder once all of them are there.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::ReportError;

/// What the names of folders begin with in which files wait for their place.
const WAITING: &str = ".writing-";

/// Files on their way into a folder. What is in the folder already stays as it is until [`Arriving::settle`] puts each new file over
/// the old one of its name; dropped before, it leaves the folder as it was. Writers of one folder take turns: each reader sees whole
/// files, and after all have settled, those of the last writer.
#[derive(Debug)]
pub struct Arriving {
    out: PathBuf,
    waiting: PathBuf,
    /// Locked for as long as this lives, which tells it from what a killed process has left.
    _alive: Option<File>,
}

fn problem(path: &Path) -> impl FnOnce(std::io::Error) -> ReportError + '_ {
    |source| ReportError::Write { path: path.to_owned(), source }
}

/// The folder's lock, held until it is dropped; `None` where the file system knows no locks.
fn turn(out: &Path) -> Option<File> {
    let folder = File::open(out).ok()?;
    folder.lock().ok()?;
    Some(folder)
}

impl Arriving {
    /// Makes the folder `out` where it does not exist, and in it the one where files wait.
    ///
    /// # Errors
    /// A folder that cannot be made.
    pub fn at(out: &Path) -> Result<Self, ReportError> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        fs::create_dir_all(out).map_err(problem(out))?;
        let _turn = turn(out);
        sweep(out);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let waiting = out.join(format!("{WAITING}{}-{number}", std::process::id()));
        fs::create_dir_all(&waiting).map_err(problem(&waiting))?;
        let alive = turn(&waiting);
        Ok(Self { out: out.to_owned(), waiting, _alive: alive })
    }

    /// A folder within the one where files wait.
    ///
    /// # Errors
    /// A folder that cannot be made.
    pub fn folder(&self, name: &str) -> Result<PathBuf, ReportError> {
        let path = self.waiting.join(name);
        fs::create_dir_all(&path).map_err(|source| ReportError::Write { path: self.out.join(name), source })?;
        Ok(path)
    }

    /// Where a file waits that will be `name` in the folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.waiting.join(name)
    }

    /// Puts files (paths in the folder, with `/`) to their places, in this order; returns where they are.
    ///
    /// # Errors
    /// A place that something else than a file has.
    pub fn settle(self, names: &[String]) -> Result<Vec<PathBuf>, ReportError> {
        let _turn = turn(&self.out);
        let mut places = Vec::new();
        for name in names {
            let place = self.out.join(name);
            if let Some(folder) = place.parent() {
                fs::create_dir_all(folder).map_err(problem(folder))?;
            }
            fs::rename(self.waiting.join(name), &place).map_err(problem(&place))?;
            places.push(place);
        }
        Ok(places)
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.waiting);
    }
}

/// Removes what killed writers have left.
fn sweep(out: &Path) {
    for entry in fs::read_dir(out).into_iter().flatten().flatten() {
        let is_ours = entry.file_name().to_string_lossy().starts_with(WAITING);
        if !is_ours || !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let Ok(folder) = File::open(entry.path()) else { continue };
        match folder.try_lock() {
            Ok(()) => drop(fs::remove_dir_all(entry.path())),
            Err(TryLockError::WouldBlock | TryLockError::Error(_)) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn what_never_settles_leaves_the_folder_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("page"), "old").unwrap();
        let arriving = Arriving::at(folder.path()).unwrap();
        fs::write(arriving.file("page"), "half").unwrap();
        assert_eq!(fs::read_to_string(folder.path().join("page")).unwrap(), "old");
        drop(arriving);
        assert_eq!(fs::read_to_string(folder.path().join("page")).unwrap(), "old");
        assert_eq!(names(folder.path()), ["page"]);
    }

    #[test]
    fn what_the_dead_left_is_removed_and_what_lives_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let living = Arriving::at(folder.path()).unwrap();
        fs::write(living.file("page"), "living").unwrap();
        let dead = folder.path().join(format!("{WAITING}4000000-0"));
        fs::create_dir(&dead).unwrap();
        fs::write(dead.join("page"), "dead").unwrap();
        fs::write(folder.path().join("mine.txt"), "a user's").unwrap();
        let second = Arriving::at(folder.path()).unwrap();
        assert!(!dead.exists());
        fs::write(second.file("page"), "second").unwrap();
        second.settle(&["page".to_owned()]).unwrap();
        living.settle(&["page".to_owned()]).unwrap();
        assert_eq!(fs::read_to_string(folder.path().join("page")).unwrap(), "living");
        assert_eq!(names(folder.path()), ["mine.txt", "page"]);
    }
}
