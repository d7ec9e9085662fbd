//! Sweeps that are killed, stopped or shared by several processes.
#![cfg(unix)]

use std::{
    process::{Child, Command},
    time::{Duration, Instant},
};

use store::Value;

use crate::workplace::{DB, SMALL, Workplace, wait};

/// Three trials of several epochs, each epoch long enough to be stopped within.
const LONG: &str = r#"
name = "long"
seeds = 3
[dataset]
train_images = 2000
test_images = 100
[augment]
rotation_degrees = 5
[model]
dropout = 0.2
[train]
epochs = 4
batch_size = 2
learning_rate = 0.001
momentum = 0.8
"#;

const FINISHED: &str = "SELECT r.run_id, r.finished_ms, r.train_seconds, e.epoch, e.recorded_ms, e.epoch_seconds \
                        FROM runs AS r JOIN epochs AS e USING (run_id) WHERE r.status = 'done' ORDER BY r.run_id, e.epoch";

pub fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill").args([name, &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

/// What the same trials come to when nobody disturbs them.
fn undisturbed(place: &Workplace) -> String {
    place.run("sweep experiment.toml --no-report --db undisturbed.db --jobs 2 --threads 1").exits(0);
    place.metrics("undisturbed.db")
}

#[test]
fn a_killed_sweep_goes_on_where_it_was() {
    let place = Workplace::with(LONG);
    let expected = undisturbed(&place);
    let mut sweep = place.start("sweep experiment.toml --no-report --jobs 1 --threads 1");
    place.wait_for(DB, "SELECT count(*) FROM epochs", 6, &mut sweep);
    sweep.kill().unwrap();
    assert_eq!(wait(sweep).code, None, "it was killed in the middle");
    let finished = place.rows(DB, FINISHED);
    assert_eq!(finished.len(), 4, "one trial was done");
    // Where the system tells that the process is gone, the plan does too.
    let plan = place.run("plan experiment.toml --format json --quiet").exits(0).json();
    assert_eq!(plan[0]["status"], "done");
    assert!(plan[1]["status"] == "to go on" || !cfg!(target_os = "linux"), "{plan}");
    let checkpointed = "SELECT e.run_id, e.epoch, e.recorded_ms FROM epochs AS e JOIN runs AS r USING (run_id) \
                        WHERE r.run_id <= 2 AND e.epoch <= coalesce(r.checkpoint_epoch, 0) ORDER BY 1, 2";
    let kept = place.rows(DB, checkpointed);

    let second = place.run("sweep experiment.toml --no-report --jobs 1 --threads 1").exits(0);
    // Where the system tells that the process is gone, nobody waits until its lease is over.
    let waited = second.stderr.contains("waiting for trials of another process");
    assert_eq!(waited, !cfg!(target_os = "linux"), "{}", second.stderr);
    assert!(second.stderr.contains("3 of 3 trials done (1 of them before)"), "{}", second.stderr);
    let after = place.rows(DB, FINISHED);
    assert_eq!(after[..4], finished, "what was done is as it was");
    let now = place.rows(DB, checkpointed);
    assert!(
        kept.iter().all(|row| now.contains(row)),
        "epochs before the checkpoint were not done twice: {kept:?} {now:?}"
    );
    assert_eq!(place.count(DB, "SELECT count(*) FROM runs"), 3, "no trial has a second run");
    assert_eq!(place.count(DB, "SELECT claims FROM runs WHERE run_id = 1"), 1);
    assert_eq!(place.count(DB, "SELECT claims FROM runs WHERE run_id = 2"), 2);
    assert_eq!(place.metrics(DB), expected);
}

#[test]
fn a_new_database_does_not_go_on_from_the_checkpoints_of_one_that_was_thrown_away() {
    let place = Workplace::with(SMALL);
    place.run("sweep experiment.toml --no-report --quiet").exits(0);
    let before = place.metrics(DB);
    std::fs::remove_file(place.path(DB)).unwrap();
    assert!(place.path("results.runs/1/checkpoint.safetensors").exists());
    place.run("sweep experiment.toml --no-report --quiet").exits(0);
    assert_eq!(place.count(DB, "SELECT count(*) FROM epochs"), 8);
    assert_eq!(place.metrics(DB), before);
}

