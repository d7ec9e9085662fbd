//! From the database to files.

use std::fs;
use std::path::{Path, PathBuf};

use store::Store;

use crate::ReportError;
use crate::analysis::Analysis;
use crate::frames::{Curves, Frames};
use crate::page;
use crate::plots::{Plots, Scene};
use crate::source::{self, Truth};
use crate::study::{Status, Study};

/// What was written, and what to say on the terminal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The self-contained page.
    pub html: PathBuf,
    /// The same as Markdown, beside the folder `plots`.
    pub markdown: PathBuf,
    /// The plots as SVG.
    pub plots: Vec<PathBuf>,
    /// The frames behind them, as CSV and Parquet.
    pub frames: Vec<PathBuf>,
    /// The answer and the comparison as plain text: aligned, ends with a newline.
    pub summary: String,
}

/// Colours of a plot that stands alone: those of the page around it are out of reach.
const ALONE: &str = "<style>svg{color:#1b1f24}.ground{fill:#fff}@media (prefers-color-scheme:dark){svg{color:#e6e9ed}\
                     .ground{fill:#15181c}}</style>\n<rect class=\"ground\" width=\"100%\" height=\"100%\"/>\n";

/// Writes `report.html`, `report.md`, `plots/*.svg` and `frames/*` of these experiments into the folder `out`, which is made
/// where it does not exist. Without true labels there is no McNemar test and no confusion matrix: see [`write_with`].
///
/// # Errors
/// An unknown experiment, no finished run (then nothing is written), a file that cannot be written.
pub fn write(store: &Store, experiments: &[String], out: &Path) -> Result<Written, ReportError> {
    write_with(store, experiments, out, &|_| None)
}

/// [`write()`], with the true classes of the test part by data fingerprint, which the database does not hold.
///
/// # Errors
/// As [`write()`].
pub fn write_with(
    store: &Store,
    experiments: &[String],
    out: &Path,
    truth: &dyn Fn(&str) -> Option<Truth>,
) -> Result<Written, ReportError> {
    let mut study = source::study(store, experiments)?;
    let compared: Vec<i64> =
        Analysis::of(&study).chosen().flat_map(|chosen| chosen.done.iter().map(|run| run.id)).collect();
    source::predictions(store, &mut study, &compared, truth)?;
    write_study(&study, out)
}

/// Writes the report of rows that are already in memory.
///
/// # Errors
/// No finished run (then nothing is written), a file that cannot be written.
pub fn write_study(study: &Study, out: &Path) -> Result<Written, ReportError> {
    if !study.runs.iter().any(|run| run.status == Status::Done) {
        let names: Vec<String> = study.experiments.iter().map(|experiment| format!("`{}`", experiment.name)).collect();
        return Err(ReportError::NothingFinished {
            experiments: names.join(", "),
            states: crate::answer::states(study),
        });
    }
    let analysis = Analysis::of(study);
    let frames = Frames::of(study, &analysis)?;
    let curves = Curves::of(&frames)?;
    let plots = Plots::of(&Scene { study, analysis: &analysis, curves: &curves })?;
    let page = page::page(study, &analysis, &plots);
    let html = page::html(&page)?;

    let folders = [out.to_owned(), out.join("plots"), out.join("frames")];
    for folder in &folders {
        fs::create_dir_all(folder).map_err(|source| ReportError::Write { path: folder.clone(), source })?;
    }
    let put = |path: PathBuf, text: &str| -> Result<PathBuf, ReportError> {
        fs::write(&path, text).map_err(|source| ReportError::Write { path: path.clone(), source })?;
        Ok(path)
    };
    let mut files = Vec::new();
    for plot in plots.all() {
        let alone = plot.svg.replacen(">\n", &format!(">\n{ALONE}"), 1);
        files.push(put(folders[1].join(format!("{}.svg", plot.name)), &alone)?);
    }
    Ok(Written {
        html: put(out.join("report.html"), &html)?,
        markdown: put(out.join("report.md"), &page::markdown(&page))?,
        plots: files,
        frames: frames.write(&folders[2])?,
        summary: page::summary(study, &analysis),
    })
}
