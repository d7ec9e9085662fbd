//! From the database to files.

use std::fs;
use std::path::{Path, PathBuf};

use store::Store;

use crate::ReportError;
use crate::analysis::Analysis;
use crate::evidence::{Evidence, Nothing};
use crate::frames::{Curves, Frames};
use crate::page;
use crate::plots::{Plots, Scene};
use crate::source;
use crate::study::Study;

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
const ALONE: &str = "<style>svg{color:#1b1f24}.ground{fill:#fff}\
                     .halo{paint-order:stroke;stroke:#fff;stroke-width:10px;stroke-linejoin:round}@media (prefers-color-scheme:dark){svg{color:#e6e9ed}\
                     .ground{fill:#15181c}\
                     .halo{stroke:#15181c}[stroke=\"#0072B2\"]{stroke:#3d9fd8}[fill=\"#0072B2\"]{fill:#3d9fd8}}</style>\n<rect class=\"ground\" width=\"100%\" height=\"100%\"/>\n";

/// Writes `report.html`, `report.md`, `plots/*.svg` and `frames/*` of these experiments into the folder `out`, which is made
/// where it does not exist. Without true labels, images and weights there is no McNemar test, no confusion matrix and no picture:
/// see [`write_with`].
///
/// # Errors
/// An unknown experiment, a file that cannot be written.
pub fn write(store: &Store, experiments: &[String], out: &Path) -> Result<Written, ReportError> {
    write_with(store, experiments, out, &Nothing)
}

/// [`write()`], with what the database does not hold: true classes, images, what trained weights say.
///
/// # Errors
/// As [`write()`].
pub fn write_with(
    store: &Store,
    experiments: &[String],
    out: &Path,
    evidence: &dyn Evidence,
) -> Result<Written, ReportError> {
    let mut study = source::study(store, experiments)?;
    source::evidence(store, &mut study, evidence)?;
    write_study(&study, out)
}

/// Writes the report of rows that are already in memory.
///
/// # Errors
/// A file that cannot be written.
pub fn write_study(study: &Study, out: &Path) -> Result<Written, ReportError> {
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
