//! Memory in large pages, where the system gives them: kernels stride through megabytes, and each page takes an entry of the
//! processor's translation cache.

use std::ops::{Deref, DerefMut};

use memmap2::MmapMut;

/// Zeroed f32 values, aligned to a page; they grow, and are zeroed anew when they do.
#[derive(Debug, Default)]
pub(crate) struct Pages {
    map: Option<MmapMut>,
    values: usize,
}

impl Pages {
    /// Makes room for at least `values`.
    ///
    /// # Panics
    /// When the system has no such amount of memory; plans are compared with what there is before they run.
    pub(crate) fn reserve(&mut self, values: usize) {
        if values <= self.values {
            return;
        }
        let bytes = values * size_of::<f32>();
        // The old pages go first, so that both are never held at once.
        self.map = None;
        let map = MmapMut::map_anon(bytes).unwrap_or_else(|error| {
            panic!("{bytes} bytes for a step were planned, but the system refuses them: {error}")
        });
        #[cfg(target_os = "linux")]
        {
            // Where the system has no large pages, small ones serve as well, only slower.
            let _ = map.advise(memmap2::Advice::HugePage);
        }
        self.map = Some(map);
        self.values = values;
    }
}

impl Deref for Pages {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        self.map.as_ref().map_or(&[], |map| &bytemuck::cast_slice(map)[..self.values])
    }
}

impl DerefMut for Pages {
    fn deref_mut(&mut self) -> &mut [f32] {
        self.map.as_mut().map_or(&mut [], |map| &mut bytemuck::cast_slice_mut(map)[..self.values])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_zero_and_grow() {
        let mut pages = Pages::default();
        assert!(pages.is_empty());
        pages.reserve(1000);
        assert!(pages.len() == 1000 && pages.iter().all(|&v| v == 0.0));
        pages[999] = 1.0;
        pages.reserve(10);
        assert_eq!((pages.len(), pages[999]), (1000, 1.0));
        pages.reserve(5_000_000);
        assert!(pages.len() == 5_000_000 && pages.iter().all(|&v| v == 0.0));
    }
}
