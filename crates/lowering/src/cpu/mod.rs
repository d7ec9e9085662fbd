//! The CPU lowering: register tiles over packed panels, elementwise work fused into its neighbours, one planned arena.
//!
//! One file per operator, mirroring the crate `graph`; `fusion` decides what is computed together, `memory` where
//! values live, `program` runs the kernels, `channels` joins those that work on one channel at a time, and `team` shares their tasks out to
//! threads. `vector` chooses the instructions, `matrix` multiplies, `transpose` turns planes into registers of channels and back, `windows` pools
//! lines of them. Convolutions go
//! through `winograd`, `direct` or `linear`, as `convolution` decides, or in 16 bits through the tiles of `amx`; networks of few channels are
//! lowered as a whole by `lanes`.

mod activation;
mod amx;
mod arithmetic;
mod batch_norm;
mod channels;
mod convolution;
mod cross_entropy;
mod direct;
mod fusion;
mod lanes;
mod linear;
mod local_response;
mod matrix;
mod memory;
mod movement;
mod peak;
mod pooling;
mod program;
mod simd;
mod team;
mod transpose;
mod update;
mod vector;
mod windows;
mod winograd;

use std::{cell::RefCell, collections::HashMap, rc::Rc};

use graph::{Operator, State};
use luminal::prelude::{Compiler, Graph, NodeIndex, ToIdsMut};

pub use arithmetic::{Products, bf16_products};
pub use peak::fma_peak;
pub use program::{MemoryPlan, Program, StepTime, Work, Workspace};
pub use vector::{Level, level, set_level};

use self::{
    amx::linear::Layer,
    batch_norm::Normalized,
    channels::Step,
    fusion::{Epilogue, Group},
    memory::{Place, Slot},
    program::Kernel,
};
use crate::{
    Precision,
    schedule::{Item, schedule},
};

/// Lowers every operator of a graph into one [`Program`].
#[derive(Clone, Debug)]
pub struct CpuCompiler {
    workspace: Rc<RefCell<Workspace>>,
    precision: Precision,
}

impl CpuCompiler {
    /// Programs compiled with one workspace share its threads and arena, so they run one at a time.
    pub fn new(workspace: &Rc<RefCell<Workspace>>) -> Self {
        Self { workspace: Rc::clone(workspace), precision: Precision::default() }
    }

    /// The same with another arithmetic.
    #[must_use]
    pub fn with_precision(self, precision: Precision) -> Self {
        Self { precision, ..self }
    }
}

impl Compiler for CpuCompiler {
    fn compile<T: ToIdsMut>(&self, graph: &mut Graph, _remap: T) {
        let program = lower(graph, self.precision).into_program(&self.workspace);
        graph.graph.clear();
        graph.add_op(program).finish();
    }
}

/// What a graph will need when it runs, known without running or allocating anything. The graph must have been through
/// [`graph::Autograd`].
pub fn memory_plan(graph: &Graph, precision: Precision, threads: usize) -> MemoryPlan {
    lower(graph, precision).memory_plan(threads)
}

/// Runs a compiled graph once.
///
/// # Panics
/// When the graph was not compiled by [`CpuCompiler`].
pub fn program(graph: &Graph) -> &Program {
    let index: NodeIndex = graph.graph.node_indices().next().expect("a compiled graph has one node");
    let operator = graph.graph.node_weight(index).expect("the index was just found");
    operator.as_any().downcast_ref().expect("the graph was compiled for the CPU")
}

/// Kernels and places while they are being collected.
#[derive(Default)]
pub(crate) struct Plan {
    precision: Precision,
    steps: Vec<Step>,
    places: Vec<Place>,
    /// The steps that put values in the place of those that were there.
    replaced: HashMap<Slot, usize>,
    /// States in a form of their own, kept from one run to the next.
    kept: Vec<Kept>,
}

/// A state in a form that products read faster. The program writes it whenever it writes the state.
pub(crate) struct Kept {
    /// The state, and its form.
    slots: [Slot; 2],
    /// Makes the one from the other.
    keeper: Box<dyn Kernel>,
}

impl Plan {
    /// A place for values that live within the step; its lifetime grows with the kernels that touch it.
    fn temporary(&mut self, elements: usize) -> Slot {
        self.places.push(Place::Arena { elements, first: usize::MAX, last: 0 });
        Slot(self.places.len() - 1)
    }

    /// Appends a kernel that touches these slots.
    fn push(&mut self, kernel: impl Kernel + 'static, touches: &[Slot]) {
        self.steps.push(Step::Alone(Box::new(kernel)));
        self.touch(self.steps.len() - 1, touches);
    }

