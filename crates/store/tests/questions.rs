//! Views, SQL, named queries, and what the columns mean.

mod support;

use std::collections::BTreeSet;

use store::{EpochRow, EvaluationRow, ExperimentId, NewTrial, Outcome, Split, Store, Value, named, schema};
use support::{LEASE, epoch, experiment, provenance, temporary, trial};

/// Two networks × two values of λ × three seeds. Test accuracies are those given; λ = 0.1 is better in validation and worse in the
/// test, so that choosing on the test part would show.
fn compared() -> (tempfile::TempDir, Store, ExperimentId) {
    let (folder, path) = temporary();
    let store = Store::open(path).unwrap();
    let mut trials = Vec::new();
    for (network, parameters) in [("alexnet", 62_378_344), ("lenet5", 61_706)] {
        for weight_decay in ["0.0", "0.1"] {
            for seed in 0..3 {
                trials.push(NewTrial {
                    identity: format!("{network} {weight_decay} {seed}"),
                    configuration: format!("{network} {weight_decay}"),
                    label: format!("{network} λ={weight_decay} seed={seed}"),
                    architecture: network.into(),
                    parameters,
                    assignments: vec![("train.weight_decay".into(), weight_decay.into())],
                    ..trial(seed)
                });
            }
        }
    }
    let id = store.record_experiment(&experiment("duel"), &trials).unwrap();
    while let Some(claim) = store.claim_next(id, "w", LEASE, &provenance()).unwrap() {
        let decayed = claim.identity.contains(" 0.1 ");
        let seed: f64 = claim.identity[claim.identity.len() - 1..].parse().unwrap();
        let small = claim.identity.starts_with("lenet5");
        let row = EpochRow { train_top1: 1.0, validation_top1: Some(if decayed { 0.96 } else { 0.95 }), ..epoch(1) };
        store.record_epochs(claim.run, "w", &[row, epoch(2)]).unwrap();
        let test = EvaluationRow {
            split: Split::Test,
            epoch: 1,
            loss: 0.5,
            top1: 0.9 + seed / 100.0 - if decayed { 0.05 } else { 0.0 } - if small { 0.1 } else { 0.0 },
            top5: 1.0,
            images: 100,
            seconds: 0.1,
        };
        store.record_evaluation(claim.run, "w", &test, None).unwrap();
        let outcome =
            Outcome::Done { tested_epoch: 1, checkpoint: None, train_seconds: 10.0 + seed, peak_memory_bytes: 1 };
        store.finish(claim.run, "w", &outcome).unwrap();
    }
    (folder, store, id)
}

fn real(value: &Value) -> f64 {
    match value {
        Value::Real(number) => *number,
        Value::Integer(number) => *number as f64,
        other => panic!("not a number: {other:?}"),
    }
}

fn close(value: &Value, expected: f64) {
    assert!((real(value) - expected).abs() < 1e-12, "{value:?} is not {expected}");
}

#[test]
fn comparison_has_means_and_deviations_over_seeds() {
    let (_folder, store, _) = compared();
    let table = store
        .query(
            "SELECT network, settings ->> '$.\"train.weight_decay\"', seeds, validation_rank, parameters, test_top1_mean, test_top1_sd,
                    test_loss_mean, test_loss_sd, train_seconds_mean, train_seconds_sd, generalization_gap
             FROM comparison ORDER BY network, 2",
            &[],
        )
        .unwrap();
    assert_eq!(table.rows.len(), 4);
    let row = &table.rows[1];
    assert_eq!(row[..5], ["alexnet".into(), 0.1.into(), 3.into(), 1.into(), 62_378_344.into()]);
    close(&row[5], 0.86);
    close(&row[6], 0.01);
    close(&row[7], 0.5);
    close(&row[8], 0.0);
    close(&row[9], 11.0);
    close(&row[10], 1.0);
    close(&row[11], 0.14);
    assert_eq!(table.rows[0][3], 2.into());
}

