//! Accuracy against a swept key, generalization gaps, accuracy against time.

use serde_json::Value;

use super::axis::{Axis, Panel, plain_tick};
use super::canvas::{Align, INK, Key, NORMAL, PALETTE, Plot, SMALL, draw, fit, text_width};
use super::{Scene, WIDTH, slug};
use crate::ReportError;
use crate::analysis::Configuration;
use crate::naming;
use crate::statistics::Estimate;
use crate::text;

/// At most so many bars.
const MOST_BARS: usize = 14;

/// More different numbers than this were drawn from a distribution rather than listed, and so were fewer that no two configurations share.
const MOST_LISTED: usize = 12;

/// One series: its name, its network, and the estimate at each value of the key.
type Series = (String, String, Vec<(f64, Estimate)>);

fn number(configuration: &Configuration<'_>, key: &str) -> Option<f64> {
    configuration.assignments.iter().find(|(name, _)| name == key).and_then(|(_, value)| value.as_f64())
}

/// Series of validation accuracy over a key: one per setting of the other keys, or, where those are too many, one per
/// network with the best setting of the others at each value.
fn series(scene: &Scene<'_>, key: &str) -> (Vec<Series>, bool) {
    let mut exact: Vec<Series> = Vec::new();
    let mut best: Vec<Series> = Vec::new();
    for configuration in &scene.analysis.configurations {
        let (Some(value), Some(estimate)) = (number(configuration, key), configuration.validation) else { continue };
        let others: Vec<(String, Value)> =
            configuration.assignments.iter().filter(|(name, _)| name != key).cloned().collect();
        let name = format!("{} {}", configuration.network, naming::assignments(&others)).trim_end().to_owned();
        for (all, name) in [(&mut exact, name), (&mut best, configuration.network.clone())] {
            let index = all.iter().position(|(seen, ..)| *seen == name).unwrap_or_else(|| {
                all.push((name, configuration.network.clone(), Vec::new()));
                all.len() - 1
            });
            // Configurations come best first, so the first one at a value stays.
            let points = &mut all[index].2;
            if !points.iter().any(|(seen, _)| *seen == value) {
                points.push((value, estimate));
            }
        }
    }
    let many = exact.len() > PALETTE.len();
    let mut chosen = if many { best } else { exact };
    chosen.truncate(PALETTE.len());
    for (.., points) in &mut chosen {
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
    }
    chosen.retain(|(.., points)| points.len() > 1);
    (chosen, many)
}

