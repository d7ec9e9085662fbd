//! Distributions and samplers.

use std::collections::HashSet;

use plan::{Distribution, SamplerKind, Trial};

use crate::refusals::check;
use crate::{labels, sound};

const SPACE: &str = r#"
[sweep.space]
"train.learning_rate" = { log_uniform = [0.001, 0.1] }
"train.momentum" = { uniform = [0.5, 0.9] }
"train.batch_size" = { log_integer = [16, 256] }
"augment.pad" = { integer = [0, 3] }
"train.optimizer" = { choice = ["sgd", "adam"] }
"#;

fn with(sampler: &str) -> String {
    format!("{SPACE}\n[sweep.sampler]\n{sampler}")
}

fn drawn(text: &str) -> Vec<Trial> {
    sound(text, &[]).trials()
}

#[test]
fn random_and_sobol_are_decided_by_the_plan_and_stay_within_their_ends() {
    for kind in ["random", "sobol"] {
        let text = with(&format!("kind = \"{kind}\"\nconfigurations = 64\nseed = 3"));
        let trials = drawn(&text);
        assert_eq!(trials.len(), 64);
        assert_eq!(trials, drawn(&text), "planned twice, the same");
        let other = drawn(&text.replace("seed = 3", "seed = 4"));
        assert!(trials.iter().zip(&other).all(|(a, b)| a.settings != b.settings), "{kind}: the seed decides");
        for trial in &trials {
            let train = &trial.settings.train;
            assert!((0.001..=0.1).contains(&train.learning_rate), "{}", trial.label());
            assert!((0.5..=0.9).contains(&train.momentum), "{}", trial.label());
            assert!((16..=256).contains(&train.batch_size), "{}", trial.label());
            assert!(trial.settings.augment.pad <= 3, "{}", trial.label());
        }
        let below = |bound: f64| trials.iter().filter(|trial| trial.settings.train.learning_rate < bound).count();
        assert!((24..=40).contains(&below(0.01)), "{kind}: half of them below the geometric mean: {}", below(0.01));
        let small = trials.iter().filter(|trial| trial.settings.train.batch_size < 64).count();
        assert!((24..=40).contains(&small), "{kind}: {small}");
        let pads: HashSet<usize> = trials.iter().map(|trial| trial.settings.augment.pad).collect();
        assert_eq!(pads.len(), 4, "{kind}");
    }
}

#[test]
fn a_longer_search_begins_with_the_shorter_one() {
    for kind in ["random", "sobol"] {
        let of = |count: usize| drawn(&with(&format!("kind = \"{kind}\"\nconfigurations = {count}")));
        assert_eq!(of(8), of(20)[..8], "{kind}");
    }
}

#[test]
fn a_random_value_does_not_depend_on_the_other_keys() {
    let rate = |trials: Vec<Trial>| trials.iter().map(|trial| trial.settings.train.learning_rate).collect::<Vec<_>>();
    let alone = "[sweep.space]\n\"train.learning_rate\" = { log_uniform = [0.001, 0.1] }\n[sweep.sampler]\nkind = \"random\"\nconfigurations = 9";
    assert_eq!(rate(drawn(alone)), rate(drawn(&with("kind = \"random\"\nconfigurations = 9"))));
}

#[test]
fn sobol_fills_each_key_more_evenly_than_chance() {
    let trials = drawn(&with("kind = \"sobol\"\nconfigurations = 32"));
    let mut cells = [0; 32];
    for trial in &trials {
        let unit = (trial.settings.train.momentum - 0.5) / 0.4;
        cells[((unit * 32.0) as usize).min(31)] += 1;
    }
    assert_eq!(cells, [1; 32], "one in each of 32 equal parts, as a Sobol sequence promises");
}

