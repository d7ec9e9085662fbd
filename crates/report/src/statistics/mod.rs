//! Statistics as pure functions: estimates, paired tests, corrections, power.
//!
//! Every function is judged against scipy and statsmodels on the cases in `tests/golden/`.
//! A result that the data cannot give (no spread, too few pairs) is `None`, never NaN.

pub mod calibration;
pub mod forest;
pub mod importance;
mod mcnemar;
mod power;
mod random;
mod student;
mod wilcoxon;

pub use mcnemar::{McNemar, mcnemar};
pub use power::{noncentral_t_cdf, paired_t_power, pairs_needed};
pub use student::{PairedT, Welch, paired_t, student_t_quantile, welch_t};
pub use wilcoxon::{Wilcoxon, wilcoxon_signed_rank};

/// Two-sided significance level of every test, and the complement of every interval's confidence.
pub const ALPHA: f64 = 0.05;

/// Power that "about N more seeds would decide it" asks for.
pub const POWER: f64 = 0.8;

/// Arithmetic mean; `None` for no values.
pub fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// Sample standard deviation (divisor n − 1); `None` for fewer than two values.
pub fn standard_deviation(values: &[f64]) -> Option<f64> {
    if values.len() < 2 {
        return None;
    }
    let center = mean(values)?;
    let squares: f64 = values.iter().map(|value| (value - center).powi(2)).sum();
    Some((squares / (values.len() - 1) as f64).sqrt())
}

/// A mean over seeds with what is known about its error.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// Number of values.
    pub n: usize,
    /// Their mean.
    pub mean: f64,
    /// Sample standard deviation; `None` for n = 1.
    pub std: Option<f64>,
    /// Half the width of the t-based 95 % confidence interval of the mean; `None` for n = 1.
    pub half_width: Option<f64>,
}

impl Estimate {
    /// The estimate that these values give; values that are not finite are left out. `None` where none is left.
    pub fn of(values: &[f64]) -> Option<Self> {
        let finite: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
        let n = finite.len();
        let center = mean(&finite)?;
        // Equal values differ from their mean by rounding at most: that is no spread.
        let std =
            standard_deviation(&finite).map(|std| if std <= 8.0 * f64::EPSILON * center.abs() { 0.0 } else { std });
        Some(Self {
            n,
            mean: center,
            std,
            half_width: std.map(|std| student_t_quantile((n - 1) as f64, 1.0 - ALPHA / 2.0) * std / (n as f64).sqrt()),
        })
    }

    /// Ends of the 95 % confidence interval; `None` for n = 1.
    pub fn interval(&self) -> Option<(f64, f64)> {
        self.half_width.map(|half| (self.mean - half, self.mean + half))
    }
}

/// Holm's step-down correction (Holm 1979): adjusted p-values in the order given.
pub fn holm(p_values: &[f64]) -> Vec<f64> {
    let m = p_values.len();
    let mut order: Vec<usize> = (0..m).collect();
    order.sort_by(|&a, &b| p_values[a].total_cmp(&p_values[b]));
    let mut adjusted = vec![1.0; m];
    let mut largest = 0.0_f64;
    for (rank, &index) in order.iter().enumerate() {
        largest = largest.max((p_values[index] * (m - rank) as f64).min(1.0));
        adjusted[index] = largest;
    }
    adjusted
}

/// Share of the variance of `values` that the grouping explains (η², the main effect of one factor), in [0, 1].
/// `None` where the values do not vary or there is only one group.
pub fn variance_explained(groups: &[Vec<f64>]) -> Option<f64> {
    let filled: Vec<&Vec<f64>> = groups.iter().filter(|group| !group.is_empty()).collect();
    if filled.len() < 2 {
        return None;
    }
    let all: Vec<f64> = filled.iter().flat_map(|group| group.iter().copied()).collect();
    let center = mean(&all)?;
    let total: f64 = all.iter().map(|value| (value - center).powi(2)).sum();
    let between: f64 =
        filled.iter().filter_map(|group| Some(group.len() as f64 * (mean(group)? - center).powi(2))).sum();
    (total > f64::EPSILON).then(|| (between / total).clamp(0.0, 1.0))
}
