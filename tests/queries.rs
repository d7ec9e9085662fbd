//! What may be asked of the results, and that asking changes nothing.

use std::sync::LazyLock;

use crate::workplace::{DB, SMALL, Workplace};

/// A finished sweep that these tests only ask.
static DONE: LazyLock<Workplace> = LazyLock::new(|| {
    let place = Workplace::with(SMALL);
    place.run("sweep experiment.toml --no-report --quiet").exits(0);
    place
});

#[test]
fn no_query_writes() {
    let before = std::fs::read(DONE.path(DB)).unwrap();
    for sql in [
        "INSERT INTO run_tags VALUES (1, 'x', 0)",
        "UPDATE runs SET status = 'failed'",
        "DELETE FROM runs",
        "REPLACE INTO run_tags VALUES (1, 'x', 0)",
        "WITH a AS (SELECT 1) DELETE FROM epochs RETURNING *",
        "WITH a AS (SELECT 1) INSERT INTO run_tags SELECT 1, 'x', 0",
        "CREATE TABLE t (x)",
        "CREATE TEMP TABLE t (x)",
        "CREATE VIEW v AS SELECT 1",
        "CREATE TRIGGER t AFTER INSERT ON runs BEGIN SELECT 1; END",
        "DROP TABLE runs",
        "ALTER TABLE runs RENAME TO others",
        "ATTACH 'other.db' AS other",
        "DETACH main",
        "PRAGMA query_only = OFF",
        "PRAGMA writable_schema = ON",
        "PRAGMA journal_mode = DELETE",
        "PRAGMA user_version = 7",
        "VACUUM",
        "VACUUM INTO 'copy.db'",
        "REINDEX",
        "ANALYZE",
        "BEGIN IMMEDIATE",
        "SAVEPOINT a",
        "SELECT 1; DELETE FROM runs",
        "SELECT load_extension('x')",
        "SELECT writefile('copy.db', 'x')",
    ] {
        let refused = DONE.run_words(&["query", sql]).exits(2);
        assert!(refused.stderr.starts_with("error: ") && refused.stdout.is_empty(), "{sql}: {}", refused.stderr);
    }
    assert_eq!(std::fs::read(DONE.path(DB)).unwrap(), before);
    assert!(!DONE.path("other.db").exists() && !DONE.path("copy.db").exists());
}

#[test]
fn named_queries_refuse_names_that_are_not_there() {
    for (line, message) in [
        ("query best nothing", "there are: small"),
        ("query trials nothing", "there are: small"),
        ("query failed nothing", "there are: small"),
        ("query compare lenet5 vgg", "no network is called \"vgg\"; there are: lenet5"),
        ("query compare lenet5 lenet5 nothing", "there are: small"),
        ("query curve 99", "no run 99"),
        ("query curve one", "\"one\" is not the number of a run"),
        ("query curve", "usage: curve RUN"),
        ("query best small more", "usage: best [EXPERIMENT]"),
        ("query beste", "expected SQL or one of best"),
    ] {
        let refused = DONE.run(line).exits(2);
        assert!(refused.stderr.contains(message), "{line}: {}", refused.stderr);
    }
    assert_eq!(DONE.run("query best small --format json").exits(0).json().as_array().unwrap().len(), 1);
}

#[test]
fn a_named_query_and_its_argument_in_one_pair_of_quotes_are_told_apart_from_sql() {
    let refused = DONE.run_words(&["query", "curve 1"]).exits(2);
    assert_eq!(refused.stderr, "error: \"curve 1\" is no SQL: write `pipeline query curve 1`, without quotes\n");
    DONE.run_words(&["query", "curve", "1"]).exits(0);
}

#[test]
fn a_file_is_written_whole_or_stays_as_it_was() {
    DONE.write("out/rows.csv", "what was there");
    DONE.run_words(&["query", "SELECT nothing FROM runs", "--format", "csv", "--out", "out/rows.csv"]).exits(2);
    assert_eq!(std::fs::read(DONE.path("out/rows.csv")).unwrap(), b"what was there");
    DONE.run_words(&["query", "SELECT 1 AS one", "--format", "csv", "--out", "out/rows.csv"]).exits(0);
    assert_eq!(std::fs::read(DONE.path("out/rows.csv")).unwrap(), b"one\n1\n");
    let refused = DONE.run_words(&["query", "SELECT 1 AS one", "--out", "nowhere/rows.csv"]).exits(2);
    assert!(refused.stderr.contains("cannot write nowhere/rows.csv"), "{}", refused.stderr);
    assert_eq!(std::fs::read_dir(DONE.path("out")).unwrap().count(), 1, "nothing half written is left");
    DONE.run_words(&["query", "SELECT 1 AS one", "--out", "/dev/null"]).exits(0);
}
