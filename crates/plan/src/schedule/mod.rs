//! How the learning rate changes over a run: `train.schedule`, by name or as a table.

mod format;
mod state;

pub(crate) use format::KEYS;
pub use state::{PlateauState, ScheduleState, noise_to_lose, preview};

use crate::{Train, check::Violation};

/// LeNet-5's rates as the book gives them: (epochs, learning rate), and [`BOOK_FINAL`] afterwards. The paper (LeCun et al. 1998,
/// section III.B) has three more epochs, at 0.0001, before the third row; `kind = "table"` can write that out.
pub const BOOK: [(u32, f64); 3] = [(2, 0.0005), (3, 0.0002), (4, 0.00005)];
/// The rate that follows [`BOOK`], to the end.
pub const BOOK_FINAL: f64 = 0.00001;

/// `train.schedule`: the shape of the learning rate's curve, after an optional linear warm-up.
///
/// Written as a name (`schedule = "cosine"`) or as a table (`schedule = { kind = "step", every_epochs = 10, warmup_epochs = 1 }`);
/// always serialized as a table with every key, so that both ways of writing have one identity.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Schedule {
    /// Shape of the curve after the warm-up.
    pub curve: Curve,
    /// Epochs over which the rate climbs, step by step and in equal parts, to the curve's first rate; the curve starts after them.
    pub warmup_epochs: u32,
}

/// Shapes of the learning rate's curve. η is `train.learning_rate`.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Curve {
    /// `constant`: η throughout.
    #[default]
    Constant,
    /// `book`: LeNet-5's table, [`BOOK`]. Absolute rates: η is not used.
    Book,
    /// `table`: each rate for so many epochs; the last one stays to the end. Absolute rates: η is not used.
    Table {
        /// The rates in order.
        steps: Vec<TableStep>,
    },
    /// `step`: η · factor^⌊epoch / every_epochs⌋.
    Step {
        /// Epochs between two changes.
        every_epochs: u32,
        /// What each change multiplies the rate by, in (0, 1). Default: 0.1.
        factor: f64,
    },
    /// `plateau`: the rate is multiplied by `factor` when the validation loss has not improved for `patience_epochs` epochs in a row
    /// (Krizhevsky et al. 2012, section 5, divide by ten).
    Plateau {
        /// What each change multiplies the rate by, in (0, 1). Default: 0.1.
        factor: f64,
        /// Epochs without improvement that bring about a change. Default: 3.
        patience_epochs: u32,
    },
    /// `cosine`: from η down to `minimum` along half a cosine, step by step (Loshchilov & Hutter 2017, without restarts).
    Cosine {
        /// Rate at the end. Default: 0.
        minimum: f64,
    },
    /// `one-cycle`: from η / initial_divisor up to η, then down to η / (initial_divisor · final_divisor), both along half a cosine,
    /// step by step (Smith & Topin 2018, in PyTorch's form with two phases). It has its own warm-up: `warmup_epochs` is 0.
    OneCycle {
        /// Share of all steps in which the rate rises, in (0, 1). Default: 0.3.
        rise: f64,
        /// η over the first rate, ≥ 1. Default: 25.
        initial_divisor: f64,
        /// The first rate over the last, ≥ 1. Default: 10,000.
        final_divisor: f64,
    },
}

/// A row of [`Curve::Table`].
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableStep {
    /// How many epochs the rate holds.
    pub epochs: u32,
    /// Learning rate, absolute.
    pub learning_rate: f64,
}

impl Schedule {
    /// The curve's name, as `kind` gives it.
    pub fn kind(&self) -> &'static str {
        match self.curve {
            Curve::Constant => "constant",
            Curve::Book => "book",
            Curve::Table { .. } => "table",
            Curve::Step { .. } => "step",
            Curve::Plateau { .. } => "plateau",
            Curve::Cosine { .. } => "cosine",
            Curve::OneCycle { .. } => "one-cycle",
        }
    }

    /// Whether the curve gives absolute rates, so that `train.learning_rate` is not used.
    pub fn is_absolute(&self) -> bool {
        matches!(self.curve, Curve::Book | Curve::Table { .. })
    }

    /// Checks the ranges of the schedule's own keys; the message names `train.schedule.KEY`.
    pub fn validate(&self) -> Result<(), Violation> {
        let key = |name: &str| format!("train.schedule.{name}");
        let factor_in_range = |factor: f64| {
            Violation::unless(factor > 0.0 && factor < 1.0, key("factor"), || {
                format!("must be above 0 and below 1, got {factor}")
            })
        };
        let at_least_one = |name: &str, value: f64| {
            Violation::unless(value >= 1.0 && value.is_finite(), key(name), || format!("must be ≥ 1, got {value}"))
        };
        match &self.curve {
            Curve::Constant | Curve::Book => {}
            Curve::Table { steps } => {
                Violation::unless(!steps.is_empty(), key("steps"), || {
                    "must hold at least one { epochs, learning_rate }".to_owned()
                })?;
                for (index, step) in steps.iter().enumerate() {
                    Violation::unless(step.epochs >= 1, key(&format!("steps[{index}].epochs")), || {
                        "must be ≥ 1, got 0".to_owned()
                    })?;
                    let rate = step.learning_rate;
                    Violation::unless(
                        rate > 0.0 && rate.is_finite(),
                        key(&format!("steps[{index}].learning_rate")),
                        || format!("must be > 0, got {rate}"),
                    )?;
                }
            }
            Curve::Step { every_epochs, factor } => {
                at_least_one("every_epochs", f64::from(*every_epochs))?;
                factor_in_range(*factor)?;
            }
            Curve::Plateau { factor, patience_epochs } => {
                at_least_one("patience_epochs", f64::from(*patience_epochs))?;
                factor_in_range(*factor)?;
            }
            Curve::Cosine { minimum } => {
                Violation::unless(*minimum >= 0.0 && minimum.is_finite(), key("minimum"), || {
                    format!("must be ≥ 0, got {minimum}")
                })?;
            }
            Curve::OneCycle { rise, initial_divisor, final_divisor } => {
                Violation::unless(*rise > 0.0 && *rise < 1.0, key("rise"), || {
                    format!("must be above 0 and below 1, got {rise}")
                })?;
                at_least_one("initial_divisor", *initial_divisor)?;
                at_least_one("final_divisor", *final_divisor)?;
                Violation::unless(self.warmup_epochs == 0, key("warmup_epochs"), || {
                    "must be 0 for one-cycle, which rises by itself: set `rise`".to_owned()
                })?;
            }
        }
        Ok(())
    }

    /// Checks the schedule against the rest of `[train]`.
    pub(crate) fn validate_within(&self, train: &Train) -> Result<(), Violation> {
        Violation::unless(self.warmup_epochs < train.epochs, "train.schedule.warmup_epochs", || {
            format!("must be below train.epochs ({}), got {}", train.epochs, self.warmup_epochs)
        })?;
        if let Curve::Cosine { minimum } = self.curve {
            Violation::unless(minimum < train.learning_rate, "train.schedule.minimum", || {
                format!("must be below train.learning_rate ({}), got {minimum}", train.learning_rate)
            })?;
        }
        Ok(())
    }
}
