//! Softmax cross-entropy with class probabilities as targets, so that label smoothing and mixup need no operator.

use super::Real;

fn log_sum_exp<T: Real>(row: &[T]) -> T {
    let largest = row.iter().copied().fold(T::neg_infinity(), T::max);
    largest + row.iter().map(|&v| (v - largest).exp()).sum::<T>().ln()
}

/// −(1/N) Σ t·log softmax(logits), over [N, K].
pub fn forward<T: Real>(logits: &[T], targets: &[T], shape: &[usize]) -> T {
    let rows = logits.chunks_exact(shape[1]).zip(targets.chunks_exact(shape[1]));
    rows.map(|(l, t)| {
        let norm = log_sum_exp(l);
        l.iter().zip(t).map(|(&l, &t)| t * (norm - l)).sum::<T>()
    })
    .sum::<T>()
        / T::of(shape[0] as f64)
}

/// dlogits = dloss/N · (softmax·Σt − t).
pub fn grad<T: Real>(logits: &[T], targets: &[T], shape: &[usize], dloss: T) -> Vec<T> {
    let factor = dloss / T::of(shape[0] as f64);
    let rows = logits.chunks_exact(shape[1]).zip(targets.chunks_exact(shape[1]));
    rows.flat_map(|(l, t)| {
        let norm = log_sum_exp(l);
        let mass: T = t.iter().copied().sum();
        l.iter().zip(t).map(|(&l, &t)| factor * ((l - norm).exp() * mass - t)).collect::<Vec<_>>()
    })
    .collect()
}
