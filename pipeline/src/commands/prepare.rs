//! `pipeline prepare`: decode, resize and pack a data set once.

use std::path::Path;

use ::plan::{Dataset, Experiment};
use report::Cell;

use crate::{
    cli::{self, Format, Global, Rows},
    data,
    exit::Exit,
    output::{self, integer, rows, text},
};

/// Prepares every data set that the experiment's trials use.
pub fn run(experiment: &cli::Experiment, preview: Option<&Path>, global: &Global) -> anyhow::Result<Exit> {
    let plan = Experiment::load(&experiment.file, &experiment.overrides)?;
    let mut seen: Vec<Dataset> = Vec::new();
    for trial in plan.trials() {
        let settings = &trial.settings.dataset;
        if seen.contains(settings) {
            continue;
        }
        let prepared = data::prepare(settings, global, &experiment.file)?;
        let m = prepared.manifest();
        let splits = prepared.splits(settings);
        let per_channel = |values: &[f64]| values.iter().map(|v| format!("{v:.4}")).collect::<Vec<_>>().join(" ");
        let line = |name: &str, value: Cell| vec![text(name), value];
        let table = [
            line("data set", text(prepared.folder().display().to_string())),
            line("fingerprint", text(m.fingerprint.clone())),
            line("images", text(format!("{}×{}×{}", m.channels, m.height, m.width))),
            line("classes", text(m.classes.join(" "))),
            line("training images", integer(splits.train.len())),
            line("validation images", integer(splits.validation.len())),
            line("test images", integer(splits.test.len())),
            line("mean of each channel", text(per_channel(&m.mean))),
            line("deviation of each channel", text(per_channel(&m.std))),
        ];
        rows(&["", "value"], &table, &Rows { format: Format::Table, out: None })?;
        if let (Some(path), true) = (preview, seen.is_empty()) {
            dataset::preview(&prepared, &trial.settings.augment, trial.seed, path)
                .map_err(|error| data::in_file(error, &experiment.file))?;
            output::line(&format!("drew {}", path.display()))?;
        }
        seen.push(settings.clone());
    }
    Ok(Exit::Fine)
}
