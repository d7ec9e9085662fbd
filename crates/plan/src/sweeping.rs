//! `[sweep.sampler]`, `[sweep.pruner]` and the other keys of `[sweep]` that say how it is run, and what they must find beside them.

use serde::de::DeserializeOwned;

use crate::document::{Entry, Node, Place, Table, quoted};
use crate::experiment::{Branch, FileReader};
use crate::policy::{Objective, Policy, Written};
use crate::space::{self, Distribution, ParameterNodes, Sampler, SamplerKind};
use crate::{Experiment, MAX_TRIALS, PlanError, Settings, deserialize};

/// Most retries of a trial in one sweep.
const MOST_RETRIES: u32 = 100;

/// Why this objective does not come first.
fn alone(objective: Objective) -> String {
    let name = objective.name();
    format!(
        "the first objective must be validation_loss or validation_top1, such as [\"validation_top1\", \"{name}\"], got \"{name}\""
    )
}

/// A key of the experiment's own `[sweep]`.
fn entry<'a>(root: &'a Table, key: &str) -> Option<&'a Entry> {
    root.get("sweep")?.as_table()?.entry(key)
}

/// Where a key of a table in `[sweep]` stands, or else the table.
fn place(table: &Entry, key: &str) -> Place {
    table.node.as_table().and_then(|table| table.get(key)).map_or(table.node.place, |node| node.place)
}

impl FileReader {
    /// Reads a value below `[sweep]`; a message for a table that is none says what it should hold.
    fn read_sweep<T: DeserializeOwned>(&self, node: &Node, key: &str, form: &str) -> Result<T, PlanError> {
        if !form.is_empty() && node.as_table().is_none() {
            return Err(self.fail(Some(node.place), format!("sweep.{key}"), format!("must be {form}, got {node}")));
        }
        deserialize::read(node).map_err(|error| {
            let below: String = error.path.iter().map(|key| format!(".{}", quoted(key))).collect();
            let message = error.message();
            self.fail(error.place.or(Some(node.place)), format!("sweep.{key}{below}"), message)
        })
    }

    pub(crate) fn sampler(&self, root: &Table) -> Result<Option<Sampler>, PlanError> {
        let Some(entry) = entry(root, "sampler") else { return Ok(None) };
        let form = "a table such as { kind = \"random\", configurations = 20 }";
        self.read_sweep(&entry.node, "sampler", form).map(Some)
    }

