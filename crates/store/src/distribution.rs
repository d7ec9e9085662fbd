//! What the values of a varied key are drawn from.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::{ExperimentId, RunRow, Store, StoreError};

/// How the values of a key are distributed. Both ends belong to it.
#[derive(Clone, Debug, PartialEq)]
pub enum Distribution {
    /// Real numbers.
    Float {
        /// Lower end.
        low: f64,
        /// Upper end.
        high: f64,
        /// Their logarithms are spread evenly.
        log: bool,
    },
    /// Whole numbers.
    Integer {
        /// Lower end.
        low: i64,
        /// Upper end.
        high: i64,
        /// Their logarithms are spread evenly.
        log: bool,
    },
    /// One of a list, which has no order: nothing, truths, numbers and text. Lists and tables stand here as their text.
    Choice(Vec<Value>),
}

/// More different numbers than this are a range.
const MOST_LISTED: usize = 8;

impl Distribution {
    /// A guess from values alone. Few different values are a list: of a grid's none is farther from its neighbours than another,
    /// be they 0, 0.0001 and 0.01. More numbers are a range from the least to the greatest of them, on a logarithmic scale where they
    /// are positive and spread over two decades or more, since a linear one would tell apart the largest only.
    pub fn of(values: &[&Value]) -> Self {
        let mut choices: Vec<Value> = Vec::new();
        for value in values.iter().map(|value| choice(value)) {
            if !choices.contains(&value) {
                choices.push(value);
            }
        }
        let numbers: Option<Vec<f64>> = choices.iter().map(Value::as_f64).collect();
        let Some(mut numbers) = numbers else { return Self::Choice(choices) };
        if choices.len() <= MOST_LISTED {
            let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
            choices.sort_by(|a, b| number(a).total_cmp(&number(b)));
            return Self::Choice(choices);
        }
        let integers: Option<Vec<i64>> = choices.iter().map(Value::as_i64).collect();
        numbers.sort_by(f64::total_cmp);
        let (low, high) = (numbers[0], numbers[numbers.len() - 1]);
        let log = low > 0.0 && high / low >= 100.0;
        match integers.and_then(|all| Some((*all.iter().min()?, *all.iter().max()?))) {
            Some((low, high)) => Self::Integer { low, high, log },
            None => Self::Float { low, high, log },
        }
    }

    /// What `[sweep.space]` says, by the words of the table `spaces`. `None` where they make no sense.
    fn recorded(kind: &str, ends: &[Value]) -> Option<Self> {
        let log = kind.starts_with("log_");
        match (kind, ends) {
            ("uniform" | "log_uniform", [low, high]) => {
                Some(Self::Float { low: low.as_f64()?, high: high.as_f64()?, log })
            }
            ("integer" | "log_integer", [low, high]) => {
                Some(Self::Integer { low: low.as_i64()?, high: high.as_i64()?, log })
            }
            ("choice", choices) => Some(Self::Choice(choices.iter().map(choice).collect())),
            _ => None,
        }
    }

    /// A value as a number: itself, or which choice it is. `None` where it is not of the distribution.
    pub fn number(&self, value: &Value) -> Option<f64> {
        match self {
            Self::Choice(choices) => {
                let index = choices.iter().position(|known| *known == choice(value))?;
                Some(index as f64)
            }
            Self::Float { low, high, .. } => value.as_f64().filter(|value| (*low..=*high).contains(value)),
            Self::Integer { low, high, .. } => {
                value.as_i64().filter(|value| (*low..=*high).contains(value)).map(|value| value as f64)
            }
        }
    }

    /// As Optuna writes it.
    pub(crate) fn json(&self) -> Value {
        let (name, attributes) = match self {
            Self::Float { low, high, log } => {
                ("FloatDistribution", json!({ "step": null, "low": low, "high": high, "log": log }))
            }
            Self::Integer { low, high, log } => {
                ("IntDistribution", json!({ "log": log, "step": 1, "low": low, "high": high }))
            }
            Self::Choice(choices) => ("CategoricalDistribution", json!({ "choices": choices })),
        };
        json!({ "name": name, "attributes": attributes })
    }
}

/// A choice must be nothing, a truth, a number or text: lists and tables become text.
fn choice(value: &Value) -> Value {
    if value.is_array() || value.is_object() { value.to_string().into() } else { value.clone() }
}

