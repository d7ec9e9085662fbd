//! Memory for values: large buffers in large pages, where the system gives them, since kernels stride through megabytes and
//! each page takes an entry of the processor's translation cache.

use std::ops::{Deref, DerefMut};

use aligned_vec::{AVec, ConstAlign};
use memmap2::MmapMut;

/// Buffers from this size on, in bytes, are pages of their own: a few of the system's large ones.
const LARGE_BYTES: usize = 4 << 20;

#[derive(Debug)]
enum Memory {
    Small(AVec<f32, ConstAlign<64>>),
    Large(MmapMut),
}

/// f32 values, aligned to a cache line at least, zero at first.
#[derive(Debug)]
pub struct Buffer {
    memory: Memory,
    values: usize,
}

impl Buffer {
    /// Zeros.
    ///
    /// # Panics
    /// When the system refuses the memory; plans are compared with what there is before they run.
    pub fn new(values: usize) -> Self {
        let bytes = values * size_of::<f32>();
        let memory = if bytes < LARGE_BYTES {
            Memory::Small(AVec::from_iter(64, std::iter::repeat_n(0.0, values)))
        } else {
            let map = MmapMut::map_anon(bytes)
                .unwrap_or_else(|error| panic!("{bytes} bytes were planned, but the system refuses them: {error}"));
            #[cfg(target_os = "linux")]
            {
                // Without large pages small ones serve as well, only slower.
                let _ = map.advise(memmap2::Advice::HugePage);
            }
            Memory::Large(map)
        };
        Self { memory, values }
    }

    /// Makes room for at least `values`; all are zero after it has grown.
    pub fn reserve(&mut self, values: usize) {
        if values > self.values {
            // The old memory goes first, so that both are never held at once.
            *self = Self::new(0);
            *self = Self::new(values);
        }
    }
}

/// Equal values, wherever they are.
impl PartialEq for Buffer {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Default for Buffer {
    fn default() -> Self {
        Self::new(0)
    }
}

impl Deref for Buffer {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        match &self.memory {
            Memory::Small(values) => values,
            Memory::Large(map) => &bytemuck::cast_slice(map)[..self.values],
        }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        match &mut self.memory {
            Memory::Small(values) => values,
            Memory::Large(map) => &mut bytemuck::cast_slice_mut(map)[..self.values],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_zero_and_grow() {
        let mut buffer = Buffer::default();
        assert!(buffer.is_empty());
        buffer.reserve(1000);
        assert!(buffer.len() == 1000 && buffer.iter().all(|&v| v == 0.0));
        buffer[999] = 1.0;
        buffer.reserve(10);
        assert_eq!((buffer.len(), buffer[999]), (1000, 1.0));
        buffer.reserve(5_000_000);
        assert!(buffer.len() == 5_000_000 && buffer.iter().all(|&v| v == 0.0));
        buffer[4_999_999] = 1.0;
        assert_eq!(buffer.as_ptr() as usize % 64, 0);
    }
}
