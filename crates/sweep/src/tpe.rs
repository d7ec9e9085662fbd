//! The tree-structured Parzen estimator: the next point of a search, from the results of those before.
//!
//! Bergstra et al. 2011, "Algorithms for hyper-parameter optimization", section 4: the points so far are split by their results into
//! the good ones and the others, a density is laid over each part, and of some points that are drawn from the good density the one
//! with the largest ratio of both is taken. Densities are multivariate mixtures of products of kernels, one product for each point and
//! one for the prior (Falkner et al. 2018, "BOHB", section 3.2; Watanabe 2023, "Tree-structured Parzen estimator", sections 3 and 4).
//! Points without a result yet, on which other workers are at work, count among the others (the constant liar of Ginsbourger et al.
//! 2010, "Kriging is well-suited to parallelize optimization", section 4.2), so that workers do not all try the same.

use std::f64::consts::{FRAC_1_SQRT_2, SQRT_2};

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64;
use statrs::function::erf::{erf, erf_inv};

/// What a coordinate of a point may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Dimension {
    /// A number from `low` to `high`, both included.
    Number {
        /// Lower end.
        low: f64,
        /// Upper end.
        high: f64,
        /// Its logarithm is what is spread evenly; `low` is above 0 then.
        log: bool,
        /// Whole numbers only.
        whole: bool,
    },
    /// One of so many things without an order: 0, 1, …
    Category(usize),
}

impl Dimension {
    /// The value at a place from 0 to 1 of a range of numbers.
    pub fn at(self, unit: f64) -> f64 {
        match self {
            Self::Number { low, high, log, whole } => {
                let range = Range { low, high, log, whole };
                let [least, most] = range.around(low, high);
                range.value(least + (most - least) * unit)
            }
            Self::Category(count) => (unit * count as f64).min(count as f64 - 1.0).floor(),
        }
    }

    /// The place of a value, from 0 to 1.
    pub fn unit(self, at: f64) -> f64 {
        match self {
            Self::Number { low, high, log, whole } => {
                let range = Range { low, high, log, whole };
                let [least, most] = range.around(low, high);
                (range.coordinate(at) - least) / (most - least)
            }
            Self::Category(count) => (at + 0.5) / count as f64,
        }
    }
}

/// One value for each dimension: a number, or the index of a category; not a number where the dimension does not exist at the others'
/// values.
pub type Point = Vec<f64>;

/// Equal in every dimension that exists, and the same ones do.
fn same(a: &Point, b: &Point) -> bool {
    a.iter().zip(b).all(|(a, b)| a == b || (a.is_nan() && b.is_nan()))
}

/// Points that are drawn from the good density, of which the best is taken.
const CANDIDATES: usize = 128;
/// The narrowest kernel of n is the 2n-th part of the range, or the hundredth: the good region is small, and kernels as wide as the
/// n-th part, which are usual, take half as many points again to close in on it (Branin, sphere; 200 seeds).
const NARROWEST: f64 = 2.0;
/// Most points that count as good.
const MOST_GOOD: usize = 25;

/// How the coordinates of a point are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coordinates {
    /// All at once: what is good together is sought together.
    Together,
    /// Every second point so, and the others coordinate by coordinate, each by densities of its own (Bergstra et al. 2011, section 4).
    /// For several objectives: good points lie along a front there, and kernels that are narrow in all coordinates hold on to each of
    /// them, while each coordinate by itself takes what they have in common. Where the coordinates depend on each other the former is
    /// ahead, where they do not the latter; by turns they enclose more of most fronts than either alone (`tests/front.rs`).
    InTurns,
}

/// What is known when the next point is chosen.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// Points with a result, the best first.
    pub ranked: &'a [Point],
    /// Points without a result yet.
    pub pending: &'a [Point],
}

/// The next point of a search, a function of what is given alone: `number` says the how-manieth it is, so that equal knowledge does
/// not lead to the same point twice. `settle` takes away the dimensions that do not exist at a point's values. `None` where every point
/// that was tried is known: the space is exhausted, or nearly.
pub fn propose(
    space: &[Dimension],
    settle: &dyn Fn(&mut Point),
    coordinates: Coordinates,
    known: Known,
    seed: u64,
    number: u64,
) -> Option<Point> {
    let mut rng = Pcg64::seed_from_u64(seed);
    rng.advance(u128::from(number) << 64);
    let is_new = |point: &Point| !known.ranked.iter().chain(known.pending).any(|other| same(other, point));
    let good_count = good_count(known.ranked.len());
    let (good, others) = known.ranked.split_at(good_count);
    let good = Mixture::new(space, &good.iter().collect::<Vec<_>>());
    let others = Mixture::new(space, &others.iter().chain(known.pending).collect::<Vec<_>>());
    let best = match coordinates {
        Coordinates::InTurns if number % 2 == 1 => apart(&good, &others, settle, &is_new, &mut rng),
        Coordinates::InTurns | Coordinates::Together => together(&good, &others, settle, &is_new, &mut rng),
    };
    best.or_else(|| {
        // Where the good ones are all known, anything new is welcome.
        let prior = Mixture::new(space, &[]);
        let mut drawn = || {
            let mut point = prior.sample(&mut rng);
            settle(&mut point);
            point
        };
        (0..1000).map(|_| drawn()).find(|point| is_new(point))
    })
}

