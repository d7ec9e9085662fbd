//! Plots: SVG that reads on light and dark pages, in colours that colour-blind readers can tell apart.

mod axis;
mod calibration;
mod canvas;
mod cost;
mod curves;
mod front;
mod images;
mod importance;
mod matrix;
mod parallel;
mod settings;

use std::collections::HashSet;

use plotters::prelude::RGBColor;

use crate::ReportError;
use crate::analysis::{Analysis, Configuration};
use crate::frames::Curves;
use crate::study::Study;
use canvas::PALETTE;
pub use canvas::Plot;

/// Width of a plot, in pixels.
const WIDTH: f64 = 620.0;

/// What all plots are drawn from.
pub struct Scene<'a> {
    /// The rows.
    pub study: &'a Study,
    /// The findings.
    pub analysis: &'a Analysis<'a>,
    /// Learning curves.
    pub curves: &'a Curves,
}

impl Scene<'_> {
    /// A network keeps its colour through all plots.
    fn color(&self, network: &str) -> RGBColor {
        let mut names = self.analysis.networks();
        names.sort_unstable();
        let index = names.iter().position(|name| *name == network).unwrap_or(0);
        PALETTE[index % PALETTE.len()]
    }

    /// The chosen configurations that curves are drawn for: as many as the palette has colours.
    fn chosen(&self) -> impl Iterator<Item = &Configuration<'_>> {
        self.analysis.chosen().take(PALETTE.len())
    }
}

/// Plots grouped as the page shows them.
#[derive(Clone, Debug, Default)]
pub struct Plots {
    /// Accuracy against training time, time and memory.
    pub cost: Vec<Plot>,
    /// Fronts of several objectives.
    pub front: Vec<Plot>,
    /// Learning curves of the chosen configurations.
    pub learning: Vec<Plot>,
    /// Accuracy against swept keys, λ first, heat maps after.
    pub settings: Vec<Plot>,
    /// Which keys matter.
    pub importance: Vec<Plot>,
    /// Schedules with the curves under them.
    pub schedules: Vec<Plot>,
    /// Generalization gaps.
    pub gaps: Vec<Plot>,
    /// Confusion matrices, pairs that are confused.
    pub confusion: Vec<Plot>,
    /// Mistakes made with most confidence.
    pub mistakes: Vec<Plot>,
    /// Reliability diagram.
    pub calibration: Vec<Plot>,
    /// Filters of the first convolution.
    pub filters: Vec<Plot>,
}

impl Plots {
    /// Draws whatever there is data for.
    pub fn of(scene: &Scene<'_>) -> Result<Self, ReportError> {
        let mut plots = Self {
            cost: [settings::cost(scene)?, cost::cost(scene)?].concat(),
            front: front::front(scene)?,
            learning: curves::learning(scene)?,
            settings: [settings::against(scene)?, matrix::heat(scene)?, parallel::parallel(scene)?].concat(),
            importance: importance::importance(scene)?,
            schedules: curves::schedules(scene)?,
            gaps: settings::gaps(scene)?,
            confusion: [matrix::confusion(scene)?, images::pairs(scene)?].concat(),
            mistakes: images::mistakes(scene)?,
            calibration: calibration::calibration(scene)?,
            filters: images::filters(scene)?,
        };
        plots.name_apart();
        Ok(plots)
    }

    /// Networks with like names must not share a file.
    fn name_apart(&mut self) {
        let mut taken = HashSet::new();
        for plot in self.groups_mut().into_iter().flatten() {
            let name = plot.name.clone();
            let mut number = 2;
            while !taken.insert(plot.name.clone()) {
                plot.name = format!("{name}-{number}");
                number += 1;
            }
        }
    }

    fn groups_mut(&mut self) -> [&mut Vec<Plot>; 11] {
        [
            &mut self.cost,
            &mut self.front,
            &mut self.learning,
            &mut self.settings,
            &mut self.importance,
            &mut self.schedules,
            &mut self.gaps,
            &mut self.confusion,
            &mut self.mistakes,
            &mut self.calibration,
            &mut self.filters,
        ]
    }

    /// All of them, in the order of the page.
    pub fn all(&self) -> impl Iterator<Item = &Plot> {
        [
            &self.cost,
            &self.front,
            &self.learning,
            &self.settings,
            &self.importance,
            &self.schedules,
            &self.gaps,
            &self.confusion,
            &self.mistakes,
            &self.calibration,
            &self.filters,
        ]
        .into_iter()
        .flatten()
    }
}

/// A file name out of words: lower-case letters, digits and dashes.
fn slug(words: &str) -> String {
    let mut out = String::new();
    for c in words.chars() {
        if c.is_ascii_alphanumeric() {
            out.push(c.to_ascii_lowercase());
        } else if !out.is_empty() && !out.ends_with('-') {
            out.push('-');
        }
    }
    let out = out.trim_end_matches('-').to_owned();
    if out.is_empty() { "plot".to_owned() } else { out.chars().take(40).collect() }
}
