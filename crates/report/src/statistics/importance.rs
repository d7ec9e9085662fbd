//! How much a key matters, by functional analysis of variance and by PED-ANOVA, and what chance alone would give.

use serde_json::Value;
use statrs::function::erf::erf;
use store::Distribution;

use super::forest::{Columns, fanova};
use super::random::Random;

/// Share of runs that count as the best for [`ped_anova`], as in Watanabe et al. 2023.
pub const TOP: f64 = 0.1;

/// Trees of a forest, as Optuna has them.
const TREES: usize = 64;

/// Most trees of the forests that chance is judged by: fewer scatter a little more, which makes chance seem larger, not smaller.
const MOST_BY_CHANCE: usize = 8;

/// Runs of all these trees together: of many runs, trees differ little.
const RUNS_BY_CHANCE: usize = 1500;

/// Shuffles whose greatest value is a 95 % quantile of chance.
const SHUFFLES: usize = 19;

/// Shuffles for [`ped_anova`], of which each costs little; the fifth greatest value is a 95 % quantile.
const SHUFFLES_OF_BEST: usize = 99;

/// Most cells of a numeric key.
const CELLS: usize = 50;

/// A key: what its values are drawn from, and its value at each point.
#[derive(Clone, Debug)]
pub struct Key {
    /// Which cell of the key's grid the value lies in; `None` where the key does not exist.
    cells: Vec<Option<usize>>,
    /// Number of cells.
    size: usize,
    /// The cells have no order.
    is_choice: bool,
    /// As a forest takes it; `None` where the key does not exist everywhere.
    columns: Option<Columns>,
}

impl Key {
    /// `None` where the distribution has one value only, or a value is not of it.
    pub fn new(distribution: &Distribution, values: &[Option<&Value>]) -> Option<Self> {
        let numbers: Vec<Option<f64>> = values
            .iter()
            .map(|value| value.map_or(Some(None), |value| distribution.number(value).map(Some)))
            .collect::<Option<_>>()?;
        let (low, high, log) = match *distribution {
            Distribution::Choice(ref choices) => {
                let cells: Vec<Option<usize>> = numbers.iter().map(|number| number.map(|n| n as usize)).collect();
                let column =
                    |choice| cells.iter().map(|cell| cell.map(|cell| f64::from(u8::from(cell == choice)))).collect();
                let columns = (0..choices.len()).map(column).collect();
                return (choices.len() > 1).then_some(Self { cells, size: choices.len(), is_choice: true, columns });
            }
            Distribution::Float { low, high, log } => (low, high, log),
            Distribution::Integer { low, high, log } => (low as f64, high as f64, log),
        };
        // The grid of Optuna's PED-ANOVA.
        let size = match distribution {
            Distribution::Integer { log: true, .. } => ((high - low + 1.0).log2().ceil() as usize + 1).min(CELLS),
            Distribution::Integer { .. } => (high - low).min(CELLS as f64) as usize + 1,
            _ => CELLS,
        }
        .min(CELLS);
        let scale = |number: f64| if log { number.ln() } else { number };
        let width = scale(high) - scale(low);
        let place = |number: f64| ((scale(number) - scale(low)) / width).clamp(0.0, 1.0);
        let steps = (size - 1) as f64;
        // In Optuna's order of operations, so that values halfway between two cells go into the same.
        let cell =
            |number: f64| ((scale(number) - scale(low)) / (width / steps) - 0.5).ceil().clamp(0.0, steps) as usize;
        (width > 0.0).then(|| Self {
            cells: numbers.iter().map(|number| number.map(cell)).collect(),
            size,
            is_choice: false,
            columns: numbers.iter().map(|number| number.map(place)).collect::<Option<_>>().map(|column| vec![column]),
        })
    }
}

/// Which runs are the best: a tenth of them, and those that tie with its last. `None` where there are ten or fewer, or all are.
pub fn best(scores: &[f64]) -> Option<Vec<bool>> {
    let top = (scores.len() as f64 * TOP).ceil() as usize;
    let mut sorted = scores.to_vec();
    sorted.sort_by(|a, b| b.total_cmp(a));
    let threshold = *sorted.get(top.max(1) - 1)?;
    let best: Vec<bool> = scores.iter().map(|score| *score >= threshold).collect();
    (top > 1 && best.contains(&false)).then_some(best)
}

