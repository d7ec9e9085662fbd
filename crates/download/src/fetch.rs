//! A set into a folder: what is there already stays, one process at a time, one mirror after the other.

use std::{
    fs::{File, TryLockError},
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    DownloadError, PublicFile, PublicSet, checksum,
    transfer::{Failure, Transfer, agent},
};

/// Locked while a process downloads into the folder. It stays, since removing it would let two processes in.
const LOCK: &str = ".download.lock";

/// How to fetch.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// Take the files from here instead of the set's own mirrors.
    pub base_url: Option<&'a str>,
    /// Longest silence of a server, while connecting or between two pieces of a file.
    pub silence: Duration,
    /// Attempts in a row that bring no new byte, after which a mirror is given up.
    pub attempts: u32,
    /// Pause after the first failed attempt; each further one is twice as long.
    pub pause: Duration,
}

impl Default for Options<'_> {
    fn default() -> Self {
        Self { base_url: None, silence: Duration::from_secs(30), attempts: 5, pause: Duration::from_secs(1) }
    }
}

/// What happens on the way.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// Another process downloads into the folder; this one goes on when that is done.
    Waiting {
        /// The folder.
        folder: &'a Path,
    },
    /// The file is there already and is the published one.
    Present {
        /// The file.
        path: &'a Path,
    },
    /// Bytes begin to come.
    Started {
        /// From where.
        url: &'a str,
        /// Bytes that were there before.
        done: u64,
        /// Bytes of the whole file.
        total: u64,
    },
    /// More bytes have come.
    Progress {
        /// Bytes that are there.
        done: u64,
        /// Bytes of the whole file.
        total: u64,
    },
    /// An attempt failed and another follows.
    Retrying {
        /// What was asked for.
        url: &'a str,
        /// What was wrong.
        reason: &'a str,
        /// Time until the next attempt; none when another mirror is asked at once.
        pause: Duration,
    },
    /// The file is whole, has been checked, and has its name.
    Finished {
        /// The file.
        path: &'a Path,
    },
}

/// A file that is there now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// Where it lies.
    pub path: PathBuf,
    /// Whether this call brought it, or it was there before.
    pub downloaded: bool,
}

