//! The files in `experiments/`.

use std::fs;
use std::path::Path;

use plan::Experiment;

/// Every file with its number of trials, so that none grows unnoticed.
const FILES: [(&str, usize); 15] = [
    ("alexnet-activation", 27),
    ("alexnet-augmentation", 51),
    ("alexnet-cifar10", 6),
    ("alexnet-dropout", 12),
    ("alexnet-lenet5-mnist", 9),
    ("alexnet-normalization", 18),
    ("alexnet-pooling", 6),
    ("alexnet-precision", 10),
    ("alexnet-schedules", 18),
    ("alexnet-towers", 6),
    ("alexnet-weight-decay", 15),
    ("lenet5-average", 15),
    ("lenet5-halving", 75),
    ("lenet5-mnist", 24),
    ("quickstart", 12),
];

#[test]
fn every_file_plans_and_opens_with_its_question() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../experiments");
    let mut found = Vec::new();
    for file in fs::read_dir(&folder).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let experiment = Experiment::load(&path, &[]).unwrap_or_else(|error| panic!("{error}"));
        let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
        assert_eq!(experiment.name, stem, "an experiment is called as its file");
        let first = fs::read_to_string(&path).unwrap().lines().next().unwrap_or_default().to_owned();
        assert_eq!(first, format!("# {}", experiment.question), "{stem}");
        assert!(experiment.question.ends_with('?'), "{stem}");
        found.push((stem, experiment.trials().len()));
    }
    found.sort_unstable();
    assert_eq!(found, FILES.map(|(name, trials)| (name.to_owned(), trials)));
}

#[test]
fn the_books_schedule_is_among_those_swept_on_mnist() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../experiments/lenet5-mnist.toml");
    let experiment = Experiment::load(&path, &["dataset.path=elsewhere/mnist".to_owned()]).unwrap();
    let trials = experiment.trials();
    assert!(trials.iter().any(|trial| trial.settings.train.schedule.kind() == "book"));
    assert!(trials.iter().all(|trial| trial.settings.dataset.path.as_deref() == Some(Path::new("elsewhere/mnist"))));
}
