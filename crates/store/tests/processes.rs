//! Several threads and several processes on one file, some of them killed.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use store::{Outcome, RunStatus, Store, Value};
use support::{LEASE, epoch, experiment, plan, provenance, temporary};

const DATABASE: &str = "STORE_TEST_DATABASE";
const WORKER: &str = "STORE_TEST_WORKER";

/// This test binary once more, running `test` as a worker process.
fn spawn(test: &str, database: &Path, worker: &str) -> Child {
    Command::new(env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture"])
        .env(DATABASE, database)
        .env(WORKER, worker)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// The database and the name of this process, where it is a worker.
fn worker() -> Option<(String, String)> {
    Some((env::var(DATABASE).ok()?, env::var(WORKER).ok()?))
}

/// Takes up trials until there are none, with two epochs each.
fn work(store: &Store, worker: &str) {
    let id = store.experiment("x").unwrap().unwrap();
    while let Some(claim) = store.claim_next(id, worker, LEASE, &provenance()).unwrap() {
        store.record_epochs(claim.run, worker, &[epoch(1)]).unwrap();
        store.renew(claim.run, worker, LEASE).unwrap();
        store.record_epoch(claim.run, worker, &epoch(2)).unwrap();
        support::finish(store, claim.run, worker);
    }
}

/// Every trial done, once, by its first run, with all its epochs.
fn assert_complete(store: &Store, trials: usize) {
    let id = store.experiment("x").unwrap().unwrap();
    let runs = store.runs(id).unwrap();
    assert_eq!(runs.len(), trials);
    for run in &runs {
        assert_eq!((run.status, run.attempts, run.epochs), (RunStatus::Done, 1, 2), "{}", run.label);
    }
    let total = store.query("SELECT (SELECT count(*) FROM runs), (SELECT count(*) FROM epochs)", &[]).unwrap();
    let trials = i64::try_from(trials).unwrap();
    assert_eq!(total.rows, [[Value::Integer(trials), Value::Integer(2 * trials)]]);
}

#[test]
fn threads_share_a_store() {
    let (_folder, path) = temporary();
    let store = Store::open(&path).unwrap();
    let id = store.record_experiment(&experiment("x"), &plan(200)).unwrap();
    thread::scope(|scope| {
        for index in 0..6 {
            let store = &store;
            let own = store.clone();
            scope.spawn(move || work(&own, &format!("thread {index}")));
            scope.spawn(move || {
                for _ in 0..20 {
                    assert!(store.trial_states(id).unwrap().len() == 200);
                    assert!(store.runs(id).unwrap().len() <= 200);
                }
            });
        }
    });
    assert_complete(&store, 200);
}

#[test]
fn processes_take_each_trial_once() {
    if let Some((database, name)) = worker() {
        // Each process opens, or makes, the file on its own and plans the experiment, as `pipeline sweep` does.
        let store = Store::open(database).unwrap();
        store.record_experiment(&experiment("x"), &plan(300)).unwrap();
        thread::scope(|scope| {
            for index in 0..2 {
                let (store, name) = (&store, &name);
                scope.spawn(move || work(store, &format!("{name} thread {index}")));
            }
        });
        return;
    }
    let (_folder, path) = temporary();
    let children: Vec<Child> =
        (0..8).map(|index| spawn("processes_take_each_trial_once", &path, &format!("process {index}"))).collect();
    for mut child in children {
        assert!(child.wait().unwrap().success(), "a worker process failed");
    }
    let store = Store::open_read_only(&path).unwrap();
    assert_complete(&store, 300);
    let claims = store.query("SELECT worker, count(*) FROM claims GROUP BY worker", &[]).unwrap();
    let total: i64 = claims
        .rows
        .iter()
        .map(|row| match row[1] {
            Value::Integer(count) => count,
            _ => 0,
        })
        .sum();
    assert_eq!(total, 300);
    assert!(claims.rows.len() > 1, "several workers had a share");
}

#[test]
fn a_killed_process_is_continued_by_another() {
    if let Some((database, name)) = worker() {
        let store = Store::open(database).unwrap();
        let id = store.experiment("x").unwrap().unwrap();
        let lease = Duration::from_millis(300);
        let claim = store.claim_next(id, &name, lease, &provenance()).unwrap().unwrap();
        store.record_epoch(claim.run, &name, &epoch(1)).unwrap();
        store.record_checkpoint(claim.run, &name, 1, "one.ckpt").unwrap();
        store.record_epoch(claim.run, &name, &epoch(2)).unwrap();
        // Stays alive, and keeps its lease, until it is killed.
        loop {
            store.renew(claim.run, &name, lease).unwrap();
            thread::sleep(Duration::from_millis(50));
        }
    }
    let (_folder, path) = temporary();
    let store = Store::open(&path).unwrap();
    let id = store.record_experiment(&experiment("x"), &plan(1)).unwrap();
    let mut child = spawn("a_killed_process_is_continued_by_another", &path, "victim");
    while store.epochs(id).unwrap().len() < 2 {
        thread::sleep(Duration::from_millis(5));
        assert!(child.try_wait().unwrap().is_none(), "the worker gave up");
    }
    thread::sleep(Duration::from_millis(400));
    assert_eq!(store.claim_next(id, "heir", LEASE, &provenance()).unwrap(), None, "a live worker keeps its run");
    child.kill().unwrap();
    child.wait().unwrap();

    let claim = loop {
        if let Some(claim) = store.claim_next(id, "heir", LEASE, &provenance()).unwrap() {
            break claim;
        }
        thread::sleep(Duration::from_millis(10));
    };
    assert_eq!((claim.claims, claim.resume_from_epoch, claim.epochs), (2, 1, 2), "what the dead worker wrote is there");
    assert_eq!(store.rewind(claim.run, "heir", 1).unwrap(), 1);
    store.record_epoch(claim.run, "heir", &epoch(2)).unwrap();
    support::finish(&store, claim.run, "heir");
    assert_complete(&store, 1);
    let origin: Vec<String> = store.provenance(claim.run).unwrap().into_iter().map(|row| row.worker).collect();
    assert_eq!(origin, ["victim", "heir"]);
}

#[test]
fn processes_killed_at_random_lose_and_repeat_nothing() {
    const TRIALS: u64 = 120;
    if let Some((database, name)) = worker() {
        let store = Store::open(database).unwrap();
        let id = store.record_experiment(&experiment("x"), &plan(TRIALS)).unwrap();
        let lease = Duration::from_millis(200);
        loop {
            let states = store.trial_states(id).unwrap();
            if states.iter().all(|state| state.status == RunStatus::Done) {
                return;
            }
            let Some(claim) = store.claim_next(id, &name, lease, &provenance()).unwrap() else {
                thread::sleep(Duration::from_millis(10));
                continue;
            };
            store.rewind(claim.run, &name, claim.resume_from_epoch).unwrap();
            let mut late = false;
            for index in claim.resume_from_epoch + 1..=2 {
                thread::sleep(Duration::from_millis(3));
                let written = store
                    .record_epoch(claim.run, &name, &epoch(index))
                    .and_then(|()| store.record_checkpoint(claim.run, &name, index, "c"))
                    .and_then(|()| store.renew(claim.run, &name, lease));
                match written {
                    Ok(()) => {}
                    // A slow machine: another worker took over, and this one stops in time.
                    Err(store::StoreError::LeaseLost { .. }) => {
                        late = true;
                        break;
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            let outcome = Outcome::Done { tested_epoch: 1, checkpoint: None, train_seconds: 0.0, peak_memory_bytes: 0 };
            match store.finish(claim.run, &name, &outcome) {
                Ok(()) => assert!(!late),
                Err(store::StoreError::LeaseLost { .. } | store::StoreError::NotRunning { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
    let (_folder, path) = temporary();
    let test = "processes_killed_at_random_lose_and_repeat_nothing";
    let mut names = 0..;
    let mut start = || spawn(test, &path, &format!("process {}", names.next().unwrap_or(0)));
    let mut children: Vec<Child> = (0..4).map(|_| start()).collect();
    // A fixed sequence stands for chance, so that a failure can be seen again.
    let mut state = 12345_u64;
    let mut killed = 0;
    for _ in 0..25 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        thread::sleep(Duration::from_millis(20 + (state >> 33) % 60));
        let index = (state >> 40) as usize % children.len();
        if children[index].try_wait().unwrap().is_none() {
            children[index].kill().unwrap();
            killed += 1;
        }
        children[index].wait().unwrap();
        children[index] = start();
    }
    for mut child in children {
        assert!(child.wait().unwrap().success(), "a worker process failed");
    }
    assert!(killed > 0);
    let store = Store::open_read_only(&path).unwrap();
    assert_complete(&store, TRIALS as usize);
    let id = store.experiment("x").unwrap().unwrap();
    let mut epochs: BTreeMap<i64, BTreeSet<u32>> = BTreeMap::new();
    for record in store.epochs(id).unwrap() {
        assert!(epochs.entry(record.run.0).or_default().insert(record.row.epoch), "an epoch twice");
    }
    assert!(epochs.values().all(|epochs| epochs.iter().copied().eq([1, 2])));
}
