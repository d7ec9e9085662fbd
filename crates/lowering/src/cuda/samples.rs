//! A data set's images on the device.

use std::sync::Arc;

use super::{CudaError, Device, library::Allocation};

/// Words that tell how a sample is cut out of an image: image, top, left, whether it is flipped, a blank rectangle; then, as floats, its
/// share, the matrix and the offset of its colours, their bounds. `kernels/batch.cu` names them.
pub const SAMPLE_WORDS: usize = 27;
/// Bytes that are copied at a time.
const PIECE_BYTES: usize = 64 << 20;

/// Packed images on the device, shared by all sessions that show them.
pub struct Images {
    device: Arc<Device>,
    memory: Allocation,
    /// [M, C, H, W].
    shape: [usize; 4],
}

impl Images {
    /// Copies images [M, C, H, W] to the device, once for all that show them.
    ///
    /// # Errors
    /// When there is no room, or the device is lost.
    ///
    /// # Panics
    /// If `pixels` is not of this shape.
    pub fn upload(device: &Arc<Device>, shape: [usize; 4], pixels: &[u8]) -> Result<Arc<Self>, CudaError> {
        assert_eq!(pixels.len(), shape.iter().product::<usize>(), "pixels must be [M, C, H, W]");
        device.bind()?;
        let images = Self { device: Arc::clone(device), memory: device.allocate(pixels.len())?, shape };
        let stream = device.note(device.driver.stream())?;
        let copied = (0..pixels.len()).step_by(PIECE_BYTES).try_for_each(|at| {
            let piece = &pixels[at..pixels.len().min(at + PIECE_BYTES)];
            device.note(device.driver.upload_bytes(&images.memory, at, piece, &stream))
        });
        let copied = copied.and_then(|()| device.note(device.driver.synchronize(&stream)));
        device.driver.destroy_stream(&stream);
        copied.map(|()| Arc::new(images))
    }

    /// Memory that they take on the device.
    pub fn bytes(&self) -> usize {
        self.memory.bytes
    }

    /// Whether they are on this device.
    pub fn is_on(&self, device: &Arc<Device>) -> bool {
        Arc::ptr_eq(&self.device, device)
    }

    pub(crate) fn address(&self) -> u64 {
        self.memory.address(0)
    }

    pub(crate) fn shape(&self) -> [usize; 4] {
        self.shape
    }
}

impl Drop for Images {
    fn drop(&mut self) {
        // On a lost device this fails, and the driver takes all back with the process.
        let _ = self.device.bind();
        self.device.driver.free(&self.memory);
    }
}

impl std::fmt::Debug for Images {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Images({:?})", self.shape)
    }
}
