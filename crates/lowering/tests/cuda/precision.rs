//! Products in reduced precision on tensor cores, whose instructions the emulator has as warps of 32 lanes in lockstep.

use graph::operators::Convolution;
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