/// Validation accuracy against each numeric key that takes several values; λ first.
pub fn against(scene: &Scene<'_>) -> Result<Vec<Plot>, ReportError> {
    let mut keys: Vec<String> = scene.analysis.swept().into_iter().map(|(key, _)| key).collect();
    keys.sort_by_key(|key| key != "train.weight_decay");
    let mut plots = Vec::new();
    for key in keys {
        let (series, many) = series(scene, &key);
        let values: Vec<f64> = series.iter().flat_map(|(.., points)| points.iter().map(|(value, _)| *value)).collect();
        if values.is_empty() {
            continue;
        }
        let mut distinct = values.clone();
        distinct.sort_by(f64::total_cmp);
        distinct.dedup();
        let positive: Vec<f64> = distinct.iter().copied().filter(|value| *value > 0.0).collect();
        let log = key == "train.weight_decay"
            || positive.first().zip(positive.last()).is_some_and(|(low, high)| *high >= 10.0 * low)
                && distinct.iter().all(|value| *value >= 0.0);
        let short = naming::key(&key);
        let axis_title = naming::axis(&key);
        let x = if log && distinct.iter().all(|value| *value >= 0.0) {
            Axis::log(&format!("{axis_title}, log"), &distinct, distinct.len() <= 9)
        } else {
            Axis::linear(&axis_title, distinct.iter().copied(), plain_tick)
        };
        let y = Axis::accuracy_curves(
            "validation accuracy",
            series.iter().flat_map(|(.., points)| {
                points.iter().flat_map(|(_, e)| [e.mean - e.std.unwrap_or(0.0), e.mean + e.std.unwrap_or(0.0)])
            }),
        );
        let one_each = {
            let mut networks: Vec<&String> = series.iter().map(|(_, network, _)| network).collect();
            networks.sort();
            networks.windows(2).all(|pair| pair[0] != pair[1])
        };
        let color = |index: usize, network: &str| {
            if one_each { scene.color(network) } else { PALETTE[index % PALETTE.len()] }
        };
        let legend: Vec<(String, Key)> = series
            .iter()
            .enumerate()
            .map(|(index, (name, network, _))| {
                (name.clone(), Key::Marker { series: index, color: color(index, network) })
            })
            .collect();
        let mut caption = format!(
            "Validation accuracy at each run's last epoch against {axis_title}: mean over seeds, bars of one standard \
             deviation."
        );
        // Values that were drawn, not listed: the other keys differ from point to point, and a line would join what is unlike.
        let with_key =
            scene.analysis.configurations.iter().filter(|c| c.validation.is_some() && number(c, &key).is_some());
        let drawn = distinct.len() > MOST_LISTED || many && values.len() == with_key.count();
        if drawn {
            caption.push_str(" Every point has other values of the other keys, so the points are not joined.");
        } else if many {
            caption.push_str(" The other swept keys stand, at each value, where validation is best.");
        }
        if log && distinct.contains(&0.0) {
            caption.push_str(" The axis is logarithmic, with a place of its own for 0.");
        }
        let title = format!("Accuracy against {short}");
        let name = format!("accuracy-{}", slug(key.rsplit('.').next().unwrap_or(&key)));
        plots.push(draw(&name, &title, &caption, (WIDTH, 400.0), |canvas| {
            let used = canvas.legend(16.0, 48.0, WIDTH - 32.0, &legend);
            let panel = Panel::inside((12.0, 48.0 + used, WIDTH - 16.0, 396.0), x, y);
            panel.frame(canvas);
            let count = series.len() as f64;
            for (index, (_, network, points)) in series.iter().enumerate() {
                let color = color(index, network);
                // Series step aside, so that their bars do not hide each other.
                let aside = if drawn { 0.0 } else { (index as f64 - (count - 1.0) / 2.0) * 5.0 };
                let place = |value: f64, accuracy: f64| {
                    let (x, y) = panel.at(value, accuracy);
                    (x + aside, y)
                };
                // The line does not bridge the break of the axis.
                let line: Vec<(f64, f64)> =
                    points.iter().filter(|(v, _)| !log || *v > 0.0).map(|(v, e)| place(*v, e.mean)).collect();
                if line.len() > 1 && !drawn {
                    canvas.path(&line, color, 1.8, 1.0);
                }
                for (value, estimate) in points {
                    if let Some(std) = estimate.std {
                        let high = place(*value, estimate.mean + std).1;
                        canvas.error_bar(
                            place(*value, estimate.mean).0,
                            place(*value, estimate.mean - std).1,
                            high,
                            color,
                        );
                    }
                    canvas.marker(place(*value, estimate.mean), index, color);
                }
            }
        })?);
    }
    Ok(plots)
}

