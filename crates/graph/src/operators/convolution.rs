//! Two-dimensional convolution (cross-correlation, as every framework has it).

use super::Real;

/// Attributes shared by the operator and its two gradients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Convolution {
    /// Step between windows, in pixels.
    pub stride: usize,
    /// Zeros on each side, in pixels.
    pub padding: usize,
    /// Number of groups: output channels of a group see only that group's input channels.
    pub groups: usize,
}

/// Extents that the loops run over.
struct Extents {
    n: usize,
    c: usize,
    h: usize,
    w: usize,
    o: usize,
    oh: usize,
    ow: usize,
    kh: usize,
    kw: usize,
}

impl Convolution {
    /// [N, O, OH, OW] for x [N, C, H, W] and w [O, C/g, KH, KW].
    pub fn output_shape(&self, x: &[usize], w: &[usize]) -> Vec<usize> {
        assert_eq!(x[1], w[1] * self.groups, "channels of a convolution's input {x:?} and weights {w:?}");
        assert_eq!(w[0] % self.groups, 0, "output channels split into groups");
        let extent = |size: usize, kernel: usize| (size + 2 * self.padding - kernel) / self.stride + 1;
        vec![x[0], w[0], extent(x[2], w[2]), extent(x[3], w[3])]
    }

    /// Calls `visit(x index, w index, y index)` for every product of the sum that defines the operator.
    fn products(&self, e: &Extents, mut visit: impl FnMut(usize, usize, usize)) {
        let (cg, og) = (e.c / self.groups, e.o / self.groups);
        for n in 0..e.n {
            for o in 0..e.o {
                let group = o / og;
                for oy in 0..e.oh {
                    for ox in 0..e.ow {
                        let y = ((n * e.o + o) * e.oh + oy) * e.ow + ox;
                        for c in 0..cg {
                            for ky in 0..e.kh {
                                let iy = oy * self.stride + ky;
                                if iy < self.padding || iy - self.padding >= e.h {
                                    continue;
                                }
                                for kx in 0..e.kw {
                                    let ix = ox * self.stride + kx;
                                    if ix < self.padding || ix - self.padding >= e.w {
                                        continue;
                                    }
                                    let x = ((n * e.c + group * cg + c) * e.h + iy - self.padding) * e.w + ix
                                        - self.padding;
                                    visit(x, ((o * cg + c) * e.kh + ky) * e.kw + kx, y);
                                }
                            }
                        }
                    }
                }
            }
        }
    }

    fn extents(x: &[usize], w: &[usize], y: &[usize]) -> Extents {
        Extents { n: x[0], c: x[1], h: x[2], w: x[3], o: w[0], oh: y[2], ow: y[3], kh: w[2], kw: w[3] }
    }

    /// y = Σ x·w + b.
    pub fn forward<T: Real>(&self, x: &[T], x_shape: &[usize], w: &[T], w_shape: &[usize], b: &[T]) -> Vec<T> {
        let y_shape = self.output_shape(x_shape, w_shape);
        let e = Self::extents(x_shape, w_shape, &y_shape);
        let plane = e.oh * e.ow;
        let mut y: Vec<T> = (0..e.n * e.o * plane).map(|i| b[i / plane % e.o]).collect();
        self.products(&e, |xi, wi, yi| y[yi] += x[xi] * w[wi]);
        y
    }

    /// dx = Σ w·dy.
    pub fn input_grad<T: Real>(
        &self,
        w: &[T],
        w_shape: &[usize],
        dy: &[T],
        dy_shape: &[usize],
        x_shape: &[usize],
    ) -> Vec<T> {
        let mut dx = vec![T::zero(); x_shape.iter().product()];
        self.products(&Self::extents(x_shape, w_shape, dy_shape), |xi, wi, yi| dx[xi] += w[wi] * dy[yi]);
        dx
    }

    /// dw = Σ x·dy.
    pub fn weight_grad<T: Real>(
        &self,
        x: &[T],
        x_shape: &[usize],
        dy: &[T],
        dy_shape: &[usize],
        w_shape: &[usize],
    ) -> Vec<T> {
        let mut dw = vec![T::zero(); w_shape.iter().product()];
        self.products(&Self::extents(x_shape, w_shape, dy_shape), |xi, wi, yi| dw[wi] += x[xi] * dy[yi]);
        dw
    }
}
