//! Real data, where it is present.

use std::path::{Path, PathBuf};

use store::Value;

use crate::workplace::{DB, Workplace};

/// A folder of real data: in `PIPELINE_TEST_DATA`, or beside the checkout.
pub fn real(name: &str) -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let path = std::env::var_os("PIPELINE_TEST_DATA").map_or(beside, PathBuf::from).join(name);
    if path.is_dir() {
        return path.canonicalize().ok();
    }
    eprintln!("SKIPPED: no {} (set PIPELINE_TEST_DATA to the folder that holds it)", path.display());
    None
}

#[test]
fn lenet5_reads_nine_of_ten_digits_after_one_epoch_over_6000_images() {
    let Some(mnist) = real("mnist") else { return };
    let place = Workplace::with(
        r#"
name = "digits"
seeds = 1
[dataset]
source = "idx"
train_images = 6000
[model]
architecture = "lenet5"
[train]
epochs = 1
batch_size = 16
learning_rate = 0.01
"#,
    );
    let path = format!("dataset.path={}", mnist.display());
    place.run_words(&["train", "experiment.toml", &path]).exits(0);
    let row = &place.rows(DB, "SELECT top1, images FROM evaluations WHERE split = 'test'")[0];
    assert_eq!(row[1], Value::Integer(10_000));
    assert!(matches!(row[0], Value::Real(top1) if (0.9..=1.0).contains(&top1)), "{row:?}");
    assert_eq!(place.count(DB, "SELECT parameters FROM trials"), 61_706);
}
