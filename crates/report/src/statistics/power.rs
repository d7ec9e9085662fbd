//! Power of the paired t-test: how many seeds would decide a question.

use statrs::distribution::{ContinuousCDF, Normal};
use statrs::function::gamma::ln_gamma;

use super::student_t_quantile;

/// Nodes and weights of the ten-point Gauss–Legendre rule on [-1, 1], positive half.
const GAUSS: [(f64, f64); 5] = [
    (0.148_874_338_981_631_22, 0.295_524_224_714_752_87),
    (0.433_395_394_129_247_2, 0.269_266_719_309_996_35),
    (0.679_409_568_299_024_4, 0.219_086_362_515_982_04),
    (0.865_063_366_688_984_5, 0.149_451_349_150_580_6),
    (0.973_906_528_517_171_7, 0.066_671_344_308_688_14),
];

/// More seeds than this nobody trains: beyond it the question counts as undecidable.
const MOST_PAIRS: usize = 10_000;

/// Distribution function of the noncentral t with `freedom` degrees of freedom and noncentrality `delta`:
/// P(T ≤ t) = ∫ Φ(t·s − δ) f(s) ds over the density f of s = √(χ²/ν), integrated by Gauss–Legendre panels.
pub fn noncentral_t_cdf(t: f64, freedom: f64, delta: f64) -> f64 {
    if !(t.is_finite() && delta.is_finite() && freedom > 0.0) {
        return f64::NAN;
    }
    let normal = Normal::standard();
    let half = freedom / 2.0;
    let log_constant = std::f64::consts::LN_2 + half * half.ln() - ln_gamma(half);
    let density = |s: f64| (log_constant + (freedom - 1.0) * s.ln() - half * s * s).exp();
    let spread = 12.0 / (2.0 * freedom).sqrt();
    let (low, high) = ((1.0 - spread).max(0.0), 1.0 + spread);
    let panels = 120;
    let width = (high - low) / f64::from(panels);
    let mut sum = 0.0;
    for panel in 0..panels {
        let center = low + (f64::from(panel) + 0.5) * width;
        for (node, weight) in GAUSS {
            for s in [center - node * width / 2.0, center + node * width / 2.0] {
                sum += weight * normal.cdf(t * s - delta) * density(s);
            }
        }
    }
    (sum * width / 2.0).clamp(0.0, 1.0)
}

/// Power of the two-sided paired t-test of `pairs` pairs at level `alpha`, where the true effect is `cohens_d`.
pub fn paired_t_power(cohens_d: f64, pairs: usize, alpha: f64) -> f64 {
    if pairs < 2 {
        return 0.0;
    }
    let freedom = (pairs - 1) as f64;
    let critical = student_t_quantile(freedom, 1.0 - alpha / 2.0);
    let delta = cohens_d.abs() * (pairs as f64).sqrt();
    (1.0 - noncentral_t_cdf(critical, freedom, delta) + noncentral_t_cdf(-critical, freedom, delta)).clamp(0.0, 1.0)
}

/// Least number of pairs at which the paired t-test reaches `power` at level `alpha` for an effect of `cohens_d`.
/// `None` where more than 10,000 pairs would be needed.
pub fn pairs_needed(cohens_d: f64, alpha: f64, power: f64) -> Option<usize> {
    if !cohens_d.is_finite() || paired_t_power(cohens_d, MOST_PAIRS, alpha) < power {
        return None;
    }
    let (mut low, mut high) = (1, MOST_PAIRS);
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if paired_t_power(cohens_d, middle, alpha) >= power {
            high = middle;
        } else {
            low = middle;
        }
    }
    Some(high)
}
