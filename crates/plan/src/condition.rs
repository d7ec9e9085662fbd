//! `when = { "train.optimizer" = "sgd" }`: keys of a sweep that exist only where others have certain values.

use serde_json::Value as Json;

use crate::document::{Entry, Node, Place, Table, Value, quoted};
use crate::experiment::{Branch, FileReader, assigned};
use crate::search::{AxisNodes, SweepError, SweepNodes, json};
use crate::{PlanError, suggest};

/// The key of a table that names conditions.
pub(crate) const WHEN: &str = "when";

/// That a key has one of some values.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Condition {
    pub key: String,
    pub place: Place,
    pub values: Vec<Json>,
}

impl Condition {
    fn is_met_by(&self, value: &Json) -> bool {
        self.values.iter().any(|wanted| same(wanted, value))
    }
}

/// Whether two values mean the same: 1 and 1.0 do.
fn same(a: &Json, b: &Json) -> bool {
    a == b || a.as_f64().zip(b.as_f64()).is_some_and(|(a, b)| a == b)
}

/// A table without its conditions, and these; `written` is where the table stands.
pub(crate) fn split(table: &Table, written: &str) -> Result<(Table, Vec<Condition>), SweepError> {
    let rest = table.entries.iter().filter(|entry| entry.key != WHEN).cloned().collect();
    let Some(entry) = table.entry(WHEN) else { return Ok((Table { entries: rest }, Vec::new())) };
    let key = format!("{written}.{WHEN}");
    let form = "must be a table of keys and the values that they must have, such as { \"train.optimizer\" = \"sgd\" } or { \"train.optimizer\" = [\"adam\", \"adamw\"] }";
    let conditions = match entry.node.as_table() {
        Some(table) if !table.entries.is_empty() => read(table, "", &key)?,
        _ => {
            return Err(SweepError { key, place: entry.node.place, message: format!("{form}, got {}", entry.node) });
        }
    };
    Ok((Table { entries: rest }, conditions))
}

/// Keys may be quoted paths or nested tables.
fn read(table: &Table, above: &str, written: &str) -> Result<Vec<Condition>, SweepError> {
    let mut conditions = Vec::new();
    for Entry { key, place, node } in &table.entries {
        let path = if above.is_empty() { key.clone() } else { format!("{above}.{key}") };
        let fail = |message: String| SweepError { key: format!("{written}.{}", quoted(&path)), place: *place, message };
        match &node.value {
            Value::Table(inner) if !suggest::is_setting(&path) => conditions.extend(read(inner, &path, written)?),
            _ if !suggest::is_setting(&path) => {
                let parts: Vec<String> = path.split('.').map(str::to_owned).collect();
                return Err(fail(suggest::unknown_key(&parts, &[])));
            }
            Value::Array(items) if items.is_empty() => {
                return Err(fail("the list is empty: name the values that it must have".to_owned()));
            }
            Value::Array(items) => {
                conditions.push(Condition { key: path, place: *place, values: items.iter().map(json).collect() });
            }
            _ => conditions.push(Condition { key: path, place: *place, values: vec![json(node)] }),
        }
    }
    Ok(conditions)
}

/// For each of some keys whether it exists, from the values of all; `None` where a key is not among these, which leaves what depends on
/// it alone. A key exists where those that it depends on exist and have the values.
pub(crate) fn active<'a>(keys: &[(&str, &[Condition])], value: impl Fn(&str) -> Option<&'a Json>) -> Vec<bool> {
    fn exists<'a>(index: usize, keys: &[(&str, &[Condition])], value: &impl Fn(&str) -> Option<&'a Json>) -> bool {
        keys[index].1.iter().all(|condition| {
            let above = keys.iter().position(|(key, _)| *key == condition.key);
            above.is_none_or(|above| exists(above, keys, value))
                && value(&condition.key).is_none_or(|value| condition.is_met_by(value))
        })
    }
    (0..keys.len()).map(|index| exists(index, keys, &value)).collect()
}

