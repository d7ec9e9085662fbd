//! Whole networks over many steps: against PyTorch's traces, against the reference, and against themselves.

use graph::{Network, State, step::Variables};
use lowering::{
    Precision,
    cuda::{Device, program},
};
use plan::{Architecture, Model, Normalization, Optimizer, Stem, Train};

use crate::{
    Gpu, device, emulator, on_hardware,
    support::{
        golden::assert_close,
        machine::{Machine, Reference, start},
        random::sample,
        traces,
    },
};

const STEPS: u64 = 24;
/// Of the longest comparison; on hardware of all.
const MANY_STEPS: u64 = 100;

fn lenet5() -> (Model, [usize; 3], Train) {
    let train = Train { batch_size: 5, learning_rate: 0.02, ..Train::default() };
    (Model::default(), [1, 28, 28], train)
}

/// All that networks are made of: grouped convolutions, both normalizations, dropout, clipping, averages.
fn tiny_alexnet(normalization: Normalization) -> (Model, [usize; 3], Train) {
    let model = Model {
        architecture: Architecture::AlexNet,
        stem: Some(Stem::Small),
        width: Some(1.0 / 32.0),
        towers: Some(2),
        normalization: Some(normalization),
        dropout: Some(0.3),
        ..Model::default()
    };
    // A bias before a batch normalization has the gradient 0 but for rounding, which Adam would blow up to whole steps.
    let (optimizer, nesterov) = match normalization {
        Normalization::Batch => (Optimizer::Sgd, true),
        _ => (Optimizer::Adamw, false),
    };
    let train = Train {
        batch_size: 3,
        learning_rate: if nesterov { 0.01 } else { 0.002 },
        optimizer,
        nesterov,
        gradient_clip: Some(0.7),
        average_decay: Some(0.9),
        ..Train::default()
    };
    (model, [3, 28, 28], train)
}

/// Losses of each step, then the values of every state that outlives them.
fn train(
    (model, input, train): &(Model, [usize; 3], Train),
    machine: &mut impl Machine,
    steps: u64,
) -> (Vec<f64>, Vec<(String, Vec<f64>)>) {
    let network = Network::new(model, *input, 10).expect("a network");
    let variables = Variables::for_training(&network, train);
    let (mut graph, batch) = variables.training_graph(train.batch_size, train);
    machine.compile(&mut graph);
    start(&variables, machine);
    let mut losses = Vec::new();
    for step in 0..steps {
        let (mut images, mut targets) = (Vec::new(), vec![0.0; batch.targets.elements()]);
        for i in 0..train.batch_size {
            // A few samples again and again, so that there is something to learn.
            let (label, pixels) = sample((step * 3 + i as u64) % 12, input.iter().product());
            images.extend(pixels);
            targets[i * 10 + label] = 1.0;
        }
        machine.set(&batch.images, &images);
        machine.set(&batch.targets, &targets);
        machine.set(&variables.key, &[step as f32, 1.0, 2.0, 3.0]);
        variables.set_hyper(train, train.learning_rate, step + 1);
        let hyper = variables.hyper.read().to_vec();
        machine.set(&variables.hyper, &hyper);
        machine.run(&mut graph);
        losses.extend(machine.get(&batch.loss));
    }
    let states: Vec<State> = variables.persistent().cloned().collect();
    (losses, states.iter().map(|state| (state.name().to_owned(), machine.get(state))).collect())
}

fn follows_the_reference(case: &(Model, [usize; 3], Train), relative: f64, what: &str) {
    follows_the_reference_for(if on_hardware() { MANY_STEPS } else { STEPS }, case, relative, what);
}

