//! Looking through results and tidying up: `list`, `show`, `diff`, `tag`, `note`, `archive`, `delete`, `gc`.

use serde_json::Value as Json;

use crate::workplace::{DB, SMALL, Workplace};

/// A finished sweep of four trials under the name `small`.
fn done() -> Workplace {
    let place = Workplace::with(SMALL);
    place.run("sweep experiment.toml --no-report --quiet").exits(0);
    place
}

fn json(place: &Workplace, line: &str) -> Vec<Json> {
    place.run(&format!("{line} --format json")).exits(0).json().as_array().unwrap().clone()
}

/// Values of a column.
fn column(rows: &[Json], name: &str) -> Vec<Json> {
    rows.iter().map(|row| row[name].clone()).collect()
}

#[test]
fn experiments_and_runs_are_listed_and_found_by_their_marks() {
    let place = done();
    place.write("other.toml", SMALL.replace("\"small\"", "\"other\"").replace("seeds = 2", "seeds = 3"));
    place.run("train other.toml --trial 2 --quiet").exits(0);

    let experiments = json(&place, "list");
    assert_eq!(column(&experiments, "experiment"), ["other", "small"], "the one planned last comes first");
    assert_eq!((&experiments[0]["trials"], &experiments[0]["done"]), (&6.into(), &5.into()), "shared trials are done");
    assert_eq!(experiments[1]["question"], "Does it run?");
    let runs = json(&place, "list small");
    assert_eq!(column(&runs, "run"), [4, 3, 2, 1]);
    assert!(runs.iter().all(|run| run["status"] == "done" && run["epochs"] == 2 && run["test_top1"].is_f64()));
    assert_eq!(json(&place, "list --runs").len(), 5);
    assert_eq!(column(&json(&place, "list small --sort run"), "run"), [1, 2, 3, 4]);
    let tests = |line: &str| {
        let rows = json(&place, line);
        rows.iter().map(|run| run["test_top1"].as_f64().unwrap()).collect::<Vec<_>>()
    };
    let best = tests("list --runs --sort -test_top1 --limit 3");
    assert!(
        best.len() == 3
            && best.is_sorted_by(|a, b| a >= b)
            && best[0] == tests("list --runs").into_iter().fold(0.0, f64::max)
    );
    assert_eq!(column(&json(&place, "list --sort -experiment"), "experiment"), ["small", "other"]);
    let unknown = place.run("list --sort accuracy").exits(2).stderr;
    assert!(unknown.contains("--sort accuracy: expected one of experiment, trials, "), "{unknown}");
    assert_eq!(json(&place, "list --runs --limit 2").len(), 2);
    assert_eq!(json(&place, "list --status failed").len(), 0);
    assert_eq!(json(&place, "list --network lenet5").len(), 5);
    assert_eq!(json(&place, "list --network alexnet").len(), 0);

    place.run("tag 2 keep paper").exits(0);
    let again = place.run("tag 2 keep").exits(0);
    assert!(again.text().contains("0 of 1 tags added"), "{}", again.text());
    place.run("tag other big").exits(0);
    place.run_words(&["note", "2", "the one of figure 3"]).exits(0);
    assert_eq!(column(&json(&place, "list --runs --tag keep"), "run"), [2]);
    assert_eq!(json(&place, "list --runs --tag keep")[0]["tags"], "keep, paper");
    let experiments = place.run("list --tag keep").exits(0);
    assert!(
        experiments.stderr.contains("--runs"),
        "a run's tag is not found among experiments: {}",
        experiments.stderr
    );
    assert_eq!(
        column(&json(&place, "list --runs --tag big"), "experiment"),
        ["other"],
        "runs have their experiment's tags"
    );
    assert_eq!(column(&json(&place, "list --tag big"), "experiment"), ["other"]);
    assert_eq!(place.run("note 2").exits(0).text(), "the one of figure 3\n");
    place.run("tag 2 keep --remove").exits(0);
    place.run("note 2 --remove").exits(0);
    assert_eq!(json(&place, "list --runs --tag keep").len(), 0);
    assert_eq!(place.run("note 2").exits(0).text(), "");

    let before = place.metrics(DB);
    place.run("archive 1 other").exits(0);
    assert_eq!(column(&json(&place, "list"), "experiment"), ["small"]);
    assert_eq!(column(&json(&place, "list --archived"), "archived"), [1, 0]);
    assert_eq!(column(&json(&place, "list --runs"), "run"), [4, 3, 2]);
    assert_eq!(json(&place, "query best small")[0]["seeds"], 2, "reports count what was put away");
    let again = place.run("archive other").exits(0);
    assert!(again.text().contains("already"), "{}", again.text());
    place.run("unarchive 1 other").exits(0);
    assert_eq!(json(&place, "list").len(), 2);
    assert_eq!(place.metrics(DB), before, "marks change no result");
}

