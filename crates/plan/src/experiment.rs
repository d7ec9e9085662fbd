//! An experiment file, read and checked, and the trials it describes.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use serde_json::Value as Json;

use crate::document::{self, Entry, Node, Place, Table, Value, quoted};
use crate::overrides::{self, OverrideError, SECTIONS};
use crate::search::{SweepError, SweepNodes, overlap};
use crate::searching::Search;
use crate::space::{ParameterNodes, Sampler};
use crate::trial::canonical_text;
use crate::{Location, PlanError, Policy, Settings, Sweep, Trial, Violation, deserialize, suggest};

/// Most trials of one experiment.
pub const MAX_TRIALS: usize = 100_000;

/// Keys at the top of an experiment file.
const TOP: [&str; 9] = ["name", "question", "seeds", "dataset", "augment", "model", "train", "sweep", "variants"];

/// An experiment file with everything checked that can be checked without the data.
#[derive(Clone, Debug)]
pub struct Experiment {
    /// `name`, by default the file's name without its extension.
    pub name: String,
    /// `question`: what the experiment is to find out.
    pub question: String,
    /// `seeds`: a list, or a count n that stands for 1 … n. Default: 1.
    pub seeds: Vec<u64>,
    /// Settings that all trials start from.
    pub settings: Settings,
    /// `[variants.NAME]`, in the order of the file.
    pub variants: Vec<Variant>,
    /// `[sweep]`.
    pub sweep: Sweep,
    /// `[sweep.sampler]`.
    pub sampler: Option<Sampler>,
    /// The other keys of `[sweep]`: how it is run.
    pub policy: Policy,
    /// Searches that decide configurations while the sweep runs: one for each variant with `kind = "tpe"`, none otherwise.
    pub searches: Vec<Search>,
    configurations: Vec<Configuration>,
}

/// `[variants.NAME]`: a bundle of settings that are compared as one.
#[derive(Clone, Debug, PartialEq)]
pub struct Variant {
    /// NAME.
    pub name: String,
    /// The experiment's settings with the variant's laid over them.
    pub settings: Settings,
    /// `[variants.NAME.sweep]`: axes of this variant alone; one with the key of a common axis takes its place.
    pub sweep: Sweep,
}

/// A trial without its seed.
#[derive(Clone, Debug)]
pub(crate) struct Configuration {
    variant: Option<String>,
    settings: Settings,
    assignments: Vec<(String, Json)>,
}

impl Experiment {
    /// Reads an experiment file, lays `key=value` (or `~key`) overrides over it, and checks it and every trial of it.
    ///
    /// # Errors
    /// The file cannot be read, or anything in it or in the overrides is wrong.
    pub fn load(path: &Path, overrides: &[String]) -> Result<Self, PlanError> {
        let bytes = std::fs::read(path).map_err(|source| PlanError::Read { path: path.to_owned(), source })?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let line =
                1 + error.as_bytes()[..error.utf8_error().valid_up_to()].iter().filter(|byte| **byte == b'\n').count();
            PlanError::Syntax {
                location: Location::File { path: path.to_owned(), line: u32::try_from(line).ok() },
                message: "is not UTF-8 text".to_owned(),
            }
        })?;
        Self::parse(&text, path, overrides)
    }

    /// The same from a text; `path` serves messages and the default name.
    ///
    /// # Errors
    /// Anything in the text or in the overrides is wrong.
    pub fn parse(text: &str, path: impl AsRef<Path>, overrides: &[String]) -> Result<Self, PlanError> {
        let reader = FileReader { path: path.as_ref().to_owned() };
        let mut root = document::parse(text).map_err(|error| PlanError::Syntax {
            location: reader.location(Some(Place::Line(error.line))),
            message: error.message,
        })?;
        let twice = |(key, place): (String, Place)| reader.fail(Some(place), key, "stands twice".to_owned());
        overrides::flatten_sweeps(&mut root).map_err(twice)?;
        for text in overrides {
            overrides::apply(&mut root, text).map_err(|error| match error {
                OverrideError::Syntax(message) => PlanError::Syntax { location: Location::CommandLine, message },
                OverrideError::Key(key, message) => PlanError::Key { location: Location::CommandLine, key, message },
            })?;
        }
        overrides::flatten_sweeps(&mut root).map_err(twice)?;
        reader.experiment(&root)
    }

    /// The trials in their order: variants, then the grid (its first key changes slowest), then lists that move together and what a
    /// sampler draws, then seeds.
    pub fn trials(&self) -> Vec<Trial> {
        self.configurations.iter().flat_map(|configuration| configuration.trials(&self.seeds)).collect()
    }
}