fn follows_the_reference_for(steps: u64, case: &(Model, [usize; 3], Train), relative: f64, what: &str) {
    let Some(device) = device(what) else { return };
    let (expected_losses, expected) = train(case, &mut Reference::<f32>::default(), steps);
    let (losses, states) = train(case, &mut Gpu::new(&device), steps);
    assert!(losses.iter().all(|loss| loss.is_finite()) && losses[0] > 1.5, "{losses:?}");
    let last = losses[losses.len() - 1];
    assert!(last < losses[0], "it learns: {losses:?}");
    assert_close("losses", &losses, &expected_losses, relative, 0.0);
    let mut worst = 0.0_f64;
    for ((name, got), (_, expected)) in states.iter().zip(&expected) {
        worst = worst.max(assert_close(name, got, expected, relative, 2e-5));
    }
    println!("{what}: {worst:.3} of the tolerance after {steps} steps, loss {:.4} to {last:.4}", losses[0]);
}

#[test]
fn lenet5_trains_as_the_reference_does() {
    follows_the_reference(&lenet5(), 1e-4, "LeNet-5");
}

#[test]
fn alexnet_with_batch_normalization_trains_as_the_reference_does() {
    let case = tiny_alexnet(Normalization::Batch);
    follows_the_reference_for(MANY_STEPS, &case, 1e-4, "AlexNet with batch normalization");
}

#[test]
fn alexnet_with_local_response_normalization_trains_as_the_reference_does() {
    follows_the_reference(&tiny_alexnet(Normalization::LocalResponse), 1e-4, "AlexNet with local response");
}

#[test]
fn networks_with_frozen_layers_train_as_the_reference_does() {
    let frozen = |(model, input, train): (Model, [usize; 3], Train), layers: &[&str]| {
        let freeze = layers.iter().map(|&layer| layer.to_owned()).collect();
        (model, input, Train { freeze, ..train })
    };
    let batch = tiny_alexnet(Normalization::Batch);
    follows_the_reference(
        &frozen(batch.clone(), &["conv1", "norm1", "fc6"]),
        1e-4,
        "AlexNet with its first layers frozen",
    );
    follows_the_reference(
        &frozen(batch, &["conv3", "norm3", "norm4"]),
        1e-4,
        "AlexNet with layers frozen in the middle",
    );
}

/// The loss of each step in reduced precision beside that of f32 on the same device; `relative` is what it may differ by, about five times
/// what the emulator shows. A rounding that turns a ReLU or a maximum over moves a whole gradient, so that bounds are those of networks.
fn follows_f32(precision: Precision, case: &(Model, [usize; 3], Train), relative: f64, what: &str) {
    let Some(device) = device(what) else { return };
    let (expected, exact) = train(case, &mut Gpu::new(&device), STEPS);
    let (losses, states) = train(case, &mut Gpu::at(precision, &device), STEPS);
    let off = |step: usize| (losses[step] - expected[step]).abs() / expected[step];
    let worst = (0..losses.len()).map(off).fold(0.0, f64::max);
    println!("{what} in {precision}: losses within {worst:.5} of f32's, {:.4} to {:.4}", losses[0], losses[23]);
    assert!(worst > 0.0 && states != exact, "rounding shows");
    assert!(worst <= relative, "{losses:?} beside {expected:?}");
    assert!(losses[STEPS as usize - 1] < losses[0], "it learns: {losses:?}");
    assert!(states.iter().all(|(_, values)| values.iter().all(|value| value.is_finite())));
}

#[test]
fn bf16_follows_f32() {
    follows_f32(Precision::Bf16, &tiny_alexnet(Normalization::Batch), 0.01, "AlexNet");
    follows_f32(Precision::Bf16, &lenet5(), 0.001, "LeNet-5");
}

#[test]
fn tf32_follows_f32() {
    follows_f32(Precision::Tf32, &tiny_alexnet(Normalization::Batch), 0.005, "AlexNet");
}

#[test]
fn runs_in_reduced_precision_end_in_the_same_bits() {
    let Some(first) = device("equal bits in reduced precision") else { return };
    // Wide enough that images lie pixel by pixel on all the way.
    let (model, input, settings) = tiny_alexnet(Normalization::Batch);
    let case = (Model { width: Some(1.0 / 6.0), ..model }, input, settings);
    for precision in [Precision::Tf32, Precision::Bf16] {
        let expected = train(&case, &mut Gpu::at(precision, &first), 2);
        assert_eq!(train(&case, &mut Gpu::at(precision, &first), 2), expected, "again");
        if !on_hardware() {
            let reversed = emulator::with_faults("reversed precision", "order=reverse\n").expect("the emulator");
            let reversed = Device::open(&reversed).expect("the emulator's device");
            assert_eq!(
                train(&case, &mut Gpu::at(precision, &reversed), 2),
                expected,
                "in reverse, with copies that arrive late"
            );
        }
    }
}

