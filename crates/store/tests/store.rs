//! The store as those who use it see it.

mod support;

use std::time::Duration;

use store::{
    EpochRow, EvaluationRow, NewExperiment, NewTrial, Outcome, RunStatus, Split, Store, StoreError, Value, named,
};
use support::{LEASE, epoch, experiment, plan, provenance, temporary, trial};

#[test]
fn a_run_comes_back_as_it_was_written() {
    let (_folder, path) = temporary();
    let store = Store::open(&path).unwrap();
    let id = store.record_experiment(&experiment("first"), &plan(2)).unwrap();
    assert!(store.runs(id).unwrap().is_empty());

    let claim = store.claim_next(id, "w", LEASE, &provenance()).unwrap().unwrap();
    assert_eq!((claim.attempt, claim.claims, claim.resume_from_epoch), (1, 1, 0));
    let rows = [epoch(1), epoch(2), epoch(3)];
    store.record_epoch(claim.run, "w", &rows[0]).unwrap();
    store.record_epochs(claim.run, "w", &rows[1..]).unwrap();
    let test =
        EvaluationRow { split: Split::Test, epoch: 2, loss: 0.1, top1: 0.75, top5: 1.0, images: 4, seconds: 0.5 };
    store.record_evaluation(claim.run, "w", &test, Some(&[0, 9, 65535, 256])).unwrap();
    let outcome = Outcome::Done {
        tested_epoch: 2,
        checkpoint: Some("runs/1/best.safetensors".into()),
        train_seconds: 12.5,
        peak_memory_bytes: 1 << 33,
    };
    store.finish(claim.run, "w", &outcome).unwrap();

    let runs = store.runs(id).unwrap();
    assert_eq!(runs.len(), 1);
    let run = &runs[0];
    assert_eq!(run.run, claim.run);
    assert_eq!(run.label, "trial 0");
    assert_eq!(run.network, "alexnet");
    assert_eq!(run.status, RunStatus::Done);
    assert_eq!((run.tested_epoch, run.epochs, run.attempts), (Some(2), 3, 1));
    assert_eq!(run.validation_top1, rows[1].validation_top1);
    assert_eq!(run.train_top1, Some(rows[1].train_top1));
    assert_eq!((run.test_top1, run.test_images), (Some(0.75), Some(4)));
    assert_eq!(run.peak_memory_bytes, Some(1 << 33));
    assert_eq!(run.assignments.get("train.weight_decay").unwrap(), 0.0005);
    assert_eq!((run.device.as_deref(), run.commit.as_deref()), (Some("cpu"), Some("0123abc")));
    assert!(!run.reused);

    let epochs = store.epochs(id).unwrap();
    assert_eq!(epochs.iter().map(|record| record.row).collect::<Vec<_>>(), rows);
    assert_eq!((&*epochs[0].label, epochs[0].seed, epochs[0].run), ("trial 0", 0, claim.run));
    let curves = store.curves(id).unwrap();
    let points = rows.iter().map(|row| (claim.run, row.epoch, row.learning_rate, row.train_loss, row.validation_top1));
    let read = curves.iter().map(|p| (p.run, p.epoch, p.learning_rate, p.train_loss, p.validation_top1));
    assert_eq!(read.collect::<Vec<_>>(), points.collect::<Vec<_>>());
    assert_eq!((curves[0].train_top1, curves[0].epoch_seconds), (rows[0].train_top1, rows[0].epoch_seconds));
    assert_eq!(store.last_claims(id).unwrap(), [(claim.run, provenance())].into());
    assert_eq!(store.evaluations(id).unwrap()[0].row, test);
    assert_eq!(store.predictions(claim.run, Split::Test).unwrap().unwrap(), [0, 9, 65535, 256]);
    assert_eq!(store.predictions(claim.run, Split::Validation).unwrap(), None);
    let origin = store.provenance(claim.run).unwrap();
    assert_eq!(origin.len(), 1);
    assert_eq!(origin[0].provenance, provenance());
    assert_eq!((origin[0].worker.as_str(), origin[0].from_epoch), ("w", 0));
    let listed = store.experiments().unwrap();
    assert_eq!((listed[0].trials, listed[0].done, listed[0].failed), (2, 1, 0));
    assert_eq!(store.experiment("first").unwrap(), Some(id));
    assert_eq!(store.experiment("other").unwrap(), None);
}

