//! The second lowering, for networks of few channels: an image in each vector lane.
//!
//! Where channels are few, neither rows of pixels nor channels fill vectors well: windows must be gathered, edges
//! padded, maps of 5×5 pixels cut short. With images in the lanes every pixel of every map is a whole vector, and each
//! operator is plain arithmetic on vectors, whatever its kernel, stride or window. Batches are cut into blocks of as many
//! images as a vector has lanes; the whole forward and backward pass of one block is one task ([`chain`]), so that its
//! values stay in the thread's cache. What concerns all images (gradients of parameters, the loss) follows in kernels
//! that add up the blocks' shares in their order. Parameters keep PyTorch's layouts.
//!
//! One file per family of operators; [`roles`] says what is served.

#![allow(clippy::needless_range_loop, reason = "arrays of vectors in registers are addressed by number")]

mod boundary;
mod chain;
mod convolution;
mod elementwise;
mod gradient;
mod linear;
mod loss;
mod pooling;
mod roles;
mod weight_gradient;

use std::collections::HashMap;

use graph::{
    Operator,
    operators::{Activation, Convolution},
};

use self::{
    chain::{Chains, Id},
    convolution::{Extents, Pack, Products},
    elementwise::{Elementwise, Operation},
    gradient::{Gradient, Origin, Target},
    pooling::Planes,
    roles::{Role, roles},
    weight_gradient::WeightGrad,
};
use super::{
    Plan,
    fusion::Epilogue,
    kernel,
    memory::{Place, Slot},
    vector::{Level, level},
};
use crate::schedule::Item;

/// Most weights of a convolution: beyond, channels are many enough to fill vectors, and partial gradients of every block
/// would take more memory than the images.
const LARGEST_CONVOLUTION: usize = 1 << 16;
/// Most weights of a linear layer: every block reads them.
const LARGEST_LINEAR: usize = 1 << 20;
/// Most values of one layer's output for one image, so that a block's stay in the L2 cache.
const LARGEST_MAP: usize = 1 << 15;

/// Images of a block.
fn lanes(level: Level) -> usize {
    match level {
        Level::Neon => 4,
        Level::Avx2 => 8,
        Level::Portable | Level::Avx512 | Level::Amx => 16,
    }
}

/// Images of the batch, if this lowering serves the graph.
pub(super) fn serves(items: &[Item]) -> Option<usize> {
    let images = items.iter().find_map(|item| match item.operator {
        Operator::Convolution(_) | Operator::Linear => Some(item.shapes[0][0]),
        _ => None,
    })?;
    // Blocks that are mostly empty take as long as full ones.
    if 2 * images < lanes(level()) {
        return None;
    }
    let all: Vec<(Vec<Role>, Role)> = items.iter().map(|item| roles(&item.operator)).collect::<Option<_>>()?;
    for (item, (takes, gives)) in items.iter().zip(&all) {
        let batch = |shape: &[usize]| shape.len() > 1 && shape[0] == images;
        if *gives == Role::Batch && (!batch(&item.output) || item.output[1..].iter().product::<usize>() > LARGEST_MAP) {
            return None;
        }
        for ((&input, take), shape) in item.inputs.iter().zip(takes).zip(&item.shapes) {
            let fits = match (all[input].1, take) {
                (given, take) if given == *take => true,
                // Values that a chain reads must be there before it starts.
                (Role::State, Role::Whole) => true,
                (Role::State, Role::Batch) => batch(shape),
                _ => false,
            };
            if !fits {
                return None;
            }
        }
        let computed =
            |input: usize| all[input].1 == Role::Whole && !matches!(items[input].operator, Operator::Fill(..));
        let late = |inputs: &[usize]| inputs.iter().any(|&input| computed(item.inputs[input]));
        let weights = |shape: &[usize]| shape.iter().product::<usize>();
        let served = match &item.operator {
            Operator::Convolution(a) => {
                let e = extents(*a, &item.shapes[0], &item.shapes[1], &item.output);
                let most = if e.is_linear() { LARGEST_LINEAR } else { LARGEST_CONVOLUTION };
                !late(&[2]) && weights(&item.shapes[1]) <= most
            }
            Operator::Linear => !late(&[1, 2]) && weights(&item.shapes[1]) <= LARGEST_LINEAR,
            Operator::LinearInputGrad => !late(&[0]),
            Operator::CrossEntropyGrad => !late(&[2]),
            // What is stored is not read by anything else in the step.
            Operator::Store => {
                let target = item.inputs[1];
                items.iter().filter(|other| other.inputs.contains(&target)).count() == 1
            }
            Operator::ClipFactor | Operator::Update(_) => item.inputs.iter().all(|&input| all[input].1 != Role::Batch),
            _ => true,
        };
        if !served {
            return None;
        }
    }
    Some(images)
}