#[test]
fn what_is_drawn_combines_with_the_grid_the_seeds_and_the_variants() {
    let text = r#"
        seeds = 2
        [sweep.grid]
        "train.weight_decay" = [0, 0.5]
        [sweep.space]
        train.momentum = { choice = [0.1, 0.2, 0.3] }
        [sweep.sampler]
        kind = "random"
        configurations = 3
        [variants.l.model]
        architecture = "lenet5"
        [variants.a.model]
        architecture = "alexnet"
        [variants.a.sweep.space]
        model.dropout = { uniform = [0, 0.5] }
    "#;
    let trials = drawn(text);
    assert_eq!(trials.len(), 2 * 2 * 3 * 2);
    let of = |variant: &str, key: &str| -> Vec<_> {
        let trials = trials.iter().filter(|trial| trial.variant.as_deref() == Some(variant) && trial.seed == 1);
        trials
            .map(|trial| trial.assignments.iter().find(|(name, _)| name == key).map(|(_, value)| value.clone()))
            .collect()
    };
    assert_eq!(of("l", "train.momentum").len(), 6);
    assert!(of("l", "model.dropout").iter().all(Option::is_none), "a key of one variant alone");
    assert!(of("a", "model.dropout").iter().all(Option::is_some));
    let momenta: HashSet<String> =
        of("l", "train.momentum").into_iter().map(|value| value.unwrap().to_string()).collect();
    assert_eq!(momenta.len(), 3, "no configuration twice");
}

#[test]
fn a_space_can_be_read_back() {
    let experiment = sound(&with("kind = \"sobol\"\nconfigurations = 1"), &[]);
    assert_eq!(experiment.sampler.unwrap().kind, SamplerKind::Sobol);
    assert_eq!(experiment.sweep.space.len(), 5);
    assert_eq!(experiment.sweep.space[3].key, "augment.pad");
    assert_eq!(experiment.sweep.space[3].distribution, Distribution::Integer { low: 0, high: 3 });
}

#[test]
fn an_override_takes_a_key_out_of_the_space() {
    let text = "[sweep.space]\ntrain.momentum = { uniform = [0, 0.9] }\n[sweep.sampler]\nkind = \"random\"\nconfigurations = 4";
    assert_eq!(labels(text, &["train.momentum=0.5"]), ["lenet5 seed=1"]);
    assert_eq!(labels(text, &["sweep.sampler.configurations=2"]).len(), 2);
    let narrower =
        labels(text, &["sweep.space.train.momentum={ choice = [0.1, 0.2] }", "sweep.sampler.configurations=2"]);
    assert!(narrower.iter().all(|label| label.contains("0.1") || label.contains("0.2")), "{narrower:?}");
}

#[test]
fn spaces_that_make_no_sense() {
    let space = |distribution: &str, message: &str| {
        check(
            &format!("[sweep.space]\n\"train.momentum\" = {distribution}"),
            &format!("x.toml:2: sweep.space.\"train.momentum\": {message}"),
        );
    };
    let form = "must be one of { uniform = [low, high] }, { log_uniform = [low, high] }, { integer = [low, high] }, \
                { log_integer = [low, high] } and { choice = [a, b] }";
    space("[0.1, 0.2]", &format!("{form}, got [0.1, 0.2]"));
    space("{ uniform = [0, 1], count = 3 }", &format!("{form}, got {{ uniform = [0, 1], count = 3 }}"));
    space("{ uniform = [0.9, 0.1] }", "uniform needs a low end below its high end, got [0.9, 0.1]");
    space("{ uniform = [0.9] }", "uniform must be [low, high], got [0.9]");
    space("{ log_uniform = [0, 0.5] }", "log_uniform needs ends above 0, got [0, 0.5]");
    space("{ integer = [0.5, 3] }", "integer needs whole numbers, got [0.5, 3]");
    space("{ log_integer = [0, 3] }", "log_integer needs ends of at least 1, got [0, 3]");
    space("{ choice = [0.5] }", "choice must be a list of at least two values, got [0.5]");
    space("{ choice = [0.5, 5e-1] }", "0.5 stands twice in the list");
    check(
        "[sweep.space]\n\"train.momentum\" = { uniform = [0.5, 1.5] }",
        "x.toml:2: sweep.space.\"train.momentum\"[1]: must be ≥ 0 and below 1, got 1.5",
    );
    check(
        "[sweep.space]\n\"train.momentun\" = { uniform = [0.5, 0.9] }",
        "x.toml:2: sweep.space.\"train.momentun\": unknown key, did you mean `train.momentum`?",
    );
    check(
        "[sweep.grid]\n\"train.momentum\" = { uniform = [0.5, 0.9] }",
        "x.toml:2: sweep.grid.\"train.momentum\": a distribution belongs into sweep.space.\"train.momentum\"",
    );
    check(
        "[sweep.grid]\n\"train.momentum\" = [0.5]\n[sweep.space]\n\"train.momentum\" = { uniform = [0.5, 0.9] }",
        "x.toml:4: sweep.space.\"train.momentum\": is swept by sweep.grid.\"train.momentum\" too",
    );
}

