//! Sweeps that adapt: configurations that are left early, and configurations that are decided while the sweep runs.

use crate::workplace::{DB, Workplace, wait};

/// Learning rates far apart, so that the order is clear from the first epochs on.
const PRUNED: &str = r#"
name = "pruned"
seeds = 2
[dataset]
train_images = 400
test_images = 100
validation_fraction = 0.5
[train]
epochs = 9
batch_size = 16
momentum = 0.9
[sweep.grid]
"train.learning_rate" = [0.00001, 0.0001, 0.001, 0.003, 0.01, 0.02, 0.1, 1.0, 3.0]
[sweep.pruner]
kind = "halving"
minimum_epochs = 1
"#;

const STATUSES: &str = "SELECT label, status, epochs FROM results ORDER BY position";
const PRUNINGS: &str =
    "SELECT run_id, epoch, rule, objective, value, threshold, competitors FROM prunings ORDER BY run_id, claim";
const WINNER: &str = "SELECT settings FROM comparison ORDER BY validation_loss_mean LIMIT 1";

#[test]
fn halving_leaves_most_keeps_the_winner_and_can_be_resumed_to_the_same_bits() {
    let place = Workplace::with(PRUNED);
    place.run("sweep experiment.toml ~sweep.pruner --no-report --db whole.db").exits(0);
    let sweep = place.run("sweep experiment.toml --jobs 1").exits(0);
    // Rungs 1, 3 and 9: of nine configurations three go on to the third epoch and one to the ninth, with both seeds.
    assert!(sweep.stderr.contains("2 of 18 trials done, 16 left early"), "{}", sweep.stderr);
    assert!(sweep.stderr.contains("42 of 162 epochs trained, 74 % saved"), "{}", sweep.stderr);
    assert_eq!(place.count(DB, "SELECT count(*) FROM results WHERE status = 'pruned' AND epochs = 1"), 12);
    assert_eq!(place.count(DB, "SELECT count(*) FROM results WHERE status = 'pruned' AND epochs = 3"), 4);
    assert_eq!(place.count(DB, "SELECT count(*) FROM results WHERE status = 'pruned' AND test_top1 IS NULL"), 16);
    assert_eq!(place.rows(DB, WINNER), place.rows("whole.db", WINNER), "the winner is kept");
    assert_eq!(place.count(DB, "SELECT count(*) FROM comparison"), 1, "what was left is in no mean");
    assert_eq!(
        place.count(DB, "SELECT count(*) FROM prunings WHERE objective = 'validation_loss' AND value > threshold"),
        16
    );
    assert_eq!(place.count(DB, "SELECT min(competitors) FROM prunings WHERE epoch = 1"), 9, "all were compared");
    assert!(sweep.text().contains("8 configurations were left early"), "the report says so: {}", sweep.text());
    let page = std::fs::read_to_string(place.path("reports/pruned/report.html")).unwrap();
    assert!(page.contains("left after epoch 1 by halving"), "and names each");

    let plan = place.run("plan experiment.toml --format json --quiet").exits(0).json();
    assert_eq!(plan[0]["status"], "left early");
    let again = place.run("sweep experiment.toml --no-report").exits(0);
    assert!(again.stderr.contains("2 of 18 trials done (2 of them before), 16 left early"), "{}", again.stderr);

    // What was left stays resumable whatever is tidied up, and another machine takes over first what was left and then its end.
    place.run("merge results.db --db other.db --quiet").exits(0);
    let removed = place.run("gc --yes --format json --quiet").exits(0).json();
    assert_eq!(removed.as_array().unwrap().len(), 2, "checkpoints of what is done: {removed}");
    let resumed = place.run("sweep experiment.toml --resume-pruned --no-report").exits(0);
    assert_eq!(place.count(DB, "SELECT count(*) FROM claims WHERE from_epoch = 0"), 18, "nothing began anew");
    let merged = place.run("merge results.db --db other.db").exits(0);
    assert!(merged.text().contains("16 further than here, 2 here already"), "{}", merged.text());
    assert_eq!(place.count("other.db", "SELECT count(*) FROM results WHERE status = 'done'"), 18);
    assert_eq!(place.count("other.db", "SELECT count(*) FROM prunings"), 16);
    assert!(resumed.stderr.contains("18 of 18 trials done"), "{}", resumed.stderr);
    assert_eq!(place.count(DB, "SELECT count(*) FROM runs"), 18, "they went on as the same runs");
    assert_eq!(place.count(DB, "SELECT count(*) FROM prunings"), 16, "why they were left stays");
    assert_eq!(place.metrics(DB), place.metrics("whole.db"));
}

