//! What operators take and give: batches, which blocks hold, or values of the whole step. Decides which graphs are served.

use graph::Operator;

/// What an input or a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// [N, …]: an image in each lane.
    Batch,
    /// Of the whole step, in the arena: gradients of parameters, statistics, the loss.
    Whole,
    /// A state: images and targets, parameters, hyperparameters. Stands for either.
    State,
}

/// Roles of the inputs and of the value; none if the operator is not served.
pub(super) fn roles(operator: &Operator) -> Option<(Vec<Role>, Role)> {
    use Role::{Batch, State, Whole};
    Some(match operator {
        Operator::Source(_) => (vec![], State),
        Operator::Fill(..) => (vec![], Whole),
        Operator::Reshape(_)
        | Operator::Activation(_)
        | Operator::MaxPool(_)
        | Operator::AveragePool(_)
        | Operator::AveragePoolGrad(..) => (vec![Batch], Batch),
        Operator::Add | Operator::ActivationGrad(_) | Operator::MaxPoolGrad(_) => (vec![Batch, Batch], Batch),
        Operator::ChannelSum => (vec![Batch], Whole),
        Operator::Convolution(a) if a.groups == 1 => (vec![Batch, State, Whole], Batch),
        Operator::ConvolutionInputGrad(a, _) if a.groups == 1 => (vec![State, Batch], Batch),
        Operator::ConvolutionWeightGrad(a, _) if a.groups == 1 => (vec![Batch, Batch], Whole),
        Operator::Linear => (vec![Batch, Whole, Whole], Batch),
        Operator::LinearInputGrad => (vec![Whole, Batch], Batch),
        Operator::LinearWeightGrad => (vec![Batch, Batch], Whole),
        Operator::Dropout(_) => (vec![Batch, State], Batch),
        Operator::CrossEntropy => (vec![Batch, State], Whole),
        Operator::CrossEntropyGrad => (vec![Batch, State, Whole], Batch),
        // Any of the three; see `serves`.
        Operator::ClipFactor | Operator::Store | Operator::Update(_) => (vec![], Whole),
        Operator::Convolution(_)
        | Operator::ConvolutionInputGrad(..)
        | Operator::ConvolutionWeightGrad(..)
        | Operator::BatchStatistics
        | Operator::BatchNormalize
        | Operator::BatchNormalizeParameterGrad
        | Operator::BatchNormalizeInputGrad
        | Operator::UpdateRunning(..)
        | Operator::LocalResponse(_)
        | Operator::LocalResponseGrad(_)
        | Operator::Row(_)
        | Operator::Stack
        | Operator::Gradient => return None,
    })
}
