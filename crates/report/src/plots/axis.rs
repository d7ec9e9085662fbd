//! Axes with ticks where people expect them, and the panel that they span.

use super::canvas::{Align, Canvas, INK, NORMAL, SMALL, text_width};
use crate::text;

/// One axis: places values in [0, 1] and knows its ticks.
#[derive(Clone, Debug)]
pub struct Axis {
    title: String,
    scale: Scale,
    low: f64,
    high: f64,
    ticks: Vec<(f64, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Scale {
    Linear,
    /// Accuracies, logarithmic in the error: 90 % and 99 % are as far apart as 99 % and 99.9 %.
    Error,
    /// Base 10; zero has its own place at this exponent.
    Log {
        zero: f64,
    },
}

/// A step of 1, 2 or 5 times a power of ten that gives about `count` steps over `span`.
fn step(span: f64, count: f64) -> f64 {
    let raw = span / count;
    let power = 10_f64.powf(raw.log10().floor());
    let lead = raw / power;
    power
        * if lead < 1.5 {
            1.0
        } else if lead < 3.5 {
            2.0
        } else if lead < 7.5 {
            5.0
        } else {
            10.0
        }
}

impl Axis {
    /// A linear axis over the values, with some room at both ends, ticks written by `format`.
    pub fn linear(title: &str, values: impl Iterator<Item = f64>, format: impl Fn(f64, f64) -> String) -> Self {
        let (low, high) = bounds(values).unwrap_or((0.0, 1.0));
        let pad = if high > low { 0.05 * (high - low) } else { 0.05 * high.abs().max(0.02) };
        Self::spanned(title, low - pad, high + pad, 6.0, format)
    }

    /// A linear axis from `low` to `high`.
    pub fn spanned(title: &str, low: f64, high: f64, count: f64, format: impl Fn(f64, f64) -> String) -> Self {
        let step = step(high - low, count);
        let first = (low / step - 1e-9).ceil() as i64;
        let last = (high / step + 1e-9).floor() as i64;
        let ticks = (first..=last)
            .map(|index| {
                let value = index as f64 * step;
                (value, format(value, step))
            })
            .collect();
        Self { title: title.to_owned(), scale: Scale::Linear, low, high, ticks }
    }

    /// An accuracy axis: values are fractions, ticks are per cent.
    pub fn accuracy(title: &str, values: impl Iterator<Item = f64>) -> Self {
        let (low, high) = bounds(values).unwrap_or((0.0, 1.0));
        let pad = (0.06 * (high - low)).max(0.002);
        Self::spanned(title, (low - pad).max(-0.005), (high + pad).min(1.005), 6.0, percent_tick)
    }

    /// An accuracy axis for curves that end high: where they span much more than their end, it is logarithmic in the error, so
    /// that the end can be read too.
    pub fn accuracy_curves(title: &str, values: impl Iterator<Item = f64> + Clone) -> Self {
        let Some((low, high)) = bounds(values.clone()).filter(|(low, high)| *high > 0.9 && *low < *high - 0.1) else {
            return Self::accuracy(title, values);
        };
        // A perfect score has no place on a logarithmic axis; it is drawn at its upper end.
        let least = values.filter(|value| *value < 1.0).map(|value| 1.0 - value).fold(1.0 - low, f64::min);
        let (low, high) = (error_place(low.max(0.0)) - 0.04, error_place(high.min(1.0 - least / 1.5)) + 0.04);
        let all = [0.0, 0.2, 0.5, 0.7, 0.8, 0.9, 0.95, 0.97, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9999];
        let mut ticks: Vec<(f64, String)> = Vec::new();
        for value in all {
            let place = error_place(value);
            let apart = ticks.last().is_none_or(|(last, _)| place - error_place(*last) > 0.07 * (high - low));
            if apart && (low..=high).contains(&place) {
                ticks.push((value, format!("{} %", text::significant(100.0 * value, 4))));
            }
        }
        Self { title: format!("{title}, log of the error"), scale: Scale::Error, low, high, ticks }
    }

    /// Epochs from the first to `last`.
    pub fn epochs(last: u32) -> Self {
        let last = f64::from(last.max(2));
        let step = step(last, 8.0).max(1.0);
        let mut ticks = vec![(1.0, "1".to_owned())];
        let mut value = step;
        while value <= last + 1e-9 {
            if value > 1.0 && (value - 1.0) / last > 0.05 {
                ticks.push((value, format!("{value}")));
            }
            value += step;
        }
        let pad = 0.02 * (last - 1.0);
        Self { title: "epoch".to_owned(), scale: Scale::Linear, low: 1.0 - pad, high: last + pad, ticks }
    }

    /// A logarithmic axis over positive values; zeros, where there are any, have a tick of their own at the low end.
    pub fn log(title: &str, values: &[f64], with_values: bool) -> Self {
        let positive = values.iter().copied().filter(|value| *value > 0.0 && value.is_finite());
        let (low, high) = bounds(positive.clone()).unwrap_or((1.0, 10.0));
        let (low, high) = (low.log10(), high.log10());
        let has_zero = values.contains(&0.0);
        let zero = low - (0.22 * (high - low)).max(0.6);
        let pad = (0.05 * (high - low)).max(0.1);
        let mut ticks: Vec<(f64, String)> = Vec::new();
        if with_values {
            // Few enough values are their own ticks.
            let mut own: Vec<f64> = positive.collect();
            own.sort_by(f64::total_cmp);
            own.dedup();
            ticks.extend(own.into_iter().map(|value| (value, text::significant(value, 3))));
        } else {
            let (first, last) = ((low - pad).floor() as i32, (high + pad).ceil() as i32);
            let leads: &[f64] = match last - first {
                0..=3 => &[1.0, 2.0, 5.0],
                _ => &[1.0],
            };
            for exponent in first..=last {
                for lead in leads {
                    let value = lead * 10_f64.powi(exponent);
                    if (low - pad..=high + pad).contains(&value.log10()) {
                        ticks.push((value, text::significant(value, 2)));
                    }
                }
            }
            if ticks.len() < 3 {
                // Much less than a decade: round numbers at equal steps are close to even here too.
                let (low, high) = (10_f64.powf(low - pad), 10_f64.powf(high + pad));
                ticks = Self::spanned("", low, high, 5.0, plain_tick).ticks;
            }
        }
        let mut bottom = low - pad;
        if has_zero {
            ticks.insert(0, (0.0, "0".to_owned()));
            bottom = zero - pad;
        }
        Self { title: title.to_owned(), scale: Scale::Log { zero }, low: bottom, high: high + pad, ticks }
    }

    /// Drops the title.
    pub fn untitled(&mut self) {
        self.title.clear();
    }

    /// The title.
    pub fn title(&self) -> &str {
        &self.title
    }

    /// Values and labels of the ticks.
    pub fn ticks(&self) -> &[(f64, String)] {
        &self.ticks
    }

    /// Makes room for numbers beyond the ends: `share` of the length on each side of zero that has values.
    pub fn widen(&mut self, share: f64) {
        let room = share * (self.high - self.low);
        if self.ticks.iter().any(|(value, _)| *value < 0.0) {
            self.low -= room;
        }
        if self.ticks.iter().any(|(value, _)| *value > 0.0) {
            self.high += room;
        }
    }

    /// Place of a value: 0 at the low end, 1 at the high end.
    pub fn place(&self, value: f64) -> f64 {
        let value = match self.scale {
            Scale::Linear => value,
            Scale::Error => error_place(value),
            Scale::Log { zero } => {
                if value > 0.0 {
                    value.log10()
                } else {
                    zero
                }
            }
        };
        ((value - self.low) / (self.high - self.low)).clamp(0.0, 1.0)
    }

    /// Where the axis is broken between zero and the smallest positive value, as a place.
    fn gap(&self) -> Option<f64> {
        let first = self.ticks.iter().find(|(value, _)| *value > 0.0)?.0;
        (matches!(self.scale, Scale::Log { .. }) && self.ticks.first()?.0 == 0.0)
            .then(|| (self.place(0.0) + self.place(first)) / 2.0)
    }

    fn widest(&self) -> f64 {
        self.ticks.iter().map(|(_, label)| text_width(label, SMALL)).fold(0.0, f64::max)
    }
}

/// An accuracy tick with as many decimals as its step needs.
pub fn percent_tick(value: f64, step: f64) -> String {
    let decimals = (-(100.0 * step).log10().floor()).max(0.0) as usize;
    minus(&format!("{:.decimals$} %", 100.0 * value + 0.0))
}

/// With the sign that is as wide as a plus, as in all texts.
fn minus(number: &str) -> String {
    number.replace('-', "−")
}

/// A plain tick.
pub fn plain_tick(value: f64, step: f64) -> String {
    let decimals = (-step.log10().floor()).clamp(0.0, 9.0) as usize;
    minus(&format!("{:.decimals$}", value + 0.0))
}

fn error_place(accuracy: f64) -> f64 {
    -(1.0 - accuracy).max(1e-9).log10()
}

fn bounds(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values.filter(|value| value.is_finite()).fold(None, |range, value| {
        let (low, high) = range.unwrap_or((value, value));
        Some((low.min(value), high.max(value)))
    })
}

/// The rectangle that two axes span.
#[derive(Clone, Debug)]
pub struct Panel {
    /// Left edge, in pixels.
    pub left: f64,
    /// Upper edge.
    pub top: f64,
    /// Width.
    pub width: f64,
    /// Height.
    pub height: f64,
    /// Horizontal axis.
    pub x: Axis,
    /// Vertical axis.
    pub y: Axis,
}

impl Panel {
    /// A panel inside the frame (left, top, right, bottom), in pixels, that leaves room for ticks and titles.
    pub fn inside((left, top, right, bottom): (f64, f64, f64, f64), x: Axis, y: Axis) -> Self {
        let margin = y.widest() + 8.0 + 22.0;
        let below = 8.0 + SMALL + if x.title.is_empty() { 4.0 } else { 24.0 };
        Self { left: left + margin, top, width: right - left - margin, height: bottom - top - below, x, y }
    }

    /// Pixel of a point.
    pub fn at(&self, x: f64, y: f64) -> (f64, f64) {
        (self.left + self.x.place(x) * self.width, self.top + (1.0 - self.y.place(y)) * self.height)
    }

    /// Draws grid, ticks and titles.
    pub fn frame(&self, canvas: &mut Canvas<'_>) {
        let (right, bottom) = (self.left + self.width, self.top + self.height);
        for (value, label) in &self.y.ticks {
            let (_, y) = self.at(0.0, *value);
            canvas.path(&[(self.left, y), (right, y)], INK, 0.75, 0.18);
            canvas.text(self.left - 8.0, y, label, SMALL, Align::End);
        }
        let mut free = f64::NEG_INFINITY;
        for (value, label) in &self.x.ticks {
            let x = self.left + self.x.place(*value) * self.width;
            canvas.path(&[(x, bottom), (x, bottom + 5.0)], INK, 1.0, 0.6);
            let half = text_width(label, SMALL) / 2.0;
            if x - half > free {
                canvas.text(x, bottom + 15.0, label, SMALL, Align::Middle);
                free = x + half + 6.0;
            }
        }
        match self.x.gap() {
            // The line is broken between zero and the logarithmic part.
            Some(gap) => {
                let middle = self.left + gap * self.width;
                canvas.path(&[(self.left, bottom), (middle - 4.0, bottom)], INK, 1.0, 0.6);
                canvas.path(&[(middle + 4.0, bottom), (right, bottom)], INK, 1.0, 0.6);
                for x in [middle - 4.0, middle + 4.0] {
                    canvas.path(&[(x - 3.0, bottom + 6.0), (x + 3.0, bottom - 6.0)], INK, 1.0, 0.6);
                }
            }
            None => canvas.path(&[(self.left, bottom), (right, bottom)], INK, 1.0, 0.6),
        }
        if !self.x.title.is_empty() {
            canvas.text(self.left + self.width / 2.0, bottom + 35.0, &self.x.title, NORMAL, Align::Middle);
        }
        let middle = self.top + self.height / 2.0;
        canvas.upright(self.left - self.y.widest() - 22.0, middle, &self.y.title, NORMAL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_has_its_own_place_left_of_the_logarithmic_part() {
        let axis = Axis::log("λ", &[0.0, 1e-4, 1e-3], true);
        let labels: Vec<&str> = axis.ticks.iter().map(|(_, label)| label.as_str()).collect();
        assert_eq!(labels, ["0", "0.0001", "0.001"]);
        assert!(axis.place(0.0) < axis.place(1e-4) && axis.place(1e-4) < axis.place(1e-3));
        assert!(axis.gap().is_some());
        assert!(Axis::log("λ", &[1e-4, 1e-3], true).gap().is_none());
    }

    #[test]
    fn ticks_are_round_and_inside() {
        let axis = Axis::accuracy("accuracy", [0.912, 0.987].into_iter());
        assert!(axis.ticks.len() >= 4, "{axis:?}");
        for (value, label) in &axis.ticks {
            assert!((axis.low..=axis.high).contains(value), "{label}");
            assert!(label.ends_with(" %"));
        }
        assert_eq!(percent_tick(0.925, 0.005), "92.5 %");
        assert_eq!(percent_tick(0.9, 0.1), "90 %");
        assert_eq!(plain_tick(-0.0, 0.2), "0.0");
        assert_eq!(plain_tick(-1.5, 0.5), "−1.5");
        let narrow = Axis::log("seconds", &[0.193, 0.27], false);
        let labels: Vec<&str> = narrow.ticks.iter().map(|(_, label)| label.as_str()).collect();
        assert_eq!(labels, ["0.20", "0.25", "0.30"]);
    }

    #[test]
    fn the_error_axis_spreads_the_end() {
        let axis = Axis::accuracy_curves("accuracy", [0.3, 0.9, 0.99, 1.0].into_iter());
        assert!(axis.place(0.99) - axis.place(0.9) > axis.place(0.9) - axis.place(0.8));
        assert!(axis.place(1.0) <= 1.0 && axis.place(0.3) > 0.0);
        assert!(axis.ticks.windows(2).all(|pair| axis.place(pair[1].0) - axis.place(pair[0].0) > 0.06));
        assert_eq!(Axis::accuracy_curves("", [0.97, 0.99].into_iter()).scale, Scale::Linear);
    }

    #[test]
    fn an_axis_without_values_or_spread_is_still_an_axis() {
        for axis in [
            Axis::linear("", std::iter::empty(), plain_tick),
            Axis::linear("", [3.0, 3.0].into_iter(), plain_tick),
            Axis::accuracy("", [0.5].into_iter()),
            Axis::epochs(1),
            Axis::log("", &[0.0], true),
            Axis::log("", &[0.1], false),
        ] {
            assert!(axis.high > axis.low && axis.place(0.5).is_finite(), "{axis:?}");
        }
    }
}
