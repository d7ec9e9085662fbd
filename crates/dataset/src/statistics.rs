//! Mean, deviation and colour covariance of the training part, from exact integer sums: the same whatever the number of
//! threads and the order of the images.

use pulp::{Arch, NullaryFnOnce};
use serde::{Deserialize, Serialize};

/// Sums over pixels, of up to three channels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sums {
    pixels: u64,
    first: [u64; 3],
    /// Products of channels (0,0), (1,1), (2,2), (0,1), (0,2), (1,2).
    second: [u64; 6],
}

const PAIRS: [(usize, usize); 6] = [(0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2)];

impl Sums {
    /// Of one image [C, H, W].
    pub fn of(image: &[u8], channels: usize) -> Self {
        Arch::new().dispatch(Summing { image, channels })
    }

    pub fn add(&mut self, other: &Self) {
        self.pixels += other.pixels;
        self.first.iter_mut().zip(other.first).for_each(|(sum, x)| *sum += x);
        self.second.iter_mut().zip(other.second).for_each(|(sum, x)| *sum += x);
    }

    /// Covariance of two channels, in units of the full range.
    fn covariance(&self, pair: usize) -> f64 {
        let (a, b) = PAIRS[pair];
        let n = u128::from(self.pixels);
        let product = n * u128::from(self.second[pair]);
        let means = u128::from(self.first[a]) * u128::from(self.first[b]);
        // The difference first, in whole numbers: no cancellation.
        let difference = product as i128 - means as i128;
        difference as f64 / (n * n).max(1) as f64 / (255.0 * 255.0)
    }

    /// Mean per channel, in [0, 1].
    pub fn mean(&self, channels: usize) -> Vec<f64> {
        self.first[..channels].iter().map(|&sum| sum as f64 / self.pixels.max(1) as f64 / 255.0).collect()
    }

    /// Standard deviation per channel (of the population), in units of the full range.
    pub fn deviation(&self, channels: usize) -> Vec<f64> {
        (0..channels).map(|channel| self.covariance(channel).max(0.0).sqrt()).collect()
    }

    /// Principal components of the colours.
    pub fn principal(&self) -> Principal {
        let c = [0, 1, 2, 3, 4, 5].map(|pair| self.covariance(pair));
        eigen([[c[0], c[3], c[4]], [c[3], c[1], c[5]], [c[4], c[5], c[2]]])
    }
}

/// [`Sums::of`], compiled for each set of instructions.
struct Summing<'a> {
    image: &'a [u8],
    channels: usize,
}

impl NullaryFnOnce for Summing<'_> {
    type Output = Sums;

    #[inline(always)]
    fn call(self) -> Sums {
        let plane = self.image.len() / self.channels;
        let mut sums = Sums { pixels: plane as u64, ..Sums::default() };
        if self.channels == 1 {
            for piece in self.image.chunks(SHORT) {
                let (mut first, mut second) = (0_u32, 0_u32);
                for &value in piece {
                    first += u32::from(value);
                    second += product(value, value);
                }
                sums.first[0] += u64::from(first);
                sums.second[0] += u64::from(second);
            }
            return sums;
        }
        let (red, rest) = self.image.split_at(plane);
        let (green, blue) = rest.split_at(plane);
        for ((red, green), blue) in red.chunks(SHORT).zip(green.chunks(SHORT)).zip(blue.chunks(SHORT)) {
            let (mut first, mut second) = ([0_u32; 3], [0_u32; 6]);
            for ((&r, &g), &b) in red.iter().zip(green).zip(blue) {
                // One by one: over arrays the compiler makes no vectors of it.
                first[0] += u32::from(r);
                first[1] += u32::from(g);
                first[2] += u32::from(b);
                second[0] += product(r, r);
                second[1] += product(g, g);
                second[2] += product(b, b);
                second[3] += product(r, g);
                second[4] += product(r, b);
                second[5] += product(g, b);
            }
            sums.first.iter_mut().zip(first).for_each(|(sum, x)| *sum += u64::from(x));
            sums.second.iter_mut().zip(second).for_each(|(sum, x)| *sum += u64::from(x));
        }
        sums
    }
}

