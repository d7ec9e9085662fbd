//! Learning curves with bands over seeds, and schedules with the curves under them.

use plotters::prelude::RGBColor;

use super::axis::{Axis, Panel, plain_tick};
use super::canvas::{Canvas, Key, PALETTE, Plot, draw};
use super::{Scene, WIDTH, slug};
use crate::ReportError;
use crate::analysis::Configuration;
use crate::frames::Point;
use crate::naming;

/// A validation curve is strong, the training curve beside it faint.
const STRONG: (f64, f64) = (2.4, 1.0);
const FAINT: (f64, f64) = (1.2, 0.65);

fn band(canvas: &mut Canvas<'_>, panel: &Panel, points: &[Point], color: RGBColor, floor: f64) {
    if points.len() < 2 || points.iter().all(|point| point.std == 0.0) {
        return;
    }
    let upper = points.iter().map(|point| panel.at(f64::from(point.epoch), point.mean + point.std));
    let lower = points.iter().rev().map(|point| panel.at(f64::from(point.epoch), (point.mean - point.std).max(floor)));
    canvas.polygon(&upper.chain(lower).collect::<Vec<_>>(), color, 0.18);
}

fn line(canvas: &mut Canvas<'_>, panel: &Panel, points: &[Point], color: RGBColor, (width, opacity): (f64, f64)) {
    let pixels: Vec<(f64, f64)> = points.iter().map(|point| panel.at(f64::from(point.epoch), point.mean)).collect();
    if let [only] = pixels[..] {
        canvas.marker(only, 0, color);
    } else if !pixels.is_empty() {
        canvas.path(&pixels, color, width, opacity);
    }
}

/// A learning rate holds for its epoch: steps, not slopes.
fn steps(canvas: &mut Canvas<'_>, panel: &Panel, points: &[Point], color: RGBColor) {
    let pixels: Vec<(f64, f64)> = points
        .iter()
        .flat_map(|point| [-0.5, 0.5].map(|half| panel.at(f64::from(point.epoch) + half, point.mean)))
        .collect();
    canvas.path(&pixels, color, 2.0, 1.0);
}

/// Markers on some epochs, so that series can be told apart without colour.
fn markers(canvas: &mut Canvas<'_>, panel: &Panel, points: &[Point], series: usize, color: RGBColor) {
    let every = points.len().div_ceil(10).max(1);
    for point in points.iter().skip((series * every / 3).min(points.len().saturating_sub(1))).step_by(every) {
        canvas.marker(panel.at(f64::from(point.epoch), point.mean), series, color);
    }
}

fn last_epoch<'p>(curves: impl Iterator<Item = &'p [Point]>) -> u32 {
    curves.filter_map(|points| points.last()).map(|point| point.epoch).max().unwrap_or(1)
}

fn edges_of(point: &Point) -> [f64; 2] {
    [point.mean - point.std, point.mean + point.std]
}

fn edges(points: &[Point]) -> impl Iterator<Item = f64> {
    points.iter().flat_map(edges_of)
}

