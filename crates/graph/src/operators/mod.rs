//! The closed set of operators: shapes, reference values and gradients.
//!
//! Each file holds one operator and its gradients: what it computes, its shape rule and its reference in obvious
//! loops, generic over the float type so that finite differences can run in f64. Every `match` on [`Operator`] is
//! exhaustive, so an operator without a gradient rule or a lowering does not compile.

pub mod activation;
pub mod batch_norm;
pub mod convolution;
pub mod cross_entropy;
pub mod dropout;
pub mod linear;
pub mod local_response;
pub mod pooling;
pub mod update;

use std::fmt::Debug;

pub use activation::Activation;
pub use convolution::Convolution;
pub use dropout::Dropout;
pub use local_response::LocalResponse;
pub use pooling::Pool;
pub use update::Rule;

use crate::State;

/// A float type that references run in: f32, or f64 for finite differences.
pub trait Real:
    num_traits::Float + num_traits::FromPrimitive + std::iter::Sum + std::ops::AddAssign + Debug + 'static
{
    /// The nearest value.
    fn of(x: f64) -> Self {
        Self::from_f64(x).expect("floats convert to floats")
    }
}
impl Real for f32 {}
impl Real for f64 {}

/// What a node computes. Tensors are contiguous, rows last: images are [N, C, H, W], features [N, F].
#[derive(Clone, Debug, PartialEq)]
pub enum Operator {
    /// () → the values of a state.
    Source(State),
    /// () → this value in every element.
    Fill(f32, Vec<usize>),
    /// (loss \[1\], parameter) → the gradient of loss with respect to the parameter; replaced by [`crate::Autograd`].
    Gradient,
    /// (x) → the same values under another shape.
    Reshape(Vec<usize>),
    /// (a, b) → a + b, equal shapes.
    Add,
    /// (x \[N, C, …\]) → \[C\]: the sum over all but the second dimension; the gradient of a bias.
    ChannelSum,
    /// (x \[R, C\]) → \[C\]: one row.
    Row(usize),
    /// (a \[C\], b \[C\]) → \[2, C\].
    Stack,
    /// (x \[N, C, H, W\], w \[O, C/g, KH, KW\], b \[O\]) → \[N, O, OH, OW\].
    Convolution(Convolution),
    /// (w, dy) → dx of the given shape.
    ConvolutionInputGrad(Convolution, Vec<usize>),
    /// (x, dy) → dw of the given shape.
    ConvolutionWeightGrad(Convolution, Vec<usize>),
    /// (x \[N, I\], w \[O, I\], b \[O\]) → \[N, O\].
    Linear,
    /// (w, dy) → dx \[N, I\].
    LinearInputGrad,
    /// (x, dy) → dw \[O, I\].
    LinearWeightGrad,
    /// (x) → f(x).
    Activation(Activation),
    /// (y, dy) → dx, from the activation's output.
    ActivationGrad(Activation),
    /// (x \[N, C, H, W\]) → the largest value of each window.
    MaxPool(Pool),
    /// (x, dy) → dx: each window's gradient goes to its first largest value.
    MaxPoolGrad(Pool),
    /// (x \[N, C, H, W\]) → the mean of each window.
    AveragePool(Pool),
    /// (dy) → dx of the given shape.
    AveragePoolGrad(Pool, Vec<usize>),
    /// (x \[N, C, H, W\]) → \[2, C\]: mean and biased variance of each channel.
    BatchStatistics,
    /// (x, statistics \[2, C\], gamma \[C\], beta \[C\]) → (x − mean) / √(variance + ε) · gamma + beta.
    BatchNormalize,
    /// (x, statistics, dy) → \[2, C\]: gradients of gamma and beta.
    BatchNormalizeParameterGrad,
    /// (x, statistics, gamma, parameter gradients \[2, C\], dy) → dx, through the statistics.
    BatchNormalizeInputGrad,
    /// (mean \[C\], variance \[C\], statistics \[2, C\]) ⇒ running mean and (unbiased) variance move by the momentum given; second number: values per channel.
    UpdateRunning(f32, usize),
    /// (x \[N, C, H, W\]) → each value divided by a power of the squares of its neighbours in channel.
    LocalResponse(LocalResponse),
    /// (x, dy) → dx.
    LocalResponseGrad(LocalResponse),
    /// (x, key \[4\]) → x with a share of its values zeroed and the rest scaled up. Its own gradient.
    Dropout(Dropout),
    /// (logits \[N, K\], targets \[N, K\]) → \[1\]: the mean cross-entropy with class probabilities as targets.
    CrossEntropy,
    /// (logits, targets, dloss \[1\]) → dlogits.
    CrossEntropyGrad,
    /// (gradients…, hyper \[[`update::HYPER`]\]) → \[1\]: the factor that clips their common norm.
    ClipFactor,
    /// (x, state) ⇒ the state takes x's values.
    Store,
    /// (parameter, gradient, hyper, moment, …) ⇒ one step of the optimizer. See [`update`].
    Update(Rule),
}

