//! Products in reduced precision on tensor cores, whose instructions the emulator has as warps of 32 lanes in lockstep.

use graph::operators::{Activation, Convolution, LocalResponse, Pool};
use lowering::{Precision, cuda::Device};

use crate::{
    Gpu, device, emulator, on_hardware, parity,
    support::{
        expressions::{self, Images},
        golden::assert_close,
        machine::{Machine, Reference},
        subject::Subject,
    },
};

/// Precisions of tensor cores, and what they may differ by from the reference in f64, of a tensor's largest value.
const REDUCED: [(Precision, f64); 2] = [(Precision::Tf32, 1e-3), (Precision::Bf16, 1e-2)];

fn check(subject: &Subject, gpu: &mut Gpu, relative: f64) -> f64 {
    let expected = subject.evaluate(&mut Reference::<f64>::default());
    let got = subject.evaluate(gpu);
    assert_eq!(got.len(), expected.len());
    // The weighted sum that drives the gradients cancels, and y is compared itself.
    let compared = expected.iter().filter(|(name, _)| *name != "loss");
    compared.map(|(name, expected)| assert_close(name, &got[name], expected, relative, 1e-6)).fold(0.0, f64::max)
}

#[test]
fn products_of_odd_shapes_are_as_near_as_their_precision() {
    let Some(device) = device("products in reduced precision") else { return };
    for (precision, relative) in REDUCED {
        let gpu = &mut Gpu::at(precision, &device);
        let shares: Vec<f64> = parity::products().iter().map(|subject| check(subject, gpu, relative)).collect();
        println!("{precision}: {shares:.3?} of {relative}");
        // Rounding shows: these are not the products of f32.
        assert!(shares.iter().all(|&share| share > 0.01), "{shares:?}");
    }
}

/// Operators whose images lie pixel by pixel, with channels in eights, alone: what they read is in planes, what they write is not.
#[test]
fn images_of_pixels_are_as_near_as_their_precision() {
    let Some(device) = device("images of pixels") else { return };
    let (small, large) = (image(3, 24, 9, 7), image(2, 136, 3, 4));
    let mut subjects = vec![
        expressions::batch_norm_inference(1, small),
        expressions::dropout(2, small, 0.4),
        expressions::add(3, small),
        expressions::shared(4, small),
    ];
    for x in [small, large, image(5, 8, 20, 21)] {
        subjects.extend([expressions::batch_norm(5, x), expressions::local_response(6, x, LocalResponse::PAPER)]);
    }
    for pool in [Pool { size: 3, stride: 2 }, Pool { size: 2, stride: 2 }, Pool { size: 2, stride: 3 }] {
        subjects.extend([expressions::max_pool(7, small, pool), expressions::average_pool(8, small, pool)]);
    }
    let kinds = [Activation::Relu, Activation::Tanh, Activation::Sigmoid];
    subjects.extend(kinds.map(|kind| expressions::activation(9, kind, small)));
    for (precision, relative) in REDUCED {
        let gpu = &mut Gpu::at(precision, &device);
        let worst = subjects.iter().map(|subject| check(subject, gpu, relative)).fold(0.0, f64::max);
        println!("{precision}: {worst:.3} of {relative}");
    }
}

/// Chains of them, in which one kernel reads the pixels that another has written, with the margins that convolutions want. Errors add up, and
/// normalizations take differences of what was rounded: bounds are about twice what the emulator shows, eight times as wide for three
/// bits less.
#[test]
fn chains_of_images_of_pixels() {
    let Some(device) = device("chains of images of pixels") else { return };
    for (precision, tolerance) in [(Precision::Tf32, 0.008), (Precision::Bf16, 0.06)] {
        let gpu = &mut Gpu::at(precision, &device);
        let mut subjects = vec![expressions::branches(4, image(2, 8, 6, 7), 16)];
        subjects.extend((0..12).map(|seed| expressions::random(seed, image(3, 8, 5, 6), 3 + seed as usize)));
        if precision == Precision::Tf32 {
            // In bf16 other values become the largest of their windows, which moves whole gradients.
            let pool = Pool { size: 2, stride: 2 };
            let tanh = Activation::Tanh;
            subjects.push(expressions::convolution_activation_pool(1, image(3, 8, 9, 8), 16, tanh, pool));
            subjects.push(expressions::block(2, image(3, 8, 8, 9), 24, Pool { size: 3, stride: 2 }));
        }
        let mut worst = 0.0_f64;
        for subject in &subjects {
            let (expected, got) = (subject.evaluate(&mut Reference::<f64>::default()), subject.evaluate(gpu));
            assert_eq!(got.len(), expected.len());
            for (name, expected) in expected.iter().filter(|(name, _)| *name != "loss") {
                worst = worst.max(assert_close(name, &got[name], expected, tolerance, tolerance));
            }
        }
        println!("{precision}: {worst:.3} of {tolerance}");
        assert!(worst > 0.1, "rounding shows");
    }
}

#[test]
fn nan_stays_nan_in_pixels() {
    let Some(device) = device("NaN in pixels") else { return };
    parity::check_nan(&mut Gpu::at(Precision::Bf16, &device), image(2, 8, 6, 6), &[0, 50, 100, 300]);
}

fn image(n: usize, c: usize, h: usize, w: usize) -> Images {
    Images { n, c, h, w }
}

/// A barrier that is missing, or a copy that nobody waits for, shows when threads run in another order and copies arrive late.
#[test]
fn the_order_of_warps_and_the_time_of_copies_do_not_matter() {
    if on_hardware() {
        println!("SKIPPED: the order of warps: hardware chooses its own");
        return;
    }
    let Some(usual) = emulator::libraries("the order of warps") else { return };
    let reversed = emulator::with_faults("reversed warps", "order=reverse\n").expect("the emulator was just there");
    let open = |libraries| Device::open(libraries).expect("the emulator's device");
    let (usual, reversed) = (open(&usual), open(&reversed));
    let x = Images { n: 3, c: 5, h: 9, w: 8 };
    for (precision, _) in REDUCED {
        for subject in [
            expressions::convolution(1, x, 9, (3, 3), Convolution { stride: 2, padding: 1, groups: 1 }),
            expressions::linear(2, 70, 300, 40),
        ] {
            let results = [&usual, &reversed].map(|device| subject.evaluate(&mut Gpu::at(precision, device)));
            assert_eq!(results[0], results[1], "{precision}");
        }
    }
}

/// The host has written another value where a copy of the last one was packed.
#[test]
fn packed_copies_are_made_anew_in_each_step() {
    let Some(device) = device("packed copies") else { return };
    let gpu = &mut Gpu::at(Precision::Bf16, &device);
    let mut subject = expressions::linear(1, 4, 16, 8);
    let mut built = subject.build();
    gpu.compile(&mut built.graph);
    let mut values = |subject: &Subject| {
        subject.feed(&built, gpu);
        gpu.run(&mut built.graph);
        gpu.get(&built.results[0].1)
    };
    let first = values(&subject);
    subject.inputs[1].values.iter_mut().for_each(|weight| *weight *= 2.0);
    subject.inputs[2].values.iter_mut().for_each(|bias| *bias *= 2.0);
    let doubled: Vec<f64> = first.iter().map(|value| 2.0 * value).collect();
    assert_eq!(values(&subject), doubled, "powers of two round to themselves");
}