#[test]
fn samplers_that_make_no_sense() {
    let sampler = |table: &str, message: &str| {
        check(
            &format!("[sweep.space]\n\"augment.pad\" = {{ integer = [0, 3] }}\n[sweep]\nsampler = {table}"),
            &format!("x.toml:4: sweep.sampler{message}"),
        );
    };
    sampler("\"random\"", ": must be a table such as { kind = \"random\", configurations = 20 }, got \"random\"");
    sampler("{ kind = \"random\" }", ": `configurations` is missing");
    sampler(
        "{ kind = \"randon\", configurations = 1 }",
        ".kind: unknown value `randon`, did you mean `random`? (one of random, sobol, tpe, cma-es)",
    );
    sampler("{ kind = \"random\", configurations = 0 }", ".configurations: must be from 1 to 65536, got 0");
    sampler(
        "{ kind = \"random\", configurations = 5 }",
        ".configurations: must be at most 4, since the space has no more, got 5",
    );
    check(
        "[sweep.space]\n\"augment.pad\" = { integer = [0, 3] }",
        "x.toml:2: sweep.space: needs a sampler: write [sweep.sampler] with kind (random, sobol, tpe or cma-es) and configurations",
    );
    check(
        "[sweep.sampler]\nkind = \"random\"\nconfigurations = 5",
        "x.toml:1: sweep.sampler: has nothing to draw from: write [sweep.space] with keys and their distributions",
    );
    check(
        "[variants.a.sweep.sampler]\nkind = \"random\"\nconfigurations = 2",
        "x.toml:1: variants.a.sweep.sampler: belongs into the experiment's own [sweep], not into a variant's: write sweep.sampler",
    );
}

#[test]
fn a_search_by_results_plans_its_first_configurations_only() {
    let text = with("kind = \"tpe\"\nconfigurations = 30\nstartup_configurations = 6\nseed = 2");
    let experiment = sound(&text, &[]);
    assert_eq!(experiment.trials().len(), 6);
    let [search] = &experiment.searches[..] else { panic!("one search") };
    assert_eq!((search.startup.len(), search.space.len()), (6, 5));
    // A point of the search is the trial that the plan has drawn there.
    let trials = experiment.suggested(search, &search.startup[3]).unwrap();
    assert_eq!(trials, experiment.trials()[3..4]);
    let whole = drawn(&with("kind = \"random\"\nconfigurations = 6\nseed = 2"));
    assert_eq!(whole, experiment.trials(), "they are drawn as a random search draws");
    for parameter in &search.space {
        for unit in [0.0, 0.3, 0.9] {
            let value = parameter.distribution.at(unit);
            let coordinate = parameter.distribution.coordinate(&value).unwrap();
            assert_eq!(parameter.distribution.value(coordinate), value, "{}", parameter.key);
        }
    }
    let same = |text: &str| {
        let other = sound(text, &[]);
        experiment.search_identity(search, &[]) == other.search_identity(&other.searches[0], &[])
    };
    assert!(same(&text.replace("configurations = 30", "configurations = 40")), "it can be prolonged");
    assert!(!same(&text.replace("seed = 2", "seed = 3")));
    assert!(!same(&text.replace("0.001, 0.1", "0.001, 0.2")));
}

