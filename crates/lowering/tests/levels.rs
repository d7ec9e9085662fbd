//! Both lowerings judged by the reference, with every width of vectors that this processor runs. Alone in its binary, because
//! the width is chosen for the whole process.

#[allow(dead_code, reason = "other tests use the rest")]
#[path = "../../graph/tests/support/mod.rs"]
mod support;

use std::sync::{Mutex, MutexGuard, PoisonError};

use graph::{
    Autograd, Builder, Network, Operator, State, Value,
    operators::{Activation, Convolution, Dropout, LocalResponse, Pool, Rule, update},
    step::Variables,
};
use lowering::{
    Precision,
    cpu::{CpuCompiler, Level, Workspace, program, set_level},
};
use luminal::prelude::Graph;
use plan::{Model, Optimizer, Train};
use support::{
    expressions::{self, Beside, Images},
    golden::assert_close,
    machine::{Executor, Machine, Reference},
    random::{uniform, word},
    subject::{Input, Subject},
};

/// Of a tensor's largest value.
const RELATIVE: f64 = 2e-5;
/// Gradients of a mean over the batch are small themselves.
const ABSOLUTE: f64 = 2e-7;

fn alone() -> MutexGuard<'static, ()> {
    static LOCK: Mutex<()> = Mutex::new(());
    LOCK.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Calls `check` with each level that runs here and its number of lanes.
fn with_levels(mut check: impl FnMut(Level, usize)) {
    let _alone = alone();
    let levels = [(Level::Portable, 16), (Level::Neon, 4), (Level::Avx2, 8), (Level::Avx512, 16), (Level::Amx, 16)];
    let mut count = 0;
    for (level, lanes) in levels {
        if set_level(level) {
            check(level, lanes);
            count += 1;
        }
    }
    assert!(count >= 1, "the portable level runs everywhere");
}

fn is_served(graph: &Graph) -> bool {
    format!("{:?}", program(graph)).contains("block of images")
}

/// Rms of the differences, of that of the values expected.
fn share_apart(got: &[f64], expected: &[f64]) -> f64 {
    let rms = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    rms(&mut got.iter().zip(expected).map(|(a, b)| a - b)) / rms(&mut expected.iter().copied())
}

/// Parameters and layers of a network that is drawn at random.
struct Draw {
    seed: u64,
    drawn: u64,
    inputs: Vec<Input>,
}

impl Draw {
    fn number(&mut self, range: std::ops::RangeInclusive<usize>) -> usize {
        self.drawn += 1;
        range.start() + (word(self.seed, self.drawn) >> 20) as usize % (range.end() - range.start() + 1)
    }

    fn input(&mut self, shape: &[usize], scale: f32, wanted: bool) -> usize {
        let position = self.inputs.len();
        let values = uniform(self.seed * 64 + position as u64, shape.iter().product());
        let values = values.into_iter().map(|v| v * scale).collect();
        self.inputs.push(Input { name: format!("p{position}"), shape: shape.to_vec(), values, wanted });
        position
    }
}

#[derive(Clone, Debug)]
enum Layer {
    Convolution(Convolution, usize, usize),
    Linear(usize, usize),
    Activation(Activation),
    Max(Pool),
    Average(Pool),
    Dropout(Dropout, usize),
    /// The value before the last layer and the value, added.
    Around,
    Flatten,
}

