//! Transposes of small squares: how planes, with pixels innermost, become registers of channels and the other way round.

use std::{
    any::Any,
    ops::{Deref, DerefMut},
};

use pulp::Simd;

/// Side of a square: sixteen values fill a register of AVX-512, two of AVX2.
pub(crate) const SIDE: usize = 16;

/// Values by rows.
pub(crate) type Square = [[f32; SIDE]; SIDE];

/// Squares that begin with a cache line, so that no register of them crosses one.
#[repr(align(64))]
pub(crate) struct Aligned<T>(pub(crate) T);

impl<T> Deref for Aligned<T> {
    type Target = T;
    #[inline(always)]
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for Aligned<T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

/// Exchanges rows and columns.
#[inline(always)]
pub(crate) fn transpose<S: Simd>(simd: S, square: &mut Square) {
    let level: &dyn Any = &simd;
    #[cfg(target_arch = "x86_64")]
    if let Some(&simd) = level.downcast_ref::<pulp::x86::V4>() {
        return of_sixteen(simd, square);
    }
    #[cfg(target_arch = "x86_64")]
    if let Some(&simd) = level.downcast_ref::<pulp::x86::V3>() {
        return of_eight(simd, square);
    }
    let _ = level;
    for i in 1..SIDE {
        for j in 0..i {
            let value = square[i][j];
            square[i][j] = square[j][i];
            square[j][i] = value;
        }
    }
}

/// Values of a row with even numbers, and those with odd ones.
#[inline(always)]
pub(crate) fn split_pairs<S: Simd>(simd: S, row: &[f32; 2 * SIDE]) -> [[f32; SIDE]; 2] {
    let mut parts = [[0.0; SIDE]; 2];
    let level: &dyn Any = &simd;
    #[cfg(target_arch = "x86_64")]
    if let Some(simd) = level.downcast_ref::<pulp::x86::V4>() {
        let halves = row.as_chunks::<SIDE>().0;
        for (odd, part) in parts.iter_mut().enumerate() {
            let mut order = [0_u32; SIDE];
            for (i, from) in order.iter_mut().enumerate() {
                *from = (2 * i + odd) as u32;
            }
            let (low, high) = (pulp::cast(halves[0]), pulp::cast(halves[1]));
            *part = pulp::cast(simd.avx512f._mm512_permutex2var_ps(low, pulp::cast(order), high));
        }
        return parts;
    }
    #[cfg(target_arch = "x86_64")]
    if let Some(simd) = level.downcast_ref::<pulp::x86::V3>() {
        let (f, registers) = (simd.avx, row.as_chunks::<8>().0);
        for half in 0..2 {
            let (a, b) = (pulp::cast(registers[2 * half]), pulp::cast(registers[2 * half + 1]));
            // Each has its pairs of the first register, of the second one, and so for the upper halves.
            for (part, mixed) in
                parts.iter_mut().zip([f._mm256_shuffle_ps::<0x88>(a, b), f._mm256_shuffle_ps::<0xdd>(a, b)])
            {
                let ordered = simd.avx2._mm256_permute4x64_pd::<0xd8>(f._mm256_castps_pd(mixed));
                part.as_chunks_mut::<8>().0[half] = pulp::cast(ordered);
            }
        }
        return parts;
    }
    let _ = level;
    for (odd, part) in parts.iter_mut().enumerate() {
        for (i, to) in part.iter_mut().enumerate() {
            *to = row[2 * i + odd];
        }
    }
    parts
}

/// The inverse of [`split_pairs`].
#[inline(always)]
pub(crate) fn join_pairs<S: Simd>(simd: S, even: &[f32; SIDE], odd: &[f32; SIDE]) -> [f32; 2 * SIDE] {
    let mut row = [0.0; 2 * SIDE];
    let level: &dyn Any = &simd;
    #[cfg(target_arch = "x86_64")]
    if let Some(simd) = level.downcast_ref::<pulp::x86::V4>() {
        for (half, to) in row.as_chunks_mut::<SIDE>().0.iter_mut().enumerate() {
            let mut order = [0_u32; SIDE];
            for (i, from) in order.iter_mut().enumerate() {
                *from = (SIDE * (i % 2) + half * SIDE / 2 + i / 2) as u32;
            }
            let (even, odd) = (pulp::cast(*even), pulp::cast(*odd));
            *to = pulp::cast(simd.avx512f._mm512_permutex2var_ps(even, pulp::cast(order), odd));
        }
        return row;
    }
    #[cfg(target_arch = "x86_64")]
    if let Some(simd) = level.downcast_ref::<pulp::x86::V3>() {
        let (f, to) = (simd.avx, row.as_chunks_mut::<8>().0);
        for half in 0..2 {
            let (even, odd) = (pulp::cast(even.as_chunks::<8>().0[half]), pulp::cast(odd.as_chunks::<8>().0[half]));
            let (low, high) = (f._mm256_unpacklo_ps(even, odd), f._mm256_unpackhi_ps(even, odd));
            to[2 * half] = pulp::cast(f._mm256_permute2f128_ps::<0x20>(low, high));
            to[2 * half + 1] = pulp::cast(f._mm256_permute2f128_ps::<0x31>(low, high));
        }
        return row;
    }
    let _ = level;
    for (pair, (&even, &odd)) in row.as_chunks_mut::<2>().0.iter_mut().zip(even.iter().zip(odd)) {
        *pair = [even, odd];
    }
    row
}

/// Values one place later, a zero before them.
#[inline(always)]
pub(crate) fn later<S: Simd>(simd: S, row: &[f32; SIDE]) -> [f32; SIDE] {
    let level: &dyn Any = &simd;
    #[cfg(target_arch = "x86_64")]
    if let Some(simd) = level.downcast_ref::<pulp::x86::V4>() {
        let f = simd.avx512f;
        return pulp::cast(f._mm512_alignr_epi32::<15>(pulp::cast(*row), f._mm512_setzero_si512()));
    }
    #[cfg(target_arch = "x86_64")]
    if let Some(simd) = level.downcast_ref::<pulp::x86::V3>() {
        let [a, b]: [_; 2] = pulp::cast(*row);
        let after = |before, register| {
            let across = simd.avx2._mm256_permute2x128_si256::<0x21>(before, register);
            simd.avx2._mm256_alignr_epi8::<12>(register, across)
        };
        return pulp::cast([after(simd.avx._mm256_setzero_si256(), a), after(a, b)]);
    }
    let _ = level;
    let mut moved = [0.0; SIDE];
    moved[1..].copy_from_slice(&row[..SIDE - 1]);
    moved
}

/// Sixteen registers of four groups of four: groups are transposed by pairs of values, then pairs of pairs, then whole groups change
/// places.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn of_sixteen(simd: pulp::x86::V4, square: &mut Square) {
    let f = simd.avx512f;
    let mut rows = [f._mm512_setzero_ps(); SIDE];
    for i in 0..SIDE {
        rows[i] = pulp::cast(square[i]);
    }
    let mut pairs = rows;
    for i in 0..SIDE / 2 {
        pairs[2 * i] = f._mm512_unpacklo_ps(rows[2 * i], rows[2 * i + 1]);
        pairs[2 * i + 1] = f._mm512_unpackhi_ps(rows[2 * i], rows[2 * i + 1]);
    }
    // Register 4g + n: column n of each group of four columns, rows 4g to 4g + 3.
    let mut fours = rows;
    for g in 0..SIDE / 4 {
        for half in 0..2 {
            let (a, b) = (f._mm512_castps_pd(pairs[4 * g + half]), f._mm512_castps_pd(pairs[4 * g + half + 2]));
            fours[4 * g + 2 * half] = f._mm512_castpd_ps(f._mm512_unpacklo_pd(a, b));
            fours[4 * g + 2 * half + 1] = f._mm512_castpd_ps(f._mm512_unpackhi_pd(a, b));
        }
    }
    for n in 0..4 {
        let [a, b, c, d] = [fours[n], fours[4 + n], fours[8 + n], fours[12 + n]];
        // Groups 0 and 2, or 1 and 3, of two registers.
        let (even, odd) = (f._mm512_shuffle_f32x4::<0x88>(a, b), f._mm512_shuffle_f32x4::<0xdd>(a, b));
        let (even2, odd2) = (f._mm512_shuffle_f32x4::<0x88>(c, d), f._mm512_shuffle_f32x4::<0xdd>(c, d));
        square[n] = pulp::cast(f._mm512_shuffle_f32x4::<0x88>(even, even2));
        square[4 + n] = pulp::cast(f._mm512_shuffle_f32x4::<0x88>(odd, odd2));
        square[8 + n] = pulp::cast(f._mm512_shuffle_f32x4::<0xdd>(even, even2));
        square[12 + n] = pulp::cast(f._mm512_shuffle_f32x4::<0xdd>(odd, odd2));
    }
}

