//! The processor's multiply-add rate, measured: what no kernel can exceed.

use std::{hint::black_box, time::Instant};

use super::Workspace;

/// Independent accumulators: enough to hide the latency of a multiply-add on two ports.
const CHAINS: usize = 24;

/// Runs `rounds` of multiply-adds on each of 16 × `CHAINS` lanes held in registers. The loops unroll completely.
macro_rules! burn {
    ($name:ident, $width:literal, $chains:literal, $features:literal) => {
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = $features)]
        fn $name(rounds: u64) -> f32 {
            let mut sums = [[1.0_f32; $width]; $chains];
            let (a, b) = (black_box([0.999_f32; $width]), black_box([0.001_f32; $width]));
            for _ in 0..rounds {
                for chain in &mut sums {
                    for lane in 0..$width {
                        chain[lane] = chain[lane].mul_add(a[lane], b[lane]);
                    }
                }
            }
            sums.iter().flatten().sum()
        }
    };
}

burn!(wide, 16, 24, "avx512f,avx512vl,avx512dq,fma");
burn!(middle, 8, 12, "avx2,fma");

/// One thread's share; returns the multiply-adds done.
fn burn(rounds: u64) -> u64 {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512dq")
        {
            // SAFETY: the processor has the features, checked just above.
            #[expect(unsafe_code, reason = "a call into code compiled for more features")]
            black_box(unsafe { wide(rounds) });
            return rounds * 16 * CHAINS as u64;
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: the processor has the features, checked just above.
            #[expect(unsafe_code, reason = "a call into code compiled for more features")]
            black_box(unsafe { middle(rounds) });
            return rounds * 8 * 12;
        }
    }
    let mut sums = [1.0_f32; 4 * CHAINS];
    let (a, b) = (black_box(0.999), black_box(0.001));
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = *sum * a + b;
        }
    }
    black_box(sums);
    rounds * 4 * CHAINS as u64
}

/// Multiply-adds in registers on all threads of a workspace, in FLOP/s (two per multiply-add): the best of five trials.
pub fn fma_peak(workspace: &mut Workspace) -> f64 {
    const ROUNDS: u64 = 1_000_000;
    let threads = workspace.threads();
    (0..5)
        .map(|_| {
            let start = Instant::now();
            let done = std::sync::atomic::AtomicU64::new(0);
            workspace.parallel(threads, &|_, _| {
                done.fetch_add(burn(ROUNDS), std::sync::atomic::Ordering::Relaxed);
            });
            2.0 * done.into_inner() as f64 / start.elapsed().as_secs_f64()
        })
        .fold(0.0, f64::max)
}
