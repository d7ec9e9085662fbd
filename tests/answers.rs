//! Questions to the results: `query`, `report`, `plan`.

use std::sync::LazyLock;

use store::Store;

use crate::workplace::{DB, SMALL, Workplace};

const BOTH: &str = r#"
name = "both"
question = "Which one?"
seeds = 2
[dataset]
train_images = 300
test_images = 100
[train]
epochs = 2
[variants.lenet5.model]
architecture = "lenet5"
[variants.alexnet.model]
architecture = "alexnet"
width = 0.0625
"#;

/// A finished sweep that these tests only ask.
static DONE: LazyLock<Workplace> = LazyLock::new(|| {
    let place = Workplace::with(BOTH);
    place.run("sweep experiment.toml --no-report --quiet").exits(0);
    place
});

#[test]
fn sql_is_answered_in_every_format() {
    let sql = "SELECT label, seed, test_top1, failure_kind FROM results ORDER BY label, seed";
    let json = DONE.run_words(&["query", sql, "--format", "json"]).exits(0).json();
    let rows = json.as_array().unwrap();
    assert_eq!(rows.len(), 4);
    assert!(rows.iter().all(|row| row["test_top1"].is_f64() && row["seed"].is_i64() && row["failure_kind"].is_null()));

    let csv = DONE.run_words(&["query", sql, "--format", "csv"]).exits(0);
    let lines: Vec<&str> = csv.text().lines().collect();
    assert_eq!((lines[0], lines.len()), ("label,seed,test_top1,failure_kind", 5));
    let value: f64 = lines[1].split(',').nth(2).unwrap().parse().unwrap();
    assert_eq!(value, rows[0]["test_top1"].as_f64().unwrap());

    let markdown = DONE.run_words(&["query", sql, "--format", "markdown"]).exits(0);
    assert!(markdown.text().starts_with("| label"), "{}", markdown.text());
    assert_eq!(markdown.text().lines().count(), 6);

    let table = DONE.run_words(&["query", sql]).exits(0);
    assert!(table.text().lines().next().unwrap().starts_with("label"), "{}", table.text());

    let parquet = DONE.run_words(&["query", sql, "--format", "parquet"]).exits(0).stdout;
    assert!(parquet.starts_with(b"PAR1") && parquet.ends_with(b"PAR1"));
    let out = DONE.run_words(&["query", sql, "--format", "parquet", "--out", "rows.parquet"]).exits(0);
    assert!(out.stdout.is_empty());
    assert_eq!(std::fs::read(DONE.path("rows.parquet")).unwrap(), parquet);
}

#[test]
fn a_query_takes_arguments_and_may_find_nothing() {
    let counted = DONE.run_words(&[
        "query",
        "SELECT count(*) AS n FROM trials WHERE architecture = ?1",
        "lenet5",
        "--format",
        "json",
    ]);
    assert_eq!(counted.exits(0).json()[0]["n"], 2);
    let none = DONE.run_words(&["query", "SELECT label FROM results WHERE seed = 99", "--format", "json"]).exits(0);
    assert_eq!(none.json(), serde_json::json!([]));
    for format in ["table", "csv", "markdown", "parquet"] {
        let none = DONE.run_words(&["query", "SELECT label FROM results WHERE seed = 99", "--format", format]).exits(0);
        assert!(!none.stdout.is_empty(), "the columns are there as {format}");
    }
}

#[test]
fn every_named_query_is_answered() {
    for query in store::named::all() {
        let arguments: &[&str] = match query.name {
            "curve" => &["1"],
            "compare" => &["lenet5", "alexnet"],
            _ => &[],
        };
        let words = [&["query", query.name][..], arguments, &["--format", "json"]].concat();
        let rows = DONE.run_words(&words).exits(0).json();
        let expected = if query.name == "failed" { 0 } else { 1 };
        assert!(rows.as_array().unwrap().len() >= expected, "{}: {rows}", query.name);
        let usage = query.usage();
        assert!(DONE.run("query --help").exits(0).text().contains(&usage), "help shows {usage}");
    }
    let curve = DONE.run("query curve 1 --format json").exits(0).json();
    assert_eq!(curve.as_array().unwrap().len(), 2);
    let best = DONE.run("query best both --format json").exits(0).json();
    assert_eq!(best.as_array().unwrap().len(), 2, "one configuration of each network");
}

