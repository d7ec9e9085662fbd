//! Gradients against central differences in f64.

use graph::{
    Autograd,
    operators::{Activation, Convolution, LocalResponse, Pool},
};

use crate::support::{
    expressions::{self, Images},
    golden::assert_close,
    machine::{Machine, Reference},
    random::word,
    subject::Subject,
};

/// Step of the differences: the error of the formula is about its square, that of rounding 1e-16 over it.
const STEP: f64 = 1e-5;

/// Compares every gradient of a subject with differences of its loss.
fn check(what: &str, subject: &Subject) {
    let mut built = subject.build();
    built.graph.compile(Autograd, ());
    let mut machine = Reference::<f64>::default();
    subject.feed(&built, &mut machine);
    machine.run(&mut built.graph);
    let state = |name: &str| built.results.iter().find(|(n, _)| n == name).expect("a result").1.clone();
    let loss = state("loss");
    let wanted: Vec<_> = subject.inputs.iter().zip(&built.inputs).filter(|(input, _)| input.wanted).collect();
    // All at once: the runs below move them.
    let gradients: Vec<Vec<f64>> =
        wanted.iter().map(|(input, _)| machine.get(&state(&format!("d{}", input.name)))).collect();
    for ((input, source), got) in wanted.into_iter().zip(gradients) {
        // All of the small tensors, a fixed sample of the others.
        let positions: Vec<usize> = match source.elements() {
            n @ 0..=60 => (0..n).collect(),
            n => (0..60).map(|i| word(7, i) as usize % n).collect(),
        };
        let differences: Vec<f64> = positions
            .iter()
            .map(|&i| {
                let mut at = |offset: f64| {
                    let before = machine.0.state(source)[i];
                    machine.0.state(source)[i] = before + offset;
                    machine.0.run(&built.graph);
                    machine.0.state(source)[i] = before;
                    machine.0.state(&loss)[0]
                };
                (at(STEP) - at(-STEP)) / (2.0 * STEP)
            })
            .collect();
        let got: Vec<f64> = positions.iter().map(|&i| got[i]).collect();
        assert_close(&format!("{what}: d{}", input.name), &got, &differences, 1e-6, 1e-9);
    }
}

const SMALL: Images = Images { n: 2, c: 3, h: 5, w: 4 };

#[test]
fn convolutions() {
    for (i, (stride, padding, groups, kernel)) in [
        (1, 0, 1, (3, 3)),
        (2, 1, 1, (3, 2)),
        (1, 2, 2, (5, 3)),
        (3, 0, 3, (1, 1)),
        (1, 0, 1, (5, 4)),
        (4, 4, 1, (5, 5)),
    ]
    .into_iter()
    .enumerate()
    {
        let attributes = Convolution { stride, padding, groups };
        check(&format!("{attributes:?}"), &expressions::convolution(i as u64 * 10, SMALL, 2, kernel, attributes));
    }
}

#[test]
fn linear_layers() {
    check("linear", &expressions::linear(1, 3, 7, 4));
    check("linear, one row", &expressions::linear(2, 1, 5, 1));
}

#[test]
fn activations() {
    for kind in [Activation::Relu, Activation::Tanh, Activation::Sigmoid] {
        check(&format!("{kind:?}"), &expressions::activation(3, kind, SMALL));
    }
}

#[test]
fn pools() {
    for pool in [Pool { size: 3, stride: 2 }, Pool { size: 2, stride: 2 }, Pool { size: 2, stride: 1 }] {
        check(&format!("max {pool:?}"), &expressions::max_pool(4, SMALL, pool));
        check(&format!("average {pool:?}"), &expressions::average_pool(5, SMALL, pool));
    }
}

#[test]
fn batch_normalization() {
    check("through the statistics", &expressions::batch_norm(6, SMALL));
    check("constant statistics", &expressions::batch_norm_inference(7, SMALL));
}

#[test]
fn local_response_normalization() {
    let strong = LocalResponse { size: 3, alpha: 0.4, beta: 0.6, k: 1.0 };
    let even = LocalResponse { size: 4, alpha: 0.4, beta: 0.75, k: 2.0 };
    for attributes in [LocalResponse::PAPER, strong, even] {
        check(&format!("{attributes:?}"), &expressions::local_response(8, Images { c: 7, ..SMALL }, attributes));
    }
}

#[test]
fn losses_dropout_and_sums() {
    check("cross-entropy", &expressions::cross_entropy(9, 4, 6));
    check("dropout", &expressions::dropout(10, SMALL, 0.4));
    check("add", &expressions::add(11, SMALL));
    check("a value with several readers", &expressions::shared(12, SMALL));
}

#[test]
fn chains() {
    check("hidden layers", &expressions::hidden(13, 3, 9, 8));
    check("branches", &expressions::branches(14, SMALL, 2));
}

#[test]
fn random_graphs() {
    for seed in 0..30 {
        let what = format!("random graph {seed}");
        check(&what, &expressions::random(seed, Images { n: 2, c: 2, h: 3, w: 3 }, 1 + seed as usize % 12));
    }
}
