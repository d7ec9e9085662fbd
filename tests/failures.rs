//! Trials that fail, and the others.

use crate::workplace::{DB, Workplace};

const DIVERGING: &str = r#"
name = "diverging"
seeds = 1
[dataset]
train_images = 300
test_images = 100
[train]
epochs = 2
[sweep.grid]
"train.learning_rate" = [0.01, 1e30, 0.02]
"#;

#[test]
fn a_trial_that_diverges_is_recorded_and_leaves_the_others_alone() {
    let place = Workplace::with(DIVERGING);
    let sweep = place.run("sweep experiment.toml").exits(3);
    assert!(sweep.stderr.contains("2 of 3 trials done, 1 failed"), "{}", sweep.stderr);
    assert!(sweep.stderr.contains("--retry-failed"), "what can be done is said: {}", sweep.stderr);
    assert!(sweep.text().contains("report: "), "what is done is reported: {}", sweep.text());
    assert_eq!(place.count(DB, "SELECT count(*) FROM runs WHERE status = 'done'"), 2);
    assert_eq!(place.count(DB, "SELECT count(*) FROM runs WHERE status = 'failed' AND failure_kind = 'not-finite'"), 1);

    let failed = place.run("query failed --format json").exits(0).json();
    assert_eq!(failed.as_array().unwrap().len(), 1);
    assert!(failed[0]["failure_message"].as_str().unwrap().contains("train.learning_rate"), "{failed}");
    let report = place.run("report diverging").exits(0);
    assert!(report.text().contains("1 failed"), "the report says so: {}", report.text());
    let plan = place.run("plan experiment.toml --quiet --format json").exits(0).json();
    assert_eq!(plan[1]["status"], "failed");

    place.run("sweep experiment.toml --no-report").exits(3);
    assert_eq!(place.count(DB, "SELECT count(*) FROM runs"), 3, "a failure is not tried again unasked");
    place.run("sweep experiment.toml --no-report --retry-failed").exits(3);
    assert_eq!(place.count(DB, "SELECT count(*) FROM runs"), 4);
    assert_eq!(place.count(DB, "SELECT count(*) FROM runs WHERE status = 'failed' AND attempt <= 2"), 2);
}

#[test]
fn what_to_type_next_is_about_the_same_plan_and_database() {
    let place = Workplace::with(DIVERGING);
    let words =
        ["sweep", "experiment.toml", "name=my-own", "sweep.on_failure = \"continue\"", "--db", "a b.db", "--no-report"];
    let sweep = place.run_words(&words).exits(3);
    let expected =
        "`pipeline sweep experiment.toml name=my-own 'sweep.on_failure = \"continue\"' --db 'a b.db' --retry-failed`";
    assert!(sweep.stderr.contains(expected), "{}", sweep.stderr);
    let sweep = place.run("sweep experiment.toml --no-report").exits(3);
    assert!(sweep.stderr.contains("`pipeline sweep experiment.toml --retry-failed`"), "{}", sweep.stderr);
}

#[test]
fn a_sweep_whose_progress_nobody_reads_any_more_goes_on() {
    let place = Workplace::with(DIVERGING);
    let mut sweep = place.start("sweep experiment.toml ~sweep --no-report");
    // As `2>&1 | head -1` does.
    drop(sweep.stderr.take());
    assert_eq!(sweep.wait().unwrap().code(), Some(0));
    assert_eq!(place.count(DB, "SELECT count(*) FROM runs WHERE status = 'done'"), 1);
}

#[test]
fn a_sweep_in_which_everything_fails_says_so() {
    let place = Workplace::with(DIVERGING);
    let sweep = place.run("sweep experiment.toml ~sweep train.learning_rate=1e30").exits(3);
    assert!(sweep.stderr.contains("0 of 1 trials done, 1 failed"), "{}", sweep.stderr);
    assert!(sweep.text().is_empty(), "there is nothing to report: {}", sweep.text());
}

#[test]
fn a_sweep_stops_at_the_first_failure_if_it_is_asked_to() {
    let place = Workplace::with(DIVERGING);
    let sweep = place.run("sweep experiment.toml sweep.on_failure=stop --jobs 1 --no-report").exits(3);
    assert!(sweep.stderr.contains("stopped at the first failure"), "{}", sweep.stderr);
    assert_eq!(place.count(DB, "SELECT count(*) FROM runs"), 2, "the third trial was not begun");
    place.run("sweep experiment.toml --no-report").exits(3);
    assert_eq!(
        place.count(DB, "SELECT count(*) FROM runs WHERE status = 'done'"),
        2,
        "the same command runs the others"
    );
}

#[test]
fn what_the_machine_is_to_blame_for_is_tried_again_and_a_loss_that_is_no_number_is_not() {
    let place = Workplace::with(DIVERGING);
    // A file where the first run's folder is to be.
    place.write("results.runs/1", "in the way");
    let sweep = place.run("sweep experiment.toml sweep.retries=2 --jobs 1 --no-report").exits(3);
    assert_eq!(sweep.stderr.matches("once more: ").count(), 2, "{}", sweep.stderr);
    assert!(sweep.stderr.contains("1 of 3 trials done, 2 failed"), "{}", sweep.stderr);
    assert_eq!(place.count(DB, "SELECT count(*) FROM failures WHERE run_id = 1 AND kind = 'io'"), 3, "each is kept");
    assert_eq!(place.count(DB, "SELECT claims FROM runs WHERE run_id = 1"), 3);
    assert_eq!(place.count(DB, "SELECT count(*) FROM failures WHERE kind = 'not-finite'"), 1);

    std::fs::remove_file(place.path("results.runs/1")).unwrap();
    place.run("sweep experiment.toml --retry-failed --no-report").exits(3);
    assert_eq!(place.count(DB, "SELECT count(*) FROM runs WHERE run_id = 1 AND status = 'done' AND attempt = 1"), 1);
    assert_eq!(place.count(DB, "SELECT count(*) FROM runs WHERE status = 'failed' AND failure_kind = 'not-finite'"), 2);
}

/// One trial that takes far longer than the limits below.
const LONG: &str = r#"
[dataset]
train_images = 3000
test_images = 100
[train]
epochs = 400
batch_size = 2
learning_rate = 0.0001
"#;

#[test]
fn time_limits_stop_in_a_state_that_goes_on() {
    let place = Workplace::with(LONG);
    let sweep = place.run("sweep experiment.toml sweep.trial_minutes=0.02 --no-report --threads 1").exits(3);
    assert!(sweep.stderr.contains("sweep.trial_minutes = 0.02"), "{}", sweep.stderr);
    assert_eq!(place.count(DB, "SELECT count(*) FROM runs WHERE status = 'failed' AND failure_kind = 'time'"), 1);
    assert!(place.path("results.runs/1/checkpoint.safetensors").exists());
    let sweep = place.run("sweep experiment.toml sweep.minutes=0.03 --retry-failed --no-report --threads 1").exits(130);
    assert!(sweep.stderr.contains("the time of sweep.minutes is over"), "{}", sweep.stderr);
    assert_eq!(
        place.count(DB, "SELECT count(*) FROM runs WHERE status = 'interrupted' AND claims = 2"),
        1,
        "the same run"
    );
}
