//! The same numbers, to the last bit, however the work is shared out.

use crate::workplace::Workplace;

/// All that draws random numbers or sums up over threads: augmentation, dropout, batch normalization, both networks.
const LIVELY: &str = r#"
name = "lively"
seeds = 2
[dataset]
train_images = 300
test_images = 100
[augment]
pad = 2
crop = 28
rotation_degrees = 10
translate = 0.05
noise = 0.02
mixup = 0.2
[train]
epochs = 2
batch_size = 32
label_smoothing = 0.1
gradient_clip = 5.0
schedule = "cosine"
[variants.lenet5.model]
architecture = "lenet5"
dropout = 0.1
[variants.alexnet.model]
architecture = "alexnet"
width = 0.0625
dropout = 0.5
[variants.towers.model]
architecture = "alexnet"
width = 0.0625
towers = 2
normalization = "local-response"
"#;

#[test]
fn one_thread_two_threads_and_two_jobs_write_equal_metrics() {
    let place = Workplace::with(LIVELY);
    let ways = ["--threads 1 --jobs 1", "--threads 2 --jobs 1", "--threads 1 --jobs 2", "--threads 3 --jobs 2"];
    let mut metrics = Vec::new();
    for (number, way) in ways.iter().enumerate() {
        place.run(&format!("sweep experiment.toml --no-report --db {number}.db {way}")).exits(0);
        metrics.push(place.metrics(&format!("{number}.db")));
    }
    for (way, other) in ways.iter().zip(&metrics) {
        assert_eq!(*other, metrics[0], "{way} against {}", ways[0]);
    }
}