#[test]
fn what_does_not_go_with_a_search_by_results_is_refused() {
    let tpe = |more: &str| with(&format!("kind = \"tpe\"\nconfigurations = 12\n{more}"));
    check(
        &tpe("startup_configurations = 13"),
        "x.toml:12: sweep.sampler.startup_configurations: must be from 1 to 12, the configurations, got 13",
    );
    check(
        &tpe("[sweep.grid]\n\"train.weight_decay\" = [0.0, 0.1]"),
        "x.toml:13: sweep.grid.\"train.weight_decay\": stands beside a search by tpe, which goes by [sweep.space] alone: write it there, as \
         { choice = [a, b] }",
    );
    check(
        &tpe("[dataset]\nvalidation_fraction = 0.0"),
        "x.toml:9: sweep.sampler: goes by the validation part: dataset.validation_fraction must be above 0, got 0",
    );
    check(
        &with("kind = \"sobol\"\nconfigurations = 4\nstartup_configurations = 2"),
        "x.toml:12: sweep.sampler.startup_configurations: belongs to kind tpe and cma-es",
    );
}

#[test]
fn an_evolution_strategy_takes_numbers_and_one_objective() {
    let cma = |more: &str| {
        format!(
            "[sweep.space]\n\"train.learning_rate\" = {{ log_uniform = [0.001, 0.1] }}\n\"augment.pad\" = {{ integer = [0, 3] }}\n\
             [sweep.sampler]\nkind = \"cma-es\"\nconfigurations = 12\n{more}"
        )
    };
    let experiment = sound(&cma(""), &["seeds=[1]"]);
    assert_eq!((experiment.trials().len(), experiment.searches.len()), (1, 1), "the first one is drawn");
    check(
        &cma("[sweep.grid]\n\"train.weight_decay\" = [0.0, 0.1]"),
        "x.toml:8: sweep.grid.\"train.weight_decay\": stands beside a search by cma-es, which goes by [sweep.space] alone: write variants, \
         or search by tpe",
    );
    check(
        "[sweep.space]\n\"train.optimizer\" = { choice = [\"sgd\", \"adam\"] }\n[sweep.sampler]\nkind = \"cma-es\"\nconfigurations = 2",
        "x.toml:2: sweep.space.\"train.optimizer\": is no number that always exists, and cma-es searches by these alone: write variants, or \
         search by tpe",
    );
    check(
        &cma("[sweep]\nobjective = [\"validation_loss\", \"parameters\"]"),
        "x.toml:5: sweep.sampler.kind: cma-es goes by one objective, and sweep.objective names others: leave out parameters, or search by tpe",
    );
}

#[test]
fn pruners_are_filled_in_and_checked() {
    let pruner = |keys: &str| format!("[sweep.pruner]\n{keys}");
    let halving = sound(&pruner("kind = \"halving\""), &["train.epochs=15"]).policy.pruner.unwrap();
    assert_eq!((halving.minimum_epochs, halving.reduction_factor, halving.epochs), (3, 3, 15));
    check(
        &pruner("kind = \"halving\"\nmargin = 0.1"),
        "x.toml:3: sweep.pruner.margin: belongs to kind paired, patience, not to halving",
    );
    check(
        &pruner("kind = \"median\"\nminimum_epochs = 20"),
        "x.toml:3: sweep.pruner.minimum_epochs: must be from 1 to 9, below train.epochs = 10, got 20",
    );
    check(
        &pruner("kind = \"halving\"\nreduction_factor = 1"),
        "x.toml:3: sweep.pruner.reduction_factor: must be from 2 to 100, got 1",
    );
    check(
        &format!("{}[dataset]\nvalidation_fraction = 0.0", pruner("kind = \"halving\"\n")),
        "x.toml:1: sweep.pruner: goes by the validation part: dataset.validation_fraction must be above 0, got 0",
    );
    check(
        &format!("{}[sweep.grid]\n\"train.epochs\" = [3, 6]", pruner("kind = \"halving\"\n")),
        "x.toml:1: sweep.pruner: compares configurations after equal numbers of epochs, so all must have the same train.epochs; got 3 and 6",
    );
    check("[sweep]\nretries = 1000", "x.toml:2: sweep.retries: must be from 0 to 100, got 1000");
    check("[sweep]\ntrial_minutes = 0", "x.toml:2: sweep.trial_minutes: must be > 0, in minutes, got 0");
}

