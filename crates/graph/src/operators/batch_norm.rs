//! Batch normalization (Ioffe & Szegedy 2015, algorithm 1) over [N, C, H, W], one mean and variance per channel.

use super::Real;

/// ε under the root, as PyTorch's default.
pub const EPSILON: f64 = 1e-5;

/// Calls `visit(channel, range of that channel's pixels in one image)` over all images.
fn planes(shape: &[usize], mut visit: impl FnMut(usize, std::ops::Range<usize>)) {
    let (channels, plane) = (shape[1], shape[2..].iter().product::<usize>());
    for i in 0..shape[0] * channels {
        visit(i % channels, i * plane..(i + 1) * plane);
    }
}

fn count<T: Real>(shape: &[usize]) -> T {
    T::of((shape[0] * shape[2..].iter().product::<usize>()) as f64)
}

/// [2, C]: mean and biased variance.
pub fn statistics<T: Real>(x: &[T], shape: &[usize]) -> Vec<T> {
    let channels = shape[1];
    let m = count::<T>(shape);
    let mut out = vec![T::zero(); 2 * channels];
    planes(shape, |c, range| out[c] += x[range].iter().copied().sum::<T>() / m);
    let mean = out[..channels].to_vec();
    planes(shape, |c, range| {
        out[channels + c] += x[range].iter().map(|&v| (v - mean[c]) * (v - mean[c])).sum::<T>() / m
    });
    out
}

/// y = x̂·gamma + beta with x̂ = (x − mean) / √(variance + ε).
pub fn normalize<T: Real>(x: &[T], shape: &[usize], statistics: &[T], gamma: &[T], beta: &[T]) -> Vec<T> {
    let channels = shape[1];
    let mut y = x.to_vec();
    planes(shape, |c, range| {
        let scale = gamma[c] / (statistics[channels + c] + T::of(EPSILON)).sqrt();
        for v in &mut y[range] {
            *v = (*v - statistics[c]) * scale + beta[c];
        }
    });
    y
}

/// [2, C]: dgamma = Σ dy·x̂ and dbeta = Σ dy.
pub fn parameter_grad<T: Real>(x: &[T], shape: &[usize], statistics: &[T], dy: &[T]) -> Vec<T> {
    let channels = shape[1];
    let mut out = vec![T::zero(); 2 * channels];
    planes(shape, |c, range| {
        let inverse = T::one() / (statistics[channels + c] + T::of(EPSILON)).sqrt();
        for i in range {
            out[c] += dy[i] * (x[i] - statistics[c]) * inverse;
            out[channels + c] += dy[i];
        }
    });
    out
}

/// dx = gamma / √(variance + ε) · (dy − dbeta/m − x̂·dgamma/m), m values per channel.
pub fn input_grad<T: Real>(
    x: &[T],
    shape: &[usize],
    statistics: &[T],
    gamma: &[T],
    parameter_grad: &[T],
    dy: &[T],
) -> Vec<T> {
    let channels = shape[1];
    let m = count::<T>(shape);
    let mut dx = vec![T::zero(); x.len()];
    planes(shape, |c, range| {
        let inverse = T::one() / (statistics[channels + c] + T::of(EPSILON)).sqrt();
        for i in range {
            let normalized = (x[i] - statistics[c]) * inverse;
            dx[i] =
                gamma[c] * inverse * (dy[i] - parameter_grad[channels + c] / m - normalized * parameter_grad[c] / m);
        }
    });
    dx
}

/// Running mean and variance after a step: r ← (1 − momentum)·r + momentum·batch, the variance unbiased (as PyTorch).
pub fn running<T: Real>(mean: &[T], variance: &[T], statistics: &[T], momentum: f32, count: usize) -> (Vec<T>, Vec<T>) {
    let channels = mean.len();
    let momentum = T::of(f64::from(momentum));
    let unbiased = T::of(count as f64 / (count.max(2) - 1) as f64);
    let blend = |old: T, new: T| (T::one() - momentum) * old + momentum * new;
    (
        (0..channels).map(|c| blend(mean[c], statistics[c])).collect(),
        (0..channels).map(|c| blend(variance[c], statistics[channels + c] * unbiased)).collect(),
    )
}
