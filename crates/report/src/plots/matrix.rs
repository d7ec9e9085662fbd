//! Heat maps of two swept keys, and confusion matrices.

use plotters::prelude::{BLACK, RGBColor, WHITE};

use super::canvas::{Align, Canvas, INK, NORMAL, Plot, SMALL, draw, fit, text_width};
use super::{Scene, WIDTH, slug};
use crate::ReportError;
use crate::naming;
use crate::study::Predictions;
use crate::text;

/// A matrix with more classes than this would not be legible.
const MOST_CLASSES: usize = 40;

/// Least share of the pairs of values that were run, for a heat map to show more than gaps: values that were drawn rarely meet again.
const LEAST_FILLED: f64 = 0.25;

/// A colour scale from dark blue to yellow that is even to the eye and to colour-blind eyes (after cividis: Nuñez,
/// Anderton and Renslow 2018), at nine places.
const SCALE: [(f64, f64, f64); 9] = [
    (0.0, 34.0, 78.0),
    (18.0, 53.0, 112.0),
    (59.0, 73.0, 108.0),
    (87.0, 93.0, 109.0),
    (112.0, 113.0, 115.0),
    (138.0, 134.0, 120.0),
    (165.0, 156.0, 116.0),
    (195.0, 179.0, 105.0),
    (254.0, 232.0, 56.0),
];

fn scale(share: f64) -> RGBColor {
    let place = share.clamp(0.0, 1.0) * (SCALE.len() - 1) as f64;
    let index = (place.floor() as usize).min(SCALE.len() - 2);
    let (a, b, t) = (SCALE[index], SCALE[index + 1], place - index as f64);
    let mix = |a: f64, b: f64| (a + t * (b - a)).round() as u8;
    RGBColor(mix(a.0, b.0), mix(a.1, b.1), mix(a.2, b.2))
}

/// Text on a cell: black or white, whichever stands out more.
fn contrast(cell: RGBColor) -> RGBColor {
    let light = 0.299 * f64::from(cell.0) + 0.587 * f64::from(cell.1) + 0.114 * f64::from(cell.2);
    if light > 125.0 { BLACK } else { WHITE }
}

/// The colour scale with its ends written out.
fn key(canvas: &mut Canvas<'_>, (x, y): (f64, f64), height: f64, low: &str, high: &str) {
    for index in 0..64 {
        let share = f64::from(index) / 63.0;
        let top = y + height * (1.0 - f64::from(index + 1) / 64.0);
        canvas.rectangle((x, top - 0.3), (x + 14.0, top + height / 64.0 + 0.3), scale(share), 1.0);
    }
    canvas.text(x + 20.0, y + 5.0, high, SMALL, Align::Start);
    canvas.text(x + 20.0, y + height - 5.0, low, SMALL, Align::Start);
}

