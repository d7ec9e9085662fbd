//! LeNet-5 (LeCun et al. 1998, section II.B) in its usual modern form: full connections, tanh, plain average pooling.

use plan::{Model, Normalization};

use super::{LayerKind, ModelError, Network, activation};
use crate::operators::{Convolution, LocalResponse, Pool};

/// Smallest side that leaves conv3 a 5×5 map.
const LEAST: usize = 28;

pub(super) fn network(model: &Model, input: [usize; 3], classes: usize) -> Result<Network, ModelError> {
    let got = input[1].min(input[2]);
    if got < LEAST {
        return Err(ModelError::ImageTooSmall { network: "LeNet-5", least: LEAST, hint: "", got });
    }
    let act = activation(model.activation.unwrap_or(plan::Activation::Tanh));
    let normalization = model.normalization.unwrap_or(Normalization::None);
    let dropout = model.dropout.unwrap_or(0.0) as f32;
    let mut net = Network::empty("LeNet-5", input, classes);
    let pool = LayerKind::AveragePool(Pool { size: 2, stride: 2 });
    for (i, (outputs, padding)) in [(6, 2), (16, 0), (120, 0)].into_iter().enumerate() {
        let i = i + 1;
        let attributes = Convolution { stride: 1, padding, groups: 1 };
        net.push(format!("conv{i}"), LayerKind::Convolution { outputs, kernel: 5, attributes });
        if normalization == Normalization::Batch {
            net.push(format!("norm{i}"), LayerKind::BatchNorm);
        }
        net.push(format!("act{i}"), act.clone());
        if normalization == Normalization::LocalResponse && i < 3 {
            net.push(format!("norm{i}"), LayerKind::LocalResponse(LocalResponse::PAPER));
        }
        if i < 3 {
            net.push(format!("pool{i}"), pool.clone());
        }
    }
    net.push("flatten", LayerKind::Flatten).push("fc4", LayerKind::Linear { outputs: 84 }).push("act4", act);
    if dropout > 0.0 {
        net.push("dropout4", LayerKind::Dropout(dropout));
    }
    net.push("fc5", LayerKind::Linear { outputs: classes });
    if input != [1, 28, 28] {
        let [c, h, w] = input;
        net.notes.push(format!(
            "LeNet-5 was made for 1×28×28 (61,706 parameters with 10 classes); on {c}×{h}×{w} it has {}",
            net.parameters()
        ));
    }
    Ok(net)
}