/// Layers for images of one batch, drawn at random, and a cross-entropy at their end.
fn network(seed: u64, images: usize) -> (Subject, String) {
    let mut draw = Draw { seed, drawn: 0, inputs: Vec::new() };
    let (mut c, mut h, mut w) = (draw.number(1..=3), draw.number(5..=13), draw.number(5..=13));
    let x = draw.input(&[images, c, h, w], 1.0, true);
    let key = draw.inputs.len();
    let values = (0..4).map(|i| (word(seed, i) >> 40) as f32).collect();
    draw.inputs.push(Input { name: "key".to_owned(), shape: vec![4], values, wanted: false });
    let mut layers = Vec::new();
    for _ in 0..draw.number(1..=6) {
        let side = h.min(w);
        match draw.number(0..=8) {
            0..=2 => {
                let (kh, kw, padding) = (draw.number(1..=5), draw.number(1..=5), draw.number(0..=2));
                let (kh, kw) = (kh.min(h + 2 * padding), kw.min(w + 2 * padding));
                let a = Convolution { stride: draw.number(1..=3), padding, groups: 1 };
                let o = draw.number(1..=20);
                let weights = draw.input(&[o, c, kh, kw], (3.0 / (c * kh * kw) as f32).sqrt(), true);
                let bias = draw.input(&[o], 0.5, true);
                layers.push(Layer::Convolution(a, weights, bias));
                let extent = |size: usize, kernel: usize| (size + 2 * padding - kernel) / a.stride + 1;
                (c, h, w) = (o, extent(h, kh), extent(w, kw));
            }
            3 => layers.push(Layer::Activation(Activation::Tanh)),
            4 => layers.push(Layer::Activation([Activation::Sigmoid, Activation::Relu][draw.number(0..=1)])),
            5 | 6 => {
                let pool = Pool { size: draw.number(1..=side.min(3)), stride: draw.number(1..=3) };
                layers.push(if draw.number(0..=1) == 0 { Layer::Max(pool) } else { Layer::Average(pool) });
                (h, w) = ((h - pool.size) / pool.stride + 1, (w - pool.size) / pool.stride + 1);
            }
            7 => layers.push(Layer::Dropout(Dropout { rate: 0.3, layer: layers.len() as u32 }, key)),
            _ => {
                layers.push(Layer::Activation(Activation::Tanh));
                layers.push(Layer::Around);
            }
        }
    }
    // Half of the networks go on with a convolution of the whole map.
    if draw.number(0..=1) == 0 {
        let o = draw.number(1..=30);
        let weights = draw.input(&[o, c, h, w], (3.0 / (c * h * w) as f32).sqrt(), true);
        let bias = draw.input(&[o], 0.5, true);
        layers.push(Layer::Convolution(Convolution { stride: 1, padding: 0, groups: 1 }, weights, bias));
        layers.push(Layer::Activation(Activation::Tanh));
        (c, h, w) = (o, 1, 1);
    }
    layers.push(Layer::Flatten);
    let mut features = c * h * w;
    for _ in 0..draw.number(1..=2) {
        let outputs = draw.number(2..=40);
        let weights = draw.input(&[outputs, features], (3.0 / features as f32).sqrt(), true);
        let bias = draw.input(&[outputs], 0.5, true);
        layers.push(Layer::Linear(weights, bias));
        if draw.number(0..=1) == 0 {
            layers.push(Layer::Activation(Activation::Tanh));
        }
        features = outputs;
    }
    let targets = draw.input(&[images, features], 0.5 / features as f32, false);
    for value in &mut draw.inputs[targets].values {
        *value += 1.0 / features as f32;
    }
    let description = format!("seed {seed}, {images} images: {layers:?}");
    let forward = move |build: &mut Builder, inputs: &[Value]| {
        let (mut before, mut y) = (inputs[x].clone(), inputs[x].clone());
        for layer in &layers {
            let next = match layer {
                Layer::Convolution(a, w, b) => build.add(Operator::Convolution(*a), &[&y, &inputs[*w], &inputs[*b]]),
                Layer::Linear(w, b) => build.add(Operator::Linear, &[&y, &inputs[*w], &inputs[*b]]),
                Layer::Activation(kind) => build.add(Operator::Activation(*kind), &[&y]),
                Layer::Max(pool) => build.add(Operator::MaxPool(*pool), &[&y]),
                Layer::Average(pool) => build.add(Operator::AveragePool(*pool), &[&y]),
                Layer::Dropout(dropout, key) => build.add(Operator::Dropout(*dropout), &[&y, &inputs[*key]]),
                Layer::Around => build.add(Operator::Add, &[&before, &y]),
                Layer::Flatten => {
                    let shape = vec![y.shape[0], y.shape[1..].iter().product()];
                    build.add(Operator::Reshape(shape), &[&y])
                }
            };
            before = std::mem::replace(&mut y, next);
        }
        build.add(Operator::CrossEntropy, &[&y, &inputs[targets]])
    };
    (Subject { inputs: draw.inputs, forward: Box::new(forward), dy: None }, description)
}

