//! Several objectives: the configurations that no other one is better than in all of them.

use crate::analysis::{Analysis, Configuration};
use crate::study::{Run, Study};
use crate::text::{grouped, percent, seconds, significant};

/// What a sweep may aim at.
#[derive(Debug)]
pub struct Measure {
    /// As `sweep.objective` names it.
    name: &'static str,
    /// In a word or two.
    pub short: &'static str,
    /// For tables and axes, with the unit.
    pub title: &'static str,
    /// An accuracy, which is to be high; all others are to be low.
    pub is_accuracy: bool,
    of: fn(&Run) -> Option<f64>,
    /// A value for people.
    pub write: fn(f64) -> String,
}

static MEASURES: [Measure; 5] = [
    Measure {
        name: "validation_top1",
        short: "validation accuracy",
        title: "validation accuracy",
        is_accuracy: true,
        of: Run::validation_top1,
        write: percent,
    },
    Measure {
        name: "validation_loss",
        short: "validation loss",
        title: "validation loss (nats per image)",
        is_accuracy: false,
        of: |run| run.tested_epoch()?.validation_loss,
        write: |loss| significant(loss, 4),
    },
    Measure {
        name: "train_seconds",
        short: "training time",
        title: "training time of one run (s)",
        is_accuracy: false,
        of: Run::train_seconds,
        write: seconds,
    },
    Measure {
        name: "macs_per_image",
        short: "MACs per image",
        title: "MACs per image, forward (millions)",
        is_accuracy: false,
        of: |run| Some(run.macs_per_image? as f64 / 1e6),
        write: |count| significant(count, 4),
    },
    Measure {
        name: "parameters",
        short: "parameters",
        title: "parameters",
        is_accuracy: false,
        of: |run| Some(run.parameters? as f64),
        write: |count| grouped(count as u64),
    },
];

impl Measure {
    /// As `sweep.objective` names it.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// What a run came to. `None` where it has not, or is not a number.
    pub fn of(&self, run: &Run) -> Option<f64> {
        (self.of)(run).filter(|value| value.is_finite())
    }

    /// Like [`Self::of`], with the sign that makes higher better.
    pub fn high(&self, run: &Run) -> Option<f64> {
        self.of(run).map(|value| if self.is_accuracy { value } else { -value })
    }
}

/// What the study aims at: the objectives where it is of one experiment with several, else validation accuracy.
pub fn objectives(study: &Study) -> Vec<&'static Measure> {
    let named = |experiment: &crate::study::Experiment| -> Vec<&'static Measure> {
        let known = |name: &String| MEASURES.iter().find(|measure| measure.name == name);
        experiment.objectives.iter().filter_map(known).collect()
    };
    match &study.experiments[..] {
        [experiment] if experiment.objectives.len() > 1 => named(experiment),
        _ => vec![&MEASURES[0]],
    }
}

/// The front of an experiment with several objectives.
#[derive(Debug)]
pub struct Front<'a> {
    /// Its objectives, the first one first.
    pub measures: Vec<&'static Measure>,
    /// Every configuration with its values, means over seeds.
    pub all: Vec<(&'a Configuration<'a>, Vec<f64>)>,
    /// Places in `all` of those at the front, the best by the first objective first.
    pub members: Vec<usize>,
}

impl<'a> Front<'a> {
    /// Nothing where the study is not of one experiment with several objectives.
    pub fn of(study: &Study, analysis: &'a Analysis<'_>) -> Option<Self> {
        let measures = objectives(study);
        if measures.len() < 2 {
            return None;
        }
        let values = |configuration: &'a Configuration<'a>| {
            let mean = |measure: &&Measure| Some(configuration.estimate(measure.of)?.mean);
            Some((configuration, measures.iter().map(mean).collect::<Option<Vec<f64>>>()?))
        };
        let all: Vec<(&Configuration<'_>, Vec<f64>)> = analysis.configurations.iter().filter_map(values).collect();
        let low = |place: usize, objective: usize| {
            let value = all[place].1[objective];
            if measures[objective].is_accuracy { -value } else { value }
        };
        let is_ahead = |a: usize, b: usize| {
            let mut each = (0..measures.len()).map(|objective| (low(a, objective), low(b, objective)));
            each.clone().all(|(a, b)| a <= b) && each.any(|(a, b)| a < b)
        };
        let mut members: Vec<usize> =
            (0..all.len()).filter(|place| !(0..all.len()).any(|other| is_ahead(other, *place))).collect();
        members.sort_by(|a, b| low(*a, 0).total_cmp(&low(*b, 0)));
        (!members.is_empty()).then_some(Self { measures, all, members })
    }
}