#[test]
fn an_interrupted_sweep_stops_within_the_epoch_and_goes_on_to_the_same_bits() {
    let place = Workplace::with(LONG);
    let expected = undisturbed(&place);
    let (run, progress) = (1..=8)
        .find_map(|epochs| {
            let mut sweep = place.start("sweep experiment.toml --no-report --jobs 1 --threads 1");
            place.wait_for(DB, "SELECT count(*) FROM epochs", epochs, &mut sweep);
            // As long as half an epoch took, however busy the machine is.
            let row = &place.rows(DB, "SELECT epoch_seconds FROM epochs ORDER BY recorded_ms DESC LIMIT 1")[0];
            let Value::Real(epoch_s) = row[0] else { panic!("{row:?}") };
            std::thread::sleep(Duration::from_secs_f64(epoch_s / 2.0));
            signal(&sweep, "-INT");
            let stopped = wait(sweep).exits(130);
            assert!(stopped.stderr.contains("the same command goes on"), "{}", stopped.stderr);
            assert!(stopped.stdout.is_empty(), "no report of what is not finished");
            assert_eq!(place.count(DB, "SELECT count(*) FROM runs WHERE status = 'interrupted'"), 1);
            let run = place.count(DB, "SELECT run_id FROM runs WHERE status = 'interrupted'");
            let progress = progress(&place, &format!("results.runs/{run}/checkpoint.safetensors"));
            // Where it happened to stop between two epochs, it is stopped once more.
            (progress["completed_steps"].as_u64().unwrap() > 0).then_some((run, progress))
        })
        .expect("one of eight stops is within an epoch");
    let epochs = place.count(DB, "SELECT count(*) FROM epochs");
    assert!(epochs > 0 && epochs < 12, "{epochs} of 12, {progress}");

    let plan = place.run("plan experiment.toml --format json --quiet").exits(0).json();
    assert_eq!(plan[usize::try_from(run).unwrap() - 1]["status"], "to go on");
    let second = place.run("sweep experiment.toml --no-report --jobs 2 --threads 1").exits(0);
    assert!(!second.stderr.contains("seed=1: epoch 1/4"), "the first epoch is not done twice: {}", second.stderr);
    assert_eq!(place.count(DB, "SELECT count(*) FROM runs"), 3);
    assert_eq!(place.metrics(DB), expected);
}

/// What a checkpoint says of itself: a safetensors file opens with the length of its header, which is JSON.
fn progress(place: &Workplace, file: &str) -> serde_json::Value {
    let bytes = std::fs::read(place.path(file)).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let sealed: serde_json::Value = serde_json::from_str(header["__metadata__"]["progress"].as_str().unwrap()).unwrap();
    sealed["progress"].clone()
}

#[test]
fn a_sweep_that_is_stopped_again_and_again_comes_to_the_same_bits() {
    let place = Workplace::with(LONG);
    let expected = undisturbed(&place);
    for round in 0_u32.. {
        let sweep = place.start("sweep experiment.toml --no-report --jobs 2 --threads 1");
        std::thread::sleep(Duration::from_millis(300 + 70 * u64::from(round)));
        signal(&sweep, "-TERM");
        let stopped = wait(sweep);
        match stopped.code {
            Some(0) => break,
            Some(130) => assert!(round < 100, "the sweep never ends"),
            // Before it listened to signals.
            None => {}
            Some(_) => drop(stopped.exits(130)),
        }
    }
    assert_eq!(place.count(DB, "SELECT count(*) FROM runs WHERE status = 'done'"), 3);
    assert_eq!(place.count(DB, "SELECT count(*) FROM runs"), 3);
    assert_eq!(place.metrics(DB), expected);
}

