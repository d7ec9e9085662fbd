//! The planned arena and the states as memory of this process.

use std::ops::Range;

use graph::Buffer;
use pulp::Simd;

use super::vector;
pub(crate) use crate::memory::{Place, Slot, layout};

/// Resolved places during one run. Kernels read whole slots and write the ranges that their task owns.
pub(crate) struct Memory {
    places: Vec<(*mut f32, usize)>,
}

// SAFETY: the pointers lead to buffers that the running program borrows exclusively for the whole run, and kernels
// keep the rules that `read` and `write` state.
#[expect(unsafe_code, reason = "tasks on several threads write disjoint ranges of one buffer")]
unsafe impl Sync for Memory {}

impl Memory {
    /// # Safety
    /// `arena` must be as long as the layout says and stay exclusively borrowed while this lives.
    #[expect(unsafe_code, reason = "offsets are turned into pointers")]
    pub(crate) unsafe fn new(places: &[Place], offsets: &[usize], arena: *mut f32, states: &mut [&mut Buffer]) -> Self {
        let mut states = states.iter_mut();
        let places = places
            .iter()
            .zip(offsets)
            .map(|(place, &offset)| match place {
                // SAFETY: the layout keeps offset + elements within the arena.
                Place::Arena { elements, .. } => (unsafe { arena.add(offset) }, *elements),
                Place::State(_) => {
                    let values = states.next().expect("one guard per state place");
                    (values.as_mut_ptr(), values.len())
                }
            })
            .collect();
        Self { places }
    }

    /// A whole slot. No task of the running step may write to it.
    #[expect(unsafe_code, reason = "the plan proves what the borrow checker cannot see")]
    pub(crate) fn read(&self, slot: Slot) -> &[f32] {
        let (pointer, length) = self.places[slot.0];
        // SAFETY: the pointer and length are a live buffer (see `new`); the memory plan gives slots that are alive in
        // one step disjoint places, and a kernel never reads the slot that it writes.
        unsafe { std::slice::from_raw_parts(pointer, length) }
    }

    /// A range of a slot that no other task of the running step writes to.
    #[expect(unsafe_code, reason = "the plan proves what the borrow checker cannot see")]
    pub(crate) fn part(&self, slot: Slot, range: Range<usize>) -> &[f32] {
        let (pointer, length) = self.places[slot.0];
        assert!(range.start <= range.end && range.end <= length, "{range:?} of {length}");
        // SAFETY: within a live buffer by the assertion above; tasks that write to others of its ranges at the same time do not touch this one,
        // and a task writes to none that it is reading.
        unsafe { std::slice::from_raw_parts(pointer.add(range.start), range.len()) }
    }

    /// Asks for the cache line of a value that the calling task will write.
    #[inline(always)]
    fn prefetch_to_write(&self, slot: Slot, at: usize) {
        let (pointer, length) = self.places[slot.0];
        if at < length {
            vector::ask_to_write(pointer.wrapping_add(at));
        }
    }

    /// Writes a register of values that nobody reads soon: as a cache line past the caches if [`vector::past_caches`] says so, and then
    /// [`vector::streamed`] must follow; else after asking for the line `ahead` values further on.
    #[inline(always)]
    pub(crate) fn put<S: Simd>(&self, simd: S, slot: Slot, at: usize, values: S::f32s, ahead: usize, past: bool) {
        let to = self.write(slot, at..at + S::F32_LANES);
        match to.first_chunk_mut() {
            Some(line) if past => vector::stream(simd, values, line),
            _ => {
                self.prefetch_to_write(slot, at + ahead);
                S::as_mut_simd_f32s(to).0[0] = values;
            }
        }
    }

    /// A range of a slot that the calling task alone touches.
    #[expect(
        unsafe_code,
        clippy::mut_from_ref,
        reason = "tasks write disjoint ranges, which the borrow checker cannot see"
    )]
    pub(crate) fn write(&self, slot: Slot, range: Range<usize>) -> &mut [f32] {
        let (pointer, length) = self.places[slot.0];
        assert!(range.start <= range.end && range.end <= length, "{range:?} of {length}");
        // SAFETY: within a live buffer by the assertion above; every kernel gives each task its own ranges.
        unsafe { std::slice::from_raw_parts_mut(pointer.add(range.start), range.len()) }
    }
}
