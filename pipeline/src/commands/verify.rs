//! `pipeline verify`: trains a run again and compares what comes out with what is recorded.

use std::path::{Path, PathBuf};

use ::train::{Event, Options, Outcome, Sink, SinkError, TrainError};
use anyhow::Context;
use report::Cell;
use store::{RunId, Split, Store, StoreError, Value};

use crate::{
    cli::{self, Format, Global},
    data,
    exit::Exit,
    output::{integer, line, rows, tell, text},
    provenance, runner,
    trained::Run,
};

/// A folder that is removed when it goes out of scope.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        // What stays behind is in the system's folder for such things.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A number that is not as it was.
struct Difference {
    epoch: String,
    /// The step of the epoch, from 1, where it is known.
    step: Option<u32>,
    measure: &'static str,
    recorded: Cell,
    now: Cell,
}

/// The measures of an epoch that do not depend on the time it took, as the table's columns.
const MEASURES: [&str; 9] = [
    "learning_rate",
    "train_loss",
    "train_penalty",
    "train_top1",
    "train_top5",
    "validation_loss",
    "validation_top1",
    "validation_top5",
    "steps",
];

/// Compares epochs with the records as they come.
struct Comparison<'a> {
    store: &'a Store,
    id: RunId,
    recorded: &'a [Vec<Value>],
    /// A failure is to come after the last record.
    beyond: bool,
    quiet: bool,
    compared: u32,
    /// Steps of the newest epoch whose losses were compared and are the same.
    same_steps: usize,
    differences: Vec<Difference>,
    test: Option<::train::TestRecord>,
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Real(number) => Some(*number),
        // Steps, and nothing else: far below 2⁵³.
        Value::Integer(number) => Some(*number as f64),
        _ => None,
    }
}

/// All its digits: a table's six would hide the last bit.
fn cell(value: Option<f64>) -> Cell {
    value.map_or(Cell::Null, |value| text(value.to_string()))
}

/// Equal bits; what is not a number is recorded as nothing.
fn same(recorded: Option<f64>, now: Option<f64>) -> bool {
    let known = |value: Option<f64>| value.filter(|value| !value.is_nan()).map(f64::to_bits);
    known(recorded) == known(now)
}

impl Comparison<'_> {
    /// Compares the losses of an epoch's steps, where both are known. A step's loss is that of the weights before its update, so what
    /// the last update did shows in the validation only.
    fn steps(&mut self, epoch: u32, now: &[f32]) -> Result<(), StoreError> {
        let recorded = self.store.step_losses(self.id, epoch)?;
        self.same_steps =
            recorded.iter().zip(now).take_while(|(recorded, now)| recorded.to_bits() == now.to_bits()).count();
        if let (Some(recorded), Some(now)) = (recorded.get(self.same_steps), now.get(self.same_steps)) {
            let step = self.same_steps as u32 + 1;
            let loss = |loss: &f32| text(loss.to_string());
            let (epoch, recorded, now) = (epoch.to_string(), loss(recorded), loss(now));
            self.differences.push(Difference { epoch, step: Some(step), measure: "step_loss", recorded, now });
        }
        Ok(())
    }
}

impl Sink for Comparison<'_> {
    fn event(&mut self, event: Event) -> Result<(), SinkError> {
        match event {
            Event::Epoch(record) => {
                let at = |row: &&Vec<Value>| row[0] == Value::Integer(record.epoch.into());
                let Some(row) = self.recorded.iter().find(at) else { return Ok(()) };
                let validation = record.validation.as_ref();
                let now = [
                    Some(record.learning_rate),
                    Some(record.train_loss),
                    Some(record.train_penalty),
                    Some(record.train_top1),
                    Some(record.train_top5),
                    validation.map(|validation| validation.loss),
                    validation.map(|validation| validation.top1),
                    validation.map(|validation| validation.top5),
                    Some(f64::from(record.steps)),
                ];
                self.steps(record.epoch, &record.losses)?;
                for ((measure, recorded), now) in MEASURES.into_iter().zip(&row[1..]).zip(now) {
                    let recorded = number(recorded);
                    if !same(recorded, now) {
                        let (epoch, recorded, now) = (record.epoch.to_string(), cell(recorded), cell(now));
                        self.differences.push(Difference { epoch, step: None, measure, recorded, now });
                    }
                }
                self.compared += 1;
                if !self.quiet {
                    let verdict = if self.differences.is_empty() { "the same" } else { "differs" };
                    eprintln!("epoch {}: {verdict}", record.epoch);
                }
            }
            Event::Tested(record) => self.test = Some(record.clone()),
            Event::Started { .. } | Event::Step(_) | Event::Checkpoint { .. } => {}
        }
        Ok(())
    }

    /// After the first difference all others follow from it; after the last record there is nothing to compare.
    fn goes_on(&mut self, completed_epochs: u32) -> Result<bool, SinkError> {
        let last = self.recorded.last().map_or(&Value::Null, |row| &row[0]);
        Ok(self.differences.is_empty() && (self.beyond || *last != Value::Integer(completed_epochs.into())))
    }
}

