//! Least time of each kernel of a training step, against the processor's multiply-add peak.
//!
//! `cargo bench -p lowering --bench kernels -- [alexnet|lenet5] [BATCH] [THREADS] [SIDE] [WIDTH] [avx2|portable] [bf16]`

use std::time::Instant;

use graph::{Autograd, Network, step::Variables};
use lowering::{
    Precision,
    cpu::{CpuCompiler, Level, Workspace, fma_peak, program, set_level},
};
use plan::{Architecture, Model, Optimizer, Train};

fn main() {
    let mut words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let precision = match words.iter().position(|word| word == "bf16") {
        Some(at) => {
            words.remove(at);
            Precision::Bf16
        }
        None => Precision::F32,
    };
    let number = |i: usize, default: usize| words.get(i).and_then(|w| w.parse().ok()).unwrap_or(default);
    let level = match words.get(5).map(String::as_str) {
        Some("avx2") => set_level(Level::Avx2),
        Some("portable") => set_level(Level::Portable),
        _ => true,
    };
    assert!(level, "this processor lacks the instructions");
    let alexnet = words.first().is_none_or(|word| word == "alexnet");
    let (batch_size, threads) = (number(1, 32), number(2, 1));
    let width = words.get(4).and_then(|w| w.parse().ok());
    let (architecture, input, classes) = if alexnet {
        let side = number(3, 227);
        (Architecture::AlexNet, [3, side, side], if side < 100 { 10 } else { 1000 })
    } else {
        (Architecture::LeNet5, [1, 28, 28], 10)
    };
    let network = Network::new(&Model { architecture, width, ..Model::default() }, input, classes).expect("it fits");
    let train = Train { batch_size, ..Train::default() };
    let workspace = Workspace::new(threads);
    let variables = Variables::new(&network, Optimizer::Sgd);
    for parameter in &variables.parameters {
        let mut values = parameter.values.write();
        values.iter_mut().enumerate().for_each(|(i, v)| *v = ((i * 7919 % 201) as f32 - 100.0) * 1e-3);
    }
    let (mut graph, batch) = variables.training_graph(batch_size, &train);
    graph.compile((Autograd, CpuCompiler::new(&workspace).with_precision(precision)), ());
    variables.set_hyper(&train, 1e-4, 1);
    batch.images.write().iter_mut().enumerate().for_each(|(i, v)| *v = ((i * 31 % 255) as f32 - 127.0) / 127.0);
    batch.targets.write().iter_mut().step_by(classes).for_each(|v| *v = 1.0);
    (0..2).for_each(|_| graph.execute());

    let steps = if alexnet { 3 } else { 300 };
    let mut times: Vec<f64> = (0..2 * steps)
        .map(|_| {
            let start = Instant::now();
            graph.execute();
            start.elapsed().as_secs_f64()
        })
        .collect();
    times.sort_by(f64::total_cmp);
    let peak = fma_peak(&mut workspace.borrow_mut());
    let program = program(&graph);
    let mut rows: Vec<(&'static str, f64, f64, f64)> = Vec::new();
    // Within some seconds: what others on the machine take comes on top of the least time.
    let mut least: Vec<f64> = Vec::new();
    let start = Instant::now();
    while start.elapsed().as_secs_f64() < 5.0 {
        program.start_profile();
        program.run();
        let times: Vec<f64> = program.profile().iter().map(|step| step.time.as_secs_f64() * 1e3).collect();
        least.resize(times.len(), f64::INFINITY);
        least.iter_mut().zip(times).for_each(|(least, time)| *least = least.min(time));
    }
    for (step, ms) in program.profile().iter().zip(least) {
        let (done, defined) = (step.work.done_flop, step.work.defined_flop);
        match rows.iter_mut().find(|(name, ..)| *name == step.kernel) {
            Some((_, sum, all_done, all_defined)) => {
                (*sum, *all_done, *all_defined) = (*sum + ms, *all_done + done, *all_defined + defined);
            }
            None => rows.push((step.kernel, ms, done, defined)),
        }
    }
    rows.sort_by(|a, b| b.1.total_cmp(&a.1));
    println!("        ms   GFLOP/s   of peak   as defined");
    for (name, ms, done, defined) in rows {
        let rate = |flop: f64| flop / ms / 1e6;
        println!("{ms:10.4} {:9.1} {:8.0}% {:12.1}  {name}", rate(done), rate(done) / peak * 1e11, rate(defined));
    }
    let median = times[times.len() / 2];
    let flop = network.training_flop(&train) as f64 * batch_size as f64;
    println!(
        "median {:.3} ms, best {:.3} ms; {:.1} images/s, best {:.1}; {:.1} of {:.1} GFLOP/s; arena {} MB, scratch {} MB",
        median * 1e3,
        times[0] * 1e3,
        batch_size as f64 / median,
        batch_size as f64 / times[0],
        flop / median / 1e9,
        peak / 1e9,
        program.memory_plan().arena_bytes / 1_000_000,
        program.memory_plan().scratch_bytes / 1_000_000,
    );
}