#[test]
fn deviations_keep_their_digits() {
    // Newton's method in the view against the machine's square root, over twenty orders of magnitude.
    for spread in [1e-9, 1e-4, 0.5, 1.0, 3.0, 1e5, 1e11] {
        let (_folder, path) = temporary();
        let store = Store::open(path).unwrap();
        let id = store.record_experiment(&experiment("x"), &support::plan(2)).unwrap();
        for sign in [-1.0, 1.0] {
            let run = store.claim_next(id, "w", LEASE, &provenance()).unwrap().unwrap().run;
            let outcome =
                Outcome::Done { tested_epoch: 1, checkpoint: None, train_seconds: sign * spread, peak_memory_bytes: 0 };
            store.finish(run, "w", &outcome).unwrap();
        }
        let table =
            store.query("SELECT train_seconds_sd, test_top1_sd, validation_top1_mean FROM comparison", &[]).unwrap();
        let expected = spread * 2_f64.sqrt();
        let relative = (real(&table.rows[0][0]) - expected).abs() / expected;
        assert!(relative < 1e-14, "{spread}: off by {relative}");
        assert_eq!(table.rows[0][1..], [Value::Null, Value::Null], "nothing was measured");
    }
}

#[test]
fn one_seed_has_no_deviation() {
    let (_folder, path) = temporary();
    let store = Store::open(path).unwrap();
    let id = store.record_experiment(&experiment("x"), &support::plan(1)).unwrap();
    support::run_all(&store, id, "w");
    let table = store.query("SELECT seeds, test_top1_mean, test_top1_sd FROM comparison", &[]).unwrap();
    assert_eq!(table.rows, [[1.into(), 0.875.into(), Value::Null]]);
}

#[test]
fn the_best_is_chosen_on_validation() {
    let (_folder, store, _) = compared();
    let table = named::find("best").unwrap().run(&store, &["duel"]).unwrap();
    let names: Vec<&str> = table.columns.iter().map(|column| column.name.as_str()).collect();
    assert_eq!(names[..4], ["experiment", "network", "settings", "seeds"]);
    assert_eq!(table.rows.len(), 2);
    for row in &table.rows {
        assert_eq!(row[2], "{\"train.weight_decay\":0.1}".into());
        close(&row[4], 0.96);
    }
    assert!(named::find("best").unwrap().run(&store, &["other"]).unwrap().rows.is_empty());
    assert_eq!(named::find("best").unwrap().run(&store, &[]).unwrap(), table);
}

#[test]
fn a_trial_that_was_run_twice_counts_once() {
    let (_folder, store, id) = compared();
    let all: Vec<String> = store.trial_states(id).unwrap().into_iter().map(|state| state.identity).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    let before = store.query("SELECT * FROM comparison", &[]).unwrap();
    assert_eq!(store.again(id, &all).unwrap(), 12);
    assert_eq!(store.query("SELECT * FROM comparison", &[]).unwrap(), before, "results stand until there are new ones");
    support::run_all(&store, id, "v");
    let seeds = store.query("SELECT DISTINCT seeds FROM comparison", &[]).unwrap();
    assert_eq!(seeds.rows, [[Value::Integer(3)]]);
    let curve = store.query("SELECT count(*) FROM curve", &[]).unwrap();
    assert_eq!(curve.rows, [[Value::Integer(12)]], "one epoch each, the new");
}

