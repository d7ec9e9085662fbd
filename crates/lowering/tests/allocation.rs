//! What a steady-state step allocates. Alone in its binary, because it counts for the whole process.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
};

use graph::{Autograd, Network, step::Variables};
use lowering::cpu::{CpuCompiler, Workspace, program};
use plan::{Architecture, Model, Optimizer, Train};

static COUNT: AtomicUsize = AtomicUsize::new(0);
static LARGEST: AtomicUsize = AtomicUsize::new(0);
/// The same for allocations aligned to a cache line: within a step, the packed panels of the crate `gemm`.
static ALIGNED_COUNT: AtomicUsize = AtomicUsize::new(0);
static ALIGNED_LARGEST: AtomicUsize = AtomicUsize::new(0);
static LIVE: AtomicUsize = AtomicUsize::new(0);

struct Counting;

#[expect(unsafe_code, reason = "an allocator is unsafe to write")]
// SAFETY: the system's allocator does the work.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let (count, largest) =
            if layout.align() >= 64 { (&ALIGNED_COUNT, &ALIGNED_LARGEST) } else { (&COUNT, &LARGEST) };
        count.fetch_add(1, SeqCst);
        largest.fetch_max(layout.size(), SeqCst);
        LIVE.fetch_add(layout.size(), SeqCst);
        // SAFETY: the caller keeps the rules of `alloc`.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), SeqCst);
        // SAFETY: the caller keeps the rules of `dealloc`, and `alloc` above is the system's.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_step_allocates_no_tensor() {
    let alexnet = Model { architecture: Architecture::AlexNet, width: Some(0.25), ..Model::default() };
    for (model, input, size) in [(Model::default(), [1, 28, 28], 256), (alexnet, [3, 32, 32], 64)] {
        for threads in [1, 2] {
            let network = Network::new(&model, input, 10).expect("a network");
            let train = Train { gradient_clip: Some(1.0), ..Train::default() };
            let variables = Variables::new(&network, Optimizer::Sgd);
            let (mut graph, batch) = variables.training_graph(size, &train);
            graph.compile((Autograd, CpuCompiler::new(&Workspace::new(threads))), ());
            variables.set_hyper(&train, 0.01, 1);
            batch.images.write().fill(0.5);
            batch.targets.write().fill(0.1);
            // States take their memory at first use, the GEMM measures the caches once.
            graph.execute();
            graph.execute();
            let live = LIVE.load(SeqCst);
            let counters = [&COUNT, &LARGEST, &ALIGNED_COUNT, &ALIGNED_LARGEST];
            counters.iter().for_each(|counter| counter.store(0, SeqCst));
            const STEPS: usize = 4;
            for _ in 0..STEPS {
                graph.execute();
            }
            let [count, largest, panels, largest_panel] = counters.map(|counter| counter.load(SeqCst));
            assert_eq!(LIVE.load(SeqCst), live, "steps leave nothing behind");
            println!(
                "{}, {size} images, {threads} threads: {} small allocations a step, the largest of {largest} bytes; \
                 {} GEMM panels, the largest of {largest_panel} bytes",
                network.name,
                count / STEPS,
                panels / STEPS,
            );
            // Lists of places and guards: some bytes for each tensor, none of its values.
            assert!(largest <= 4_096, "{largest} bytes");
            let tensor = program(&graph).memory_plan().arena_bytes / 16;
            assert!(largest_panel < tensor, "{largest_panel} bytes, where the arena has {}", 16 * tensor);
        }
    }
}
