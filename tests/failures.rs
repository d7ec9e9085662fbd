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
fn a_sweep_in_which_everything_fails_says_so() {
    let place = Workplace::with(DIVERGING);
    let sweep = place.run("sweep experiment.toml ~sweep train.learning_rate=1e30").exits(3);
    assert!(sweep.stderr.contains("0 of 1 trials done, 1 failed"), "{}", sweep.stderr);
    assert!(sweep.text().is_empty(), "there is nothing to report: {}", sweep.text());
}
