//! Products in 16 bits: where they are used, and what they cost in precision.

use graph::{Autograd, operators::Convolution};
use lowering::{
    Precision,
    cpu::{CpuCompiler, Products, Workspace, bf16_products},
};
use luminal::prelude::Graph;

use crate::{
    cpu,
    support::{
        expressions::{self, Images},
        machine::{Executor, Reference},
        subject::Subject,
    },
    winograd::errors,
};

fn bf16(threads: usize) -> Executor<impl Fn(&mut Graph)> {
    let workspace = Workspace::new(threads);
    let compiler = CpuCompiler::new(&workspace).with_precision(Precision::Bf16);
    Executor(move |graph: &mut Graph| graph.compile((Autograd, compiler.clone()), ()))
}

/// Most error of a sum of products of two operands rounded once each, relative to the rms of the sums: rounding to bfloat16 has an rms of
/// 0.0017 of each.
const ONCE: f64 = 0.004;
/// And where the transforms of minimal filtering magnify it.
const FILTERED: f64 = 0.016;
/// Of what is computed in 32 bits.
const EXACT: f64 = 2e-5;

/// Each with the most error of y, dx and dw.
fn subjects() -> Vec<(&'static str, Subject, [f64; 3])> {
    let convolution = |seed, n, c, side, o, kernel, stride, padding, groups| {
        let x = Images { n, c, h: side, w: side };
        expressions::convolution(seed, x, o, (kernel, kernel), Convolution { stride, padding, groups })
    };
    // Tiles need no minimal filtering.
    let [filtered, of_five] = match bf16_products() {
        Products::Tiles => [ONCE; 2],
        Products::Vectors | Products::Emulated => [FILTERED, EXACT],
    };
    vec![
        ("3x3", convolution(1, 2, 256, 13, 384, 3, 1, 1, 1), [filtered; 3]),
        ("3x3 on sheets", convolution(2, 17, 48, 13, 33, 3, 1, 1, 1), [filtered; 3]),
        ("3x3 in groups, odd sizes", convolution(3, 3, 19, 9, 21, 3, 1, 1, 2), [filtered; 3]),
        ("3x3 without padding", convolution(4, 1, 16, 6, 16, 3, 1, 0, 1), [filtered; 3]),
        // Its input gradient has no way in 16 bits; the gradient that comes in was one operand of a product.
        ("11x11", convolution(5, 2, 3, 63, 40, 11, 4, 2, 1), [ONCE; 3]),
        ("5x5 of few channels", convolution(6, 3, 2, 14, 7, 5, 2, 2, 1), [ONCE; 3]),
        ("5x5", convolution(7, 1, 32, 14, 48, 5, 1, 2, 1), [of_five, ONCE, ONCE]),
        ("linear", expressions::linear(8, 37, 301, 70), [ONCE; 3]),
        ("deep linear", expressions::linear(9, 2, 9216, 50), [ONCE; 3]),
        ("wide linear", expressions::linear(10, 260, 33, 515), [ONCE; 3]),
    ]
}

#[test]
fn errors_are_those_of_rounding_the_operands() {
    for (name, subject, most) in subjects() {
        let exact = subject.evaluate(&mut Reference::<f64>::default());
        let (got, single) = (subject.evaluate(&mut bf16(2)), subject.evaluate(&mut cpu(2)));
        for (part, most) in ["y", "dx", "dw"].into_iter().zip(most) {
            let [(typical, largest), (plain, _)] = [&got, &single].map(|values| errors(&values[part], &exact[part]));
            println!("{name}, {part}: rms {typical:.1e}, largest {largest:.1e}; in 32 bits {plain:.1e}");
            assert!(typical < most && largest < 8.0 * most, "{name}, {part}: {typical:e}, {largest:e}");
            assert!(most == EXACT || typical > 2e-4, "{name}, {part} was not computed in 16 bits: {typical:e}");
        }
    }
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    for (name, subject, _) in subjects() {
        let expected = subject.evaluate(&mut bf16(1));
        for threads in [2, 3] {
            assert!(subject.evaluate(&mut bf16(threads)) == expected, "{name}, {threads} threads");
        }
    }
}

#[test]
fn nan_and_infinity_stay() {
    for value in [f32::NAN, f32::INFINITY] {
        for (name, mut subject, _) in subjects() {
            let last = subject.inputs[0].values.len() - 1;
            subject.inputs[0].values[last] = value;
            let got = subject.evaluate(&mut bf16(2));
            assert!(got["y"].iter().any(|y| !y.is_finite()), "{name}: {value} vanished");
        }
    }
}
