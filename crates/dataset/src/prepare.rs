//! From settings to an opened data set: through the cache where it is known, through the packer where not.

use std::{
    fs::{File, TryLockError},
    path::{Path, PathBuf},
};

use plan::{Color, Dataset, OnBroken, Source};
use serde_json::json;

use crate::{
    DatasetError, Prepared, cifar,
    fingerprint::{self, Identity},
    glyphs::{self, Glyphs},
    idx, imagenet,
    images::{self, HoldBack},
    journal::JOURNAL,
    manifest::FORMAT_VERSION,
    pack::{Job, pack},
    pool,
    resize::Target,
    source::{Feed, Survey},
};

/// How far a preparation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What is being done.
    pub stage: Stage,
    /// Units done.
    pub done: u64,
    /// Units in all.
    pub total: u64,
}

/// Stages of a preparation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Reading the source's files for their fingerprint; in bytes.
    Fingerprint,
    /// Waiting for another process that prepares the same.
    Wait,
    /// Checking what an interrupted preparation has left; in images.
    Recover,
    /// Decoding and packing; in images.
    Pack,
}

/// Largest side of a prepared image, in pixels.
const MAX_SIDE: usize = 4096;
/// Largest number of glyphs of one part.
const MAX_GLYPHS: usize = 10_000_000;

/// Prepares the data set of `settings` in the folder `cache`, or opens it where it has been prepared before.
///
/// An entry's name is the hash of the source's contents, the settings that shape the images and the format's version. It is
/// written under another name and renamed when it is whole; of two processes that prepare the same at once, one works and
/// the other waits. What a process leaves that is killed, or that runs out of room, is gone on from, and comes to the same
/// bytes. A corrupt entry is prepared anew. `progress` is called from this thread. Memory does not grow with the size of the
/// images, only with their number, by about 200 bytes each.
///
/// # Errors
/// A source that is not there or not what it should be, settings that do not fit it, or a cache that cannot be written.
pub fn prepare(settings: &Dataset, cache: &Path, progress: &dyn Fn(Progress)) -> Result<Prepared, DatasetError> {
    check(settings)?;
    pool::start()?;
    std::fs::create_dir_all(cache).map_err(|error| DatasetError::io("create", cache, error))?;
    let identity = fingerprint::identify(settings, cache, progress)?;
    let key = key(settings, &identity);
    let entry = cache.join(&key);
    if let Ok(prepared) = Prepared::open(&entry) {
        return Ok(prepared);
    }
    let _lock = lock(&cache.join(format!("{key}.lock")), progress)?;
    // Another process may have prepared it while this one waited.
    if let Ok(prepared) = Prepared::open(&entry) {
        return Ok(prepared);
    }
    if entry.exists() {
        std::fs::remove_dir_all(&entry).map_err(|error| DatasetError::io("remove", &entry, error))?;
    }
    // What a killed process left behind is nobody else's, since this one holds the lock.
    let unfinished = cache.join(format!("{key}.unfinished"));
    std::fs::create_dir_all(&unfinished).map_err(|error| DatasetError::io("create", &unfinished, error))?;
    match build(settings, &identity, &unfinished, progress) {
        Ok(()) => {}
        // The source or the settings are at fault, and change before the next attempt: this cannot be gone on from.
        Err(error @ (DatasetError::File { .. } | DatasetError::Setting { .. })) => {
            // The first error is the one to tell.
            let _ = std::fs::remove_dir_all(&unfinished);
            return Err(error);
        }
        Err(error) => return Err(error),
    }
    std::fs::rename(&unfinished, &entry).map_err(|error| DatasetError::io("rename", &unfinished, error))?;
    // Only now, so that there is no moment at which the work of hours has no journal. It does no harm where it stays.
    let _ = std::fs::remove_file(entry.join(JOURNAL));
    Prepared::open(&entry)
}

/// Opens the data set of `settings` if it is prepared and its source unchanged, without reading the source or writing
/// anything; `None` where [`prepare`] would have work to do.
///
/// # Errors
/// Settings that no source can satisfy.
pub fn find(settings: &Dataset, cache: &Path) -> Result<Option<Prepared>, DatasetError> {
    check(settings)?;
    Ok(fingerprint::remembered(settings, cache)?
        .and_then(|identity| Prepared::open(&cache.join(key(settings, &identity))).ok()))
}

/// Takes the file lock at `path`; it is released when the file is closed, also by the death of the process.
fn lock(path: &Path, progress: &dyn Fn(Progress)) -> Result<File, DatasetError> {
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(|error| DatasetError::io("create", path, error))?;
    match file.try_lock() {
        Ok(()) => return Ok(file),
        Err(TryLockError::WouldBlock) => progress(Progress { stage: Stage::Wait, done: 0, total: 0 }),
        Err(TryLockError::Error(error)) => return Err(DatasetError::io("lock", path, error)),
    }
    file.lock().map_err(|error| DatasetError::io("lock", path, error))?;
    Ok(file)
}

