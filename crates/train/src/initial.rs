//! Weights to start from (`train.initial_weights`), by this program or by torchvision.

use std::path::Path;

use graph::{Network, State, step::Variables};
use plan::Trial;
use safetensors::{Dtype, SafeTensors};

use crate::{Names, TrainError, weights};

/// Buffer of PyTorch's batch normalization that nothing here needs.
const BATCHES: &str = "num_batches_tracked";

fn refuse(path: &Path, reason: String) -> TrainError {
    TrainError::Weights { path: path.to_owned(), reason: format!("train.initial_weights: {reason}") }
}

/// The file of a trial's initial weights.
struct Opened<'a> {
    path: &'a Path,
    bytes: Vec<u8>,
    /// Of the bytes.
    hash: String,
}

fn open(trial: &Trial) -> Result<Option<Opened<'_>>, TrainError> {
    let Some(path) = trial.settings.train.initial_weights.as_deref() else { return Ok(None) };
    let fail = |source| TrainError::File { action: "read", path: path.to_owned(), source };
    let bytes = std::fs::read(path).map_err(fail)?;
    let hash = blake3::hash(&bytes).to_hex().to_string();
    Ok(Some(Opened { path, bytes, hash }))
}

/// Notes in a trial what its initial weights hold, for its identity.
///
/// # Errors
/// When the file cannot be read.
pub fn note_initial_weights(trial: &mut Trial) -> Result<(), TrainError> {
    trial.initial_weights_hash = open(trial)?.map(|opened| opened.hash);
    Ok(())
}

/// Whether a trial can start from its initial weights in this network.
///
/// # Errors
/// When the file cannot be read, its tensors are not the network's, or hold what is no number.
pub fn check_initial_weights(trial: &Trial, network: &Network) -> Result<(), TrainError> {
    let Some(Opened { path, bytes, .. }) = open(trial)? else { return Ok(()) };
    // States take no memory until they are used.
    let variables = Variables::new(network, trial.settings.train.optimizer);
    matched(path, &bytes, &variables, &trial.settings.train.initial_weights_skip).map(|_| ())
}

/// Lays a trial's initial weights, if it has any, over variables that have been drawn at random.
///
/// # Errors
/// When the file cannot be read, has changed since the trial was planned, or its tensors are not the network's.
pub(crate) fn load_initial_weights(trial: &Trial, variables: &Variables) -> Result<(), TrainError> {
    let Some(Opened { path, bytes, hash }) = open(trial)? else { return Ok(()) };
    if trial.initial_weights_hash.as_ref().is_some_and(|noted| *noted != hash) {
        return Err(refuse(path, "the file has changed since the trial was planned".to_owned()));
    }
    for (state, values) in matched(path, &bytes, variables, &trial.settings.train.initial_weights_skip)? {
        let values = values.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        state.write().iter_mut().zip(values).for_each(|(to, from)| *to = from);
    }
    Ok(())
}

/// The states that the file fills, and their bytes: all of the network's and no others, but for the layers skipped.
fn matched<'a>(
    path: &Path,
    bytes: &'a [u8],
    variables: &'a Variables,
    skip: &[String],
) -> Result<Vec<(&'a State, &'a [u8])>, TrainError> {
    let file =
        SafeTensors::deserialize(bytes).map_err(|error| refuse(path, format!("is not a safetensors file: {error}")))?;
    let layer = |name: &str| name.rsplit_once('.').map_or_else(|| name.to_owned(), |(layer, _)| layer.to_owned());
    let states = weights::inference(variables);
    if let Some(unknown) = skip.iter().find(|skipped| !states.iter().any(|state| layer(state.name()) == **skipped)) {
        let mut layers: Vec<String> = states.iter().map(|state| layer(state.name())).collect();
        layers.dedup();
        let layers = layers.join(", ");
        return Err(refuse(
            path,
            format!("train.initial_weights_skip: the network has no layer {unknown}, only {layers}"),
        ));
    }
    let names = Names::of(file.names().into_iter());
    let mut expected: Vec<String> = Vec::new();
    let mut matched = Vec::new();
    for state in states {
        let (name, layer) = (names.name(state.name()), layer(state.name()));
        expected.push(name.clone());
        if skip.contains(&layer) {
            continue;
        }
        let hint = format!("train.initial_weights_skip = [\"{layer}\"] would draw that layer at random");
        let tensor = file
            .tensor(&name)
            .map_err(|_| refuse(path, format!("the file has no tensor {name}, which the network needs ({hint})")))?;
        if tensor.dtype() != Dtype::F32 || tensor.shape() != state.shape() {
            let (dtype, shape) = (tensor.dtype(), tensor.shape());
            let needed = state.shape();
            return Err(refuse(
                path,
                format!("{name} is {dtype:?} {shape:?}, the network needs F32 {needed:?} ({hint})"),
            ));
        }
        let values = tensor.data().as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes));
        weights::check_values(&name, values).map_err(|reason| refuse(path, reason))?;
        matched.push((state, tensor.data()));
    }
    let mut others: Vec<&str> = file.names().into_iter().filter(|name| !name.ends_with(BATCHES)).collect();
    others.retain(|name| !expected.iter().any(|known| known == name));
    others.sort_unstable();
    match others.first() {
        None => Ok(matched),
        Some(first) => Err(refuse(
            path,
            format!(
                "the file has {} tensors that the network has not, such as {first}: they are of another network",
                others.len()
            ),
        )),
    }
}
