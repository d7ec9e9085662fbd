//! What the chosen configurations cost: time, speed, memory.

use super::canvas::{Align, INK, NORMAL, Plot, SMALL, draw, fit, text_width};
use super::{Scene, WIDTH};
use crate::ReportError;
use crate::statistics::Estimate;
use crate::study::Run;
use crate::text;

/// How one quantity is read from a run.
type Measure = fn(&Run) -> Option<f64>;

/// What is drawn: a heading with its unit, and the quantity.
const PANELS: [(&str, Measure); 4] = [
    ("training time of one run (s)", |run| run.train_seconds()),
    ("training speed (images/s)", |run| run.images_per_second()),
    ("memory of one training step (MiB)", |run| Some(run.step_memory_bytes? as f64 / 1_048_576.0)),
    ("largest memory of the process (MiB)", |run| Some(run.peak_memory_bytes? as f64 / 1_048_576.0)),
];

/// Bars for each chosen configuration, one panel for each quantity.
pub fn cost(scene: &Scene<'_>) -> Result<Vec<Plot>, ReportError> {
    let chosen: Vec<_> = scene.chosen().collect();
    let panels: Vec<(&str, Vec<(String, Estimate)>)> = PANELS
        .iter()
        .map(|(title, of)| {
            let bars = chosen.iter().filter_map(|c| Some((c.network.clone(), c.estimate(of)?)));
            (*title, bars.collect::<Vec<_>>())
        })
        .filter(|(_, bars)| !bars.is_empty())
        .collect();
    if panels.is_empty() {
        return Ok(Vec::new());
    }
    let labels_wide = chosen.iter().map(|c| text_width(&c.network, SMALL)).fold(40.0, f64::max).min(180.0);
    let (head, row, foot) = (26.0, 22.0, 12.0);
    let height = 44.0 + panels.iter().map(|(_, bars)| head + row * bars.len() as f64 + foot).sum::<f64>();
    let memory = panels.iter().any(|(title, _)| title.contains("process"));
    let mut caption =
        "Mean over seeds of the configuration that validation chose for each network; the whisker is one standard deviation. Each \
         panel starts at zero."
            .to_owned();
    if memory {
        caption.push_str(
            " The memory of the process is that of everything that it had trained up to then, the images included.",
        );
    }
    let plot = draw("time-memory", "Time and memory", &caption, (WIDTH, height), |canvas| {
        let left = 16.0 + labels_wide + 10.0;
        let width = WIDTH - 32.0 - left - 70.0;
        let mut top = 40.0;
        for (title, bars) in &panels {
            canvas.text(left, top + 12.0, title, NORMAL, Align::Start);
            top += head;
            let largest = bars.iter().map(|(_, e)| e.mean + e.std.unwrap_or(0.0)).fold(f64::MIN_POSITIVE, f64::max);
            let place = |value: f64| left + width * (value / largest).clamp(0.0, 1.0);
            for (network, estimate) in bars {
                let y = top + row / 2.0;
                canvas.text(left - 8.0, y, &fit(network, SMALL, labels_wide), SMALL, Align::End);
                canvas.rectangle((left, y - 7.0), (place(estimate.mean), y + 7.0), scene.color(network), 0.9);
                let std = estimate.std.unwrap_or(0.0);
                if std > 0.0 {
                    let (low, high) = (place(estimate.mean - std), place(estimate.mean + std));
                    canvas.path(&[(low, y), (high, y)], INK, 1.25, 0.8);
                    for x in [low, high] {
                        canvas.path(&[(x, y - 4.0), (x, y + 4.0)], INK, 1.25, 0.8);
                    }
                }
                let end = place(estimate.mean + std) + 6.0;
                canvas.text(end, y, &text::measure(estimate.mean), SMALL, Align::Start);
                top += row;
            }
            canvas.path(&[(left, top - row * bars.len() as f64), (left, top)], INK, 1.0, 0.7);
            top += foot;
        }
    })?;
    Ok(vec![plot])
}