/// Importance of a key for being among the best, by PED-ANOVA (Watanabe, Bansal and Hutter 2023, "PED-ANOVA: Efficiently Quantifying
/// Hyperparameter Importance in Arbitrary Subspaces"), where the key does not exist everywhere by its conditional form (Ishikawa et
/// al. 2026): the Pearson divergence of the key's density among the best runs from that among all runs. Densities are those of Optuna's
/// `PedAnovaImportanceEvaluator`, Parzen estimators on a grid with Scott's bandwidths. `best` and `points` have an entry for each run:
/// whether it is among the best, and which point of the key it is at.
pub fn ped_anova(key: &Key, points: &[usize], best: &[bool]) -> f64 {
    let (mut of_all, mut of_best) = (vec![0.0; key.size], vec![0.0; key.size]);
    for (point, best) in points.iter().zip(best) {
        if let Some(cell) = key.cells[*point] {
            of_all[cell] += 1.0;
            of_best[cell] += f64::from(u8::from(*best));
        }
    }
    let (there, top_there) = (of_all.iter().sum::<f64>(), of_best.iter().sum::<f64>());
    if there < 2.0 || top_there == 0.0 {
        return 0.0;
    }
    let (all, top) = (best.len() as f64, best.iter().filter(|best| **best).count() as f64);
    let (q, p) = (density(&of_all, key.is_choice), density(&of_best, key.is_choice));
    let divergence: f64 = q.iter().zip(&p).map(|(q, p)| q * (p / q - 1.0).powi(2)).sum();
    (top_there / top).powi(2) / (there / all) * divergence * (top / all).powi(2)
}

/// Density over the cells of a grid that holds so many values: a kernel for each cell with values, and one for the prior, which weighs
/// as one value does.
fn density(counts: &[f64], is_choice: bool) -> Vec<f64> {
    let total: f64 = counts.iter().sum();
    let kernels: Vec<(usize, f64)> = counts.iter().copied().enumerate().filter(|(_, count)| *count > 0.0).collect();
    let mut density = vec![1e-12; counts.len()];
    if is_choice {
        let elsewhere = 1.0 / (kernels.len() as f64 + 1.0);
        let whole = 1.0 + counts.len() as f64 * elsewhere;
        for (cell, density) in density.iter_mut().enumerate() {
            let own = counts[cell] * (1.0 + elsewhere) + (total - counts[cell]) * elsewhere;
            *density += (own / whole + 1.0 / counts.len() as f64) / (total + 1.0);
        }
        return density;
    }
    let mean = kernels.iter().map(|(cell, count)| *cell as f64 * count).sum::<f64>() / total;
    let squares: f64 = kernels.iter().map(|(cell, count)| (*cell as f64 - mean).powi(2) * count).sum();
    let deviation = (squares / (total - 1.0).max(1.0)).sqrt();
    let mut below = 0.0;
    let cumulated: Vec<f64> = kernels
        .iter()
        .map(|(_, count)| {
            below += count;
            below
        })
        .collect();
    let quarter = cumulated.partition_point(|sum| *sum < (total / 4.0).floor());
    let three_quarters = cumulated.partition_point(|sum| *sum <= (total * 3.0 / 4.0).floor()).min(kernels.len() - 1);
    let range = (kernels[three_quarters].0 - kernels[quarter].0) as f64;
    // Scott's rule, but at least so wide that 90 % of a kernel fill a cell.
    let bandwidth = (1.059 * (range / 1.34).min(deviation) * total.powf(-0.2)).max(0.5 / 1.64);
    let normal = |x: f64| 0.5 * (1.0 + erf(x * std::f64::consts::FRAC_1_SQRT_2));
    // Each kernel is cut off at the ends of the grid. What is below an edge depends on its distance from the center alone.
    let size = counts.len();
    let below: Vec<f64> = (0..=2 * size).map(|edge| normal((edge as f64 - size as f64 - 0.5) / bandwidth)).collect();
    for (center, count) in kernels {
        let edges = &below[size - center..=2 * size - center];
        let inside = edges[size] - edges[0];
        for (density, edges) in density.iter_mut().zip(edges.windows(2)) {
            *density += count / (total + 1.0) * (edges[1] - edges[0]) / inside;
        }
    }
    let prior = |edge: usize| normal((edge as f64 - size as f64 / 2.0) / size as f64);
    for (cell, density) in density.iter_mut().enumerate() {
        *density += (prior(cell + 1) - prior(cell)) / (prior(size) - prior(0)) / (total + 1.0);
    }
    density
}