#[test]
fn a_pruned_sweep_that_is_killed_again_and_again_comes_to_the_same_decisions() {
    let place = Workplace::with(PRUNED);
    place.run("sweep experiment.toml --no-report --jobs 1 --db calm.db").exits(0);
    for epochs in [7, 20, 33] {
        let mut sweep = place.start("sweep experiment.toml --no-report --jobs 1");
        place.wait_for(DB, "SELECT count(*) FROM epochs", epochs, &mut sweep);
        sweep.kill().unwrap();
        wait(sweep);
    }
    place.run("sweep experiment.toml --no-report --jobs 1").exits(0);
    assert_eq!(place.rows(DB, STATUSES), place.rows("calm.db", STATUSES));
    let without_run = "SELECT r.identity, n.epoch, n.value, n.threshold, n.competitors FROM prunings AS n JOIN runs AS r USING (run_id) ORDER BY 1, 2";
    assert_eq!(place.rows(DB, without_run), place.rows("calm.db", without_run));
    assert_eq!(place.count(DB, "SELECT count(*) FROM runs"), 18);
}

#[test]
fn two_processes_prune_together() {
    let place = Workplace::with(PRUNED);
    let sweeps = [(); 2].map(|()| place.start("sweep experiment.toml --no-report --jobs 2 --threads 1"));
    for sweep in sweeps {
        wait(sweep).exits(0);
    }
    assert_eq!(place.count(DB, "SELECT count(*) FROM runs"), 18, "each trial has one run");
    assert_eq!(place.count(DB, "SELECT count(*) FROM results WHERE status IN ('done', 'pruned')"), 18);
    let done = place.count(DB, "SELECT count(*) FROM results WHERE status = 'done'");
    assert_eq!(done, 2, "all come to a rung before any goes on, whoever trains them");
    let calm = Workplace::with(PRUNED);
    calm.run("sweep experiment.toml --no-report --jobs 1").exits(0);
    assert_eq!(place.rows(DB, WINNER), calm.rows(DB, WINNER), "the best one is never left");
}

#[test]
fn every_kind_of_pruner_leaves_the_worst_and_not_the_best() {
    for kind in ["hyperband", "median", "patience", "paired"] {
        let settings = match kind {
            "median" => "startup_configurations = 2",
            "patience" => "patience_epochs = 2",
            "paired" => "margin = 0.2",
            _ => "reduction_factor = 3",
        };
        let text = PRUNED.replace("kind = \"halving\"", &format!("kind = \"{kind}\"\n{settings}"));
        let place = Workplace::with(&text.replace("seeds = 2", "seeds = 1"));
        place.run("sweep experiment.toml ~sweep.pruner --no-report --db whole.db").exits(0);
        let sweep = place.run("sweep experiment.toml --no-report --jobs 1").exits(0);
        assert!(sweep.stderr.contains("left early"), "{kind}: {}", sweep.stderr);
        assert!(!place.rows(DB, PRUNINGS).is_empty(), "{kind}");
        assert_eq!(place.rows(DB, WINNER), place.rows("whole.db", WINNER), "{kind}");
        if kind == "hyperband" {
            // Its last bracket compares nothing: what is dealt into it is trained to its end, however bad.
            continue;
        }
        let worst = "SELECT status FROM results WHERE label LIKE '%η=3 %'";
        assert_eq!(place.rows(DB, worst)[0][0].to_string(), "pruned", "{kind}: {:?}", place.rows(DB, STATUSES));
    }
}

/// A search with something to find, and an optimizer that cannot be everywhere at once.
const SEARCHED: &str = r#"
name = "searched"
seeds = 2
[dataset]
train_images = 200
test_images = 100
[train]
epochs = 2
batch_size = 20
[sweep.space]
"train.learning_rate" = { log_uniform = [0.0001, 1.0] }
"train.momentum" = { uniform = [0.0, 0.95] }
"train.optimizer" = { choice = ["sgd", "adam"] }
[sweep.sampler]
kind = "tpe"
configurations = 12
startup_configurations = 4
"#;

const SUGGESTIONS: &str =
    "SELECT number, point, configuration, known, pending FROM suggestions ORDER BY search, number";

