//! How long a page of many trials takes: fills a database through the store, then times the report.
//!
//! `cargo run -p report --example large -- [TRIALS] [EPOCHS] [FOLDER]`, 1,000 and 100 unless told otherwise.

use std::time::{Duration, Instant};

use store::{EpochRow, EvaluationRow, NewExperiment, NewTrial, Outcome, Provenance, Split, Store};

const SEEDS: usize = 5;
const LEASE: Duration = Duration::from_secs(600);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |index: usize, default: usize| arguments.get(index).map_or(Ok(default), |word| word.parse());
    let (trials, epochs) = (number(0, 1000)?, number(1, 100)?);
    let folder = tempfile::tempdir()?;
    let path = arguments.get(2).map_or_else(|| folder.path().to_owned(), std::path::PathBuf::from);
    std::fs::create_dir_all(&path)?;
    let store = Store::open(path.join("results.db"))?;
    let start = Instant::now();
    fill(&store, trials, epochs)?;
    println!("{trials} trials × {epochs} epochs: database filled in {:.2} s", start.elapsed().as_secs_f64());
    for _ in 0..3 {
        let start = Instant::now();
        let written = report::write(&store, &["large".to_owned()], &path.join("report"))?;
        let bytes = std::fs::metadata(&written.html)?.len();
        println!("report written in {:.2} s, page of {} kB", start.elapsed().as_secs_f64(), bytes / 1000);
    }
    Ok(())
}

/// Numbers in [0, 1) that look random and are always the same (SplitMix64).
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

fn fill(store: &Store, trials: usize, epochs: usize) -> Result<(), store::StoreError> {
    let mut noise = Noise(7);
    let planned: Vec<(NewTrial, f64)> = (0..trials)
        .map(|number| {
            let (configuration, seed) = (number / SEEDS, number % SEEDS + 1);
            let alexnet = configuration % 2 == 1;
            let lambda: f64 = [0.0, 1e-5, 1e-4, 5e-4, 5e-3][configuration / 2 % 5];
            let schedule = ["constant", "cosine", "book", "step"][configuration / 10 % 4];
            let rate: f64 = [0.001, 0.003, 0.01, 0.03, 0.1][configuration / 40 % 5];
            let architecture = if alexnet { "alexnet" } else { "lenet5" };
            let best = 0.93 + 0.03 * f64::from(u8::from(alexnet)) - 0.02 * (rate.log10() + 2.0).powi(2)
                + 0.004 * f64::from(u8::from(lambda > 0.0))
                + 0.004 * noise.next();
            let trial = NewTrial {
                identity: format!("trial-{number:06}"),
                configuration: format!("configuration-{configuration:06}"),
                canonical: "{}".into(),
                label: format!("{architecture} λ={lambda} η={rate} {schedule} seed={seed}"),
                variant: None,
                seed: seed as u64,
                architecture: architecture.into(),
                parameters: if alexnet { 1_182_346 } else { 61_706 },
                macs_per_image: if alexnet { 21_530_112 } else { 416_520 },
                data_fingerprint: "feedface".repeat(8),
                assignments: vec![
                    ("train.learning_rate".into(), rate.to_string()),
                    ("train.schedule".into(), format!("\"{schedule}\"")),
                    ("train.weight_decay".into(), lambda.to_string()),
                    // Past the grid, so that every configuration differs.
                    ("train.label_smoothing".into(), (0.01 * (configuration / 200) as f64).to_string()),
                ],
            };
            (trial, best)
        })
        .collect();
    let experiment = NewExperiment {
        name: "large".into(),
        question: "How long does a page of many trials take?".into(),
        file: "large.toml".into(),
        config_toml: String::new(),
        command: "pipeline sweep large.toml".into(),
    };
    let all: Vec<NewTrial> = planned.iter().map(|(trial, _)| trial.clone()).collect();
    let id = store.record_experiment(&experiment, &all)?;
    let provenance = Provenance {
        commit: "0123456789abcdef".into(),
        version: "0.1.0".into(),
        device: "cpu".into(),
        threads: 2,
        os: "linux".into(),
        cpu: "Example CPU".into(),
        command: "pipeline train large.toml".into(),
        config: String::new(),
        data_fingerprint: "feedface".repeat(8),
    };
    for (trial, best) in planned {
        let Some(claim) = store.claim(id, &trial.identity, "example", LEASE, &provenance)? else { continue };
        let rows: Vec<EpochRow> = (1..=epochs)
            .map(|epoch| {
                let progress = 1.0 - (-5.0 * epoch as f64 / epochs as f64).exp();
                EpochRow {
                    epoch: epoch as u32,
                    learning_rate: 0.01,
                    train_loss: 2.3 * (1.0 - progress) + 0.02 + 0.01 * noise.next(),
                    train_penalty: 0.0,
                    train_top1: (best + 0.02) * progress,
                    train_top5: 1.0,
                    validation_loss: Some(2.3 * (1.0 - progress) + 0.1 + 0.02 * noise.next()),
                    validation_top1: Some(best * progress + 0.004 * noise.next()),
                    validation_top5: Some(1.0),
                    images_per_second: 9000.0,
                    epoch_seconds: 0.6,
                    steps: 85,
                }
            })
            .collect();
        store.record_epochs(claim.run, "example", &rows)?;
        let test = EvaluationRow {
            split: Split::Test,
            epoch: epochs as u32,
            loss: 0.2,
            top1: best + 0.004 * noise.next(),
            top5: 0.998,
            images: 10_000,
            seconds: 0.5,
        };
        let predicted: Vec<u16> = (0..10_000).map(|image| (image % 10) as u16).collect();
        store.record_evaluation(claim.run, "example", &test, Some(&predicted))?;
        let outcome = Outcome::Done {
            tested_epoch: epochs as u32,
            checkpoint: None,
            train_seconds: 60.0,
            peak_memory_bytes: 100 << 20,
        };
        store.finish(claim.run, "example", &outcome)?;
    }
    Ok(())
}