#[test]
fn two_processes_share_a_sweep() {
    let place = Workplace::with(&LONG.replace("seeds = 3", "seeds = 6").replace("epochs = 4", "epochs = 2"));
    let sweeps = [(); 2].map(|()| place.start("sweep experiment.toml --jobs 1 --threads 1"));
    for sweep in sweeps {
        let sweep = wait(sweep).exits(0);
        assert!(sweep.stderr.contains("of them by other processes)"), "{}", sweep.stderr);
        assert!(sweep.stderr.contains("6 of 6 trials done"), "{}", sweep.stderr);
        assert!(sweep.text().contains("report: "));
    }
    assert_eq!(place.count(DB, "SELECT count(*) FROM runs"), 6);
    assert_eq!(place.count(DB, "SELECT count(*) FROM runs WHERE status = 'done' AND claims = 1 AND attempt = 1"), 6);
    assert_eq!(place.count(DB, "SELECT count(*) FROM epochs"), 12);
    assert_eq!(place.count(DB, "SELECT count(DISTINCT worker) FROM runs"), 2, "both did some");
    let html = std::fs::read_to_string(place.path("reports/long/report.html")).unwrap();
    assert!(html.trim_end().ends_with("</html>"), "the report is whole");
    let metrics = place.metrics(DB);
    place.run("sweep experiment.toml --no-report --db alone.db").exits(0);
    assert_eq!(metrics, place.metrics("alone.db"));
}

/// How long processes are killed for, in seconds: `PIPELINE_KILL_SECONDS`, or enough for some dozens of kills.
fn kill_seconds() -> u64 {
    std::env::var("PIPELINE_KILL_SECONDS").map_or(20, |text| {
        text.parse().unwrap_or_else(|_| panic!("PIPELINE_KILL_SECONDS must be a whole number of seconds, got `{text}`"))
    })
}

#[test]
fn eight_processes_that_are_killed_at_random_come_to_the_table_of_a_calm_run() {
    const SEEDS: i64 = 12;
    let seconds = kill_seconds();
    let place =
        Workplace::with(&LONG.replace("seeds = 3", &format!("seeds = {SEEDS}")).replace("epochs = 4", "epochs = 3"));
    let expected = undisturbed(&place);
    // A fixed sequence stands for chance, so that a failure can be seen again. The sweeps of one sequence share a database; when one
    // of them is done, the next begins, until the time is over.
    let mut state = 2026_u64;
    let mut draw = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let start = Instant::now();
    let (mut kills, mut sweeps_done) = (0, 0);
    while sweeps_done == 0 || start.elapsed() < Duration::from_secs(seconds) {
        let db = format!("killed-{sweeps_done}.db");
        let begin =
            || place.start(&format!("sweep experiment.toml --no-report --quiet --jobs 1 --threads 1 --db {db}"));
        let mut sweeps: Vec<Child> = (0..8).map(|_| begin()).collect();
        for _ in 0..24 {
            std::thread::sleep(Duration::from_millis(50 + draw(400)));
            let index = draw(sweeps.len() as u64) as usize;
            sweeps[index].kill().unwrap();
            let ended = wait(std::mem::replace(&mut sweeps[index], begin()));
            assert!(matches!(ended.code, None | Some(0)), "nothing but the signal ends it: {}", ended.stderr);
            kills += usize::from(ended.code.is_none());
        }
        for sweep in sweeps {
            wait(sweep).exits(0);
        }
        assert_eq!(place.count(&db, "SELECT count(*) FROM runs"), SEEDS, "no trial has a second run");
        let whole = "SELECT count(*) FROM results WHERE status = 'done' AND epochs = 3";
        assert_eq!(place.count(&db, whole), SEEDS);
        assert!(place.count(&db, "SELECT max(claims) FROM runs") > 1, "some were killed in the middle and went on");
        assert_eq!(place.metrics(&db), expected);
        sweeps_done += 1;
    }
    println!("{kills} kills in {sweeps_done} sweeps, {:.0} s", start.elapsed().as_secs_f64());
}
