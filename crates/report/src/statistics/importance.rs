//! How much a factor matters: shares of variance, PED-ANOVA, and what chance alone would give.

use super::variance_explained;

/// Share of runs that count as the best for [`ped_anova`], as in Watanabe et al. 2023.
pub const TOP: f64 = 0.1;

/// Least number of runs among the best: fewer say nothing about a distribution.
pub const LEAST_TOP: usize = 5;

/// Shuffles behind [`chance_level`].
const SHUFFLES: usize = 200;

/// Which runs are the best: a tenth of them, and those that tie with its last. `None` where that would be fewer than
/// [`LEAST_TOP`] or not less than half of all.
pub fn best(scores: &[f64]) -> Option<Vec<bool>> {
    let top = ((scores.len() as f64 * TOP).ceil() as usize).max(LEAST_TOP);
    let mut sorted = scores.to_vec();
    sorted.sort_by(|a, b| b.total_cmp(a));
    let threshold = *sorted.get(top - 1)?;
    let best: Vec<bool> = scores.iter().map(|score| *score >= threshold).collect();
    let count = best.iter().filter(|best| **best).count();
    (2 * count < scores.len()).then_some(best)
}

/// Importance of one factor by PED-ANOVA (Watanabe, Bansal and Hutter 2023, "PED-ANOVA: Efficiently Quantifying Hyperparameter
/// Importance in Arbitrary Subspaces", theorem 1, with γ = 1): the Pearson divergence of the distribution of the factor among the
/// best runs from that among all runs, times γ′/(1 − γ′), where γ′ is the share of the best. So scaled it is in [0, 1]: the share
/// of the variance of "is among the best" that the factor explains by itself. Distributions are plain frequencies of `levels`
/// instead of kernel densities. `None` where nothing or everything is among the best.
pub fn ped_anova(levels: &[usize], best: &[bool]) -> Option<f64> {
    let all = levels.len() as f64;
    let top = best.iter().filter(|best| **best).count() as f64;
    if top == 0.0 || top == all {
        return None;
    }
    let groups = levels.iter().max()? + 1;
    let (mut of_all, mut of_best) = (vec![0.0; groups], vec![0.0; groups]);
    for (&level, &best) in levels.iter().zip(best) {
        of_all[level] += 1.0 / all;
        of_best[level] += f64::from(u8::from(best)) / top;
    }
    let divergence: f64 =
        of_all.iter().zip(&of_best).filter(|(q, _)| **q > 0.0).map(|(q, p)| q * (p / q - 1.0).powi(2)).sum();
    let share = top / all;
    Some((divergence * share / (1.0 - share)).clamp(0.0, 1.0))
}

/// Share of the variance of `scores` that `levels` explain by themselves (main effect), in [0, 1].
pub fn main_effect(levels: &[usize], scores: &[f64]) -> Option<f64> {
    let mut groups = vec![Vec::new(); levels.iter().max()? + 1];
    for (&level, &score) in levels.iter().zip(scores) {
        groups[level].push(score);
    }
    variance_explained(&groups)
}

/// What chance alone gives: the 95 % quantile of a measure over 200 shuffles of the levels among the runs. The shuffles are the
/// same each time.
pub fn chance_level(levels: &[usize], of: impl Fn(&[usize]) -> Option<f64>) -> Option<f64> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    // SplitMix64 (Steele, Lea and Flood 2014), reduced by multiplication: good enough for shuffles, and always the same.
    let mut below = |bound: usize| {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((u128::from(z ^ (z >> 31)) * bound as u128) >> 64) as usize
    };
    let mut shuffled = levels.to_vec();
    let mut values = Vec::with_capacity(SHUFFLES);
    for _ in 0..SHUFFLES {
        for index in (1..shuffled.len()).rev() {
            shuffled.swap(index, below(index + 1));
        }
        values.push(of(&shuffled)?);
    }
    values.sort_by(f64::total_cmp);
    Some(values[SHUFFLES * 95 / 100])
}