#[test]
fn the_schema_explains_every_column_of_every_table() {
    let listed = DONE.run("query --schema --format json").exits(0).json();
    let listed = listed.as_array().unwrap();
    let has = |table: &str, column: &str| {
        listed.iter().any(|row| {
            row["table"] == table && row["column"] == column && !row["description"].as_str().unwrap().is_empty()
        })
    };
    let store = Store::open_read_only(DONE.path(DB)).unwrap();
    let sql = "SELECT name FROM sqlite_schema WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite%' AND name NOT LIKE '_sqlx%'";
    let tables = store.query(sql, &[]).unwrap().rows;
    assert!(tables.len() >= 12, "{tables:?}");
    for table in tables {
        let table = table[0].to_string();
        for column in store.query(&format!("SELECT * FROM {table} LIMIT 0"), &[]).unwrap().columns {
            assert!(has(&table, &column.name), "{table}.{} is explained", column.name);
        }
    }
}

#[test]
fn a_report_goes_where_it_is_asked_to_go() {
    let report = DONE.run("report both --out pages/of/mine").exits(0);
    assert!(report.text().contains("pages/of/mine/report.html"));
    let markdown = std::fs::read_to_string(DONE.path("pages/of/mine/report.md")).unwrap();
    assert!(markdown.contains("Which one?") && markdown.contains("61,706"), "{markdown}");
    // What only the weights and the prepared images know.
    for expected in ["First convolution of LeNet-5", "calibration error (ECE)", "memory of one training step (MiB)"] {
        assert!(markdown.contains(expected), "{expected:?} is missing in {markdown}");
    }
    let picture = std::fs::read_to_string(DONE.path("pages/of/mine/plots/filters-lenet-5.svg")).unwrap();
    assert_eq!(picture.matches("<image ").count(), 6, "LeNet-5 has six filters");
}

#[test]
fn two_processes_that_write_one_report_leave_whole_files_and_what_else_was_there() {
    let folder = DONE.path("shared report");
    std::fs::create_dir_all(folder.join("plots")).unwrap();
    let mine = [folder.join("thoughts.txt"), folder.join("plots/mine.svg")];
    mine.iter().for_each(|file| std::fs::write(file, "a reader's own").unwrap());
    let write = || DONE.command(["report", "both", "--quiet", "--out", "shared report"]).spawn().unwrap();
    let page = folder.join("report.html");
    write().wait().unwrap();
    let whole = std::fs::read(&page).unwrap();
    let mut writers: Vec<_> = (0..4).map(|_| write()).collect();
    let mut seen = 0;
    while writers.iter_mut().any(|writer| writer.try_wait().unwrap().is_none()) {
        assert!(std::fs::read(&page).unwrap() == whole, "a reader saw another page");
        seen += 1;
    }
    assert!(seen > 0 && writers.iter_mut().all(|writer| writer.wait().unwrap().success()));
    // One that is killed leaves the page as it was, and what it had begun goes with the next one.
    let mut killed = write();
    let begun = |folder: &std::path::Path| {
        let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
        names.filter(|name| name.to_string_lossy().starts_with('.')).count()
    };
    while begun(&folder) == 0 && killed.try_wait().unwrap().is_none() {}
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert!(std::fs::read(&page).unwrap() == whole);
    write().wait().unwrap();
    assert_eq!(begun(&folder), 0);
    assert!(mine.iter().all(|file| std::fs::read_to_string(file).unwrap() == "a reader's own"));
    assert!(std::fs::read(&page).unwrap() == whole);
}

#[test]
fn a_report_may_be_about_several_experiments() {
    let place = Workplace::with(BOTH);
    place.write("second.toml", BOTH.replace("\"both\"", "\"second\"").replace("epochs = 2", "epochs = 1"));
    place.run("sweep experiment.toml --no-report").exits(0);
    place.run("sweep second.toml --no-report").exits(0);
    let report = place.run("report both second").exits(0);
    assert!(place.path("reports/both+second/report.html").is_file(), "{}", report.text());
}