#[test]
fn objectives_are_one_or_several() {
    use plan::Objective::{MacsPerImage, TrainSeconds, ValidationLoss, ValidationTop1};
    let policy = |text: &str| sound(&format!("[sweep]\nobjective = {text}"), &[]).policy;
    assert_eq!(sound("", &[]).policy.objectives(), [ValidationLoss]);
    assert_eq!(policy("\"validation_top1\"").objectives(), [ValidationTop1]);
    let several = policy("[\"validation_top1\", \"train_seconds\", \"macs_per_image\"]");
    assert_eq!(several.objectives(), [ValidationTop1, TrainSeconds, MacsPerImage]);
    let first = "the first objective must be validation_loss or validation_top1, such as [\"validation_top1\", \"parameters\"], got \
                 \"parameters\"";
    for (text, message) in [
        ("\"parameters\"", first),
        ("[\"parameters\", \"validation_loss\"]", first),
        ("[]", "the list is empty: name one or several objectives"),
        ("[\"validation_loss\", \"validation_loss\"]", "\"validation_loss\" stands twice in the list"),
    ] {
        check(&format!("[sweep]\nobjective = {text}"), &format!("x.toml:2: sweep.objective: {message}"));
    }
    check(
        "[sweep]\nobjective = [\"validation_loss\", \"parameters\"]\n[sweep.pruner]\nkind = \"median\"",
        "x.toml:3: sweep.pruner: compares by one objective, and sweep.objective names others: leave out parameters, or the pruner",
    );
}

const CONDITIONAL: &str = r#"[sweep.space]
"train.optimizer" = { choice = ["sgd", "adam", "adamw"] }
"train.learning_rate" = { log_uniform = [0.001, 0.1] }
"train.momentum" = { uniform = [0.1, 0.95], when = { "train.optimizer" = "sgd" } }
"train.nesterov" = { choice = [true, false], when = { train.optimizer = ["sgd"] } }
[sweep.sampler]
"#;

/// Keys that a trial varies.
fn keys(trial: &Trial) -> Vec<&str> {
    trial.assignments.iter().map(|(key, _)| key.as_str()).collect()
}

#[test]
fn keys_of_a_space_exist_where_their_conditions_are_met() {
    for kind in ["random", "sobol"] {
        let experiment = sound(&format!("{CONDITIONAL}kind = \"{kind}\"\nconfigurations = 30"), &[]);
        let trials = experiment.trials();
        assert_eq!(trials.len(), 30);
        let (mut with, mut without) = (0, 0);
        for trial in &trials {
            let train = &trial.settings.train;
            if train.optimizer == plan::Optimizer::Sgd {
                with += 1;
                assert_eq!(keys(trial)[2..], ["train.momentum", "train.nesterov"]);
            } else {
                without += 1;
                assert_eq!(keys(trial), ["train.optimizer", "train.learning_rate"], "{kind}");
                assert_eq!((train.momentum, train.nesterov), (0.9, false), "as if nothing had been drawn");
            }
        }
        assert!(with > 3 && without > 10, "{kind}: {with} and {without}");
    }
    // What is decided while it runs: null stands for a key that does not exist.
    let experiment = sound(&format!("{CONDITIONAL}kind = \"tpe\"\nconfigurations = 30"), &[]);
    let search = &experiment.searches[0];
    for (point, trial) in search.startup.iter().zip(experiment.trials()) {
        assert_eq!(point[2].is_null(), trial.settings.train.optimizer != plan::Optimizer::Sgd);
        assert_eq!(experiment.suggested(search, point).unwrap()[0], trial);
    }
    let exist = |optimizer: &str| {
        plan::Parameter::exist(&search.space, &[optimizer.into(), 0.1.into(), 0.5.into(), true.into()])
    };
    assert_eq!((exist("adam"), exist("sgd")), (vec![true, true, false, false], vec![true; 4]));
}