impl Configuration {
    /// With resolved settings; `keys` are those that are varied.
    pub(crate) fn new<'a>(variant: Option<String>, settings: Settings, keys: impl Iterator<Item = &'a str>) -> Self {
        let path = |key: &str| key.split('.').map(str::to_owned).collect::<Vec<_>>();
        let assignments = keys.map(|key| (key.to_owned(), assigned(&settings, &path(key)))).collect();
        Self { variant, settings, assignments }
    }

    pub(crate) fn trials(&self, seeds: &[u64]) -> Vec<Trial> {
        let trial = |seed: &u64| Trial {
            variant: self.variant.clone(),
            seed: *seed,
            settings: self.settings.clone(),
            assignments: self.assignments.clone(),
            initial_weights_hash: None,
        };
        seeds.iter().map(trial).collect()
    }
}

/// A variant, or the experiment itself where there are none, on the way to its configurations.
pub(crate) struct Branch<'a> {
    pub variant: Option<&'a Entry>,
    /// Where errors in `own` and `own_sweep` stand: empty, or `variants.NAME.`.
    pub(crate) prefix: String,
    own: Table,
    pub(crate) merged: Table,
    pub(crate) own_sweep: SweepNodes,
    pub sweep: SweepNodes,
}

/// Reads one file and words its errors.
pub(crate) struct FileReader {
    path: PathBuf,
}

impl FileReader {
    fn location(&self, place: Option<Place>) -> Location {
        match place {
            Some(Place::CommandLine) => Location::CommandLine,
            Some(Place::Line(line)) => Location::File { path: self.path.clone(), line: Some(line) },
            None => Location::File { path: self.path.clone(), line: None },
        }
    }

    pub(crate) fn fail(&self, place: Option<Place>, key: impl Into<String>, message: impl Into<String>) -> PlanError {
        PlanError::Key { location: self.location(place), key: key.into(), message: message.into() }
    }

    fn sweep_error(&self, prefix: &str, error: SweepError) -> PlanError {
        self.fail(Some(error.place), format!("{prefix}{}", error.key), error.message)
    }

    fn experiment(&self, root: &Table) -> Result<Experiment, PlanError> {
        if let Some(entry) = root.entries.iter().find(|entry| !TOP.contains(&entry.key.as_str())) {
            return Err(self.fail(
                Some(entry.place),
                quoted(&entry.key),
                suggest::unknown_key(std::slice::from_ref(&entry.key), &TOP),
            ));
        }
        let name = self.name(root)?;
        let question = match root.entry("question") {
            Some(entry) => self.read(&entry.node, "question")?,
            None => String::new(),
        };
        let seeds = self.seeds(root)?;
        let base = sections(root);
        let settings = self.settings(&base, "")?;
        let sweep = match root.get("sweep") {
            Some(node) => SweepNodes::read(node, false).map_err(|error| self.sweep_error("", error))?,
            None => SweepNodes::default(),
        };
        let sampler = self.sampler(root)?;
        self.check_axes(&sweep, "")?;
        let mut branches = self.branches(root, &base, &sweep)?;
        for branch in &mut branches {
            let has_variants = branch.variant.is_some();
            self.settle_conditions(branch, has_variants)?;
        }
        self.check_spaces(root, sampler.as_ref(), &branches)?;
        let mut spaces = Vec::new();
        if let Some(sampler) = &sampler {
            for branch in &mut branches {
                spaces.push(branch.sweep.space.clone());
                branch.sweep = std::mem::take(&mut branch.sweep).drawn(sampler);
            }
        }
        self.check_count(root, &branches, seeds.len())?;

        let mut experiment = Experiment {
            name,
            question,
            seeds,
            settings,
            variants: Vec::new(),
            sweep: sweep.public(),
            sampler,
            policy: Policy::default(),
            searches: Vec::new(),
            configurations: Vec::new(),
        };
        let mut seen = HashMap::new();
        for branch in &branches {
            if let Some(entry) = branch.variant {
                let settings = self.settings(&branch.merged, "")?;
                experiment.variants.push(Variant {
                    name: entry.key.clone(),
                    settings,
                    sweep: branch.own_sweep.public(),
                });
            }
            self.configurations(branch, &base, &mut experiment.configurations, &mut seen)?;
        }
        if experiment.is_searching() {
            for (branch, space) in branches.iter().zip(spaces) {
                experiment.searches.push(self.search(branch, &base, space)?);
            }
        }
        let settings = experiment.configurations.iter().map(|configuration| &configuration.settings);
        experiment.policy = self.policy(root, settings.clone())?;
        self.check_searches(root, &experiment, settings)?;
        Ok(experiment)
    }

