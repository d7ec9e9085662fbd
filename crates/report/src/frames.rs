//! Rows as polars frames: what the plots are drawn from, and what is written beside the report.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

use polars::prelude::{Column, DataFrame, Expr, IntoLazy, NamedFrom, Series, SortMultipleOptions, col, len, lit};
use polars_io::SerWriter;
use polars_io::csv::write::CsvWriter;
use polars_io::parquet::write::{ParquetCompression, ParquetWriter};

use crate::ReportError;
use crate::analysis::Analysis;
use crate::importance::Importance;
use crate::mistakes::{class_name, class_names};
use crate::study::{Run, Study};

/// The frames behind a report.
#[derive(Clone, Debug)]
pub struct Frames {
    /// One row per run.
    pub runs: DataFrame,
    /// One row per run and epoch.
    pub epochs: DataFrame,
    /// One row per configuration with finished runs: n, mean and sample standard deviation of each measure.
    pub configurations: DataFrame,
    /// One row per configuration and epoch: n, mean and sample standard deviation over seeds.
    pub curves: DataFrame,
    /// One row per test between two chosen configurations.
    pub comparisons: DataFrame,
    /// One row per network and swept key.
    pub importance: DataFrame,
    /// One row per pair of true and predicted class of each chosen configuration.
    pub confusion: DataFrame,
    /// One row per image and examined run.
    pub examined: DataFrame,
}

/// The files beside a page, and what their rows are.
pub const FRAMES: [(&str, &str); 8] = [
    ("runs", "a run: settings, results, time, memory, provenance"),
    ("epochs", "an epoch of a run"),
    ("configurations", "a configuration: means and standard deviations over seeds, rank on validation"),
    ("curves", "an epoch of a configuration: means and standard deviations over seeds"),
    ("comparisons", "a test between two networks"),
    ("importance", "a swept key of a network and an objective"),
    ("confusion", "a pair of true and predicted class of a chosen configuration, over its seeds"),
    ("examined", "an image of the test part as one run's weights see it: behind calibration and worst mistakes"),
];

/// Measures that are averaged over seeds.
const MEASURES: [&str; 8] = [
    "validation_top1",
    "validation_loss",
    "test_top1",
    "test_top5",
    "test_loss",
    "generalization_gap",
    "train_seconds",
    "images_per_second",
];

/// Measures of a learning curve.
const CURVES: [&str; 5] = ["learning_rate", "train_loss", "train_top1", "validation_loss", "validation_top1"];

fn column<T>(name: &str, values: Vec<T>) -> Column
where
    Series: NamedFrom<Vec<T>, [T]>,
{
    Series::new(name.into(), values).into()
}

fn finite(value: Option<f64>) -> Option<f64> {
    value.filter(|value| value.is_finite())
}

impl Frames {
    /// Builds the frames; the aggregates are lazy group-bys over the rows.
    pub fn of(study: &Study, analysis: &Analysis<'_>) -> Result<Self, ReportError> {
        let runs = runs(study)?;
        let epochs = epochs(study)?;
        let done = || runs.clone().lazy().filter(col("status").eq(lit("done")));
        let names = DataFrame::new(
            analysis.configurations.len(),
            vec![
                column("configuration", analysis.configurations.iter().map(|c| c.key.to_owned()).collect()),
                column("network", analysis.configurations.iter().map(|c| c.network.clone()).collect::<Vec<String>>()),
                column("settings", analysis.configurations.iter().map(|c| c.settings.clone()).collect::<Vec<String>>()),
                column("rank", order(analysis)),
            ],
        )?;
        let configurations = done()
            .group_by_stable([col("configuration")])
            .agg([vec![len().alias("n")], aggregates(&MEASURES)].concat())
            .inner_join(names.lazy(), col("configuration"), col("configuration"))
            .sort(["network", "rank"], SortMultipleOptions::default())
            .collect()?;
        let curves = epochs
            .clone()
            .lazy()
            .filter(col("status").eq(lit("done")))
            .group_by_stable([col("configuration"), col("epoch")])
            .agg([vec![len().alias("n")], aggregates(&CURVES)].concat())
            .sort(["configuration", "epoch"], SortMultipleOptions::default())
            .collect()?;
        Ok(Self {
            runs,
            epochs,
            configurations,
            curves,
            comparisons: comparisons(analysis)?,
            importance: importance(analysis)?,
            confusion: confusion(study, analysis)?,
            examined: examined(study)?,
        })
    }

