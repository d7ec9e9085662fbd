//! Timing of compiled steps, apart from data and records.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use graph::{Autograd, Network, step::Variables};
use lowering::{
    cpu::{CpuCompiler, Work, Workspace, fma_peak, program},
    cuda::{self, CudaCompiler, Session},
};
use luminal::prelude::Graph;
use plan::Settings;

use crate::{Device, TrainError, engine::lowered, initialize};

/// Time of one kind of kernel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KernelTime {
    /// What it computes.
    pub kernel: &'static str,
    /// Time per step, in milliseconds.
    pub step_time_ms: f64,
    /// Share of all kernels' time, in [0, 1].
    pub share: f64,
    /// Multiply-adds that it does, as GFLOP/s. None where it adds up no products.
    pub gflop_per_s: Option<f64>,
    /// Multiply-adds of the sums that define what it computes, as GFLOP/s: minimal filtering does fewer. None on a GPU.
    pub effective_gflop_per_s: Option<f64>,
    /// What it reads and writes, each value once, in GB/s. None on a processor, whose caches keep much of it.
    pub gb_per_s: Option<f64>,
}

/// Time and work of one kind of kernel over some steps.
struct Profiled {
    kernel: &'static str,
    time: Duration,
    work: Work,
    moved_bytes: usize,
}

/// What was measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// Median time of a step, in seconds. On a GPU, of steps that are queued behind each other, as training queues them.
    pub step_s: f64,
    /// Least time of those, in seconds: what others on the machine take comes on top.
    pub least_step_s: f64,
    /// Median time of a step that is waited for before the next one is started, in seconds. None on a processor, where all are.
    pub latency_s: Option<f64>,
    /// Steps that were measured.
    pub steps: usize,
    /// Multiply-adds in registers alone on these threads, in GFLOP/s: what no kernel can exceed. None on a GPU, where it is not measured.
    pub fma_peak_gflop_per_s: Option<f64>,
    /// Memory planned for the step, in bytes.
    pub memory_bytes: usize,
    /// Kinds of kernels, the slowest first.
    pub kernels: Vec<KernelTime>,
}

/// A compiled step that is measured.
enum Step {
    Cpu(Box<Graph>),
    Cuda(Box<Graph>, std::rc::Rc<std::cell::RefCell<Session>>),
}

impl Step {
    /// Runs it so many times, to the end of the last; gives the time, in seconds.
    fn run(&mut self, times: usize) -> Result<f64, TrainError> {
        let start = Instant::now();
        for _ in 0..times {
            match self {
                Self::Cpu(graph) => graph.execute(),
                Self::Cuda(graph, _) => cuda::program(graph).run()?,
            }
        }
        if let Self::Cuda(_, session) = self {
            session.borrow_mut().wait()?;
        }
        Ok(start.elapsed().as_secs_f64())
    }

    /// Steps that are started before the last of them is waited for.
    fn queued(&self) -> usize {
        match self {
            Self::Cpu(_) => 1,
            Self::Cuda(..) => QUEUED,
        }
    }

    fn memory_bytes(&self) -> usize {
        match self {
            Self::Cpu(graph) => program(graph).memory_plan().total_bytes(),
            Self::Cuda(graph, _) => cuda::program(graph).memory_plan().total_bytes(),
        }
    }

    fn start_profile(&self) {
        if let Self::Cpu(graph) = self {
            program(graph).start_profile();
        }
    }

    /// Each kernel over the steps since [`Self::start_profile`], and their number.
    fn profile(&self, steps: usize) -> Result<(Vec<Profiled>, usize), TrainError> {
        Ok(match self {
            Self::Cpu(graph) => {
                let kernels = program(graph).profile().into_iter();
                (
                    kernels
                        .map(|s| Profiled { kernel: s.kernel, time: s.time, work: s.work, moved_bytes: 0 })
                        .collect(),
                    steps,
                )
            }
            // A GPU's kernels are timed one by one in a step of their own.
            Self::Cuda(graph, _) => {
                let kernels = cuda::program(graph).profile()?.into_iter();
                let profiled = |s: cuda::KernelTime| {
                    let work = Work { done_flop: s.flop, ..Work::default() };
                    Profiled { kernel: s.kernel, time: s.time, work, moved_bytes: s.moved_bytes }
                };
                (kernels.map(profiled).collect(), 1)
            }
        })
    }
}

