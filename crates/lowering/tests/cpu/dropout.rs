//! Dropout draws what it says, and the same again.

use graph::{Autograd, Builder, Operator, State, operators::Dropout};
use lowering::cpu::{CpuCompiler, Workspace};
use luminal::prelude::Graph;

const N: usize = 1 << 18;

/// Which of `N` ones stay, by the CPU and by the reference, which must agree.
fn mask(rate: f32, layer: u32, key: [f32; 4]) -> Vec<bool> {
    let (x, y, k) = (State::new("x", &[1, N]), State::new("y", &[1, N]), State::new("key", &[4]));
    x.write().fill(1.0);
    k.write().copy_from_slice(&key);
    let mut graph = Box::new(Graph::new());
    let mut build = Builder::new(&mut graph);
    let (xv, kv) = (build.source(&x), build.source(&k));
    let dropout = Dropout { rate, layer };
    let value = build.add(Operator::Dropout(dropout), &[&xv, &kv]);
    build.store(&value, &y);
    graph.compile((Autograd, CpuCompiler::new(&Workspace::new(2))), ());
    graph.execute();
    let y = y.read();
    assert_eq!(y.to_vec(), dropout.apply(&x.read(), &key), "the reference's mask and scale");
    y.iter().map(|&v| v != 0.0).collect()
}

fn kept(mask: &[bool]) -> f64 {
    mask.iter().filter(|&&m| m).count() as f64 / mask.len() as f64
}

#[test]
fn the_kept_share_is_what_was_asked() {
    for rate in [0.0, 0.1, 0.5, 0.9] {
        for layer in 1..5 {
            let share = kept(&mask(rate, layer, [5.0, 0.0, layer as f32, 9.0]));
            let expected = 1.0 - f64::from(rate);
            // Five standard deviations of a fair draw.
            let allowed = 5.0 * (expected * (1.0 - expected) / N as f64).sqrt();
            assert!((share - expected).abs() <= allowed, "rate {rate}, layer {layer}: kept {share}");
        }
    }
}

#[test]
fn masks_of_layers_steps_and_keys_are_independent() {
    let key = [5.0, 0.0, 7.0, 9.0];
    let first = mask(0.5, 1, key);
    assert_eq!(first, mask(0.5, 1, key), "the same again, as after a resume");
    let others = [
        ("another layer", mask(0.5, 2, key)),
        ("another first number", mask(0.5, 1, [6.0, 0.0, 7.0, 9.0])),
        ("another second number", mask(0.5, 1, [5.0, 1.0, 7.0, 9.0])),
        ("another third number", mask(0.5, 1, [5.0, 0.0, 8.0, 9.0])),
        ("another fourth number", mask(0.5, 1, [5.0, 0.0, 7.0, 10.0])),
        ("two numbers exchanged", mask(0.5, 1, [0.0, 5.0, 7.0, 9.0])),
        ("two others exchanged", mask(0.5, 1, [5.0, 0.0, 9.0, 7.0])),
        ("a large key", mask(0.5, 1, [16_777_215.0, 0.0, 7.0, 9.0])),
    ];
    for (what, other) in &others {
        let equal: Vec<bool> = first.iter().zip(other).map(|(a, b)| a == b).collect();
        assert!((kept(&equal) - 0.5).abs() < 5.0 * 0.5 / (N as f64).sqrt(), "{what}: {} equal", kept(&equal));
    }
    for shift in [1, 2, 84, 256, 4096] {
        let equal: Vec<bool> = first.iter().zip(&first[shift..]).map(|(a, b)| a == b).collect();
        assert!((kept(&equal) - 0.5).abs() < 5.0 * 0.5 / (N as f64).sqrt(), "shifted by {shift}: {}", kept(&equal));
    }
}
