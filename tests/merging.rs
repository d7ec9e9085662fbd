//! Results of several machines in one database: `bundle` and `merge`.

use crate::workplace::{DB, SMALL, Workplace};

/// What reports and people see of a sweep, but for times and numbers of runs, which differ between machines.
const TABLES: [&str; 4] = [
    "SELECT experiment, identity, configuration, position, label, seed, parameters, settings, attempt, attempts, status, epochs, \
     tested_epoch, train_loss, train_top1, validation_loss, validation_top1, test_loss, test_top1, test_top5, test_images \
     FROM results ORDER BY experiment, position",
    "SELECT experiment, label, epoch, learning_rate, train_loss, train_penalty, validation_loss, validation_top1, steps \
     FROM curve ORDER BY experiment, label, epoch",
    "SELECT experiment, network, configuration, settings, seeds, validation_top1_mean, test_top1_mean, test_top1_sd FROM comparison \
     ORDER BY experiment, configuration",
    "SELECT t.identity, hex(p.classes) FROM predictions AS p JOIN runs AS r USING (run_id) JOIN trials AS t USING (identity) ORDER BY 1",
];

fn tables(place: &Workplace, db: &str) -> Vec<Vec<Vec<store::Value>>> {
    TABLES.iter().map(|sql| place.rows(db, sql)).collect()
}

/// Everything in every table, to see whether anything changed.
fn dump(place: &Workplace, db: &str) -> String {
    let names =
        place.rows(db, "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%' ORDER BY name");
    names
        .iter()
        .map(|name| format!("{:?}\n", place.rows(db, &format!("SELECT * FROM {} ORDER BY 1, 2", name[0]))))
        .collect()
}

#[test]
fn a_sweep_that_was_split_over_two_machines_is_one_again() {
    let place = Workplace::with(SMALL);
    place.run("sweep experiment.toml --no-report --quiet --db whole.db").exits(0);
    for (db, trials) in [("a.db", [0, 1]), ("b.db", [2, 3])] {
        for trial in trials {
            place.run(&format!("train experiment.toml --trial {trial} --quiet --db {db}")).exits(0);
        }
    }
    // One trial was run by both: it came to the same, so it is the same.
    place.run("train experiment.toml --trial 0 --quiet --db b.db").exits(0);
    place.run("tag 1 seen --db b.db").exits(0);

    let dry = place.run("merge a.db b.db --dry-run --db merged.db").exits(0);
    assert!(
        dry.text().contains("would take over 1 new experiment of 1") && !place.path("merged.db").exists(),
        "{}",
        dry.text()
    );
    let merged = place.run("merge a.db b.db --db merged.db").exits(0);
    assert!(
        merged.text().lines().nth(1).unwrap().contains("2 new runs, 0 further than here, 1 here already"),
        "{}",
        merged.text()
    );
    assert_eq!(tables(&place, "merged.db"), tables(&place, "whole.db"));
    assert_eq!(place.metrics("merged.db"), place.metrics("whole.db"), "weights too, to the last bit");
    assert_eq!(place.count("merged.db", "SELECT count(*) FROM claims"), 4, "each with its provenance");
    assert_eq!(place.count("merged.db", "SELECT count(*) FROM run_tags"), 1);
    place.run("evaluate 4 --db merged.db --quiet").exits(0);
    let left = std::fs::read_dir(place.path("merged.runs")).unwrap().count();
    assert_eq!(left, 4, "nothing but the runs' folders");

    let before = dump(&place, "merged.db");
    let again = place.run("merge b.db a.db whole.db --db merged.db").exits(0);
    assert_eq!(again.stderr, "", "one experiment of one file");
    assert_eq!(dump(&place, "merged.db"), before, "merging twice changes nothing");
    let sources = dump(&place, "a.db");
    place.run("sweep experiment.toml --no-report --quiet --db merged.db").exits(0);
    assert_eq!(place.count("merged.db", "SELECT count(*) FROM runs"), 4, "what was run there is not run here");
    assert_eq!(dump(&place, "a.db"), sources);

    // Another file of the same name may be another experiment, which is said.
    place.write("wider.toml", SMALL.replace("seeds = 2", "seeds = 3"));
    place.run("train wider.toml --trial 0 --quiet --db wider.db").exits(0);
    let joined = place.run("merge wider.db --db merged.db --dry-run").exits(0).stderr;
    assert!(
        joined.contains("small is planned from another file there") && joined.contains("and 2 trials that only"),
        "{joined}"
    );
}

