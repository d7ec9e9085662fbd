//! Files for TensorBoard and MLflow, against files that those programs have read (`golden/`).
//!
//! `EXPORT_BLESS=1 cargo test -p export` writes the golden file anew; `python crates/export/tests/golden/read.py` shows what
//! TensorBoard reads in it.

use std::path::Path;

use export::{Point, RecordStatus, RunRecord, event_file, write_mlflow, write_tensorboard};
use serde_json::json;

fn record() -> RunRecord {
    let point = |measure: &str, epoch, value| Point {
        measure: measure.to_owned(),
        epoch,
        at_ms: 1_700_000_000_000 + i64::from(epoch) * 1500,
        value,
    };
    RunRecord {
        identity: "0123456789abcdef-1".to_owned(),
        name: "lenet5 λ=0.1 <b> seed=1".to_owned(),
        status: RecordStatus::Done,
        started_ms: 1_700_000_000_000,
        finished_ms: Some(1_700_000_004_000),
        settings: vec![
            ("train.weight_decay".to_owned(), json!(0.1)),
            ("train.nesterov".to_owned(), json!(true)),
            ("train.optimizer".to_owned(), json!("sgd")),
            ("model.hidden".to_owned(), json!([120, 84])),
            ("model.dropout".to_owned(), json!(null)),
        ],
        notes: vec![("pipeline.device".to_owned(), "cpu".to_owned())],
        points: vec![
            point("validation/top1", 1, 0.25),
            point("validation/top1", 2, 0.5),
            point("test/top1", 2, 0.4375),
        ],
    }
}

#[test]
fn event_files_are_those_that_tensorboard_reads() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/run.tfevents");
    let bytes = event_file(&record());
    if std::env::var_os("EXPORT_BLESS").is_some() {
        std::fs::write(&path, &bytes).unwrap();
    }
    assert_eq!(bytes, std::fs::read(&path).unwrap());
}

#[test]
fn names_are_folders_of_their_own_and_never_lead_out() {
    let folder = tempfile::tempdir().unwrap();
    let names = ["../../up", "", ".hidden", "a/b", "a\\b", "λ 🦀\n"];
    let runs: Vec<RunRecord> = names
        .iter()
        .enumerate()
        .map(|(index, name)| RunRecord { identity: format!("{index:08}"), name: (*name).to_owned(), ..record() })
        .collect();
    let written = write_tensorboard(folder.path(), "../x", &runs).unwrap();
    assert!(written.starts_with(folder.path()) && written.parent() == Some(folder.path()), "{}", written.display());
    assert_eq!(std::fs::read_dir(&written).unwrap().count(), names.len());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);

    let hostile = RunRecord {
        settings: vec![("../../key".to_owned(), json!(1)), ("..".to_owned(), json!(2)), ("a//b".to_owned(), json!(3))],
        notes: vec![("/etc/x".to_owned(), "y".to_owned())],
        ..record()
    };
    let store = folder.path().join("store");
    write_mlflow(&store, "../x\n\u{1b}", &[hostile]).unwrap();
    let mut outside = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(outside.all(|name| name == "store" || name == written.file_name().unwrap()));
    assert!(!Path::new("/etc/x").exists());
}

#[test]
fn a_file_store_is_as_mlflow_lays_it_out() {
    let folder = tempfile::tempdir().unwrap();
    let experiment = write_mlflow(folder.path(), "both \"λ\"", &[record()]).unwrap();
    let number = experiment.file_name().unwrap().to_str().unwrap();
    assert_eq!((number.len(), number.bytes().all(|byte| byte.is_ascii_digit())), (18, true));
    let meta = std::fs::read_to_string(experiment.join("meta.yaml")).unwrap();
    assert!(
        meta.contains("name: \"both \\\"\\U000003bb\\\"\"\n") && meta.contains("lifecycle_stage: active\n"),
        "{meta}"
    );
    let run =
        std::fs::read_dir(&experiment).unwrap().map(|entry| entry.unwrap().path()).find(|path| path.is_dir()).unwrap();
    let read = |name: &str| std::fs::read_to_string(run.join(name)).unwrap();
    assert_eq!(read("params/train.weight_decay"), "0.1");
    assert_eq!(read("params/train.optimizer"), "sgd");
    assert_eq!(read("params/model.hidden"), "[120,84]");
    assert_eq!(read("metrics/validation/top1"), "1700000001500 0.25 1\n1700000003000 0.5 2\n");
    assert_eq!(read("tags/mlflow.runName"), "lenet5 λ=0.1 <b> seed=1");
    let meta = read("meta.yaml");
    for line in [
        "status: 3",
        "start_time: 1700000000000",
        "end_time: 1700000004000",
        "run_name: \"lenet5 \\U000003bb=0.1 <b> seed=1\"",
    ] {
        assert!(meta.lines().any(|known| known == line), "{line} in {meta}");
    }
    assert!(meta.contains(&format!("run_id: {:?}\n", run.file_name().unwrap().to_str().unwrap())), "{meta}");
}
