//! Results do not depend on the number of threads, to the last bit.

use std::rc::Rc;

use graph::{Autograd, Network, step::Variables};
use lowering::cpu::{CpuCompiler, Workspace};
use plan::{Architecture, Model, Normalization, Optimizer, Train};

use crate::support::random::uniform;

/// Bits of everything that outlives a step, the loss and the logits after `steps` steps.
fn train(network: &Network, size: usize, train: &Train, threads: usize, steps: u64) -> Vec<(String, Vec<u32>)> {
    let variables = Variables::new(network, train.optimizer);
    for (i, parameter) in variables.parameters.iter().enumerate() {
        let scale = (3.0 / parameter.fan_in as f32).sqrt();
        let values: Vec<f32> = uniform(i as u64, parameter.values.elements()).iter().map(|v| v * scale).collect();
        parameter.values.write().copy_from_slice(&values);
    }
    let workspace = Workspace::new(threads);
    let (mut graph, batch) = variables.training_graph(size, train);
    graph.compile((Autograd, CpuCompiler::new(&workspace)), ());
    for step in 0..steps {
        batch.images.write().copy_from_slice(&uniform(100 + step, batch.images.elements()));
        for (row, target) in batch.targets.write().chunks_exact_mut(network.classes).enumerate() {
            target.fill(0.0);
            target[row * 7 % network.classes] = 1.0;
        }
        variables.key.write().copy_from_slice(&[1.0, 2.0, step as f32, 3.0]);
        variables.set_hyper(train, 0.01, step + 1);
        graph.execute();
    }
    drop(graph);
    assert_eq!(Rc::strong_count(&workspace), 1, "nothing else holds the workspace");
    let states = variables.persistent().chain([&batch.loss, &batch.logits]);
    states.map(|s| (s.name().to_owned(), s.read().iter().map(|v| v.to_bits()).collect())).collect()
}

fn same_with_any_number_of_threads(network: &Network, size: usize, settings: &Train) {
    let expected = train(network, size, settings, 1, 5);
    let finite = expected.iter().flat_map(|(_, bits)| bits).all(|&bits| f32::from_bits(bits).is_finite());
    assert!(finite, "{} with {size} images trains", network.name);
    for threads in [1, 2, 3, 4] {
        let got = train(network, size, settings, threads, 5);
        for ((name, expected), (_, got)) in expected.iter().zip(&got) {
            assert!(expected == got, "{}, {size} images, {threads} threads: {name}", network.name);
        }
    }
}

#[test]
fn lenet5() {
    let network = Network::new(&Model::default(), [1, 28, 28], 10).expect("LeNet-5");
    for size in [64, 37] {
        same_with_any_number_of_threads(&network, size, &Train::default());
    }
}

#[test]
fn alexnet_with_dropout() {
    for (normalization, gradient_clip, optimizer) in
        [(Normalization::Batch, None, Optimizer::Sgd), (Normalization::LocalResponse, Some(0.5), Optimizer::Adamw)]
    {
        let model = Model {
            architecture: Architecture::AlexNet,
            width: Some(1.0 / 8.0),
            dropout: Some(0.5),
            normalization: Some(normalization),
            ..Model::default()
        };
        let network = Network::new(&model, [3, 32, 32], 10).expect("AlexNet");
        let train = Train { gradient_clip, optimizer, learning_rate: 0.01, ..Train::default() };
        same_with_any_number_of_threads(&network, 19, &train);
    }
}
