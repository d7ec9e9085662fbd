//! `[sweep]`: which keys take which values.

use serde_json::Value as Json;

use crate::condition::{self, Condition};
use crate::document::{Entry, Node, Place, Table, Value, quoted};
use crate::space::{self, Parameter, ParameterNodes, Sampler};
use crate::{schedule, suggest};

/// `[sweep]` as it was read, generators written out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sweep {
    /// `[sweep.grid]`: every combination of the axes' values is tried. The first axis changes slowest.
    pub grid: Vec<Axis>,
    /// `[sweep.zip]`, or each of `[[sweep.zip]]`: the axes of a group move together. Groups combine with the grid and with each other.
    pub zip: Vec<Vec<Axis>>,
    /// `[sweep.space]`: keys whose values are drawn together from distributions; what is drawn combines with the grid and the groups.
    pub space: Vec<Parameter>,
}

/// A key and the values it takes in turn.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    /// Key path, such as `train.weight_decay`.
    pub key: String,
    /// Values in order, as written.
    pub values: Vec<Json>,
}

/// A fault: key path relative to the `sweep` table, place, message.
pub(crate) struct SweepError {
    pub key: String,
    pub place: Place,
    pub message: String,
}

/// An axis with the places of its values.
#[derive(Clone, Debug)]
pub(crate) struct AxisNodes {
    pub key: String,
    pub path: Vec<String>,
    pub place: Place,
    /// Where it stands: `sweep.grid."train.weight_decay"`, without a variant's prefix.
    pub written: String,
    pub values: Vec<Node>,
    /// What must be so for the key to exist.
    pub when: Vec<Condition>,
}

/// Axes that move together; a grid's axis is a group of one.
#[derive(Clone, Debug, Default)]
pub(crate) struct SweepNodes {
    pub grid: Vec<AxisNodes>,
    pub zip: Vec<Vec<AxisNodes>>,
    pub space: Vec<ParameterNodes>,
}

/// Keys of `[sweep]` that a variant may have too.
const AXES: [&str; 3] = ["grid", "zip", "space"];
/// Keys of the experiment's own `[sweep]`.
const SWEEP: [&str; 10] =
    ["grid", "zip", "space", "sampler", "pruner", "objective", "on_failure", "retries", "trial_minutes", "minutes"];

/// Most values of one axis.
const MAX_VALUES: f64 = 100_000.0;
/// Keys that make a table a generator of values.
const GENERATORS: [&str; 4] = ["linspace", "logspace", "range", "count"];

/// Whether a table stands for a list of values.
pub(crate) fn is_generator(table: &Table) -> bool {
    table.entries.iter().any(|entry| GENERATORS.contains(&entry.key.as_str()))
}

impl SweepNodes {
    /// Reads the axes of a `sweep` table, which are flat; a variant's has nothing else.
    pub(crate) fn read(sweep: &Node, of_variant: bool) -> Result<Self, SweepError> {
        let mut nodes = Self::default();
        for entry in &table_of(sweep, "sweep")?.entries {
            match (entry.key.as_str(), &entry.node.value) {
                ("grid", _) => nodes.grid = axes(&entry.node, "sweep.grid")?,
                ("zip", Value::Array(groups)) => {
                    for group in groups {
                        nodes.zip.push(group_of(group)?);
                    }
                }
                ("zip", _) => nodes.zip.push(group_of(&entry.node)?),
                ("space", _) => nodes.space = space::parameters(&entry.node)?,
                (key, _) if !of_variant && SWEEP.contains(&key) => {}
                _ => {
                    let path = ["sweep".to_owned(), entry.key.clone()];
                    let message = if suggest::is_setting(&entry.key) {
                        format!("unknown key, did you mean `sweep.grid.{}`?", quoted(&entry.key))
                    } else if of_variant && SWEEP.contains(&entry.key.as_str()) {
                        format!(
                            "belongs into the experiment's own [sweep], not into a variant's: write sweep.{}",
                            entry.key
                        )
                    } else {
                        suggest::unknown_key(&path, if of_variant { &AXES } else { &SWEEP })
                    };
                    return Err(SweepError {
                        key: format!("sweep.{}", quoted(&entry.key)),
                        place: entry.place,
                        message,
                    });
                }
            }
        }
        nodes.refuse_overlaps()?;
        Ok(nodes)
    }

    /// All axes in order.
    pub(crate) fn axes(&self) -> impl Iterator<Item = &AxisNodes> {
        let space = self.space.iter().map(|parameter| &parameter.axis);
        self.grid.iter().chain(self.zip.iter().flatten()).chain(space)
    }

    /// Writes the configurations that a sampler draws at the start out as one more group.
    pub(crate) fn drawn(mut self, sampler: &Sampler) -> Self {
        let space = std::mem::take(&mut self.space);
        self.zip.push(space::draw(sampler, &space));
        self
    }

