//! Arithmetic of products.

/// How the products of convolutions and linear layers are computed. All else, and what is stored between operators, stays in 32-bit
/// floating point.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Precision {
    /// 32-bit operands.
    #[default]
    F32,
    /// Operands rounded to bfloat16 (8 bits of precision, the range of f32), sums and weights in 32 bits: where that serves, which is
    /// everywhere but in convolutions that a lowering computes with fewer products in 32 bits.
    Bf16,
}

impl Precision {
    /// Operands that fill 32 bits.
    pub(crate) fn step(self) -> usize {
        match self {
            Self::F32 => 1,
            Self::Bf16 => 2,
        }
    }
}
