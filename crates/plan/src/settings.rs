//! What a trial is made of: the sections `[dataset]`, `[augment]`, `[model]` and `[train]` of an experiment file.
//!
//! Every key has a default, so that a file of three lines is a valid experiment. Ranges are checked in
//! [`crate::Experiment::load`], which names the file, the line and the key path of what is wrong.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Everything that decides the result of a trial, but for its seed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// `[dataset]`
    pub dataset: Dataset,
    /// `[augment]`
    pub augment: Augment,
    /// `[model]`
    pub model: Model,
    /// `[train]`
    pub train: Train,
}

/// Where images come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// Drawn by the program from a seed: ten classes of distorted, noisy glyphs. Needs no file.
    #[default]
    Glyphs,
    /// The four IDX files of MNIST or Fashion-MNIST, plain or gzipped, in one folder.
    Idx,
    /// CIFAR-10's or CIFAR-100's binary batches: a folder, a .tar or a .tar.gz.
    Cifar,
    /// Image files in one folder per class: `train/CLASS/*` and `test/CLASS/*`, or `CLASS/*` to be split; a folder, a .tar or a .tar.gz.
    Images,
    /// ImageNet (ILSVRC2012): `train/WNID/*.JPEG` and `val`, which serves as the test part, in folders of WNIDs too, or flat with
    /// `LOC_val_solution.csv`, or with `ILSVRC2012_validation_ground_truth.txt` and `map_clsloc.txt`; a folder, a .tar or a .tar.gz.
    Imagenet,
}

/// Colour channels of the prepared images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Color {
    /// One channel.
    Gray,
    /// Three channels: red, green, blue.
    Rgb,
}

impl Color {
    /// Number of channels.
    pub fn channels(self) -> usize {
        match self {
            Self::Gray => 1,
            Self::Rgb => 3,
        }
    }
}

/// What becomes of image files that cannot be read (sources `images` and `imagenet`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnBroken {
    /// The first one ends the preparation, with its path.
    #[default]
    Refuse,
    /// They are left out and listed in the manifest.
    Skip,
}

/// `[dataset]`: which images, and how they are split.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Dataset {
    /// Where the images come from.
    pub source: Source,
    /// Folder or archive, relative to the current folder; required by every source but `glyphs`.
    pub path: Option<PathBuf>,
    /// Side of the square prepared images, in pixels. Default: the source's own size (28 for glyphs; the paper's 256 for imagenet; required for `images` of mixed sizes).
    pub image_size: Option<usize>,
    /// Default: the source's own.
    pub color: Option<Color>,
    /// Share of the training part that is held back for validation, in [0, 1).
    pub validation_fraction: f64,
    /// Decides which images are held back, and draws the glyphs.
    pub seed: u64,
    /// Share of the images that is held back for the test where the source has no test part of its own, in [0, 1).
    pub test_fraction: f64,
    /// What becomes of image files that cannot be read.
    pub on_broken: OnBroken,
    /// Use only so many images of the training part, drawn evenly over the classes by `seed` (glyphs: how many to draw; default 6000).
    pub train_images: Option<usize>,
    /// The same for the test part (glyphs: default 2000).
    pub test_images: Option<usize>,
}

impl Default for Dataset {
    fn default() -> Self {
        Self {
            source: Source::default(),
            path: None,
            image_size: None,
            color: None,
            validation_fraction: 0.1,
            test_fraction: 0.2,
            on_broken: OnBroken::default(),
            seed: 0,
            train_images: None,
            test_images: None,
        }
    }
}

/// `[augment]`: label-preserving distortion of training images, drawn anew for each epoch and sample. All off by default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Augment {
    /// Random crop of this side, in pixels, out of the prepared image (the paper: 227 out of 256); evaluation takes the centre. The network sees this size.
    pub crop: Option<usize>,
    /// Crop of random area and shape, scaled to the side `crop` (or to the prepared image's own): `resized_crop = {}` takes the
    /// defaults. Comes first of all distortions and takes the place of the plain random crop; does not go with `pad`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resized_crop: Option<ResizedCrop>,
    /// Zero padding before the random crop, in pixels on each side (4 is common for 32×32).
    pub pad: usize,
    /// Probability of a horizontal flip, in [0, 1].
    pub flip: f64,
    /// Largest rotation either way, in degrees.
    pub rotation_degrees: f64,
    /// Largest relative change of size either way: 0.1 scales by 0.9 … 1.1.
    pub scale: f64,
    /// Largest shear either way, in degrees.
    pub shear_degrees: f64,
    /// Largest shift either way along each axis, as a share of the side.
    pub translate: f64,
    /// Largest relative change of brightness either way.
    pub brightness: f64,
    /// Largest relative change of contrast either way.
    pub contrast: f64,
    /// Largest relative change of saturation either way (colour images).
    pub saturation: f64,
    /// Largest turn of the hue either way, as a share of the full circle, in [0, 0.5] (colour images).
    pub hue: f64,
    /// Standard deviation of the paper's PCA colour noise (Krizhevsky et al. 2012, section 4.1: 0.1; colour images).
    pub pca: f64,
    /// Standard deviation of Gaussian pixel noise, in units of the full range.
    pub noise: f64,
    /// Side of the square that is blanked at a random place, in pixels.
    pub cutout: usize,
    /// α of the Beta(α, α) distribution that mixes pairs of images and their labels (Zhang et al. 2018); 0 is off.
    pub mixup: f64,
}

