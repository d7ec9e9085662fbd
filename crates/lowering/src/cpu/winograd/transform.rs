//! The one-dimensional transforms of minimal filtering with six points (Winograd 1980; Lavin & Gray 2016, "Fast Algorithms
//! for Convolutional Neural Networks", section 4): 0, 1, −1, 2, −2 and infinity.
//!
//! m outputs of a filter with r = 7 − m taps are Aᵀ[(G g) ⊙ (Bᵀ d)], six products instead of m·r. The points decide Bᵀ, which
//! is the same for all m; G and A are Vandermonde matrices of the points, here for any number of taps and outputs. In two
//! dimensions each is applied to the columns, then to the rows.

use pulp::Simd;

use super::super::vector::fma;

/// Points, and values of a tile along one side.
pub(super) const POINTS: usize = 6;
/// Products of a tile: one for each pair of points.
pub(super) const PRODUCTS: usize = POINTS * POINTS;

/// Bᵀ d.
#[inline(always)]
pub(super) fn data<S: Simd>(simd: S, d: [S::f32s; POINTS]) -> [S::f32s; POINTS] {
    let (four, minus_four) = (simd.splat_f32s(4.0), simd.splat_f32s(-4.0));
    let (two, minus_five) = (simd.splat_f32s(2.0), simd.splat_f32s(-5.0));
    let even1 = fma(simd, d[2], minus_four, d[4]);
    let odd1 = fma(simd, d[1], minus_four, d[3]);
    let even2 = simd.sub_f32s(d[4], d[2]);
    let odd2 = simd.mul_f32s(two, simd.sub_f32s(d[3], d[1]));
    [
        fma(simd, d[0], four, fma(simd, d[2], minus_five, d[4])),
        simd.add_f32s(even1, odd1),
        simd.sub_f32s(even1, odd1),
        simd.add_f32s(even2, odd2),
        simd.sub_f32s(even2, odd2),
        fma(simd, d[1], four, fma(simd, d[3], minus_five, d[5])),
    ]
}

/// G g: the filter's polynomial at each point, over the product of the point's distances from the others.
#[inline(always)]
pub(super) fn filter<S: Simd, const TAPS: usize>(simd: S, g: [S::f32s; TAPS]) -> [S::f32s; POINTS] {
    let mut sums = [[simd.splat_f32s(0.0); 2]; 2];
    for j in 0..TAPS {
        sums[0][j % 2] = simd.add_f32s(sums[0][j % 2], g[j]);
        sums[1][j % 2] = fma(simd, g[j], simd.splat_f32s((1 << j) as f32), sums[1][j % 2]);
    }
    let (sixth, share) = (simd.splat_f32s(-1.0 / 6.0), simd.splat_f32s(1.0 / 24.0));
    let [[even1, odd1], [even2, odd2]] = sums;
    [
        simd.mul_f32s(g[0], simd.splat_f32s(0.25)),
        simd.mul_f32s(simd.add_f32s(even1, odd1), sixth),
        simd.mul_f32s(simd.sub_f32s(even1, odd1), sixth),
        simd.mul_f32s(simd.add_f32s(even2, odd2), share),
        simd.mul_f32s(simd.sub_f32s(even2, odd2), share),
        g[TAPS - 1],
    ]
}

/// Aᵀ p: powers of the points weight the products.
#[inline(always)]
pub(super) fn outputs<S: Simd, const OUTPUTS: usize>(simd: S, p: [S::f32s; POINTS]) -> [S::f32s; OUTPUTS] {
    let first = [simd.add_f32s(p[1], p[2]), simd.sub_f32s(p[1], p[2])];
    let second = [simd.add_f32s(p[3], p[4]), simd.sub_f32s(p[3], p[4])];
    let mut y = [p[0]; OUTPUTS];
    for j in 0..OUTPUTS {
        let sum = fma(simd, second[j % 2], simd.splat_f32s((1 << j) as f32), first[j % 2]);
        y[j] = if j == 0 { simd.add_f32s(sum, p[0]) } else { sum };
    }
    y[OUTPUTS - 1] = simd.add_f32s(y[OUTPUTS - 1], p[5]);
    y
}

/// A one-dimensional transform of FROM values to TO, applied to the columns, then to the rows of a square. Written out in loops:
/// what is not inlined is not compiled for the vector level.
macro_rules! both_ways {
    ($simd:ident, $square:expr, $from:expr, $to:expr, $transform:expr) => {{
        let square = $square;
        let zero = $simd.splat_f32s(0.0);
        let mut half = [[zero; $from]; $to];
        for column in 0..$from {
            let mut values = [zero; $from];
            for row in 0..$from {
                values[row] = square[row][column];
            }
            let values = $transform($simd, values);
            for row in 0..$to {
                half[row][column] = values[row];
            }
        }
        let mut whole = [[zero; $to]; $to];
        for row in 0..$to {
            whole[row] = $transform($simd, half[row]);
        }
        whole
    }};
}
pub(super) use both_ways;

#[cfg(test)]
mod tests {
    use pulp::Scalar;

    use super::*;

    /// m outputs of r taps from six values, against the sums that they stand for.
    fn agrees<const OUTPUTS: usize, const TAPS: usize>() {
        assert_eq!(OUTPUTS + TAPS, POINTS + 1);
        let mut seed = 1_u32;
        let mut next = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 16) as f32 / 32_768.0 - 1.0
        };
        for _ in 0..100 {
            let d: [f32; POINTS] = std::array::from_fn(|_| next());
            let g: [f32; TAPS] = std::array::from_fn(|_| next());
            let (u, v) = (filter::<_, TAPS>(Scalar, g), data(Scalar, d));
            let y = outputs::<_, OUTPUTS>(Scalar, std::array::from_fn(|i| u[i] * v[i]));
            for (i, y) in y.into_iter().enumerate() {
                let exact: f32 = (0..TAPS).map(|j| d[i + j] * g[j]).sum();
                assert!((y - exact).abs() < 1e-5, "output {i} of {OUTPUTS}: {y}, not {exact}");
            }
        }
    }

    #[test]
    fn six_products_make_a_correlation() {
        agrees::<4, 3>();
        agrees::<2, 5>();
        agrees::<3, 4>();
        agrees::<5, 2>();
    }
}