fn extents(a: Convolution, x: &[usize], w: &[usize], y: &[usize]) -> Extents {
    let Convolution { stride, padding, .. } = a;
    Extents { c: x[1], h: x[2], w: x[3], o: w[0], oh: y[2], ow: y[3], kh: w[2], kw: w[3], stride, padding }
}

/// The only chain: forward and backward pass.
const PASS: usize = 0;

struct Lowering<'a> {
    items: &'a [Item],
    images: usize,
    plan: Plan,
    chains: Chains,
    pack: Pack,
    /// Number of items that read each item's value.
    readers: Vec<usize>,
    /// Places of states and values of the whole step.
    slots: Vec<Option<Slot>>,
    /// Values of batches.
    values: Vec<Option<Id>>,
    /// Reads of each value that are still to come.
    waiting: HashMap<usize, usize>,
    /// Values of items with zeros round their planes.
    padded: HashMap<(usize, usize), Id>,
    origins: Vec<Option<Origin>>,
}

/// Turns a graph that [`serves`] accepts into kernels over places.
pub(super) fn lower(items: &[Item], images: usize) -> Plan {
    let level = level();
    let lanes = lanes(level);
    let mut readers = vec![0; items.len()];
    items.iter().flat_map(|item| &item.inputs).for_each(|&input| readers[input] += 1);
    let mut lowering = Lowering {
        items,
        images,
        plan: Plan::default(),
        chains: Chains::new(level, lanes, images.div_ceil(lanes), 1),
        pack: Pack::default(),
        readers,
        slots: vec![None; items.len()],
        values: vec![None; items.len()],
        waiting: HashMap::new(),
        padded: HashMap::new(),
        origins: vec![None; items.len()],
    };
    lowering.run();
    lowering.plan
}

