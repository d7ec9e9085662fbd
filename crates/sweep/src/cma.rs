//! CMA-ES, the evolution strategy with covariance matrix adaptation: generations of points are drawn from a normal distribution, which
//! moves to the best half of each and takes their shape.
//!
//! Hansen 2016, "The CMA evolution strategy: a tutorial" (arXiv:1604.00772): sampling (section 2), rank-one and rank-μ update (section
//! 3), control of the step size (section 4), default parameters (table 1), with negative weights. What the distribution is after some
//! generations is worked out anew from their points and ranks whenever a point is asked for, so a search has no state of its own.

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64;
use statrs::function::erf::erf_inv;

/// Standard deviation of the first generation, in units of a range, around the middle of the space.
const FIRST_SPREAD: f64 = 0.2;
/// How often a point outside of the space is drawn anew before it is put to its edge.
const DRAWS: usize = 100;

/// Points of a generation of a search over so many dimensions.
pub fn population(dimensions: usize) -> usize {
    4 + (3.0 * (dimensions as f64).ln()) as usize
}

/// Point `number` of a search, counted from 0, as coordinates in [0, 1], a function of what is given alone. `generations` are the
/// complete ones before it, each of [`population`] points with the best first.
pub fn propose(dimensions: usize, generations: &[Vec<Vec<f64>>], seed: u64, number: u64) -> Vec<f64> {
    let mut strategy = Strategy::new(dimensions);
    for generation in generations {
        strategy.learn(generation);
    }
    let mut rng = Pcg64::seed_from_u64(seed);
    rng.advance(u128::from(number) << 64);
    strategy.sample(&mut rng)
}

/// A square matrix, row by row.
type Matrix = Vec<Vec<f64>>;

struct Strategy {
    mean: Vec<f64>,
    /// Step size σ.
    spread: f64,
    covariance: Matrix,
    /// Eigenvectors of the covariance as columns, and square roots of its eigenvalues.
    axes: Matrix,
    lengths: Vec<f64>,
    /// Evolution paths of the covariance and of the step size.
    path: Vec<f64>,
    spread_path: Vec<f64>,
    generations: i32,
}

impl Strategy {
    fn new(dimensions: usize) -> Self {
        let identity = identity(dimensions);
        Self {
            mean: vec![0.5; dimensions],
            spread: FIRST_SPREAD,
            covariance: identity.clone(),
            axes: identity,
            lengths: vec![1.0; dimensions],
            path: vec![0.0; dimensions],
            spread_path: vec![0.0; dimensions],
            generations: 0,
        }
    }

    fn sample(&self, rng: &mut Pcg64) -> Vec<f64> {
        let mut draw = || -> Vec<f64> {
            let normal = |length: &f64| {
                let unit: f64 = rng.random();
                // The ends of the interval are infinitely far.
                length * std::f64::consts::SQRT_2 * erf_inv((2.0 * unit - 1.0).clamp(-1.0 + 1e-15, 1.0 - 1e-15))
            };
            let along: Vec<f64> = self.lengths.iter().map(normal).collect();
            let step = product(&self.axes, &along);
            self.mean.iter().zip(step).map(|(mean, step)| mean + self.spread * step).collect()
        };
        let mut point = draw();
        for _ in 1..DRAWS {
            if point.iter().all(|at| (0.0..=1.0).contains(at)) {
                return point;
            }
            point = draw();
        }
        point.iter().map(|at| at.clamp(0.0, 1.0)).collect()
    }

