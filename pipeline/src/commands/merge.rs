//! `pipeline merge`: results of other machines, out of bundles or databases.

use std::{
    fs::File,
    io::Read,
    path::{Component, Path, PathBuf},
};

use anyhow::Context;
use clap::Args;
use flate2::read::GzDecoder;
use store::{Fate, MergedRun, Store, StoreError};

use crate::{
    cli::Global,
    commands::{
        bundle::{DATABASE, MANIFEST, kept, moved},
        gc::SCRATCH,
        report::{REPORTS, folder},
    },
    exit::Exit,
    output,
    runner::{run_folder, runs_folder},
};

/// Take over results of other machines.
#[derive(Clone, Debug, Args)]
pub struct Merge {
    /// Bundles (`pipeline bundle`) or databases; a database's weights are looked for beside it
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Say what would be taken over, and take over nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// A folder that is gone at the end.
pub struct Scratch(PathBuf);

impl Scratch {
    /// One in the folder of a file, so that what is in it can be moved to the file's place.
    pub fn beside(file: &Path) -> anyhow::Result<Self> {
        let folder = match file.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        Self::within(folder)
    }

    fn within(folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join(format!("{SCRATCH}{}", std::process::id()));
        // One of a dead process of the same number may be there.
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Merges the files one after the other.
pub fn run(merge: &Merge, global: &Global) -> anyhow::Result<Exit> {
    // What is to be merged is looked at first: a wrong name must not leave half of them merged, nor a new, empty database.
    let mut checked = Vec::new();
    for file in &merge.files {
        let is_bundle = is_gzip(file).with_context(|| format!("cannot read {}", file.display()))?;
        if !is_bundle {
            match Store::open_read_only(file) {
                Ok(_) | Err(StoreError::Older { .. }) => {}
                Err(error) => return Err(error.into()),
            }
            let same = |path: &Path| std::fs::canonicalize(path).ok();
            anyhow::ensure!(same(file) != same(&global.db), "{}: is the database to merge into", file.display());
        }
        checked.push((file, is_bundle));
    }
    let is_new = !global.db.exists();
    let store = Store::open(&global.db)?;
    let folder = runs_folder(&global.db);
    let was_there = folder.is_dir();
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let result = checked.iter().try_for_each(|(file, is_bundle)| take(&store, file, *is_bundle, merge.dry_run, global));
    if !was_there {
        // Nothing where it stayed empty.
        let _ = std::fs::remove_dir(&folder);
    }
    if is_new && (merge.dry_run || result.is_err()) && store.experiments()?.is_empty() {
        drop(store);
        let _ = std::fs::remove_file(&global.db);
    }
    result?;
    Ok(Exit::Fine)
}

fn is_gzip(file: &Path) -> std::io::Result<bool> {
    let mut magic = [0; 2];
    let mut file = File::open(file)?;
    Ok(file.read_exact(&mut magic).is_ok() && magic == [0x1f, 0x8b])
}

fn take(store: &Store, file: &Path, is_bundle: bool, dry_run: bool, global: &Global) -> anyhow::Result<()> {
    let scratch = Scratch::within(&runs_folder(&global.db))?;
    let (other, db) = if is_bundle {
        unpack(file, scratch.path())?;
        let db = scratch.path().join(DATABASE);
        anyhow::ensure!(
            db.is_file(),
            "{}: not a bundle of `pipeline bundle`: there is no {DATABASE} in it",
            file.display()
        );
        // Ours to bring up to date; it was made for this.
        (Store::open(&db).with_context(|| format!("{}: its database", file.display()))?, db)
    } else {
        match Store::open_read_only(file) {
            Err(StoreError::Older { .. }) => {
                // The other one stays as it is: a copy is brought up to date.
                let db = scratch.path().join(DATABASE);
                for suffix in ["", "-wal"] {
                    let part = PathBuf::from(format!("{}{suffix}", file.display()));
                    if part.exists() {
                        std::fs::copy(&part, format!("{}{suffix}", db.display()))
                            .with_context(|| format!("cannot copy {}", part.display()))?;
                    }
                }
                (Store::open(&db)?, file.to_path_buf())
            }
            other => (other?, file.to_path_buf()),
        }
    };
    let relocate = |run, path: &str| moved(&global.db, run, path);
    let reports = if is_bundle { reports(scratch.path(), &other)? } else { Vec::new() };
    let planned = store.merge(&other, None, &relocate, false)?;
    if dry_run {
        return tell(file, &planned, 0, &missing(reports), true, global);
    }
    // Weights are fetched before the rows say that they are there; then moving them is a matter of names.
    let wanted = |run: &MergedRun| -> Vec<PathBuf> {
        let is_here = |file: &PathBuf| {
            let name = file.file_name().unwrap_or_default();
            run.fate == Fate::Known && run.here.is_some_and(|here| run_folder(&global.db, here).join(name).is_file())
        };
        let is_taken = run.fate != Fate::Running;
        kept(&run_folder(&db, run.there)).into_iter().filter(|file| is_taken && !is_here(file)).collect()
    };
    let stage = |run: &MergedRun, source: &Path| -> anyhow::Result<PathBuf> {
        let name = source.file_name().unwrap_or_default().to_string_lossy();
        let copy = scratch.path().join(format!("{}-{name}", run.there));
        if !copy.exists() {
            std::fs::copy(source, &copy).with_context(|| format!("cannot copy {}", source.display()))?;
        }
        Ok(copy)
    };
    for run in &planned.runs {
        for source in wanted(run) {
            stage(run, &source)?;
        }
    }
    let merged = store.merge(&other, None, &relocate, true)?;
    let mut moved_files = 0;
    for run in &merged.runs {
        let Some(here) = run.here else { continue };
        let folder = run_folder(&global.db, here);
        if run.fate == Fate::New {
            // A folder of that number that no run had is of no use to this one.
            let _ = std::fs::remove_dir_all(&folder);
        }
        for source in wanted(run) {
            // Not there yet where a lease ran out in between.
            let copy = stage(run, &source)?;
            let place = folder.join(source.file_name().unwrap_or_default());
            std::fs::create_dir_all(&folder)
                .and_then(|()| std::fs::rename(&copy, &place))
                .with_context(|| format!("cannot write {}; merging again goes on", place.display()))?;
            moved_files += 1;
        }
    }
    // A report that is here is about more than the bundle's, or is made anew from what is here now.
    let mut restored = Vec::new();
    for (from, to) in missing(reports) {
        if let Some(folder) = to.parent() {
            std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        copy_folder(&from, &to).with_context(|| format!("cannot write {}", to.display()))?;
        restored.push((from, to));
    }
    tell(file, &merged, moved_files, &restored, false, global)
}

/// The reports in an unpacked bundle, each with its place here.
fn reports(unpacked: &Path, bundled: &Store) -> anyhow::Result<Vec<(PathBuf, PathBuf)>> {
    let names = bundled.experiments()?.into_iter().map(|experiment| folder(&[experiment.name]));
    let places = names.map(|name| Path::new(REPORTS).join(name));
    Ok(places.map(|place| (unpacked.join(&place), place)).filter(|(from, _)| from.is_dir()).collect())
}

/// Those whose place is free.
fn missing(reports: Vec<(PathBuf, PathBuf)>) -> Vec<(PathBuf, PathBuf)> {
    reports.into_iter().filter(|(_, to)| !to.exists()).collect()
}

/// Copies a folder of files and folders, the page last of all: where it is, all is.
fn copy_folder(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    let mut entries: Vec<_> = std::fs::read_dir(from)?.collect::<Result<_, _>>()?;
    entries.sort_by_key(|entry| (entry.path().extension().is_some_and(|ending| ending == "html"), entry.file_name()));
    for entry in entries {
        let place = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &place)?;
        } else {
            std::fs::copy(entry.path(), place)?;
        }
    }
    Ok(())
}

fn tell(
    file: &Path,
    merged: &store::Merged,
    files: usize,
    reports: &[(PathBuf, PathBuf)],
    dry_run: bool,
    global: &Global,
) -> anyhow::Result<()> {
    let new = merged.experiments.iter().filter(|experiment| experiment.is_new).count();
    output::line(&format!(
        "{}: {}{} of {}, {}, {}, {} further than here, {} here already, {} of weights",
        file.display(),
        if dry_run { "would take over " } else { "" },
        output::counted(new, "new experiment"),
        merged.experiments.len(),
        output::counted(merged.trials as usize, "new trial"),
        output::counted(merged.count(Fate::New), "new run"),
        merged.count(Fate::Further),
        merged.count(Fate::Known),
        output::counted(files, "file"),
    ))?;
    let joined = merged.experiments.iter().filter(|experiment| experiment.differs && experiment.appended > 0);
    for experiment in joined.filter(|_| !global.quiet) {
        output::tell(&format!(
            "{} is planned from another file there: the plan that is here stays, and {} that only the other has come behind it",
            experiment.name,
            output::counted(experiment.appended as usize, "trial"),
        ));
    }
    for (_, place) in reports {
        output::line(&format!("report: {}", place.join("report.html").display()))?;
    }
    let running = merged.count(Fate::Running);
    if running > 0 && !global.quiet {
        let runs = output::counted(running, "running run");
        eprintln!("left out {runs}: merge again when nothing runs there");
    }
    Ok(())
}

/// Unpacks the database, the runs' files and the reports; an archive that says otherwise gets nothing to write anywhere else.
fn unpack(file: &Path, into: &Path) -> anyhow::Result<()> {
    let said = || format!("{}: not a bundle, or damaged", file.display());
    let mut archive = tar::Archive::new(GzDecoder::new(File::open(file).with_context(said)?));
    let runs = runs_folder(Path::new(DATABASE));
    let mut is_bundle = false;
    for entry in archive.entries().with_context(said)? {
        let mut entry = entry.with_context(said)?;
        let path = entry.path().with_context(said)?.into_owned();
        let plain = path.components().all(|part| matches!(part, Component::Normal(_)));
        is_bundle |= path == Path::new(MANIFEST);
        let wanted = path == Path::new(DATABASE) || path.starts_with(&runs) || path.starts_with(REPORTS);
        if plain && wanted && entry.header().entry_type().is_file() {
            entry.unpack_in(into).with_context(said)?;
        }
    }
    anyhow::ensure!(is_bundle, "{}: not a bundle of `pipeline bundle`: there is no {MANIFEST} in it", file.display());
    Ok(())
}