#[test]
fn what_is_not_a_number_survives() {
    let (_folder, path) = temporary();
    let store = Store::open(&path).unwrap();
    let id = store.record_experiment(&experiment("nan"), &plan(1)).unwrap();
    let run = store.claim_next(id, "w", LEASE, &provenance()).unwrap().unwrap().run;
    let row = EpochRow {
        epoch: 1,
        train_loss: f64::NAN,
        train_penalty: f64::INFINITY,
        train_top1: f64::MIN_POSITIVE,
        validation_loss: Some(f64::NEG_INFINITY),
        validation_top1: Some(f64::NAN),
        ..EpochRow::default()
    };
    store.record_epoch(run, "w", &row).unwrap();
    let read = store.epochs(id).unwrap()[0].row;
    assert!(read.train_loss.is_nan());
    assert_eq!(read.train_penalty, f64::INFINITY);
    assert_eq!(read.train_top1, f64::MIN_POSITIVE);
    assert_eq!(read.validation_loss, Some(f64::NEG_INFINITY));
    assert_eq!(read.validation_top1, None);
}

#[test]
fn planning_again_keeps_results_and_replaces_the_plan() {
    let (_folder, path) = temporary();
    let store = Store::open(&path).unwrap();
    let trials = plan(4);
    let id = store.record_experiment(&experiment("x"), &trials[..3]).unwrap();
    support::run_all(&store, id, "w");
    let before = store.runs(id).unwrap();

    let mut renamed = trials[1..].to_vec();
    renamed[0].label = "another name".into();
    renamed[0].assignments = vec![("train.epochs".into(), "7".into())];
    let again = NewExperiment { question: "and now?".into(), ..experiment("x") };
    assert_eq!(store.record_experiment(&again, &renamed).unwrap(), id);
    let states = store.trial_states(id).unwrap();
    let seen: Vec<_> = states.iter().map(|state| (state.position, state.label.as_str(), state.status)).collect();
    assert_eq!(
        seen,
        [(0, "another name", RunStatus::Done), (1, "trial 2", RunStatus::Done), (2, "trial 3", RunStatus::Queued),]
    );
    let runs = store.runs(id).unwrap();
    assert_eq!(runs.len(), 2);
    assert_eq!(runs[0].run, before[1].run);
    assert_eq!(runs[0].assignments.0, [("train.epochs".to_owned(), 7.into())]);
    assert_eq!(store.experiments().unwrap()[0].question, "and now?");

    store.record_experiment(&experiment("x"), &trials[..3]).unwrap();
    assert_eq!(store.runs(id).unwrap(), before, "what was run is there again");
}

#[test]
fn experiments_share_trials() {
    let (_folder, path) = temporary();
    let store = Store::open(&path).unwrap();
    let trials = plan(3);
    let first = store.record_experiment(&experiment("first"), &trials[..2]).unwrap();
    support::run_all(&store, first, "w");
    let mut named = trials.clone();
    named[1].variant = Some("mine".into());
    let second = store.record_experiment(&experiment("second"), &named).unwrap();
    let reused: Vec<_> = store.trial_states(second).unwrap().iter().map(|state| (state.status, state.reused)).collect();
    assert_eq!(reused, [(RunStatus::Done, true), (RunStatus::Done, true), (RunStatus::Queued, false)]);
    let newest = store.newest_runs().unwrap();
    assert_eq!(newest.len(), 2);
    assert!(newest.iter().all(|run| run.status == RunStatus::Done && run.experiment.as_deref() == Some("first")));
    assert!(store.trial_states(first).unwrap().iter().all(|state| !state.reused));
    let claim = store.claim_next(second, "w", LEASE, &provenance()).unwrap().unwrap();
    assert_eq!(claim.identity, trials[2].identity);
    assert_eq!(store.claim_next(second, "w", LEASE, &provenance()).unwrap(), None);
    let runs = store.runs(second).unwrap();
    assert_eq!(runs.iter().map(|run| run.reused).collect::<Vec<_>>(), [true, true, false]);
    assert_eq!(runs[1].network, "mine", "a variant is the experiment's, not the trial's");
    assert_eq!(store.runs(first).unwrap()[1].network, "alexnet");
}

