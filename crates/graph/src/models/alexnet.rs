//! AlexNet (Krizhevsky, Sutskever & Hinton 2012, section 3.5) and its layout in torchvision (Krizhevsky 2014).

use plan::{Layout, Model, Normalization, Stem};

use super::{LayerKind, ModelError, Network, activation};
use crate::operators::{Convolution, LocalResponse, Pool};

/// Smallest side, in pixels, for the 11×11 stem: one that leaves the last of the three pools a whole window, and no
/// smaller than torchvision's 63.
fn least_for_large_stem(padding: usize, pool: Pool) -> usize {
    let below_pool = |side: usize| (side - 1) * pool.stride + pool.size;
    let maps = below_pool(below_pool(below_pool(1)));
    ((maps - 1) * 4 + 11 - 2 * padding).max(63)
}

pub(super) fn network(model: &Model, input: [usize; 3], classes: usize) -> Result<Network, ModelError> {
    let side = input[1].min(input[2]);
    let layout = model.layout.unwrap_or(Layout::Paper);
    let pool = if model.overlapping_pooling.unwrap_or(true) {
        Pool { size: 3, stride: 2 }
    } else {
        Pool { size: 2, stride: 2 }
    };
    let padding_of_stem = if layout == Layout::Torchvision { 2 } else { 0 };
    let least_of_large = least_for_large_stem(padding_of_stem, pool);
    let stem = model.stem.unwrap_or(if side >= least_of_large { Stem::Large } else { Stem::Small });
    let (least, hint) = match stem {
        Stem::Large => (least_of_large, " with model.stem = \"large\" (\"small\" takes 24)"),
        Stem::Small => (24, ""),
    };
    if side < least {
        return Err(ModelError::ImageTooSmall { network: "AlexNet", least, hint, got: side });
    }
    let default = if layout == Layout::Torchvision { Normalization::None } else { Normalization::Batch };
    let normalization = model.normalization.unwrap_or(default);
    let act = activation(model.activation.unwrap_or(plan::Activation::Relu));
    let dropout = model.dropout.unwrap_or(0.5) as f32;
    let towers = model.towers.unwrap_or(1);
    let width = model.width.unwrap_or(1.0);
    // Even, so that two towers can share any layer.
    let scaled = |outputs: usize| (((outputs as f64 * width / 2.0).round() as usize) * 2).max(2);
    let outputs = match layout {
        Layout::Paper => [96, 256, 384, 384, 256],
        Layout::Torchvision => [64, 192, 384, 256, 256],
    };

    let mut net = Network::empty("AlexNet", input, classes);
    for (i, outputs) in outputs.into_iter().enumerate() {
        let i = i + 1;
        let (kernel, stride, padding) = match (i, stem) {
            (1, Stem::Large) => (11, 4, padding_of_stem),
            (2, _) => (5, 1, 2),
            _ => (3, 1, 1),
        };
        let groups = if matches!(i, 2 | 4 | 5) { towers } else { 1 };
        net.push(
            format!("conv{i}"),
            LayerKind::Convolution {
                outputs: scaled(outputs),
                kernel,
                attributes: Convolution { stride, padding, groups },
            },
        );
        if normalization == Normalization::Batch {
            net.push(format!("norm{i}"), LayerKind::BatchNorm);
        }
        net.push(format!("act{i}"), act.clone());
        if normalization == Normalization::LocalResponse && i <= 2 {
            net.push(format!("norm{i}"), LayerKind::LocalResponse(LocalResponse::PAPER));
        }
        if matches!(i, 1 | 2 | 5) {
            net.push(format!("pool{i}"), LayerKind::MaxPool(pool));
        }
    }
    net.push("flatten", LayerKind::Flatten);
    for i in [6, 7] {
        let drop = |net: &mut Network| {
            if dropout > 0.0 {
                net.push(format!("dropout{i}"), LayerKind::Dropout(dropout));
            }
        };
        // torchvision drops what enters a hidden layer, the paper what leaves it.
        if layout == Layout::Torchvision {
            drop(&mut net);
        }
        net.push(format!("fc{i}"), LayerKind::Linear { outputs: scaled(4096) }).push(format!("act{i}"), act.clone());
        if layout == Layout::Paper {
            drop(&mut net);
        }
    }
    net.push("fc8", LayerKind::Linear { outputs: classes });
    if stem == Stem::Small {
        net.notes.push(format!("small stem: conv1 is 3×3 with stride 1, for images of {side} pixels"));
    }
    if width != 1.0 {
        net.notes.push(format!("every layer is {width} times as wide as the paper's"));
    }
    Ok(net)
}