    fn name(&self, root: &Table) -> Result<String, PlanError> {
        let (name, place) = match root.entry("name") {
            Some(entry) => (self.read::<String>(&entry.node, "name")?, Some(entry.node.place)),
            None => (self.path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default(), None),
        };
        if is_name(&name) {
            return Ok(name);
        }
        let message =
            format!("must be letters, digits, `-`, `_` and `.`, and begin with a letter or a digit, got \"{name}\"");
        Err(self.fail(place, "name", message))
    }

    fn seeds(&self, root: &Table) -> Result<Vec<u64>, PlanError> {
        let Some(Entry { node, .. }) = root.entry("seeds") else { return Ok(vec![1]) };
        let refuse = |place, message: String| Err(self.fail(Some(place), "seeds", message));
        match &node.value {
            Value::Integer(count) if *count >= 1 => match u64::try_from(*count) {
                Ok(count) if count <= MAX_TRIALS as u64 => Ok((1..=count).collect()),
                _ => refuse(
                    node.place,
                    format!(
                        "a count of seeds must be at most {MAX_TRIALS}, got {count}; a list of one is written [{count}]"
                    ),
                ),
            },
            Value::Integer(count) => refuse(
                node.place,
                format!("a count of seeds must be ≥ 1, got {count}; a list of one is written [{count}]"),
            ),
            Value::Array(items) if items.is_empty() => {
                refuse(node.place, "the list is empty: give it at least one seed".to_owned())
            }
            Value::Array(items) => {
                let seeds: Vec<u64> = self.read(node, "seeds")?;
                let mut seen = HashSet::new();
                match seeds.iter().position(|seed| !seen.insert(*seed)) {
                    Some(index) => refuse(items[index].place, format!("{} stands twice in the list", seeds[index])),
                    None => Ok(seeds),
                }
            }
            _ => refuse(node.place, format!("must be a list of whole numbers ≥ 0 or a count, got {node}")),
        }
    }

    fn read<T: serde::de::DeserializeOwned>(&self, node: &Node, key: &str) -> Result<T, PlanError> {
        deserialize::read(node).map_err(|error| {
            let message = error.message();
            self.fail(error.place.or(Some(node.place)), format!("{key}{}", error.path.concat()), message)
        })
    }

    /// Reads the four sections and checks each key by itself.
    pub(crate) fn settings(&self, table: &Table, prefix: &str) -> Result<Settings, PlanError> {
        let settings: Settings = deserialize::read_table(table).map_err(|error| {
            let message = error.message();
            self.fail(error.place, format!("{prefix}{}", error.path.join(".")), message)
        })?;
        settings.validate_ranges().map_err(|Violation { key, message }| {
            self.fail(place_of(table, &key), format!("{prefix}{key}"), message)
        })?;
        Ok(settings)
    }