impl Lowering<'_> {
    fn run(&mut self) {
        let items = self.items;
        for (i, item) in items.iter().enumerate() {
            match &item.operator {
                Operator::Source(state) => {
                    self.plan.places.push(Place::State(state.clone()));
                    self.slots[i] = Some(Slot(self.plan.places.len() - 1));
                }
                Operator::Fill(..) => self.whole(i),
                _ => {}
            }
        }
        for i in 0..items.len() {
            self.step(i);
        }
        std::mem::take(&mut self.pack).push(&mut self.plan);
        self.chains.finish(PASS, &mut self.plan);
        self.parameters();
        for (i, item) in items.iter().enumerate() {
            match item.operator {
                Operator::CrossEntropy => {
                    let Some(Origin::Partial(losses)) = self.origins[i] else { unreachable!("the chain made it") };
                    let y = self.plan.temporary(1);
                    self.slots[i] = Some(y);
                    loss::mean(&mut self.plan, losses, y, self.images);
                }
                Operator::ClipFactor => self.whole(i),
                _ => {}
            }
        }
        for (i, item) in items.iter().enumerate() {
            match item.operator {
                Operator::Store if self.values[item.inputs[0]].is_none() => self.whole(i),
                Operator::Update(_) if self.slots[item.inputs[1]].is_some() => self.whole(i),
                _ => {}
            }
        }
    }

    /// The kernels of the gradients that the chain left shares of, with the updates that alone read them.
    fn parameters(&mut self) {
        let items = self.items;
        let mut all = Vec::new();
        for (i, item) in items.iter().enumerate() {
            let Some(origin) = self.origins[i] else { continue };
            if item.operator == Operator::CrossEntropy {
                continue;
            }
            let elements = item.output.iter().product();
            let update = items.iter().find(|reader| {
                matches!(reader.operator, Operator::Update(_)) && reader.inputs[1] == i && self.readers[i] == 1
            });
            let target = match update {
                // The factor that clips is known only when all gradients are.
                Some(Item { operator: Operator::Update(rule), inputs, .. }) if inputs.len() == 3 + rule.moments() => {
                    let slot = |input: usize| self.slots[input].expect("states have places");
                    let x = inputs.iter().enumerate().map(|(k, &input)| slot(if k == 1 { inputs[2] } else { input }));
                    Target::Update(*rule, x.collect())
                }
                _ => {
                    let slot = self.plan.temporary(elements);
                    self.slots[i] = Some(slot);
                    Target::Slot(slot)
                }
            };
            all.push(Gradient { elements, origin, target });
        }
        gradient::push(&mut self.plan, self.chains.level, self.images, all);
    }

    /// An operator on values of the whole step, by the other lowering's kernel.
    fn whole(&mut self, i: usize) {
        let item = &self.items[i];
        let inputs: Vec<Slot> = item.inputs.iter().map(|&input| self.slots[input].expect("it is there")).collect();
        if item.operator.writes().is_empty() {
            self.slots[i] = Some(self.plan.temporary(item.output.iter().product()));
        }
        kernel(&mut self.plan, item, &inputs, self.slots[i], Epilogue::default());
    }

    fn slot(&self, i: usize, input: usize) -> Slot {
        self.slots[self.items[i].inputs[input]].expect("it comes before the chain")
    }

    fn features(shape: &[usize]) -> usize {
        shape[1..].iter().product()
    }

    /// A new value for an item, and for the one that it is fused with.
    fn give(&mut self, i: usize, id: Id) {
        *self.waiting.entry(id.0).or_default() += self.readers[i];
        self.values[i] = Some(id);
    }

    fn new_value(&mut self, i: usize) -> Id {
        let id = self.chains.value(Self::features(&self.items[i].output));
        self.give(i, id);
        id
    }

    /// The value of an input, with zeros round its planes; counts as read.
    fn take_padded(&mut self, i: usize, input: usize, zeros: usize) -> Id {
        let source = self.items[i].inputs[input];
        let shape = &self.items[i].shapes[input];
        if let Some(id) = self.values[source] {
            *self.waiting.get_mut(&id.0).expect("it has readers") -= 1;
            if zeros == 0 {
                return id;
            }
        }
        if let Some(&id) = self.padded.get(&(source, zeros)) {
            return id;
        }
        let plane = |d: usize| shape.get(d).copied().unwrap_or(1);
        let (h, w) = if zeros > 0 { (plane(2), plane(3)) } else { (1, shape[2..].iter().product()) };
        let padding = boundary::Padding { channels: shape[1], h, w, zeros };
        let (images, lanes) = (self.images, self.chains.lanes);
        let y = self.chains.value(padding.padded());
        match self.values[source] {
            Some(x) => self.chains.push(PASS, boundary::Pad { x, y, lanes, padding }, &[x, y], &[]),
            None => {
                let x = self.slots[source].expect("it is a state");
                self.chains.push(PASS, boundary::Enter { x, y, images, lanes, padding }, &[y], &[x]);
            }
        }
        self.padded.insert((source, zeros), y);
        y
    }

    fn take(&mut self, i: usize, input: usize) -> Id {
        self.take_padded(i, input, 0)
    }

    /// Rows of images of a value, for the product of a weight gradient or a state.
    fn leave(&mut self, x: Id, features: usize, y: Slot, stride: usize) {
        let (images, lanes) = (self.images, self.chains.lanes);
        self.chains.push(PASS, boundary::Leave { x, y, images, lanes, features, stride }, &[x], &[y]);
    }

    /// The only reader of an item's value, if it is one.
    fn reader(&self, i: usize) -> Option<usize> {
        let found = self.items.iter().position(|item| item.inputs.contains(&i))?;
        (self.readers[i] == 1).then_some(found)
    }

    /// The activation that an item's value goes through, if nothing else reads it; its output is the item's, then.
    fn fused_activation(&mut self, i: usize) -> (Option<Activation>, Id) {
        if let Some(reader) = self.reader(i)
            && let Operator::Activation(kind) = self.items[reader].operator
        {
            return (Some(kind), self.new_value(reader));
        }
        (None, self.new_value(i))
    }

    /// out = operation(x, other), in place if nothing else will read x.
    fn elementwise(&mut self, i: usize, operation: Operation, x: usize, other: Option<usize>, slots: &[Slot]) {
        let x_id = self.take(i, x);
        let other = other.map(|other| self.take(i, other));
        let last = self.waiting.get(&x_id.0) == Some(&0);
        let out = if last {
            self.give(i, x_id);
            x_id
        } else {
            self.new_value(i)
        };
        // x + x where x lives on.
        let other = if other == Some(x_id) && out != x_id { Some(out) } else { other };
        let lanes = self.chains.lanes;
        let touched: Vec<Id> = [x_id, out].into_iter().chain(other).collect();
        self.chains.push(PASS, Elementwise { operation, x: x_id, other, out, lanes }, &touched, slots);
    }

    /// Appends the steps of one item to the chain.
    fn step(&mut self, i: usize) {
        let item = &self.items[i];
        if self.values[i].is_some() {
            return; // Fused with its input.
        }
        let shapes = &item.shapes;
        let (level_blocks, lanes, images) = (self.chains.blocks, self.chains.lanes, self.images);
        match &item.operator {
            Operator::Source(_) | Operator::Fill(..) | Operator::ClipFactor | Operator::Update(_) => {}
            Operator::Reshape(_) => {
                let id = self.take(i, 0);
                self.give(i, id);
            }
            Operator::Add => self.elementwise(i, Operation::Add, 0, Some(1), &[]),
            Operator::Activation(kind) => self.elementwise(i, Operation::Activation(*kind), 0, None, &[]),
            Operator::ActivationGrad(kind) => {
                self.elementwise(i, Operation::ActivationGrad(*kind), 1, Some(0), &[]);
            }
            Operator::Dropout(dropout) => {
                let key = self.slot(i, 1);
                let operation = Operation::Dropout(*dropout, key, Self::features(&item.output));
                self.elementwise(i, operation, 0, None, &[key]);
            }
            Operator::ChannelSum => {
                let x = self.take(i, 0);
                let channels = item.output[0];
                let partial = self.plan.temporary(level_blocks * channels);
                self.chains.push(PASS, elementwise::ChannelSum { x, partial, channels }, &[x], &[partial]);
                self.origins[i] = Some(Origin::Partial(partial));
            }
            Operator::Convolution(a) => {
                let e = extents(*a, &shapes[0], &shapes[1], &item.output);
                let x = self.take_padded(i, 0, a.padding);
                let (w, bias) = (self.slot(i, 1), self.slot(i, 2));
                let (activation, y) = self.fused_activation(i);
                if e.is_linear() {
                    self.chains.push(PASS, linear::Linear { x, y, w, bias, activation }, &[x, y], &[w, bias]);
                } else {
                    let packed = self.pack.add(&mut self.plan, w, e, false);
                    let products = Products::forward(e, lanes, (x, y), (packed, bias), activation);
                    self.chains.push(PASS, products, &[x, y], &[packed, bias]);
                }
                self.chains.note_work(PASS, images * e.multiply_adds());
            }
            Operator::Linear => {
                let x = self.take(i, 0);
                let (w, bias) = (self.slot(i, 1), self.slot(i, 2));
                let (activation, y) = self.fused_activation(i);
                self.chains.push(PASS, linear::Linear { x, y, w, bias, activation }, &[x, y], &[w, bias]);
                self.chains.note_work(PASS, images * shapes[1].iter().product::<usize>());
            }
            Operator::ConvolutionInputGrad(a, shape) => {
                let e = extents(*a, shape, &shapes[0], &shapes[1]);
                let dy = self.take(i, 1);
                let w = self.slot(i, 0);
                let dx = self.new_value(i);
                if e.is_linear() {
                    self.chains.push(PASS, linear::LinearInputGrad { dy, dx, w }, &[dy, dx], &[w]);
                } else {
                    let packed = self.pack.add(&mut self.plan, w, e, true);
                    self.chains.push(PASS, Products::input_grad(e, lanes, (dy, dx), packed), &[dy, dx], &[packed]);
                }
                self.chains.note_work(PASS, images * e.multiply_adds());
            }
            Operator::LinearInputGrad => {
                let dy = self.take(i, 1);
                let w = self.slot(i, 0);
                let dx = self.new_value(i);
                self.chains.push(PASS, linear::LinearInputGrad { dy, dx, w }, &[dy, dx], &[w]);
                self.chains.note_work(PASS, images * shapes[0].iter().product::<usize>());
            }
            Operator::ConvolutionWeightGrad(a, shape) => {
                let e = extents(*a, &shapes[0], shape, &shapes[1]);
                if e.is_linear() {
                    self.rows(i, e.taps(), e.o);
                    return;
                }
                let x = self.take_padded(i, 0, a.padding);
                let dy = self.take(i, 1);
                let partial = self.plan.temporary(level_blocks * e.o * e.taps());
                let strip = WeightGrad::strip(&e, lanes);
                let sums = (strip < e.oh).then(|| self.chains.value(e.o * e.taps()));
                let touched: Vec<Id> = [x, dy].into_iter().chain(sums).collect();
                self.chains.push(PASS, WeightGrad::new(e, strip, (x, dy, sums), partial), &touched, &[partial]);
                self.chains.note_work(PASS, images * e.multiply_adds());
                self.origins[i] = Some(Origin::Partial(partial));
            }
            Operator::LinearWeightGrad => self.rows(i, shapes[0][1], shapes[1][1]),
            Operator::MaxPool(pool) | Operator::AveragePool(pool) => {
                let kind = match item.operator {
                    Operator::MaxPool(_) => pooling::Kind::Max,
                    _ => pooling::Kind::Average,
                };
                let x = self.take(i, 0);
                let y = self.new_value(i);
                let planes = Planes::new(*pool, &shapes[0]);
                self.chains.push(PASS, pooling::Pooling { kind, planes, x, y }, &[x, y], &[]);
            }
            Operator::MaxPoolGrad(pool) => {
                let (x, dy) = (self.take(i, 0), self.take(i, 1));
                let dx = self.new_value(i);
                let planes = Planes::new(*pool, &shapes[0]);
                self.chains.push(PASS, pooling::MaxGrad { planes, x, dy, dx }, &[x, dy, dx], &[]);
            }
            Operator::AveragePoolGrad(pool, shape) => self.average_grad(i, Planes::new(*pool, shape)),
            Operator::CrossEntropy => {
                let logits = self.take(i, 0);
                let targets = self.slot(i, 1);
                let losses = self.plan.temporary(level_blocks * lanes);
                let out = loss::Output::Losses(losses);
                let step = loss::CrossEntropy { logits, targets, images, classes: shapes[0][1], lanes, out };
                self.chains.push(PASS, step, &[logits], &[targets, losses]);
                self.origins[i] = Some(Origin::Partial(losses));
            }
            Operator::CrossEntropyGrad => {
                let logits = self.take(i, 0);
                let (targets, dloss) = (self.slot(i, 1), self.slot(i, 2));
                let gradient = self.new_value(i);
                let out = loss::Output::Gradient(dloss, gradient);
                let step = loss::CrossEntropy { logits, targets, images, classes: shapes[0][1], lanes, out };
                self.chains.push(PASS, step, &[logits, gradient], &[targets, dloss]);
            }
            Operator::Store => {
                if self.values[item.inputs[0]].is_some() {
                    let x = self.take(i, 0);
                    let features = Self::features(&shapes[0]);
                    let y = self.slot(i, 1);
                    self.leave(x, features, y, features);
                }
            }
            Operator::Gradient
            | Operator::BatchStatistics
            | Operator::BatchNormalize
            | Operator::BatchNormalizeParameterGrad
            | Operator::BatchNormalizeInputGrad
            | Operator::UpdateRunning(..)
            | Operator::LocalResponse(_)
            | Operator::LocalResponseGrad(_)
            | Operator::Row(_)
            | Operator::Stack => unreachable!("{:?} is not served", item.operator),
        }
    }

    /// Leaves rows of x and dy for the product that is a layer's weight gradient.
    fn rows(&mut self, i: usize, inputs: usize, outputs: usize) {
        let (x_id, dy_id) = (self.take(i, 0), self.take(i, 1));
        let (x_stride, dy_stride) = (gradient::stride(inputs, true), gradient::stride(outputs, false));
        let x = self.plan.temporary(self.images * x_stride);
        let dy = self.plan.temporary(self.images * dy_stride);
        self.leave(x_id, inputs, x, x_stride);
        self.leave(dy_id, outputs, dy, dy_stride);
        self.origins[i] = Some(Origin::Rows { dy, x, outputs, inputs });
    }

    /// With the gradient of the activation before the pool, over the activation's output if that is not needed any more.
    fn average_grad(&mut self, i: usize, planes: Planes) {
        let dy = self.take(i, 0);
        if let Some(reader) = self.reader(i)
            && let Operator::ActivationGrad(kind) = self.items[reader].operator
            && self.items[reader].inputs[0] != i
            && self.values[self.items[reader].inputs[0]].is_some()
        {
            let y = self.take(reader, 0);
            let last = self.waiting.get(&y.0) == Some(&0) && y != dy;
            let (dx, y) = if last {
                self.give(reader, y);
                (y, None)
            } else {
                (self.new_value(reader), Some(y))
            };
            let touched: Vec<Id> = [dy, dx].into_iter().chain(y).collect();
            let activation = Some(kind);
            self.chains.push(PASS, pooling::AverageGrad { planes, activation, y, dy, dx }, &touched, &[]);
            return;
        }
        let dx = self.new_value(i);
        self.chains.push(PASS, pooling::AverageGrad { planes, activation: None, y: None, dy, dx }, &[dy, dx], &[]);
    }
}
