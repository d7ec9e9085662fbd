//! The processor's multiply-add rate, measured: what no kernel can exceed.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use super::Workspace;

/// Independent accumulators: enough to hide the latency of a multiply-add on two ports, and few enough for the sixteen
/// registers of AVX2 beside both factors.
const CHAINS: usize = 12;

/// Multiply-adds in `CHAINS` registers, written with intrinsics so that nothing else is measured.
macro_rules! burn {
    ($name:ident, $features:literal, $set:ident, $fma:ident) => {
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = $features)]
        fn $name(rounds: u64) {
            use std::arch::x86_64::{$fma, $set};
            let (a, b) = ($set(black_box(0.999)), $set(black_box(0.001)));
            let mut sums = [$set(1.0); CHAINS];
            for _ in 0..rounds {
                for sum in &mut sums {
                    *sum = $fma(*sum, a, b);
                }
            }
            black_box(sums);
        }
    };
}

/// The same with Neon, which has registers for twice as many: some processors add four at once, each for four cycles.
#[cfg(target_arch = "aarch64")]
fn neon(rounds: u64) -> u64 {
    use std::arch::aarch64::{vdupq_n_f32, vfmaq_f32};
    const NEON_CHAINS: usize = 2 * CHAINS;
    // SAFETY: every aarch64 processor that this compiler builds for has Neon.
    #[expect(unsafe_code, reason = "intrinsics of instructions that are always there")]
    unsafe {
        let (a, b) = (vdupq_n_f32(black_box(0.999)), vdupq_n_f32(black_box(0.001)));
        let mut sums = [vdupq_n_f32(1.0); NEON_CHAINS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = vfmaq_f32(*sum, a, b);
            }
        }
        black_box(sums);
    }
    rounds * 4 * NEON_CHAINS as u64
}

burn!(wide, "avx512f", _mm512_set1_ps, _mm512_fmadd_ps);
burn!(middle, "avx2,fma", _mm256_set1_ps, _mm256_fmadd_ps);

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
            unsafe {
                wide(rounds)
            };
            return rounds * 16 * CHAINS as u64;
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: the processor has the features, checked just above.
            #[expect(unsafe_code, reason = "a call into code compiled for more features")]
            unsafe {
                middle(rounds)
            };
            return rounds * 8 * CHAINS as u64;
        }
    }
    #[cfg(target_arch = "aarch64")]
    return neon(rounds);
    #[cfg(not(target_arch = "aarch64"))]
    {
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
}

/// Multiply-adds in registers on all threads of a workspace, in FLOP/s (two per multiply-add): the best of many trials.
pub fn fma_peak(workspace: &mut Workspace) -> f64 {
    const ROUNDS: u64 = 2_000_000;
    /// A thread that is still waking leaves its share of the first trials, of some milliseconds each, to the others.
    const AT_LEAST: Duration = Duration::from_millis(60);
    let threads = workspace.threads();
    let begin = Instant::now();
    let mut best = 0.0;
    while begin.elapsed() < AT_LEAST {
        let start = Instant::now();
        let done = std::sync::atomic::AtomicU64::new(0);
        workspace.parallel(threads, &|_, _| {
            done.fetch_add(burn(ROUNDS), std::sync::atomic::Ordering::Relaxed);
        });
        best = f64::max(best, 2.0 * done.into_inner() as f64 / start.elapsed().as_secs_f64());
    }
    best
}
