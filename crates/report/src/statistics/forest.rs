//! Functional analysis of variance over a random forest (Hutter, Hoos and Leyton-Brown 2014, "An efficient approach for assessing
//! hyperparameter importance"), as Optuna's `FanovaImportanceEvaluator` has it: bootstrapped regression trees that are grown until
//! their leaves are pure, all columns considered at each split, a choice as one column for each of its values.
//!
//! The crate `fanova` searches each split in quadratic time (2 s for 1,000 runs of four keys), takes the ends of a key from the data,
//! and knows no choices.

use std::collections::BTreeMap;

use super::random::Random;

/// The columns of one key, each with a value in [0, 1] for each point: one column for a number, one of zeros and ones for each choice.
pub type Columns = Vec<Vec<f64>>;

/// `scores` are those of each point, one for each run of it. For each key the share of the variance of the forest's prediction over the whole space that its main effect explains, a mean over
/// `trees`, in [0, 1]. Shares add up to 1 but for what keys explain together. `None` where all scores are equal. The same `seed` gives
/// the same shares.
pub fn fanova(keys: &[&Columns], scores: &[Vec<f64>], trees: usize, seed: u64) -> Option<Vec<f64>> {
    let columns: Vec<&[f64]> = keys.iter().flat_map(|key| key.iter().map(Vec::as_slice)).collect();
    let orders: Vec<Vec<u32>> = columns
        .iter()
        .map(|column| {
            let mut order: Vec<u32> = (0..column.len() as u32).collect();
            order.sort_by(|a, b| column[*a as usize].total_cmp(&column[*b as usize]));
            order
        })
        .collect();
    let center = super::mean(&scores.concat())?;
    let runs: Vec<(usize, f64)> = scores
        .iter()
        .enumerate()
        .flat_map(|(point, own)| own.iter().map(move |score| (point, score - center)))
        .collect();
    let mut random = Random::new(seed);
    let mut shares = vec![0.0; keys.len()];
    let mut grown = 0;
    for _ in 0..trees {
        let leaves = Leaves::grow(&columns, &orders, &runs, &mut random);
        let Some((mean, variance)) = leaves.moments() else { continue };
        grown += 1;
        let mut first = 0;
        for (share, key) in shares.iter_mut().zip(keys) {
            let own: Vec<usize> = (first..first + key.len()).collect();
            first += key.len();
            *share += leaves.marginal_variance(&own, mean) / variance;
        }
    }
    (grown > 0).then(|| shares.into_iter().map(|share| (share / f64::from(grown)).clamp(0.0, 1.0)).collect())
}

/// The leaves of a tree: what each says, and the box of the unit cube where it says so.
struct Leaves {
    values: Vec<f64>,
    /// For each leaf the lower and upper end in each column.
    boxes: Vec<Vec<(f64, f64)>>,
}

/// What a sample has of a point or a node: how many runs, their sum and their sum of squares.
#[derive(Clone, Copy, Default)]
struct Sums {
    count: f64,
    sum: f64,
    squares: f64,
}

impl Sums {
    fn add(&mut self, other: Self) {
        self.count += other.count;
        self.sum += other.sum;
        self.squares += other.squares;
    }

    /// Sum of squared differences from the mean.
    fn spread(self) -> f64 {
        self.squares - self.sum * self.sum / self.count
    }
}

/// Nodes whose share of the sample's spread is less than this are pure but for rounding.
const PURE: f64 = 1e-14;

/// A tree that is being grown over one sample of the runs.
struct Grower<'a> {
    columns: &'a [&'a [f64]],
    points: Vec<Sums>,
    /// For each column the points of the sample in its order; a node has the same range of each.
    orders: Vec<Vec<u32>>,
    /// Which points of the node at hand go left.
    left: Vec<bool>,
    scratch: Vec<u32>,
    /// Spread of a node that is not split.
    pure: f64,
    leaves: Leaves,
}

impl Leaves {
    /// Grows a tree on as many of the runs, each a point and a score, drawn with replacement.
    fn grow(columns: &[&[f64]], orders: &[Vec<u32>], runs: &[(usize, f64)], random: &mut Random) -> Self {
        let mut points = vec![Sums::default(); orders.first().map_or(0, Vec::len)];
        let mut whole = Sums::default();
        for _ in runs {
            let (point, score) = runs[random.below(runs.len())];
            let run = Sums { count: 1.0, sum: score, squares: score * score };
            points[point].add(run);
            whole.add(run);
        }
        let sampled = |order: &Vec<u32>| order.iter().copied().filter(|at| points[*at as usize].count > 0.0).collect();
        let orders: Vec<Vec<u32>> = orders.iter().map(sampled).collect();
        let end = orders.first().map_or(0, Vec::len);
        let mut grower = Grower {
            columns,
            left: vec![false; points.len()],
            points,
            orders,
            scratch: Vec::with_capacity(end),
            pure: PURE * whole.spread(),
            leaves: Self { values: Vec::new(), boxes: Vec::new() },
        };
        let mut priority: Vec<usize> = (0..columns.len()).collect();
        // A stack in the place of recursion: a tree may be as deep as it has points.
        let mut nodes = vec![(0, end, vec![(0.0, 1.0); columns.len()])];
        while let Some((start, end, space)) = nodes.pop() {
            random.shuffle(&mut priority);
            let node = grower.sums(start, end);
            let Some((column, at, threshold)) = grower.split(start, end, node, &priority) else {
                grower.leaves.values.push(node.sum / node.count);
                grower.leaves.boxes.push(space);
                continue;
            };
            grower.divide(start, end, column, at);
            let (mut low, mut high) = (space.clone(), space);
            low[column].1 = threshold;
            high[column].0 = threshold;
            nodes.push((start, at, low));
            nodes.push((at, end, high));
        }
        grower.leaves
    }