/// `augment.resized_crop`: the crop of Szegedy et al. 2015 (section 6), drawn as by torchvision's `RandomResizedCrop`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ResizedCrop {
    /// Least and largest area, as shares of the image in (0, 1]; uniform between them. Default: 0.08 to 1.
    pub area: [f64; 2],
    /// Least and largest ratio of width to height, in [0.1, 10]; log-uniform between them. Default: 3/4 to 4/3.
    pub ratio: [f64; 2],
}

impl Default for ResizedCrop {
    fn default() -> Self {
        Self { area: [0.08, 1.0], ratio: [3.0 / 4.0, 4.0 / 3.0] }
    }
}

/// The family of the network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Architecture {
    /// LeCun et al. 1998, in the form with 61,706 parameters on 1×28×28.
    #[default]
    #[serde(rename = "lenet5")]
    LeNet5,
    /// Krizhevsky et al. 2012.
    #[serde(rename = "alexnet")]
    AlexNet,
}

/// Nonlinearity after each hidden layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Activation {
    /// max(0, x)
    Relu,
    /// Hyperbolic tangent.
    Tanh,
    /// Logistic function.
    Sigmoid,
}

/// What follows a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Normalization {
    /// Batch normalization after every convolution, before the activation (Ioffe & Szegedy 2015).
    Batch,
    /// Local response normalization after the activation of conv1 and conv2 (Krizhevsky et al. 2012, section 3.3).
    LocalResponse,
    /// None.
    None,
}

/// Layer sizes of AlexNet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layout {
    /// 96-256-384-384-256, as in the paper.
    #[default]
    Paper,
    /// 64-192-384-256-256 with padding 2 in conv1, as torchvision's `alexnet` (Krizhevsky 2014). Equal to it where pool5 is 6×6,
    /// as on 224×224: torchvision's adaptive average pool, which does nothing there, is left out.
    Torchvision,
}

/// First convolution of AlexNet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stem {
    /// 11×11, stride 4: for images of 63 pixels and more (67 with the paper's layout and overlapping pooling).
    Large,
    /// 3×3, stride 1, padding 1: for images of 24 to 128 pixels.
    Small,
}

/// How weights are drawn before training.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Initialization {
    /// N(0, 2 / fan-in), biases 0 (He et al. 2015).
    He,
    /// U(±g√(6 / (fan-in + fan-out))), biases 0 (Glorot & Bengio 2010); gain g = 5/3 before tanh, else 1.
    Xavier,
    /// N(0, 0.01²), biases 1 in conv2, conv4, conv5 and the hidden fully connected layers, else 0 (Krizhevsky et al. 2012, section 5).
    Paper,
    /// U(±1/√fan-in) for weights and biases: PyTorch's default.
    Uniform,
}

/// `[model]`: the network. Keys left out take the architecture's own default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Model {
    /// The family.
    pub architecture: Architecture,
    /// Default: tanh for LeNet-5, relu for AlexNet.
    pub activation: Option<Activation>,
    /// Default: batch for AlexNet; none for LeNet-5 and for AlexNet in torchvision's layout.
    pub normalization: Option<Normalization>,
    /// Probability that an input of a hidden fully connected layer is dropped, in [0, 1). Default: 0 for LeNet-5, 0.5 for AlexNet.
    pub dropout: Option<f64>,
    /// AlexNet: max pooling 3×3 stride 2 (true, the paper's section 3.4) or 2×2 stride 2 (false). Default: true.
    pub overlapping_pooling: Option<bool>,
    /// AlexNet: 1, or 2 for the paper's split over two GPUs (conv2, conv4 and conv5 in two groups). Default: 1.
    pub towers: Option<usize>,
    /// AlexNet: layer sizes.
    pub layout: Option<Layout>,
    /// AlexNet: first convolution. Default: large where it fits and from 63 pixels on, else small.
    pub stem: Option<Stem>,
    /// AlexNet: factor on every layer's width, in (0, 4]. Default: 1.
    pub width: Option<f64>,
    /// Default: xavier for LeNet-5 (its activation saturates), he for AlexNet.
    pub initialization: Option<Initialization>,
}

/// Update rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Optimizer {
    /// Stochastic gradient descent with momentum: v ← μv + g + λw, w ← w − ηv.
    #[default]
    Sgd,
    /// Adam with λw added to the gradient (Kingma & Ba 2015).
    Adam,
    /// Adam with decoupled decay: w ← w − ηλw besides (Loshchilov & Hutter 2019).
    Adamw,
}

