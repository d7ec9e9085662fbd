//! Networks of which some layers are frozen: as the reference trains them, and as they were where they are frozen.

use graph::{Network, step::Variables};
use plan::{Architecture, Model, Normalization, Stem, Train};

use crate::{
    cpu,
    support::{
        golden::assert_close,
        machine::{Machine, Reference, start},
        random::uniform,
    },
};

const STEPS: u64 = 4;

/// Losses of each step, then all states that outlive them.
fn train(network: &Network, train: &Train, machine: &mut impl Machine) -> Vec<(String, Vec<f64>)> {
    let variables = Variables::for_training(network, train);
    let (mut graph, batch) = variables.training_graph(train.batch_size, train);
    machine.compile(&mut graph);
    start(&variables, machine);
    let began: Vec<Vec<f64>> = variables.persistent().map(|state| machine.get(state)).collect();
    let mut losses = Vec::new();
    for step in 0..STEPS {
        let mut targets = vec![0.0; batch.targets.elements()];
        (0..train.batch_size).for_each(|row| targets[row * network.classes + row * 7 % network.classes] = 1.0);
        machine.set(&batch.images, &uniform(100 + step, batch.images.elements()));
        machine.set(&batch.targets, &targets);
        machine.set(&variables.key, &[step as f32, 1.0, 2.0, 3.0]);
        variables.set_hyper(train, train.learning_rate, step + 1);
        let hyper = variables.hyper.read().to_vec();
        machine.set(&variables.hyper, &hyper);
        machine.run(&mut graph);
        losses.extend(machine.get(&batch.loss));
    }
    let mut states = vec![("losses".to_owned(), losses)];
    for (state, began) in variables.persistent().zip(began) {
        let (layer, now) = (state.name().split('.').next().unwrap_or_default(), machine.get(state));
        assert_eq!(now == began, train.freezes(layer), "{} with {:?} frozen", state.name(), train.freeze);
        states.push((state.name().to_owned(), now));
    }
    states
}

#[test]
fn frozen_layers_stay_and_the_others_train_as_by_the_reference() {
    let lenet5 = Model { normalization: Some(Normalization::Batch), ..Model::default() };
    let alexnet = |normalization| Model {
        architecture: Architecture::AlexNet,
        stem: Some(Stem::Small),
        width: Some(1.0 / 32.0),
        normalization: Some(normalization),
        dropout: Some(0.3),
        ..Model::default()
    };
    let images = [3, 28, 28];
    for (model, input, freeze) in [
        (&lenet5, [1, 28, 28], &["conv1", "norm1"][..]),
        (&lenet5, [1, 28, 28], &["conv*", "norm*"]),
        (&lenet5, [1, 28, 28], &["conv2", "norm2", "fc4"]),
        (&lenet5, [1, 28, 28], &["norm1", "fc5"]),
        (&lenet5, [1, 28, 28], &["conv2"]),
        (&alexnet(Normalization::Batch), images, &["conv*", "norm*", "fc6"]),
        (&alexnet(Normalization::Batch), images, &["conv3", "norm3", "conv4", "norm5", "fc7"]),
        (&alexnet(Normalization::LocalResponse), images, &["conv1", "conv2"]),
        (&alexnet(Normalization::LocalResponse), images, &["conv4", "fc8"]),
    ] {
        let network = Network::new(model, input, 10).expect("a network");
        let settings = Train {
            batch_size: 5,
            learning_rate: 0.02,
            decay: plan::Decay::All,
            gradient_clip: (freeze.len() % 2 == 1).then_some(0.7),
            average_decay: (freeze.len() > 2).then_some(0.9),
            freeze: freeze.iter().map(|&layer| layer.to_owned()).collect(),
            ..Train::default()
        };
        let expected = train(&network, &settings, &mut Reference::<f64>::default());
        let got = train(&network, &settings, &mut cpu(2));
        for ((name, got), (_, expected)) in got.iter().zip(&expected) {
            assert_close(&format!("{name} with {freeze:?} frozen"), got, expected, 1e-4, 2e-5);
        }
    }
}
