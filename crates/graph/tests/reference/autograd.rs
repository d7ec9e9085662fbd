//! What the compiler builds, and that a whole step means the same to luminal and to the interpreter.

use graph::{
    Autograd, Builder, Network, Operator, State, node, nodes_in_order, operators::Activation, step::Variables,
};
use luminal::prelude::Graph;
use plan::{Architecture, Decay, Model, Normalization, Optimizer, Train};

use crate::support::{
    machine::{Machine, Reference, luminal, start},
    random::uniform,
    subject::weighted_sum,
};

fn operators(graph: &Graph) -> Vec<Operator> {
    nodes_in_order(graph).into_iter().filter_map(|index| node(graph, index)).map(|n| n.operator.clone()).collect()
}

fn lenet5(normalization: Option<Normalization>) -> Network {
    let model = Model { normalization, dropout: Some(0.25), ..Model::default() };
    Network::new(&model, [1, 28, 28], 10).expect("LeNet-5")
}

#[test]
fn the_first_convolution_has_no_input_gradient() {
    for (network, convolutions) in [
        (lenet5(None), 3),
        (
            Network::new(&Model { architecture: Architecture::AlexNet, ..Model::default() }, [3, 32, 32], 10)
                .expect("ok"),
            5,
        ),
    ] {
        let (mut graph, _) = Variables::new(&network, Optimizer::Sgd).training_graph(2, &Train::default());
        graph.compile(Autograd, ());
        let all = operators(&graph);
        let count = |wanted: fn(&Operator) -> bool| all.iter().filter(|o| wanted(o)).count();
        assert_eq!(count(|o| matches!(o, Operator::ConvolutionWeightGrad(..))), convolutions);
        assert_eq!(count(|o| matches!(o, Operator::ConvolutionInputGrad(..))), convolutions - 1);
        assert_eq!(count(|o| *o == Operator::Gradient), 0, "every placeholder is replaced");
    }
}

/// LeNet-5 has biases in three convolutions and two linear layers, the convolutions before normalizations.
#[test]
fn a_bias_before_a_normalization_by_the_batch_has_no_gradient() {
    let sums = |normalization, train: &Train| {
        let (mut graph, _) = Variables::for_training(&lenet5(normalization), train).training_graph(2, train);
        graph.compile(Autograd, ());
        operators(&graph).iter().filter(|o| **o == Operator::ChannelSum).count()
    };
    assert_eq!(sums(None, &Train::default()), 5);
    assert_eq!(sums(Some(Normalization::Batch), &Train::default()), 2);
    // Frozen, it normalizes by constants, and a shift gets through.
    assert_eq!(sums(Some(Normalization::Batch), &frozen(&["norm3"])), 3);
}

#[test]
fn every_value_is_read() {
    let (mut graph, _) = Variables::new(&lenet5(Some(Normalization::Batch)), Optimizer::Adam)
        .training_graph(2, &Train { gradient_clip: Some(1.0), ..Train::default() });
    graph.compile(Autograd, ());
    for index in graph.graph.node_indices() {
        let here = node(&graph, index).expect("ours");
        let read = !graph.get_dests(index).is_empty();
        assert!(read || !here.operator.writes().is_empty(), "{here:?} is computed for nothing");
    }
}

fn frozen(layers: &[&str]) -> Train {
    Train { freeze: layers.iter().map(|&layer| layer.to_owned()).collect(), ..Train::default() }
}

#[test]
fn frozen_layers_are_neither_differentiated_nor_updated_nor_measured() {
    let network = lenet5(Some(Normalization::Batch));
    // The first layer that is trained needs no gradient of its input; a frozen one in the middle passes it through.
    for (layers, weights, inputs, statistics) in [
        (&[][..], 3, 2, 3),
        (&["conv1", "norm1"], 2, 1, 2),
        (&["conv*", "norm*"], 0, 0, 0),
        (&["conv2", "norm2"], 2, 2, 2),
    ] {
        let train = frozen(layers);
        let variables = Variables::for_training(&network, &train);
        let (mut graph, _) = variables.training_graph(2, &train);
        graph.compile(Autograd, ());
        let all = operators(&graph);
        let count = |wanted: fn(&Operator) -> bool| all.iter().filter(|o| wanted(o)).count();
        assert_eq!(count(|o| matches!(o, Operator::ConvolutionWeightGrad(..))), weights, "{layers:?}");
        assert_eq!(count(|o| matches!(o, Operator::ConvolutionInputGrad(..))), inputs, "{layers:?}");
        assert_eq!(count(|o| matches!(o, Operator::UpdateRunning(..))), statistics, "{layers:?}");
        let trained = variables.parameters.iter().filter(|parameter| !parameter.is_frozen).count();
        assert_eq!(count(|o| matches!(o, Operator::Update(_))), trained, "{layers:?}");
        for index in graph.graph.node_indices() {
            let here = node(&graph, index).expect("ours");
            let read = !graph.get_dests(index).is_empty();
            assert!(read || !here.operator.writes().is_empty(), "{layers:?}: {here:?} is computed for nothing");
        }
    }
}