    /// Mean and variance over the cube. `None` where there is no variance.
    fn moments(&self) -> Option<(f64, f64)> {
        let weights = self.boxes.iter().map(|space| space.iter().map(|(low, high)| high - low).product::<f64>());
        let weights: Vec<f64> = weights.collect();
        let mean: f64 = weights.iter().zip(&self.values).map(|(weight, value)| weight * value).sum();
        let squares = weights.iter().zip(&self.values).map(|(weight, value)| weight * (value - mean).powi(2));
        let variance: f64 = squares.sum();
        (variance > 0.0).then_some((mean, variance))
    }

    /// Variance of the mean over all other columns, as a function of these.
    fn marginal_variance(&self, columns: &[usize], mean: f64) -> f64 {
        let others = |space: &[(f64, f64)]| -> f64 {
            let others = space.iter().enumerate().filter(|(column, _)| !columns.contains(column));
            others.map(|(_, (low, high))| high - low).product()
        };
        if let [column] = columns {
            // A step function: what is added at the lower end of each leaf, and taken away at the upper.
            let mut steps: Vec<(f64, f64)> = Vec::with_capacity(2 * self.values.len());
            for (space, value) in self.boxes.iter().zip(&self.values) {
                let part = (value - mean) * others(space);
                steps.extend([(space[*column].0, part), (space[*column].1, -part)]);
            }
            steps.sort_by(|a, b| a.0.total_cmp(&b.0));
            let (mut level, mut variance) = (0.0, 0.0);
            for pair in steps.windows(2) {
                level += pair[0].1;
                variance += level * level * (pair[1].0 - pair[0].0);
            }
            return variance;
        }
        // Columns of zeros and ones are split in the middle or not at all, so few kinds of boxes occur.
        let mut kinds: BTreeMap<Vec<u8>, f64> = BTreeMap::new();
        for (space, value) in self.boxes.iter().zip(&self.values) {
            let kind = columns.iter().map(|column| match space[*column] {
                (0.0, 1.0) => 2,
                (0.0, _) => 0,
                _ => 1,
            });
            *kinds.entry(kind.collect()).or_default() += (value - mean) * others(space);
        }
        let overlap = |a: &[u8], b: &[u8]| -> f64 {
            let each = a.iter().zip(b).map(|(a, b)| match (a, b) {
                (2, 2) => 1.0,
                (2, _) | (_, 2) => 0.5,
                (a, b) if a == b => 0.5,
                _ => 0.0,
            });
            each.product()
        };
        kinds.iter().map(|(a, one)| kinds.iter().map(|(b, other)| one * other * overlap(a, b)).sum::<f64>()).sum()
    }
}

impl Grower<'_> {
    fn sums(&self, start: usize, end: usize) -> Sums {
        let mut sums = Sums::default();
        for point in self.orders.first().map_or(&[][..], |order| &order[start..end]) {
            sums.add(self.points[*point as usize]);
        }
        sums
    }

    /// The split of a node that leaves the least variance: the column, the place of the first point that goes right, and the value
    /// between. Of equal ones, that of the column that comes first in `priority`. `None` for a leaf.
    fn split(&self, start: usize, end: usize, node: Sums, priority: &[usize]) -> Option<(usize, usize, f64)> {
        if node.spread() <= self.pure {
            return None;
        }
        let mut best: Option<(f64, usize, usize)> = None;
        for &column in priority {
            let (values, order) = (self.columns[column], &self.orders[column][start..end]);
            let (mut count, mut sum) = (0.0, 0.0);
            for (at, pair) in order.windows(2).enumerate() {
                let point = pair[0] as usize;
                count += self.points[point].count;
                sum += self.points[point].sum;
                if values[point] < values[pair[1] as usize] {
                    let right: f64 = node.sum - sum;
                    let gain = sum * sum / count + right * right / (node.count - count);
                    if best.is_none_or(|(most, ..)| gain > most) {
                        best = Some((gain, column, start + at + 1));
                    }
                }
            }
        }
        let (_, column, at) = best?;
        let value = |at: usize| self.columns[column][self.orders[column][at] as usize];
        Some((column, at, f64::midpoint(value(at - 1), value(at))))
    }

    /// Brings the points that go left before the others in every order.
    fn divide(&mut self, start: usize, end: usize, column: usize, at: usize) {
        for (place, point) in self.orders[column][start..end].iter().enumerate() {
            self.left[*point as usize] = start + place < at;
        }
        for (_, order) in self.orders.iter_mut().enumerate().filter(|(other, _)| *other != column) {
            self.scratch.clear();
            let mut next = start;
            for place in start..end {
                let point = order[place];
                if self.left[point as usize] {
                    order[next] = point;
                    next += 1;
                } else {
                    self.scratch.push(point);
                }
            }
            order[next..end].copy_from_slice(&self.scratch);
        }
    }
}