fn cpu(threads: usize) -> Executor<impl Fn(&mut Graph)> {
    let workspace = Workspace::new(threads);
    Executor(move |graph: &mut Graph| {
        graph.compile((Autograd, CpuCompiler::new(&workspace)), ());
        assert!(is_served(graph), "{:?}", program(graph));
    })
}

#[test]
fn networks_agree_with_the_reference() {
    with_levels(|level, lanes| {
        for seed in 0..120 {
            let images = lanes / 2 + (word(7, seed) >> 30) as usize % 40;
            let (subject, description) = network(seed, images);
            let expected = subject.evaluate(&mut Reference::<f64>::default());
            let got = subject.evaluate(&mut cpu(1 + seed as usize % 3));
            for (name, expected) in &expected {
                assert_close(&format!("{level:?}, {description}: {name}"), &got[name], expected, RELATIVE, ABSOLUTE);
            }
        }
    });
}

#[test]
fn nan_stays_nan() {
    with_levels(|level, lanes| {
        for seed in 0..40 {
            let (mut subject, description) = network(seed, lanes + 1);
            let pixels = subject.inputs[0].values.len();
            // In the last image.
            subject.inputs[0].values[pixels - 3] = f32::NAN;
            let got = subject.evaluate(&mut cpu(2));
            let expected = subject.evaluate(&mut Reference::<f32>::default());
            for (name, expected) in expected.iter().filter(|(name, _)| !name.starts_with("dp")) {
                let nan = |values: &[f64]| values.iter().map(|v| v.is_nan()).collect::<Vec<_>>();
                assert_eq!(nan(&got[name]), nan(expected), "{level:?}, {description}: {name}");
            }
        }
    });
}

/// Bits of everything that outlives a few steps of LeNet-5.
fn train(size: usize, train: &Train, threads: usize) -> Vec<(String, Vec<f32>)> {
    let network = Network::new(&Model { dropout: Some(0.2), ..Model::default() }, [1, 28, 28], 10).expect("LeNet-5");
    let variables = Variables::new(&network, train.optimizer);
    for (i, parameter) in variables.parameters.iter().enumerate() {
        let scale = (3.0 / parameter.fan_in as f32).sqrt();
        let values: Vec<f32> = uniform(i as u64, parameter.values.elements()).iter().map(|v| v * scale).collect();
        parameter.values.write().copy_from_slice(&values);
    }
    let (mut graph, batch) = variables.training_graph(size, train);
    graph.compile((Autograd, CpuCompiler::new(&Workspace::new(threads))), ());
    assert!(is_served(&graph));
    for step in 0..4 {
        batch.images.write().copy_from_slice(&uniform(100 + step, batch.images.elements()));
        for (row, target) in batch.targets.write().chunks_exact_mut(10).enumerate() {
            target.fill(0.0);
            target[row * 7 % 10] = 1.0;
        }
        variables.key.write().copy_from_slice(&[1.0, 2.0, step as f32, 3.0]);
        variables.set_hyper(train, 0.01, step + 1);
        graph.execute();
    }
    let states = variables.persistent().chain([&batch.loss, &batch.logits]);
    states.map(|s| (s.name().to_owned(), s.read().to_vec())).collect()
}