fn check(settings: &Dataset) -> Result<(), DatasetError> {
    if settings.image_size.is_some_and(|side| side == 0 || side > MAX_SIDE) {
        return Err(DatasetError::setting("dataset.image_size", format!("must be between 1 and {MAX_SIDE}")));
    }
    if settings.source == Source::Glyphs {
        let most = settings.train_images.into_iter().chain(settings.test_images).max();
        if most.is_some_and(|images| images > MAX_GLYPHS) {
            return Err(DatasetError::setting(
                "dataset.train_images",
                format!("at most {MAX_GLYPHS} glyphs can be drawn"),
            ));
        }
        if settings.train_images.is_some_and(|images| images < glyphs::CLASSES.len()) {
            return Err(DatasetError::setting("dataset.train_images", "at least 10: one glyph of each class"));
        }
    } else if settings.path.is_none() {
        return Err(DatasetError::setting("dataset.path", format!("is needed by source = {}", json!(settings.source))));
    }
    Ok(())
}

/// The folder or archive of a source that has one.
pub(crate) fn source_path(settings: &Dataset) -> PathBuf {
    settings.path.clone().unwrap_or_default()
}

/// Name of the cache entry.
fn key(settings: &Dataset, identity: &Identity) -> String {
    let mut recipe = json!({
        "format": FORMAT_VERSION,
        "source": settings.source,
        "contents": identity.fingerprint,
        "image_size": settings.image_size,
        "color": settings.color,
    });
    match settings.source {
        Source::Glyphs => recipe["glyphs"] = json!([settings.seed, settings.train_images, settings.test_images]),
        Source::Images => {
            recipe["on_broken"] = json!(settings.on_broken);
            if !identity.has_test_part {
                recipe["test"] = json!([settings.seed, settings.test_fraction]);
            }
        }
        Source::Imagenet => recipe["on_broken"] = json!(settings.on_broken),
        Source::Idx | Source::Cifar => {}
    }
    let name = match settings.source {
        Source::Glyphs => "glyphs",
        Source::Idx => "idx",
        Source::Cifar => "cifar",
        Source::Images => "images",
        Source::Imagenet => "imagenet",
    };
    format!("{name}-{}", &blake3::hash(recipe.to_string().as_bytes()).to_hex()[..32])
}

/// Opens the source and packs it into `folder`.
fn build(
    settings: &Dataset,
    identity: &Identity,
    folder: &Path,
    progress: &dyn Fn(Progress),
) -> Result<(), DatasetError> {
    let path = source_path(settings);
    let (survey, feed) = open(settings)?;
    let side = match settings.source {
        Source::Glyphs => Some(settings.image_size.unwrap_or(glyphs::DEFAULT_SIZE)),
        Source::Imagenet => Some(settings.image_size.unwrap_or(imagenet::DEFAULT_SIZE)),
        _ => settings.image_size,
    };
    let job = Job {
        source: settings.source,
        path: &path,
        source_fingerprint: &identity.fingerprint,
        survey: &survey,
        feed: &*feed,
        target: Target { channels: settings.color.map_or(survey.channels, Color::channels), side },
        on_broken: match settings.source {
            Source::Images | Source::Imagenet => settings.on_broken,
            _ => OnBroken::Refuse,
        },
    };
    pack(&job, folder, progress).map(|_| ())
}

/// What the source holds, and its images.
pub(crate) fn open(settings: &Dataset) -> Result<(Survey, Box<dyn Feed>), DatasetError> {
    let path = source_path(settings);
    match settings.source {
        Source::Glyphs => {
            let glyphs = Glyphs {
                seed: settings.seed,
                size: settings.image_size.unwrap_or(glyphs::DEFAULT_SIZE),
                channels: settings.color.map_or(1, Color::channels),
                train_images: settings.train_images.unwrap_or(glyphs::DEFAULT_TRAIN_IMAGES),
                test_images: settings.test_images.unwrap_or(glyphs::DEFAULT_TEST_IMAGES),
            };
            Ok((glyphs.survey(), Box::new(glyphs)))
        }
        Source::Idx => idx::survey(&path).map(|(survey, feed)| (survey, Box::new(feed) as Box<dyn Feed>)),
        Source::Cifar => cifar::survey(&path).map(|(survey, feed)| (survey, Box::new(feed) as Box<dyn Feed>)),
        Source::Imagenet => imagenet::survey(&path).map(|(survey, feed)| (survey, Box::new(feed) as Box<dyn Feed>)),
        Source::Images => {
            let hold_back = HoldBack { fraction: settings.test_fraction, seed: settings.seed };
            images::survey(&path, hold_back).map(|(survey, feed)| (survey, Box::new(feed) as Box<dyn Feed>))
        }
    }
}
