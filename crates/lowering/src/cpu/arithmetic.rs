//! Arithmetic of sums of products: in 32 bits, or over operands rounded to bfloat16.
//!
//! Kernels that know both are generic over [`Arithmetic`]. One step of a sum takes one value of the depth in 32 bits, and
//! two in 16: a *word* then holds a value in its low half and another in its high half, and a step adds both products. Words travel
//! in `f32` buffers, which are only moved, never computed with.

use pulp::{Simd, WithSimd};

use super::{
    amx::{self, Machine, Tiles},
    vector::{self, fma, load_some, store_some},
};
use crate::Precision;

impl Precision {
    /// Values of the depth that a step takes on the processor.
    pub(super) fn step(self) -> usize {
        match self {
            Self::F32 | Self::Tf32 => 1,
            Self::Bf16 => 2,
        }
    }
    /// Room for a row of the left operand as words. In 32 bits it is read where it lies.
    pub(super) fn words_of_row(self, depth: usize) -> usize {
        match self.step() {
            1 => 0,
            step => depth.div_ceil(step),
        }
    }
}

/// A kernel for any width of vectors and any arithmetic.
pub(crate) trait Compute {
    /// What it returns.
    type Output;
    /// The kernel; `#[inline(always)]`, as all that it calls.
    fn compute<S: Simd, A: Arithmetic<S>>(self, simd: S, arithmetic: A) -> Self::Output;
}

/// How sums of products are computed.
pub(crate) trait Arithmetic<S: Simd>: Copy {
    /// Values of the depth that a step takes.
    const STEP: usize;
    /// A word of each lane: of these values, the first in the low half. In 32 bits the first of them.
    fn join(self, simd: S, values: [S::f32s; 2]) -> S::f32s;
    /// sum + left·right, for words both products: first that of the high halves, then that of the low ones.
    fn step(self, simd: S, left: S::f32s, right: S::f32s, sum: S::f32s) -> S::f32s;
    /// Of 16 bits: the values of two registers, one after the other.
    fn pack(self, simd: S, values: [S::f32s; 2]) -> S::f32s;
    /// Tiles that compute many steps at once, where there are some.
    fn tiles(&self) -> Option<&Tiles> {
        None
    }
    /// Runs a kernel as a function of its own.
    fn vectorize<K: Compute>(self, simd: S, kernel: K) -> K::Output;
    /// Steps that a depth takes.
    #[inline(always)]
    fn steps(depth: usize) -> usize {
        depth.div_ceil(Self::STEP)
    }
}

/// Runs a kernel with the current level's instructions.
pub(crate) fn run<K: Compute>(precision: Precision, kernel: K) -> K::Output {
    match precision {
        Precision::F32 | Precision::Tf32 => vector::run(With(Single, kernel)),
        Precision::Bf16 => {
            let tiles = amx::machine().map(Tiles::new);
            #[cfg(target_arch = "x86_64")]
            if matches!(vector::level(), vector::Level::Avx512 | vector::Level::Amx)
                && let (Some(simd), Some(native)) = (pulp::x86::V4::try_new(), Native::try_new())
            {
                return match &tiles {
                    Some(tiles) => Arithmetic::vectorize(Tiled(native, tiles), simd, kernel),
                    None => Arithmetic::vectorize(native, simd, kernel),
                };
            }
            match &tiles {
                Some(tiles) => vector::run(With(Tiled(Emulated, tiles), kernel)),
                None => vector::run(With(Emulated, kernel)),
            }
        }
    }
}

/// How a processor multiplies in 16 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Products {
    /// By tiles (AMX), up to sixteen times as many a second as in 32 bits.
    Tiles,
    /// By vectors (AVX-512), on most processors twice as many a second as in 32 bits.
    Vectors,
    /// In 32 bits, slower than those.
    Emulated,
}

/// How this processor multiplies in 16 bits.
pub fn bf16_products() -> Products {
    if amx::machine() == Some(Machine::Native) {
        return Products::Tiles;
    }
    #[cfg(target_arch = "x86_64")]
    if vector::level() == vector::Level::Avx512 && Native::try_new().is_some() {
        return Products::Vectors;
    }
    Products::Emulated
}