#[test]
fn a_search_decides_as_it_runs_and_a_killed_one_goes_on_with_the_same_history() {
    let place = Workplace::with(SEARCHED);
    let plan = place.run("plan experiment.toml --format json").exits(0);
    assert_eq!(plan.json().as_array().unwrap().len(), 8, "four configurations with two seeds");
    place.run("sweep experiment.toml --no-report --jobs 1 --db calm.db").exits(0);
    let decided = place.rows("calm.db", SUGGESTIONS);
    assert_eq!(decided.len(), 8);
    assert_eq!(place.count("calm.db", "SELECT count(*) FROM results WHERE status = 'done'"), 24);
    let plan = place.run("plan experiment.toml --db calm.db --format json").exits(0);
    assert_eq!(plan.json().as_array().unwrap().len(), 24, "what was decided is shown");
    assert!(plan.stderr.contains("24 trials, 0 to run"), "{}", plan.stderr);

    for epochs in [10, 30] {
        let mut sweep = place.start("sweep experiment.toml --no-report --jobs 1");
        place.wait_for(DB, "SELECT count(*) FROM epochs", epochs, &mut sweep);
        sweep.kill().unwrap();
        wait(sweep);
    }
    let plan = place.run("plan experiment.toml").exits(0);
    assert!(plan.stderr.contains("tpe, by validation_loss after the last epoch"), "{}", plan.stderr);
    place.run("sweep experiment.toml --no-report --jobs 1").exits(0);
    assert_eq!(place.rows(DB, SUGGESTIONS), decided);
    assert_eq!(place.metrics(DB), place.metrics("calm.db"));

    // Prolonging it keeps what it has decided.
    place.run("sweep experiment.toml --no-report --jobs 1 sweep.sampler.configurations=14").exits(0);
    let longer = place.rows(DB, SUGGESTIONS);
    assert_eq!((longer.len(), &longer[..8]), (10, &decided[..]));
    // And its seed decides what is tried.
    place.run("sweep experiment.toml --no-report --jobs 1 --db other.db sweep.sampler.seed=1").exits(0);
    assert_ne!(place.rows("other.db", SUGGESTIONS), decided);
}

#[test]
fn processes_that_search_together_invent_nothing_twice() {
    let place = Workplace::with(SEARCHED);
    let sweeps = [(); 3].map(|()| place.start("sweep experiment.toml --no-report --jobs 1 --threads 1"));
    for sweep in sweeps {
        let sweep = wait(sweep).exits(0);
        assert!(sweep.stderr.contains("24 of 24 trials done"), "{}", sweep.stderr);
    }
    assert_eq!(place.count(DB, "SELECT count(*) FROM runs"), 24);
    assert_eq!(place.count(DB, "SELECT count(*) FROM suggestions"), 8);
    assert_eq!(place.count(DB, "SELECT count(DISTINCT point) FROM suggestions"), 8);
    assert_eq!(place.count(DB, "SELECT count(DISTINCT configuration) FROM results"), 12);
    assert_eq!(place.count(DB, "SELECT count(DISTINCT position) FROM results"), 24);
}

#[test]
fn a_search_with_a_pruner_learns_from_what_was_left() {
    let place = Workplace::with(&format!(
        "{}\n[sweep.pruner]\nkind = \"halving\"\nminimum_epochs = 1\n",
        SEARCHED.replace("epochs = 2", "epochs = 6")
    ));
    let sweep = place.run("sweep experiment.toml --no-report --jobs 1").exits(0);
    assert!(sweep.stderr.contains("left early"), "{}", sweep.stderr);
    assert_eq!(place.count(DB, "SELECT count(*) FROM results WHERE status IN ('done', 'pruned')"), 24);
    assert!(place.count(DB, "SELECT count(*) FROM results WHERE status = 'pruned'") >= 8);
    assert_eq!(place.count(DB, "SELECT max(known) FROM suggestions"), 11, "all before the last were known");
}

#[test]
fn a_search_by_several_objectives_ends_with_its_front() {
    let text = SEARCHED
        .replace("[sweep.space]", "[sweep]\nobjective = [\"validation_top1\", \"macs_per_image\"]\n[sweep.space]\n\"model.width\" = { uniform = [0.05, 0.2] }")
        .replace("[0.0001, 1.0]", "[0.0001, 0.01]")
        .replace("\"train.momentum\" = { uniform = [0.0, 0.95] }\n", "")
        .replace("[train]", "[model]\narchitecture = \"alexnet\"\nstem = \"small\"\n[train]");
    let place = Workplace::with(&text);
    let sweep = place.run("sweep experiment.toml").exits(0);
    let front = place.run("query front --format json").exits(0).json();
    let front = front.as_array().unwrap();
    let mut rows: Vec<(f64, f64)> = Vec::new();
    for row in place.rows(DB, "SELECT validation_top1_mean, macs_per_image FROM comparison") {
        rows.push((row[0].to_string().parse().unwrap(), row[1].to_string().parse().unwrap()));
    }
    let is_ahead = |a: &(f64, f64), b: &(f64, f64)| a.0 >= b.0 && a.1 <= b.1 && a != b;
    let members = rows.iter().filter(|row| !rows.iter().any(|other| is_ahead(other, row))).count();
    assert_eq!((rows.len(), front.len()), (12, members), "{rows:?}");
    for row in front {
        let own = (row["validation_top1_mean"].as_f64().unwrap(), row["macs_per_image"].as_f64().unwrap());
        assert!(!rows.iter().any(|other| is_ahead(other, &own)), "{own:?} among {rows:?}");
    }
    let be = if members == 1 { "is" } else { "are" };
    let told = format!("At the front {be} {members} of 12 configurations");
    assert!(sweep.text().contains(&told), "{told}: {}", sweep.text());
    let page = std::fs::read_to_string(place.path("reports/searched/report.html")).unwrap();
    assert!(
        page.contains(&told) && page.contains("Front of validation accuracy and MACs per image"),
        "the page has it too"
    );
    // The sweep's aim is part of what the search is; without a list it is another one.
    let plan = place.run("plan experiment.toml sweep.objective=validation_loss").exits(0);
    assert!(plan.stderr.contains("8 more configurations of 2 seed(s)"), "{}", plan.stderr);
    let plan = place.run("plan experiment.toml").exits(0);
    assert!(plan.stderr.contains("24 trials, 0 to run"), "{}", plan.stderr);
}

