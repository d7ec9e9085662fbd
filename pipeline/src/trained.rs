//! Trained networks, by the number of their run or as a file of weights.

use std::path::{Path, PathBuf};

use anyhow::Context;
use plan::{Experiment, Settings};
use store::{RunId, Store, Value};

use crate::{cli::Global, provenance, runner};

/// What the database knows of a run that is done.
#[derive(Clone, Debug)]
pub struct Run {
    /// Its number.
    pub id: i64,
    /// Name of the experiment on whose behalf it was made.
    pub experiment: String,
    /// Short name of its trial.
    pub label: String,
    /// All settings and the seed, as canonical JSON.
    pub canonical: String,
    /// Experiment file as it was named.
    pub file: PathBuf,
    /// Its text.
    pub toml: String,
    /// Fingerprint of the prepared images that it was trained on.
    pub fingerprint: String,
    /// Its final weights.
    pub weights: PathBuf,
    /// Where it stands.
    pub status: String,
    /// Experiment file and overrides of the command line that trained it.
    config: String,
}

impl Run {
    /// A run that is done, by its number.
    pub fn find(store: &Store, id: i64, db: &Path) -> anyhow::Result<Self> {
        let run = Self::any(store, id, db)?;
        let status = &run.status;
        anyhow::ensure!(status == "done", "run {id} is {status}: only a run that is done has final weights");
        Ok(run)
    }

    /// A run by its number, whatever became of it; its weights are there only if it is done.
    pub fn any(store: &Store, id: i64, db: &Path) -> anyhow::Result<Self> {
        let sql = "SELECT e.name, p.label, t.canonical, e.file, e.config_toml, t.data_fingerprint, r.checkpoint, r.status, \
                   (SELECT c.config FROM claims AS c WHERE c.run_id = r.run_id ORDER BY c.claim DESC LIMIT 1) \
                   FROM runs AS r JOIN trials AS t ON t.identity = r.identity \
                   JOIN experiment_trials AS p ON p.identity = r.identity AND p.experiment_id = coalesce(r.experiment_id, \
                       (SELECT min(o.experiment_id) FROM experiment_trials AS o WHERE o.identity = r.identity)) \
                   JOIN experiments AS e ON e.experiment_id = p.experiment_id \
                   WHERE r.run_id = ?1";
        let table = store.query(sql, &[Value::Integer(id)])?;
        let row = table.rows.into_iter().next().with_context(|| format!("no run {id}: see `pipeline query trials`"))?;
        let [experiment, label, canonical, file, toml, fingerprint, checkpoint, status, config] =
            <[String; 9]>::try_from(row.iter().map(ToString::to_string).collect::<Vec<_>>())
                .expect("nine columns were asked for");
        // The recorded path is relative to the folder that it was trained from; the weights move with the database.
        let beside = runner::run_folder(db, RunId(id)).join("weights.safetensors");
        let weights = if beside.exists() { beside } else { checkpoint.into() };
        let file = file.into();
        Ok(Self { id, experiment, label, canonical, file, toml, fingerprint, weights, status, config })
    }

    /// Its settings, from the canonical form, with overrides; the path of its data as it was when it was trained.
    pub fn settings(&self, overrides: &[String]) -> anyhow::Result<Settings> {
        let document: serde_json::Value = serde_json::from_str(&self.canonical)?;
        // As overrides of an empty file, so that what is typed now is checked together with them.
        let mut all = Vec::new();
        for section in ["dataset", "augment", "model"] {
            let keys = document[section].as_object().into_iter().flatten();
            all.extend(
                keys.filter(|(_, value)| !value.is_null()).map(|(key, value)| format!("{section}.{key}={value}")),
            );
        }
        all.extend(self.path());
        all.extend(overrides.iter().cloned());
        let experiment = Experiment::parse("", &self.file, &all)?;
        experiment.trials().into_iter().next().map(|trial| trial.settings).context("the overrides leave no trial")
    }

    /// Its trial, to be trained again: the path of its data and of its initial weights, which are no part of it, from overrides, else as
    /// they were.
    pub fn trial(&self, overrides: &[String]) -> anyhow::Result<plan::Trial> {
        let document: serde_json::Value = serde_json::from_str(&self.canonical)?;
        let seed = document["seed"].as_u64().context("a trial's canonical form has a seed")?;
        let (weights, data): (Vec<String>, Vec<String>) =
            overrides.iter().cloned().partition(|text| text.starts_with("train.initial_weights="));
        if let Some(other) = data.iter().find(|text| !text.starts_with("dataset.path=")) {
            anyhow::bail!(
                "{other}: only dataset.path and train.initial_weights may be given: anything else would be another trial"
            );
        }
        let mut settings = self.canonical_settings()?;
        settings.dataset.path = self.settings(&data)?.dataset.path;
        let mut trial =
            plan::Trial { variant: None, seed, settings, assignments: Vec::new(), initial_weights_hash: None };
        if trial.settings.train.initial_weights.is_some() {
            let words = provenance::split(&self.config).into_iter().chain(weights);
            let path = words.rev().find_map(|word| Some(word.strip_prefix("train.initial_weights=")?.to_owned()));
            let written = || {
                let trials = Experiment::parse(&self.toml, &self.file, &[]).ok()?.trials();
                trials.into_iter().find_map(|trial| trial.settings.train.initial_weights)
            };
            let path = path.map(PathBuf::from).or_else(written);
            trial.settings.train.initial_weights =
                Some(path.context("where are its initial weights? give train.initial_weights=FILE")?);
            ::train::note_initial_weights(&mut trial)?;
        }
        Ok(trial)
    }

    /// Its settings as the canonical form has them, without the path of its data.
    pub fn canonical_settings(&self) -> anyhow::Result<Settings> {
        let mut document: serde_json::Value = serde_json::from_str(&self.canonical)?;
        document.as_object_mut().context("a trial's canonical form is an object")?.remove("seed");
        Ok(serde_json::from_value(document)?)
    }

    /// Where its data was, as an override: from the command line that trained it, else from the experiment file.
    fn path(&self) -> Option<String> {
        let typed = provenance::split(&self.config).into_iter().rfind(|word| word.starts_with("dataset.path="));
        let written = || {
            let experiment = Experiment::parse(&self.toml, &self.file, &[]).ok()?;
            let path = experiment.trials().into_iter().find_map(|trial| trial.settings.dataset.path)?;
            Some(format!("dataset.path={}", serde_json::json!(path)))
        };
        typed.or_else(written)
    }
}

/// A trained network.
#[derive(Clone, Debug)]
pub enum Trained {
    /// Of the database.
    Run(Box<Run>),
    /// A weights file of this program.
    File(PathBuf),
}

impl Trained {
    /// The run with this number, or the weights file at this path.
    pub fn find(text: &str, global: &Global) -> anyhow::Result<Self> {
        match text.parse() {
            Ok(id) => Ok(Self::Run(Box::new(Run::find(&Store::open_read_only(&global.db)?, id, &global.db)?))),
            Err(_) if Path::new(text).exists() => Ok(Self::File(text.into())),
            Err(_) => {
                anyhow::bail!("{text}: neither the number of a run (see `pipeline query trials`) nor a weights file")
            }
        }
    }

    /// The file of its weights.
    pub fn weights(&self) -> &Path {
        match self {
            Self::Run(run) => &run.weights,
            Self::File(path) => path,
        }
    }
}