/// Words of a row: each value of its first half with one of its second. Of 16 bits: in 32 rows are read where they lie.
#[inline(always)]
pub(crate) fn join_row<S: Simd, A: Arithmetic<S>>(simd: S, arithmetic: A, row: &[f32], words: &mut [f32]) {
    let (low, high) = row.split_at(A::steps(row.len()));
    let ((lows, low), (highs, high)) = (S::as_simd_f32s(low), S::as_simd_f32s(high));
    let (to, rest) = S::as_mut_simd_f32s(words);
    for ((to, &low), &high) in to.iter_mut().zip(lows).zip(highs) {
        *to = arithmetic.join(simd, [low, high]);
    }
    // The last register of low values may meet fewer high ones.
    if highs.len() < lows.len() {
        to[highs.len()] = arithmetic.join(simd, [lows[highs.len()], load_some(simd, high)]);
    } else {
        let words = arithmetic.join(simd, [low, high].map(|part| load_some(simd, part)));
        store_some(simd, words, rest);
    }
}

/// Rows of a panel become rows of words, in place: row i takes row `partner(i)` too, zeros where there is none. In 32 bits they stay.
#[inline(always)]
fn join_rows<S: Simd, A: Arithmetic<S>, const N: usize>(
    simd: S,
    arithmetic: A,
    panel: &mut [f32],
    partners: impl Fn(usize) -> [usize; 2],
) {
    if A::STEP == 1 {
        return;
    }
    let rows = S::as_mut_simd_f32s(panel).0.as_chunks_mut::<N>().0;
    let zeros = [simd.splat_f32s(0.0); N];
    for row in 0..A::steps(rows.len()) {
        let [low, high] = partners(row).map(|row| rows.get(row).copied().unwrap_or(zeros));
        for n in 0..N {
            rows[row][n] = arithmetic.join(simd, [low[n], high[n]]);
        }
    }
}

/// Words of the rows [depth, N registers] of a panel, in place: each row of the first half with one of the second.
#[inline(always)]
pub(crate) fn join_halves<S: Simd, A: Arithmetic<S>, const N: usize>(simd: S, arithmetic: A, panel: &mut [f32]) {
    let half = A::steps(panel.len() / (N * S::F32_LANES));
    join_rows::<S, A, N>(
        simd,
        arithmetic,
        panel,
        #[inline(always)]
        |row| [row, row + half],
    );
}

/// Words of the rows [depth, N registers] of a panel, in place: each row with the next.
#[inline(always)]
pub(crate) fn join_neighbours<S: Simd, A: Arithmetic<S>, const N: usize>(simd: S, arithmetic: A, panel: &mut [f32]) {
    join_rows::<S, A, N>(
        simd,
        arithmetic,
        panel,
        #[inline(always)]
        |row| [2 * row, 2 * row + 1],
    );
}

/// Words at every place of a line, in place: each value with the next, the last with zero. In 32 bits they stay.
#[inline(always)]
pub(crate) fn join_line<S: Simd, A: Arithmetic<S>>(simd: S, arithmetic: A, line: &mut [f32]) {
    if A::STEP == 1 {
        return;
    }
    let lanes = S::F32_LANES;
    let mut at = 0;
    while at < line.len() {
        let here = lanes.min(line.len() - at);
        let low = load_some(simd, &line[at..at + here]);
        let high = load_some(simd, &line[at + 1..line.len().min(at + 1 + here)]);
        store_some(simd, arithmetic.join(simd, [low, high]), &mut line[at..at + here]);
        at += here;
    }
}

/// A kernel with its arithmetic, for arithmetics that any width has.
struct With<A, K>(A, K);

impl<K: Compute> WithSimd for With<Single, K> {
    type Output = K::Output;
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> K::Output {
        self.1.compute(simd, self.0)
    }
}

impl<K: Compute> WithSimd for With<Tiled<'_, Emulated>, K> {
    type Output = K::Output;
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> K::Output {
        self.1.compute(simd, self.0)
    }
}

impl<K: Compute> WithSimd for With<Emulated, K> {
    type Output = K::Output;
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> K::Output {
        self.1.compute(simd, self.0)
    }
}

/// 32 bits.
#[derive(Clone, Copy)]
pub(crate) struct Single;