#[test]
fn a_bundle_carries_everything_to_another_machine() {
    let place = Workplace::with(SMALL);
    place.run("sweep experiment.toml --quiet").exits(0);
    place.write("other.toml", SMALL.replace("\"small\"", "\"other\"").replace("epochs = 2", "epochs = 1"));
    place.run("sweep other.toml --quiet --no-report").exits(0);
    place.run_words(&["note", "small", "the <first> one"]).exits(0);
    let bundled = place.run("bundle small --out shared.tar.gz").exits(0);
    assert!(bundled.text().contains("1 experiment, 4 runs, 4 files"), "{}", bundled.text());

    let there = Workplace::new();
    std::fs::copy(place.path("shared.tar.gz"), there.path("shared.tar.gz")).unwrap();
    let merged = there.run("merge shared.tar.gz").exits(0);
    assert!(merged.text().contains("report: reports/small/report.html"), "{}", merged.text());
    for file in ["report.html", "report.md", "frames/runs.parquet", "plots/schedules.svg"] {
        let read = |place: &Workplace| std::fs::read(place.path("reports/small").join(file)).unwrap();
        assert!(read(&there) == read(&place), "{file}");
    }
    let of_small =
        |place: &Workplace, sql: &str| place.rows(DB, &format!("SELECT * FROM ({sql}) WHERE experiment = 'small'"));
    for sql in &TABLES[..3] {
        assert_eq!(of_small(&there, sql), of_small(&place, sql));
    }
    assert_eq!(there.count(DB, "SELECT count(*) FROM experiments"), 1);
    assert_eq!(there.run("note small").exits(0).text(), "the <first> one\n");
    there.run("report small").exits(0);
    there.run("evaluate 1 --quiet").exits(0);
    let before = dump(&there, DB);
    there.write("reports/small/report.html", "a later one");
    let again = there.run("merge shared.tar.gz").exits(0);
    assert_eq!(dump(&there, DB), before);
    assert!(!again.text().contains("report: "), "{}", again.text());
    assert_eq!(std::fs::read(there.path("reports/small/report.html")).unwrap(), b"a later one");

    // It is an ordinary archive with an ordinary database.
    let file = std::fs::File::open(place.path("shared.tar.gz")).unwrap();
    tar::Archive::new(flate2::read::GzDecoder::new(file)).unpack(place.path("unpacked")).unwrap();
    for name in
        ["bundle.json", "experiments/small.toml", "reports/small/report.html", "results.runs/1/weights.safetensors"]
    {
        assert!(place.path("unpacked").join(name).is_file(), "{name}");
    }
    place.run("evaluate 1 --quiet --db unpacked/results.db").exits(0);
    place.run("bundle small --no-weights --out light.tar.gz").exits(0);
    let size = |name: &str| std::fs::metadata(place.path(name)).unwrap().len();
    assert!(size("light.tar.gz") * 2 < size("shared.tar.gz"));
}

