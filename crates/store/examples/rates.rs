//! How fast the database takes and gives, on this machine and this disk: `cargo run -p store --example rates [FILE]`.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use store::{EpochRow, EvaluationRow, ExperimentId, NewExperiment, NewTrial, Outcome, Provenance, Split, Store, named};

const TRIALS: u32 = 1_000;
const EPOCHS: u32 = 100;
/// Numbers that an epoch's row holds.
const METRICS: u32 = 11;
const LEASE: Duration = Duration::from_secs(60);

fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let path = std::env::args_os().nth(1).map_or_else(|| folder.path().join("results.db"), PathBuf::from);
    if path.exists() {
        return Err(format!("{} is there already", path.display()).into());
    }
    let store = timed("open and make", 1, "files", || Store::open(&path))?;
    timed("open again", 1, "files", || Store::open(&path).map(drop))?;

    let id = timed("plan", TRIALS, "trials", || plan(&store, "claims"))?;
    timed("claim and finish", TRIALS, "cycles", || work(&store, id, 0, Write::Nothing))?;
    let id = plan(&store, "rows")?;
    timed("record epochs one by one, each durable", TRIALS * 10 * METRICS, "metrics", || {
        work(&store, id, 10, Write::Single)
    })?;
    let id = plan(&store, "batches")?;
    timed("record epochs in batches of one run", TRIALS * EPOCHS * METRICS, "metrics", || {
        work(&store, id, EPOCHS, Write::Batch)
    })?;

    timed("read runs", TRIALS, "rows", || store.runs(id).map(drop))?;
    timed("read epochs", TRIALS * EPOCHS, "rows", || store.epochs(id).map(drop))?;
    timed("read trial states", TRIALS, "rows", || store.trial_states(id).map(drop))?;
    timed("query curve", TRIALS * EPOCHS, "rows", || {
        store.query("SELECT * FROM curve WHERE experiment = 'batches'", &[]).map(drop)
    })?;
    for query in named::all() {
        let arguments: &[&str] = match query.name {
            "curve" => &["2500"],
            "compare" => &["alexnet", "lenet5"],
            _ => &["batches"],
        };
        timed(&format!("query {}", query.name), 1, "queries", || query.run(&store, arguments).map(drop))?;
    }
    drop(store);
    println!("{} bytes", Path::new(&path).metadata()?.len());
    Ok(())
}

fn timed<T, E>(what: &str, count: u32, unit: &str, work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    let start = Instant::now();
    let result = work()?;
    let seconds = start.elapsed().as_secs_f64();
    println!("{what:42} {:9.2} ms {:12.0} {unit}/s", seconds * 1e3, f64::from(count) / seconds);
    Ok(result)
}

fn plan(store: &Store, name: &str) -> Result<ExperimentId, Box<dyn Error>> {
    let trials: Vec<NewTrial> = (0..TRIALS)
        .map(|index| {
            let network = if index % 2 == 0 { "alexnet" } else { "lenet5" };
            NewTrial {
                identity: format!("{name} {index:032x}"),
                configuration: format!("{network} {}", index / 10),
                canonical: "{}".to_owned(),
                label: format!("{network} λ=0.0005 seed={index}"),
                architecture: network.to_owned(),
                seed: index.into(),
                assignments: vec![("train.weight_decay".to_owned(), (index / 10).to_string())],
                ..NewTrial::default()
            }
        })
        .collect();
    let experiment = NewExperiment { name: name.to_owned(), ..NewExperiment::default() };
    Ok(store.record_experiment(&experiment, &trials)?)
}

#[derive(Clone, Copy, PartialEq)]
enum Write {
    Nothing,
    Single,
    Batch,
}

fn work(store: &Store, id: ExperimentId, epochs: u32, write: Write) -> Result<(), Box<dyn Error>> {
    let rows: Vec<EpochRow> = (1..=epochs)
        .map(|epoch| {
            let value = 1.0 / f64::from(epoch + 1);
            EpochRow {
                epoch,
                learning_rate: value,
                train_loss: value,
                train_penalty: value,
                train_top1: value,
                train_top5: value,
                validation_loss: Some(value),
                validation_top1: Some(value),
                validation_top5: Some(value),
                images_per_second: value,
                epoch_seconds: value,
                steps: 844,
            }
        })
        .collect();
    let mut count = 0;
    while let Some(claim) = store.claim_next(id, "w", LEASE, &Provenance::default())? {
        count += 1;
        match write {
            Write::Nothing => {}
            Write::Single => {
                for row in &rows {
                    store.record_epoch(claim.run, "w", row)?;
                }
            }
            Write::Batch => {
                store.record_epochs(claim.run, "w", &rows)?;
                let test = EvaluationRow {
                    split: Split::Test,
                    epoch: 1,
                    loss: 1.0,
                    top1: 0.9 + f64::from(claim.run.0 as i32 % 10) / 1000.0,
                    top5: 1.0,
                    images: 10_000,
                    seconds: 1.0,
                };
                store.record_evaluation(claim.run, "w", &test, None)?;
            }
        }
        let outcome = Outcome::Done { tested_epoch: 1, checkpoint: None, train_seconds: 1.0, peak_memory_bytes: 0 };
        store.finish(claim.run, "w", &outcome)?;
    }
    assert_eq!(count, TRIALS, "every trial once");
    Ok(())
}
