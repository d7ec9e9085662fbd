//! PyTorch's golden vectors against the reference.

use crate::support::{
    machine::{Reference, luminal},
    operators, optimizers, random, traces,
};

#[test]
fn operators_agree_with_pytorch() {
    let (cases, share) = operators::check_all(&mut Reference::<f32>::default());
    println!("{cases} cases, {share:.4} of the tolerance in f32");
    assert!(cases >= 75, "{cases} cases");
    let (_, share) = operators::check_all(&mut Reference::<f64>::default());
    assert!(share < 0.01, "{share} of the tolerance in f64");
}

#[test]
fn operators_agree_with_pytorch_through_luminal() {
    let (cases, share) = operators::check_all(&mut luminal());
    println!("{cases} cases, {share:.4} of the tolerance");
}

#[test]
fn optimizers_agree_with_pytorch() {
    let f32 = optimizers::check_all(&mut Reference::<f32>::default());
    let luminal = optimizers::check_all(&mut luminal());
    println!("{f32:.4} of the tolerance in f32");
    assert_eq!(f32, luminal, "the interpreter and luminal's executor run the same operators");
}

#[test]
fn whole_runs_in_f64_agree_with_pytorch() {
    for (file, cases) in [("lenet5_trace.safetensors", 3), ("alexnet_trace.safetensors", 9)] {
        // 50 steps of naive loops are for the lowering's tests; the mathematics shows in five.
        let shares = traces::check(file, &mut Reference::<f64>::default(), |name| name != "base");
        assert_eq!(shares.len(), cases - 1, "{file}");
        for (name, shares) in shares {
            println!("{file} {name}: {shares:?}");
            let worst =
                [shares.first_logits, shares.losses, shares.gradients, shares.last].into_iter().fold(0.0, f64::max);
            assert!(worst < 0.02, "{file} {name}: {shares:?} of the tolerances");
        }
    }
}

#[test]
fn the_batches_are_those_of_the_readme() {
    assert_eq!(random::word(1, 0), 0x1937_167e_168d_9372);
    assert_eq!(random::word(1, 1), 0x0b9f_1c6e_4cad_87c8);
    assert_eq!(random::word(2, 0), 0x0480_c2cd_4063_0642);
    assert_eq!(random::word(2, 12_345), 0x4801_fadf_b4c0_0668);
    assert_eq!(random::bits24(1, 0), 1_652_502);
    let (label, pixels) = random::sample(1, 28 * 28);
    assert_eq!((label, &pixels[..3]), (1, &[-0.344_358_56, 0.421_805_98, -0.376_510_5][..]));
    assert_eq!(random::sample(1_000_001, 3 * 32 * 32).1[..3], [-0.614_984_63, 0.491_156_46, 0.246_909_74]);
}