/// Steps that are queued on a GPU before one is waited for: training reads results every 64 steps or ten times a second.
const QUEUED: usize = 16;

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Measures steps of `network` on a batch of `settings.train.batch_size` noise images. Without `steps`, as many as fit
/// into 5 s, at least 3; the first 2 do not count.
///
/// # Errors
/// When the GPU fails; the processor does not.
pub fn measure(
    network: &Network,
    settings: &Settings,
    device: &Device,
    threads: usize,
    forward: bool,
    steps: Option<u32>,
) -> Result<Measured, TrainError> {
    let variables = Variables::for_training(network, &settings.train);
    initialize(&variables, &settings.model, 0);
    let size = settings.train.batch_size;
    let (mut graph, batch) =
        if forward { variables.evaluation_graph(size) } else { variables.training_graph(size, &settings.train) };
    let (mut step, fma_peak_gflop_per_s) = match device {
        Device::Cpu => {
            let workspace = Workspace::new(threads);
            let peak = fma_peak(&mut workspace.borrow_mut()) / 1e9;
            let compiler = CpuCompiler::new(&workspace).with_precision(lowered(settings.train.precision));
            graph.compile((Autograd, compiler), ());
            (Step::Cpu(graph), Some(peak))
        }
        Device::Cuda(device) => {
            let session = Session::new(device)?;
            let compiler = CudaCompiler::new(&session).with_precision(lowered(settings.train.precision));
            graph.compile((Autograd, compiler), ());
            (Step::Cuda(graph, session), None)
        }
    };
    // A fixed sawtooth of about unit deviation: no zeros, which can be faster than data.
    let noise = |i: usize| (i.wrapping_mul(2_654_435_761) % 1009) as f32 / 291.0 - 1.73;
    batch.images.write().iter_mut().enumerate().for_each(|(i, value)| *value = noise(i));
    let classes = network.classes;
    batch.targets.write().chunks_exact_mut(classes).enumerate().for_each(|(i, row)| row[i * 7 % classes] = 1.0);
    variables.set_hyper(&settings.train, 1e-4, 1);
    for _ in 0..2 {
        step.run(1)?;
    }
    let queued = step.queued().min(steps.map_or(usize::MAX, |steps| steps.max(1) as usize));
    let latency_s = match &step {
        Step::Cpu(_) => None,
        Step::Cuda(..) => Some(median(&mut (0..queued).map(|_| step.run(1)).collect::<Result<Vec<_>, _>>()?)),
    };
    step.start_profile();
    // Of a step, by runs of as many as are queued.
    let (mut times, mut done) = (Vec::new(), 0);
    let start = Instant::now();
    let more = |done: usize| match steps {
        Some(steps) => done < steps as usize,
        None => done < 3 || (start.elapsed() < Duration::from_secs(5) && done < 100_000),
    };
    while more(done) {
        let run = queued.min(steps.map_or(usize::MAX, |steps| steps as usize - done));
        times.push(step.run(run)? / run as f64);
        done += run;
        black_box(&batch.logits);
    }
    let total: f64 = times.iter().sum();
    let (profile, profiled) = step.profile(done)?;
    let mut kinds: Vec<Profiled> = Vec::new();
    for one in profile {
        match kinds.iter_mut().find(|known| known.kernel == one.kernel) {
            Some(known) => {
                known.time += one.time;
                known.work.done_flop += one.work.done_flop;
                known.work.defined_flop += one.work.defined_flop;
                known.moved_bytes += one.moved_bytes;
            }
            None => kinds.push(one),
        }
    }
    let kernel_time = |kind: Profiled| {
        let step_s = kind.time.as_secs_f64() / profiled as f64;
        let rate = |flop: f64| (flop > 0.0).then(|| flop / step_s / 1e9);
        KernelTime {
            kernel: kind.kernel,
            step_time_ms: step_s * 1e3,
            share: 0.0,
            gflop_per_s: rate(kind.work.done_flop),
            effective_gflop_per_s: rate(kind.work.defined_flop),
            gb_per_s: rate(kind.moved_bytes as f64),
        }
    };
    let mut kernels: Vec<KernelTime> = kinds.into_iter().map(kernel_time).collect();
    // On a GPU a share is one of the kernels' own time: between them it waits for nobody once the step is recorded.
    let whole_ms = match &step {
        Step::Cpu(_) => total * 1e3 / times.len() as f64,
        Step::Cuda(..) => kernels.iter().map(|kernel| kernel.step_time_ms).sum(),
    };
    kernels.iter_mut().for_each(|kernel| kernel.share = kernel.step_time_ms / whole_ms);
    kernels.sort_by(|a, b| b.step_time_ms.total_cmp(&a.step_time_ms));
    Ok(Measured {
        least_step_s: times.iter().copied().fold(f64::INFINITY, f64::min),
        step_s: median(&mut times),
        latency_s,
        steps: done,
        fma_peak_gflop_per_s,
        memory_bytes: step.memory_bytes(),
        kernels,
    })
}