#[test]
fn the_front_goes_by_the_objectives_of_the_experiment() {
    let (_folder, store, id) = compared();
    let front = || {
        let rows = named::find("front").unwrap().run(&store, &["duel"]).unwrap().rows;
        rows.into_iter().map(|row| (row[1].to_string(), row[2].to_string())).collect::<Vec<_>>()
    };
    let decayed = |network: &str| (network.to_owned(), "{\"train.weight_decay\":0.1}".to_owned());
    assert_eq!(front(), [decayed("alexnet"), decayed("lenet5")], "as accurate and as fast as each other");
    store.record_objectives(id, &["validation_top1", "parameters"]).unwrap();
    assert_eq!(front(), [decayed("lenet5")], "as accurate and smaller");
    store.record_objectives(id, &["validation_loss"]).unwrap();
    assert_eq!(store.objectives(id).unwrap(), ["validation_loss"]);
    assert_eq!(front().len(), 2, "one objective has no front of its own");
}

#[test]
fn named_queries_answer() {
    let (_folder, store, id) = compared();
    let run = store.runs(id).unwrap()[0].run.to_string();
    for query in named::all() {
        let arguments: &[&str] = match query.name {
            "curve" => &[&run],
            "compare" => &["alexnet", "lenet5"],
            _ => &[],
        };
        let table = query.run(&store, arguments).unwrap();
        let rows = match query.name {
            "best" | "curve" | "front" => 2,
            "compare" => 10,
            "trials" => 12,
            "failed" => 0,
            other => panic!("{other} is not tested"),
        };
        assert_eq!(table.rows.len(), rows, "{}", query.name);
        assert!(!query.summary.is_empty());
        let too_many = vec!["x"; query.parameters.len() + 1];
        let error = query.run(&store, &too_many).unwrap_err().to_string();
        assert!(error.contains(&query.usage()) && error.contains(query.name), "{error}");
    }
    assert_eq!(named::find("nothing"), None);
    assert_eq!(named::find("compare").unwrap().usage(), "compare A B [EXPERIMENT]");
    assert!(named::find("curve").unwrap().run(&store, &[]).is_err());

    let table = named::find("compare").unwrap().run(&store, &["lenet5", "alexnet"]).unwrap();
    let accuracy = table.rows.iter().find(|row| row[3] == "test_top1_mean".into()).unwrap();
    close(&accuracy[4], 0.76);
    close(&accuracy[5], 0.86);
    close(&accuracy[6], 0.1);
    let trials = named::find("trials").unwrap().run(&store, &[]).unwrap();
    assert_eq!(trials.rows[0][1..4], ["alexnet λ=0.0 seed=0".into(), 1.into(), "done".into()]);
}

#[test]
fn queries_only_read() {
    let (folder, store, _) = compared();
    let before = store.query("SELECT * FROM runs", &[]).unwrap();
    let other = folder.path().join("other.db");
    let attach = format!("ATTACH '{}' AS other", other.display());
    let vacuum = format!("VACUUM INTO '{}'", other.display());
    for sql in [
        "DELETE FROM runs",
        "WITH a AS (SELECT 1) DELETE FROM runs",
        "WITH a AS (SELECT 1) UPDATE runs SET status = 'failed' RETURNING *",
        "WITH a AS (SELECT 1) INSERT INTO assignments SELECT 1, 'x', 'y', '1'",
        "SELECT 1; DELETE FROM runs",
        "PRAGMA query_only = OFF",
        "PRAGMA journal_mode = DELETE",
        "BEGIN",
        "CREATE TEMP TABLE t (x)",
        "SELECT load_extension('x')",
        &attach,
        &vacuum,
    ] {
        let error = store.query(sql, &[]).unwrap_err();
        assert!(matches!(error, store::StoreError::Query(_)), "{sql}: {error:?}");
    }
    assert_eq!(store.query("SELECT * FROM runs", &[]).unwrap(), before);
    assert!(!other.exists());
}