    /// This sweep with a variant's own laid over it: an axis of the variant takes the place of the axis with its key, in the grid or in a
    /// group of one; other axes are added.
    pub(crate) fn overlaid(&self, over: &Self) -> Result<Self, SweepError> {
        let mut merged = self.clone();
        for axis in &over.grid {
            match merged.grid.iter_mut().find(|other| other.key == axis.key) {
                Some(other) => *other = axis.clone(),
                None => merged.grid.push(axis.clone()),
            }
        }
        for group in &over.zip {
            let keys = |group: &[AxisNodes]| group.iter().map(|axis| axis.key.clone()).collect::<Vec<_>>();
            match merged.zip.iter_mut().find(|other| keys(other) == keys(group)) {
                Some(other) => *other = group.clone(),
                None => merged.zip.push(group.clone()),
            }
        }
        for parameter in &over.space {
            match merged.space.iter_mut().find(|other| other.axis.key == parameter.axis.key) {
                Some(other) => *other = parameter.clone(),
                None => merged.space.push(parameter.clone()),
            }
        }
        merged.refuse_overlaps()?;
        Ok(merged)
    }

    /// No key may be swept twice, nor together with a key below it.
    fn refuse_overlaps(&self) -> Result<(), SweepError> {
        let axes: Vec<&AxisNodes> = self.axes().collect();
        for (index, axis) in axes.iter().enumerate() {
            if let Some(other) = axes[..index].iter().find(|other| overlap(&other.path, &axis.path)) {
                let message = if other.written == axis.written {
                    "stands in two groups that move on their own".to_owned()
                } else {
                    format!("is swept by {} too", other.written)
                };
                return Err(SweepError { key: axis.written.clone(), place: axis.place, message });
            }
        }
        Ok(())
    }

    /// Number of combinations, if it can be counted.
    pub(crate) fn combinations(&self) -> Option<usize> {
        self.lengths().try_fold(1_usize, usize::checked_mul)
    }

    fn lengths(&self) -> impl Iterator<Item = usize> {
        let groups = self.zip.iter().map(|group| group.first().map_or(1, |axis| axis.values.len()));
        self.grid.iter().map(|axis| axis.values.len()).chain(groups)
    }

    /// The combination at a position, the last group changing fastest: each axis that exists in it with the index of its value, and
    /// whether some do not.
    pub(crate) fn combination(&self, mut position: usize) -> (Vec<(&AxisNodes, usize)>, bool) {
        let mut indices: Vec<usize> = self.lengths().collect();
        for slot in indices.iter_mut().rev() {
            let length = *slot;
            *slot = position % length;
            position /= length;
        }
        let grid = self.grid.iter().zip(&indices).map(|(axis, index)| (axis, *index));
        let groups = self.zip.iter().zip(&indices[self.grid.len()..]);
        let all: Vec<(&AxisNodes, usize)> =
            grid.chain(groups.flat_map(|(group, index)| group.iter().map(|axis| (axis, *index)))).collect();
        if all.iter().all(|(axis, _)| axis.when.is_empty()) {
            return (all, false);
        }
        let keys: Vec<(&str, &[Condition])> = all.iter().map(|(axis, _)| (axis.key.as_str(), &axis.when[..])).collect();
        let values: Vec<Json> = all.iter().map(|(axis, index)| json(&axis.values[*index])).collect();
        let value = |key: &str| keys.iter().position(|(other, _)| *other == key).map(|place| &values[place]);
        let exists = condition::active(&keys, value);
        let some_do_not = exists.contains(&false);
        (all.into_iter().zip(exists).filter(|(_, exists)| *exists).map(|(axis, _)| axis).collect(), some_do_not)
    }

    pub(crate) fn public(&self) -> Sweep {
        let axis = |axis: &AxisNodes| Axis { key: axis.key.clone(), values: axis.values.iter().map(json).collect() };
        Sweep {
            grid: self.grid.iter().map(axis).collect(),
            zip: self.zip.iter().map(|group| group.iter().map(axis).collect()).collect(),
            space: self
                .space
                .iter()
                .map(|node| Parameter {
                    key: node.axis.key.clone(),
                    distribution: node.distribution.clone(),
                    when: node.axis.when.iter().map(|when| (when.key.clone(), when.values.clone())).collect(),
                })
                .collect(),
        }
    }
}

/// Whether one path is the other or lies below it.
pub(crate) fn overlap(a: &[String], b: &[String]) -> bool {
    a.iter().zip(b).all(|(a, b)| a == b)
}

pub(crate) fn table_of<'a>(node: &'a Node, key: &str) -> Result<&'a Table, SweepError> {
    node.as_table().ok_or_else(|| SweepError {
        key: key.to_owned(),
        place: node.place,
        message: format!("must be a table of key paths and their lists, got {node}"),
    })
}