    /// Checks each value of each axis by itself.
    fn check_axes(&self, sweep: &SweepNodes, prefix: &str) -> Result<(), PlanError> {
        for axis in sweep.axes() {
            // A key inside the schedule has a meaning only together with the schedule's kind, which the variant may set: left to the trials.
            if axis.path.len() > 2 {
                continue;
            }
            for (index, value) in axis.values.iter().enumerate() {
                let written = format!("{prefix}{}[{index}]", axis.written);
                let mut table = Table::default();
                table
                    .set(&axis.path, value.clone())
                    .map_err(|_| self.fail(Some(value.place), &written, "cannot be set"))?;
                deserialize::read_table::<Settings>(&table)
                    .map_err(|error| {
                        let inner = error.path.get(axis.path.len()..).unwrap_or_default();
                        let below = inner.iter().fold(String::new(), |below, key| format!("{below}.{key}"));
                        (below, error.place, error.message())
                    })
                    .and_then(|settings| {
                        settings.validate_ranges().map_err(|Violation { key, message }| {
                            let below = key.strip_prefix(&axis.key).unwrap_or_default();
                            (below.to_owned(), None, message)
                        })
                    })
                    .map_err(|(below, place, message)| {
                        self.fail(place.or(Some(value.place)), format!("{written}{below}"), message)
                    })?;
            }
        }
        Ok(())
    }

