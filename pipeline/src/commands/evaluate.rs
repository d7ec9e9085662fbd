//! `pipeline evaluate`: a run's final weights on any images.

use std::path::{Path, PathBuf};

use ::plan::{Experiment, Settings};
use anyhow::Context;
use report::Cell;
use store::{Store, Value};

use crate::{
    cli::{Global, Rows, Split},
    data,
    exit::Exit,
    output::{integer, rows},
    runner,
};

/// Which images to evaluate on.
pub struct Images<'a> {
    /// Part of the data set.
    pub split: Split,
    /// Experiment file that names another data set.
    pub file: Option<&'a Path>,
    /// Overrides of its, or the run's, settings.
    pub overrides: &'a [String],
}

/// What the database knows of a run.
struct Stored {
    canonical: String,
    file: PathBuf,
    toml: String,
    fingerprint: String,
    weights: PathBuf,
}

fn stored(store: &Store, run: i64) -> anyhow::Result<Stored> {
    let sql = "SELECT t.canonical, e.file, e.config_toml, t.data_fingerprint, r.checkpoint, r.status \
               FROM runs AS r JOIN trials AS t ON t.identity = r.identity \
               JOIN experiments AS e ON e.experiment_id = r.experiment_id WHERE r.run_id = ?1";
    let table = store.query(sql, &[Value::Integer(run)])?;
    let row = table.rows.into_iter().next().with_context(|| format!("no run {run}: see `pipeline query trials`"))?;
    let [canonical, file, toml, fingerprint, checkpoint, status] =
        <[String; 6]>::try_from(row.iter().map(ToString::to_string).collect::<Vec<_>>()).expect("six columns were asked for");
    anyhow::ensure!(status == "done", "run {run} is {status}: only a run that is done has final weights");
    Ok(Stored { canonical, file: file.into(), toml, fingerprint, weights: checkpoint.into() })
}

/// The run's settings, from its canonical form; the path of its data from the experiment as it was recorded.
fn settings(stored: &Stored, overrides: &[String]) -> anyhow::Result<Settings> {
    let mut document: serde_json::Value = serde_json::from_str(&stored.canonical)?;
    document.as_object_mut().context("a trial's canonical form is an object")?.remove("seed");
    let mut settings: Settings = serde_json::from_value(document)?;
    let experiment = Experiment::parse(&stored.toml, &stored.file, overrides)?;
    settings.dataset.path = experiment.trials().into_iter().find_map(|trial| trial.settings.dataset.path);
    Ok(settings)
}

/// Evaluates and prints the metrics.
pub fn run(run: i64, images: Images, to: &Rows, threads: usize, global: &Global) -> anyhow::Result<Exit> {
    let stop = runner::stop_on_interrupt()?;
    let stored = stored(&Store::open_read_only(&global.db)?, run)?;
    let own = settings(&stored, images.overrides)?;
    let (dataset, file) = match images.file {
        Some(file) => {
            let experiment = Experiment::load(file, images.overrides)?;
            let trial = experiment.trials().into_iter().next().context("the experiment has no trials")?;
            (trial.settings.dataset, file)
        }
        None => (own.dataset, stored.file.as_path()),
    };
    let prepared = data::prepare(&dataset, global, file)?;
    if prepared.manifest().fingerprint != stored.fingerprint && !global.quiet {
        eprintln!("note: this is not the data set that run {run} was trained on");
    }
    let loader = dataset::Loader::new(&prepared, &own.augment).map_err(|error| data::in_file(error, file))?;
    let splits = prepared.splits(&dataset);
    let (name, indices) = match images.split {
        Split::Train => ("train", splits.train),
        Split::Validation => ("validation", splits.validation),
        Split::Test => ("test", splits.test),
    };
    anyhow::ensure!(!indices.is_empty(), "the {name} split of this data set is empty");
    let (card, variables) = ::train::load_weights(&stored.weights)?;
    let Some(evaluation) = ::train::evaluate(&card, variables, &loader, &indices, threads, stop)? else {
        return Ok(Exit::Interrupted);
    };
    let row = vec![
        Cell::Integer(run),
        crate::output::text(name),
        integer(indices.len()),
        Cell::Real(evaluation.loss),
        Cell::Real(evaluation.top1),
        Cell::Real(evaluation.top5),
    ];
    rows(&["run", "split", "images", "loss", "top1", "top5"], &[row], to)?;
    Ok(Exit::Fine)
}
