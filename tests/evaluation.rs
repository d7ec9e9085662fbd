//! Weights of a run, evaluated.

use store::Value;

use crate::workplace::{DB, SMALL, Workplace};

const RECORDED: &str = "SELECT loss, top1, top5, images FROM evaluations WHERE run_id = 1 AND split = 'test'";

/// Number of a JSON row, to the bit.
fn number(row: &serde_json::Value, key: &str) -> Value {
    Value::Real(row[key].as_f64().unwrap_or_else(|| panic!("{key} of {row}")))
}

#[test]
fn evaluating_a_run_gives_the_metrics_that_it_recorded() {
    let networks = [
        "lenet5",
        "alexnet model.width=0.0625 train.evaluation_batch_size=7",
        "alexnet model.width=0.25 train.precision=bf16",
    ];
    for network in networks {
        let place = Workplace::with(SMALL);
        let train = format!("train experiment.toml ~sweep seeds=1 model.architecture={network}");
        place.run(&train).exits(0);
        let recorded = &place.rows(DB, RECORDED)[0];
        for threads in ["", "--threads 1", "--threads 2"] {
            let evaluation = place.run(&format!("evaluate 1 --format json {threads}")).exits(0).json();
            let row = &evaluation[0];
            let got = [
                number(row, "loss"),
                number(row, "top1"),
                number(row, "top5"),
                Value::Integer(row["images"].as_i64().unwrap()),
            ];
            assert_eq!(got, recorded[..], "{network}, {threads}");
        }
    }
}

#[test]
fn a_run_can_be_evaluated_on_every_split_and_from_any_folder() {
    let place = Workplace::with(SMALL);
    place.run("train experiment.toml ~sweep seeds=1").exits(0);
    for (split, images) in [("train", 270), ("validation", 30), ("test", 100)] {
        let evaluation = place.run(&format!("evaluate 1 --split {split} --format json")).exits(0).json();
        assert_eq!((&evaluation[0]["split"], &evaluation[0]["images"]), (&split.into(), &images.into()));
        let top1 = evaluation[0]["top1"].as_f64().unwrap();
        assert!((0.0..=1.0).contains(&top1));
    }
    let elsewhere = tempfile::tempdir().unwrap();
    let mut command = place.command(["evaluate", "1", "--format", "json", "--db"]);
    let output = command.arg(place.path(DB)).current_dir(elsewhere.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let here = place.run("evaluate 1 --format json").exits(0);
    assert_eq!(output.stdout, here.stdout);
}

#[test]
fn averages_over_classes_are_those_of_the_classes_shown() {
    let place = Workplace::with(SMALL);
    place.run("train experiment.toml ~sweep seeds=1").exits(0);
    let evaluation = place.run("evaluate 1 --details --format json").exits(0).json();
    let classes = evaluation["classes"].as_array().unwrap();
    assert_eq!(classes.len(), 10);
    for (average, share) in [("macro_precision", "precision"), ("macro_recall", "recall"), ("macro_f1", "f1")] {
        // Every class occurs; one that is never predicted has no precision, which counts as 0.
        let mean = classes.iter().map(|class| class[share].as_f64().unwrap_or(0.0)).sum::<f64>() / 10.0;
        let got = evaluation["summary"][0][average].as_f64().unwrap();
        assert!((got - mean).abs() < 1e-12, "{average}: {got} is not {mean}");
    }
}

#[test]
fn a_run_finds_its_data_where_it_was_trained() {
    let place = Workplace::with(SMALL);
    place.write_idx("my data", 28);
    let words = ["train", "experiment.toml", "~sweep", "seeds=1", "~dataset.train_images", "~dataset.test_images"];
    let path = "dataset.path=my data";
    place.run_words(&[&words[..], &["dataset.source=idx", path]].concat()).exits(0);
    let evaluation = place.run("evaluate 1 --format json").exits(0);
    assert_eq!(evaluation.json()[0]["images"], 20);
    std::fs::rename(place.path("my data"), place.path("moved")).unwrap();
    let lost = place.run("evaluate 1").exits(2);
    assert!(lost.stderr.contains("my data") && lost.stderr.contains("dataset.path"), "{}", lost.stderr);
    let found = place.run("evaluate 1 dataset.path=moved --format json").exits(0);
    assert_eq!(found.stdout, evaluation.stdout);
}

#[test]
fn a_run_is_evaluated_on_the_images_asked_for() {
    let place = Workplace::with(SMALL);
    place.run("train experiment.toml ~sweep seeds=1").exits(0);
    place.write("harder.toml", "name = \"harder\"\n[dataset]\nseed = 5\ntrain_images = 40\ntest_images = 60\n");
    let harder = place.run("evaluate 1 --data harder.toml --format json").exits(0);
    assert_eq!(harder.json()[0]["images"], 60);
    assert!(harder.stderr.contains("not the data set that run 1 was trained on"), "{}", harder.stderr);
    let overridden = place.run("evaluate 1 dataset.test_images=50 --format json").exits(0);
    assert_eq!(overridden.json()[0]["images"], 50, "an override is not passed over");
    let larger = place.run("evaluate 1 dataset.image_size=32 --format json").exits(2);
    assert!(larger.stderr.contains("28, 28") && larger.stderr.contains("32, 32"), "{}", larger.stderr);
}