/// Squares of eight registers of two groups of four.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn of_eight(simd: pulp::x86::V3, square: &mut Square) {
    let whole = *square;
    for down in [0, 8] {
        for across in [0, 8] {
            let f = simd.avx;
            let mut rows = [f._mm256_setzero_ps(); 8];
            for i in 0..8 {
                rows[i] = pulp::cast(whole[down + i].as_chunks::<8>().0[across / 8]);
            }
            let mut pairs = rows;
            for i in 0..4 {
                pairs[2 * i] = f._mm256_unpacklo_ps(rows[2 * i], rows[2 * i + 1]);
                pairs[2 * i + 1] = f._mm256_unpackhi_ps(rows[2 * i], rows[2 * i + 1]);
            }
            let mut fours = rows;
            for g in 0..2 {
                for half in 0..2 {
                    let (a, b) = (f._mm256_castps_pd(pairs[4 * g + half]), f._mm256_castps_pd(pairs[4 * g + half + 2]));
                    fours[4 * g + 2 * half] = f._mm256_castpd_ps(f._mm256_unpacklo_pd(a, b));
                    fours[4 * g + 2 * half + 1] = f._mm256_castpd_ps(f._mm256_unpackhi_pd(a, b));
                }
            }
            for n in 0..4 {
                let (a, b) = (fours[n], fours[4 + n]);
                let mut put =
                    |row: usize, values| square[across + row].as_chunks_mut::<8>().0[down / 8] = pulp::cast(values);
                put(n, f._mm256_permute2f128_ps::<0x20>(a, b));
                put(4 + n, f._mm256_permute2f128_ps::<0x31>(a, b));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use pulp::WithSimd;

    use super::{
        super::vector::{self, Level},
        *,
    };

    struct Transpose<'a>(&'a mut Square);

    impl WithSimd for Transpose<'_> {
        type Output = ();
        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) {
            transpose(simd, self.0);
        }
    }

    struct Split<'a>(&'a [f32; 2 * SIDE]);

    impl WithSimd for Split<'_> {
        type Output = ([[f32; SIDE]; 2], [f32; 2 * SIDE], [f32; SIDE]);
        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) -> Self::Output {
            let [even, odd] = split_pairs(simd, self.0);
            ([even, odd], join_pairs(simd, &even, &odd), later(simd, &odd))
        }
    }

    #[test]
    fn pairs_are_split_and_joined_at_every_level() {
        let row: [f32; 2 * SIDE] = std::array::from_fn(|i| i as f32);
        let parts = [0, 1].map(|odd| std::array::from_fn(|i| (2 * i + odd) as f32));
        let later = std::array::from_fn(|i| if i == 0 { 0.0 } else { (2 * i - 1) as f32 });
        let exact = (parts, row, later);
        for level in [Level::Portable, Level::Neon, Level::Avx2, Level::Avx512] {
            assert_eq!(vector::run_at(level, Split(&row)), exact, "{level:?}");
        }
    }

    #[test]
    fn rows_and_columns_change_places_at_every_level() {
        let square: Square = std::array::from_fn(|i| std::array::from_fn(|j| (100 * i + j) as f32));
        let exact: Square = std::array::from_fn(|i| std::array::from_fn(|j| square[j][i]));
        for level in [Level::Portable, Level::Neon, Level::Avx2, Level::Avx512] {
            let mut got = square;
            vector::run_at(level, Transpose(&mut got));
            assert_eq!(got, exact, "{level:?}");
        }
    }
}
