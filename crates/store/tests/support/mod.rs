//! Plans and rows for tests.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::path::PathBuf;
use std::time::Duration;

use store::{EpochRow, EvaluationRow, ExperimentId, NewExperiment, NewTrial, Outcome, Provenance, RunId, Split, Store};
use tempfile::TempDir;

/// Longer than any test.
pub const LEASE: Duration = Duration::from_secs(3600);

pub fn temporary() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("results.db");
    (folder, path)
}

pub fn experiment(name: &str) -> NewExperiment {
    NewExperiment {
        name: name.into(),
        question: "does it work?".into(),
        file: format!("experiments/{name}.toml"),
        config_toml: format!("name = {name:?}\n"),
        command: format!("pipeline sweep experiments/{name}.toml"),
    }
}

pub fn trial(seed: u64) -> NewTrial {
    NewTrial {
        identity: format!("{seed:032x}"),
        configuration: "c".repeat(32),
        canonical: format!("{{\"seed\":{seed}}}"),
        label: format!("trial {seed}"),
        variant: None,
        seed,
        architecture: "alexnet".into(),
        parameters: 62_378_344,
        macs_per_image: 1_135_256_096,
        data_fingerprint: "d".repeat(32),
        assignments: vec![("train.weight_decay".into(), "0.0005".into())],
    }
}

pub fn plan(trials: u64) -> Vec<NewTrial> {
    (0..trials).map(trial).collect()
}

pub fn provenance() -> Provenance {
    Provenance {
        commit: "0123abc".into(),
        version: "0.1.0".into(),
        device: "cpu".into(),
        threads: 2,
        os: "linux".into(),
        cpu: "a processor".into(),
        command: "pipeline sweep x.toml".into(),
        config: "name = \"x\"".into(),
        data_fingerprint: "d".repeat(32),
    }
}

pub fn epoch(epoch: u32) -> EpochRow {
    let e = f64::from(epoch);
    EpochRow {
        epoch,
        learning_rate: 0.01 / e,
        train_loss: 2.3 / e,
        train_penalty: 0.001 * e,
        train_top1: 1.0 - 0.5 / e,
        train_top5: 1.0 - 0.1 / e,
        validation_loss: Some(2.4 / e),
        validation_top1: Some(1.0 - 0.6 / e),
        validation_top5: Some(1.0 - 0.2 / e),
        images_per_second: 1234.5,
        epoch_seconds: 1.5,
        steps: 844,
    }
}

pub fn finish(store: &Store, run: RunId, worker: &str) {
    let outcome = Outcome::Done { tested_epoch: 1, checkpoint: None, train_seconds: 1.5, peak_memory_bytes: 1 << 20 };
    store.finish(run, worker, &outcome).unwrap();
}

/// Runs what waits; the accuracy depends on the order.
pub fn run_all(store: &Store, experiment: ExperimentId, worker: &str) {
    let mut count = 0;
    while let Some(claim) = store.claim_next(experiment, worker, LEASE, &provenance()).unwrap() {
        count += 1;
        store.record_epoch(claim.run, worker, &epoch(1)).unwrap();
        let test = EvaluationRow {
            split: Split::Test,
            epoch: 1,
            loss: 1.0 / f64::from(count),
            top1: 1.0 - 0.125 / f64::from(count),
            top5: 1.0,
            images: 100,
            seconds: 0.25,
        };
        store.record_evaluation(claim.run, worker, &test, Some(&[1, 2, 3])).unwrap();
        finish(store, claim.run, worker);
    }
}
