//! `[sweep.space]`: keys that are drawn from distributions, and `[sweep.sampler]`: how.

use std::collections::HashSet;

use serde::Deserialize;
use serde_json::Value as Json;

use crate::condition::{self, Condition};
use crate::document::{Entry, Node, Place, Table, Value, quoted};
use crate::search::{self, AxisNodes, SweepError};

/// A key and what its values are drawn from.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameter {
    /// Key path, such as `train.learning_rate`.
    pub key: String,
    /// What its values are drawn from.
    pub distribution: Distribution,
    /// It exists only where each of these keys of the space exists and has one of these values.
    pub when: Vec<(String, Vec<Json>)>,
}

impl Parameter {
    /// For each key of a space whether it exists where they have these values.
    pub fn exist(space: &[Self], values: &[Json]) -> Vec<bool> {
        let conditions: Vec<Vec<Condition>> = space
            .iter()
            .map(|parameter| {
                let of = |(key, values): &(String, Vec<Json>)| Condition {
                    key: key.clone(),
                    place: Place::CommandLine,
                    values: values.clone(),
                };
                parameter.when.iter().map(of).collect()
            })
            .collect();
        let keys: Vec<(&str, &[Condition])> =
            space.iter().zip(&conditions).map(|(parameter, when)| (parameter.key.as_str(), &when[..])).collect();
        condition::active(&keys, |key| space.iter().position(|other| other.key == key).and_then(|at| values.get(at)))
    }
}

/// A distribution of values. Both ends belong to it.
#[derive(Clone, Debug, PartialEq)]
pub enum Distribution {
    /// `{ uniform = [low, high] }`: real numbers, evenly.
    Uniform {
        /// Lower end.
        low: f64,
        /// Upper end.
        high: f64,
    },
    /// `{ log_uniform = [low, high] }`: real numbers whose logarithm is spread evenly.
    LogUniform {
        /// Lower end, above 0.
        low: f64,
        /// Upper end.
        high: f64,
    },
    /// `{ integer = [low, high] }`: whole numbers, evenly.
    Integer {
        /// Lower end.
        low: i64,
        /// Upper end.
        high: i64,
    },
    /// `{ log_integer = [low, high] }`: whole numbers, each as likely as the logarithm's interval that rounds to it is long.
    LogInteger {
        /// Lower end, at least 1.
        low: i64,
        /// Upper end.
        high: i64,
    },
    /// `{ choice = [a, b, …] }`: one of a list, evenly; the list has no order.
    Choice(Vec<Json>),
}

impl Distribution {
    /// The word for it in experiment files.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Uniform { .. } => "uniform",
            Self::LogUniform { .. } => "log_uniform",
            Self::Integer { .. } => "integer",
            Self::LogInteger { .. } => "log_integer",
            Self::Choice(_) => "choice",
        }
    }

    /// Lowest and highest value, or all choices.
    pub fn ends(&self) -> Vec<Json> {
        match self {
            Self::Uniform { low, high } | Self::LogUniform { low, high } => vec![(*low).into(), (*high).into()],
            Self::Integer { low, high } | Self::LogInteger { low, high } => vec![(*low).into(), (*high).into()],
            Self::Choice(values) => values.clone(),
        }
    }
}

/// How configurations are drawn from the space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SamplerKind {
    /// Independently (Bergstra and Bengio 2012, "Random search for hyper-parameter optimization").
    Random,
    /// A Sobol sequence with Owen scrambling (Burley 2020, "Practical hash-based Owen scrambling"): fills the space evenly.
    Sobol,
    /// `tpe`: by a tree-structured Parzen estimator, from the results so far. The plan decides the first few, at random; the others are
    /// decided while the sweep runs.
    Tpe,
    /// `cma-es`: by an evolution strategy, generation after generation. Numbers only.
    #[serde(rename = "cma-es")]
    CmaEs,
}

impl SamplerKind {
    /// Whether results decide.
    pub fn is_search(self) -> bool {
        matches!(self, Self::Tpe | Self::CmaEs)
    }

    /// The name in experiment files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::Sobol => "sobol",
            Self::Tpe => "tpe",
            Self::CmaEs => "cma-es",
        }
    }
}

