//! A card beside exported weights: everything that is needed to use them and to judge them.

use std::path::Path;

use graph::Network;
use plan::Model;
use serde::{Deserialize, Serialize};

use crate::{ExportError, write_whole};

/// Version of the card's format.
pub const FORMAT_VERSION: u32 = 1;

/// What a file of weights is, in JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelCard {
    /// [`FORMAT_VERSION`].
    pub format_version: u32,
    /// `LeNet-5` or `AlexNet`.
    pub network: String,
    /// The network's keys, as in an experiment file, with all defaults filled in.
    pub model: Model,
    /// Trained values.
    pub parameters: usize,
    /// Multiply-accumulates of a forward pass, per image.
    pub macs_per_image: u64,
    /// How images become what the network sees.
    pub preprocessing: Preprocessing,
    /// Names of the classes, in the order of the logits.
    pub classes: Vec<String>,
    /// Convention of the tensors' names in `weights.safetensors`: `layers` or `torchvision`.
    pub tensor_names: String,
    /// How the weights came about; none where only the weights were there.
    pub training: Option<Training>,
}

/// How images become what the network sees.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preprocessing {
    /// In words.
    pub steps: Vec<String>,
    /// [H, W] that the centre square of an image is scaled to, in pixels.
    pub resize: [usize; 2],
    /// [C, H, W] of the centre that the network sees.
    pub input: [usize; 3],
    /// Order of the channels: `gray` or `rgb`.
    pub channels: String,
    /// Mean of each channel, of pixels in [0, 1].
    pub mean: Vec<f64>,
    /// Deviation of each channel, of pixels in [0, 1].
    pub std: Vec<f64>,
}

/// How weights came about.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Training {
    /// Number of the run in its results database.
    pub run: i64,
    /// Experiment that it was made for.
    pub experiment: String,
    /// Short name of its trial.
    pub label: String,
    /// All settings and the seed.
    pub specification: serde_json::Value,
    /// Fingerprint of the prepared images that it was trained on.
    pub data_fingerprint: String,
    /// The last epoch and each evaluation; losses in nats per image, accuracies in [0, 1].
    pub metrics: serde_json::Value,
    /// By what program, where and with what it was trained.
    pub provenance: serde_json::Value,
}

impl Preprocessing {
    /// Of images that are scaled to `resize`, of which the network sees the centre.
    pub fn new(resize: [usize; 2], input: [usize; 3], mean: &[f64], std: &[f64]) -> Self {
        let [channels, height, width] = input;
        let [resized_height, resized_width] = resize;
        let order = if channels == 1 { "gray" } else { "rgb" };
        let mut steps = vec![
            format!("decode to 8-bit {order}, turned as its EXIF orientation says"),
            format!("scale the centre square to {resized_width}×{resized_height} (bilinear, antialiased)"),
        ];
        if [height, width] != resize {
            steps.push(format!("cut out the centre, {width}×{height}"));
        }
        steps.push("divide by 255, subtract mean, divide by std, channel by channel".to_owned());
        steps.push("order as [C, H, W]".to_owned());
        Self { steps, resize, input, channels: order.to_owned(), mean: mean.to_vec(), std: std.to_vec() }
    }
}

impl ModelCard {
    /// A card without a training.
    pub fn new(network: &Network, model: &Model, preprocessing: Preprocessing, classes: &[String]) -> Self {
        Self {
            format_version: FORMAT_VERSION,
            network: network.name.to_owned(),
            model: model.clone(),
            parameters: network.parameters(),
            macs_per_image: network.macs(),
            preprocessing,
            classes: classes.to_vec(),
            tensor_names: "layers".to_owned(),
            training: None,
        }
    }

    /// As JSON, indented.
    pub fn to_json(&self) -> String {
        let mut json = serde_json::to_string_pretty(self).expect("a card is plain data");
        json.push('\n');
        json
    }

    /// Writes [`Self::to_json`] to `path`.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), ExportError> {
        write_whole(path, self.to_json().as_bytes())
    }
}
