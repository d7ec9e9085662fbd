//! Parallel coordinates: every configuration as a line through its settings to its accuracy.

use serde_json::Value;

use super::axis::{Axis, plain_tick};
use super::canvas::{Align, INK, Key, Plot, SMALL, draw, fit};
use super::{Scene, WIDTH, slug};
use crate::ReportError;
use crate::analysis::Configuration;
use crate::naming;
use crate::text::significant;

/// Keys beside the accuracy.
const MOST_KEYS: usize = 7;

/// Lines: more are a carpet. The best are always among them.
const MOST_LINES: usize = 300;

/// Place of every value of one key in [0, 1], and where its ticks are.
struct Scale {
    ticks: Vec<(f64, String)>,
    places: Vec<Option<f64>>,
}

/// Numbers have their place on an axis (logarithmic where they span a factor of ten), words stand apart evenly.
fn scale(key: &str, values: &[Option<&Value>]) -> Scale {
    let present: Vec<&Value> = values.iter().flatten().copied().collect();
    let numbers: Option<Vec<f64>> = present.iter().map(|value| value.as_f64()).collect();
    if let Some(mut numbers) = numbers.filter(|numbers| !numbers.is_empty()) {
        numbers.sort_by(f64::total_cmp);
        numbers.dedup();
        let positive: Vec<f64> = numbers.iter().copied().filter(|number| *number > 0.0).collect();
        let log =
            numbers[0] >= 0.0 && positive.first().zip(positive.last()).is_some_and(|(low, high)| *high >= 10.0 * low);
        let axis = if log {
            Axis::log(key, &numbers, numbers.len() <= 8)
        } else {
            Axis::linear(key, numbers.iter().copied(), plain_tick)
        };
        let few = numbers.len() <= 8;
        let ticks = if few {
            numbers.iter().map(|number| (axis.place(*number), significant(*number, 3))).collect()
        } else {
            axis.ticks().iter().map(|(value, label)| (axis.place(*value), label.clone())).collect()
        };
        let places = values.iter().map(|value| Some(axis.place(value.as_ref()?.as_f64()?))).collect();
        return Scale { ticks, places };
    }
    let mut words: Vec<String> = present.iter().map(|value| naming::value(value)).collect();
    words.sort();
    words.dedup();
    let place = |index: usize| if words.len() < 2 { 0.5 } else { 0.05 + 0.9 * index as f64 / (words.len() - 1) as f64 };
    let ticks = words.iter().enumerate().map(|(index, word)| (place(index), word.clone())).collect();
    let places = values
        .iter()
        .map(|value| {
            let word = naming::value(value.as_ref()?);
            words.iter().position(|seen| *seen == word).map(place)
        })
        .collect();
    Scale { ticks, places }
}

/// The value of a key in each configuration.
fn values<'a>(configurations: &[&'a Configuration<'a>], key: &str) -> Vec<Option<&'a Value>> {
    let value = |c: &&'a Configuration<'a>| c.assignments.iter().find(|(name, _)| name == key).map(|(_, value)| value);
    configurations.iter().map(value).collect()
}

