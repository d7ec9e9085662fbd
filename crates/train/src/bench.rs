//! Timing of compiled steps, apart from data and records.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use graph::{Autograd, Network, step::Variables};
use lowering::cpu::{CpuCompiler, Workspace, fma_peak, program};
use plan::Settings;

use crate::initialize;

/// Time of one kind of kernel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KernelTime {
    /// What it computes.
    pub kernel: &'static str,
    /// Time per step, in milliseconds.
    pub step_time_ms: f64,
    /// Share of all kernels' time, in [0, 1].
    pub share: f64,
}

/// What was measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// Median time of a step, in seconds.
    pub step_s: f64,
    /// Steps that were measured.
    pub steps: usize,
    /// Multiply-adds in registers alone on these threads, in GFLOP/s: what no kernel can exceed.
    pub fma_peak_gflop_per_s: f64,
    /// Memory planned for the step, in bytes.
    pub memory_bytes: usize,
    /// Kinds of kernels, the slowest first.
    pub kernels: Vec<KernelTime>,
}

/// Measures steps of `network` on a batch of `settings.train.batch_size` noise images. Without `steps`, as many as fit
/// into 5 s, at least 3; the first 2 do not count.
pub fn measure(network: &Network, settings: &Settings, threads: usize, forward: bool, steps: Option<u32>) -> Measured {
    let workspace = Workspace::new(threads);
    let fma_peak_gflop_per_s = fma_peak(&mut workspace.borrow_mut()) / 1e9;
    let variables = Variables::for_training(network, &settings.train);
    initialize(&variables, &settings.model, 0);
    let size = settings.train.batch_size;
    let (mut graph, batch) = if forward {
        let (mut graph, batch) = variables.evaluation_graph(size);
        graph.compile(CpuCompiler::new(&workspace), ());
        (graph, batch)
    } else {
        let (mut graph, batch) = variables.training_graph(size, &settings.train);
        graph.compile((Autograd, CpuCompiler::new(&workspace)), ());
        (graph, batch)
    };
    // A fixed sawtooth of about unit deviation: no zeros, which can be faster than data.
    let noise = |i: usize| (i.wrapping_mul(2_654_435_761) % 1009) as f32 / 291.0 - 1.73;
    batch.images.write().iter_mut().enumerate().for_each(|(i, value)| *value = noise(i));
    let classes = network.classes;
    batch.targets.write().chunks_exact_mut(classes).enumerate().for_each(|(i, row)| row[i * 7 % classes] = 1.0);
    variables.set_hyper(&settings.train, 1e-4, 1);
    for _ in 0..2 {
        graph.execute();
    }
    program(&graph).start_profile();
    let mut times = Vec::new();
    let start = Instant::now();
    let more = |done: usize| match steps {
        Some(steps) => done < steps as usize,
        None => done < 3 || (start.elapsed() < Duration::from_secs(5) && done < 100_000),
    };
    while more(times.len()) {
        let step = Instant::now();
        graph.execute();
        times.push(step.elapsed().as_secs_f64());
        black_box(&batch.logits);
    }
    let total: f64 = times.iter().sum();
    times.sort_by(f64::total_cmp);
    let mut kernels: Vec<KernelTime> = Vec::new();
    for step in program(&graph).profile() {
        let ms = step.time.as_secs_f64() * 1e3 / times.len() as f64;
        match kernels.iter_mut().find(|kernel| kernel.kernel == step.kernel) {
            Some(kernel) => kernel.step_time_ms += ms,
            None => kernels.push(KernelTime { kernel: step.kernel, step_time_ms: ms, share: 0.0 }),
        }
    }
    kernels.iter_mut().for_each(|kernel| kernel.share = kernel.step_time_ms * 1e-3 * times.len() as f64 / total);
    kernels.sort_by(|a, b| b.step_time_ms.total_cmp(&a.step_time_ms));
    Measured {
        step_s: times[times.len() / 2],
        steps: times.len(),
        fma_peak_gflop_per_s,
        memory_bytes: program(&graph).memory_plan().total_bytes(),
        kernels,
    }
}
