//! Every operator and chains of them: the device's f32 against PyTorch's golden vectors and against the reference in f64.

use graph::operators::{Activation, Convolution, LocalResponse, Pool};

use crate::{
    Gpu, device, emulator, on_hardware,
    support::{
        expressions::{self, Images},
        golden::assert_close,
        machine::Reference,
        operators, optimizers,
        subject::Subject,
    },
};

/// Of a tensor's largest value.
const RELATIVE: f64 = 2e-5;

fn check(subject: &Subject, gpu: &mut Gpu) {
    check_within(subject, gpu, 1e-6);
}

/// Behind a batch normalization some gradients are 0 but for rounding, as a convolution's bias.
fn check_chain(subject: &Subject, gpu: &mut Gpu) {
    check_within(subject, gpu, 1e-5);
}

fn check_within(subject: &Subject, gpu: &mut Gpu, absolute: f64) {
    let expected = subject.evaluate(&mut Reference::<f64>::default());
    let got = subject.evaluate(gpu);
    assert_eq!(got.len(), expected.len());
    // The weighted sum that drives the gradients cancels, and y is compared itself.
    for (name, expected) in expected.iter().filter(|(name, _)| *name != "loss") {
        assert_close(name, &got[name], expected, RELATIVE, absolute);
    }
}

fn images(n: usize, c: usize, h: usize, w: usize) -> Images {
    Images { n, c, h, w }
}

#[test]
fn operators_agree_with_pytorch() {
    let Some(device) = device("operators against PyTorch") else { return };
    let (cases, share) = operators::check_all(&mut Gpu::new(&device));
    println!("{cases} cases, {share:.4} of the tolerance");
    assert!(cases >= 75, "{cases} cases");
}

#[test]
fn optimizers_agree_with_pytorch() {
    let Some(device) = device("optimizers against PyTorch") else { return };
    println!("{:.4} of the tolerance", optimizers::check_all(&mut Gpu::new(&device)));
}

#[test]
fn products_of_odd_shapes() {
    let Some(device) = device("products of odd shapes") else { return };
    let gpu = &mut Gpu::new(&device);
    for subject in products() {
        check(&subject, gpu);
    }
}

/// Linear layers and convolutions that fill no tile, with their gradients.
pub fn products() -> Vec<Subject> {
    let linear = (0..)
        .zip([(1, 1, 1), (3, 700, 5), (70, 33, 129), (129, 17, 130), (5, 2100, 300), (200, 9, 65)])
        .map(|(seed, (rows, inputs, outputs))| expressions::linear(seed, rows, inputs, outputs));
    let square = |side| (side, side);
    let convolutions = [
        // images, outputs of a group, kernel, (stride, padding, groups)
        (images(2, 1, 9, 8), 3, square(5), (1, 2, 1)),
        (images(3, 3, 13, 11), 7, (3, 2), (2, 1, 2)),
        (images(1, 5, 23, 23), 70, square(11), (4, 0, 1)),
        (images(2, 40, 6, 7), 33, square(3), (1, 1, 1)),
        (images(17, 2, 5, 5), 130, square(5), (1, 0, 1)),
        (images(2, 3, 7, 7), 4, square(3), (3, 2, 3)),
        (images(9, 1, 31, 29), 6, square(1), (1, 0, 1)),
        (images(4, 3, 1, 1), 5, square(2), (2, 1, 1)),
    ];
    let convolutions = (0..).zip(convolutions).map(|(seed, (x, outputs, kernel, (stride, padding, groups)))| {
        expressions::convolution(seed, x, outputs, kernel, Convolution { stride, padding, groups })
    });
    linear.chain(convolutions).collect()
}

