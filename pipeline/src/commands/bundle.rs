//! `pipeline bundle`: experiments in one archive that another machine takes over with `pipeline merge`.

use std::{
    fs::File,
    path::{Path, PathBuf},
};

use anyhow::Context;
use clap::Args;
use flate2::{Compression, write::GzEncoder};
use store::{Fate, Store};

use crate::{
    cli::Global,
    commands::{
        merge::Scratch,
        report::{REPORTS, folder},
    },
    exit::Exit,
    output,
    runner::run_folder,
};

/// Version of the archive's layout.
const FORMAT: u32 = 1;
/// The database in the archive; the runs' files are beside it, as always.
pub const DATABASE: &str = "results.db";
/// What says that it is a bundle.
pub const MANIFEST: &str = "bundle.json";

/// Write experiments into one archive.
#[derive(Clone, Debug, Args)]
pub struct Bundle {
    /// Names of experiments
    #[arg(required = true, value_name = "EXPERIMENT")]
    pub experiments: Vec<String>,
    /// The archive
    #[arg(long, value_name = "FILE.tar.gz")]
    pub out: PathBuf,
    /// Leave weights and checkpoints out
    #[arg(long)]
    pub no_weights: bool,
}

/// Writes the archive: rows, experiment files, reports, weights.
pub fn run(bundle: &Bundle, global: &Global) -> anyhow::Result<Exit> {
    let store = Store::open_read_only(&global.db)?;
    let scratch = Scratch::beside(&bundle.out)?;
    let db = scratch.path().join(DATABASE);
    let names: Vec<&str> = bundle.experiments.iter().map(String::as_str).collect();
    let merged = {
        let copy = Store::open(&db)?;
        copy.merge(&store, Some(&names), &|run, path| moved(Path::new(DATABASE), run, path), true)?
    };
    let mut archive = tar::Builder::new(GzEncoder::new(
        File::create(scratch.path().join("archive")).context("cannot write the archive")?,
        Compression::fast(),
    ));
    let manifest = serde_json::json!({
        "format": FORMAT,
        "program": format!("pipeline {} ({})", env!("CARGO_PKG_VERSION"), env!("PIPELINE_COMMIT")),
        "experiments": bundle.experiments,
    });
    append(&mut archive, MANIFEST, format!("{manifest:#}\n").as_bytes())?;
    archive.append_path_with_name(&db, DATABASE)?;
    for experiment in store.experiments()?.iter().filter(|experiment| names.contains(&experiment.name.as_str())) {
        let name = folder(std::slice::from_ref(&experiment.name));
        append(&mut archive, &format!("experiments/{name}.toml"), experiment.config_toml.as_bytes())?;
        let report = Path::new(REPORTS).join(&name);
        if report.join("report.html").is_file() {
            archive.append_dir_all(format!("{REPORTS}/{name}"), &report)?;
        }
    }
    let mut files = 0;
    for run in merged.runs.iter().filter(|_| !bundle.no_weights) {
        let (Some(here), Fate::New) = (run.here, run.fate) else { continue };
        for file in kept(&run_folder(&global.db, run.there)) {
            let name = run_folder(Path::new(DATABASE), here).join(file.file_name().unwrap_or_default());
            archive.append_path_with_name(&file, name)?;
            files += 1;
        }
    }
    archive.into_inner()?.finish()?.sync_all()?;
    std::fs::rename(scratch.path().join("archive"), &bundle.out)
        .with_context(|| format!("cannot write {}", bundle.out.display()))?;
    let running = merged.count(Fate::Running);
    if running > 0 && !global.quiet {
        eprintln!("left out {}", output::counted(running, "running run"));
    }
    let bytes = std::fs::metadata(&bundle.out)?.len();
    output::line(&format!(
        "{}: {}, {}, {} of weights, {}",
        bundle.out.display(),
        output::counted(merged.experiments.len(), "experiment"),
        output::counted(merged.count(Fate::New), "run"),
        output::counted(files, "file"),
        output::bytes(usize::try_from(bytes)?)
    ))?;
    Ok(Exit::Fine)
}

fn append(archive: &mut tar::Builder<GzEncoder<File>>, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    Ok(archive.append_data(&mut header, name, bytes)?)
}

/// Files of a run that are worth keeping: its weights, or the checkpoint that it goes on from.
pub fn kept(folder: &Path) -> Vec<PathBuf> {
    let weights = folder.join("weights.safetensors");
    let checkpoint = folder.join("checkpoint.safetensors");
    [weights, checkpoint].into_iter().find(|file| file.is_file()).into_iter().collect()
}

/// Where a run's file is once the run has another number in another database.
pub fn moved(db: &Path, run: store::RunId, path: &str) -> String {
    let name = Path::new(path).file_name().unwrap_or_default();
    run_folder(db, run).join(name).display().to_string()
}