#[test]
fn lenet5_runs_agree_with_pytorch() {
    let Some(device) = device("LeNet-5 against PyTorch") else { return };
    // A run takes the emulator a quarter of a minute; the optimizers are compared by themselves.
    let wanted = |name: &str| on_hardware() || name == "adam";
    let shares = traces::check("lenet5_trace.safetensors", &mut Gpu::new(&device), wanted);
    assert_eq!(shares.len(), if on_hardware() { 3 } else { 1 });
    println!("{shares:?}");
}

#[test]
fn alexnet_runs_agree_with_pytorch() {
    if !on_hardware() {
        println!("SKIPPED: AlexNet's traces: too slow for the emulator; they run with PIPELINE_GPU_TESTS on a GPU");
        return;
    }
    let Some(device) = device("AlexNet against PyTorch") else { return };
    let shares = traces::check("alexnet_trace.safetensors", &mut Gpu::new(&device), |_| true);
    assert_eq!(shares.len(), 9);
    println!("{shares:?}");
}

#[test]
fn two_runs_end_in_the_same_bits() {
    let Some(first) = device("equal bits") else { return };
    let case = tiny_alexnet(Normalization::Batch);
    let expected = train(&case, &mut Gpu::new(&first), 4);
    assert_eq!(train(&case, &mut Gpu::new(&first), 4), expected, "again");
    if !on_hardware() {
        let reversed = emulator::with_faults("reversed training", "order=reverse\n").expect("the emulator");
        let reversed = Device::open(&reversed).expect("the emulator's device");
        assert_eq!(train(&case, &mut Gpu::new(&reversed), 4), expected, "threads and blocks in reverse");
    }
}

/// Training and evaluation share states on the device; what the host writes in between is heeded.
#[test]
fn evaluation_sees_what_training_left_and_what_the_host_writes() {
    let Some(device) = device("evaluation") else { return };
    let (model, input, settings) = lenet5();
    let network = Network::new(&model, input, 10).expect("LeNet-5");
    let variables = Variables::new(&network, Optimizer::Sgd);
    let gpu = &mut Gpu::new(&device);
    let (mut training, batch) = variables.training_graph(2, &settings);
    let (mut evaluation, evaluated) = variables.evaluation_graph(3);
    gpu.compile(&mut training);
    gpu.compile(&mut evaluation);
    let last = variables.parameters.last().expect("fc5.bias");
    gpu.set(&evaluated.images, &vec![0.5; evaluated.images.elements()]);
    gpu.run(&mut evaluation);
    assert!(gpu.get(&evaluated.logits).iter().all(|&logit| logit == 0.0), "all weights are 0");
    gpu.set(&batch.targets, &[&[1.0_f32][..], &[0.0; 9], &[1.0], &[0.0; 9]].concat());
    variables.set_hyper(&settings, 1.0, 1);
    for _ in 0..3 {
        gpu.run(&mut training);
    }
    gpu.run(&mut evaluation);
    let logits = gpu.get(&evaluated.logits);
    assert!(logits[0] > 0.5 && logits[1] < 0.0, "training moved the biases, and evaluation sees it: {logits:?}");
    assert!(last.values.read().iter().all(|&v| v == 0.0), "the host's copy is old until it is pulled");
    let pulled = gpu.get(&last.values);
    assert_eq!(pulled[0], logits[0]);
    last.values.write().fill(7.0);
    gpu.run(&mut evaluation);
    assert!(gpu.get(&evaluated.logits).iter().all(|&logit| logit == 7.0), "what the host writes last wins");
    let plan = program(&training).memory_plan();
    assert!(plan.arena_bytes > 0 && plan.state_bytes >= variables.bytes(), "{plan:?}");
}
