//! The crate's public interface, on data sets made for the purpose and on real ones where they are present.

mod augment;
mod cache;
mod damage;
mod hostile;
mod imagenet;
mod images;
mod loader;
mod preprocess;
mod real;
mod resume;

use std::path::{Path, PathBuf};

use dataset::{Prepared, Stage};
use plan::Dataset;

/// A small set of glyphs.
fn glyphs() -> Dataset {
    Dataset { train_images: Some(60), test_images: Some(20), ..Dataset::default() }
}

/// Prepares in a folder of its own.
fn prepared(settings: &Dataset) -> (tempfile::TempDir, Prepared) {
    let cache = tempfile::tempdir().unwrap();
    let prepared = dataset::prepare(settings, cache.path(), &|_| {}).unwrap();
    (cache, prepared)
}

/// Prepares and says whether any image was packed.
fn packs(settings: &Dataset, cache: &Path) -> (Prepared, bool) {
    let packed = std::cell::Cell::new(false);
    let prepared =
        dataset::prepare(settings, cache, &|progress| packed.set(packed.get() | (progress.stage == Stage::Pack)))
            .unwrap();
    (prepared, packed.get())
}

/// The only prepared entry in the cache.
fn entry(cache: &Path) -> PathBuf {
    let mut folders = std::fs::read_dir(cache)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("manifest.json").is_file());
    let entry = folders.next().expect("an entry");
    assert!(folders.next().is_none(), "one entry only");
    entry
}

/// Real data, where it is: `PIPELINE_TEST_DATA`, else `../shared/data` beside the workspace.
fn real(name: &str) -> Option<PathBuf> {
    let root = match std::env::var_os("PIPELINE_TEST_DATA") {
        Some(root) => PathBuf::from(root),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"),
    };
    let path = root.join(name);
    if path.exists() {
        return Some(path);
    }
    eprintln!("SKIPPED: no {} (PIPELINE_TEST_DATA names the folder of real data)", path.display());
    None
}
