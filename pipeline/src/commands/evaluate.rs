//! `pipeline evaluate`: a run's final weights on any images.

use std::path::Path;

use ::plan::Experiment;
use ::train::{Assessment, Views};
use anyhow::Context;
use report::Cell;
use store::Store;

use crate::{
    cli::{self, Format, Global, Rows},
    data,
    exit::Exit,
    output::{Table, integer, tables, text},
    runner,
    trained::Run,
};

/// Pairs of classes that `--details` shows.
const CONFUSED: usize = 20;

/// Evaluates and prints the metrics.
pub fn run(evaluate: &cli::Evaluate, global: &Global) -> anyhow::Result<Exit> {
    let cli::Evaluate { run, split, data, overrides, ten_crop, details, confusion, device, rows: to, threads } =
        evaluate;
    anyhow::ensure!(
        !details || !matches!(to.format, Format::Csv | Format::Parquet),
        "--details prints several tables, which csv and parquet cannot hold: use --format table, markdown or json, or --confusion FILE"
    );
    let stop = runner::stop_on_interrupt()?;
    let stored = Run::find(&Store::open_read_only(&global.db)?, *run, &global.db)?;
    // The network sees of other images what it saw of its own: the crop is the run's.
    let (dataset, augment, place, file) = match data {
        Some(file) => {
            let experiment = Experiment::load(file, overrides)?;
            let trial = experiment.trials().into_iter().next().context("the experiment has no trials")?;
            let place = trial.settings.train.device;
            (trial.settings.dataset, stored.canonical_settings()?.augment, place, file.as_path())
        }
        None => {
            let own = stored.settings(overrides)?;
            (own.dataset, own.augment, own.train.device, stored.file.as_path())
        }
    };
    let device = cli::Device::or(*device, place)?;
    let prepared = data::prepare(&dataset, global, file)?;
    if prepared.manifest().fingerprint != stored.fingerprint && !global.quiet {
        eprintln!("note: this is not the data set that run {run} was trained on");
    }
    let loader = dataset::Loader::new(&prepared, &augment).map_err(|error| data::in_file(error, file))?;
    let splits = prepared.splits(&dataset);
    let (name, indices) = match split {
        cli::Split::Train => ("train", splits.train),
        cli::Split::Validation => ("validation", splits.validation),
        cli::Split::Test => ("test", splits.test),
    };
    anyhow::ensure!(!indices.is_empty(), "the {name} split of this data set is empty");
    let (card, variables) = ::train::load_weights(&stored.weights)?;
    if *ten_crop && card.image.is_none_or(|[h, w]| [h, w] == card.input[1..]) && !global.quiet {
        eprintln!(
            "note: the network sees the whole image (no augment.crop), so that the ten views are two: it and its mirror image"
        );
    }
    let views = if *ten_crop { Views::Ten } else { Views::Center };
    let Some(assessment) = ::train::assess(&card, variables, &loader, &indices, views, &device, *threads, stop)? else {
        return Ok(Exit::Interrupted);
    };
    let classes = &prepared.manifest().classes;
    let evaluation = assessment.evaluation();
    let mut row = vec![
        Cell::Integer(*run),
        text(name),
        integer(indices.len()),
        integer(if *ten_crop { 10 } else { 1 }),
        Cell::Real(evaluation.loss),
        Cell::Real(evaluation.top1),
        Cell::Real(evaluation.top5),
        Cell::Real(assessment.calibration_error()),
    ];
    row.extend(assessment.macro_scores().map(Cell::Real));
    let columns = [
        "run",
        "split",
        "images",
        "views",
        "loss",
        "top1",
        "top5",
        "calibration_error",
        "macro_precision",
        "macro_recall",
        "macro_f1",
    ];
    let mut out = vec![Table { name: "summary", columns: &columns, rows: vec![row] }];
    if *details {
        out.extend(detailed(&assessment, classes));
    }
    if let Some(path) = confusion {
        write_confusion(path, &assessment, classes)?;
    }
    tables(&out, to)?;
    Ok(Exit::Fine)
}

/// Scores of each class, and the most frequent mistakes.
fn detailed(assessment: &Assessment, classes: &[String]) -> [Table<'static>; 2] {
    let share = |value: Option<f64>| value.map_or(Cell::Null, Cell::Real);
    let scores = classes.iter().zip(assessment.class_scores()).map(|(class, scores)| {
        let shares = [scores.precision, scores.recall, scores.f1].map(share);
        [vec![text(class.clone())], shares.to_vec(), vec![integer(scores.support)]].concat()
    });
    let confused = assessment.most_confused(CONFUSED).into_iter().map(|pair| {
        let names = [pair.class, pair.predicted].map(|class| text(classes[class].clone()));
        [names.to_vec(), vec![integer(pair.images), Cell::Real(pair.share)]].concat()
    });
    [
        Table { name: "classes", columns: &["class", "precision", "recall", "f1", "support"], rows: scores.collect() },
        Table {
            name: "most_confused",
            columns: &["class", "predicted", "images", "share_of_class"],
            rows: confused.collect(),
        },
    ]
}

/// Writes the confusion matrix: a row for each true class, a column for each predicted one.
fn write_confusion(path: &Path, assessment: &Assessment, classes: &[String]) -> anyhow::Result<()> {
    let columns: Vec<&str> = std::iter::once("class").chain(classes.iter().map(String::as_str)).collect();
    let rows = classes.iter().zip(assessment.confusion().chunks_exact(classes.len()));
    let rows = rows.map(|(class, counts)| {
        let counts = counts.iter().map(|&count| integer(count));
        std::iter::once(text(class.clone())).chain(counts).collect()
    });
    let matrix = Table { name: "confusion", columns: &columns, rows: rows.collect() };
    tables(&[matrix], &Rows { format: Format::Csv, out: Some(path.to_owned()) })
}
