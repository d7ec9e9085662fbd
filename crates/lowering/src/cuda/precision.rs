//! In what precision the products of matrices are taken.

use std::fmt;

/// What the operands of convolutions and linear layers are rounded to, forward and backward, before they are multiplied. Sums, parameters,
/// activations and every other operator stay 32-bit floats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Precision {
    /// Not at all.
    #[default]
    F32,
    /// 10 bits of mantissa (TensorFloat-32), on tensor cores.
    Tf32,
    /// 7 bits of mantissa (bfloat16), on tensor cores.
    Bf16,
}

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

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Tf32 => "tf32",
            Self::Bf16 => "bf16",
        })
    }
}
