//! The CUDA lowering: the same graph as a fixed sequence of kernel launches over one planned arena on the device.
//!
//! `operators` says which kernels an operator takes, `forms` how values lie in memory, `matrix` how products are cut into tiles, `tensor` the
//! same on tensor cores, for which `packing` copies what does not lie as they want it. `source` writes wrappers with all shapes as
//! constants around the device functions of `kernels/*.cu`, and NVRTC compiles the whole program at once. `program` runs it, `device` finds
//! the GPU, `library` calls the driver, `cache` keeps what was compiled. `feed` brings batches, which `samples` cuts out of images on the
//! device. Nothing of CUDA is needed to build or to start the program.
//!
//! Every sum is taken in an order that shapes alone decide, with no atomics: two runs on one kind of device give equal bits.

mod cache;
mod device;
mod error;
mod feed;
mod forms;
mod library;
mod matrix;
mod operators;
mod packing;
mod precision;
mod program;
mod samples;
mod source;
mod tensor;

use std::{cell::RefCell, rc::Rc};

use graph::Operator;
use luminal::prelude::{Compiler, Graph, NodeIndex, ToIdsMut};

pub use device::{Device, Finding, Libraries, architectures, compile_only};
pub use error::{CudaError, Failure, LEAST_DRIVER};
pub use feed::{Feed, StepResult, feed_source};
pub use program::{KernelTime, MemoryPlan, Program, Session};
pub use samples::{Images, SAMPLE_WORDS};

use self::source::{Epilogue, Plan, View};
use crate::{
    Precision,
    fusion::{Group, groups},
    schedule::{Item, schedule},
};

/// Lowers every operator of a graph into one [`Program`].
#[derive(Clone)]
pub struct CudaCompiler {
    session: Rc<RefCell<Session>>,
    precision: Precision,
}

impl CudaCompiler {
    /// Programs compiled with one session share its stream, its arena and the states on the device.
    pub fn new(session: &Rc<RefCell<Session>>) -> Self {
        Self { session: Rc::clone(session), precision: Precision::F32 }
    }

    /// The same with products in this precision.
    #[must_use]
    pub fn with_precision(self, precision: Precision) -> Self {
        Self { precision, ..self }
    }
}

impl Compiler for CudaCompiler {
    /// What cannot be compiled, or has no room, tells so when it is run: a compiler of luminal cannot fail.
    fn compile<T: ToIdsMut>(&self, graph: &mut Graph, _remap: T) {
        let program = Program::new(lower(graph, self.precision), &self.session);
        graph.graph.clear();
        graph.add_op(program).finish();
    }
}

/// What a graph will need on the device, known without one. The graph must have been through [`graph::Autograd`].
pub fn memory_plan(graph: &Graph, precision: Precision) -> MemoryPlan {
    MemoryPlan::of(&lower(graph, precision))
}

/// The CUDA C source of a graph's program, as NVRTC gets it. The graph must have been through [`graph::Autograd`].
pub fn source(graph: &Graph, precision: Precision) -> String {
    lower(graph, precision).source()
}

/// One launch of a graph's program, in the order in which they run.
#[derive(Clone, Debug, PartialEq)]
pub struct LaunchPlan {
    /// What it computes.
    pub what: &'static str,
    /// Its kernel's name in [`source`].
    pub kernel: String,
    /// Blocks.
    pub blocks: [u32; 3],
    /// Threads of each.
    pub threads: u32,
    /// Bytes of all that it reads, each once.
    pub read_bytes: usize,
    /// Bytes of all that it writes.
    pub written_bytes: usize,
    /// Floating-point operations of its products, with the zeros that fill channels; two for each multiply-add.
    pub flop: f64,
}

/// What a graph's program launches in a step, known without a device. The graph must have been through [`graph::Autograd`].
pub fn launches(graph: &Graph, precision: Precision) -> Vec<LaunchPlan> {
    let plan = lower(graph, precision);
    let launch = |launch: &source::Launch| LaunchPlan {
        what: launch.what,
        kernel: plan.names[launch.kernel].clone(),
        blocks: launch.grid,
        threads: launch.threads,
        read_bytes: launch.read_bytes,
        written_bytes: launch.written_bytes,
        flop: launch.flop,
    };
    plan.launches.iter().map(launch).collect()
}

/// The program of a compiled graph.
///
/// # Panics
/// When the graph was not compiled by [`CudaCompiler`].
pub fn program(graph: &Graph) -> &Program {
    let index: NodeIndex = graph.graph.node_indices().next().expect("a compiled graph has one node");
    let operator = graph.graph.node_weight(index).expect("the index was just found");
    operator.as_any().downcast_ref().expect("the graph was compiled for a GPU")
}

/// Turns a graph into launches over places.
fn lower(graph: &Graph, precision: Precision) -> Plan {
    let items = schedule(graph);
    let fusion = groups(&items);
    let forms = forms::forms(&items, &fusion, precision);
    let mut plan = Plan::new(precision);
    let mut views: Vec<Option<View>> = vec![None; items.len()];
    for item in 0..items.len() {
        let view = |input: usize| views[input].expect("inputs come first");
        match (&items[item].operator, &fusion[item]) {
            (Operator::Source(state), _) => views[item] = Some(plan.state(state)),
            (_, Group::Member) => {}
            (Operator::Reshape(_), Group::Head { .. }) => views[item] = Some(view(items[item].inputs[0])),
            (Operator::Row(row), Group::Head { .. }) => {
                let whole = view(items[item].inputs[0]);
                views[item] = Some(View { offset: whole.offset + row * items[item].output[0], ..whole });
            }
            (_, Group::Head { members }) => {
                let epilogue = Epilogue::new(&items, members, &view);
                let inputs: Vec<View> = items[item].inputs.iter().map(|&input| view(input)).collect();
                let output =
                    (items[item].operator.writes().is_empty()).then(|| plan.value(&items[item].output, forms[item]));
                let again = goes_back(&items, item);
                operators::kernel(&mut plan, &items[item], &inputs, output, epilogue, again);
                for &made in [item].iter().chain(members) {
                    views[made] = output;
                }
            }
        }
    }
    let steps = std::mem::take(&mut plan.steps);
    operators::update(&mut plan, &steps);
    plan
}

/// Whether an item is a max pooling whose gradient is wanted.
fn goes_back(items: &[Item], item: usize) -> bool {
    let Operator::MaxPool(pool) = items[item].operator else { return false };
    let is_gradient = |operator: &Operator| matches!(operator, Operator::MaxPoolGrad(of) if *of == pool);
    items.iter().any(|other| is_gradient(&other.operator) && other.inputs[0] == items[item].inputs[0])
}