/// `[sweep.sampler]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sampler {
    /// `kind`.
    pub kind: SamplerKind,
    /// `configurations`: how many are drawn, for each variant and each combination of the grid. Each is run with every seed.
    pub configurations: usize,
    /// `seed` of the search, apart from the trials' seeds. Default: 0.
    #[serde(default)]
    pub seed: u64,
    /// `startup_configurations` of tpe and cma-es: how many are drawn at random before any is chosen by results. Default: 10 for tpe, 1 for
    /// cma-es, or as many as there are.
    pub startup_configurations: Option<usize>,
}

impl Sampler {
    /// How many configurations the plan decides.
    pub fn planned(&self) -> usize {
        match self.kind {
            SamplerKind::Random | SamplerKind::Sobol => self.configurations,
            SamplerKind::Tpe => self.startup_configurations.unwrap_or(STARTUP).min(self.configurations),
            // The search needs none; the plan needs one to know what is searched.
            SamplerKind::CmaEs => self.startup_configurations.unwrap_or(1).min(self.configurations),
        }
    }
}

/// A parameter with the place of writing. The axis holds the ends, or the choices, so that they are checked as an axis' values are.
#[derive(Clone, Debug)]
pub(crate) struct ParameterNodes {
    pub axis: AxisNodes,
    pub distribution: Distribution,
}

/// Keys that make a table a distribution.
pub(crate) const DISTRIBUTIONS: [&str; 5] = ["uniform", "log_uniform", "integer", "log_integer", "choice"];
/// Most points of a Sobol sequence, and most draws of one search.
const MAX_CONFIGURATIONS: usize = 1 << 16;
/// Most configurations of a search by results, each of which is decided from all before.
const MAX_SEARCHED: usize = 10_000;
/// Configurations that are drawn before results decide.
const STARTUP: usize = 10;
/// Most keys of a Sobol sequence.
const MAX_SOBOL_DIMENSIONS: usize = sobol_burley::NUM_DIMENSIONS as usize;

/// Whether a table stands for a distribution.
pub(crate) fn is_distribution(table: &Table) -> bool {
    table.entries.iter().any(|entry| DISTRIBUTIONS.contains(&entry.key.as_str()))
}

/// Reads `[sweep.space]`.
pub(crate) fn parameters(node: &Node) -> Result<Vec<ParameterNodes>, SweepError> {
    let table = search::table_of(node, "sweep.space")?;
    if table.entries.is_empty() {
        let message =
            "is empty: name a key and a distribution, such as \"train.learning_rate\" = { log_uniform = [0.001, 0.1] }";
        return Err(SweepError { key: "sweep.space".to_owned(), place: node.place, message: message.to_owned() });
    }
    table.entries.iter().map(parameter).collect()
}

fn parameter(entry: &Entry) -> Result<ParameterNodes, SweepError> {
    let mut axis = search::empty_axis(entry, "sweep.space")?;
    let fail = |message: String| SweepError { key: axis.written.clone(), place: entry.node.place, message };
    let form = || {
        fail(format!(
            "must be one of {{ uniform = [low, high] }}, {{ log_uniform = [low, high] }}, {{ integer = [low, high] }}, \
             {{ log_integer = [low, high] }} and {{ choice = [a, b] }}, got {}",
            entry.node
        ))
    };
    let (table, when) = condition::split(entry.node.as_table().ok_or_else(form)?, &axis.written)?;
    let [written] = &table.entries[..] else { return Err(form()) };
    if written.key == "choice" {
        let items = written
            .node
            .as_array()
            .filter(|items| items.len() >= 2)
            .ok_or_else(|| fail(format!("choice must be a list of at least two values, got {}", written.node)))?;
        search::refuse_duplicates(items).map_err(|(place, message)| SweepError {
            key: axis.written.clone(),
            place,
            message,
        })?;
        (axis.values, axis.when) = (items.to_vec(), when);
        return Ok(ParameterNodes {
            axis,
            distribution: Distribution::Choice(items.iter().map(search::json).collect()),
        });
    }
    if !DISTRIBUTIONS.contains(&written.key.as_str()) {
        return Err(form());
    }
    let [low, high] = search::numbers(&table, &written.key, "[low, high]").map_err(fail)?;
    if low >= high {
        return Err(fail(format!("{} needs a low end below its high end, got {}", written.key, written.node)));
    }
    let whole = |message: &str| match low.fract() == 0.0 && high.fract() == 0.0 && low.abs().max(high.abs()) < 1e15 {
        true => Ok((low as i64, high as i64)),
        false => Err(fail(format!("{} {message}, got {}", written.key, written.node))),
    };
    let distribution = match written.key.as_str() {
        "uniform" => Distribution::Uniform { low, high },
        "log_uniform" if low <= 0.0 => {
            return Err(fail(format!("log_uniform needs ends above 0, got {}", written.node)));
        }
        "log_uniform" => Distribution::LogUniform { low, high },
        "integer" => whole("needs whole numbers").map(|(low, high)| Distribution::Integer { low, high })?,
        _ if low < 1.0 => return Err(fail(format!("log_integer needs ends of at least 1, got {}", written.node))),
        _ => whole("needs whole numbers").map(|(low, high)| Distribution::LogInteger { low, high })?,
    };
    axis.when = when;
    axis.values = [low, high].map(|value| Node::new(search::number(value), entry.node.place)).into();
    Ok(ParameterNodes { axis, distribution })
}

