//! PyTorch's golden vectors against the CPU.

use crate::{
    cpu,
    support::{operators, optimizers, traces},
};

#[test]
fn operators_agree_with_pytorch() {
    for threads in [1, 3] {
        let (cases, share) = operators::check_all(&mut cpu(threads));
        println!("{cases} cases, {share:.4} of the tolerance");
        assert!(cases >= 75, "{cases} cases");
    }
}

#[test]
fn optimizers_agree_with_pytorch() {
    println!("{:.4} of the tolerance", optimizers::check_all(&mut cpu(2)));
}

#[test]
fn whole_runs_agree_with_pytorch() {
    for (file, cases) in [("lenet5_trace.safetensors", 3), ("alexnet_trace.safetensors", 9)] {
        let shares = traces::check(file, &mut cpu(2), |_| true);
        assert_eq!(shares.len(), cases, "{file}");
        for (name, shares) in shares {
            println!("{file} {name}: {shares:?} of the tolerances");
        }
    }
}