/// Training less validation accuracy of the configurations that validation likes best.
pub fn gaps(scene: &Scene<'_>) -> Result<Vec<Plot>, ReportError> {
    let networks = scene.analysis.networks();
    let each = (MOST_BARS / networks.len().max(1)).max(1);
    let bars: Vec<(String, String, Estimate)> = networks
        .iter()
        .flat_map(|network| scene.analysis.of_network(network).take(each))
        .filter_map(|c| Some((c.label(), c.network.clone(), c.estimate(crate::study::Run::generalization_gap)?)))
        .collect();
    if bars.is_empty() {
        return Ok(Vec::new());
    }
    let edges = bars.iter().flat_map(|(.., e)| {
        let std = e.std.unwrap_or(0.0);
        [e.mean - std, e.mean + std, 0.0]
    });
    let labels_wide = bars.iter().map(|(label, ..)| text_width(label, SMALL)).fold(60.0, f64::max).min(250.0);
    let mut x =
        Axis::linear("training − validation accuracy (percentage points)", edges.map(|edge| 100.0 * edge), plain_tick);
    x.widen(0.12);
    let height = 48.0 + bars.len() as f64 * 24.0 + 54.0;
    let caption = format!(
        "Training less validation accuracy at the epoch that validation chose, mean over seeds with one standard deviation{}. \
         Training accuracy is taken while training: with dropout or augmentation the gap may be negative.",
        if scene.analysis.configurations.len() > bars.len() { "; the best configurations by validation" } else { "" }
    );
    let plot = draw("generalization-gap", "Generalization gap", &caption, (WIDTH, height), |canvas| {
        let left = 16.0 + labels_wide + 10.0;
        let (width, top, bottom) = (WIDTH - 32.0 - left, 44.0, height - 54.0);
        let place = |points: f64| left + x.place(points) * width;
        for (value, label) in x.ticks() {
            canvas.path(&[(place(*value), top), (place(*value), bottom)], INK, 0.75, 0.18);
            canvas.text(place(*value), bottom + 14.0, label, SMALL, Align::Middle);
        }
        for (index, (label, network, estimate)) in bars.iter().enumerate() {
            let y = top + (index as f64 + 0.5) * 24.0 + 2.0;
            let mean = 100.0 * estimate.mean;
            canvas.text(left - 8.0, y, &fit(label, SMALL, labels_wide), SMALL, Align::End);
            canvas.rectangle((place(0.0), y - 8.0), (place(mean), y + 8.0), scene.color(network), 0.85);
            let std = 100.0 * estimate.std.unwrap_or(0.0);
            if std > 0.0 {
                let (low, high) = (place(mean - std), place(mean + std));
                canvas.path(&[(low, y), (high, y)], INK, 1.25, 0.8);
                for x in [low, high] {
                    canvas.path(&[(x, y - 4.0), (x, y + 4.0)], INK, 1.25, 0.8);
                }
            }
            // The number stands beyond the bar and its whisker, on the side away from zero.
            let (edge, align) = if mean < 0.0 {
                (place(mean - std) - 6.0, Align::End)
            } else {
                (place(mean + std) + 6.0, Align::Start)
            };
            canvas.text(edge, y, &text::points(estimate.mean), SMALL, align);
        }
        canvas.path(&[(place(0.0), top), (place(0.0), bottom)], INK, 1.0, 0.7);
        canvas.text(left + width / 2.0, bottom + 36.0, x.title(), NORMAL, Align::Middle);
    })?;
    Ok(vec![plot])
}

/// Validation accuracy against training time, one point per configuration.
pub fn cost(scene: &Scene<'_>) -> Result<Vec<Plot>, ReportError> {
    let points: Vec<(String, f64, Estimate, usize)> = scene
        .analysis
        .configurations
        .iter()
        .enumerate()
        .filter_map(|(index, c)| {
            let seconds = c.estimate(crate::study::Run::train_seconds)?.mean;
            (seconds > 0.0).then_some((c.network.clone(), seconds, c.validation?, index))
        })
        .collect();
    let seconds: Vec<f64> = points.iter().map(|(_, seconds, ..)| *seconds).collect();
    if points.len() < 2 {
        return Ok(Vec::new());
    }
    let x = Axis::log("training time of one run (s), log", &seconds, false);
    // Bars of many points hide each other.
    let spread = |estimate: &Estimate| if points.len() > MOST_BARS { None } else { estimate.std };
    let with_bars = points.iter().any(|(_, _, estimate, _)| spread(estimate).is_some());
    let edges = points.iter().flat_map(|(_, _, estimate, _)| {
        let std = spread(estimate).unwrap_or(0.0);
        [estimate.mean - std, estimate.mean + std]
    });
    let y = Axis::accuracy_curves("validation accuracy", edges);
    let mut networks = scene.analysis.networks();
    networks.truncate(PALETTE.len());
    let legend: Vec<(String, Key)> = networks
        .iter()
        .enumerate()
        .map(|(index, network)| ((*network).to_owned(), Key::Marker { series: index, color: scene.color(network) }))
        .collect();
    let bars = if with_bars { ", with bars of one standard deviation of the accuracy" } else { "" };
    let caption = format!("One point per configuration, mean over seeds{bars}; up and to the left is better.");
    let plot = draw("accuracy-time", "Accuracy against training time", &caption, (WIDTH, 400.0), |canvas| {
        let used = canvas.legend(16.0, 48.0, WIDTH - 32.0, &legend);
        let panel = Panel::inside((12.0, 48.0 + used, WIDTH - 16.0, 396.0), x, y);
        panel.frame(canvas);
        for (network, seconds, estimate, _) in &points {
            let series = networks.iter().position(|name| name == network).unwrap_or(0);
            if let Some(std) = spread(estimate) {
                let (x, low) = panel.at(*seconds, estimate.mean - std);
                canvas.error_bar(x, low, panel.at(*seconds, estimate.mean + std).1, scene.color(network));
            }
            canvas.marker(panel.at(*seconds, estimate.mean), series, scene.color(network));
        }
    })?;
    Ok(vec![plot])
}
