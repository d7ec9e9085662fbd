//! A program while it is being written: kernels as CUDA C, launches over planned places.

use std::{collections::HashMap, fmt::Write};

use graph::{
    Operator, State,
    operators::{Activation, Dropout},
};

use super::{
    forms::{Form, Order, kind_read},
    operators::Step,
    packing::Packing,
};
use crate::Precision;
use crate::{
    fusion::primary,
    memory::{Place, Slot},
    schedule::Item,
};

/// Device functions of all operators; each family tells about itself.
const FAMILIES: [&str; 10] = [
    include_str!("kernels/prelude.cu"),
    include_str!("kernels/forms.cu"),
    include_str!("kernels/elementwise.cu"),
    include_str!("kernels/matrix.cu"),
    include_str!("kernels/linear.cu"),
    include_str!("kernels/convolution.cu"),
    include_str!("kernels/pooling.cu"),
    include_str!("kernels/batch_norm.cu"),
    include_str!("kernels/local_response.cu"),
    concat!(include_str!("kernels/cross_entropy.cu"), include_str!("kernels/update.cu")),
];

/// Device functions of products in reduced precision, which only newer devices have instructions for.
const TENSOR_FAMILIES: [&str; 5] = [
    include_str!("kernels/warp.cu"),
    include_str!("kernels/pixels.cu"),
    include_str!("kernels/packing.cu"),
    include_str!("kernels/tensor.cu"),
    include_str!("kernels/tensor_layers.cu"),
];

/// Threads of a block, unless a kernel says otherwise, as `kernels/prelude.cu` has them.
pub(crate) const THREADS: usize = 256;

/// A value: where a slot's values begin with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct View {
    pub(crate) slot: Slot,
    /// In values of 32 bits.
    pub(crate) offset: usize,
    pub(crate) form: Form,
}

/// What a launch hands to its kernel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Argument {
    View(View),
    Int(i32),
    Float(f32),
}

/// One kernel, launched once in a step.
#[derive(Clone, Debug)]
pub(crate) struct Launch {
    /// What it computes, for profiles.
    pub(crate) what: &'static str,
    /// Position of its kernel's name.
    pub(crate) kernel: usize,
    /// Blocks.
    pub(crate) grid: [u32; 3],
    /// Threads of each.
    pub(crate) threads: u32,
    pub(crate) arguments: Vec<Argument>,
    /// What it moves, if each value is read and written once, in bytes.
    pub(crate) read_bytes: usize,
    pub(crate) written_bytes: usize,
    /// Of products, two for each multiply-add.
    pub(crate) flop: f64,
}

/// A state that a program uses.
#[derive(Clone, Debug)]
pub(crate) struct Used {
    pub(crate) state: State,
    /// Whether its values before the step matter.
    pub(crate) read: bool,
    /// Whether the step changes it.
    pub(crate) written: bool,
}

/// Kernels and places while they are being collected.
#[derive(Default)]
pub(crate) struct Plan {
    pub(crate) names: Vec<String>,
    wrappers: Vec<String>,
    known: HashMap<String, usize>,
    pub(crate) launches: Vec<Launch>,
    pub(crate) places: Vec<Place>,
    /// By slot; none for places of the arena.
    pub(crate) states: Vec<Option<Used>>,
    /// Largest number of values that a kernel indexes.
    pub(crate) largest: usize,
    /// Of products.
    pub(crate) precision: Precision,
    /// Copies of values that have not been written since: packed ones, and without a packing those in planes.
    pub(crate) copies: HashMap<(View, Option<Packing>), View>,
    /// By what was pooled, and how (size, stride): where the largest values of its windows are, and in which order.
    pub(crate) positions: HashMap<(View, usize, usize), (View, Order)>,
    /// Updates of small parameters, which come together at the end.
    pub(crate) steps: Vec<Step>,
}

