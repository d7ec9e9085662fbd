//! Memory that a thread keeps from image to image: blocks of this size come from the system anew each time, page by page, which costs
//! as much as a tenth of decoding a photograph.

use std::cell::RefCell;

/// So many blocks of a thread wait for their next use.
const KEPT: usize = 6;
/// Smaller ones the allocator keeps by itself.
const SMALLEST_BYTES: usize = 16 << 10;
/// Larger ones go back to the system.
const LARGEST_BYTES: usize = 64 << 20;

thread_local! {
    static BLOCKS: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// An empty vector for `len` bytes: the smallest of the kept ones that is large enough, or a new one.
pub(crate) fn empty(len: usize) -> Vec<u8> {
    kept(len).unwrap_or_else(|| Vec::with_capacity(len))
}

/// `len` zeros, likewise.
pub(crate) fn zeros(len: usize) -> Vec<u8> {
    // Fresh memory is zero already.
    let Some(mut block) = kept(len) else { return vec![0; len] };
    block.resize(len, 0);
    block
}

fn kept(len: usize) -> Option<Vec<u8>> {
    BLOCKS.with_borrow_mut(|blocks| {
        let large_enough = blocks.iter().enumerate().filter(|(_, block)| block.capacity() >= len);
        let index = large_enough.min_by_key(|(_, block)| block.capacity())?.0;
        let mut block = blocks.swap_remove(index);
        block.clear();
        Some(block)
    })
}

/// Keeps the memory of `block` for this thread's next image, rather than a smaller one's.
pub(crate) fn keep(block: Vec<u8>) {
    if !(SMALLEST_BYTES..=LARGEST_BYTES).contains(&block.capacity()) {
        return;
    }
    BLOCKS.with_borrow_mut(|blocks| {
        blocks.push(block);
        if blocks.len() > KEPT
            && let Some((index, _)) = blocks.iter().enumerate().min_by_key(|(_, block)| block.capacity())
        {
            blocks.swap_remove(index);
        }
    });
}

/// Gives back what this thread has kept.
pub(crate) fn release() {
    BLOCKS.take();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_memory_comes_back_without_its_contents_and_to_one_owner() {
        release();
        let (mut small, large) = (zeros(20_000), zeros(50_000));
        small.fill(7);
        let addresses = [small.as_ptr(), large.as_ptr()];
        keep(large);
        keep(small);
        let again = zeros(19_000);
        assert_eq!((again.as_ptr(), &again[..]), (addresses[0], &[0; 19_000][..]), "the smaller of two that fit");
        let other = empty(18_000);
        assert_eq!(other.as_ptr(), addresses[1]);
        assert_eq!(empty(0).capacity(), 0);
        (1..=KEPT + 2).for_each(|block| keep(zeros(block * SMALLEST_BYTES)));
        let sizes = BLOCKS.take().iter().map(Vec::capacity).collect::<Vec<_>>();
        assert_eq!((sizes.len(), sizes.iter().min()), (KEPT, Some(&(3 * SMALLEST_BYTES))));
        assert_eq!(empty(LARGEST_BYTES + 1).len(), 0);
        keep(zeros(LARGEST_BYTES + 1));
        assert!(BLOCKS.take().is_empty());
    }
}