#[test]
fn gradients_through_frozen_layers_are_those_of_finite_differences() {
    let model = Model { normalization: Some(Normalization::Batch), ..Model::default() };
    let network = Network::new(&model, [1, 28, 28], 10).expect("LeNet-5");
    // With a rate of 1 and nothing else, an update is the gradient.
    let train = Train { momentum: 0.0, weight_decay: 0.0, learning_rate: 1.0, ..frozen(&["conv2", "norm2", "fc4"]) };
    let variables = Variables::for_training(&network, &train);
    let (mut graph, batch) = variables.training_graph(2, &train);
    let mut machine = Reference::<f64>::default();
    machine.compile(&mut graph);
    variables.set_hyper(&train, train.learning_rate, 1);
    let hyper = variables.hyper.read().to_vec();
    // The loss with one value of a parameter moved, and that parameter after the step.
    let mut run = |moved: &State, at: usize, by: f64| -> (f64, Vec<f64>) {
        start(&variables, &mut machine);
        machine.0.state(moved)[at] += by;
        machine.set(&batch.images, &uniform(90, batch.images.elements()));
        let target = |k: usize| f32::from(u8::from(k == 3 || k == 17));
        machine.set(&batch.targets, &(0..20).map(target).collect::<Vec<_>>());
        machine.set(&variables.hyper, &hyper);
        let before = machine.get(moved);
        machine.run(&mut graph);
        let after = machine.get(moved);
        (machine.get(&batch.loss)[0], before.iter().zip(&after).map(|(before, after)| before - after).collect())
    };
    let mut largest = 0.0_f64;
    for parameter in &variables.parameters {
        let state = &parameter.values;
        for at in [0, state.elements() / 2, state.elements() - 1] {
            let (_, step) = run(state, at, 0.0);
            if parameter.is_frozen {
                assert!(step.iter().all(|&moved| moved == 0.0), "{} stays", state.name());
                continue;
            }
            const H: f64 = 1e-5;
            let difference = (run(state, at, H).0 - run(state, at, -H).0) / (2.0 * H);
            let apart = (step[at] - difference).abs();
            assert!(apart < 1e-7, "{} [{at}]: {} beside {difference}", state.name(), step[at]);
            largest = largest.max(difference.abs());
        }
    }
    assert!(largest > 1e-3, "{largest}");
}

#[test]
fn a_parameter_used_twice_gets_both_gradients() {
    let (x, w, dy, kept) =
        (State::new("x", &[2, 2]), State::new("w", &[2, 2]), State::new("dy", &[1, 4]), State::new("dw", &[2, 2]));
    let mut graph = Box::new(Graph::new());
    let mut build = Builder::new(&mut graph);
    let (xv, wv) = (build.source(&x), build.source(&w));
    let zero = build.add(Operator::Fill(0.0, vec![2]), &[]);
    let once = build.add(Operator::Linear, &[&xv, &wv, &zero]);
    let twice = build.add(Operator::Linear, &[&once, &wv, &zero]);
    let loss = weighted_sum(&mut build, &twice, &dy);
    let gradient = build.add(Operator::Gradient, &[&loss, &wv]);
    build.store(&gradient, &kept);
    let mut machine = Reference::<f64>::default();
    machine.compile(&mut graph);
    machine.set(&x, &[1.0, 2.0, 3.0, 4.0]);
    machine.set(&w, &[1.0, -1.0, 0.5, 2.0]);
    machine.set(&dy, &[1.0, 0.0, 0.0, 1.0]);
    machine.run(&mut graph);
    // L = Σ dy ∘ (x wᵀ wᵀ); dL/dw = dyᵀ x wᵀ + (dy w)ᵀ x = [[-1, 4.5], [-1, 9.5]] + [[2.5, 4], [5, 6]].
    assert_eq!(machine.get(&kept), [1.5, 8.5, 4.0, 15.5]);
}

