//! From a file to its trials.

use plan::{Activation, Normalization, Stem};
use serde_json::json;

use crate::{labels, sound};

#[track_caller]
fn check(text: &str, expected: &[&str]) {
    assert_eq!(labels(text, &[]), expected, "\n{text}");
}

/// Values that a generator writes out for `train.weight_decay`.
#[track_caller]
fn check_generator(table: &str, expected: &[f64]) {
    let experiment = sound(&format!("[sweep.grid]\n\"train.weight_decay\" = {table}"), &[]);
    let values: Vec<f64> = experiment.trials().iter().map(|trial| trial.settings.train.weight_decay).collect();
    assert_eq!(values, expected, "{table}");
}

#[test]
fn an_empty_file_is_one_trial() {
    check("", &["lenet5 seed=1"]);
    let experiment = sound("", &[]);
    assert_eq!((experiment.name.as_str(), experiment.question.as_str()), ("x", ""));
}

#[test]
fn seeds_are_a_list_or_a_count() {
    check("seeds = 3", &["lenet5 seed=1", "lenet5 seed=2", "lenet5 seed=3"]);
    check("seeds = [7, 0]", &["lenet5 seed=7", "lenet5 seed=0"]);
}

#[test]
fn order_is_variants_grid_zip_seeds() {
    check(
        r#"
        seeds = [3, 1]
        [sweep.grid]
        "train.weight_decay" = [0.1, 0]
        [sweep.zip]
        "train.epochs" = [1, 2]
        "train.batch_size" = [8, 16]
        [variants.z.model]
        activation = "relu"
        [variants.a.model]
        architecture = "alexnet"
        "#,
        &[
            "z λ=0.1 epochs=1 batch_size=8 seed=3",
            "z λ=0.1 epochs=1 batch_size=8 seed=1",
            "z λ=0.1 epochs=2 batch_size=16 seed=3",
            "z λ=0.1 epochs=2 batch_size=16 seed=1",
            "z λ=0 epochs=1 batch_size=8 seed=3",
            "z λ=0 epochs=1 batch_size=8 seed=1",
            "z λ=0 epochs=2 batch_size=16 seed=3",
            "z λ=0 epochs=2 batch_size=16 seed=1",
            "a λ=0.1 epochs=1 batch_size=8 seed=3",
            "a λ=0.1 epochs=1 batch_size=8 seed=1",
            "a λ=0.1 epochs=2 batch_size=16 seed=3",
            "a λ=0.1 epochs=2 batch_size=16 seed=1",
            "a λ=0 epochs=1 batch_size=8 seed=3",
            "a λ=0 epochs=1 batch_size=8 seed=1",
            "a λ=0 epochs=2 batch_size=16 seed=3",
            "a λ=0 epochs=2 batch_size=16 seed=1",
        ],
    );
}

#[test]
fn the_files_order_of_keys_counts_not_the_alphabet() {
    check(
        "[sweep.grid]\n\"train.momentum\" = [0.5, 0.9]\n\"train.epochs\" = [1, 2]",
        &[
            "lenet5 momentum=0.5 epochs=1 seed=1",
            "lenet5 momentum=0.5 epochs=2 seed=1",
            "lenet5 momentum=0.9 epochs=1 seed=1",
            "lenet5 momentum=0.9 epochs=2 seed=1",
        ],
    );
}

#[test]
fn axes_may_be_written_as_tables() {
    let expected = ["lenet5 epochs=1 λ=0 seed=1", "lenet5 epochs=2 λ=0 seed=1"];
    check("[sweep.grid.train]\nepochs = [1, 2]\nweight_decay = [0]", &expected);
    check("[sweep.grid]\ntrain.epochs = [1, 2]\ntrain.weight_decay = [0.0]", &expected);
    check("sweep = { grid = { \"train.epochs\" = { range = [1, 2, 1] }, train = { weight_decay = [0] } } }", &expected);
}

#[test]
fn several_zips_combine() {
    check(
        "[[sweep.zip]]\ntrain.epochs = [1, 2]\n[[sweep.zip]]\ntrain.momentum = [0.1, 0.2]",
        &[
            "lenet5 epochs=1 momentum=0.1 seed=1",
            "lenet5 epochs=1 momentum=0.2 seed=1",
            "lenet5 epochs=2 momentum=0.1 seed=1",
            "lenet5 epochs=2 momentum=0.2 seed=1",
        ],
    );
}

#[test]
fn schedules_are_swept_by_name_table_and_key() {
    check(
        r#"
        [sweep.grid]
        "train.schedule" = ["book", "cosine", { kind = "step", every_epochs = 3, warmup_epochs = 1 }]
        "#,
        &[
            "lenet5 schedule=book seed=1",
            "lenet5 schedule=cosine seed=1",
            "lenet5 schedule=step(every_epochs=3, warmup_epochs=1) seed=1",
        ],
    );
    check(
        "[train]\nschedule = \"plateau\"\n[sweep.grid]\n\"train.schedule.factor\" = [0.1, 0.5]",
        &["lenet5 factor=0.1 seed=1", "lenet5 factor=0.5 seed=1"],
    );
}