    fn branches<'a>(&self, root: &'a Table, base: &Table, sweep: &SweepNodes) -> Result<Vec<Branch<'a>>, PlanError> {
        let alone = || Branch {
            variant: None,
            prefix: String::new(),
            own: Table::default(),
            merged: base.clone(),
            own_sweep: SweepNodes::default(),
            sweep: sweep.clone(),
        };
        let Some(entry) = root.entry("variants") else { return Ok(vec![alone()]) };
        let Some(table) = entry.node.as_table() else {
            return Err(self.fail(
                Some(entry.node.place),
                "variants",
                format!("must be a table of variants, got {}", entry.node),
            ));
        };
        if table.entries.is_empty() {
            return Ok(vec![alone()]);
        }
        table.entries.iter().map(|variant| self.branch(variant, base, sweep)).collect()
    }

    fn branch<'a>(&self, variant: &'a Entry, base: &Table, sweep: &SweepNodes) -> Result<Branch<'a>, PlanError> {
        let key = format!("variants.{}", quoted(&variant.key));
        let prefix = format!("{key}.");
        if !is_name(&variant.key) {
            let message =
                "a variant's name must be letters, digits, `-`, `_` and `.`, and begin with a letter or a digit";
            return Err(self.fail(Some(variant.place), key, message));
        }
        let Some(table) = variant.node.as_table() else {
            return Err(self.fail(
                Some(variant.node.place),
                key,
                format!("must be a table of settings, got {}", variant.node),
            ));
        };
        let own = sections(table);
        if let Some(entry) =
            table.entries.iter().find(|entry| entry.key != "sweep" && !SECTIONS.contains(&entry.key.as_str()))
        {
            let siblings = ["dataset", "augment", "model", "train", "sweep"];
            let message = suggest::unknown_key(std::slice::from_ref(&entry.key), &siblings);
            return Err(self.fail(Some(entry.place), format!("{prefix}{}", quoted(&entry.key)), message));
        }
        self.settings(&own, &prefix)?;
        let own_sweep = match table.get("sweep") {
            Some(node) => SweepNodes::read(node, true).map_err(|error| self.sweep_error(&prefix, error))?,
            None => SweepNodes::default(),
        };
        let merged = base.overlaid(&own);
        self.check_axes(&own_sweep, &prefix)?;
        let sweep = sweep.overlaid(&own_sweep).map_err(|error| self.sweep_error(&prefix, error))?;
        for axis in sweep.axes() {
            // Setting a whole schedule and sweeping one of its keys is sound: the key is set last.
            let whole_schedule = axis.path.len() > 2 && own.entry_at(&axis.path).is_none();
            if let Some(entry) = own.entry_at(&axis.path[..2]).filter(|_| !whole_schedule) {
                let message = format!(
                    "is swept by {} too, which would take its place; to give the variant values of its own, write [{key}.sweep.grid] {} = [{}]",
                    axis.written,
                    quoted(&axis.key),
                    entry.node
                );
                return Err(self.fail(Some(entry.place), format!("{prefix}{}", axis.key), message));
            }
        }
        Ok(Branch { variant: Some(variant), prefix, own, merged, own_sweep, sweep })
    }

    fn check_count(&self, root: &Table, branches: &[Branch<'_>], seeds: usize) -> Result<(), PlanError> {
        let configurations = branches
            .iter()
            .map(|branch| branch.sweep.combinations())
            .try_fold(0_usize, |sum, combinations| sum.checked_add(combinations?));
        let trials = configurations.and_then(|configurations| configurations.checked_mul(seeds));
        if trials.is_some_and(|trials| trials <= MAX_TRIALS) {
            return Ok(());
        }
        let number =
            trials.map_or_else(|| "more trials than can be counted".to_owned(), |trials| format!("{trials} trials"));
        let key = if root.entry("sweep").is_some() || branches.len() > 1 { "sweep" } else { "seeds" };
        let message =
            format!("{number}, of which {seeds} per configuration for the seeds; at most {MAX_TRIALS} are allowed");
        Err(self.fail(root.entry(key).map(|entry| entry.place), key, message))
    }

    /// Lists a branch's configurations and checks each.
    fn configurations(
        &self,
        branch: &Branch<'_>,
        base: &Table,
        configurations: &mut Vec<Configuration>,
        seen: &mut HashMap<blake3::Hash, usize>,
    ) -> Result<(), PlanError> {
        for position in 0..branch.sweep.combinations().unwrap_or(0) {
            let (combination, is_partial) = branch.sweep.combination(position);
            let configuration = self.configuration(branch, base, &combination)?;
            let hash = blake3::hash(canonical_text(&configuration.settings).as_bytes());
            if is_partial && seen.contains_key(&hash) {
                // It differs from an earlier one in keys that do not exist in either.
                continue;
            }
            if let Some(first) = seen.insert(hash, configurations.len()) {
                let label = |configuration: &Configuration| {
                    let Configuration { variant, settings, assignments } = configuration.clone();
                    Trial { variant, seed: 0, settings, assignments, initial_weights_hash: None }.configuration_label()
                };
                let (first, second) = (label(&configurations[first]), label(&configuration));
                let message = if first == second {
                    format!("gives `{first}` twice")
                } else {
                    format!("gives the same trial twice, as `{first}` and as `{second}`: leave one out")
                };
                let (key, place) = match (branch.variant, combination.first()) {
                    (Some(variant), _) => (branch.prefix.trim_end_matches('.').to_owned(), Some(variant.place)),
                    (None, Some((axis, _))) => (axis.written.clone(), Some(axis.place)),
                    (None, None) => ("sweep".to_owned(), None),
                };
                return Err(self.fail(place, key, message));
            }
            configurations.push(configuration);
        }
        Ok(())
    }

    /// One configuration of a branch, checked.
    fn configuration(
        &self,
        branch: &Branch<'_>,
        base: &Table,
        combination: &[(&crate::search::AxisNodes, usize)],
    ) -> Result<Configuration, PlanError> {
        let mut table = branch.merged.clone();
        for (axis, index) in combination {
            let value = &axis.values[*index];
            table.set(&axis.path, value.clone()).map_err(|at| {
                let message = format!("cannot be set, because `{}` is not a table", document::dotted(&at));
                self.fail(Some(axis.place), &axis.written, message)
            })?;
        }
        let of_trial = |key: String, place: Option<Place>, message: String| {
            self.trial_error(branch, base, combination, &key, place, message)
        };
        let settings: Settings = deserialize::read_table(&table)
            .map_err(|error| of_trial(error.path.join("."), error.place, error.message()))?;
        settings
            .validate()
            .map_err(|Violation { key, message }| of_trial(key.clone(), place_of(&table, &key), message))?;
        let keys = combination.iter().map(|(axis, _)| axis.key.as_str());
        Ok(Configuration::new(branch.variant.map(|variant| variant.key.clone()), settings.resolved(), keys))
    }

    /// The search of a branch. Where the space has few corners, all of them are checked: what goes together there goes together between
    /// them.
    fn search(&self, branch: &Branch<'_>, base: &Table, space: Vec<ParameterNodes>) -> Result<Search, PlanError> {
        const MOST_CORNERS: usize = 1024;
        if let Some(parameter) = space.iter().find(|parameter| parameter.axis.path[0] == "dataset") {
            let message = "cannot be searched by results: those on other images do not compare; write it as a grid with another sampler";
            return Err(self.fail(Some(parameter.axis.place), &parameter.axis.written, message));
        }
        let corners = SweepNodes {
            grid: space.iter().map(|parameter| parameter.axis.clone()).collect(),
            ..SweepNodes::default()
        };
        for position in 0..corners.combinations().unwrap_or(usize::MAX).min(MOST_CORNERS) {
            self.configuration(branch, base, &corners.combination(position).0)?;
        }
        let drawn = branch.sweep.zip.last().map(Vec::as_slice).unwrap_or_default();
        let count = drawn.first().map_or(0, |axis| axis.values.len());
        let point = |index: usize| {
            let values: Vec<Json> = drawn.iter().map(|axis| crate::search::json(&axis.values[index])).collect();
            crate::space::existing(&space, &values)
        };
        let startup = (0..count).map(point).collect();
        Ok(Search {
            variant: branch.variant.map(|variant| variant.key.clone()),
            space: SweepNodes { space, ..SweepNodes::default() }.public().space,
            startup,
            merged: branch.merged.clone(),
        })
    }

    /// Words a fault that shows only in a trial: names the key where it was written, be it the sweep, the variant or the base.
    fn trial_error(
        &self,
        branch: &Branch<'_>,
        base: &Table,
        combination: &[(&crate::search::AxisNodes, usize)],
        key: &str,
        place: Option<Place>,
        message: String,
    ) -> PlanError {
        let path: Vec<String> = key.split('.').map(str::to_owned).collect();
        let swept = combination.iter().find(|(axis, _)| overlap(&axis.path, &path));
        let written = match swept {
            Some((axis, index)) => {
                let own = branch.own_sweep.axes().any(|other| other.key == axis.key);
                format!("{}{}[{index}]", if own { branch.prefix.as_str() } else { "" }, axis.written)
            }
            None if branch.own.entry_at(&path).is_some() => format!("{}{key}", branch.prefix),
            None => key.to_owned(),
        };
        let place = swept.map(|(axis, index)| axis.values[*index].place).or(place).or_else(|| place_of(base, key));
        let context = match (branch.variant, combination) {
            (None, []) => String::new(),
            (variant, combination) => {
                let values = combination.iter().map(|(axis, index)| format!("{}={}", axis.key, axis.values[*index]));
                let parts: Vec<String> = variant.map(|variant| variant.key.clone()).into_iter().chain(values).collect();
                format!(" (in trial {})", parts.join(" "))
            }
        };
        self.fail(place, written, format!("{message}{context}"))
    }
}