#[test]
fn what_got_further_takes_the_place_and_other_results_stay_beside() {
    let place = Workplace::with(SMALL);
    let long = SMALL.replace("epochs = 2", "epochs = 300").replace("seeds = 2", "seeds = 1");
    place.write("long.toml", &long);
    let mut sweep = place.start("train long.toml --trial 0 --quiet --db a.db");
    place.wait_for("a.db", "SELECT count(*) FROM runs WHERE checkpoint_epoch >= 2", 1, &mut sweep);
    let running = place.run("merge a.db --db merged.db").exits(0);
    assert!(running.stderr.contains("left out 1 running run"), "{}", running.stderr);
    assert_eq!(place.count("merged.db", "SELECT count(*) FROM runs"), 0);
    sweep.kill().unwrap();
    sweep.wait().unwrap();
    let start = std::time::Instant::now();
    while place.count("merged.db", "SELECT count(*) FROM runs") == 0 {
        assert!(start.elapsed().as_secs() < 60, "the lease runs out");
        place.run("merge a.db --db merged.db").exits(0);
        std::thread::sleep(std::time::Duration::from_millis(300));
    }
    let merged = place.rows("merged.db", "SELECT status, lease_until_ms, checkpoint FROM runs");
    assert_eq!(merged[0][0], "interrupted".into());
    assert_eq!(merged[0][2], "merged.runs/1/checkpoint.safetensors".into());
    assert!(place.path("merged.runs/1/checkpoint.safetensors").is_file(), "it can go on here");

    // Another machine's run of the same trial is done: it takes the place of the one that was stopped.
    let identity = place.rows("a.db", "SELECT identity FROM runs")[0][0].to_string();
    let done = place.path("b.db");
    {
        let store = store::Store::open(&done).unwrap();
        store
            .merge(&store::Store::open_read_only(place.path("a.db")).unwrap(), None, &|_, path| path.to_owned(), true)
            .unwrap();
        let id = store.experiment("small").unwrap().unwrap();
        let claim = store
            .claim(id, &identity, "w", std::time::Duration::from_secs(60), &store::Provenance::default())
            .unwrap()
            .unwrap();
        store.rewind(claim.run, "w", 1).unwrap();
        let outcome =
            store::Outcome::Done { tested_epoch: 1, checkpoint: None, train_seconds: 1.0, peak_memory_bytes: 1 };
        store.finish(claim.run, "w", &outcome).unwrap();
    }
    let further = place.run("merge b.db --db merged.db").exits(0);
    assert!(further.text().contains("1 further than here"), "{}", further.text());
    assert_eq!(place.count("merged.db", "SELECT count(*) FROM runs WHERE status = 'done' AND run_id = 1"), 1);
    assert_eq!(place.count("merged.db", "SELECT count(*) FROM epochs"), 1);
    assert_eq!(place.count("merged.db", "SELECT count(*) FROM claims"), 2);

    // A third one came to something else: nothing is lost.
    {
        let store = store::Store::open(place.path("c.db")).unwrap();
        let plan = place.rows("a.db", "SELECT count(*) FROM trials WHERE identity IS NOT NULL");
        assert_eq!(plan[0][0], store::Value::Integer(2));
        let trial = store::NewTrial { identity: identity.clone(), canonical: "{}".to_owned(), ..Default::default() };
        let experiment = store::NewExperiment { name: "small".to_owned(), ..Default::default() };
        let id = store.record_experiment(&experiment, &[trial]).unwrap();
        let claim = store
            .claim(id, &identity, "v", std::time::Duration::from_secs(60), &store::Provenance::default())
            .unwrap()
            .unwrap();
        store
            .record_epoch(claim.run, "v", &store::EpochRow { epoch: 1, train_loss: 0.5, ..Default::default() })
            .unwrap();
        let outcome =
            store::Outcome::Done { tested_epoch: 1, checkpoint: None, train_seconds: 1.0, peak_memory_bytes: 1 };
        store.finish(claim.run, "v", &outcome).unwrap();
    }
    place.run("merge c.db --db merged.db").exits(0);
    let attempts = place.rows("merged.db", "SELECT attempt, worker FROM runs ORDER BY attempt");
    assert_eq!(attempts[1], [store::Value::Integer(2), "v".into()]);
    let before = dump(&place, "merged.db");
    place.run("merge c.db b.db a.db --db merged.db").exits(0);
    assert_eq!(dump(&place, "merged.db"), before);
}

#[test]
fn what_cannot_be_merged_is_refused_and_leaves_nothing() {
    let place = Workplace::with(SMALL);
    place.run("train experiment.toml --trial 0 --quiet --db a.db").exits(0);
    place.write("text.db", "not a database, but long enough to be looked at by SQLite as if it were one");
    place.write("broken.tar.gz", [&[0x1f, 0x8b][..], &[7; 100]].concat());
    let mut archive = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
    let mut header = tar::Header::new_gnu();
    header.set_size(2);
    // As a hostile archive would: the library itself writes no such path.
    header.as_old_mut().name[..13].copy_from_slice(b"../escape.txt");
    header.set_cksum();
    archive.append(&header, &b"no"[..]).unwrap();
    place.write("foreign.tar.gz", archive.into_inner().unwrap().finish().unwrap());
    for (line, message) in [
        ("merge missing.db", "missing.db"),
        ("merge a.db text.db", "not a SQLite database"),
        ("merge broken.tar.gz", "damaged"),
        ("merge foreign.tar.gz", "not a bundle"),
        ("merge a.db --db a.db", "the database to merge into"),
        ("bundle nothing --out b.tar.gz --db a.db", "no experiment is called \"nothing\""),
    ] {
        let refused = place.run(line).exits(2);
        assert!(refused.stderr.contains(message), "{line}: {}", refused.stderr);
        assert!(!place.path(DB).exists() && !place.path("results.runs").exists(), "{line} leaves nothing");
        assert!(!place.path("b.tar.gz").exists() && !place.path("../escape.txt").exists(), "{line}");
    }
    // A database of a version to come.
    std::fs::copy(place.path("a.db"), place.path("newer.db")).unwrap();
    let python = std::process::Command::new("sqlite3")
        .arg(place.path("newer.db"))
        .arg("INSERT INTO _sqlx_migrations VALUES (9000, 'later', 0, 1, x'00', 0)")
        .status();
    if python.is_ok_and(|status| status.success()) {
        let refused = place.run("merge newer.db").exits(2);
        assert!(refused.stderr.contains("newer version"), "{}", refused.stderr);
    } else {
        eprintln!("SKIPPED: sqlite3 is not installed, so a newer database was not tried");
    }
}