impl Distribution {
    /// The value at a place in [0, 1) of the cumulative distribution. Real numbers have six significant digits, so that what a label
    /// shows is what is run.
    pub fn at(&self, unit: f64) -> Json {
        match self {
            Self::Uniform { low, high } => real(low + (high - low) * unit, *low, *high),
            Self::LogUniform { low, high } => real((low.ln() + (high.ln() - low.ln()) * unit).exp(), *low, *high),
            Self::Integer { low, high } => {
                let width = (high - low + 1) as f64;
                (low + (width * unit) as i64).clamp(*low, *high).into()
            }
            Self::LogInteger { low, high } => {
                let (least, most) = ((*low as f64 - 0.5).ln(), (*high as f64 + 0.5).ln());
                ((least + (most - least) * unit).exp().round() as i64).clamp(*low, *high).into()
            }
            Self::Choice(values) => values[((values.len() as f64 * unit) as usize).min(values.len() - 1)].clone(),
        }
    }

    /// The value at a coordinate: a number from end to end, or the place of a choice. Real numbers have six significant digits.
    pub fn value(&self, coordinate: f64) -> Json {
        match self {
            Self::Uniform { low, high } | Self::LogUniform { low, high } => real(coordinate, *low, *high),
            Self::Integer { low, high } | Self::LogInteger { low, high } => {
                (coordinate.round() as i64).clamp(*low, *high).into()
            }
            Self::Choice(values) => values[(coordinate as usize).min(values.len() - 1)].clone(),
        }
    }

    /// The coordinate of a value; none where it is none of the choices, or no number.
    pub fn coordinate(&self, value: &Json) -> Option<f64> {
        match self {
            Self::Choice(values) => values.iter().position(|choice| choice == value).map(|place| place as f64),
            _ => value.as_f64(),
        }
    }

    /// How many different values there are, where they can be counted.
    fn size(&self) -> Option<u64> {
        match self {
            Self::Uniform { .. } | Self::LogUniform { .. } => None,
            Self::Integer { low, high } | Self::LogInteger { low, high } => u64::try_from(high - low + 1).ok(),
            Self::Choice(values) => Some(values.len() as u64),
        }
    }
}

/// A real number to six significant digits, within its ends.
pub(crate) fn real(value: f64, low: f64, high: f64) -> Json {
    format!("{value:.5e}").parse().unwrap_or(value).clamp(low, high).into()
}

/// How many different configurations a space has, where they can be counted.
fn size(space: &[ParameterNodes]) -> Option<u64> {
    space.iter().try_fold(1_u64, |product, parameter| product.checked_mul(parameter.distribution.size()?))
}

/// Checks a sampler by itself and against its space; a message where something is wrong, with the key within the sampler.
pub(crate) fn check(sampler: &Sampler, space: &[ParameterNodes]) -> Result<(), (&'static str, String)> {
    let count = sampler.configurations;
    if !(1..=MAX_CONFIGURATIONS).contains(&count) {
        return Err(("configurations", format!("must be from 1 to {MAX_CONFIGURATIONS}, got {count}")));
    }
    match (sampler.kind, sampler.startup_configurations) {
        (kind, _) if kind.is_search() && count > MAX_SEARCHED => {
            let message = format!("must be at most {MAX_SEARCHED} for {}, got {count}", kind.name());
            return Err(("configurations", message));
        }
        (kind, Some(startup)) if kind.is_search() && !(1..=count).contains(&startup) => {
            let message = format!("must be from 1 to {count}, the configurations, got {startup}");
            return Err(("startup_configurations", message));
        }
        (SamplerKind::Random | SamplerKind::Sobol, Some(_)) => {
            return Err(("startup_configurations", "belongs to kind tpe and cma-es".to_owned()));
        }
        _ => {}
    }
    if let Some(size) = size(space).filter(|size| *size < count as u64) {
        return Err(("configurations", format!("must be at most {size}, since the space has no more, got {count}")));
    }
    if sampler.kind == SamplerKind::Sobol && space.len() > MAX_SOBOL_DIMENSIONS {
        return Err(("kind", format!("sobol takes at most {MAX_SOBOL_DIMENSIONS} keys, got {}", space.len())));
    }
    Ok(())
}