impl<S: Simd> Arithmetic<S> for Single {
    const STEP: usize = 1;
    #[inline(always)]
    fn join(self, _: S, [value, _]: [S::f32s; 2]) -> S::f32s {
        value
    }
    fn pack(self, _: S, _: [S::f32s; 2]) -> S::f32s {
        unreachable!("values of 32 bits stay as they are")
    }
    #[inline(always)]
    fn step(self, simd: S, left: S::f32s, right: S::f32s, sum: S::f32s) -> S::f32s {
        fma(simd, left, right, sum)
    }
    #[inline(always)]
    fn vectorize<K: Compute>(self, simd: S, kernel: K) -> K::Output {
        simd.vectorize(With(self, kernel))
    }
}

/// bfloat16 on processors without instructions for it. Products of two such numbers are exact in 32 bits.
#[derive(Clone, Copy)]
struct Emulated;

/// Bits of the number in the high half of a word.
const HIGH: u32 = 0xffff_0000;

impl<S: Simd> Arithmetic<S> for Emulated {
    const STEP: usize = 2;
    #[inline(always)]
    fn join(self, simd: S, [low, high]: [S::f32s; 2]) -> S::f32s {
        let low = simd.wrapping_dyn_shr_u32s(rounded(simd, low), simd.splat_u32s(16));
        simd.transmute_f32s_u32s(simd.or_u32s(low, rounded(simd, high)))
    }
    #[inline(always)]
    fn pack(self, simd: S, values: [S::f32s; 2]) -> S::f32s {
        let values = values.map(|values| rounded(simd, values));
        let from: &[u32] = pulp::bytemuck::cast_slice(&values);
        let mut packed = [simd.splat_f32s(0.0)];
        let to: &mut [u32] = pulp::bytemuck::cast_slice_mut(&mut packed);
        for (to, &[low, high]) in to.iter_mut().zip(from.as_chunks::<2>().0) {
            *to = low >> 16 | high;
        }
        packed[0]
    }
    #[inline(always)]
    fn step(self, simd: S, left: S::f32s, right: S::f32s, sum: S::f32s) -> S::f32s {
        let [left, right] = [left, right].map(|word| {
            let bits = simd.transmute_u32s_f32s(word);
            let low = simd.wrapping_dyn_shl_u32s(bits, simd.splat_u32s(16));
            [low, simd.and_u32s(bits, simd.splat_u32s(HIGH))].map(|half| simd.transmute_f32s_u32s(half))
        });
        fma(simd, left[0], right[0], fma(simd, left[1], right[1], sum))
    }
    #[inline(always)]
    fn vectorize<K: Compute>(self, simd: S, kernel: K) -> K::Output {
        simd.vectorize(With(self, kernel))
    }
}

/// Another arithmetic with tiles beside it.
#[derive(Clone, Copy)]
struct Tiled<'a, A>(A, &'a Tiles);

impl<S: Simd, A: Arithmetic<S>> Arithmetic<S> for Tiled<'_, A> {
    const STEP: usize = A::STEP;
    #[inline(always)]
    fn join(self, simd: S, values: [S::f32s; 2]) -> S::f32s {
        self.0.join(simd, values)
    }
    #[inline(always)]
    fn step(self, simd: S, left: S::f32s, right: S::f32s, sum: S::f32s) -> S::f32s {
        self.0.step(simd, left, right, sum)
    }
    #[inline(always)]
    fn pack(self, simd: S, values: [S::f32s; 2]) -> S::f32s {
        self.0.pack(simd, values)
    }
    #[inline(always)]
    fn tiles(&self) -> Option<&Tiles> {
        Some(self.1)
    }
    #[inline(always)]
    fn vectorize<K: Compute>(self, simd: S, kernel: K) -> K::Output {
        /// A kernel that gets the tiles back.
        struct Call<'a, K>(&'a Tiles, K);
        impl<K: Compute> Compute for Call<'_, K> {
            type Output = K::Output;
            #[inline(always)]
            fn compute<S: Simd, A: Arithmetic<S>>(self, simd: S, arithmetic: A) -> K::Output {
                self.1.compute(simd, Tiled(arithmetic, self.0))
            }
        }
        self.0.vectorize(simd, Call(self.1, kernel))
    }
}

