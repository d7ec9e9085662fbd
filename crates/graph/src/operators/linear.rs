//! Fully connected layers: y = x wᵀ + b.

use super::Real;

/// y [N, O] from x [N, I], w [O, I], b \[O\].
pub fn forward<T: Real>(x: &[T], w: &[T], b: &[T], y_shape: &[usize]) -> Vec<T> {
    let (outputs, inputs) = (y_shape[1], w.len() / y_shape[1]);
    (0..y_shape[0] * outputs)
        .map(|i| {
            let (n, o) = (i / outputs, i % outputs);
            b[o] + (0..inputs).map(|k| x[n * inputs + k] * w[o * inputs + k]).sum()
        })
        .collect()
}

/// dx [N, I] = dy w, from w [O, I] and dy [N, O].
pub fn input_grad<T: Real>(w: &[T], dy: &[T], w_shape: &[usize]) -> Vec<T> {
    let (outputs, inputs) = (w_shape[0], w_shape[1]);
    let rows = dy.len() / outputs;
    (0..rows * inputs)
        .map(|i| {
            let (n, k) = (i / inputs, i % inputs);
            (0..outputs).map(|o| dy[n * outputs + o] * w[o * inputs + k]).sum()
        })
        .collect()
}

/// dw [O, I] = dyᵀ x, from x [N, I] and dy [N, O].
pub fn weight_grad<T: Real>(x: &[T], dy: &[T], w_shape: &[usize]) -> Vec<T> {
    let (outputs, inputs) = (w_shape[0], w_shape[1]);
    let rows = dy.len() / outputs;
    (0..outputs * inputs)
        .map(|i| {
            let (o, k) = (i / inputs, i % inputs);
            (0..rows).map(|n| dy[n * outputs + o] * x[n * inputs + k]).sum()
        })
        .collect()
}
