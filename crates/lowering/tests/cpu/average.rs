//! The moving average of parameters, by the reference and by the CPU, against the same average taken from outside.

use graph::{Autograd, Network, State, step::Variables};
use lowering::cpu::{CpuCompiler, Workspace};
use plan::{Model, Optimizer, Train};

const STEPS: usize = 4;

fn follows(optimizer: Optimizer, gradient_clip: Option<f64>, lowered: bool) {
    let network = Network::new(&Model::default(), [1, 28, 28], 10).expect("LeNet-5");
    let train = Train {
        optimizer,
        gradient_clip,
        average_decay: Some(0.2),
        batch_size: 4,
        learning_rate: 0.05,
        ..Train::default()
    };
    let variables = Variables::for_training(&network, &train);
    for (i, parameter) in variables.parameters.iter().enumerate() {
        let wave = |k: usize| ((k * 37 + i * 11) % 101) as f32 / 500.0 - 0.1;
        parameter.values.write().iter_mut().enumerate().for_each(|(k, value)| *value = wave(k));
    }
    let (mut graph, batch) = variables.training_graph(4, &train);
    match lowered {
        true => graph.compile((Autograd, CpuCompiler::new(&Workspace::new(2))), ()),
        false => graph.compile(Autograd, ()),
    }
    batch.images.write().iter_mut().enumerate().for_each(|(k, value)| *value = (k % 89) as f32 / 44.0 - 1.0);
    batch.targets.write().iter_mut().step_by(11).for_each(|value| *value = 1.0);
    let read = |state: &State| state.read().iter().map(|&v| f64::from(v)).collect::<Vec<_>>();
    let mut expected: Vec<Vec<f64>> = variables.parameters.iter().map(|p| vec![0.0; p.values.elements()]).collect();
    for step in 1..=STEPS {
        variables.set_hyper(&train, train.learning_rate, step as u64);
        graph.execute();
        // The mean of few steps at first: 0, 1/11, 2/12, then the δ that was asked for.
        let kept = [0.0, 1.0 / 11.0, 2.0 / 12.0, 0.2][step - 1];
        for (parameter, average) in variables.parameters.iter().zip(&mut expected) {
            for (a, w) in average.iter_mut().zip(read(&parameter.values)) {
                *a = kept * *a + (1.0 - kept) * w;
            }
        }
    }
    let mut moved = 0.0_f64;
    for (parameter, expected) in variables.parameters.iter().zip(&expected) {
        let got = read(parameter.evaluated());
        let apart = got.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(apart < 1e-6, "{}: {apart:e}", parameter.values.name());
        moved = got.iter().zip(read(&parameter.values)).map(|(a, w)| (a - w).abs()).fold(moved, f64::max);
    }
    assert!(moved > 1e-4, "the average lags behind the weights");
}

#[test]
fn averages_follow_the_weights() {
    for lowered in [false, true] {
        follows(Optimizer::Sgd, None, lowered);
        follows(Optimizer::Adamw, None, lowered);
        follows(Optimizer::Sgd, Some(0.5), lowered);
    }
}

#[test]
fn evaluation_sees_the_average() {
    let network = Network::new(&Model::default(), [1, 28, 28], 10).expect("LeNet-5");
    let variables = Variables::for_training(&network, &Train { average_decay: Some(0.9), ..Train::default() });
    let (mut graph, batch) = variables.evaluation_graph(1);
    graph.compile(CpuCompiler::new(&Workspace::new(1)), ());
    let last = variables.parameters.last().expect("fc5.bias");
    last.values.write().fill(5.0);
    last.evaluated().write().fill(7.0);
    graph.execute();
    assert!(batch.logits.read().iter().all(|&logit| logit == 7.0));
}