    /// The tiles of these weights, if they are kept.
    fn tiles_of(&self, w: Slot) -> Option<Slot> {
        self.kept.iter().find(|kept| kept.slots[0] == w).map(|kept| kept.slots[1])
    }

    /// Keeps the weights of a layer as tiles, where its products read such.
    fn keep_tiles(&mut self, w: Slot, state: &State, w_shape: &[usize]) {
        let (outputs, inputs) = (w_shape[0], w_shape[1..].iter().product());
        if !amx::linear::keeps_tiles(self.precision, inputs) {
            return;
        }
        let layer = Layer { rows: 0, inputs, outputs };
        self.places.push(Place::State(State::new(format!("{} as tiles", state.name()), &[layer.words()])));
        let tiles = Slot(self.places.len() - 1);
        self.kept.push(Kept { slots: [w, tiles], keeper: amx::linear::keeper(layer, w, tiles) });
    }

    /// Notes that a step touches these slots.
    fn touch(&mut self, step: usize, slots: &[Slot]) {
        for slot in slots {
            if let Place::Arena { first, last, .. } = &mut self.places[slot.0] {
                *first = step.min(*first);
                *last = step.max(*last);
            }
        }
    }
}

/// Turns a graph into kernels over places.
fn lower(graph: &Graph, precision: Precision) -> Plan {
    let items = schedule(graph);
    if let Some(images) = lanes::serves(&items) {
        return lanes::lower(&items, images);
    }
    let fusion = fusion::groups(&items);
    let readers = fusion::readers(&items);
    let joined = fusion::joined_updates(&items, &readers);
    let remade = fusion::remade(&items, &readers, &fusion);
    // What is made where it is read, by the item that has it.
    let mut normalized: HashMap<usize, Normalized> = HashMap::new();
    let mut plan = Plan { precision, ..Plan::default() };
    let mut slots: Vec<Option<Slot>> = vec![None; items.len()];
    for item in 0..items.len() {
        match (&items[item].operator, &fusion[item]) {
            (Operator::Source(state), _) => {
                plan.places.push(Place::State(state.clone()));
                let slot = Slot(plan.places.len() - 1);
                slots[item] = Some(slot);
                if joined.values().any(|&update| items[update].inputs[0] == item) {
                    plan.keep_tiles(slot, state, &items[item].output);
                }
            }
            (Operator::Reshape(_), Group::Member) | (_, Group::Member) => {}
            // Its gradient is made where its update is.
            _ if joined.contains_key(&item) => {}
            (&Operator::Update(rule), _) if joined.values().any(|&update| update == item) => {
                let gradient = &items[items[item].inputs[1]];
                let slot = |input: &usize| slots[*input].expect("inputs come first");
                let x: Vec<Slot> = gradient.inputs.iter().map(slot).collect();
                // The gradient has no place; another input stands where it would be.
                let mut inputs = items[item].inputs.clone();
                inputs[1] = inputs[2];
                let update: Vec<Slot> = inputs.iter().map(slot).collect();
                linear::weight_grad_and_update(&mut plan, gradient.shapes[0][0], &gradient.output, &x, rule, &update);
            }
            (Operator::Reshape(_), Group::Head { .. }) => slots[item] = slots[items[item].inputs[0]],
            (_, Group::Head { members }) => {
                let slot = |input: usize| slots[input].expect("inputs come first");
                if remade.contains(&item) {
                    let inputs: Vec<Slot> = items[item].inputs.iter().map(|&input| slot(input)).collect();
                    let values =
                        Normalized::new(&items[item].shapes[0], &inputs, Epilogue::new(&items, members, &slot));
                    normalized.insert(members.last().copied().unwrap_or(item), values);
                    continue;
                }
                let output = items[item].operator.writes().is_empty().then(|| {
                    if fusion::takes_place_of_gradient(&items, &readers, item) {
                        return slot(items[item].inputs[4]);
                    }
                    plan.temporary(items[item].output.iter().product())
                });
                let x = items[item].inputs.first().and_then(|input| normalized.get(input));
                if let (Some(x), Some(output)) = (x, output) {
                    pool_of_normalized(&mut plan, &items, (item, members), x.clone(), &slot, output);
                } else {
                    let epilogue = Epilogue::new(&items, members, &slot);
                    let inputs: Vec<Slot> = items[item].inputs.iter().map(|&input| slot(input)).collect();
                    kernel(&mut plan, &items[item], &inputs, output, epilogue);
                }
                for &made in [item].iter().chain(members) {
                    slots[made] = output;
                }
            }
        }
    }
    plan
}