#[test]
fn what_sqlite_finds_wrong_is_passed_on() {
    let (_folder, store, _) = compared();
    for (sql, parameters, message) in [
        ("SELECT anything FROM runs", 0, "no such column: anything"),
        ("SELECT * FROM nowhere", 0, "no such table: nowhere"),
        ("SELECT 1 +", 0, "incomplete input"),
        ("SELECT FROM runs", 0, "near \"FROM\": syntax error"),
        ("SELECT ?1, ?2", 1, "has 2 parameters, but 1 was given"),
        ("SELECT 1", 2, "has 0 parameters, but 2 were given"),
        ("SELECT json('{')", 0, "malformed JSON"),
    ] {
        let parameters = vec![Value::Null; parameters];
        let error = store.query(sql, &parameters).unwrap_err().to_string();
        assert_eq!(error.lines().count(), 1, "one line for the terminal: {error}");
        assert!(error.contains(message), "{sql}: {error}");
    }
}

#[test]
fn values_of_every_type_come_back() {
    let (_folder, store, _) = compared();
    let parameters = [Value::Null, i64::MIN.into(), 0.1.into(), "x'; --".into(), Value::Blob(vec![0, 255])];
    let table = store
        .query(
            "SELECT ?1 AS a, ?2 AS b, ?3 AS c, ?4 AS d, ?5 AS e, CAST(x'ff41' AS TEXT) AS f, 9e999 AS g, 1 AS a",
            &parameters,
        )
        .unwrap();
    let names: String = table.columns.iter().map(|column| column.name.as_str()).collect();
    assert_eq!(names, "abcdefga");
    assert_eq!(table.rows[0][..5], parameters);
    assert_eq!(table.rows[0][5], "\u{fffd}A".into());
    assert_eq!(table.rows[0][6], f64::INFINITY.into());
    let shown: Vec<String> = table.rows[0].iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["", "-9223372036854775808", "0.1", "x'; --", "00ff", "\u{fffd}A", "inf", "1"]);
    assert_eq!(table.rows[0][2].to_json(), 0.1);
    assert_eq!(table.rows[0][6].to_json(), "inf");
    let empty = store.query("SELECT run_id, status FROM runs WHERE 0", &[]).unwrap();
    assert_eq!(empty.columns.len(), 2, "columns are there without rows");
    assert!(empty.rows.is_empty());
}

#[test]
fn every_column_says_what_it_is_and_in_which_unit() {
    let (_folder, path) = temporary();
    let store = Store::open(path).unwrap();
    let actual = store
        .query(
            "SELECT s.name, s.type, c.name, c.type FROM sqlite_schema AS s, pragma_table_xinfo(s.name) AS c
             WHERE s.type IN ('table', 'view') AND s.name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND s.name <> '_sqlx_migrations'",
            &[],
        )
        .unwrap();
    let text = |value: &Value| value.to_string();
    let actual: BTreeSet<(String, bool, String)> =
        actual.rows.iter().map(|row| (text(&row[0]), row[1] == "view".into(), text(&row[2]))).collect();
    let schema = schema();
    let documented: BTreeSet<(String, bool, String)> = schema
        .iter()
        .flat_map(|table| table.columns.iter().map(|column| (table.table.clone(), table.view, column.name.clone())))
        .collect();
    assert_eq!(documented, actual);
    assert!(documented.len() > 150);
    for table in &schema {
        assert!(!table.description.is_empty(), "{}", table.table);
        for column in &table.columns {
            let name = format!("{}.{}", table.table, column.name);
            assert!(!column.unit.is_empty(), "{name} has no unit");
            assert!(!column.description.is_empty(), "{name} is not explained");
            assert!(
                ["INTEGER", "REAL", "TEXT", "BLOB"].contains(&column.kind.as_str()),
                "{name} has no type: {:?}",
                column.kind
            );
        }
    }
    let column = |table: &str, name: &str| {
        schema
            .iter()
            .find(|other| other.table == table)
            .and_then(|table| table.columns.iter().find(|column| column.name == name))
            .unwrap()
    };
    assert_eq!(column("epochs", "epoch_seconds").unit, "s");
    assert_eq!(
        column("curve", "epoch_seconds"),
        column("epochs", "epoch_seconds"),
        "a view's column means what the table's means"
    );
}