/// How much a key matters to a score, and what it would seem to matter by chance.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Shares {
    /// Share of the variance of a forest's prediction that the key's main effect explains (see [`fanova`]); `None` for keys that do not
    /// exist everywhere.
    pub variance: Option<f64>,
    /// What `variance` exceeds in 5 of 100 cases if the key's values are shuffled among the runs.
    pub variance_by_chance: Option<f64>,
    /// Share of all keys' importance for being among the best ([`ped_anova`]); `None` for too few runs.
    pub best: Option<f64>,
    /// What `best` exceeds in 5 of 100 cases if the best are any runs.
    pub best_by_chance: Option<f64>,
}

/// The shares of each key; `scores` are those of the runs at each point, higher is better. Always the same for the same scores.
pub fn shares(keys: &[Key], scores: &[Vec<f64>]) -> Vec<Shares> {
    let mut shares = vec![Shares::default(); keys.len()];
    let everywhere: Vec<(usize, &Columns)> =
        keys.iter().enumerate().filter_map(|(at, key)| Some((at, key.columns.as_ref()?))).collect();
    let columns: Vec<&Columns> = everywhere.iter().map(|(_, columns)| *columns).collect();
    let mut random = Random::new(0x9E37_79B9_7F4A_7C15);
    let points: Vec<usize> = scores.iter().enumerate().flat_map(|(at, own)| own.iter().map(move |_| at)).collect();
    if let Some(found) = fanova(&columns, scores, TREES, 0) {
        // Runs are shuffled, not points: without an effect of the key, the runs of all its values are alike.
        let of_runs = |columns: &Columns, order: &[usize]| -> Columns {
            columns.iter().map(|column| order.iter().map(|point| column[*point]).collect()).collect()
        };
        let each: Vec<Columns> = columns.iter().map(|own| of_runs(own, &points)).collect();
        let runs: Vec<Vec<f64>> = scores.concat().into_iter().map(|score| vec![score]).collect();
        let mut order = points.clone();
        let trees = (RUNS_BY_CHANCE / runs.len()).clamp(2, MOST_BY_CHANCE);
        for (place, (at, own)) in everywhere.iter().enumerate() {
            let mut by_chance = 0.0_f64;
            for shuffle in 0..SHUFFLES {
                random.shuffle(&mut order);
                let shuffled = of_runs(own, &order);
                let mut columns: Vec<&Columns> = each.iter().collect();
                columns[place] = &shuffled;
                let found = fanova(&columns, &runs, trees, shuffle as u64);
                by_chance = by_chance.max(found.map_or(0.0, |found| found[place]));
            }
            shares[*at].variance = Some(found[place]);
            shares[*at].variance_by_chance = Some(by_chance);
        }
    }
    if let Some(mut best) = best(&scores.concat()) {
        let found: Vec<f64> = keys.iter().map(|key| ped_anova(key, &points, &best)).collect();
        let total: f64 = found.iter().sum();
        if total > 0.0 {
            let mut by_chance = vec![Vec::with_capacity(SHUFFLES_OF_BEST); keys.len()];
            for _ in 0..SHUFFLES_OF_BEST {
                random.shuffle(&mut best);
                for (values, key) in by_chance.iter_mut().zip(keys) {
                    values.push(ped_anova(key, &points, &best));
                }
            }
            for ((shares, found), mut by_chance) in shares.iter_mut().zip(found).zip(by_chance) {
                by_chance.sort_by(f64::total_cmp);
                shares.best = Some(found / total);
                shares.best_by_chance = Some(by_chance[SHUFFLES_OF_BEST - 5] / total);
            }
        }
    }
    shares
}