impl Plan {
    /// With products in this precision.
    pub(crate) fn new(precision: Precision) -> Self {
        Self { precision, ..Self::default() }
    }

    fn place(&mut self, place: Place, state: Option<Used>) -> View {
        self.places.push(place);
        self.states.push(state);
        View { slot: Slot(self.places.len() - 1), offset: 0, form: Form::Planes }
    }

    /// A place for values that live within the step; its lifetime grows with the launches that touch it.
    pub(crate) fn temporary(&mut self, elements: usize) -> View {
        self.largest = self.largest.max(elements);
        self.place(Place::Arena { elements, first: usize::MAX, last: 0 }, None)
    }

    /// A state's own place.
    pub(crate) fn state(&mut self, state: &State) -> View {
        self.largest = self.largest.max(state.elements());
        self.place(Place::State(state.clone()), Some(Used { state: state.clone(), read: false, written: false }))
    }

    /// Appends a launch of `call`, whose body is a call of a device function.
    pub(crate) fn launch(&mut self, call: Call, grid: [usize; 3], body: &str) {
        let step = self.launches.len();
        let (mut read_bytes, mut written_bytes) = (0, 0);
        for (argument, access) in call.arguments.iter().zip(&call.accesses) {
            let Argument::View(view) = argument else { continue };
            let bytes = size_of::<f32>()
                * match &self.places[view.slot.0] {
                    Place::Arena { elements, .. } => *elements,
                    Place::State(state) => state.elements(),
                };
            read_bytes += if *access == Access::Write { 0 } else { bytes };
            written_bytes += if *access == Access::Read { 0 } else { bytes };
            if let Place::Arena { first, last, .. } = &mut self.places[view.slot.0] {
                *first = step.min(*first);
                *last = step.max(*last);
            }
            if *access != Access::Read {
                self.copies.retain(|(source, _), _| source.slot != view.slot);
            }
            if let Some(used) = &mut self.states[view.slot.0] {
                used.read |= *access != Access::Write;
                used.written |= *access != Access::Read;
            }
        }
        let text = format!("{}#({}) {{ {body}; }}", call.epilogue, call.parameters.join(", "));
        let kernel = match self.known.get(&text) {
            Some(&kernel) => kernel,
            None => {
                let kernel = self.names.len();
                let name = format!("{}_{kernel}", call.what.replace(' ', "_"));
                let head = format!("extern \"C\" __global__ void __launch_bounds__({}) {name}", call.threads);
                // `@` tells the epilogues of kernels apart, `#` is where the kernel's own head goes.
                self.wrappers.push(text.replace('#', &head).replace('@', &kernel.to_string()));
                self.names.push(name);
                self.known.insert(text, kernel);
                kernel
            }
        };
        let grid = grid.map(|extent| u32::try_from(extent.max(1)).unwrap_or(u32::MAX));
        let Call { what, threads, arguments, flop, .. } = call;
        let threads = threads as u32;
        self.launches.push(Launch { what, kernel, grid, threads, arguments, read_bytes, written_bytes, flop });
    }

    /// The same with so many threads, and those that fill the last block.
    pub(crate) fn launch_over(&mut self, call: Call, threads: usize, body: &str) {
        self.launch(call, [threads.div_ceil(THREADS), 1, 1], body);
    }

    /// The whole program as one CUDA C source.
    pub(crate) fn source(&self) -> String {
        let tensor = if self.precision == Precision::F32 { &[][..] } else { &TENSOR_FAMILIES };
        let families = FAMILIES.iter().chain(tensor).copied();
        families.chain(self.wrappers.iter().map(String::as_str)).collect::<Vec<_>>().join("\n")
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    Read,
    Write,
    Both,
}

/// A kernel's parameters, and what is handed over for them.
pub(crate) struct Call {
    what: &'static str,
    parameters: Vec<String>,
    arguments: Vec<Argument>,
    accesses: Vec<Access>,
    /// Definition of the epilogue's type, if there is one.
    epilogue: String,
    threads: usize,
    flop: f64,
}

impl Call {
    pub(crate) fn new(what: &'static str) -> Self {
        Self {
            what,
            parameters: Vec::new(),
            arguments: Vec::new(),
            accesses: Vec::new(),
            epilogue: String::new(),
            threads: THREADS,
            flop: 0.0,
        }
    }

