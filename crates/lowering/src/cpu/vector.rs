//! Which vector instructions the kernels run with, decided once per process.

use std::{
    any::TypeId,
    sync::atomic::{AtomicU8, Ordering::Relaxed},
};

use pulp::{MemMask, Scalar512b, Simd, WithSimd};

/// Vector instructions, widest last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Level {
    /// Sixteen lanes in plain Rust; runs everywhere, with the shapes of AVX-512's kernels. (With four lanes it would be a tenth
    /// to a quarter faster on processors that have nothing better, for one more copy of every kernel.)
    Portable = 1,
    /// Arm's Neon, four lanes.
    Neon,
    /// AVX2 with fused multiply-add, eight lanes.
    Avx2,
    /// AVX-512, sixteen lanes.
    Avx512,
    /// The same, and products in 16 bits by tiles (AMX). Their sums are rounded at other places.
    Amx,
}

static LEVEL: AtomicU8 = AtomicU8::new(0);

/// Makes all kernels of this process run with one level, for tests and to have the bits of a lesser processor. Returns false,
/// and changes nothing, if this processor lacks the instructions.
pub fn set_level(level: Level) -> bool {
    let runs = match level {
        Level::Portable => true,
        #[cfg(target_arch = "aarch64")]
        Level::Neon => pulp::aarch64::Neon::try_new().is_some(),
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => pulp::x86::V3::try_new().is_some(),
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => pulp::x86::V4::try_new().is_some(),
        #[cfg(target_arch = "x86_64")]
        Level::Amx => pulp::x86::V4::try_new().is_some() && super::amx::available(),
        _ => false,
    };
    if runs {
        LEVEL.store(level as u8, Relaxed);
    }
    runs
}

/// The level that kernels run with: what [`set_level`] chose, else the best of the processor.
pub fn level() -> Level {
    match LEVEL.load(Relaxed) {
        1 => Level::Portable,
        2 => Level::Neon,
        3 => Level::Avx2,
        4 => Level::Avx512,
        5 => Level::Amx,
        _ => {
            let best_first = [Level::Amx, Level::Avx512, Level::Avx2, Level::Neon, Level::Portable];
            let found = best_first.into_iter().find(|&level| set_level(level));
            found.expect("the portable level runs everywhere")
        }
    }
}

/// Runs a kernel, compiled for each level, with the current one.
///
/// The body must be `#[inline(always)]` down to the vector operations, or they are not compiled for the level.
pub(crate) fn run<K: WithSimd>(kernel: K) -> K::Output {
    run_at(level(), kernel)
}

/// Runs a kernel with the instructions of a level that this processor runs.
pub(crate) fn run_at<K: WithSimd>(level: Level, kernel: K) -> K::Output {
    #[cfg(target_arch = "x86_64")]
    match level {
        Level::Avx512 | Level::Amx => {
            if let Some(simd) = pulp::x86::V4::try_new() {
                return Simd::vectorize(simd, kernel);
            }
        }
        Level::Avx2 => {
            if let Some(simd) = pulp::x86::V3::try_new() {
                return Simd::vectorize(simd, kernel);
            }
        }
        _ => {}
    }
    #[cfg(target_arch = "aarch64")]
    if level == Level::Neon
        && let Some(simd) = pulp::aarch64::Neon::try_new()
    {
        return Simd::vectorize(simd, kernel);
    }
    debug_assert_eq!(level, Level::Portable, "no other level is left");
    Simd::vectorize(Scalar512b, kernel)
}

/// a·b + c, rounded once where the instructions have it, twice on the portable level (where it would be a library call).
#[inline(always)]
pub(crate) fn fma<S: Simd>(simd: S, a: S::f32s, b: S::f32s, c: S::f32s) -> S::f32s {
    if portable::<S>() { simd.add_f32s(simd.mul_f32s(a, b), c) } else { simd.mul_add_e_f32s(a, b, c) }
}