/// Appends the kernel of pooling, or of its gradient, for normalized values that are not stored.
fn pool_of_normalized(
    plan: &mut Plan,
    items: &[Item],
    (item, mut members): (usize, &[usize]),
    x: Normalized,
    slot: &dyn Fn(usize) -> Slot,
    output: Slot,
) {
    let (pool, gradient) = match items[item].operator {
        Operator::MaxPool(pool) => (pool, None),
        Operator::MaxPoolGrad(pool) => {
            let [value, dy] = [items[item].inputs[0], items[item].inputs[1]];
            let mut activation = None;
            if let Some((&first, rest)) = members.split_first()
                && let Operator::ActivationGrad(kind) = items[first].operator
                && items[first].inputs[0] == value
            {
                (activation, members) = (Some(kind), rest);
            }
            (pool, Some(pooling::Gradient { dy: slot(dy), activation }))
        }
        ref other => unreachable!("{other:?} reads values that are not stored"),
    };
    let epilogue = Epilogue::new(items, members, slot);
    pooling::of_normalized(plan, pool, &items[item].shapes[0], x, gradient, output, epilogue);
}

/// Appends the kernels of one operator. Exhaustive: an operator without a lowering does not compile.
fn kernel(plan: &mut Plan, item: &Item, x: &[Slot], output: Option<Slot>, epilogue: Epilogue) {
    let y = || output.expect("the operator has a value");
    let shapes = &item.shapes;
    match &item.operator {
        Operator::Source(_) | Operator::Reshape(_) => unreachable!("these have no kernel"),
        Operator::Gradient => unreachable!("autograd comes before lowering"),
        Operator::Fill(value, _) => movement::fill(plan, *value, y(), item.output.iter().product()),
        Operator::Add | Operator::Activation(_) | Operator::ActivationGrad(_) | Operator::Dropout(_) => {
            activation::elementwise(plan, item, x, y(), epilogue);
        }
        Operator::ChannelSum => movement::channel_sum(plan, x[0], &shapes[0], y()),
        Operator::Row(row) => movement::copy(plan, x[0], row * item.output[0], y(), item.output[0]),
        Operator::Stack => movement::stack(plan, x[0], x[1], y(), shapes[0][0]),
        Operator::Store => movement::copy(plan, x[0], 0, x[1], shapes[1].iter().product()),
        Operator::Convolution(a) => convolution::forward(plan, *a, shapes, x, y(), &item.output, epilogue),
        Operator::ConvolutionInputGrad(a, shape) => convolution::input_grad(plan, *a, shapes, x, y(), shape, epilogue),
        Operator::ConvolutionWeightGrad(a, shape) => convolution::weight_grad(plan, *a, shapes, x, y(), shape),
        Operator::Linear => linear::forward(plan, shapes[0][0], shapes[0][1], item.output[1], x, y(), epilogue),
        Operator::LinearInputGrad => linear::input_grad(plan, shapes[1][0], &shapes[0], x, y(), epilogue),
        Operator::LinearWeightGrad => linear::weight_grad(plan, shapes[0][0], &item.output, x, y()),
        Operator::MaxPool(pool) => pooling::max(plan, *pool, &shapes[0], x[0], y(), epilogue),
        Operator::MaxPoolGrad(pool) => pooling::max_grad(plan, *pool, &shapes[0], x, y(), epilogue),
        Operator::AveragePool(pool) => pooling::average(plan, *pool, &shapes[0], x[0], y(), epilogue),
        Operator::AveragePoolGrad(pool, shape) => pooling::average_grad(plan, *pool, shape, x[0], y(), epilogue),
        Operator::BatchStatistics => batch_norm::statistics(plan, &shapes[0], x[0], y()),
        Operator::BatchNormalize => batch_norm::normalize(plan, Normalized::new(&shapes[0], x, epilogue), y()),
        Operator::BatchNormalizeParameterGrad => batch_norm::parameter_grad(plan, &shapes[0], x, y()),
        Operator::BatchNormalizeInputGrad => batch_norm::input_grad(plan, &shapes[0], x, y(), epilogue),
        Operator::UpdateRunning(momentum, count) => {
            batch_norm::update_running(plan, *momentum, *count, shapes[0][0], x);
        }
        Operator::LocalResponse(a) => local_response::forward(plan, *a, &shapes[0], x[0], y(), epilogue),
        Operator::LocalResponseGrad(a) => local_response::grad(plan, *a, &shapes[0], x, y(), epilogue),
        Operator::CrossEntropy => cross_entropy::forward(plan, &shapes[0], x, y()),
        Operator::CrossEntropyGrad => cross_entropy::grad(plan, &shapes[0], x, y()),
        Operator::ClipFactor => update::clip_factor(plan, x, shapes, y()),
        Operator::Update(rule) => update::update(plan, *rule, x, &shapes[0]),
    }
}
