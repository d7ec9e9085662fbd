//! The one-dimensional transforms of minimal filtering (Winograd 1980; Lavin & Gray 2016, "Fast Algorithms for Convolutional
//! Neural Networks", section 4) with six points, 0, ±⅝, ±3/2 and infinity, or with eight, 0, ±½, ±1, ±2 and infinity.
//!
//! Six points are also what products in 16 bits go through, where the choice matters: with 0, ±1, ±2 and infinity, products of operands
//! rounded to bf16 give outputs with a relative error of 0.025, with these 0.011 (0.002 if nothing were transformed).
//!
//! m outputs of a filter with r taps are Aᵀ[(G g) ⊙ (Bᵀ d)], as many products as there are points, m + r − 1, instead of m·r. The
//! points decide Bᵀ, which is the same for all m; G and A are Vandermonde matrices of the points, here for any number of
//! taps and outputs. In two dimensions each is applied to the columns, then to the rows.

use pulp::Simd;

use super::super::vector::fma;

/// A one-dimensional transform. A type rather than a function: what is called by reference is not inlined, and so not compiled for the vector
/// level.
pub(super) trait Transform<const FROM: usize, const TO: usize> {
    /// The transform of each lane.
    fn of<S: Simd>(simd: S, values: [S::f32s; FROM]) -> [S::f32s; TO];
}

/// Bᵀ d.
pub(super) struct Data;
/// G g.
pub(super) struct Filter;
/// Aᵀ p.
pub(super) struct Outputs;

impl<const POINTS: usize> Transform<POINTS, POINTS> for Data {
    #[inline(always)]
    fn of<S: Simd>(simd: S, d: [S::f32s; POINTS]) -> [S::f32s; POINTS] {
        data::<S, POINTS>(simd, d)
    }
}

impl<const TAPS: usize, const POINTS: usize> Transform<TAPS, POINTS> for Filter {
    #[inline(always)]
    fn of<S: Simd>(simd: S, g: [S::f32s; TAPS]) -> [S::f32s; POINTS] {
        filter::<S, TAPS, POINTS>(simd, g)
    }
}

impl<const POINTS: usize, const OUTPUTS: usize> Transform<POINTS, OUTPUTS> for Outputs {
    #[inline(always)]
    fn of<S: Simd>(simd: S, p: [S::f32s; POINTS]) -> [S::f32s; OUTPUTS] {
        outputs::<S, OUTPUTS, POINTS>(simd, p)
    }
}

/// Bᵀ d. A pair of points ±p shares its sums over even and over odd places.
#[inline(always)]
fn data<S: Simd, const POINTS: usize>(simd: S, d: [S::f32s; POINTS]) -> [S::f32s; POINTS] {
    let times = |x, factor, y| fma(simd, x, simd.splat_f32s(factor), y);
    let mut out = d;
    if POINTS == 6 {
        let [(small, _), (large, _)] = SIX;
        let (small2, large2) = (small * small, large * large);
        let scaled = |factor, x| simd.mul_f32s(simd.splat_f32s(factor), x);
        let even1 = times(d[2], -large2, d[4]);
        let odd1 = scaled(small, times(d[1], -large2, d[3]));
        let even2 = times(d[2], -small2, d[4]);
        let odd2 = scaled(large, times(d[1], -small2, d[3]));
        out[0] = times(d[0], small2 * large2, times(d[2], -(small2 + large2), d[4]));
        pair(simd, even1, odd1, &mut out[1..3]);
        pair(simd, even2, odd2, &mut out[3..5]);
        out[5] = times(d[1], small2 * large2, times(d[3], -(small2 + large2), d[5]));
    } else {
        let even1 = times(d[4], -4.25, simd.add_f32s(d[2], d[6]));
        let odd1 = times(d[3], -4.25, simd.add_f32s(d[1], d[5]));
        let even2 = times(d[2], 0.25, times(d[4], -1.25, d[6]));
        let odd2 = times(d[1], 0.5, times(d[3], -2.5, simd.add_f32s(d[5], d[5])));
        let even3 = times(d[2], 4.0, times(d[4], -5.0, d[6]));
        let odd3 = times(d[5], 0.5, times(d[3], -2.5, simd.add_f32s(d[1], d[1])));
        out[0] = times(simd.sub_f32s(d[4], d[2]), 5.25, simd.sub_f32s(d[0], d[6]));
        pair(simd, even1, odd1, &mut out[1..3]);
        pair(simd, even2, odd2, &mut out[3..5]);
        pair(simd, even3, odd3, &mut out[5..7]);
        out[7] = times(simd.sub_f32s(d[3], d[5]), 5.25, simd.sub_f32s(d[7], d[1]));
    }
    out
}

/// even + odd, even − odd.
#[inline(always)]
fn pair<S: Simd>(simd: S, even: S::f32s, odd: S::f32s, to: &mut [S::f32s]) {
    to[0] = simd.add_f32s(even, odd);
    to[1] = simd.sub_f32s(even, odd);
}

