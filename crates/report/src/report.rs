//! From the database to files.

use std::fs;
use std::path::{Path, PathBuf};

use store::Store;

use crate::ReportError;
use crate::analysis::Analysis;
use crate::evidence::{Evidence, Nothing};
use crate::folder::Arriving;
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

/// The page's name in its folder.
const HTML: &str = "report.html";
/// The same as Markdown.
const MARKDOWN: &str = "report.md";

/// Colours of a plot that stands alone: those of the page around it are out of reach.
const ALONE: &str = "<style>svg{color:#1b1f24}.ground{fill:#fff}\
                     .halo{paint-order:stroke;stroke:#fff;stroke-width:10px;stroke-linejoin:round}@media (prefers-color-scheme:dark){svg{color:#e6e9ed}\
                     .ground{fill:#15181c}\
                     .halo{stroke:#15181c}[stroke=\"#0072B2\"]{stroke:#3d9fd8}[fill=\"#0072B2\"]{fill:#3d9fd8}}</style>\n<rect class=\"ground\" width=\"100%\" height=\"100%\"/>\n";

/// Writes `report.html`, `report.md`, `plots/*.svg` and `frames/*` of these experiments into the folder `out`, which is made
/// where it does not exist. Each file replaces the one of its name once all are made, so that a reader never sees half a report;
/// other files in `out` stay. Without true labels, images and weights there is no McNemar test, no confusion matrix and no picture:
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
    let arriving = Arriving::at(out)?;
    let frame_folder = arriving.folder("frames")?;
    arriving.folder("plots")?;
    let put = |name: &str, text: &str| {
        fs::write(arriving.file(name), text).map_err(|source| ReportError::Write { path: out.join(name), source })
    };
    // Frames take longest to write, and nothing else waits for them.
    let (drawn, frame_files) = std::thread::scope(|scope| {
        let frame_files = scope.spawn(|| frames.write(&frame_folder));
        let draw = || {
            let curves = Curves::of(&frames)?;
            let plots = Plots::of(&Scene { study, analysis: &analysis, curves: &curves })?;
            let page = page::page(study, &analysis, &plots);
            put(HTML, &page::html(&page)?)?;
            put(MARKDOWN, &page::markdown(&page))?;
            let mut names = Vec::new();
            for plot in plots.all() {
                let alone = plot.svg.replacen(">\n", &format!(">\n{ALONE}"), 1);
                let name = format!("plots/{}.svg", plot.name);
                put(&name, &alone)?;
                names.push(name);
            }
            Ok::<_, ReportError>((names, page::summary(study, &analysis)))
        };
        (draw(), frame_files.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    let ((plots, summary), frames) = (drawn?, frame_files?);
    // The pages last: what they speak of is there by then.
    let frames: Vec<String> = frames.iter().map(|file| format!("frames/{file}")).collect();
    let names = [frames.as_slice(), &plots, &[MARKDOWN.to_owned(), HTML.to_owned()]].concat();
    let mut places = arriving.settle(&names)?;
    let plots_and_pages = places.split_off(frames.len());
    Ok(Written {
        html: out.join(HTML),
        markdown: out.join(MARKDOWN),
        plots: plots_and_pages[..plots.len()].to_vec(),
        frames: places,
        summary,
    })
}