/// Trains the run again, from its start or its checkpoint, and says where it first differs.
pub fn run(asked: &cli::Verify, global: &Global) -> anyhow::Result<Exit> {
    let stop = runner::stop_on_interrupt()?;
    let store = Store::open_read_only(&global.db)?;
    let id = RunId(asked.run);
    let stored = Run::any(&store, asked.run, &global.db)?;
    let trial = stored.trial(&asked.overrides)?;
    let prepared = data::prepare(&trial.settings.dataset, global, &stored.file)?;
    anyhow::ensure!(
        prepared.manifest().fingerprint == stored.fingerprint,
        "run {id}: this is not the data set that it was trained on: give dataset.path=FOLDER"
    );
    let sql = format!("SELECT epoch, {} FROM epochs WHERE run_id = ?1 ORDER BY epoch", MEASURES.join(", "));
    let recorded = store.query(&sql, &[id.0.into()])?.rows;
    let failure = store.failures(id)?.into_iter().next().filter(|_| stored.status == "failed");
    anyhow::ensure!(
        !recorded.is_empty() || failure.is_some(),
        "run {id} is {}: it has no finished epoch to be compared with",
        stored.status
    );
    let scratch = Scratch(std::env::temp_dir().join(format!("pipeline-verify-{}-{id}", std::process::id())));
    if asked.from_checkpoint {
        let checkpoint = runner::run_folder(&global.db, id).join(::train::CHECKPOINT);
        anyhow::ensure!(checkpoint.exists(), "run {id} has no checkpoint: leave --from-checkpoint out");
        std::fs::create_dir_all(&scratch.0).with_context(|| format!("cannot make {}", scratch.0.display()))?;
        std::fs::copy(&checkpoint, scratch.0.join(::train::CHECKPOINT))
            .with_context(|| format!("cannot copy {}", checkpoint.display()))?;
    }
    let device = ::train::Device::for_training(&trial.settings.train)?;
    note_other_machine(&store, id, &device, global)?;
    let diverged = failure.as_ref().is_some_and(|failure| failure.kind == "not-finite");
    let mut comparison = Comparison {
        store: &store,
        id,
        recorded: &recorded,
        beyond: diverged,
        quiet: global.quiet,
        compared: 0,
        same_steps: 0,
        differences: Vec::new(),
        test: None,
    };
    let options = Options { threads: asked.threads, device, folder: Some(scratch.0.clone()), ..Options::default() };
    let result = ::train::run(&trial, &prepared, &options, &mut comparison, stop);
    let mut also = Vec::new();
    let ended_well = result.is_ok();
    match result {
        Ok(Outcome::Interrupted { .. }) => {
            eprintln!("stopped; nothing was changed, and the same command starts over");
            return Ok(Exit::Interrupted);
        }
        Ok(Outcome::Finished(summary)) if stored.status == "done" => {
            test(&store, id, &mut comparison, &mut also)?;
            if let Some(now) = &summary.weights {
                weights(&stored.weights, now, &mut comparison, &mut also)?;
            }
        }
        Ok(_) => {}
        Err(TrainError::Diverged { epoch, step, .. }) => {
            let at = |epoch: Option<u32>, step: Option<u32>| match (epoch, step) {
                (Some(epoch), Some(step)) => format!("epoch {epoch}, step {step}"),
                _ => "none".to_owned(),
            };
            let recorded = failure.as_ref().map_or_else(|| at(None, None), |failure| at(failure.epoch, failure.step));
            let now = at(Some(epoch), Some(step));
            if recorded == now {
                also.push(format!("the divergence in {now}"));
            } else {
                comparison.differences.push(Difference {
                    epoch: epoch.to_string(),
                    step: None,
                    measure: "divergence",
                    recorded: text(recorded),
                    now: text(now),
                });
            }
        }
        Err(error) => return Err(error.into()),
    }
    if diverged && ended_well && comparison.differences.is_empty() {
        comparison.differences.push(Difference {
            epoch: failure.and_then(|failure| failure.epoch).map_or_else(String::new, |epoch| epoch.to_string()),
            step: None,
            measure: "divergence",
            recorded: text("yes"),
            now: text("no"),
        });
    }
    finish(id, &comparison, &also, &asked.rows)
}

/// What is said of a difference.
const COLUMNS: [&str; 5] = ["epoch", "step", "measure", "recorded", "now"];