    /// Takes in a generation, the best point first.
    fn learn(&mut self, points: &[Vec<f64>]) {
        let n = self.mean.len() as f64;
        let count = points.len();
        // Table 1; equations 49 to 58.
        let raw: Vec<f64> = (1..=count).map(|rank| ((count as f64 + 1.0) / 2.0).ln() - (rank as f64).ln()).collect();
        let parents = count / 2;
        let mass = |weights: &[f64]| weights.iter().sum::<f64>().powi(2) / weights.iter().map(|w| w * w).sum::<f64>();
        let (effective, effective_negative) = (mass(&raw[..parents]), mass(&raw[parents..]));
        let rank_one = 2.0 / ((n + 1.3).powi(2) + effective);
        let rank_mu =
            (1.0 - rank_one).min(2.0 * (0.25 + effective + 1.0 / effective - 2.0) / ((n + 2.0).powi(2) + effective));
        let positive: f64 = raw.iter().filter(|w| **w >= 0.0).sum();
        let negative: f64 = -raw.iter().filter(|w| **w < 0.0).sum::<f64>();
        let most_negative = (1.0 + rank_one / rank_mu)
            .min(1.0 + 2.0 * effective_negative / (effective + 2.0))
            .min((1.0 - rank_one - rank_mu) / (n * rank_mu));
        let weights: Vec<f64> =
            raw.iter().map(|w| if *w >= 0.0 { w / positive } else { w * most_negative / negative }).collect();
        let spread_rate = (effective + 2.0) / (n + effective + 5.0);
        let damping = 1.0 + 2.0 * (((effective - 1.0) / (n + 1.0)).sqrt() - 1.0).max(0.0) + spread_rate;
        let path_rate = (4.0 + effective / n) / (n + 4.0 + 2.0 * effective / n);
        let expected = n.sqrt() * (1.0 - 1.0 / (4.0 * n) + 1.0 / (21.0 * n * n));

        let steps: Vec<Vec<f64>> = points
            .iter()
            .map(|point| point.iter().zip(&self.mean).map(|(at, mean)| (at - mean) / self.spread).collect())
            .collect();
        let dimensions = self.mean.len();
        let parents_step: Vec<f64> =
            (0..dimensions).map(|i| (0..parents).map(|rank| weights[rank] * steps[rank][i]).sum()).collect();
        for (mean, step) in self.mean.iter_mut().zip(&parents_step) {
            *mean += self.spread * step;
        }
        let whitened = self.whitened(&parents_step);
        let scale = (spread_rate * (2.0 - spread_rate) * effective).sqrt();
        for (path, step) in self.spread_path.iter_mut().zip(&whitened) {
            *path = (1.0 - spread_rate) * *path + scale * step;
        }
        self.generations += 1;
        let length = norm(&self.spread_path);
        let usual = length / (1.0 - (1.0 - spread_rate).powi(2 * self.generations)).sqrt();
        // While the step size grows fast, the path waits.
        let moves = usual < (1.4 + 2.0 / (n + 1.0)) * expected;
        let scale = if moves { (path_rate * (2.0 - path_rate) * effective).sqrt() } else { 0.0 };
        for (path, step) in self.path.iter_mut().zip(&parents_step) {
            *path = (1.0 - path_rate) * *path + scale * step;
        }
        let lost = if moves { 0.0 } else { path_rate * (2.0 - path_rate) };
        let kept = 1.0 + rank_one * lost - rank_one - rank_mu * weights.iter().sum::<f64>();
        let own: Vec<f64> = weights
            .iter()
            .zip(&steps)
            .map(|(weight, step)| {
                // So that the covariance stays positive.
                if *weight >= 0.0 { *weight } else { weight * n / (norm(&self.whitened(step)).powi(2) + 1e-12) }
            })
            .collect();
        for i in 0..dimensions {
            for j in 0..dimensions {
                let from_points: f64 = own.iter().zip(&steps).map(|(weight, step)| weight * step[i] * step[j]).sum();
                self.covariance[i][j] =
                    kept * self.covariance[i][j] + rank_one * self.path[i] * self.path[j] + rank_mu * from_points;
            }
        }
        self.spread *= (spread_rate / damping * (length / expected - 1.0)).min(1.0).exp();
        let (values, axes) = eigen(&self.covariance);
        self.axes = axes;
        self.lengths = values.iter().map(|value| value.max(1e-20).sqrt()).collect();
    }

