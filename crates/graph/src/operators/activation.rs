//! Nonlinearities, with gradients in terms of their output.

use super::Real;

/// Elementwise nonlinearity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// max(0, x)
    Relu,
    /// tanh x
    Tanh,
    /// 1 / (1 + e⁻ˣ)
    Sigmoid,
}

impl Activation {
    /// f(x).
    pub fn value<T: Real>(self, x: T) -> T {
        match self {
            Self::Relu => {
                // Written so that NaN stays NaN: a diverged network must not look like a silent one.
                if x <= T::zero() { T::zero() } else { x }
            }
            Self::Tanh => x.tanh(),
            Self::Sigmoid => T::one() / (T::one() + (-x).exp()),
        }
    }

    /// dx from y = f(x) and dy: relu passes dy where y > 0; tanh' = 1 − y²; sigmoid' = y(1 − y).
    pub fn gradient<T: Real>(self, y: T, dy: T) -> T {
        match self {
            Self::Relu => {
                if y <= T::zero() {
                    T::zero()
                } else {
                    dy
                }
            }
            Self::Tanh => dy * (T::one() - y * y),
            Self::Sigmoid => dy * y * (T::one() - y),
        }
    }
}
