//! In what precision a device takes the products of matrices.

use crate::Precision;

impl Precision {
    /// All of them, the finest first.
    pub const ALL: [Self; 3] = [Self::F32, Self::Tf32, Self::Bf16];

    /// Whether a device of this compute capability, (major, minor), has it.
    pub fn is_served(self, capability: (i32, i32)) -> bool {
        self == Self::F32 || capability >= (8, 0)
    }

    /// Its type in the kernels (`kernels/warp.cu`).
    pub(crate) fn kind(self) -> &'static str {
        match self {
            Self::F32 => unreachable!("32-bit floats are not packed"),
            Self::Tf32 => "Tf32",
            Self::Bf16 => "Bf16",
        }
    }

    /// Bytes of a packed value.
    pub(crate) fn bytes(self) -> usize {
        match self {
            Self::F32 | Self::Tf32 => 4,
            Self::Bf16 => 2,
        }
    }
}