/// Lanes of the first `count` values.
#[inline(always)]
fn first<S: Simd>(simd: S, count: usize) -> MemMask<S::m32s> {
    const NUMBERS: [u32; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
    let numbers = S::as_simd_u32s(&NUMBERS).0[0];
    MemMask::new(simd.less_than_u32s(numbers, simd.splat_u32s(count.min(16) as u32)))
}

/// As many values of a slice as a register takes, zeros for what is not there. (`partial_load_f32s` calls a function for each count.)
#[inline(always)]
pub(crate) fn load_some<S: Simd>(simd: S, from: &[f32]) -> S::f32s {
    // SAFETY: no lane is on beyond the end of the slice.
    #[expect(unsafe_code, reason = "a load by a mask")]
    unsafe {
        simd.mask_load_ptr_f32s(first(simd, from.len()), from.as_ptr())
    }
}

/// As many values of a register as a slice takes.
#[inline(always)]
pub(crate) fn store_some<S: Simd>(simd: S, values: S::f32s, to: &mut [f32]) {
    // SAFETY: no lane is on beyond the end of the slice, which is borrowed exclusively.
    #[expect(unsafe_code, reason = "a store by a mask")]
    unsafe {
        simd.mask_store_ptr_f32s(first(simd, to.len()), to.as_mut_ptr(), values);
    }
}

/// The first sixteen values of a slice into a row, zeros for what is not there. (A copy of so many as there are would be a call.)
#[inline(always)]
pub(crate) fn load_sixteen<S: Simd>(simd: S, from: &[f32], row: &mut [f32; 16]) {
    match from.first_chunk() {
        Some(there) => *row = *there,
        None => {
            for (n, to) in S::as_mut_simd_f32s(row).0.iter_mut().enumerate() {
                *to = load_some(simd, from.get(n * S::F32_LANES..).unwrap_or(&[]));
            }
        }
    }
}

/// A row into the first sixteen values of a slice, or into as many as there are.
#[inline(always)]
pub(crate) fn store_sixteen<S: Simd>(simd: S, row: &[f32; 16], to: &mut [f32]) {
    match to.first_chunk_mut() {
        Some(there) => *there = *row,
        None => {
            for (part, to) in S::as_simd_f32s(row).0.iter().zip(to.chunks_mut(S::F32_LANES)) {
                store_some(simd, *part, to);
            }
        }
    }
}

/// Whether what will be read only after much else is better written past the caches: on processors with AMX, whose third-level cache is shared by
/// many cores and hardly faster than memory. (On others it was not measured.)
pub(crate) fn past_caches() -> bool {
    level() == Level::Amx
}

/// A register of sixteen values to memory, past the caches where the processor can do so. Before anybody else reads them there must have been
/// a call of [`streamed`] by this thread.
#[inline(always)]
pub(crate) fn stream<S: Simd>(simd: S, values: S::f32s, to: &mut [f32; 16]) {
    #[cfg(target_arch = "x86_64")]
    {
        let level: &dyn std::any::Any = &simd;
        if level.is::<pulp::x86::V4>() && to.as_ptr().addr().is_multiple_of(64) {
            // SAFETY: the level exists only where the processor has AVX-512; there are 64 bytes, borrowed exclusively, on a cache line.
            #[expect(unsafe_code, reason = "an instruction by its name")]
            unsafe {
                std::arch::x86_64::_mm512_stream_ps(
                    to.as_mut_ptr(),
                    pulp::cast(pulp::bytemuck::cast::<_, [f32; 16]>(values)),
                );
            }
            return;
        }
    }
    let _ = simd;
    S::as_mut_simd_f32s(to).0[0] = values;
}

/// Orders what this thread has given to [`stream`] before all that it writes from now on.
#[inline(always)]
pub(crate) fn streamed() {
    // SAFETY: the instruction changes nothing, and every x86-64 processor has it.
    #[cfg(target_arch = "x86_64")]
    #[expect(unsafe_code, reason = "an instruction by its name")]
    unsafe {
        std::arch::x86_64::_mm_sfence();
    }
}

/// Asks for the cache line of a value, if there is one, without waiting for it.
#[inline(always)]
pub(crate) fn prefetch(values: &[f32], at: usize) {
    if let Some(value) = values.get(at) {
        ask::<false>(value);
    }
}

/// Asks for the cache line of an address, whatever is there: to read it, into the second-level cache, or to write to it, into the first.
#[inline(always)]
fn ask<const WRITE: bool>(address: *const f32) {
    // SAFETY: the instructions change no memory and fault on no address.
    #[expect(unsafe_code, reason = "instructions by their names")]
    #[cfg(target_arch = "x86_64")]
    unsafe {
        use std::arch::x86_64::{_MM_HINT_ET0, _MM_HINT_T1, _mm_prefetch};
        if WRITE {
            _mm_prefetch::<_MM_HINT_ET0>(address.cast());
        } else {
            _mm_prefetch::<_MM_HINT_T1>(address.cast());
        }
    }
    // SAFETY: the same. (Rust's names for them are not stable yet.)
    #[expect(unsafe_code, reason = "instructions by their names")]
    #[cfg(target_arch = "aarch64")]
    unsafe {
        use std::arch::asm;
        if WRITE {
            asm!("prfm pstl1keep, [{}]", in(reg) address, options(nostack, preserves_flags, readonly));
        } else {
            asm!("prfm pldl2keep, [{}]", in(reg) address, options(nostack, preserves_flags, readonly));
        }
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = address;
}

/// Asks for the cache line of an address that will be written.
#[inline(always)]
pub(crate) fn ask_to_write(address: *const f32) {
    ask::<true>(address);
}

/// [`prefetch`] of a line that will be written.
#[inline(always)]
pub(crate) fn prefetch_to_write(values: &[f32], at: usize) {
    if let Some(value) = values.get(at) {
        ask::<true>(value);
    }
}

/// [`prefetch`] for all of a slice.
#[inline(always)]
pub(crate) fn prefetch_all(values: &[f32]) {
    for at in (0..values.len()).step_by(16) {
        prefetch(values, at);
    }
}

/// The smaller of a limit and x; NaN stays NaN.
#[inline(always)]
pub(crate) fn at_most<S: Simd>(simd: S, limit: S::f32s, x: S::f32s) -> S::f32s {
    if portable::<S>() {
        simd.select_f32s(simd.less_than_f32s(limit, x), limit, x)
    } else {
        // Of a number and NaN, x86 takes the second operand and Arm NaN.
        simd.min_f32s(limit, x)
    }
}

/// The larger of a limit and x; NaN stays NaN.
#[inline(always)]
pub(crate) fn at_least<S: Simd>(simd: S, limit: S::f32s, x: S::f32s) -> S::f32s {
    if portable::<S>() { simd.select_f32s(simd.greater_than_f32s(limit, x), limit, x) } else { simd.max_f32s(limit, x) }
}

/// Whether these vectors are plain Rust.
#[inline(always)]
fn portable<S: Simd>() -> bool {
    TypeId::of::<Scalar512b>() == TypeId::of::<S>()
}
