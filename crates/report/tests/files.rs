//! The loose files of a report: pictures and tables are as before, and each is the same in all its forms.

mod common;

use std::fs::{self, File};

use common::{Size, golden, study, with_images};
use polars::prelude::{AnyValue, DataFrame};
use polars_io::SerReader;
use polars_io::parquet::read::ParquetReader;
use report::study::{Status, Study};
use report::write_study;

/// Few rows, but some in every frame.
fn small() -> Study {
    let size =
        Size { lambdas: vec![0.0, 0.0005], schedules: vec!["constant", "cosine"], seeds: 2, epochs: 2, images: 12 };
    let mut study = with_images(study(&size));
    // What a message may hold is exact in both forms.
    study.runs[1].status = Status::Failed;
    study.runs[1].error = Some("=1+1, \"quoted\"\nand \u{1b}[31m\u{202e}more 🦀".into());
    study
}

#[test]
fn loose_plots_are_those_of_the_page_which_is_as_before() {
    let folder = tempfile::tempdir().unwrap();
    let written = write_study(&with_images(study(&Size::default())), folder.path()).unwrap();
    // `full.html` is compared with what is committed, so that what it holds is as before too.
    let page = fs::read_to_string(&written.html).unwrap();
    let mut names = String::new();
    for plot in &written.plots {
        let svg = fs::read_to_string(plot).unwrap();
        let name = plot.file_name().unwrap().to_str().unwrap();
        let (head, rest) = svg.split_once('\n').unwrap();
        // Alone it brings its colours and its ground along.
        let (ground, body) = rest.split_once("<rect class=\"ground\" width=\"100%\" height=\"100%\"/>\n").unwrap();
        assert!(ground.starts_with("<style>") && ground.contains("prefers-color-scheme:dark"), "{name}: {ground}");
        assert!(page.contains(&format!("{head}\n{body}").trim_end().to_owned()), "{name} is not what the page shows");
        names.push_str(&format!("{name} {head}\n"));
    }
    golden("plots.txt", &names);
}

#[test]
fn frames_are_as_before_and_parquet_holds_what_csv_does() {
    let folder = tempfile::tempdir().unwrap();
    let written = write_study(&small(), folder.path()).unwrap();
    let mut frames = 0;
    for csv in written.frames.iter().filter(|path| path.extension().is_some_and(|extension| extension == "csv")) {
        let text = fs::read_to_string(csv).unwrap();
        golden(&format!("frames/{}", csv.file_name().unwrap().to_str().unwrap()), &text);
        let parquet = ParquetReader::new(File::open(csv.with_extension("parquet")).unwrap()).finish().unwrap();
        assert_eq!(as_csv(&parquet), text, "{}", csv.display());
        assert!(parquet.height() > 0, "{} shows something", csv.display());
        frames += 1;
    }
    assert_eq!((frames, written.frames.len()), (8, 16));
}

/// A frame as CSV (RFC 4180), by its values alone.
fn as_csv(frame: &DataFrame) -> String {
    let quoted = |text: &str| {
        if text.is_empty() || text.contains(['"', ',', '\n']) {
            format!("\"{}\"", text.replace('"', "\"\""))
        } else {
            text.to_owned()
        }
    };
    let names: Vec<String> = frame.get_column_names().iter().map(|name| quoted(name)).collect();
    let mut out = names.join(",") + "\n";
    for row in 0..frame.height() {
        let cells = frame.columns().iter().map(|column| match column.get(row).unwrap() {
            AnyValue::Null => String::new(),
            AnyValue::String(text) => quoted(text),
            AnyValue::StringOwned(text) => quoted(&text),
            // A whole number has one decimal, a small one no exponent.
            AnyValue::Float64(value) if value.fract() == 0.0 => format!("{value:.1}"),
            AnyValue::Float64(value) => value.to_string(),
            other => other.to_string(),
        });
        out.push_str(&(cells.collect::<Vec<_>>().join(",") + "\n"));
    }
    out
}
