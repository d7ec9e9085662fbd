//! Weight decay and Keras' `l2(k)`, which adds k·Σw² to the loss: `weight_decay = 2k` does the same.

use graph::{
    Autograd, Network, State,
    step::{Role, Variables},
};
use plan::{Decay, Model, Optimizer, Train};

use crate::support::{
    golden::assert_close,
    machine::{Machine, Reference},
    random::{sample, word},
};

/// Keras' k; a power of two, so that f32 holds it exactly.
const K: f64 = 1.0 / 32.0;
/// Step of the differences.
const STEP: f64 = 1e-5;

/// LeNet-5 in f64 with a batch of two images.
struct Training {
    machine: Reference<f64>,
    variables: Variables,
    graph: Box<luminal::prelude::Graph>,
    loss: State,
    /// Values before any step.
    before: Vec<Vec<f64>>,
}

impl Training {
    fn new(train: &Train) -> Self {
        let network = Network::new(&Model::default(), [1, 28, 28], 10).expect("LeNet-5");
        let variables = Variables::new(&network, Optimizer::Sgd);
        let (mut graph, batch) = variables.training_graph(2, train);
        graph.compile(Autograd, ());
        let mut machine = Reference::<f64>::default();
        let samples = [sample(3, 28 * 28), sample(8, 28 * 28)];
        let images: Vec<f32> = samples.iter().flat_map(|(_, pixels)| pixels.iter().copied()).collect();
        let targets: Vec<f32> =
            samples.iter().flat_map(|(label, _)| (0..10).map(|class| f32::from(class == *label))).collect();
        machine.set(&batch.images, &images);
        machine.set(&batch.targets, &targets);
        let mut before = Vec::new();
        for (stream, parameter) in (20..).zip(&variables.parameters) {
            let values: Vec<f64> = (0..parameter.values.elements() as u64)
                .map(|index| (word(stream, index) >> 40) as f64 / f64::from(1u32 << 24) * 0.2 - 0.1)
                .collect();
            before.push(values);
        }
        Self { machine, variables, graph, loss: batch.loss, before }
    }

    fn set(&mut self, parameter: usize, values: Vec<f64>) {
        *self.machine.0.state(&self.variables.parameters[parameter].values) = values;
    }

    /// One step from the first values, but for what `change` adds to one of them; returns the loss before the step.
    fn step(&mut self, train: &Train, change: Option<(usize, usize, f64)>) -> f64 {
        for (parameter, mut values) in self.before.clone().into_iter().enumerate() {
            if let Some((_, index, offset)) = change.filter(|&(changed, ..)| changed == parameter) {
                values[index] += offset;
            }
            self.set(parameter, values);
            for moment in &self.variables.parameters[parameter].moments {
                self.machine.0.state(moment).fill(0.0);
            }
        }
        self.variables.set_hyper(train, 1.0, 1);
        let hyper = self.variables.hyper.read().to_vec();
        self.machine.set(&self.variables.hyper, &hyper);
        self.machine.run(&mut self.graph);
        self.machine.get(&self.loss)[0]
    }
}

/// One step of plain gradient descent with rate 1 and `weight_decay` 2k, against differences of the loss with Keras' penalty.
fn check(decay: Decay) {
    let train = Train { momentum: 0.0, weight_decay: 2.0 * K, decay, ..Train::default() };
    let mut training = Training::new(&train);
    training.step(&train, None);
    let after: Vec<Vec<f64>> = (0..training.before.len())
        .map(|parameter| training.machine.get(&training.variables.parameters[parameter].values))
        .collect();
    let penalized: Vec<bool> = training
        .variables
        .parameters
        .iter()
        .map(|parameter| decay == Decay::All || parameter.role == Role::Weight)
        .collect();
    assert_eq!(penalized.iter().filter(|&&penalized| penalized).count(), if decay == Decay::All { 10 } else { 5 });
    for (parameter, after) in after.iter().enumerate() {
        let indices = [0, after.len() / 2, after.len() - 1];
        let before = training.before[parameter].clone();
        let taken: Vec<f64> = indices.iter().map(|&index| before[index] - after[index]).collect();
        let expected: Vec<f64> = indices
            .iter()
            .map(|&index| {
                let mut keras = |offset: f64| {
                    let value = before[index] + offset;
                    let penalty = if penalized[parameter] { K * value * value } else { 0.0 };
                    training.step(&train, Some((parameter, index, offset))) + penalty
                };
                (keras(STEP) - keras(-STEP)) / (2.0 * STEP)
            })
            .collect();
        let name = training.variables.parameters[parameter].values.name().to_owned();
        assert_close(&format!("{name}, {decay:?}"), &taken, &expected, 1e-6, 1e-9);
    }
}

#[test]
fn keras_l2_of_the_kernels_is_half_of_weight_decay() {
    check(Decay::Weights);
}

#[test]
fn biases_decay_only_when_all_do() {
    check(Decay::All);
}