/// What a sweep has of one key.
fn find<'a>(sweep: &'a SweepNodes, key: &str) -> Option<&'a AxisNodes> {
    sweep.axes().find(|axis| axis.key == key)
}

impl FileReader {
    /// Decides the conditions of a branch that do not depend on what is swept, leaves out what they leave out, and checks the others.
    pub(crate) fn settle_conditions(&self, branch: &mut Branch<'_>, has_variants: bool) -> Result<(), PlanError> {
        if branch.sweep.axes().all(|axis| axis.when.is_empty()) {
            return Ok(());
        }
        let settings = self.settings(&branch.merged, "")?.resolved();
        let mut gone: Vec<String> = Vec::new();
        for axis in branch.sweep.axes() {
            let own = branch.own_sweep.axes().any(|other| other.key == axis.key);
            let prefix = if own { branch.prefix.as_str() } else { "" };
            let written = |condition: &Condition| format!("{prefix}{}.{WHEN}.{}", axis.written, quoted(&condition.key));
            for condition in &axis.when {
                let fail = |message: String| Err(self.fail(Some(condition.place), written(condition), message));
                if goes_round(&branch.sweep, &axis.key, &condition.key, &mut Vec::new()) {
                    return fail(format!("{} depends on itself that way", axis.key));
                }
                if let Some(above) = find(&branch.sweep, &condition.key) {
                    let is_range = branch.sweep.space.iter().any(|parameter| {
                        parameter.axis.key == above.key
                            && !matches!(parameter.distribution, crate::Distribution::Choice(_))
                    });
                    if is_range {
                        return fail("is drawn from a range: only keys with listed values can be asked for".to_owned());
                    }
                    let never = |value: &&Json| !above.values.iter().any(|listed| same(&json(listed), value));
                    if let Some(value) = condition.values.iter().find(never) {
                        let listed: Vec<String> = above.values.iter().map(Node::to_string).collect();
                        return fail(format!("never is {value}, only {}", listed.join(", ")));
                    }
                } else if has_variants {
                    let path: Vec<String> = condition.key.split('.').map(str::to_owned).collect();
                    if !condition.is_met_by(&assigned(&settings, &path)) {
                        gone.push(axis.key.clone());
                    }
                } else {
                    return fail(
                        "is not swept, so that it is the same in all trials: leave the condition out".to_owned(),
                    );
                }
            }
        }
        // What depends on a key that does not exist does not exist either.
        while let Some(axis) = branch
            .sweep
            .axes()
            .find(|axis| !gone.contains(&axis.key) && axis.when.iter().any(|condition| gone.contains(&condition.key)))
        {
            gone.push(axis.key.clone());
        }
        let SweepNodes { grid, space, .. } = &mut branch.sweep;
        grid.retain(|axis| !gone.contains(&axis.key));
        space.retain(|parameter| !gone.contains(&parameter.axis.key));
        // What is left of conditions on what is not swept is met.
        let swept: Vec<String> = branch.sweep.axes().map(|axis| axis.key.clone()).collect();
        let SweepNodes { grid, space, .. } = &mut branch.sweep;
        for axis in grid.iter_mut().chain(space.iter_mut().map(|parameter| &mut parameter.axis)) {
            axis.when.retain(|condition| swept.contains(&condition.key));
        }
        Ok(())
    }
}

/// Whether one goes from `key` along conditions back to `from`.
fn goes_round(sweep: &SweepNodes, from: &str, key: &str, seen: &mut Vec<String>) -> bool {
    if key == from {
        return true;
    }
    if seen.iter().any(|other| other == key) {
        return false;
    }
    seen.push(key.to_owned());
    find(sweep, key).is_some_and(|axis| axis.when.iter().any(|next| goes_round(sweep, from, &next.key, seen)))
}