#[test]
fn a_run_is_shown_whole_and_a_difference_is_only_what_differs() {
    let place = done();
    let shown = place.run("show 1 --format json").exits(0).json();
    assert_eq!(shown["run"][0]["status"], "done");
    assert_eq!(shown["run"][0]["parameters"], 61_706);
    let setting = |key: &str| shown["settings"].as_array().unwrap().iter().find(|row| row["setting"] == key).unwrap();
    assert_eq!(setting("train.epochs")["value"], 2);
    assert_eq!(setting("train.weight_decay")["varied"], "varied");
    assert!(setting("train.epochs")["varied"].is_null());
    assert_eq!(shown["evaluations"][0]["split"], "test");
    assert_eq!(shown["epochs"].as_array().unwrap().len(), 2);
    assert_eq!(shown["claims"][0]["device"], "cpu");
    let files = shown["files"].as_array().unwrap();
    assert!(files.iter().any(|row| row["file"].as_str().unwrap().ends_with("1/weights.safetensors")));
    let table = place.run("show 1").exits(0);
    for part in ["label", "train.weight_decay", "validation_top1", "commit_hash", "weights.safetensors"] {
        assert!(table.text().contains(part), "{part} in {}", table.text());
    }

    // Runs are of trials 0 to 3: λ = 0 with seeds 1 and 2, then λ = 0.005; side by side, so their numbers vary.
    let of = |decay: &str, seed: i64| {
        place.count(DB, &format!("SELECT run_id FROM results WHERE seed = {seed} AND settings LIKE '%{decay}}}'"))
    };
    let (a, b) = (of(":0.0", 1), of(":0.005", 1));
    let diff = json(&place, &format!("diff {a} {b}"));
    let settings: Vec<&Json> = diff.iter().filter(|row| row["part"] == "settings").collect();
    assert_eq!(settings.len(), 1, "{diff:?}");
    assert_eq!(settings[0]["key"], "train.weight_decay");
    assert_eq!(settings[0]["difference"], 0.005);
    let loss = diff.iter().find(|row| row["key"] == "test loss").unwrap();
    let (left, right) = (loss[format!("run {a}")].as_f64().unwrap(), loss[format!("run {b}")].as_f64().unwrap());
    assert_eq!(loss["difference"].as_f64().unwrap(), right - left);
    assert!(diff.iter().all(|row| row["key"] != "commit_hash" && row["key"] != "status"), "{diff:?}");
    assert_eq!(json(&place, &format!("diff {a} {a}")), Vec::<Json>::new());
}

#[test]
fn deleting_asks_takes_files_along_and_keeps_what_others_need() {
    let place = done();
    place.write("other.toml", SMALL.replace("\"small\"", "\"other\"").replace("0.0, 0.005", "0.005, 0.05"));
    place.run("sweep other.toml --no-report --quiet").exits(0);
    assert_eq!(place.count(DB, "SELECT count(*) FROM runs"), 6, "two trials are shared");

    let refused = place.run("delete 1").exits(2);
    assert!(refused.stderr.contains("--yes") && refused.stderr.contains("2 epochs"), "{}", refused.stderr);
    assert_eq!(place.count(DB, "SELECT count(*) FROM runs"), 6);
    for missing in ["delete 99 1 --yes", "delete nothing 1 --yes"] {
        let refused = place.run(missing).exits(2);
        assert!(refused.stderr.contains("no run 99") || refused.stderr.contains("other, small"), "{}", refused.stderr);
    }
    assert_eq!(place.count(DB, "SELECT count(*) FROM runs"), 6, "all or nothing");

    let shared = place.rows(DB, "SELECT run_id FROM results WHERE experiment = 'other' AND reused");
    assert_eq!(shared.len(), 2);
    let deleted = place.run("delete small --yes").exits(0);
    assert!(deleted.text().contains("2 runs") && deleted.text().contains("2 more stay"), "{}", deleted.text());
    assert_eq!(place.count(DB, "SELECT count(*) FROM runs"), 4);
    assert_eq!(place.count(DB, "SELECT count(*) FROM trials"), 4);
    assert_eq!(place.count(DB, "SELECT count(*) FROM epochs"), 8);
    assert_eq!(place.count(DB, "SELECT count(*) FROM experiments"), 1);
    let folders = std::fs::read_dir(place.path("results.runs")).unwrap().count();
    assert_eq!(folders, 4);
    // The runs that stay can be used, though the experiment that made them is gone.
    place.run(&format!("evaluate {} --quiet", shared[0][0])).exits(0);
    assert_eq!(json(&place, "query best other").len(), 1);

    // A trial whose run was deleted is run again, under a number that was never given before.
    let run = place.count(DB, "SELECT min(run_id) FROM runs");
    place.run(&format!("delete {run} --yes")).exits(0);
    assert!(!place.path(format!("results.runs/{run}")).exists());
    let highest = place.count(DB, "SELECT max(run_id) FROM runs");
    place.run("sweep other.toml --no-report --quiet").exits(0);
    assert_eq!(place.count(DB, "SELECT count(*) FROM runs"), 4);
    assert!(place.count(DB, "SELECT max(run_id) FROM runs") > highest);
}