#[test]
fn a_plan_that_cannot_be_kept_leaves_nothing_behind() {
    let (_folder, path) = temporary();
    let store = Store::open(&path).unwrap();
    let broken = |change: fn(&mut NewTrial)| {
        let mut trials = plan(2);
        change(&mut trials[1]);
        trials
    };
    let cases: [(&str, Vec<NewTrial>, &str); 7] = [
        ("", plan(1), "the name is empty"),
        ("x", broken(|trial| trial.identity.clear()), "has no identity"),
        ("x", broken(|trial| trial.identity = support::trial(0).identity), "are the same"),
        ("x", broken(|trial| trial.canonical = "{".into()), "is not JSON"),
        ("x", broken(|trial| trial.assignments[0].1 = "relu".into()), "value of train.weight_decay is not JSON: relu"),
        (
            "x",
            broken(|trial| trial.assignments.push(trial.assignments[0].clone())),
            "two values for train.weight_decay",
        ),
        ("x", broken(|trial| trial.seed = u64::MAX), "the seed 18446744073709551615 is too large"),
    ];
    for (name, trials, message) in cases {
        let error = store.record_experiment(&experiment(name), &trials).unwrap_err();
        assert!(error.to_string().contains(message), "{message:?}: {error}");
    }
    for table in ["experiments", "trials", "experiment_trials", "assignments"] {
        let rows = store.query(&format!("SELECT count(*) FROM {table}"), &[]).unwrap();
        assert_eq!(rows.rows, [[Value::Integer(0)]], "{table}");
    }
}

#[test]
fn any_text_is_only_text() {
    let (_folder, path) = temporary();
    let store = Store::open(&path).unwrap();
    for (index, text) in [
        "'; DROP TABLE runs; --",
        "a\nb\r\nc\ttab",
        "🦀 λ=0.0005 日本語",
        "\u{202e}right to left\u{202c} שלום",
        "<script>alert('x')</script>",
        "\"quoted\" \\ back % _ ?1 :name @x $y",
        "nul\u{0}inside",
        " ",
    ]
    .into_iter()
    .enumerate()
    {
        let new = NewExperiment {
            name: text.into(),
            question: text.into(),
            file: text.into(),
            config_toml: text.into(),
            command: text.into(),
        };
        let json = serde_json::to_string(text).unwrap();
        // SQLite's JSON functions end a key at a NUL, which no key path holds.
        let key = text.replace('\0', "");
        let planned = NewTrial {
            identity: format!("{index} {text}"),
            label: text.into(),
            variant: Some(text.into()),
            assignments: vec![(key.clone(), json)],
            ..trial(index as u64)
        };
        let id = store.record_experiment(&new, &[planned]).unwrap();
        let claim = store.claim_next(id, text, LEASE, &provenance()).unwrap().unwrap();
        let failed = Outcome::Failed { kind: text.into(), message: text.into() };
        store.finish(claim.run, text, &failed).unwrap();
        let kept = &store.experiments().unwrap()[0];
        assert_eq!(
            (&kept.name, &kept.question, &kept.file, &kept.config_toml),
            (&new.name, &new.question, &new.file, &new.config_toml)
        );
        let run = &store.runs(id).unwrap()[0];
        assert_eq!((run.label.as_str(), run.network.as_str()), (text, text));
        assert_eq!(run.failure_message.as_deref(), Some(text));
        assert_eq!(run.assignments.0, [(key, text.into())]);
        let table = store.query("SELECT name FROM experiments WHERE name = ?1", &[text.into()]).unwrap();
        assert_eq!(table.rows, [[Value::from(text)]]);
        let failed = named::find("failed").unwrap().run(&store, &[text]).unwrap();
        assert_eq!(failed.rows.len(), 1, "{text:?}");
    }
}

