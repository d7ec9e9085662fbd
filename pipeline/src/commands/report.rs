//! `pipeline report`: the comparison as pages, pictures and tables.

use std::path::{Path, PathBuf};

use dataset::Prepared;
use report::Truth;
use store::Store;

use crate::{cli::Global, data, exit::Exit, output};

/// Writes the report of some experiments.
pub fn run(experiments: &[String], out: Option<&Path>, global: &Global) -> anyhow::Result<Exit> {
    write(experiments, out, global)?;
    Ok(Exit::Fine)
}

/// Writes the report and prints the comparison and where the pages are.
pub fn write(experiments: &[String], out: Option<&Path>, global: &Global) -> anyhow::Result<()> {
    let store = Store::open_read_only(&global.db)?;
    let out = out.map_or_else(|| PathBuf::from("reports").join(folder(experiments)), Path::to_path_buf);
    let tests = tested(&store, experiments)?;
    let cache = data::cache(global)?;
    let written = report::write_with(&store, experiments, &out, &|fingerprint| {
        let (_, settings) = tests.iter().find(|(known, _)| known == fingerprint)?;
        truth(&cache, fingerprint, settings)
    })?;
    output::line(&format!("{}\n\nreport: {}", written.summary.trim_end(), written.html.display()))
}

/// Data sets that the experiments' trials were tested on: fingerprint and settings.
fn tested(store: &Store, experiments: &[String]) -> anyhow::Result<Vec<(String, plan::Dataset)>> {
    let mut tests: Vec<(String, plan::Dataset)> = Vec::new();
    for experiment in experiments {
        let sql = "SELECT t.data_fingerprint, min(t.canonical) FROM trials AS t \
                   JOIN experiment_trials AS p ON p.identity = t.identity \
                   JOIN experiments AS e ON e.experiment_id = p.experiment_id \
                   WHERE e.name = ?1 AND p.position IS NOT NULL GROUP BY t.data_fingerprint";
        for row in store.query(sql, &[experiment.as_str().into()])?.rows {
            let [fingerprint, canonical] = [row[0].to_string(), row[1].to_string()];
            let document: serde_json::Value = serde_json::from_str(&canonical)?;
            if let Ok(settings) = serde_json::from_value(document["dataset"].clone()) {
                tests.push((fingerprint, settings));
            }
        }
    }
    Ok(tests)
}

/// True classes of a test split, from the prepared data set, if the cache still has it.
fn truth(cache: &Path, fingerprint: &str, settings: &plan::Dataset) -> Option<Truth> {
    let entries = std::fs::read_dir(cache).ok()?.flatten().map(|entry| entry.path());
    let prepared = entries
        .filter(|path| path.is_dir())
        .filter_map(|path| Prepared::open(&path).ok())
        .find(|prepared| prepared.manifest().fingerprint == fingerprint)?;
    let labels = prepared.splits(settings).test.into_iter().map(|index| prepared.label(index) as u16).collect();
    Some(Truth { labels, classes: prepared.manifest().classes.clone() })
}

/// Names joined into one that any file system takes.
fn folder(experiments: &[String]) -> String {
    let plain = |c: char| if c.is_alphanumeric() || "-_.".contains(c) { c } else { '_' };
    let name: String = experiments.join("+").chars().map(|c| if c == '+' { c } else { plain(c) }).collect();
    let name = name.trim_start_matches('.');
    if name.is_empty() { "report".to_owned() } else { name.chars().take(100).collect() }
}