/// For each network that sweeps two keys: validation accuracy over the two that matter most.
pub fn heat(scene: &Scene<'_>) -> Result<Vec<Plot>, ReportError> {
    let mut plots = Vec::new();
    for network in scene.analysis.networks() {
        let keys = scene.analysis.ranked_keys(network);
        let [across, down, ..] = keys[..] else { continue };
        // Numbers run along the horizontal axis where only one of the keys is numeric.
        let numeric = |key: &str| {
            scene.analysis.of_network(network).all(|c| c.assignments.iter().any(|(k, v)| k == key && v.is_number()))
        };
        let (across, down) = if numeric(down) && !numeric(across) { (down, across) } else { (across, down) };
        let mut columns: Vec<serde_json::Value> = Vec::new();
        let mut rows: Vec<serde_json::Value> = Vec::new();
        let mut cells: Vec<(usize, usize, f64)> = Vec::new();
        let mut hidden = false;
        for configuration in scene.analysis.of_network(network) {
            let get = |key: &str| configuration.assignments.iter().find(|(name, _)| name == key).map(|(_, v)| v);
            let (Some(a), Some(b), Some(estimate)) = (get(across), get(down), configuration.validation) else {
                continue;
            };
            let index = |values: &mut Vec<serde_json::Value>, value: &serde_json::Value| {
                values.iter().position(|seen| seen == value).unwrap_or_else(|| {
                    values.push(value.clone());
                    values.len() - 1
                })
            };
            let (column, row) = (index(&mut columns, a), index(&mut rows, b));
            // Configurations come best first: the first one at a place stays.
            if cells.iter().any(|(c, r, _)| (*c, *r) == (column, row)) {
                hidden = true;
            } else {
                cells.push((column, row, estimate.mean));
            }
        }
        if columns.len() < 2 || rows.len() < 2 || columns.len() > 14 || rows.len() > 20 {
            continue;
        }
        if (cells.len() as f64) < LEAST_FILLED * (columns.len() * rows.len()) as f64 {
            continue;
        }
        let (column_order, row_order) = (sorted(&columns), sorted(&rows));
        let bounds =
            cells.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), cell| (l.min(cell.2), h.max(cell.2)));
        let row_names: Vec<String> = row_order.iter().map(|&index| naming::value(&rows[index])).collect();
        let wide = row_names.iter().map(|name| text_width(name, SMALL)).fold(30.0, f64::max).min(190.0);
        let left = 16.0 + 24.0 + wide + 8.0;
        let right = WIDTH - 96.0;
        let cell_width = ((right - left) / columns.len() as f64).min(110.0);
        let cell_height = 34.0;
        let height = 50.0 + rows.len() as f64 * cell_height + 58.0;
        let mut caption = format!(
            "Mean validation accuracy over seeds for each pair of {} and {}.",
            naming::axis(across),
            naming::axis(down)
        );
        if hidden {
            caption.push_str(" The other swept keys stand, in each cell, where validation is best.");
        }
        let title = format!("{network}: accuracy over {} and {}", naming::key(across), naming::key(down));
        plots.push(draw(&format!("heat-{}", slug(network)), &title, &caption, (WIDTH, height), |canvas| {
            let top = 50.0;
            for (x, &column) in column_order.iter().enumerate() {
                for (y, &row) in row_order.iter().enumerate() {
                    let a = (left + x as f64 * cell_width, top + y as f64 * cell_height);
                    let b = (a.0 + cell_width - 2.0, a.1 + cell_height - 2.0);
                    let middle = ((a.0 + b.0) / 2.0, (a.1 + b.1) / 2.0);
                    match cells.iter().find(|(c, r, _)| (*c, *r) == (column, row)) {
                        Some((.., mean)) => {
                            let share =
                                if bounds.1 > bounds.0 { (mean - bounds.0) / (bounds.1 - bounds.0) } else { 1.0 };
                            canvas.rectangle(a, b, scale(share), 1.0);
                            let words = format!("{:.1}", 100.0 * mean);
                            canvas.colored(middle.0, middle.1, &words, SMALL, Align::Middle, contrast(scale(share)));
                        }
                        None => {
                            canvas.rectangle(a, b, INK, 0.06);
                            canvas.text(middle.0, middle.1, "–", SMALL, Align::Middle);
                        }
                    }
                }
            }
            let bottom = top + rows.len() as f64 * cell_height;
            for (x, &column) in column_order.iter().enumerate() {
                let name = fit(&naming::value(&columns[column]), SMALL, cell_width - 4.0);
                canvas.text(left + (x as f64 + 0.5) * cell_width - 1.0, bottom + 12.0, &name, SMALL, Align::Middle);
            }
            for (y, name) in row_names.iter().enumerate() {
                let place = top + (y as f64 + 0.5) * cell_height - 1.0;
                canvas.text(left - 8.0, place, &fit(name, SMALL, wide), SMALL, Align::End);
            }
            let span = columns.len() as f64 * cell_width;
            canvas.text(left + span / 2.0, bottom + 36.0, &naming::axis(across), NORMAL, Align::Middle);
            let long = naming::axis(down);
            let title = if text_width(&long, NORMAL) > bottom - top { naming::key(down) } else { long };
            canvas.upright(24.0, (top + bottom) / 2.0, &title, NORMAL);
            let (low, high) = (text::percent(bounds.0), text::percent(bounds.1));
            key(canvas, (left + span + 14.0, top), bottom - top - 2.0, &low, &high);
        })?);
    }
    Ok(plots)
}

/// Order of values: numbers by size, words by their letters.
fn sorted(values: &[serde_json::Value]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| match (values[a].as_f64(), values[b].as_f64()) {
        (Some(a), Some(b)) => a.total_cmp(&b),
        _ => naming::value(&values[a]).cmp(&naming::value(&values[b])),
    });
    order
}

