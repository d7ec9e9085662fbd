//! Layers that stay as they start (`train.freeze`).

use graph::Network;
use plan::Train;

use crate::TrainError;

/// Whether a network has the layers that are to be frozen, and others.
///
/// # Errors
/// [`TrainError::Freeze`] for a name that stands for no layer with parameters, or where nothing would be left to train.
pub fn check_frozen_layers(train: &Train, network: &Network) -> Result<(), TrainError> {
    let layers = || network.layers.iter().filter(|layer| layer.parameters > 0).map(|layer| layer.name.as_str());
    let unknown = train.freeze.iter().find(|name| !layers().any(|layer| Train::names(name, layer)));
    if let Some(unknown) = unknown {
        let layers = layers().collect::<Vec<_>>().join(", ");
        return Err(TrainError::Freeze(format!("the network has no layer {unknown}, only {layers}")));
    }
    if layers().all(|layer| train.freezes(layer)) {
        return Err(TrainError::Freeze("all layers are frozen: nothing is left to train".to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use plan::Model;

    use super::*;

    #[test]
    fn layers_are_named_whole_or_by_their_beginning_and_one_must_be_left() {
        let model = Model { normalization: Some(plan::Normalization::Batch), ..Model::default() };
        let network = Network::new(&model, [1, 28, 28], 10).unwrap();
        let said = |freeze: &[&str]| {
            let train = Train { freeze: freeze.iter().map(|&name| name.to_owned()).collect(), ..Train::default() };
            check_frozen_layers(&train, &network).err().map(|error| error.to_string())
        };
        for fine in [&[][..], &["conv1"], &["conv*", "norm*"], &["fc*"], &["conv1", "norm1", "conv2", "fc4"]] {
            assert_eq!(said(fine), None, "{fine:?}");
        }
        let unknown = said(&["conv1", "conv"]).unwrap();
        assert!(unknown.starts_with("train.freeze: the network has no layer conv, only conv1, norm1, "), "{unknown}");
        assert!(said(&["pool1"]).unwrap().contains("no layer pool1"), "what has no parameters is always the same");
        assert!(said(&["*"]).unwrap().contains("nothing is left to train"));
    }
}