/// For each network that sweeps two keys and more: settings and validation accuracy of its configurations.
pub fn parallel(scene: &Scene<'_>) -> Result<Vec<Plot>, ReportError> {
    let mut plots = Vec::new();
    for network in scene.analysis.networks() {
        // Best first, so that what is left out are the worst.
        let configurations: Vec<&Configuration<'_>> =
            scene.analysis.of_network(network).filter(|c| c.validation.is_some()).collect();
        let all = configurations.len();
        let shown = &configurations[..all.min(MOST_LINES)];
        let mut keys: Vec<String> = scene.analysis.swept().into_iter().map(|(key, _)| key).collect();
        keys.retain(|key| {
            let mut seen: Vec<&Value> = values(shown, key).into_iter().flatten().collect();
            seen.dedup();
            seen.len() > 1
        });
        if keys.len() < 2 || shown.len() < 4 {
            continue;
        }
        // The keys that matter least stand farthest from the accuracy.
        let ranked = scene.analysis.ranked_keys(network);
        let rank = |key: &String| ranked.iter().position(|known| known == key).unwrap_or(usize::MAX);
        keys.sort_by_key(|key| std::cmp::Reverse(rank(key)));
        let hidden = keys.len().saturating_sub(MOST_KEYS);
        keys.drain(..hidden);
        let accuracies: Vec<f64> = shown.iter().filter_map(|c| Some(c.validation?.mean)).collect();
        let accuracy = Axis::accuracy("validation accuracy", accuracies.iter().copied());
        let mut scales: Vec<(String, Scale)> =
            keys.iter().map(|key| (naming::key(key), scale(key, &values(shown, key)))).collect();
        scales.push((
            "accuracy".to_owned(),
            Scale {
                ticks: accuracy.ticks().iter().map(|(value, label)| (accuracy.place(*value), label.clone())).collect(),
                places: accuracies.iter().map(|top1| Some(accuracy.place(*top1))).collect(),
            },
        ));
        let best = (all / 10).clamp(1, 10);
        let color = scene.color(network);
        let legend = [
            (format!("best {best} of {all} on validation"), Key::Line { color, width: 2.4, opacity: 1.0 }),
            ("others".to_owned(), Key::Line { color: INK, width: 1.0, opacity: 0.35 }),
        ];
        let mut caption = "One line for each configuration, through its settings to its mean validation accuracy over seeds. Where the strong \
                           lines run together, a setting matters; the keys that explain most stand to the right."
            .to_owned();
        if shown.len() < all {
            caption.push_str(&format!(" The best {} of {all} are drawn.", shown.len()));
        }
        if hidden > 0 {
            caption.push_str(&format!(" {hidden} keys that explain least are left out."));
        }
        let title = format!("{network}: settings and accuracy");
        let name = format!("parallel-{}", slug(network));
        plots.push(draw(&name, &title, &caption, (WIDTH, 380.0), |canvas| {
            let used = canvas.legend(16.0, 48.0, WIDTH - 32.0, &legend);
            let (top, bottom) = (48.0 + used + 26.0, 366.0);
            let last = scales.len() - 1;
            let (left, right) = (70.0, WIDTH - 30.0);
            let x = |axis: usize| left + (right - left) * axis as f64 / last as f64;
            let y = |place: f64| bottom - place * (bottom - top);
            let opacity = (12.0 / shown.len() as f64).clamp(0.12, 0.45);
            // The best are drawn last, on top.
            for line in (0..shown.len()).rev() {
                let points: Vec<(f64, f64)> = scales
                    .iter()
                    .enumerate()
                    .filter_map(|(axis, (_, scale))| Some((x(axis), y(scale.places[line]?))))
                    .collect();
                if line < best {
                    canvas.path(&points, color, 2.4, 1.0);
                } else {
                    canvas.path(&points, INK, 1.0, opacity);
                }
            }
            for (axis, (name, scale)) in scales.iter().enumerate() {
                canvas.path(&[(x(axis), top - 4.0), (x(axis), bottom + 4.0)], INK, 1.25, 0.8);
                let room = (right - left) / last as f64;
                // Names stand in the middle, at the ends as far as there is room.
                canvas.bold(x(axis), top - 18.0, &fit(name, SMALL, room - 6.0), SMALL, Align::Middle);
                let mut free = f64::INFINITY;
                for (place, label) in &scale.ticks {
                    if y(*place) > free - 13.0 {
                        continue;
                    }
                    free = y(*place);
                    canvas.path(&[(x(axis) - 4.0, y(*place)), (x(axis), y(*place))], INK, 1.0, 0.8);
                    let label = fit(label, 11.0, if axis == 0 { 58.0 } else { room - 16.0 });
                    canvas.halo(x(axis) - 7.0, y(*place), &label, 11.0, Align::End);
                }
            }
        })?);
    }
    Ok(plots)
}