/// Says what is the same, or prints what is not.
fn finish(id: RunId, comparison: &Comparison, also: &[String], to: &cli::Rows) -> anyhow::Result<Exit> {
    let epochs = match comparison.compared {
        0 => Vec::new(),
        1 => vec!["1 epoch".to_owned()],
        epochs => vec![format!("{epochs} epochs")],
    };
    let Some(first) = comparison.differences.first() else {
        let all: Vec<String> = epochs.into_iter().chain(also.iter().cloned()).collect();
        let said = format!("run {id}: nothing differs: {}, equal to the last bit", all.join(", "));
        match (to.format, &to.out) {
            (Format::Table, None) => line(&said)?,
            // Who reads rows gets none.
            _ => {
                tell(&said);
                rows(&COLUMNS, &[], to)?;
            }
        }
        return Ok(Exit::Fine);
    };
    let table: Vec<Vec<Cell>> = comparison
        .differences
        .iter()
        .map(|d| {
            let step = d.step.map_or(Cell::Null, integer);
            vec![text(d.epoch.clone()), step, text(d.measure), d.recorded.clone(), d.now.clone()]
        })
        .collect();
    rows(&COLUMNS, &table, to)?;
    let place = match (first.step, comparison.same_steps) {
        (Some(step), _) => format!("step {step} of epoch {}", first.epoch),
        (None, steps) if steps > 0 && MEASURES.contains(&first.measure) => {
            format!("{} of epoch {}, whose {steps} steps are the same", first.measure, first.epoch)
        }
        (None, _) => format!("{} of epoch {}", first.measure, first.epoch),
    };
    eprintln!("run {id} differs from its record, first in {place}");
    Ok(Exit::TrialsFailed)
}

/// Compares the test's results and predictions.
fn test(store: &Store, id: RunId, comparison: &mut Comparison, also: &mut Vec<String>) -> anyhow::Result<()> {
    let Some(now) = comparison.test.take() else { return Ok(()) };
    let sql = "SELECT epoch, loss, top1, top5 FROM evaluations WHERE run_id = ?1 AND split = 'test'";
    let Some(row) = store.query(sql, &[id.0.into()])?.rows.into_iter().next() else { return Ok(()) };
    let evaluation = &now.evaluation;
    let before = comparison.differences.len();
    let measures = [("test_loss", evaluation.loss), ("test_top1", evaluation.top1), ("test_top5", evaluation.top5)];
    for ((measure, now), recorded) in measures.into_iter().zip(&row[1..]) {
        let recorded = number(recorded);
        if !same(recorded, Some(now)) {
            let (recorded, now) = (cell(recorded), cell(Some(now)));
            comparison.differences.push(Difference { epoch: row[0].to_string(), step: None, measure, recorded, now });
        }
    }
    if let Some(recorded) = store.predictions(id, Split::Test)?
        && recorded != evaluation.predictions
    {
        let other = recorded.iter().zip(&evaluation.predictions).filter(|(a, b)| a != b).count();
        comparison.differences.push(Difference {
            epoch: row[0].to_string(),
            step: None,
            measure: "test_predictions",
            recorded: text("as kept"),
            now: text(format!("{other} other")),
        });
    }
    if comparison.differences.len() == before {
        also.push("the test".to_owned());
    }
    Ok(())
}

/// Compares the final weights, which may have been deleted.
fn weights(recorded: &Path, now: &Path, comparison: &mut Comparison, also: &mut Vec<String>) -> anyhow::Result<()> {
    if !recorded.exists() {
        return Ok(());
    }
    let read = |path: &Path| std::fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    if read(recorded)? == read(now)? {
        also.push("the weights".to_owned());
    } else {
        let (recorded, now) = (text(recorded.display().to_string()), text("other bytes"));
        comparison.differences.push(Difference {
            epoch: "last".to_owned(),
            step: None,
            measure: "weights",
            recorded,
            now,
        });
    }
    Ok(())
}

/// Bits are promised for one build on one kind of processor.
fn note_other_machine(store: &Store, id: RunId, device: &::train::Device, global: &Global) -> anyhow::Result<()> {
    let here = provenance::of_run("", device, 1, "");
    if let Some(last) = store.provenance(id)?.pop()
        && !global.quiet
    {
        let made = &last.provenance;
        if made.device != here.device {
            tell(&format!("note: run {id} was made on {}: this device rounds differently", made.device));
        }
        if made.cpu != here.cpu {
            tell(&format!("note: run {id} was made on another processor ({}): it may round differently", made.cpu));
        }
        if made.commit != here.commit {
            tell(&format!("note: run {id} was made by another build of the program ({})", made.commit));
        }
    }
    Ok(())
}
