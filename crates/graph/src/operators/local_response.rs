//! Local response normalization (Krizhevsky et al. 2012, section 3.3).

use super::Real;

/// b_c = a_c / (k + α Σ a²)^β, the sum over `size` channels around c. α multiplies the sum itself, as in the paper
/// (PyTorch and Caffe divide it by `size`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LocalResponse {
    /// Channels in the sum (the paper's n).
    pub size: usize,
    /// α.
    pub alpha: f32,
    /// β.
    pub beta: f32,
    /// k.
    pub k: f32,
}

impl LocalResponse {
    /// The paper's constants: n 5, α 1e-4, β 0.75, k 2.
    pub const PAPER: Self = Self { size: 5, alpha: 1e-4, beta: 0.75, k: 2.0 };

    /// The channels summed for channel `c` of `channels`.
    pub fn neighbours(&self, c: usize, channels: usize) -> std::ops::Range<usize> {
        c.saturating_sub(self.size / 2)..(c + self.size.div_ceil(2)).min(channels)
    }

    /// The channels whose sums hold channel `c` of `channels`.
    pub fn holders(&self, c: usize, channels: usize) -> std::ops::Range<usize> {
        (c + 1).saturating_sub(self.size.div_ceil(2))..(c + self.size / 2 + 1).min(channels)
    }

    fn denominators<T: Real>(&self, x: &[T], shape: &[usize]) -> Vec<T> {
        let (channels, plane) = (shape[1], shape[2] * shape[3]);
        (0..x.len())
            .map(|i| {
                let (image, c, pixel) = (i / plane / channels, i / plane % channels, i % plane);
                let squares: T =
                    self.neighbours(c, channels).map(|j| x[(image * channels + j) * plane + pixel].powi(2)).sum();
                T::of(f64::from(self.k)) + T::of(f64::from(self.alpha)) * squares
            })
            .collect()
    }

    /// y [N, C, H, W].
    pub fn forward<T: Real>(&self, x: &[T], shape: &[usize]) -> Vec<T> {
        let beta = T::of(f64::from(self.beta));
        self.denominators(x, shape).iter().zip(x).map(|(&d, &v)| v * d.powf(-beta)).collect()
    }

    /// dx_c = dy_c·d_c^−β − 2αβ·x_c·Σ_j dy_j·x_j·d_j^(−β−1), j over the sums that hold c.
    pub fn grad<T: Real>(&self, x: &[T], shape: &[usize], dy: &[T]) -> Vec<T> {
        let (channels, plane) = (shape[1], shape[2] * shape[3]);
        let (alpha, beta) = (T::of(f64::from(self.alpha)), T::of(f64::from(self.beta)));
        let d = self.denominators(x, shape);
        (0..x.len())
            .map(|i| {
                let (image, c, pixel) = (i / plane / channels, i / plane % channels, i % plane);
                let cross: T = self
                    .holders(c, channels)
                    .map(|j| (image * channels + j) * plane + pixel)
                    .map(|j| dy[j] * x[j] * d[j].powf(-beta - T::one()))
                    .sum();
                dy[i] * d[i].powf(-beta) - T::of(2.0) * alpha * beta * x[i] * cross
            })
            .collect()
    }
}
