//! Plots: SVG that reads on light and dark pages, in colours that colour-blind readers can tell apart.

mod axis;
mod canvas;
mod curves;
mod matrix;
mod settings;

use std::collections::HashSet;

use plotters::prelude::RGBColor;

use crate::ReportError;
use crate::analysis::{Analysis, Configuration};
use crate::frames::Curves;
use crate::study::Study;
use canvas::PALETTE;
pub use canvas::Plot;
pub use matrix::confusion_counts;

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
    /// Learning curves of the chosen configurations.
    pub learning: Vec<Plot>,
    /// Accuracy against swept keys, λ first, heat maps after.
    pub settings: Vec<Plot>,
    /// Schedules with the curves under them.
    pub schedules: Vec<Plot>,
    /// Generalization gaps.
    pub gaps: Vec<Plot>,
    /// Accuracy against training time.
    pub cost: Vec<Plot>,
    /// Confusion matrices.
    pub confusion: Vec<Plot>,
}

impl Plots {
    /// Draws whatever there is data for.
    pub fn of(scene: &Scene<'_>) -> Result<Self, ReportError> {
        let mut plots = Self {
            learning: curves::learning(scene)?,
            settings: [settings::against(scene)?, matrix::heat(scene)?].concat(),
            schedules: curves::schedules(scene)?,
            gaps: settings::gaps(scene)?,
            cost: settings::cost(scene)?,
            confusion: matrix::confusion(scene)?,
        };
        plots.name_apart();
        Ok(plots)
    }

    /// Networks with like names must not share a file.
    fn name_apart(&mut self) {
        let mut taken = HashSet::new();
        let groups = [
            &mut self.learning,
            &mut self.settings,
            &mut self.schedules,
            &mut self.gaps,
            &mut self.cost,
            &mut self.confusion,
        ];
        for plot in groups.into_iter().flatten() {
            let name = plot.name.clone();
            let mut number = 2;
            while !taken.insert(plot.name.clone()) {
                plot.name = format!("{name}-{number}");
                number += 1;
            }
        }
    }

    /// All of them, in the order of the page.
    pub fn all(&self) -> impl Iterator<Item = &Plot> {
        [&self.learning, &self.settings, &self.schedules, &self.gaps, &self.cost, &self.confusion].into_iter().flatten()
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
