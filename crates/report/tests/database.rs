//! The report of a real database.

mod common;

use std::collections::HashMap;
use std::time::Duration;

use common::{Size, study};
use report::{ReportError, Truth, write, write_with};
use store::{EpochRow, EvaluationRow, NewExperiment, NewTrial, Outcome, Provenance, Split, Store};

const LEASE: Duration = Duration::from_secs(60);

/// Writes the synthetic study into a database; the runs named in `fail` fail, those in `wait` never start.
fn fill(store: &Store, size: &Size, fail: &[i64], wait: &[i64]) {
    let study = study(size);
    let trials: Vec<NewTrial> = study
        .runs
        .iter()
        .map(|run| NewTrial {
            identity: run.trial.clone(),
            configuration: run.configuration.clone(),
            canonical: "{}".into(),
            label: run.label.clone(),
            variant: run.variant.clone(),
            seed: run.seed,
            architecture: run.architecture.clone(),
            parameters: run.parameters.unwrap(),
            macs_per_image: run.macs_per_image.unwrap(),
            data_fingerprint: run.provenance.data_fingerprint.clone(),
            assignments: run.assignments.iter().map(|(key, value)| (key.clone(), value.to_string())).collect(),
        })
        .collect();
    let experiment = NewExperiment {
        name: "glyphs".into(),
        question: "Which is better?".into(),
        file: "experiments/glyphs.toml".into(),
        config_toml: String::new(),
        command: "pipeline sweep experiments/glyphs.toml".into(),
    };
    let id = store.record_experiment(&experiment, &trials).unwrap();
    for run in study.runs.iter().filter(|run| !wait.contains(&run.id)) {
        let made = &run.provenance;
        let provenance = Provenance {
            commit: made.commit.clone(),
            version: made.version.clone(),
            device: made.device.clone(),
            threads: made.threads.unwrap(),
            os: "linux".into(),
            cpu: made.cpu.clone(),
            command: format!("pipeline train experiments/glyphs.toml seed={}", run.seed),
            config: String::new(),
            data_fingerprint: made.data_fingerprint.clone(),
        };
        let claim = store.claim(id, &run.trial, "w", LEASE, &provenance).unwrap().unwrap();
        if fail.contains(&run.id) {
            let outcome = Outcome::Failed { kind: "not-finite".into(), message: "loss is NaN in epoch 1".into() };
            store.finish(claim.run, "w", &outcome).unwrap();
            continue;
        }
        let epochs: Vec<EpochRow> = run
            .epochs
            .iter()
            .map(|epoch| EpochRow {
                epoch: epoch.epoch,
                learning_rate: epoch.learning_rate,
                train_loss: epoch.train_loss,
                train_penalty: 0.0,
                train_top1: epoch.train_top1,
                train_top5: 1.0,
                validation_loss: epoch.validation_loss,
                validation_top1: epoch.validation_top1,
                validation_top5: Some(1.0),
                images_per_second: epoch.images_per_second,
                epoch_seconds: epoch.epoch_seconds,
                steps: 85,
            })
            .collect();
        store.record_epochs(claim.run, "w", &epochs).unwrap();
        let test = run.test.unwrap();
        let row = EvaluationRow {
            split: Split::Test,
            epoch: 1,
            loss: test.loss,
            top1: test.top1,
            top5: test.top5.unwrap(),
            images: u32::try_from(test.images).unwrap(),
            seconds: 0.5,
        };
        let predicted = study.predictions.get(&run.id).map(|predictions| predictions.predicted.as_slice());
        store.record_evaluation(claim.run, "w", &row, predicted).unwrap();
        let outcome = Outcome::Done {
            tested_epoch: run.tested_epoch().unwrap().epoch,
            checkpoint: None,
            train_seconds: run.train_seconds().unwrap(),
            peak_memory_bytes: run.peak_memory_bytes.unwrap(),
        };
        store.finish(claim.run, "w", &outcome).unwrap();
    }
}

fn small() -> Size {
    Size { lambdas: vec![0.0, 0.0005], schedules: vec!["constant"], seeds: 4, epochs: 4, images: 200 }
}

#[test]
fn a_database_becomes_a_report() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path().join("results.db")).unwrap();
    fill(&store, &small(), &[2], &[5]);
    let names = ["glyphs".to_owned()];
    let labels = |fingerprint: &str| {
        assert_eq!(fingerprint, "feedfacefeedfacefeedfacefeedface");
        let labels = (0..200).map(|image| (image % 10) as u16).collect();
        Some(Truth { labels, classes: (0..10).map(|class| format!("glyph {class}")).collect() })
    };
    let written = write_with(&store, &names, &folder.path().join("report"), &labels).unwrap();
    let html = std::fs::read_to_string(&written.html).unwrap();
    for expected in [
        "14 done, 1 failed, 1 not started",
        "not-finite: loss is NaN in epoch 1",
        "McNemar, seed 3",
        "pipeline sweep experiments&#x2f;glyphs.toml",
        "pipeline report glyphs",
        "Example CPU",
        "61,706",
        "Confusion matrix of AlexNet",
    ] {
        assert!(html.contains(expected), "the page lacks {expected:?}");
    }
    // The numbers of the page are those of the database's own views.
    let table = store
        .query("SELECT network, test_top1_mean FROM best WHERE experiment = 'glyphs' ORDER BY network", &[])
        .unwrap();
    let mut found = HashMap::new();
    for row in &table.rows {
        if let (store::Value::Text(network), store::Value::Real(mean)) = (&row[0], &row[1]) {
            found.insert(network.clone(), *mean);
        }
    }
    assert_eq!(found.len(), 2);
    for mean in found.values() {
        let percent = format!("{:.2}", 100.0 * mean);
        assert!(written.summary.contains(&percent), "{percent} is not in\n{}", written.summary);
    }
    for file in written.plots.iter().chain(&written.frames).chain([&written.markdown]) {
        assert!(std::fs::metadata(file).unwrap().len() > 0, "{}", file.display());
    }
    let without = write(&store, &names, &folder.path().join("without")).unwrap();
    assert!(!std::fs::read_to_string(without.html).unwrap().contains("McNemar, seed"));
}

#[test]
fn what_is_not_there_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path().join("results.db")).unwrap();
    let out = folder.path().join("report");
    let unknown = write(&store, &["nothing".to_owned()], &out).unwrap_err();
    assert_eq!(unknown.to_string(), "experiment `nothing` is not in the database; it knows none yet");
    assert!(matches!(write(&store, &[], &out).unwrap_err(), ReportError::NoExperiment));

    let size = Size { lambdas: vec![0.0], schedules: vec!["constant"], seeds: 1, epochs: 1, images: 10 };
    fill(&store, &size, &[1], &[2]);
    let empty = write(&store, &["glyphs".to_owned()], &out).unwrap_err().to_string();
    assert!(empty.starts_with("no run of `glyphs` has finished: 1 failed, 1 not started."), "{empty}");
    assert!(!out.exists(), "nothing is written");
}
