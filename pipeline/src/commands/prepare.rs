//! `pipeline prepare`: decode, resize and pack a data set once, and download it before that if asked to.

use ::plan::{Dataset, Experiment};
use anyhow::{Context, bail};
use report::Cell;

use crate::{
    cli::{Format, Global, Prepare, Rows},
    data, exit,
    exit::Exit,
    output::{self, integer, rows, text},
    public,
};

/// Prepares every data set that the trials of an experiment use, or a public one.
pub fn run(asked: &Prepare, global: &Global) -> anyhow::Result<Exit> {
    exit::on_interrupt()?;
    let plan = experiment(asked)?;
    let file = asked.source.as_path();
    let mut seen: Vec<Dataset> = Vec::new();
    for trial in plan.trials() {
        let settings = &trial.settings.dataset;
        if seen.contains(settings) {
            continue;
        }
        if asked.download {
            public::asked(file, settings)
                .and_then(|(set, folder)| public::fetch(set, &folder, asked.base_url.as_deref(), global))
                .with_context(|| file.display().to_string())?;
        }
        let prepared = data::prepare(settings, global, file)?;
        if asked.verify {
            prepared.verify().map_err(|error| data::in_file(error, file))?;
        }
        let m = prepared.manifest();
        let splits = prepared.splits(settings);
        let per_channel = |values: &[f64]| values.iter().map(|v| format!("{v:.4}")).collect::<Vec<_>>().join(" ");
        let line = |name: &str, value: Cell| vec![text(name), value];
        let mut table = vec![line("data set", text(prepared.folder().display().to_string()))];
        if let Some(path) = &settings.path {
            table.push(line("dataset.source", text(serde_json::to_string(&settings.source)?)));
            table.push(line("dataset.path", text(serde_json::to_string(path)?)));
        }
        table.extend([
            line("fingerprint", text(m.fingerprint.clone())),
            line("images", text(format!("{}×{}×{}", m.channels, m.height, m.width))),
            line("classes", text(m.classes.join(" "))),
            line("training images", integer(splits.train.len())),
            line("validation images", integer(splits.validation.len())),
            line("test images", integer(splits.test.len())),
            line("mean of each channel", text(per_channel(&m.mean))),
            line("deviation of each channel", text(per_channel(&m.std))),
        ]);
        if asked.verify {
            table.push(line("verified", text("every image has its part in the fingerprint")));
        }
        rows(&["", "value"], &table, &Rows { format: Format::Table, out: None })?;
        if let (Some(path), true) = (&asked.preview, seen.is_empty()) {
            let sheet = dataset::preview(&prepared, &trial.settings.augment, trial.seed)
                .map_err(|error| data::in_file(error, file))?;
            output::write_whole(path, &sheet).with_context(|| format!("cannot write {}", path.display()))?;
            output::line(&format!("drew {}", path.display()))?;
        }
        seen.push(settings.clone());
    }
    Ok(Exit::Fine)
}

/// The experiment of a file, or one made for the public set of that name.
fn experiment(asked: &Prepare) -> anyhow::Result<Experiment> {
    let name = asked.source.to_str().unwrap_or_default();
    if asked.source.is_file() {
        if asked.to.is_some() {
            bail!("--to: is for a public data set by its name; an experiment file says it by dataset.path");
        }
        return Ok(Experiment::load(&asked.source, &asked.overrides)?);
    }
    if let Some(set) = download::find(name) {
        return public::experiment(set, asked.to.as_deref(), &asked.overrides);
    }
    if !asked.source.exists() && asked.source.extension().is_none() {
        bail!("{name}: no such file, and no public data set; those are {}", public::names());
    }
    Ok(Experiment::load(&asked.source, &asked.overrides)?)
}