/// Of some new points from the good density the one with the largest ratio of both.
fn together(
    good: &Mixture,
    others: &Mixture,
    settle: &dyn Fn(&mut Point),
    is_new: &dyn Fn(&Point) -> bool,
    rng: &mut Pcg64,
) -> Option<Point> {
    let mut best: Option<(f64, Point)> = None;
    for _ in 0..CANDIDATES {
        let mut point = good.sample(rng);
        settle(&mut point);
        let gain = good.log_density(&point) - others.log_density(&point);
        if is_new(&point) && best.as_ref().is_none_or(|(most, _)| gain > *most) {
            best = Some((gain, point));
        }
    }
    best.map(|(_, point)| point)
}

/// A new point whose coordinates each have the largest ratio of both densities over their dimension, of some that are drawn.
fn apart(
    good: &Mixture,
    others: &Mixture,
    settle: &dyn Fn(&mut Point),
    is_new: &dyn Fn(&Point) -> bool,
    rng: &mut Pcg64,
) -> Option<Point> {
    let mut coordinate = |dimension: usize| {
        let mut best = (f64::NEG_INFINITY, f64::NAN);
        for _ in 0..CANDIDATES {
            let at = good.sample_along(dimension, rng);
            let gain = good.log_density_along(dimension, at) - others.log_density_along(dimension, at);
            if gain > best.0 {
                best = (gain, at);
            }
        }
        best.1
    };
    let mut drawn = || {
        let mut point: Point = (0..good.kernels.len()).map(&mut coordinate).collect();
        settle(&mut point);
        point
    };
    (0..CANDIDATES).map(|_| drawn()).find(|point| is_new(point))
}

/// How many of so many points count as good.
fn good_count(ranked: usize) -> usize {
    ranked.div_ceil(10).min(MOST_GOOD)
}

/// A mixture of products of kernels: one product for each point, and one that is flat, the prior. All weigh the same.
struct Mixture {
    /// For each dimension a kernel for each point, and the prior's.
    kernels: Vec<Vec<Kernel>>,
    components: usize,
}

/// A density over one dimension.
enum Kernel {
    /// A normal distribution, cut off at the ends of the range.
    Normal {
        range: Range,
        mean: f64,
        deviation: f64,
        /// Probability below the lower and the upper end, before it is cut off.
        ends: [f64; 2],
        /// Logarithm of what the density at the mean is to be divided by.
        log_norm: f64,
    },
    /// Probabilities of categories.
    Categories(Vec<f64>),
}

/// A range of numbers, and the coordinate that is spread evenly.
#[derive(Clone, Copy)]
struct Range {
    low: f64,
    high: f64,
    log: bool,
    whole: bool,
}

impl Range {
    fn coordinate(self, at: f64) -> f64 {
        if self.log { at.ln() } else { at }
    }

    fn value(self, coordinate: f64) -> f64 {
        let at = if self.log { coordinate.exp() } else { coordinate };
        (if self.whole { at.round() } else { at }).clamp(self.low, self.high)
    }

    /// The interval of coordinates whose values round to one from `from` to `to`.
    fn around(self, from: f64, to: f64) -> [f64; 2] {
        let half = if self.whole { 0.5 } else { 0.0 };
        [self.coordinate(from - half), self.coordinate(to + half)]
    }
}

impl Mixture {
    fn new(space: &[Dimension], points: &[&Point]) -> Self {
        let kernels = space.iter().enumerate().map(|(dimension, kind)| {
            let at: Vec<f64> = points.iter().map(|point| point[dimension]).collect();
            match *kind {
                Dimension::Number { low, high, log, whole } => normals(Range { low, high, log, whole }, &at),
                Dimension::Category(count) => categories(count, &at),
            }
        });
        Self { kernels: kernels.collect(), components: points.len() + 1 }
    }

    fn sample(&self, rng: &mut Pcg64) -> Point {
        let component = rng.random_range(0..self.components);
        self.kernels.iter().map(|kernels| kernels[component].sample(rng.random())).collect()
    }

