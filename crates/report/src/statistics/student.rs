//! Student's t: quantiles, the paired test across seeds, Welch's test where seeds are not shared.

use std::cell::RefCell;
use std::collections::HashMap;

use statrs::distribution::{Continuous, ContinuousCDF, StudentsT};

use super::{ALPHA, mean, standard_deviation};

fn student(freedom: f64) -> Option<StudentsT> {
    StudentsT::new(0.0, 1.0, freedom).ok()
}

/// Two-sided p-value of a t statistic with `freedom` degrees of freedom.
fn two_sided(t: f64, freedom: f64) -> f64 {
    student(freedom).map_or(1.0, |distribution| (2.0 * distribution.cdf(-t.abs())).min(1.0))
}

/// Quantile of Student's t at `probability` in (0, 1) with `freedom` > 0 degrees of freedom; NaN outside.
pub fn student_t_quantile(freedom: f64, probability: f64) -> f64 {
    // Thousands of intervals have a handful of sizes, and each quantile is solved for.
    thread_local!(static SOLVED: RefCell<HashMap<[u64; 2], f64>> = RefCell::default());
    let key = [freedom.to_bits(), probability.to_bits()];
    if let Some(known) = SOLVED.with_borrow(|solved| solved.get(&key).copied()) {
        return known;
    }
    let quantile = solve(freedom, probability);
    SOLVED.with_borrow_mut(|solved| {
        // Welch's degrees of freedom are not whole: they are not kept for ever.
        if solved.len() >= MOST_SOLVED {
            solved.clear();
        }
        solved.insert(key, quantile);
    });
    quantile
}

/// Quantiles that are remembered.
const MOST_SOLVED: usize = 1000;

fn solve(freedom: f64, probability: f64) -> f64 {
    if !(freedom > 0.0 && probability > 0.0 && probability < 1.0) {
        return f64::NAN;
    }
    let Some(distribution) = student(freedom) else { return f64::NAN };
    // Solved in the lower tail, where the distribution function loses no digits.
    let tail = probability.min(1.0 - probability);
    let mut t = distribution.inverse_cdf(tail);
    for _ in 0..8 {
        let step = (distribution.cdf(t) - tail) / distribution.pdf(t);
        if !step.is_finite() {
            break;
        }
        t -= step;
        if step.abs() <= 1e-15 * t.abs() {
            break;
        }
    }
    if probability < 0.5 { t } else { -t }
}

/// Result of a paired t-test of the differences a − b.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PairedT {
    /// Number of pairs.
    pub n: usize,
    /// Mean of a − b.
    pub mean_difference: f64,
    /// Sample standard deviation of a − b.
    pub std: f64,
    /// Statistic.
    pub t: f64,
    /// Two-sided p-value.
    pub p: f64,
    /// 95 % confidence interval of the mean difference.
    pub interval: (f64, f64),
    /// Cohen's d of paired samples: mean difference over the standard deviation of the differences.
    pub cohens_d: f64,
}

/// Paired t-test. `None` for fewer than two pairs, or where all differences are equal.
pub fn paired_t(a: &[f64], b: &[f64]) -> Option<PairedT> {
    if a.len() != b.len() {
        return None;
    }
    let differences: Vec<f64> = a.iter().zip(b).map(|(a, b)| a - b).collect();
    let n = differences.len();
    let mean_difference = mean(&differences)?;
    let std = standard_deviation(&differences)?;
    let scale = a.iter().chain(b).fold(0.0_f64, |largest, value| largest.max(value.abs()));
    // Differences that are equal but for rounding have no spread to test against.
    if !std.is_finite() || std <= 8.0 * f64::EPSILON * scale {
        return None;
    }
    let freedom = (n - 1) as f64;
    let error = std / (n as f64).sqrt();
    let t = mean_difference / error;
    let half = student_t_quantile(freedom, 1.0 - ALPHA / 2.0) * error;
    Some(PairedT {
        n,
        mean_difference,
        std,
        t,
        p: two_sided(t, freedom),
        interval: (mean_difference - half, mean_difference + half),
        cohens_d: mean_difference / std,
    })
}

/// Result of Welch's test.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Welch {
    /// Mean of a less mean of b.
    pub mean_difference: f64,
    /// Statistic.
    pub t: f64,
    /// Welch–Satterthwaite degrees of freedom.
    pub freedom: f64,
    /// Two-sided p-value.
    pub p: f64,
    /// 95 % confidence interval of the difference.
    pub interval: (f64, f64),
}

/// Welch's t-test of two independent samples. `None` for fewer than two values on a side, or no spread at all.
pub fn welch_t(a: &[f64], b: &[f64]) -> Option<Welch> {
    let (va, vb) = (standard_deviation(a)?.powi(2) / a.len() as f64, standard_deviation(b)?.powi(2) / b.len() as f64);
    let variance = va + vb;
    if !(variance.is_finite() && variance > 0.0) {
        return None;
    }
    let freedom = variance.powi(2) / (va.powi(2) / (a.len() - 1) as f64 + vb.powi(2) / (b.len() - 1) as f64);
    let mean_difference = mean(a)? - mean(b)?;
    let error = variance.sqrt();
    let t = mean_difference / error;
    let half = student_t_quantile(freedom, 1.0 - ALPHA / 2.0) * error;
    Some(Welch {
        mean_difference,
        t,
        freedom,
        p: two_sided(t, freedom),
        interval: (mean_difference - half, mean_difference + half),
    })
}