#[test]
fn writes_come_after_all_readers() {
    let (mut graph, _) =
        Variables::new(&lenet5(Some(Normalization::Batch)), Optimizer::Sgd).training_graph(2, &Train::default());
    graph.compile(Autograd, ());
    let order = nodes_in_order(&graph);
    let position = |index| order.iter().position(|&i| i == index).expect("every node is in the order");
    let mut writes = 0;
    for &writer in &order {
        for &input in node(&graph, writer).expect("ours").operator.writes() {
            let (source, ..) = graph.get_sources(writer)[input];
            assert!(matches!(node(&graph, source).expect("ours").operator, Operator::Source(_)));
            for (reader, _) in graph.get_dests(source) {
                writes += 1;
                assert!(position(reader) <= position(writer), "a reader comes after the write");
            }
        }
    }
    assert!(writes > 30, "{writes} pairs");
}

#[test]
fn an_evaluation_graph_reads_only_and_writes_logits() {
    let (mut graph, batch) = Variables::new(&lenet5(Some(Normalization::Batch)), Optimizer::Sgd).evaluation_graph(3);
    graph.compile(Autograd, ());
    let all = operators(&graph);
    assert!(all.iter().all(|o| !matches!(o, Operator::Dropout(_) | Operator::BatchStatistics | Operator::Update(_))));
    assert_eq!(all.iter().filter(|o| !o.writes().is_empty()).count(), 1);
    assert_eq!(batch.logits.shape(), [3, 10]);
}

#[test]
fn decay_of_weights_leaves_biases_and_normalization_alone() {
    let variables = Variables::new(&lenet5(Some(Normalization::Batch)), Optimizer::Adamw);
    for (decay, decayed) in [(Decay::All, variables.parameters.len()), (Decay::Weights, 5)] {
        let (graph, _) = variables.training_graph(2, &Train { optimizer: Optimizer::Adamw, decay, ..Train::default() });
        let count = operators(&graph).iter().filter(|o| format!("{o:?}").contains("decay: true")).count();
        assert_eq!(count, decayed, "{decay:?}");
    }
}

#[test]
fn luminal_runs_whole_steps_in_place_as_the_interpreter_does() {
    let train = Train { gradient_clip: Some(0.5), optimizer: Optimizer::Adam, ..Train::default() };
    let network = lenet5(Some(Normalization::Batch));
    let variables = Variables::new(&network, train.optimizer);
    for (i, state) in variables.persistent().enumerate() {
        let moment = state.name().contains("moment");
        let values: Vec<f32> = uniform(i as u64, state.elements()).iter().map(|v| v * 0.2).collect();
        state.write().copy_from_slice(&if moment { vec![0.0; values.len()] } else { values });
    }
    for variance in variables.running.iter().filter(|s| s.name().ends_with("running_var")) {
        variance.write().fill(1.0);
    }
    variables.key.write().copy_from_slice(&[1.0, 2.0, 3.0, 4.0]);
    let (mut graph, batch) = variables.training_graph(3, &train);
    let mut executor = luminal();
    executor.compile(&mut graph);
    let mut reference = Reference::<f32>::default();
    let before = variables.parameters[0].values.read().to_vec();
    for step in 0..3 {
        variables.set_hyper(&train, 0.01, step + 1);
        batch.images.write().copy_from_slice(&uniform(50 + step, batch.images.elements()));
        batch.targets.write().copy_from_slice(&uniform(60 + step, batch.targets.elements()));
        for state in [&batch.images, &batch.targets, &variables.hyper] {
            let values = state.read().to_vec();
            reference.set(state, &values);
        }
        // The interpreter takes the states' values when it first meets them, so it goes first.
        reference.run(&mut graph);
        executor.run(&mut graph);
        for state in variables.persistent().chain([&batch.loss, &batch.logits]) {
            assert_eq!(reference.get(state), executor.get(state), "step {step}: {}", state.name());
        }
    }
    assert!(batch.loss.read()[0].is_finite());
    assert_ne!(*before, **variables.parameters[0].values.read(), "the parameters moved");
    for running in &variables.running {
        assert!(running.read().iter().all(|v| v.is_finite()));
    }
}

#[test]
fn nan_goes_through_activations_and_pools() {
    let x = [1.0, f32::NAN, -1.0, 2.0];
    for kind in [Activation::Relu, Activation::Tanh, Activation::Sigmoid] {
        assert!(kind.value(f32::NAN).is_nan(), "{kind:?}");
        assert_ne!(kind.gradient(f32::NAN, 1.0), 0.0, "{kind:?}");
    }
    let pool = graph::operators::Pool { size: 2, stride: 2 };
    for rotation in 0..4 {
        let mut x = x;
        x.rotate_left(rotation);
        assert!(pool.max(&x, &[1, 1, 2, 2])[0].is_nan(), "{x:?}");
    }
}
