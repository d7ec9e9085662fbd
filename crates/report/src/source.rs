//! From the database to a [`Study`].

use std::collections::{BTreeMap, HashSet};

use store::{Split, Store};

use crate::ReportError;
use crate::analysis::Analysis;
use crate::evidence::{Evidence, Truth};
use crate::mistakes;
use crate::picture::Picture;
use crate::study::{Epoch, Evaluation, Experiment, Predictions, Provenance, Run, Status, Study};

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
        let rows = store.runs(row.id)?;
        study.experiments.push(Experiment {
            name: row.name.clone(),
            question: row.question.clone(),
            command: row.command.clone(),
            trials: row.trials as usize,
            objectives: store.objectives(row.id)?,
            distributions: store.distributions(row.id, &rows)?,
        });
        study.waiting += (row.trials as usize).saturating_sub(rows.len());
        let mut epochs: BTreeMap<i64, Vec<Epoch>> = BTreeMap::new();
        for point in store.curves(row.id)? {
            epochs.entry(point.run.0).or_default().push(Epoch {
                epoch: point.epoch,
                learning_rate: point.learning_rate,
                train_loss: point.train_loss,
                train_top1: point.train_top1,
                validation_loss: point.validation_loss,
                validation_top1: point.validation_top1,
                images_per_second: point.images_per_second,
                epoch_seconds: point.epoch_seconds,
            });
        }
        let mut claims = store.last_claims(row.id)?;
        let prunings: BTreeMap<store::RunId, store::Pruning> = store.prunings(row.id)?.into_iter().collect();
        for run in rows {
            if !seen.insert(run.identity.clone()) {
                continue;
            }
            let provenance = claims.remove(&run.run).map_or_else(Provenance::default, |made| Provenance {
                commit: made.commit,
                version: made.version,
                device: made.device,
                threads: Some(made.threads),
                cpu: made.cpu,
                data_fingerprint: made.data_fingerprint,
                command: made.command,
            });
            let error = match (run.failure_kind, run.failure_message) {
                _ if run.status == store::RunStatus::Pruned => prunings.get(&run.run).map(left),
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
                has_frozen_layers: run.has_frozen_layers,
                assignments: run.assignments.0,
                status: Status::named(run.status.name()),
                error,
                provenance,
                chosen_epoch: run.tested_epoch,
                wall_seconds: run.train_seconds,
                peak_memory_bytes: run.peak_memory_bytes.and_then(|bytes| u64::try_from(bytes).ok()),
                step_memory_bytes: None,
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
    if study.experiments.len() > 1 {
        // What tells their configurations apart.
        for run in &mut study.runs {
            run.assignments.insert(0, ("experiment".to_owned(), run.experiment.clone().into()));
        }
    }
    Ok(study)
}

/// Share of stored predictions that weights must repeat to be believed: other processors round differently.
const SAME: f64 = 0.99;

/// Adds what the page needs of the compared runs beside their rows: predictions with the truth, what weights say about single
/// images, the images that will be shown.
pub fn evidence(store: &Store, study: &mut Study, evidence: &dyn Evidence) -> Result<(), ReportError> {
    let chosen = Analysis::chosen_runs(study);
    predictions(store, study, &chosen.concat(), evidence)?;
    for runs in &chosen {
        // The seeds of a configuration share their network and their batches.
        if let Some(bytes) = runs.first().and_then(|&run| evidence.memory_bytes(run)) {
            for run in study.runs.iter_mut().filter(|run| runs.contains(&run.id)) {
                run.step_memory_bytes = Some(bytes);
            }
        }
        // One seed of each network is examined: the first whose weights are there.
        let examination = runs.iter().find_map(|&run| Some((run, evidence.examine(run)?)));
        let Some((run, examination)) = examination.filter(|(_, examination)| examination.sound()) else { continue };
        let repeats = study.predictions.get(&run).is_none_or(|stored| {
            let same = |&(place, said): &(&u32, &u16)| stored.predicted.get(*place as usize) == Some(said);
            let same = examination.places.iter().zip(&examination.predicted).filter(same).count();
            same as f64 >= SAME * examination.places.len() as f64
        });
        if repeats {
            study.examinations.insert(run, examination);
        } else {
            study.remarks.push(format!(
                "The weights of run {run} do not give the predictions that the database holds for it, so nothing is shown of them."
            ));
        }
    }
    let known = study.predictions.values().any(|predictions| !predictions.actual.is_empty());
    if !known && study.examinations.is_empty() {
        return Ok(());
    }
    let wanted = mistakes::wanted(study, &Analysis::without_importance(study));
    for (fingerprint, place) in wanted {
        if let Some(picture) = evidence.picture(&fingerprint, place).filter(Picture::sound) {
            study.pictures.insert((fingerprint, place), picture.at_most(SIDE));
        }
    }
    Ok(())
}

/// Longest side of a picture on the page, in its own pixels.
const SIDE: usize = 64;

/// Why a run was left early.
fn left(pruning: &store::Pruning) -> String {
    let store::Pruning { epoch, rule, objective, value, threshold, competitors } = pruning;
    let needed = threshold.map_or_else(String::new, |threshold| format!(", {threshold:.4} was needed"));
    format!("left after epoch {epoch} by {rule}: {objective} {value:.4}{needed}; {competitors} configurations compared")
}

/// Reads the predictions of these runs into the study, with the truth where it is known.
fn predictions(store: &Store, study: &mut Study, runs: &[i64], evidence: &dyn Evidence) -> Result<(), ReportError> {
    let mut truths: BTreeMap<String, Option<Truth>> = BTreeMap::new();
    for &id in runs {
        let Some(predicted) = store.predictions(store::RunId(id), Split::Test)? else { continue };
        let Some(run) = study.runs.iter().find(|run| run.id == id) else { continue };
        let fingerprint = run.provenance.data_fingerprint.clone();
        let known = truths.entry(fingerprint).or_insert_with_key(|fingerprint| evidence.truth(fingerprint));
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
