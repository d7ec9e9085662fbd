//! The multiply-adds that kernels state, of which rates are made.

use graph::{Autograd, Network, step::Variables};
use lowering::cpu::{CpuCompiler, Workspace, program};
use plan::{Architecture, Model, Normalization, Train};

fn model(architecture: Architecture) -> Model {
    Model { architecture, width: Some(0.25), ..Model::default() }
}

#[test]
fn kernels_state_all_the_work_that_the_network_has() {
    let lenet5 = (Model::default(), [1, 28, 28]);
    let alexnet = (model(Architecture::AlexNet), [3, 227, 227]);
    let towers =
        (Model { towers: Some(2), normalization: Some(Normalization::None), ..alexnet.0.clone() }, [3, 227, 227]);
    for (model, input) in [lenet5, alexnet, towers] {
        let frozen = |layers: &[&str]| {
            let freeze = layers.iter().map(|&layer| layer.to_owned()).collect();
            Some(Train { freeze, ..Train::default() })
        };
        for train in [None, frozen(&[]), frozen(&["conv1", "norm1"]), frozen(&["conv2"])] {
            let (batch_size, classes) = (5, 10);
            let network = Network::new(&model, input, classes).unwrap();
            let settings = train.clone().unwrap_or_default();
            let variables = Variables::for_training(&network, &settings);
            let workspace = Workspace::new(1);
            let graph = if train.is_some() {
                let mut graph = variables.training_graph(batch_size, &settings).0;
                graph.compile((Autograd, CpuCompiler::new(&workspace)), ());
                graph
            } else {
                let mut graph = variables.evaluation_graph(batch_size).0;
                graph.compile(CpuCompiler::new(&workspace), ());
                graph
            };
            let program = program(&graph);
            program.start_profile();
            program.run();
            let parts = program.profile();
            let defined: f64 = parts.iter().map(|part| part.work.defined_flop).sum();
            let done: f64 = parts.iter().map(|part| part.work.done_flop).sum();
            let expected =
                train.map_or(2 * network.macs(), |train| network.training_flop(&train)) as f64 * batch_size as f64;
            assert!((defined / expected - 1.0).abs() < 1e-12, "{}: {defined} and {expected}", network.name);
            // Minimal filtering is for networks with enough channels.
            assert!(
                if model.architecture == Architecture::LeNet5 { done == defined } else { done < 0.8 * defined },
                "{done} of {defined}"
            );
        }
    }
}
