//! Which files are opened, made, refused; and that those which are refused stay as they are.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use sqlx::{Connection, Executor, SqliteConnection};
use store::{Store, StoreError, Value};
use support::{experiment, plan, temporary};

/// Another program's look at the file.
fn sqlite(path: &Path, sql: &'static str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let url = format!("sqlite://{}?mode=rwc", path.display());
        let mut connection = SqliteConnection::connect(&url).await.unwrap();
        connection.execute(sql).await.unwrap();
        connection.close().await.unwrap();
    });
}

fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let bytes = fs::read(&path).unwrap();
            (path, bytes)
        })
        .collect()
}

fn filled(path: &Path) {
    let store = Store::open(path).unwrap();
    let id = store.record_experiment(&experiment("x"), &plan(20)).unwrap();
    support::run_all(&store, id, "w");
}

#[test]
fn files_of_others_and_damaged_ones_are_refused_and_left_as_they_are() {
    type Make = fn(&Path);
    let cases: [(&str, Make, &str); 12] = [
        ("short text", |path| fs::write(path, "hello").unwrap(), "not a SQLite database"),
        ("long text", |path| fs::write(path, "hello\n".repeat(10_000)).unwrap(), "not a SQLite database"),
        ("zeros", |path| fs::write(path, vec![0; 8192]).unwrap(), "not a SQLite database"),
        ("a header and nothing else", |path| fs::write(path, b"SQLite format 3\0").unwrap(), "not a SQLite database"),
        (
            "a truncated one",
            |path| {
                filled(path);
                let bytes = fs::read(path).unwrap();
                fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
            },
            "not a SQLite database",
        ),
        (
            "one whose first page is damaged",
            |path| {
                filled(path);
                let mut bytes = fs::read(path).unwrap();
                bytes[100..4096].fill(0xa5);
                fs::write(path, bytes).unwrap();
            },
            "not a SQLite database",
        ),
        ("another program's", |path| sqlite(path, "CREATE TABLE notes (note TEXT)"), "not one of pipeline's"),
        (
            "another program's with a log",
            |path| {
                sqlite(path, "PRAGMA journal_mode = WAL; CREATE TABLE notes (note TEXT)");
            },
            "not one of pipeline's",
        ),
        (
            "another program's with the same library",
            |path| {
                sqlite(
                    path,
                    "CREATE TABLE _sqlx_migrations (version BIGINT PRIMARY KEY, success BOOLEAN, checksum BLOB);
                     INSERT INTO _sqlx_migrations VALUES (1, 1, x'00')",
                );
            },
            "not one of pipeline's",
        ),
        (
            "a newer one",
            |path| {
                filled(path);
                sqlite(path, "INSERT INTO _sqlx_migrations VALUES (9999, 'later', CURRENT_TIMESTAMP, TRUE, x'00', 0)");
            },
            "migration 9999 is not known",
        ),
        (
            "a different one",
            |path| {
                filled(path);
                sqlite(path, "UPDATE _sqlx_migrations SET checksum = x'00' WHERE version = 1");
            },
            "its migration 1 differs",
        ),
        (
            "one that was left half done",
            |path| {
                filled(path);
                sqlite(path, "UPDATE _sqlx_migrations SET success = FALSE");
            },
            "or was left half done",
        ),
    ];
    for (name, make, message) in cases {
        let (folder, path) = temporary();
        make(&path);
        let before = contents(folder.path());
        for result in [Store::open(&path), Store::open_read_only(&path)] {
            let error = result.unwrap_err().to_string();
            assert!(error.contains(message), "{name}: {error}");
            assert!(error.starts_with(&path.display().to_string()), "{name}: names the file: {error}");
        }
        assert!(contents(folder.path()) == before, "{name}: something was altered or left behind");
    }
}

#[test]
fn a_missing_file_is_made_for_writing_only() {
    let (folder, path) = temporary();
    let error = Store::open_read_only(&path).unwrap_err();
    assert!(matches!(error, StoreError::Missing { .. }));
    assert!(error.to_string().contains("pipeline sweep"), "says how to make one: {error}");
    assert!(contents(folder.path()).is_empty());

    let nowhere = folder.path().join("nowhere/results.db");
    let error = Store::open(&nowhere).unwrap_err();
    assert!(matches!(error, StoreError::NoFolder { .. }), "{error}");
    let error = Store::open(folder.path()).unwrap_err();
    assert!(error.to_string().contains("it is a folder"), "{error}");

    fs::write(&path, "").unwrap();
    assert!(matches!(Store::open_read_only(&path).unwrap_err(), StoreError::Missing { .. }));
    Store::open(&path).unwrap();
    Store::open(&path).unwrap();
    let files: Vec<PathBuf> = contents(folder.path()).into_keys().collect();
    assert_eq!(files, [path], "one file when nobody has it open");
}

#[test]
fn a_reader_alters_and_leaves_nothing() {
    let (folder, path) = temporary();
    filled(&path);
    let before = contents(folder.path());
    let store = Store::open_read_only(&path).unwrap();
    let id = store.experiment("x").unwrap().unwrap();
    assert_eq!(store.runs(id).unwrap().len(), 20);
    assert!(matches!(store.record_experiment(&experiment("y"), &[]), Err(StoreError::ReadOnly { .. })));
    drop(store);
    assert!(contents(folder.path()) == before);
}

#[test]
fn a_reader_follows_a_writer() {
    let (_folder, path) = temporary();
    let writer = Store::open(&path).unwrap();
    let reader = Store::open_read_only(&path).unwrap();
    for index in 0..10 {
        writer.record_experiment(&experiment(&format!("x{index}")), &plan(3)).unwrap();
        assert_eq!(reader.experiments().unwrap().len(), index + 1);
        assert_eq!(writer.experiments().unwrap().len(), index + 1);
    }
    drop(writer);
    assert_eq!(reader.experiments().unwrap().len(), 10);
}

#[cfg(unix)]
#[test]
fn a_database_in_a_folder_that_cannot_be_written_to_can_be_read() {
    use std::os::unix::fs::PermissionsExt;

    let (folder, path) = temporary();
    filled(&path);
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o555)).unwrap();
    let runs = Store::open_read_only(&path).and_then(|store| {
        let id = store.experiment("x")?;
        id.map_or(Ok(Vec::new()), |id| store.runs(id))
    });
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(runs.unwrap().len(), 20);
}

#[test]
fn paths_with_odd_characters_work() {
    let (folder, _) = temporary();
    for name in ["with space.db", "percent%20.db", "question?mode=ro.db", "hash#.db", "ünïcode 🦀.db", "file:name.db"]
    {
        let path = folder.path().join(name);
        filled(&path);
        assert!(path.is_file(), "{name}");
        let store = Store::open_read_only(&path).unwrap();
        let table = store.query("SELECT count(*) FROM runs WHERE status = 'done'", &[]).unwrap();
        assert_eq!(table.rows, [[Value::Integer(20)]], "{name}");
    }
}

#[test]
fn what_was_written_is_in_the_one_file() {
    let (folder, path) = temporary();
    filled(&path);
    let copy = folder.path().join("copy.db");
    fs::copy(&path, &copy).unwrap();
    let store = Store::open(&copy).unwrap();
    let id = store.experiment("x").unwrap().unwrap();
    assert_eq!(store.epochs(id).unwrap().len(), 20);
    let check =
        store.query("SELECT application_id, integrity_check FROM pragma_application_id, pragma_integrity_check", &[]);
    assert_eq!(check.unwrap().rows, [[Value::Integer(0x7069_706c), Value::from("ok")]]);
}
