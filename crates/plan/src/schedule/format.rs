//! Schedules in TOML and JSON: read from a name or a table, always written as a table.

use std::fmt;

use serde::de::{Error, MapAccess, Unexpected, Visitor, value::MapAccessDeserializer};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Curve, Schedule, TableStep};

/// Names of the curves, as `kind` takes them.
const KINDS: [&str; 7] = ["constant", "book", "table", "step", "plateau", "cosine", "one-cycle"];

/// Keys of a schedule's table, whatever its kind.
pub(crate) const KEYS: [&str; 10] = [
    "kind",
    "warmup_epochs",
    "steps",
    "every_epochs",
    "factor",
    "patience_epochs",
    "minimum",
    "rise",
    "initial_divisor",
    "final_divisor",
];

/// Every key that some kind of schedule takes; which kind takes which is checked afterwards, so that the message can say so.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Keys {
    kind: Option<String>,
    warmup_epochs: Option<u32>,
    steps: Option<Vec<TableStep>>,
    every_epochs: Option<u32>,
    factor: Option<f64>,
    patience_epochs: Option<u32>,
    minimum: Option<f64>,
    rise: Option<f64>,
    initial_divisor: Option<f64>,
    final_divisor: Option<f64>,
}

impl Keys {
    fn into_schedule<E: Error>(self) -> Result<Schedule, E> {
        let Some(kind) = self.kind.as_deref() else {
            return Err(E::custom(format_args!("a schedule's table must say its `kind`: one of {}", KINDS.join(", "))));
        };
        let takes: &[&str] = match kind {
            "constant" | "book" => &["warmup_epochs"],
            "table" => &["steps", "warmup_epochs"],
            "step" => &["every_epochs", "factor", "warmup_epochs"],
            "plateau" => &["factor", "patience_epochs", "warmup_epochs"],
            "cosine" => &["minimum", "warmup_epochs"],
            "one-cycle" => &["rise", "initial_divisor", "final_divisor", "warmup_epochs"],
            other => return Err(E::unknown_variant(other, &KINDS)),
        };
        let given = [
            ("steps", self.steps.is_some()),
            ("every_epochs", self.every_epochs.is_some()),
            ("factor", self.factor.is_some()),
            ("patience_epochs", self.patience_epochs.is_some()),
            ("minimum", self.minimum.is_some()),
            ("rise", self.rise.is_some()),
            ("initial_divisor", self.initial_divisor.is_some()),
            ("final_divisor", self.final_divisor.is_some()),
        ];
        if let Some((name, _)) = given.iter().find(|(name, given)| *given && !takes.contains(name)) {
            return Err(E::custom(format_args!(
                "`{name}` has no meaning for schedule {kind}, which takes {}",
                takes.join(", ")
            )));
        }
        let curve = match kind {
            "constant" => Curve::Constant,
            "book" => Curve::Book,
            "table" => Curve::Table {
                steps: self.steps.ok_or_else(|| {
                    E::custom("schedule table needs its rates: { kind = \"table\", steps = [{ epochs = 2, learning_rate = 0.01 }] }")
                })?,
            },
            "step" => Curve::Step {
                every_epochs: self.every_epochs.ok_or_else(|| {
                    E::custom("schedule step needs `every_epochs`: { kind = \"step\", every_epochs = 10 }")
                })?,
                factor: self.factor.unwrap_or(0.1),
            },
            "plateau" => Curve::Plateau { factor: self.factor.unwrap_or(0.1), patience_epochs: self.patience_epochs.unwrap_or(3) },
            "cosine" => Curve::Cosine { minimum: self.minimum.unwrap_or(0.0) },
            _ => Curve::OneCycle {
                rise: self.rise.unwrap_or(0.3),
                initial_divisor: self.initial_divisor.unwrap_or(25.0),
                final_divisor: self.final_divisor.unwrap_or(10_000.0),
            },
        };
        Ok(Schedule { curve, warmup_epochs: self.warmup_epochs.unwrap_or(0) })
    }
}

impl<'de> Deserialize<'de> for Schedule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameOrTable;

        impl<'de> Visitor<'de> for NameOrTable {
            type Value = Schedule;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a schedule's name or a table with `kind`")
            }

            fn visit_str<E: Error>(self, name: &str) -> Result<Schedule, E> {
                Keys { kind: Some(name.to_owned()), ..Keys::default() }.into_schedule()
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Schedule, A::Error> {
                Keys::deserialize(MapAccessDeserializer::new(map))?.into_schedule()
            }

            fn visit_unit<E: Error>(self) -> Result<Schedule, E> {
                Err(E::invalid_type(Unexpected::Unit, &self))
            }
        }

        deserializer.deserialize_any(NameOrTable)
    }
}

impl Serialize for Schedule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("kind", self.kind())?;
        match &self.curve {
            Curve::Constant | Curve::Book => {}
            Curve::Table { steps } => map.serialize_entry("steps", steps)?,
            Curve::Step { every_epochs, factor } => {
                map.serialize_entry("every_epochs", every_epochs)?;
                map.serialize_entry("factor", factor)?;
            }
            Curve::Plateau { factor, patience_epochs } => {
                map.serialize_entry("factor", factor)?;
                map.serialize_entry("patience_epochs", patience_epochs)?;
            }
            Curve::Cosine { minimum } => map.serialize_entry("minimum", minimum)?,
            Curve::OneCycle { rise, initial_divisor, final_divisor } => {
                map.serialize_entry("rise", rise)?;
                map.serialize_entry("initial_divisor", initial_divisor)?;
                map.serialize_entry("final_divisor", final_divisor)?;
            }
        }
        map.serialize_entry("warmup_epochs", &self.warmup_epochs)?;
        map.end()
    }
}

/// Short form for labels and for the values of a sweep: `cosine`, `step(every_epochs=10)`; keys at their defaults are left out.
impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut keys: Vec<String> = Vec::new();
        let mut differing = |name: &str, value: f64, default: f64| {
            if value != default {
                keys.push(format!("{name}={value}"));
            }
        };
        match &self.curve {
            Curve::Constant | Curve::Book => {}
            Curve::Table { steps } => {
                keys.extend(steps.iter().map(|step| format!("{}×{}", step.epochs, step.learning_rate)));
            }
            Curve::Step { every_epochs, factor } => {
                differing("every_epochs", f64::from(*every_epochs), 0.0);
                differing("factor", *factor, 0.1);
            }
            Curve::Plateau { factor, patience_epochs } => {
                differing("factor", *factor, 0.1);
                differing("patience_epochs", f64::from(*patience_epochs), 3.0);
            }
            Curve::Cosine { minimum } => differing("minimum", *minimum, 0.0),
            Curve::OneCycle { rise, initial_divisor, final_divisor } => {
                differing("rise", *rise, 0.3);
                differing("initial_divisor", *initial_divisor, 25.0);
                differing("final_divisor", *final_divisor, 10_000.0);
            }
        }
        if self.warmup_epochs != 0 {
            keys.push(format!("warmup_epochs={}", self.warmup_epochs));
        }
        f.write_str(self.kind())?;
        if !keys.is_empty() {
            write!(f, "({})", keys.join(", "))?;
        }
        Ok(())
    }
}