#[test]
fn failed_and_done_trials_are_run_again_only_when_asked() {
    let (_folder, path) = temporary();
    let store = Store::open(&path).unwrap();
    let trials = plan(3);
    let id = store.record_experiment(&experiment("x"), &trials).unwrap();
    let first = store.claim_next(id, "w", LEASE, &provenance()).unwrap().unwrap();
    support::finish(&store, first.run, "w");
    let second = store.claim_next(id, "w", LEASE, &provenance()).unwrap().unwrap();
    let failure = Outcome::Failed { kind: "not-finite".into(), message: "loss is NaN at step 3".into() };
    store.finish(second.run, "w", &failure).unwrap();

    for identity in [&trials[0].identity, &trials[1].identity] {
        assert_eq!(store.claim(id, identity, "w", LEASE, &provenance()).unwrap(), None);
    }
    let asked: Vec<&str> = trials.iter().map(|trial| trial.identity.as_str()).collect();
    assert_eq!(store.again(id, &asked).unwrap(), 2, "the third was never run");
    assert_eq!(store.again(id, &asked).unwrap(), 0, "they wait already: asking twice is asking once");
    let claim = store.claim(id, asked[0], "v", LEASE, &provenance()).unwrap().unwrap();
    assert_eq!((claim.attempt, claim.epochs), (2, 0));
    assert_ne!(claim.run, first.run);
    let runs = store.runs(id).unwrap();
    assert_eq!(runs[0].run, first.run, "the one that is done stands");
    assert_eq!(runs[0].attempts, 2);
    assert_eq!((runs[1].status, runs[1].failure_kind.as_deref()), (RunStatus::Queued, None));
    support::finish(&store, claim.run, "v");
    assert_eq!(store.runs(id).unwrap()[0].run, claim.run, "the newest done");
    assert_eq!(store.provenance(first.run).unwrap().len(), 1, "the old one is still there");
}

#[test]
fn late_writes_are_refused() {
    let (_folder, path) = temporary();
    let store = Store::open(&path).unwrap();
    let trials = plan(1);
    let id = store.record_experiment(&experiment("x"), &trials).unwrap();
    let claim = store.claim_next(id, "slow", Duration::ZERO, &provenance()).unwrap().unwrap();
    let run = claim.run;
    // Its lease is over, but nobody has taken the run: it may go on.
    store.record_epoch(run, "slow", &epoch(1)).unwrap();
    store.record_checkpoint(run, "slow", 1, "a.ckpt").unwrap();
    store.record_epoch(run, "slow", &epoch(2)).unwrap();
    let taken = store.claim_next(id, "fast", LEASE, &provenance()).unwrap().unwrap();
    assert_eq!(
        (taken.run, taken.claims, taken.resume_from_epoch, taken.epochs, taken.checkpoint.as_deref()),
        (run, 2, 1, 2, Some("a.ckpt"))
    );

    let test = EvaluationRow { split: Split::Test, epoch: 1, loss: 0.0, top1: 0.0, top5: 0.0, images: 1, seconds: 0.0 };
    let late = [
        store.record_epoch(run, "slow", &epoch(3)),
        store.record_epochs(run, "slow", &[epoch(3)]),
        store.record_evaluation(run, "slow", &test, None),
        store.record_checkpoint(run, "slow", 3, "b.ckpt"),
        store.renew(run, "slow", LEASE),
        store.rewind(run, "slow", 0).map(|_| ()),
        store.finish(run, "slow", &Outcome::Interrupted { checkpoint_epoch: None }),
    ];
    for (index, result) in late.into_iter().enumerate() {
        assert!(
            matches!(&result, Err(StoreError::LeaseLost { holder, worker, .. }) if holder == "fast" && worker == "slow"),
            "{index}: {result:?}"
        );
    }

    assert!(matches!(store.record_epoch(run, "fast", &epoch(2)), Err(StoreError::EpochExists { epoch: 2, .. })));
    assert!(matches!(
        store.record_epochs(run, "fast", &[epoch(3), epoch(2)]),
        Err(StoreError::EpochExists { epoch: 2, .. })
    ));
    let many: Vec<EpochRow> = (3..200).chain([150]).map(epoch).collect();
    assert!(matches!(store.record_epochs(run, "fast", &many), Err(StoreError::EpochExists { epoch: 150, .. })));
    store.record_epochs(run, "fast", &[]).unwrap();
    assert_eq!(store.epochs(id).unwrap().len(), 2, "all or none");
    assert_eq!(store.rewind(run, "fast", 1).unwrap(), 1);
    store.record_epochs(run, "fast", &[epoch(2), epoch(3)]).unwrap();
    store.renew(run, "fast", LEASE).unwrap();
    support::finish(&store, run, "fast");
    for result in [
        store.record_epoch(run, "fast", &epoch(4)),
        store.renew(run, "fast", LEASE),
        store.record_evaluation(run, "fast", &test, None),
    ] {
        assert!(matches!(result, Err(StoreError::NotRunning { status: RunStatus::Done, .. })), "{result:?}");
    }
    assert!(matches!(store.renew(store::RunId(99), "fast", LEASE), Err(StoreError::UnknownRun { .. })));
    assert!(matches!(store.claim(id, "nothing", "w", LEASE, &provenance()), Err(StoreError::UnknownTrial { .. })));
    let origin = store.provenance(run).unwrap();
    assert_eq!(
        origin.iter().map(|row| (row.worker.as_str(), row.from_epoch)).collect::<Vec<_>>(),
        [("slow", 0), ("fast", 1)]
    );
}