impl Store {
    /// Says what the experiment's sweep draws its values from, in place of what was said before: keys of `[sweep.space]`, each with the
    /// word for its distribution and a JSON array of both ends or of all choices.
    pub fn record_space(&self, experiment: ExperimentId, space: &[(String, &str, String)]) -> Result<(), StoreError> {
        self.write(async |connection| {
            let mut transaction = sqlx::Connection::begin_with(connection, "BEGIN IMMEDIATE").await?;
            sqlx::query("DELETE FROM spaces WHERE experiment_id = ?1")
                .bind(experiment)
                .execute(&mut *transaction)
                .await?;
            for (key, kind, ends) in space {
                sqlx::query("INSERT INTO spaces (experiment_id, key, kind, ends) VALUES (?1, ?2, ?3, ?4)")
                    .bind(experiment)
                    .bind(key)
                    .bind(*kind)
                    .bind(ends)
                    .execute(&mut *transaction)
                    .await?;
            }
            transaction.commit().await?;
            Ok(())
        })
    }

    /// What the values of each varied key are drawn from: what `[sweep.space]` says where that holds for all of these runs, else what
    /// their values say ([`Distribution::of`]).
    pub fn distributions(
        &self,
        experiment: ExperimentId,
        runs: &[RunRow],
    ) -> Result<BTreeMap<String, Distribution>, StoreError> {
        let rows: Vec<(String, String, String)> = self.read(async |connection| {
            Ok(sqlx::query_as("SELECT key, kind, ends FROM spaces WHERE experiment_id = ?1")
                .bind(experiment)
                .fetch_all(connection)
                .await?)
        })?;
        let mut values: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
        for (key, value) in runs.iter().flat_map(|run| &run.assignments.0) {
            values.entry(key).or_default().push(value);
        }
        let distribution = |key: &str, values: &[&Value]| {
            let (_, kind, ends) = rows.iter().find(|(known, ..)| known == key)?;
            let ends: Vec<Value> = serde_json::from_str(ends).ok()?;
            Distribution::recorded(kind, &ends).filter(|found| values.iter().all(|value| found.number(value).is_some()))
        };
        Ok(values
            .into_iter()
            .map(|(key, values)| {
                (key.to_owned(), distribution(key, &values).unwrap_or_else(|| Distribution::of(&values)))
            })
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_distributed_as_its_values_are() {
        let of = |values: &[Value]| Distribution::of(&values.iter().collect::<Vec<_>>());
        let tenths =
            |from: i32| -> Vec<Value> { (0..9).map(|step| json!(10_f64.powi(from) * 1.5_f64.powi(step))).collect() };
        assert_eq!(of(&[json!(0.1), json!(0.0), json!(0.1)]), Distribution::Choice(vec![json!(0.0), json!(0.1)]));
        assert_eq!(of(&tenths(0)), Distribution::Float { low: 1.0, high: 25.628_906_25, log: false });
        let wide: Vec<Value> = [tenths(0), vec![json!(200.0)]].concat();
        assert_eq!(of(&wide), Distribution::Float { low: 1.0, high: 200.0, log: true });
        let integers: Vec<Value> = (4..20).map(Value::from).collect();
        assert_eq!(of(&integers), Distribution::Integer { low: 4, high: 19, log: false });
        let choices = of(&[json!("sgd"), json!({"kind": "step"}), json!("sgd"), json!(1)]);
        assert_eq!(choices, Distribution::Choice(vec![json!("sgd"), json!("{\"kind\":\"step\"}"), json!(1)]));
        assert_eq!(choices.number(&json!(1)), Some(2.0));
        assert_eq!(choices.number(&json!({"kind": "step"})), Some(1.0));
    }

    #[test]
    fn a_space_says_what_its_words_say() {
        let of = |kind, ends: Value| Distribution::recorded(kind, ends.as_array().unwrap());
        let rates = of("log_uniform", json!([0.001, 0.01])).unwrap();
        assert_eq!(rates, Distribution::Float { low: 0.001, high: 0.01, log: true });
        assert_eq!((rates.number(&json!(0.01)), rates.number(&json!(0.02))), (Some(0.01), None));
        assert_eq!(of("integer", json!([8, 64])), Some(Distribution::Integer { low: 8, high: 64, log: false }));
        assert_eq!(of("choice", json!(["a", [1]])), Some(Distribution::Choice(vec![json!("a"), json!("[1]")])));
        assert_eq!(of("normal", json!([0, 1])), None);
        assert_eq!(of("uniform", json!([0])), None);
    }
}