fn group_of(node: &Node) -> Result<Vec<AxisNodes>, SweepError> {
    let group = axes(node, "sweep.zip")?;
    let lengths: Vec<String> = group.iter().map(|axis| format!("{} has {}", axis.key, axis.values.len())).collect();
    match group.iter().find(|axis| axis.values.len() != group[0].values.len()) {
        None => Ok(group),
        Some(axis) => Err(SweepError {
            key: axis.written.clone(),
            place: axis.place,
            message: format!("lists that move together must be equally long: {}", lengths.join(", ")),
        }),
    }
}

fn axes(node: &Node, section: &str) -> Result<Vec<AxisNodes>, SweepError> {
    let table = table_of(node, section)?;
    if table.entries.is_empty() {
        let message = "is empty: name a key and its values, such as \"train.weight_decay\" = [0.0, 0.0005], or leave the section out";
        return Err(SweepError { key: section.to_owned(), place: node.place, message: message.to_owned() });
    }
    table.entries.iter().map(|entry| axis(entry, section)).collect()
}

/// An axis without values, whose key is a setting's.
pub(crate) fn empty_axis(entry: &Entry, section: &str) -> Result<AxisNodes, SweepError> {
    let written = format!("{section}.{}", quoted(&entry.key));
    let fail = |place: Place, message: String| SweepError { key: written.clone(), place, message };
    let path: Vec<String> = entry.key.split('.').map(str::to_owned).collect();
    let in_schedule = entry.key.strip_prefix("train.schedule.");
    if !suggest::is_setting(&entry.key) && !in_schedule.is_some_and(|key| schedule::KEYS.contains(&key)) {
        let message = if crate::overrides::SECTIONS.contains(&entry.key.as_str()) {
            "is a section; sweep its keys, or write variants".to_owned()
        } else if let Some((setting, word)) = entry.key.rsplit_once('.').filter(|(key, _)| suggest::is_setting(key)) {
            // Tables below a setting are read as paths, unless a word in them says that they stand for values.
            let words: &[&str] = match section {
                "sweep.space" => &space::DISTRIBUTIONS,
                "sweep.grid" => &["linspace", "logspace", "range", "values"],
                _ => &["linspace", "logspace", "range"],
            };
            let message = format!("unknown word `{word}`; {} takes one of {}", quoted(setting), words.join(", "));
            return Err(SweepError { key: format!("{section}.{}", quoted(setting)), place: entry.place, message });
        } else {
            suggest::unknown_key(&path, if in_schedule.is_some() { &schedule::KEYS } else { &[] })
        };
        return Err(fail(entry.place, message));
    }
    Ok(AxisNodes { key: entry.key.clone(), path, place: entry.place, written, values: Vec::new(), when: Vec::new() })
}

fn axis(entry: &Entry, section: &str) -> Result<AxisNodes, SweepError> {
    let mut axis = empty_axis(entry, section)?;
    let fail = |place: Place, message: String| SweepError { key: axis.written.clone(), place, message };
    let mut node = entry.node.clone();
    let mut when = Vec::new();
    if let Value::Table(table) = &entry.node.value {
        let (rest, conditions) = condition::split(table, &axis.written)?;
        if let Some(condition) = conditions.first().filter(|_| section == "sweep.zip") {
            let message = "lists that move together cannot depend on others: write the key in sweep.grid".to_owned();
            return Err(fail(condition.place, message));
        }
        when = conditions;
        node.value = match &rest.entries[..] {
            [values] if values.key == "values" => values.node.value.clone(),
            _ => Value::Table(rest),
        };
    }
    let values = match &node.value {
        Value::Array(items) => items.clone(),
        Value::Table(table) if space::is_distribution(table) => {
            let message = format!("a distribution belongs into {}", space::written(&entry.key));
            return Err(fail(entry.node.place, message));
        }
        Value::Table(table) if is_generator(table) => generate(table)
            .map_err(|message| fail(entry.node.place, message))?
            .into_iter()
            .map(|value| Node::new(value, entry.node.place))
            .collect(),
        _ => {
            let message = format!(
                "must be a list of values, or {{ linspace = [from, to], count = n }}, {{ logspace = [from, to], count = n }} or \
                 {{ range = [from, to, step] }}, got {}",
                entry.node
            );
            return Err(fail(entry.node.place, message));
        }
    };
    if values.is_empty() {
        return Err(fail(
            entry.node.place,
            "the list is empty: give it at least one value, or leave the key out".to_owned(),
        ));
    }
    refuse_duplicates(&values).map_err(|(place, message)| fail(place, message))?;
    (axis.values, axis.when) = (values, when);
    Ok(axis)
}