/// Accuracy and loss of the chosen configurations, training and validation.
pub fn learning(scene: &Scene<'_>) -> Result<Vec<Plot>, ReportError> {
    let mut plots = Vec::new();
    for (measure, title, axis_title) in [
        ("top1", "Accuracy while training", "accuracy"),
        ("loss", "Loss while training", "cross-entropy (nats per image)"),
    ] {
        let (train, validation) = (format!("train_{measure}"), format!("validation_{measure}"));
        let series: Vec<(&Configuration<'_>, RGBColor, &[Point], &[Point])> = scene
            .chosen()
            .map(|chosen| {
                let get = |name: &str| scene.curves.get(chosen.key, name);
                (chosen, scene.color(&chosen.network), get(&train), get(&validation))
            })
            .collect();
        let all = || series.iter().flat_map(|(_, _, train, validation)| [*train, *validation]);
        if all().all(<[Point]>::is_empty) {
            continue;
        }
        let x = Axis::epochs(last_epoch(all()));
        let means: Vec<f64> = all().flatten().map(|point| point.mean).filter(|mean| *mean > 0.0).collect();
        let (low, high) = means.iter().fold((f64::INFINITY, 0.0_f64), |(l, h), mean| (l.min(*mean), h.max(*mean)));
        let (y, floor) = if measure == "top1" {
            (
                Axis::accuracy_curves(axis_title, all().flat_map(edges).collect::<Vec<_>>().into_iter()),
                f64::NEG_INFINITY,
            )
        } else if high > 20.0 * low {
            (Axis::log(&format!("{axis_title}, log"), &means, false), 0.5 * low)
        } else {
            (Axis::linear(axis_title, all().flat_map(edges), plain_tick), f64::NEG_INFINITY)
        };
        let mut legend = Vec::new();
        for (chosen, color, train, validation) in &series {
            for (points, part, (width, opacity)) in [(validation, "validation", STRONG), (train, "training", FAINT)] {
                if !points.is_empty() {
                    legend.push((format!("{}, {part}", chosen.network), Key::Line { color: *color, width, opacity }));
                }
            }
        }
        let caption = "Mean over seeds of the configuration that validation chose for each network; the band is one \
                       standard deviation over seeds. Training values are taken while training, with augmentation \
                       and dropout on.";
        plots.push(draw(&format!("learning-{measure}"), title, caption, (WIDTH, 400.0), |canvas| {
            let used = canvas.legend(16.0, 48.0, WIDTH - 32.0, &legend);
            let panel = Panel::inside((12.0, 48.0 + used, WIDTH - 16.0, 396.0), x, y);
            panel.frame(canvas);
            for (_, color, train, validation) in &series {
                band(canvas, &panel, validation, *color, floor);
                line(canvas, &panel, train, *color, FAINT);
                line(canvas, &panel, validation, *color, STRONG);
            }
        })?);
    }
    Ok(plots)
}

/// The least learning rate that is drawn where it is, as a share of the highest.
const LEAST_RATE: f64 = 1e-3;

/// A configuration under the name that the legend gives it.
type Named<'a> = (String, &'a Configuration<'a>);

/// For each network: the learning rate of each schedule by epoch, and under it what validation said.
pub fn schedules(scene: &Scene<'_>) -> Result<Vec<Plot>, ReportError> {
    let schedule = |configuration: &Configuration<'_>| -> Option<String> {
        let assigned = configuration.assignments.iter().find(|(key, _)| key == "train.schedule");
        assigned.map(|(_, value)| naming::value(value))
    };
    let swept = scene.analysis.swept().iter().any(|(key, _)| key == "train.schedule");
    // A schedule has one colour in all figures.
    let mut known: Vec<String> = scene.analysis.configurations.iter().filter_map(schedule).collect();
    known.sort();
    known.dedup();
    // One figure per network where schedules were swept, else one figure of the chosen configurations.
    let mut figures: Vec<(String, String, Vec<Named<'_>>)> = Vec::new();
    if swept {
        for network in scene.analysis.networks() {
            let mut series: Vec<Named<'_>> = Vec::new();
            for configuration in scene.analysis.of_network(network) {
                if let Some(name) = schedule(configuration)
                    && !series.iter().any(|(seen, _)| *seen == name)
                {
                    series.push((name, configuration));
                }
            }
            series.truncate(PALETTE.len());
            series.sort_by(|(a, _), (b, _)| a.cmp(b));
            figures.push((
                format!("schedules-{}", slug(network)),
                format!("Learning-rate schedules of {network}"),
                series,
            ));
        }
    } else {
        let series = scene.chosen().map(|chosen| (chosen.network.clone(), chosen)).collect();
        figures.push(("schedules".into(), "Learning rate and validation accuracy".into(), series));
    }
    let mut plots = Vec::new();
    for (name, title, series) in figures {
        let told = |configuration: &Configuration<'_>| scene.curves.get(configuration.key, "learning_rate");
        // The last step of a cosine is next to nothing, and would press all others together.
        let highest = series.iter().flat_map(|(_, c)| told(c)).map(|point| point.mean).fold(0.0_f64, f64::max);
        let floor = highest * LEAST_RATE;
        let is_cut = series.iter().flat_map(|(_, c)| told(c)).any(|point| point.mean < floor);
        let rates = |configuration: &Configuration<'_>| -> Vec<Point> {
            told(configuration).iter().map(|point| Point { mean: point.mean.max(floor), ..*point }).collect()
        };
        let accuracy = |configuration: &Configuration<'_>| scene.curves.get(configuration.key, "validation_top1");
        let last = last_epoch(series.iter().map(|(_, configuration)| told(configuration)));
        let all: Vec<f64> = series.iter().flat_map(|(_, c)| rates(c)).map(|point| point.mean).collect();
        if all.is_empty() || series.iter().all(|(_, c)| accuracy(c).is_empty()) {
            continue;
        }
        let mut upper_x = Axis::epochs(last);
        upper_x.untitled();
        let lowest = all.iter().copied().fold(f64::INFINITY, f64::min);
        let upper_y = if highest > 3.0 * lowest {
            Axis::log("learning rate, log", &all, false)
        } else {
            Axis::linear("learning rate", all.iter().copied().chain([0.0]), plain_tick)
        };
        let points = series.iter().flat_map(|(_, configuration)| accuracy(configuration));
        let lower_y =
            Axis::accuracy_curves("validation accuracy", points.flat_map(edges_of).collect::<Vec<_>>().into_iter());
        let place = |index: usize, name: &String| known.iter().position(|known| known == name).unwrap_or(index);
        let color = |index: usize, network: &str| {
            if swept { PALETTE[index % PALETTE.len()] } else { scene.color(network) }
        };
        let legend: Vec<(String, Key)> = series
            .iter()
            .enumerate()
            .map(|(index, (name, c))| {
                let index = place(index, name);
                (name.clone(), Key::Marker { series: index, color: color(index, &c.network) })
            })
            .collect();
        let mut caption =
            "Above, the learning rate of each epoch's last step; below, the mean validation accuracy over \
                           seeds under it, with a band of one standard deviation."
                .to_owned();
        if is_cut {
            caption += " Rates below a thousandth of the highest stand at the bottom.";
        }
        if swept {
            caption += " Each schedule is shown with the other settings that validation likes best.";
        }
        plots.push(draw(&name, &title, &caption, (WIDTH, 560.0), |canvas| {
            let used = canvas.legend(16.0, 48.0, WIDTH - 32.0, &legend);
            let top = 48.0 + used;
            let middle = top + 0.38 * (556.0 - top);
            let mut upper = Panel::inside((12.0, top, WIDTH - 16.0, middle), upper_x, upper_y);
            let mut lower = Panel::inside((12.0, middle + 14.0, WIDTH - 16.0, 556.0), Axis::epochs(last), lower_y);
            // The epochs of both panels stand above each other.
            let left = upper.left.max(lower.left);
            for panel in [&mut upper, &mut lower] {
                panel.width -= left - panel.left;
                panel.left = left;
                panel.frame(canvas);
            }
            for (index, (name, configuration)) in series.iter().enumerate() {
                let index = place(index, name);
                let color = color(index, &configuration.network);
                steps(canvas, &upper, &rates(configuration), color);
                markers(canvas, &upper, &rates(configuration), index, color);
                band(canvas, &lower, accuracy(configuration), color, f64::NEG_INFINITY);
                line(canvas, &lower, accuracy(configuration), color, (2.0, 1.0));
                markers(canvas, &lower, accuracy(configuration), index, color);
            }
        })?);
    }
    Ok(plots)
}