/// The four sections of settings out of a table.
fn sections(table: &Table) -> Table {
    Table { entries: table.entries.iter().filter(|entry| SECTIONS.contains(&entry.key.as_str())).cloned().collect() }
}

/// Where a key such as `train.schedule.steps[1].epochs` was written, or else the nearest value around it; nothing if not even the
/// setting is there, as the section's line would say little.
fn place_of(table: &Table, key: &str) -> Option<Place> {
    let mut place = None;
    let mut level = Some(table);
    for (depth, part) in key.split('.').enumerate() {
        let (name, index) = part.strip_suffix(']').and_then(|part| part.split_once('[')).unwrap_or((part, ""));
        let Some(entry) = level.and_then(|table| table.entry(name)) else { break };
        let item = index.parse().ok().and_then(|index: usize| entry.node.as_array()?.get(index));
        let node = item.unwrap_or(&entry.node);
        if depth > 0 {
            place = Some(node.place);
        }
        level = node.as_table();
    }
    place
}

/// The value that a trial has at a swept key: typed, so that 0 and 0.0 are one; a schedule in its short form.
pub(crate) fn assigned(settings: &Settings, path: &[String]) -> Json {
    if path.len() == 2 && path[1] == "schedule" {
        return settings.train.schedule.to_string().into();
    }
    let document = serde_json::to_value(settings).unwrap_or_default();
    let value = document.pointer(&format!("/{}", path.join("/"))).cloned();
    // Lists are left out of the canonical form where they are empty.
    let absent = match path.join(".").as_str() {
        "train.freeze" | "train.initial_weights_skip" => Json::Array(Vec::new()),
        _ => Json::Null,
    };
    value.unwrap_or(absent)
}

/// Whether a text can name an experiment or a variant: it becomes part of file names.
fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_alphanumeric())
        && name.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | '.'))
}
