//! Names and notes out of any database are text on every surface: nothing that they hold is obeyed, and nothing of them is lost.

use std::{fs, path::Path, time::Duration};

use serde_json::Value;
use store::{NewExperiment, NewTrial, Outcome, Provenance, Store};

use crate::{
    serving::Server,
    workplace::{DB, Workplace},
};

/// How a surface is read.
#[derive(Clone, Copy, Debug)]
enum Reader {
    /// By people, in a terminal.
    Terminal,
    /// By a browser: HTML or SVG.
    Browser,
    /// By whatever shows Markdown.
    Markdown,
    /// By programs, which must get the text as it is; a terminal that it is printed to obeys nothing of it.
    Json,
    /// By programs, which must get the text as it is, also where a spreadsheet would take it for a formula.
    Csv,
    /// By programs, byte by byte.
    Exact,
}

/// What begins every hostile text here, and is to be seen wherever one is shown.
const SEEN: &str = "=1+1🦀שלום";

fn is_obeyed(c: char) -> bool {
    (c.is_control() && c != '\n')
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Whether a JSON value holds the text.
fn holds(value: &Value, text: &str) -> bool {
    match value {
        Value::String(found) => found == text,
        Value::Array(values) => values.iter().any(|value| holds(value, text)),
        Value::Object(fields) => fields.values().any(|value| holds(value, text)),
        _ => false,
    }
}

/// Fields of CSV (RFC 4180).
fn fields(csv: &str) -> Vec<String> {
    let mut out = vec![String::new()];
    let mut quoted = false;
    let mut chars = csv.chars().peekable();
    while let Some(c) = chars.next() {
        match (quoted, c) {
            (true, '"') if chars.peek() == Some(&'"') => out.last_mut().unwrap().extend(chars.next()),
            (_, '"') => quoted = !quoted,
            (false, ',' | '\n') => out.push(String::new()),
            _ => out.last_mut().unwrap().push(c),
        }
    }
    out
}

/// Asserts that the text is shown, as text.
#[track_caller]
fn judge(surface: &str, reader: Reader, bytes: &[u8], hostile: &str) {
    let text = String::from_utf8_lossy(bytes).into_owned();
    match reader {
        Reader::Terminal | Reader::Browser | Reader::Markdown => {
            assert!(!text.contains(is_obeyed), "{surface} shows what is obeyed: {text:?}");
            assert!(text.contains(SEEN), "{surface} does not show the name: {text}");
        }
        Reader::Json => {
            assert!(!text.contains(is_obeyed), "{surface} prints what a terminal obeys: {text:?}");
            assert!(holds(&serde_json::from_str(&text).unwrap(), hostile), "{surface} lost the name: {text}");
        }
        Reader::Csv => assert!(fields(&text).iter().any(|field| field == hostile), "{surface} lost the name: {text}"),
        Reader::Exact => {
            let found = bytes.windows(hostile.len()).any(|window| window == hostile.as_bytes());
            assert!(found, "{surface} lost the name");
        }
    }
    match reader {
        Reader::Browser => {
            let own = text.replace("<script src=\"/live.js\" defer>", "");
            assert!(!own.contains("<script") && !own.contains("<b>"), "{surface} takes the name for HTML: {own}");
            assert!(!own.contains(&format!("{SEEN}\"")), "{surface}: the name ends what it stands in");
        }
        Reader::Markdown => {
            for line in text.lines() {
                // Between backticks it is text as it stands.
                let bare: String = line.split("``").step_by(2).collect();
                assert!(
                    !bare.contains("<script") && !bare.contains("<b>"),
                    "{surface} takes the name for HTML: {line}"
                );
                assert!(!line.starts_with('|') || line.ends_with('|'), "{surface}: the name breaks the table: {line}");
            }
        }
        _ => {}
    }
}

/// A second run, in an experiment of its own, that failed with such a message.
fn record_failure(place: &Workplace, hostile: &str) {
    let store = Store::open(place.path(DB)).unwrap();
    let trial = NewTrial {
        identity: "f".repeat(32),
        canonical: serde_json::json!({ "seed": 2, "x": "y" }).to_string(),
        label: hostile.into(),
        architecture: "lenet5".into(),
        ..Default::default()
    };
    let experiment = NewExperiment { name: "second".into(), ..Default::default() };
    let id = store.record_experiment(&experiment, &[trial]).unwrap();
    let provenance = Provenance { device: hostile.into(), commit: hostile.into(), ..Default::default() };
    let run = store.claim_next(id, "w", Duration::from_secs(60), &provenance).unwrap().unwrap().run;
    let outcome = Outcome::Failed { kind: hostile.into(), message: hostile.into() };
    store.finish(run, "w", &outcome).unwrap();
}

#[test]
fn names_and_notes_are_text_on_every_surface() {
    let place = Workplace::new();
    let hostile = place.record_hostile();
    record_failure(&place, hostile);
    for subject in ["1", "2", hostile] {
        place.run_words(&["note", subject, hostile]).exits(0);
        place.run_words(&["tag", subject, hostile]).exits(0);
    }
    let unknown = format!("{hostile}!");
    let sql = "SELECT note, note AS \"\u{1b}[31m<b>\" FROM run_notes";

    // What is typed, how it is read, and with which exit code it ends.
    let printed: &[(&[&str], Reader, i32)] = &[
        (&["list"], Reader::Terminal, 0),
        (&["list", "--format", "csv"], Reader::Csv, 0),
        (&["list", "--format", "json"], Reader::Json, 0),
        (&["list", "--format", "markdown"], Reader::Markdown, 0),
        (&["list", "--runs"], Reader::Terminal, 0),
        (&["list", hostile], Reader::Terminal, 0),
        (&["list", "--tag", hostile, "--runs", "--format", "json"], Reader::Json, 0),
        (&["show", "1"], Reader::Terminal, 0),
        (&["show", "1", "--format", "json"], Reader::Json, 0),
        (&["show", "1", "--format", "markdown"], Reader::Markdown, 0),
        (&["diff", "1", "2"], Reader::Terminal, 0),
        (&["diff", "1", "2", "--format", "csv"], Reader::Csv, 0),
        (&["note", "1"], Reader::Terminal, 0),
        (&["tag", hostile, "x"], Reader::Terminal, 0),
        (&["watch"], Reader::Terminal, 0),
        (&["watch", &unknown], Reader::Terminal, 2),
        (&["query", "trials"], Reader::Terminal, 0),
        (&["query", "trials", "--format", "csv"], Reader::Csv, 0),
        (&["query", "trials", "--format", "json"], Reader::Json, 0),
        (&["query", "trials", "--format", "markdown"], Reader::Markdown, 0),
        (&["query", "best"], Reader::Terminal, 0),
        (&["query", "front"], Reader::Terminal, 0),
        (&["query", "failed"], Reader::Terminal, 0),
        (&["query", "compare", hostile, "lenet5"], Reader::Terminal, 0),
        (&["query", "compare", &unknown, "lenet5"], Reader::Terminal, 2),
        (&["query", sql], Reader::Terminal, 0),
        (&["query", sql, "--format", "csv"], Reader::Csv, 0),
        (&["query", sql, "--format", "json"], Reader::Json, 0),
        (&["query", sql, "--format", "markdown"], Reader::Markdown, 0),
        (&["report", hostile, "--out", "page"], Reader::Terminal, 0),
        (&["delete", hostile], Reader::Terminal, 2),
    ];
    for (words, reader, code) in printed {
        let finished = place.run_words(words).exits(*code);
        let mut bytes = finished.stdout.clone();
        if matches!(reader, Reader::Terminal) {
            bytes.extend(finished.stderr.as_bytes());
        } else {
            assert!(!finished.stderr.contains(is_obeyed), "{words:?}: {:?}", finished.stderr);
        }
        judge(&format!("{words:?}"), *reader, &bytes, hostile);
    }

    let read = |path: &str| fs::read(place.path(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    judge("report.html", Reader::Browser, &read("page/report.html"), hostile);
    judge("report.md", Reader::Markdown, &read("page/report.md"), hostile);
    judge("frames/runs.csv", Reader::Csv, &read("page/frames/runs.csv"), hostile);
    for plot in fs::read_dir(place.path("page/plots")).unwrap() {
        let plot = plot.unwrap().path();
        let svg = fs::read_to_string(&plot).unwrap();
        assert!(!svg.contains(is_obeyed) && !svg.contains("<b>") && !svg.contains("<script"), "{}", plot.display());
    }

    let server = Server::start(&place);
    for path in
        ["/", "/experiment/1", "/experiment/1?part", "/experiment/2", "/experiment/1/report", "/run/1", "/run/2"]
    {
        let answer = server.report(path);
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        judge(&format!("serve {path}"), Reader::Browser, answer.body.as_bytes(), hostile);
        assert!(!answer.head.replace("\r\n", "").contains(is_obeyed), "{path}: {:?}", answer.head);
    }
    drop(server);

    let exported = place
        .run_words(&["export", hostile, "--tensorboard", "logs", "--mlflow", "mlruns", "--optuna", "study.db"])
        .exits(0);
    assert!(!exported.text().contains(is_obeyed), "{:?}", exported.text());
    judge("Optuna's study", Reader::Exact, &read("study.db"), hostile);
    let logs = files(&place.path("logs"));
    let events = logs.iter().find(|path| path.to_string_lossy().contains("tfevents")).expect("there are events");
    judge("TensorBoard's events", Reader::Exact, &fs::read(events).unwrap(), hostile);
    let runs = files(&place.path("mlruns"));
    let named = runs.iter().find(|path| path.ends_with("tags/mlflow.runName")).expect("runs have names");
    judge("MLflow's tags", Reader::Exact, &fs::read(named).unwrap(), hostile);
    for path in logs.iter().chain(&runs) {
        assert!(!path.to_string_lossy().contains(is_obeyed), "a file's name: {path:?}");
        let is_meta = path.ends_with("meta.yaml");
        assert!(!is_meta || !fs::read_to_string(path).unwrap().contains(is_obeyed), "{}", path.display());
    }

    place.run_words(&["bundle", hostile, "--out", "b.tar.gz"]).exits(0);
    let merged = place.run("merge b.tar.gz --db there.db").exits(0);
    assert!(!merged.text().contains(is_obeyed) && !merged.stderr.contains(is_obeyed), "{:?}", merged.text());
    let there = place.run("list --format json --db there.db").exits(0);
    judge("a merged bundle", Reader::Json, &there.stdout, hostile);
    assert_eq!(place.count(DB, "SELECT count(*) FROM runs"), 2, "nothing of it was taken for SQL");
}

/// All files under a folder.
fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[test]
fn labels_are_text_in_progress_lines_and_messages() {
    // Paths are the texts that an experiment file may hold freely; swept, they are in labels.
    let folder = format!("{SEEN}<b>'\u{1b}[31m\u{9b}2J\u{202e}x");
    let place = Workplace::new();
    place.write_idx(&folder, 28);
    let toml = |path: &str| {
        let path = toml::Value::from(path).to_string();
        format!(
            "seeds = 1\nquestion = {path}\n[dataset]\nsource = \"idx\"\nvalidation_fraction = 0.25\n[train]\nepochs = 1\nbatch_size = 8\n\
             [sweep.grid]\n\"dataset.path\" = [{path}]\n"
        )
    };
    place.write("experiment.toml", toml(&folder));
    for line in ["plan experiment.toml", "sweep experiment.toml", "train experiment.toml --trial 0 --again", "verify 1"]
    {
        let finished = place.run(line).exits(0);
        let shown = format!("{}{}", finished.text(), finished.stderr);
        assert!(!shown.contains(is_obeyed), "{line} prints what a terminal obeys: {shown:?}");
        assert!(line.starts_with("verify") || shown.contains(SEEN), "{line} does not show the name: {shown}");
    }
    place.write("experiment.toml", toml(&format!("{folder}-is-not-there")));
    let refused = place.run("sweep experiment.toml").exits(2);
    assert!(!refused.stderr.contains(is_obeyed) && refused.stderr.contains(SEEN), "{:?}", refused.stderr);
}
