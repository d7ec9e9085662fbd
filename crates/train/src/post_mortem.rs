//! What is known of a run whose loss is no longer a number.

use graph::step::Variables;

/// State of a run that diverged. A norm that is not a number says where the numbers ended.
#[derive(Clone, Debug, PartialEq)]
pub struct PostMortem {
    /// Learning rate of the step.
    pub learning_rate: f64,
    /// Mean training loss of the epoch up to the last step whose loss was a number, in nats per image; none if there was no such step.
    pub last_loss: Option<f64>,
    /// Epochs that the checkpoint holds from which the divergence can be seen again; 0: it starts anew.
    pub checkpoint_epoch: u32,
    /// For each parameter, in layer order.
    pub norms: Vec<Norms>,
}

/// L2 norms of a parameter.
#[derive(Clone, Debug, PartialEq)]
pub struct Norms {
    /// Name of the parameter, such as `conv1.weight`.
    pub name: String,
    /// Weights at the start of the epoch, or when the run was taken up in it.
    pub before: f64,
    /// Weights after the step that diverged, or when that was noticed: on a GPU some steps later.
    pub after: f64,
    /// The optimizer's first moment then, which the gradients are summed up in; none where it has no moments.
    pub moment: Option<f64>,
}

/// L2 norms of all parameters, in layer order.
pub(crate) fn weight_norms(variables: &Variables) -> Vec<f64> {
    variables.parameters.iter().map(|parameter| norm(&parameter.values.read())).collect()
}

impl PostMortem {
    pub(crate) fn of(
        variables: &Variables,
        before: &[f64],
        learning_rate: f64,
        last_loss: Option<f64>,
        checkpoint_epoch: u32,
    ) -> Self {
        let norms = variables.parameters.iter().zip(before).map(|(parameter, before)| Norms {
            name: parameter.values.name().to_owned(),
            before: *before,
            after: norm(&parameter.values.read()),
            moment: parameter.moments.first().map(|moment| norm(&moment.read())),
        });
        Self { learning_rate, last_loss, checkpoint_epoch, norms: norms.collect() }
    }
}

fn norm(values: &[f32]) -> f64 {
    values.iter().map(|&value| f64::from(value) * f64::from(value)).sum::<f64>().sqrt()
}
