//! Data sets on their way to a command, with progress.

use std::{
    cell::RefCell,
    path::{Path, PathBuf},
};

use anyhow::Context;
use dataset::{Prepared, Stage};
use indicatif::ProgressBar;

use crate::{cli::Global, progress, public};

/// Folder for prepared data sets.
pub fn cache(global: &Global) -> anyhow::Result<PathBuf> {
    if let Some(cache) = &global.cache {
        return Ok(cache.clone());
    }
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = variable("XDG_CACHE_HOME").or_else(|| Some(variable("HOME")?.join(".cache")));
    Ok(base.context("no folder for prepared data sets: give one with --cache FOLDER")?.join("pipeline"))
}

/// Prepares or opens a data set. `file` is the experiment file, which a complaint about a setting names.
pub fn prepare(settings: &plan::Dataset, global: &Global, file: &Path) -> anyhow::Result<Prepared> {
    let bar: RefCell<Option<(Stage, ProgressBar)>> = RefCell::new(None);
    let prepared = dataset::prepare(settings, &cache(global)?, &|progress| {
        if progress.stage == Stage::Wait {
            if !global.quiet {
                eprintln!("another process prepares this data set: waiting for it");
            }
            return;
        }
        let mut bar = bar.borrow_mut();
        if bar.as_ref().is_none_or(|(stage, _)| *stage != progress.stage) {
            let label = match progress.stage {
                Stage::Fingerprint => "reading the source",
                Stage::Recover => "checking what was prepared before",
                Stage::Wait | Stage::Pack => "preparing images",
            };
            let new = progress::bar(global.quiet, progress.total, label, progress.stage == Stage::Fingerprint);
            new.set_position(progress.done);
            // What an earlier run has done says nothing about the rate.
            new.reset_eta();
            *bar = Some((progress.stage, new));
        }
        if let Some((_, bar)) = &*bar {
            bar.set_length(progress.total);
            bar.set_position(progress.done);
        }
    });
    if let Some((_, bar)) = bar.into_inner() {
        bar.finish_and_clear();
    }
    prepared.map_err(|error| missing(settings, file).unwrap_or_else(|| in_file(error, file)))
}

/// Where the files of a public data set are not there: how to get them.
pub fn missing(settings: &plan::Dataset, file: &Path) -> Option<anyhow::Error> {
    let path = settings.path.as_ref().filter(|path| !path.exists())?;
    let (set, _) = public::asked(file, settings).ok()?;
    Some(anyhow::anyhow!(
        "{}: no such file or folder (dataset.path); pipeline prepare {} --download fetches {}",
        path.display(),
        file.display(),
        set.title
    ))
}

/// Complaints about a setting name the experiment file; others name a file of the data.
pub fn in_file(error: dataset::DatasetError, file: &Path) -> anyhow::Error {
    match error {
        dataset::DatasetError::Setting { .. } => anyhow::anyhow!("{}: {error}", file.display()),
        other => other.into(),
    }
}