#[test]
fn a_run_that_is_running_is_not_deleted() {
    let place = Workplace::with(&SMALL.replace("epochs = 2", "epochs = 2000"));
    let mut sweep = place.start("train experiment.toml --trial 0 --quiet");
    place.wait_for(DB, "SELECT count(*) FROM epochs", 1, &mut sweep);
    for line in ["delete 1 --yes", "delete small --yes"] {
        let refused = place.run(line).exits(2);
        assert!(refused.stderr.contains("run 1 is running"), "{}", refused.stderr);
    }
    let listed = place.run("gc --yes --unfinished --format csv --quiet").exits(0);
    assert_eq!(listed.text(), "file,bytes,reason\n", "a running run needs its files");
    sweep.kill().unwrap();
    sweep.wait().unwrap();
    assert_eq!(place.count(DB, "SELECT count(*) FROM runs"), 1);
}

#[test]
fn gc_lists_first_and_never_takes_what_a_stopped_run_goes_on_from() {
    let place = done();
    // A run that was killed: its checkpoint is what the next sweep goes on from.
    place.write("long.toml", SMALL.replace("\"small\"", "\"long\"").replace("epochs = 2", "epochs = 400"));
    let mut sweep = place.start("train long.toml --trial 0 --quiet");
    place.wait_for(DB, "SELECT count(*) FROM runs WHERE run_id = 5 AND checkpoint_epoch >= 2", 1, &mut sweep);
    sweep.kill().unwrap();
    sweep.wait().unwrap();
    let checkpoint = "results.runs/5/checkpoint.safetensors";
    assert!(place.path(checkpoint).is_file());
    place.write("results.runs/77/weights.safetensors", "of a run that is not there");
    place.write("results.runs/notes/mine.txt", "somebody's");

    let listed = json(&place, "gc");
    let reasons = column(&listed, "reason");
    assert_eq!(reasons.iter().filter(|reason| *reason == "the run is over").count(), 4, "{listed:?}");
    assert_eq!(reasons.iter().filter(|reason| *reason == "no such run").count(), 1);
    assert_eq!(listed.len(), 5, "nothing of the stopped run, nothing of somebody's");
    assert!(place.path("results.runs/77").exists(), "listing removes nothing");

    let done = place.run("gc --yes").exits(0);
    assert!(done.stderr.contains("5 removed"), "{}", done.stderr);
    assert!(!place.path("results.runs/77").exists() && !place.path("results.runs/1/checkpoint.safetensors").exists());
    assert!(place.path(checkpoint).is_file() && place.path("results.runs/notes/mine.txt").is_file());
    assert_eq!(json(&place, "gc").len(), 0);
    place.run("evaluate 1 --quiet").exits(0);

    let best =
        place.rows(DB, "SELECT r.run_id FROM results AS r JOIN best AS b USING (experiment, network, configuration)");
    assert_eq!(best.len(), 2, "two seeds of the best configuration");
    place.run("gc --yes --weights losers").exits(0);
    for run in 1..=4 {
        let is_best = best.iter().any(|row| row[0] == store::Value::Integer(run));
        assert_eq!(place.path(format!("results.runs/{run}/weights.safetensors")).exists(), is_best, "run {run}");
    }
    // Its lease of ten seconds may not be over yet; until then it is another process' run.
    let start = std::time::Instant::now();
    while json(&place, "gc --unfinished").is_empty() {
        assert!(start.elapsed().as_secs() < 60);
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    place.run("gc --unfinished --yes").exits(0);
    assert!(!place.path(checkpoint).exists());
}

#[test]
fn names_and_notes_are_shown_as_text() {
    // Such a name is refused in an experiment file, but a database may come from anywhere.
    let place = Workplace::new();
    let hostile = place.record_hostile();
    place.run_words(&["note", "1", hostile]).exits(0);
    place.run_words(&["tag", "1", hostile]).exits(0);
    place.run_words(&["note", hostile, hostile]).exits(0);
    place.run_words(&["archive", hostile]).exits(0);
    place.run_words(&["unarchive", hostile]).exits(0);
    let lines: Vec<Vec<&str>> = vec![
        vec!["list"],
        vec!["list", "--runs"],
        vec!["list", hostile],
        vec!["list", "--runs", "--tag", hostile],
        vec!["show", "1"],
        vec!["note", "1"],
        vec!["query", "trials"],
        vec!["query", "trials", hostile],
        vec!["query", "best", "--format", "markdown"],
        vec!["gc"],
        vec!["list", "no \u{1b}[2Jsuch \u{202e}name"],
        vec!["delete", hostile],
        vec!["tag", hostile, "x"],
    ];
    for words in lines {
        let finished = place.run_words(&words);
        let shown = format!("{}{}", finished.text(), finished.stderr);
        assert!(!shown.contains(['\u{1b}', '\u{202e}']), "{words:?} prints what a terminal obeys: {shown:?}");
    }
    let stored = json(&place, "list --runs");
    assert_eq!(stored[0]["note"], hostile, "kept as it was given");
    assert_eq!(stored[0]["experiment"], hostile);
    let markdown = place.run("list --format markdown").exits(0);
    assert!(!markdown.text().contains("<b>") && markdown.text().lines().count() == 3, "{}", markdown.text());
    let report = place.run_words(&["report", hostile, "--out", "page"]).exits(0);
    assert!(!report.text().contains(['\u{1b}', '\u{202e}']), "{:?}", report.text());
    let page = std::fs::read_to_string(place.path("page/report.html")).unwrap();
    assert!(page.contains("&lt;b&gt;") && !page.contains("<b>x</b>"));
    place.run_words(&["bundle", hostile, "--out", "b.tar.gz"]).exits(0);
    place.run("merge b.tar.gz --db there.db").exits(0);
    assert_eq!(place.run("list --format json --db there.db").exits(0).json()[0]["experiment"], hostile);
    place
        .run_words(&["export", hostile, "--tensorboard", "logs", "--mlflow", "mlruns", "--optuna", "study.db"])
        .exits(0);
    assert_eq!(place.count(DB, "SELECT count(*) FROM runs"), 1);
}

#[test]
fn what_is_asked_wrongly_is_refused() {
    let place = Workplace::with(SMALL);
    for line in [
        "list",
        "show 1",
        "diff 1 2",
        "tag 1 x",
        "note 1 x",
        "archive 1",
        "delete 1 --yes",
        "gc",
        "bundle x --out b.tar.gz",
    ] {
        let refused = place.run(line).exits(2);
        assert!(refused.stderr.contains("no such database"), "{line}: {}", refused.stderr);
    }
    assert!(!place.path(DB).exists(), "no command of these makes a database");
    place.run("train experiment.toml --trial 0 --quiet").exits(0);
    for (line, message) in [
        ("show 9", "no run 9"),
        ("diff 1 9", "no run 9"),
        ("list nothing", "small"),
        ("list --status odd", "possible values"),
        ("note 1 x --remove", "cannot be used"),
        ("show 1 --format csv", "--format"),
        ("delete", "required"),
        ("tag 9 x", "no run 9"),
    ] {
        let refused = place.run(line).exits(2);
        assert!(refused.stderr.contains(message), "{line}: {}", refused.stderr);
    }
    let refused = place.run_words(&["tag", "1", " "]).exits(2);
    assert!(refused.stderr.contains("empty"), "{}", refused.stderr);
}
