//! What a steady-state step allocates. Alone in its binary, because it counts for the whole process.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
};

use graph::{Autograd, Network, step::Variables};
use lowering::{
    Precision,
    cpu::{CpuCompiler, Workspace, program},
};
use plan::{Architecture, Model, Optimizer, Train};

static COUNT: AtomicUsize = AtomicUsize::new(0);
static LARGEST: AtomicUsize = AtomicUsize::new(0);
static LIVE: AtomicUsize = AtomicUsize::new(0);

struct Counting;

#[expect(unsafe_code, reason = "an allocator is unsafe to write")]
// SAFETY: the system's allocator does the work.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.fetch_add(1, SeqCst);
        LARGEST.fetch_max(layout.size(), SeqCst);
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

/// Pages that the system has given to this process so far (`minflt` of proc(5)); none where it does not say.
fn page_faults() -> Option<usize> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name of the program, in parentheses, may hold anything; minflt is the eighth field after it.
    stat.rsplit_once(')')?.1.split_whitespace().nth(7)?.parse().ok()
}

#[test]
fn a_step_allocates_no_tensor() {
    let alexnet = Model { architecture: Architecture::AlexNet, width: Some(0.25), ..Model::default() };
    for (model, input, size) in [(Model::default(), [1, 28, 28], 256), (alexnet, [3, 32, 32], 64)] {
        for (threads, precision) in [(1, Precision::F32), (2, Precision::F32), (2, Precision::Bf16)] {
            let network = Network::new(&model, input, 10).expect("a network");
            let train = Train { gradient_clip: Some(1.0), ..Train::default() };
            let variables = Variables::new(&network, Optimizer::Sgd);
            let (mut graph, batch) = variables.training_graph(size, &train);
            graph.compile((Autograd, CpuCompiler::new(&Workspace::new(threads)).with_precision(precision)), ());
            variables.set_hyper(&train, 0.01, 1);
            batch.images.write().fill(0.5);
            batch.targets.write().fill(0.1);
            // States take their memory at first use.
            graph.execute();
            graph.execute();
            let live = LIVE.load(SeqCst);
            let counters = [&COUNT, &LARGEST];
            let faults = page_faults();
            counters.iter().for_each(|counter| counter.store(0, SeqCst));
            const STEPS: usize = 8;
            for _ in 0..STEPS {
                graph.execute();
            }
            let [count, largest] = counters.map(|counter| counter.load(SeqCst));
            let faults = faults.zip(page_faults()).map_or(0, |(before, after)| after - before);
            // A thread of the last network may give its own up meanwhile.
            assert!(LIVE.load(SeqCst) <= live, "steps leave something behind");
            println!(
                "{}, {size} images, {threads} threads, {precision:?}: {} small allocations a step, the largest of {largest} bytes; \
                 {faults} page faults in {STEPS} steps",
                network.name,
                count / STEPS,
            );
            // Lists of places and guards: some bytes for each tensor, none of its values.
            assert!(largest <= 4_096, "{largest} bytes");
            // The lists may make the heap grow by a page; a step that took new memory would fault at each of its pages.
            let pages = program(&graph).memory_plan().arena_bytes / 4096;
            assert!(faults < 16 && pages > 16 * STEPS, "{faults} page faults, where the arena has {pages} pages");
        }
    }
}
