//! `pipeline gc`: files of runs that nothing needs any more.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use clap::{Args, ValueEnum};
use report::Cell;
use store::{RunFiles, Store};

use crate::{
    cli::{Global, Rows},
    exit::Exit,
    output::{self, integer, rows, text},
    runner::{run_folder, runs_folder},
};

/// What a merge unpacks into; older ones were left by a merge that was killed.
pub const SCRATCH: &str = ".merge-";
/// A merge that writes nothing for so long is over.
const STALE: Duration = Duration::from_secs(3600);

/// Remove files that nothing needs.
#[derive(Clone, Debug, Args)]
pub struct Gc {
    /// Remove them; without it they are only listed
    #[arg(long)]
    pub yes: bool,
    /// Checkpoints of runs that can go on too (interrupted, pruned, failed): they then start anew
    #[arg(long)]
    pub unfinished: bool,
    /// Final weights too, of these runs
    #[arg(long, value_enum, value_name = "WHICH")]
    pub weights: Option<Weights>,
    /// How rows are printed.
    #[command(flatten)]
    pub rows: Rows,
}

/// Runs whose final weights may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Weights {
    /// Those that were archived
    Archived,
    /// All but those of each network's best configuration, chosen on the validation part
    Losers,
    /// All
    All,
}

/// Why a file may go; nothing where it is needed.
fn reason(file: &str, run: &RunFiles, gc: &Gc) -> Option<&'static str> {
    if run.live {
        return None;
    }
    match file {
        // All others can be gone on with: `sweep`, `--resume-pruned`, `--retry-failed`.
        "checkpoint.safetensors" if run.status == "done" => Some("the run is over"),
        "checkpoint.safetensors" if gc.unfinished => Some("the run starts anew"),
        "weights.safetensors" if run.status == "done" => match gc.weights? {
            Weights::Archived => run.archived.then_some("archived"),
            Weights::Losers => (!run.best).then_some("not the best configuration"),
            Weights::All => Some("asked for"),
        },
        // What was being written when a process died.
        file if file.ends_with(".tmp") || file.contains(".part") => Some("half written"),
        _ => None,
    }
}

fn files(folder: &Path) -> Vec<(PathBuf, String, u64)> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<_> = entries
        .map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            let bytes = if entry.path().is_dir() {
                files(&entry.path()).iter().map(|(_, _, bytes)| bytes).sum()
            } else {
                entry.metadata().map_or(0, |metadata| metadata.len())
            };
            (entry.path(), name, bytes)
        })
        .collect();
    found.sort();
    found
}

fn is_stale(path: &Path) -> bool {
    let modified = std::fs::metadata(path).and_then(|metadata| metadata.modified());
    modified.is_ok_and(|time| SystemTime::now().duration_since(time).is_ok_and(|age| age > STALE))
}

/// Lists what may go, and removes it if told to.
pub fn run(gc: &Gc, global: &Global) -> anyhow::Result<Exit> {
    let store = Store::open_read_only(&global.db)?;
    // Folders before rows: a run is in the database before it has a folder, so none that is just starting is taken for lost.
    let folders = files(&runs_folder(&global.db));
    let runs: HashMap<String, RunFiles> =
        store.run_files()?.into_iter().map(|run| (run.run.to_string(), run)).collect();
    let mut found: Vec<(PathBuf, u64, &str)> = Vec::new();
    for (path, name, bytes) in folders {
        match runs.get(&name) {
            Some(run) => {
                for (path, file, bytes) in files(&run_folder(&global.db, run.run)) {
                    if let Some(reason) = reason(&file, run, gc) {
                        found.push((path, bytes, reason));
                    }
                }
            }
            None if name.starts_with(SCRATCH) && is_stale(&path) => found.push((path, bytes, "left by a merge")),
            // A folder of this program's making has a run's number; anything else is somebody's.
            None if path.is_dir() && name.parse::<i64>().is_ok() => found.push((path, bytes, "no such run")),
            None => {}
        }
    }
    let mut freed = 0;
    let mut table: Vec<Vec<Cell>> = Vec::new();
    for (path, bytes, reason) in &found {
        if gc.yes {
            let removed = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
            if let Err(error) = removed {
                output::tell(&format!("{}: {error}", path.display()));
                continue;
            }
        }
        freed += bytes;
        table.push(vec![text(path.display().to_string()), integer(*bytes), text(*reason)]);
    }
    rows(&["file", "bytes", "reason"], &table, &gc.rows)?;
    if !global.quiet {
        let size = output::bytes(usize::try_from(freed).unwrap_or(usize::MAX));
        let count = table.len();
        eprintln!(
            "{}",
            match (gc.yes, count) {
                (_, 0) => "nothing to remove".to_owned(),
                (true, _) => format!("{count} removed, {size}"),
                (false, _) => format!("{count} could be removed, {size}; --yes does it"),
            }
        );
    }
    Ok(Exit::Fine)
}
