//! Searches whose configurations are decided while the sweep runs.

use serde_json::{Value as Json, json};

use crate::document::{Node, Place, Table};
use crate::experiment::Configuration;
use crate::space::from_json;
use crate::trial::hash;
use crate::{Distribution, Experiment, Parameter, Settings, Trial, Violation, deserialize};

/// A search over the space of one variant, or of the experiment where there are none.
#[derive(Clone, Debug)]
pub struct Search {
    /// The variant.
    pub variant: Option<String>,
    /// What its configurations are chosen from.
    pub space: Vec<Parameter>,
    /// The points that the plan has decided, each with one value for each key, null where the key does not exist; their configurations come first among the variant's.
    pub startup: Vec<Vec<Json>>,
    /// The settings that the values are laid over.
    pub(crate) merged: Table,
}

impl Experiment {
    /// The trials of a point of a search, one for each seed.
    ///
    /// # Errors
    /// Values that do not go together.
    pub fn suggested(&self, search: &Search, point: &[Json]) -> Result<Vec<Trial>, Violation> {
        let mut table = search.merged.clone();
        let existing = || search.space.iter().zip(point).filter(|(_, value)| !value.is_null());
        for (parameter, value) in existing() {
            let path: Vec<String> = parameter.key.split('.').map(str::to_owned).collect();
            // The place serves messages about files, of which there are none here.
            let place = Place::CommandLine;
            table
                .set(&path, Node::new(from_json(value.clone(), place), place))
                .map_err(|_| Violation { key: parameter.key.clone(), message: "cannot be set".to_owned() })?;
        }
        let settings: Settings = deserialize::read_table(&table)
            .map_err(|error| Violation { key: error.path.join("."), message: error.message() })?;
        settings.validate()?;
        let settings = settings.resolved();
        let keys = existing().map(|(parameter, _)| parameter.key.as_str());
        Ok(Configuration::new(search.variant.clone(), settings, keys).trials(&self.seeds))
    }

    /// What a search is, as a hash: equal where the same history leads to the same next point. How many configurations are asked for is
    /// no part of it, so that a search can be prolonged. `startup` are the identities of the configurations that the plan has decided.
    pub fn search_identity(&self, search: &Search, startup: &[String]) -> String {
        let described = |key: &Parameter| match key.when.is_empty() {
            true => json!([key.key, described(&key.distribution)]),
            false => json!([key.key, described(&key.distribution), key.when]),
        };
        let space: Vec<Json> = search.space.iter().map(described).collect();
        let sampler = self.sampler.as_ref().map_or(json!(null), |sampler| json!([sampler.kind.name(), sampler.seed]));
        let mut objective = json!(self.policy.objective.name());
        if !self.policy.other_objectives.is_empty() {
            objective = self.policy.objectives().into_iter().map(|objective| json!(objective.name())).collect();
        }
        let what = json!([search.variant, space, sampler, objective, self.seeds]);
        hash("search", &what.to_string(), &startup.join(" "))
    }

    /// Whether configurations are decided while the sweep runs.
    pub fn is_searching(&self) -> bool {
        self.sampler.as_ref().is_some_and(|sampler| sampler.kind.is_search())
    }
}

fn described(distribution: &Distribution) -> Json {
    match (distribution.name(), distribution.ends()) {
        (name @ "choice", values) => json!([name, values]),
        (name, ends) => std::iter::once(name.into()).chain(ends).collect(),
    }
}
