//! Results do not depend on the number of threads, to the last bit.

use std::rc::Rc;

use graph::{
    Autograd, Builder, Network, Operator, State,
    operators::{Activation, Dropout, LocalResponse, Pool, Rule},
    step::Variables,
};
use lowering::cpu::{CpuCompiler, Workspace};
use luminal::prelude::Graph;
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
    let precision = match train.precision {
        plan::Precision::F32 => lowering::Precision::F32,
        plan::Precision::Bf16 => lowering::Precision::Bf16,
        plan::Precision::Tf32 => unreachable!("the processor has no TF32"),
    };
    graph.compile((Autograd, CpuCompiler::new(&workspace).with_precision(precision)), ());
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
    for (normalization, gradient_clip, optimizer, precision) in [
        (Normalization::Batch, None, Optimizer::Sgd, plan::Precision::F32),
        (Normalization::LocalResponse, Some(0.5), Optimizer::Adamw, plan::Precision::F32),
        (Normalization::Batch, None, Optimizer::Sgd, plan::Precision::Bf16),
    ] {
        let model = Model {
            architecture: Architecture::AlexNet,
            width: Some(1.0 / 8.0),
            dropout: Some(0.5),
            normalization: Some(normalization),
            ..Model::default()
        };
        let network = Network::new(&model, [3, 32, 32], 10).expect("AlexNet");
        let train = Train { gradient_clip, optimizer, precision, learning_rate: 0.01, ..Train::default() };
        same_with_any_number_of_threads(&network, 19, &train);
    }
}

/// Every kernel that multiplies no matrices, forward and backward, so that an interpreter that finds data races can run it.
#[test]
fn kernels_without_products() {
    let run = |threads: usize| {
        let shape = [5, 3, 7, 7];
        let (x, g, w, v) = (
            State::new("x", &shape),
            State::new("gradient", &shape),
            State::new("w", &shape),
            State::new("moment", &shape),
        );
        let (hyper, key, gamma, y) =
            (State::new("hyper", &[8]), State::new("key", &[4]), State::new("gamma", &[3]), State::new("y", &[5, 27]));
        let (mean, variance) = (State::new("mean", &[3]), State::new("variance", &[3]));
        for (i, state) in [&x, &g, &w, &v, &hyper, &gamma].into_iter().enumerate() {
            state.write().copy_from_slice(&uniform(i as u64, state.elements()));
        }
        let mut graph = Box::new(Graph::new());
        let mut build = Builder::new(&mut graph);
        let [xv, gv, wv, vv, hv, kv, cv] = [&x, &g, &w, &v, &hyper, &key, &gamma].map(|state| build.source(state));
        let running = [&mean, &variance].map(|state| build.source(state));
        let pool = Pool { size: 3, stride: 2 };
        let sum = build.add(Operator::Add, &[&xv, &gv]);
        let tanh = build.add(Operator::Activation(Activation::Tanh), &[&sum]);
        let statistics = build.add(Operator::BatchStatistics, &[&tanh]);
        build.add(Operator::UpdateRunning(0.1, 245), &[&running[0], &running[1], &statistics]);
        let normal = build.add(Operator::BatchNormalize, &[&tanh, &statistics, &cv, &cv]);
        let response = build.add(Operator::LocalResponse(LocalResponse::PAPER), &[&normal]);
        let drop = build.add(Operator::Dropout(Dropout { rate: 0.5, layer: 1 }), &[&response, &kv]);
        let large = build.add(Operator::MaxPool(pool), &[&drop]);
        let mean = build.add(Operator::AveragePool(pool), &[&drop]);
        let both = build.add(Operator::Add, &[&large, &mean]);
        let flat = build.add(Operator::Reshape(vec![5, 27]), &[&both]);
        let loss = build.add(Operator::CrossEntropy, &[&flat, &flat]);
        let gradient = build.add(Operator::Gradient, &[&loss, &xv]);
        let clip = build.add(Operator::ClipFactor, &[&gradient, &hv]);
        build.add(
            Operator::Update(Rule::Sgd { nesterov: true, decay: true, average: false }),
            &[&wv, &gradient, &hv, &vv, &clip],
        );
        build.store(&flat, &y);
        graph.compile((Autograd, CpuCompiler::new(&Workspace::new(threads))), ());
        for _ in 0..2 {
            graph.execute();
        }
        [&y, &w, &v, &variance].map(|state| state.read().iter().map(|v| v.to_bits()).collect::<Vec<u32>>())
    };
    let expected = run(1);
    assert!(expected.iter().flatten().any(|&bits| f32::from_bits(bits) != 0.0));
    for threads in [2, 3] {
        assert!(expected == run(threads), "{threads} threads");
    }
}