impl Operator {
    /// Shape of the output for these input shapes; empty for operators that only write states.
    ///
    /// # Panics
    /// When the shapes do not fit: a bug of the network's description, which is checked before any graph is built.
    pub fn output_shape(&self, inputs: &[Vec<usize>]) -> Vec<usize> {
        let elements = |shape: &[usize]| shape.iter().product::<usize>();
        match self {
            Self::Source(state) => state.shape().to_vec(),
            Self::Fill(_, shape) => shape.clone(),
            Self::Gradient => inputs[1].clone(),
            Self::Reshape(shape) => {
                assert_eq!(elements(shape), elements(&inputs[0]), "a reshape keeps the number of elements");
                shape.clone()
            }
            Self::Add => {
                assert_eq!(inputs[0], inputs[1], "addition takes equal shapes");
                inputs[0].clone()
            }
            Self::ChannelSum => vec![inputs[0][1]],
            Self::Row(row) => {
                assert!(*row < inputs[0][0], "row {row} of {:?}", inputs[0]);
                vec![inputs[0][1]]
            }
            Self::Stack => {
                assert_eq!(inputs[0], inputs[1], "stacking takes equal shapes");
                vec![2, inputs[0][0]]
            }
            Self::Convolution(attributes) => attributes.output_shape(&inputs[0], &inputs[1]),
            Self::ConvolutionInputGrad(_, shape)
            | Self::ConvolutionWeightGrad(_, shape)
            | Self::AveragePoolGrad(_, shape) => shape.clone(),
            Self::Linear => {
                assert_eq!(inputs[0][1], inputs[1][1], "features of a linear layer's input and weights");
                vec![inputs[0][0], inputs[1][0]]
            }
            Self::LinearInputGrad => vec![inputs[1][0], inputs[0][1]],
            Self::LinearWeightGrad => vec![inputs[1][1], inputs[0][1]],
            Self::MaxPool(pool) | Self::AveragePool(pool) => pool.output_shape(&inputs[0]),
            Self::BatchStatistics => vec![2, inputs[0][1]],
            Self::BatchNormalizeParameterGrad => inputs[1].clone(),
            Self::CrossEntropy => {
                assert_eq!(inputs[0], inputs[1], "targets are class probabilities");
                vec![1]
            }
            Self::ClipFactor => vec![1],
            Self::Activation(_)
            | Self::ActivationGrad(_)
            | Self::MaxPoolGrad(_)
            | Self::BatchNormalize
            | Self::BatchNormalizeInputGrad
            | Self::LocalResponse(_)
            | Self::LocalResponseGrad(_)
            | Self::Dropout(_)
            | Self::CrossEntropyGrad => inputs[0].clone(),
            Self::UpdateRunning(..) | Self::Store | Self::Update(_) => vec![],
        }
    }

