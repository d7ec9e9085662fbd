//! `key=value` from the command line.

use std::path::Path;

use crate::{labels, parse, sound};

const FILE: &str = r#"
seeds = 2
[train]
epochs = 3
schedule = "plateau"
[sweep.grid]
"train.weight_decay" = [0.0, 0.1]
"train.momentum" = [0.5]
[variants.a.train]
batch_size = 8
[variants.b.train]
batch_size = 16
epochs = 5
"#;

#[track_caller]
fn check(overrides: &[&str], expected: &[&str]) {
    assert_eq!(labels(FILE, overrides), expected, "{overrides:?}");
}

#[track_caller]
fn check_refused(overrides: &[&str], expected: &str) {
    match parse(FILE, overrides) {
        Ok(_) => panic!("accepted {overrides:?}, but should say: {expected}"),
        Err(error) => assert_eq!(error.to_string(), expected, "{overrides:?}"),
    }
}

#[test]
fn what_the_command_line_sets_wins_over_variants() {
    let trials = sound(FILE, &["train.epochs=2"]).trials();
    assert!(trials.iter().all(|trial| trial.settings.train.epochs == 2));
    let trials = sound(FILE, &["variants.b.train.epochs=7"]).trials();
    let epochs: Vec<u32> = trials.iter().map(|trial| trial.settings.train.epochs).collect();
    assert_eq!(epochs, [3, 3, 3, 3, 7, 7, 7, 7]);
}

#[test]
fn what_the_command_line_sets_is_no_longer_swept() {
    check(&["train.weight_decay=0.3", "seeds=[4]"], &["a momentum=0.5 seed=4", "b momentum=0.5 seed=4"]);
    let trials = sound(FILE, &["train.weight_decay=0.3"]).trials();
    assert!(trials.iter().all(|trial| trial.settings.train.weight_decay == 0.3));
    check(&["train.weight_decay=0.3", "train.momentum=0.1", "seeds=[4]"], &["a seed=4", "b seed=4"]);
}

#[test]
fn axes_are_set_and_deleted() {
    let expected = ["a λ=0.5 momentum=0.5 seed=1", "b λ=0.5 momentum=0.5 seed=1"];
    check(&["seeds=1", "sweep.grid.\"train.weight_decay\"=[0.5]"], &expected);
    check(&["seeds=1", "sweep.grid.train.weight_decay=[0.5]"], &expected);
    check(
        &["seeds=1", "sweep.grid.'train.weight_decay' = { linspace = [0.5, 1], count = 2 }", "~variants.b"],
        &["a λ=0.5 momentum=0.5 seed=1", "a λ=1 momentum=0.5 seed=1"],
    );
    let expected = ["a λ=0 seed=1", "a λ=0.1 seed=1", "b λ=0 seed=1", "b λ=0.1 seed=1"];
    check(&["seeds=1", "~sweep.grid.\"train.momentum\""], &expected);
    check(&["seeds=1", "~sweep.grid.train.momentum"], &expected);
    check(&["seeds=1", "~sweep"], &["a seed=1", "b seed=1"]);
    check(
        &["seeds=1", "~variants", "~sweep", "sweep.grid={train={epochs=[1,2]}}"],
        &["lenet5 epochs=1 seed=1", "lenet5 epochs=2 seed=1"],
    );
}

#[test]
fn later_overrides_win() {
    check(&["~sweep", "~variants", "seeds=1", "seeds=[9]"], &["lenet5 seed=9"]);
}

#[test]
fn bare_words_serve_where_a_string_is_wanted() {
    let settings = |overrides: &[&str]| sound("", overrides).trials().remove(0).settings;
    let given = settings(&["dataset.source=idx", "dataset.path=../shared/data/mnist"]);
    assert_eq!(given.dataset.path.as_deref(), Some(Path::new("../shared/data/mnist")));
    for path in ["2024", "1.50", "true", "2024-01-01", "a=b"] {
        let given = settings(&["dataset.source=idx", &format!("dataset.path={path}")]);
        assert_eq!(given.dataset.path.as_deref(), Some(Path::new(path)));
    }
    assert_eq!(settings(&["train.schedule=cosine"]).train.schedule.kind(), "cosine");
    assert_eq!(settings(&["train.schedule=\"cosine\""]).train.schedule.kind(), "cosine");
    assert_eq!(sound("", &["name=2024", "question=Is it so?"]).question, "Is it so?");
}

#[test]
fn keys_inside_the_schedule_are_set() {
    let schedule = |overrides: &[&str]| sound(FILE, overrides).trials().remove(0).settings.train.schedule.to_string();
    assert_eq!(schedule(&["train.schedule.factor=0.5"]), "plateau(factor=0.5)");
    assert_eq!(schedule(&["train.schedule={kind=\"step\", every_epochs=2}"]), "step(every_epochs=2)");
}

#[test]
fn faults_name_the_command_line() {
    check_refused(&["train.epoch=2"], "command line: train.epoch: unknown key, did you mean `train.epochs`?");
    check_refused(&["epochs=2"], "command line: epochs: unknown key, did you mean `train.epochs`?");
    check_refused(&["train.epochs=two"], "command line: train.epochs: must be a whole number, got \"two\"");
    check_refused(&["train.epochs=0"], "command line: train.epochs: must be from 1 to 100000, got 0");
    check_refused(&["train.weight_decay=-1"], "command line: train.weight_decay: must be ≥ 0, got -1");
    check_refused(
        &["sweep.grid.train.epochs=[1,0]"],
        "command line: sweep.grid.\"train.epochs\"[1]: must be from 1 to 100000, got 0",
    );
    check_refused(
        &["model.towers=2"],
        "command line: model.towers: has no meaning for lenet5, only for alexnet; set it in alexnet's variant alone \
         (in trial a train.weight_decay=0 train.momentum=0.5)",
    );
    check_refused(
        &["train.epochs"],
        "command line: `train.epochs` is not an override: write key=value, such as train.epochs=2, or ~key to delete",
    );
    check_refused(&["=2"], "command line: `` is not a key path such as train.epochs");
    check_refused(&["train epochs=2"], "command line: `train epochs` is not a key path such as train.epochs");
    check_refused(&["seeds=[1,"], "command line: `[1,` is not a TOML value: unclosed array, expected `]`");
    check_refused(
        &["~train.momentum"],
        "command line: train.momentum: cannot be deleted, since the file does not set it",
    );
    check_refused(&["train.epochs.x=2"], "command line: train.epochs.x: `train.epochs` is not a section");
}
