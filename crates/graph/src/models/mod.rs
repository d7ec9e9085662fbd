//! Networks, layer by layer: shapes, parameter counts and multiply-accumulates, before any graph is built.

mod alexnet;
mod lenet5;

use plan::{Architecture, Model, Train};

use crate::operators::{Activation, Convolution, LocalResponse, Pool};

/// Why a network cannot be built for an image size.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ModelError {
    /// The image is too small for the layers.
    #[error("model.architecture: {network} needs images of at least {least}×{least} pixels{hint}, got {got}×{got}")]
    ImageTooSmall {
        /// Network's name.
        network: &'static str,
        /// Smallest side, in pixels.
        least: usize,
        /// What else would help.
        hint: &'static str,
        /// Side given, in pixels.
        got: usize,
    },
    /// Fewer than two classes.
    #[error("dataset: a classifier needs at least 2 classes, got {0}")]
    TooFewClasses(usize),
}

/// What a layer does.
#[derive(Clone, Debug, PartialEq)]
pub enum LayerKind {
    /// Convolution with bias.
    Convolution {
        /// Output channels.
        outputs: usize,
        /// Side of the kernel, in pixels.
        kernel: usize,
        /// Stride, padding, groups.
        attributes: Convolution,
    },
    /// Batch normalization.
    BatchNorm,
    /// Local response normalization.
    LocalResponse(LocalResponse),
    /// Elementwise nonlinearity.
    Activation(Activation),
    /// Max pooling.
    MaxPool(Pool),
    /// Average pooling.
    AveragePool(Pool),
    /// [N, C, H, W] → [N, C·H·W].
    Flatten,
    /// Dropout with this rate.
    Dropout(f32),
    /// Fully connected with bias.
    Linear {
        /// Output features.
        outputs: usize,
    },
}

/// A layer in its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Layer {
    /// `conv1`, `norm1`, `fc6` …; layers without parameters are called after what they do.
    pub name: String,
    /// What it does.
    pub kind: LayerKind,
    /// [C, H, W] or \[F\], without the batch.
    pub input: Vec<usize>,
    /// [C, H, W] or \[F\], without the batch.
    pub output: Vec<usize>,
    /// Trained values.
    pub parameters: usize,
    /// Multiply-accumulates of a forward pass, per image.
    pub macs: u64,
}

/// A network for images of one size.
#[derive(Clone, Debug, PartialEq)]
pub struct Network {
    /// `LeNet-5` or `AlexNet`.
    pub name: &'static str,
    /// [C, H, W].
    pub input: [usize; 3],
    /// Number of classes.
    pub classes: usize,
    /// In the order in which they run.
    pub layers: Vec<Layer>,
    /// How it departs from its paper, in words.
    pub notes: Vec<String>,
}

impl Network {
    /// The network that `model` describes for images [C, H, W].
    ///
    /// # Errors
    /// When the image is too small for the layers or there are fewer than two classes.
    pub fn new(model: &Model, input: [usize; 3], classes: usize) -> Result<Self, ModelError> {
        if classes < 2 {
            return Err(ModelError::TooFewClasses(classes));
        }
        match model.architecture {
            Architecture::LeNet5 => lenet5::network(model, input, classes),
            Architecture::AlexNet => alexnet::network(model, input, classes),
        }
    }

    /// Floating-point operations of convolutions and linear layers per image in a training step, two per multiply-accumulate: forward,
    /// the gradients of weights that are trained, and those of inputs behind which something is trained.
    pub fn training_flop(&self, train: &Train) -> u64 {
        let mut macs = self.macs();
        let mut is_behind = false;
        for layer in self.layers.iter().filter(|layer| layer.parameters > 0) {
            let is_trained = !train.freezes(&layer.name);
            macs += layer.macs * (u64::from(is_trained) + u64::from(is_behind));
            is_behind |= is_trained;
        }
        2 * macs
    }

    fn empty(name: &'static str, input: [usize; 3], classes: usize) -> Self {
        Self { name, input, classes, layers: Vec::new(), notes: Vec::new() }
    }

    /// Trained values of the whole network.
    pub fn parameters(&self) -> usize {
        self.layers.iter().map(|layer| layer.parameters).sum()
    }

    /// Multiply-accumulates of a forward pass, per image.
    pub fn macs(&self) -> u64 {
        self.layers.iter().map(|layer| layer.macs).sum()
    }

    /// Appends a layer; its shapes and counts follow from what stands before it.
    fn push(&mut self, name: impl Into<String>, kind: LayerKind) -> &mut Self {
        let input = self.layers.last().map_or_else(|| self.input.to_vec(), |layer| layer.output.clone());
        let pixels = |shape: &[usize]| shape[1..].iter().product::<usize>();
        let batch = |shape: &[usize]| [&[1], shape].concat();
        let (output, parameters, macs) = match &kind {
            LayerKind::Convolution { outputs, kernel, attributes } => {
                let weights = [*outputs, input[0] / attributes.groups, *kernel, *kernel];
                let output = attributes.output_shape(&batch(&input), &weights)[1..].to_vec();
                let products = weights.iter().product::<usize>();
                let macs = (products * pixels(&output)) as u64;
                (output, products + outputs, macs)
            }
            LayerKind::Linear { outputs } => (vec![*outputs], (input[0] + 1) * outputs, (input[0] * outputs) as u64),
            LayerKind::BatchNorm => (input.clone(), 2 * input[0], 0),
            LayerKind::MaxPool(pool) | LayerKind::AveragePool(pool) => {
                (pool.output_shape(&batch(&input))[1..].to_vec(), 0, 0)
            }
            LayerKind::Flatten => (vec![input.iter().product()], 0, 0),
            LayerKind::LocalResponse(_) | LayerKind::Activation(_) | LayerKind::Dropout(_) => (input.clone(), 0, 0),
        };
        self.layers.push(Layer { name: name.into(), kind, input, output, parameters, macs });
        self
    }
}

fn activation(kind: plan::Activation) -> LayerKind {
    LayerKind::Activation(match kind {
        plan::Activation::Relu => Activation::Relu,
        plan::Activation::Tanh => Activation::Tanh,
        plan::Activation::Sigmoid => Activation::Sigmoid,
    })
}
