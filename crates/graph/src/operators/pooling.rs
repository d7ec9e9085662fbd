//! Max and average pooling without padding.

use super::Real;

/// A square window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Side of the window, in pixels.
    pub size: usize,
    /// Step between windows, in pixels. Smaller than the size: overlapping pooling (Krizhevsky et al. 2012, section 3.4).
    pub stride: usize,
}

impl Pool {
    /// [N, C, OH, OW] for [N, C, H, W].
    pub fn output_shape(&self, x: &[usize]) -> Vec<usize> {
        let extent = |size: usize| (size - self.size) / self.stride + 1;
        vec![x[0], x[1], extent(x[2]), extent(x[3])]
    }

    /// Calls `visit(index of y, indices of its window in x, row by row)`.
    fn windows(&self, x_shape: &[usize], mut visit: impl FnMut(usize, &mut dyn Iterator<Item = usize>)) {
        let (h, w) = (x_shape[2], x_shape[3]);
        let y_shape = self.output_shape(x_shape);
        let (oh, ow) = (y_shape[2], y_shape[3]);
        for plane in 0..x_shape[0] * x_shape[1] {
            for oy in 0..oh {
                for ox in 0..ow {
                    let corner = (plane * h + oy * self.stride) * w + ox * self.stride;
                    let mut window = (0..self.size * self.size).map(|i| corner + i / self.size * w + i % self.size);
                    visit((plane * oh + oy) * ow + ox, &mut window);
                }
            }
        }
    }

    /// The first largest value wins, and any NaN over all numbers, as in PyTorch.
    fn first_largest<T: Real>(x: &[T], window: &mut dyn Iterator<Item = usize>) -> usize {
        let first = window.next().expect("a window has a pixel");
        window.fold(first, |best, i| if x[i] > x[best] || x[i].is_nan() { i } else { best })
    }

    /// Largest value of each window.
    pub fn max<T: Real>(&self, x: &[T], x_shape: &[usize]) -> Vec<T> {
        let mut y = vec![T::zero(); self.output_shape(x_shape).iter().product()];
        self.windows(x_shape, |o, window| y[o] = x[Self::first_largest(x, window)]);
        y
    }

    /// dx: dy goes to the first largest value of its window.
    pub fn max_grad<T: Real>(&self, x: &[T], x_shape: &[usize], dy: &[T]) -> Vec<T> {
        let mut dx = vec![T::zero(); x.len()];
        self.windows(x_shape, |o, window| dx[Self::first_largest(x, window)] += dy[o]);
        dx
    }

    /// Mean of each window.
    pub fn average<T: Real>(&self, x: &[T], x_shape: &[usize]) -> Vec<T> {
        let share = T::of(1.0 / (self.size * self.size) as f64);
        let mut y = vec![T::zero(); self.output_shape(x_shape).iter().product()];
        self.windows(x_shape, |o, window| y[o] = window.map(|i| x[i]).sum::<T>() * share);
        y
    }

    /// dx: dy spread evenly over its window.
    pub fn average_grad<T: Real>(&self, dy: &[T], x_shape: &[usize]) -> Vec<T> {
        let share = T::of(1.0 / (self.size * self.size) as f64);
        let mut dx = vec![T::zero(); x_shape.iter().product()];
        self.windows(x_shape, |o, window| window.for_each(|i| dx[i] += dy[o] * share));
        dx
    }
}
