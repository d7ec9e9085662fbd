//! What is known of runs, for other programs: TensorBoard, MLflow, Optuna.

use std::{collections::BTreeMap, path::Path, sync::LazyLock};

use crate::workplace::{DB, SMALL, Workplace};

/// A finished sweep that these tests only ask.
static DONE: LazyLock<Workplace> = LazyLock::new(|| {
    let place = Workplace::with(SMALL);
    place.run("sweep experiment.toml --no-report --quiet").exits(0);
    place
});

/// All files below a folder, with their contents.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(place) = folders.pop() {
        for entry in std::fs::read_dir(place).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap().display().to_string();
                all.insert(name, std::fs::read(path).unwrap());
            }
        }
    }
    all
}

#[test]
fn an_experiment_becomes_event_files_that_are_sound() {
    let printed = DONE.run("export small --tensorboard logs").exits(0);
    assert!(printed.text().contains("TensorBoard"), "{}", printed.text());
    let all = files(&DONE.path("logs/small"));
    assert_eq!(all.len(), 4, "one for each run: {:?}", all.keys());
    for (name, bytes) in &all {
        assert!(name.contains("/events.out.tfevents."), "{name}");
        // The framing: length, checksum of it, message, checksum of it.
        let (mut at, mut records) = (0, 0);
        while at < bytes.len() {
            let length = u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
            at += 8 + 4 + length + 4;
            records += 1;
        }
        assert_eq!(at, bytes.len(), "{name} ends with a record");
        // Version, settings, end, two epochs of nine measures, three of the test.
        assert_eq!(records, 3 + 2 * 9 + 3, "{name}");
    }
    DONE.run("export small --tensorboard logs").exits(0);
    assert_eq!(files(&DONE.path("logs/small")), all, "again replaces");
}

#[test]
fn an_experiment_becomes_a_file_store_of_mlflow() {
    DONE.run("export small --mlflow mlruns").exits(0);
    let all = files(&DONE.path("mlruns"));
    let of = |end: &str| -> Vec<&Vec<u8>> {
        all.iter().filter(|(name, _)| name.ends_with(end)).map(|(_, bytes)| bytes).collect()
    };
    assert_eq!(of("meta.yaml").len(), 5, "the experiment's and four runs'");
    let decays = of("params/train.weight_decay");
    assert_eq!(decays.iter().filter(|bytes| ***bytes == b"0.005").count(), 2);
    let losses = of("metrics/validation/top1");
    assert_eq!(losses.len(), 4);
    let text = std::str::from_utf8(losses[0]).unwrap();
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split(' ').collect()).collect();
    assert_eq!((lines.len(), lines[0][2], lines[1][2]), (2, "1", "2"));
    let value: f64 = lines[1][1].parse().unwrap();
    let known = DONE.rows(DB, "SELECT validation_top1 FROM epochs WHERE epoch = 2");
    assert!(known.iter().any(|row| row[0] == store::Value::Real(value)), "to the last bit");
    DONE.run("export small --mlflow mlruns").exits(0);
    assert_eq!(files(&DONE.path("mlruns")), all, "again replaces");
}

#[test]
fn an_experiment_becomes_a_study_of_optuna() {
    DONE.run("export small --optuna study.db --tensorboard more").exits(0);
    DONE.run("export small --optuna study.db").exits(0);
    let beside: Vec<String> = std::fs::read_dir(DONE.path("."))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with("study.db"))
        .collect();
    assert_eq!(beside, ["study.db"], "one file, nothing half written");
    let bytes = std::fs::read(DONE.path("study.db")).unwrap();
    assert!(bytes.starts_with(b"SQLite format 3\0"));
    assert_eq!(bytes[18], 1, "no write-ahead log");
}

#[test]
fn exports_of_records_are_of_experiments() {
    for (line, message) in [
        ("export nothing --tensorboard t", "there are: small"),
        ("export 1 --mlflow m", "no experiment is called \"1\""),
        ("export small", "--out FOLDER for the network of a run"),
        ("export small", "--optuna FILE for the records of an experiment"),
        ("export small --out f --optuna o.db", "cannot be used with"),
        ("export small --optuna nowhere/o.db", "nowhere/o.db"),
    ] {
        let refused = DONE.run(line).exits(2);
        assert!(refused.stderr.contains(message), "{line}: {}", refused.stderr);
    }
    for name in ["t", "m", "o.db", "nowhere"] {
        assert!(!DONE.path(name).exists(), "{name}");
    }
}