#[test]
fn bits_do_not_depend_on_threads_nor_results_on_levels() {
    for (size, optimizer, gradient_clip) in [(64, Optimizer::Sgd, None), (37, Optimizer::Adamw, Some(0.5))] {
        let settings = Train { optimizer, gradient_clip, ..Train::default() };
        let mut first: Option<Vec<(String, Vec<f32>)>> = None;
        with_levels(|level, _| {
            let expected = train(size, &settings, 1);
            for threads in [2, 3, 4] {
                for ((name, expected), (_, got)) in expected.iter().zip(&train(size, &settings, threads)) {
                    let same = expected.iter().zip(got).all(|(a, b)| a.to_bits() == b.to_bits());
                    assert!(same, "{level:?}, {size} images, {threads} threads: {name}");
                }
            }
            let first = first.get_or_insert_with(|| expected.clone());
            for ((name, first), (_, got)) in first.iter().zip(&expected) {
                let wide = |values: &[f32]| values.iter().map(|&v| f64::from(v)).collect::<Vec<f64>>();
                // Adam's steps have the size of the rate even where a gradient is only rounding.
                let allowed = if optimizer == Optimizer::Sgd { 1e-4 } else { 5e-2 };
                assert_close(&format!("{level:?}: {name}"), &wide(got), &wide(first), allowed, 1e-6);
            }
        });
    }
}

#[test]
fn wide_networks_and_tiny_batches_are_left_to_the_other_lowering() {
    let _alone = alone();
    assert!(set_level(Level::Portable));
    let compiled = |model: &Model, input: [usize; 3], size: usize| {
        let network = Network::new(model, input, 10).expect("a network");
        let (mut graph, _) = Variables::new(&network, Optimizer::Sgd).training_graph(size, &Train::default());
        graph.compile((Autograd, CpuCompiler::new(&Workspace::new(1))), ());
        is_served(&graph)
    };
    let lenet5 = Model::default();
    assert!(compiled(&lenet5, [1, 28, 28], 8) && !compiled(&lenet5, [1, 28, 28], 7));
    assert!(compiled(&lenet5, [3, 32, 32], 64));
    let alexnet = Model { architecture: plan::Architecture::AlexNet, width: Some(0.5), ..Model::default() };
    assert!(!compiled(&alexnet, [3, 32, 32], 64));
}

/// What is lowered kernel by kernel, at shapes that no register tile divides.
#[test]
fn kernels_of_many_channels_agree_with_the_reference() {
    let images = |n, c, h, w| Images { n, c, h, w };
    let convolution = |x: Images, o, kernel, stride, padding, groups| {
        expressions::convolution(5, x, o, (kernel, kernel), Convolution { stride, padding, groups })
    };
    let pool = |size| Pool { size, stride: 2 };
    let subjects = [
        ("minimal filtering, 3x3", convolution(images(5, 100, 9, 7), 83, 3, 1, 1, 1)),
        ("minimal filtering, 5x5", convolution(images(3, 45, 7, 10), 70, 5, 1, 2, 1)),
        ("minimal filtering, two groups", convolution(images(2, 33, 6, 6), 35, 5, 1, 1, 2)),
        ("minimal filtering on sheets", convolution(images(18, 20, 13, 9), 19, 3, 1, 1, 1)),
        ("minimal filtering on sheets, two groups", convolution(images(21, 34, 7, 11), 36, 3, 1, 0, 2)),
        (
            "a narrow kernel",
            expressions::convolution(
                6,
                images(3, 35, 9, 8),
                33,
                (3, 5),
                Convolution { stride: 1, padding: 2, groups: 1 },
            ),
        ),
        ("one image of one line", convolution(images(1, 17, 3, 40), 70, 3, 1, 0, 1)),
        ("windows apart", convolution(images(4, 40, 9, 9), 18, 2, 3, 0, 1)),
        ("direct, with a stride", convolution(images(2, 3, 71, 66), 70, 11, 4, 2, 1)),
        ("direct, with a stride and groups", convolution(images(3, 20, 13, 12), 37, 5, 2, 0, 3)),
        ("linear", expressions::linear(6, 19, 1100, 1000)),
        ("pool of three", expressions::max_pool(7, images(3, 2, 9, 71), pool(3))),
        ("pool of three, even width", expressions::max_pool(8, images(1, 3, 8, 34), pool(3))),
        ("pool of two", expressions::max_pool(9, images(2, 2, 6, 37), pool(2))),
        (
            "pool of normalized values",
            expressions::pool_of_normalized(10, images(3, 2, 9, 71), Some(Activation::Tanh), pool(3), Beside::Nothing),
        ),
    ];
    let expected: Vec<_> = subjects.iter().map(|(_, s)| s.evaluate(&mut Reference::<f64>::default())).collect();
    with_levels(|level, _| {
        let workspace = Workspace::new(2);
        let mut lowered = Executor(|graph: &mut Graph| graph.compile((Autograd, CpuCompiler::new(&workspace)), ()));
        for ((name, subject), expected) in subjects.iter().zip(&expected) {
            let got = subject.evaluate(&mut lowered);
            for (part, expected) in expected.iter().filter(|(part, _)| *part != "loss") {
                assert_close(&format!("{level:?}, {name}: {part}"), &got[part], expected, RELATIVE, 1e-6);
            }
        }
        // Rounding of two operands to bfloat16, magnified where filtering is minimal, in any pairs that registers of a level make.
        let compiler = CpuCompiler::new(&workspace).with_precision(Precision::Bf16);
        let mut rounded = Executor(|graph: &mut Graph| graph.compile((Autograd, compiler.clone()), ()));
        for ((name, subject), expected) in subjects.iter().zip(&expected) {
            let got = subject.evaluate(&mut rounded);
            for (part, expected) in expected.iter().filter(|(part, _)| matches!(part.as_str(), "y" | "dx" | "dw")) {
                let share = share_apart(&got[part], expected);
                assert!(share < 0.016, "{level:?} in 16 bits, {name}: {part}: {share}");
            }
        }
    });
}

