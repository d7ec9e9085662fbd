//! A fixed synthetic study: two networks, λ × schedule × seeds, one failed and one running run.
#![allow(dead_code, reason = "each test binary that includes this file uses a part of it")]

use std::path::Path;

use report::study::{Epoch, Evaluation, Experiment, Predictions, Provenance, Run, Status, Study};
use report::{Examination, Filters, Picture};
use serde_json::json;

/// A number in [0, 1) that depends on its arguments only.
pub fn noise(a: u64, b: u64, c: u64) -> f64 {
    let mut z = a.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ b.wrapping_mul(0xD1B5_4A32_D192_ED03) ^ c.wrapping_add(77);
    for _ in 0..3 {
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
    }
    (z >> 11) as f64 / (1_u64 << 53) as f64
}

/// How large a study to make.
pub struct Size {
    pub lambdas: Vec<f64>,
    pub schedules: Vec<&'static str>,
    pub seeds: u64,
    pub epochs: u32,
    pub images: usize,
}

impl Default for Size {
    fn default() -> Self {
        Self {
            lambdas: vec![0.0, 0.0001, 0.0005, 0.005],
            schedules: vec!["constant", "step", "cosine"],
            seeds: 5,
            epochs: 12,
            images: 500,
        }
    }
}

fn rate(schedule: &str, epoch: u32, epochs: u32) -> f64 {
    match schedule {
        "step" => 0.01 * 0.1_f64.powi((3 * (epoch - 1) / epochs) as i32),
        "cosine" => 0.005 * (1.0 + (std::f64::consts::PI * f64::from(epoch) / f64::from(epochs + 1)).cos()),
        _ => 0.01,
    }
}

/// The study.
pub fn study(size: &Size) -> Study {
    let mut study = Study {
        experiments: vec![Experiment {
            name: "glyphs".into(),
            question: "Is AlexNet better than LeNet-5 on glyphs, and which weight decay and schedule suit each?".into(),
            command: "pipeline sweep experiments/glyphs.toml".into(),
            trials: 0,
            objectives: Vec::new(),
            distributions: std::collections::BTreeMap::new(),
        }],
        ..Study::default()
    };
    let mut id = 0;
    for (network, (architecture, parameters, macs)) in
        [("lenet5", 61_706, 416_520), ("alexnet", 1_182_346, 21_530_112)].into_iter().enumerate()
    {
        for (l, lambda) in size.lambdas.iter().enumerate() {
            for (s, schedule) in size.schedules.iter().enumerate() {
                for seed in 1..=size.seeds {
                    id += 1;
                    // λ has its best value in the middle, and schedules differ a little.
                    let likes = -0.004 * (l as f64 - 2.0).powi(2) + 0.003 * s as f64;
                    let end = 0.94 + 0.018 * network as f64 + likes + 0.004 * (noise(id, seed, 1) - 0.5);
                    let speed = if network == 0 { 9200.0 } else { 610.0 };
                    let epochs: Vec<Epoch> = (1..=size.epochs)
                        .map(|epoch| {
                            let progress = 1.0 - (-0.45 * f64::from(epoch)).exp();
                            let wobble = 0.01 * (noise(id, epoch.into(), 2) - 0.5);
                            let validation = end * progress + wobble;
                            Epoch {
                                epoch,
                                learning_rate: rate(schedule, epoch, size.epochs),
                                train_loss: 2.3 * (1.0 - progress) + 0.02 + 0.01 * noise(id, epoch.into(), 3),
                                train_top1: (end + 0.02 - 0.004 * l as f64) * progress,
                                validation_loss: Some(
                                    2.3 * (1.0 - progress) + 0.12 + 0.02 * noise(id, epoch.into(), 4),
                                ),
                                validation_top1: Some(validation),
                                images_per_second: speed * (1.0 + 0.02 * noise(id, epoch.into(), 5)),
                                epoch_seconds: 5400.0 / speed,
                            }
                        })
                        .collect();
                    let actual: Vec<u16> = (0..size.images).map(|image| (image % 10) as u16).collect();
                    let test = end - 0.004 + 0.003 * (noise(id, seed, 6) - 0.5);
                    let predicted: Vec<u16> = actual
                        .iter()
                        .enumerate()
                        .map(|(image, &class)| {
                            let wrong = noise(seed, image as u64, 7) > test;
                            if wrong { ((u64::from(class) + 1 + (image as u64 / 10) % 3) % 10) as u16 } else { class }
                        })
                        .collect();
                    let right = predicted.iter().zip(&actual).filter(|(p, a)| p == a).count();
                    let top1 = if size.images > 0 { right as f64 / size.images as f64 } else { test };
                    if size.images > 0 {
                        let classes = (0..10).map(|class| format!("glyph {class}")).collect();
                        study.predictions.insert(id as i64, Predictions { predicted, actual, classes });
                    }
                    study.runs.push(Run {
                        id: id as i64,
                        experiment: "glyphs".into(),
                        trial: format!("trial{id:04}"),
                        configuration: format!("{architecture}-{l}-{s}"),
                        label: format!("{architecture} λ={lambda} schedule={schedule} seed={seed}"),
                        variant: Some(architecture.into()),
                        seed,
                        architecture: architecture.into(),
                        parameters: Some(parameters),
                        macs_per_image: Some(macs),
                        has_frozen_layers: false,
                        assignments: vec![
                            ("train.schedule".into(), json!(schedule)),
                            ("train.weight_decay".into(), json!(lambda)),
                        ],
                        status: Status::Done,
                        provenance: Provenance {
                            commit: "0123456789abcdef0123456789abcdef01234567".into(),
                            version: "0.1.0".into(),
                            device: "cpu".into(),
                            threads: Some(2),
                            cpu: "Example CPU".into(),
                            data_fingerprint: "feedfacefeedfacefeedfacefeedface".into(),
                            command: String::new(),
                        },
                        peak_memory_bytes: Some(if network == 0 { 90 << 20 } else { 480 << 20 }),
                        epochs,
                        test: Some(Evaluation { loss: 0.2, top1, top5: Some(0.995), images: size.images as u64 }),
                        ..Run::default()
                    });
                }
            }
        }
    }
    study.experiments[0].trials = study.runs.len();
    study
}

