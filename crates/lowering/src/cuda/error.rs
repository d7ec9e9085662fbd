//! What can go wrong with a GPU.

use std::fmt;

use crate::Precision;

/// Oldest driver that is used, as (major, minor) of the CUDA version that it serves.
pub const LEAST_DRIVER: (i32, i32) = (12, 0);

/// A call of the driver or of NVRTC that did not succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Which function.
    pub function: &'static str,
    /// What it returned; also codes that no header of today has.
    pub status: i32,
    /// What the library says about it.
    pub meaning: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} returned {} ({})", self.function, self.status, self.meaning)
    }
}

/// Status of the driver for "no memory".
const OUT_OF_MEMORY: i32 = 2;
/// Status for "no device".
pub(crate) const NO_DEVICE: i32 = 100;
/// Statuses after which nothing that the process has on the device can be used any more: broken hardware or links (214, 220, 226),
/// a device that is taken away (46), kernels that ended in the middle (700 to 719), a server that shares the device and is gone (806, 810), a driver that has
/// shut down (4), and "unknown" (999).
const LOST: [i32; 18] = [4, 46, 214, 220, 226, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719, 806, 810, 999];
/// Statuses with which the driver refuses to record what is queued: 900 to 908.
const RECORDING: std::ops::RangeInclusive<i32> = 900..=908;

/// Why no GPU is used, or why the work on it ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CudaError {
    /// There is no driver library.
    #[error("no NVIDIA driver was found ({tried})")]
    NoDriver {
        /// Names that were looked for, and what the system said.
        tried: String,
    },
    /// There is a library, but it is not one that can be used.
    #[error("{library} cannot be used: {reason}")]
    Library {
        /// Its name or path.
        library: String,
        /// What is missing.
        reason: String,
    },
    /// The driver is too old.
    #[error("the NVIDIA driver serves CUDA {}.{}, needed is {}.{} or newer", found.0, found.1, LEAST_DRIVER.0, LEAST_DRIVER.1)]
    OldDriver {
        /// Version that it serves.
        found: (i32, i32),
    },
    /// The driver sees no device.
    #[error("the NVIDIA driver is there, but it sees no GPU")]
    NoDevice,
    /// Another process has the device for itself alone.
    #[error(
        "{name} is in use by another process, which shares it with nobody (its compute mode is exclusive), or was taken away"
    )]
    Busy {
        /// Name of the device.
        name: String,
    },
    /// There is no compiler for kernels.
    #[error(
        "the NVIDIA driver is there, but not NVRTC, which compiles the kernels ({tried}); it comes with the CUDA toolkit 12 or 13, or \
         with `pip install nvidia-cuda-nvrtc`: name its folder in LD_LIBRARY_PATH or the file in PIPELINE_NVRTC"
    )]
    NoCompiler {
        /// Names that were looked for, and what the system said.
        tried: String,
    },
    /// NVRTC has no code for this device.
    #[error(
        "{name} has compute capability {}.{}, NVRTC {}.{} compiles for {least} and newer; an older NVRTC may do (`pip install \
         nvidia-cuda-nvrtc-cu12`)", capability.0, capability.1, version.0, version.1
    )]
    Unsupported {
        /// Name of the device.
        name: String,
        /// Its compute capability.
        capability: (i32, i32),
        /// Version of NVRTC.
        version: (i32, i32),
        /// Oldest architecture that it knows, such as 7.5.
        least: String,
    },
    /// The device has no instructions for a precision.
    #[error(
        "{name} has compute capability {}.{}, and products in {precision} need 8.0 or newer; f32 is what it can do", capability.0, capability.1
    )]
    Precision {
        /// Name of the device.
        name: String,
        /// Its compute capability.
        capability: (i32, i32),
        /// What was asked for.
        precision: Precision,
    },
    /// A kernel does not compile: a bug.
    #[error("a kernel does not compile for {architecture} (a bug: please report it): {log}")]
    Kernel {
        /// Such as sm_90.
        architecture: String,
        /// What NVRTC says.
        log: String,
    },
    /// The device's memory is full.
    #[error(
        "out of GPU memory: {}{} of {} MB are free; a smaller train.batch_size, or fewer --jobs, needs less",
        wanted_bytes.map_or_else(String::new, |bytes| format!("{} MB more were needed, ", bytes / 1_000_000)),
        free_bytes / 1_000_000,
        total_bytes / 1_000_000
    )]
    OutOfMemory {
        /// What was asked for, in bytes; none where the driver needed it for itself.
        wanted_bytes: Option<usize>,
        /// What is free, in bytes.
        free_bytes: usize,
        /// What the device has, in bytes.
        total_bytes: usize,
    },
    /// A tensor has more values than indices of kernels can count.
    #[error(
        "a tensor of {elements} values is too large for the GPU's kernels, which count to 2147483647; lower train.batch_size"
    )]
    TooLarge {
        /// Its values.
        elements: usize,
    },
    /// The device is gone for this process.
    #[error("the GPU was lost: {0}")]
    Lost(Failure),
    /// It was lost before.
    #[error("the GPU was lost earlier in this process")]
    Gone,
    /// Any other call that failed.
    #[error("the GPU refused: {0}")]
    Call(Failure),
}

impl From<Failure> for CudaError {
    fn from(failure: Failure) -> Self {
        if LOST.contains(&failure.status) { Self::Lost(failure) } else { Self::Call(failure) }
    }
}

impl CudaError {
    /// Whether the driver would not record a step; it may still run it.
    pub(crate) fn is_of_recording(&self) -> bool {
        matches!(self, Self::Call(failure) if RECORDING.contains(&failure.status))
    }
}

impl Failure {
    /// Whether the device's memory is full.
    pub(crate) fn is_out_of_memory(&self) -> bool {
        self.status == OUT_OF_MEMORY
    }
}
