//! From the database to a [`Study`].

use std::collections::{BTreeMap, HashSet};

use store::{Split, Store};

use crate::ReportError;
use crate::study::{Epoch, Evaluation, Experiment, Predictions, Provenance, Run, Status, Study};

/// True classes of a data set's test part, which the database does not hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Truth {
    /// Class of each image of the test part, in its order.
    pub labels: Vec<u16>,
    /// Names of the classes by index; may be empty.
    pub classes: Vec<String>,
}

/// Reads the experiments with all their runs and epochs; predictions are read later, by [`predictions`].
pub fn study(store: &Store, experiments: &[String]) -> Result<Study, ReportError> {
    if experiments.is_empty() {
        return Err(ReportError::NoExperiment);
    }
    let known = store.experiments()?;
    let mut study = Study::default();
    let mut seen = HashSet::new();
    for name in experiments {
        let Some(row) = known.iter().find(|row| row.name == *name) else {
            let names: Vec<String> = known.iter().map(|row| format!("`{}`", row.name)).collect();
            let known = if names.is_empty() { "none yet".to_owned() } else { names.join(", ") };
            return Err(ReportError::UnknownExperiment { name: name.clone(), known });
        };
        if study.experiments.iter().any(|experiment| experiment.name == *name) {
            continue;
        }
        study.experiments.push(Experiment {
            name: row.name.clone(),
            question: row.question.clone(),
            command: row.command.clone(),
            trials: row.trials as usize,
        });
        let rows = store.runs(row.id)?;
        study.waiting += (row.trials as usize).saturating_sub(rows.len());
        let mut epochs: BTreeMap<i64, Vec<Epoch>> = BTreeMap::new();
        for record in store.epochs(row.id)? {
            let measured = &record.row;
            epochs.entry(record.run.0).or_default().push(Epoch {
                epoch: measured.epoch,
                learning_rate: measured.learning_rate,
                train_loss: measured.train_loss,
                train_top1: measured.train_top1,
                validation_loss: measured.validation_loss,
                validation_top1: measured.validation_top1,
                images_per_second: measured.images_per_second,
                epoch_seconds: measured.epoch_seconds,
            });
        }
        for run in rows {
            if !seen.insert(run.identity.clone()) {
                continue;
            }
            let last = store.provenance(run.run)?.pop();
            let provenance = last.map(|claim| claim.provenance).map_or_else(Provenance::default, |made| Provenance {
                commit: made.commit,
                version: made.version,
                device: made.device,
                threads: Some(made.threads),
                cpu: made.cpu,
                data_fingerprint: made.data_fingerprint,
                command: made.command,
            });
            let error = match (run.failure_kind, run.failure_message) {
                (Some(kind), Some(message)) => Some(format!("{kind}: {message}")),
                (kind, message) => message.or(kind),
            };
            study.runs.push(Run {
                id: run.run.0,
                experiment: row.name.clone(),
                trial: run.identity,
                configuration: run.configuration,
                label: run.label,
                variant: run.variant,
                seed: run.seed,
                architecture: run.architecture,
                parameters: Some(run.parameters),
                macs_per_image: Some(run.macs_per_image),
                assignments: run.assignments.0,
                status: match run.status {
                    store::RunStatus::Queued => Status::Queued,
                    store::RunStatus::Running => Status::Running,
                    store::RunStatus::Done => Status::Done,
                    store::RunStatus::Failed => Status::Failed,
                    store::RunStatus::Interrupted => Status::Interrupted,
                },
                error,
                provenance,
                chosen_epoch: run.tested_epoch,
                wall_seconds: run.train_seconds,
                peak_memory_bytes: run.peak_memory_bytes.and_then(|bytes| u64::try_from(bytes).ok()),
                epochs: epochs.remove(&run.run.0).unwrap_or_default(),
                test: run.test_top1.map(|top1| Evaluation {
                    loss: run.test_loss.unwrap_or(f64::NAN),
                    top1,
                    top5: run.test_top5,
                    images: run.test_images.unwrap_or(0).into(),
                }),
            });
        }
    }
    Ok(study)
}

/// Reads the predictions of these runs into the study, with the truth where it is known.
pub fn predictions(
    store: &Store,
    study: &mut Study,
    runs: &[i64],
    truth: &dyn Fn(&str) -> Option<Truth>,
) -> Result<(), ReportError> {
    let mut truths: BTreeMap<String, Option<Truth>> = BTreeMap::new();
    for &id in runs {
        let Some(predicted) = store.predictions(store::RunId(id), Split::Test)? else { continue };
        let Some(run) = study.runs.iter().find(|run| run.id == id) else { continue };
        let fingerprint = run.provenance.data_fingerprint.clone();
        let known = truths.entry(fingerprint).or_insert_with_key(|fingerprint| truth(fingerprint));
        let mut read = Predictions { predicted, ..Predictions::default() };
        if let Some(known) = known
            && known.labels.len() == read.predicted.len()
        {
            read.actual.clone_from(&known.labels);
            read.classes.clone_from(&known.classes);
        }
        study.predictions.insert(id, read);
    }
    Ok(())
}