#[test]
fn an_interrupted_run_goes_on_as_itself() {
    let (_folder, path) = temporary();
    let store = Store::open(&path).unwrap();
    let id = store.record_experiment(&experiment("x"), &plan(1)).unwrap();
    let claim = store.claim_next(id, "w", LEASE, &provenance()).unwrap().unwrap();
    store.record_epochs(claim.run, "w", &[epoch(1), epoch(2), epoch(3)]).unwrap();
    let stop = Outcome::Interrupted { checkpoint_epoch: Some(2) };
    store.finish(claim.run, "w", &stop).unwrap();
    assert_eq!(store.trial_states(id).unwrap()[0].status, RunStatus::Interrupted);
    let next = store.claim_next(id, "v", LEASE, &provenance()).unwrap().unwrap();
    assert_eq!((next.run, next.resume_from_epoch, next.epochs), (claim.run, 2, 3));
    assert_eq!(store.rewind(next.run, "v", 2).unwrap(), 1);
    let left: Vec<u32> = store.epochs(id).unwrap().iter().map(|record| record.row.epoch).collect();
    assert_eq!(left, [1, 2]);
    // Its checkpoint turned out to be unreadable: from the start.
    assert_eq!(store.rewind(next.run, "v", 0).unwrap(), 2);
    let stop = Outcome::Interrupted { checkpoint_epoch: None };
    store.finish(next.run, "v", &stop).unwrap();
    let third = store.claim_next(id, "u", LEASE, &provenance()).unwrap().unwrap();
    assert_eq!((third.resume_from_epoch, third.epochs, third.claims), (0, 0, 3));
}

#[test]
fn a_dead_workers_old_run_cannot_come_back_once_a_new_one_was_asked_for() {
    let (_folder, path) = temporary();
    let store = Store::open(&path).unwrap();
    let trials = plan(1);
    let id = store.record_experiment(&experiment("x"), &trials).unwrap();
    let old = store.claim_next(id, "dead", Duration::ZERO, &provenance()).unwrap().unwrap();
    assert_eq!(store.again(id, &[&trials[0].identity]).unwrap(), 1);
    assert!(matches!(
        store.record_epoch(old.run, "dead", &epoch(1)),
        Err(StoreError::NotRunning { status: RunStatus::Interrupted, .. })
    ));
    let new = store.claim_next(id, "w", LEASE, &provenance()).unwrap().unwrap();
    assert_eq!(new.attempt, 2);
    assert_eq!(store.again(id, &[&trials[0].identity]).unwrap(), 0, "a worker has it");
}