    /// Reads how the sweep is run, for trials of these settings.
    pub(crate) fn policy<'a>(
        &self,
        root: &Table,
        settings: impl Iterator<Item = &'a Settings> + Clone,
    ) -> Result<Policy, PlanError> {
        let value = |key: &str| entry(root, key).map(|entry| &entry.node);
        let mut policy = Policy::default();
        if let Some(node) = value("objective") {
            (policy.objective, policy.other_objectives) = self.objectives(node)?;
        }
        if let Some(node) = value("on_failure") {
            policy.on_failure = self.read_sweep(node, "on_failure", "")?;
        }
        if let Some(node) = value("retries") {
            policy.retries = self.read_sweep(node, "retries", "")?;
            if policy.retries > MOST_RETRIES {
                let message = format!("must be from 0 to {MOST_RETRIES}, got {}", policy.retries);
                return Err(self.fail(Some(node.place), "sweep.retries", message));
            }
        }
        for (key, minutes) in [("trial_minutes", &mut policy.trial_minutes), ("minutes", &mut policy.minutes)] {
            let Some(node) = value(key) else { continue };
            let given: f64 = self.read_sweep(node, key, "")?;
            if !(given > 0.0 && given.is_finite()) {
                let message = format!("must be > 0, in minutes, got {given}");
                return Err(self.fail(Some(node.place), format!("sweep.{key}"), message));
            }
            *minutes = Some(given);
        }
        if let Some(entry) = entry(root, "pruner") {
            let fail =
                |key: &str, message: String| self.fail(Some(place(entry, key)), format!("sweep.pruner.{key}"), message);
            let form = "a table such as { kind = \"halving\" }";
            let written: Written = self.read_sweep(&entry.node, "pruner", form)?;
            self.needs_validation(&entry.node, "sweep.pruner", settings.clone())?;
            let mut epochs = settings.map(|settings| settings.train.epochs);
            let first = epochs.next().unwrap_or(0);
            if let Some(other) = epochs.find(|other| *other != first) {
                let message = format!(
                    "compares configurations after equal numbers of epochs, so all must have the same train.epochs; got {first} and {other}"
                );
                return Err(self.fail(Some(entry.place), "sweep.pruner", message));
            }
            if let [other, ..] = policy.other_objectives[..] {
                let message = format!(
                    "compares by one objective, and sweep.objective names others: leave out {}, or the pruner",
                    other.name()
                );
                return Err(self.fail(Some(entry.place), "sweep.pruner", message));
            }
            let pruner = written.checked(policy.objective, first).map_err(|(key, message)| fail(key, message))?;
            policy.pruner = Some(pruner);
        }
        Ok(policy)
    }

    /// One objective or a list.
    fn objectives(&self, node: &Node) -> Result<(Objective, Vec<Objective>), PlanError> {
        let fail = |place: Place, message: String| self.fail(Some(place), "sweep.objective", message);
        let Some(items) = node.as_array() else {
            let objective: Objective = self.read_sweep(node, "objective", "")?;
            return match objective.is_validation() {
                true => Ok((objective, Vec::new())),
                false => Err(fail(node.place, alone(objective))),
            };
        };
        let mut objectives: Vec<Objective> = Vec::new();
        for item in items {
            let objective: Objective = self.read_sweep(item, "objective", "")?;
            if objectives.contains(&objective) {
                return Err(fail(item.place, format!("{item} stands twice in the list")));
            }
            objectives.push(objective);
        }
        match objectives.split_first() {
            None => Err(fail(node.place, "the list is empty: name one or several objectives".to_owned())),
            Some((first, _)) if !first.is_validation() => Err(fail(items[0].place, alone(*first))),
            Some((first, others)) => Ok((*first, others.to_vec())),
        }
    }

    /// What a search by results needs beside what every sampler needs.
    pub(crate) fn check_searches<'a>(
        &self,
        root: &Table,
        experiment: &Experiment,
        settings: impl Iterator<Item = &'a Settings>,
    ) -> Result<(), PlanError> {
        let Some(entry) = entry(root, "sampler").filter(|_| experiment.is_searching()) else { return Ok(()) };
        self.needs_validation(&entry.node, "sweep.sampler", settings)?;
        let kind = experiment.sampler.as_ref().map(|sampler| sampler.kind);
        if let (Some(SamplerKind::CmaEs), [other, ..]) = (kind, &experiment.policy.other_objectives[..]) {
            let message = format!(
                "cma-es goes by one objective, and sweep.objective names others: leave out {}, or search by tpe",
                other.name()
            );
            return Err(self.fail(Some(place(entry, "kind")), "sweep.sampler.kind", message));
        }
        let is_epochs = |search: &crate::Search| search.space.iter().any(|key| key.key == "train.epochs");
        if experiment.policy.pruner.is_some() && experiment.searches.iter().any(is_epochs) {
            let message =
                "stands beside a pruner, which compares after equal numbers of epochs: leave one of the two out";
            return Err(self.fail(Some(entry.place), "sweep.space.\"train.epochs\"", message));
        }
        let configurations = experiment.sampler.as_ref().map_or(0, |sampler| sampler.configurations);
        let trials = configurations.saturating_mul(experiment.seeds.len()).saturating_mul(experiment.searches.len());
        if trials > MAX_TRIALS {
            let message = format!("{trials} trials with all seeds and variants; at most {MAX_TRIALS} are allowed");
            return Err(self.fail(Some(place(entry, "configurations")), "sweep.sampler.configurations", message));
        }
        Ok(())
    }

    /// What goes by validation results refuses trials without any.
    pub(crate) fn needs_validation<'a>(
        &self,
        node: &Node,
        key: &str,
        mut settings: impl Iterator<Item = &'a Settings>,
    ) -> Result<(), PlanError> {
        match settings.any(|settings| settings.dataset.validation_fraction == 0.0) {
            true => {
                let message = "goes by the validation part: dataset.validation_fraction must be above 0, got 0";
                Err(self.fail(Some(node.place), key, message))
            }
            false => Ok(()),
        }
    }

    /// A space needs a sampler and a sampler a space.
    pub(crate) fn check_spaces(
        &self,
        root: &Table,
        sampler: Option<&Sampler>,
        branches: &[Branch<'_>],
    ) -> Result<(), PlanError> {
        for branch in branches {
            let first = branch.sweep.space.first();
            match (sampler, first) {
                (None, None) => {}
                (None, Some(parameter)) => {
                    let message = "needs a sampler: write [sweep.sampler] with kind (random, sobol, tpe or cma-es) and configurations";
                    return Err(self.fail(Some(parameter.axis.place), "sweep.space", message));
                }
                (Some(_), None) => {
                    let of = branch.variant.map_or(String::new(), |variant| format!(" for variant {}", variant.key));
                    let message =
                        format!("has nothing to draw from{of}: write [sweep.space] with keys and their distributions");
                    return Err(self.fail(entry(root, "sampler").map(|entry| entry.place), "sweep.sampler", message));
                }
                (Some(sampler), Some(_)) => {
                    let fail = |key: &str, message: String| {
                        let place = entry(root, "sampler").map(|entry| place(entry, key));
                        self.fail(place, format!("sweep.sampler.{key}"), message)
                    };
                    space::check(sampler, &branch.sweep.space).map_err(|(key, message)| fail(key, message))?;
                    let beside = branch.sweep.grid.iter().chain(branch.sweep.zip.iter().flatten()).next();
                    if let Some(axis) = beside.filter(|_| sampler.kind.is_search()) {
                        let message = match sampler.kind {
                            SamplerKind::CmaEs => {
                                "stands beside a search by cma-es, which goes by [sweep.space] alone: write variants, or search by tpe"
                            }
                            _ => {
                                "stands beside a search by tpe, which goes by [sweep.space] alone: write it there, as { choice = [a, b] }"
                            }
                        };
                        return Err(self.fail(Some(axis.place), &axis.written, message));
                    }
                    let is_other = |parameter: &&ParameterNodes| {
                        matches!(parameter.distribution, Distribution::Choice(_)) || !parameter.axis.when.is_empty()
                    };
                    let other = branch.sweep.space.iter().find(is_other).map(|parameter| &parameter.axis);
                    if let Some(axis) = other.filter(|_| sampler.kind == SamplerKind::CmaEs) {
                        let message = "is no number that always exists, and cma-es searches by these alone: write variants, or search by tpe";
                        return Err(self.fail(Some(axis.place), &axis.written, message));
                    }
                }
            }
        }
        Ok(())
    }
}