    /// Writes every frame as CSV and as Parquet into `folder`; returns the files' names.
    pub fn write(&self, folder: &Path) -> Result<Vec<String>, ReportError> {
        let frames = [
            &self.runs,
            &self.epochs,
            &self.configurations,
            &self.curves,
            &self.comparisons,
            &self.importance,
            &self.confusion,
            &self.examined,
        ];
        let named = || FRAMES.into_iter().map(|(name, _)| name).zip(frames);
        // The two formats of a large frame take about as long: side by side.
        let (csv, parquet) = std::thread::scope(|scope| {
            let parquet = scope.spawn(move || {
                let write = |(name, frame): (&str, &DataFrame)| {
                    let file = format!("{name}.parquet");
                    ParquetWriter::new(create(&folder.join(&file))?)
                        .with_compression(ParquetCompression::Snappy)
                        .finish(&mut frame.clone())?;
                    Ok::<_, ReportError>(file)
                };
                named().map(write).collect::<Result<Vec<String>, ReportError>>()
            });
            let write = |(name, frame): (&str, &DataFrame)| {
                let file = format!("{name}.csv");
                CsvWriter::new(create(&folder.join(&file))?).include_header(true).finish(&mut frame.clone())?;
                Ok(file)
            };
            let csv = named().map(write).collect::<Result<Vec<String>, ReportError>>();
            (csv, parquet.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        });
        let mut files = csv?;
        files.extend(parquet?);
        Ok(files)
    }
}

fn create(path: &Path) -> Result<BufWriter<File>, ReportError> {
    let file = File::create(path).map_err(|source| ReportError::Write { path: path.to_owned(), source })?;
    Ok(BufWriter::new(file))
}

/// Place of each configuration within its network by validation, from 1.
fn order(analysis: &Analysis<'_>) -> Vec<u32> {
    let mut places: BTreeMap<&str, u32> = BTreeMap::new();
    analysis
        .configurations
        .iter()
        .map(|configuration| {
            let place = places.entry(&configuration.network).or_default();
            *place += 1;
            *place
        })
        .collect()
}

fn aggregates(measures: &[&str]) -> Vec<Expr> {
    measures
        .iter()
        .flat_map(|measure| {
            [
                col(*measure).mean().alias(format!("{measure}_mean")),
                col(*measure).std(1).alias(format!("{measure}_std")),
            ]
        })
        .collect()
}

fn runs(study: &Study) -> Result<DataFrame, ReportError> {
    let all = &study.runs;
    let reals = |name: &str, of: &dyn Fn(&Run) -> Option<f64>| {
        column(name, all.iter().map(|run| finite(of(run))).collect::<Vec<Option<f64>>>())
    };
    let texts = |name: &str, of: &dyn Fn(&Run) -> String| column(name, all.iter().map(of).collect::<Vec<String>>());
    let mut columns = vec![
        column("run", all.iter().map(|run| run.id).collect::<Vec<i64>>()),
        texts("experiment", &|run| run.experiment.clone()),
        texts("trial", &|run| run.trial.clone()),
        texts("configuration", &|run| run.configuration.clone()),
        column("variant", all.iter().map(|run| run.variant.clone()).collect::<Vec<Option<String>>>()),
        texts("architecture", &|run| run.architecture.clone()),
        column("seed", all.iter().map(|run| run.seed).collect::<Vec<u64>>()),
        texts("status", &|run| run.status.name().to_owned()),
        column("parameters", all.iter().map(|run| run.parameters).collect::<Vec<Option<u64>>>()),
        column("macs_per_image", all.iter().map(|run| run.macs_per_image).collect::<Vec<Option<u64>>>()),
        column("epochs", all.iter().map(|run| run.epochs.len() as u64).collect::<Vec<u64>>()),
        column("tested_epoch", all.iter().map(|run| run.tested_epoch().map(|e| e.epoch)).collect::<Vec<Option<u32>>>()),
        reals("train_top1", &|run| run.tested_epoch().map(|epoch| epoch.train_top1)),
        reals("validation_top1", &Run::validation_top1),
        reals("validation_loss", &|run| run.tested_epoch()?.validation_loss),
        reals("test_top1", &|run| Some(run.test?.top1)),
        reals("test_top5", &|run| run.test?.top5),
        reals("test_loss", &|run| Some(run.test?.loss)),
        reals("generalization_gap", &Run::test_gap),
        reals("train_seconds", &Run::train_seconds),
        reals("images_per_second", &Run::images_per_second),
        column("step_memory_bytes", all.iter().map(|run| run.step_memory_bytes).collect::<Vec<Option<u64>>>()),
        column("peak_memory_bytes", all.iter().map(|run| run.peak_memory_bytes).collect::<Vec<Option<u64>>>()),
        texts("device", &|run| run.provenance.device.clone()),
        column("threads", all.iter().map(|run| run.provenance.threads).collect::<Vec<Option<u32>>>()),
        texts("commit", &|run| run.provenance.commit.clone()),
        texts("data_fingerprint", &|run| run.provenance.data_fingerprint.clone()),
        texts("command", &|run| run.provenance.command.clone()),
        column("error", all.iter().map(|run| run.error.clone()).collect::<Vec<Option<String>>>()),
    ];
    // Swept keys are columns of their own: numbers where all values are numbers.
    let mut keys: Vec<&str> = all.iter().flat_map(|run| run.assignments.iter().map(|(key, _)| key.as_str())).collect();
    keys.sort_unstable();
    keys.dedup();
    // Of several experiments, the name is a column already.
    keys.retain(|key| *key != "experiment");
    for key in keys {
        let value = |run: &Run| run.assignments.iter().find(|(name, _)| name == key).map(|(_, value)| value.clone());
        if all.iter().filter_map(value).all(|value| value.is_number()) {
            columns.push(reals(key, &|run| value(run)?.as_f64()));
        } else {
            let words: Vec<Option<String>> =
                all.iter().map(|run| value(run).map(|value| crate::naming::value(&value))).collect();
            columns.push(column(key, words));
        }
    }
    Ok(DataFrame::new(all.len(), columns)?)
}

fn epochs(study: &Study) -> Result<DataFrame, ReportError> {
    let rows: Vec<(&Run, &crate::study::Epoch)> =
        study.runs.iter().flat_map(|run| run.epochs.iter().map(move |epoch| (run, epoch))).collect();
    let reals = |name: &str, of: &dyn Fn(&crate::study::Epoch) -> Option<f64>| {
        column(name, rows.iter().map(|(_, epoch)| finite(of(epoch))).collect::<Vec<Option<f64>>>())
    };
    let columns = vec![
        column("run", rows.iter().map(|(run, _)| run.id).collect::<Vec<i64>>()),
        column("configuration", rows.iter().map(|(run, _)| run.configuration.as_str()).collect::<Vec<&str>>()),
        column("architecture", rows.iter().map(|(run, _)| run.architecture.as_str()).collect::<Vec<&str>>()),
        column("seed", rows.iter().map(|(run, _)| run.seed).collect::<Vec<u64>>()),
        column("status", rows.iter().map(|(run, _)| run.status.name()).collect::<Vec<&str>>()),
        column("epoch", rows.iter().map(|(_, epoch)| epoch.epoch).collect::<Vec<u32>>()),
        reals("learning_rate", &|epoch| Some(epoch.learning_rate)),
        reals("train_loss", &|epoch| Some(epoch.train_loss)),
        reals("train_top1", &|epoch| Some(epoch.train_top1)),
        reals("validation_loss", &|epoch| epoch.validation_loss),
        reals("validation_top1", &|epoch| epoch.validation_top1),
        reals("images_per_second", &|epoch| Some(epoch.images_per_second)),
        reals("epoch_seconds", &|epoch| Some(epoch.epoch_seconds)),
    ];
    Ok(DataFrame::new(rows.len(), columns)?)
}

fn comparisons(analysis: &Analysis<'_>) -> Result<DataFrame, ReportError> {
    struct Row {
        pair: [String; 2],
        test: &'static str,
        seed: Option<u64>,
        difference: Option<f64>,
        interval: Option<(f64, f64)>,
        p: f64,
        p_holm: Option<f64>,
        cohens_d: Option<f64>,
    }
    let mut rows = Vec::new();
    for comparison in &analysis.comparisons {
        let pair = [comparison.first, comparison.second].map(|index| analysis.configurations[index].network.clone());
        let row = |test, p| Row {
            pair: pair.clone(),
            test,
            seed: None,
            difference: None,
            interval: None,
            p,
            p_holm: None,
            cohens_d: None,
        };
        rows.extend(comparison.paired.map(|test| Row {
            difference: Some(test.mean_difference),
            interval: Some(test.interval),
            p_holm: comparison.adjusted_p,
            cohens_d: Some(test.cohens_d),
            ..row("paired t", test.p)
        }));
        rows.extend(comparison.welch.map(|test| Row {
            difference: Some(test.mean_difference),
            interval: Some(test.interval),
            p_holm: comparison.adjusted_p,
            ..row("Welch t", test.p)
        }));
        rows.extend(comparison.wilcoxon.map(|test| row("Wilcoxon signed rank", test.p)));
        let mcnemar = comparison.mcnemar.iter();
        rows.extend(mcnemar.map(|(seed, test, p)| Row {
            seed: Some(*seed),
            p_holm: Some(*p),
            ..row("McNemar", test.p)
        }));
    }
    let texts = |of: &dyn Fn(&Row) -> String| rows.iter().map(of).collect::<Vec<String>>();
    let reals = |of: &dyn Fn(&Row) -> Option<f64>| rows.iter().map(|row| finite(of(row))).collect::<Vec<Option<f64>>>();
    let columns = vec![
        column("first", texts(&|row| row.pair[0].clone())),
        column("second", texts(&|row| row.pair[1].clone())),
        column("test", texts(&|row| row.test.to_owned())),
        column("seed", rows.iter().map(|row| row.seed).collect::<Vec<Option<u64>>>()),
        column("difference", reals(&|row| row.difference)),
        column("interval_low", reals(&|row| Some(row.interval?.0))),
        column("interval_high", reals(&|row| Some(row.interval?.1))),
        column("p", reals(&|row| Some(row.p))),
        column("p_holm", reals(&|row| row.p_holm)),
        column("cohens_d", reals(&|row| row.cohens_d)),
    ];
    Ok(DataFrame::new(rows.len(), columns)?)
}

fn importance(analysis: &Analysis<'_>) -> Result<DataFrame, ReportError> {
    let all = &analysis.importance;
    let reals = |of: &dyn Fn(&Importance) -> Option<f64>| all.iter().map(of).collect::<Vec<Option<f64>>>();
    let columns = vec![
        column("network", all.iter().map(|i| i.network.clone()).collect::<Vec<String>>()),
        column("objective", all.iter().map(|i| i.objective.name().to_owned()).collect::<Vec<String>>()),
        column("key", all.iter().map(|i| i.key.clone()).collect::<Vec<String>>()),
        column("values", all.iter().map(|i| i.values as u64).collect::<Vec<u64>>()),
        column("variance_explained", reals(&|i| i.shares.variance)),
        column("variance_explained_by_chance", reals(&|i| i.shares.variance_by_chance)),
        column("ped_anova", reals(&|i| i.shares.best)),
        column("ped_anova_by_chance", reals(&|i| i.shares.best_by_chance)),
    ];
    Ok(DataFrame::new(all.len(), columns)?)
}

fn confusion(study: &Study, analysis: &Analysis<'_>) -> Result<DataFrame, ReportError> {
    let mut counts: BTreeMap<(&str, u16, u16), u64> = BTreeMap::new();
    let mut networks = Vec::new();
    let (mut actual, mut predicted, mut images) = (Vec::new(), Vec::new(), Vec::new());
    for chosen in analysis.chosen() {
        counts.clear();
        for predictions in chosen.done.iter().filter_map(|run| study.predictions.get(&run.id)) {
            if predictions.correct().is_some() {
                for (&actual, &predicted) in predictions.actual.iter().zip(&predictions.predicted) {
                    *counts.entry((&chosen.network, actual, predicted)).or_default() += 1;
                }
            }
        }
        let classes = class_names(study, chosen);
        for (&(network, is, said), &count) in &counts {
            networks.push(network.to_owned());
            actual.push(class_name(classes, is.into()));
            predicted.push(class_name(classes, said.into()));
            images.push(count);
        }
    }
    let columns = vec![
        column("network", networks),
        column("actual", actual),
        column("predicted", predicted),
        column("images", images.clone()),
    ];
    Ok(DataFrame::new(images.len(), columns)?)
}

fn examined(study: &Study) -> Result<DataFrame, ReportError> {
    let all = || study.examinations.iter();
    let runs: Vec<i64> = all().flat_map(|(run, examination)| examination.places.iter().map(|_| *run)).collect();
    let columns = vec![
        column("run", runs.clone()),
        column("place", all().flat_map(|(_, e)| e.places.clone()).collect::<Vec<u32>>()),
        column("actual", all().flat_map(|(_, e)| e.actual.iter().map(|c| u32::from(*c))).collect::<Vec<u32>>()),
        column("predicted", all().flat_map(|(_, e)| e.predicted.iter().map(|c| u32::from(*c))).collect::<Vec<u32>>()),
        column("confidence", all().flat_map(|(_, e)| e.confidence.clone()).collect::<Vec<f64>>()),
        column("probability_of_truth", all().flat_map(|(_, e)| e.probability_of_truth.clone()).collect::<Vec<f64>>()),
    ];
    Ok(DataFrame::new(runs.len(), columns)?)
}

/// One point of a learning curve: mean over seeds and, for two seeds and more, the sample standard deviation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Epoch, from 1.
    pub epoch: u32,
    /// Mean.
    pub mean: f64,
    /// Standard deviation; 0 for one seed.
    pub std: f64,
}

