//! Copies of images: values in 16 bits, and rows that are shorter than a register.

use pulp::Simd;

use super::super::{arithmetic::Arithmetic, vector::load_some};

/// Values in 16 bits, one after the other.
#[inline(always)]
pub(super) fn round<S: Simd, A: Arithmetic<S>>(simd: S, arithmetic: A, from: &[f32], to: &mut [u16]) {
    let width = 2 * S::F32_LANES;
    let put = |packed: S::f32s, to: &mut [u16]| to.copy_from_slice(&pulp::bytemuck::cast_slice(&[packed])[..to.len()]);
    let (whole, rest) = from.split_at(from.len() / width * width);
    let (to, last) = to[..from.len()].split_at_mut(whole.len());
    let registers = S::as_simd_f32s(whole).0.as_chunks::<2>().0;
    for (&registers, to) in registers.iter().zip(to.chunks_exact_mut(width)) {
        put(arithmetic.pack(simd, registers), to);
    }
    if !rest.is_empty() {
        let (low, high) = rest.split_at(S::F32_LANES.min(rest.len()));
        put(arithmetic.pack(simd, [low, high].map(|part| load_some(simd, part))), last);
    }
}

/// A copy of a row of any length by a few of fixed lengths, of which the last overlaps. (One of a variable length would be a call.)
#[inline(always)]
pub(super) fn copy<T: Copy>(from: &[T], to: &mut [T]) {
    match from.len() {
        16.. => by::<T, 16>(from, to),
        8.. => by::<T, 8>(from, to),
        4.. => by::<T, 4>(from, to),
        _ => to.iter_mut().zip(from).for_each(|(to, from)| *to = *from),
    }
}

#[inline(always)]
fn by<T: Copy, const N: usize>(from: &[T], to: &mut [T]) {
    for (from, to) in from.as_chunks::<N>().0.iter().zip(to.as_chunks_mut::<N>().0) {
        *to = *from;
    }
    if let (Some(from), Some(to)) = (from.last_chunk::<N>(), to.last_chunk_mut::<N>()) {
        *to = *from;
    }
}

/// Of every `STRIDE` values one, from `first` on.
#[inline(always)]
fn every<const STRIDE: usize>(from: &[f32], first: usize, to: &mut [f32]) {
    for (to, from) in to.iter_mut().zip(from.as_chunks::<STRIDE>().0) {
        *to = from[first];
    }
}

/// Of every `stride` values one, from `first` on, as many as `to` holds; zeros where `first` would be the next one's.
#[inline(always)]
pub(super) fn strided(from: &[f32], stride: usize, first: usize, to: &mut [f32]) {
    match (stride, first < stride) {
        (_, false) => to.fill(0.0),
        (2, _) => every::<2>(from, first, to),
        (4, _) => every::<4>(from, first, to),
        _ => {
            for (to, from) in to.iter_mut().zip(from.chunks_exact(stride)) {
                *to = from[first];
            }
        }
    }
}

/// from + bias, by registers of which the last overlaps.
#[inline(always)]
pub(super) fn add(from: &[f32], bias: f32, to: &mut [f32]) {
    match from.len() {
        16.. => add_by::<16>(from, bias, to),
        8.. => add_by::<8>(from, bias, to),
        4.. => add_by::<4>(from, bias, to),
        _ => to.iter_mut().zip(from).for_each(|(to, from)| *to = from + bias),
    }
}

#[inline(always)]
fn add_by<const N: usize>(from: &[f32], bias: f32, to: &mut [f32]) {
    for (from, to) in from.as_chunks::<N>().0.iter().zip(to.as_chunks_mut::<N>().0) {
        *to = from.map(|value| value + bias);
    }
    if let (Some(from), Some(to)) = (from.last_chunk::<N>(), to.last_chunk_mut::<N>()) {
        *to = from.map(|value| value + bias);
    }
}