#[test]
fn keys_of_a_grid_exist_where_their_conditions_are_met() {
    let grid = "[sweep.grid]\n\"train.optimizer\" = [\"sgd\", \"adam\"]\n\
                \"train.momentum\" = { values = [0.5, 0.8], when = { \"train.optimizer\" = \"sgd\" } }\n\
                \"train.nesterov\" = { values = [true, false], when = { \"train.momentum\" = 0.8 } }\n\
                \"train.learning_rate\" = { logspace = [0.001, 0.1], count = 3, when = { \"train.optimizer\" = \"adam\" } }\n";
    let found = labels(grid, &["seeds=[1]"]);
    let expected = [
        "lenet5 optimizer=sgd momentum=0.5 seed=1",
        "lenet5 optimizer=sgd momentum=0.8 nesterov=true seed=1",
        "lenet5 optimizer=sgd momentum=0.8 nesterov=false seed=1",
        "lenet5 optimizer=adam η=0.001 seed=1",
        "lenet5 optimizer=adam η=0.01 seed=1",
        "lenet5 optimizer=adam η=0.1 seed=1",
    ];
    assert_eq!(found, expected);
    // The identity is that of a trial which never heard of the other keys.
    let plain = sound("[train]\nlearning_rate = 0.01\noptimizer = \"adam\"", &[]).trials()[0].identity("d");
    assert_eq!(sound(grid, &[]).trials()[4].identity("d"), plain);

    // What a variant sets decides as well: there the key is there for all, or not at all.
    let variants = "[variants.small.model]\narchitecture = \"lenet5\"\n[variants.large.model]\narchitecture = \"alexnet\"\nstem = \"small\"\n\
                    [sweep.grid]\n\"model.width\" = { values = [0.25, 0.5], when = { \"model.architecture\" = \"alexnet\" } }\n";
    let found = labels(variants, &["seeds=[1]"]);
    assert_eq!(found, ["small seed=1", "large width=0.25 seed=1", "large width=0.5 seed=1"]);
}

#[test]
fn conditions_that_make_no_sense_are_refused() {
    let when = |when: &str| {
        format!(
            "[sweep.grid]\n\"train.optimizer\" = [\"sgd\", \"adam\"]\n\"train.momentum\" = {{ values = [0.5, 0.8], when = {when} }}\n"
        )
    };
    let at = "x.toml:3: sweep.grid.\"train.momentum\".when";
    for (text, message) in [
        (
            "\"sgd\"",
            ": must be a table of keys and the values that they must have, such as { \"train.optimizer\" = \"sgd\" } or { \"train.optimizer\" = [\"adam\", \"adamw\"] }, got \"sgd\"",
        ),
        ("{ \"train.optimiser\" = \"sgd\" }", ".\"train.optimiser\": unknown key, did you mean `train.optimizer`?"),
        ("{ \"train.optimizer\" = \"sdg\" }", ".\"train.optimizer\": never is \"sdg\", only \"sgd\", \"adam\""),
        ("{ \"train.optimizer\" = [] }", ".\"train.optimizer\": the list is empty: name the values that it must have"),
        ("{ \"train.momentum\" = 0.5 }", ".\"train.momentum\": train.momentum depends on itself that way"),
        (
            "{ \"train.nesterov\" = true }",
            ".\"train.nesterov\": is not swept, so that it is the same in all trials: leave the condition out",
        ),
    ] {
        check(&when(text), &format!("{at}{message}"));
    }
    check(
        "[sweep.grid]\n\"train.nesterov\" = { values = [true, false], when = { \"train.momentum\" = 0.5 } }\n\
         \"train.momentum\" = { values = [0.5, 0.8], when = { \"train.nesterov\" = true } }\n",
        "x.toml:2: sweep.grid.\"train.nesterov\".when.\"train.momentum\": train.nesterov depends on itself that way",
    );
    check(
        "[sweep.space]\n\"train.learning_rate\" = { uniform = [0.1, 0.2] }\n\
         \"train.momentum\" = { uniform = [0.1, 0.2], when = { \"train.learning_rate\" = 0.1 } }\n[sweep.sampler]\nkind = \"random\"\nconfigurations = 2",
        "x.toml:3: sweep.space.\"train.momentum\".when.\"train.learning_rate\": is drawn from a range: only keys with listed values can be asked for",
    );
    check(
        "[sweep.zip]\n\"train.momentum\" = { values = [0.1, 0.2], when = { \"train.optimizer\" = \"sgd\" } }",
        "x.toml:2: sweep.zip.\"train.momentum\": lists that move together cannot depend on others: write the key in sweep.grid",
    );
}