/// So many products of two bytes add up in 32 bits.
const SHORT: usize = 65_536;

/// By signed numbers of 16 bits, which processors multiply and add in one instruction.
#[inline(always)]
fn product(a: u8, b: u8) -> u32 {
    (i32::from(i16::from(a)) * i32::from(i16::from(b))) as u32
}

/// Principal components of the RGB values of the training part (Krizhevsky et al. 2012, section 4.1).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Principal {
    /// Eigenvalues of the 3×3 covariance of RGB values in [0, 1], largest first.
    pub values: [f64; 3],
    /// The unit eigenvector (red, green, blue) of each; the largest component is positive.
    pub vectors: [[f64; 3]; 3],
}

/// Eigenvalues and vectors of a symmetric matrix, by Jacobi's rotations (Golub & Van Loan, "Matrix Computations", section 8.5).
fn eigen(mut a: [[f64; 3]; 3]) -> Principal {
    let mut v = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];
    for _ in 0..30 {
        for (p, q) in [(0, 1), (0, 2), (1, 2)] {
            if a[p][q] == 0.0 {
                continue;
            }
            let theta = (a[q][q] - a[p][p]) / (2.0 * a[p][q]);
            let t = theta.signum() / (theta.abs() + (theta * theta + 1.0).sqrt());
            let cosine = 1.0 / (t * t + 1.0).sqrt();
            let sine = t * cosine;
            for row in &mut a {
                (row[p], row[q]) = (cosine * row[p] - sine * row[q], sine * row[p] + cosine * row[q]);
            }
            let (upper, lower) = (a[p], a[q]);
            a[p] = [0, 1, 2].map(|k| cosine * upper[k] - sine * lower[k]);
            a[q] = [0, 1, 2].map(|k| sine * upper[k] + cosine * lower[k]);
            for row in &mut v {
                (row[p], row[q]) = (cosine * row[p] - sine * row[q], sine * row[p] + cosine * row[q]);
            }
        }
    }
    let mut order = [0, 1, 2];
    order.sort_by(|&i, &j| a[j][j].total_cmp(&a[i][i]));
    let vectors = order.map(|k| {
        let vector = [v[0][k], v[1][k], v[2][k]];
        let largest = vector.iter().copied().fold(0.0, |best: f64, x| if x.abs() > best.abs() { x } else { best });
        vector.map(|x| x * largest.signum())
    });
    Principal { values: order.map(|k| a[k][k].max(0.0)), vectors }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_give_mean_and_deviation() {
        let mut sums = Sums::of(&[0, 255], 1);
        sums.add(&Sums::of(&[255, 255], 1));
        assert_eq!(sums.mean(1), [0.75]);
        assert!((sums.deviation(1)[0] - 0.1875f64.sqrt()).abs() < 1e-15);
    }

    #[test]
    fn principal_components_rebuild_the_covariance() {
        let image: Vec<u8> = (0..3 * 64u32).map(|i| ((i * i * 7 + i * 13 + (i % 64) * (i % 64)) % 251) as u8).collect();
        let sums = Sums::of(&image, 3);
        let Principal { values, vectors } = sums.principal();
        assert!(values[0] >= values[1] && values[1] >= values[2]);
        for (pair, &(a, b)) in PAIRS.iter().enumerate() {
            let rebuilt: f64 = (0..3).map(|k| values[k] * vectors[k][a] * vectors[k][b]).sum();
            assert!((rebuilt - sums.covariance(pair)).abs() < 1e-14);
            let product: f64 = (0..3).map(|k| vectors[a][k] * vectors[b][k]).sum();
            assert!((product - if a == b { 1.0 } else { 0.0 }).abs() < 1e-14);
        }
    }

    #[test]
    fn a_constant_image_has_no_spread() {
        let sums = Sums::of(&[7; 300], 3);
        assert_eq!(sums.deviation(3), [0.0; 3]);
        assert_eq!(sums.principal().values, [0.0; 3]);
    }
}
