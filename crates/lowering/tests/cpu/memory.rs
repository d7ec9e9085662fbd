//! The memory plan is known before anything runs, and is kept.

use graph::{Autograd, LayerKind, Network, step::Variables};
use lowering::{
    Precision,
    cpu::{CpuCompiler, Level, Workspace, level, memory_plan, program},
};
use plan::{Architecture, Model, Optimizer, Train};

fn networks() -> Vec<Network> {
    let alexnet = Model { architecture: Architecture::AlexNet, width: Some(0.25), ..Model::default() };
    vec![
        Network::new(&Model::default(), [1, 28, 28], 10).expect("LeNet-5"),
        Network::new(&alexnet, [3, 32, 32], 10).expect("AlexNet"),
    ]
}

#[test]
fn the_plan_is_what_a_program_uses() {
    for network in networks() {
        for threads in [1, 3] {
            let variables = Variables::new(&network, Optimizer::Sgd);
            let (mut planned, _) = variables.training_graph(32, &Train::default());
            planned.compile(Autograd, ());
            let plan = memory_plan(&planned, Precision::F32, threads);
            let (mut graph, batch) = variables.training_graph(32, &Train::default());
            graph.compile((Autograd, CpuCompiler::new(&Workspace::new(threads))), ());
            assert_eq!(program(&graph).memory_plan(), plan);
            assert_eq!(plan.threads, threads);
            let io = [&batch.images, &batch.targets, &batch.loss, &batch.logits];
            let io: usize = io.iter().map(|s| 4 * s.elements()).sum();
            let hyper = 4 * (variables.hyper.elements() + variables.key.elements());
            // LeNet-5 has no dropout, hence no key.
            let least = variables.bytes() + io;
            assert!(plan.state_bytes > least && plan.state_bytes <= least + hyper, "{plan:?}, {least}");
            assert_eq!(plan.total_bytes(), plan.arena_bytes + plan.scratch_bytes + plan.state_bytes);
        }
    }
}

#[test]
fn memory_is_reused_within_a_step_and_grows_with_the_batch() {
    for network in networks() {
        let plan = |size| {
            let (mut graph, _) = Variables::new(&network, Optimizer::Sgd).training_graph(size, &Train::default());
            graph.compile(Autograd, ());
            memory_plan(&graph, Precision::F32, 2)
        };
        let (small, large) = (plan(16), plan(128));
        assert!(large.arena_bytes > 4 * small.arena_bytes, "{small:?}, {large:?}");
        // Forward values and their gradients, each in a place of its own, would be at least this.
        let activations: usize = network.layers.iter().map(|layer| layer.output.iter().product::<usize>()).sum();
        assert!(large.arena_bytes < 2 * 4 * 128 * activations, "{large:?}, {activations}");
    }
}

#[test]
fn a_plan_for_the_papers_network_takes_no_memory() {
    let model = Model { architecture: Architecture::AlexNet, ..Model::default() };
    let network = Network::new(&model, [3, 227, 227], 1000).expect("AlexNet");
    let (mut graph, _) = Variables::new(&network, Optimizer::Sgd).training_graph(128, &Train::default());
    graph.compile(Autograd, ());
    let plan = memory_plan(&graph, Precision::F32, 2);
    let gib = plan.total_bytes() as f64 / f64::from(1 << 30);
    assert!((1.0..4.0).contains(&gib), "{gib} GiB: {plan:?}");
    assert_eq!(plan.kept_bytes, 0, "products in 32 bits read the weights themselves");
    let weights = 2 * (9216 * 4096 + 4096 * 4096 + 4096 * 1000);
    let kept = memory_plan(&graph, Precision::Bf16, 2).kept_bytes;
    let has_tiles = matches!(level(), Level::Amx | Level::Portable);
    // Outputs fill blocks of 32: 24 more than 1,000.
    assert_eq!(kept, if has_tiles { weights + 2 * 4096 * 24 } else { 0 });
}

#[test]
fn what_is_normalized_and_pooled_is_never_stored() {
    let model = Model { architecture: Architecture::AlexNet, ..Model::default() };
    let network = Network::new(&model, [3, 227, 227], 1000).expect("AlexNet");
    let (mut graph, _) = Variables::new(&network, Optimizer::Sgd).training_graph(32, &Train::default());
    graph.compile(Autograd, ());
    let plan = memory_plan(&graph, Precision::F32, 2);
    let convolutions = network.layers.iter().filter(|layer| matches!(layer.kind, LayerKind::Convolution { .. }));
    let outputs: usize = convolutions.map(|layer| layer.output.iter().product::<usize>()).sum();
    // One value that is kept for the backward pass and one that is computed with, for each output of a convolution, would be as much.
    assert!(plan.arena_bytes < 2 * 4 * 32 * outputs, "{plan:?}, {outputs}");
}