pub(crate) fn refuse_duplicates(values: &[Node]) -> Result<(), (Place, String)> {
    let numbers: Option<Vec<f64>> = values.iter().map(Node::as_number).collect();
    let twice = match numbers {
        // Long lists come from generators and hold numbers only: these are sorted rather than compared pair by pair.
        Some(numbers) => {
            let mut order: Vec<usize> = (0..numbers.len()).collect();
            order.sort_by(|a, b| numbers[*a].total_cmp(&numbers[*b]));
            order.windows(2).find(|pair| numbers[pair[0]] == numbers[pair[1]]).map(|pair| pair[0].max(pair[1]))
        }
        None => {
            (1..values.len()).find(|index| values[..*index].iter().any(|other| other.means_the_same(&values[*index])))
        }
    };
    match twice {
        Some(index) => Err((values[index].place, format!("{} stands twice in the list", values[index]))),
        None => Ok(()),
    }
}

/// Writes a generator out.
fn generate(table: &Table) -> Result<Vec<Value>, String> {
    let keys: Vec<&str> = table.entries.iter().map(|entry| entry.key.as_str()).collect();
    let has = |name: &str| keys.contains(&name);
    if has("range") && keys.len() == 1 {
        let [from, to, step] = numbers(table, "range", "[from, to, step]")?;
        return range(from, to, step);
    }
    let (name, logarithmic) = match (has("linspace"), has("logspace")) {
        (true, false) => ("linspace", false),
        (false, true) => ("logspace", true),
        _ => return Err(format!("must hold one of linspace, logspace and range, got {}", keys.join(", "))),
    };
    if keys.len() != 2 || !has("count") {
        return Err(format!("must be {{ {name} = [from, to], count = n }}, got the keys {}", keys.join(", ")));
    }
    let [from, to] = numbers(table, name, "[from, to]")?;
    let count = table.get("count").and_then(Node::as_number).unwrap_or(f64::NAN);
    if !(2.0..=MAX_VALUES).contains(&count) || count.fract() != 0.0 {
        return Err(format!(
            "count must be a whole number from 2 to {MAX_VALUES}, got {}",
            table.get("count").map_or(String::new(), Node::to_string)
        ));
    }
    if logarithmic && (from <= 0.0 || to <= 0.0) {
        return Err(format!("logspace needs ends above 0, got {from} and {to}"));
    }
    if from == to {
        return Err(format!("{name} needs two different ends, got {from} twice"));
    }
    let last = count - 1.0;
    let value = |index: f64| match (index, logarithmic) {
        (0.0, _) => from,
        (index, _) if index == last => to,
        (index, false) => rounded(from + (to - from) * index / last),
        (index, true) => rounded((from.ln() + (to.ln() - from.ln()) * index / last).exp()),
    };
    Ok((0..count as usize).map(|index| number(value(index as f64))).collect())
}

fn range(from: f64, to: f64, step: f64) -> Result<Vec<Value>, String> {
    if step == 0.0 || (to - from) * step < 0.0 {
        return Err(format!("range needs a step that leads from {from} to {to}, got {step}"));
    }
    // The end belongs to the range, and rounding must not lose it.
    let count = ((to - from) / step * (1.0 + 1e-12) + 1e-9).floor() + 1.0;
    if count > MAX_VALUES {
        return Err(format!("range gives {count} values, more than {MAX_VALUES}"));
    }
    Ok((0..count as usize).map(|index| number(rounded(from + index as f64 * step))).collect())
}

/// A list of finite numbers of known length.
pub(crate) fn numbers<const N: usize>(table: &Table, name: &str, form: &str) -> Result<[f64; N], String> {
    let node = table.get(name).map_or(String::new(), Node::to_string);
    let values: Option<Vec<f64>> = table
        .get(name)
        .and_then(Node::as_array)
        .and_then(|items| items.iter().map(|item| item.as_number().filter(|value| value.is_finite())).collect());
    values.and_then(|values| values.try_into().ok()).ok_or_else(|| format!("{name} must be {form}, got {node}"))
}

/// To 12 significant digits, so that 0.1 + 0.2 reads 0.3.
fn rounded(value: f64) -> f64 {
    format!("{value:.11e}").parse().unwrap_or(value)
}

/// Whole values as integers, which keys of either type take.
pub(crate) fn number(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 1e15 { Value::Integer(value as i64) } else { Value::Float(value) }
}

/// A value as JSON.
pub(crate) fn json(node: &Node) -> Json {
    match &node.value {
        Value::Boolean(value) => (*value).into(),
        Value::Integer(value) => (*value).into(),
        Value::Float(value) => (*value).into(),
        Value::String(text) | Value::Date(text) => text.as_str().into(),
        Value::Array(items) => items.iter().map(json).collect(),
        Value::Table(table) => table.entries.iter().map(|entry| (entry.key.clone(), json(&entry.node))).collect(),
    }
}
