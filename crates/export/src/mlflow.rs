//! MLflow's file store: a folder of small files, `mlruns/EXPERIMENT/RUN/{params,metrics,tags}/NAME`.
//!
//! Source: `mlflow/store/tracking/file_store.py`.

use std::path::{Path, PathBuf};

use crate::{ExportError, RecordStatus, RunRecord, write_whole};

/// Longest parameter that MLflow keeps, in characters.
const LONGEST_PARAMETER: usize = 6000;

/// FNV-1a with 128 bits (Fowler, Noll, Vo): numbers that depend on names alone.
fn hash(text: &str) -> u128 {
    let start = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    text.bytes().fold(start, |hash: u128, byte| {
        (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
    })
}

/// Text in double quotes as YAML has it, with escapes for all that is not plain ASCII.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            ' '..='~' => out.push(c),
            c => out.push_str(&format!("\\U{:08x}", u32::from(c))),
        }
    }
    out.push('"');
    out
}

/// A `file:` address of a folder.
fn address(folder: &Path) -> String {
    let mut out = String::from("file://");
    for byte in folder.to_string_lossy().bytes() {
        if byte.is_ascii_alphanumeric() || b"/-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// Names of measures that MLflow takes: letters, digits, `_`, `-`, `.`, space, `:` and `/`; the last makes folders, here as in
/// MLflow.
fn name(text: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "_-./: ".contains(c) { c } else { '_' };
    let name: String = text.chars().map(plain).collect();
    name.split('/').map(|part| if part.trim_matches('.').is_empty() { "_" } else { part }).collect::<Vec<_>>().join("/")
}

/// As [`name`], without folders: one key must not be the folder of another.
fn plain_name(text: &str) -> String {
    name(&text.replace('/', "_"))
}

/// Writes one of a run's some hundred small files, without waiting for the disk for each: what makes them a run comes after them.
fn part(path: &Path, bytes: &[u8]) -> Result<(), ExportError> {
    let fail = |source| ExportError::Write { path: path.to_owned(), source };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(fail)?;
    }
    std::fs::write(path, bytes).map_err(fail)
}

/// Writes an experiment and its runs into the file store `folder`, for `mlflow ui --backend-store-uri folder`. Numbers of
/// experiments and runs depend on their names and identities alone: writing again replaces.
///
/// # Errors
/// [`ExportError::Write`] where a file cannot be written.
pub fn write_mlflow(folder: &Path, experiment: &str, runs: &[RunRecord]) -> Result<PathBuf, ExportError> {
    let fail = |source| ExportError::Write { path: folder.to_owned(), source };
    std::fs::create_dir_all(folder).map_err(fail)?;
    let root = folder.canonicalize().map_err(fail)?;
    // MLflow's own are 18 digits long, and it takes a number for a name of its own making.
    let number = format!("{:018}", hash(experiment) % 1_000_000_000_000_000_000);
    let folder = root.join(&number);
    let created_ms = runs.iter().map(|run| run.started_ms).min().unwrap_or(0);
    let updated_ms = runs.iter().filter_map(|run| run.finished_ms).max().unwrap_or(created_ms);
    let meta = format!(
        "artifact_location: {}\ncreation_time: {created_ms}\nexperiment_id: '{number}'\nlast_update_time: {updated_ms}\n\
         lifecycle_stage: active\nname: {}\n",
        quoted(&address(&folder)),
        quoted(experiment)
    );
    for run in runs {
        let id = format!("{:032x}", hash(&format!("{experiment}\n{}", run.identity)));
        let place = folder.join(&id);
        std::fs::create_dir_all(place.join("artifacts")).map_err(fail)?;
        for (key, value) in &run.settings {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let text: String = text.chars().take(LONGEST_PARAMETER).collect();
            part(&place.join("params").join(plain_name(key)), text.as_bytes())?;
        }
        let mut measures: Vec<&str> = run.points.iter().map(|point| point.measure.as_str()).collect();
        measures.sort_unstable();
        measures.dedup();
        for measure in measures {
            let lines: String = run
                .points
                .iter()
                .filter(|point| point.measure == measure)
                .map(|point| format!("{} {:?} {}\n", point.at_ms, point.value, point.epoch))
                .collect();
            part(&place.join("metrics").join(name(measure)), lines.as_bytes())?;
        }
        let own = [("mlflow.runName", &run.name), ("mlflow.source.name", &"pipeline".to_owned())]
            .map(|(k, v)| (k.to_owned(), v.clone()));
        for (key, value) in run.notes.iter().chain(&own) {
            part(&place.join("tags").join(plain_name(key)), value.as_bytes())?;
        }
        // RunStatus of MLflow's protocol.
        let status = match run.status {
            RecordStatus::Running => 1,
            RecordStatus::Done => 3,
            RecordStatus::Failed => 4,
            RecordStatus::Left => 5,
        };
        let finished = run.finished_ms.map_or_else(|| "null".to_owned(), |ms| ms.to_string());
        let text = format!(
            "artifact_uri: {}\nend_time: {finished}\nentry_point_name: ''\nexperiment_id: '{number}'\nlifecycle_stage: active\n\
             run_id: {id:?}\nrun_name: {}\nrun_uuid: {id:?}\nsource_name: ''\nsource_type: 4\nsource_version: ''\nstart_time: {}\n\
             status: {status}\ntags: []\nuser_id: ''\n",
            quoted(&address(&place.join("artifacts"))),
            quoted(&run.name),
            run.started_ms,
        );
        // After its parts: a folder without it is no run yet.
        write_whole(&place.join("meta.yaml"), text.as_bytes())?;
    }
    // Last: a folder without it is no experiment yet.
    write_whole(&folder.join("meta.yaml"), meta.as_bytes())?;
    Ok(folder)
}
