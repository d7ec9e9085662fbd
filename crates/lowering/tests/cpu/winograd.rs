//! Minimal filtering at the shapes of AlexNet: where it is used, and what it costs in precision.

use graph::{Autograd, Network, operators::Convolution, step::Variables};
use lowering::cpu::{CpuCompiler, Workspace, program};
use plan::{Architecture, Model, Optimizer, Train};

use crate::{
    cpu,
    support::{
        expressions::{self, Images},
        machine::Reference,
    },
};

#[test]
fn alexnets_inner_convolutions_use_it() {
    let model = Model { architecture: Architecture::AlexNet, width: Some(0.25), ..Model::default() };
    let network = Network::new(&model, [3, 227, 227], 10).expect("a network");
    let variables = Variables::new(&network, Optimizer::Sgd);
    let (mut graph, _) = variables.training_graph(2, &Train::default());
    graph.compile((Autograd, CpuCompiler::new(&Workspace::new(1))), ());
    let program = format!("{:?}", program(&graph));
    let count = |name: &str| program.matches(&format!("\"{name}\"")).count();
    // conv2 to conv5; conv1 has a stride, and no gradient of its input.
    assert_eq!(count("winograd convolution"), 4);
    assert_eq!(count("winograd input gradient"), 4);
    assert_eq!(count("winograd weight gradient sums"), 4);
    assert_eq!(count("convolution"), 1);
}

/// Root mean square of the errors and largest error, each over the root mean square of the exact values.
pub fn errors(got: &[f64], exact: &[f64]) -> (f64, f64) {
    let rms = |values: &mut dyn Iterator<Item = f64>| (values.map(|v| v * v).sum::<f64>() / exact.len() as f64).sqrt();
    let scale = rms(&mut exact.iter().copied());
    let apart = || got.iter().zip(exact).map(|(a, b)| a - b);
    (rms(&mut apart()) / scale, apart().map(f64::abs).fold(0.0, f64::max) / scale)
}

/// How far minimal filtering falls behind sums in order of f32 products, both judged by f64.
#[test]
fn values_and_gradients_keep_their_precision_at_alexnets_shapes() {
    for (c, o, side, kernel) in [(96, 256, 27, 5), (256, 384, 13, 3), (384, 256, 13, 3)] {
        let x = Images { n: 1, c, h: side, w: side };
        let attributes = Convolution { stride: 1, padding: kernel / 2, groups: 1 };
        let subject = expressions::convolution(7, x, o, (kernel, kernel), attributes);
        let exact = subject.evaluate(&mut Reference::<f64>::default());
        let direct = subject.evaluate(&mut Reference::<f32>::default());
        let got = subject.evaluate(&mut cpu(2));
        for name in ["y", "dx", "dw"] {
            let ((typical, largest), (plain, _)) =
                (errors(&got[name], &exact[name]), errors(&direct[name], &exact[name]));
            println!(
                "{c} to {o} channels, {kernel}x{kernel}, {name}: rms {typical:.1e}, largest {largest:.1e}; \
                 rms of sums in order {plain:.1e}"
            );
            assert!(typical < 5e-6 && largest < 1e-4, "{c} to {o}, {name}: {typical:e}, {largest:e}");
        }
    }
}
