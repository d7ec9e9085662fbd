//! Runs that are trained again to be compared with their record.

use std::process::Command;

use crate::workplace::{DB, SMALL, Workplace};

/// Changes a database behind the program's back, as no command of it would.
fn edit(place: &Workplace, sql: &str) -> bool {
    let script = "import sqlite3, sys\nc = sqlite3.connect(sys.argv[1])\nc.execute(sys.argv[2])\nc.commit()";
    let edited = Command::new("python3").args(["-c", script]).arg(place.path(DB)).arg(sql).status();
    edited.is_ok_and(|status| status.success())
}

#[test]
fn a_run_is_trained_again_and_the_first_difference_is_named() {
    let place = Workplace::with(SMALL);
    place.run("sweep experiment.toml --no-report --threads 1").exits(0);
    let before = place.metrics(DB);
    let verified = place.run("verify 2 --threads 2").exits(0);
    assert_eq!(
        verified.text().trim(),
        "run 2: nothing differs: 2 epochs, the test, the weights, equal to the last bit"
    );
    let rows = place.run("verify 2 --format json --quiet").exits(0);
    assert_eq!(rows.json(), serde_json::json!([]), "whoever reads rows gets none");
    assert!(rows.stderr.contains("run 2: nothing differs"), "{}", rows.stderr);
    assert_eq!(place.metrics(DB), before, "nothing is written");
    let unknown = place.run("verify 99").exits(2);
    assert!(unknown.stderr.contains("no run 99"), "{}", unknown.stderr);
    let other = place.run("verify 1 train.epochs=3").exits(2);
    assert!(other.stderr.contains("only dataset.path and train.initial_weights"), "{}", other.stderr);

    if !edit(&place, "UPDATE epochs SET validation_loss = validation_loss * (1 + 1e-15) WHERE run_id = 2 AND epoch = 2")
    {
        eprintln!("SKIPPED: no python3 to change a record with");
        return;
    }
    let verified = place.run("verify 2 --format json").exits(3);
    let rows = verified.json();
    assert_eq!((&rows[0]["epoch"], &rows[0]["measure"]), (&"2".into(), &"validation_loss".into()), "{rows}");
    assert_eq!(rows.as_array().unwrap().len(), 1, "one number was changed: {rows}");
    let told = "first in validation_loss of epoch 2, whose 9 steps are the same";
    assert!(verified.stderr.contains(told), "{}", verified.stderr);

    // Another loss in the fifth step of the first epoch, as if something had gone differently before it.
    let five = "UPDATE steps SET losses = CAST(substr(losses, 1, 16) || x'0000803f' || substr(losses, 21) AS BLOB)";
    assert!(edit(&place, &format!("{five} WHERE run_id = 2 AND epoch = 1")));
    let verified = place.run("verify 2 --format json").exits(3);
    let rows = verified.json();
    assert_eq!(rows.as_array().unwrap().len(), 1, "the epoch before is compared first: {rows}");
    assert_eq!(
        (&rows[0]["epoch"], &rows[0]["step"], &rows[0]["measure"]),
        (&"1".into(), &5.into(), &"step_loss".into())
    );
    assert_eq!(rows[0]["recorded"], "1");
    assert!(verified.stderr.contains("first in step 5 of epoch 1"), "{}", verified.stderr);

    // A record of an earlier version has no steps.
    assert!(edit(&place, "DELETE FROM steps"));
    let verified = place.run("verify 2 --quiet").exits(3);
    assert!(verified.stderr.contains("first in validation_loss of epoch 2\n"), "{}", verified.stderr);
}

#[test]
fn a_divergence_has_a_post_mortem_and_is_replayed_by_one_command() {
    // The rate rises until the loss is no longer a number, after some epochs.
    let place = Workplace::with(
        "[dataset]\ntrain_images = 300\ntest_images = 50\n[train]\nepochs = 4\nbatch_size = 32\n\
         schedule = { kind = \"table\", steps = [{ epochs = 2, learning_rate = 0.01 }, { epochs = 2, learning_rate = 1e30 }] }\n",
    );
    let sweep = place.run("sweep experiment.toml --no-report").exits(3);
    assert!(sweep.stderr.contains("pipeline verify RUN --from-checkpoint"), "{}", sweep.stderr);
    let known = "SELECT kind, epoch, checkpoint_epoch, learning_rate, loss IS NOT NULL, step FROM failures";
    let row: Vec<String> = place.rows(DB, known)[0].iter().map(ToString::to_string).collect();
    assert_eq!(row[..3], ["not-finite", "3", "2"]);
    assert_eq!(row[3].parse::<f64>().unwrap(), 1e30);
    assert_eq!(row[4], "1");
    assert!(row[5].parse::<u32>().unwrap() > 1, "the first step's loss is still that of good weights");
    let norms: serde_json::Value =
        serde_json::from_str(&place.rows(DB, "SELECT norms FROM failures")[0][0].to_string()).unwrap();
    assert_eq!(norms.as_object().unwrap().len(), 10, "five layers, weights and biases: {norms}");
    let before = norms["conv1.weight"]["before"].as_f64().unwrap();
    assert!((0.1..100.0).contains(&before), "{norms}");
    let checkpoint = place.rows(DB, "SELECT checkpoint FROM failures")[0][0].to_string();
    assert!(place.path(checkpoint).exists());

    let step = &row[5];
    let replayed = place.run("verify 1 --from-checkpoint").exits(0);
    assert_eq!(
        replayed.text().trim(),
        format!("run 1: nothing differs: the divergence in epoch 3, step {step}, equal to the last bit")
    );
    let whole = place.run("verify 1").exits(0);
    assert!(whole.text().contains("2 epochs, the divergence in epoch 3"), "{}", whole.text());
}