    /// C^(−½) · step.
    fn whitened(&self, step: &[f64]) -> Vec<f64> {
        let n = step.len();
        let along: Vec<f64> =
            (0..n).map(|axis| (0..n).map(|i| self.axes[i][axis] * step[i]).sum::<f64>() / self.lengths[axis]).collect();
        product(&self.axes, &along)
    }
}

fn identity(n: usize) -> Matrix {
    (0..n).map(|i| (0..n).map(|j| f64::from(u8::from(i == j))).collect()).collect()
}

fn product(matrix: &Matrix, vector: &[f64]) -> Vec<f64> {
    matrix.iter().map(|row| row.iter().zip(vector).map(|(a, b)| a * b).sum()).collect()
}

fn norm(vector: &[f64]) -> f64 {
    vector.iter().map(|value| value * value).sum::<f64>().sqrt()
}

/// Eigenvalues of a symmetric matrix, and its eigenvectors as columns, by Jacobi's rotations (Golub and Van Loan 2013, "Matrix
/// computations", section 8.5.3).
fn eigen(matrix: &Matrix) -> (Vec<f64>, Matrix) {
    let n = matrix.len();
    let mut a = matrix.clone();
    let mut axes = identity(n);
    for _ in 0..100 {
        let off: f64 = (0..n).flat_map(|i| (0..i).map(move |j| (i, j))).map(|(i, j)| a[i][j] * a[i][j]).sum();
        let on: f64 = (0..n).map(|i| a[i][i] * a[i][i]).sum();
        if off <= 1e-30 * on {
            break;
        }
        for p in 0..n {
            for q in p + 1..n {
                if a[p][q] == 0.0 {
                    continue;
                }
                let ratio = (a[q][q] - a[p][p]) / (2.0 * a[p][q]);
                let tangent = ratio.signum() / (ratio.abs() + (1.0 + ratio * ratio).sqrt());
                let cosine = 1.0 / (1.0 + tangent * tangent).sqrt();
                let sine = tangent * cosine;
                for row in a.iter_mut().chain(&mut axes) {
                    (row[p], row[q]) = (cosine * row[p] - sine * row[q], sine * row[p] + cosine * row[q]);
                }
                let (above, below) = a.split_at_mut(q);
                for (x, y) in above[p].iter_mut().zip(&mut below[0]) {
                    (*x, *y) = (cosine * *x - sine * *y, sine * *x + cosine * *y);
                }
            }
        }
    }
    ((0..n).map(|i| a[i][i]).collect(), axes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eigenvectors_make_up_the_matrix() {
        let matrix: Matrix = vec![vec![4.0, 1.0, -2.0], vec![1.0, 3.0, 0.5], vec![-2.0, 0.5, 2.0]];
        let (values, axes) = eigen(&matrix);
        for i in 0..3 {
            for j in 0..3 {
                let sum: f64 = (0..3).map(|k| axes[i][k] * values[k] * axes[j][k]).sum();
                assert!((sum - matrix[i][j]).abs() < 1e-12, "{sum} is not {}", matrix[i][j]);
                let dot: f64 = (0..3).map(|k| axes[k][i] * axes[k][j]).sum();
                assert!((dot - f64::from(u8::from(i == j))).abs() < 1e-12);
            }
        }
        assert_eq!(eigen(&vec![vec![2.0]]).0, [2.0]);
    }

    #[test]
    fn equal_knowledge_leads_to_the_same_points_within_the_space() {
        let points: Vec<Vec<f64>> = (0..8).map(|number| propose(3, &[], 5, number)).collect();
        assert!(points.iter().flatten().all(|at| (0.0..=1.0).contains(at)));
        assert_eq!(points[3], propose(3, &[], 5, 3));
        assert!(points[..7].iter().all(|point| *point != points[7]));
        let mut best_first = points.clone();
        best_first.sort_by(|a, b| norm(a).total_cmp(&norm(b)));
        let generations: Vec<_> = vec![best_first; 5];
        let next = propose(3, &generations, 5, 40);
        assert!(norm(&next) < norm(&points[0]).max(0.9), "{next:?}");
    }
}