/// Tiles, the processor's and emulated ones, for convolutions of any shape that they serve: errors are those of rounding both operands once.
#[test]
fn tiles_agree_with_the_reference_at_any_shape() {
    let subjects: Vec<_> = (0..40)
        .map(|seed| {
            let mut draw = Draw { seed, drawn: 0, inputs: Vec::new() };
            let groups = draw.number(1..=2);
            let [c, o] = [0, 1].map(|_| groups * draw.number(16..=45));
            let kernel = (draw.number(1..=5), draw.number(1..=5));
            let padding = draw.number(0..=kernel.0.min(kernel.1) - 1);
            let stride = if seed % 2 == 0 { 1 } else { draw.number(2..=4) };
            let x = Images { n: draw.number(1..=9), c, h: draw.number(5..=17), w: draw.number(5..=40) };
            let a = Convolution { stride, padding, groups };
            (format!("{x:?}, {o} outputs, {kernel:?}, {a:?}"), expressions::convolution(seed, x, o, kernel, a))
        })
        .collect();
    let expected: Vec<_> = subjects.iter().map(|(_, s)| s.evaluate(&mut Reference::<f64>::default())).collect();
    with_levels(|level, _| {
        if !matches!(level, Level::Portable | Level::Amx) {
            return;
        }
        let workspace = Workspace::new(2);
        let compiler = CpuCompiler::new(&workspace).with_precision(Precision::Bf16);
        let mut rounded = Executor(|graph: &mut Graph| {
            graph.compile((Autograd, compiler.clone()), ());
            assert!(format!("{:?}", program(graph)).contains("tiles of weights"), "tiles serve it");
        });
        for ((name, subject), expected) in subjects.iter().zip(&expected) {
            let got = subject.evaluate(&mut rounded);
            for (part, expected) in expected.iter().filter(|(part, _)| matches!(part.as_str(), "y" | "dx" | "dw")) {
                let share = share_apart(&got[part], expected);
                assert!(share < 0.004, "{level:?}, {name}: {part}: {share}");
            }
        }
    });
}

/// Two linear layers that are trained: weights, their moments, biases, and hyperparameters.
struct Layers {
    sizes: [usize; 3],
    states: [State; 7],
}