    /// Positions of the inputs that it writes in place; these are always sources. Empty for operators that compute a value.
    pub fn writes(&self) -> &'static [usize] {
        match self {
            Self::UpdateRunning(..) => &[0, 1],
            Self::Store => &[1],
            Self::Update(rule) => rule.writes(),
            _ => &[],
        }
    }

    /// The reference value.
    ///
    /// # Panics
    /// For operators that have none: sources (their state has it), gradient placeholders, and those that write states.
    pub fn evaluate<T: Real>(&self, x: &[&[T]], shapes: &[Vec<usize>], output: &[usize]) -> Vec<T> {
        match self {
            Self::Source(_) | Self::Gradient | Self::UpdateRunning(..) | Self::Store | Self::Update(_) => {
                unreachable!("{self:?} has no value of its own")
            }
            Self::Fill(value, shape) => vec![T::of(f64::from(*value)); shape.iter().product()],
            Self::Reshape(_) => x[0].to_vec(),
            Self::Add => x[0].iter().zip(x[1]).map(|(&a, &b)| a + b).collect(),
            Self::ChannelSum => {
                let (channels, inner) = (shapes[0][1], shapes[0][2..].iter().product());
                let mut sums = vec![T::zero(); channels];
                for (i, row) in x[0].chunks_exact(inner).enumerate() {
                    sums[i % channels] += row.iter().copied().sum();
                }
                sums
            }
            Self::Row(row) => x[0][row * output[0]..][..output[0]].to_vec(),
            Self::Stack => [x[0], x[1]].concat(),
            Self::Convolution(attributes) => attributes.forward(x[0], &shapes[0], x[1], &shapes[1], x[2]),
            Self::ConvolutionInputGrad(attributes, shape) => {
                attributes.input_grad(x[0], &shapes[0], x[1], &shapes[1], shape)
            }
            Self::ConvolutionWeightGrad(attributes, shape) => {
                attributes.weight_grad(x[0], &shapes[0], x[1], &shapes[1], shape)
            }
            Self::Linear => linear::forward(x[0], x[1], x[2], output),
            Self::LinearInputGrad => linear::input_grad(x[0], x[1], &shapes[0]),
            Self::LinearWeightGrad => linear::weight_grad(x[0], x[1], output),
            Self::Activation(kind) => x[0].iter().map(|&v| kind.value(v)).collect(),
            Self::ActivationGrad(kind) => x[0].iter().zip(x[1]).map(|(&y, &dy)| kind.gradient(y, dy)).collect(),
            Self::MaxPool(pool) => pool.max(x[0], &shapes[0]),
            Self::MaxPoolGrad(pool) => pool.max_grad(x[0], &shapes[0], x[1]),
            Self::AveragePool(pool) => pool.average(x[0], &shapes[0]),
            Self::AveragePoolGrad(pool, shape) => pool.average_grad(x[0], shape),
            Self::BatchStatistics => batch_norm::statistics(x[0], &shapes[0]),
            Self::BatchNormalize => batch_norm::normalize(x[0], &shapes[0], x[1], x[2], x[3]),
            Self::BatchNormalizeParameterGrad => batch_norm::parameter_grad(x[0], &shapes[0], x[1], x[2]),
            Self::BatchNormalizeInputGrad => batch_norm::input_grad(x[0], &shapes[0], x[1], x[2], x[3], x[4]),
            Self::LocalResponse(attributes) => attributes.forward(x[0], &shapes[0]),
            Self::LocalResponseGrad(attributes) => attributes.grad(x[0], &shapes[0], x[1]),
            Self::Dropout(dropout) => dropout.apply(x[0], x[1]),
            Self::CrossEntropy => vec![cross_entropy::forward(x[0], x[1], &shapes[0])],
            Self::CrossEntropyGrad => cross_entropy::grad(x[0], x[1], &shapes[0], x[2][0]),
            Self::ClipFactor => vec![update::clip_factor(x)],
        }
    }

    /// New values of the states that it writes, by input position.
    ///
    /// # Panics
    /// For operators that write none.
    pub fn effects<T: Real>(&self, x: &[&[T]], _shapes: &[Vec<usize>]) -> Vec<(usize, Vec<T>)> {
        match self {
            Self::Store => vec![(1, x[0].to_vec())],
            Self::UpdateRunning(momentum, count) => {
                let (mean, variance) = batch_norm::running(x[0], x[1], x[2], *momentum, *count);
                vec![(0, mean), (1, variance)]
            }
            Self::Update(rule) => rule.step(x),
            other => unreachable!("{other:?} writes no state"),
        }
    }
}