/// What weights might say about the images of these predictions.
pub fn examination(stored: &Predictions, salt: u64) -> Examination {
    let images = stored.predicted.len();
    let right =
        |image: usize| stored.predicted[image] == stored.actual.get(image).copied().unwrap_or(image as u16 % 10);
    let confidence: Vec<f64> = (0..images)
        .map(|image| {
            let sure = noise(salt, image as u64, 8);
            if right(image) { 0.5 + 0.5 * sure.sqrt() } else { 0.3 + 0.65 * sure }
        })
        .collect();
    let truth = |image: usize| if right(image) { confidence[image] } else { 0.6 * (1.0 - confidence[image]) };
    let weights = (0..6 * 25).map(|weight| noise(salt, weight, 9) as f32 - 0.5).collect();
    Examination {
        places: (0..images as u32).collect(),
        predicted: stored.predicted.clone(),
        actual: (0..images).map(|image| stored.actual.get(image).copied().unwrap_or(image as u16 % 10)).collect(),
        probability_of_truth: (0..images).map(truth).collect(),
        filters: Some(Filters { shape: [6, 1, 5, 5], weights }),
        confidence,
    }
}

/// An image of 12×12 gray pixels: a bar whose place depends on its class.
pub fn picture(place: u32) -> Picture {
    let class = place % 10;
    let pixel = |at: u32| if at % 12 == class + 1 || at / 12 == place / 10 % 12 { 230 } else { 20 };
    Picture { channels: 1, height: 12, width: 12, pixels: (0..144).map(pixel).collect() }
}

/// The study with one examined run of each network, and all images.
pub fn with_images(mut study: Study) -> Study {
    for run in study.runs.iter_mut().filter(|run| run.seed == 1) {
        if let Some(stored) = study.predictions.get(&run.id) {
            study.examinations.insert(run.id, examination(stored, run.id as u64));
        }
        run.step_memory_bytes = run.parameters.map(|parameters| 24 * parameters);
    }
    for place in 0..500 {
        study.pictures.insert(("feedfacefeedfacefeedfacefeedface".into(), place), picture(place));
    }
    study
}

/// Compares with a file under `tests/golden`; `REPORT_BLESS=1` writes it anew.
#[track_caller]
pub fn golden(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("REPORT_BLESS").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    if let Some((line, (found, expected))) =
        text.lines().zip(expected.lines()).enumerate().find(|(_, (found, expected))| found != expected)
    {
        panic!("{name}, line {}:\n found    {found}\n expected {expected}\n(REPORT_BLESS=1 writes it anew)", line + 1);
    }
    assert_eq!(text.len(), expected.len(), "{name}: one is longer (REPORT_BLESS=1 writes it anew)");
}