impl Layers {
    fn new(sizes: [usize; 3]) -> Self {
        let [inputs, hidden, outputs] = sizes;
        let shapes = [vec![hidden, inputs], vec![outputs, hidden]];
        let state = |name: &str, shape: &[usize]| State::new(name, shape);
        let states = [
            state("w1", &shapes[0]),
            state("w2", &shapes[1]),
            state("m1", &shapes[0]),
            state("m2", &shapes[1]),
            state("b1", &[hidden]),
            state("b2", &[outputs]),
            state("hyper", &[update::HYPER]),
        ];
        Self { sizes, states }
    }

    fn start(&self, seed: u64, machine: &mut impl Machine) {
        for (i, state) in self.states.iter().enumerate() {
            let scale = if i < 2 { (3.0 / state.shape()[1] as f32).sqrt() } else { 0.1 };
            let values: Vec<f32> = uniform(seed * 64 + i as u64, state.elements()).iter().map(|v| v * scale).collect();
            machine.set(state, &values);
        }
        let mut hyper = vec![0.0; update::HYPER];
        (hyper[update::LEARNING_RATE], hyper[update::MOMENTUM], hyper[update::WEIGHT_DECAY]) = (0.5, 0.9, 0.01);
        machine.set(&self.states[6], &hyper);
    }

    /// A step with so many rows, and what goes into it (rows and targets) and comes out of it (the loss and the gradient of the rows).
    /// The normalization keeps it from the lowering of small networks.
    fn step(&self, rows: usize) -> (Box<Graph>, [State; 4]) {
        let [inputs, _, outputs] = self.sizes;
        let state = |name: &str, shape: &[usize]| State::new(name, shape);
        let x_shape = [rows, inputs, 1, 1];
        let batch =
            [state("x", &x_shape), state("targets", &[rows, outputs]), state("loss", &[1]), state("dx", &x_shape)];
        let mut graph = Box::new(Graph::new());
        let mut build = Builder::new(&mut graph);
        let [x, targets] = [0, 1].map(|i| build.source(&batch[i]));
        let [w1, w2, m1, m2, b1, b2, hyper] = self.states.each_ref().map(|state| build.source(state));
        let y = build.add(Operator::LocalResponse(LocalResponse::PAPER), &[&x]);
        let y = build.add(Operator::Reshape(vec![rows, inputs]), &[&y]);
        let y = build.add(Operator::Linear, &[&y, &w1, &b1]);
        let y = build.add(Operator::Activation(Activation::Tanh), &[&y]);
        let y = build.add(Operator::Linear, &[&y, &w2, &b2]);
        let loss = build.add(Operator::CrossEntropy, &[&y, &targets]);
        build.store(&loss, &batch[2]);
        let dx = build.add(Operator::Gradient, &[&loss, &x]);
        build.store(&dx, &batch[3]);
        let gradients = [&w1, &w2].map(|w| build.add(Operator::Gradient, &[&loss, w]));
        let rule = Rule::Sgd { nesterov: false, decay: true, average: false };
        for ((w, gradient), m) in [&w1, &w2].into_iter().zip(&gradients).zip([&m1, &m2]) {
            build.add(Operator::Update(rule), &[w, gradient, &hyper, m]);
        }
        (graph, batch)
    }
}

fn fill(batch: &[State; 4], seed: u64, machine: &mut impl Machine) {
    let [x, targets, ..] = batch;
    machine.set(x, &uniform(seed, x.elements()));
    let classes = targets.shape()[1];
    let classes_of = |row: usize| (row * 7 + seed as usize) % classes;
    let targets_of = |i: usize| f32::from(u8::from(i % classes == classes_of(i / classes)));
    machine.set(targets, &(0..targets.elements()).map(targets_of).collect::<Vec<_>>());
}

/// A step's loss and gradient, and all that is trained after it.
fn outcome(layers: &Layers, batch: &[State; 4], machine: &mut impl Machine) -> Vec<(String, Vec<f64>)> {
    let states = layers.states[..4].iter().chain(&batch[2..]);
    states.map(|state| (state.name().to_owned(), machine.get(state))).collect()
}

fn with_tiles(mut check: impl FnMut(Level)) {
    with_levels(|level, _| {
        if matches!(level, Level::Portable | Level::Amx) {
            check(level);
        }
    });
}

