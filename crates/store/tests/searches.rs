//! What sweeps that adapt keep: runs that are left, configurations that are decided, failures.

mod support;

use std::fs;
use std::path::Path;

use sqlx::migrate::Migrator;
use sqlx::{Connection, SqliteConnection};
use store::{FailureRow, NewTrial, Outcome, Pruning, RunStatus, Store, StoreError, Suggestion, Value};
use support::{LEASE, epoch, experiment, plan, provenance, temporary};

fn pruning(epoch: u32) -> Pruning {
    Pruning {
        epoch,
        rule: "halving".to_owned(),
        objective: "validation_loss".to_owned(),
        value: 0.5,
        threshold: Some(0.25),
        competitors: 9,
    }
}

/// A database as the first release made it.
fn first_release(path: &Path, folder: &Path) {
    let migrations = folder.join("migrations");
    fs::create_dir(&migrations).unwrap();
    let first = concat!(env!("CARGO_MANIFEST_DIR"), "/../../migrations/0001_results.sql");
    fs::copy(first, migrations.join("0001_results.sql")).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let url = format!("sqlite://{}?mode=rwc", path.display());
        let mut connection = SqliteConnection::connect(&url).await.unwrap();
        Migrator::new(migrations.as_path()).await.unwrap().run(&mut connection).await.unwrap();
        for sql in [
            "INSERT INTO experiments VALUES (1, 'x', '', 'x.toml', '', '', 0, 0)",
            "INSERT INTO trials VALUES ('t', 'c', '{}', 1, 'lenet5', 1, 1, 'f', 0)",
            "INSERT INTO experiment_trials VALUES (1, 't', 0, 'trial', NULL)",
            "INSERT INTO runs (experiment_id, identity, attempt, status, claims, queued_ms) VALUES (1, 't', 1, 'interrupted', 1, 0)",
            "INSERT INTO epochs (run_id, epoch, steps, recorded_ms) VALUES (1, 1, 10, 0)",
        ] {
            sqlx::query(sql).execute(&mut connection).await.unwrap();
        }
        let refused = sqlx::query("UPDATE runs SET status = 'pruned'").execute(&mut connection).await;
        assert!(refused.is_err(), "the first release knows no such status");
        connection.close().await.unwrap();
    });
}

#[test]
fn a_database_of_the_first_release_is_brought_up_to_date_and_keeps_its_rows() {
    let (folder, path) = temporary();
    first_release(&path, folder.path());
    assert!(matches!(Store::open_read_only(&path), Err(StoreError::Older { .. })));
    let store = Store::open(&path).unwrap();
    let id = store.experiment("x").unwrap().unwrap();
    let state = store.trial_states(id).unwrap().remove(0);
    assert_eq!((state.status, state.epochs), (RunStatus::Interrupted, 1));
    assert!(store.prune(id, state.run.unwrap(), &pruning(1)).unwrap(), "the new status is allowed");
    drop(store);
    let store = Store::open(&path).unwrap();
    assert_eq!(store.trial_states(id).unwrap()[0].status, RunStatus::Pruned);
    let check = store.query("SELECT * FROM pragma_integrity_check", &[]).unwrap();
    assert_eq!(check.rows, [[Value::Text("ok".to_owned())]]);
    let other = store.query("SELECT count(*) FROM pragma_foreign_key_check", &[]).unwrap();
    assert_eq!(other.rows, [[Value::Integer(0)]]);
}

#[test]
fn the_schema_explains_the_new_status_and_every_new_column() {
    let schema = store::schema();
    for table in ["runs", "results"] {
        let table = schema.iter().find(|known| known.table == table).unwrap();
        let status = table.columns.iter().find(|column| column.name == "status").unwrap();
        assert!(status.description.contains("pruned: left before its last epoch"), "{}", status.description);
    }
    for table in ["prunings", "suggestions", "failures"] {
        let table = schema.iter().find(|known| known.table == table).unwrap();
        assert!(!table.description.is_empty());
        for column in &table.columns {
            assert!(!column.unit.is_empty() && !column.description.is_empty(), "{}.{}", table.table, column.name);
        }
    }
}

