//! What a shell and its user see: help, completions, streams, exit codes.

use std::io::{BufRead, BufReader};

use crate::workplace::{DB, SMALL, Workplace, wait};

const COMMANDS: [&str; 10] =
    ["prepare", "plan", "train", "sweep", "evaluate", "query", "report", "model", "bench", "completions"];

#[test]
fn every_command_explains_itself() {
    let place = Workplace::new();
    let help = place.run("--help").exits(0);
    for command in COMMANDS {
        assert!(help.text().contains(&format!("  {command}")), "{command} is listed");
        let own = place.run(&format!("{command} --help")).exits(0);
        assert!(own.text().contains("Usage: pipeline") && own.stderr.is_empty(), "{}", own.text());
    }
    for code in ["0 fine", "2 bad usage", "3 some trials failed", "130 interrupted"] {
        assert!(help.text().split_whitespace().collect::<Vec<_>>().join(" ").contains(code), "{}", help.text());
    }
    let version = place.run("--version").exits(0);
    assert!(version.text().contains(env!("CARGO_PKG_VERSION")));
    assert!(!place.path(DB).exists());
}

#[test]
fn shells_get_completions() {
    let place = Workplace::new();
    for shell in ["bash", "zsh", "fish"] {
        let completions = place.run(&format!("completions {shell}")).exits(0);
        for command in COMMANDS {
            assert!(completions.text().contains(command), "{shell} completes {command}");
        }
    }
}

#[test]
fn progress_stays_away_from_results() {
    let place = Workplace::with(SMALL);
    let silent = place.run("sweep experiment.toml --no-report --quiet").exits(0);
    assert_eq!((silent.text(), silent.stderr.as_str()), ("", ""));
    let told = place.run("sweep experiment.toml --no-report --db told.db").exits(0);
    assert_eq!(told.text(), "");
    assert!(
        told.stderr.contains("[8/8 epochs]") && !told.stderr.contains('\u{1b}'),
        "plain lines where there is no terminal: {}",
        told.stderr
    );

    let quiet = place.run("sweep experiment.toml --quiet").exits(0);
    let told = place.run("sweep experiment.toml").exits(0);
    assert_eq!(quiet.stderr, "");
    assert_eq!(quiet.text(), told.text(), "results do not depend on what is told beside them");
    assert!(!told.stderr.is_empty());
}

#[test]
fn preparing_says_what_there_is_and_is_done_once() {
    let place = Workplace::with(SMALL);
    let prepare = place.run("prepare experiment.toml").exits(0);
    for fact in ["1×28×28", "270", "30", "100"] {
        assert!(prepare.text().contains(fact), "{fact} in {}", prepare.text());
    }
    assert_eq!(prepare.text(), place.run("prepare experiment.toml --quiet").exits(0).text());
    assert!(!place.path(DB).exists());
    place.run("prepare experiment.toml --preview sheet.png augment.rotation_degrees=15").exits(0);
    assert!(std::fs::read(place.path("sheet.png")).unwrap().starts_with(b"\x89PNG"));
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let place = Workplace::new();
    let many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200000) SELECT i FROM n";
    place.write("experiment.toml", SMALL);
    place.run("train experiment.toml ~sweep seeds=1").exits(0);
    let mut child = place.command(["query", many, "--format", "csv"]).spawn().unwrap();
    let mut first = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    assert_eq!(first, "i\n");
    assert_eq!(wait(child).exits(0).stderr, "");

    let commands =
        [&["report", "small"][..], &["prepare", "experiment.toml"], &["completions", "bash"], &["query", "best"]];
    for command in commands {
        let mut child = place.command(command).spawn().unwrap();
        drop(child.stdout.take());
        assert_eq!(wait(child).exits(0).stderr, "", "{command:?} into a closed pipe");
    }
}

#[test]
fn the_database_is_named_by_the_environment_or_the_command_line() {
    let place = Workplace::with(SMALL);
    let train = "train experiment.toml ~sweep seeds=1";
    let output = place.command(train.split(' ')).env("PIPELINE_DB", "named.db").output().unwrap();
    assert!(output.status.success() && place.path("named.db").is_file());
    place.run(&format!("--db first.db {train}")).exits(0);
    assert!(place.path("first.db").is_file() && place.path("first.runs/1/weights.safetensors").is_file());
    assert!(!place.path(DB).exists());
}

#[test]
fn benchmarks_say_how_fast_steps_are() {
    let bench = Workplace::new().run("bench --model lenet5 --batch 16 --steps 3 --format json").exits(0).json();
    for key in ["images_per_second", "step_time_ms", "gflop_per_s", "fma_peak_gflop_per_s"] {
        assert!(bench[0][key].as_f64().unwrap() > 0.0, "{key} of {bench}");
    }
    let [least, median] = ["least_step_time_ms", "step_time_ms"].map(|key| bench[0][key].as_f64().unwrap());
    assert!(0.0 < least && least <= median, "{bench}");
}