    fn sample_along(&self, dimension: usize, rng: &mut Pcg64) -> f64 {
        let component = rng.random_range(0..self.components);
        self.kernels[dimension][component].sample(rng.random())
    }

    /// Of one dimension alone; but for a constant that all values share.
    fn log_density_along(&self, dimension: usize, at: f64) -> f64 {
        mean_of(self.kernels[dimension].iter().map(|kernel| kernel.log_density(at)).collect())
    }

    /// But for a constant that all points share.
    fn log_density(&self, point: &[f64]) -> f64 {
        let mut logs = vec![0.0; self.components];
        // Over a dimension that does not exist here each kernel sums to one.
        for (kernels, &at) in self.kernels.iter().zip(point).filter(|(_, at)| !at.is_nan()) {
            for (log, kernel) in logs.iter_mut().zip(kernels) {
                *log += kernel.log_density(at);
            }
        }
        mean_of(logs)
    }
}

/// Logarithm of the mean of what has these logarithms.
fn mean_of(logs: Vec<f64>) -> f64 {
    let most = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = logs.iter().map(|log| (log - most).exp()).sum();
    most + sum.ln() - (logs.len() as f64).ln()
}

/// Probability below `z` standard deviations.
fn below(z: f64) -> f64 {
    0.5 * (1.0 + erf(z * FRAC_1_SQRT_2))
}

/// Kernels around points, each as wide as the gap to its farther neighbour (Bergstra et al. 2011, section 4.2), within bounds; and the
/// prior. The first and the last are as wide as their one gap to another point. A point without this dimension knows no more of it
/// than the prior does.
fn normals(range: Range, at: &[f64]) -> Vec<Kernel> {
    let [least, most] = range.around(range.low, range.high);
    let width = most - least;
    let coordinates: Vec<f64> = at.iter().map(|&at| range.coordinate(at)).collect();
    let mut order: Vec<usize> = (0..at.len()).filter(|index| !at[*index].is_nan()).collect();
    let narrowest = width / (NARROWEST * (order.len() as f64 + 2.0)).min(100.0);
    order.sort_by(|&a, &b| coordinates[a].total_cmp(&coordinates[b]));
    let mut deviations = vec![width; at.len()];
    for (place, &index) in order.iter().enumerate() {
        let left = place.checked_sub(1).map(|place| coordinates[index] - coordinates[order[place]]);
        let right = order.get(place + 1).map(|&next| coordinates[next] - coordinates[index]);
        let ends = (coordinates[index] - least).max(most - coordinates[index]);
        let gap = left.into_iter().chain(right).reduce(f64::max).unwrap_or(ends);
        deviations[index] = gap.clamp(narrowest, width);
    }
    let prior = || Kernel::normal(range, 0.5 * (least + most), width);
    let around = coordinates
        .iter()
        .zip(deviations)
        .map(|(&mean, deviation)| if mean.is_nan() { prior() } else { Kernel::normal(range, mean, deviation) });
    around.chain([prior()]).collect()
}

/// Kernels around categories, each with a share of a prior of one observation; and the prior.
fn categories(count: usize, at: &[f64]) -> Vec<Kernel> {
    let share = 1.0 / (at.len() as f64 + 1.0);
    let kernel = |at: usize| {
        let weight = |index| (share / count as f64 + f64::from(u8::from(index == at))) / (1.0 + share);
        Kernel::Categories((0..count).map(weight).collect())
    };
    let prior = || Kernel::Categories(vec![1.0 / count as f64; count]);
    at.iter().map(|&at| if at.is_nan() { prior() } else { kernel(at as usize) }).chain([prior()]).collect()
}

impl Kernel {
    fn normal(range: Range, mean: f64, deviation: f64) -> Self {
        let ends = range.around(range.low, range.high).map(|end| below((end - mean) / deviation));
        let log_norm = (ends[1] - ends[0]).ln() + if range.whole { 0.0 } else { deviation.ln() };
        Self::Normal { range, mean, deviation, ends, log_norm }
    }

    /// The value at a place in [0, 1) of the cumulative distribution.
    fn sample(&self, unit: f64) -> f64 {
        match self {
            Self::Normal { range, mean, deviation, ends: [from, to], .. } => {
                let z = SQRT_2 * erf_inv(2.0 * (from + (to - from) * unit) - 1.0);
                range.value(mean + deviation * z)
            }
            Self::Categories(weights) => {
                let mut sum = 0.0;
                let reached = weights.iter().position(|weight| {
                    sum += weight;
                    unit < sum
                });
                reached.unwrap_or(weights.len() - 1) as f64
            }
        }
    }

