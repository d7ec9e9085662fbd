//! The report of a real database.

mod common;

use std::collections::HashMap;
use std::time::Duration;

use common::{Size, study};
use report::{Evidence, Examination, Picture, ReportError, Truth, write, write_with};
use store::{EpochRow, EvaluationRow, NewExperiment, NewTrial, Outcome, Provenance, Split, Store};

const LEASE: Duration = Duration::from_secs(60);

/// Writes the synthetic study into a database; the runs named in `fail` fail, those in `wait` never start.
fn fill(store: &Store, size: &Size, fail: &[i64], wait: &[i64]) {
    fill_as(store, size, "glyphs", "", fail, wait);
}

/// The same under another name, with other identities.
fn fill_as(store: &Store, size: &Size, name: &str, prefix: &str, fail: &[i64], wait: &[i64]) {
    let mut study = study(size);
    for run in &mut study.runs {
        run.trial = format!("{prefix}{}", run.trial);
        run.configuration = format!("{prefix}{}", run.configuration);
    }
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
        name: name.into(),
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

/// What the database does not hold, of the synthetic study.
struct Kept {
    /// The weights give other predictions than those that are stored.
    lie: bool,
}

impl Evidence for Kept {
    fn truth(&self, fingerprint: &str) -> Option<Truth> {
        assert_eq!(fingerprint, "feedfacefeedfacefeedfacefeedface");
        let labels = (0..200).map(|image| (image % 10) as u16).collect();
        Some(Truth { labels, classes: (0..10).map(|class| format!("glyph {class}")).collect() })
    }

    fn examine(&self, run: i64) -> Option<Examination> {
        let stored = study(&small()).predictions.remove(&run)?;
        let mut examination = common::examination(&stored, run as u64);
        if self.lie {
            examination.predicted.iter_mut().for_each(|class| *class = (*class + 1) % 10);
        }
        Some(examination)
    }

    fn memory_bytes(&self, _run: i64) -> Option<u64> {
        Some(5 << 20)
    }

    fn picture(&self, _fingerprint: &str, place: u32) -> Option<Picture> {
        Some(common::picture(place))
    }
}

#[test]
fn weights_that_contradict_the_database_are_not_shown() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path().join("results.db")).unwrap();
    fill(&store, &small(), &[], &[]);
    let names = ["glyphs".to_owned()];
    let page = |lie: bool| {
        let written = write_with(&store, &names, &folder.path().join(lie.to_string()), &Kept { lie }).unwrap();
        std::fs::read_to_string(written.markdown).unwrap()
    };
    let (honest, lying) = (page(false), page(true));
    assert!(
        honest.contains("Worst mistakes of AlexNet") && honest.contains("First convolution of LeNet-5"),
        "{honest}"
    );
    assert!(honest.contains("calibration error") && honest.contains("memory of one training step"), "{honest}");
    assert!(!lying.contains("Worst mistakes") && !lying.contains("calibration error"), "{lying}");
    assert!(lying.contains("do not give the predictions that the database holds"), "{lying}");
}

#[test]
fn several_experiments_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path().join("results.db")).unwrap();
    let size = Size { lambdas: vec![0.0], schedules: vec!["constant"], seeds: 3, epochs: 2, images: 0 };
    fill(&store, &size, &[], &[]);
    fill_as(&store, &size, "more", "second-", &[], &[]);
    let names = ["glyphs".to_owned(), "more".to_owned(), "glyphs".to_owned()];
    let written = write(&store, &names, &folder.path().join("report")).unwrap();
    let text = std::fs::read_to_string(written.markdown).unwrap();
    assert!(text.starts_with("# glyphs, more\n"), "{text}");
    assert!(text.contains("experiment=more") && text.contains("experiment=glyphs"), "{text}");
    assert!(text.contains("12 finished runs") || text.contains("(of 2 configurations)"), "{text}");
    assert!(text.contains("Several experiments are put together"), "{text}");
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
    let written = write_with(&store, &names, &folder.path().join("report"), &Kept { lie: false }).unwrap();
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
    assert!(!out.exists(), "nothing is written");
    let written = write(&store, &["glyphs".to_owned()], &out).unwrap();
    let answer = "There is no answer yet: no run has finished (1 failed, 1 not started).";
    assert!(written.summary.starts_with(answer), "{}", written.summary);
    let page = std::fs::read_to_string(written.html).unwrap();
    assert!(page.contains("loss is NaN in epoch 1") && page.contains("pipeline report glyphs"), "{page}");
}
