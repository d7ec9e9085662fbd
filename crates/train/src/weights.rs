//! Weights as safetensors files, in PyTorch's names and layouts.

use std::{
    collections::HashMap,
    fs::File,
    io::Write,
    path::{Path, PathBuf},
};

use graph::{State, step::Variables};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde::{Deserialize, Serialize};

use crate::{Names, TrainError};

/// Key of the card in a file's metadata.
const CARD: &str = "pipeline";

/// What a weights file says about itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Card {
    /// The network's keys, as in an experiment file.
    pub model: plan::Model,
    /// [C, H, W] of what the network sees.
    pub input: [usize; 3],
    /// [H, W] of the prepared images, whose centre of the size of `input` the network sees; none: just that size.
    #[serde(default)]
    pub image: Option<[usize; 2]>,
    /// Names of the classes, in the order of the logits.
    pub classes: Vec<String>,
    /// Mean of each channel that is taken from pixels in [0, 1].
    pub mean: Vec<f64>,
    /// Deviation of each channel that they are then divided by.
    pub std: Vec<f64>,
    /// Arithmetic of products that it was trained with, and is evaluated with where the device has it.
    #[serde(default)]
    pub precision: plan::Precision,
}

/// Largest side of an image, in pixels, as of those that are prepared.
const MAX_SIDE: usize = 4096;

impl Card {
    /// What is wrong with it, so that nothing is built from a card that this program would not write.
    fn check(&self) -> Result<(), String> {
        let [channels, height, width] = self.input;
        let [image_height, image_width] = self.image.unwrap_or([height, width]);
        let fits = |side: usize, image_side: usize| side > 0 && (side..=MAX_SIDE).contains(&image_side);
        if !matches!(channels, 1 | 3) || !fits(height, image_height) || !fits(width, image_width) {
            return Err(format!(
                "images of {image_height}×{image_width} and an input of {:?} do not go together: 1 or 3 channels, and sides from 1 to {MAX_SIDE}, are needed",
                self.input
            ));
        }
        let sound = |values: &[f64], least: f64| {
            values.len() == channels && values.iter().all(|&value| (least..=1.0).contains(&value))
        };
        if !sound(&self.mean, 0.0) || !sound(&self.std, 0.0) {
            return Err(format!(
                "mean and std need {channels} values in [0, 1], got {:?} and {:?}",
                self.mean, self.std
            ));
        }
        let dataset = plan::Dataset { image_size: Some(height.min(width)), ..plan::Dataset::default() };
        let settings = plan::Settings { model: self.model.clone(), dataset, ..plan::Settings::default() };
        settings.validate().map_err(|violation| violation.to_string())
    }
}

/// Refuses values of a tensor that no trained network has, in an order that says where.
pub(crate) fn check_values(name: &str, values: impl Iterator<Item = f32>) -> Result<(), String> {
    let variance = name.ends_with("running_var");
    for (index, value) in values.enumerate() {
        if !value.is_finite() {
            return Err(format!("{name} holds {value} at {index}: weights must be finite"));
        }
        if variance && value < 0.0 {
            return Err(format!("{name} holds {value} at {index}: a variance is not negative"));
        }
    }
    Ok(())
}

/// Writes states and metadata beside `path`, then renames: the file is whole or not there.
pub(crate) fn write(
    path: &Path,
    states: &[&State],
    names: Names,
    metadata: HashMap<String, String>,
) -> Result<(), TrainError> {
    let guards: Vec<_> = states.iter().map(|state| state.read()).collect();
    let views = states.iter().zip(&guards).map(|(state, values)| {
        let bytes = bytemuck::cast_slice(values);
        let view = TensorView::new(Dtype::F32, state.shape().to_vec(), bytes).expect("a state has its shape's size");
        (names.name(state.name()), view)
    });
    let bytes = safetensors::serialize(views, Some(metadata)).expect("names are unique and metadata is text");
    let fail = |source| TrainError::File { action: "write", path: path.to_owned(), source };
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(fail)?;
    }
    let written = File::create(&temporary).and_then(|mut file| {
        file.write_all(&bytes)?;
        file.sync_all()
    });
    written.and_then(|()| std::fs::rename(&temporary, path)).map_err(|source| {
        let _ = std::fs::remove_file(&temporary);
        fail(source)
    })
}

/// Fills states by name and returns the metadata. Nothing is changed if anything is missing or has another shape.
pub(crate) fn read(path: &Path, states: &[&State]) -> Result<HashMap<String, String>, TrainError> {
    let bytes =
        std::fs::read(path).map_err(|source| TrainError::File { action: "read", path: path.to_owned(), source })?;
    let refuse = |reason: String| TrainError::Weights { path: path.to_owned(), reason };
    let file =
        SafeTensors::deserialize(&bytes).map_err(|error| refuse(format!("is not a safetensors file: {error}")))?;
    let mut tensors = Vec::new();
    let names = Names::of(file.names().into_iter());
    for state in states {
        let name = names.name(state.name());
        let tensor = file.tensor(&name).map_err(|_| refuse(format!("has no tensor {name}")))?;
        if tensor.dtype() != Dtype::F32 || tensor.shape() != state.shape() {
            let (shape, dtype) = (tensor.shape(), tensor.dtype());
            return Err(refuse(format!("{name} is {dtype:?} {shape:?}, the network needs F32 {:?}", state.shape())));
        }
        tensors.push(tensor);
    }
    for (state, tensor) in states.iter().zip(tensors) {
        let values = tensor.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        state.write().iter_mut().zip(values).for_each(|(to, from)| *to = from);
    }
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|error| refuse(error.to_string()))?;
    Ok(header.metadata().clone().unwrap_or_default())
}

/// Parameters and running statistics: what inference needs.
pub(crate) fn inference(variables: &Variables) -> Vec<&State> {
    variables.parameters.iter().map(|p| p.evaluated()).chain(&variables.running).collect()
}

/// Writes the weights that inference needs, with their card.
///
/// # Errors
/// When the file cannot be written, or another convention's names would promise another network.
pub fn save_weights(path: &Path, variables: &Variables, card: &Card, names: Names) -> Result<(), TrainError> {
    let refuse = |reason| TrainError::Weights { path: path.to_owned(), reason };
    names.check(&variables.network).map_err(refuse)?;
    let json = serde_json::to_string(card).expect("a card is plain data");
    write(path, &inference(variables), names, HashMap::from([(CARD.to_owned(), json)]))
}

/// The card of a weights file and the variables of its network, filled.
///
/// # Errors
/// When the file cannot be read, was not written by this program, does not fit its own card, or holds what is no number.
pub fn load_weights(path: &Path) -> Result<(Card, Variables), TrainError> {
    let mut metadata = read(path, &[])?;
    let refuse = |reason: String| TrainError::Weights { path: PathBuf::from(path), reason };
    let json = metadata.remove(CARD).ok_or_else(|| refuse("has no card of this program in its metadata".into()))?;
    let card: Card = serde_json::from_str(&json).map_err(|error| refuse(format!("its card is unreadable: {error}")))?;
    card.check().map_err(|reason| refuse(format!("its card is not sound: {reason}")))?;
    let network = graph::Network::new(&card.model, card.input, card.classes.len())?;
    let variables = Variables::new(&network, plan::Optimizer::Sgd);
    let states = inference(&variables);
    read(path, &states)?;
    states.iter().try_for_each(|state| check_values(state.name(), state.read().iter().copied())).map_err(refuse)?;
    Ok((card, variables))
}