/// Counts of true class × predicted class over the runs given; `None` where the truth is not known.
fn confusion_counts<'p>(runs: impl Iterator<Item = &'p Predictions>) -> Option<(Vec<Vec<u64>>, Vec<String>)> {
    let mut counts: Vec<Vec<u64>> = Vec::new();
    let mut names: Vec<String> = Vec::new();
    for predictions in runs {
        if predictions.actual.is_empty() || predictions.actual.len() != predictions.predicted.len() {
            continue;
        }
        let largest = predictions.actual.iter().chain(&predictions.predicted).max().map_or(0, |&class| class.into());
        let classes = usize::max(largest + 1, predictions.classes.len()).max(counts.len());
        counts.resize_with(classes, Vec::new);
        for row in &mut counts {
            row.resize(classes, 0);
        }
        for (actual, predicted) in predictions.actual.iter().zip(&predictions.predicted) {
            counts[usize::from(*actual)][usize::from(*predicted)] += 1;
        }
        if names.len() < predictions.classes.len() {
            names.clone_from(&predictions.classes);
        }
    }
    for class in names.len()..counts.len() {
        names.push(class.to_string());
    }
    (!counts.is_empty()).then_some((counts, names))
}

/// Confusion matrix of each chosen configuration, over all its seeds.
pub fn confusion(scene: &Scene<'_>) -> Result<Vec<Plot>, ReportError> {
    let mut plots = Vec::new();
    for chosen in scene.chosen() {
        let predictions = chosen.done.iter().filter_map(|run| scene.study.predictions.get(&run.id));
        let Some((counts, names)) = confusion_counts(predictions) else { continue };
        let classes = counts.len();
        if classes > MOST_CLASSES {
            continue;
        }
        let wide = names.iter().map(|name| text_width(name, SMALL)).fold(16.0, f64::max).min(120.0);
        let left = 16.0 + 24.0 + wide + 8.0;
        let cell = ((WIDTH - 96.0 - left) / classes as f64).min(44.0);
        let numbers = cell >= 26.0;
        let span = cell * classes as f64;
        // Long names of columns stand upright.
        let upright = names.iter().any(|name| text_width(name, SMALL) > cell - 4.0);
        let below = if upright { wide + 10.0 } else { 20.0 };
        let height = 50.0 + span + below + 34.0;
        let seeds = text::count(chosen.done.len(), "seed");
        let caption = format!(
            "Images of the test part by true class (rows) and predicted class (columns), in per cent of the row, over {seeds} of {}. The colour follows the square root, which lifts the few errors out of the dark.",
            chosen.label()
        );
        let title = format!("Confusion matrix of {}", chosen.network);
        plots.push(draw(
            &format!("confusion-{}", slug(&chosen.network)),
            &title,
            &caption,
            (WIDTH, height),
            |canvas| {
                let top = 50.0;
                for (row, values) in counts.iter().enumerate() {
                    let total: u64 = values.iter().sum();
                    for (column, &count) in values.iter().enumerate() {
                        let share = if total > 0 { count as f64 / total as f64 } else { 0.0 };
                        let a = (left + column as f64 * cell, top + row as f64 * cell);
                        let b = (a.0 + cell - 1.0, a.1 + cell - 1.0);
                        // A root lifts the few errors out of the dark; none at all is no colour.
                        if count > 0 {
                            canvas.rectangle(a, b, scale(share.sqrt()), 1.0);
                        } else {
                            canvas.rectangle(a, b, INK, 0.06);
                        }
                        if numbers && count > 0 {
                            let words = match 100.0 * share {
                                percent if percent >= 99.95 => "100".to_owned(),
                                percent if percent >= 0.05 => format!("{percent:.1}"),
                                _ => "<0.1".to_owned(),
                            };
                            let middle = ((a.0 + b.0) / 2.0, (a.1 + b.1) / 2.0);
                            let size = if cell < 32.0 { 9.5 } else { 11.0 };
                            canvas.colored(
                                middle.0,
                                middle.1,
                                &words,
                                size,
                                Align::Middle,
                                contrast(scale(share.sqrt())),
                            );
                        }
                    }
                }
                let bottom = top + span;
                let size = SMALL.min(cell);
                for (index, name) in names.iter().enumerate() {
                    let middle = (index as f64 + 0.5) * cell - 0.5;
                    canvas.text(left - 8.0, top + middle, &fit(name, size, wide), size, Align::End);
                    if upright {
                        let name = fit(name, size, wide);
                        let half = text_width(&name, size) / 2.0;
                        canvas.upright(left + middle, bottom + 6.0 + half, &name, size);
                    } else {
                        canvas.text(left + middle, bottom + 11.0, name, size, Align::Middle);
                    }
                }
                canvas.text(left + span / 2.0, bottom + below + 12.0, "predicted class", NORMAL, Align::Middle);
                canvas.upright(24.0, top + span / 2.0, "true class", NORMAL);
                key(canvas, (left + span + 14.0, top), span.min(200.0), "0 %", "100 %");
            },
        )?);
    }
    Ok(plots)
}