#[test]
fn other_operators_of_odd_shapes() {
    let Some(device) = device("operators of odd shapes") else { return };
    let gpu = &mut Gpu::new(&device);
    for (seed, x) in (0..).zip([images(1, 1, 5, 4), images(3, 19, 13, 7), images(5, 2, 41, 43)]) {
        for pool in [Pool { size: 3, stride: 2 }, Pool { size: 2, stride: 2 }, Pool { size: 2, stride: 3 }] {
            check(&expressions::max_pool(seed, x, pool), gpu);
            check(&expressions::average_pool(seed, x, pool), gpu);
        }
        for kind in [Activation::Relu, Activation::Tanh, Activation::Sigmoid] {
            check(&expressions::activation(seed, kind, x), gpu);
        }
        check(&expressions::batch_norm(seed, Images { n: x.n + 1, ..x }), gpu);
        check(&expressions::batch_norm_inference(seed, x), gpu);
        let other = LocalResponse { size: 4, alpha: 0.3, beta: 0.6, k: 1.5 };
        for attributes in [LocalResponse::PAPER, other] {
            check(&expressions::local_response(seed, x, attributes), gpu);
        }
        check(&expressions::dropout(seed, x, 0.4), gpu);
        check(&expressions::add(seed, x), gpu);
        check(&expressions::shared(seed, x), gpu);
    }
    for (rows, classes) in [(1, 2), (7, 10), (100, 1000)] {
        check(&expressions::cross_entropy(5, rows, classes), gpu);
    }
}

#[test]
fn chains_and_branches() {
    let Some(device) = device("chains of operators") else { return };
    let gpu = &mut Gpu::new(&device);
    let pool = Pool { size: 2, stride: 2 };
    check_chain(&expressions::convolution_activation_pool(1, images(3, 2, 9, 8), 7, Activation::Tanh, pool), gpu);
    check_chain(&expressions::block(2, images(3, 4, 8, 9), 9, Pool { size: 3, stride: 2 }), gpu);
    check_chain(&expressions::hidden(3, 20, 60, 300), gpu);
    check_chain(&expressions::branches(4, images(2, 3, 6, 7), 5), gpu);
    for seed in 0..12 {
        check_chain(&expressions::random(seed, images(3, 2, 5, 6), 3 + seed as usize), gpu);
    }
}

#[test]
fn nan_stays_nan() {
    let Some(device) = device("NaN") else { return };
    check_nan(&mut Gpu::new(&device), images(2, 3, 6, 6), &[0, 50, 100]);
}

/// NaN at some pixels of x is where the reference has it, in values and gradients.
pub fn check_nan(gpu: &mut Gpu, x: Images, pixels: &[usize]) {
    let relu = expressions::activation(1, Activation::Relu, x);
    let pool = Pool { size: 3, stride: 2 };
    for mut subject in [relu, expressions::max_pool(2, x, pool), expressions::average_pool(3, x, pool)] {
        for &pixel in pixels {
            subject.inputs[0].values[pixel] = f32::NAN;
        }
        let got = subject.evaluate(gpu);
        let expected = subject.evaluate(&mut Reference::<f32>::default());
        let nan = |values: &[f64]| values.iter().map(|v| v.is_nan()).collect::<Vec<_>>();
        for name in ["y", "dx"] {
            assert_eq!(nan(&got[name]), nan(&expected[name]), "{name}");
        }
        assert!(got["y"].iter().any(|v| v.is_nan()) && got["y"].iter().any(|v| !v.is_nan()));
    }
}

/// A barrier that is missing shows when the threads of a block run in another order.
#[test]
fn the_order_of_threads_and_blocks_does_not_matter() {
    if on_hardware() {
        println!("SKIPPED: the order of threads: hardware chooses its own");
        return;
    }
    let Some(usual) = emulator::libraries("the order of threads") else { return };
    let reversed = emulator::with_faults("reversed", "order=reverse\n").expect("the emulator was just there");
    let open = |libraries| Gpu::new(&lowering::cuda::Device::open(libraries).expect("the emulator's device"));
    let (usual, reversed) = (&mut open(&usual), &mut open(&reversed));
    let x = images(3, 5, 9, 8);
    let attributes = Convolution { stride: 1, padding: 1, groups: 1 };
    for subject in [
        expressions::convolution(1, x, 9, (3, 3), attributes),
        expressions::linear(2, 70, 300, 40),
        expressions::batch_norm(3, x),
        expressions::local_response(4, x, LocalResponse::PAPER),
        expressions::max_pool(5, x, Pool { size: 3, stride: 2 }),
        expressions::cross_entropy(6, 20, 300),
    ] {
        assert_eq!(subject.evaluate(usual), subject.evaluate(reversed));
    }
}
