//! Learning curves as SVG.

use std::fmt::Write;

use super::pages::escaped;

/// Width and height of the picture, and the margins left, right, above and below the curves, in pixels.
const WIDTH: f64 = 880.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 30.0;
const BOTTOM: f64 = 40.0;
/// Colours that colour-blind readers can tell apart (Okabe and Ito, 2008), without black and yellow.
const COLORS: usize = 6;

/// A curve: what it is called, and its points as epoch and value.
pub struct Curve {
    /// For the mouse to show.
    pub name: String,
    /// Epoch and value.
    pub points: Vec<(f64, f64)>,
}

/// Parts that a long curve is divided into, each drawn as its least and its largest value: all that can be seen of it.
const PARTS: usize = 200;

/// The points that are drawn.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    if points.len() <= 2 * PARTS {
        return points.to_vec();
    }
    let mut out = Vec::with_capacity(2 * PARTS + 1);
    for part in points.chunks(points.len().div_ceil(PARTS)) {
        let by_value = |a: &&(f64, f64), b: &&(f64, f64)| a.1.total_cmp(&b.1);
        if let (Some(&least), Some(&largest)) = (part.iter().min_by(by_value), part.iter().max_by(by_value)) {
            out.extend(if least.0 <= largest.0 { [least, largest] } else { [largest, least] });
        }
    }
    out.extend(points.last());
    out
}

/// A step between ticks of 1, 2 or 5 times a power of ten, for at most six of them.
fn step(span: f64) -> f64 {
    let rough = (span / 5.0).max(f64::MIN_POSITIVE);
    let power = 10_f64.powf(rough.log10().floor());
    let times = [1.0, 2.0, 5.0, 10.0].into_iter().find(|times| times * power >= rough * 0.999).unwrap_or(10.0);
    times * power
}

fn tick(value: f64, step: f64) -> String {
    let decimals = (-step.log10().floor()).clamp(0.0, 9.0) as usize;
    format!("{value:.decimals$}")
}

/// Class of a curve's colour.
pub fn color(curve: usize) -> String {
    format!("c{}", curve % COLORS)
}

/// The picture; nothing where no curve has a point.
pub fn svg(title: &str, unit: &str, curves: &[Curve]) -> String {
    let points = || curves.iter().flat_map(|curve| curve.points.iter().copied());
    if points().next().is_none() {
        return String::new();
    }
    let last = points().map(|(x, _)| x).fold(1.0, f64::max);
    let first = points().map(|(x, _)| x).fold(last, f64::min);
    let (mut low, mut high) =
        points().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), (_, y)| (low.min(y), high.max(y)));
    if high - low < 1e-9 {
        (low, high) = (low - 0.5, high + 0.5);
    }
    let spacing = step(high - low);
    (low, high) = ((low / spacing).floor() * spacing, (high / spacing).ceil() * spacing);
    let across = (last - first).max(1e-9);
    let x = |epoch: f64| LEFT + (WIDTH - LEFT - RIGHT) * if last > first { (epoch - first) / across } else { 0.5 };
    let y = |value: f64| HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - low) / (high - low);
    let mut out = format!(
        "<div class=\"wide\"><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{0}\"><text class=\"title\" x=\"{LEFT}\" y=\"16\">{0}{1}</text>",
        escaped(title),
        if unit.is_empty() { String::new() } else { format!(" [{}]", escaped(unit)) }
    );
    let mut value = low;
    while value <= high + spacing / 2.0 {
        let _ = write!(
            out,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{1:.1}\" y2=\"{1:.1}\"/><text class=\"tick\" x=\"{2}\" y=\"{3:.1}\" text-anchor=\"end\">{4}</text>",
            WIDTH - RIGHT,
            y(value),
            LEFT - 6.0,
            y(value) + 4.0,
            tick(value, spacing)
        );
        value += spacing;
    }
    let spacing = step(last - first).max(1.0).round();
    let mut epoch = (first / spacing).ceil() * spacing;
    while epoch <= last {
        let _ = write!(
            out,
            "<text class=\"tick\" x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{epoch}</text>",
            x(epoch),
            HEIGHT - BOTTOM + 16.0
        );
        epoch += spacing;
    }
    let _ = write!(
        out,
        "<text class=\"tick\" x=\"{:.1}\" y=\"{}\" text-anchor=\"end\">epoch</text>",
        WIDTH - RIGHT,
        HEIGHT - 6.0
    );
    for (index, curve) in curves.iter().enumerate() {
        let color = color(index);
        let path: String =
            thinned(&curve.points).iter().map(|&(epoch, value)| format!("{:.1},{:.1} ", x(epoch), y(value))).collect();
        let _ = write!(
            out,
            "<g class=\"{color}\"><title>{}</title><polyline points=\"{}\"/>",
            escaped(&curve.name),
            path.trim_end()
        );
        // A line of one point cannot be seen; the newest point is where the run is.
        if let Some(&(epoch, value)) = curve.points.last() {
            let _ = write!(out, "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\"/>", x(epoch), y(value));
        }
        out.push_str("</g>");
    }
    out.push_str("</svg></div>");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_curve_keeps_its_extremes_and_its_end() {
        let mut points: Vec<(f64, f64)> = (1..=5000).map(|epoch| (f64::from(epoch), 0.5)).collect();
        (points[1234].1, points[4000].1, points[4999].1) = (9.0, -9.0, 0.25);
        let drawn = thinned(&points);
        assert!(drawn.len() <= 2 * PARTS + 1, "{}", drawn.len());
        for kept in [points[1234], points[4000], points[4999]] {
            assert!(drawn.contains(&kept), "{kept:?}");
        }
        assert!(drawn.is_sorted_by(|a, b| a.0 <= b.0), "from left to right");
        assert_eq!(thinned(&points[..400]), &points[..400], "a short one is drawn as it is");
    }
}