/// Learning curves by configuration and measure, read out of [`Frames::curves`].
#[derive(Clone, Debug, Default)]
pub struct Curves(BTreeMap<String, BTreeMap<&'static str, Vec<Point>>>);

impl Curves {
    /// Reads the curves out of the frame.
    pub fn of(frames: &Frames) -> Result<Self, ReportError> {
        let frame = &frames.curves;
        let configuration = frame.column("configuration")?.str()?.clone();
        let epoch = frame.column("epoch")?.u32()?.clone();
        let mut curves: BTreeMap<String, BTreeMap<&'static str, Vec<Point>>> = BTreeMap::new();
        for measure in CURVES {
            let mean = frame.column(&format!("{measure}_mean"))?.f64()?.clone();
            let std = frame.column(&format!("{measure}_std"))?.f64()?.clone();
            for row in 0..frame.height() {
                let (Some(key), Some(epoch), Some(mean)) = (configuration.get(row), epoch.get(row), mean.get(row))
                else {
                    continue;
                };
                if !curves.contains_key(key) {
                    curves.insert(key.to_owned(), BTreeMap::new());
                }
                let point = Point { epoch, mean, std: std.get(row).unwrap_or(0.0) };
                if let Some(measures) = curves.get_mut(key) {
                    measures.entry(measure).or_default().push(point);
                }
            }
        }
        Ok(Self(curves))
    }

    /// The curve of a measure (`train_loss`, `validation_top1`, …); empty where nothing was measured.
    pub fn get(&self, configuration: &str, measure: &str) -> &[Point] {
        self.0.get(configuration).and_then(|measures| measures.get(measure)).map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::study::{Epoch, Evaluation};

    #[test]
    fn aggregates_agree_with_hand_calculations() {
        let run = |id: i64, seed: u64, test: f64, top1: f64| Run {
            id,
            seed,
            configuration: "c".into(),
            architecture: "lenet5".into(),
            epochs: vec![Epoch { epoch: 1, validation_top1: Some(top1), ..Epoch::default() }],
            test: Some(Evaluation { top1: test, ..Evaluation::default() }),
            ..Run::default()
        };
        let study = Study { runs: vec![run(1, 1, 0.90, 0.8), run(2, 2, 0.94, 0.9)], ..Study::default() };
        let analysis = Analysis::of(&study);
        let frames = Frames::of(&study, &analysis).unwrap();
        let value = |name: &str| frames.configurations.column(name).unwrap().f64().unwrap().get(0).unwrap();
        assert!((value("test_top1_mean") - 0.92).abs() < 1e-12);
        assert!((value("test_top1_std") - 0.04 / 2.0_f64.sqrt()).abs() < 1e-12);
        let curves = Curves::of(&frames).unwrap();
        let [point] = curves.get("c", "validation_top1") else { panic!("one point") };
        assert!((point.mean - 0.85).abs() < 1e-12 && (point.std - 0.1 / 2.0_f64.sqrt()).abs() < 1e-12);
        assert!(curves.get("c", "validation_loss").is_empty());
    }
}
