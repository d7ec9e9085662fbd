//! Training steps in burn, on its flex backend: `RAYON_NUM_THREADS=2 burn lenet5 64` prints images per second.

mod timing;

use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::pool::{AvgPool2d, AvgPool2dConfig, MaxPool2d, MaxPool2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Dropout, DropoutConfig, Linear, LinearConfig, PaddingConfig2d};
use burn::optim::decay::WeightDecayConfig;
use burn::optim::momentum::MomentumConfig;
use burn::optim::{GradientsParams, SgdConfig};
use burn::tensor::activation::{relu, tanh};
use burn::tensor::{Device, Distribution, Int, Tensor};

/// A convolution [input, output] with a square kernel.
fn convolution(channels: [usize; 2], kernel: usize, stride: usize, pad: usize, device: &Device) -> Conv2d {
    let padding = PaddingConfig2d::Explicit(pad, pad, pad, pad);
    Conv2dConfig::new(channels, [kernel; 2]).with_stride([stride; 2]).with_padding(padding).init(device)
}

fn linear(inputs: usize, outputs: usize, device: &Device) -> Linear {
    LinearConfig::new(inputs, outputs).init(device)
}

#[derive(Module, Debug)]
struct LeNet5 {
    convolutions: Vec<Conv2d>,
    pool: AvgPool2d,
    hidden: Linear,
    output: Linear,
}

impl LeNet5 {
    fn new(device: &Device) -> Self {
        Self {
            convolutions: vec![
                convolution([1, 6], 5, 1, 2, device),
                convolution([6, 16], 5, 1, 0, device),
                convolution([16, 120], 5, 1, 0, device),
            ],
            pool: AvgPool2dConfig::new([2, 2]).with_strides([2, 2]).init(),
            hidden: linear(120, 84, device),
            output: linear(84, 10, device),
        }
    }

    /// Logits [N, 10] of images [N, 1, 28, 28].
    fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let first = self.pool.forward(tanh(self.convolutions[0].forward(images)));
        let second = self.pool.forward(tanh(self.convolutions[1].forward(first)));
        let third = tanh(self.convolutions[2].forward(second)).flatten(1, 3);
        self.output.forward(tanh(self.hidden.forward(third)))
    }
}

#[derive(Module, Debug)]
struct AlexNet {
    convolutions: Vec<Conv2d>,
    norms: Vec<BatchNorm>,
    pool: MaxPool2d,
    linears: Vec<Linear>,
    dropout: Dropout,
}

impl AlexNet {
    fn new(device: &Device) -> Self {
        Self {
            convolutions: vec![
                convolution([3, 96], 11, 4, 0, device),
                convolution([96, 256], 5, 1, 2, device),
                convolution([256, 384], 3, 1, 1, device),
                convolution([384, 384], 3, 1, 1, device),
                convolution([384, 256], 3, 1, 1, device),
            ],
            norms: [96, 256, 384, 384, 256].map(|channels| BatchNormConfig::new(channels).init(device)).into(),
            pool: MaxPool2dConfig::new([3, 3]).with_strides([2, 2]).init(),
            linears: [[9216, 4096], [4096, 4096], [4096, 1000]].map(|[from, to]| linear(from, to, device)).into(),
            dropout: DropoutConfig::new(0.5).init(),
        }
    }

    /// Logits [N, 1000] of images [N, 3, 227, 227].
    fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let mut maps = images;
        for (layer, (convolution, norm)) in self.convolutions.iter().zip(&self.norms).enumerate() {
            maps = relu(norm.forward(convolution.forward(maps)));
            if [0, 1, 4].contains(&layer) {
                maps = self.pool.forward(maps);
            }
        }
        let mut hidden: Tensor<2> = maps.flatten(1, 3);
        for linear in &self.linears[..2] {
            hidden = self.dropout.forward(relu(linear.forward(hidden)));
        }
        self.linears[2].forward(hidden)
    }
}

/// Both networks take the same step; their types have nothing in common that it could be generic over.
macro_rules! measure {
    ($network:expr, $images:expr, $classes:expr, $device:expr) => {{
        let (mut network, images, classes) = (Some($network), $images, $classes);
        let momentum = MomentumConfig::new().with_momentum(0.9).with_dampening(0.0);
        let decay = WeightDecayConfig::new(5e-4);
        let mut optimizer = SgdConfig::new().with_momentum(Some(momentum)).with_weight_decay(Some(decay)).init();
        let entropy = CrossEntropyLossConfig::new().init(&$device);
        timing::measure(images.dims()[0], || {
            let before = network.take().unwrap();
            let loss = entropy.forward(before.forward(images.clone()), classes.clone());
            let gradients = GradientsParams::from_grads(loss.backward(), &before);
            network = Some(optimizer.step(0.01, before, gradients));
            $device.sync().unwrap();
            loss.into_scalar::<f32>()
        });
    }};
}

fn main() {
    let (name, batch) = timing::arguments();
    let device = Device::flex().autodiff();
    let (channels, side, count) = if name == "lenet5" { (1, 28, 10) } else { (3, 227, 1000) };
    let images = Tensor::<4>::random([batch, channels, side, side], Distribution::Normal(0.0, 1.0), &device);
    let classes: Vec<i32> = (0..batch as i32).map(|image| image % count).collect();
    let classes = Tensor::<1, Int>::from_ints(classes.as_slice(), &device);
    if name == "lenet5" {
        measure!(LeNet5::new(&device), images, classes, device);
    } else {
        measure!(AlexNet::new(&device), images, classes, device);
    }
}