/// The configurations of a search, no two of them equal: the values of each key in turn. Fewer where the space has no more.
pub(crate) fn draw(sampler: &Sampler, space: &[ParameterNodes]) -> Vec<AxisNodes> {
    let mut axes: Vec<AxisNodes> =
        space.iter().map(|parameter| AxisNodes { values: Vec::new(), ..parameter.axis.clone() }).collect();
    let wanted = sampler.planned();
    let mut seen = HashSet::new();
    for index in 0..MAX_CONFIGURATIONS as u32 {
        if seen.len() == wanted {
            break;
        }
        let units: Vec<f64> = match sampler.kind {
            SamplerKind::Sobol => {
                // Whatever the seed's width, all of it counts.
                let seed = (sampler.seed ^ (sampler.seed >> 32)) as u32;
                (0..space.len() as u32).map(|key| sobol_burley::sample(index, key, seed).into()).collect()
            }
            SamplerKind::Random | SamplerKind::Tpe | SamplerKind::CmaEs => {
                space.iter().map(|parameter| random(sampler.seed, &parameter.axis.key, index)).collect()
            }
        };
        let values: Vec<Json> = space.iter().zip(units).map(|(key, unit)| key.distribution.at(unit)).collect();
        if seen.insert(Json::from(existing(space, &values)).to_string()) {
            for (axis, value) in axes.iter_mut().zip(values) {
                let node = axis_value(axis, value);
                axis.values.push(node);
            }
        }
    }
    axes
}

/// Values with nothing for keys that do not exist beside the others.
pub(crate) fn existing(space: &[ParameterNodes], values: &[Json]) -> Vec<Json> {
    let keys: Vec<(&str, &[Condition])> =
        space.iter().map(|parameter| (parameter.axis.key.as_str(), &parameter.axis.when[..])).collect();
    let value = |key: &str| keys.iter().position(|(other, _)| *other == key).map(|place| &values[place]);
    let exists = condition::active(&keys, value);
    values.iter().zip(exists).map(|(value, exists)| if exists { value.clone() } else { Json::Null }).collect()
}

/// A value at an axis' place.
pub(crate) fn axis_value(axis: &AxisNodes, value: Json) -> Node {
    Node::new(from_json(value, axis.place), axis.place)
}

pub(crate) fn from_json(value: Json, place: Place) -> Value {
    let node = |value| Node::new(from_json(value, place), place);
    match value {
        Json::Null => Value::String(String::new()),
        Json::Bool(value) => Value::Boolean(value),
        Json::Number(number) => match number.as_i64() {
            Some(value) => Value::Integer(value),
            None => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::String(text),
        Json::Array(items) => Value::Array(items.into_iter().map(node).collect()),
        Json::Object(entries) => {
            let mut table = Table::default();
            for (key, value) in entries {
                table.insert(&key, node(value));
            }
            Value::Table(table)
        }
    }
}

/// A number in [0, 1) that depends on the search's seed, the key and the index alone: a key that is added leaves the others' values
/// as they were.
fn random(seed: u64, key: &str, index: u32) -> f64 {
    let mut hasher = blake3::Hasher::new_derive_key("pipeline 2026 random search");
    hasher.update(&seed.to_le_bytes()).update(&index.to_le_bytes()).update(key.as_bytes());
    let mut bits = [0; 8];
    hasher.finalize_xof().fill(&mut bits);
    (u64::from_le_bytes(bits) >> 11) as f64 / (1_u64 << 53) as f64
}

/// A space as it is written: `train.learning_rate = log_uniform[0.001, 0.1]`.
pub(crate) fn written(key: &str) -> String {
    format!("sweep.space.{}", quoted(key))
}
