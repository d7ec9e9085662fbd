//! A sweep from its file to its report.

use crate::workplace::{DB, SMALL, Workplace};

#[test]
fn a_sweep_writes_runs_epochs_predictions_checkpoints_and_a_report() {
    let place = Workplace::with(SMALL);
    let sweep = place.run("sweep experiment.toml").exits(0);
    assert!(sweep.text().contains("LeNet-5") && sweep.text().contains("test accuracy"), "{}", sweep.text());
    assert!(sweep.text().contains("reports/small/report.html"), "{}", sweep.text());
    assert!(sweep.stderr.contains("4 of 4 trials done"), "{}", sweep.stderr);

    assert_eq!(place.count(DB, "SELECT count(*) FROM runs WHERE status = 'done' AND attempt = 1 AND claims = 1"), 4);
    assert_eq!(place.count(DB, "SELECT count(*) FROM epochs"), 8);
    assert_eq!(place.count(DB, "SELECT count(*) FROM evaluations WHERE split = 'test' AND images = 100"), 4);
    assert_eq!(place.count(DB, "SELECT sum(length(classes)) FROM predictions"), 4 * 100 * 2);
    assert_eq!(place.count(DB, "SELECT count(DISTINCT seed) FROM trials"), 2);
    assert_eq!(place.count(DB, "SELECT count(DISTINCT configuration) FROM trials"), 2);
    for column in ["commit_hash", "version", "device", "os", "cpu", "command", "config", "data_fingerprint"] {
        let named = place.count(DB, &format!("SELECT count(*) FROM claims WHERE length({column}) > 0"));
        assert_eq!(named, 4, "provenance of every run has {column}");
    }

    for run in place.rows(DB, "SELECT run_id, checkpoint FROM runs") {
        assert!(place.path(run[1].to_string()).is_file(), "weights of run {}", run[0]);
        assert!(place.path(format!("results.runs/{}/checkpoint.safetensors", run[0])).is_file());
    }
    let report = place.path("reports/small");
    let html = std::fs::read_to_string(report.join("report.html")).unwrap();
    assert!(html.contains("Does it run?") && html.trim_end().ends_with("</html>"));
    assert!(
        !html.contains("src=\"http") && !html.contains("<link rel=\"stylesheet\" href"),
        "the page needs no network"
    );
    assert!(std::fs::read_to_string(report.join("report.md")).unwrap().contains("Does it run?"));
    for frame in ["runs", "epochs", "curves", "configurations"] {
        for extension in ["csv", "parquet"] {
            let path = report.join(format!("frames/{frame}.{extension}"));
            assert!(std::fs::metadata(&path).is_ok_and(|file| file.len() > 0), "{}", path.display());
        }
    }
}

#[test]
fn a_sweep_that_is_done_runs_nothing_unless_asked_to() {
    let place = Workplace::with(SMALL);
    place.run("sweep experiment.toml").exits(0);
    let before = place.metrics(DB);
    const ROWS: &str = "SELECT run_id, epoch, recorded_ms FROM epochs ORDER BY 1, 2";
    let rows = place.rows(DB, ROWS);

    let second = place.run("sweep experiment.toml").exits(0);
    assert!(second.stderr.contains("4 of 4 trials done (4 of them before)"), "{}", second.stderr);
    assert!(!second.stderr.contains("epoch 1/"), "nothing is trained: {}", second.stderr);
    assert!(second.text().contains("report: "), "the report is written all the same");
    assert_eq!(place.rows(DB, ROWS), rows);
    assert_eq!(place.count(DB, "SELECT count(*) FROM runs"), 4);

    place.run("sweep experiment.toml --again").exits(0);
    assert_eq!(place.count(DB, "SELECT count(*) FROM runs WHERE status = 'done'"), 8);
    assert_eq!(place.count(DB, "SELECT count(*) FROM runs WHERE attempt = 2"), 4);
    assert_eq!(place.rows(DB, "SELECT run_id, epoch, recorded_ms FROM epochs WHERE run_id <= 4 ORDER BY 1, 2"), rows);
    assert_eq!(place.metrics(DB), before, "the same trial comes to the same numbers");
}

#[test]
fn a_wider_sweep_of_the_same_name_runs_only_what_is_new() {
    let place = Workplace::with(SMALL);
    place.run("sweep experiment.toml --no-report").exits(0);
    let wider = place.run("sweep experiment.toml --no-report seeds=3").exits(0);
    assert!(wider.stderr.contains("6 of 6 trials done (4 of them before)"), "{}", wider.stderr);
    assert_eq!(place.count(DB, "SELECT count(*) FROM runs"), 6);
    assert!(!wider.stderr.contains("of the earlier plan"), "nothing has left the plan: {}", wider.stderr);

    place.write("other.toml", SMALL.replace("name = \"small\"", "name = \"other\""));
    // Also of what an experiment ran under an earlier plan of its name.
    let narrow = place.run("sweep experiment.toml --no-report seeds=1 train.epochs=1").exits(0);
    assert!(
        narrow.stderr.contains("6 runs of the earlier plan of small are no part of it any more"),
        "{}",
        narrow.stderr
    );
    let plan = place.run("plan other.toml --format json").exits(0);
    assert!(plan.stderr.contains("4 trials, 0 to run, 4 reused from other experiments"), "{}", plan.stderr);
    assert!(plan.json().as_array().unwrap().iter().all(|row| row["status"] == "reused"));
    let other = place.run("sweep other.toml --no-report").exits(0);
    assert!(
        other.stderr.contains("4 of 4 trials done (4 of them before)"),
        "another name, the same trials: {}",
        other.stderr
    );
    assert_eq!(place.count(DB, "SELECT count(*) FROM runs"), 8);
}

#[test]
fn training_one_trial_leaves_the_others_to_the_sweep() {
    let place = Workplace::with(SMALL);
    let train = place.run("train experiment.toml --trial 2").exits(0);
    assert!(train.text().contains("validation_top1") && train.text().contains("test"), "{}", train.text());
    assert_eq!(place.count(DB, "SELECT count(*) FROM runs"), 1);
    assert_eq!(place.count(DB, "SELECT position FROM results WHERE status = 'done'"), 2);
    let sweep = place.run("sweep experiment.toml --no-report").exits(0);
    assert!(sweep.stderr.contains("4 of 4 trials done (1 of them before)"), "{}", sweep.stderr);
    assert_eq!(place.count(DB, "SELECT count(*) FROM runs"), 4);
}

#[test]
fn a_trained_trial_is_printed_in_every_format() {
    let place = Workplace::with(SMALL);
    let both = place.run("train experiment.toml --trial 0 --format json").exits(0).json();
    assert_eq!(both["epochs"].as_array().unwrap().len(), 2, "{both}");
    assert_eq!((&both["epochs"][1]["epoch"], &both["test"][0]["split"]), (&2.into(), &"test".into()), "{both}");
    let curve = place.run("train experiment.toml --trial 0 --format csv").exits(0);
    assert_eq!(curve.text().lines().count(), 3, "a header and two epochs: {}", curve.text());
    place.run("train experiment.toml --trial 0 --format parquet --out epochs.parquet").exits(0);
    assert_eq!(&std::fs::read(place.path("epochs.parquet")).unwrap()[..4], b"PAR1");
    let table = place.run("train experiment.toml --trial 0").exits(0);
    assert!(table.text().starts_with("epoch  learning_rate") && table.text().contains("test"), "{}", table.text());
}