    fn log_density(&self, at: f64) -> f64 {
        match self {
            Self::Normal { range, mean, deviation, log_norm, .. } if range.whole => {
                let [from, to] = range.around(at, at).map(|end| below((end - mean) / deviation));
                (to - from).max(f64::MIN_POSITIVE).ln() - log_norm
            }
            Self::Normal { range, mean, deviation, log_norm, .. } => {
                let z = (range.coordinate(at) - mean) / deviation;
                -0.5 * z * z - log_norm
            }
            Self::Categories(weights) => weights[at as usize].ln(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPACE: [Dimension; 4] = [
        Dimension::Number { low: 1e-4, high: 1.0, log: true, whole: false },
        Dimension::Number { low: 2.0, high: 9.0, log: false, whole: true },
        Dimension::Number { low: 1.0, high: 64.0, log: true, whole: true },
        Dimension::Category(3),
    ];

    fn search(count: u64) -> Vec<Point> {
        let mut ranked: Vec<Point> = Vec::new();
        for number in 0..count {
            let point =
                propose(&SPACE, &|_| {}, Coordinates::Together, Known { ranked: &ranked, pending: &[] }, 7, number)
                    .unwrap();
            ranked.push(point);
            ranked.sort_by(|a, b| a[0].total_cmp(&b[0]));
        }
        ranked
    }

    #[test]
    fn points_are_within_their_space_and_new() {
        let points = search(60);
        for (index, point) in points.iter().enumerate() {
            assert!((1e-4..=1.0).contains(&point[0]), "{point:?}");
            assert!((2.0..=9.0).contains(&point[1]) && point[1].fract() == 0.0, "{point:?}");
            assert!((1.0..=64.0).contains(&point[2]) && point[2].fract() == 0.0, "{point:?}");
            assert!([0.0, 1.0, 2.0].contains(&point[3]), "{point:?}");
            assert!(!points[..index].contains(point), "{point:?} twice");
        }
        assert!(points[0][0] < 1e-3, "the least was searched: {:?}", points[0]);
        assert_eq!(points, search(60), "the same knowledge, the same points");
    }

    #[test]
    fn densities_sum_to_one() {
        let point = vec![0.01, 4.0, 8.0, 1.0];
        let mixture = Mixture::new(&SPACE, &[&point, &vec![0.5, 9.0, 64.0, 2.0]]);
        for (dimension, values) in [(1, 2..=9), (2, 1..=64), (3, 0..=2)] {
            for kernel in &mixture.kernels[dimension] {
                let sum: f64 = values.clone().map(|at| kernel.log_density(f64::from(at)).exp()).sum();
                assert!((sum - 1.0).abs() < 1e-9, "dimension {dimension}: {sum}");
            }
        }
        for kernel in &mixture.kernels[0] {
            // Over the logarithm, in which the density is even.
            let step = 1e4_f64.ln() / 10_000.0;
            let sum: f64 = (0..10_000)
                .map(|i| kernel.log_density((1e-4_f64.ln() + step * (f64::from(i) + 0.5)).exp()).exp() * step)
                .sum();
            // The constant 1/√(2π) is left out, as all points share it.
            let scale = (2.0 * std::f64::consts::PI).sqrt();
            assert!((sum / scale - 1.0).abs() < 1e-3, "{sum}");
        }
    }

    #[test]
    fn pending_points_keep_others_away() {
        let space = [Dimension::Number { low: 0.0, high: 1.0, log: false, whole: false }];
        // Two good places, and the others between them.
        let between = (0..18).map(|index| vec![0.35 + 0.017 * f64::from(index)]);
        let ranked: Vec<Point> = [vec![0.2], vec![0.8]].into_iter().chain(between).collect();
        let high = |pending: &[Point]| {
            let known = Known { ranked: &ranked, pending };
            (0..200)
                .filter(|&number| propose(&space, &|_| {}, Coordinates::Together, known, 1, number).unwrap()[0] > 0.65)
                .count()
        };
        let (free, taken) = (high(&[]), high(&[vec![0.79], vec![0.8], vec![0.81]]));
        assert!(free > taken + 20, "{free} of 200 are at the one place, {taken} where others are at work there");
    }

    #[test]
    fn an_exhausted_space_has_no_further_point() {
        let space = [Dimension::Category(2)];
        let known = [vec![0.0], vec![1.0]];
        assert_eq!(propose(&space, &|_| {}, Coordinates::Together, Known { ranked: &known, pending: &[] }, 0, 2), None);
        assert_eq!(
            propose(&space, &|_| {}, Coordinates::Together, Known { ranked: &known[..1], pending: &[] }, 0, 1),
            Some(vec![1.0])
        );
    }
}