/// The nearest bfloat16 of each lane, of two the even one, in the high half; what is below the normal range becomes zero and NaN stays.
#[inline(always)]
fn rounded<S: Simd>(simd: S, x: S::f32s) -> S::u32s {
    let constant = |bits| simd.splat_u32s(bits);
    let bits = simd.transmute_u32s_f32s(x);
    let odd = simd.and_u32s(simd.wrapping_dyn_shr_u32s(bits, constant(16)), constant(1));
    let up = simd.add_u32s(bits, simd.add_u32s(odd, constant(0x7fff)));
    let magnitude = simd.and_u32s(bits, constant(0x7fff_ffff));
    let tiny = simd.less_than_u32s(magnitude, constant(0x0080_0000));
    let nan = simd.greater_than_u32s(magnitude, constant(0x7f80_0000));
    let quiet = simd.or_u32s(bits, constant(0x0040_0000));
    let up = simd.select_u32s(nan, quiet, up);
    simd.select_u32s(tiny, simd.and_u32s(bits, constant(0x8000_0000)), simd.and_u32s(up, constant(HIGH)))
}

#[cfg(target_arch = "x86_64")]
pulp::simd_type! {
    /// AVX-512 with products of bfloat16.
    struct Native {
        sse: "sse",
        sse2: "sse2",
        fxsr: "fxsr",
        sse3: "sse3",
        ssse3: "ssse3",
        sse4_1: "sse4.1",
        sse4_2: "sse4.2",
        popcnt: "popcnt",
        avx: "avx",
        avx2: "avx2",
        bmi1: "bmi1",
        bmi2: "bmi2",
        fma: "fma",
        lzcnt: "lzcnt",
        avx512f: "avx512f",
        avx512bw: "avx512bw",
        avx512cd: "avx512cd",
        avx512dq: "avx512dq",
        avx512vl: "avx512vl",
        avx512bf16: "avx512bf16",
    }
}

#[cfg(target_arch = "x86_64")]
mod native {
    use std::arch::x86_64::{__m512bh, _mm512_cvtne2ps_pbh, _mm512_dpbf16_ps};

    use pulp::{NullaryFnOnce, f32x16, x86::V4};

    use super::{Arithmetic, Compute, Native};

    impl Arithmetic<V4> for Native {
        const STEP: usize = 2;
        #[inline(always)]
        fn join(self, simd: V4, values: [f32x16; 2]) -> f32x16 {
            let halves = self.pack(simd, values);
            let mut order = [0_u16; 32];
            for i in 0..16 {
                (order[2 * i], order[2 * i + 1]) = (i as u16, 16 + i as u16);
            }
            pulp::cast(simd.avx512bw._mm512_permutexvar_epi16(pulp::cast(order), pulp::cast(halves)))
        }
        #[inline(always)]
        fn pack(self, _: V4, [low, high]: [f32x16; 2]) -> f32x16 {
            // SAFETY: `Native` exists only where the processor has this instruction; both types are 64 bytes of plain numbers.
            #[expect(unsafe_code, reason = "an instruction by its name")]
            unsafe {
                std::mem::transmute::<__m512bh, f32x16>(_mm512_cvtne2ps_pbh(pulp::cast(high), pulp::cast(low)))
            }
        }
        #[inline(always)]
        fn step(self, _: V4, left: f32x16, right: f32x16, sum: f32x16) -> f32x16 {
            // SAFETY: `Native` exists only where the processor has this instruction; all types are 64 bytes of plain numbers.
            #[expect(unsafe_code, reason = "an instruction by its name")]
            unsafe {
                let [left, right] = [left, right].map(|word| std::mem::transmute::<f32x16, __m512bh>(word));
                pulp::cast(_mm512_dpbf16_ps(pulp::cast(sum), left, right))
            }
        }
        #[inline(always)]
        fn vectorize<K: Compute>(self, simd: V4, kernel: K) -> K::Output {
            struct Call<K>(V4, Native, K);
            impl<K: Compute> NullaryFnOnce for Call<K> {
                type Output = K::Output;
                #[inline(always)]
                fn call(self) -> K::Output {
                    self.2.compute(self.0, self.1)
                }
            }
            Native::vectorize(self, Call(simd, self, kernel))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A word of two values, the first in the low half.
    fn word(values: [f32; 2]) -> f32 {
        Arithmetic::join(Emulated, pulp::Scalar, values)
    }

    /// Words of pairs and their products, added up.
    struct Dot<'a> {
        left: &'a [[f32; 2]],
        right: &'a [[f32; 2]],
    }