    /// The same in blocks of so many threads.
    pub(crate) fn with_threads(self, threads: usize) -> Self {
        Self { threads, ..self }
    }

    /// Says that so many multiply-adds are done.
    pub(crate) fn multiplies(&mut self, multiply_adds: usize) {
        self.flop = 2.0 * multiply_adds as f64;
    }

    fn add(&mut self, kind: &str, argument: Argument, access: Access) -> String {
        let name = format!("p{}", self.parameters.len());
        self.parameters.push(format!("{kind} {name}"));
        self.arguments.push(argument);
        self.accesses.push(access);
        name
    }

    /// A value in planes that is only read; gives the parameter's name, as all of these do.
    pub(crate) fn reads(&mut self, view: View) -> String {
        assert_eq!(view.form, Form::Planes, "{} does not know pixels", self.what);
        self.add("const float* __restrict__", Argument::View(view), Access::Read)
    }

    /// A value in planes that is written, every element of it.
    pub(crate) fn writes(&mut self, view: View) -> String {
        assert_eq!(view.form, Form::Planes, "{} does not know pixels", self.what);
        self.add("float* __restrict__", Argument::View(view), Access::Write)
    }

    /// Values of another type that are only read.
    pub(crate) fn reads_as(&mut self, kind: &str, view: View) -> String {
        self.add(&format!("const {kind}* __restrict__"), Argument::View(view), Access::Read)
    }

    /// Values of another type, every one of which is written.
    pub(crate) fn writes_as(&mut self, kind: &str, view: View) -> String {
        self.add(&format!("{kind}* __restrict__"), Argument::View(view), Access::Write)
    }

    /// A packed copy that is only read.
    pub(crate) fn reads_packed(&mut self, view: View, precision: Precision) -> String {
        self.reads_as(&format!("{}::Value", precision.kind()), view)
    }

    /// A packed copy that is written, every value of it.
    pub(crate) fn writes_packed(&mut self, view: View, precision: Precision) -> String {
        self.writes_as(&format!("{}::Value", precision.kind()), view)
    }

    /// A value that is changed in place.
    pub(crate) fn changes(&mut self, view: View) -> String {
        self.add("float* __restrict__", Argument::View(view), Access::Both)
    }

    /// A number.
    pub(crate) fn int(&mut self, value: usize) -> String {
        self.add("int", Argument::Int(i32::try_from(value).unwrap_or(i32::MAX)), Access::Read)
    }

    /// A number.
    pub(crate) fn float(&mut self, value: f32) -> String {
        self.add("float", Argument::Float(value), Access::Read)
    }

