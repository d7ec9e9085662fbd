//! Fronts of several objectives.

use plotters::prelude::RGBColor;

use super::axis::{Axis, Panel, plain_tick};
use super::canvas::{Align, INK, Key, PALETTE, Plot, SMALL, draw};
use super::{Scene, WIDTH, slug};
use crate::ReportError;
use crate::front::{Front, Measure};

/// Configurations that others are better than.
const BEHIND: RGBColor = RGBColor(0xA0, 0xA0, 0xA0);

fn axis(measure: &Measure, values: &[f64]) -> Axis {
    let (low, high) = values.iter().fold((f64::INFINITY, 0.0_f64), |(low, high), v| (low.min(*v), high.max(*v)));
    if measure.is_accuracy {
        Axis::accuracy_curves(measure.title, values.iter().copied())
    } else if low > 0.0 && high >= 5.0 * low {
        Axis::log(&format!("{}, log", measure.title), values, false)
    } else {
        let mut axis = Axis::linear(measure.title, values.iter().copied(), plain_tick);
        axis.widen(0.04);
        axis
    }
}

/// The first objective against each other one.
pub fn front(scene: &Scene<'_>) -> Result<Vec<Plot>, ReportError> {
    let Some(front) = Front::of(scene.study, scene.analysis) else { return Ok(Vec::new()) };
    let mut networks = scene.analysis.networks();
    networks.truncate(PALETTE.len());
    let series = |network: &str| networks.iter().position(|name| *name == network).unwrap_or(0);
    let column = |objective: usize| front.all.iter().map(|(_, values)| values[objective]).collect::<Vec<f64>>();
    let mut plots = Vec::new();
    for (objective, measure) in front.measures.iter().enumerate().skip(1) {
        let (y, x) = (axis(front.measures[0], &column(0)), axis(measure, &column(objective)));
        let mut legend: Vec<(String, Key)> = networks
            .iter()
            .map(|name| {
                let key = Key::Marker { series: series(name), color: scene.color(name) };
                (format!("{name}, at the front"), key)
            })
            .collect();
        legend.push(("behind it".to_owned(), Key::Marker { series: 0, color: BEHIND }));
        let two = front.measures.len() == 2;
        let up = if front.measures[0].is_accuracy { "up" } else { "down" };
        let left = if measure.is_accuracy { "right" } else { "left" };
        let of = if two { "both" } else { "all objectives" };
        let caption = format!(
            "One point per configuration, mean over seeds; {up} and to the {left} is better. No configuration is better in {of} than one at \
             the front; the numbers are those of the table."
        );
        let title = format!("Front of {} and {}", front.measures[0].short, measure.short);
        plots.push(draw(&format!("front-{}", slug(measure.short)), &title, &caption, (WIDTH, 420.0), |canvas| {
            let used = canvas.legend(16.0, 48.0, WIDTH - 32.0, &legend);
            let panel = Panel::inside((12.0, 48.0 + used, WIDTH - 16.0, 416.0), x, y);
            panel.frame(canvas);
            let at = |place: usize| {
                let values = &front.all[place].1;
                panel.at(values[objective], values[0])
            };
            for place in (0..front.all.len()).filter(|place| !front.members.contains(place)) {
                canvas.marker(at(place), series(&front.all[place].0.network), BEHIND);
            }
            if two {
                // Steps: what lies on their far side is behind the front.
                let corners: Vec<(f64, f64)> = front.members.iter().map(|place| at(*place)).collect();
                let mut steps: Vec<(f64, f64)> = Vec::new();
                for pair in corners.windows(2) {
                    steps.extend([pair[0], (pair[0].0, pair[1].1)]);
                }
                steps.extend(corners.last());
                if steps.len() > 1 {
                    canvas.path(&steps, INK, 1.2, 0.5);
                }
            }
            for (number, place) in front.members.iter().enumerate() {
                let network = &front.all[*place].0.network;
                let (x, y) = at(*place);
                canvas.marker((x, y), series(network), scene.color(network));
                canvas.halo(x - 8.0, y - 9.0, &(number + 1).to_string(), SMALL, Align::End);
            }
        })?);
    }
    Ok(plots)
}
