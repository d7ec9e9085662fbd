//! Pictures: pairs of classes that are confused, mistakes made with most confidence, filters of the first convolution.

use super::canvas::{Align, Canvas, INK, NORMAL, Plot, draw, fit, text_width};
use super::{Scene, WIDTH, slug};
use crate::ReportError;
use crate::evidence::Filters;
use crate::mistakes::{MOST_MISTAKES, MOST_OF_PAIR, MOST_PAIRS, class_name, class_names, confused, examined, worst};
use crate::picture::Picture;
use crate::text::{self, percent};

/// Mistakes in a row.
const COLUMNS: usize = 8;

/// Filters in a row: the 96 of Krizhevsky et al. 2012 make 6 rows of 16.
const FILTERS_IN_ROW: usize = 16;

/// More filters than this are not legible.
const MOST_FILTERS: usize = 128;

fn framed(canvas: &mut Canvas<'_>, (x, y): (f64, f64), side: f64, picture: &Picture) {
    canvas.picture((x, y), side, picture);
    canvas.outline((x - 0.5, y - 0.5), (x + side + 0.5, y + side + 0.5), INK, 0.75, 0.35);
}

/// For each network the pairs of classes that it confuses most, with images.
pub fn pairs(scene: &Scene<'_>) -> Result<Vec<Plot>, ReportError> {
    let mut plots = Vec::new();
    for chosen in scene.chosen() {
        let Some(run) = chosen.any() else { continue };
        let classes = class_names(scene.study, chosen);
        let picture = |place: u32| scene.study.pictures.get(&(run.provenance.data_fingerprint.clone(), place));
        let rows: Vec<_> = confused(scene.study, chosen, MOST_PAIRS)
            .into_iter()
            .map(|pair| {
                let pictures: Vec<&Picture> = pair.places.iter().filter_map(|&place| picture(place)).collect();
                (pair, pictures)
            })
            .filter(|(_, pictures)| !pictures.is_empty())
            .collect();
        if rows.is_empty() {
            continue;
        }
        let title = format!("Most confused by {}", chosen.network);
        let caption = format!(
            "Images of the test part that {} took for another class, over {}: those that most seeds get wrong come first. The share \
             is of all images of the true class.",
            chosen.label(),
            text::count(chosen.done.len(), "seed")
        );
        let (side, row_height, left) = (40.0, 56.0, 176.0);
        let height = 44.0 + rows.len() as f64 * row_height + 4.0;
        plots.push(draw(
            &format!("confused-{}", slug(&chosen.network)),
            &title,
            &caption,
            (WIDTH, height),
            |canvas| {
                for (index, (pair, pictures)) in rows.iter().enumerate() {
                    let top = 44.0 + index as f64 * row_height;
                    let names = [pair.actual, pair.predicted].map(|class| class_name(classes, class));
                    canvas.text(16.0, top + 8.0, &fit(&names[0], NORMAL, left - 24.0), NORMAL, Align::Start);
                    canvas.text(
                        16.0,
                        top + 24.0,
                        &fit(&format!("→ {}", names[1]), NORMAL, left - 24.0),
                        NORMAL,
                        Align::Start,
                    );
                    let share = percent(pair.images as f64 / pair.of.max(1) as f64);
                    let words = format!("{} ({share})", text::count(pair.images as usize, "time"));
                    canvas.text(16.0, top + 39.0, &words, 11.0, Align::Start);
                    for (column, picture) in pictures.iter().take(MOST_OF_PAIR).enumerate() {
                        framed(canvas, (left + column as f64 * (side + 7.0), top + 2.0), side, picture);
                    }
                }
            },
        )?);
    }
    Ok(plots)
}

/// For each network the mistakes that its examined run made with most confidence.
pub fn mistakes(scene: &Scene<'_>) -> Result<Vec<Plot>, ReportError> {
    let mut plots = Vec::new();
    for chosen in scene.chosen() {
        let Some((run, examination)) = examined(scene.study, chosen) else { continue };
        let classes = class_names(scene.study, chosen);
        let fingerprint = &run.provenance.data_fingerprint;
        let mistakes: Vec<_> = worst(examination, MOST_MISTAKES)
            .into_iter()
            .filter_map(|mistake| Some((mistake, scene.study.pictures.get(&(fingerprint.clone(), mistake.place))?)))
            .collect();
        if mistakes.is_empty() {
            continue;
        }
        let title = format!("Worst mistakes of {}", chosen.network);
        let caption = format!(
            "What {}, seed {}, got wrong with most confidence, among {} of the test part: the true class, what it said, and the \
             probability that it gave its answer.",
            chosen.label(),
            run.seed,
            text::count(examination.places.len(), "image")
        );
        let column = (WIDTH - 32.0) / COLUMNS as f64;
        let side = 56.0;
        let row_height = side + 52.0;
        let height = 44.0 + mistakes.len().div_ceil(COLUMNS) as f64 * row_height + 2.0;
        plots.push(draw(
            &format!("mistakes-{}", slug(&chosen.network)),
            &title,
            &caption,
            (WIDTH, height),
            |canvas| {
                for (index, (mistake, picture)) in mistakes.iter().enumerate() {
                    let middle = 16.0 + ((index % COLUMNS) as f64 + 0.5) * column;
                    let top = 44.0 + (index / COLUMNS) as f64 * row_height;
                    framed(canvas, (middle - side / 2.0, top), side, picture);
                    let names = [mistake.actual, mistake.predicted].map(|class| class_name(classes, class.into()));
                    let lines = [
                        names[0].clone(),
                        format!("→ {}", names[1]),
                        format!("{} %", text::significant(100.0 * mistake.confidence, 3)),
                    ];
                    for (line, words) in lines.iter().enumerate() {
                        let y = top + side + 10.0 + 14.0 * line as f64;
                        // A long name is set a little smaller before it is cut.
                        let wide = column - 2.0;
                        let size = (11.0 * (wide - 0.1) / text_width(words, 11.0)).clamp(9.5, 11.0);
                        canvas.text(middle, y, &fit(words, size, wide), size, Align::Middle);
                    }
                }
            },
        )?);
    }
    Ok(plots)
}