#[test]
fn a_plan_shows_what_is_done_and_what_is_to_run() {
    let place = Workplace::with(BOTH);
    let plan = |line: &str| {
        let plan = place.run(&format!("plan {line} --format json")).exits(0);
        let status: Vec<String> =
            plan.json().as_array().unwrap().iter().map(|row| row["status"].as_str().unwrap().to_owned()).collect();
        (status, plan)
    };
    let (status, fresh) = plan("experiment.toml");
    assert_eq!(status, ["to run"; 4]);
    assert!(fresh.stderr.contains("4 trials, 4 to run"), "{}", fresh.stderr);
    assert!(!place.path(DB).exists() && !place.path("cache").exists(), "a plan writes nothing");
    assert!(fresh.json()[0]["memory"].as_str().unwrap().ends_with("MB"), "memory is known before anything runs");

    place.run("train experiment.toml --trial 1").exits(0);
    let (status, _) = plan("experiment.toml");
    assert_eq!(status, ["to run", "done", "to run", "to run"]);
    place.run("sweep experiment.toml --no-report").exits(0);
    let (status, done) = plan("experiment.toml");
    assert_eq!(status, ["done"; 4]);
    assert!(done.stderr.contains("4 trials, 0 to run"), "{}", done.stderr);
    let (status, _) = plan("experiment.toml train.epochs=3");
    assert_eq!(status, ["to run"; 4], "another number of epochs is another trial");
}

#[test]
fn a_plan_shows_parameters_steps_and_the_rates_of_the_book() {
    let place = Workplace::with("name = \"book\"\nseeds = 1\n[train]\nschedule = \"book\"\nepochs = 20\n");
    let plan = place.run("plan experiment.toml --quiet --format json").exits(0);
    assert_eq!(plan.stderr, "");
    let row = &plan.json()[0];
    assert_eq!(row["parameters"], 61706);
    assert_eq!(row["epochs"], 20);
    assert_eq!(row["learning_rates"], "0.0005×2 0.0002×3 0.00005×4 0.00001×11");
    place.run("prepare experiment.toml").exits(0);
    let row = place.run("plan experiment.toml --quiet --format json").exits(0).json()[0].clone();
    assert_eq!(row["steps_per_epoch"], 85, "5,400 images in batches of 64");
}

#[test]
fn the_plan_estimates_the_time_from_steps_and_then_from_records() {
    let place = Workplace::with(SMALL);
    place.run("prepare experiment.toml").exits(0);
    let plan = place.run("plan experiment.toml --estimate --jobs 2").exits(0);
    assert!(plan.stderr.contains("with 2 side by side, from a few steps"), "{}", plan.stderr);
    // As a sweep shares out what is small, unless it is told otherwise.
    let cores = std::thread::available_parallelism().unwrap().get().min(4);
    let plan = place.run("plan experiment.toml --estimate").exits(0);
    assert_eq!(plan.stderr.contains(&format!("with {cores} side by side")), cores > 1, "{}", plan.stderr);
    let plan = place.run("plan experiment.toml --estimate --jobs 1").exits(0);
    assert!(!plan.stderr.contains("side by side"), "{}", plan.stderr);
    place.run("sweep experiment.toml seeds=1 --no-report").exits(0);
    let plan = place.run("plan experiment.toml --estimate").exits(0);
    assert!(plan.stderr.contains("4 trials, 2 to run"), "{}", plan.stderr);
    assert!(plan.stderr.contains("from recorded runs of such networks on these data"), "{}", plan.stderr);
}

#[test]
fn watching_shows_what_is_done_and_writes_nothing() {
    let place = Workplace::with(SMALL);
    place.run("sweep experiment.toml --no-report").exits(0);
    let before = std::fs::read(place.path(DB)).unwrap();
    let seen = place.run("watch").exits(0);
    assert!(seen.text().starts_with("small: 4 trials: 4 done; 8 epochs\n"), "{}", seen.text());
    assert_eq!(seen.text().matches("  best: ").count(), 4);
    assert!(!seen.text().contains('\x1b'), "plain text where it is no terminal");
    assert_eq!(std::fs::read(place.path(DB)).unwrap(), before);
    let unknown = place.run("watch other").exits(2);
    assert!(unknown.stderr.contains("no experiment other"), "{}", unknown.stderr);
}