    /// What is done to each value before it is stored, as an argument of the device function.
    pub(crate) fn epilogue(&mut self, epilogue: &Epilogue) -> String {
        if epilogue.0.is_empty() {
            return "Keep{}".to_owned();
        }
        let (mut fields, mut lines, mut given) = (String::new(), String::new(), Vec::new());
        for operation in &epilogue.0 {
            let number = given.len();
            // Another operand becomes a field, and its values an array. Writing to a string cannot fail.
            let other = match *operation {
                Elementwise::ActivationGrad(_, other) | Elementwise::Add(other) => Some(other),
                Elementwise::Activation(_) | Elementwise::Dropout(..) => None,
            };
            if let Some(view) = other {
                let _ = write!(fields, "{} e{number}; ", kind_read(view.form));
                let _ = write!(lines, "float o{number}[LANES]; e{number}.load(at, o{number}); ");
                given.push(self.takes(view));
            }
            let value = match *operation {
                Elementwise::Activation(kind) => format!("activate<{}>(values[j])", nonlinearity(kind)),
                Elementwise::ActivationGrad(kind, _) => {
                    format!("activate_gradient<{}>(o{number}[j], values[j])", nonlinearity(kind))
                }
                Elementwise::Add(_) => format!("values[j] + o{number}[j]"),
                Elementwise::Dropout(dropout, key) => {
                    let (layer, threshold, scale) = (dropout.layer, dropout.threshold(), dropout.scale() as f32);
                    let _ = write!(fields, "DropWords e{number}; ");
                    given.push(format!("DropWords({}, {layer}u)", self.reads(key)));
                    let _ = write!(lines, "drop(values, at, e{number}, {threshold}u, {scale:?}f); ");
                    continue;
                }
            };
            let _ = write!(lines, "for (int j = 0; j < LANES; j++) values[j] = {value}; ");
        }
        self.epilogue = format!(
            "struct Epilogue@ {{ {fields}template <int LANES> DEVICE void operator()(float (&values)[LANES], Spot at) const {{ {lines}}} }};\n"
        );
        format!("Epilogue@{{{}}}", given.join(", "))
    }
}

fn nonlinearity(kind: Activation) -> &'static str {
    match kind {
        Activation::Relu => "RELU",
        Activation::Tanh => "TANH",
        Activation::Sigmoid => "SIGMOID",
    }
}

/// One elementwise operation on a value that is on its way to memory.
#[derive(Clone, Copy, Debug)]
enum Elementwise {
    Activation(Activation),
    ActivationGrad(Activation, View),
    Dropout(Dropout, View),
    Add(View),
}

/// What a kernel does to its output before it stores it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Epilogue(Vec<Elementwise>);

impl Epilogue {
    /// The members of a group, in order.
    pub(crate) fn new(items: &[Item], members: &[usize], view: &dyn Fn(usize) -> View) -> Self {
        let operation = |&member: &usize| {
            let item = &items[member];
            Self::operation(item, primary(item).unwrap_or(item.inputs[0]), view)
        };
        Self(members.iter().map(operation).collect())
    }

    /// An elementwise operator by itself: what it transforms, and how, with what follows it.
    pub(crate) fn alone(item: &Item, x: &[View], then: Self) -> (View, Self) {
        let main = primary(item).unwrap_or(item.inputs[0]);
        let view = |input: usize| {
            let position = item.inputs.iter().position(|&i| i == input);
            x[position.expect("it is one of the inputs")]
        };
        let mut all = Self(vec![Self::operation(item, main, &view)]);
        all.0.extend(then.0);
        (view(main), all)
    }

    /// The same with all operands in planes, for kernels that know positions alone.
    pub(crate) fn in_planes(self, plan: &mut Plan) -> Self {
        let planes = |operation| match operation {
            Elementwise::ActivationGrad(kind, y) => Elementwise::ActivationGrad(kind, plan.planes(y)),
            Elementwise::Add(other) => Elementwise::Add(plan.planes(other)),
            Elementwise::Activation(_) | Elementwise::Dropout(..) => operation,
        };
        Self(self.0.into_iter().map(planes).collect())
    }

    fn operation(item: &Item, main: usize, view: &dyn Fn(usize) -> View) -> Elementwise {
        match item.operator {
            Operator::Activation(kind) => Elementwise::Activation(kind),
            Operator::ActivationGrad(kind) => Elementwise::ActivationGrad(kind, view(item.inputs[0])),
            Operator::Dropout(dropout) => Elementwise::Dropout(dropout, view(item.inputs[1])),
            Operator::Add => {
                Elementwise::Add(view(if item.inputs[0] == main { item.inputs[1] } else { item.inputs[0] }))
            }
            ref other => unreachable!("{other:?} is not elementwise"),
        }
    }
}