#[test]
fn a_run_is_left_only_while_it_waits_and_goes_on_as_the_same_run() {
    let (_folder, path) = temporary();
    let store = Store::open(&path).unwrap();
    let id = store.record_experiment(&experiment("x"), &plan(1)).unwrap();
    let claim = store.claim_next(id, "w", LEASE, &provenance()).unwrap().unwrap();
    store.record_epoch(claim.run, "w", &epoch(1)).unwrap();
    assert!(!store.prune(id, claim.run, &pruning(1)).unwrap(), "a worker has it");
    store.finish(claim.run, "w", &Outcome::Interrupted { checkpoint_epoch: Some(1) }).unwrap();
    assert!(store.prune(id, claim.run, &pruning(1)).unwrap());
    assert!(!store.prune(id, claim.run, &pruning(1)).unwrap(), "once");
    assert_eq!(store.prunings(id).unwrap(), [(claim.run, pruning(1))]);
    assert_eq!(store.claim_next(id, "w", LEASE, &provenance()).unwrap(), None, "nobody takes it up unasked");
    let again = store.claim(id, &claim.identity, "v", LEASE, &provenance()).unwrap().unwrap();
    assert_eq!((again.run, again.claims), (claim.run, 2));
    assert_eq!(store.prunings(id).unwrap(), [], "it is not left now");
    let standing = store.standings(id).unwrap().remove(0);
    assert_eq!((standing.status, standing.validations.len()), (RunStatus::Running, 1));
    assert!(store.release(claim.run, "v").unwrap() && !store.release(claim.run, "v").unwrap());
    assert_eq!(store.trial_states(id).unwrap()[0].status, RunStatus::Interrupted);
}

#[test]
fn a_number_of_a_search_is_decided_once_and_stays_in_the_plan() {
    let (_folder, path) = temporary();
    let store = Store::open(&path).unwrap();
    let own = |(index, trial)| NewTrial { configuration: format!("configuration {index}"), ..trial };
    let all: Vec<NewTrial> = plan(6).into_iter().enumerate().map(own).collect();
    let searches = [("search".to_owned(), 3)];
    let id = store.record_search(&experiment("x"), &all[..2], &searches).unwrap();
    let suggestion = |number| Suggestion {
        search: "search".to_owned(),
        number,
        point: "[0.5]".to_owned(),
        known: number,
        pending: 0,
    };
    assert!(store.suggest(id, &suggestion(2), &all[2..3]).unwrap());
    assert!(!store.suggest(id, &suggestion(2), &all[3..4]).unwrap(), "another process was faster");
    assert!(store.suggest(id, &suggestion(3), &all[4..5]).unwrap());
    assert_eq!(store.suggestions("x", "search").unwrap(), [suggestion(2), suggestion(3)]);
    assert_eq!(store.trial_states(id).unwrap().len(), 4);
    let planned = |searches: &[(String, u32)]| {
        store.record_search(&experiment("x"), &all[..2], searches).unwrap();
        store.trial_states(id).unwrap().into_iter().map(|state| state.identity).collect::<Vec<_>>()
    };
    assert_eq!(
        planned(&searches),
        [&all[0], &all[1], &all[2]].map(|trial| trial.identity.clone()),
        "three are asked for"
    );
    assert_eq!(planned(&[("search".to_owned(), 9)]).len(), 4);
    assert_eq!(planned(&[("other".to_owned(), 9)]).len(), 2, "another search has decided nothing");
}

#[test]
fn a_failure_of_the_machine_goes_on_and_is_not_forgotten() {
    let (_folder, path) = temporary();
    let store = Store::open(&path).unwrap();
    let trials = plan(2);
    let id = store.record_experiment(&experiment("x"), &trials).unwrap();
    for (trial, kind) in trials.iter().zip(["io", "not-finite"]) {
        let claim = store.claim(id, &trial.identity, "w", LEASE, &provenance()).unwrap().unwrap();
        let failure =
            FailureRow { kind: kind.to_owned(), message: "why".to_owned(), epoch: Some(3), ..FailureRow::default() };
        store.record_failure(claim.run, "w", &failure).unwrap();
        let outcome = Outcome::Failed { kind: kind.to_owned(), message: "why".to_owned() };
        store.finish(claim.run, "w", &outcome).unwrap();
        let late = store.record_failure(claim.run, "w", &failure);
        assert!(matches!(late, Err(StoreError::NotRunning { .. })), "{late:?}");
        assert_eq!(store.failures(claim.run).unwrap(), [failure]);
        assert_eq!(store.go_on(&[&claim.identity]).unwrap(), u32::from(kind == "io"));
    }
    let states: Vec<RunStatus> = store.trial_states(id).unwrap().into_iter().map(|state| state.status).collect();
    assert_eq!(states, [RunStatus::Interrupted, RunStatus::Failed], "a loss that is no number would come out the same");
    assert_eq!(store.query("SELECT * FROM failures", &[]).unwrap().rows.len(), 2);
}