/// The first convolution of each network's examined run.
pub fn filters(scene: &Scene<'_>) -> Result<Vec<Plot>, ReportError> {
    let mut plots = Vec::new();
    for chosen in scene.chosen() {
        let Some((run, examination)) = examined(scene.study, chosen) else { continue };
        let Some(filters) = &examination.filters else { continue };
        let pictures = drawn(filters);
        if pictures.is_empty() {
            continue;
        }
        let [count, channels, height, width] = filters.shape;
        let columns = if count > FILTERS_IN_ROW { FILTERS_IN_ROW } else { count.min(8) };
        let column = (WIDTH - 32.0) / FILTERS_IN_ROW.max(columns) as f64;
        let column = if columns <= 8 { 2.0 * column } else { column };
        let side = column - 6.0;
        let rows = pictures.len().div_ceil(columns);
        let title = format!("First convolution of {}", chosen.network);
        let seen = match channels {
            3 => "red, green and blue",
            1 => "gray",
            _ => "gray, the mean of the channels",
        };
        let mut caption = format!(
            "The {count} filters of {height}×{width} weights over {} of {}, seed {}, in {seen}. Each is scaled by itself: its largest \
             weight of either sign is white or black, zero is the middle.",
            text::count(channels, "channel"),
            chosen.label(),
            run.seed
        );
        if pictures.len() < count {
            caption.push_str(&format!(" The first {} are shown.", pictures.len()));
        }
        let name = format!("filters-{}", slug(&chosen.network));
        plots.push(draw(&name, &title, &caption, (WIDTH, 44.0 + rows as f64 * column + 6.0), |canvas| {
            for (index, picture) in pictures.iter().enumerate() {
                let x = 16.0 + (index % columns) as f64 * column;
                let y = 44.0 + (index / columns) as f64 * column;
                framed(canvas, (x + 3.0, y), side, picture);
            }
        })?);
    }
    Ok(plots)
}

/// Filters as pictures, each scaled by itself; none where there are fewer weights than the shape says.
fn drawn(filters: &Filters) -> Vec<Picture> {
    let [count, channels, height, width] = filters.shape;
    let plane = height * width;
    if channels * plane == 0 || filters.weights.len() != count * channels * plane {
        return Vec::new();
    }
    let drawn = filters.weights.chunks_exact(channels * plane).take(MOST_FILTERS);
    drawn
        .map(|filter| {
            // Colours are the filter's own; of any other number of channels the mean is drawn.
            let values: Vec<f32> = if channels == 3 {
                filter.to_vec()
            } else {
                let mean = |at: usize| filter.iter().skip(at).step_by(plane).sum::<f32>() / channels as f32;
                (0..plane).map(mean).collect()
            };
            let largest = values.iter().filter(|w| w.is_finite()).fold(0.0_f32, |largest, w| largest.max(w.abs()));
            let tone = |weight: &f32| {
                let weight = if largest > 0.0 && weight.is_finite() { weight / largest } else { 0.0 };
                (127.5 + 127.5 * weight).round() as u8
            };
            let channels = if channels == 3 { 3 } else { 1 };
            Picture { channels, height, width, pixels: values.iter().map(tone).collect() }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_scaled_each_by_itself() {
        let filters = Filters { shape: [2, 1, 1, 2], weights: vec![0.01, -0.005, -0.5, 1.0] };
        let pictures = drawn(&filters);
        assert_eq!(pictures[0].pixels, [255, 64]);
        assert_eq!(pictures[1].pixels, [64, 255]);
        assert!(drawn(&Filters { shape: [2, 1, 1, 2], weights: vec![0.0; 3] }).is_empty());
    }

    #[test]
    fn two_channels_are_drawn_as_their_mean() {
        let filters = Filters { shape: [1, 2, 1, 2], weights: vec![1.0, 0.0, 1.0, -1.0] };
        assert_eq!(drawn(&filters)[0].pixels, [255, 64]);
    }
}