/// Two pairs of points.
const SIX: [(f32, f32); 2] = [(0.625, -2048.0 / 2975.0), (1.5, 128.0 / 1071.0)];
/// Three pairs of points.
const EIGHT: [(f32, f32); 3] = [(1.0, -2.0 / 9.0), (2.0, 1.0 / 90.0), (0.5, 32.0 / 45.0)];

/// The positive points of the pairs, and for each the product of its distances from the other points, inverted.
#[inline(always)]
fn pairs<const POINTS: usize>() -> &'static [(f32, f32)] {
    if POINTS == 6 { &SIX } else { &EIGHT }
}

/// G g: the filter's polynomial at each point, over the product of the point's distances from the others.
#[inline(always)]
fn filter<S: Simd, const TAPS: usize, const POINTS: usize>(simd: S, g: [S::f32s; TAPS]) -> [S::f32s; POINTS] {
    let mut out = [g[0]; POINTS];
    if POINTS == 6 {
        // Over the product of the other points' squares.
        out[0] = simd.mul_f32s(g[0], simd.splat_f32s(256.0 / 225.0));
    }
    for (n, &(point, share)) in pairs::<POINTS>().iter().enumerate() {
        let mut sums = [simd.splat_f32s(0.0); 2];
        let mut power = share;
        for j in 0..TAPS {
            sums[j % 2] = fma(simd, g[j], simd.splat_f32s(power), sums[j % 2]);
            power *= point;
        }
        pair(simd, sums[0], sums[1], &mut out[1 + 2 * n..3 + 2 * n]);
    }
    out[POINTS - 1] = g[TAPS - 1];
    out
}

/// Aᵀ p: powers of the points weight the products.
#[inline(always)]
fn outputs<S: Simd, const OUTPUTS: usize, const POINTS: usize>(simd: S, p: [S::f32s; POINTS]) -> [S::f32s; OUTPUTS] {
    let mut y = [p[0]; OUTPUTS];
    for j in 0..OUTPUTS {
        let term = |n: usize| {
            let (plus, minus) = (p[1 + 2 * n], p[2 + 2 * n]);
            if j % 2 == 0 { simd.add_f32s(plus, minus) } else { simd.sub_f32s(plus, minus) }
        };
        let mut sum = term(0);
        for (n, &(point, _)) in pairs::<POINTS>().iter().enumerate() {
            let power = (0..j).fold(1.0, |power, _| power * point);
            let factor = simd.splat_f32s(power);
            sum = match (n, power) {
                (0, 1.0) => sum,
                (0, _) => simd.mul_f32s(sum, factor),
                _ => fma(simd, term(n), factor, sum),
            };
        }
        y[j] = if j == 0 { simd.add_f32s(sum, p[0]) } else { sum };
    }
    y[OUTPUTS - 1] = simd.add_f32s(y[OUTPUTS - 1], p[POINTS - 1]);
    y
}

/// The first half of a transform in two dimensions: a one-dimensional transform of the columns of a square of values `at(row, column)`. The
/// second is the same transform of the rows of `half`. Squares are not handed on as values, which would be copied.
#[inline(always)]
pub(super) fn columns<S: Simd, T: Transform<FROM, TO>, const FROM: usize, const TO: usize>(
    simd: S,
    at: impl Fn(usize, usize) -> S::f32s,
    half: &mut [[S::f32s; FROM]; TO],
) {
    for column in 0..FROM {
        let mut values = [simd.splat_f32s(0.0); FROM];
        for row in 0..FROM {
            values[row] = at(row, column);
        }
        let values = T::of(simd, values);
        for row in 0..TO {
            half[row][column] = values[row];
        }
    }
}

#[cfg(test)]
mod tests {
    use pulp::Scalar;

    use super::*;

    /// m outputs of r taps from as many values as there are points, against the sums that they stand for.
    fn agrees<const OUTPUTS: usize, const TAPS: usize, const POINTS: usize>() {
        assert_eq!(OUTPUTS + TAPS, POINTS + 1);
        let mut seed = 1_u32;
        let mut next = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 16) as f32 / 32_768.0 - 1.0
        };
        for _ in 0..100 {
            let d: [f32; POINTS] = std::array::from_fn(|_| next());
            let g: [f32; TAPS] = std::array::from_fn(|_| next());
            let (u, v) = (filter::<_, TAPS, POINTS>(Scalar, g), data(Scalar, d));
            let y = outputs::<_, OUTPUTS, POINTS>(Scalar, std::array::from_fn(|i| u[i] * v[i]));
            for (i, y) in y.into_iter().enumerate() {
                let exact: f32 = (0..TAPS).map(|j| d[i + j] * g[j]).sum();
                assert!((y - exact).abs() < 1e-5, "output {i} of {OUTPUTS}: {y}, not {exact}");
            }
        }
    }

    #[test]
    fn a_product_for_each_point_makes_a_correlation() {
        agrees::<4, 3, 6>();
        agrees::<2, 5, 6>();
        agrees::<3, 4, 6>();
        agrees::<5, 2, 6>();
        agrees::<4, 5, 8>();
        agrees::<5, 4, 8>();
        agrees::<6, 3, 8>();
    }
}
