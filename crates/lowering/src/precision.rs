//! Arithmetic of products.

use std::fmt;

/// What the operands of convolutions and linear layers are rounded to, forward and backward, before they are multiplied. Sums, parameters,
/// activations and every other operator stay 32-bit floats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Precision {
    /// Not at all.
    #[default]
    F32,
    /// 10 bits of mantissa (TensorFloat-32), on a GPU's tensor cores; not at all on the processor, which has no such products.
    Tf32,
    /// 7 bits of mantissa (bfloat16, with the range of f32): on a GPU's tensor cores, and on the processor where that serves, which is everywhere but
    /// in convolutions that are computed with fewer products in 32 bits.
    Bf16,
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