/// Fetches the files of `set` that are not in `folder` yet, and checks those that are.
///
/// `tell` is called from this thread. A process that is killed leaves `NAME.part`, from which the next call goes on.
///
/// # Errors
/// A file of that name that is another one; mirrors that cannot be reached or hold other files; a folder that cannot be
/// written.
pub fn fetch(
    set: &PublicSet<'_>,
    folder: &Path,
    options: &Options<'_>,
    tell: &mut dyn FnMut(Event<'_>),
) -> Result<Vec<Fetched>, DownloadError> {
    let base_urls = match &options.base_url {
        Some(url) => std::slice::from_ref(url),
        None => set.base_urls,
    };
    for url in base_urls {
        if !url.starts_with("http://") && !url.starts_with("https://") {
            return Err(DownloadError::Address { url: (*url).to_owned() });
        }
    }
    let mut fetched = Vec::new();
    let mut lock = None;
    for file in set.files {
        let mut present = present(set, file, folder)?;
        if present.is_none() && lock.is_none() {
            std::fs::create_dir_all(folder).map_err(|error| DownloadError::io("create", folder, error))?;
            lock = Some(lock_folder(folder, tell)?);
            // Another process may have brought it while this one waited.
            present = self::present(set, file, folder)?;
        }
        let downloaded = present.is_none();
        let path = match present {
            Some(path) => {
                tell(Event::Present { path: &path });
                path
            }
            None => {
                let path = folder.join(file.name);
                fetch_file(set, file, base_urls, &path, options, tell)?;
                tell(Event::Finished { path: &path });
                path
            }
        };
        fetched.push(Fetched { path, downloaded });
    }
    Ok(fetched)
}

/// Where `file` lies in `folder`, if it does: under its name, or unpacked.
fn present(set: &PublicSet<'_>, file: &PublicFile<'_>, folder: &Path) -> Result<Option<PathBuf>, DownloadError> {
    let check = |path: PathBuf, difference: Option<String>| match difference {
        None => Ok(Some(path)),
        Some(why) => Err(DownloadError::OtherFile { path, title: set.title.to_owned(), why }),
    };
    // Readers prefer what is not compressed, so it counts first.
    if let Some(name) = file.name.strip_suffix(".gz") {
        let path = folder.join(name);
        if path.exists() {
            let difference = match &file.contents {
                Some(contents) => checksum::plain_difference(&path, contents)?,
                None => Some("the checksum is only known of the file as it was published, with .gz".to_owned()),
            };
            return check(path, difference);
        }
    }
    let path = folder.join(file.name);
    if path.exists() {
        let difference = checksum::difference(&path, file)?;
        return check(path, difference);
    }
    Ok(None)
}

/// Lets one process at a time into the folder; the lock ends with the process, however that ends.
fn lock_folder(folder: &Path, tell: &mut dyn FnMut(Event<'_>)) -> Result<File, DownloadError> {
    let path = folder.join(LOCK);
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|error| DownloadError::io("create", &path, error))?;
    match file.try_lock() {
        Ok(()) => return Ok(file),
        Err(TryLockError::WouldBlock) => tell(Event::Waiting { folder }),
        Err(TryLockError::Error(error)) => return Err(DownloadError::io("lock", &path, error)),
    }
    file.lock().map_err(|error| DownloadError::io("lock", &path, error))?;
    Ok(file)
}

/// One file from the first mirror that has it.
fn fetch_file(
    set: &PublicSet<'_>,
    file: &PublicFile<'_>,
    base_urls: &[&str],
    path: &Path,
    options: &Options<'_>,
    tell: &mut dyn FnMut(Event<'_>),
) -> Result<(), DownloadError> {
    let mut last = None;
    for base_url in base_urls {
        let url = format!("{}/{}", base_url.trim_end_matches('/'), file.name);
        if let Some(error) = &last {
            let reason = format!("{error}; asking another mirror");
            tell(Event::Retrying { url: &url, reason: &reason, pause: Duration::ZERO });
        }
        match fetch_from(set, file, &url, path, options, tell) {
            Ok(()) => return Ok(()),
            Err(error) if error.blames_the_mirror() => last = Some(error),
            Err(error) => return Err(error),
        }
    }
    Err(last.unwrap_or_else(|| DownloadError::Address { url: String::new() }))
}

fn fetch_from(
    set: &PublicSet<'_>,
    file: &PublicFile<'_>,
    url: &str,
    path: &Path,
    options: &Options<'_>,
    tell: &mut dyn FnMut(Event<'_>),
) -> Result<(), DownloadError> {
    let part = path.with_file_name(format!("{}.part", file.name));
    let transfer = Transfer { agent: agent(url, options.silence), url, file, part: &part, silence: options.silence };
    let mut failed = 0;
    let mut most = transfer.kept();
    // What an earlier call left may be of another file: when it does not fit in the end, the whole is fetched once more.
    let mut suspicious = most > 0;
    loop {
        let reason = match transfer.attempt(tell) {
            Ok(()) => match checksum::difference(&part, file)? {
                None => break,
                Some(why) => {
                    transfer.discard()?;
                    if !std::mem::take(&mut suspicious) {
                        return Err(DownloadError::WrongContents {
                            url: url.to_owned(),
                            title: set.title.to_owned(),
                            why,
                        });
                    }
                    most = 0;
                    format!("what was kept from before does not belong to it ({why}); starting over")
                }
            },
            Err(Failure::Transient(reason)) => reason,
            Err(Failure::Hopeless(reason)) => {
                return Err(DownloadError::GaveUp {
                    url: url.to_owned(),
                    attempts: failed + 1,
                    reason,
                    kept_bytes: transfer.kept(),
                });
            }
            Err(Failure::Refused(status)) => {
                return Err(DownloadError::Refused { url: url.to_owned(), status });
            }
            Err(Failure::WrongSize(bytes)) => {
                return Err(DownloadError::WrongContents {
                    url: url.to_owned(),
                    title: set.title.to_owned(),
                    why: format!("{bytes} bytes instead of {}", file.bytes),
                });
            }
            Err(Failure::Here(error)) => return Err(error),
        };
        let kept = transfer.kept();
        failed = if kept > most { 1 } else { failed + 1 };
        most = most.max(kept);
        if failed >= options.attempts {
            return Err(DownloadError::GaveUp { url: url.to_owned(), attempts: failed, reason, kept_bytes: kept });
        }
        let pause = options.pause.saturating_mul(1 << (failed - 1).min(6));
        tell(Event::Retrying { url, reason: &reason, pause });
        std::thread::sleep(pause);
    }
    // On the disk before it gets its name: a crash must not leave a whole name on half a file.
    File::open(&part).and_then(|file| file.sync_all()).map_err(|error| DownloadError::io("write", &part, error))?;
    std::fs::rename(&part, path).map_err(|error| DownloadError::io("rename", &part, error))
}
