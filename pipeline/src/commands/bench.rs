//! `pipeline bench`: how fast training steps are here, against what the processor could do.

use ::plan::Experiment;
use anyhow::Context;
use report::Cell;

use crate::{
    cli::{self, BenchPrecision, Network},
    exit::Exit,
    output::{integer, rows, text},
    provenance,
};

/// Measures and prints.
pub fn run(bench: &cli::Bench) -> anyhow::Result<Exit> {
    let (name, input, classes) = match bench.model {
        Network::Lenet5 => ("lenet5", [1, 28, 28], 10),
        Network::Alexnet => ("alexnet", [3, 227, 227], 1000),
    };
    let mut overrides = vec![format!("model.architecture={name}"), format!("train.batch_size={}", bench.batch)];
    let color = if input[0] == 3 { "rgb" } else { "gray" };
    overrides.extend([format!("dataset.image_size={}", input[1]), format!("dataset.color={color}")]);
    let precision = match bench.precision {
        BenchPrecision::F32 => "f32",
        BenchPrecision::Tf32 => "tf32",
        BenchPrecision::Bf16 => "bf16",
    };
    overrides.push(format!("train.precision={precision}"));
    overrides.extend(bench.device.map(|device| format!("train.device={}", device.name())));
    overrides.extend(bench.overrides.iter().cloned());
    let experiment = Experiment::parse("", "bench", &overrides)?;
    let settings = experiment.trials().into_iter().next().context("the overrides describe no trial")?.settings;
    // An override of the image's size is heeded: dataset.image_size=32.
    let side = settings.dataset.image_size.unwrap_or(input[1]);
    let channels = settings.dataset.color.map_or(input[0], ::plan::Color::channels);
    let network = graph::Network::new(&settings.model, [channels, side, side], classes)?;
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = bench.threads.map_or(cores, usize::from);
    let device = ::train::Device::for_training(&settings.train).context("--device")?;
    let measured = ::train::bench::measure(&network, &settings, &device, threads, bench.forward, bench.steps)?;
    let batch = settings.train.batch_size as f64;
    ::train::check_frozen_layers(&settings.train, &network)?;
    let flop = if bench.forward { 2 * network.macs() } else { network.training_flop(&settings.train) } as f64 * batch;
    let step_s = measured.step_s;
    let round = |value: f64, digits: i32| (value * 10_f64.powi(digits)).round() / 10_f64.powi(digits);
    let gflop_per_s = flop / step_s / 1e9;
    let columns = [
        "model",
        "batch",
        "device",
        "threads",
        "precision",
        "mode",
        "images_per_second",
        "step_time_ms",
        "least_step_time_ms",
        "latency_ms",
        "gflop_per_s",
        "fma_peak_gflop_per_s",
        "share_of_peak",
        "steps",
        "planned_memory_mb",
        "peak_memory_mb",
    ];
    let row = vec![
        text(name),
        integer(settings.train.batch_size),
        text(device.description()),
        integer(threads),
        text(match settings.train.precision {
            ::plan::Precision::F32 => "f32",
            ::plan::Precision::Tf32 => "tf32",
            ::plan::Precision::Bf16 => "bf16",
        }),
        text(if bench.forward { "forward" } else { "training" }),
        Cell::Real(round(batch / step_s, 1)),
        Cell::Real(round(step_s * 1e3, 3)),
        Cell::Real(round(measured.least_step_s * 1e3, 3)),
        measured.latency_s.map_or(Cell::Null, |latency| Cell::Real(round(latency * 1e3, 3))),
        Cell::Real(round(gflop_per_s, 1)),
        measured.fma_peak_gflop_per_s.map_or(Cell::Null, |peak| Cell::Real(round(peak, 1))),
        measured.fma_peak_gflop_per_s.map_or(Cell::Null, |peak| Cell::Real(round(gflop_per_s / peak, 3))),
        integer(measured.steps),
        Cell::Real(round(measured.memory_bytes as f64 / 1e6, 1)),
        Cell::Real(round(provenance::peak_memory_bytes() as f64 / 1e6, 1)),
    ];
    rows(&columns, &[row], &bench.rows)?;
    if bench.kernels {
        let rate = |value: Option<f64>, digits| value.map_or(Cell::Null, |value| Cell::Real(round(value, digits)));
        let kernels = measured.kernels.iter().map(|k| {
            let of_peak = k.gflop_per_s.zip(measured.fma_peak_gflop_per_s).map(|(rate, peak)| rate / peak);
            vec![
                text(k.kernel),
                Cell::Real(round(k.step_time_ms, 4)),
                Cell::Real(round(k.share, 4)),
                rate(k.gflop_per_s, 1),
                rate(of_peak, 3),
                rate(k.effective_gflop_per_s, 1),
                rate(k.gb_per_s, 1),
            ]
        });
        let columns =
            ["kernel", "step_time_ms", "share", "gflop_per_s", "share_of_peak", "effective_gflop_per_s", "gb_per_s"];
        rows(&columns, &kernels.collect::<Vec<_>>(), &bench.rows)?;
    }
    Ok(Exit::Fine)
}