#[test]
fn a_search_leaves_out_keys_that_do_not_exist_beside_others() {
    let momentum = "{ uniform = [0.0, 0.95], when = { \"train.optimizer\" = \"sgd\" } }";
    let place = Workplace::with(&SEARCHED.replace("{ uniform = [0.0, 0.95] }", momentum).replace("1.0]", "0.01]"));
    let sweep = place.run("sweep experiment.toml --jobs 1").exits(0);
    assert!(sweep.stderr.contains("24 of 24 trials done"), "{}", sweep.stderr);
    const OF: &str = "SELECT count(*) FROM results WHERE settings ->> '$.\"train.optimizer\"' =";
    const MOMENTUM: &str = "settings ->> '$.\"train.momentum\"' IS";
    assert_eq!(place.count(DB, &format!("{OF} 'adam' AND {MOMENTUM} NOT NULL")), 0);
    assert_eq!(place.count(DB, &format!("{OF} 'sgd' AND {MOMENTUM} NULL")), 0);
    assert!(place.count(DB, &format!("{OF} 'adam'")) > 0 && place.count(DB, &format!("{OF} 'sgd'")) > 0);
    let nulls = "SELECT count(*) FROM suggestions WHERE (point ->> 1 IS NULL) <> (point ->> 2 = 'adam')";
    assert_eq!(place.count(DB, nulls), 0, "what was decided says so too");
    let again = place.run("sweep experiment.toml --no-report").exits(0);
    assert!(again.stderr.contains("24 of 24 trials done (24 of them before)"), "{}", again.stderr);
}

#[test]
fn an_evolution_strategy_waits_for_its_generations_and_decides_the_same_with_any_number_of_jobs() {
    let text = SEARCHED
        .replace("kind = \"tpe\"", "kind = \"cma-es\"")
        .replace("startup_configurations = 4\n", "")
        .replace("configurations = 12", "configurations = 20")
        .replace("1.0]", "0.05]")
        .replace(
            "\"train.optimizer\" = { choice = [\"sgd\", \"adam\"] }",
            "\"train.batch_size\" = { integer = [10, 40] }",
        );
    let place = Workplace::with(&text);
    let plan = place.run("plan experiment.toml").exits(0);
    assert!(plan.stderr.contains("19 more configurations of 2 seed(s)"), "{}", plan.stderr);
    assert!(plan.stderr.contains("cma-es, by validation_loss after the last epoch"), "{}", plan.stderr);
    place.run("sweep experiment.toml --no-report --jobs 1 --db calm.db").exits(0);
    let point = "SELECT number, point, configuration FROM suggestions ORDER BY number";
    let decided = place.rows("calm.db", point);
    assert_eq!(decided.len(), 19);
    assert_eq!(place.count("calm.db", "SELECT count(DISTINCT configuration) FROM results WHERE status = 'done'"), 20);
    // Generations of seven: what the eighth knows is what the first seven and the drawn one came to, whoever trained them.
    let mut sweep = place.start("sweep experiment.toml --no-report --jobs 3 --threads 1");
    place.wait_for(DB, "SELECT count(*) FROM epochs", 30, &mut sweep);
    sweep.kill().unwrap();
    wait(sweep);
    let sweeps = [(); 2].map(|()| place.start("sweep experiment.toml --no-report --jobs 2 --threads 1"));
    for sweep in sweeps {
        wait(sweep).exits(0);
    }
    assert_eq!(place.rows(DB, point), decided);
    assert_eq!(place.metrics(DB), place.metrics("calm.db"));
}