#[test]
fn architectures_are_swept() {
    check("[sweep.grid]\n\"model.architecture\" = [\"alexnet\", \"lenet5\"]", &["alexnet seed=1", "lenet5 seed=1"]);
    let trials = sound("[sweep.grid]\n\"model.architecture\" = [\"alexnet\", \"lenet5\"]", &[]).trials();
    assert_eq!(trials[0].assignments, [("model.architecture".to_owned(), json!("alexnet"))]);
    let models: Vec<_> = trials.iter().map(|trial| &trial.settings.model).collect();
    assert_eq!(models[0].activation, Some(Activation::Relu));
    assert_eq!(models[0].normalization, Some(Normalization::Batch));
    assert_eq!((models[0].stem, models[0].towers, models[0].width), (Some(Stem::Small), Some(1), Some(1.0)));
    assert_eq!(models[1].activation, Some(Activation::Tanh));
    assert_eq!((models[1].stem, models[1].towers, models[1].width), (None, None, None));
}

#[test]
fn variants_win_over_the_base_and_restrict_the_grid() {
    let text = r#"
        [train]
        epochs = 3
        schedule = { kind = "step", every_epochs = 2 }
        [sweep.grid]
        "train.weight_decay" = [0.0, 0.1]
        [variants.plain]
        [variants.long.train]
        epochs = 9
        schedule = { kind = "cosine" }
        [variants.long.sweep.grid]
        "train.weight_decay" = [0.5]
        "train.momentum" = [0.0, 0.9]
    "#;
    check(
        text,
        &["plain λ=0 seed=1", "plain λ=0.1 seed=1", "long λ=0.5 momentum=0 seed=1", "long λ=0.5 momentum=0.9 seed=1"],
    );
    let trials = sound(text, &[]).trials();
    assert_eq!((trials[0].settings.train.epochs, trials[2].settings.train.epochs), (3, 9));
    assert_eq!(trials[2].settings.train.schedule.to_string(), "cosine");
    assert_eq!(
        trials[2].assignments,
        [("train.weight_decay".to_owned(), json!(0.5)), ("train.momentum".to_owned(), json!(0.0))],
        "assignments are typed: the whole number 0 is the rate 0.0"
    );
}

#[test]
fn the_grid_wins_over_the_base() {
    check(
        "[train]\nweight_decay = 0.7\n[sweep.grid]\n\"train.weight_decay\" = [0.1, 0.2]",
        &["lenet5 λ=0.1 seed=1", "lenet5 λ=0.2 seed=1"],
    );
}

#[test]
fn a_base_that_no_trial_uses_need_not_be_whole() {
    check("[model]\nwidth = 0.5\n[variants.a.model]\narchitecture = \"alexnet\"", &["a seed=1"]);
}

#[test]
fn labels_tell_keys_apart() {
    check(
        "[dataset]\ncolor = \"rgb\"\n[sweep.grid]\n\"dataset.seed\" = [5, 6]\n\"augment.scale\" = [0.1]",
        &["lenet5 dataset.seed=5 scale=0.1 seed=1", "lenet5 dataset.seed=6 scale=0.1 seed=1"],
    );
}

#[test]
fn generators_write_out_round_values() {
    check_generator("{ linspace = [0, 1], count = 5 }", &[0.0, 0.25, 0.5, 0.75, 1.0]);
    check_generator("{ linspace = [0.3, 0.1], count = 3 }", &[0.3, 0.2, 0.1]);
    check_generator("{ logspace = [1e-5, 1e-2], count = 4 }", &[1e-5, 1e-4, 1e-3, 1e-2]);
    check_generator("{ logspace = [0.1, 0.001], count = 5 }", &[0.1, 0.0316227766017, 0.01, 0.00316227766017, 0.001]);
    check_generator("{ range = [0.1, 0.7, 0.2] }", &[0.1, 0.3, 0.5, 0.7]);
    check_generator("{ range = [0, 0.95, 0.3] }", &[0.0, 0.3, 0.6, 0.9]);
    check_generator("{ range = [0.3, 0.1, -0.1] }", &[0.3, 0.2, 0.1]);
    check_generator("{ range = [0.5, 0.5, 1] }", &[0.5]);
    check(
        "[sweep.grid]\n\"train.batch_size\" = { logspace = [16, 64], count = 3 }",
        &["lenet5 batch_size=16 seed=1", "lenet5 batch_size=32 seed=1", "lenet5 batch_size=64 seed=1"],
    );
}

#[test]
fn the_largest_experiment_plans() {
    let experiment =
        sound("seeds = 100\n[sweep.grid]\n\"train.weight_decay\" = { linspace = [0, 1], count = 1000 }", &[]);
    let trials = experiment.trials();
    assert_eq!(trials.len(), plan::MAX_TRIALS);
    assert_eq!(trials[99_999].label(), "lenet5 λ=1 seed=100");
}