fn lowered(workspace: &std::rc::Rc<std::cell::RefCell<Workspace>>, precision: Precision) -> CpuCompiler {
    CpuCompiler::new(workspace).with_precision(precision)
}

/// Products over kept tiles and the update that writes them, at any number of rows and outputs.
#[test]
fn trained_linear_layers_agree_with_the_reference_at_any_shape() {
    with_tiles(|level| {
        for seed in 0..24 {
            let mut draw = Draw { seed, drawn: 0, inputs: Vec::new() };
            let sizes =
                [32 * draw.number(1..=20), [32, 1][draw.number(0..=1)] * draw.number(2..=9), draw.number(2..=70)];
            let (layers, rows) = (Layers::new(sizes), draw.number(1..=70));
            let (mut graph, batch) = layers.step(rows);
            let mut reference = Reference::<f64>::default();
            layers.start(seed, &mut reference);
            fill(&batch, seed, &mut reference);
            let before: Vec<_> = outcome(&layers, &batch, &mut reference);
            reference.compile(&mut graph);
            reference.run(&mut graph);
            let expected = outcome(&layers, &batch, &mut reference);
            let (mut graph, batch) = layers.step(rows);
            let workspace = Workspace::new(2);
            let mut machine =
                Executor(|graph: &mut Graph| graph.compile((Autograd, lowered(&workspace, Precision::Bf16)), ()));
            layers.start(seed, &mut machine);
            fill(&batch, seed, &mut machine);
            machine.compile(&mut graph);
            let program = format!("{:?}", program(&graph));
            assert!(program.contains("linear operands"), "tiles serve it: {program}");
            machine.run(&mut graph);
            let got = outcome(&layers, &batch, &mut machine);
            for (((name, before), (_, expected)), (_, got)) in before.iter().zip(&expected).zip(&got) {
                // Of weights, what the step has changed.
                let change = |after: &[f64]| after.iter().zip(before).map(|(a, b)| a - b).collect::<Vec<_>>();
                let share = share_apart(&change(got), &change(expected));
                assert!(share < 0.01, "{level:?}, {sizes:?}, {rows} rows: {name}: {share}");
            }
        }
    });
}

/// Tiles that are kept from step to step are those of the weights, whoever has written to these: other programs, and whoever has the state.
#[test]
fn kept_tiles_follow_the_weights() {
    with_tiles(|level| {
        let run = |is_fresh: bool, threads: usize| {
            let layers = Layers::new([288, 96, 10]);
            let mut workspace = Workspace::new(threads);
            let compile = |rows, workspace: &_, precision| {
                let (mut graph, batch) = layers.step(rows);
                graph.compile((Autograd, lowered(workspace, precision)), ());
                (graph, batch)
            };
            layers.start(3, &mut Executor(|_: &mut Graph| ()));
            // Of two sizes, and one that keeps nothing.
            let kinds = [(40, Precision::Bf16), (17, Precision::Bf16), (40, Precision::F32)];
            let mut programs: Vec<_> = kinds.map(|(rows, precision)| compile(rows, &workspace, precision)).into();
            let mut all = Vec::new();
            for (step, kind) in [0, 0, 1, 0, 0, 2, 0, 1, 1, 0].into_iter().enumerate() {
                if is_fresh {
                    workspace = Workspace::new(threads);
                    programs[kind] = compile(kinds[kind].0, &workspace, kinds[kind].1);
                }
                if step == 4 {
                    layers.states[0].write().iter_mut().for_each(|w| *w *= 0.9);
                }
                let (graph, batch) = &mut programs[kind];
                let mut machine = Executor(|_: &mut Graph| ());
                fill(batch, step as u64, &mut machine);
                graph.execute();
                all.push(outcome(&layers, batch, &mut machine));
            }
            all
        };
        let expected = run(true, 1);
        for threads in [1, 3] {
            assert_eq!(run(false, threads), expected, "{level:?}, {threads} threads");
        }
    });
}
