//! Reliability diagram: whether a network is right as often as it is sure.

use super::axis::{Axis, Panel, percent_tick, plain_tick};
use super::canvas::{INK, Key, Plot, draw};
use super::{Scene, WIDTH};
use crate::ReportError;
use crate::mistakes::examined;
use crate::statistics::calibration::{Bin, calibration_error, reliability};
use crate::text::percent;

/// Fewer images say too little of a bin's accuracy for a point, unless all bins have fewer.
const LEAST_IMAGES: u64 = 10;

/// Accuracy against confidence, over the images of each bin.
pub fn calibration(scene: &Scene<'_>) -> Result<Vec<Plot>, ReportError> {
    let mut series = Vec::new();
    let mut seeds = Vec::new();
    for chosen in scene.chosen() {
        let Some((run, examination)) = examined(scene.study, chosen) else { continue };
        let right: Vec<bool> =
            examination.predicted.iter().zip(&examination.actual).map(|(said, is)| said == is).collect();
        let bins = reliability(&examination.confidence, &right);
        let Some(error) = calibration_error(&bins) else { continue };
        series.push((chosen.network.clone(), scene.color(&chosen.network), bins, error));
        seeds.push(format!("{}: seed {}, {} images", chosen.network, run.seed, right.len()));
    }
    if series.is_empty() {
        return Ok(Vec::new());
    }
    let legend: Vec<(String, Key)> = series
        .iter()
        .enumerate()
        .map(|(index, (network, color, _, error))| {
            (format!("{network}, ECE {}", percent(*error)), Key::Marker { series: index, color: *color })
        })
        .collect();
    let is_enough = |bins: &[Bin], bin: &Bin| {
        bin.images >= LEAST_IMAGES || bin.images > 0 && bins.iter().all(|bin| bin.images < LEAST_IMAGES)
    };
    let hidden = series.iter().any(|(_, _, bins, _)| bins.iter().any(|bin| bin.images > 0 && !is_enough(bins, bin)));
    let caption = format!(
        "Above, the share of right answers against the mean probability that the network gave them, in 15 bins of equal width; a point \
         below the diagonal is too sure of itself. Below, how many of the images fall into each bin. ECE is the expected calibration \
         error, the mean distance to the diagonal weighted by images (Guo et al. 2017). {}.{}",
        seeds.join("; "),
        if hidden { format!(" Bins of fewer than {LEAST_IMAGES} images have no point.") } else { String::new() }
    );
    let tick = |value: f64, step: f64| percent_tick(value, step);
    let mut x = Axis::spanned("confidence", 0.0, 1.0, 5.0, tick);
    let y = Axis::spanned("accuracy", 0.0, 1.0, 5.0, tick);
    let lower_x = x.clone();
    x.untitled();
    let most = series
        .iter()
        .flat_map(|(_, _, bins, _)| {
            let all: u64 = bins.iter().map(|bin| bin.images).sum();
            bins.iter().map(move |bin| 100.0 * bin.images as f64 / all.max(1) as f64)
        })
        .fold(0.0, f64::max);
    let lower_y = Axis::spanned("images (%)", 0.0, most.max(1.0), 3.0, plain_tick);
    let plot = draw("calibration", "Calibration on the test part", &caption, (WIDTH, 560.0), |canvas| {
        let used = canvas.legend(16.0, 48.0, WIDTH - 32.0, &legend);
        let top = 48.0 + used;
        let middle = top + 0.68 * (556.0 - top);
        let mut upper = Panel::inside((12.0, top, WIDTH - 34.0, middle), x, y);
        let mut lower = Panel::inside((12.0, middle + 10.0, WIDTH - 34.0, 556.0), lower_x, lower_y);
        let left = upper.left.max(lower.left);
        for panel in [&mut upper, &mut lower] {
            panel.width -= left - panel.left;
            panel.left = left;
            panel.frame(canvas);
        }
        canvas.path(&[upper.at(0.0, 0.0), upper.at(1.0, 1.0)], INK, 1.0, 0.5);
        let width = 1.0 / series[0].2.len() as f64;
        for (index, (_, color, bins, _)) in series.iter().enumerate() {
            let filled: Vec<&Bin> = bins.iter().filter(|bin| is_enough(bins, bin)).collect();
            let points: Vec<(f64, f64)> = filled.iter().map(|bin| upper.at(bin.confidence, bin.accuracy)).collect();
            if points.len() > 1 {
                canvas.path(&points, *color, 1.8, 1.0);
            }
            for point in points {
                canvas.marker(point, index, *color);
            }
            // Bars stand side by side inside their bin.
            let all: u64 = bins.iter().map(|bin| bin.images).sum();
            let part = width * 0.9 / series.len() as f64;
            for (place, bin) in bins.iter().enumerate() {
                let from = (place as f64 + 0.05) * width + index as f64 * part;
                let share = 100.0 * bin.images as f64 / all.max(1) as f64;
                if bin.images > 0 {
                    canvas.rectangle(lower.at(from, 0.0), lower.at(from + part, share), *color, 1.0);
                }
            }
        }
    })?;
    Ok(vec![plot])
}
