//! Wilcoxon's signed-rank test, exact for as many pairs as a report will ever see.

use statrs::distribution::{ContinuousCDF, Normal};

/// Largest number of nonzero differences for which the exact distribution is enumerated.
const EXACT_UP_TO: usize = 200;

/// Result of Wilcoxon's signed-rank test of the differences a − b.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Wilcoxon {
    /// Number of nonzero differences.
    pub n: usize,
    /// The smaller of the two rank sums.
    pub statistic: f64,
    /// Two-sided p-value.
    pub p: f64,
}

/// Wilcoxon's signed-rank test (Wilcoxon 1945). Zero differences are left out, equal sizes share the middle rank.
/// The distribution is exact, under ties too: all 2ⁿ sign patterns are counted by dynamic programming; beyond
/// 200 pairs the normal approximation takes over. `None` where no difference is nonzero.
pub fn wilcoxon_signed_rank(a: &[f64], b: &[f64]) -> Option<Wilcoxon> {
    if a.len() != b.len() {
        return None;
    }
    let mut differences: Vec<f64> =
        a.iter().zip(b).map(|(a, b)| a - b).filter(|difference| difference.is_finite() && *difference != 0.0).collect();
    let n = differences.len();
    if n == 0 {
        return None;
    }
    differences.sort_by(|x, y| x.abs().total_cmp(&y.abs()));

    // Ranks are doubled, so that middle ranks stay whole numbers.
    let mut doubled = vec![0_usize; n];
    let mut ties = 0.0;
    let mut start = 0;
    while start < n {
        let mut end = start + 1;
        while end < n && differences[end].abs() == differences[start].abs() {
            end += 1;
        }
        doubled[start..end].fill(start + 1 + end);
        let group = (end - start) as f64;
        ties += group.powi(3) - group;
        start = end;
    }
    let total: usize = doubled.iter().sum();
    let positive: usize = differences.iter().zip(&doubled).filter(|(d, _)| **d > 0.0).map(|(_, rank)| rank).sum();
    let smaller = positive.min(total - positive);

    let p = if n <= EXACT_UP_TO {
        let mut probability = vec![0.0_f64; total + 1];
        probability[0] = 1.0;
        let mut reached = 0;
        for &rank in &doubled {
            reached += rank;
            for sum in (0..=reached).rev() {
                let with = if sum >= rank { probability[sum - rank] } else { 0.0 };
                probability[sum] = 0.5 * (probability[sum] + with);
            }
        }
        (2.0 * probability[..=smaller].iter().sum::<f64>()).min(1.0)
    } else {
        let n = n as f64;
        let center = n * (n + 1.0) / 4.0;
        let variance = n * (n + 1.0) * (2.0 * n + 1.0) / 24.0 - ties / 48.0;
        let z = (smaller as f64 / 2.0 - center) / variance.sqrt();
        (2.0 * Normal::standard().cdf(-z.abs())).min(1.0)
    };
    Some(Wilcoxon { n, statistic: smaller as f64 / 2.0, p })
}
