//! What tensors are called in a file.

use graph::{LayerKind, Network, operators::Activation};

/// Convention of a file's tensor names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Names {
    /// `conv1.weight` … `fc8.bias`, `norm1.running_mean` …
    #[default]
    Layers,
    /// `features.0.weight` … `classifier.6.bias`: what torchvision's `alexnet` loads and saves.
    Torchvision,
}

/// Our layers and torchvision's modules.
const TORCHVISION: [(&str, &str); 8] = [
    ("conv1", "features.0"),
    ("conv2", "features.3"),
    ("conv3", "features.6"),
    ("conv4", "features.8"),
    ("conv5", "features.10"),
    ("fc6", "classifier.1"),
    ("fc7", "classifier.4"),
    ("fc8", "classifier.6"),
];

impl Names {
    /// What the file calls our tensor `name`.
    pub fn name(self, name: &str) -> String {
        let renamed = || {
            let (layer, tensor) = name.rsplit_once('.')?;
            let (_, module) = TORCHVISION.iter().find(|(own, _)| *own == layer)?;
            Some(format!("{module}.{tensor}"))
        };
        match self {
            Self::Layers => name.to_owned(),
            Self::Torchvision => renamed().unwrap_or_else(|| name.to_owned()),
        }
    }

    /// The convention of a file with these tensors.
    pub fn of<'a>(mut tensors: impl Iterator<Item = &'a str>) -> Self {
        if tensors.any(|name| name == "features.0.weight") { Self::Torchvision } else { Self::Layers }
    }

    /// Whether a network's tensors can be called so without a lie: under torchvision's names only what torchvision's
    /// network computes the same from.
    ///
    /// # Errors
    /// In which layer they differ.
    pub fn check(self, network: &Network) -> Result<(), String> {
        match self {
            Self::Layers => Ok(()),
            Self::Torchvision => check_torchvision(network).map_err(|difference| {
                format!("torchvision's AlexNet is another network: {difference}; use the names of the layers")
            }),
        }
    }
}

fn check_torchvision(network: &Network) -> Result<(), String> {
    let tensors: [(usize, usize, usize, usize); 5] =
        [(64, 11, 4, 2), (192, 5, 1, 2), (384, 3, 1, 1), (256, 3, 1, 1), (256, 3, 1, 1)];
    if network.name != "AlexNet" {
        return Err(format!("this is {}", network.name));
    }
    if network.input[0] != 3 {
        return Err(format!("its images have 3 channels, these {}", network.input[0]));
    }
    let mut convolutions = tensors.into_iter();
    for layer in &network.layers {
        let name = &layer.name;
        match &layer.kind {
            LayerKind::Convolution { outputs, kernel, attributes: a } => {
                let own = (*outputs, *kernel, a.stride, a.padding);
                if convolutions.next() != Some(own) || a.groups != 1 {
                    return Err(format!(
                        "{name} has another shape (model.layout = \"torchvision\", stem \"large\", width 1)"
                    ));
                }
            }
            LayerKind::BatchNorm | LayerKind::LocalResponse(_) => {
                return Err(format!("it has no normalization, and here is {name}"));
            }
            LayerKind::Activation(Activation::Relu) | LayerKind::Dropout(_) => {}
            LayerKind::Activation(other) => return Err(format!("{name} is {other:?}, not Relu")),
            LayerKind::MaxPool(pool) if (pool.size, pool.stride) == (3, 2) => {}
            LayerKind::MaxPool(_) | LayerKind::AveragePool(_) => {
                return Err(format!("{name} is not 3×3 with stride 2"));
            }
            LayerKind::Flatten if layer.input == [256, 6, 6] => {}
            LayerKind::Flatten => {
                let shape = layer.input.iter().map(usize::to_string).collect::<Vec<_>>().join("×");
                return Err(format!("its last maps are pooled to 256×6×6, here they are {shape}"));
            }
            LayerKind::Linear { outputs } => {
                if name != "fc8" && *outputs != 4096 {
                    return Err(format!("{name} has {outputs} outputs, not 4096"));
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use plan::{Activation, Architecture, Layout, Model, Normalization};

    use super::*;

    fn alexnet(change: impl Fn(&mut Model), input: [usize; 3]) -> Network {
        let mut model =
            Model { architecture: Architecture::AlexNet, layout: Some(Layout::Torchvision), ..Model::default() };
        change(&mut model);
        Network::new(&model, input, 10).unwrap()
    }

    #[test]
    fn layers_have_torchvisions_names() {
        assert_eq!(Names::Torchvision.name("conv5.bias"), "features.10.bias");
        assert_eq!(Names::Torchvision.name("fc8.weight"), "classifier.6.weight");
        assert_eq!(Names::Layers.name("fc8.weight"), "fc8.weight");
        assert_eq!(Names::of(["features.0.bias", "features.0.weight"].into_iter()), Names::Torchvision);
        assert_eq!(Names::of(["conv1.weight"].into_iter()), Names::Layers);
    }

    #[test]
    fn torchvisions_names_are_for_torchvisions_network_alone() {
        let check = |network: &Network| Names::Torchvision.check(network);
        assert_eq!(check(&alexnet(|_| {}, [3, 224, 224])), Ok(()));
        let refused = [
            (alexnet(|m| m.layout = None, [3, 224, 224]), "conv1"),
            (alexnet(|m| m.normalization = Some(Normalization::Batch), [3, 224, 224]), "norm1"),
            (alexnet(|m| m.activation = Some(Activation::Tanh), [3, 224, 224]), "act1"),
            (alexnet(|m| m.overlapping_pooling = Some(false), [3, 224, 224]), "pool1"),
            (alexnet(|m| m.width = Some(0.5), [3, 224, 224]), "conv1"),
            (alexnet(|_| {}, [3, 128, 128]), "256×3×3"),
            (alexnet(|_| {}, [1, 224, 224]), "3 channels"),
            (Network::new(&Model::default(), [3, 28, 28], 10).unwrap(), "LeNet-5"),
        ];
        for (network, why) in refused {
            let error = check(&network).unwrap_err();
            assert!(error.contains(why), "{error} should name {why}");
            assert_eq!(Names::Layers.check(&network), Ok(()));
        }
    }
}