/// Which parameters weight decay pulls on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Decay {
    /// Convolution and linear weights only, as Keras' `kernel_regularizer`.
    #[default]
    Weights,
    /// Biases and normalization parameters too, as PyTorch's optimizers.
    All,
}

/// Arithmetic of the training step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// 32-bit floating point throughout.
    #[default]
    F32,
    /// Operands of the products of convolutions and linear layers are rounded to 10 bits of mantissa (TensorFloat-32), for the tensor cores of
    /// GPUs of compute capability 8.0 and newer; all else as in `Bf16`. The processor has nothing like it.
    Tf32,
    /// Operands of the products of convolutions and linear layers are rounded to bfloat16 where that is faster than 32 bits, on a GPU in
    /// all of them; their sums, the weights and all that is stored stay in 32 bits.
    Bf16,
}

/// Where training steps run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Device {
    /// A GPU where one can be used, else the processor.
    Auto,
    /// The processor: the default, until a GPU has been seen to give the same results.
    #[default]
    Cpu,
    /// An NVIDIA GPU; it is an error if none can be used.
    Cuda,
}

/// `[train]`: how the network is trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Train {
    /// Passes over the training part.
    pub epochs: u32,
    /// Images per step. The last step of an epoch takes what is left.
    pub batch_size: usize,
    /// Images per step of an evaluation.
    pub evaluation_batch_size: usize,
    /// Update rule.
    pub optimizer: Optimizer,
    /// Base learning rate η. Not used by the schedules `book` and `table`, which give absolute rates.
    pub learning_rate: f64,
    /// μ of SGD, β₁ of Adam, in [0, 1).
    pub momentum: f64,
    /// Nesterov's form of momentum (SGD).
    pub nesterov: bool,
    /// β₂ of Adam, in [0, 1).
    pub beta2: f64,
    /// λ as the papers and PyTorch's optimizers count it: the penalty is λ/2·Σw², its gradient λw. Keras' `l2(k)` adds k·Σw² with the
    /// gradient 2kw, so `l2(k)` is `weight_decay = 2k`: `l2(0.00025)` is 0.0005 here. `adamw` adds no penalty and shrinks instead.
    pub weight_decay: f64,
    /// Which parameters decay: by default convolution and linear weights, neither biases nor normalization parameters.
    pub decay: Decay,
    /// How the learning rate changes: a name (`schedule = "book"`) or a table (`schedule = { kind = "step", every_epochs = 10 }`).
    pub schedule: crate::Schedule,
    /// Share of the target that is spread evenly over all classes, in [0, 1).
    pub label_smoothing: f64,
    /// Largest norm of the whole gradient; larger ones are scaled down to it.
    pub gradient_clip: Option<f64>,
    /// Share δ in [0, 1) of the old average in the exponential moving average of all parameters, a ← δa + (1 − δ)w after each step
    /// (Polyak & Juditsky 1992), which is then what is validated, tested and kept. Starts as the mean of the first steps. Statistics
    /// of batch normalization are not averaged again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub average_decay: Option<f64>,
    /// Arithmetic of the training step.
    pub precision: Precision,
    /// Where training steps run. It says how a trial is done, as the number of threads does, not which trial it is: it is no part of
    /// the trial's identity, and each claim of a run records the device that was taken. Sums are taken in another order on a GPU than on
    /// a processor, so results differ by rounding, as between two kinds of processor.
    pub device: Device,
    /// Weights to start from instead of random ones: a safetensors file of this program, or of torchvision's AlexNet. Names and
    /// shapes must be the network's. What is in the file decides the trial's identity, not where it lies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initial_weights: Option<PathBuf>,
    /// Layers that are drawn at random all the same, such as a classifier for other classes: `["fc8"]`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub initial_weights_skip: Vec<String>,
    /// Layers that stay as they start: their weights and biases, and a normalization's running statistics, which it then normalizes
    /// by. A name that ends in `*` stands for all that begin so: `["conv*", "norm*"]`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub freeze: Vec<String>,
}

impl Train {
    /// Whether a layer stays as it starts.
    pub fn freezes(&self, layer: &str) -> bool {
        self.freeze.iter().any(|name| Self::names(name, layer))
    }

    /// Whether a name of [`Self::freeze`] stands for a layer.
    pub fn names(name: &str, layer: &str) -> bool {
        name.strip_suffix('*').map_or(name == layer, |beginning| layer.starts_with(beginning))
    }
}

impl Default for Train {
    fn default() -> Self {
        Self {
            epochs: 10,
            batch_size: 64,
            evaluation_batch_size: 256,
            optimizer: Optimizer::default(),
            learning_rate: 0.01,
            momentum: 0.9,
            nesterov: false,
            beta2: 0.999,
            weight_decay: 0.0005,
            decay: Decay::default(),
            schedule: crate::Schedule::default(),
            label_smoothing: 0.0,
            gradient_clip: None,
            average_decay: None,
            precision: Precision::default(),
            device: Device::default(),
            initial_weights: None,
            initial_weights_skip: Vec::new(),
            freeze: Vec::new(),
        }
    }
}