    impl Compute for Dot<'_> {
        type Output = (Vec<u32>, Vec<u32>);
        #[inline(always)]
        fn compute<S: Simd, A: Arithmetic<S>>(self, simd: S, arithmetic: A) -> (Vec<u32>, Vec<u32>) {
            let mut sum = simd.splat_f32s(0.25);
            let (mut words, mut sums) = (Vec::new(), Vec::new());
            for (&left, &right) in self.left.iter().zip(self.right) {
                let [left, right] = [left, right].map(|pair| arithmetic.join(simd, pair.map(|v| simd.splat_f32s(v))));
                sum = arithmetic.step(simd, left, right, sum);
                for (bits, of) in [(left, &mut words), (sum, &mut sums)] {
                    of.push(pulp::bytemuck::cast_slice::<S::f32s, u32>(&[bits])[0]);
                }
            }
            (words, sums)
        }
    }

    fn pairs(seed: u64) -> Vec<[f32; 2]> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            // Of all magnitudes between 2^-20 and 2^20.
            let scale = ((state >> 20) % 41) as i32 - 20;
            ((state >> 40) as f32 / 8_388_608.0 - 1.0) * 2.0_f32.powi(scale)
        };
        (0..4_000).map(|_| [next(), next()]).collect()
    }

    #[test]
    fn instructions_and_their_emulation_give_the_same_bits() {
        let (left, right) = (pairs(1), pairs(2));
        let portable = vector::run_at(vector::Level::Portable, With(Emulated, Dot { left: &left, right: &right }));
        let mut exact = 0.25_f64;
        for ((left, right), &sum) in left.iter().zip(&right).zip(&portable.1) {
            let [low, high] =
                [0, 1].map(|i| [left[i], right[i]].map(|v| f64::from(f32::from_bits(word([0.0, v]).to_bits()))));
            // One rounding to f32 after each of the two products, that of the high halves first.
            exact = f64::from((exact + high[0] * high[1]) as f32);
            exact = f64::from((exact + low[0] * low[1]) as f32);
            assert_eq!(exact as f32, f32::from_bits(sum));
        }
        #[cfg(target_arch = "x86_64")]
        match (pulp::x86::V4::try_new(), Native::try_new()) {
            (Some(simd), Some(native)) => {
                let own = Arithmetic::vectorize(native, simd, Dot { left: &left, right: &right });
                assert!(own == portable, "the instruction differs from its emulation");
            }
            _ => eprintln!("SKIPPED: this processor has no products of bfloat16; only their emulation was tested"),
        }
    }

    #[test]
    fn numbers_are_rounded_to_the_nearest_and_to_the_even_one_of_two() {
        let cases = [
            (1.0, 1.0),
            (1.0 + 1.0 / 256.0, 1.0),
            (1.0 + 3.0 / 256.0, 1.0 + 4.0 / 256.0),
            (1.0 + 1.01 / 256.0, 1.0 + 2.0 / 256.0),
            (-1.0 - 1.01 / 256.0, -1.0 - 2.0 / 256.0),
            (f32::MAX, f32::INFINITY),
            (f32::NEG_INFINITY, f32::NEG_INFINITY),
            (1e-40, 0.0),
            (f32::MIN_POSITIVE, f32::MIN_POSITIVE),
        ];
        for (value, expected) in cases {
            let bits = word([value, value]).to_bits();
            assert_eq!(f32::from_bits(bits & HIGH), expected, "{value}");
            assert_eq!(f32::from_bits(bits << 16), expected, "{value}");
        }
        for nan in [f32::NAN, -f32::NAN, f32::from_bits(0x7f80_0001), f32::from_bits(u32::MAX)] {
            assert!(f32::from_bits(word([0.0, nan]).to_bits()).is_nan(), "{:x}", nan.to_bits());
        }
    }
}
