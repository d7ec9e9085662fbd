//! How a peer's step is measured, as `compare.py` measures PyTorch's.

use std::time::Instant;

const WARM_UP_STEPS: usize = 3;
const LEAST_STEPS: usize = 5;
const LEAST_S: f64 = 5.0;

/// The network's name and the batch size, from the command line.
pub fn arguments() -> (String, usize) {
    let mut arguments = std::env::args().skip(1);
    match (arguments.next(), arguments.next().and_then(|batch| batch.parse().ok())) {
        (Some(network), Some(batch)) if ["lenet5", "alexnet"].contains(&network.as_str()) => (network, batch),
        _ => panic!("usage: lenet5 or alexnet, then the batch size; threads: RAYON_NUM_THREADS"),
    }
}

/// Prints images per second of the median step and of the quickest, as JSON. `step` returns the batch's loss, which is to be finite: what
/// diverges may be faster.
pub fn measure(batch: usize, mut step: impl FnMut() -> f32) {
    for _ in 0..WARM_UP_STEPS {
        step();
    }
    let (mut times_s, start) = (Vec::new(), Instant::now());
    while times_s.len() < LEAST_STEPS || start.elapsed().as_secs_f64() < LEAST_S {
        let before = Instant::now();
        let loss = step();
        times_s.push(before.elapsed().as_secs_f64());
        assert!(loss.is_finite(), "the loss is {loss}");
    }
    times_s.sort_by(f64::total_cmp);
    let rate = |time_s: f64| batch as f64 / time_s;
    println!("[{}, {}]", rate(times_s[times_s.len() / 2]), rate(times_s[0]));
}
